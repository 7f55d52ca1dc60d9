package kinds_test

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func TestPersistentVolumeFields(t *testing.T) {
	checkFields(t, []fieldList{
		{
			of:         corev1.PersistentVolume{},
			translated: []string{"ObjectMeta", "Spec", "Status"},
			dropped:    []string{"TypeMeta"},
		},
		{
			of:         corev1.PersistentVolumeSpec{},
			copied:     []string{"Capacity", "AccessModes", "PersistentVolumeReclaimPolicy", "StorageClassName", "VolumeMode"},
			translated: []string{"PersistentVolumeSource", "ClaimRef", "NodeAffinity"},
			dropped:    []string{"MountOptions", "VolumeAttributesClassName"},
		},
		{
			of:         corev1.CSIPersistentVolumeSource{},
			copied:     []string{"Driver", "FSType", "ReadOnly"},
			translated: []string{"VolumeHandle"},
			dropped: []string{
				"VolumeAttributes", "ControllerPublishSecretRef", "NodeStageSecretRef", "NodePublishSecretRef",
				"ControllerExpandSecretRef", "NodeExpandSecretRef",
			},
		},
		{
			of:         corev1.PersistentVolumeStatus{},
			copied:     []string{"Phase"},
			translated: []string{"LastPhaseTransitionTime"},
			dropped:    []string{"Message", "Reason"},
		},
	})
}

// FuzzPersistentVolume: whatever a volume says, the tenant sees one of its own,
// and nothing of where the data is.
func FuzzPersistentVolume(f *testing.F) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, size := range []int{0, 256, 4096, 16384, 16384, 65536} {
		seed := make([]byte, size)
		for i := range seed {
			seed[i] = byte(random.Uint32())
		}
		f.Add(seed, size%512 == 0)
	}
	f.Fuzz(func(t *testing.T, data []byte, ours bool) {
		tenant := translate.NewTenant(testTenant(), nil)
		claim := &corev1.PersistentVolumeClaim{
			ObjectMeta: tenant.HostMeta(&metav1.ObjectMeta{Namespace: "default", Name: "data", UID: "virtual-uid"}),
			Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "volume"},
		}
		claim.UID = "claim-uid"
		host := &corev1.PersistentVolume{}
		newFiller(data).Fill(host)
		host.Name = "volume"
		if ours {
			host.Spec.ClaimRef = &corev1.ObjectReference{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID}
		}
		in := translate.Input[*corev1.PersistentVolume]{Tenant: tenant, Host: host, Refs: translate.Objects{Host: []translate.Object{claim}}}
		before := host.DeepCopy()
		virtual, err := kinds.PersistentVolume().ToVirtual(in)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, host); diff != "" {
			t.Fatalf("ToVirtual changed the host volume:\n%s", diff)
		}
		if !ours {
			if virtual != nil {
				t.Fatalf("a volume of somebody else is shown, its claim is %v", host.Spec.ClaimRef)
			}
			return
		}
		if !translate.FromHost(virtual) || virtual.Spec.ClaimRef.Namespace != "default" || virtual.Spec.ClaimRef.Name != "data" || virtual.Spec.ClaimRef.UID != "virtual-uid" {
			t.Fatalf("claim %+v, annotations %v", virtual.Spec.ClaimRef, virtual.Annotations)
		}
		want := corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{VolumeHandle: "volume"}}
		want.CSI.Driver = virtual.Spec.CSI.Driver
		if csi := host.Spec.CSI; csi != nil {
			want.CSI.FSType, want.CSI.ReadOnly = csi.FSType, csi.ReadOnly
		}
		if !reflect.DeepEqual(virtual.Spec.PersistentVolumeSource, want) {
			t.Fatalf("source %+v", virtual.Spec.PersistentVolumeSource)
		}
		// The second look finds nothing left to write.
		in.Virtual = virtual
		again, err := kinds.PersistentVolume().ToVirtual(in)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(virtual, again); diff != "" {
			t.Fatalf("it does not settle:\n%s", diff)
		}
	})
}

// TestVolumeParting: what is protected while it is bound is let go.
func TestVolumeParting(t *testing.T) {
	bound := &corev1.PersistentVolume{Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound}}
	if got := kinds.PersistentVolume().Parting(bound).Status.Phase; got != corev1.VolumeReleased || bound.Status.Phase != corev1.VolumeBound {
		t.Errorf("phase %s of one that was %s", got, bound.Status.Phase)
	}
}
