package template

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apipath "k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// Place is where the objects of a template go.
type Place struct {
	// Namespace of what names none.
	Namespace string
	// Only says that there is no other: a Namespace tenant on the host.
	Only bool
	// Namespaced says whether a kind is; an error when there is no such kind.
	Namespaced func(schema.GroupVersionKind) (bool, error)
}

// Into puts objects in their place and marks them as the template's. Everything
// wrong with them is named at once; a kind that there is not is an error of its
// own, *UnknownKind, since it may come.
func (p Place) Into(template string, objects []*unstructured.Unstructured) error {
	var problems []string
	var missing *UnknownKind
	seen := map[api.TemplateObject]bool{}
	for _, object := range objects {
		namespaced, err := p.Namespaced(object.GroupVersionKind())
		var unknown *UnknownKind
		if errors.As(err, &unknown) {
			missing = cmp.Or(missing, unknown)
			continue
		}
		if err != nil {
			return err
		}
		if problem := p.put(object, namespaced); problem != "" {
			problems = append(problems, fmt.Sprintf("%s: %s", Name(object), problem))
			continue
		}
		if id := Identity(object); seen[id] {
			problems = append(problems, fmt.Sprintf("%s is there twice: a template makes each object once", Name(object)))
		} else {
			seen[id] = true
		}
		labels := maps.Clone(object.GetLabels())
		if labels == nil {
			labels = map[string]string{}
		}
		labels[api.LabelTemplate] = template
		object.SetLabels(labels)
	}
	if len(problems) > 0 {
		return fmt.Errorf("template %q: %s", template, strings.Join(problems, "; "))
	}
	if missing != nil {
		return fmt.Errorf("template %q: %w", template, missing)
	}
	return nil
}

// put sets the namespace, and says what is wrong with an object.
func (p Place) put(object *unstructured.Unstructured, namespaced bool) string {
	if object.GetName() == "" {
		return "metadata.name is missing: what a template makes has a name"
	}
	if messages := apipath.IsValidPathSegmentName(object.GetName()); len(messages) > 0 {
		return fmt.Sprintf("metadata.name %q %s", object.GetName(), messages[0])
	}
	for _, keys := range []map[string]string{object.GetLabels(), object.GetAnnotations()} {
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			if strings.HasPrefix(key, api.Prefix) {
				return fmt.Sprintf("labels and annotations under %s are Sublet's own: take %q out", api.Prefix, key)
			}
		}
	}
	for _, field := range []string{"ownerReferences", "generateName", "managedFields", "resourceVersion", "uid"} {
		if _, there, _ := unstructured.NestedFieldNoCopy(object.Object, "metadata", field); there {
			return fmt.Sprintf("metadata.%s cannot be in a template: take it out", field)
		}
	}
	unstructured.RemoveNestedField(object.Object, "metadata", "creationTimestamp")
	delete(object.Object, "status")
	switch {
	case !namespaced && p.Only:
		return "it belongs to the whole cluster, and in a Namespace tenant a template makes objects of namespaces only: " +
			"take it out, or use a VirtualCluster tenant"
	case !namespaced:
		object.SetNamespace("")
	case object.GetNamespace() == "":
		object.SetNamespace(p.Namespace)
	case p.Only && object.GetNamespace() != p.Namespace:
		return fmt.Sprintf("it is meant for namespace %q, and the tenant has %q: leave metadata.namespace out", object.GetNamespace(), p.Namespace)
	}
	return ""
}

// UnknownKind is a kind that an API does not serve.
type UnknownKind struct {
	Kind schema.GroupVersionKind
}

func (u *UnknownKind) Error() string {
	return fmt.Sprintf("there is no kind %q in %q here: install what brings it, or take it out of the template", u.Kind.Kind, u.Kind.GroupVersion())
}

// Identity says which object it is.
func Identity(object *unstructured.Unstructured) api.TemplateObject {
	return api.TemplateObject{
		APIVersion: object.GetAPIVersion(), Kind: object.GetKind(), Namespace: object.GetNamespace(), Name: object.GetName(),
	}
}

// Name is an object in words.
func Name(object *unstructured.Unstructured) string {
	return fmt.Sprintf("%s %q", object.GetKind(), object.GetName())
}

// Sort puts first what others need: namespaces, definitions of kinds, and what
// pods refer to. Else the order stays.
func Sort(objects []*unstructured.Unstructured) {
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int {
		return cmp.Compare(rank(a.GetKind()), rank(b.GetKind()))
	})
}

func rank(kind string) int {
	switch kind {
	case "Namespace":
		return 0
	case "CustomResourceDefinition":
		return 1
	case "ServiceAccount", "Role", "ClusterRole", "PriorityClass", "StorageClass", "LimitRange":
		return 2
	case "RoleBinding", "ClusterRoleBinding", "Secret", "ConfigMap", "PersistentVolumeClaim", "Service":
		return 3
	case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService":
		return 5
	}
	return 4
}
