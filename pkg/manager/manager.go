// Package manager runs the controllers that make tenants on a host cluster.
package manager

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/apply"
	"github.com/sublet-dev/sublet/pkg/helm"
	"github.com/sublet-dev/sublet/pkg/manager/hosts"
	"github.com/sublet-dev/sublet/pkg/manager/quota"
	"github.com/sublet-dev/sublet/pkg/manager/template"
	"github.com/sublet-dev/sublet/pkg/manager/tenant"
	"github.com/sublet-dev/sublet/pkg/version"
)

// Options of the manager. Config is needed; the zero value of everything else
// works.
type Options struct {
	// Config reaches the host's API.
	Config *rest.Config
	// Namespace is the manager's own; sublet-system when empty.
	Namespace string
	// Image of control planes that name none; that of this release when empty.
	Image string
	// IngressNamespaces are where the host's ingress controllers and gateways
	// run: they reach the pods of tenants that may have host names.
	IngressNamespaces []string
	// MetricsAddress serves /metrics, ProbeAddress /healthz and /readyz. When
	// empty there is no such server.
	MetricsAddress, ProbeAddress string
	// LeaderElection lets several managers stand by for each other.
	LeaderElection bool
	// DeletionGrace is the time that the pods of a deleted tenant get to stop;
	// a second when zero. Whole seconds count.
	DeletionGrace time.Duration
	// Unguarded says that the chart's admission policies are off. Admins of
	// tenants then get no right to change a Tenant.
	Unguarded bool
	// ChartDirectory holds the charts that Templates name by a path; none when
	// empty.
	ChartDirectory string
	// ProfilingPort is where profiles are served, on the loopback interface alone:
	// whoever reaches it was let in by the host's API, which forwards to pods. 0
	// is nowhere.
	ProfilingPort int
	// DialTenant connects to the API of a virtual cluster, as the address of its
	// Service on the host; plainly when nil. Tests have no such network.
	DialTenant func(ctx context.Context, network, address string) (net.Conn, error)
}

// Requests to the host's API in a second: enough to make some tenants at a time
// without waiting. The API server's own fairness protects the host.
const (
	requestRate  = 200
	requestBurst = 400
)

// Image is that of subletd in this release.
func Image() string {
	return "ghcr.io/sublet-dev/subletd:" + version.Get().Version
}

func (o Options) withDefaults() Options {
	if o.Namespace == "" {
		o.Namespace = api.SystemNamespace
	}
	if o.Image == "" {
		o.Image = Image()
	}
	if o.DeletionGrace == 0 {
		o.DeletionGrace = time.Second
	}
	if o.MetricsAddress == "" {
		o.MetricsAddress = "0" // what controller-runtime calls none
	}
	if o.ProbeAddress == "" {
		o.ProbeAddress = "0"
	}
	return o
}

func (o Options) profilingAddress() string {
	if o.ProfilingPort == 0 {
		return "" // nowhere
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(o.ProfilingPort))
}

// Run runs the manager until ctx ends, or until it loses the leadership, which
// is an error.
func Run(ctx context.Context, o Options) error {
	if o.Config == nil {
		return errors.New("run the manager: no configuration of the host's API")
	}
	o = o.withDefaults()
	mgr, err := newManager(ctx, o)
	if err != nil {
		return err
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run the manager: %w", err)
	}
	return nil
}

func newManager(ctx context.Context, o Options) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), api.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("register the kinds: %w", err)
	}
	cfg := rest.CopyConfig(o.Config)
	cfg.QPS, cfg.Burst = requestRate, requestBurst
	cfg.UserAgent = api.ManagerName + "/" + version.Get().Version
	// A namespace is emptied of kinds that are deprecated too; nobody needs to be
	// told each time.
	cfg.WarningHandlerWithContext = rest.NoWarnings{}
	// Controllers of the same name may run in one process: tests do that.
	anyName := true
	// The queue with priorities keeps what is stopped while there is work in it: it
	// hands an item to a worker that has left, with its lock held, and the manager
	// does not end in time.
	priorities := false
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme:                        scheme,
		Logger:                        logr.FromContextOrDiscard(ctx),
		Cache:                         tenant.CacheOptions(),
		Metrics:                       metricsserver.Options{BindAddress: o.MetricsAddress},
		PprofBindAddress:              o.profilingAddress(),
		HealthProbeBindAddress:        o.ProbeAddress,
		LeaderElection:                o.LeaderElection,
		LeaderElectionID:              api.ManagerName,
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true,
		Controller:                    config.Controller{SkipNameValidation: &anyName, UsePriorityQueue: &priorities},
	})
	if err != nil {
		return nil, fmt.Errorf("reach the host's API at %s: %w", cfg.Host, err)
	}
	if err := errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("ping", healthz.Ping)); err != nil {
		return nil, fmt.Errorf("add the probes: %w", err)
	}
	if err := addTenants(ctx, mgr, cfg, o); err != nil {
		return nil, fmt.Errorf("add the controller of tenants: %w", err)
	}
	if err := addTemplates(ctx, mgr, cfg, o); err != nil {
		return nil, fmt.Errorf("add the controller of templates: %w", err)
	}
	return mgr, nil
}

func addTenants(ctx context.Context, mgr ctrl.Manager, cfg *rest.Config, o Options) error {
	discoverer, err := discovery.NewDiscoveryClientForConfigAndClient(cfg, mgr.GetHTTPClient())
	if err != nil {
		return err
	}
	metadatas, err := metadata.NewForConfigAndClient(metadata.ConfigFor(cfg), mgr.GetHTTPClient())
	if err != nil {
		return err
	}
	watcher, err := client.NewWithWatch(cfg, client.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return err
	}
	shares := &quota.Ledger{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), IndexParent: tenant.IndexParent}
	changed, hostsChanged := make(chan event.GenericEvent), make(chan event.GenericEvent)
	untyped, err := dynamic.NewForConfigAndClient(dynamic.ConfigFor(cfg), mgr.GetHTTPClient())
	if err != nil {
		return err
	}
	claims := &hosts.Claims{}
	if err := mgr.Add(&hosts.Watcher{
		Claims: claims, Client: mgr.GetClient(), Dynamic: untyped, Discovery: discoverer,
		Recorder: mgr.GetEventRecorder(api.ManagerName), Changed: hostsChanged,
	}); err != nil {
		return err
	}
	r := &tenant.Reconciler{
		Shares:            shares,
		SharesChanged:     changed,
		Hosts:             claims,
		HostsChanged:      hostsChanged,
		Client:            mgr.GetClient(),
		Live:              mgr.GetAPIReader(),
		Applier:           apply.New(mgr.GetClient(), api.ManagerName),
		Discovery:         discoverer,
		Metadata:          metadatas,
		Recorder:          mgr.GetEventRecorder(api.ManagerName),
		SystemNamespace:   o.Namespace,
		IngressNamespaces: o.IngressNamespaces,
		Image:             o.Image,
		DeletionGrace:     o.DeletionGrace,
		Unguarded:         o.Unguarded,
		Now:               time.Now,
	}
	if err := r.SetupWithManager(ctx, mgr, watcher); err != nil {
		return err
	}
	q := &quota.Reconciler{
		Client: mgr.GetClient(), Ledger: shares, Now: time.Now, IndexNamespace: tenant.IndexNamespace, Changed: changed,
	}
	return q.SetupWithManager(mgr)
}

func addTemplates(ctx context.Context, mgr ctrl.Manager, cfg *rest.Config, o Options) error {
	r := &template.Reconciler{
		Client:          mgr.GetClient(),
		Live:            mgr.GetAPIReader(),
		Config:          cfg,
		Mapper:          mgr.GetRESTMapper(),
		Charts:          library(mgr.GetAPIReader(), o),
		SystemNamespace: o.Namespace,
		IndexNamespace:  tenant.IndexNamespace,
		Dial:            o.DialTenant,
		Now:             time.Now,
	}
	return r.SetupWithManager(ctx, mgr)
}

// library finds charts, and what it needs for that in the manager's namespace.
func library(live client.Reader, o Options) *helm.Library {
	return &helm.Library{
		Directory: o.ChartDirectory,
		ConfigMap: func(ctx context.Context, name, key string) ([]byte, error) {
			found := &corev1.ConfigMap{}
			err := live.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: name}, found)
			return found.BinaryData[key], client.IgnoreNotFound(err)
		},
		Credentials: func(ctx context.Context, name string) (string, string, error) {
			found := &corev1.Secret{}
			err := live.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: name}, found)
			return string(found.Data[corev1.BasicAuthUsernameKey]), string(found.Data[corev1.BasicAuthPasswordKey]), err
		},
	}
}
