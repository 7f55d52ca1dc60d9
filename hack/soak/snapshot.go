package main

import (
	"context"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// snapshot is all objects, of both sides, that a translation may look at.
type snapshot struct {
	tenant  translate.Tenant
	objects map[translate.Side]map[schema.GroupKind][]translate.Object
}

// snapshot reads both sides.
func (t *target) snapshot(ctx context.Context) (*snapshot, error) {
	tenant, err := t.translation(ctx)
	if err != nil {
		return nil, err
	}
	s := &snapshot{tenant: tenant, objects: map[translate.Side]map[schema.GroupKind][]translate.Object{translate.Virtual: {}, translate.Host: {}}}
	for _, kind := range kinds.All() {
		if kind.Unwatched {
			continue // Nothing is kept of it on the tenant's side, or compared.
		}
		for _, side := range []translate.Side{translate.Virtual, translate.Host} {
			if err := t.read(ctx, s, side, kind.GroupVersionKind, kind.Resource, kind.New); err != nil {
				return nil, err
			}
		}
		for side, reads := range map[translate.Side][]translate.Object{translate.Virtual: kind.ReadsVirtual, translate.Host: kind.ReadsHost} {
			for _, object := range reads {
				gvks, _, err := scheme.Scheme.ObjectKinds(object)
				if err != nil {
					return nil, err
				}
				plural, _ := meta.UnsafeGuessKindToResource(gvks[0])
				empty := func() translate.Object {
					return reflect.New(reflect.TypeOf(object).Elem()).Interface().(translate.Object)
				}
				if err := t.read(ctx, s, side, gvks[0], plural.Resource, empty); err != nil {
					return nil, err
				}
			}
		}
	}
	return s, nil
}

// read lists all objects of a kind on one side; on the host those of the
// tenant's namespace, if the kind has namespaces.
func (t *target) read(ctx context.Context, s *snapshot, side translate.Side, gvk schema.GroupVersionKind, plural string, empty func() translate.Object) error {
	if _, done := s.objects[side][gvk.GroupKind()]; done {
		return nil
	}
	var objects dynamic.ResourceInterface = t.virtualObjects.Resource(gvk.GroupVersion().WithResource(plural))
	if side == translate.Host {
		resource := t.hostObjects.Resource(gvk.GroupVersion().WithResource(plural))
		objects = resource.Namespace(t.namespace)
		if !namespaced(gvk.GroupKind()) {
			objects = resource
		}
	}
	s.objects[side][gvk.GroupKind()] = nil
	list, err := objects.List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil // This side does not have the API.
	}
	if err != nil {
		return fmt.Errorf("list %s %s: %w", side, plural, err)
	}
	for i := range list.Items {
		object := empty()
		if _, untyped := object.(*unstructured.Unstructured); untyped {
			object = &list.Items[i]
		} else {
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, object); err != nil {
				return fmt.Errorf("%s %s: %w", side, plural, err)
			}
			// As in the caches of the syncer.
			object.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		}
		object.SetManagedFields(nil)
		s.objects[side][gvk.GroupKind()] = append(s.objects[side][gvk.GroupKind()], object)
	}
	return nil
}

// namespaced tells whether a kind that is read on the host has namespaces.
func namespaced(kind schema.GroupKind) bool {
	for _, k := range kinds.All() {
		if k.GroupKind() == kind {
			return k.Namespaced
		}
	}
	return kind.Kind != "Node" && kind.Kind != "Namespace"
}
