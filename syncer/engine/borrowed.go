package engine

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// settleInterval is how soon a kind is looked at again whose definition was just
// written: it takes a moment until it is served.
const settleInterval = 500 * time.Millisecond

// borrower keeps the tenant's copy of the host's definition of a kind.
//
//	host's definition    tenant's definition    kind
//	none                 any or none            waits; objects that there are get an event
//	unfit                any or none            the same
//	fit                  none, or a copy        copied, then synced
//	fit                  the tenant's own       not synced; an event on the definition
type borrower struct {
	e             *Engine
	any           translate.Any
	virtual, host *client
	// onVirtual and onHost are the definitions.
	onVirtual, onHost *resource
	// told are the objects that have been told why they wait.
	told map[types.UID]bool
	// left is a definition of the tenant's own of which nothing is on the host.
	left types.UID
}

func (e *Engine) newBorrower(any translate.Any, virtual, host *client) (*borrower, error) {
	definitions := translate.Any{
		GroupVersionKind: translate.DefinitionKind(), Resource: "customresourcedefinitions", Optional: true,
		New:     func() translate.Object { return &unstructured.Unstructured{} },
		NewList: func() translate.ObjectList { return &unstructured.UnstructuredList{} },
	}
	onVirtual, err := virtual.resourceOf(definitions)
	if err != nil {
		return nil, err
	}
	onHost, err := host.resourceOf(definitions)
	if err != nil {
		return nil, err
	}
	return &borrower{e: e, any: any, virtual: virtual, host: host, onVirtual: onVirtual, onHost: onHost, told: map[types.UID]bool{}}, nil
}

// borrow brings the tenant's definition up to date and tells whether the kind is
// to be synced now; hasStatus is whether its status is written apart, soon that it
// is worth looking again in a moment.
func (b *borrower) borrow(ctx context.Context) (served, hasStatus, soon bool, err error) {
	name := b.any.GroupVersionKind.GroupVersion().WithResource(b.any.Resource).GroupResource().String()
	original, err := b.onHost.getUntyped(ctx, "", name)
	if apierrors.IsNotFound(err) {
		return false, false, false, b.tell(ctx, fmt.Errorf("the host does not have %s: ask whoever runs it; what is here crosses as soon as it does", name))
	}
	if err != nil {
		return false, false, false, fmt.Errorf("read the host's definition %q: %w", name, err)
	}
	want, unfit := translate.Definition(original.(*unstructured.Unstructured), b.any)
	if unfit != nil {
		return false, false, false, b.tell(ctx, fmt.Errorf("%w: ask whoever manages the tenant", unfit))
	}
	hasStatus = translate.HasStatus(want)
	have, err := b.onVirtual.getUntyped(ctx, "", name)
	switch {
	case apierrors.IsNotFound(err):
		if _, err := b.onVirtual.createUntyped(ctx, want); err != nil && !apierrors.IsAlreadyExists(err) {
			return false, false, false, fmt.Errorf("create the definition %q in the tenant: %w", name, err)
		}
		return false, hasStatus, true, nil
	case err != nil:
		return false, false, false, fmt.Errorf("read the definition %q in the tenant: %w", name, err)
	case !translate.FromHost(have):
		more, err := b.leave(ctx, have)
		return false, false, more, err
	}
	b.left = ""
	if have.GetDeletionTimestamp() != nil {
		return false, hasStatus, true, nil
	}
	if err := b.update(ctx, have.(*unstructured.Unstructured), want); err != nil {
		return false, false, false, err
	}
	served, err = b.e.serves(b.any, b.virtual, b.host)
	if served {
		clear(b.told)
	}
	return served, hasStatus, !served && err == nil, err
}

func (b *borrower) update(ctx context.Context, have, want *unstructured.Unstructured) error {
	merged := have.DeepCopy()
	annotations := merged.GetAnnotations()
	maps.Copy(annotations, want.GetAnnotations())
	merged.SetAnnotations(annotations)
	merged.Object["spec"] = want.Object["spec"]
	if equality.Semantic.DeepEqual(have.Object, merged.Object) {
		return nil
	}
	if _, err := b.onVirtual.updateUntyped(ctx, merged, ""); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update the definition %q in the tenant: %w", have.GetName(), err)
	}
	return nil
}

// tell says to every object of the kind, once, why it does not cross. Where the
// tenant has no definition there are none.
func (b *borrower) tell(ctx context.Context, why error) error {
	objects, err := b.virtual.resourceOf(b.any)
	if err != nil {
		return err
	}
	found, err := b.virtual.serves(b.any)
	if !found || err != nil {
		return err
	}
	list, err := objects.list(ctx, "", metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list virtual %s: %w", b.any.Resource, err)
	}
	return meta.EachListItem(list, func(o runtime.Object) error {
		object, ok := o.(translate.Object)
		if ok && !b.told[object.GetUID()] {
			b.told[object.GetUID()] = true
			b.e.events.Event(object, corev1.EventTypeWarning, "CannotSync", why.Error())
		}
		return nil
	})
}

// leave leaves a kind of the tenant's own alone, and takes away what stood for
// its objects on the host when it was a copy. more tells that there was something:
// as long as the kind is synced, it may come again.
func (b *borrower) leave(ctx context.Context, definition translate.Object) (more bool, err error) {
	if b.left == definition.GetUID() {
		return false, nil
	}
	objects, err := b.host.resourceOf(b.any)
	if err != nil {
		return false, err
	}
	list, err := objects.list(ctx, b.e.Tenant.HostNamespace, metav1.ListOptions{LabelSelector: b.e.ours(api.ComponentSynced)})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("list host %s: %w", b.any.Resource, err)
	}
	if err == nil {
		err = meta.EachListItem(list, func(o runtime.Object) error {
			object, ok := o.(translate.Object)
			if !ok {
				return nil
			}
			if _, ours := b.e.Tenant.Owns(object); !ours || object.GetDeletionTimestamp() != nil {
				return nil
			}
			more = true
			if err := objects.delete(ctx, object, nil); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return fmt.Errorf("delete host %s %q: %w", b.any.Resource, object.GetName(), err)
			}
			return nil
		})
		if more || err != nil {
			return more, err
		}
	}
	b.e.events.Eventf(definition, corev1.EventTypeWarning, "CannotSync",
		"this definition is not a copy of the host's, so its objects stay in this cluster: delete it, with its objects, to get the host's, which are acted upon there")
	b.left = definition.GetUID()
	return false, nil
}
