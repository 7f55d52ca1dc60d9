package kinds

import (
	"bytes"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// Secret crosses to the host as far as a synced object refers to it, unless it
// came from there.
func Secret() translate.Kind[*corev1.Secret] {
	return translate.Kind[*corev1.Secret]{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Secret"),
		Resource:         "secrets",
		Namespaced:       true,
		New:              func() *corev1.Secret { return &corev1.Secret{} },
		NewList:          func() translate.ObjectList { return &corev1.SecretList{} },
		Rules:            []rbacv1.PolicyRule{rule("", everything, "secrets")},
		WhenReferenced:   true,
		ToHost:           secretToHost,
		Merge:            secretMerge,
		Replace:          secretReplace,
	}
}

func secretToHost(in translate.Input[*corev1.Secret]) (*corev1.Secret, error) {
	virtual := in.Virtual
	if translate.FromHost(virtual) {
		return nil, nil // It is there by that name: see Custom.
	}
	host := &corev1.Secret{
		ObjectMeta: in.Tenant.HostMeta(virtual, corev1.ServiceAccountNameKey, corev1.ServiceAccountUIDKey),
		Type:       virtual.Type,
		Immutable:  virtual.Immutable,
	}
	switch virtual.Type {
	case corev1.SecretTypeServiceAccountToken, corev1.SecretTypeBootstrapToken:
		// Here it is mere data. Under its own type the host's controllers would
		// take it for one of theirs: fill it with a token of the host, or delete
		// it for want of the service account.
		host.Type = corev1.SecretTypeOpaque
	}
	if virtual.Data != nil {
		host.Data = make(map[string][]byte, len(virtual.Data))
		for key, value := range virtual.Data {
			host.Data[key] = bytes.Clone(value)
		}
	}
	return host, nil
}

// secretReplace: a type can only be given anew, and so can what is immutable.
func secretReplace(host, desired *corev1.Secret) bool {
	kind := func(s *corev1.Secret) corev1.SecretType {
		if s.Type == "" {
			return corev1.SecretTypeOpaque
		}
		return s.Type
	}
	return kind(host) != kind(desired) || host.Immutable != nil && *host.Immutable &&
		!equality.Semantic.DeepEqual(
			corev1.Secret{Data: host.Data, Immutable: host.Immutable},
			corev1.Secret{Data: desired.Data, Immutable: desired.Immutable})
}

// secretMerge leaves the type alone: it cannot be changed.
func secretMerge(host, desired *corev1.Secret) *corev1.Secret {
	host.Data = desired.Data
	host.Immutable = desired.Immutable
	return host
}
