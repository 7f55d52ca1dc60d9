package template

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/helm"
	"github.com/sublet-dev/sublet/pkg/template"
)

// Charts finds charts and renders them.
type Charts interface {
	Render(ctx context.Context, spec *api.TemplateChart, values map[string]any, release helm.Release) (helm.Rendered, error)
}

// plan is what a template makes in one tenant.
type plan struct {
	objects  []*unstructured.Unstructured
	hooks    []helm.Hook
	revision string
	// makesNamespace, in a virtual cluster, is made first if there is none. It does
	// not go with the template: there may be more in it by then.
	makesNamespace string
	// chart is its name and version; empty without one.
	chart string
}

// plan fills a template in for a tenant.
func (r *Reconciler) plan(ctx context.Context, t *target, tenant *api.Tenant, tmpl *api.Template, ref *api.EffectiveTemplate) (*plan, *problem) {
	if errs := template.Validate(tmpl); len(errs) > 0 {
		return nil, &problem{reasonInvalid, fmt.Sprintf("template %q: %s", tmpl.Name, errs.ToAggregate()), true}
	}
	in := template.Input{Template: tmpl, Parameters: ref.Parameters, Tenant: template.TenantOf(tenant)}
	objects, err := template.Manifests(in)
	if err != nil {
		return nil, &problem{reasonInvalid, err.Error(), true}
	}
	p := &plan{objects: objects}
	place := t.place
	if tmpl.Spec.Namespace != "" && !place.Only {
		place.Namespace = tmpl.Spec.Namespace
	}
	if tmpl.Spec.Chart != nil {
		if trouble := r.addChart(ctx, p, in, t, place.Namespace); trouble != nil {
			return nil, trouble
		}
	}
	place.Namespaced = func(kind schema.GroupVersionKind) (bool, error) {
		namespaced, err := t.place.Namespaced(kind)
		var unknown *template.UnknownKind
		if errors.As(err, &unknown) {
			t.definitions.await(ctx, tenant.Name, kind.Group)
		}
		return namespaced, err
	}
	if trouble := p.put(tmpl.Name, place); trouble != nil {
		return nil, trouble
	}
	content := make([]any, 0, len(p.objects)+len(p.hooks))
	for _, object := range p.objects {
		content = append(content, object.Object)
	}
	for _, hook := range p.hooks {
		content = append(content, hook.Object.Object)
	}
	if p.revision, err = template.Revision(content...); err != nil {
		return nil, &problem{reasonError, err.Error(), true}
	}
	if !place.Only && place.Namespace != metav1.NamespaceDefault {
		p.makesNamespace = place.Namespace
	}
	return p, nil
}

// sameAgain refuses to keep in force what comes out differently each time, as a
// chart's that makes up passwords: it would be changed for ever.
func (r *Reconciler) sameAgain(ctx context.Context, t *target, tenant *api.Tenant, tmpl *api.Template, ref *api.EffectiveTemplate, entry *api.AppliedTemplate, p *plan) *problem {
	if tmpl.Spec.Chart == nil || !ref.Sync || p.revision == entry.Revision {
		return nil
	}
	once, trouble := r.plan(ctx, t, tenant, tmpl, ref)
	if trouble != nil || once.revision == p.revision {
		return trouble
	}
	what := "it"
	for i := range min(len(p.objects), len(once.objects)) {
		if !equality.Semantic.DeepEqual(p.objects[i].Object, once.objects[i].Object) {
			what = template.Name(p.objects[i])
			break
		}
	}
	return &problem{reasonInvalid, fmt.Sprintf("template %q: chart %s makes %s differently each time, so it cannot be kept in force: "+
		"give what it makes up as values, or refer to the template without sync", tmpl.Name, p.chart, what), true}
}

func (r *Reconciler) addChart(ctx context.Context, p *plan, in template.Input, t *target, namespace string) *problem {
	values, err := template.ChartValues(in)
	if err != nil {
		return &problem{reasonInvalid, err.Error(), true}
	}
	release := helm.Release{Name: in.Template.Spec.Chart.ReleaseName, Namespace: namespace}
	if release.Name == "" {
		release.Name = in.Template.Name
	}
	if release.KubeVersion, release.APIVersions, err = t.capabilities(); err != nil {
		return &problem{reasonUnreachable, fmt.Sprintf("template %q: find out what the API has: %s", in.Template.Name, err), false}
	}
	rendered, err := r.Charts.Render(ctx, in.Template.Spec.Chart, values, release)
	var missing *helm.NotFound
	switch {
	case errors.As(err, &missing):
		return &problem{reasonChart, fmt.Sprintf("template %q: %s", in.Template.Name, err), false}
	case err != nil:
		return &problem{reasonInvalid, fmt.Sprintf("template %q: %s", in.Template.Name, err), false}
	}
	p.objects, p.hooks, p.chart = append(p.objects, rendered.Objects...), rendered.Hooks, rendered.Chart
	return nil
}

// put puts all of a plan in its place.
func (p *plan) put(name string, place template.Place) *problem {
	serves := place.Namespaced
	place.Namespaced = func(kind schema.GroupVersionKind) (bool, error) {
		if namespaced, defined := p.scope(kind.GroupKind()); defined {
			return namespaced, nil
		}
		return serves(kind)
	}
	for _, objects := range [][]*unstructured.Unstructured{p.objects, hookObjects(p.hooks)} {
		err := place.Into(name, objects)
		var unknown *template.UnknownKind
		switch {
		case errors.As(err, &unknown):
			return &problem{reasonUnknownKind, err.Error(), false}
		case err == nil:
		case errors.Is(err, errDiscovery):
			return &problem{reasonUnreachable, err.Error(), false}
		default:
			return &problem{reasonInvalid, err.Error(), true}
		}
	}
	template.Sort(p.objects)
	return nil
}

// scope says whether a kind that the plan itself defines is namespaced.
func (p *plan) scope(kind schema.GroupKind) (namespaced, defined bool) {
	for _, object := range p.objects {
		if object.GetKind() != "CustomResourceDefinition" {
			continue
		}
		group, _, _ := unstructured.NestedString(object.Object, "spec", "group")
		named, _, _ := unstructured.NestedString(object.Object, "spec", "names", "kind")
		if group == kind.Group && named == kind.Kind {
			scope, _, _ := unstructured.NestedString(object.Object, "spec", "scope")
			return scope == "Namespaced", true
		}
	}
	return false, false
}

func (p *plan) defines(kind schema.GroupKind) bool {
	_, defined := p.scope(kind)
	return defined
}

// identities are those of the objects. Hooks are not among them: they go as the
// chart says.
func (p *plan) identities() []api.TemplateObject {
	ids := make([]api.TemplateObject, 0, len(p.objects))
	for _, object := range p.objects {
		ids = append(ids, template.Identity(object))
	}
	return slices.Clip(ids)
}

func hookObjects(hooks []helm.Hook) []*unstructured.Unstructured {
	objects := make([]*unstructured.Unstructured, 0, len(hooks))
	for _, hook := range hooks {
		objects = append(objects, hook.Object)
	}
	return objects
}
