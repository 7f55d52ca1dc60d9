package tenancy

import (
	"slices"
	"strings"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// accountPrefix begins the name that the API server gives a ServiceAccount as a
// user: system:serviceaccount:NAMESPACE:NAME.
const accountPrefix = "system:serviceaccount:"

// SameSubject says whether two members are one and the same, whatever their role
// and scope, and however a ServiceAccount is written.
func SameSubject(a, b api.Member) bool {
	a, b = asUser(a), asUser(b)
	return a.Kind == b.Kind && a.Name == b.Name
}

func asUser(m api.Member) api.Member {
	if m.Kind == "ServiceAccount" {
		return api.Member{Kind: "User", Name: accountPrefix + m.Namespace + ":" + m.Name, Role: m.Role, Scope: m.Scope}
	}
	return m
}

// AddMember adds a member to those of a spec, whose kind, name and role together
// tell one from another. Who has the role already has it where either says so. A
// ServiceAccount whose name one of another namespace has there is written as the
// user that it is.
func AddMember(members []api.Member, m api.Member) []api.Member {
	same := slices.IndexFunc(members, func(known api.Member) bool { return known.Role == m.Role && SameSubject(known, m) })
	if same >= 0 {
		if m.Scope != api.ScopeDescendants && members[same].Scope == api.ScopeDescendants {
			members[same].Scope = m.Scope
		}
		return members
	}
	taken := func(known api.Member) bool {
		return known.Kind == m.Kind && known.Name == m.Name && known.Role == m.Role
	}
	if slices.ContainsFunc(members, taken) {
		m = asUser(m)
	}
	return append(members, m)
}

// Subject reads a user's name as a member that is to be added: a ServiceAccount
// where the name is one's.
func Subject(user string) api.Member {
	if account, ok := strings.CutPrefix(user, accountPrefix); ok {
		if namespace, name, ok := strings.Cut(account, ":"); ok {
			return api.Member{Kind: "ServiceAccount", Namespace: namespace, Name: name}
		}
	}
	return api.Member{Kind: "User", Name: user}
}
