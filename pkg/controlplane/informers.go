package controlplane

import (
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/admissionregistration"
	"k8s.io/client-go/informers/apiserverinternal"
	"k8s.io/client-go/informers/apps"
	"k8s.io/client-go/informers/autoscaling"
	"k8s.io/client-go/informers/batch"
	certificateinformers "k8s.io/client-go/informers/certificates"
	"k8s.io/client-go/informers/coordination"
	"k8s.io/client-go/informers/core"
	"k8s.io/client-go/informers/discovery"
	"k8s.io/client-go/informers/events"
	"k8s.io/client-go/informers/extensions"
	"k8s.io/client-go/informers/flowcontrol"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/informers/networking"
	"k8s.io/client-go/informers/node"
	"k8s.io/client-go/informers/policy"
	"k8s.io/client-go/informers/rbac"
	"k8s.io/client-go/informers/resource"
	"k8s.io/client-go/informers/scheduling"
	"k8s.io/client-go/informers/storage"
	"k8s.io/client-go/informers/storagemigration"
	"k8s.io/client-go/tools/cache"
)

// heldInformers are informers that run already, for controllers that are still
// being built. Upstream builds controllers first and starts informers after, so
// a constructor may register a handler before it is done; here the first events
// would come at once, and find half a controller. They are held back until
// release is closed.
type heldInformers struct {
	informers.SharedInformerFactory
	// release lets events through, stop drops them.
	release, stop <-chan struct{}
	// keep tells, by type, which objects are to be seen: of others there is
	// neither an event nor a trace in the listers.
	keep map[reflect.Type]func(object any) bool
}

// InformerFor is where all groups below get their informers.
func (f heldInformers) InformerFor(object runtime.Object, newFunc internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	keep := f.keep[reflect.TypeOf(object)]
	return heldInformer{
		SharedIndexInformer: f.SharedInformerFactory.InformerFor(object, newFunc),
		keep:                keep,
		hold: func(handler cache.ResourceEventHandler) cache.ResourceEventHandler {
			handler = heldHandler{handler: handler, release: f.release, stop: f.stop}
			if keep != nil {
				handler = cache.FilteringResourceEventHandler{FilterFunc: keep, Handler: handler}
			}
			return handler
		},
	}
}

// Admissionregistration is the group of that name.
func (f heldInformers) Admissionregistration() admissionregistration.Interface {
	return admissionregistration.New(f, "", nil)
}

// Internal is the group of that name.
func (f heldInformers) Internal() apiserverinternal.Interface {
	return apiserverinternal.New(f, "", nil)
}

// Apps is the group of that name.
func (f heldInformers) Apps() apps.Interface { return apps.New(f, "", nil) }

// Autoscaling is the group of that name.
func (f heldInformers) Autoscaling() autoscaling.Interface { return autoscaling.New(f, "", nil) }

// Batch is the group of that name.
func (f heldInformers) Batch() batch.Interface { return batch.New(f, "", nil) }

// Certificates is the group of that name.
func (f heldInformers) Certificates() certificateinformers.Interface {
	return certificateinformers.New(f, "", nil)
}

// Coordination is the group of that name.
func (f heldInformers) Coordination() coordination.Interface { return coordination.New(f, "", nil) }

// Core is the group of that name.
func (f heldInformers) Core() core.Interface { return core.New(f, "", nil) }

// Discovery is the group of that name.
func (f heldInformers) Discovery() discovery.Interface { return discovery.New(f, "", nil) }

// Events is the group of that name.
func (f heldInformers) Events() events.Interface { return events.New(f, "", nil) }

// Extensions is the group of that name.
func (f heldInformers) Extensions() extensions.Interface { return extensions.New(f, "", nil) }

// Flowcontrol is the group of that name.
func (f heldInformers) Flowcontrol() flowcontrol.Interface { return flowcontrol.New(f, "", nil) }

// Networking is the group of that name.
func (f heldInformers) Networking() networking.Interface { return networking.New(f, "", nil) }

// Node is the group of that name.
func (f heldInformers) Node() node.Interface { return node.New(f, "", nil) }

// Policy is the group of that name.
func (f heldInformers) Policy() policy.Interface { return policy.New(f, "", nil) }

// Rbac is the group of that name.
func (f heldInformers) Rbac() rbac.Interface { return rbac.New(f, "", nil) }

// Resource is the group of that name.
func (f heldInformers) Resource() resource.Interface { return resource.New(f, "", nil) }

// Scheduling is the group of that name.
func (f heldInformers) Scheduling() scheduling.Interface { return scheduling.New(f, "", nil) }

// Storage is the group of that name.
func (f heldInformers) Storage() storage.Interface { return storage.New(f, "", nil) }

// Storagemigration is the group of that name.
func (f heldInformers) Storagemigration() storagemigration.Interface {
	return storagemigration.New(f, "", nil)
}

// heldInformer wraps the handlers that are added.
type heldInformer struct {
	cache.SharedIndexInformer
	hold func(cache.ResourceEventHandler) cache.ResourceEventHandler
	// keep is nil for all.
	keep func(object any) bool
}

// GetStore is what listers are made of, as GetIndexer.
func (i heldInformer) GetStore() cache.Store { return i.GetIndexer() }

// GetIndexer gives what is to be seen.
func (i heldInformer) GetIndexer() cache.Indexer {
	if i.keep == nil {
		return i.SharedIndexInformer.GetIndexer()
	}
	return keptIndexer{Indexer: i.SharedIndexInformer.GetIndexer(), keep: i.keep}
}

// keptIndexer shows some of what an indexer holds.
type keptIndexer struct {
	cache.Indexer
	keep func(object any) bool
}

func (x keptIndexer) only(objects []any) []any {
	kept := make([]any, 0, len(objects))
	for _, object := range objects {
		if x.keep(object) {
			kept = append(kept, object)
		}
	}
	return kept
}

// List lists what is kept.
func (x keptIndexer) List() []any { return x.only(x.Indexer.List()) }

// Index gives what is kept of an index.
func (x keptIndexer) Index(name string, object any) ([]any, error) {
	found, err := x.Indexer.Index(name, object)
	return x.only(found), err
}

// ByIndex gives what is kept of an index.
func (x keptIndexer) ByIndex(name, value string) ([]any, error) {
	found, err := x.Indexer.ByIndex(name, value)
	return x.only(found), err
}

// Get gives an object if it is kept.
func (x keptIndexer) Get(object any) (any, bool, error) { return x.kept(x.Indexer.Get(object)) }

// GetByKey gives an object if it is kept.
func (x keptIndexer) GetByKey(key string) (any, bool, error) { return x.kept(x.Indexer.GetByKey(key)) }

func (x keptIndexer) kept(object any, exists bool, err error) (any, bool, error) {
	if !exists || err != nil || !x.keep(object) {
		return nil, false, err
	}
	return object, true, nil
}

// AddEventHandler adds a handler whose events are held.
func (i heldInformer) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandler(i.hold(handler))
}

// AddEventHandlerWithResyncPeriod adds a handler whose events are held.
func (i heldInformer) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, period time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandlerWithResyncPeriod(i.hold(handler), period)
}

// AddEventHandlerWithOptions adds a handler whose events are held.
func (i heldInformer) AddEventHandlerWithOptions(handler cache.ResourceEventHandler, options cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandlerWithOptions(i.hold(handler), options)
}

// heldHandler waits in the goroutine that an informer has for each handler; the
// informer queues what comes meanwhile.
type heldHandler struct {
	handler       cache.ResourceEventHandler
	release, stop <-chan struct{}
}

// OnAdd passes on an addition.
func (h heldHandler) OnAdd(object any, initial bool) {
	if h.released() {
		h.handler.OnAdd(object, initial)
	}
}

// OnUpdate passes on a change.
func (h heldHandler) OnUpdate(oldObject, newObject any) {
	if h.released() {
		h.handler.OnUpdate(oldObject, newObject)
	}
}

// OnDelete passes on a deletion.
func (h heldHandler) OnDelete(object any) {
	if h.released() {
		h.handler.OnDelete(object)
	}
}

func (h heldHandler) released() bool {
	select {
	case <-h.release:
		return true
	default:
	}
	select {
	case <-h.release:
		return true
	case <-h.stop:
		return false
	}
}
