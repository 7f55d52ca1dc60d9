package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// canIOptions are the flags of can-i.
type canIOptions struct {
	*app
	action, tenant, to string
	list               bool
	output             output
}

func newCanICommand(a *app) *cobra.Command {
	o := &canIOptions{app: a}
	cmd := &cobra.Command{
		Use:   "can-i ACTION [TENANT]",
		Short: "Tell whether you may do something with a tenant, and why or what is missing",
		Long: `Tell whether you may do something with a tenant, which member of which tenant gives you
the right, or what is missing, on which tenant, and who can give it. Without TENANT it
is about the root of the tree. The exit code is 1 when the answer is no.

Actions:
  see            read the Tenant
  create         put a new tenant below it
  members        change its members, its labels, or how its control plane is set up
  limits         change its limits
  templates      change which templates it has
  life           change its ttl, expiresAt or deletionPolicy
  control-plane  change the image, resources or volume size of its control plane
  move           put it below another tenant: --to
  delete         delete it

What is refused inside of a tenant for want of quota "quota" tells, and what other
limits there are "describe". Ask about somebody else with --as and --as-group.`,
		Example: examples(a.name, `
%[1]s can-i create team1
%[1]s can-i limits team1
%[1]s can-i move shop --to team2
%[1]s can-i --list team1
%[1]s can-i delete shop --as lead@example.com`),
		Args: func(_ *cobra.Command, args []string) error { return o.parse(args) },
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 && !o.list {
				return actionNames(), cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeTenants(false)(cmd, nil, typed)
		},
		RunE: a.run(func(ctx context.Context, _ []string) error { return o.run(ctx) }),
	}
	cmd.Flags().BoolVar(&o.list, "list", false, "answer for all actions but a move, for the given tenant")
	cmd.Flags().StringVar(&o.to, "to", "", "the tenant below which it would be moved")
	_ = cmd.RegisterFlagCompletionFunc("to", a.completeTenants(false))
	o.output.addFlag(cmd, cmd.Flags(), "json")
	return cmd
}

func actionNames() []string {
	var names []string
	for _, action := range tenancy.Actions() {
		names = append(names, string(action))
	}
	return names
}

func (o *canIOptions) parse(args []string) error {
	o.tenant = api.RootTenant
	most := 2
	if o.list {
		most = 1
	}
	if len(args) > most {
		return fmt.Errorf("too many words: %s", strings.Join(args, " "))
	}
	if o.list {
		if len(args) == 1 {
			o.tenant = args[0]
		}
		return nil
	}
	if len(args) == 0 {
		return fmt.Errorf("the action is missing: %s", quoteList(actionNames(), "or"))
	}
	if o.action = args[0]; !slices.Contains(actionNames(), o.action) {
		return fmt.Errorf("unknown action %q: use %s", o.action, quoteList(actionNames(), "or"))
	}
	if len(args) == 2 {
		o.tenant = args[1]
	}
	move := o.action == string(tenancy.ActionMove)
	if move != (o.to != "") {
		return errors.New("--to names where a tenant would be moved, and belongs to the action move")
	}
	return nil
}

func (o *canIOptions) run(ctx context.Context) error {
	if err := o.output.validate(); err != nil {
		return err
	}
	clients, err := o.host.clients()
	if err != nil {
		return err
	}
	asker, err := newAsker(ctx, clients)
	if err != nil {
		return err
	}
	var answers []answer
	for _, action := range tenancy.Actions() {
		if string(action) != o.action && (!o.list || action == tenancy.ActionMove) {
			continue
		}
		one, err := asker.ask(ctx, action, o.tenant, o.to)
		var unknown *unknownTenantError
		if errors.As(err, &unknown) {
			return o.unknownTenant(ctx, clients, unknown.name)
		}
		if err != nil {
			return err
		}
		answers = append(answers, one)
	}
	if o.list {
		return o.printList(answers)
	}
	if o.output.format == "json" {
		if err := o.printJSON(answers[0]); err != nil {
			return err
		}
	} else {
		o.printAnswer(answers[0])
	}
	if !answers[0].Allowed {
		return &exitCodeError{exitError}
	}
	return nil
}

// answer is what can-i has to say about one action.
type answer struct {
	Action  tenancy.Action `json:"action"`
	Tenant  string         `json:"tenant"`
	To      string         `json:"to,omitempty"`
	User    string         `json:"user"`
	Groups  []string       `json:"groups,omitempty"`
	Allowed bool           `json:"allowed"`
	// Obstacle is in the way whatever one's rights.
	Obstacle string  `json:"obstacle,omitempty"`
	Rights   []right `json:"rights"`
}

// right is one that the action takes.
type right struct {
	tenancy.Right
	Allowed bool `json:"allowed"`
	// By are the members that give it: the user, or his groups.
	By []api.EffectiveMember `json:"by,omitempty"`
	// Reason is what the host says where no member gives it.
	Reason string `json:"reason,omitempty"`
	// Givers are those who could give it, as far as one sees them.
	Givers []string `json:"givers,omitempty"`
	// Give is the command with which they would.
	Give string `json:"give,omitempty"`
}

func (r right) text() string {
	if r.Tenant == "" {
		return fmt.Sprintf("the right %q on tenants, which admins of any tenant have", r.Verb)
	}
	return fmt.Sprintf("the right %q on tenant %q", r.Verb, r.Tenant)
}

// asker asks the host about the rights of the person who it is.
type asker struct {
	clients *hostClients
	user    authenticationv1.UserInfo
	// seen are tenants that were read; nil those that one may not see.
	seen map[string]*api.Tenant
	// known are rights that were asked for.
	known map[tenancy.Right]right
}

func newAsker(ctx context.Context, clients *hostClients) (*asker, error) {
	review, err := clients.kube.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("ask the host who you are: %w", err)
	}
	return &asker{clients, review.Status.UserInfo, map[string]*api.Tenant{}, map[tenancy.Right]right{}}, nil
}

// tenant reads a tenant; nil when one may not.
func (a *asker) tenant(ctx context.Context, name string) (*api.Tenant, error) {
	if tenant, known := a.seen[name]; known {
		return tenant, nil
	}
	tenant, err := a.clients.tenants.Get(ctx, name)
	switch {
	case apierrors.IsForbidden(err):
		tenant = nil
	case apierrors.IsNotFound(err) && !notInstalled(err):
		return nil, &unknownTenantError{name}
	case err != nil:
		return nil, err
	}
	a.seen[name] = tenant
	return tenant, nil
}

func (a *asker) ask(ctx context.Context, action tenancy.Action, name, to string) (answer, error) {
	result := answer{Action: action, Tenant: name, To: to, User: a.user.Username, Groups: a.user.Groups, Allowed: true}
	tenant, err := a.tenant(ctx, name)
	if err != nil {
		return result, err
	}
	if to != "" {
		if _, err := a.tenant(ctx, to); err != nil {
			return result, err
		}
	}
	rights := tenancy.Rights(tenancy.ActionSee, &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}}, "")
	switch {
	case tenant != nil:
		rights, result.Obstacle = tenancy.Rights(action, tenant, to), tenancy.Obstacle(action, tenant, to)
	case action == tenancy.ActionCreate:
		// Who may put tenants below one need not see it.
		rights = tenancy.Rights(action, &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}}, "")
	}
	for _, r := range rights {
		one, err := a.right(ctx, r)
		if err != nil {
			return result, err
		}
		result.Rights = append(result.Rights, one)
		result.Allowed = result.Allowed && one.Allowed
	}
	result.Allowed = result.Allowed && result.Obstacle == ""
	return result, nil
}

// right asks for one right.
func (a *asker) right(ctx context.Context, r tenancy.Right) (right, error) {
	if known, ok := a.known[r]; ok {
		return known, nil
	}
	review, err := a.clients.kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: api.GroupName, Resource: tenantResource, Verb: r.Verb, Name: r.Tenant,
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return right{}, fmt.Errorf("ask the host for %s: %w", right{Right: r}.text(), err)
	}
	result := right{Right: r, Allowed: review.Status.Allowed}
	var on *api.Tenant
	if r.Tenant != "" {
		// One that is not there, as a parent that is gone, has no admins.
		if on, err = a.tenant(ctx, r.Tenant); err != nil && !errors.As(err, new(*unknownTenantError)) {
			return right{}, err
		}
	}
	switch {
	case result.Allowed:
		if on != nil {
			result.By = tenancy.GrantedBy(on, a.user.Username, a.user.Groups, r.Role())
		}
		if len(result.By) == 0 {
			result.Reason = review.Status.Reason
		}
	case r.Tenant != "":
		result.Givers = givers(on)
		me := tenancy.Subject(a.user.Username)
		result.Give = fmt.Sprintf("members add %s %s=%s", r.Tenant, memberText(me.Kind, me.Namespace, me.Name), r.Role())
	}
	a.known[r] = result
	return result, nil
}

// givers are the admins of a tenant.
func givers(tenant *api.Tenant) []string {
	if tenant == nil || tenant.Status.Effective == nil {
		return nil
	}
	var names []string
	for _, m := range tenant.Status.Effective.Members {
		if m.Role == api.RoleAdmin {
			names = append(names, memberText(m.Kind, m.Namespace, m.Name))
		}
	}
	return names
}

// platform is who can give any right.
const platform = "whoever runs the platform (ClusterRole sublet-platform-admin)"

func (o *canIOptions) printAnswer(a answer) {
	if a.Allowed {
		o.printf("yes\n")
	} else {
		o.printf("no\n")
	}
	if a.Obstacle != "" {
		o.printf("  %s\n", a.Obstacle)
	}
	for _, r := range a.Rights {
		if r.Allowed != a.Allowed {
			continue // what one has does not help
		}
		o.printf("  %s\n", strings.Join(o.why(r), "\n    "))
	}
}

// why says where a right comes from, or could.
func (o *canIOptions) why(r right) []string {
	if r.Allowed {
		return []string{"you have " + r.text() + ": " + source(r)}
	}
	lines := []string{"missing: " + r.text()}
	if r.Tenant == "" {
		return lines
	}
	who := "its admins, and " + platform
	if len(r.Givers) > 0 {
		who = strings.Join(r.Givers, ", ") + ", and " + platform
	}
	return append(lines, fmt.Sprintf("its role %s has it; it can be given by %s:", r.Role(), who), o.app.name+" "+r.Give)
}

// source says what gives a right.
func source(r right) string {
	if len(r.By) > 0 {
		m := r.By[0]
		return fmt.Sprintf("%s is %s, named in tenant %q", memberText(m.Kind, m.Namespace, m.Name), m.Role, m.From)
	}
	if r.Reason != "" {
		return r.Reason
	}
	return "the host says so"
}

func (o *canIOptions) printList(answers []answer) error {
	if o.output.format == "json" {
		return o.printJSON(answers)
	}
	var rows [][]string
	for _, a := range answers {
		said := "no"
		if a.Allowed {
			said = "yes"
		}
		rows = append(rows, []string{string(a.Action), said, a.reason()})
	}
	return table(o.Stdout, []string{"ACTION", "ANSWER", "WHY"}, rows)
}

// reason is the one that tells most about an answer.
func (a answer) reason() string {
	if a.Obstacle != "" {
		return a.Obstacle
	}
	for _, r := range slices.Backward(a.Rights) {
		switch {
		case !a.Allowed && !r.Allowed:
			return "missing: " + r.text()
		case a.Allowed && r.Tenant != "":
			return source(r)
		}
	}
	return ""
}
