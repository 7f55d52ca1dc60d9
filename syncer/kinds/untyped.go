package kinds

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// What follows is for kinds of which there is no Go type in Kubernetes' own
// modules. Each field that crosses is named in the kind's translation, so that
// one that is added later does not.

func newUntyped() *unstructured.Unstructured { return &unstructured.Unstructured{} }

func newUntypedList() translate.ObjectList { return &unstructured.UnstructuredList{} }

// untypedToVirtual is the virtual object of a host one with nothing but its
// name and our mark.
func untypedToVirtual(host *unstructured.Unstructured) *unstructured.Unstructured {
	meta := translate.VirtualMeta(host, func(string) bool { return false })
	virtual := &unstructured.Unstructured{Object: map[string]any{}}
	virtual.SetGroupVersionKind(host.GroupVersionKind())
	virtual.SetName(meta.Name)
	virtual.SetAnnotations(meta.Annotations)
	return virtual
}

// text is a field that holds text; it is empty where there is none.
func text(object *unstructured.Unstructured, path ...string) string {
	value, _, err := unstructured.NestedString(object.Object, path...)
	if err != nil {
		return ""
	}
	return value
}
