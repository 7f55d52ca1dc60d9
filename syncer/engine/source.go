package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// source is a resource on one side, kept in memory.
type source struct {
	*resource
	side translate.Side
	// namespace and selector bound what is kept.
	namespace string
	selector  string
	// metadataOnly keeps no contents: get reads those from the API.
	metadataOnly bool
	// prune drops what nobody looks at. Optional.
	prune func(translate.Object)

	store      cache.Indexer
	controller cache.Controller
	// writes are the engine's own that the store does not show yet.
	writes ownWrites
	now    func() time.Time
	// missing is for saying once that the host does not serve the kind.
	missing sync.Once
}

const namespaceIndex = "namespace"

// start must be called before run; handle gets the object as it was and as it
// is, either of them nil.
func (s *source) start(handle func(before, after metav1.Object)) error {
	changed := func(before, after metav1.Object) {
		object := after
		if object == nil {
			object = before
		}
		s.remembered(nameOf(object)) // It need not be any longer if this is it.
		handle(before, after)
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = s.selector
			list, err := s.list(ctx, s.namespace, o)
			if s.side == translate.Host && apierrors.IsNotFound(err) {
				// All else must not wait for it. The watch fails, too, so it is asked
				// again: the API may come.
				s.missing.Do(func() {
					klog.FromContext(ctx).Info("The host does not serve a kind: objects of it wait", "kind", s.gvk.String())
				})
				return s.newList(), nil
			}
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector = s.selector
			return s.watch(ctx, s.namespace, o)
		},
	}
	var example runtime.Object = s.new()
	if s.metadataOnly {
		getter, err := s.metadata()
		if err != nil {
			return fmt.Errorf("metadata client of %s: %w", s.plural, err)
		}
		example = &metav1.PartialObjectMetadata{}
		objects := metadataIn(getter, s.namespace)
		lw = &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				return objects.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return objects.Watch(ctx, o)
			},
		}
	}
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw,
		ObjectType:    example,
		Indexers:      cache.Indexers{namespaceIndex: cache.MetaNamespaceIndexFunc},
		Transform:     s.transform,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { changed(nil, o.(metav1.Object)) },
			UpdateFunc: func(before, after any) { changed(before.(metav1.Object), after.(metav1.Object)) },
			DeleteFunc: func(o any) {
				if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = unknown.Obj
				}
				if object, ok := o.(metav1.Object); ok {
					changed(object, nil)
				}
			},
		},
	})
	s.store, s.controller = store.(cache.Indexer), controller
	return nil
}

// metadataIn is all of a resource, or what is in a namespace.
func metadataIn(getter metadata.Getter, namespace string) metadata.ResourceInterface {
	if namespace == "" {
		return getter
	}
	return getter.Namespace(namespace)
}

// transform makes objects smaller on their way into the cache.
func (s *source) transform(o any) (any, error) {
	switch object := o.(type) {
	case *metav1.PartialObjectMetadata:
		// Its existence and identity are all that is asked for.
		object.ObjectMeta = metav1.ObjectMeta{
			Name:              object.Name,
			Namespace:         object.Namespace,
			UID:               object.UID,
			ResourceVersion:   object.ResourceVersion,
			DeletionTimestamp: object.DeletionTimestamp,
		}
		object.TypeMeta = metav1.TypeMeta{}
	case translate.Object:
		object.SetManagedFields(nil)
		if s.prune != nil {
			s.prune(object)
		}
	}
	return o, nil
}

// cached returns what is known of an object without asking the API, or nil.
func (s *source) cached(namespace, name string) metav1.Object {
	key := name
	if namespace != "" {
		key = namespace + "/" + name
	}
	object, exists, err := s.store.GetByKey(key)
	if err != nil || !exists {
		return nil
	}
	return object.(metav1.Object)
}

// object is cached for sources that keep whole objects.
func (s *source) object(namespace, name string) translate.Object {
	found, _ := s.cached(namespace, name).(translate.Object)
	return found
}

// inNamespace returns all whole objects in a namespace.
func (s *source) inNamespace(namespace string) []translate.Object {
	found, err := s.store.ByIndex(namespaceIndex, namespace)
	if err != nil {
		return nil
	}
	return wholeObjects(found)
}

// everything returns all whole objects.
func (s *source) everything() []translate.Object { return wholeObjects(s.store.List()) }

func wholeObjects(found []any) []translate.Object {
	all := make([]translate.Object, 0, len(found))
	for _, o := range found {
		if object, ok := o.(translate.Object); ok {
			all = append(all, object)
		}
	}
	return all
}
