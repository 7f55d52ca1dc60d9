package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/storage/driver"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// uninstallOptions are the flags of uninstall.
type uninstallOptions struct {
	*app
	namespace  string
	cascade    bool
	force      bool
	yes        bool
	deleteCRDs bool
	timeout    time.Duration
}

func newUninstallCommand(a *app) *cobra.Command {
	o := &uninstallOptions{app: a}
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take Sublet out of the host cluster",
		Long: `Take Sublet out of the host cluster. While there are tenants it refuses: their
control planes would go on running, and nobody would look after them.

The kinds Tenant and Template stay, unless told otherwise: with them, objects of
these kinds would go.`,
		Example: examples(a.name, `
%[1]s uninstall
%[1]s uninstall --cascade      # the tenants first
%[1]s uninstall --force        # the tenants stay, and are found again by install`),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			return o.run(ctx)
		}),
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.namespace, "namespace", "n", api.SystemNamespace, "namespace of the manager")
	flags.BoolVar(&o.cascade, "cascade", false, "delete all tenants first, with all that is in them")
	flags.BoolVar(&o.force, "force", false, "leave tenants behind without anyone to look after them")
	flags.BoolVarP(&o.yes, "yes", "y", false, "do not ask before tenants are deleted")
	flags.BoolVar(&o.deleteCRDs, "delete-crds", false, "delete the kinds Tenant and Template, too")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait")
	return cmd
}

func (o *uninstallOptions) run(ctx context.Context) error {
	if o.cascade && o.force {
		return usagef("--cascade deletes the tenants and --force leaves them: use one of them")
	}
	if o.deleteCRDs && o.force {
		return usagef("--delete-crds would delete the tenants that --force leaves: use --cascade")
	}
	clients, err := o.host.clients()
	if err != nil {
		return err
	}
	progress := newProgress(o.Stderr)
	defer progress.End()
	progress.Step("looking at the host cluster")
	if err := o.removeTenants(ctx, clients, progress); err != nil {
		return interrupted(ctx, err, "run the same command again to go on")
	}
	progress.Step("uninstalling the chart")
	found, err := o.removeRelease()
	if err != nil {
		return err
	}
	if o.deleteCRDs {
		progress.Step("deleting the kinds of Sublet")
		if err := o.removeCRDs(ctx, clients); err != nil {
			return interrupted(ctx, err, "run the same command again to go on")
		}
	}
	progress.Step("waiting until nothing is left in namespace %s", o.namespace)
	if err := o.removeNamespace(ctx, clients); err != nil {
		return interrupted(ctx, err, "run the same command again to go on")
	}
	progress.End()
	if !found {
		o.printf("Sublet was not installed in namespace %s.\n", o.namespace)
		return nil
	}
	o.printf("Sublet was uninstalled from namespace %s.\n", o.namespace)
	return nil
}

// removeTenants deletes the tenants if that was asked for, and refuses to go on
// when there are any otherwise.
func (o *uninstallOptions) removeTenants(ctx context.Context, clients *hostClients, progress *progress) error {
	list, err := clients.tenants.List(ctx)
	if notInstalled(err) || o.force {
		return nil
	}
	if err != nil {
		return err
	}
	var names []string
	var tenants []*api.Tenant
	for i := range list.Items {
		// The root of the tree is of no use to anybody alone, and keeps what was
		// set there for another installation.
		if list.Items[i].Name != api.RootTenant {
			names = append(names, list.Items[i].Name)
			tenants = append(tenants, &list.Items[i])
		}
	}
	if len(tenants) == 0 {
		return nil
	}
	if !o.cascade {
		return hint(fmt.Errorf("there are still tenants: %s", quoteList(names, "and")),
			"Delete them first, or use --cascade to delete them all, or --force to leave them without a manager.")
	}
	progress.End()
	remove := &deleteOptions{app: o.app, yes: o.yes, cascade: true, wait: true, timeout: o.timeout}
	if err := remove.confirm(tenants); err != nil {
		return err
	}
	inner := newProgress(o.Stderr)
	defer inner.End()
	return remove.deleteAll(ctx, clients, inner, tenants)
}

func (o *uninstallOptions) removeRelease() (found bool, _ error) {
	config, err := o.helmConfig(o.namespace)
	if err != nil {
		return false, err
	}
	if _, err := config.Releases.Last(releaseName); errors.Is(err, driver.ErrReleaseNotFound) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("reading the state of the installation: %w", err)
	}
	uninstall := action.NewUninstall(config)
	uninstall.Wait, uninstall.Timeout = true, o.timeout
	if _, err := uninstall.Run(releaseName); err != nil {
		return false, fmt.Errorf("uninstalling the chart: %w", err)
	}
	return true, nil
}

func (o *uninstallOptions) removeCRDs(ctx context.Context, clients *hostClients) error {
	chart, err := loadChart()
	if err != nil {
		return err
	}
	manifest, err := render(chart, o.namespace, nil)
	if err != nil {
		return err
	}
	objects, err := decode([]byte(manifest))
	if err != nil {
		return err
	}
	client, err := rest.UnversionedRESTClientFor(unversioned(clients.config))
	if err != nil {
		return err
	}
	for _, object := range objects {
		if object.GetKind() != "CustomResourceDefinition" {
			continue
		}
		path := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + object.GetName()
		if err := client.Delete().AbsPath(path).Do(ctx).Error(); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting the CustomResourceDefinition %s: %w", object.GetName(), err)
		}
	}
	return nil
}

// removeNamespace deletes the namespace if install made it, and waits until it
// is gone.
func (o *uninstallOptions) removeNamespace(ctx context.Context, clients *hostClients) error {
	namespaces := clients.kube.CoreV1().Namespaces()
	namespace, err := namespaces.Get(ctx, o.namespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && namespace.Annotations[namespaceMark] != "true" {
		return nil
	}
	if err != nil {
		return err
	}
	err = namespaces.Delete(ctx, o.namespace, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(namespace.UID)}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("deleting the namespace %s: %w", o.namespace, err)
	}
	for deadline := time.Now().Add(o.timeout); ; {
		current, err := namespaces.Get(ctx, o.namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && current.UID != namespace.UID {
			return nil
		}
		if err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return hint(fmt.Errorf("the namespace %s is not gone after %s", o.namespace, o.timeout), "See what is left: kubectl get all -n %s.", o.namespace)
		}
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}
