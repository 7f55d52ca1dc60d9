package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// errRefused is the host's or a kind's no. The tenant has been told.
var errRefused = errors.New("refused")

// errAgain asks for another try, without a word.
var errAgain = errors.New("not yet")

// quiet errors are part of a normal day.
func quiet(err error) bool {
	return apierrors.IsConflict(err) || errors.Is(err, errRefused) || errors.Is(err, errAgain)
}

func (e *Engine) reconcile(ctx context.Context, r request) error {
	if r.kind.Optional && !r.kind.active.Load() {
		return nil
	}
	if left := e.behind(r); left > 0 {
		// What comes brings us back; if nothing does, it is looked at anew.
		e.queue.AddAfter(r, left)
		return nil
	}
	if r.kind.fromHost() {
		return e.reconcileFromHost(ctx, r)
	}
	if e.isHeld(r) {
		return nil
	}
	in, err := e.gather(ctx, r)
	if err != nil {
		return err
	}
	if in.Virtual == nil {
		return e.collect(ctx, r, in.Host)
	}
	if in.Host != nil && e.stale(in) {
		// It stands for an earlier virtual object of this name. Its deletion
		// will bring us back.
		return e.deleteHost(ctx, r, in.Host, e.forced(r.kind))
	}
	if r.kind.Graceful {
		done, err := e.endOfLife(ctx, r, in)
		if done || err != nil {
			return err
		}
	}
	host, err := e.apply(ctx, r, in)
	if errors.Is(err, errRefused) && in.Host != nil {
		// A change is refused; what runs goes on, and may be seen.
		return errors.Join(err, e.status(ctx, r, in))
	}
	if err != nil || host == nil {
		return err
	}
	if host != in.Host {
		// Just written: the host's answer comes as a change.
		return nil
	}
	return errors.Join(e.status(ctx, r, in), e.fetchMade(ctx, r, in))
}

// gather reads both sides and what the kind's Refs name. The virtual object is
// nil if it does not exist or is not to be on the host.
func (e *Engine) gather(ctx context.Context, r request) (translate.Input[translate.Object], error) {
	in := translate.Input[translate.Object]{Tenant: e.Tenant, Names: e.index.virtualName, Host: e.hostObject(r)}
	switch {
	case !r.kind.WhenReferenced:
		in.Virtual = r.kind.virtual.object(r.Namespace, r.Name)
	case r.kind.virtual.cached(r.Namespace, r.Name) == nil:
	case !e.referenced(r, translate.Virtual):
	default:
		virtual, err := r.kind.virtual.get(ctx, r.Namespace, r.Name)
		if err != nil && !apierrors.IsNotFound(err) {
			return in, fmt.Errorf("read virtual %s %q: %w", r.kind.Resource, r.NamespacedName, err)
		}
		if err == nil {
			virtual.SetManagedFields(nil)
			in.Virtual = virtual
		}
	}
	var err error
	in.Refs, err = e.read(ctx, e.refs(r.kind, in.Virtual, in.Host))
	return in, err
}

// referenced tells whether something that crosses still names the object, or
// did a moment ago.
func (e *Engine) referenced(r request, side translate.Side) bool {
	to := target{side, r.kind.GroupKind(), r.NamespacedName}
	if side == translate.Host {
		to.Namespace = ""
	}
	synced, since := e.index.synced(to)
	if synced {
		return true
	}
	if since.IsZero() {
		return false
	}
	if left := e.Linger - e.Clock.Since(since); left > 0 {
		e.queue.AddAfter(r, left)
		return true
	}
	e.index.settled(to)
	return false
}

// shown tells whether the tenant sees a host object, used or not.
func (e *Engine) shown(r request, host translate.Object) bool {
	return r.kind.Shown != nil && r.kind.Shown(e.Tenant, host)
}

func (e *Engine) read(ctx context.Context, refs []translate.Ref) (translate.Objects, error) {
	var all translate.Objects
	for _, ref := range refs {
		if !ref.Read {
			continue
		}
		s := e.sourceOf(ref)
		if s == nil && ref.Optional {
			continue
		}
		if s == nil && slices.ContainsFunc(e.unused, func(r *resource) bool { return r.gvk.GroupKind() == ref.Kind }) {
			continue // The limits leave nothing of it.
		}
		if s == nil {
			return all, fmt.Errorf("a reference names %s %s, which nobody reads: add it to the kind's Reads", ref.Side, ref.Kind)
		}
		found, err := s.read(ctx, ref)
		if err != nil {
			return all, err
		}
		if ref.Side == translate.Host {
			all.Host = append(all.Host, found...)
		} else {
			all.Virtual = append(all.Virtual, found...)
		}
	}
	return all, nil
}

// sourceOf is where a reference is read, which is nil for optional kinds that are
// not there.
func (e *Engine) sourceOf(ref translate.Ref) *source {
	key := sourceKey{ref.Side, ref.Kind}
	if s := e.sources[key]; s != nil || !ref.Optional {
		return s
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.active[key]
}

func (s *source) read(ctx context.Context, ref translate.Ref) ([]translate.Object, error) {
	namespace := ref.Namespace
	if s.namespace != "" {
		namespace = s.namespace
	}
	if ref.Name == "" && namespace == "" {
		return s.everything(), nil
	}
	if ref.Name == "" {
		return s.inNamespace(namespace), nil
	}
	if !s.metadataOnly {
		if object := s.object(namespace, ref.Name); object != nil {
			return []translate.Object{object}, nil
		}
		return nil, nil
	}
	if s.cached(namespace, ref.Name) == nil {
		return nil, nil
	}
	object, err := s.get(ctx, namespace, ref.Name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s %s %s/%s: %w", s.side, s.plural, namespace, ref.Name, err)
	}
	return []translate.Object{object}, nil
}

// collect removes a host object whose virtual one is gone.
func (e *Engine) collect(ctx context.Context, r request, host translate.Object) error {
	e.forget(r)
	if host == nil || host.GetDeletionTimestamp() != nil && !r.kind.Graceful {
		return nil
	}
	uid := host.GetAnnotations()[api.AnnotationVirtualUID]
	if uid == "" && !e.isAbandoned(r) {
		// Made ahead of its virtual object, which may come any moment.
		if left := e.AllocationGrace - e.Clock.Since(host.GetCreationTimestamp().Time); left > 0 {
			e.queue.AddAfter(r, left)
			return nil
		}
	}
	if !r.kind.WhenReferenced {
		// A cache may be behind; a deletion cannot be taken back.
		virtual, err := r.kind.virtual.get(ctx, r.Namespace, r.Name)
		if err == nil && (uid == "" || string(virtual.GetUID()) == uid) {
			return errAgain
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("read virtual %s %q: %w", r.kind.Resource, r.NamespacedName, err)
		}
	}
	return e.deleteHost(ctx, r, host, e.forced(r.kind))
}

// stale tells whether the host object stands for an earlier virtual one.
func (e *Engine) stale(in translate.Input[translate.Object]) bool {
	uid := in.Host.GetAnnotations()[api.AnnotationVirtualUID]
	return uid != "" && uid != string(in.Virtual.GetUID())
}

// forced is the grace period for a host object whose virtual one is gone
// already: none, its name is wanted. The kubelet still gives the containers
// their time.
func (e *Engine) forced(k *kind) *int64 {
	if k.Graceful {
		return ptr.To[int64](0)
	}
	return nil
}

func (e *Engine) deleteHost(ctx context.Context, r request, host translate.Object, grace *int64) error {
	if host.GetDeletionTimestamp() != nil && !shorter(grace, host.GetDeletionGracePeriodSeconds()) {
		return nil
	}
	err := r.kind.host.delete(ctx, host, grace)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		// Gone, or another one by now: the cache will tell.
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete host %s %q: %w", r.kind.Resource, host.GetName(), err)
	}
	return nil
}

func shorter(grace, than *int64) bool {
	return grace != nil && than != nil && *grace < *than
}

// endOfLife handles the two-step deletion of Graceful kinds, which may begin
// on either side:
//
//	virtual deleted ─► host deleted, same grace ─► host gone ─► virtual removed,
//	                   or Parting as long as finalizers keep it
//	host deleted    ─► virtual deleted, same grace if it was Lost ─► …
//	host gone       ─► virtual removed if it is Lost; else created again
func (e *Engine) endOfLife(ctx context.Context, r request, in translate.Input[translate.Object]) (done bool, err error) {
	virtual, host := in.Virtual, in.Host
	lost := r.kind.Lost != nil && r.kind.Lost(e.Tenant, virtual)
	switch {
	case virtual.GetDeletionTimestamp() != nil && host == nil:
		return true, e.outlive(ctx, r, virtual)
	case virtual.GetDeletionTimestamp() != nil:
		if err := e.deleteHost(ctx, r, host, virtual.GetDeletionGracePeriodSeconds()); err != nil {
			return true, err
		}
		return true, e.status(ctx, r, in)
	case host == nil && lost:
		found, err := e.unseen(ctx, r)
		if err != nil {
			return true, err
		}
		if found != nil && e.Tenant.Strayed(found, r.NamespacedName) {
			return true, e.bringBack(ctx, r, in, found)
		}
		if found != nil && found.GetDeletionTimestamp() == nil {
			return true, errAgain
		}
		e.events.Eventf(virtual, corev1.EventTypeWarning, "Lost", "%s is gone from the node", r.kind.GroupVersionKind.Kind)
		return true, e.deleteVirtual(ctx, r, virtual, ptr.To[int64](0))
	case host != nil && host.GetDeletionTimestamp() != nil:
		if lost {
			return true, e.deleteVirtual(ctx, r, virtual, host.GetDeletionGracePeriodSeconds())
		}
		return true, nil // It will be made again when it is gone.
	}
	return false, nil
}

// outlive ends a virtual object that is being deleted and whose host object is
// gone. If only finalizers keep it, what it shows must be true without one.
func (e *Engine) outlive(ctx context.Context, r request, virtual translate.Object) error {
	grace := virtual.GetDeletionGracePeriodSeconds()
	end := func() error { return e.deleteVirtual(ctx, r, virtual, ptr.To[int64](0)) }
	if grace != nil && *grace == 0 {
		if r.kind.Parting == nil {
			return nil
		}
		want := r.kind.Parting(virtual)
		if equality.Semantic.DeepEqual(virtual, want) {
			return nil
		}
		end = func() error { return e.writeVirtual(ctx, r, virtual, want) }
	}
	found, err := e.unseen(ctx, r)
	if err != nil {
		return err
	}
	if found != nil {
		return errors.Join(e.deleteHost(ctx, r, found, grace), errAgain)
	}
	return end()
}

// unseen reads a host object that the cache does not have: it may be behind,
// or somebody may have taken our marks from the object, and a deletion cannot be
// taken back. It returns nil if there is none, or another one's.
func (e *Engine) unseen(ctx context.Context, r request) (translate.Object, error) {
	found, err := r.kind.host.get(ctx, e.Tenant.HostNamespace, translate.HostName(r.Namespace, r.Name))
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read host %s: %w", r.kind.Resource, err)
	}
	virtual, ours := e.Tenant.Owns(found)
	if ours && virtual == r.NamespacedName || e.Tenant.Strayed(found, r.NamespacedName) {
		return found, nil
	}
	return nil, nil
}

func (e *Engine) deleteVirtual(ctx context.Context, r request, virtual translate.Object, grace *int64) error {
	err := r.kind.virtual.delete(ctx, virtual, grace)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete virtual %s %q: %w", r.kind.Resource, r.NamespacedName, err)
	}
	return nil
}

// apply makes the host object what ToHost says and returns it; nil if there is
// to be none.
func (e *Engine) apply(ctx context.Context, r request, in translate.Input[translate.Object]) (translate.Object, error) {
	desired, err := r.kind.ToHost(in)
	if err != nil {
		refused := e.refuse(r, in.Virtual, "CannotSync", err)
		if translate.IsWithdrawn(err) && in.Host != nil {
			return nil, errors.Join(refused, e.deleteHost(ctx, r, in.Host, nil))
		}
		return nil, refused
	}
	if desired == nil {
		e.accepted(r)
		if in.Host == nil {
			return nil, nil
		}
		return nil, e.deleteHost(ctx, r, in.Host, nil)
	}
	if in.Host == nil {
		return e.create(ctx, r, in, desired)
	}
	host := in.Host
	if r.kind.Replace != nil && r.kind.Replace(host, desired) {
		// Its deletion brings us back.
		return nil, e.deleteHost(ctx, r, host, nil)
	}
	if e.differs(r, in, desired) {
		if host, err = e.update(ctx, r, in, desired); err != nil {
			return nil, err
		}
	}
	if r.kind.Tokens != nil {
		e.tokenQueue.Add(r)
	}
	e.accepted(r)
	return host, nil
}

// differs looks at the object and its subresources at once, which is cheap:
// mostly nothing differs.
func (e *Engine) differs(r request, in translate.Input[translate.Object], desired translate.Object) bool {
	merged := e.merge(r, in.Host, desired)
	for _, sub := range r.kind.Subresources {
		merged = sub.Merge(merged, subresource(sub, in, desired))
	}
	return !equality.Semantic.DeepEqual(in.Host, merged)
}

// update writes what differs, the object first, and returns it as it is then.
func (e *Engine) update(ctx context.Context, r request, in translate.Input[translate.Object], desired translate.Object) (translate.Object, error) {
	host, err := e.writeHost(ctx, r, in, in.Host, e.merge(r, in.Host, desired), "")
	if err != nil {
		return nil, err
	}
	for _, sub := range r.kind.Subresources {
		merged := sub.Merge(host.DeepCopyObject().(translate.Object), subresource(sub, in, desired))
		if host, err = e.writeHost(ctx, r, in, host, merged, sub.Name); err != nil {
			return nil, err
		}
	}
	return host, nil
}

func (e *Engine) merge(r request, host, desired translate.Object) translate.Object {
	merged := host.DeepCopyObject().(translate.Object)
	if r.kind.Merge != nil {
		merged = r.kind.Merge(merged, desired)
	}
	translate.MergeMeta(merged, desired)
	return merged
}

func subresource(sub translate.Subresource[translate.Object], in translate.Input[translate.Object], desired translate.Object) translate.Object {
	if sub.From != nil {
		return sub.From(in)
	}
	return desired
}

func (e *Engine) create(ctx context.Context, r request, in translate.Input[translate.Object], desired translate.Object) (translate.Object, error) {
	host, err := r.kind.host.create(ctx, desired)
	if apierrors.IsAlreadyExists(err) {
		return nil, e.taken(ctx, r, in, desired)
	}
	if apierrors.IsInvalid(err) {
		// What it asks for may be taken by itself: the address of a Service that
		// has lost our marks, for one.
		found, lookup := e.unseen(ctx, r)
		if lookup != nil {
			return nil, errors.Join(err, lookup)
		}
		if found != nil {
			return nil, e.taken(ctx, r, in, desired)
		}
	}
	if apierrors.IsNotFound(err) {
		err = fmt.Errorf("the host has no place for a %s of the API %s: ask whoever runs it (%w)", r.kind.GroupVersionKind.Kind, r.kind.GroupVersionKind.GroupVersion(), err)
		return nil, e.refuse(r, in.Virtual, "HostRefused", err)
	}
	if refusal(err) {
		return nil, e.refuse(r, in.Virtual, "HostRefused", err)
	}
	if err != nil {
		return nil, fmt.Errorf("create host %s for %q: %w", r.kind.Resource, r.NamespacedName, err)
	}
	e.tellDropped(in.Virtual, desired, host)
	if r.kind.Tokens != nil {
		e.tokenQueue.Add(r)
	}
	e.accepted(r)
	return host, nil
}

// tellDropped tells the tenant what the host did not keep of what was asked for.
func (e *Engine) tellDropped(virtual, asked, kept translate.Object) {
	if paths := dropped(asked, kept); len(paths) > 0 {
		e.events.Eventf(virtual, corev1.EventTypeWarning, "HostDropped",
			"the host did not keep %s: its Kubernetes does not know such fields yet, has them switched off, or removes them by a policy", strings.Join(paths, ", "))
	}
}

// taken: the name exists on the host. It is ours and the cache is behind, or
// somebody else has it.
func (e *Engine) taken(ctx context.Context, r request, in translate.Input[translate.Object], desired translate.Object) error {
	found, err := r.kind.host.get(ctx, desired.GetNamespace(), desired.GetName())
	if apierrors.IsNotFound(err) {
		return errAgain
	}
	if err != nil {
		return fmt.Errorf("read host %s %q: %w", r.kind.Resource, desired.GetName(), err)
	}
	if virtual, ours := e.Tenant.Owns(found); ours && virtual == r.NamespacedName {
		r.kind.host.wrote(found) // By us, though we were not told so, or by an earlier run.
		return errAgain
	}
	if e.Tenant.Strayed(found, r.NamespacedName) {
		return e.bringBack(ctx, r, in, found)
	}
	return e.refuse(r, in.Virtual, "HostRefused", fmt.Errorf("the name %q is taken on the host by an object that is not the tenant's: ask whoever runs the host to delete it", desired.GetName()))
}

// bringBack puts our marks on a host object again that somebody has taken them
// from. It then comes into the cache.
func (e *Engine) bringBack(ctx context.Context, r request, in translate.Input[translate.Object], found translate.Object) error {
	found.SetManagedFields(nil)
	in.Host = found
	if e.stale(in) {
		return errors.Join(e.deleteHost(ctx, r, found, e.forced(r.kind)), errAgain)
	}
	_, err := e.apply(ctx, r, in)
	return err
}

// writeHost writes a host object if it differs, and returns it as it is then.
func (e *Engine) writeHost(ctx context.Context, r request, in translate.Input[translate.Object], host, want translate.Object, subresource string) (translate.Object, error) {
	w := write{r, translate.Host, subresource}
	if equality.Semantic.DeepEqual(host, want) || e.isFutile(w, host, want) {
		return host, nil
	}
	written, err := r.kind.host.update(ctx, want, subresource)
	if refusal(err) {
		return nil, e.refuse(r, in.Virtual, "HostRefused", err)
	}
	if apierrors.IsNotFound(err) && subresource != "" {
		// The host is too old for the subresource, or the object just went.
		return host, nil
	}
	if err != nil {
		return nil, fmt.Errorf("update host %s %q: %w", r.kind.Resource, host.GetName(), err)
	}
	if e.noteFutile(w, want, written) {
		e.tellDropped(in.Virtual, want, written)
	}
	if written.GetResourceVersion() == host.GetResourceVersion() {
		return host, nil // Nothing came of it.
	}
	return written, nil
}

// status brings back what the host made of the object.
func (e *Engine) status(ctx context.Context, r request, in translate.Input[translate.Object]) error {
	if r.kind.Bind != nil {
		if binding := r.kind.Bind(in); binding != nil {
			if r.kind.virtual.isBound(in.Virtual) {
				return nil
			}
			if err := r.kind.virtual.bind(ctx, in.Virtual, binding); err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("bind virtual %s %q: %w", r.kind.Resource, r.NamespacedName, err)
			}
			e.noteBound(r)
			return nil // The binding comes back as a change.
		}
		r.kind.virtual.showsBinding(in.Virtual)
	}
	if r.kind.Status == nil {
		return nil
	}
	want, err := r.kind.Status(in)
	if err != nil {
		return fmt.Errorf("status of %s %q: %w", r.kind.Resource, r.NamespacedName, err)
	}
	if want == nil {
		return nil
	}
	return e.writeVirtual(ctx, r, in.Virtual, want)
}

// writeVirtual writes what differs of a virtual object: itself, its status, or
// both.
func (e *Engine) writeVirtual(ctx context.Context, r request, virtual, want translate.Object) error {
	if equality.Semantic.DeepEqual(virtual, want) {
		return nil
	}
	if !r.kind.StatusSubresource {
		return e.putVirtual(ctx, r, virtual, want, "")
	}
	body := want.DeepCopyObject().(translate.Object)
	setStatus(body, virtual)
	if !equality.Semantic.DeepEqual(virtual, body) {
		if err := e.putVirtual(ctx, r, virtual, body, ""); err != nil {
			return err
		}
		// The rest follows when the change has come back: a status on top of an
		// old version would only conflict.
		return nil
	}
	return e.putVirtual(ctx, r, virtual, want, "status")
}

func (e *Engine) putVirtual(ctx context.Context, r request, virtual, want translate.Object, subresource string) error {
	w := write{r, translate.Virtual, subresource}
	if e.isFutile(w, virtual, want) {
		return nil
	}
	written, err := r.kind.virtual.update(ctx, want, subresource)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("update virtual %s %q: %w", r.kind.Resource, r.NamespacedName, err)
	}
	e.noteFutile(w, want, written)
	return nil
}

// setStatus gives to the status of from. Kinds with a status subresource have
// a field Status by convention.
func setStatus(to, from translate.Object) {
	if untyped, ok := to.(*unstructured.Unstructured); ok {
		delete(untyped.Object, "status")
		if status, ok := from.DeepCopyObject().(*unstructured.Unstructured).Object["status"]; ok {
			untyped.Object["status"] = status
		}
		return
	}
	reflect.ValueOf(to).Elem().FieldByName("Status").Set(reflect.ValueOf(from.DeepCopyObject()).Elem().FieldByName("Status"))
}

// isFutile tells whether just this was written before in vain.
func (e *Engine) isFutile(w write, have, want translate.Object) bool {
	e.mu.Lock()
	before, ok := e.futile[w]
	e.mu.Unlock()
	return ok && sameButVersion(before, want) && have.GetUID() == want.GetUID()
}

// noteFutile remembers a write of which the server kept less, and tells whether
// it was one.
func (e *Engine) noteFutile(w write, want, written translate.Object) bool {
	written.SetManagedFields(nil)
	inVain := !sameButVersion(want, written)
	e.mu.Lock()
	defer e.mu.Unlock()
	if inVain {
		e.futile[w] = want
		return true
	}
	delete(e.futile, w)
	return false
}

func sameButVersion(a, b translate.Object) bool {
	if a.GetResourceVersion() == b.GetResourceVersion() && a.GetGeneration() == b.GetGeneration() {
		return equality.Semantic.DeepEqual(a, b)
	}
	a = a.DeepCopyObject().(translate.Object)
	a.SetResourceVersion(b.GetResourceVersion())
	a.SetGeneration(b.GetGeneration())
	return equality.Semantic.DeepEqual(a, b)
}

// refusal is a no that trying again will not change by itself.
func refusal(err error) bool {
	return err != nil && (apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err))
}

// refuse tells the tenant, in its own names, why an object is not synced.
func (e *Engine) refuse(r request, virtual translate.Object, reason string, err error) error {
	e.mu.Lock()
	e.refused[r] = true
	e.mu.Unlock()
	e.events.Event(virtual, corev1.EventTypeWarning, reason, e.Tenant.Rewrite(err.Error(), e.index.virtualName))
	return fmt.Errorf("%s %q: %w: %w", r.kind.Resource, r.NamespacedName, errRefused, err)
}

func (e *Engine) accepted(r request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.refused, r)
}

// forget drops what is remembered of an object that is gone.
func (e *Engine) forget(r request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.refused, r)
	delete(e.made, r)
	for _, side := range []translate.Side{translate.Virtual, translate.Host} {
		for _, subresource := range []string{"", "status"} {
			delete(e.futile, write{r, side, subresource})
		}
		for _, sub := range r.kind.Subresources {
			delete(e.futile, write{r, side, sub.Name})
		}
	}
}

// reconcileFromHost shows the tenant a host object.
func (e *Engine) reconcileFromHost(ctx context.Context, r request) error {
	in := translate.Input[translate.Object]{Tenant: e.Tenant, Names: e.index.virtualName}
	var err error
	if in.Host, err = e.original(ctx, r); err != nil {
		return err
	}
	if !r.kind.Namespaced && !r.kind.Unwatched {
		in.Virtual = r.kind.virtual.object("", r.Name)
	}
	if in.Virtual != nil && !translate.FromHost(in.Virtual) {
		return nil // The tenant has one of its own by this name.
	}
	if in.Host == nil {
		return e.withdraw(ctx, r, in.Virtual)
	}
	if in.Refs, err = e.read(ctx, e.refs(r.kind, nil, in.Host)); err != nil {
		return err
	}
	want, err := r.kind.ToVirtual(in)
	if err != nil {
		return fmt.Errorf("translate host %s %q: %w", r.kind.Resource, r.NamespacedName, err)
	}
	if want == nil {
		return e.withdraw(ctx, r, in.Virtual)
	}
	if r.kind.Unwatched && e.isMade(r) {
		if in.Virtual, err = e.readVirtual(ctx, r, want); err != nil {
			return err
		}
	}
	if in.Virtual == nil {
		return e.show(ctx, r, want)
	}
	identify(want, in.Virtual)
	return e.writeVirtual(ctx, r, in.Virtual, want)
}

// show makes the virtual object of a host object.
func (e *Engine) show(ctx context.Context, r request, want translate.Object) error {
	_, err := r.kind.virtual.create(ctx, want)
	if gone(err) {
		return nil
	}
	exists := apierrors.IsAlreadyExists(err)
	if err != nil && !exists {
		return fmt.Errorf("create virtual %s %q: %w", r.kind.Resource, want.GetName(), err)
	}
	if r.kind.Unwatched {
		e.setMade(r)
	}
	if exists {
		return errAgain
	}
	return nil
}

// readVirtual reads an object that the cache does not hold; nil if there is none.
func (e *Engine) readVirtual(ctx context.Context, r request, like translate.Object) (translate.Object, error) {
	found, err := r.kind.virtual.get(ctx, like.GetNamespace(), like.GetName())
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read virtual %s %q: %w", r.kind.Resource, like.GetName(), err)
	}
	return found, nil
}

// setMade remembers that the tenant has, or may have, what stands for a host
// object: it is read first when that changes, and made at once if not.
func (e *Engine) setMade(r request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.made[r] = true
}

func (e *Engine) isMade(r request) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.made[r]
}

// original is the host object that the tenant is to see, or nil.
func (e *Engine) original(ctx context.Context, r request) (translate.Object, error) {
	if !r.kind.HostByName {
		host := r.kind.host.object(r.Namespace, r.Name)
		if host != nil && r.kind.WhenReferenced && !e.shown(r, host) && !e.referenced(r, translate.Host) {
			return nil, nil
		}
		return host, nil
	}
	if !e.referenced(r, translate.Host) {
		return nil, nil
	}
	host, err := r.kind.host.get(ctx, "", r.Name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read host %s %q: %w", r.kind.Resource, r.Name, err)
	}
	host.SetManagedFields(nil)
	e.queue.AddAfter(r, rereadInterval)
	return host, nil
}

// gone tells that there is no place for the object any more.
func gone(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// identify gives want all that the API server decides about an object's
// identity, so that only what was translated makes a difference.
func identify(want, virtual translate.Object) {
	want.SetUID(virtual.GetUID())
	want.SetResourceVersion(virtual.GetResourceVersion())
	want.SetGeneration(virtual.GetGeneration())
	want.SetCreationTimestamp(virtual.GetCreationTimestamp())
	want.SetDeletionTimestamp(virtual.GetDeletionTimestamp())
	want.SetDeletionGracePeriodSeconds(virtual.GetDeletionGracePeriodSeconds())
	want.SetFinalizers(virtual.GetFinalizers())
	want.SetOwnerReferences(virtual.GetOwnerReferences())
	want.SetManagedFields(virtual.GetManagedFields())
}

// withdraw removes from the tenant what the host no longer has.
func (e *Engine) withdraw(ctx context.Context, r request, virtual translate.Object) error {
	e.forget(r)
	if virtual == nil {
		return nil
	}
	if r.kind.Parting != nil {
		if want := r.kind.Parting(virtual); !equality.Semantic.DeepEqual(virtual, want) {
			// The deletion follows when the change has come back.
			return e.writeVirtual(ctx, r, virtual, want)
		}
	}
	if virtual.GetDeletionTimestamp() != nil {
		return nil
	}
	return e.deleteVirtual(ctx, request{r.kind, types.NamespacedName{Namespace: virtual.GetNamespace(), Name: virtual.GetName()}}, virtual, nil)
}
