package migrate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

const (
	// maxMembers of a tenant; its schema says so. So it does of templates.
	maxMembers   = 256
	maxTemplates = 64
	// maxMemberName is the longest name of a member.
	maxMemberName = 253

	serviceAccountPrefix = "system:serviceaccount:"
	podSecurityLabel     = "pod-security.kubernetes.io/enforce"
)

func tenantKey(t *api.Tenant) string     { return "Tenant/" + t.Name }
func templateKey(t *api.Template) string { return "Template/" + t.Name }

// folder makes a Folder of an object, below the root.
func (r *Result) folder(from *unstructured.Unstructured) *api.Tenant {
	name := r.tenantNames.give(from.GetKind(), from.GetName())
	tenant := &api.Tenant{
		TypeMeta:   metav1.TypeMeta{APIVersion: api.GroupVersion.String(), Kind: "Tenant"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: portable(from.GetLabels()), Annotations: portable(from.GetAnnotations())},
		Spec:       api.TenantSpec{Type: api.Folder},
	}
	r.Tenants = append(r.Tenants, tenant)
	r.noteName(from, tenantKey(tenant), "tenant", from.GetName(), name)
	return tenant
}

// namespace makes a Namespace tenant for a namespace that there is; nil where that
// is one of the host's own.
func (r *Result) namespace(about *unstructured.Unstructured, namespace, parent string) *api.Tenant {
	tenant := &api.Tenant{
		TypeMeta: metav1.TypeMeta{APIVersion: api.GroupVersion.String(), Kind: "Tenant"},
		Spec:     api.TenantSpec{Type: api.Namespace, Parent: parent, Namespace: namespace},
	}
	if err := tenancy.ValidateNamespace(tenant, api.SystemNamespace); err != nil {
		r.note(about, "", "namespace %q becomes no tenant: %s", namespace, err.Detail)
		return nil
	}
	for _, other := range r.Tenants {
		if tenancy.HostNamespace(other) == namespace {
			r.note(about, tenantKey(other), "namespace %q has become this tenant already, and becomes no other", namespace)
			return nil
		}
	}
	tenant.Name = r.tenantNames.give("Namespace", namespace)
	if tenant.Name == namespace {
		tenant.Spec.Namespace = ""
	}
	r.Tenants = append(r.Tenants, tenant)
	r.noteName(about, tenantKey(tenant), "tenant", namespace, tenant.Name)
	return tenant
}

func (r *Result) noteName(about *unstructured.Unstructured, of, what, wanted, name string) {
	if name != wanted {
		r.note(about, of, "the %s is named %q, because %q is taken or cannot be the name of a %s", what, name, wanted, what)
	}
}

// portable are the labels or annotations that mean as much on another object:
// those that belong to Kubernetes, to a peer or to what deployed the object do not.
func portable(all map[string]string) map[string]string {
	var kept map[string]string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		domain, _, _ := strings.Cut(key, "/")
		foreign := slices.ContainsFunc([]string{
			"kubernetes.io", "k8s.io", "x-k8s.io", "sublet.dev", "kiosk.sh", "clastix.io", "projectcapsule.dev",
			"argoproj.io", "fluxcd.io", "helm.sh",
		}, func(suffix string) bool { return domain == suffix || strings.HasSuffix(domain, "."+suffix) })
		if foreign && domain != key {
			continue
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[key] = all[key]
	}
	return kept
}

// podSecurity keeps the level that a namespace has now, where that is stricter than
// what it would get.
func (r *Result) podSecurity(namespace *unstructured.Unstructured, tenant *api.Tenant) {
	switch level := api.PodSecurityLevel(namespace.GetLabels()[podSecurityLabel]); level {
	case api.PodSecurityRestricted:
		limits(tenant).PodSecurity = level
	case api.PodSecurityPrivileged:
		r.note(namespace, tenantKey(tenant), "it enforces the Pod Security level privileged, and gets baseline as a tenant: where it needs privileged pods, "+
			"set limits.podSecurity to privileged on the one directly below the root that it is, or is below")
	}
}

func limits(t *api.Tenant) *api.Limits {
	if t.Spec.Limits == nil {
		t.Spec.Limits = &api.Limits{}
	}
	return t.Spec.Limits
}

// roleOf is the role that a ClusterRole becomes.
func roleOf(clusterRole string) (api.Role, bool) {
	switch clusterRole {
	case "admin", "cluster-admin":
		return api.RoleAdmin, true
	case "edit":
		return api.RoleEdit, true
	case "view":
		return api.RoleView, true
	}
	return "", false
}

// binding is subjects that had a role, and where.
type binding struct {
	about *unstructured.Unstructured
	// field says where in about the subjects stand.
	field    string
	subjects []rbacv1.Subject
	role     api.Role
	scope    string
	// namespace is that of ServiceAccounts that name none.
	namespace string
}

// members makes members of subjects. Of two roles of one subject the higher stays.
func (r *Result) members(tenant *api.Tenant, b binding) {
	for i, subject := range b.subjects {
		member := api.Member{Kind: subject.Kind, Name: subject.Name, Role: b.role, Scope: b.scope}
		where := fmt.Sprintf("%s[%d]", b.field, i)
		if subject.Kind == rbacv1.ServiceAccountKind {
			member.Namespace = subject.Namespace
			if account, ok := strings.CutPrefix(subject.Name, serviceAccountPrefix); ok {
				member.Namespace, member.Name, _ = strings.Cut(account, ":")
			}
			if member.Namespace == "" {
				member.Namespace = b.namespace
			}
			if member.Namespace == "" || member.Name == "" {
				r.note(b.about, tenantKey(tenant), "%s (ServiceAccount %q) becomes no member: it does not say of which namespace it is", where, subject.Name)
				continue
			}
		}
		switch {
		case !slices.Contains([]string{rbacv1.UserKind, rbacv1.GroupKind, rbacv1.ServiceAccountKind}, subject.Kind):
			r.note(b.about, tenantKey(tenant), "%s (%q) becomes no member: its kind %q is none of User, Group and ServiceAccount", where, subject.Name, subject.Kind)
			continue
		case member.Name == "" || len(member.Name) > maxMemberName:
			r.note(b.about, tenantKey(tenant), "%s becomes no member: a name has 1 to %d characters", where, maxMemberName)
			continue
		}
		known := slices.IndexFunc(tenant.Spec.Members, func(m api.Member) bool {
			return tenancy.SameSubject(m, member) && m.Scope == member.Scope
		})
		switch {
		case known >= 0:
			if rank(member.Role) > rank(tenant.Spec.Members[known].Role) {
				tenant.Spec.Members = tenancy.AddMember(slices.Delete(tenant.Spec.Members, known, known+1), member)
			}
		case len(tenant.Spec.Members) == maxMembers:
			r.note(b.about, tenantKey(tenant), "%s (%s %q, role %s) becomes no member: a tenant has at most %d; make groups of them", where, member.Kind, member.Name, member.Role, maxMembers)
		default:
			tenant.Spec.Members = tenancy.AddMember(tenant.Spec.Members, member)
		}
	}
}

func rank(role api.Role) int {
	return slices.Index([]api.Role{api.RoleView, api.RoleEdit, api.RoleAdmin}, role)
}

// subjectsText names subjects for people.
func subjectsText(subjects []rbacv1.Subject) string {
	texts := make([]string, 0, len(subjects))
	for _, s := range subjects {
		texts = append(texts, fmt.Sprintf("%s %q", s.Kind, s.Name))
	}
	if len(texts) == 0 {
		return "nobody"
	}
	return strings.Join(texts, ", ")
}

// quota adds bounds to the tenant's, the smaller of two counting.
func (r *Result) quota(about *unstructured.Unstructured, field string, tenant *api.Tenant, spec corev1.ResourceQuotaSpec) {
	if len(spec.Scopes) > 0 || spec.ScopeSelector != nil {
		r.note(about, tenantKey(tenant), "%s bounds only what its scopes select, and is left out: a tenant's quota bounds all there is", field)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Hard)) {
		amount := spec.Hard[name]
		// A probe for this one, so that the others stay.
		probe := &api.Tenant{Spec: api.TenantSpec{Limits: &api.Limits{Quota: corev1.ResourceList{name: amount}}}}
		if errs := tenancy.ValidateLimits(probe); len(errs) > 0 {
			r.note(about, tenantKey(tenant), "%s.hard[%s]=%s is left out: %s", field, name, amount.String(), errs[0].Detail)
			continue
		}
		l := limits(tenant)
		if before, ok := l.Quota[name]; ok && before.Cmp(amount) <= 0 {
			continue
		}
		if l.Quota == nil {
			l.Quota = corev1.ResourceList{}
		}
		l.Quota[name] = amount
	}
}
