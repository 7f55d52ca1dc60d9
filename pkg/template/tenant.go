package template

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// Tenant is what a template may know of the tenant that it is applied in.
type Tenant struct {
	Name string
	// Path leads from the root to the tenant: "root/company/team1".
	Path string
	// Parent is the name of the tenant above.
	Parent string
	// Namespace is the tenant's on the host.
	Namespace string
	Labels    map[string]string
	Members   []api.EffectiveMember
}

// TenantOf is what the status of a tenant says about it.
func TenantOf(t *api.Tenant) Tenant {
	known := Tenant{
		Name: t.Name, Path: t.Status.Path, Parent: t.Spec.Parent, Namespace: t.Status.Namespace, Labels: t.Labels,
	}
	if known.Parent == "" {
		known.Parent = api.RootTenant
	}
	if t.Status.Effective != nil {
		known.Members = t.Status.Effective.Members
	}
	return known
}

// lookup finds the value of a parameter that begins with "tenant.".
type lookup func(name string) (any, error)

const tenantPrefix = "tenant."

func (t Tenant) lookup(name string) (any, error) {
	if key, ok := strings.CutPrefix(name, "tenant.labels."); ok {
		value, there := t.Labels[key]
		if !there {
			return nil, fmt.Errorf("tenant %q has no label %q: give it one, or take it out of the template", t.Name, key)
		}
		return value, nil
	}
	if role, ok := strings.CutPrefix(name, "tenant.members."); ok {
		return t.named(api.Role(role)), nil
	}
	if role, ok := strings.CutPrefix(name, "tenant.subjects."); ok {
		return t.subjects(api.Role(role)), nil
	}
	switch name {
	case "tenant.name":
		return t.Name, nil
	case "tenant.path":
		return t.Path, nil
	case "tenant.parent":
		return t.Parent, nil
	case "tenant.namespace":
		return t.Namespace, nil
	case "tenant.labels":
		labels := map[string]any{}
		for key, value := range t.Labels {
			labels[key] = value
		}
		return labels, nil
	case "tenant.members":
		return t.named(""), nil
	case "tenant.subjects":
		return t.subjects(""), nil
	}
	return nil, unknown(name)
}

// named are the names of the members of a role, or of all.
func (t Tenant) named(role api.Role) []any {
	names := map[string]bool{}
	for _, member := range t.Members {
		if role == "" || member.Role == role {
			names[member.Name] = true
		}
	}
	list := make([]any, 0, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		list = append(list, name)
	}
	return list
}

// subjects are the same as a RoleBinding has them.
func (t Tenant) subjects(role api.Role) []any {
	list := []any{}
	seen := map[api.EffectiveMember]bool{}
	for _, member := range t.Members {
		who := api.EffectiveMember{Kind: member.Kind, Namespace: member.Namespace, Name: member.Name}
		if (role != "" && member.Role != role) || seen[who] {
			continue
		}
		seen[who] = true
		subject := map[string]any{"kind": member.Kind, "name": member.Name}
		if member.Namespace != "" {
			subject["namespace"] = member.Namespace
		} else {
			subject["apiGroup"] = "rbac.authorization.k8s.io"
		}
		list = append(list, subject)
	}
	return list
}

// anyTenant knows which names there are, and no tenant.
func anyTenant(name string) (any, error) {
	for _, prefix := range []string{"tenant.members.", "tenant.subjects."} {
		if role, ok := strings.CutPrefix(name, prefix); ok && !slices.Contains(roles(), api.Role(role)) {
			return nil, unknown(name)
		}
	}
	if key, ok := strings.CutPrefix(name, "tenant.labels."); ok {
		return key, nil
	}
	return Tenant{}.lookup(name)
}

func roles() []api.Role { return []api.Role{api.RoleAdmin, api.RoleEdit, api.RoleView} }

func unknown(name string) error {
	return fmt.Errorf("nothing is known as %q: there are tenant.name, tenant.path, tenant.parent, tenant.namespace, tenant.labels, "+
		"tenant.labels.KEY, tenant.members, tenant.members.ROLE, tenant.subjects and tenant.subjects.ROLE, where ROLE is admin, edit or view", name)
}
