package cli

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// kubeconfigOptions are the flags of kubeconfig.
type kubeconfigOptions struct {
	*app
	name    string
	role    string
	server  string
	timeout time.Duration
}

func newKubeconfigCommand(a *app) *cobra.Command {
	o := &kubeconfigOptions{app: a}
	cmd := &cobra.Command{
		Use:   "kubeconfig NAME",
		Short: "Print a kubeconfig of a tenant, for machines",
		Long: `Print a kubeconfig of a virtual cluster, for machines. Its server is the one that
reaches the tenant from inside the host cluster, unless another is given.
People want "connect".`,
		Example: examples(a.name, `
%[1]s kubeconfig acme > acme.kubeconfig
%[1]s kubeconfig acme --role view --server https://acme.example.com:6443`),
		Args:              exactlyOneName,
		ValidArgsFunction: a.completeTenants(false),
		RunE: a.run(func(ctx context.Context, args []string) error {
			o.name = args[0]
			return o.run(ctx)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&o.role, "role", "", "admin, edit or view (default: the highest that you may have)")
	flags.StringVar(&o.server, "server", "", "URL of the tenant's API (default: https://sublet.NAMESPACE.svc:443, which works inside the host cluster)")
	flags.DurationVar(&o.timeout, "timeout", 2*time.Minute, "how long to wait for a tenant that is not ready")
	completeValues(cmd, "role", string(api.RoleAdmin), string(api.RoleEdit), string(api.RoleView))
	return cmd
}

func (o *kubeconfigOptions) run(ctx context.Context) error {
	if o.role != "" && !slices.Contains(roles(), api.Role(o.role)) {
		return usagef("unknown role %q: use admin, edit or view", o.role)
	}
	if o.server != "" {
		if u, err := url.Parse(o.server); err != nil || u.Scheme == "" || u.Host == "" {
			return usagef("--server %q is not a URL: write it as https://HOST:PORT", o.server)
		}
	}
	clients, err := o.host.clients()
	if err != nil {
		return err
	}
	tenant, err := o.get(ctx, clients, o.name)
	if err != nil {
		return err
	}
	if tenant.Spec.Type != api.VirtualCluster {
		return hint(fmt.Errorf("tenant %q is a %s: it has no API of its own", o.name, tenant.Spec.Type), "A Namespace tenant is used by the host's API: %s connect %s.", o.app.name, o.name)
	}
	connect := &connectOptions{app: o.app, name: o.name, timeout: o.timeout}
	if tenant, err = connect.waitReady(ctx, clients, tenant); err != nil {
		return err
	}
	entry, err := o.tenantKubeconfig(ctx, clients, tenant, api.Role(o.role))
	if err != nil {
		return err
	}
	if o.server != "" {
		setServer(entry, o.server)
	}
	content, err := clientcmd.Write(*entry)
	if err != nil {
		return err
	}
	_, err = o.Stdout.Write(content)
	return err
}
