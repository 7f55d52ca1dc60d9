package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// adoptOptions are the flags of adopt. Those that describe the tenant are create's.
type adoptOptions struct {
	*createOptions
}

func newAdoptCommand(a *app) *cobra.Command {
	o := &adoptOptions{&createOptions{app: a, tenantType: string(api.Namespace), adopting: true}}
	cmd := &cobra.Command{
		Use:   "adopt NAMESPACE",
		Short: "Make a namespace that exists a tenant",
		Long: `Make a namespace that exists a tenant of type Namespace, with all that is in it. It
gets the tenant's fence and members. When the tenant is deleted, the namespace stays,
without them.

It takes the right to change the namespace, and the right "nest" on the tenant above,
which its admins have. Where these are two people's, one makes the tenant, and the other
gives the namespace to it: kubectl annotate namespace NAMESPACE ` + api.AnnotationGiveTo + `=TENANT.`,
		Example: examples(a.name, `
%[1]s adopt shop --parent team1 --member group:shop-team=edit

# A tenant of another name; and the namespace of one that there is already.
%[1]s adopt shop-prod --name shop
%[1]s adopt shop-prod`),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name the one namespace to adopt")
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: a.run(func(ctx context.Context, args []string) error {
			o.namespace = args[0]
			return o.run(ctx)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&o.name, "name", "", "name of the tenant (default: the one that wants the namespace, or the namespace's name)")
	flags.StringVar(&o.parent, "parent", "", "tenant above this one (default: the root of the tree)")
	flags.StringArrayVar(&o.members, "member", nil, "who may use the tenant: user:NAME=ROLE, group:NAME=ROLE or serviceaccount:NAMESPACE/NAME=ROLE, with role admin, edit or view; may be repeated")
	flags.StringToStringVar(&o.quota, "quota", nil, "bounds on what the tenant may use, as in a ResourceQuota: requests.cpu=4,requests.memory=8Gi,pods=50")
	flags.StringVar(&o.podSecurity, "pod-security", "", "level of the Pod Security Standards: privileged, baseline or restricted (default: baseline)")
	flags.BoolVar(&o.wait, "wait", true, "wait until the namespace is the tenant's")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "how long to wait")
	completeValues(cmd, "pod-security", podSecurityLevels()...)
	_ = cmd.RegisterFlagCompletionFunc("parent", a.completeTenants(true))
	return cmd
}

func (o *adoptOptions) run(ctx context.Context) error {
	// What was typed wrong is said before anything is asked.
	namespace, named := o.namespace, o.name
	if err := o.check(namespace); err != nil {
		return err
	}
	clients, err := o.host.clients()
	if err != nil {
		return err
	}
	known, err := clients.kube.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return hint(fmt.Errorf("there is no namespace %q on the host (%s)", namespace, o.host.where()), "To make a tenant with a new one: %s create %s --type Namespace.", o.app.name, namespace)
	}
	if err != nil {
		return err
	}
	owner := known.Labels[api.LabelTenant]
	if owner != "" && named != "" && owner != named {
		return fmt.Errorf("the namespace %q is tenant %q's already", namespace, owner)
	}
	tenant, err := o.existing(ctx, clients, named, owner)
	if err != nil {
		return err
	}
	if tenant == nil {
		if tenant, err = o.make(ctx, clients, namespace, named); err != nil {
			return err
		}
	}
	if owner == "" {
		if err := o.give(ctx, clients, namespace, tenant, false); err != nil {
			return err
		}
	}
	if !o.wait {
		o.printf("namespace %s is given to tenant %s; see how it goes with: %s describe %s\n", namespace, tenant.Name, o.app.name, tenant.Name)
		return nil
	}
	return o.await(ctx, clients, namespace, tenant)
}

// check refuses what no host could do.
func (o *adoptOptions) check(namespace string) error {
	probe := &api.Tenant{Spec: api.TenantSpec{Type: api.Namespace, Namespace: namespace}}
	if err := tenancy.ValidateNamespace(probe, api.SystemNamespace); err != nil {
		return usagef("the namespace %q cannot be a tenant's: %s", namespace, strings.TrimSuffix(err.Detail, ": choose another name, or set spec.namespace"))
	}
	if o.name != "" {
		if err := checkName(o.name); err != nil {
			return err
		}
	}
	_, err := o.describe(namespace, "checked")
	return err
}

// describe makes the tenant that the flags describe.
func (o *adoptOptions) describe(namespace, name string) (*api.Tenant, error) {
	create := *o.createOptions
	create.name, create.namespace = name, namespace
	if namespace == name {
		create.namespace = ""
	}
	return create.tenant()
}

// existing is the tenant that there is for the namespace; nil for none. It has what
// the flags ask for, if they do.
func (o *adoptOptions) existing(ctx context.Context, clients *hostClients, name, owner string) (*api.Tenant, error) {
	namespace := o.namespace
	if name == "" {
		name = owner
	}
	var tenant *api.Tenant
	if name != "" {
		found, err := clients.tenants.Get(ctx, name)
		if apierrors.IsNotFound(err) && !notInstalled(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		tenant = found
	} else {
		list, err := o.visible(ctx, clients)
		if apierrors.IsForbidden(err) {
			return nil, nil // one sees none
		}
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			if tenancy.HostNamespace(&list.Items[i]) == namespace {
				tenant = withKind(&list.Items[i])
			}
		}
	}
	if tenant == nil {
		return nil, nil
	}
	if has := tenancy.HostNamespace(tenant); has != namespace || tenant.Spec.Type != api.Namespace {
		return nil, hint(fmt.Errorf("tenant %q exists already: its type is %s, its namespace %q", tenant.Name, tenant.Spec.Type, has), "Choose another name with --name.")
	}
	if o.parent == "" && len(o.members) == 0 && len(o.quota) == 0 && o.podSecurity == "" {
		return tenant, nil
	}
	wanted, err := o.describe(namespace, tenant.Name)
	if err != nil {
		return nil, err
	}
	if tenant.Spec.Namespace != "" {
		wanted.Spec.Namespace = tenant.Spec.Namespace
	}
	differences, err := specDifferences(tenant.Spec, wanted.Spec)
	if err != nil {
		return nil, err
	}
	if len(differences) > 0 {
		return nil, hint(fmt.Errorf("tenant %q exists already, with other settings:\n  %s", tenant.Name, strings.Join(differences, "\n  ")),
			"Leave out the flags that describe the tenant to give the namespace to it as it is.")
	}
	return tenant, nil
}

// make makes the tenant, once it is sure that the namespace may be given to it.
func (o *adoptOptions) make(ctx context.Context, clients *hostClients, namespace, name string) (*api.Tenant, error) {
	if name == "" {
		name = namespace
		if err := checkName(name); err != nil {
			return nil, fmt.Errorf("the namespace's name cannot be the tenant's, choose one with --name: %w", err)
		}
	}
	tenant, err := o.describe(namespace, name)
	if err != nil {
		return nil, err
	}
	if err := o.give(ctx, clients, namespace, tenant, true); err != nil {
		return nil, err
	}
	made, _, err := o.ensure(ctx, clients, tenant)
	return made, err
}

// give writes on the namespace to whom it is given.
func (o *adoptOptions) give(ctx context.Context, clients *hostClients, namespace string, tenant *api.Tenant, dry bool) error {
	to := tenant.Name
	options := metav1.PatchOptions{FieldManager: fieldOwner}
	if dry {
		options.DryRun = []string{metav1.DryRunAll}
	} else {
		to += "/" + string(tenant.UID) // no other one of that name
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{api.AnnotationGiveTo: to}}})
	if err != nil {
		return err
	}
	_, err = clients.kube.CoreV1().Namespaces().Patch(ctx, namespace, types.MergePatchType, patch, options)
	if apierrors.IsForbidden(err) {
		return hint(fmt.Errorf("you may not give the namespace %q away: %w", namespace, err),
			"Make the tenant (kubectl apply, or %s create -f), and ask whoever may change the namespace: kubectl annotate namespace %s %s=%s.", o.app.name, namespace, api.AnnotationGiveTo, tenant.Name)
	}
	return err
}

// await waits until the namespace is the tenant's and can be used. Conditions from
// before it was given say nothing.
func (o *adoptOptions) await(ctx context.Context, clients *hostClients, namespace string, tenant *api.Tenant) error {
	progress := newProgress(o.Stderr)
	defer progress.End()
	progress.Step("namespace %s: waiting until it is tenant %s's", namespace, tenant.Name)
	started := time.Now()
	if err := o.awaitNamespace(ctx, clients, tenant); err != nil {
		return interrupted(ctx, err, "the namespace is given to tenant %q, and goes on becoming its own. Run the same command again to go on waiting.", tenant.Name)
	}
	wait := &waiter{app: o.app, clients: clients, progress: progress, timeout: max(o.timeout-time.Since(started), time.Second)}
	if _, err := wait.wait(ctx, tenant); err != nil {
		return interrupted(ctx, err, "the namespace is tenant %q's. Run the same command again to go on waiting.", tenant.Name)
	}
	progress.End()
	o.printf("namespace %s is tenant %s's\n", namespace, tenant.Name)
	return nil
}

func (o *adoptOptions) awaitNamespace(ctx context.Context, clients *hostClients, tenant *api.Tenant) error {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	changes := follow(ctx, 300*time.Millisecond,
		func(ctx context.Context) (watch.Interface, error) { return clients.tenants.Watch(ctx, tenant.Name) },
		func(ctx context.Context) (*api.Tenant, error) { return clients.tenants.Get(ctx, tenant.Name) })
	last := "the manager has not looked at it"
	for c := range changes {
		if c.err != nil {
			return c.err
		}
		if c.gone {
			return fmt.Errorf("tenant %q was deleted meanwhile", tenant.Name)
		}
		ready := meta.FindStatusCondition(c.object.Status.Conditions, api.ConditionNamespaceReady)
		switch {
		case ready == nil:
		case ready.Status == metav1.ConditionTrue:
			return nil
		case ready.Reason == "NamespaceUnfit":
			return hint(errors.New(ready.Message), "Then it goes on by itself.")
		default:
			last = ready.Message
		}
	}
	if cause := context.Cause(parent); cause != nil {
		return cause
	}
	return hint(fmt.Errorf("the namespace is not tenant %q's after %s: %s", tenant.Name, o.timeout, last), "See: %s describe %s.", o.app.name, tenant.Name)
}

// offeredTo says whether a namespace is given to a tenant that is yet to be made.
func offeredTo(namespace *corev1.Namespace, tenant *api.Tenant) bool {
	return tenant.Spec.Type == api.Namespace && namespace.Annotations[api.AnnotationGiveTo] == tenant.Name
}
