package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/controlplane"
	"github.com/sublet-dev/sublet/pkg/controlplane/dns"
	"github.com/sublet-dev/sublet/pkg/controlplane/kubelet"
	"github.com/sublet-dev/sublet/pkg/controlplane/metrics"
	"github.com/sublet-dev/sublet/pkg/pki"
	"github.com/sublet-dev/sublet/pkg/version"
	"github.com/sublet-dev/sublet/syncer"
)

// stopPatience bounds how long a control plane takes to stop: less than the
// grace period of its pod.
const stopPatience = 8 * time.Second

// dnsProbeInterval is how soon DNS is asked again until it answers for the first
// time.
const dnsProbeInterval = 20 * time.Millisecond

// tenantOptions say where to find what one control plane needs.
type tenantOptions struct {
	configFile, pkiDir, dataDir string
	bindAddress                 string
	port, dnsPort               int
	profiling                   bool
	host                        *rest.Config
}

func newTenantCommand() *cobra.Command {
	var (
		options tenantOptions
		host    hostFlags
		log     logFlags
	)
	cmd := &cobra.Command{
		Use:   "tenant",
		Short: "Run the control plane of one virtual cluster",
		Long: `Run the control plane of one virtual cluster: etcd, API server, controllers, DNS,
the kubelets of its virtual nodes, and the syncer, in one process.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, err := log.apply(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if options.host, err = host.config(); err != nil {
				return err
			}
			return runTenant(ctx, options)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&options.configFile, "config", "", "file with the ControlPlaneConfig that the manager writes")
	flags.StringVar(&options.pkiDir, "pki", "", "directory with the tenant's certificate authorities and keys")
	flags.StringVar(&options.dataDir, "data", "", "directory for etcd's data")
	flags.StringVar(&options.bindAddress, "bind-address", "0.0.0.0", "IP address to serve the API and DNS on")
	flags.IntVar(&options.port, "port", api.APIServerPort, "port of the API")
	flags.IntVar(&options.dnsPort, "dns-port", api.DNSPort, "port of DNS")
	flags.BoolVar(&options.profiling, "profiling", false, "serve profiles of the Go runtime under /debug/pprof, to administrators of the tenant, whatever the configuration says")
	for _, name := range []string{"config", "pki", "data"} {
		_ = cmd.MarkFlagRequired(name)
	}
	host.add(cmd)
	log.add(cmd)
	return cmd
}

// loadConfig reads what the manager says, and refuses what it does not know: a
// setting that has no effect would be worse than none.
func loadConfig(file string) (api.ControlPlaneConfig, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return api.ControlPlaneConfig{}, fmt.Errorf("reading the configuration of the control plane: %w", err)
	}
	return parseConfig(content, file)
}

// parseConfig reads a configuration; source says where it is from.
func parseConfig(content []byte, source string) (api.ControlPlaneConfig, error) {
	var config api.ControlPlaneConfig
	if err := yaml.UnmarshalStrict(content, &config); err != nil {
		return config, fmt.Errorf("reading the configuration of the control plane, %s: %w; the manager and this image must be of one release (%s)", source, err, version.Get().Version)
	}
	return config, nil
}

// tenant is the control plane of one virtual cluster with all that belongs to
// it.
//
//	kubelet shim ◄─ dials ─┐            ┌─ asks for Service addresses ─► syncer
//	                       API server ──┤
//	DNS ── reads ─────────►│            └─ /readyz asks ──► syncer, DNS
//	syncer ── reads, writes┘
type tenant struct {
	options tenantOptions
	config  api.ControlPlaneConfig

	syncer  *syncer.Syncer
	kubelet *kubelet.Server
	metrics *metrics.Server
	fence   *fence
	virtual *rest.Config
	plane   *controlplane.ControlPlane
	// reachable is closed once virtual is known.
	reachable chan struct{}

	mu       sync.Mutex
	dnsState error
}

func runTenant(ctx context.Context, o tenantOptions) error {
	controlplane.Tune()
	config, err := loadConfig(o.configFile)
	if err != nil {
		return err
	}
	bundle, err := pki.LoadBundle(o.pkiDir)
	if err != nil {
		return err
	}
	logger := klog.FromContext(ctx).WithValues("tenant", config.Tenant)
	ctx = klog.NewContext(ctx, logger)
	logger.Info("Starting", "version", version.Get().Version, "kubernetes", versionText(config), "namespace", config.HostNamespace)
	started := time.Now()

	t := &tenant{options: o, config: config, virtual: &rest.Config{}, reachable: make(chan struct{}), dnsState: errors.New("DNS has not started yet")}
	t.syncer, err = syncer.New(syncer.Options{Config: config, Virtual: t.virtual, Host: o.host})
	if err != nil {
		return err
	}
	t.fence = newFence(o.host, t.dnsAddress())
	t.fence.set(config.HostAPI)
	t.metrics, err = metrics.New(metrics.Options{
		HostNamespace: config.HostNamespace,
		Host:          o.host,
		HostPod:       t.syncer.HostPod,
		Virtual:       t.virtualConfig,
	})
	if err != nil {
		return err
	}
	t.kubelet, err = kubelet.New(kubelet.Options{
		Tenant:        config.Tenant,
		HostNamespace: config.HostNamespace,
		Host:          o.host,
		HostPod:       t.syncer.HostPod,
		Virtual:       t.virtualConfig,
		CA:            bundle.CA,
		Usage:         t.metrics.OnNode,
	})
	if err != nil {
		return err
	}

	hostClient, err := t.hostClient()
	if err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	// The API server may dial a kubelet, and asks for addresses of Services,
	// before it is ready.
	group.Go(func() error { return essential(ctx, "kubelet", t.kubelet.Run) })
	// These read what there is on the host while the API server is still built.
	group.Go(func() error { return essential(ctx, "syncer", t.onceReachable(t.syncer.Run)) })
	group.Go(func() error { return essential(ctx, "DNS", t.onceReachable(t.runDNS)) })
	if err := t.start(ctx, bundle); err != nil {
		if ctx.Err() != nil {
			return group.Wait() // it was told to stop while it started, or something else failed
		}
		return err
	}
	logger.Info("API server is ready", "url", t.plane.URL(), "after", roughly(time.Since(started)))

	group.Go(t.plane.Wait)
	group.Go(func() error {
		seen := func(config api.ControlPlaneConfig) { t.fence.set(config.HostAPI) }
		return followMembers(ctx, hostClient, config, seen, func(ctx context.Context, members []api.Member) error {
			return t.plane.SetMembers(ctx, bindings(members))
		})
	})
	group.Go(func() error {
		if t.waitReady(ctx) {
			controlplane.Settle()
			logger.Info("Ready", "after", roughly(time.Since(started)))
		}
		return nil
	})
	return stopInTime(ctx, group)
}

// stopInTime waits until all has ended, but not for long once it was told to.
func stopInTime(ctx context.Context, group *errgroup.Group) error {
	ended := make(chan error, 1)
	go func() { ended <- group.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	klog.FromContext(ctx).Info("Stopping")
	select {
	case err := <-ended:
		return err
	case <-time.After(stopPatience):
		return fmt.Errorf("not everything stopped within %s", stopPatience)
	}
}

// essential turns the end of what must not end by itself into an error.
func essential(ctx context.Context, name string, run func(context.Context) error) error {
	err := run(ctx)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	}
	return fmt.Errorf("%s ended by itself", name)
}

// start starts the control plane.
func (t *tenant) start(ctx context.Context, bundle *pki.Bundle) error {
	config := t.config
	plane, err := controlplane.Start(ctx, controlplane.Options{
		Name:                  config.Tenant,
		DataDir:               t.options.dataDir,
		Profile:               controlplane.ProfileTenant,
		PKI:                   bundle,
		BindAddress:           t.options.bindAddress,
		BindPort:              t.options.port,
		ServerNames:           serverNames(config.HostNamespace),
		ServerIPs:             serverIPs(config),
		ServiceCIDRs:          config.ServiceCIDRs,
		KubernetesServiceIP:   net.ParseIP(config.APIServiceIP),
		KubernetesServicePort: 443,
		ClusterDomain:         config.ClusterDomain,
		EmulatedVersion:       config.Version,
		FeatureGates:          config.FeatureGates,
		RuntimeConfig:         config.RuntimeConfig,
		PodSecurity:           string(config.PodSecurity),
		Members:               bindings(config.Members),
		ServiceAllocator:      t.syncer,
		KubeletDialer:         t.kubelet.Dial,
		EgressDialer:          t.fence.dial,
		Audit:                 config.Audit,
		AuditLog:              "-",
		Authentication:        config.Authentication,
		Profiling:             t.options.profiling || config.Profiling,
		Scheduler:             config.Scheduler,
		LocalAPIs: []controlplane.LocalAPI{{
			GroupVersion: metrics.GroupVersion(),
			Resources:    metrics.Resources(),
			Handler:      t.metrics.Handler(),
			Available:    t.metrics.Available,
			Readers:      metrics.Readers(),
		}},
		Loopback: func(config *rest.Config) {
			t.mu.Lock()
			defer t.mu.Unlock()
			*t.virtual = *config
			close(t.reachable)
		},
		ReadyChecks: []controlplane.ReadyCheck{
			{Name: "sublet-controllers", Check: t.controllersReady},
			{Name: "sublet-syncer", Check: t.syncer.Ready},
			{Name: "sublet-dns", Check: t.dnsReady},
		},
	})
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.plane = plane
	return nil
}

// virtualConfig reaches the tenant's API once there is one.
func (t *tenant) virtualConfig() (*rest.Config, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.plane == nil {
		return nil, errors.New("the API server has not started yet")
	}
	return t.virtual, nil
}

// onceReachable runs something that uses the tenant's API, as soon as requests
// can be made, which wait until it answers.
func (t *tenant) onceReachable(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-t.reachable:
			return run(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// controllersReady tells whether the controllers run, which Start waits for.
func (t *tenant) controllersReady() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.plane == nil {
		return errors.New("the controllers have not started yet")
	}
	return nil
}

// serverNames are those under which the tenant's API is reached on the host.
func serverNames(namespace string) []string {
	short := api.ControlPlaneName + "." + namespace
	return []string{api.ControlPlaneName, short, short + ".svc", short + ".svc.cluster.local"}
}

func serverIPs(config api.ControlPlaneConfig) []net.IP {
	if ip := net.ParseIP(config.APIServiceIP); ip != nil {
		return []net.IP{ip}
	}
	return nil
}

// bindings are the members that mean the same inside the tenant as on the host:
// people and groups. A ServiceAccount of the host is another one inside, and so
// are the groups that every API server gives out by itself.
func bindings(members []api.Member) []controlplane.Binding {
	var list []controlplane.Binding
	for _, member := range members {
		outside := member.Kind == "ServiceAccount" || strings.HasPrefix(member.Name, "system:") || member.Scope == "Descendants"
		if !outside {
			list = append(list, controlplane.Binding{Kind: member.Kind, Name: member.Name, Role: member.Role})
		}
	}
	return list
}

// runDNS serves the tenant's names.
func (t *tenant) runDNS(ctx context.Context) error {
	address := net.JoinHostPort(t.options.bindAddress, strconv.Itoa(t.options.dnsPort))
	go t.probeDNS(ctx)
	return dns.Run(ctx, dns.Options{Listen: address, ClusterDomain: t.config.ClusterDomain, Config: t.virtual})
}

// dnsAddress is where this process reaches the tenant's DNS.
func (t *tenant) dnsAddress() string {
	if ip := net.ParseIP(t.options.bindAddress); ip != nil && !ip.IsUnspecified() {
		return net.JoinHostPort(ip.String(), strconv.Itoa(t.options.dnsPort))
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(t.options.dnsPort))
}

// probeDNS asks for the name that every cluster has until it gets the answer.
func (t *tenant) probeDNS(ctx context.Context) {
	domain := t.config.ClusterDomain
	if domain == "" {
		domain = dns.DefaultClusterDomain
	}
	server := t.dnsAddress()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := resolver.LookupIPAddr(asking, "kubernetes.default.svc."+domain+".")
		cancel()
		t.mu.Lock()
		t.dnsState = err
		t.mu.Unlock()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(dnsProbeInterval):
		}
	}
}

func (t *tenant) dnsReady() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dnsState
}

// waitReady waits for what the API server does not wait for by itself.
func (t *tenant) waitReady(ctx context.Context) bool {
	for t.syncer.Ready() != nil || t.dnsReady() != nil {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return true
}

func versionText(config api.ControlPlaneConfig) string {
	if config.Version != "" {
		return config.Version
	}
	return version.Kubernetes
}

func roughly(d time.Duration) string { return d.Round(10 * time.Millisecond).String() }
