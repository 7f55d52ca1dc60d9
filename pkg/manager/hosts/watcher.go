package hosts

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// ReasonHostTaken is the reason of what is told.
const ReasonHostTaken = "HostTaken"

// lookInterval is how often the host is asked whether it has the Gateway API.
const lookInterval = time.Minute

// Watcher keeps Claims up to date and tells who came late. It is a Runnable of the
// manager; all fields are needed.
type Watcher struct {
	*Claims
	// Client reads namespaces.
	Client    client.Reader
	Dynamic   dynamic.Interface
	Discovery discovery.DiscoveryInterface
	Recorder  events.EventRecorder
	// Changed is told the tenants for whom something is different.
	Changed chan<- event.GenericEvent

	mu sync.Mutex
	// told is of what each object was told last, by its UID.
	told map[Key]string
}

// resources are those that claim hosts.
func resources() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"},
	}
}

// Start implements manager.Runnable.
func (w *Watcher) Start(ctx context.Context) error {
	var running sync.WaitGroup
	for _, resource := range resources() {
		running.Go(func() { w.follow(ctx, resource) })
	}
	running.Wait()
	return nil
}

// follow watches a resource as long as the host has it.
func (w *Watcher) follow(ctx context.Context, resource schema.GroupVersionResource) {
	var stop func()
	for {
		served, err := w.serves(resource)
		switch {
		case err != nil:
			ctrl.LoggerFrom(ctx).V(1).Info("Cannot look whether the host has a kind", "resource", resource, "error", err.Error())
		case served && stop == nil:
			stop = w.watch(ctx, resource)
		case !served && stop != nil:
			stop()
			stop = nil
		}
		select {
		case <-ctx.Done():
			if stop != nil {
				stop()
			}
			return
		case <-time.After(lookInterval):
		}
	}
}

func (w *Watcher) serves(resource schema.GroupVersionResource) (bool, error) {
	list, err := w.Discovery.ServerResourcesForGroupVersion(resource.GroupVersion().String())
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == resource.Resource }), nil
}

// watch hears of all objects of a resource until it is stopped, which forgets
// them.
func (w *Watcher) watch(ctx context.Context, resource schema.GroupVersionResource) (stop func()) {
	objects := w.Dynamic.Resource(resource)
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return objects.List(ctx, o) },
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return objects.Watch(ctx, o)
			},
		},
		ObjectType: &unstructured.Unstructured{},
		Transform:  strip,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { w.changed(ctx, o, false) },
			UpdateFunc: func(_, o any) { w.changed(ctx, o, false) },
			DeleteFunc: func(o any) {
				if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = unknown.Obj
				}
				w.changed(ctx, o, true)
			},
		},
	})
	watching, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { controller.RunWithContext(watching) })
	return func() {
		cancel()
		running.Wait()
		for _, o := range store.List() {
			w.changed(ctx, o, true)
		}
	}
}

// strip keeps of an object what counts here.
func strip(in any) (any, error) {
	object, ok := in.(*unstructured.Unstructured)
	if !ok {
		return in, nil
	}
	object.SetManagedFields(nil)
	delete(object.Object, "status")
	if spec, ok := object.Object["spec"].(map[string]any); ok {
		kept := map[string]any{}
		for _, field := range []string{"hostnames", "tls"} {
			if value, ok := spec[field]; ok {
				kept[field] = value
			}
		}
		rules, _ := spec["rules"].([]any)
		var hosts []any
		for _, rule := range rules {
			if fields, ok := rule.(map[string]any); ok && fields["host"] != nil {
				hosts = append(hosts, map[string]any{"host": fields["host"]})
			}
		}
		kept["rules"] = hosts
		object.Object["spec"] = kept
	}
	return object, nil
}

// ClaimOf is what an Ingress or HTTPRoute claims.
func ClaimOf(object *unstructured.Unstructured) Claim {
	claim := Claim{APIVersion: object.GetAPIVersion(), UID: object.GetUID(), Created: object.GetCreationTimestamp().Time, Shown: object.GetName()}
	if name := object.GetAnnotations()[api.AnnotationVirtualName]; name != "" {
		claim.Shown = object.GetAnnotations()[api.AnnotationVirtualNamespace] + "/" + name
	}
	names, _, _ := unstructured.NestedStringSlice(object.Object, "spec", "hostnames")
	rules, _, _ := unstructured.NestedSlice(object.Object, "spec", "rules")
	for _, rule := range rules {
		if fields, ok := rule.(map[string]any); ok {
			name, _, _ := unstructured.NestedString(fields, "host")
			names = append(names, name)
		}
	}
	blocks, _, _ := unstructured.NestedSlice(object.Object, "spec", "tls")
	for _, block := range blocks {
		if fields, ok := block.(map[string]any); ok {
			of, _, _ := unstructured.NestedStringSlice(fields, "hosts")
			names = append(names, of...)
		}
	}
	for i := range names {
		names[i] = strings.ToLower(names[i])
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if name != "" {
			claim.Hosts = append(claim.Hosts, name)
		}
	}
	return claim
}

func (w *Watcher) changed(ctx context.Context, o any, gone bool) {
	object, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	key := Key{Kind: object.GetKind()}
	key.Namespace, key.Name = object.GetNamespace(), object.GetName()
	var claim *Claim
	if c := ClaimOf(object); !gone {
		claim = &c
	}
	for _, concerned := range w.Set(key, claim) {
		w.tell(ctx, concerned)
	}
}

// tell says to an object for which hosts it came late, when that is another answer
// than the last time.
func (w *Watcher) tell(ctx context.Context, key Key) {
	late, claim := w.Late(key)
	answer := ""
	if len(late) > 0 {
		answer = string(claim.UID) + " " + strings.Join(late, ",")
	}
	w.mu.Lock()
	if w.told == nil {
		w.told = map[Key]string{}
	}
	same := w.told[key] == answer
	w.told[key] = answer
	if answer == "" {
		delete(w.told, key)
	}
	w.mu.Unlock()
	if same {
		return
	}
	namespace := &corev1.Namespace{}
	if err := w.Client.Get(ctx, client.ObjectKey{Name: key.Namespace}, namespace); err != nil {
		if !apierrors.IsNotFound(err) && ctx.Err() == nil {
			ctrl.LoggerFrom(ctx).Error(err, "Cannot read a namespace", "namespace", key.Namespace)
		}
		return
	}
	tenant := namespace.Labels[api.LabelTenant]
	if tenant == "" {
		return // The host's own.
	}
	if len(late) > 0 {
		about := &unstructured.Unstructured{}
		about.SetAPIVersion(claim.APIVersion)
		about.SetKind(key.Kind)
		about.SetNamespace(key.Namespace)
		about.SetName(key.Name)
		about.SetUID(claim.UID)
		w.Recorder.Eventf(about, nil, corev1.EventTypeWarning, ReasonHostTaken, "Claim", "%s",
			fmt.Sprintf("somebody else claimed %s before. %s", strings.Join(late, ", "), advice))
	}
	select {
	case w.Changed <- event.GenericEvent{Object: &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: tenant}}}:
	case <-ctx.Done():
	}
}
