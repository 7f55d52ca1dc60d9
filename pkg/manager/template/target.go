package template

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/flowcontrol"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/template"
)

const (
	// Requests to the host's API in a second, for the templates of all tenants;
	// and to that of a virtual cluster.
	hostRate, hostBurst       = 100, 200
	virtualRate, virtualBurst = 50, 100
	// timeout of one request to a virtual cluster.
	timeout = 20 * time.Second
	// newFor is how long an API server may not know of a right that was given.
	newFor = 5 * time.Second
	// factsFor is how long it counts what an API server has.
	factsFor = time.Minute
)

// errDiscovery is that an API does not say which kinds it has.
var errDiscovery = errors.New("the API does not say which kinds it has")

// target is where the templates of one tenant go.
type target struct {
	client  client.Client
	place   template.Place
	watches *watches
	facts   *facts
	// definitions tell of kinds that were missing.
	definitions *definitions
	// since is when the rights were given.
	since time.Time
}

func (t *target) isNew(now time.Time) bool { return now.Sub(t.since) < newFor }

func (t *target) watch(ctx context.Context, tenant string, kind schema.GroupVersionKind) {
	if mapping, err := t.client.RESTMapper().RESTMapping(kind.GroupKind(), kind.Version); err == nil {
		t.watches.ensure(ctx, tenant, mapping.Resource, kind)
	}
}

// holds says whether an object is known to be as it was written.
func (t *target) holds(object *unstructured.Unstructured, version string) bool {
	kind := object.GroupVersionKind()
	mapping, err := t.client.RESTMapper().RESTMapping(kind.GroupKind(), kind.Version)
	return err == nil && version != "" && t.watches.version(mapping.Resource, client.ObjectKeyFromObject(object)) == version
}

func (t *target) capabilities() (string, []string, error) { return t.facts.get() }

// facts are what an API server has, asked for once a minute at most.
type facts struct {
	discovery discovery.DiscoveryInterface
	mu        sync.Mutex
	at        time.Time
	version   string
	apis      []string
}

func (f *facts) get() (string, []string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.at) < factsFor {
		return f.version, f.apis, nil
	}
	version, err := f.discovery.ServerVersion()
	if err != nil {
		return "", nil, err
	}
	groups, lists, err := f.discovery.ServerGroupsAndResources()
	if err != nil && len(groups) == 0 {
		return "", nil, err
	}
	var apis []string
	for _, group := range groups {
		for _, v := range group.Versions {
			apis = append(apis, v.GroupVersion)
		}
	}
	for _, list := range lists {
		for _, resource := range list.APIResources {
			apis = append(apis, list.GroupVersion+"/"+resource.Kind)
		}
	}
	slices.Sort(apis)
	f.at, f.version, f.apis = time.Now(), version.GitVersion, slices.Compact(apis)
	return f.version, f.apis, nil
}

func namespacedIn(mapper meta.RESTMapper) func(schema.GroupVersionKind) (bool, error) {
	return func(kind schema.GroupVersionKind) (bool, error) {
		mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if meta.IsNoMatchError(err) {
			return false, &template.UnknownKind{Kind: kind}
		}
		if err != nil {
			return false, fmt.Errorf("%w: %s", errDiscovery, err)
		}
		return mapping.Scope.Name() == meta.RESTScopeNameNamespace, nil
	}
}

// target finds where the templates of a tenant go.
func (r *Reconciler) target(ctx context.Context, tenant *api.Tenant) (*target, error) {
	if tenant.Spec.Type == api.Namespace {
		return r.hostTarget(ctx, tenant)
	}
	return r.virtual.target(ctx, r, tenant)
}

// host is what the tenants with a namespace on the host share.
type host struct {
	config      *rest.Config
	watches     *watches
	facts       *facts
	definitions *definitions
}

// newHost prepares the host. Its watches end with ctx.
func (r *Reconciler) newHost(ctx context.Context) (*host, error) {
	config := rest.CopyConfig(r.Config)
	config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(hostRate, hostBurst)
	metadatas, err := metadata.NewForConfig(metadata.ConfigFor(r.Config))
	if err != nil {
		return nil, err
	}
	discoverer, err := discovery.NewDiscoveryClientForConfig(r.Config)
	if err != nil {
		return nil, err
	}
	return &host{
		config: config,
		facts:  &facts{discovery: discoverer},
		watches: newWatches(ctx, metadatas, r.mayWatch, func(kind schema.GroupVersionKind, object *metav1.PartialObjectMetadata) {
			r.noticeOnHost(ctx, kind, object)
		}, func(tenant string) { r.lookAgain(ctx, tenant) }),
		definitions: &definitions{ctx: ctx, client: metadatas, allowed: r.mayWatch, came: func(tenant string) { r.startOver(ctx, tenant) }},
	}, nil
}

// mayWatch says whether the manager has the right to watch a kind everywhere on
// the host. What it may not watch is compared now and then.
func (r *Reconciler) mayWatch(ctx context.Context, resource schema.GroupVersionResource) bool {
	for _, verb := range []string{"list", "watch"} {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: verb, Group: resource.Group, Version: resource.Version, Resource: resource.Resource,
			},
		}}
		if err := r.Client.Create(ctx, review); err != nil || !review.Status.Allowed {
			return false
		}
	}
	return true
}

// noticeOnHost finds the tenant of an object that changed.
func (r *Reconciler) noticeOnHost(ctx context.Context, kind schema.GroupVersionKind, object *metav1.PartialObjectMetadata) {
	tenants := &api.TenantList{}
	if err := r.Client.List(ctx, tenants, client.MatchingFields{r.IndexNamespace: object.Namespace}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot find the tenant of a namespace", "namespace", object.Namespace)
		return
	}
	for i := range tenants.Items {
		r.notice(ctx, tenants.Items[i].Name, kind, object)
	}
}

// hostTarget is a tenant's namespace on the host. The manager's own rights do not
// count there: it acts as an account that is an admin of the namespace and has no
// other right.
func (r *Reconciler) hostTarget(ctx context.Context, tenant *api.Tenant) (*target, error) {
	binding := &rbacv1.RoleBinding{}
	if err := r.Client.Get(ctx, client.ObjectKey{Namespace: tenant.Status.Namespace, Name: api.TemplateBinding}, binding); err != nil {
		return nil, err
	}
	config := rest.CopyConfig(r.hosts.config)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + r.SystemNamespace + ":" + api.TemplateAccountPrefix + tenant.Name,
	}
	c, err := client.New(config, client.Options{Mapper: r.Mapper, Scheme: runtime.NewScheme()})
	if err != nil {
		return nil, err
	}
	return &target{
		client:      c,
		place:       template.Place{Namespace: tenant.Status.Namespace, Only: true, Namespaced: namespacedIn(r.Mapper)},
		watches:     r.hosts.watches,
		facts:       r.hosts.facts,
		definitions: r.hosts.definitions,
		since:       binding.CreationTimestamp.Time,
	}, nil
}

// virtuals are the virtual clusters that templates are applied in.
type virtuals struct {
	mu   sync.Mutex
	ctx  context.Context
	open map[string]*virtual
}

type virtual struct {
	uid types.UID
	// version is that of the Secret with the kubeconfig.
	version string
	target  *target
	close   func()
}

// target connects to the API of a virtual cluster with the kubeconfig of its
// admins.
func (v *virtuals) target(ctx context.Context, r *Reconciler, tenant *api.Tenant) (*target, error) {
	name := client.ObjectKey{Namespace: tenant.Status.Namespace, Name: api.KubeconfigSecretPrefix + string(api.RoleAdmin)}
	secret := &corev1.Secret{}
	if err := r.Client.Get(ctx, name, secret); err != nil {
		return nil, fmt.Errorf("find the kubeconfig: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if known := v.open[tenant.Name]; known != nil && known.uid == tenant.UID && known.version == secret.ResourceVersion {
		return known.target, nil
	}
	v.dropLocked(tenant.Name)
	// The cache holds no content of Secrets.
	if err := r.Live.Get(ctx, name, secret); err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	made, err := r.connect(v.ctx, tenant.Name, secret)
	if err != nil {
		return nil, err
	}
	made.uid, made.version = tenant.UID, secret.ResourceVersion
	if v.open == nil {
		v.open = map[string]*virtual{}
	}
	v.open[tenant.Name] = made
	return made.target, nil
}

func (v *virtuals) drop(tenant string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dropLocked(tenant)
}

func (v *virtuals) dropLocked(tenant string) {
	if known := v.open[tenant]; known != nil {
		known.close()
		delete(v.open, tenant)
	}
}

// connect makes what is needed to work in a virtual cluster. It asks it nothing
// yet.
func (r *Reconciler) connect(ctx context.Context, tenant string, secret *corev1.Secret) (*virtual, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data[api.KubeconfigSecretKey])
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig of tenant %q: %w", tenant, err)
	}
	config.UserAgent = r.Config.UserAgent
	config.QPS, config.Burst = virtualRate, virtualBurst
	config.WarningHandlerWithContext = rest.NoWarnings{}
	dialer := &net.Dialer{Timeout: timeout, KeepAlive: timeout}
	config.Dial = dialer.DialContext
	if r.Dial != nil {
		config.Dial = r.Dial
	}
	// Watches go on for long; a single request does not.
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	metadatas, err := metadata.NewForConfigAndClient(metadata.ConfigFor(config), httpClient)
	if err != nil {
		return nil, err
	}
	bounded := *httpClient
	bounded.Timeout = timeout
	mapper, err := apiutil.NewDynamicRESTMapper(config, &bounded)
	if err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{HTTPClient: &bounded, Mapper: mapper, Scheme: runtime.NewScheme()})
	if err != nil {
		return nil, err
	}
	discoverer, err := discovery.NewDiscoveryClientForConfigAndClient(config, &bounded)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	anything := func(context.Context, schema.GroupVersionResource) bool { return true }
	return &virtual{
		target: &target{
			client: c,
			place:  template.Place{Namespace: metav1.NamespaceDefault, Namespaced: namespacedIn(mapper)},
			facts:  &facts{discovery: discoverer},
			watches: newWatches(ctx, metadatas, anything, func(kind schema.GroupVersionKind, object *metav1.PartialObjectMetadata) {
				r.notice(ctx, tenant, kind, object)
			}, func(tenant string) { r.lookAgain(ctx, tenant) }),
			definitions: &definitions{ctx: ctx, client: metadatas, allowed: anything, came: func(tenant string) { r.startOver(ctx, tenant) }},
		},
		close: func() {
			cancel()
			utilnet.CloseIdleConnectionsFor(httpClient.Transport)
		},
	}, nil
}
