package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// memberTries is how often a change of members is tried when others change the
// tenant at the same time.
const memberTries = 10

func newMembersCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "members",
		Short: "Show, add and remove those who may use a tenant",
		Long: `Show, add and remove those who may use a tenant and what is below it. An admin of a
tenant may do that.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newMembersListCommand(a), newMembersAddCommand(a), newMembersRemoveCommand(a))
	return cmd
}

func newMembersListCommand(a *app) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:               "list NAME",
		Aliases:           []string{"ls"},
		Short:             "Show the members of a tenant, and where they come from",
		Example:           examples(a.name, "%[1]s members list team1"),
		Args:              exactlyOneName,
		ValidArgsFunction: a.completeTenants(false),
		RunE: a.run(func(ctx context.Context, args []string) error {
			if err := out.validate(); err != nil {
				return err
			}
			return a.listMembers(ctx, args[0], out)
		}),
	}
	out.addFlag(cmd, cmd.Flags(), "table", "json", "yaml", "name")
	return cmd
}

func (a *app) listMembers(ctx context.Context, name string, out output) error {
	clients, err := a.host.clients()
	if err != nil {
		return err
	}
	tenant, err := a.get(ctx, clients, name)
	if err != nil {
		return err
	}
	if out.format == "json" || out.format == "yaml" {
		return out.object(a.Stdout, tenant)
	}
	rows := memberRows(tenant)
	if out.format == "name" {
		for _, row := range rows {
			a.printf("%s\n", row[0])
		}
		return nil
	}
	if len(rows) == 0 {
		a.warnf("Tenant %s has no members. Add one with: %s members add %s user:NAME=ROLE\n", name, a.name, name)
		return nil
	}
	return table(a.Stdout, []string{"MEMBER", "ROLE", "FROM", "SCOPE"}, rows)
}

// memberRows are the members that count in a tenant, and those that it names for
// what is below it.
func memberRows(tenant *api.Tenant) [][]string {
	var rows [][]string
	if tenant.Status.Effective != nil {
		for _, m := range tenant.Status.Effective.Members {
			rows = append(rows, []string{memberText(m.Kind, m.Namespace, m.Name), string(m.Role), fromText([]string{m.From}, tenant.Name), api.ScopeSubtree})
		}
	}
	for _, m := range tenant.Spec.Members {
		row := []string{memberText(m.Kind, m.Namespace, m.Name), string(m.Role), "itself", orElse(m.Scope, api.ScopeSubtree)}
		known := slices.ContainsFunc(rows, func(r []string) bool { return r[0] == row[0] && r[1] == row[1] && r[3] == row[3] })
		if !known {
			rows = append(rows, row)
		}
	}
	return rows
}

func newMembersAddCommand(a *app) *cobra.Command {
	scope := api.ScopeSubtree
	cmd := &cobra.Command{
		Use:   "add NAME MEMBER...",
		Short: "Give people, groups or service accounts a role in a tenant and below it",
		Long: `Give people, groups or service accounts a role in a tenant and below it, written as
user:NAME=ROLE, group:NAME=ROLE or serviceaccount:NAMESPACE/NAME=ROLE, with role
admin, edit or view. Who has another role there gets this one instead.`,
		Example: examples(a.name, `
%[1]s members add team1 group:team1@example.com=edit user:lead@example.com=admin
%[1]s members add company group:sre@example.com=view --scope Descendants`),
		Args:              tenantAndMembers,
		ValidArgsFunction: a.completeTenants(false),
		RunE: a.run(func(ctx context.Context, args []string) error {
			if !slices.Contains([]string{api.ScopeSubtree, api.ScopeDescendants}, scope) {
				return usagef("unknown scope %q: use Subtree or Descendants", scope)
			}
			var members []api.Member
			for _, text := range args[1:] {
				member, err := parseMember(text)
				if err != nil {
					return err
				}
				if scope == api.ScopeDescendants {
					member.Scope = scope
				}
				members = append(members, member)
			}
			return a.changeMembers(ctx, args[0], func(tenant *api.Tenant) ([]string, error) { return addMembers(tenant, members), nil })
		}),
	}
	cmd.Flags().StringVar(&scope, "scope", scope, "where the role counts: in the tenant and below (Subtree), or below it only (Descendants)")
	completeValues(cmd, "scope", api.ScopeSubtree, api.ScopeDescendants)
	return cmd
}

func newMembersRemoveCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "remove NAME MEMBER...",
		Aliases: []string{"rm"},
		Short:   "Take roles in a tenant away",
		Long: `Take roles in a tenant away, written as when they were given; without =ROLE all that
the member has there. A member that comes from a tenant above is removed there.`,
		Example:           examples(a.name, "%[1]s members remove team1 user:lead@example.com\n%[1]s members remove team1 group:team1@example.com=edit"),
		Args:              tenantAndMembers,
		ValidArgsFunction: a.completeTenants(false),
		RunE: a.run(func(ctx context.Context, args []string) error {
			var which []api.Member
			for _, text := range args[1:] {
				member, err := parseWhich(text)
				if err != nil {
					return err
				}
				which = append(which, member)
			}
			return a.changeMembers(ctx, args[0], func(tenant *api.Tenant) ([]string, error) { return a.removeMembers(tenant, which) })
		}),
	}
}

func tenantAndMembers(_ *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return errors.New("the name of the tenant is missing")
	case 1:
		return errors.New("the member is missing: user:NAME, group:NAME or serviceaccount:NAMESPACE/NAME")
	}
	return nil
}

// parseWhich reads KIND:NAME or KIND:NAME=ROLE; without a role it is empty.
func parseWhich(text string) (api.Member, error) {
	if at := strings.LastIndex(text, "="); at >= 0 && slices.Contains(roles(), api.Role(text[at+1:])) {
		return parseMember(text)
	}
	member, err := parseMember(text + "=" + string(api.RoleView))
	if err != nil {
		return member, usagef("member %q: write it as user:NAME, group:NAME or serviceaccount:NAMESPACE/NAME, followed by =ROLE for that role only", text)
	}
	member.Role = ""
	return member, nil
}

// addMembers changes the members of a tenant, and says what it did.
func addMembers(tenant *api.Tenant, members []api.Member) []string {
	var done []string
	for _, member := range members {
		subject := memberText(member.Kind, member.Namespace, member.Name)
		at := slices.IndexFunc(tenant.Spec.Members, func(m api.Member) bool {
			return tenancy.SameSubject(m, member) && orElse(m.Scope, api.ScopeSubtree) == orElse(member.Scope, api.ScopeSubtree)
		})
		switch {
		case at < 0:
			tenant.Spec.Members = tenancy.AddMember(tenant.Spec.Members, member)
			done = append(done, fmt.Sprintf("%s is %s of tenant %s", subject, member.Role, tenant.Name))
		case tenant.Spec.Members[at].Role == member.Role:
			done = append(done, fmt.Sprintf("%s is %s of tenant %s already", subject, member.Role, tenant.Name))
		default:
			done = append(done, fmt.Sprintf("%s is %s of tenant %s, no longer %s", subject, member.Role, tenant.Name, tenant.Spec.Members[at].Role))
			tenant.Spec.Members = tenancy.AddMember(slices.Delete(tenant.Spec.Members, at, at+1), member)
		}
	}
	return done
}

// removeMembers changes the members of a tenant, and says what it did.
func (a *app) removeMembers(tenant *api.Tenant, which []api.Member) ([]string, error) {
	var done []string
	for _, member := range which {
		subject := memberText(member.Kind, member.Namespace, member.Name)
		before := len(tenant.Spec.Members)
		tenant.Spec.Members = slices.DeleteFunc(tenant.Spec.Members, func(m api.Member) bool {
			return tenancy.SameSubject(m, member) && (member.Role == "" || m.Role == member.Role)
		})
		if len(tenant.Spec.Members) < before {
			done = append(done, fmt.Sprintf("%s is no longer a member of tenant %s", subject, tenant.Name))
			continue
		}
		err := fmt.Errorf("tenant %q names no member %s", tenant.Name, strings.TrimSuffix(subject+"="+string(member.Role), "="))
		if tenant.Status.Effective != nil {
			for _, m := range tenant.Status.Effective.Members {
				if memberText(m.Kind, m.Namespace, m.Name) == subject && m.From != tenant.Name {
					return nil, hint(err, "It comes from tenant %q. There: %s members remove %s %s", m.From, a.name, m.From, subject)
				}
			}
		}
		return nil, hint(err, "See who is: %s members list %s", a.name, tenant.Name)
	}
	return done, nil
}

// changeMembers changes the members of a tenant as they are when it is written,
// and says what was done.
func (a *app) changeMembers(ctx context.Context, name string, change func(*api.Tenant) ([]string, error)) error {
	clients, err := a.host.clients()
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		tenant, err := a.get(ctx, clients, name)
		if err != nil {
			return err
		}
		before := slices.Clone(tenant.Spec.Members)
		done, err := change(tenant)
		if err != nil {
			return err
		}
		if !slices.Equal(before, tenant.Spec.Members) {
			patch := map[string]any{
				"metadata": map[string]any{"resourceVersion": tenant.ResourceVersion},
				"spec":     map[string]any{"members": tenant.Spec.Members},
			}
			_, err = clients.tenants.Patch(ctx, name, patch, metav1.PatchOptions{FieldManager: fieldOwner})
		}
		switch {
		case apierrors.IsConflict(err) && try < memberTries:
			continue
		case apierrors.IsForbidden(err):
			return hint(fmt.Errorf("you may not change the members of tenant %q: %w", name, err), "Ask an admin of the tenant. Who that is: %s can-i members %s", a.name, name)
		case err != nil:
			return err
		}
		for _, line := range done {
			a.printf("%s\n", line)
		}
		return nil
	}
}
