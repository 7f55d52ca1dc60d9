package template

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/event"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// refusedFor is how long it counts that a kind may not be watched.
const refusedFor = 10 * time.Minute

// watches see the metadata of what templates made, and of nothing else.
type watches struct {
	ctx     context.Context
	client  metadata.Interface
	allowed func(context.Context, schema.GroupVersionResource) bool
	changed func(schema.GroupVersionKind, *metav1.PartialObjectMetadata)
	// began is told of each tenant that used a kind before it was seen.
	began func(tenant string)

	mu    sync.Mutex
	kinds map[schema.GroupVersionResource]*kindWatch
}

type kindWatch struct {
	// informer is nil when the kind may not be watched, as was found at asked.
	informer cache.SharedIndexInformer
	asked    time.Time
	// unseen are the tenants that use it, until all of its objects are seen. What
	// happens to theirs meanwhile is no change of anything that was known.
	unseen map[string]bool
}

func newWatches(ctx context.Context, c metadata.Interface, allowed func(context.Context, schema.GroupVersionResource) bool,
	changed func(schema.GroupVersionKind, *metav1.PartialObjectMetadata), began func(tenant string),
) *watches {
	return &watches{ctx: ctx, client: c, allowed: allowed, changed: changed, began: began, kinds: map[schema.GroupVersionResource]*kindWatch{}}
}

// ensure watches a kind from now on for a tenant, if that is allowed.
func (w *watches) ensure(ctx context.Context, tenant string, resource schema.GroupVersionResource, kind schema.GroupVersionKind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := w.kinds[resource]
	if known != nil && known.unseen != nil {
		known.unseen[tenant] = true
	}
	if known != nil && (known.informer != nil || time.Since(known.asked) < refusedFor) {
		return
	}
	if !w.allowed(ctx, resource) {
		w.kinds[resource] = &kindWatch{asked: time.Now()}
		return
	}
	informer := metadatainformer.NewFilteredMetadataInformer(w.client, resource, metav1.NamespaceAll, 0, cache.Indexers{},
		func(options *metav1.ListOptions) { options.LabelSelector = api.LabelTemplate }).Informer()
	// Neither fails before the informer runs.
	_ = informer.SetTransform(func(object any) (any, error) {
		if o, ok := object.(*metav1.PartialObjectMetadata); ok {
			o.ManagedFields = nil
		}
		return object, nil
	})
	_ = informer.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {
		// A virtual cluster may be away for a while; the informer tries again.
	})
	_, _ = informer.AddEventHandler(w.handler(kind))
	known = &kindWatch{informer: informer, unseen: map[string]bool{tenant: true}}
	w.kinds[resource] = known
	go informer.RunWithContext(w.ctx)
	go w.awaitSync(known)
}

// awaitSync has the tenants looked at that used a kind before it was seen.
func (w *watches) awaitSync(known *kindWatch) {
	select {
	case <-known.informer.HasSyncedChecker().Done():
	case <-w.ctx.Done():
		return
	}
	w.mu.Lock()
	tenants := known.unseen
	known.unseen = nil
	w.mu.Unlock()
	for tenant := range tenants {
		w.began(tenant)
	}
}

func (w *watches) handler(kind schema.GroupVersionKind) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, initial bool) {
			if o, ok := object.(*metav1.PartialObjectMetadata); ok && !initial {
				w.changed(kind, o)
			}
		},
		UpdateFunc: func(before, after any) {
			b, ok1 := before.(*metav1.PartialObjectMetadata)
			a, ok2 := after.(*metav1.PartialObjectMetadata)
			if ok1 && ok2 && matters(b, a) {
				w.changed(kind, a)
			}
		},
		DeleteFunc: func(object any) {
			if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = gone.Obj
			}
			if o, ok := object.(*metav1.PartialObjectMetadata); ok {
				gone := o.DeepCopy()
				// What is gone is not as it was written.
				gone.ResourceVersion = ""
				w.changed(kind, gone)
			}
		},
	}
}

// matters leaves out changes of a status: what has a generation counts what is
// wanted by it.
func matters(before, after *metav1.PartialObjectMetadata) bool {
	if before.ResourceVersion == after.ResourceVersion {
		return false
	}
	return after.Generation == 0 || before.Generation != after.Generation ||
		!sameKeys(before.Labels, after.Labels) || !sameKeys(before.Annotations, after.Annotations)
}

func sameKeys(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for key, value := range a {
		if other, ok := b[key]; !ok || other != value {
			return false
		}
	}
	return true
}

// version is that of an object as far as it is known; empty when it is not.
func (w *watches) version(resource schema.GroupVersionResource, name types.NamespacedName) string {
	w.mu.Lock()
	known := w.kinds[resource]
	w.mu.Unlock()
	if known == nil || known.informer == nil || !known.informer.HasSynced() {
		return ""
	}
	key := name.Name
	if name.Namespace != "" {
		key = name.Namespace + "/" + name.Name
	}
	item, there, err := known.informer.GetStore().GetByKey(key)
	if err != nil || !there {
		return ""
	}
	if o, ok := item.(*metav1.PartialObjectMetadata); ok {
		return o.ResourceVersion
	}
	return ""
}

// notice has a tenant looked at if one of its objects is not as it was written.
func (r *Reconciler) notice(ctx context.Context, tenant string, kind schema.GroupVersionKind, object *metav1.PartialObjectMetadata) {
	id := api.TemplateObject{
		APIVersion: kind.GroupVersion().String(), Kind: kind.Kind, Namespace: object.Namespace, Name: object.Name,
	}
	if last, known := r.made.get(tenant, id); !known || last.version == object.ResourceVersion {
		return
	}
	r.lookAgain(ctx, tenant)
}

// startOver has a tenant looked at as if nothing had failed yet.
func (r *Reconciler) startOver(ctx context.Context, tenant string) {
	r.retries.Forget(tenant)
	r.lookAgain(ctx, tenant)
}

func (r *Reconciler) lookAgain(ctx context.Context, tenant string) {
	select {
	case r.changed <- event.GenericEvent{Object: named(tenant)}:
	case <-ctx.Done():
	}
}

func named(tenant string) *api.Tenant {
	return &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: tenant}}
}
