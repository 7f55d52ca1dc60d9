package engine

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// resourceOf is the resource of a kind, whether it is one of Kubernetes' own or
// a custom one, of which nothing is known but its names.
func (c *client) resourceOf(any translate.Any) (*resource, error) {
	// What the scheme knows depends on what else is in the program: Helm adds
	// definitions of custom resources to it, which are untyped here.
	if _, untyped := any.New().(*unstructured.Unstructured); !untyped {
		return c.resource(any.GroupVersionKind, any.Resource, any.Namespaced)
	}
	if !any.Optional {
		return nil, fmt.Errorf("kind %q is not one of Kubernetes' own: it must be optional", any.GroupVersionKind)
	}
	untyped, err := dynamic.NewForConfigAndClient(dynamic.ConfigFor(c.config), c.http)
	if err != nil {
		return nil, err
	}
	return &resource{
		client:     c,
		dynamic:    untyped.Resource(any.GroupVersionKind.GroupVersion().WithResource(any.Resource)),
		gvk:        any.GroupVersionKind,
		plural:     any.Resource,
		namespaced: any.Namespaced,
		new:        any.New,
		newList:    any.NewList,
	}, nil
}

// untyped is the client of a custom resource.
func (r *resource) untyped(namespace string) dynamic.ResourceInterface {
	if r.namespaced && namespace != "" {
		return r.dynamic.Namespace(namespace)
	}
	return r.dynamic
}

func (r *resource) getUntyped(ctx context.Context, namespace, name string) (translate.Object, error) {
	out, err := r.untyped(namespace).Get(ctx, name, metav1.GetOptions{})
	return untypedOrNil(out), err
}

func (r *resource) createUntyped(ctx context.Context, object translate.Object) (translate.Object, error) {
	body, err := asUntyped(object)
	if err != nil {
		return nil, err
	}
	out, err := r.untyped(object.GetNamespace()).Create(ctx, body, metav1.CreateOptions{})
	return untypedOrNil(out), err
}

func (r *resource) updateUntyped(ctx context.Context, object translate.Object, subresource string) (translate.Object, error) {
	body, err := asUntyped(object)
	if err != nil {
		return nil, err
	}
	var subresources []string
	if subresource != "" {
		subresources = []string{subresource}
	}
	out, err := r.untyped(object.GetNamespace()).Update(ctx, body, metav1.UpdateOptions{}, subresources...)
	return untypedOrNil(out), err
}

func (r *resource) listUntyped(ctx context.Context, namespace string, o metav1.ListOptions) (runtime.Object, error) {
	return r.untyped(namespace).List(ctx, o)
}

func (r *resource) watchUntyped(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error) {
	return r.untyped(namespace).Watch(ctx, o)
}

func asUntyped(object translate.Object) (*unstructured.Unstructured, error) {
	untyped, ok := object.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("a custom resource is a %T", object)
	}
	return untyped, nil
}

// untypedOrNil gives the nil interface for a nil pointer.
func untypedOrNil(o *unstructured.Unstructured) translate.Object {
	if o == nil {
		return nil
	}
	return o
}
