package engine

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// addMade adds what tells of changes to objects that something on the host makes.
// They bear no label of ours, so it is told of all there are in the tenant's
// namespace, and keeps their names only.
func (e *Engine) addMade(host *client) error {
	for _, any := range e.Kinds {
		for _, object := range any.MadeOnHost {
			gvks, _, err := scheme.Scheme.ObjectKinds(object)
			if err != nil {
				return fmt.Errorf("something on the host makes %T: %w", object, err)
			}
			kind := gvks[0].GroupKind()
			if e.madeOnHost[kind] != nil {
				continue
			}
			plural, _ := meta.UnsafeGuessKindToResource(gvks[0])
			r, err := host.resource(gvks[0], plural.Resource, true)
			if err != nil {
				return err
			}
			e.madeOnHost[kind] = &source{resource: r, side: translate.Host, namespace: e.Tenant.HostNamespace, metadataOnly: true, now: e.Clock.Now}
		}
	}
	return nil
}

// fetchMade brings to the tenant what something on the host has made for an
// object.
//
//	virtual object ──────────────► host object
//	     ▲ owns                         ▲ owns
//	virtual copy ◄─── fetchMade ─── made on the host
func (e *Engine) fetchMade(ctx context.Context, r request, in translate.Input[translate.Object]) error {
	if r.kind.Made == nil || in.Virtual.GetDeletionTimestamp() != nil {
		return nil
	}
	for _, made := range r.kind.Made(in.Virtual) {
		i := slices.IndexFunc(e.kinds, func(k *kind) bool { return k.GroupKind() == made.Kind && !k.fromHost() })
		if i < 0 || e.madeOnHost[made.Kind] == nil {
			return fmt.Errorf("the host makes %s for %s, which does not cross", made.Kind, r.kind.Resource)
		}
		if err := e.fetch(ctx, r, in, made, e.kinds[i]); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) fetch(ctx context.Context, r request, in translate.Input[translate.Object], made translate.Made, of *kind) error {
	name := made.Virtual
	virtual, err := of.virtual.get(ctx, name.Namespace, name.Name)
	if apierrors.IsNotFound(err) {
		virtual, err = nil, nil
	}
	if err != nil {
		return fmt.Errorf("read virtual %s %q: %w", of.Resource, name, err)
	}
	if virtual != nil && !translate.FromHost(virtual) {
		return nil // ToHost says so.
	}
	host, err := e.madeOnHost[made.Kind].get(ctx, e.Tenant.HostNamespace, made.Host)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read host %s %q: %w", of.Resource, made.Host, err)
	}
	if err != nil || host.GetDeletionTimestamp() != nil || host.GetLabels()[api.LabelComponent] != "" {
		// It is not there (yet), or one of ours, which nobody makes for the tenant.
		if virtual == nil || virtual.GetDeletionTimestamp() != nil {
			return nil
		}
		return e.deleteVirtual(ctx, request{of, name}, virtual, nil)
	}
	if err := e.adopt(ctx, in.Host, host, r.kind, e.madeOnHost[made.Kind]); err != nil {
		return err
	}
	want, err := made.ToVirtual(e.Tenant, e.index.virtualName, host)
	if err != nil {
		return fmt.Errorf("translate host %s %q: %w", of.Resource, made.Host, err)
	}
	owner := ownerOf(in.Virtual, r.kind)
	if virtual == nil {
		want.SetOwnerReferences([]metav1.OwnerReference{owner})
		if _, err := of.virtual.create(ctx, want); err != nil && !gone(err) {
			if apierrors.IsAlreadyExists(err) {
				return errAgain
			}
			return fmt.Errorf("create virtual %s %q: %w", of.Resource, name, err)
		}
		return nil
	}
	virtual.SetManagedFields(nil)
	identify(want, virtual)
	if !slices.ContainsFunc(want.GetOwnerReferences(), func(o metav1.OwnerReference) bool { return o.UID == owner.UID }) {
		want.SetOwnerReferences(append(slices.Clone(want.GetOwnerReferences()), owner))
	}
	if equality.Semantic.DeepEqual(virtual, want) {
		return nil
	}
	_, err = of.virtual.update(ctx, want, "")
	if apierrors.IsInvalid(err) {
		// Of another type, or immutable: it can only be made anew.
		return e.deleteVirtual(ctx, request{of, name}, virtual, nil)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update virtual %s %q: %w", of.Resource, name, err)
	}
	return nil
}

// adopt makes what was made on the host go with the object that it was made for,
// once, if whoever made it has not said whose it is.
func (e *Engine) adopt(ctx context.Context, owner, host translate.Object, k *kind, made *source) error {
	e.mu.Lock()
	known := e.adopted[host.GetUID()]
	e.mu.Unlock()
	if known || len(host.GetOwnerReferences()) > 0 {
		return nil
	}
	owned := host.DeepCopyObject().(translate.Object)
	owned.SetOwnerReferences([]metav1.OwnerReference{ownerOf(owner, k)})
	_, err := made.update(ctx, owned, "")
	switch {
	case apierrors.IsConflict(err):
		return errAgain
	case refusal(err):
		klog.FromContext(ctx).Info("What was made on the host stays there when what it was made for goes: it may not be given an owner", "kind", k.Resource, "name", host.GetName(), "err", err)
	case err != nil && !apierrors.IsNotFound(err):
		return fmt.Errorf("update host object %q: %w", host.GetName(), err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.adopted[host.GetUID()] = true
	return nil
}

func ownerOf(object translate.Object, k *kind) metav1.OwnerReference {
	version, kind := k.GroupVersionKind.ToAPIVersionAndKind()
	return metav1.OwnerReference{APIVersion: version, Kind: kind, Name: object.GetName(), UID: object.GetUID()}
}
