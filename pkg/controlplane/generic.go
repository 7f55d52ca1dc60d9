package controlplane

import (
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	noopoteltrace "go.opentelemetry.io/otel/trace/noop"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/filters"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	etcdmetrics "k8s.io/apiserver/pkg/storage/etcd3/metrics"
	utilopenapi "k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
	apiserverapp "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	kubeapiserver "k8s.io/kubernetes/pkg/controlplane"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"
	kubeapiserveroptions "k8s.io/kubernetes/pkg/kubeapiserver"
)

// informerResync is how often the API server's own informers show everything to
// their handlers again.
const informerResync = 10 * time.Minute

// newConfig configures the three servers of the chain. Upstream's NewConfig does
// it from options alone; here the ways of the process to its own API server and
// the OpenAPI documents are ours.
func newConfig(o Options, opts apiserveroptions.CompletedOptions, loop *loopback, backend *storageBackend) (*apiserverapp.Config, error) {
	generic, factory, storage, err := newGenericConfig(opts, loop, backend)
	if err != nil {
		return nil, err
	}
	authorities, err := fixAuthorities(o, generic)
	if err != nil {
		return nil, err
	}
	inProcess := generic.LoopbackClientConfig

	// Webhooks may lead to this API server by its Service. That takes a
	// connection, as each has its own TLS settings.
	generic.LoopbackClientConfig = networkConfig(o, inProcess)
	kube, resolver, initializers, err := apiserverapp.CreateKubeAPIServerConfig(opts, generic, factory, storage)
	if err != nil {
		return nil, err
	}
	kube.ControlPlane.ClusterAuthenticationInfo.RequestHeaderCA = authorities
	shared := kube.ControlPlane.Generic
	extensions, err := controlplaneapiserver.CreateAPIExtensionsConfig(*shared, factory, initializers, opts.CompletedOptions, opts.MasterCount, resolver,
		webhook.NewDefaultAuthenticationInfoResolverWrapper(kube.ControlPlane.ProxyTransport, shared.EgressSelector, shared.LoopbackClientConfig, shared.TracerProvider))
	if err != nil {
		return nil, err
	}
	custom := &extensions.ExtraConfig.CRDRESTOptionsGetter
	if *custom, err = backend.stores(*custom, nil); err != nil {
		return nil, err
	}
	aggregator, err := controlplaneapiserver.CreateAggregatorConfig(*shared, opts.CompletedOptions, factory, resolver, kube.ControlPlane.ProxyTransport, nil, initializers)
	if err != nil {
		return nil, err
	}

	for _, config := range []*genericapiserver.Config{shared, &extensions.GenericConfig.Config, &aggregator.GenericConfig.Config} {
		config.LoopbackClientConfig = inProcess
		// Package openapi serves the documents.
		config.SkipOpenAPIInstallation = true
	}
	return &apiserverapp.Config{Options: opts, KubeAPIs: kube, ApiExtensions: extensions, Aggregator: aggregator}, nil
}

// newGenericConfig is what the servers of the chain have in common.
func newGenericConfig(opts apiserveroptions.CompletedOptions, loop *loopback, backend *storageBackend) (*genericapiserver.Config, informers.SharedInformerFactory, *serverstorage.DefaultStorageFactory, error) {
	fail := func(err error) (*genericapiserver.Config, informers.SharedInformerFactory, *serverstorage.DefaultStorageFactory, error) {
		return nil, nil, nil, err
	}
	config := genericapiserver.NewConfig(legacyscheme.Codecs)
	config.MergedResourceConfig = kubeapiserver.DefaultAPIResourceConfigSource()
	if err := opts.GenericServerRunOptions.ApplyTo(config); err != nil {
		return fail(err)
	}
	// Without the loopback of upstream, which makes two RSA keys for it.
	if err := opts.SecureServing.SecureServingOptions.ApplyTo(&config.SecureServing); err != nil {
		return fail(err)
	}
	address, err := localURL(config.SecureServing.Listener.Addr())
	if err != nil {
		return fail(err)
	}
	config.LoopbackClientConfig = loop.config(address, uuid.NewString())
	config.LoopbackClientConfig.ContentType = runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(config.LoopbackClientConfig)
	if err != nil {
		return fail(err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, informerResync, informers.WithTransform(dropManagedFields))

	if err := opts.Features.ApplyTo(config, client, factory); err != nil {
		return fail(err)
	}
	if err := opts.APIEnablement.ApplyTo(config, config.MergedResourceConfig, legacyscheme.Scheme); err != nil {
		return fail(err)
	}
	if err := opts.EgressSelector.ApplyTo(config); err != nil {
		return fail(err)
	}
	config.OpenAPIConfig, config.OpenAPIV3Config = openAPIConfigs()
	config.LongRunningFunc = filters.BasicLongRunningRequestCheck(
		sets.NewString("watch", "proxy"),
		sets.NewString("attach", "exec", "proxy", "log", "portforward"),
	)
	config.AggregatedDiscoveryGroupManager = aggregated.NewResourceManager("apis")

	opts.Etcd.StorageConfig.Transport.TracerProvider = noopoteltrace.NewTracerProvider()
	storage, err := newStorageFactory(opts, config)
	if err != nil {
		return fail(err)
	}
	if err := opts.Etcd.ApplyWithStorageFactoryTo(storage, config); err != nil {
		return fail(err)
	}
	if config.RESTOptionsGetter, err = backend.stores(config.RESTOptionsGetter, opts.Etcd.WatchCacheSizes); err != nil {
		return fail(err)
	}
	backend.addHealthChecks(config, opts.Etcd.StorageConfig.Prefix)
	// Like all metrics, of the process: with several control planes, of the last.
	etcdmetrics.SetStorageMonitorGetter(func() ([]etcdmetrics.Monitor, error) { return []etcdmetrics.Monitor{backend}, nil })

	ctx := wait.ContextForChannel(config.DrainedNotify())
	if err := opts.Authentication.ApplyTo(ctx, &config.Authentication, config.SecureServing, config.EgressSelector,
		config.OpenAPIConfig, config.OpenAPIV3Config, client, factory, config.APIServerID); err != nil {
		return fail(err)
	}
	config.Authorization.Authorizer, config.RuleResolver, _, err = controlplaneapiserver.BuildAuthorizer(ctx, opts.CompletedOptions, config.EgressSelector, config.APIServerID, factory)
	if err != nil {
		return fail(fmt.Errorf("authorization: %w", err))
	}
	if err := opts.Audit.ApplyTo(config); err != nil {
		return fail(err)
	}
	return config, factory, storage, nil
}

// fixAuthorities has nothing watch the files of those who sign for clients, which
// stay the same as long as the process lives: a user may have no more than 128
// watches, by default, and all tenants of a machine share them. It returns the
// one for front proxies.
func fixAuthorities(o Options, config *genericapiserver.Config) (dynamiccertificates.CAContentProvider, error) {
	clients, err := dynamiccertificates.NewStaticCAContent("client-ca", o.PKI.CA.CertPEM)
	if err != nil {
		return nil, fmt.Errorf("client CA: %w", err)
	}
	proxies, err := dynamiccertificates.NewStaticCAContent("request-header", o.PKI.FrontProxyCA.CertPEM)
	if err != nil {
		return nil, fmt.Errorf("front proxy CA: %w", err)
	}
	config.SecureServing.ClientCA = dynamiccertificates.NewUnionCAContentProvider(clients, proxies)
	config.Authentication.RequestHeaderConfig.CAContentProvider = proxies
	return proxies, nil
}

func newStorageFactory(opts apiserveroptions.CompletedOptions, config *genericapiserver.Config) (*serverstorage.DefaultStorageFactory, error) {
	factory := kubeapiserveroptions.NewStorageFactoryConfigEffectiveVersion(config.EffectiveVersion)
	factory.APIResourceConfig = config.MergedResourceConfig
	factory.DefaultResourceEncoding.SetEffectiveVersion(config.EffectiveVersion)
	storage, err := factory.Complete(opts.Etcd).New()
	if err != nil {
		return nil, err
	}
	storage.StorageConfig.StorageObjectCountTracker = config.StorageObjectCountTracker
	return storage, nil
}

// localURL is how this machine reaches a listener.
func localURL(listener net.Addr) (string, error) {
	address, ok := listener.(*net.TCPAddr)
	if !ok {
		return "", fmt.Errorf("the API server listens on %s, which is not TCP", listener)
	}
	ip := address.IP
	if ip.IsUnspecified() {
		ip = net.IPv4(127, 0, 0, 1)
	}
	return "https://" + net.JoinHostPort(ip.String(), strconv.Itoa(address.Port)), nil
}

// networkConfig is for those who must reach the API server over a connection.
func networkConfig(o Options, inProcess *restclient.Config) *restclient.Config {
	config := restclient.CopyConfig(inProcess)
	config.Transport = nil
	config.TLSClientConfig.CAData = o.PKI.CA.CertPEM
	config.DisableCompression = true
	return config
}

// openAPIConfigs say how documents are built of the definitions of all kinds.
// The definitions themselves are big and not kept.
func openAPIConfigs() (*openapicommon.Config, *openapicommon.OpenAPIV3Config) {
	definitions := utilopenapi.GetOpenAPIDefinitionsWithoutDisabledFeatures(generatedopenapi.GetOpenAPIDefinitions)
	namer := openapinamer.NewDefinitionNamer(legacyscheme.Scheme, apiextensionsapiserver.Scheme, aggregatorscheme.Scheme)
	v2 := genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	v2.Info.Title = "Kubernetes"
	v3 := &openapicommon.OpenAPIV3Config{
		IgnorePrefixes:        v2.IgnorePrefixes,
		Info:                  &spec.Info{InfoProps: spec.InfoProps{Title: v2.Info.Title}},
		DefaultResponse:       &spec3.Response{ResponseProps: spec3.ResponseProps{Description: v2.DefaultResponse.Description}},
		GetOperationIDAndTags: v2.GetOperationIDAndTags,
		GetDefinitionName:     v2.GetDefinitionName,
		GetDefinitions:        definitions,
	}
	return v2, v3
}

// openAPIDefinitions are those that server-side apply is set up with.
func openAPIDefinitions(config *openapicommon.OpenAPIV3Config) map[string]openapicommon.OpenAPIDefinition {
	return config.GetDefinitions(func(name string) spec.Ref {
		defined, _ := config.GetDefinitionName(name)
		return spec.MustCreateRef("#/components/schemas/" + openapicommon.EscapeJsonPointer(defined))
	})
}

// forgettable changes definitions that do not say anything else then. Whoever is
// set up with definitions copies the outermost part of each and keeps it, and
// with it whatever is reachable from there. What was left would also keep the
// memory around it from being given back. So forget must be called once all are
// set up.
func forgettable(definitions map[string]openapicommon.OpenAPIDefinition) (forget func()) {
	empty := map[string]any{}
	for name, definition := range definitions {
		share(&definition.Schema, empty)
		definition.Schema.Type = slices.Clone(definition.Schema.Type)
		definition.Schema.Required = slices.Clone(definition.Schema.Required)
		definition.Schema.Extensions = maps.Clone(definition.Schema.Extensions)
		definitions[name] = definition
	}
	return func() {
		for _, definition := range definitions {
			clear(definition.Schema.Properties)
		}
	}
}

// share changes a schema so that nothing copies parts of it: references have no
// siblings, as OpenAPI wants it and the builder would make it, and all defaults
// that are empty objects are one, as those who convert objects keep them.
func share(schema *spec.Schema, empty map[string]any) {
	if schema.Ref.String() != "" && !reflect.DeepEqual(*schema, spec.Schema{SchemaProps: spec.SchemaProps{Ref: schema.Ref}}) {
		schema.AllOf = []spec.Schema{{SchemaProps: spec.SchemaProps{Ref: schema.Ref}}}
		schema.Ref = spec.Ref{}
	}
	if object, ok := schema.Default.(map[string]any); ok && len(object) == 0 {
		schema.Default = empty
	}
	for name, property := range schema.Properties {
		share(&property, empty)
		schema.Properties[name] = property
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		share(schema.Items.Schema, empty)
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
		share(schema.AdditionalProperties.Schema, empty)
	}
}
