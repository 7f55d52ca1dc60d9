package controlplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/server/healthz"
	cacheddiscovery "k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/util/keyutil"
	controllersmetrics "k8s.io/component-base/metrics/prometheus/controllers"
	"k8s.io/controller-manager/pkg/clientbuilder"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	controllerapp "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controlleroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
	controllerconfig "k8s.io/kubernetes/pkg/controller/apis/config"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	serviceaccountcontroller "k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

const (
	// controllerName is what metrics call these controllers.
	controllerName = "kube-controller-manager"
	// controllerStopTimeout is how long controllers may take to finish what
	// they are at.
	controllerStopTimeout = 10 * time.Second
	// controllerResync is how often each object is looked at again.
	controllerResync = 12 * time.Hour
	// discoveryInterval is how often new kinds are looked for, by the garbage
	// collector above all.
	discoveryInterval = 30 * time.Second

	tokenWorkers = 2
)

// controllers are those of kube-controller-manager that a profile runs, with
// the API server's own identity and informers, without a lease or a port.
type controllers struct {
	context controllerapp.ControllerContext
	list    []controllerapp.Controller
	tokens  *serviceaccountcontroller.TokensController
	// release lets events through to them.
	release chan struct{}
}

// tenantControllers is what a cluster without machines needs.
func tenantControllers() []string {
	return []string{
		names.NamespaceController,
		names.ServiceAccountController,
		names.RootCACertificatePublisherController,
		names.GarbageCollectorController,
		names.ResourceQuotaController,
		names.DeploymentController,
		names.ReplicaSetController,
		names.StatefulSetController,
		names.DaemonSetController,
		names.JobController,
		names.CronJobController,
		names.ReplicationControllerController,
		names.EndpointsController,
		names.EndpointSliceController,
		names.EndpointSliceMirroringController,
		names.HorizontalPodAutoscalerController,
		names.DisruptionController,
		names.ClusterRoleAggregationController,
		names.TTLAfterFinishedController,
		names.PodGarbageCollectorController,
		names.CertificateSigningRequestSigningController,
		names.CertificateSigningRequestApprovingController,
		names.CertificateSigningRequestCleanerController,
		names.PersistentVolumeClaimProtectionController,
		names.PersistentVolumeProtectionController,
		names.EphemeralVolumeController,
		names.VolumeAttributesClassProtectionController,
		names.ValidatingAdmissionPolicyStatusController,
		names.ServiceCIDRController,
		names.LegacyServiceAccountTokenCleanerController,
		// For volumes that the tenant makes itself.
		names.PersistentVolumeBinderController,
		// For taints that the tenant puts on its nodes. What becomes of a node, the
		// host's node controller says, so there is none here.
		names.TaintEvictionController,
	}
}

// hostControllers are those which a cluster with machines needs besides. The
// addresses of pods come from the network plugin of each node, so there is no
// node-ipam.
func hostControllers() []string {
	return []string{
		names.NodeLifecycleController,
		names.TTLController,
		names.PersistentVolumeAttachDetachController,
		names.PersistentVolumeExpanderController,
		names.BootstrapSignerController,
		names.TokenCleanerController,
		names.ResourceClaimController,
		names.DeviceTaintEvictionController,
		names.KubeAPIServerClusterTrustBundlePublisherController,
		names.PodCertificateRequestCleanerController,
		names.StorageVersionMigratorController,
	}
}

func controllerNames(profile Profile) []string {
	if profile == ProfileHost {
		return append(tenantControllers(), hostControllers()...)
	}
	return tenantControllers()
}

// newControllers builds the controllers; the API server answers already.
func newControllers(ctx context.Context, o Options, config *rest.Config, factory informers.SharedInformerFactory, certs *certificates, runDir string) (*controllers, error) {
	release := make(chan struct{})
	held := heldInformers{SharedInformerFactory: factory, release: release, stop: ctx.Done()}
	controllerContext, metadataInformers, err := newControllerContext(ctx, o, config, held, certs, runDir)
	if err != nil {
		return nil, err
	}
	known := controllerapp.NewControllerDescriptors()
	for _, name := range controllerNames(o.Profile) {
		if _, ok := known[name]; !ok {
			return nil, fmt.Errorf("controller %q is not in Kubernetes", name)
		}
	}
	build := func(ctx context.Context, controllerContext controllerapp.ControllerContext, held heldInformers, list ...string) ([]controllerapp.Controller, error) {
		if o.Profile == ProfileTenant && slices.Equal(list, []string{names.PersistentVolumeBinderController}) {
			return newVolumeBinder(ctx, controllerContext, held, known)
		}
		wanted := map[string]*controllerapp.ControllerDescriptor{}
		for _, name := range list {
			wanted[name] = known[name]
		}
		built, err := controllerapp.BuildControllers(ctx, controllerContext, wanted, nil, noHealthChecks{})
		if err != nil {
			return nil, fmt.Errorf("building controllers: %w", err)
		}
		return built, nil
	}

	now, late := controllerNames(o.Profile), map[string]*lateController{}
	if o.Profile == ProfileTenant {
		kinds := lateControllers(held)
		for _, kind := range kinds {
			for name := range kind.wakes {
				late[name] = newLateController(name, func(ctx context.Context) ([]controllerapp.Controller, error) {
					release := make(chan struct{})
					held := heldInformers{SharedInformerFactory: factory, release: release, stop: ctx.Done()}
					own := controllerContext
					own.InformerFactory = held
					own.ObjectOrMetadataInformerFactory = informerfactory.NewInformerFactory(held, metadataInformers)
					built, err := build(ctx, own, held, name)
					if err != nil {
						return nil, err
					}
					own.InformerFactory.Start(ctx.Done())
					own.ObjectOrMetadataInformerFactory.Start(ctx.Done())
					close(release)
					return built, nil
				})
			}
		}
		if err := wakeLate(kinds, late); err != nil {
			return nil, err
		}
		now = slices.DeleteFunc(now, func(name string) bool { return late[name] != nil })
	}
	list, err := build(ctx, controllerContext, held, now...)
	if err != nil {
		return nil, err
	}
	for _, controller := range late {
		list = append(list, controller)
	}
	tokens, err := newTokensController(ctx, o, config, held)
	if err != nil {
		return nil, err
	}
	return &controllers{context: controllerContext, list: list, tokens: tokens, release: release}, nil
}

// run blocks until ctx ends and the controllers have stopped.
func (c *controllers) run(ctx context.Context) error {
	c.context.InformerFactory.Start(ctx.Done())
	c.context.ObjectOrMetadataInformerFactory.Start(ctx.Done())
	close(c.context.InformersStarted)
	close(c.release)

	go c.tokens.Run(ctx, tokenWorkers)
	if !controllerapp.RunControllers(ctx, c.context, c.list, 0, controllerStopTimeout) {
		return fmt.Errorf("some controllers did not stop within %s", controllerStopTimeout)
	}
	return nil
}

// defaultControllers is how kube-controller-manager configures its controllers
// when it is told nothing.
func defaultControllers() (controllerconfig.KubeControllerManagerConfiguration, error) {
	component, err := controlleroptions.NewDefaultComponentConfig()
	if err != nil {
		return component, err
	}
	// How fast nodes are tainted is a default of flags only. Without it a node that
	// was lost is tainted at the first try or never.
	lifecycle := controlleroptions.NodeLifecycleControllerOptions{NodeLifecycleControllerConfiguration: &component.NodeLifecycleController}
	lifecycle.AddFlags(pflag.NewFlagSet("", pflag.ContinueOnError))
	return component, nil
}

func newControllerContext(ctx context.Context, o Options, config *rest.Config, factory informers.SharedInformerFactory, certs *certificates, runDir string) (controllerapp.ControllerContext, metadatainformer.SharedInformerFactory, error) {
	none := controllerapp.ControllerContext{}
	component, err := defaultControllers()
	if err != nil {
		return none, nil, fmt.Errorf("configuring controllers: %w", err)
	}
	component.Generic.Controllers = []string{"*"}
	component.Generic.ControllerStartInterval.Duration = 0
	component.SAController.RootCAFile = certs.caFile
	// The default is a directory of the machine, which would be made.
	component.PersistentVolumeBinderController.VolumeConfiguration.FlexVolumePluginDir = filepath.Join(runDir, "flexvolume")
	// The signing controller takes nothing but files; this one goes away with
	// the run directory.
	keyFile := filepath.Join(runDir, "ca.key")
	if err := os.WriteFile(keyFile, o.PKI.CA.KeyPEM, 0o600); err != nil {
		return none, nil, fmt.Errorf("configuring controllers: %w", err)
	}
	component.CSRSigningController.ClusterSigningCertFile = certs.caFile
	component.CSRSigningController.ClusterSigningKeyFile = keyFile

	builder := clientbuilder.SimpleControllerClientBuilder{ClientConfig: config}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return none, nil, fmt.Errorf("configuring controllers: %w", err)
	}
	metadataInformers := metadatainformer.NewSharedInformerFactoryWithOptions(metadataClient, controllerResync,
		metadatainformer.WithTransform(dropManagedFields))
	discovery, err := builder.DiscoveryClient("controller-discovery")
	if err != nil {
		return none, nil, fmt.Errorf("configuring controllers: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(cacheddiscovery.NewMemCacheClient(discovery))
	go wait.Until(mapper.Reset, discoveryInterval, ctx.Done())

	controllerContext := controllerapp.ControllerContext{
		ClientBuilder:                   builder,
		InformerFactory:                 factory,
		ObjectOrMetadataInformerFactory: informerfactory.NewInformerFactory(factory, metadataInformers),
		ComponentConfig:                 component,
		RESTMapper:                      mapper,
		InformersStarted:                make(chan struct{}),
		ResyncPeriod:                    func() time.Duration { return controllerResync },
		ControllerManagerMetrics:        controllersmetrics.NewControllerManagerMetrics(controllerName),
	}
	ignored := map[schema.GroupResource]struct{}{}
	for _, r := range component.GarbageCollectorController.GCIgnoredResources {
		ignored[schema.GroupResource{Group: r.Group, Resource: r.Resource}] = struct{}{}
	}
	controllerContext.GraphBuilder = garbagecollector.NewDependencyGraphBuilder(
		ctx, metadataClient, mapper, ignored, controllerContext.ObjectOrMetadataInformerFactory, controllerContext.InformersStarted)
	controllersmetrics.Register()
	return controllerContext, metadataInformers, nil
}

// newTokensController fills Secrets of type kubernetes.io/service-account-token.
// Upstream starts it by a path of its own, too.
func newTokensController(ctx context.Context, o Options, config *rest.Config, factory informers.SharedInformerFactory) (*serviceaccountcontroller.TokensController, error) {
	key, err := keyutil.ParsePrivateKeyPEM(o.PKI.ServiceAccountKeyPEM)
	if err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	generator, err := serviceaccount.JWTTokenGenerator(serviceaccount.LegacyIssuer, key)
	if err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(rest.CopyConfig(config), "tokens-controller"))
	if err != nil {
		return nil, fmt.Errorf("building the tokens controller: %w", err)
	}
	controller, err := serviceaccountcontroller.NewTokensController(
		klog.LoggerWithName(klog.FromContext(ctx), names.ServiceAccountTokenController),
		factory.Core().V1().ServiceAccounts(),
		factory.Core().V1().Secrets(),
		client,
		serviceaccountcontroller.TokensControllerOptions{TokenGenerator: generator, RootCA: o.PKI.CA.CertPEM},
	)
	if err != nil {
		return nil, fmt.Errorf("building the tokens controller: %w", err)
	}
	return controller, nil
}

// dropManagedFields keeps them out of caches; no controller reads them.
func dropManagedFields(object any) (any, error) {
	if accessor, ok := object.(interface {
		SetManagedFields([]metav1.ManagedFieldsEntry)
	}); ok {
		accessor.SetManagedFields(nil)
	}
	return object, nil
}

// noHealthChecks takes the controllers' checks, which all answer that a
// controller was started.
type noHealthChecks struct{}

// AddHealthChecker drops them.
func (noHealthChecks) AddHealthChecker(...healthz.HealthChecker) {}
