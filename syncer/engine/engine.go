package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// Options of an engine. Those without a stated default are required.
type Options struct {
	Tenant translate.Tenant
	Kinds  []translate.Any
	// Virtual and Host reach the two API servers.
	Virtual, Host *rest.Config

	// Creators make what is not on the host yet, Followers do the rest, Minters
	// issue tokens. The defaults are 16, 6 and 2: in a burst, what takes longest
	// afterwards begins first, and what follows does not take the processors
	// away from it.
	Creators, Followers, Minters int
	// Linger is how long a copy stays after the last object that referred to it
	// is gone. The default is 30 s.
	Linger time.Duration
	// AllocationGrace is how long a host object without a virtual uid, which
	// was made ahead of its virtual object, may stand alone. The default is
	// 30 s.
	AllocationGrace time.Duration
	// OptionalInterval is how often optional kinds are looked for on both sides.
	// The default is a minute.
	OptionalInterval time.Duration
	// Clock is the real one by default.
	Clock clock.WithTicker

	// Synced, when set, is called once both sides have been read and the
	// workers start.
	Synced func()
	// Changed, when set, is called when a virtual object has changed that is
	// kept in memory. It must not block.
	Changed func(kind schema.GroupKind)
}

// retryPause is how long what was refused waits after a change that may have
// lifted the cause.
const retryPause = 200 * time.Millisecond

// holdTime is how long a write in the tenant may take after the host's: longer
// than any request may. seenTime is how long its outcome may take to the cache.
const (
	holdTime = time.Minute
	seenTime = 5 * time.Second
)

// rereadInterval is how often what is read by name is looked at when nothing
// that refers to it changes.
const rereadInterval = 10 * time.Minute

// syncPoll is how often it is looked whether both sides are read.
const syncPoll = 5 * time.Millisecond

// Engine syncs one tenant.
type Engine struct {
	Options
	kinds   []*kind
	sources map[sourceKey]*source
	// unused are the virtual sides of kinds of which the tenant sees nothing, but
	// may have seen something before its limits changed.
	unused []*resource
	// optional kinds may be missing on either side.
	optional []func(ctx context.Context)
	// causes are what the host may refuse an object for.
	causes   map[sourceKey]*source
	accounts *resource
	// madeOnHost is what something on the host makes for custom resources.
	madeOnHost map[schema.GroupKind]*source
	// tokens is the host's Secrets; nil if no kind asks for tokens.
	tokens *source

	index *index
	// fresh is for objects that are not on the host yet, queue for all others;
	// see add.
	fresh      workqueue.TypedRateLimitingInterface[request]
	queue      workqueue.TypedRateLimitingInterface[request]
	tokenQueue workqueue.TypedRateLimitingInterface[request]
	// events exists while Run does.
	events record.EventRecorder
	// begun tells that both sides have been read.
	begun atomic.Bool

	// noting keeps what two handlers find out about one object in order.
	noting sync.Mutex

	mu sync.Mutex
	// refused holds what the host would not take, to be tried again as soon as
	// something is deleted there.
	refused map[request]bool
	// futile remembers writes of which a server kept less than was written, so
	// that they are not repeated for ever.
	futile map[write]translate.Object
	// bound objects have been bound since their tokens were last looked at.
	bound map[request]bool
	// made are the Unwatched ones that the tenant has, or may have from an
	// earlier run.
	made map[request]bool
	// active is what is read of optional kinds that both sides have.
	active map[sourceKey]*source
	// adopted are objects made on the host that were given an owner there.
	adopted map[types.UID]bool
	// busy objects are being reconciled.
	busy map[request]bool
	// held objects are being changed on the host ahead of their virtual one.
	held map[request]*hold
	// abandoned tells since when it is known that a request failed which may have
	// made a host object ahead of its virtual one.
	abandoned map[request]time.Time
}

// hold lasts as long as there are requests under way that change an object on
// the host first, then until the cache has seen what became of them in the
// tenant, and in no case longer than until.
type hold struct {
	requests int
	version  string
	until    time.Time
}

// kind is a translate.Any with its two sides.
type kind struct {
	translate.Any
	virtual, host *source
	// active tells of an optional kind that both sides have it.
	active atomic.Bool
}

// fromHost tells which way the kind goes.
func (k *kind) fromHost() bool { return k.ToVirtual != nil }

type sourceKey struct {
	side translate.Side
	kind schema.GroupKind
}

// request is one object to reconcile: by virtual name for kinds that begin in
// the tenant, by host name for those that begin on the host.
type request struct {
	kind *kind
	types.NamespacedName
}

// write is one way of writing an object.
type write struct {
	request
	side        translate.Side
	subresource string
}

// New puts an engine together; it talks to nobody.
func New(o Options) (*Engine, error) {
	if o.Creators == 0 {
		o.Creators = 16
	}
	if o.Followers == 0 {
		o.Followers = 6
	}
	if o.Minters == 0 {
		o.Minters = 2
	}
	if o.Linger == 0 {
		o.Linger = 30 * time.Second
	}
	if o.AllocationGrace == 0 {
		o.AllocationGrace = 30 * time.Second
	}
	if o.OptionalInterval == 0 {
		o.OptionalInterval = time.Minute
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	e := &Engine{
		Options:    o,
		sources:    map[sourceKey]*source{},
		causes:     map[sourceKey]*source{},
		madeOnHost: map[schema.GroupKind]*source{},
		active:     map[sourceKey]*source{},
		adopted:    map[types.UID]bool{},
		index:      newIndex(o.Clock.Now),
		refused:    map[request]bool{},
		futile:     map[write]translate.Object{},
		held:       map[request]*hold{},
		abandoned:  map[request]time.Time{},
		busy:       map[request]bool{},
		bound:      map[request]bool{},
		made:       map[request]bool{},
	}
	e.fresh, e.queue, e.tokenQueue = e.newQueue(), e.newQueue(), e.newQueue()

	virtual, err := newClient(o.Virtual)
	if err != nil {
		return nil, fmt.Errorf("virtual client: %w", err)
	}
	host, err := newClient(o.Host)
	if err != nil {
		return nil, fmt.Errorf("host client: %w", err)
	}
	if err := e.addKinds(virtual, host); err != nil {
		return nil, err
	}
	if err := e.addReads(virtual, host); err != nil {
		return nil, err
	}

	if err := e.addMade(host); err != nil {
		return nil, err
	}

	if e.accounts, err = virtual.resource(corev1.SchemeGroupVersion.WithKind("ServiceAccount"), "serviceaccounts", true); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Engine) newQueue() workqueue.TypedRateLimitingInterface[request] {
	return workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[request](20*time.Millisecond, 30*time.Second),
		workqueue.TypedRateLimitingQueueConfig[request]{Clock: e.Clock},
	)
}

// add puts an object on the queue where it belongs.
func (e *Engine) add(r request) {
	if e.isFresh(r) {
		e.fresh.Add(r)
		return
	}
	e.queue.Add(r)
}

// isFresh tells whether an object has yet to be made on the host.
func (e *Engine) isFresh(r request) bool {
	return !r.kind.fromHost() && !r.kind.WhenReferenced &&
		r.kind.host.object(e.Tenant.HostNamespace, translate.HostName(r.Namespace, r.Name)) == nil &&
		r.kind.virtual.object(r.Namespace, r.Name) != nil
}

// ours selects the tenant's objects of some components.
func (e *Engine) ours(components ...string) string {
	return api.LabelTenant + "=" + e.Tenant.Name + "," + api.LabelComponent + " in (" + strings.Join(components, ",") + ")"
}

func (e *Engine) addKinds(virtual, host *client) error {
	for _, any := range e.Kinds {
		if e.sources[sourceKey{translate.Host, any.GroupKind()}] != nil {
			return fmt.Errorf("kind %q is listed twice", any.GroupKind())
		}
		if any.Unused != nil && any.Unused(e.Tenant) {
			onVirtual, err := virtual.resourceOf(any)
			if err != nil {
				return err
			}
			e.unused = append(e.unused, onVirtual)
			continue
		}
		if any.Optional {
			e.optional = append(e.optional, func(ctx context.Context) { e.follow(ctx, any, virtual, host) })
			continue
		}
		k, err := e.newKind(any, virtual, host)
		if err != nil {
			return err
		}
		if !any.Unwatched {
			e.sources[sourceKey{translate.Virtual, any.GroupKind()}] = k.virtual
		}
		if !any.HostByName {
			e.sources[sourceKey{translate.Host, any.GroupKind()}] = k.host
		}
		e.kinds = append(e.kinds, k)
	}
	if !slices.ContainsFunc(e.kinds, func(k *kind) bool { return k.Tokens != nil }) {
		return nil
	}
	secrets := corev1.SchemeGroupVersion.WithKind("Secret")
	e.tokens = e.sources[sourceKey{translate.Host, secrets.GroupKind()}]
	if e.tokens != nil {
		return nil
	}
	onHost, err := host.resource(secrets, "secrets", true)
	if err != nil {
		return err
	}
	e.tokens = &source{resource: onHost, side: translate.Host, namespace: e.Tenant.HostNamespace, selector: e.ours(api.ComponentSynced), now: e.Clock.Now}
	e.sources[sourceKey{translate.Host, secrets.GroupKind()}] = e.tokens
	return nil
}

// newKind puts the two sides of a kind together.
func (e *Engine) newKind(any translate.Any, virtual, host *client) (*kind, error) {
	k := &kind{Any: any}
	onVirtual, err := virtual.resourceOf(any)
	if err != nil {
		return nil, err
	}
	onHost, err := host.resourceOf(any)
	if err != nil {
		return nil, err
	}
	k.virtual = &source{resource: onVirtual, side: translate.Virtual, metadataOnly: any.WhenReferenced && !k.fromHost(), now: e.Clock.Now}
	k.host = &source{resource: onHost, side: translate.Host, prune: any.PruneHost, now: e.Clock.Now}
	if any.Namespaced {
		k.host.namespace = e.Tenant.HostNamespace
	}
	if !k.fromHost() {
		k.host.selector = e.ours(api.ComponentSynced)
		if any.SeesFence {
			k.host.selector = e.ours(api.ComponentSynced, api.ComponentFence)
		}
		k.host.prune = nil
	}
	return k, nil
}

// addReads adds the kinds that are looked at but not synced.
func (e *Engine) addReads(virtual, host *client) error {
	for _, k := range e.kinds {
		for _, object := range k.ReadsVirtual {
			if err := e.addRead(virtual, translate.Virtual, "", object, e.sources); err != nil {
				return err
			}
		}
		for _, object := range k.ReadsHost {
			if err := e.addRead(host, translate.Host, e.Tenant.HostNamespace, object, e.sources); err != nil {
				return err
			}
		}
		for _, object := range k.MayRefuse {
			if err := e.addRead(host, translate.Host, e.Tenant.HostNamespace, object, e.causes); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Engine) addRead(c *client, side translate.Side, namespace string, object translate.Object, to map[sourceKey]*source) error {
	gvks, _, err := scheme.Scheme.ObjectKinds(object)
	if err != nil {
		return fmt.Errorf("a kind reads %T: %w", object, err)
	}
	key := sourceKey{side, gvks[0].GroupKind()}
	if e.sources[key] != nil || to[key] != nil {
		return nil
	}
	plural, _ := meta.UnsafeGuessKindToResource(gvks[0])
	r, err := c.resource(gvks[0], plural.Resource, true)
	if err != nil {
		return err
	}
	to[key] = &source{resource: r, side: side, namespace: namespace, now: e.Clock.Now}
	return nil
}

// filled waits for all caches. That of the library looks ten times a second,
// and whoever waits for a tenant waits for this.
func filled(ctx context.Context, synced []cache.InformerSynced) bool {
	return wait.PollUntilContextCancel(ctx, syncPoll, true, func(context.Context) (bool, error) {
		for _, has := range synced {
			if !has() {
				return false, nil
			}
		}
		return true, nil
	}) == nil
}

// Run syncs until ctx ends, and returns when all it started has stopped. An
// error tells that it could not begin.
func (e *Engine) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx).WithName("syncer").WithValues("tenant", e.Tenant.Name)
	ctx, cancel := context.WithCancel(klog.NewContext(ctx, logger))
	var running sync.WaitGroup
	// In this order: nothing is left behind when Run returns.
	defer running.Wait()
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	defer e.tokenQueue.ShutDown()
	defer e.queue.ShutDown()
	defer e.fresh.ShutDown()
	defer cancel()

	broadcaster.StartRecordingToSink(&eventSink{ctx: ctx, rest: e.accounts.rest})
	e.events = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "sublet"})

	var synced []cache.InformerSynced
	for key, s := range e.sources {
		if err := s.start(e.handler(key, s)); err != nil {
			return err
		}
		synced = append(synced, s.controller.HasSynced)
	}
	for _, s := range e.sources {
		running.Go(func() { s.controller.RunWithContext(ctx) })
	}
	for _, s := range e.causes {
		// Nothing waits for these: without them, it is tried again later.
		if err := s.start(func(_, _ metav1.Object) { e.retryRefused(retryPause) }); err != nil {
			return err
		}
		running.Go(func() { s.controller.RunWithContext(ctx) })
	}
	for kind, s := range e.madeOnHost {
		// Nor for these: what they find comes as a change.
		if err := s.start(e.handlerOf(nil, sourceKey{translate.Host, kind}, s)); err != nil {
			return err
		}
		running.Go(func() { s.controller.RunWithContext(ctx) })
	}
	if !filled(ctx, synced) {
		if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
			return nil
		}
		return fmt.Errorf("reading both sides: %w", context.Cause(ctx))
	}
	logger.Info("Synced caches, starting workers")
	e.begun.Store(true)
	if e.Synced != nil {
		e.Synced()
	}
	running.Go(func() { e.retire(ctx) })
	for _, follow := range e.optional {
		running.Go(func() { follow(ctx) })
	}
	for range e.Creators {
		running.Go(func() { e.work(ctx, e.fresh, e.reconcile) })
	}
	for range e.Followers {
		running.Go(func() { e.work(ctx, e.queue, e.reconcile) })
	}
	for range e.Minters {
		running.Go(func() { e.work(ctx, e.tokenQueue, e.refreshTokens) })
	}
	<-ctx.Done()
	return nil
}

// retire removes, once, what stands for host objects that the tenant no longer
// sees any of.
func (e *Engine) retire(ctx context.Context) {
	for _, r := range e.unused {
		err := wait.ExponentialBackoffWithContext(ctx, wait.Backoff{Duration: time.Second, Factor: 2, Steps: 8, Cap: time.Minute}, func(ctx context.Context) (bool, error) {
			err := e.retireAll(ctx, r)
			if err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Could not remove what the tenant may no longer see, will try again", "kind", r.gvk.Kind)
			}
			return err == nil, nil
		})
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "What the tenant may no longer see stays until the next start", "kind", r.gvk.Kind)
		}
	}
}

func (e *Engine) retireAll(ctx context.Context, r *resource) error {
	list, err := r.list(ctx, "", metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil // The tenant does not have the kind.
	}
	if err != nil {
		return fmt.Errorf("list virtual %s: %w", r.plural, err)
	}
	return meta.EachListItem(list, func(o runtime.Object) error {
		object, ok := o.(translate.Object)
		if !ok || !translate.FromHost(object) {
			return nil
		}
		if err := r.delete(ctx, object, nil); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete virtual %s %q: %w", r.plural, object.GetName(), err)
		}
		return nil
	})
}

// work is one worker.
func (e *Engine) work(ctx context.Context, queue workqueue.TypedRateLimitingInterface[request], do func(context.Context, request) error) {
	for {
		r, shutdown := queue.Get()
		if shutdown {
			return
		}
		if !e.begin(queue, r) {
			// The other queue has it: its turn comes again.
			queue.AddAfter(r, time.Millisecond)
			queue.Done(r)
			continue
		}
		err := do(ctx, r)
		e.end(queue, r)
		if err != nil && queue == e.tokenQueue && e.over(r) {
			err = nil // It was about an object that is gone by now.
		}
		switch {
		case err == nil:
			queue.Forget(r)
		case ctx.Err() != nil:
		default:
			if !quiet(err) {
				klog.FromContext(ctx).Error(err, "Could not sync, will try again", "kind", r.kind.GroupVersionKind.Kind, "object", r.NamespacedName, "tries", queue.NumRequeues(r)+1)
			}
			queue.AddRateLimited(r)
		}
		queue.Done(r)
	}
}

// begin tells whether nobody else is at an object, as can be while it moves
// from one queue to the other.
func (e *Engine) begin(queue workqueue.TypedRateLimitingInterface[request], r request) bool {
	if queue == e.tokenQueue {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy[r] {
		return false
	}
	e.busy[r] = true
	return true
}

func (e *Engine) end(queue workqueue.TypedRateLimitingInterface[request], r request) {
	if queue == e.tokenQueue {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.busy, r)
}

// handler tells what to do when an object of a source has changed.
func (e *Engine) handler(key sourceKey, s *source) func(before, after metav1.Object) {
	var own *kind
	for _, k := range e.kinds {
		if s == k.virtual || s == k.host {
			own = k
		}
	}
	return e.handlerOf(own, key, s)
}

// handlerOf is the handler of a source of own, which is nil for what is only
// read.
func (e *Engine) handlerOf(own *kind, key sourceKey, s *source) func(before, after metav1.Object) {
	return func(before, after metav1.Object) {
		if own != nil && own.Optional && !own.active.Load() {
			return // Not all is read yet, or it is over.
		}
		object := after
		if object == nil {
			object = before
		}
		if e.Changed != nil && s.side == translate.Virtual {
			e.Changed(key.kind)
		}
		name := types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()}
		switch {
		case own == nil:
		case own.fromHost() && s.side == translate.Host:
			if own.Unwatched && after != nil && !e.begun.Load() {
				e.setMade(request{own, name})
			}
			e.noteRefs(request{own, name}, types.NamespacedName{})
			e.add(request{own, name})
		case own.fromHost():
			if !own.Namespaced && translate.FromHost(object) {
				e.add(request{own, name})
			}
		case s.side == translate.Virtual:
			e.noteRefs(request{own, name}, name)
			e.add(request{own, name})
		default:
			virtual, ok := e.Tenant.Owns(object)
			if !ok && before != nil {
				// Somebody took our marks from it.
				virtual, ok = e.Tenant.Owns(before)
			}
			if ok {
				e.noteRefs(request{own, virtual}, virtual)
				e.add(request{own, virtual})
			}
			if after == nil {
				e.retryRefused(0)
			}
		}
		if s == e.tokens {
			e.tokensChanged(object)
			if before != nil {
				e.tokensChanged(before) // It may have lost what tells whose they are.
			}
		}
		to := name
		if s.side == translate.Host && s.namespaced {
			to.Namespace = ""
		}
		for _, r := range e.index.watchers(target{key.side, key.kind, to}) {
			e.add(r)
		}
	}
}

// noteRefs brings the index up to date with an object.
func (e *Engine) noteRefs(r request, self types.NamespacedName) {
	if r.kind.Refs == nil && r.kind.fromHost() {
		return
	}
	e.noting.Lock()
	defer e.noting.Unlock()
	var virtual, host translate.Object
	exists := false
	if r.kind.fromHost() {
		host = r.kind.host.object(r.Namespace, r.Name)
		exists = host != nil
	} else {
		exists = r.kind.virtual.cached(r.Namespace, r.Name) != nil
		virtual = r.kind.virtual.object(r.Namespace, r.Name)
		host = e.hostObject(r)
	}
	var changed []target
	var refs []translate.Ref
	if !exists && host == nil {
		changed = e.index.drop(r)
	} else {
		refs = e.refs(r.kind, virtual, host)
		changed = e.index.set(r, self, refs)
	}
	e.refer(changed)
	e.readAgain(refs)
}

// refer looks again at what is now referred to, or no longer.
func (e *Engine) refer(changed []target) {
	for _, to := range changed {
		for _, k := range e.kinds {
			if k.WhenReferenced && k.GroupKind() == to.kind && k.fromHost() == (to.side == translate.Host) {
				e.add(request{k, e.requestName(to)})
			}
		}
	}
}

// readAgain looks again at what is read by name, as something that refers to it
// has changed: there is no other word of it.
func (e *Engine) readAgain(refs []translate.Ref) {
	for _, ref := range refs {
		if !ref.Sync || ref.Side != translate.Host {
			continue
		}
		for _, k := range e.kinds {
			if k.HostByName && k.GroupKind() == ref.Kind {
				e.add(request{k, types.NamespacedName{Name: ref.Name}})
			}
		}
	}
}

// refs are a kind's references with namespaces made uniform: on the host there
// is only one, so none is said.
func (e *Engine) refs(k *kind, virtual, host translate.Object) []translate.Ref {
	if k.Refs == nil {
		return nil
	}
	refs := k.Refs(virtual, host)
	for i := range refs {
		if refs[i].Side == translate.Host {
			refs[i].Namespace = ""
		}
	}
	return refs
}

// requestName undoes, for a kind that begins on the host, what refs does.
func (e *Engine) requestName(to target) types.NamespacedName {
	if s := e.sources[sourceKey{to.side, to.kind}]; to.side == translate.Host && s != nil && s.namespaced {
		return types.NamespacedName{Namespace: e.Tenant.HostNamespace, Name: to.Name}
	}
	return to.NamespacedName
}

// hostObject is the host object of a request by virtual name, if it is ours.
func (e *Engine) hostObject(r request) translate.Object {
	host := r.kind.host.object(e.Tenant.HostNamespace, translate.HostName(r.Namespace, r.Name))
	if host == nil {
		return nil
	}
	if virtual, ours := e.Tenant.Owns(host); !ours || virtual != r.NamespacedName {
		return nil
	}
	return host
}

// HostObjectName returns the host name of a virtual object of a kind, if it is
// on the host as far as the cache knows.
func (e *Engine) HostObjectName(kind schema.GroupKind, virtual types.NamespacedName) (string, bool) {
	for _, k := range e.kinds {
		if k.GroupKind() != kind || k.fromHost() || k.host.store == nil {
			continue
		}
		if host := e.hostObject(request{k, virtual}); host != nil {
			return host.GetName(), true
		}
	}
	return "", false
}

// VirtualObjects returns the virtual objects of a kind as far as they are kept
// whole in memory; they must not be changed.
func (e *Engine) VirtualObjects(kind schema.GroupKind) []translate.Object {
	s := e.sources[sourceKey{translate.Virtual, kind}]
	if s == nil || s.store == nil {
		return nil
	}
	var all []translate.Object
	for _, o := range s.store.List() {
		if object, ok := o.(translate.Object); ok {
			all = append(all, object)
		}
	}
	return all
}

// Hold leaves the host object of a virtual one alone while a request changes
// both, the host object first. release must be called when the request is over,
// whatever became of it.
//
//	Hold ─► host written ─► virtual written ─► release ─► seen in the cache: go on
//	                        └ refused ────────► release ─► host made as the virtual
//	                                                       one is, or deleted
func (e *Engine) Hold(of schema.GroupKind, virtual types.NamespacedName) (release func()) {
	i := slices.IndexFunc(e.kinds, func(k *kind) bool { return k.GroupKind() == of && !k.fromHost() })
	if i < 0 {
		return func() {}
	}
	r := request{e.kinds[i], virtual}
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.held[r]
	if h == nil {
		h = &hold{}
		e.held[r] = h
	}
	h.requests++
	h.until = e.Clock.Now().Add(holdTime)
	delete(e.abandoned, r)
	return sync.OnceFunc(func() { e.release(r, h) })
}

// UnderWay tells whether a request changes the object right now; see Hold.
func (e *Engine) UnderWay(of schema.GroupKind, virtual types.NamespacedName) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range e.kinds {
		if h := e.held[request{k, virtual}]; k.GroupKind() == of && h != nil && h.requests > 0 {
			return true
		}
	}
	return false
}

// release finds out what became of the last request.
func (e *Engine) release(r request, h *hold) {
	e.mu.Lock()
	h.requests--
	more := h.requests > 0 || e.held[r] != h
	e.mu.Unlock()
	if more {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), seenTime)
	defer cancel()
	found, err := r.kind.virtual.get(ctx, r.Namespace, r.Name)

	e.mu.Lock()
	defer e.mu.Unlock()
	if h.requests > 0 || e.held[r] != h {
		return // The next one will tell.
	}
	h.until = e.Clock.Now().Add(seenTime)
	switch {
	case err == nil:
		h.version = found.GetResourceVersion()
	case apierrors.IsNotFound(err):
		delete(e.held, r)
		now := e.Clock.Now()
		maps.DeleteFunc(e.abandoned, func(_ request, since time.Time) bool { return now.Sub(since) > e.AllocationGrace })
		e.abandoned[r] = now
	}
	e.queue.Add(r)
}

// isHeld tells whether to leave the host object alone for now.
func (e *Engine) isHeld(r request) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	h, ok := e.held[r]
	if !ok {
		return false
	}
	left := h.until.Sub(e.Clock.Now())
	if left <= 0 || h.requests == 0 && e.hasSeen(r, h.version) {
		delete(e.held, r)
		return false
	}
	e.queue.AddAfter(r, left)
	return true
}

// hasSeen tells whether the cache has this version of a virtual object, or a
// later one.
func (e *Engine) hasSeen(r request, version string) bool {
	virtual := r.kind.virtual.cached(r.Namespace, r.Name)
	return virtual != nil && atLeast(virtual.GetResourceVersion(), version)
}

// Wrote tells of a host object that somebody else has written for the tenant,
// who Holds its virtual one: the engine does not take it for missing.
func (e *Engine) Wrote(of schema.GroupKind, host translate.Object) {
	for _, k := range e.kinds {
		if k.GroupKind() == of && !k.fromHost() {
			k.host.wrote(host)
		}
	}
}

// behind tells for how long at most to wait until both caches show what the
// engine has written of an object; 0 if they do.
func (e *Engine) behind(r request) time.Duration {
	if r.kind.fromHost() {
		if r.kind.Namespaced || r.kind.Unwatched {
			return 0
		}
		return r.kind.virtual.behind(types.NamespacedName{Name: r.Name})
	}
	host := types.NamespacedName{Namespace: e.Tenant.HostNamespace, Name: translate.HostName(r.Namespace, r.Name)}
	return max(r.kind.virtual.behind(r.NamespacedName), r.kind.host.behind(host))
}

// isAbandoned tells, once, whether the request that made a host object ahead of
// its virtual one has failed.
func (e *Engine) isAbandoned(r request) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, abandoned := e.abandoned[r]
	delete(e.abandoned, r)
	return abandoned
}

// retryRefused tries again, after a pause, what the host refused: the cause may
// be gone.
func (e *Engine) retryRefused(after time.Duration) {
	e.mu.Lock()
	refused := slices.Collect(maps.Keys(e.refused))
	e.mu.Unlock()
	for _, r := range refused {
		if after > 0 {
			e.fresh.AddAfter(r, after) // Several in a row become one.
			continue
		}
		e.add(r)
	}
}
