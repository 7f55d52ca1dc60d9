package controlplane

import (
	"context"
	"crypto"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emicklei/go-restful/v3"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	apiextensionsfeatures "k8s.io/apiextensions-apiserver/pkg/features"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	apimachineryversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/egressselector"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/util/notfoundhandler"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	"k8s.io/client-go/util/keyutil"
	basecompatibility "k8s.io/component-base/compatibility"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
	apiserverapp "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	kubeapiserver "k8s.io/kubernetes/pkg/controlplane"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	"k8s.io/kubernetes/pkg/controlplane/controller/defaultservicecidr"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	schedulingrest "k8s.io/kubernetes/pkg/registry/scheduling/rest"
	"k8s.io/kubernetes/pkg/serviceaccount"

	"github.com/sublet-dev/sublet/pkg/controlplane/openapi"
	"github.com/sublet-dev/sublet/pkg/version"
)

// adminGroup may do everything, in every Kubernetes cluster.
const adminGroup = "system:masters"

// endpointInterval is how often default/kubernetes is looked at; it changes only
// when somebody spoils it.
const endpointInterval = time.Minute

// serviceRangeHook makes the range of ClusterIPs.
const serviceRangeHook = "start-kubernetes-service-cidr-controller"

// readAheadTimeout is how long the API server does nothing but read what it has
// stored, when it starts.
const readAheadTimeout = 5 * time.Second

// apiServer is a kube-apiserver with CRDs and aggregation: configured, then
// built, then run.
type apiServer struct {
	options    Options
	config     *apiserverapp.Config
	loopback   *loopback
	storage    *storageBackend
	certs      *certificates
	aggregator *aggregatorapiserver.APIAggregator
	kube       *kubeapiserver.Instance
	extensions *apiextensionsapiserver.CustomResourceDefinitions
	// egress is nil without an EgressDialer.
	egress  *egress
	local   localAPIs
	openAPI *openapi.Server
}

// newAPIServer configures the server on a listener that is open already.
func newAPIServer(ctx context.Context, o Options, listener net.Listener, certs *certificates, runDir string) (_ *apiServer, err error) {
	opts, err := apiServerOptions(o, certs, runDir)
	if err != nil {
		return nil, err
	}
	server := &apiServer{options: o, certs: certs, loopback: newLoopback(ctx), storage: &storageBackend{clock: newBeatClock()}, local: localAPIs{list: o.LocalAPIs}}
	if o.EgressDialer != nil {
		if server.egress, err = newEgress(o, opts, runDir); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				server.egress.close()
			}
		}()
	}
	completed, err := opts.Complete(ctx)
	if err != nil {
		return nil, fmt.Errorf("API server options: %w", err)
	}
	// Set after Complete, which otherwise makes a certificate of its own.
	completed.SecureServing.Listener = listener
	completed.SecureServing.BindPort = listener.Addr().(*net.TCPAddr).Port
	completed.SecureServing.ServerCert.GeneratedCert = certs.serving
	if errs := completed.Validate(); len(errs) > 0 {
		return nil, fmt.Errorf("API server options: %w", utilerrors.NewAggregate(errs))
	}

	config, err := newConfig(o, completed, server.loopback, server.storage)
	if err != nil {
		return nil, fmt.Errorf("configuring the API server: %w", err)
	}
	if err := adjust(config, o); err != nil {
		return nil, fmt.Errorf("configuring the API server: %w", err)
	}
	server.local.intercept(&config.Aggregator.GenericConfig.Config)
	server.config = config
	return server, nil
}

// build makes the server; it connects to etcd.
func (s *apiServer) build() error {
	completed, err := s.config.Complete()
	if err != nil {
		return fmt.Errorf("configuring the API server: %w", err)
	}
	// Needed while the APIs are installed, and too big to keep.
	generic := s.config.KubeAPIs.ControlPlane.Generic
	definitions := openAPIDefinitions(generic.OpenAPIV3Config)
	forget := forgettable(definitions)
	generic.OpenAPIV3Config.Definitions = definitions
	defer func() {
		forget()
		generic.OpenAPIV3Config.Definitions = nil
	}()
	if err := s.buildChain(completed); err != nil {
		return fmt.Errorf("building the API server: %w", err)
	}
	services := s.aggregator.APIRegistrationInformers.Apiregistration().V1().APIServices()
	s.local.services, s.local.informer = services.Lister(), services.Informer()
	s.local.discovery = s.aggregator.GenericAPIServer.AggregatedDiscoveryGroupManager.WithSource(aggregated.BuiltinSource)
	for _, container := range s.containers() {
		shareRoutes(container)
	}
	s.openAPI, err = s.newOpenAPI()
	return err
}

// containers have the routes of all three servers.
func (s *apiServer) containers() []*restful.Container {
	return []*restful.Container{
		s.aggregator.GenericAPIServer.Handler.GoRestfulContainer,
		s.kube.ControlPlane.GenericAPIServer.Handler.GoRestfulContainer,
		s.extensions.GenericAPIServer.Handler.GoRestfulContainer,
	}
}

// buildChain makes the three servers, each of which passes on what it does not
// know:
//
//	aggregator ─► kube-apiserver ─► custom resources ─► not found
func (s *apiServer) buildChain(completed apiserverapp.CompletedConfig) error {
	notFound := notfoundhandler.New(completed.KubeAPIs.ControlPlane.Generic.Serializer, genericapifilters.NoMuxAndDiscoveryIncompleteKey)
	var err error
	if s.extensions, err = completed.ApiExtensions.New(genericapiserver.NewEmptyDelegateWithCustomHandler(notFound)); err != nil {
		return err
	}
	if s.kube, err = completed.KubeAPIs.New(s.extensions.GenericAPIServer); err != nil {
		return err
	}
	crds := apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")
	s.aggregator, err = controlplaneapiserver.CreateAggregatorServer(completed.Aggregator, s.kube.ControlPlane.GenericAPIServer,
		s.extensions.Informers.Apiextensions().V1().CustomResourceDefinitions(),
		completed.ApiExtensions.GenericConfig.MergedResourceConfig.ResourceEnabled(crds), groupPriorities())
	return err
}

// run serves until ctx ends and all requests are drained.
func (s *apiServer) run(ctx context.Context) error {
	defer s.loopback.stop()
	// Not the aggregator's own method, which does the same, and builds all
	// OpenAPI documents besides.
	prepared := s.aggregator.GenericAPIServer.PrepareRun()
	front := s.aggregator.GenericAPIServer.Handler
	s.openAPI.Install(front.NonGoRestfulMux)
	s.loopback.serve(front)
	// The hooks would stop their informers soon after this.
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(wait.ContextForChannel(s.config.Aggregator.GenericConfig.ShutdownInitiatedNotify()), stop)()
	s.readAhead(ctx, reading)
	return prepared.RunWithContext(ctx)
}

// readAhead fills the caches of the three servers before their post-start hooks
// run, which start the same informers, and then look only ten times a second
// whether they are filled: one after the other where one waits for another.
func (s *apiServer) readAhead(ctx, reading context.Context) {
	waiting, cancel := context.WithTimeout(ctx, readAheadTimeout)
	defer cancel()
	core, custom, services := s.config.KubeAPIs.ControlPlane.VersionedInformers, s.extensions.Informers, s.aggregator.APIRegistrationInformers
	core.Start(reading.Done())
	custom.Start(reading.Done())
	services.Start(reading.Done())
	// What is not filled in time is waited for by the hooks.
	core.WaitForCacheSyncWithContext(waiting)
	custom.WaitForCacheSyncWithContext(waiting)
	services.WaitForCacheSyncWithContext(waiting)
}

// keepServiceRange keeps the range of ClusterIPs what the options say, until ctx
// ends.
func (s *apiServer) keepServiceRange(ctx context.Context, config *restclient.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	extra := s.config.KubeAPIs.Extra
	defaultservicecidr.NewController(extra.ServiceIPRange, extra.SecondaryServiceIPRange, client).Start(ctx)
	<-ctx.Done()
	return nil
}

// newOpenAPI serves the documents of all three servers and of aggregated APIs.
func (s *apiServer) newOpenAPI() (*openapi.Server, error) {
	generic := s.config.KubeAPIs.ControlPlane.Generic
	var dial *transport.DialHolder
	if generic.EgressSelector != nil {
		// The way of all that objects ask for, as the aggregator goes it.
		dialer, err := generic.EgressSelector.Lookup(egressselector.Cluster.AsNetworkContext())
		if err != nil {
			return nil, fmt.Errorf("the way to aggregated APIs: %w", err)
		}
		dial = &transport.DialHolder{Dial: dialer}
	}
	extra := s.config.Aggregator.ExtraConfig
	crds := s.extensions.Informers.Apiextensions().V1().CustomResourceDefinitions().Lister()
	services := s.aggregator.APIRegistrationInformers.Apiregistration().V1().APIServices().Lister()
	return openapi.New(openapi.Options{
		Servers:          s.containers(),
		V2:               generic.OpenAPIConfig,
		V3:               generic.OpenAPIV3Config,
		Identity:         openAPIIdentity(s.options),
		CRDs:             func() ([]*apiextensionsv1.CustomResourceDefinition, error) { return crds.List(labels.Everything()) },
		SelectableFields: utilfeature.DefaultFeatureGate.Enabled(apiextensionsfeatures.CustomResourceFieldSelectors),
		Remote: &openapi.Remote{
			Services:    func() ([]*apiregistrationv1.APIService, error) { return services.List(labels.Everything()) },
			Resolve:     extra.ServiceResolver.ResolveEndpoint,
			Certificate: s.certs.frontProxy.CurrentCertKeyContent,
			Dial:        dial,
		},
	}), nil
}

// openAPIIdentity changes with whatever changes the documents of the servers
// themselves.
func openAPIIdentity(o Options) string {
	gates := utilfeature.DefaultFeatureGate.DeepCopy()
	var enabled []string
	for name := range gates.GetAll() {
		if gates.Enabled(name) {
			enabled = append(enabled, string(name))
		}
	}
	slices.Sort(enabled)
	emulated := compatibility.DefaultComponentGlobalsRegistry.EffectiveVersionFor(basecompatibility.DefaultKubeComponent).EmulationVersion()
	return fmt.Sprintf("%s %s %s %q %q", version.Get().Version, version.Kubernetes, emulated, enabled, o.RuntimeConfig)
}

// groupPriorities order the groups and versions in discovery; without one a
// group is not served. Upstream keeps those beyond the generic ones to itself.
func groupPriorities() map[schema.GroupVersion]controlplaneapiserver.APIServicePriority {
	priorities := controlplaneapiserver.DefaultGenericAPIServicePriorities()
	for group, priority := range map[string]struct {
		group    int32
		versions map[string]int32
	}{
		"":                  {18000, map[string]int32{"v1": 1}},
		"apps":              {17800, map[string]int32{"v1": 15}},
		"autoscaling":       {17500, map[string]int32{"v2": 30, "v1": 15}},
		"batch":             {17400, map[string]int32{"v1": 15}},
		"networking.k8s.io": {17200, map[string]int32{"v1": 15, "v1beta1": 9}},
		"policy":            {17100, map[string]int32{"v1": 15}},
		"storage.k8s.io":    {16800, map[string]int32{"v1": 15, "v1beta1": 9, "v1alpha1": 1}},
		"scheduling.k8s.io": {16600, map[string]int32{"v1": 15, "v1alpha2": 2}},
		"node.k8s.io":       {16300, map[string]int32{"v1": 15}},
		"resource.k8s.io":   {16200, map[string]int32{"v1": 21, "v1beta2": 15, "v1beta1": 9, "v1alpha3": 1}},
	} {
		for name, order := range priority.versions {
			priorities[schema.GroupVersion{Group: group, Version: name}] = controlplaneapiserver.APIServicePriority{Group: priority.group, Version: order}
		}
	}
	return priorities
}

func apiServerOptions(o Options, certs *certificates, runDir string) (*apiserveroptions.ServerRunOptions, error) {
	opts := apiserveroptions.NewServerRunOptions()

	opts.GenericServerRunOptions.AdvertiseAddress = advertiseAddress(o)
	// A feature of an older version that is switched on may be implemented
	// with a newer version of its API, which must be there, then.
	opts.GenericServerRunOptions.EmulationForwardCompatible = emulates(opts)
	// The listener comes later; with a port set now, a self-signed certificate
	// would be made.
	opts.SecureServing.BindAddress = net.ParseIP(o.BindAddress)
	opts.SecureServing.BindPort = 0
	opts.SecureServing.ServerCert.CertDirectory = ""

	// For the allocators of Services alone: all else calls etcd without a
	// connection, and compacts it, and asks for its health.
	opts.Etcd.StorageConfig.Transport.ServerList = []string{etcdEndpoint(runDir)}
	opts.Etcd.StorageConfig.CompactionInterval = 0
	opts.Etcd.SkipHealthEndpoints = true
	if o.Profile == ProfileTenant {
		// Metrics that nobody reads, one query for each resource every minute.
		opts.Etcd.StorageConfig.CountMetricPollPeriod = 0
		opts.Etcd.StorageConfig.DBMetricPollInterval = 0
	}

	opts.AllowPrivileged = true
	opts.ServiceClusterIPRanges = strings.Join(o.ServiceCIDRs, ",")
	if o.ServiceAllocator != nil {
		// Whoever allocates has a range of its own.
		opts.ServiceNodePortRange = utilnet.PortRange{Base: 1, Size: 65535}
	}
	// Ours comes later, see adjust.
	opts.EndpointReconcilerType = string(reconcilers.NoneEndpointReconcilerType)

	if err := authentication(opts, o, certs); err != nil {
		return nil, err
	}
	if err := issuers(opts, o, runDir); err != nil {
		return nil, err
	}
	if err := audit(opts, o, runDir); err != nil {
		return nil, err
	}
	opts.Authorization.Modes = []string{"RBAC"}
	if o.Profile == ProfileHost {
		opts.Authorization.Modes = []string{"Node", "RBAC"}
	}
	if err := admissionPlugins(opts, o, runDir); err != nil {
		return nil, err
	}
	opts.APIEnablement.RuntimeConfig = make(map[string]string, len(o.RuntimeConfig))
	for key, value := range o.RuntimeConfig {
		opts.APIEnablement.RuntimeConfig[key] = value
	}
	opts.Features.EnableProfiling = o.Profiling
	// These are global in the libraries, and the defaults hold.
	opts.Metrics = nil

	opts.KubeletConfig.PreferredAddressTypes = []string{"InternalIP", "Hostname", "InternalDNS", "ExternalIP", "ExternalDNS"}
	opts.KubeletConfig.TLSClientConfig.CertFile = certs.kubeletClientCert
	opts.KubeletConfig.TLSClientConfig.KeyFile = certs.kubeletClient
	opts.ProxyClientCertFile = certs.frontProxyCert
	opts.ProxyClientKeyFile = certs.frontProxyKey
	if o.KubeletDialer != nil {
		opts.KubeletConfig.TLSClientConfig.CAFile = certs.caFile
		opts.KubeletConfig.Lookup = func(egressselector.NetworkContext) (utilnet.DialFunc, error) {
			return o.KubeletDialer, nil
		}
	}
	return opts, nil
}

// emulates tells whether an older version than that of the libraries is served.
func emulates(opts *apiserveroptions.ServerRunOptions) bool {
	generic := opts.GenericServerRunOptions
	effective := generic.ComponentGlobalsRegistry.EffectiveVersionFor(generic.ComponentName)
	return !effective.BinaryVersion().WithPatch(0).EqualTo(effective.EmulationVersion())
}

// authentication sets who is believed: certificates of the bundle's CA, tokens
// signed by its key, the aggregator's headers, bootstrap tokens on a host.
func authentication(opts *apiserveroptions.ServerRunOptions, o Options, certs *certificates) error {
	clientCA, err := dynamiccertificates.NewStaticCAContent("client-ca", o.PKI.CA.CertPEM)
	if err != nil {
		return fmt.Errorf("client CA: %w", err)
	}
	opts.Authentication.ClientCert.CAContentProvider = clientCA
	opts.Authentication.RequestHeader.ClientCAFile = certs.frontProxyCAFile
	opts.Authentication.RequestHeader.AllowedNames = []string{frontProxyClientName}
	opts.Authentication.RequestHeader.UsernameHeaders = []string{"X-Remote-User"}
	opts.Authentication.RequestHeader.GroupHeaders = []string{"X-Remote-Group"}
	opts.Authentication.RequestHeader.UIDHeaders = []string{"X-Remote-Uid"}
	opts.Authentication.RequestHeader.ExtraHeaderPrefixes = []string{"X-Remote-Extra-"}
	opts.Authentication.BootstrapToken.Enable = o.Profile == ProfileHost

	key, err := keyutil.ParsePrivateKeyPEM(o.PKI.ServiceAccountKeyPEM)
	if err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return fmt.Errorf("service account key: %T cannot sign", key)
	}
	issuer := "https://kubernetes.default.svc." + o.ClusterDomain
	// Set here instead of by file names, so that the key is written nowhere.
	if opts.ServiceAccountIssuer, err = serviceaccount.JWTTokenGenerator(issuer, key); err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	public, err := serviceaccount.StaticPublicKeysGetter([]any{signer.Public()})
	if err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	opts.Authentication.ServiceAccounts.ExternalPublicKeysGetter = public
	opts.Authentication.ServiceAccounts.Issuers = []string{issuer}
	opts.Authentication.ServiceAccounts.JWKSURI = issuer + "/openid/v1/jwks"
	return nil
}

// admissionPlugins are the default ones, with a level for Pod Security, and
// ours for Services.
func admissionPlugins(opts *apiserveroptions.ServerRunOptions, o Options, runDir string) error {
	admission := opts.Admission.GenericAdmission
	if o.Profile == ProfileHost {
		admission.EnablePlugins = append(admission.EnablePlugins, "NodeRestriction")
	}
	if o.ServiceAllocator != nil {
		registerServicePlugin(admission.Plugins, o.ServiceAllocator)
		before := slices.Index(admission.RecommendedPluginOrder, resourcequota.PluginName)
		// The order is a variable of the library, so it is copied.
		admission.RecommendedPluginOrder = slices.Insert(slices.Clone(admission.RecommendedPluginOrder), before, servicePluginName)
	}
	admission.ConfigFile = filepath.Join(runDir, "admission.yaml")
	if err := os.WriteFile(admission.ConfigFile, []byte(admissionConfiguration(o.PodSecurity)), 0o600); err != nil {
		return fmt.Errorf("admission configuration: %w", err)
	}
	return nil
}

func admissionConfiguration(podSecurity string) string {
	return `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults:
      enforce: ` + strconv.Quote(podSecurity) + `
      enforce-version: latest
    exemptions: {}
`
}

// adjust changes what the options cannot say.
func adjust(config *apiserverapp.Config, o Options) error {
	generic := config.KubeAPIs.ControlPlane.Generic

	// Two wait a second before their first try and hold up readiness, then write
	// some 130 objects one by one; the third reads what is seeded, and looks ten
	// times a second whether it has. See seed.go for what stands in.
	generic.DisabledPostStartHooks.Insert(rbacrest.PostStartHookName, schedulingrest.PostStartHookName, serviceRangeHook)

	reconciler, err := newEndpointReconciler(generic.LoopbackClientConfig)
	if err != nil {
		return err
	}
	extra := &config.KubeAPIs.Extra
	if o.KubernetesServiceIP != nil {
		extra.APIServerServiceIP = o.KubernetesServiceIP
	}
	extra.APIServerServicePort = o.KubernetesServicePort
	extra.EndpointReconcilerConfig = kubeapiserver.EndpointReconcilerConfig{Reconciler: reconciler, Interval: endpointInterval}
	if o.Profile == ProfileTenant {
		extra.EndpointReconcilerConfig.Reconciler = &serviceEndpoint{
			EndpointReconciler: reconciler,
			ip:                 extra.APIServerServiceIP,
			port:               int32(o.KubernetesServicePort),
		}
	}

	if o.EgressDialer != nil {
		keepKubelets(config, o)
	}

	// The aggregator stands in front, so it shows version and health.
	front := config.Aggregator.GenericConfig
	front.EffectiveVersion = namedVersion{EffectiveVersion: front.EffectiveVersion}
	for _, check := range o.ReadyChecks {
		front.AddReadyzChecks(healthz.NamedCheck(check.Name, func(r *http.Request) error {
			// The control plane itself waits for the API server alone, before it
			// makes what the others wait for.
			if client, ok := request.UserFrom(r.Context()); ok && client.GetName() == user.APIServerUser {
				return nil
			}
			return check.Check()
		}))
	}
	return nil
}

// namedVersion shows the release of the Kubernetes libraries, which otherwise
// only the linker can tell them, and an older version that is emulated: charts
// and clients choose by it among APIs.
type namedVersion struct {
	basecompatibility.EffectiveVersion
}

// Info is what /version shows.
func (v namedVersion) Info() *apimachineryversion.Info {
	info := v.EffectiveVersion.Info()
	if info == nil {
		return nil
	}
	info.GitVersion = version.Kubernetes
	info.GitTreeState = "clean"
	info.GitCommit = ""
	info.BuildDate = ""
	if emulated := v.EmulationVersion(); emulated != nil && (info.Major != info.EmulationMajor || info.Minor != info.EmulationMinor) {
		info.Major, info.Minor = info.EmulationMajor, info.EmulationMinor
		info.GitVersion = fmt.Sprintf("v%s.%s.0+sublet-%s", info.Major, info.Minor, strings.TrimPrefix(version.Kubernetes, "v"))
	}
	return info
}

// advertiseAddress is nil when the machine's own is to be found.
func advertiseAddress(o Options) net.IP {
	if ip := net.ParseIP(o.AdvertiseAddress); ip != nil {
		return ip
	}
	if ip := net.ParseIP(o.BindAddress); ip != nil && !ip.IsUnspecified() {
		return ip
	}
	return nil
}

// listen opens the port; 0 takes a free one.
func listen(o Options) (net.Listener, error) {
	network := "tcp"
	if net.ParseIP(o.BindAddress).To4() != nil {
		// Otherwise 0.0.0.0 becomes :: where the kernel has IPv6.
		network = "tcp4"
	}
	address := net.JoinHostPort(o.BindAddress, strconv.Itoa(o.BindPort))
	listener, _, err := options.CreateListener(network, address, net.ListenConfig{})
	if err != nil {
		return nil, fmt.Errorf("API server address %s: %w; choose another BindAddress or BindPort", address, err)
	}
	return listener, nil
}
