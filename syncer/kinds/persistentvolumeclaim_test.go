package kinds_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func TestPersistentVolumeClaimFields(t *testing.T) {
	checkFields(t, []fieldList{
		{
			of:         corev1.PersistentVolumeClaim{},
			translated: []string{"ObjectMeta", "Spec"},
			dropped:    []string{"TypeMeta", "Status"},
		},
		{
			of:         corev1.PersistentVolumeClaimSpec{},
			copied:     []string{"AccessModes", "Selector", "Resources", "VolumeMode"},
			translated: []string{"StorageClassName", "DataSource", "DataSourceRef"},
			// A claim that names a volume stays inside.
			dropped: []string{"VolumeName"},
			refused: []string{"VolumeAttributesClassName"},
		},
		{
			// host ─► virtual
			of:         corev1.PersistentVolumeClaimStatus{},
			copied:     []string{"Phase", "AccessModes", "Capacity", "AllocatedResources", "AllocatedResourceStatuses"},
			translated: []string{"Conditions"},
			dropped:    []string{"CurrentVolumeAttributesClassName", "ModifyVolumeStatus"},
		},
	})
}

func FuzzPersistentVolumeClaim(f *testing.F) {
	fuzzToHost(f, kinds.PersistentVolumeClaim(), func(t *testing.T, in translate.Input[translate.Object]) {
		virtual := in.Virtual.DeepCopyObject().(*corev1.PersistentVolumeClaim)
		virtual.Spec.VolumeAttributesClassName = nil
		virtual.Spec.VolumeName = ""
		virtual.Spec.DataSourceRef = nil
		if virtual.Spec.DataSource != nil {
			virtual.Spec.DataSource.Kind, virtual.Spec.DataSource.APIGroup = "PersistentVolumeClaim", nil
		}
		delete(virtual.Annotations, corev1.BetaStorageClassAnnotation)
		virtual.Spec.StorageClassName = new("fast")
		class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast", Annotations: map[string]string{api.AnnotationFromHost: "true"}}}
		host, err := kinds.PersistentVolumeClaim().ToHost(translate.Input[*corev1.PersistentVolumeClaim]{
			Tenant: in.Tenant, Virtual: virtual, Refs: translate.Objects{Virtual: []translate.Object{class}},
		})
		if err != nil {
			t.Fatal(err)
		}
		checkHostObject(t, translate.Input[translate.Object]{Tenant: in.Tenant, Virtual: virtual}, host)
		if host.Spec.VolumeName != "" {
			t.Fatal("a volume of the host was chosen")
		}
		if source := host.Spec.DataSource; source != nil && source.Name != translate.HostName(virtual.Namespace, virtual.Spec.DataSource.Name) {
			t.Fatalf("data source %q is not the host name of %q", source.Name, virtual.Spec.DataSource.Name)
		}
	})
}
