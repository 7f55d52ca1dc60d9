package kinds

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

const (
	snapshotGroup             = "snapshot.storage.k8s.io"
	defaultSnapshotAnnotation = "snapshot.storage.kubernetes.io/is-default-class"
)

// VolumeSnapshotClass of the host is shown to a tenant whose limits let
// VolumeSnapshots cross, if both have the kind and the tenant may use a storage
// class of the same driver.
func VolumeSnapshotClass() translate.Kind[*unstructured.Unstructured] {
	return translate.Kind[*unstructured.Unstructured]{
		GroupVersionKind: schema.GroupVersionKind{Group: snapshotGroup, Version: "v1", Kind: "VolumeSnapshotClass"},
		Resource:         "volumesnapshotclasses",
		New:              newUntyped,
		NewList:          newUntypedList,
		ClusterRules:     []rbacv1.PolicyRule{rule(snapshotGroup, readOnly, "volumesnapshotclasses")},
		Optional:         true,
		Unused: func(tenant translate.Tenant) bool {
			return !slices.ContainsFunc(tenant.CustomResources, func(r api.CustomResource) bool { return r.Group == snapshotGroup && r.Kind == "VolumeSnapshot" })
		},
		Refs:      snapshotClassRefs,
		ToVirtual: snapshotClassToVirtual,
	}
}

// snapshotClassRefs names all storage classes of the host.
func snapshotClassRefs(_, host *unstructured.Unstructured) []translate.Ref {
	if host == nil {
		return nil
	}
	return []translate.Ref{{Side: translate.Host, Kind: schema.GroupKind{Group: storagev1.GroupName, Kind: "StorageClass"}, Read: true, Watch: true}}
}

func snapshotClassToVirtual(in translate.Input[*unstructured.Unstructured]) (*unstructured.Unstructured, error) {
	host := in.Host
	driver := text(host, "driver")
	usable := slices.ContainsFunc(in.Refs.Host, func(o translate.Object) bool {
		class, ok := o.(*storagev1.StorageClass)
		return ok && class.Provisioner == driver && (len(in.Tenant.StorageClasses) == 0 || slices.Contains(in.Tenant.StorageClasses, class.Name))
	})
	if !usable {
		return nil, nil
	}
	policy := text(host, "deletionPolicy")
	if old := in.Virtual; old != nil && (text(old, "driver") != driver || text(old, "deletionPolicy") != policy) {
		// The host's was made anew, and these cannot be changed: so is this one.
		return nil, nil
	}
	virtual := untypedToVirtual(host)
	if value, ok := host.GetAnnotations()[defaultSnapshotAnnotation]; ok {
		annotations := virtual.GetAnnotations()
		annotations[defaultSnapshotAnnotation] = value
		virtual.SetAnnotations(annotations)
	}
	virtual.Object["driver"] = driver
	virtual.Object["deletionPolicy"] = policy
	// Parameters stay behind: they name the host's Secrets.
	return virtual, nil
}
