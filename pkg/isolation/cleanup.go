package isolation

import (
	rbacv1 "k8s.io/api/rbac/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// Cleanup lets the manager empty this namespace of whatever is in it. Outside
// of tenants' namespaces it has no such right.
func Cleanup(in Input) []Object {
	return []Object{roleBinding(in, "sublet-cleanup", api.CleanupClusterRole, []rbacv1.Subject{{
		Kind:      rbacv1.ServiceAccountKind,
		Name:      api.ManagerName,
		Namespace: in.Host.SystemNamespace,
	}})}
}
