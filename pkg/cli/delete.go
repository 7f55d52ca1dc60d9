package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// deleteOptions are the flags of delete.
type deleteOptions struct {
	*app
	names          []string
	yes            bool
	cascade        bool
	wait           bool
	timeout        time.Duration
	ignoreNotFound bool
}

func newDeleteCommand(a *app) *cobra.Command {
	o := &deleteOptions{app: a}
	cmd := &cobra.Command{
		Use:     "delete NAME...",
		Aliases: []string{"rm"},
		Short:   "Delete tenants with all that is in them",
		Long: `Delete tenants with all that is in them, and wait until nothing is left on the
host. Contexts and port-forwards that lead into them go too. On a terminal it asks
first.

Interrupted, the deletion goes on; run again, it goes on waiting.`,
		Example: examples(a.name, "%[1]s delete acme\n%[1]s delete acme shop --yes\n%[1]s delete team1 --cascade"),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("the name of the tenant is missing")
			}
			return nil
		},
		ValidArgsFunction: a.completeTenants(true),
		RunE: a.run(func(ctx context.Context, args []string) error {
			o.names = args
			return o.run(ctx)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	flags.BoolVar(&o.cascade, "cascade", false, "delete all tenants below, too")
	flags.BoolVar(&o.wait, "wait", true, "wait until nothing is left on the host")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait")
	flags.BoolVar(&o.ignoreNotFound, "ignore-not-found", false, "a tenant that is not there is as good as deleted")
	return cmd
}

func (o *deleteOptions) run(ctx context.Context) error {
	clients, err := o.host.clients()
	if err != nil {
		return err
	}
	var tenants []*api.Tenant
	for _, name := range unique(o.names) {
		tenant, err := o.get(ctx, clients, name)
		if errors.As(err, new(*unknownTenantError)) && o.ignoreNotFound {
			if err := o.disconnectFrom(name); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err // before anything is deleted
		}
		tenants = append(tenants, tenant)
	}
	if len(tenants) == 0 {
		return nil
	}
	if err := o.confirm(tenants); err != nil {
		return err
	}
	progress := newProgress(o.Stderr)
	defer progress.End()
	return o.deleteAll(ctx, clients, progress, tenants)
}

// deleteAll deletes tenants, those below first. Without a cascade the host refuses
// to delete what has tenants below it, so each level waits for the one below.
func (o *deleteOptions) deleteAll(ctx context.Context, clients *hostClients, progress *progress, tenants []*api.Tenant) error {
	slices.SortStableFunc(tenants, func(a, b *api.Tenant) int { return cmp.Compare(b.Status.Depth, a.Status.Depth) })
	for len(tenants) > 0 {
		level := len(tenants)
		if !o.cascade {
			if i := slices.IndexFunc(tenants, func(t *api.Tenant) bool { return t.Status.Depth != tenants[0].Status.Depth }); i > 0 {
				level = i
			}
		}
		if err := o.deleteLevel(ctx, clients, progress, tenants[:level]); err != nil {
			return err
		}
		tenants = tenants[level:]
		if len(tenants) > 0 && o.wait {
			if err := o.waitCounted(ctx, clients, tenants); err != nil {
				return err
			}
		}
	}
	return nil
}

// waitCounted waits until the manager has noticed that the tenants below are gone,
// but not for long.
func (o *deleteOptions) waitCounted(ctx context.Context, clients *hostClients, tenants []*api.Tenant) error {
	for begin := time.Now(); time.Since(begin) < 3*time.Second; {
		list, err := o.visible(ctx, clients)
		if err != nil {
			return err
		}
		f, behind := newForest(list.Items), false
		for _, tenant := range tenants {
			now := f.tenants[tenant.Name]
			behind = behind || now != nil && int(now.Status.Children) > len(f.children[tenant.Name])
		}
		if !behind {
			return nil
		}
		if pause(ctx, 50*time.Millisecond); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// deleteLevel deletes tenants at the same time and waits for one after the other.
func (o *deleteOptions) deleteLevel(ctx context.Context, clients *hostClients, progress *progress, tenants []*api.Tenant) error {
	started := time.Now()
	for _, tenant := range tenants {
		progress.Step("tenant %s: asking the host to delete it", tenant.Name)
		if o.cascade && tenant.Status.Children > 0 && tenant.DeletionTimestamp == nil {
			patch := map[string]any{
				"metadata": map[string]any{"uid": tenant.UID},
				"spec":     map[string]any{"deletionPolicy": api.DeletionCascade},
			}
			if _, err := clients.tenants.Patch(ctx, tenant.Name, patch, metav1.PatchOptions{FieldManager: fieldOwner}); err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("deleting what is below tenant %q: %w", tenant.Name, err)
			}
		}
		err := clients.tenants.Delete(ctx, tenant.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(tenant.UID)}})
		if err != nil && !apierrors.IsNotFound(err) {
			if tenant.Status.Children > 0 && !o.cascade {
				err = hint(err, "See what is below: %s tree %s. To delete that too, use --cascade.", o.name, tenant.Name)
			}
			return fmt.Errorf("deleting tenant %q: %w", tenant.Name, err)
		}
	}
	for _, tenant := range tenants {
		if o.wait {
			if err := o.waitGone(ctx, clients, progress, tenant); err != nil {
				return interrupted(ctx, err, "the deletion goes on by itself. Run the same command again to go on waiting.")
			}
		}
		if err := o.disconnectFrom(tenant.Name); err != nil {
			return err
		}
		if o.wait {
			progress.clearFor(func() {
				o.printf("tenant %s deleted after %s\n", tenant.Name, roughly(time.Since(started)))
			})
		} else {
			progress.clearFor(func() { o.printf("tenant %s is being deleted\n", tenant.Name) })
		}
	}
	return nil
}

// confirm asks on a terminal.
func (o *deleteOptions) confirm(tenants []*api.Tenant) error {
	if o.yes || !isTerminal(o.Stdin) || !isTerminal(o.Stderr) {
		return nil
	}
	var names []string
	for _, tenant := range tenants {
		names = append(names, tenant.Name)
	}
	o.warnf("Delete %s with all that is in it, data included? [y/N] ", quoteList(names, "and"))
	answer, err := bufio.NewReader(o.Stdin).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if !slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answer))) {
		return errors.New("nothing was deleted")
	}
	return nil
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// waitGone waits until the tenant's finalizer is gone, and with it everything
// on the host; then until the host namespace is gone, where one may see it.
func (o *deleteOptions) waitGone(ctx context.Context, clients *hostClients, progress *progress, tenant *api.Tenant) error {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	progress.Step("tenant %s: deleting everything on the host", tenant.Name)
	blocked := ""
	changes := follow(ctx, 300*time.Millisecond,
		func(ctx context.Context) (watch.Interface, error) { return clients.tenants.Watch(ctx, tenant.Name) },
		func(ctx context.Context) (*api.Tenant, error) { return clients.tenants.Get(ctx, tenant.Name) })
	for c := range changes {
		if apierrors.IsForbidden(c.err) {
			// The right to see a tenant goes with the tenant, at the very end.
			return nil
		}
		if c.err != nil {
			return c.err
		}
		if c.gone || c.object.UID != tenant.UID {
			return o.waitNamespaceGone(ctx, clients, progress, tenant)
		}
		condition := meta.FindStatusCondition(c.object.Status.Conditions, api.ConditionDeletionBlocked)
		if condition != nil && condition.Status == metav1.ConditionTrue && condition.Message != blocked {
			blocked = condition.Message
			progress.Step("tenant %s: %s", tenant.Name, blocked)
		}
	}
	if cause := context.Cause(parent); cause != nil {
		return cause
	}
	return hint(fmt.Errorf("tenant %q is not gone after %s: %s", tenant.Name, o.timeout, orElse(blocked, "the host does not say why")),
		"The deletion goes on; run the same command again to go on waiting. More: %s describe %s.", o.name, tenant.Name)
}

func (o *deleteOptions) waitNamespaceGone(ctx context.Context, clients *hostClients, progress *progress, tenant *api.Tenant) error {
	name := tenancy.HostNamespace(tenant)
	if name == "" {
		return nil
	}
	for {
		namespace, err := clients.kube.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if namespace.Labels[api.LabelTenant] != tenant.Name {
			return nil // another one's, or made anew
		}
		progress.Step("tenant %s: waiting until namespace %s is gone", tenant.Name, name)
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// disconnectFrom removes the contexts and port-forwards of a tenant of this
// host.
func (a *app) disconnectFrom(name string) error {
	problems := []error{a.removeContexts(name)}
	store, err := a.store()
	if err != nil {
		return errors.Join(append(problems, err)...)
	}
	states, err := store.List()
	problems = append(problems, err)
	for _, state := range states {
		if state.Tenant == name && state.HostServer == a.host.server {
			// It serves a context in another kubeconfig, and removes it when it
			// notices by itself that the tenant is gone.
			store.WaitGone(state.ID, 3*time.Second)
			problems = append(problems, store.Stop(state.ID))
		}
	}
	return errors.Join(problems...)
}

// removeContexts removes the contexts of a tenant of this host, with the
// port-forwards that serve them.
func (a *app) removeContexts(name string) error {
	config, _, err := a.host.raw()
	if err != nil {
		return err
	}
	var problems []error
	for _, c := range connections(&config) {
		if c.Tenant == name && c.HostContext == a.host.context {
			_, err := a.disconnect(c)
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

func unique(names []string) []string {
	var list []string
	for _, name := range names {
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}
