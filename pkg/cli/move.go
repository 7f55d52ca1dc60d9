package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// moveOptions are the flags of move.
type moveOptions struct {
	*app
	name, parent string
	dryRun       bool
	wait         bool
	timeout      time.Duration
}

func newMoveCommand(a *app) *cobra.Command {
	o := &moveOptions{app: a}
	cmd := &cobra.Command{
		Use:   "move NAME PARENT",
		Short: "Put a tenant with all below it under another one",
		Long: `Put a tenant with all that is below it under another one; "root" is the top of the
tree. Members and limits that it had from above go, those of the new place come, at
once and everywhere below. What changes is said.

It takes the right "nest" on both ends, and "manage" on the former: admins have them.`,
		Example: examples(a.name, "%[1]s move shop team2\n%[1]s move shop team2 --dry-run\n%[1]s move team2 root"),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return errors.New("name the tenant, and the one to put it under")
			}
			return nil
		},
		ValidArgsFunction: a.completeTenants(true),
		RunE: a.run(func(ctx context.Context, args []string) error {
			o.name, o.parent = args[0], args[1]
			return o.run(ctx)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.dryRun, "dry-run", false, "say what would change, and change nothing")
	flags.BoolVar(&o.wait, "wait", true, "wait until the tenant is at its new place")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "how long to wait")
	return cmd
}

func (o *moveOptions) run(ctx context.Context) error {
	if o.name == api.RootTenant {
		return usagef("the root of the tree stays where it is")
	}
	clients, err := o.host.clients()
	if err != nil {
		return err
	}
	tenant, err := o.get(ctx, clients, o.name)
	if err != nil {
		return err
	}
	if err := o.checkTarget(ctx, clients); err != nil {
		return err
	}
	patch := map[string]any{"metadata": map[string]any{"uid": tenant.UID}, "spec": map[string]any{"parent": o.newParent()}}
	former := tenancy.Parent(tenant)
	if former == o.parent {
		if patch, err = o.accept(ctx, clients, tenant); err != nil {
			return err
		}
		if patch == nil {
			o.printf("tenant %s is below %s already\n", o.name, o.parent)
			return nil
		}
	}
	options := metav1.PatchOptions{FieldManager: fieldOwner}
	if o.dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	patched, err := clients.tenants.Patch(ctx, o.name, patch, options)
	if apierrors.IsForbidden(err) {
		return hint(fmt.Errorf("tenant %q stays where it is: %w", o.name, err), "Ask an admin of both %q and %q. What is missing: %s can-i move %s --to %s", former, o.parent, o.app.name, o.name, o.parent)
	}
	if err != nil {
		return err
	}
	if o.dryRun {
		o.printf("tenant %s would move from %s to %s (dry run)\n", o.name, former, o.parent)
		return o.foresee(ctx, clients, tenant, patched)
	}
	if !o.wait {
		o.printf("tenant %s moves from %s to %s\n", o.name, former, o.parent)
		return nil
	}
	progress := newProgress(o.Stderr)
	defer progress.End()
	progress.Step("tenant %s: taking its place below %s", o.name, o.parent)
	moved, err := o.waitPlaced(ctx, clients, patched)
	if err != nil {
		return interrupted(ctx, err, "the move goes on by itself")
	}
	progress.End()
	if moved == nil {
		o.printf("tenant %s moved from %s to %s; you see it no more\n", o.name, former, o.parent)
		return nil
	}
	o.printf("tenant %s moved from %s to %s, now at %s\n", o.name, former, o.parent, moved.Status.Path)
	o.sayChanges(tenant.Status.Effective, moved.Status.Effective)
	return nil
}

// newParent is what is written: the root is the parent of who names none.
func (o *moveOptions) newParent() any {
	if o.parent == api.RootTenant {
		return nil
	}
	return o.parent
}

// checkTarget refuses a new parent that there is not, or that is below the
// tenant. Where one may not look, the host decides.
func (o *moveOptions) checkTarget(ctx context.Context, clients *hostClients) error {
	above := map[string]bool{}
	for name := o.parent; name != "" && !above[name]; {
		if name == o.name {
			return fmt.Errorf("tenant %q cannot be put below itself: %q is below it", o.name, o.parent)
		}
		above[name] = true
		parent, err := clients.tenants.Get(ctx, name)
		if apierrors.IsNotFound(err) && !notInstalled(err) && name == o.parent {
			return o.unknownTenant(ctx, clients, name)
		}
		if err != nil {
			return nil
		}
		name = tenancy.Parent(parent)
	}
	return nil
}

// accept makes the parent that has the right name the right one, where it is
// another than before; nil when there is nothing to do.
func (o *moveOptions) accept(ctx context.Context, clients *hostClients, tenant *api.Tenant) (map[string]any, error) {
	known := tenant.Status.Parent
	if known == nil || o.parent == api.RootTenant {
		return nil, nil
	}
	parent, err := o.get(ctx, clients, o.parent)
	if err != nil || known.UID == parent.UID {
		return nil, err
	}
	return map[string]any{"metadata": map[string]any{
		"uid": tenant.UID, "annotations": map[string]any{api.AnnotationAcceptParent: string(parent.UID)},
	}}, nil
}

// waitPlaced waits until the manager has put the tenant where the spec says; nil
// when one sees it no more.
func (o *moveOptions) waitPlaced(ctx context.Context, clients *hostClients, tenant *api.Tenant) (*api.Tenant, error) {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	changes := follow(ctx, 300*time.Millisecond,
		func(ctx context.Context) (watch.Interface, error) { return clients.tenants.Watch(ctx, tenant.Name) },
		func(ctx context.Context) (*api.Tenant, error) { return clients.tenants.Get(ctx, tenant.Name) })
	for c := range changes {
		if apierrors.IsForbidden(c.err) {
			return nil, nil
		}
		if c.err != nil {
			return nil, c.err
		}
		if c.gone {
			return nil, fmt.Errorf("tenant %q was deleted meanwhile", tenant.Name)
		}
		placed := meta.FindStatusCondition(c.object.Status.Conditions, api.ConditionPlaced)
		if placed == nil || placed.ObservedGeneration < tenant.Generation {
			continue
		}
		if placed.Reason == tenancy.BrokenReplaced && c.object.Annotations[api.AnnotationAcceptParent] != "" {
			continue // from before it was accepted, which is no change of the spec
		}
		if placed.Status == metav1.ConditionFalse {
			return nil, fmt.Errorf("tenant %q has no place there: %s", tenant.Name, placed.Message)
		}
		return withKind(c.object), nil
	}
	if cause := context.Cause(parent); cause != nil {
		return nil, cause
	}
	return nil, hint(fmt.Errorf("the manager has not put tenant %q there after %s", tenant.Name, o.timeout),
		"It does when it runs. See: kubectl get pods -n %s.", api.SystemNamespace)
}

// foresee says what a move would change, where one sees all that is above.
func (o *moveOptions) foresee(ctx context.Context, clients *hostClients, before, after *api.Tenant) error {
	path, err := tenancy.PathTo(after, func(name string) (*api.Tenant, error) {
		tenant, err := clients.tenants.Get(ctx, name)
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return tenant, err
	})
	if apierrors.IsForbidden(err) {
		o.printf("You do not see all that is above the new place, and so not what would change.\n")
		return nil
	}
	if err != nil {
		return err
	}
	o.sayChanges(before.Status.Effective, tenancy.Fold(path).Status())
	return nil
}

// sayChanges tells what another place means for members and limits.
func (o *moveOptions) sayChanges(before, after *api.EffectiveStatus) {
	if before == nil || after == nil {
		return
	}
	members := func(e *api.EffectiveStatus) []string {
		var all []string
		for _, m := range e.Members {
			all = append(all, fmt.Sprintf("%s=%s", memberText(m.Kind, m.Namespace, m.Name), m.Role))
		}
		return all
	}
	was, is := members(before), members(after)
	missing := func(of, in []string) []string {
		return slices.DeleteFunc(slices.Clone(of), func(m string) bool { return slices.Contains(in, m) })
	}
	if gone := missing(was, is); len(gone) > 0 {
		o.printf("  no longer members: %s\n", strings.Join(gone, ", "))
	}
	if come := missing(is, was); len(come) > 0 {
		o.printf("  new members: %s\n", strings.Join(come, ", "))
	}
	values := map[string][2]string{}
	for i, e := range []*api.EffectiveStatus{before, after} {
		for _, l := range e.Limits {
			pair := values[l.Name]
			pair[i] = l.Value
			values[l.Name] = pair
		}
	}
	for _, name := range sorted(keysOf(values)) {
		if pair := values[name]; pair[0] != pair[1] {
			o.printf("  %s: %s, was %s\n", name, orElse(pair[1], "no limit"), orElse(pair[0], "no limit"))
		}
	}
}
