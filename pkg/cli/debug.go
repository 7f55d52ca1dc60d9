package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/cli/forward"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

const (
	// managerProfilingPort is where the chart has the manager serve profiles.
	managerProfilingPort = 6060
	// profilePatience is how long an answer may take beside what is asked for.
	profilePatience   = time.Minute
	maxProfileSeconds = 600
)

// profileKind is one of the profiles that a Go process gives.
type profileKind struct {
	name, text string
	// path is below /debug/pprof/.
	path string
	// seconds is how long it takes by default; 0 for one of a moment.
	seconds int
	// query is asked besides.
	query map[string]string
	// extension of the file, and the command that shows it.
	extension, viewer string
}

func profileKinds() []profileKind {
	const profile, viewer = ".pb.gz", "go tool pprof"
	return []profileKind{
		{name: "heap", text: "what is in memory now, after a collection", path: "heap", query: map[string]string{"gc": "1"}, extension: profile, viewer: viewer},
		{name: "cpu", text: "where CPU time goes", path: "profile", seconds: 30, extension: profile, viewer: viewer},
		{name: "goroutine", text: "what all goroutines are at", path: "goroutine", extension: profile, viewer: viewer},
		{name: "allocs", text: "what was allocated since the start", path: "allocs", extension: profile, viewer: viewer},
		{name: "trace", text: "what happened when, for go tool trace", path: "trace", seconds: 5, extension: ".trace", viewer: "go tool trace"},
	}
}

func profileNames() []string {
	var names []string
	for _, kind := range profileKinds() {
		names = append(names, kind.name)
	}
	return names
}

func newDebugCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "debug",
		Short: "Look into the processes of Sublet",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	cmd.AddCommand(newProfileCommand(a))
	return cmd
}

// profileOptions are the flags of debug profile.
type profileOptions struct {
	*app
	name    string
	manager bool
	kind    string
	seconds int
	file    string
}

func newProfileCommand(a *app) *cobra.Command {
	o := &profileOptions{app: a}
	cmd := &cobra.Command{
		Use:   "profile NAME",
		Short: "Save a profile of a tenant's control plane, or of the manager",
		Long: `Save a profile of the process of a tenant's control plane, or of the manager: of
its memory, its CPU time, its goroutines, or a trace of all that it does.

Profiles are off until somebody switches them on: for a tenant by
spec.virtualCluster.profiling, which restarts its control plane, and for the
manager by the chart's value manager.profiling. A tenant's are for its admins,
the manager's for whoever may forward to its pod.`,
		Example: examples(a.name, `
%[1]s debug profile acme
%[1]s debug profile acme --type cpu --seconds 60 -o acme-cpu.pb.gz
%[1]s debug profile acme --type goroutine -o - | go tool pprof -top /dev/stdin
%[1]s debug profile --manager --type allocs`),
		Args: func(cmd *cobra.Command, args []string) error {
			if !o.manager {
				return exactlyOneName(cmd, args)
			}
			if len(args) > 0 {
				return errors.New("--manager is no tenant's: leave out the name, or the flag")
			}
			return nil
		},
		ValidArgsFunction: a.completeTenants(false),
		RunE: a.run(func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				o.name = args[0]
			}
			return o.run(ctx)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.manager, "manager", false, "of the manager instead of a tenant")
	flags.StringVar(&o.kind, "type", "heap", "heap, cpu, goroutine, allocs or trace")
	flags.IntVar(&o.seconds, "seconds", 0, "how long to watch, for cpu and trace (default: 30 for cpu, 5 for trace)")
	flags.StringVarP(&o.file, "output", "o", "", "file to write, - for the standard output (default: NAME-TYPE.pb.gz, or .trace)")
	var described []string
	for _, kind := range profileKinds() {
		described = append(described, kind.name+"\t"+kind.text)
	}
	completeValues(cmd, "type", described...)
	return cmd
}

// choose checks the flags, and fills in what they leave out.
func (o *profileOptions) choose() (profileKind, error) {
	kinds := profileKinds()
	i := slices.IndexFunc(kinds, func(k profileKind) bool { return k.name == o.kind })
	if i < 0 {
		return profileKind{}, usagef("unknown --type %q: use %s", o.kind, quoteList(profileNames(), "or"))
	}
	kind := kinds[i]
	switch {
	case o.seconds < 0 || o.seconds > maxProfileSeconds:
		return kind, usagef("--seconds %d: use 1 to %d", o.seconds, maxProfileSeconds)
	case o.seconds > 0 && kind.seconds == 0:
		return kind, usagef("--type %s is of a moment: leave out --seconds, or use it with cpu or trace", kind.name)
	case o.seconds > 0:
		kind.seconds = o.seconds
	}
	if o.file == "" {
		whose := o.name
		if o.manager {
			whose = "manager"
		}
		o.file = whose + "-" + kind.name + kind.extension
	}
	return kind, nil
}

func (o *profileOptions) run(ctx context.Context) error {
	// What was typed wrong is said before anything is asked.
	kind, err := o.choose()
	if err != nil {
		return err
	}
	clients, err := o.host.clients()
	if err != nil {
		return err
	}
	reach, whose := o.reachTenant, "tenant "+o.name
	if o.manager {
		reach, whose = o.reachManager, "the manager"
	}
	client, stop, err := reach(ctx, clients)
	if err != nil {
		return err
	}
	defer stop()

	progress := newProgress(o.Stderr)
	defer progress.End()
	if kind.seconds > 0 {
		progress.Step("%s: watching it for %d s (%s)", whose, kind.seconds, kind.name)
	} else {
		progress.Step("%s: reading its profile (%s)", whose, kind.name)
	}
	content, err := fetchProfile(ctx, client, kind)
	if err != nil {
		return interrupted(ctx, o.refused(err), "nothing was written")
	}
	progress.End()
	if o.file == "-" {
		_, err := o.Stdout.Write(content)
		return err
	}
	if err := writeWhole(o.file, content); err != nil {
		return hint(fmt.Errorf("writing the profile: %w", err), "Choose another file with -o.")
	}
	o.printf("%s\n", o.file)
	o.warnf("Look at it with: %s %s\n", kind.viewer, o.file)
	return nil
}

const managerHint = "Switch them on, which restarts the manager: %s install --set manager.profiling=true, with your other values."

// refused says what to do about a profile that is not given.
func (o *profileOptions) refused(err error) error {
	switch {
	case o.manager && apierrors.IsNotFound(err):
		return hint(errors.New("the manager serves no profiles: they are off"), managerHint, o.app.name)
	case o.manager && unreachable(err):
		return hint(fmt.Errorf("the manager serves no profiles: they are off, or it cannot be reached (%w)", rootOfURLError(err)), managerHint, o.app.name)
	case apierrors.IsNotFound(err):
		return hint(fmt.Errorf("tenant %q serves no profiles: they are off", o.name),
			"Switch them on, which restarts its control plane:\n  kubectl patch tenant %s --type merge -p '{\"spec\":{\"virtualCluster\":{\"profiling\":true}}}'\nand off again with false.", o.name)
	case apierrors.IsForbidden(err):
		return hint(fmt.Errorf("profiles of tenant %q are for its admins: %w", o.name, err), "Ask an admin of the tenant for the profile, or for the role.")
	case err != nil && o.manager:
		return fmt.Errorf("getting a profile of the manager: %w", err)
	case err != nil:
		return hint(fmt.Errorf("getting a profile of tenant %q: %w", o.name, err), "%q tells how it is.", o.app.name+" describe "+o.name)
	}
	return nil
}

// reachTenant leads to a tenant's API with the highest role that one has there.
func (o *profileOptions) reachTenant(ctx context.Context, clients *hostClients) (rest.Interface, func(), error) {
	tenant, err := o.get(ctx, clients, o.name)
	if err != nil {
		return nil, nil, err
	}
	if tenant.Spec.Type != api.VirtualCluster {
		return nil, nil, hint(fmt.Errorf("tenant %q is a %s: it has no control plane", o.name, tenant.Spec.Type),
			"Profiles are of virtual clusters, and of the manager: %s debug profile --manager.", o.app.name)
	}
	entry, err := o.tenantKubeconfig(ctx, clients, tenant, "")
	if err != nil {
		return nil, nil, err
	}
	config, err := clientcmd.NewDefaultClientConfig(*entry, nil).ClientConfig()
	if err != nil {
		return nil, nil, err
	}
	return forwarded(clients, config, tenancy.HostNamespace(tenant), api.ControlPlanePod, localServer(api.APIServerPort), api.APIServerPort)
}

// reachManager leads to the manager's process.
func (o *profileOptions) reachManager(ctx context.Context, clients *hostClients) (rest.Interface, func(), error) {
	pods, err := clients.kube.CoreV1().Pods(api.SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=manager"})
	if err != nil {
		return nil, nil, fmt.Errorf("looking for the manager's pod: %w", err)
	}
	// Of several, the one that leads does the work.
	running := slices.DeleteFunc(pods.Items, func(pod corev1.Pod) bool {
		return pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil
	})
	if len(running) == 0 {
		return nil, nil, hint(fmt.Errorf("no pod of the manager runs in namespace %q", api.SystemNamespace), "See: kubectl get pods -n %s.", api.SystemNamespace)
	}
	pod := running[0].Name
	if lease, err := clients.kube.CoordinationV1().Leases(api.SystemNamespace).Get(ctx, api.ManagerName, metav1.GetOptions{}); err == nil && lease.Spec.HolderIdentity != nil {
		for _, candidate := range running {
			if leads(*lease.Spec.HolderIdentity, candidate.Name) {
				pod = candidate.Name
			}
		}
	}
	return forwarded(clients, &rest.Config{}, api.SystemNamespace, pod, "http://127.0.0.1:"+strconv.Itoa(managerProfilingPort), managerProfilingPort)
}

// leads tells whether the holder of a lease, NAME_UUID, is a pod.
func leads(holder, pod string) bool {
	return len(holder) > len(pod) && holder[:len(pod)] == pod && holder[len(pod)] == '_'
}

// forwarded makes a client whose connections lead to a port of a pod.
func forwarded(clients *hostClients, config *rest.Config, namespace, pod, server string, port int) (rest.Interface, func(), error) {
	forwarder, err := forward.New(clients.config, namespace, pod, port)
	if err != nil {
		return nil, nil, err
	}
	config = unversioned(config)
	config.Host, config.Dial, config.QPS = server, forwarder.DialContext, -1
	client, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		forwarder.Close()
		return nil, nil, err
	}
	return client, forwarder.Close, nil
}

// fetchProfile reads a profile to its end: half of one is of no use.
func fetchProfile(ctx context.Context, client rest.Interface, kind profileKind) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(kind.seconds)*time.Second+profilePatience)
	defer cancel()
	request := client.Get().AbsPath("/debug/pprof/" + kind.path)
	if kind.seconds > 0 {
		request = request.Param("seconds", strconv.Itoa(kind.seconds))
	}
	for name, value := range kind.query {
		request = request.Param(name, value)
	}
	stream, err := request.Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }()
	return io.ReadAll(stream)
}

// writeWhole writes a file in one step, so that there is never half of it.
func writeWhole(file string, content []byte) (err error) {
	part, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(part.Name())
		}
	}()
	_, err = part.Write(content)
	if err = errors.Join(err, part.Close()); err != nil {
		return err
	}
	return os.Rename(part.Name(), file)
}
