package isolation

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// Access gives the members their rights on the host. In a Namespace tenant a
// role is Kubernetes' own ClusterRole of that name in the tenant's namespace.
// In a VirtualCluster tenant it is the way to the control plane and the
// kubeconfig for that role, nothing else: what a member may do inside, the
// tenant's API decides. A Folder has nothing to work in. In each, every member
// may read the Tenant itself, and an admin may manage it.
func Access(in Input) []Object {
	prefix := ""
	if in.Tenant.Type == api.VirtualCluster {
		prefix = api.ConnectClusterRolePrefix
	}
	var objects []Object
	var everyone, admins []rbacv1.Subject
	for _, role := range []api.Role{api.RoleAdmin, api.RoleEdit, api.RoleView} {
		var subjects []rbacv1.Subject
		for _, member := range in.Tenant.Members {
			if member.Role == role {
				subjects = appendNew(subjects, subject(member))
				everyone = appendNew(everyone, subject(member))
			}
		}
		if role == api.RoleAdmin {
			admins = subjects
		}
		if len(subjects) > 0 && in.Tenant.Type != api.Folder {
			objects = append(objects, roleBinding(in, "sublet-"+string(role), prefix+string(role), subjects))
		}
	}
	if in.Tenant.Type == api.Namespace && in.Templates {
		objects = append(objects, roleBinding(in, api.TemplateBinding, string(api.RoleAdmin), []rbacv1.Subject{TemplateAccount(in)}))
	}
	objects = append(objects, tenantRole(in, "", everyone, rbacv1.PolicyRule{
		APIGroups: []string{api.GroupName}, Resources: []string{"tenants"},
		ResourceNames: []string{in.Tenant.Name}, Verbs: []string{"get", "list", "watch"},
	})...)
	if in.Host.Unguarded {
		return objects
	}
	return append(objects, tenantRole(in, ":admin", admins,
		// What of it he may change, and what he may put below it or delete, the
		// admission policy says.
		rbacv1.PolicyRule{
			APIGroups: []string{api.GroupName}, Resources: []string{"tenants"},
			ResourceNames: []string{in.Tenant.Name}, Verbs: []string{"update", "patch", "delete", api.VerbNest, api.VerbManage},
		},
		// A name that is not there yet cannot be in a rule; the admission policy
		// asks for the verb nest on the parent.
		rbacv1.PolicyRule{
			APIGroups: []string{api.GroupName}, Resources: []string{"tenants"}, Verbs: []string{"create"},
		})...)
}

// TemplateAccount is in whose name templates are applied in the tenant's
// namespace: an admin there, and nobody anywhere else. It is named in the
// manager's namespace because whoever may edit the tenant's may use every
// ServiceAccount in it.
func TemplateAccount(in Input) rbacv1.Subject {
	return rbacv1.Subject{
		Kind:      rbacv1.ServiceAccountKind,
		Name:      api.TemplateAccountPrefix + in.Tenant.Name,
		Namespace: in.Host.SystemNamespace,
	}
}

// tenantRole gives rights on this one Tenant to subjects, if there are any.
func tenantRole(in Input, suffix string, subjects []rbacv1.Subject, rules ...rbacv1.PolicyRule) []Object {
	if len(subjects) == 0 {
		return nil
	}
	role, binding := tenantRoleFor(in, suffix, subjects, rules...)
	return []Object{role, binding}
}

// tenantRoleFor gives rights on what is cluster-scoped, as Tenants are; the rules
// name it.
func tenantRoleFor(in Input, suffix string, subjects []rbacv1.Subject, rules ...rbacv1.PolicyRule) (role, binding Object) {
	// The owner reference lets the garbage collector take it away, should the
	// manager be gone.
	clusterMeta := meta(in, "sublet-tenant-"+in.Tenant.Name+suffix)
	clusterMeta.Namespace = ""
	clusterMeta.OwnerReferences = []metav1.OwnerReference{Owner(in.Tenant.Name, in.Tenant.UID)}
	role = &rbacv1.ClusterRole{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRole"},
		ObjectMeta: clusterMeta,
		Rules:      rules,
	}
	binding = &rbacv1.ClusterRoleBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRoleBinding"},
		ObjectMeta: *clusterMeta.DeepCopy(),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: clusterMeta.Name},
		Subjects:   subjects,
	}
	return role, binding
}

func roleBinding(in Input, name, clusterRole string, subjects []rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "RoleBinding"},
		ObjectMeta: meta(in, name),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: clusterRole},
		Subjects:   subjects,
	}
}

func subject(member api.Member) rbacv1.Subject {
	s := rbacv1.Subject{Kind: member.Kind, Name: member.Name}
	if member.Kind == rbacv1.ServiceAccountKind {
		s.Namespace = member.Namespace
		return s
	}
	s.APIGroup = rbacv1.GroupName
	return s
}

func appendNew(subjects []rbacv1.Subject, s rbacv1.Subject) []rbacv1.Subject {
	for _, known := range subjects {
		if known == s {
			return subjects
		}
	}
	return append(subjects, s)
}
