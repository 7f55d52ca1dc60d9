package isolation

import (
	"cmp"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// SyncerAccess gives the syncer of a VirtualCluster tenant its rights for the
// custom resources of the limits, and no others: on the objects in the tenant's
// namespace, and to read the definitions.
func SyncerAccess(in Input) []Object {
	resources := in.Tenant.Limits.CustomResources
	if in.Tenant.Type != api.VirtualCluster || len(resources) == 0 {
		return nil
	}
	role := CustomResourcesRole(in, resources)
	definitions := []string{}
	for _, r := range resources {
		definitions = append(definitions, r.Resource+"."+r.Group)
	}
	slices.Sort(definitions)
	clusterRole, clusterBinding := tenantRoleFor(in, ":definitions", []rbacv1.Subject{syncer(in)}, rbacv1.PolicyRule{
		APIGroups: []string{"apiextensions.k8s.io"}, Resources: []string{"customresourcedefinitions"},
		ResourceNames: slices.Compact(definitions), Verbs: []string{"get"},
	})
	return []Object{
		role,
		&rbacv1.RoleBinding{
			TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "RoleBinding"},
			ObjectMeta: meta(in, api.CustomResourcesRole),
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: api.CustomResourcesRole},
			Subjects:   []rbacv1.Subject{syncer(in)},
		},
		clusterRole, clusterBinding,
	}
}

// CustomResourcesRole lets the syncer keep objects of custom resources.
func CustomResourcesRole(in Input, resources []api.CustomResource) *rbacv1.Role {
	groups := map[string][]string{}
	for _, r := range resources {
		groups[r.Group] = append(groups[r.Group], r.Resource)
	}
	role := &rbacv1.Role{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "Role"},
		ObjectMeta: meta(in, api.CustomResourcesRole),
	}
	for group, plurals := range groups {
		slices.Sort(plurals)
		role.Rules = append(role.Rules, rbacv1.PolicyRule{
			APIGroups: []string{group}, Resources: slices.Compact(plurals),
			Verbs: strings.Split("get,list,watch,create,update,patch,delete", ","),
		})
	}
	slices.SortFunc(role.Rules, func(a, b rbacv1.PolicyRule) int { return cmp.Compare(a.APIGroups[0], b.APIGroups[0]) })
	return role
}

func syncer(in Input) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Name: api.ControlPlaneName, Namespace: in.Tenant.Namespace}
}
