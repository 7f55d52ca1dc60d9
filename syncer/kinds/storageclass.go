package kinds

import (
	"reflect"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sublet-dev/sublet/syncer/translate"
)

const (
	defaultClassAnnotation     = "storageclass.kubernetes.io/is-default-class"
	betaDefaultClassAnnotation = "storageclass.beta.kubernetes.io/is-default-class"
)

// StorageClass is shown to the tenant if its limits allow it, so that claims
// get their defaults and people see what there is.
func StorageClass() translate.Kind[*storagev1.StorageClass] {
	return translate.Kind[*storagev1.StorageClass]{
		GroupVersionKind: storagev1.SchemeGroupVersion.WithKind("StorageClass"),
		Resource:         "storageclasses",
		New:              func() *storagev1.StorageClass { return &storagev1.StorageClass{} },
		NewList:          func() translate.ObjectList { return &storagev1.StorageClassList{} },
		ClusterRules:     []rbacv1.PolicyRule{rule(storagev1.GroupName, readOnly, "storageclasses")},
		ToVirtual:        storageClassToVirtual,
		PruneHost: func(host *storagev1.StorageClass) {
			host.Parameters = nil
			host.MountOptions = nil
		},
	}
}

func storageClassToVirtual(in translate.Input[*storagev1.StorageClass]) (*storagev1.StorageClass, error) {
	host := in.Host.DeepCopy()
	if allowed := in.Tenant.StorageClasses; len(allowed) > 0 && !slices.Contains(allowed, host.Name) {
		return nil, nil
	}
	virtual := &storagev1.StorageClass{
		ObjectMeta: translate.VirtualMeta(host, func(key string) bool {
			return key == defaultClassAnnotation || key == betaDefaultClassAnnotation
		}),
		Provisioner:          host.Provisioner,
		ReclaimPolicy:        host.ReclaimPolicy,
		AllowVolumeExpansion: host.AllowVolumeExpansion,
		VolumeBindingMode:    host.VolumeBindingMode,
		AllowedTopologies:    host.AllowedTopologies,
	}
	if old := in.Virtual; old != nil && (old.Provisioner != virtual.Provisioner ||
		!reflect.DeepEqual(old.ReclaimPolicy, virtual.ReclaimPolicy) ||
		!reflect.DeepEqual(old.VolumeBindingMode, virtual.VolumeBindingMode)) {
		// The host's was made anew, and these cannot be changed: so is this one.
		return nil, nil
	}
	return virtual, nil
}
