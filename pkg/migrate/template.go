package migrate

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// template makes an empty Template of an object.
func (r *Result) template(from *unstructured.Unstructured, wanted, description string) *api.Template {
	template := &api.Template{
		TypeMeta:   metav1.TypeMeta{APIVersion: api.GroupVersion.String(), Kind: "Template"},
		ObjectMeta: metav1.ObjectMeta{Name: r.templateNames.give(from.GetKind(), wanted)},
		Spec:       api.TemplateSpec{Description: description},
	}
	r.Templates = append(r.Templates, template)
	r.noteName(from, templateKey(template), "template", wanted, template.Name)
	return template
}

// discard takes a template back that nothing came into.
func (r *Result) discard(template *api.Template) {
	r.Templates = slices.DeleteFunc(r.Templates, func(t *api.Template) bool { return t == template })
}

// applyTemplate refers a tenant to a template. A tenant refers to one only once.
func (r *Result) applyTemplate(about *unstructured.Unstructured, tenant *api.Tenant, ref api.TemplateRef) {
	switch {
	case slices.ContainsFunc(tenant.Spec.Templates, func(t api.TemplateRef) bool { return t.Name == ref.Name }):
		r.note(about, tenantKey(tenant), "the template %q applies to the tenant already, and a tenant has each template once: this further one is left out", ref.Name)
	case len(tenant.Spec.Templates) == maxTemplates:
		r.note(about, tenantKey(tenant), "the template %q is left out: a tenant has at most %d", ref.Name, maxTemplates)
	default:
		tenant.Spec.Templates = append(tenant.Spec.Templates, ref)
	}
}

// manifest is an object that is to become part of a template.
type manifest struct {
	about *unstructured.Unstructured
	// field says where in about it stands; empty when it is about itself.
	field   string
	content map[string]any
	// text rewrites each string in it; nil keeps it as it is.
	text func(string) string
}

// addManifest puts an object into a template, without what only the cluster that it
// came from knows of it. What a template cannot make is told instead.
func (r *Result) addManifest(template *api.Template, m manifest) error {
	object := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(m.content)}
	what := m.field
	if what == "" {
		what = "it"
	}
	if object.GetAPIVersion() == "" || object.GetKind() == "" {
		return fmt.Errorf("%s: %s is no object: it has no apiVersion and kind", describe(m.about), what)
	}
	if m.field != "" {
		what = fmt.Sprintf("%s (%s)", m.field, describe(object))
	}
	if reason := cannotMake(object); reason != "" {
		r.note(m.about, templateKey(template), "%s is not in the template: %s", what, reason)
		return nil
	}
	kept := map[string]any{}
	for _, field := range []string{"name", "generateName", "labels", "annotations"} {
		if value, found, _ := unstructured.NestedFieldNoCopy(object.Object, "metadata", field); found && says(value) {
			kept[field] = value
		}
	}
	if annotations, ok := kept["annotations"].(map[string]any); ok {
		// How it came where it was.
		maps.DeleteFunc(annotations, func(key string, _ any) bool {
			return key == "kubectl.kubernetes.io/last-applied-configuration" || strings.HasPrefix(key, hncPropagate)
		})
		if len(annotations) == 0 {
			delete(kept, "annotations")
		}
	}
	object.Object["metadata"] = kept
	delete(object.Object, "status")
	if m.text != nil {
		object.Object, _ = rewrite(object.Object, m.text).(map[string]any)
	}
	raw, err := json.Marshal(object.Object)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", describe(m.about), what, err)
	}
	template.Spec.Manifests = append(template.Spec.Manifests, runtime.RawExtension{Raw: raw})
	return nil
}

// cannotMake says why a template cannot make an object in a Namespace tenant:
// templates are applied with the rights of the tenant's admin, within the fence.
func cannotMake(object *unstructured.Unstructured) string {
	switch object.GetKind() {
	case "ResourceQuota":
		return "quotas are the fence's; set limits.quota of the tenant"
	case "LimitRange":
		return "the defaults of containers are the fence's; set limits.podDefaults of the tenant, and note that there are no other bounds on single pods"
	case "Secret":
		return "the content of a Secret does not belong into a template, which others may read; make it in each namespace, or let an operator bring it"
	case "Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "PersistentVolume", "StorageClass",
		"PriorityClass", "IngressClass", "RuntimeClass", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration",
		"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "APIService":
		return "it is of no namespace, and a template makes objects in the tenant's namespace only"
	case "NetworkPolicy":
		if opens(object) {
			return "it allows egress beyond the namespace's own pods, which a tenant's own NetworkPolicy may not; limits.network of the tenant does"
		}
	}
	return ""
}

// opens says whether a NetworkPolicy lets pods reach more than pods of its own
// namespace. What it is matches the admission policy sublet-network of the chart.
func opens(object *unstructured.Unstructured) bool {
	rules, _, _ := unstructured.NestedSlice(object.Object, "spec", "egress")
	return slices.ContainsFunc(rules, func(rule any) bool {
		fields, _ := rule.(map[string]any)
		peers, _ := fields["to"].([]any)
		return len(peers) == 0 || slices.ContainsFunc(peers, func(peer any) bool {
			fields, _ := peer.(map[string]any)
			_, pods := fields["podSelector"]
			_, namespaces := fields["namespaceSelector"]
			_, block := fields["ipBlock"]
			return !pods || namespaces || block
		})
	})
}

// rewrite changes each string of a tree that is not a key.
func rewrite(value any, text func(string) string) any {
	switch v := value.(type) {
	case string:
		return text(v)
	case []any:
		for i := range v {
			v[i] = rewrite(v[i], text)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			v[key] = rewrite(v[key], text)
		}
	}
	return value
}

// literal keeps text as it is where a template would see parameters in it.
func literal(text string) string { return strings.ReplaceAll(text, "${", "$${") }

// parameterName is what a parameter of a template may be named.
var parameterName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
