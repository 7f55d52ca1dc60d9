package kinds

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// ConfigMap crosses to the host as far as a synced object refers to it, the
// tenant's kube-root-ca.crt among them, unless it came from there.
func ConfigMap() translate.Kind[*corev1.ConfigMap] {
	return translate.Kind[*corev1.ConfigMap]{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		Resource:         "configmaps",
		Namespaced:       true,
		New:              func() *corev1.ConfigMap { return &corev1.ConfigMap{} },
		NewList:          func() translate.ObjectList { return &corev1.ConfigMapList{} },
		Rules:            []rbacv1.PolicyRule{rule("", everything, "configmaps")},
		WhenReferenced:   true,
		ToHost:           configMapToHost,
		Merge:            configMapMerge,
		Replace:          configMapReplace,
	}
}

func configMapToHost(in translate.Input[*corev1.ConfigMap]) (*corev1.ConfigMap, error) {
	virtual := in.Virtual
	if translate.FromHost(virtual) {
		return nil, nil // It is there by that name: see Custom.
	}
	return &corev1.ConfigMap{
		ObjectMeta: in.Tenant.HostMeta(virtual),
		Data:       maps.Clone(virtual.Data),
		BinaryData: maps.Clone(virtual.BinaryData),
		Immutable:  virtual.Immutable,
	}, nil
}

func configMapMerge(host, desired *corev1.ConfigMap) *corev1.ConfigMap {
	host.Data = desired.Data
	host.BinaryData = desired.BinaryData
	host.Immutable = desired.Immutable
	return host
}

// configMapReplace: what is immutable can only be made anew.
func configMapReplace(host, desired *corev1.ConfigMap) bool {
	return host.Immutable != nil && *host.Immutable &&
		!equality.Semantic.DeepEqual(
			corev1.ConfigMap{Data: host.Data, BinaryData: host.BinaryData, Immutable: host.Immutable},
			corev1.ConfigMap{Data: desired.Data, BinaryData: desired.BinaryData, Immutable: desired.Immutable})
}
