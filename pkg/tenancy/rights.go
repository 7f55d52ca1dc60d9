package tenancy

import (
	"fmt"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// Action is what somebody may want to do with a tenant.
type Action string

const (
	// ActionSee is to read the Tenant.
	ActionSee Action = "see"
	// ActionCreate is to put a new tenant below one.
	ActionCreate Action = "create"
	// ActionMembers is to change its members, its labels, or how its control plane
	// is set up.
	ActionMembers Action = "members"
	// ActionLimits is to change its limits.
	ActionLimits Action = "limits"
	// ActionTemplates is to change which templates it has.
	ActionTemplates Action = "templates"
	// ActionLife is to change its ttl, expiresAt or deletionPolicy.
	ActionLife Action = "life"
	// ActionHeavy is to change the image, the resources or the size of the volume of
	// its control plane.
	ActionHeavy Action = "control-plane"
	// ActionMove is to put it below another one.
	ActionMove Action = "move"
	// ActionDelete is to delete it.
	ActionDelete Action = "delete"
)

// Actions are all there are.
func Actions() []Action {
	return []Action{ActionSee, ActionCreate, ActionMembers, ActionLimits, ActionTemplates, ActionLife, ActionHeavy, ActionMove, ActionDelete}
}

// Right is a verb on a Tenant; on Tenants of any name where it names none.
type Right struct {
	Verb   string `json:"verb"`
	Tenant string `json:"tenant"`
}

// Role is the least role that has the right in the tenant.
func (r Right) Role() api.Role {
	if r.Verb == "get" {
		return api.RoleView
	}
	return api.RoleAdmin
}

// Rights are those that an action takes; all of them. The admission policy
// sublet-tenants asks for the same. A move needs to know where to.
func Rights(action Action, t *api.Tenant, to string) []Right {
	parent := Parent(t)
	if parent == "" {
		parent = api.RootTenant // the root is its own
	}
	patch := Right{"patch", t.Name}
	switch action {
	case ActionSee:
		return []Right{{"get", t.Name}}
	case ActionCreate:
		return []Right{{"create", ""}, {api.VerbNest, t.Name}}
	case ActionMembers:
		return []Right{patch}
	case ActionLimits, ActionTemplates, ActionLife:
		return []Right{patch, {api.VerbManage, parent}}
	case ActionHeavy:
		return []Right{patch, {api.VerbManage, api.RootTenant}}
	case ActionMove:
		rights := []Right{patch, {api.VerbNest, parent}, {api.VerbManage, parent}, {api.VerbNest, to}}
		if t.Spec.Limits != nil || len(t.Spec.Templates) > 0 {
			rights = append(rights, Right{api.VerbManage, to})
		}
		return rights
	case ActionDelete:
		return []Right{{"delete", t.Name}, {api.VerbManage, parent}}
	}
	return nil
}

// Obstacle is why nobody may do something as things are, whatever his rights; empty
// when there is nothing.
func Obstacle(action Action, t *api.Tenant, to string) string {
	root := t.Name == api.RootTenant
	switch {
	case root && (action == ActionMove || action == ActionLife):
		return "the root of the tree stays where it is and does not expire"
	case root && action == ActionDelete && t.Status.Children > 0:
		return "the root of the tree is needed as long as there are tenants"
	case action == ActionDelete && t.Status.Children > 0 && (t.Spec.DeletionPolicy == "" || t.Spec.DeletionPolicy == api.DeletionRefuse):
		return fmt.Sprintf("tenants are below %q: move or delete them first, or set spec.deletionPolicy to Cascade to delete all of them, or to Orphan to leave them as they are", t.Name)
	case action == ActionMove && to == t.Name:
		return "a tenant is not its own parent"
	case action == ActionHeavy && t.Spec.Type != api.VirtualCluster:
		return fmt.Sprintf("%q is of type %s and has no control plane", t.Name, t.Spec.Type)
	}
	return ""
}

// GrantedBy are the members of a tenant that count and that are a user, by name or
// by one of his groups, with a role or a higher one. The highest come first.
func GrantedBy(t *api.Tenant, user string, groups []string, least api.Role) []api.EffectiveMember {
	if t.Status.Effective == nil {
		return nil
	}
	var found []api.EffectiveMember
	for _, role := range []api.Role{api.RoleAdmin, api.RoleEdit, api.RoleView} {
		for _, m := range t.Status.Effective.Members {
			if m.Role == role && isSubject(m, user, groups) {
				found = append(found, m)
			}
		}
		if role == least {
			break
		}
	}
	return found
}

func isSubject(m api.EffectiveMember, user string, groups []string) bool {
	if m.Kind == "Group" {
		for _, group := range groups {
			if group == m.Name {
				return true
			}
		}
		return false
	}
	return SameSubject(api.Member{Kind: m.Kind, Name: m.Name, Namespace: m.Namespace}, api.Member{Kind: "User", Name: user})
}
