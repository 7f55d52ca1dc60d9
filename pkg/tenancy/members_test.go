package tenancy_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

func TestAddMember(t *testing.T) {
	account := func(namespace, name string, role api.Role) api.Member {
		return api.Member{Kind: "ServiceAccount", Namespace: namespace, Name: name, Role: role}
	}
	ann := api.Member{Kind: "User", Name: "ann", Role: api.RoleView}
	below := ann
	below.Scope = api.ScopeDescendants
	asUser := api.Member{Kind: "User", Name: "system:serviceaccount:b:bot", Role: api.RoleEdit}
	cases := map[string]struct {
		before []api.Member
		add    api.Member
		after  []api.Member
	}{
		"the first":                {nil, ann, []api.Member{ann}},
		"again":                    {[]api.Member{ann}, ann, []api.Member{ann}},
		"below as well":            {[]api.Member{ann}, below, []api.Member{ann}},
		"not only below":           {[]api.Member{below}, ann, []api.Member{ann}},
		"a group of the same name": {[]api.Member{ann}, api.Member{Kind: "Group", Name: "ann", Role: api.RoleView}, []api.Member{ann, {Kind: "Group", Name: "ann", Role: api.RoleView}}},
		"another role":             {[]api.Member{ann}, api.Member{Kind: "User", Name: "ann", Role: api.RoleEdit}, []api.Member{ann, {Kind: "User", Name: "ann", Role: api.RoleEdit}}},
		"an account of another namespace": {
			[]api.Member{account("a", "bot", api.RoleEdit)}, account("b", "bot", api.RoleEdit),
			[]api.Member{account("a", "bot", api.RoleEdit), asUser},
		},
		"that one again": {
			[]api.Member{account("a", "bot", api.RoleEdit), asUser}, account("b", "bot", api.RoleEdit),
			[]api.Member{account("a", "bot", api.RoleEdit), asUser},
		},
		"that one with another role": {
			[]api.Member{account("a", "bot", api.RoleEdit)}, account("b", "bot", api.RoleView),
			[]api.Member{account("a", "bot", api.RoleEdit), account("b", "bot", api.RoleView)},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.after, tenancy.AddMember(slices.Clone(c.before), c.add)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSubject(t *testing.T) {
	for user, want := range map[string]api.Member{
		"ann":                        {Kind: "User", Name: "ann"},
		"system:serviceaccount:a:b":  {Kind: "ServiceAccount", Namespace: "a", Name: "b"},
		"system:serviceaccount:odd":  {Kind: "User", Name: "system:serviceaccount:odd"},
		"system:node:serviceaccount": {Kind: "User", Name: "system:node:serviceaccount"},
	} {
		got := tenancy.Subject(user)
		if got != want {
			t.Errorf("%s is %+v, not %+v", user, got, want)
		}
		if !tenancy.SameSubject(got, api.Member{Kind: "User", Name: user}) {
			t.Errorf("%s is not itself", user)
		}
	}
}
