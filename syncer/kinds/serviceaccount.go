package kinds

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// ServiceAccount crosses to the host if it has an annotation that the limits
// allow, for whatever on the host gives pods an identity by it (workload
// identity of a cloud). The copy has no rights and no token, as the one that all
// other pods run under; what it is called in the tenant, and its tokens, are the
// tenant's business.
func ServiceAccount() translate.Kind[*corev1.ServiceAccount] {
	return translate.Kind[*corev1.ServiceAccount]{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ServiceAccount"),
		Resource:         "serviceaccounts",
		Namespaced:       true,
		New:              func() *corev1.ServiceAccount { return &corev1.ServiceAccount{} },
		NewList:          func() translate.ObjectList { return &corev1.ServiceAccountList{} },
		Rules:            []rbacv1.PolicyRule{rule("", everything, "serviceaccounts")},
		ToHost:           serviceAccountToHost,
		Merge:            serviceAccountMerge,
	}
}

// accountAnnotations are those of a ServiceAccount that cross.
func accountAnnotations(tenant translate.Tenant, virtual *corev1.ServiceAccount) map[string]string {
	out := map[string]string{}
	for key, value := range virtual.Annotations {
		if slices.Contains(tenant.ServiceAccountAnnotations, key) {
			out[key] = value
		}
	}
	return out
}

func serviceAccountToHost(in translate.Input[*corev1.ServiceAccount]) (*corev1.ServiceAccount, error) {
	meta := in.Virtual.ObjectMeta
	if meta.Annotations = accountAnnotations(in.Tenant, in.Virtual); len(meta.Annotations) == 0 {
		return nil, nil
	}
	return &corev1.ServiceAccount{ObjectMeta: in.Tenant.HostMeta(&meta), AutomountServiceAccountToken: new(bool)}, nil
}

// serviceAccountMerge leaves what the host gives every ServiceAccount, as pull
// secrets.
func serviceAccountMerge(host, desired *corev1.ServiceAccount) *corev1.ServiceAccount {
	host.AutomountServiceAccountToken = desired.AutomountServiceAccountToken
	return host
}
