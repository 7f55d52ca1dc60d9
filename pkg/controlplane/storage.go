package controlplane

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"path"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	etcdkubernetes "go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	genericfeatures "k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/registry/generic"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	etcdmetrics "k8s.io/apiserver/pkg/storage/etcd3/metrics"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/tools/cache"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/utils/clock"
)

// compactionInterval is how long old revisions are kept for slow watchers, as
// upstream has it.
const compactionInterval = storagebackend.DefaultCompactInterval

// storageBackend gives each resource of the API server its store. Upstream dials
// etcd for each of them: two ends of a connection with their buffers, and some
// twenty goroutines. Here a store calls the member that lives in this process,
// through the same interfaces, with the same checks and errors.
//
//	registry ─► cacher ─► etcd3 store ─► client ─► etcd's KV, Watch, Lease servers
type storageBackend struct {
	// clock is that of watch caches.
	clock *beatClock
	// opened is nil before open and after close.
	opened atomic.Pointer[openedStorage]
}

// openedStorage is what all stores have in common.
type openedStorage struct {
	member *etcdserver.EtcdServer
	client *clientv3.Client
	// busy resources have clients of their own. quiet is the client of those that
	// seldom change, and custom are those of custom resources.
	busy   sets.Set[schema.GroupResource]
	quiet  *etcdkubernetes.Client
	custom [customClients]*etcdkubernetes.Client
	// compactor drops old revisions.
	compactor interface {
		etcd3.Compactor
		Stop()
	}
}

// open is called once the member leads, before any store is made.
func (b *storageBackend) open(storage *etcd) {
	opened := &openedStorage{
		member:    storage.server.Server,
		client:    storage.client,
		busy:      busyResources(),
		quiet:     newStorageClient(storage.server.Server),
		compactor: etcd3.NewCompactor(storage.client, compactionInterval, clock.RealClock{}, nil),
	}
	for i := range opened.custom {
		opened.custom[i] = newStorageClient(opened.member)
	}
	b.opened.Store(opened)
}

// customClients is how many clients custom resources share.
const customClients = 4

// busyResources change so often that each has a client of its own: who watches
// others does not wait until their events are through.
func busyResources() sets.Set[schema.GroupResource] {
	return sets.New(
		schema.GroupResource{Resource: "configmaps"},
		schema.GroupResource{Resource: "endpoints"},
		schema.GroupResource{Resource: "events"},
		schema.GroupResource{Resource: "nodes"},
		schema.GroupResource{Resource: "persistentvolumeclaims"},
		schema.GroupResource{Resource: "pods"},
		schema.GroupResource{Resource: "secrets"},
		schema.GroupResource{Resource: "services"},
		schema.GroupResource{Group: "apps", Resource: "deployments"},
		schema.GroupResource{Group: "apps", Resource: "replicasets"},
		schema.GroupResource{Group: "batch", Resource: "jobs"},
		schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"},
		schema.GroupResource{Group: "discovery.k8s.io", Resource: "endpointslices"},
		schema.GroupResource{Group: "events.k8s.io", Resource: "events"},
	)
}

// clientOf is the client of a store. A watch of a client is a dozen goroutines,
// and all watches of a client share them.
func (o *openedStorage) clientOf(resource schema.GroupResource) (client *etcdkubernetes.Client, done func()) {
	if o.busy.Has(resource) {
		client = newStorageClient(o.member)
		return client, func() { _ = client.Close() }
	}
	client = o.quiet
	if !isOfKubernetes(resource.Group) {
		hash := fnv.New32a()
		_, _ = hash.Write([]byte(resource.String()))
		client = o.custom[hash.Sum32()%customClients]
	}
	return client, func() {}
}

// isOfKubernetes tells whether a group is one of Kubernetes' own.
func isOfKubernetes(group string) bool {
	return legacyscheme.Scheme.IsGroupRegistered(group) || aggregatorscheme.Scheme.IsGroupRegistered(group) || apiextensionsapiserver.Scheme.IsGroupRegistered(group)
}

func newStorageClient(member *etcdserver.EtcdServer) *etcdkubernetes.Client {
	client := &etcdkubernetes.Client{Client: v3client.New(member)}
	client.Kubernetes = client
	client.KV = etcd3.NewETCDLatencyTracker(client.KV)
	return client
}

// close is called after the API server has stopped, and before etcd does.
func (b *storageBackend) close() {
	if opened := b.opened.Swap(nil); opened != nil {
		opened.compactor.Stop()
		_ = opened.quiet.Close()
		for _, client := range opened.custom {
			_ = client.Close()
		}
	}
}

var errNoStorage = errors.New("etcd is not open")

// probe reads something, as upstream's health checks do.
func (b *storageBackend) probe(ctx context.Context, prefix string) error {
	opened := b.opened.Load()
	if opened == nil {
		return errNoStorage
	}
	if _, err := opened.client.Get(ctx, path.Join("/", prefix, "health")); err != nil {
		return fmt.Errorf("error getting data from etcd: %w", err)
	}
	return nil
}

// addHealthChecks stand in for upstream's, under the same names.
func (b *storageBackend) addHealthChecks(config *genericapiserver.Config, prefix string) {
	check := func(timeout time.Duration) func(*http.Request) error {
		return func(r *http.Request) error {
			ctx, cancel := context.WithTimeout(r.Context(), timeout)
			defer cancel()
			return b.probe(ctx, prefix)
		}
	}
	config.AddHealthChecks(healthz.NamedGroupedCheck("etcd", "etcd", check(storagebackend.DefaultHealthcheckTimeout)))
	config.AddReadyzChecks(healthz.NamedGroupedCheck("etcd-readiness", "etcd-readiness", check(storagebackend.DefaultReadinessTimeout)))
}

// Monitor tells metrics the size of the database.
func (b *storageBackend) Monitor(context.Context) (etcdmetrics.StorageMetrics, error) {
	opened := b.opened.Load()
	if opened == nil {
		return etcdmetrics.StorageMetrics{}, errNoStorage
	}
	return etcdmetrics.StorageMetrics{Size: opened.member.Backend().Size()}, nil
}

// Close is for those who made a monitor for one question.
func (b *storageBackend) Close() error { return nil }

// storageOptions are upstream's options of resources, with stores of a backend.
type storageOptions struct {
	generic.RESTOptionsGetter
	backend *storageBackend
	// uncached are those resources without a watch cache.
	uncached map[schema.GroupResource]bool
}

// stores puts a backend beneath upstream's options of resources; sizes are those
// of watch caches, where 0 means none.
func (b *storageBackend) stores(getter generic.RESTOptionsGetter, sizes []string) (generic.RESTOptionsGetter, error) {
	parsed, err := options.ParseWatchCacheSizes(sizes)
	if err != nil {
		return nil, err
	}
	uncached := map[schema.GroupResource]bool{}
	for resource, size := range parsed {
		uncached[resource] = size <= 0
	}
	return &storageOptions{RESTOptionsGetter: getter, backend: b, uncached: uncached}, nil
}

// GetRESTOptions says how a resource is stored.
func (o *storageOptions) GetRESTOptions(resource schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	got, err := o.RESTOptionsGetter.GetRESTOptions(resource, example)
	if err != nil {
		return got, err
	}
	got.Decorator = o.backend.cachedStore
	if o.uncached[resource] {
		got.Decorator = o.backend.uncachedStore
	}
	return got, nil
}

func (b *storageBackend) uncachedStore(config *storagebackend.ConfigForResource, resourcePrefix string, _ func(runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object, _ storage.AttrFunc, _ storage.IndexerFuncs, _ *cache.Indexers) (storage.Interface, factory.DestroyFunc, error) {
	return b.store(config, resourcePrefix, newFunc, newListFunc)
}

// cachedStore is what upstream's StorageWithCacher makes.
func (b *storageBackend) cachedStore(config *storagebackend.ConfigForResource, resourcePrefix string, keyFunc func(runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object, attributes storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers) (storage.Interface, factory.DestroyFunc, error) {
	store, destroy, err := b.store(config, resourcePrefix, newFunc, newListFunc)
	if err != nil {
		return nil, nil, err
	}
	cached, err := cacher.NewCacherFromConfig(cacher.Config{
		Storage:             store,
		Versioner:           storage.APIObjectVersioner{},
		GroupResource:       config.GroupResource,
		EventsHistoryWindow: config.EventsHistoryWindow,
		ResourcePrefix:      resourcePrefix,
		KeyFunc:             keyFunc,
		NewFunc:             newFunc,
		NewListFunc:         newListFunc,
		GetAttrsFunc:        attributes,
		IndexerFuncs:        triggers,
		Indexers:            indexers,
		Codec:               config.Codec,
		Clock:               b.clock,
	})
	if err != nil {
		destroy()
		return nil, nil, err
	}
	delegator := cacher.NewCacheDelegator(cached, store)
	return delegator, sync.OnceFunc(func() {
		delegator.Stop()
		cached.Stop()
		destroy()
	}), nil
}

// store is what upstream makes of a connection.
func (b *storageBackend) store(config *storagebackend.ConfigForResource, resourcePrefix string, newFunc, newListFunc func() runtime.Object) (storage.Interface, factory.DestroyFunc, error) {
	opened := b.opened.Load()
	if opened == nil {
		return nil, nil, errNoStorage
	}
	client, done := opened.clientOf(config.GroupResource)

	transformer := config.Transformer
	if transformer == nil {
		transformer = identity.NewEncryptCheckTransformer()
	}
	versioner := storage.APIObjectVersioner{}
	decoder := etcd3.NewDefaultDecoder(config.Codec, versioner)
	tolerant := utilfeature.DefaultFeatureGate.Enabled(genericfeatures.AllowUnsafeMalformedObjectDeletion)
	if tolerant {
		transformer = etcd3.WithCorruptObjErrorHandlingTransformer(transformer)
		decoder = etcd3.WithCorruptObjErrorHandlingDecoder(decoder)
	}
	store, err := etcd3.New(client, opened.compactor, config.Codec, newFunc, newListFunc, config.Prefix, resourcePrefix, config.GroupResource,
		transformer, config.LeaseManagerConfig, decoder, versioner)
	if err != nil {
		done()
		return nil, nil, err
	}
	destroy := sync.OnceFunc(func() {
		store.Close()
		done()
	})
	if tolerant {
		return etcd3.NewStoreWithUnsafeCorruptObjectDeletion(store, config.GroupResource), destroy, nil
	}
	return store, destroy, nil
}
