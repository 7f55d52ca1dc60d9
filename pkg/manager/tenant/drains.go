package tenant

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// drains watch namespaces that are being emptied, and wake the tenant's
// deletion up whenever a pod or a volume went. The manager's cache does not
// hold the tenants' own pods: there may be very many of them.
type drains struct {
	mu      sync.Mutex
	ctx     context.Context
	watcher client.WithWatch
	woken   chan event.GenericEvent
	cancel  map[string]context.CancelFunc
}

// drainTime bounds a watch; a deletion that takes longer is looked at now and
// then anyway.
const drainTime = 2 * time.Minute

// init lets drains watch until ctx ends; it returns where they tell of tenants.
func (d *drains) init(ctx context.Context, watcher client.WithWatch) <-chan event.GenericEvent {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ctx, d.watcher = ctx, watcher
	d.woken = make(chan event.GenericEvent)
	d.cancel = map[string]context.CancelFunc{}
	return d.woken
}

// start watches a namespace, once.
func (d *drains) start(tenant, namespace string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.watcher == nil {
		return
	}
	if _, running := d.cancel[namespace]; running {
		return
	}
	ctx, cancel := context.WithTimeout(d.ctx, drainTime)
	d.cancel[namespace] = cancel
	for _, kind := range []string{"Pod", "PersistentVolumeClaim"} {
		go d.watch(ctx, kind, tenant, namespace)
	}
}

// stop ends the watch of a namespace.
func (d *drains) stop(namespace string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if cancel, running := d.cancel[namespace]; running {
		cancel()
		delete(d.cancel, namespace)
	}
}

func (d *drains) watch(ctx context.Context, kind, tenant, namespace string) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind + "List"))
	w, err := d.watcher.Watch(ctx, list, client.InNamespace(namespace))
	if err != nil {
		log.FromContext(ctx).V(1).Info("Cannot watch a namespace that is being deleted; it is looked at now and then", "namespace", namespace, "error", err.Error())
		return
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-w.ResultChan():
			if !open {
				return
			}
			if e.Type != watch.Deleted {
				continue
			}
			select {
			case d.woken <- event.GenericEvent{Object: &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: tenant}}}:
			case <-ctx.Done():
				return
			}
		}
	}
}
