package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// follow syncs an optional kind as long as both sides serve it, and looks for it
// every interval. Where the host no longer does, what the tenant saw of it goes.
func (e *Engine) follow(ctx context.Context, any translate.Any, virtual, host *client) {
	logger := klog.FromContext(ctx).WithValues("kind", any.GroupVersionKind)
	look := func(context.Context) (served, hasStatus, soon bool, err error) {
		served, err = e.serves(any, virtual, host)
		return served, any.StatusSubresource, false, err
	}
	if any.Borrowed {
		b, err := e.newBorrower(any, virtual, host)
		if err != nil {
			logger.Error(err, "Could not begin with a custom resource")
			return
		}
		look = b.borrow
	}
	var active *activation
	defer func() { active.end() }()
	for {
		served, hasStatus, soon, err := look(ctx)
		switch {
		case err != nil && any.Borrowed && ctx.Err() == nil:
			logger.Error(err, "Could not look after the definition of a custom resource, will try again")
		case err != nil:
			logger.V(1).Info("Could not look whether both sides have an optional kind", "err", err)
		case served && active == nil:
			any.StatusSubresource = hasStatus
			if active, err = e.activate(ctx, any, virtual, host); err != nil {
				logger.Error(err, "Could not begin with an optional kind, will try again")
				break
			}
			logger.Info("Both sides have an optional kind")
		case active != nil && (!served || any.StatusSubresource != hasStatus):
			e.deactivate(active)
			active = nil
			logger.Info("An optional kind is gone, or another one")
			if err := e.retireOptional(ctx, any, virtual); err != nil {
				logger.Error(err, "Could not remove what stood for host objects of a kind that is gone")
			}
			soon = served
		}
		interval := e.OptionalInterval
		if soon {
			interval = min(interval, settleInterval)
		}
		select {
		case <-ctx.Done():
			return
		case <-e.Clock.After(interval):
		}
	}
}

// deactivate ends an optional kind: what its objects referred to need no longer
// cross for them.
func (e *Engine) deactivate(a *activation) {
	a.end()
	e.mu.Lock()
	for _, s := range []*source{a.kind.virtual, a.kind.host} {
		delete(e.active, sourceKey{s.side, a.kind.GroupKind()})
	}
	e.mu.Unlock()
	e.noting.Lock()
	defer e.noting.Unlock()
	for _, holder := range e.index.holdersOf(a.kind) {
		e.refer(e.index.drop(holder))
	}
}

// serves tells whether both sides have the kind's resource.
func (e *Engine) serves(any translate.Any, virtual, host *client) (bool, error) {
	for _, c := range []*client{virtual, host} {
		found, err := c.serves(any)
		if !found || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (c *client) serves(any translate.Any) (bool, error) {
	discovering, err := discovery.NewDiscoveryClientForConfigAndClient(c.config, c.http)
	if err != nil {
		return false, err
	}
	list, err := discovering.ServerResourcesForGroupVersion(any.GroupVersionKind.GroupVersion().String())
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, r := range list.APIResources {
		if r.Name == any.Resource {
			return true, nil
		}
	}
	return false, nil
}

// activation is an optional kind while both sides have it.
type activation struct {
	kind    *kind
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func (e *Engine) activate(ctx context.Context, any translate.Any, virtual, host *client) (*activation, error) {
	k, err := e.newKind(any, virtual, host)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &activation{kind: k, cancel: cancel}
	var synced []cache.InformerSynced
	for _, s := range []*source{k.virtual, k.host} {
		if err := s.start(e.handlerOf(k, sourceKey{s.side, any.GroupKind()}, s)); err != nil {
			cancel()
			return nil, err
		}
		synced = append(synced, s.controller.HasSynced)
	}
	for _, s := range []*source{k.virtual, k.host} {
		a.running.Go(func() { s.controller.RunWithContext(ctx) })
	}
	reading, stop := context.WithTimeout(ctx, optionalReadTimeout)
	defer stop()
	if !cache.WaitForCacheSync(reading.Done(), synced...) {
		a.end()
		return nil, fmt.Errorf("not all %s could be read within %s: may the syncer list them?", any.Resource, optionalReadTimeout)
	}
	k.active.Store(true)
	e.mu.Lock()
	for _, s := range []*source{k.virtual, k.host} {
		e.active[sourceKey{s.side, any.GroupKind()}] = s
	}
	e.mu.Unlock()
	// What came before both sides were read was passed over.
	for _, s := range []*source{k.virtual, k.host} {
		changed := e.handlerOf(k, sourceKey{s.side, any.GroupKind()}, s)
		for _, object := range wholeObjects(s.store.List()) {
			changed(nil, object)
		}
	}
	return a, nil
}

// optionalReadTimeout is how long both sides of an optional kind may take to be
// read.
const optionalReadTimeout = time.Minute

// end stops; requests that are queued come to nothing.
func (a *activation) end() {
	if a == nil {
		return
	}
	a.kind.active.Store(false)
	a.cancel()
	a.running.Wait()
}

// retireOptional removes what stands for host objects of a kind that the host no
// longer has.
func (e *Engine) retireOptional(ctx context.Context, any translate.Any, virtual *client) error {
	found, err := virtual.serves(any)
	if !found || err != nil || any.ToVirtual == nil {
		return err
	}
	r, err := virtual.resourceOf(any)
	if err != nil {
		return err
	}
	return e.retireAll(ctx, r)
}
