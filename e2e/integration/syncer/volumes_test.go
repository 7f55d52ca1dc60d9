package syncer_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sublet-dev/sublet/syncer/translate"
)

func volume(name, class string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"company.example/array": "7"}},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			StorageClassName:              class,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: "disk.example.com", VolumeHandle: "secret-handle",
				NodeStageSecretRef: &corev1.SecretReference{Namespace: "kube-system", Name: "credentials"},
			}},
		},
	}
}

func claim(name string, class *string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: class,
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
}

func (p *planes) virtualClaim(name string) func(context.Context) (*corev1.PersistentVolumeClaim, error) {
	return func(ctx context.Context) (*corev1.PersistentVolumeClaim, error) {
		return p.virtual.CoreV1().PersistentVolumeClaims(space).Get(ctx, name, metav1.GetOptions{})
	}
}

func (p *planes) hostClaim(name string) func(context.Context) (*corev1.PersistentVolumeClaim, error) {
	return func(ctx context.Context) (*corev1.PersistentVolumeClaim, error) {
		return p.host.CoreV1().PersistentVolumeClaims(hostNamespace).Get(ctx, translate.HostName(space, name), metav1.GetOptions{})
	}
}

func (p *planes) virtualVolume(name string) func(context.Context) (*corev1.PersistentVolume, error) {
	return func(ctx context.Context) (*corev1.PersistentVolume, error) {
		return p.virtual.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	}
}

func (p *planes) createClaim(t *testing.T, claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	t.Helper()
	made, err := p.virtual.CoreV1().PersistentVolumeClaims(space).Create(t.Context(), claim, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func bound(c *corev1.PersistentVolumeClaim) bool { return c.Status.Phase == corev1.ClaimBound }

// TestVolumes: volumes of the host that are bound to the tenant's claims, and
// those that the tenant makes itself.
func TestVolumes(t *testing.T) {
	p := startPlanes(t)
	fast := "fast"
	waitFor(t, "class", func(ctx context.Context) (*storagev1.StorageClass, error) {
		return p.virtual.StorageV1().StorageClasses().Get(ctx, fast, metav1.GetOptions{})
	}, nil)

	t.Run("of the host", func(t *testing.T) {
		ctx := t.Context()
		for _, name := range []string{"host-volume", "foreign"} {
			if _, err := p.host.CoreV1().PersistentVolumes().Create(ctx, volume(name, map[string]string{"host-volume": fast, "foreign": "other"}[name]), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		made := p.createClaim(t, claim("data", &fast))
		back := waitFor(t, "virtual claim is bound", p.virtualClaim("data"), bound)
		shown, err := p.virtualVolume(back.Spec.VolumeName)(ctx)
		if err != nil {
			t.Fatalf("the claim was bound before its volume was there: %v", err)
		}
		if shown.Name != "host-volume" || shown.Spec.ClaimRef.UID != made.UID || shown.Spec.ClaimRef.Namespace != space || shown.Spec.Capacity.Storage().String() != "1Gi" {
			t.Errorf("volume %q, claim %+v, size %v", shown.Name, shown.Spec.ClaimRef, shown.Spec.Capacity)
		}
		if csi := shown.Spec.CSI; csi.VolumeHandle != shown.Name || csi.NodeStageSecretRef != nil || len(shown.Labels) > 0 {
			t.Errorf("it tells of the host: %+v, labels %v", csi, shown.Labels)
		}
		waitFor(t, "the volume is bound", p.virtualVolume("host-volume"), func(v *corev1.PersistentVolume) bool { return v.Status.Phase == corev1.VolumeBound })

		// A claim grows, where the class lets it; who provisions says how far it is.
		if _, err := p.host.StorageV1().StorageClasses().Patch(ctx, fast, "application/merge-patch+json", []byte(`{"allowVolumeExpansion":true}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the tenant's claim asks for more", func(ctx context.Context) error {
			_, err := p.virtual.CoreV1().PersistentVolumeClaims(space).Patch(ctx, "data", "application/merge-patch+json", []byte(`{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}`), metav1.PatchOptions{})
			return err
		})
		grown := waitFor(t, "so does the host's", p.hostClaim("data"), func(c *corev1.PersistentVolumeClaim) bool {
			return c.Spec.Resources.Requests.Storage().String() == "2Gi"
		})
		grown.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}
		if _, err := p.host.CoreV1().PersistentVolumeClaims(hostNamespace).UpdateStatus(ctx, grown, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the tenant sees what it has", p.virtualClaim("data"), func(c *corev1.PersistentVolumeClaim) bool {
			return c.Status.Capacity.Storage().String() == "2Gi"
		})

		// The tenant's change does not last; its deletion waits for the claim, as
		// everywhere.
		volumes := p.virtual.CoreV1().PersistentVolumes()
		if _, err := volumes.Patch(ctx, "host-volume", "application/merge-patch+json", []byte(`{"metadata":{"labels":{"mine":"a"}},"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "as on the host", p.virtualVolume("host-volume"), func(v *corev1.PersistentVolume) bool {
			return v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRetain && v.Labels["mine"] == ""
		})
		if err := volumes.Delete(ctx, "host-volume", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if v, err := p.virtualVolume("host-volume")(ctx); err != nil || v.DeletionTimestamp == nil {
			t.Errorf("the volume of a bound claim: %v", err)
		}
		if err := p.virtual.CoreV1().PersistentVolumeClaims(space).Delete(ctx, "data", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		gone(t, "host claim", p.hostClaim("data"))
		gone(t, "virtual volume", p.virtualVolume("host-volume"))
		if v, err := p.host.CoreV1().PersistentVolumes().Get(ctx, "host-volume", metav1.GetOptions{}); err != nil || v.DeletionTimestamp != nil {
			t.Errorf("the volume on the host, which is to be kept: %v", err)
		}
	})

	t.Run("rights", func(t *testing.T) {
		asSyncer := client(t, p.asSyncer)
		if _, err := asSyncer.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("the syncer may list the host's volumes: %v", err)
		}
		if _, err := asSyncer.CoreV1().PersistentVolumes().Watch(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("the syncer may watch the host's volumes: %v", err)
		}
		if _, err := p.virtualVolume("foreign")(t.Context()); !apierrors.IsNotFound(err) {
			t.Errorf("a volume of somebody else is shown: %v", err)
		}
	})

	// Each of these would be bound on the host, and is not; where the tenant has
	// such a volume, it is bound to that.
	own := "mine"
	named := claim("by-name", new("named"))
	named.Spec.VolumeName = "wanted"
	ofHostClass := claim("by-name-of-class", &fast)
	ofHostClass.Spec.VolumeName = "wanted-fast"
	selected := claim("by-label", &own)
	selected.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"company.example/array": "7"}}
	cases := map[string]struct {
		claim  *corev1.PersistentVolumeClaim
		volume *corev1.PersistentVolume
	}{
		"by name":                    {named, volume("wanted", "named")},
		"by name, of a host's class": {ofHostClass, volume("wanted-fast", fast)},
		"by label":                   {selected, volume("selected", own)},
		"by class":                   {claim("by-class", new("manual")), volume("manual", "manual")},
		"without a class":            {claim("classless", new("")), volume("classless", "")},
	}
	// Side by side: the binder looks at claims every 15 s.
	for _, test := range cases {
		if _, err := p.host.CoreV1().PersistentVolumes().Create(t.Context(), test.volume, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		p.createClaim(t, test.claim)
	}
	for reason, test := range cases {
		waitFor(t, reason+": the tenant's binder has looked at it", p.virtualClaim(test.claim.Name), func(c *corev1.PersistentVolumeClaim) bool { return c.Status.Phase == corev1.ClaimPending })
	}
	// What comes later has been looked at later.
	later := claim("later", &fast)
	later.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("9Ti")
	p.createClaim(t, later)
	waitFor(t, "a later claim is on the host", p.hostClaim("later"), nil)
	for reason, test := range cases {
		if c, err := p.hostClaim(test.claim.Name)(t.Context()); !apierrors.IsNotFound(err) {
			t.Fatalf("%s: the claim is on the host: %v, %v", reason, c, err)
		}
		if v, err := p.host.CoreV1().PersistentVolumes().Get(t.Context(), test.volume.Name, metav1.GetOptions{}); err != nil || v.Spec.ClaimRef != nil {
			t.Fatalf("%s: the volume on the host is taken: %v", reason, err)
		}
		if _, err := p.virtual.CoreV1().PersistentVolumes().Create(t.Context(), test.volume, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for reason, test := range cases {
		t.Run(reason, func(t *testing.T) {
			ctx := t.Context()
			within(t, 2*patience, "the claim is bound to the tenant's volume", func(ctx context.Context) error {
				c, err := p.virtualClaim(test.claim.Name)(ctx)
				if err == nil && (!bound(c) || c.Spec.VolumeName != test.volume.Name) {
					err = fmt.Errorf("%s, volume %q", c.Status.Phase, c.Spec.VolumeName)
				}
				return err
			})
			if err := p.virtual.CoreV1().PersistentVolumeClaims(space).Delete(ctx, test.claim.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the volume is released", p.virtualVolume(test.volume.Name), func(v *corev1.PersistentVolume) bool { return v.Status.Phase == corev1.VolumeReleased })
			if err := p.virtual.CoreV1().PersistentVolumes().Delete(ctx, test.volume.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			gone(t, "the tenant's volume", p.virtualVolume(test.volume.Name))
		})
	}
}
