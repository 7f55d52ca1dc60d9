package translate

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// DefinitionKind is what custom resources are defined by.
func DefinitionKind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}
}

// approval stands on definitions of groups that belong to Kubernetes.
const approval = "api-approved.kubernetes.io"

// Definition is the tenant's copy of the host's definition of a kind: the one
// version, without conversion, as nobody in the tenant could convert.
func Definition(host *unstructured.Unstructured, kind Any) (*unstructured.Unstructured, error) {
	gvk := kind.GroupVersionKind
	spec, _, err := unstructured.NestedMap(host.Object, "spec")
	if err != nil {
		return nil, fmt.Errorf("the host's definition %q: %w", host.GetName(), err)
	}
	if have, _, _ := unstructured.NestedString(spec, "names", "kind"); have != gvk.Kind {
		return nil, fmt.Errorf("the host calls the kind of %s %q, and the limits of the tenant %q", host.GetName(), have, gvk.Kind)
	}
	if scope, _, _ := unstructured.NestedString(spec, "scope"); scope != "Namespaced" {
		return nil, fmt.Errorf("%s has no namespaces on the host: only kinds with namespaces can cross", host.GetName())
	}
	versions, _, _ := unstructured.NestedSlice(spec, "versions")
	var served []string
	var version map[string]any
	for _, v := range versions {
		fields, ok := v.(map[string]any)
		if is, _, _ := unstructured.NestedBool(fields, "served"); !ok || !is {
			continue
		}
		name, _, _ := unstructured.NestedString(fields, "name")
		served = append(served, name)
		if name == gvk.Version {
			version = fields
		}
	}
	if version == nil {
		slices.Sort(served)
		return nil, fmt.Errorf("the host serves %s in the versions %s, and not in %s as the limits of the tenant say", host.GetName(), strings.Join(served, ", "), gvk.Version)
	}
	version["storage"] = true
	delete(version, "deprecated")
	delete(version, "deprecationWarning")
	copied := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
		"group": spec["group"], "names": spec["names"], "scope": spec["scope"],
		"versions":   []any{version},
		"conversion": map[string]any{"strategy": "None"},
	}}}
	copied.SetGroupVersionKind(DefinitionKind())
	copied.SetName(host.GetName())
	copied.SetAnnotations(map[string]string{api.AnnotationFromHost: "true"})
	if value := host.GetAnnotations()[approval]; value != "" {
		copied.SetAnnotations(map[string]string{api.AnnotationFromHost: "true", approval: value})
	}
	return copied, nil
}

// HasStatus tells whether the one version of a copied definition has a status
// that is written apart.
func HasStatus(definition *unstructured.Unstructured) bool {
	versions, _, _ := unstructured.NestedSlice(definition.Object, "spec", "versions")
	if len(versions) == 0 {
		return false
	}
	version, _ := versions[0].(map[string]any)
	_, found, _ := unstructured.NestedMap(version, "subresources", "status")
	return found
}
