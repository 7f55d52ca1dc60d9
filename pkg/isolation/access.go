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
// tenant's API decides. In both, every member may read the Tenant itself.
func Access(in Input) []Object {
	if in.Tenant.Type == api.Folder {
		return nil
	}
	prefix := ""
	if in.Tenant.Type == api.VirtualCluster {
		prefix = api.ConnectClusterRolePrefix
	}
	var objects []Object
	var everyone []rbacv1.Subject
	for _, role := range []api.Role{api.RoleAdmin, api.RoleEdit, api.RoleView} {
		var subjects []rbacv1.Subject
		for _, member := range in.Tenant.Members {
			if member.Role == role {
				subjects = appendNew(subjects, subject(member))
				everyone = appendNew(everyone, subject(member))
			}
		}
		if len(subjects) > 0 {
			objects = append(objects, roleBinding(in, "sublet-"+string(role), prefix+string(role), subjects))
		}
	}
	if len(everyone) == 0 {
		return nil
	}
	return append(objects, readTenant(in, everyone)...)
}

// readTenant lets members get this one Tenant. Tenants are cluster-scoped, so
// the role is too; it names the Tenant.
func readTenant(in Input, subjects []rbacv1.Subject) []Object {
	// Cluster-scoped: the owner reference lets the garbage collector take it
	// away, should the manager be gone.
	clusterMeta := meta(in, "sublet-tenant-"+in.Tenant.Name)
	clusterMeta.Namespace = ""
	clusterMeta.OwnerReferences = []metav1.OwnerReference{Owner(in.Tenant.Name, in.Tenant.UID)}
	return []Object{
		&rbacv1.ClusterRole{
			TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRole"},
			ObjectMeta: clusterMeta,
			Rules: []rbacv1.PolicyRule{{
				APIGroups: []string{api.GroupName}, Resources: []string{"tenants"},
				ResourceNames: []string{in.Tenant.Name}, Verbs: []string{"get"},
			}},
		},
		&rbacv1.ClusterRoleBinding{
			TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRoleBinding"},
			ObjectMeta: *clusterMeta.DeepCopy(),
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: clusterMeta.Name},
			Subjects:   subjects,
		},
	}
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
