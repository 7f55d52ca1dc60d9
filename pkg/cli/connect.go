package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/cli/forward"
	"github.com/sublet-dev/sublet/pkg/kubeconfig"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// connectOptions are the flags of connect.
type connectOptions struct {
	*app
	name       string
	foreground bool
	print      bool
	role       string
	server     string
	port       int
	timeout    time.Duration
	command    []string
}

func newConnectCommand(a *app) *cobra.Command {
	o := &connectOptions{app: a}
	cmd := &cobra.Command{
		Use:   "connect NAME [-- COMMAND ARGS...]",
		Short: "Switch kubectl to a tenant, or run one command in it",
		Long: `Switch to a tenant: write a context into your kubeconfig, make it the current
one, and keep a port-forward to the tenant's API running in the background. It
outlives the terminal, finds the tenant's pod again when that is replaced, and
ends by "disconnect" or when the tenant is deleted.

With a command, nothing is written: the command runs with KUBECONFIG set to a
kubeconfig of its own, and its exit code is returned.

A Namespace tenant is reached by the host's own API, without a port-forward.`,
		Example: examples(a.name, `
%[1]s connect acme
%[1]s connect acme -- kubectl get pods -A
%[1]s connect acme -- helm install web ./chart
%[1]s connect acme --foreground
%[1]s connect acme --print > acme.kubeconfig`),
		Args: func(cmd *cobra.Command, args []string) error {
			names := args
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				names = args[:dash]
				if dash == len(args) {
					return errors.New("the command after -- is missing")
				}
			}
			return exactlyOneName(cmd, names)
		},
		ValidArgsFunction: a.completeTenants(false),
		RunE: a.run(func(ctx context.Context, args []string) error {
			o.name, o.command = args[0], args[1:]
			return o.run(ctx)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.foreground, "foreground", false, "forward in the foreground, until Ctrl-C, and switch back then")
	flags.BoolVar(&o.print, "print", false, "print the kubeconfig instead of changing yours")
	flags.StringVar(&o.role, "role", "", "admin, edit or view (default: the highest that you may have)")
	flags.StringVar(&o.server, "server", "", "URL at which the tenant's API can be reached directly, without a port-forward")
	flags.IntVar(&o.port, "port", 0, "local port of the port-forward (default: any that is free)")
	flags.DurationVar(&o.timeout, "timeout", 2*time.Minute, "how long to wait for a tenant that is not ready")
	completeValues(cmd, "role", string(api.RoleAdmin), string(api.RoleEdit), string(api.RoleView))
	return cmd
}

func (o *connectOptions) validate() error {
	if o.role != "" && !slices.Contains(roles(), api.Role(o.role)) {
		return usagef("unknown role %q: use admin, edit or view", o.role)
	}
	if o.print && (o.foreground || len(o.command) > 0) {
		return usagef("--print only prints: leave out --foreground and the command")
	}
	if o.foreground && len(o.command) > 0 {
		return usagef("a command runs in the foreground anyway: leave out --foreground")
	}
	if o.server != "" {
		if u, err := url.Parse(o.server); err != nil || u.Scheme == "" || u.Host == "" {
			return usagef("--server %q is not a URL: write it as https://HOST:PORT", o.server)
		}
		if o.foreground || o.port != 0 {
			return usagef("with --server there is no port-forward: leave out --foreground and --port")
		}
	}
	if o.port < 0 || o.port > 65535 {
		return usagef("--port %d is not a port: use 1 to 65535", o.port)
	}
	return nil
}

func (o *connectOptions) run(ctx context.Context) error {
	if err := o.validate(); err != nil {
		return err
	}
	clients, err := o.host.clients()
	if err != nil {
		return err
	}
	tenant, err := o.get(ctx, clients, o.name)
	if err != nil {
		return err
	}
	if tenant.Spec.Type == api.Folder {
		return hint(fmt.Errorf("tenant %q is a Folder, which only groups others: there is nothing to connect to", o.name), "%q shows the tenants.", o.app.name+" list")
	}
	if tenant, err = o.waitReady(ctx, clients, tenant); err != nil {
		return interrupted(ctx, err, "nothing was changed")
	}
	if tenant.Spec.Type == api.Namespace {
		return o.connectNamespace(ctx, tenant)
	}
	entry, err := o.tenantKubeconfig(ctx, clients, tenant, api.Role(o.role))
	if err != nil {
		return err
	}
	if o.server != "" {
		setServer(entry, o.server)
		return o.use(ctx, tenant, entry, "", "at "+o.server)
	}
	if len(o.command) > 0 || o.foreground {
		return o.forwardHere(ctx, clients, tenant, entry)
	}
	id, port, err := o.forwardInBackground(ctx, tenant)
	if err != nil {
		return interrupted(ctx, err, "nothing was changed")
	}
	setServer(entry, localServer(port))
	return o.use(ctx, tenant, entry, id, "through a port-forward in the background")
}

// waitReady waits for a tenant that is not ready yet.
func (o *connectOptions) waitReady(ctx context.Context, clients *hostClients, tenant *api.Tenant) (*api.Tenant, error) {
	if ready(tenant) {
		return tenant, nil
	}
	wait := &waiter{app: o.app, clients: clients, timeout: o.timeout}
	if wait.answersNow(ctx, tenant) {
		return tenant, nil
	}
	wait.progress = newProgress(o.Stderr)
	defer wait.progress.End()
	return wait.wait(ctx, tenant)
}

// connectNamespace uses the host's own API, with the tenant's namespace.
func (o *connectOptions) connectNamespace(ctx context.Context, tenant *api.Tenant) error {
	if o.server != "" || o.role != "" || o.port != 0 {
		return usagef("tenant %q is a namespace of the host, which you use as yourself: leave out --server, --role and --port", o.name)
	}
	config, _, err := o.host.raw()
	if err != nil {
		return err
	}
	if o.host.context == "" {
		return hint(errors.New("without a kubeconfig there is no context to make another from"), "Use the namespace directly: kubectl -n %s.", tenant.Status.Namespace)
	}
	entry := config.DeepCopy()
	entry.CurrentContext = o.host.context
	if err := clientcmdapi.MinifyConfig(entry); err != nil {
		return err
	}
	if err := clientcmdapi.FlattenConfig(entry); err != nil {
		return err
	}
	entry.Contexts[entry.CurrentContext].Namespace = tenancy.HostNamespace(tenant)
	return o.use(ctx, tenant, entry, "", "as namespace "+tenancy.HostNamespace(tenant)+" of the host")
}

// use does with the kubeconfig of the tenant what was asked for.
func (o *connectOptions) use(ctx context.Context, tenant *api.Tenant, entry *clientcmdapi.Config, forwardID, how string) error {
	switch {
	case o.print:
		content, err := clientcmd.Write(*entry)
		if err != nil {
			return err
		}
		_, err = o.Stdout.Write(content)
		return err
	case len(o.command) > 0:
		return o.runCommand(ctx, entry)
	}
	name, err := o.switchTo(tenant, entry, forwardID)
	if err != nil {
		return err
	}
	o.printf("Connected to tenant %s %s.\n", tenant.Name, how)
	o.printf("The current context is %s. Go back with: %s disconnect\n", name, o.app.name)
	return nil
}

// switchTo writes the context of a tenant and makes it the current one.
func (o *connectOptions) switchTo(tenant *api.Tenant, entry *clientcmdapi.Config, forwardID string) (name string, _ error) {
	connection := kubeconfig.Connection{
		Tenant:      tenant.Name,
		HostContext: o.host.context,
		HostServer:  o.host.server,
		Forward:     forwardID,
	}
	return name, o.host.modify(func(config *clientcmdapi.Config) (bool, error) {
		name = kubeconfig.ContextName(config, connection)
		return true, kubeconfig.Connect(config, entry, name, connection)
	})
}

// forwardHere forwards in this process, for a command or until Ctrl-C.
func (o *connectOptions) forwardHere(ctx context.Context, clients *hostClients, tenant *api.Tenant, entry *clientcmdapi.Config) error {
	listener, err := listen(ctx, o.port)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	forwarder, err := forward.New(clients.config, tenancy.HostNamespace(tenant), api.ControlPlanePod, api.APIServerPort)
	if err != nil {
		return err
	}
	// The command decides when it ends, not the signal that it gets as well.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	served := make(chan error, 1)
	go func() {
		served <- forwarder.Serve(serving, listener, func(err error) { o.warnf("port-forward: %v\n", err) })
	}()
	setServer(entry, localServer(portOf(listener)))
	if len(o.command) > 0 {
		return o.runCommand(ctx, entry)
	}
	// A forward in the background would be left without a context.
	if err := o.removeContexts(tenant.Name); err != nil {
		return err
	}
	name, err := o.switchTo(tenant, entry, "")
	if err != nil {
		return err
	}
	o.printf("Connected to tenant %s. The current context is %s until you press Ctrl-C.\n", tenant.Name, name)
	select {
	case <-ctx.Done():
		err = nil // that is how it is meant to end
	case err = <-served:
	}
	_, removeErr := o.removeContext(name)
	return errors.Join(err, removeErr)
}

// forwardInBackground makes sure that a process forwards to the tenant, and
// returns the forward's ID and port.
func (o *connectOptions) forwardInBackground(ctx context.Context, tenant *api.Tenant) (id string, port int, _ error) {
	store, err := o.store()
	if err != nil {
		return "", 0, err
	}
	id = forward.ID(tenant.Name, o.host.server, o.host.target())
	state, err := store.Load(id)
	known := err == nil
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", 0, err
	}
	alive, err := store.Alive(id)
	if err != nil {
		return "", 0, err
	}
	same := known && state.TenantUID == string(tenant.UID) && (o.port == 0 || o.port == state.Port)
	if alive && same {
		return id, state.Port, nil
	}
	if alive {
		if err := store.Stop(id); err != nil {
			return "", 0, err
		}
	}
	wanted := o.port
	if wanted == 0 && known && portIsFree(ctx, state.Port) {
		wanted = state.Port // contexts and printed kubeconfigs go on working
	}
	listener, err := listen(ctx, wanted)
	if err != nil {
		return "", 0, err
	}
	port = portOf(listener)
	_ = listener.Close()
	err = store.Save(forward.State{
		ID:         id,
		Tenant:     tenant.Name,
		TenantUID:  string(tenant.UID),
		Namespace:  tenancy.HostNamespace(tenant),
		HostServer: o.host.server,
		Port:       port,
	})
	if err != nil {
		return "", 0, err
	}
	arguments, err := o.host.arguments()
	if err != nil {
		return "", 0, err
	}
	return id, port, store.Start(ctx, id, arguments, o.host.environment())
}

func (a *app) store() (*forward.Store, error) {
	dir, err := forward.DefaultDir(os.Getenv)
	if err != nil {
		return nil, err
	}
	return forward.NewStore(dir), nil
}

// tenantKubeconfig gets the kubeconfig of a role, or of the highest role whose
// kubeconfig one may read.
func (a *app) tenantKubeconfig(ctx context.Context, clients *hostClients, tenant *api.Tenant, role api.Role) (*clientcmdapi.Config, error) {
	candidates := roles()
	if role != "" {
		candidates = []api.Role{role}
	}
	namespace := tenancy.HostNamespace(tenant)
	var refused error
	for _, candidate := range candidates {
		secret, err := clients.kube.CoreV1().Secrets(namespace).Get(ctx, api.KubeconfigSecretPrefix+string(candidate), metav1.GetOptions{})
		if apierrors.IsForbidden(err) {
			refused = err
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("getting the kubeconfig of tenant %q: %w", tenant.Name, err)
		}
		config, err := clientcmd.Load(secret.Data[api.KubeconfigSecretKey])
		if err != nil {
			return nil, hint(fmt.Errorf("reading the kubeconfig of tenant %q: %w", tenant.Name, err), "Delete the Secret %s in namespace %s: the manager makes it again.", secret.Name, namespace)
		}
		return config, nil
	}
	if role != "" {
		return nil, hint(fmt.Errorf("you do not have the role %s in tenant %q: %w", role, tenant.Name, refused), "Leave out --role to get the highest that you have.")
	}
	return nil, hint(fmt.Errorf("you are not a member of tenant %q: %w", tenant.Name, refused), "Ask an admin of the tenant to add you to its members.")
}

func setServer(config *clientcmdapi.Config, server string) {
	for _, cluster := range config.Clusters {
		cluster.Server = server
	}
}

func localServer(port int) string {
	return "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func listen(ctx context.Context, port int) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, hint(fmt.Errorf("opening a local port for the port-forward: %w", err), "Choose another one with --port.")
	}
	return listener, nil
}

func portIsFree(ctx context.Context, port int) bool {
	listener, err := listen(ctx, port)
	if err != nil {
		return false
	}
	_ = listener.Close()
	return true
}

func portOf(listener net.Listener) int {
	if address, ok := listener.Addr().(*net.TCPAddr); ok {
		return address.Port
	}
	return 0
}

// unversioned prepares a config for requests by path.
func unversioned(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	return config
}
