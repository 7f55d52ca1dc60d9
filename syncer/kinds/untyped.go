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

// untypedToHost is the host object of a virtual one with nothing but its
// metadata.
func untypedToHost(tenant translate.Tenant, virtual *unstructured.Unstructured, drop ...string) *unstructured.Unstructured {
	meta := tenant.HostMeta(virtual, drop...)
	host := &unstructured.Unstructured{Object: map[string]any{}}
	host.SetGroupVersionKind(virtual.GroupVersionKind())
	host.SetName(meta.Name)
	host.SetNamespace(meta.Namespace)
	host.SetLabels(meta.Labels)
	host.SetAnnotations(meta.Annotations)
	if len(meta.OwnerReferences) > 0 {
		host.SetOwnerReferences(meta.OwnerReferences)
	}
	return host
}

// untypedMergeSpec takes over all that is no metadata and no status.
func untypedMergeSpec(host, desired *unstructured.Unstructured) *unstructured.Unstructured {
	for name := range host.Object {
		if _, ok := desired.Object[name]; !ok && !reservedField(name) {
			delete(host.Object, name)
		}
	}
	for name, value := range desired.Object {
		if !reservedField(name) {
			host.Object[name] = value
		}
	}
	return host
}

// reservedField tells whether a field of an object is not what the tenant says.
func reservedField(name string) bool {
	return name == "apiVersion" || name == "kind" || name == "metadata" || name == "status"
}

// untypedConditions puts the conditions of a part of a status into the tenant's
// terms: generations and names. It changes its argument, which is a copy.
func untypedConditions(in translate.Input[*unstructured.Unstructured], part map[string]any) {
	conditions, _ := part["conditions"].([]any)
	for _, condition := range conditions {
		fields, ok := condition.(map[string]any)
		if !ok {
			continue
		}
		if message, ok := fields["message"].(string); ok {
			fields["message"] = in.Tenant.Rewrite(message, in.Names)
		}
		if observed, ok := fields["observedGeneration"].(int64); ok {
			fields["observedGeneration"] = virtualGeneration(in, observed)
		}
	}
}

// virtualGeneration is the virtual one for one that a controller of the host has
// observed: the present one if that was, else an earlier one.
func virtualGeneration(in translate.Input[*unstructured.Unstructured], observed int64) int64 {
	generation := in.Virtual.GetGeneration()
	if observed < in.Host.GetGeneration() && generation > 0 {
		return generation - 1
	}
	return generation
}
