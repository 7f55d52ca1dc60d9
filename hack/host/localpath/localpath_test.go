package localpath

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/volume"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

func claim() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data", Namespace: "default"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			},
		},
	}
}

func TestLifeOfAVolume(t *testing.T) {
	p := &provisioner{dir: t.TempDir()}
	options := controller.ProvisionOptions{
		StorageClass:     &storagev1.StorageClass{},
		PVName:           "pvc-1",
		PVC:              claim(),
		SelectedNodeName: "node-1",
	}
	pv, state, err := p.Provision(t.Context(), options)
	if err != nil || state != controller.ProvisioningFinished {
		t.Fatalf("provision: %v, %v", state, err)
	}
	path := filepath.Join(p.dir, "pvc-1")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o777 {
		t.Errorf("mode is %o: a container that is not root could not write", got)
	}
	if diff := cmp.Diff(path, pv.Spec.Local.Path); diff != "" {
		t.Errorf("path (-want +got):\n%s", diff)
	}
	if got := pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values; !cmp.Equal(got, []string{"node-1"}) {
		t.Errorf("the volume is on %v", got)
	}
	if err := os.WriteFile(filepath.Join(path, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Delete(t.Context(), pv); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if err := p.Delete(t.Context(), pv); err != nil {
		t.Errorf("deleting it once more: %v", err)
	}
}

func TestProvisionRefuses(t *testing.T) {
	withSelector := claim()
	withSelector.Spec.Selector = &metav1.LabelSelector{}
	cases := map[string]controller.ProvisionOptions{
		"no node":    {PVC: claim(), PVName: "pvc-1"},
		"a selector": {PVC: withSelector, PVName: "pvc-1", SelectedNodeName: "node-1"},
	}
	for name, options := range cases {
		t.Run(name, func(t *testing.T) {
			p := &provisioner{dir: t.TempDir()}
			if _, _, err := p.Provision(t.Context(), options); err == nil {
				t.Error("provisioned")
			}
		})
	}
}

func TestDeleteLeavesOthersAlone(t *testing.T) {
	p := &provisioner{dir: t.TempDir()}
	elsewhere := t.TempDir()
	for name, path := range map[string]string{
		"elsewhere":      elsewhere,
		"all of ours":    p.dir,
		"climbing out":   p.dir + "/../" + filepath.Base(elsewhere),
		"deep inside us": p.dir + "/a/b",
	} {
		t.Run(name, func(t *testing.T) {
			pv := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
				PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			}}
			var ignored *controller.IgnoredError
			if err := p.Delete(t.Context(), pv); !errors.As(err, &ignored) {
				t.Errorf("not ignored: %v", err)
			}
		})
	}
}

// TestEachNodeHasItsVolumes has two provisioners look at the same claims and
// volumes.
func TestEachNodeHasItsVolumes(t *testing.T) {
	here, there := &provisioner{node: "node-1", dir: t.TempDir()}, &provisioner{node: "node-2", dir: t.TempDir()}
	chosen := claim()
	chosen.Annotations = map[string]string{volume.AnnSelectedNode: "node-2"}
	if here.ShouldProvision(t.Context(), chosen) || !there.ShouldProvision(t.Context(), chosen) {
		t.Error("the node that the scheduler chose does not make the volume, or another does")
	}
	pv, _, err := there.Provision(t.Context(), controller.ProvisionOptions{
		StorageClass: &storagev1.StorageClass{}, PVName: "pvc-1", PVC: chosen, SelectedNodeName: "node-2",
	})
	if err != nil {
		t.Fatal(err)
	}
	if here.ShouldDelete(t.Context(), pv) || !there.ShouldDelete(t.Context(), pv) {
		t.Error("the node that has the volume does not delete it, or another does")
	}
	if !here.ShouldProvision(t.Context(), claim()) {
		t.Error("nobody tells of a claim that will never get a node")
	}
}
