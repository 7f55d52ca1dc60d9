package engine

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// TestResourceOf: how objects of a kind are read and written follows from what
// they are in memory, whatever else in the program has taught the scheme.
func TestResourceOf(t *testing.T) {
	c, err := newClient(&rest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	kind := translate.Any{GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Pod"), Resource: "pods", Optional: true}
	for want, newObject := range map[bool]func() translate.Object{
		false: func() translate.Object { return &corev1.Pod{} },
		true:  func() translate.Object { return &unstructured.Unstructured{} },
	} {
		kind.New = newObject
		r, err := c.resourceOf(kind)
		if err != nil {
			t.Fatal(err)
		}
		if untyped := r.dynamic != nil; untyped != want || (r.rest != nil) == want {
			t.Errorf("a %T is untyped: %v", newObject(), untyped)
		}
	}
	kind.New, kind.Optional = func() translate.Object { return &unstructured.Unstructured{} }, false
	if _, err := c.resourceOf(kind); err == nil {
		t.Error("a custom resource that must be there is taken")
	}
}
