package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/controlplane"
	"github.com/sublet-dev/sublet/pkg/pki"
	"github.com/sublet-dev/sublet/pkg/virtualcluster"
)

func TestTemplates(t *testing.T) {
	ctrl.SetLogger(logr.Discard())
	h := startManagedHost(t)
	h.run("Inheritance", func(*testing.T) { testTemplateInheritance(h) })
	h.run("Drift", func(*testing.T) { testTemplateDrift(h) })
	h.run("Once", func(*testing.T) { testTemplateOnce(h) })
	h.run("Rollout", func(*testing.T) { testTemplateRollout(h) })
	h.run("Errors", func(*testing.T) { testTemplateErrors(h) })
	h.run("Escalation", func(*testing.T) { testTemplateEscalation(h) })
	h.run("BrokenTree", func(*testing.T) { testTemplateBrokenTree(h) })
	h.run("Docs", func(*testing.T) { testTemplateDocs(h) })
	h.run("Chart", func(*testing.T) { testTemplateChart(h) })
	h.run("VirtualCluster", func(*testing.T) { testTemplateVirtualCluster(h) })
}

// tmpl reads a Template.
func (h *managedHost) tmpl(name, spec string) *api.Template {
	h.t.Helper()
	made := &api.Template{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := yaml.UnmarshalStrict([]byte(spec), &made.Spec); err != nil {
		h.t.Fatal(err)
	}
	return made
}

// retemplate gives a Template another spec.
func (h *managedHost) retemplate(name, spec string) {
	h.t.Helper()
	h.eventually("change template "+name, func(ctx context.Context) error {
		current := &api.Template{}
		if err := h.client.Get(ctx, key(name), current); err != nil {
			return err
		}
		current.Spec = h.tmpl(name, spec).Spec
		return h.client.Update(ctx, current)
	})
}

func from(tenant *api.Tenant, refs ...api.TemplateRef) *api.Tenant {
	tenant.Spec.Templates = refs
	return tenant
}

func synced(name string, parameters ...string) api.TemplateRef {
	ref := api.TemplateRef{Name: name, Sync: true}
	for i := 0; i < len(parameters); i += 2 {
		if ref.Parameters == nil {
			ref.Parameters = map[string]string{}
		}
		ref.Parameters[parameters[i]] = parameters[i+1]
	}
	return ref
}

func once(name string) api.TemplateRef { return api.TemplateRef{Name: name} }

// templateIs waits until a template in a tenant has a state, and returns its entry.
func (h *managedHost) templateIs(tenant, name string, state api.TemplateState, reason string) api.AppliedTemplate {
	h.t.Helper()
	var found api.AppliedTemplate
	h.eventually(fmt.Sprintf("template %s in tenant %s is %s (%s)", name, tenant, state, reason), func(ctx context.Context) error {
		current := &api.Tenant{}
		if err := h.client.Get(ctx, key(tenant), current); err != nil {
			return err
		}
		i := slices.IndexFunc(current.Status.Templates, func(e api.AppliedTemplate) bool { return e.Name == name })
		if i < 0 {
			return fmt.Errorf("no entry; conditions are %+v", current.Status.Conditions)
		}
		if found = current.Status.Templates[i]; found.State != state || found.Reason != reason {
			return fmt.Errorf("it is %+v", found)
		}
		return nil
	})
	return found
}

// configMap waits until a ConfigMap has the given data.
func (h *managedHost) configMap(c client.Reader, namespace, name string, want map[string]string) {
	h.t.Helper()
	h.eventually("ConfigMap "+namespace+"/"+name, func(ctx context.Context) error {
		current := &corev1.ConfigMap{}
		if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, current); err != nil {
			return err
		}
		if diff := cmp.Diff(want, current.Data); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
}

func (h *managedHost) lacks(c client.Reader, object client.Object) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("%T %s is gone", object, object.GetName()), func(ctx context.Context) error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(object), object); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %v", err)
		}
		return nil
	})
}

func configMapIn(namespace, name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

func testTemplateInheritance(h *managedHost) {
	t := h.t
	h.create(h.tmpl("about", `
description: who is who
parameters:
- {name: color, default: blue}
manifests:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: about}
  data: {path: "${tenant.path}", admins: "${tenant.members.admin:string}", color: "${color}", team: "of ${tenant.parent}"}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: Role
  metadata: {name: reader}
  rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: RoleBinding
  metadata: {name: readers}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
  subjects: "${tenant.subjects.admin}"
`))
	h.create(from(folder("inc"), synced("about")))
	h.create(with(below("inc", folder("crew")), user("ann", api.RoleAdmin)))
	h.create(below("crew", namespaceTenant("site")))
	h.create(namespaceTenant("apart"))
	entry := h.templateIs("site", "about", api.TemplateApplied, "Applied")
	h.configMap(h.client, "site", "about", map[string]string{
		"path": "root/inc/crew/site", "admins": "ann", "color": "blue", "team": "of crew",
	})
	if len(entry.Objects) != 3 || entry.ObservedGeneration != 1 || entry.AppliedAt == nil || !entry.Sync || entry.Revision == "" {
		t.Errorf("the entry is %+v", entry)
	}
	if c := h.waitFor("site", api.ConditionTemplatesApplied, "Applied"); c.Status != metav1.ConditionTrue {
		t.Errorf("the condition is %+v", c)
	}
	binding := &rbacv1.RoleBinding{}
	if err := h.client.Get(t.Context(), client.ObjectKey{Namespace: "site", Name: "readers"}, binding); err != nil {
		t.Fatal(err)
	}
	if len(binding.Subjects) != 1 || binding.Subjects[0].Name != "ann" {
		t.Errorf("the subjects are %+v", binding.Subjects)
	}
	// A member that comes above counts below, in templates too.
	h.change("crew", func(s *api.TenantSpec) { s.Members = append(s.Members, user("bob", api.RoleAdmin)) })
	h.configMap(h.client, "site", "about", map[string]string{
		"path": "root/inc/crew/site", "admins": "ann,bob", "color": "blue", "team": "of crew",
	})
	// Whoever is moved away loses what he had from there, and nobody else has it.
	h.change("site", func(s *api.TenantSpec) { s.Parent = "" })
	h.lacks(h.client, configMapIn("site", "about"))
	h.eventually("no entry is left", func(ctx context.Context) error {
		if left := h.tenant("site").Status; len(left.Templates) > 0 || meta.FindStatusCondition(left.Conditions, api.ConditionTemplatesApplied) != nil {
			return fmt.Errorf("status is %+v", left)
		}
		return nil
	})
	h.lacks(h.client, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "site", Name: api.TemplateBinding}})
	if err := h.client.Get(t.Context(), client.ObjectKeyFromObject(configMapIn("apart", "about")), &corev1.ConfigMap{}); !apierrors.IsNotFound(err) {
		t.Errorf("a tenant elsewhere: %v", err)
	}
	h.remove("site", "apart", "crew", "inc")
}

const twoMaps = `
manifests:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: one, labels: {app: one}}, data: {k: v}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: two}, data: {k: v}}
`

func testTemplateDrift(h *managedHost) {
	t := h.t
	h.create(h.tmpl("kept", twoMaps))
	h.create(from(namespaceTenant("drifts"), synced("kept")))
	h.templateIs("drifts", "kept", api.TemplateApplied, "Applied")
	patch := func(name, content string) {
		t.Helper()
		if err := h.client.Patch(t.Context(), configMapIn("drifts", name), client.RawPatch("application/merge-patch+json", []byte(content))); err != nil {
			t.Fatal(err)
		}
	}
	patch("one", `{"data":{"k":"other"}}`)
	h.configMap(h.client, "drifts", "one", map[string]string{"k": "v"})
	// What the template does not say is the tenant's.
	patch("one", `{"data":{"more":"x"}}`)
	patch("one", `{"data":{"k":"other"},"metadata":{"labels":{"app":null}}}`)
	h.configMap(h.client, "drifts", "one", map[string]string{"k": "v", "more": "x"})
	if err := h.client.Delete(t.Context(), configMapIn("drifts", "one")); err != nil {
		t.Fatal(err)
	}
	h.configMap(h.client, "drifts", "one", map[string]string{"k": "v"})
	patch("two", `{"data":{"k":"other"},"metadata":{"labels":{"sublet.dev/template":null}}}`)
	h.configMap(h.client, "drifts", "two", map[string]string{"k": "v"})

	// What was changed while the manager was away is found when it is back.
	h.stop()
	patch("two", `{"data":{"k":"meanwhile"}}`)
	h.startManager()
	h.configMap(h.client, "drifts", "two", map[string]string{"k": "v"})

	// What the template does not have any more goes; what was made by somebody
	// else stays.
	h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "drifts", Name: "own"}, Data: map[string]string{"k": "own"}})
	h.retemplate("kept", `
manifests:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: one}, data: {k: w}}
`)
	h.lacks(h.client, configMapIn("drifts", "two"))
	h.configMap(h.client, "drifts", "one", map[string]string{"k": "w"})
	h.change("drifts", func(s *api.TenantSpec) { s.Templates = nil })
	h.lacks(h.client, configMapIn("drifts", "one"))
	h.configMap(h.client, "drifts", "own", map[string]string{"k": "own"})
	h.remove("drifts")
}

func testTemplateOnce(h *managedHost) {
	t := h.t
	h.create(h.tmpl("starter", twoMaps))
	h.create(from(namespaceTenant("begins"), once("starter")))
	first := h.templateIs("begins", "starter", api.TemplateApplied, "Applied")
	// From now on it is the tenant's.
	if err := h.client.Delete(t.Context(), configMapIn("begins", "two")); err != nil {
		t.Fatal(err)
	}
	if err := h.client.Patch(t.Context(), configMapIn("begins", "one"), client.RawPatch("application/merge-patch+json", []byte(`{"data":{"k":"mine"}}`))); err != nil {
		t.Fatal(err)
	}
	h.retemplate("starter", `
manifests:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: one}, data: {k: newer}}
`)
	// Whoever comes later gets what it is then; by that time the first would have
	// changed, too.
	h.create(from(namespaceTenant("later"), once("starter")))
	h.templateIs("later", "starter", api.TemplateApplied, "Applied")
	h.configMap(h.client, "later", "one", map[string]string{"k": "newer"})
	h.configMap(h.client, "begins", "one", map[string]string{"k": "mine"})
	if err := h.client.Get(t.Context(), client.ObjectKeyFromObject(configMapIn("begins", "two")), &corev1.ConfigMap{}); !apierrors.IsNotFound(err) {
		t.Errorf("what was deleted is back: %v", err)
	}
	again := h.templateIs("begins", "starter", api.TemplateApplied, "Applied")
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the entry changed (-want +got):\n%s", diff)
	}
	h.eventually("the template counts both", func(ctx context.Context) error {
		current := &api.Template{}
		if err := h.client.Get(ctx, key("starter"), current); err != nil {
			return err
		}
		if current.Status.Tenants != 2 || current.Status.Applied != 2 {
			return fmt.Errorf("status is %+v", current.Status)
		}
		return nil
	})
	// It stays when the template goes.
	h.change("begins", func(s *api.TenantSpec) { s.Templates = nil })
	h.eventually("no entry is left", func(context.Context) error {
		if left := h.tenant("begins").Status.Templates; len(left) > 0 {
			return fmt.Errorf("%+v", left)
		}
		return nil
	})
	h.configMap(h.client, "begins", "one", map[string]string{"k": "mine"})
	h.remove("begins", "later")
}

// rolledOut waits for the condition of a template.
func (h *managedHost) rolledOut(name, reason string, tenants, applied, failed int32) metav1.Condition {
	h.t.Helper()
	var found metav1.Condition
	h.eventually("roll-out of template "+name, func(ctx context.Context) error {
		current := &api.Template{}
		if err := h.client.Get(ctx, key(name), current); err != nil {
			return err
		}
		c := meta.FindStatusCondition(current.Status.Conditions, api.ConditionRolledOut)
		if c == nil || c.Reason != reason || c.ObservedGeneration != current.Generation ||
			current.Status.Tenants != tenants || current.Status.Applied != applied || current.Status.Failed != failed {
			return fmt.Errorf("status is %+v", current.Status)
		}
		found = *c
		return nil
	})
	return found
}

func testTemplateRollout(h *managedHost) {
	t := h.t
	withValue := func(value string) string {
		return fmt.Sprintf(`
parameters:
- {name: count, type: integer, default: "1"}
manifests:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: rolled}, data: {value: "%s", count: "${count:string}"}}
`, value)
	}
	h.create(h.tmpl("rolls", withValue("a")))
	h.rolledOut("rolls", "Unused", 0, 0, 0)
	h.create(from(folder("fleet"), synced("rolls")))
	names := []string{"ship-a", "ship-b", "ship-c"}
	for _, name := range names {
		h.create(below("fleet", namespaceTenant(name)))
	}
	if c := h.rolledOut("rolls", "RolledOut", 3, 3, 0); c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, "3 of 3") {
		t.Errorf("the condition is %+v", c)
	}
	h.retemplate("rolls", withValue("b"))
	h.rolledOut("rolls", "RolledOut", 3, 3, 0)
	for _, name := range names {
		h.configMap(h.client, name, "rolled", map[string]string{"value": "b", "count": "1"})
		if entry := h.templateIs(name, "rolls", api.TemplateApplied, "Applied"); entry.ObservedGeneration != 2 {
			t.Errorf("%s has generation %d", name, entry.ObservedGeneration)
		}
	}
	// One that cannot have it does not hold up the others.
	h.change("ship-b", func(s *api.TenantSpec) { s.Templates = []api.TemplateRef{synced("own")} })
	h.create(h.tmpl("own", `
manifests:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: taken}, data: {k: v}}
`))
	h.configMap(h.client, "ship-b", "taken", map[string]string{"k": "v"})
	h.retemplate("rolls", withValue("c")+`
- {apiVersion: v1, kind: ConfigMap, metadata: {name: taken}, data: {k: w}}
`)
	c := h.rolledOut("rolls", "Failed", 3, 2, 1)
	if c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, "ship-b") || !strings.Contains(c.Message, `template "own" made it`) {
		t.Errorf("the condition is %+v", c)
	}
	for _, name := range []string{"ship-a", "ship-c"} {
		h.configMap(h.client, name, "rolled", map[string]string{"value": "c", "count": "1"})
		h.configMap(h.client, name, "taken", map[string]string{"k": "w"})
	}
	h.configMap(h.client, "ship-b", "taken", map[string]string{"k": "v"})
	// It comes by itself when the way is free.
	h.change("ship-b", func(s *api.TenantSpec) { s.Templates = nil })
	h.rolledOut("rolls", "RolledOut", 3, 3, 0)
	h.configMap(h.client, "ship-b", "taken", map[string]string{"k": "w"})
	h.remove(append(names, "fleet")...)
	h.rolledOut("rolls", "Unused", 0, 0, 0)
}

func testTemplateErrors(h *managedHost) {
	t := h.t
	h.create(h.tmpl("needs", `
parameters:
- {name: replicas, type: integer, required: true, description: how many}
manifests:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: needs}, data: {replicas: "${replicas:string}"}}
`))
	h.create(h.tmpl("fine", twoMaps))
	h.create(h.tmpl("widgets", `
manifests:
- {apiVersion: example.com/v1, kind: Widget, metadata: {name: w}}
`))
	h.create(h.tmpl("refused", `
manifests:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: UPPER}, data: {k: v}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: typed}, data: {k: 3}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: unrefused}, data: {k: v}}
`))
	h.create(h.tmpl("wrong", `
manifests:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: {k: "${nobody}"}}
`))
	h.create(from(namespaceTenant("messy"), synced("needs"), synced("widgets"), synced("refused"), synced("absent"), synced("wrong"), synced("fine")))
	h.create(from(namespaceTenant("tidy"), synced("needs", "replicas", "2"), synced("fine")))
	says := func(name, reason string, parts ...string) {
		t.Helper()
		entry := h.templateIs("messy", name, api.TemplateFailed, reason)
		for _, part := range parts {
			if !strings.Contains(entry.Message, part) {
				t.Errorf("template %s: the message does not say %q: %s", name, part, entry.Message)
			}
		}
	}
	says("needs", "InvalidTemplate", `parameter "replicas" is required`, "how many")
	says("widgets", "UnknownKind", `"Widget"`, "install what brings it")
	says("refused", "Refused", `ConfigMap "UPPER"`, `ConfigMap "typed"`)
	says("absent", "NoSuchTemplate", `"messy"`, "create it")
	says("wrong", "InvalidTemplate", `parameter "nobody"`, "$${nobody}")
	// Whatever can be made is made, and nobody else is affected.
	h.templateIs("messy", "fine", api.TemplateApplied, "Applied")
	h.configMap(h.client, "messy", "two", map[string]string{"k": "v"})
	h.configMap(h.client, "messy", "unrefused", map[string]string{"k": "v"})
	h.configMap(h.client, "tidy", "needs", map[string]string{"replicas": "2"})
	if c := h.waitFor("messy", api.ConditionTemplatesApplied, "InvalidTemplate"); c.Status != metav1.ConditionFalse {
		t.Errorf("the condition is %+v", c)
	}
	h.waitForPhase("messy", api.PhaseReady)
	h.eventually("the template says that it is wrong", func(ctx context.Context) error {
		current := &api.Template{}
		if err := h.client.Get(ctx, key("wrong"), current); err != nil {
			return err
		}
		if !meta.IsStatusConditionFalse(current.Status.Conditions, api.ConditionValid) {
			return fmt.Errorf("conditions are %+v", current.Status.Conditions)
		}
		return nil
	})
	// Each mistake is corrected where it is.
	h.change("messy", func(s *api.TenantSpec) { s.Templates[0].Parameters = map[string]string{"replicas": "many"} })
	h.eventually("another message", func(context.Context) error {
		if entry := h.templateIs("messy", "needs", api.TemplateFailed, "InvalidTemplate"); !strings.Contains(entry.Message, `"many" is no whole number`) {
			return errors.New(entry.Message)
		}
		return nil
	})
	h.change("messy", func(s *api.TenantSpec) { s.Templates[0].Parameters = map[string]string{"replicas": "3"} })
	h.templateIs("messy", "needs", api.TemplateApplied, "Applied")
	h.create(h.tmpl("absent", `
manifests:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: present}, data: {k: v}}
`))
	h.templateIs("messy", "absent", api.TemplateApplied, "Applied")
	h.retemplate("wrong", `
manifests:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: {k: "$${nobody}"}}
`)
	h.configMap(h.client, "messy", "x", map[string]string{"k": "${nobody}"})
	// The kind comes, and the right to it.
	h.create(widgets())
	h.create(&rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "widgets", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-admin": "true"}},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"example.com"}, Resources: []string{"widgets"}, Verbs: []string{"*"}}},
	})
	h.templateIs("messy", "widgets", api.TemplateApplied, "Applied")
	// What somebody else made is not taken over, and once it is out of the way the
	// template's comes.
	h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "tidy", Name: "present"}, Data: map[string]string{"k": "mine"}})
	h.change("tidy", func(s *api.TenantSpec) { s.Templates = append(s.Templates, synced("absent")) })
	if entry := h.templateIs("tidy", "absent", api.TemplateFailed, "AlreadyExists"); !strings.Contains(entry.Message, "delete it") {
		t.Errorf("the message is %s", entry.Message)
	}
	h.configMap(h.client, "tidy", "present", map[string]string{"k": "mine"})
	if err := h.client.Delete(t.Context(), configMapIn("tidy", "present")); err != nil {
		t.Fatal(err)
	}
	h.templateIs("tidy", "absent", api.TemplateApplied, "Applied")
	// A template that goes while it is used takes nothing with it.
	if err := h.client.Delete(t.Context(), &api.Template{ObjectMeta: metav1.ObjectMeta{Name: "absent"}}); err != nil {
		t.Fatal(err)
	}
	h.templateIs("tidy", "absent", api.TemplateFailed, "NoSuchTemplate")
	h.configMap(h.client, "tidy", "present", map[string]string{"k": "v"})
	h.remove("messy", "tidy")
}

func widgets() *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	content := `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`
	if err := yaml.Unmarshal([]byte(content), &object.Object); err != nil {
		panic(err)
	}
	return object
}

// testTemplateEscalation tries to get by a template what an admin of the tenant
// cannot have.
func testTemplateEscalation(h *managedHost) {
	t := h.t
	h.create(with(namespaceTenant("climber"), user("eve", api.RoleAdmin), user("ed", api.RoleEdit)))
	h.create(namespaceTenant("victim"))
	h.waitForPhase("climber", api.PhaseReady)
	h.waitForPhase("victim", api.PhaseReady)
	binding := func(role string) string {
		return fmt.Sprintf(`{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: climb},
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %s}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: eve}]}`, role)
	}
	attacks := map[string]struct{ manifest, reason, says string }{
		"cluster-admin in the namespace": {binding("cluster-admin"), "Forbidden", "RoleBinding"},
		"the manager's own role":         {binding("sublet-manager"), "Forbidden", "RoleBinding"},
		"the role that empties it":       {binding("sublet-cleanup"), "Forbidden", "RoleBinding"},
		"a role of one's own":            {`{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: climb}, rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]}`, "Forbidden", "Role"},
		"the right to become others":     {`{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: climb}, rules: [{apiGroups: [""], resources: [users], verbs: [impersonate]}]}`, "Forbidden", "Role"},
		"a role in the whole cluster":    {`{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: climb}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}`, "InvalidTemplate", "whole cluster"},
		"a definition of a kind":         {`{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: climbs.example.com}}`, "InvalidTemplate", "whole cluster"},
		"a namespace of somebody else":   {`{apiVersion: v1, kind: ConfigMap, metadata: {name: climb, namespace: victim}}`, "InvalidTemplate", `"victim"`},
		"a namespace by a parameter":     {`{apiVersion: v1, kind: ConfigMap, metadata: {name: climb, namespace: "${where}"}}`, "InvalidTemplate", `"victim"`},
		"a part of the fence":            {`{apiVersion: v1, kind: ConfigMap, metadata: {name: climb, labels: {sublet.dev/component: fence}}}`, "InvalidTemplate", "Sublet's own"},
		"the fence itself":               {`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: sublet-deny}, spec: {podSelector: {}}}`, "AlreadyExists", "sublet-deny"},
		"the members' own binding":       {`{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: sublet-admin}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}`, "AlreadyExists", "sublet-admin"},
		"a wider network":                {`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: climb}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{}]}}`, "Forbidden", "NetworkPolicy"},
		"another quota":                  {`{apiVersion: v1, kind: ResourceQuota, metadata: {name: climb}, spec: {hard: {pods: "1000"}}}`, "Forbidden", "ResourceQuota"},
		"a Service that is not allowed":  {`{apiVersion: v1, kind: Service, metadata: {name: climb}, spec: {type: LoadBalancer, ports: [{port: 80}]}}`, "Forbidden", "LoadBalancer"},
		"a pod that is not allowed":      {`{apiVersion: v1, kind: Pod, metadata: {name: climb}, spec: {hostNetwork: true, containers: [{name: c, image: example.com/c}]}}`, "Forbidden", "host namespaces"},
	}
	for name, attack := range attacks {
		template := "climb-" + strings.Map(onlyLetters, name)
		h.create(h.tmpl(template, "parameters: [{name: where, default: victim}]\nmanifests:\n- "+attack.manifest+"\n"))
		h.change("climber", func(s *api.TenantSpec) { s.Templates = append(s.Templates, synced(template)) })
	}
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			entry := h.templateIs("climber", "climb-"+strings.Map(onlyLetters, name), api.TemplateFailed, attack.reason)
			if !strings.Contains(entry.Message, attack.says) {
				t.Errorf("the message does not say %q: %s", attack.says, entry.Message)
			}
		})
	}
	for _, list := range []client.ObjectList{
		&rbacv1.RoleList{}, &rbacv1.RoleBindingList{}, &rbacv1.ClusterRoleBindingList{}, &corev1.ConfigMapList{}, &corev1.ServiceList{}, &corev1.PodList{},
	} {
		if err := h.client.List(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			if object := item.(client.Object); object.GetName() == "climb" {
				t.Errorf("%T climb is there, in namespace %q", object, object.GetNamespace())
			}
		}
	}
	t.Run("control: what an admin of the tenant may do", func(t *testing.T) {
		h.create(h.tmpl("stays-inside", "manifests:\n- "+strings.ReplaceAll(binding("view"), "climb", "allowed")+`
- {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: allowed}, rules: [{apiGroups: [""], resources: [pods], verbs: [get, delete]}]}
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: allowed}, spec: {podSelector: {}, policyTypes: [Ingress], ingress: []}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: allowed, namespace: climber}}
`))
		h.change("climber", func(s *api.TenantSpec) { s.Templates = append(s.Templates, synced("stays-inside")) })
		h.templateIs("climber", "stays-inside", api.TemplateApplied, "Applied")
		// And that it is the template that is refused, not what it makes.
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(binding("cluster-admin")), &object.Object); err != nil {
			t.Fatal(err)
		}
		object.SetNamespace("climber")
		if err := h.as("platform", "system:masters").Create(t.Context(), object, client.DryRunAll); err != nil {
			t.Errorf("a platform admin: %v", err)
		}
	})
	t.Run("nobody gets at the account", func(t *testing.T) {
		account := "system:serviceaccount:" + api.SystemNamespace + ":" + api.TemplateAccountPrefix + "climber"
		if err := h.as(account).Get(t.Context(), client.ObjectKeyFromObject(configMapIn("climber", "allowed")), &corev1.ConfigMap{}); err != nil {
			t.Errorf("control: the account in its own namespace: %v", err)
		}
		for _, namespace := range []string{"victim", api.SystemNamespace, "default"} {
			if err := h.as(account).List(t.Context(), &corev1.ConfigMapList{}, client.InNamespace(namespace)); !apierrors.IsForbidden(err) {
				t.Errorf("the account in namespace %s: %v", namespace, err)
			}
		}
		for _, member := range []string{"eve", "ed"} {
			review := accessReview(member, api.SystemNamespace, "impersonate", "serviceaccounts", api.TemplateAccountPrefix+"climber")
			h.create(review)
			if review.Status.Allowed {
				t.Errorf("%s may become the account", member)
			}
		}
	})
	h.remove("climber", "victim")
}

// testTemplateBrokenTree holds that nothing is taken away, and nothing comes, while
// the way from the root is broken.
func testTemplateBrokenTree(h *managedHost) {
	h.create(h.tmpl("from-above", twoMaps))
	top := from(folder("lost"), synced("from-above"))
	top.Spec.DeletionPolicy = api.DeletionOrphan
	h.create(top)
	h.create(below("lost", namespaceTenant("orphan")))
	h.templateIs("orphan", "from-above", api.TemplateApplied, "Applied")
	if err := h.client.Delete(h.t.Context(), top); err != nil {
		h.t.Fatal(err)
	}
	h.eventually("the tree is broken", func(context.Context) error {
		if meta.IsStatusConditionTrue(h.tenant("orphan").Status.Conditions, api.ConditionPlaced) {
			return errors.New("not yet")
		}
		return nil
	})
	// Another tenant's roll-out shows that the controller is at work.
	h.create(from(namespaceTenant("whole"), synced("from-above")))
	h.retemplate("from-above", `
manifests:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: two}, data: {k: w}}
`)
	h.configMap(h.client, "whole", "two", map[string]string{"k": "w"})
	h.lacks(h.client, configMapIn("whole", "one"))
	h.configMap(h.client, "orphan", "one", map[string]string{"k": "v"})
	h.configMap(h.client, "orphan", "two", map[string]string{"k": "v"})
	// Back below the root, without the template, it goes.
	h.change("orphan", func(s *api.TenantSpec) { s.Parent = "" })
	h.lacks(h.client, configMapIn("orphan", "two"))
	h.remove("orphan", "whole")
}

// plane starts the control plane of a tenant as its pod would, and returns a
// client of its API.
func (h *managedHost) plane(tenant string) client.Client {
	h.t.Helper()
	keys := &corev1.Secret{}
	h.eventually("the keys of "+tenant, func(ctx context.Context) error {
		return h.client.Get(ctx, client.ObjectKey{Namespace: tenant, Name: api.PKISecretName}, keys)
	})
	bundle, err := pki.BundleFromData(keys.Data)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	plane, err := controlplane.Start(ctx, controlplane.Options{
		Name: tenant, DataDir: filepath.Join(h.t.TempDir(), "data"), PKI: bundle, ServiceCIDRs: []string{"10.97.0.0/16"},
		ServerNames: []string{fmt.Sprintf("%s.%s.svc", api.ControlPlaneName, tenant)},
	})
	if err != nil {
		cancel()
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		cancel()
		if err := plane.Wait(); err != nil {
			h.t.Errorf("stopping the tenant: %v", err)
		}
	})
	h.planes.Store(virtualcluster.Endpoint(tenant), strings.TrimPrefix(plane.URL(), "https://"))
	h.pod(tenant)
	h.play(tenant, running)
	c, err := client.New(plane.Config(), client.Options{Scheme: h.scheme})
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func accessReview(user, namespace, verb, resource, name string) *authorizationv1.SubjectAccessReview {
	return &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user, Groups: []string{"system:authenticated"},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Resource: resource, Name: name},
	}}
}

func testTemplateVirtualCluster(h *managedHost) {
	t := h.t
	h.create(h.tmpl("platform", `
namespace: tools
manifests:
- {apiVersion: example.com/v1, kind: Gadget, metadata: {name: g}, spec: {tenant: "${tenant.name}"}}
- apiVersion: apiextensions.k8s.io/v1
  kind: CustomResourceDefinition
  metadata: {name: gadgets.example.com}
  spec:
    group: example.com
    scope: Namespaced
    names: {kind: Gadget, plural: gadgets, singular: gadget, listKind: GadgetList}
    versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: about, namespace: default}, data: {path: "${tenant.path}"}}
- {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: everything}, rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]}
`))
	h.create(from(folder("labs"), synced("platform")))
	h.create(below("labs", virtualCluster("lab")))
	if entry := h.templateIs("lab", "platform", api.TemplateWaiting, "TenantNotReady"); entry.AppliedAt != nil {
		t.Errorf("the entry is %+v", entry)
	}
	inside := h.plane("lab")
	h.templateIs("lab", "platform", api.TemplateApplied, "Applied")
	h.configMap(inside, "default", "about", map[string]string{"path": "root/labs/lab"})
	gadget := &unstructured.Unstructured{}
	gadget.SetGroupVersionKind(schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Gadget"})
	if err := inside.Get(t.Context(), client.ObjectKey{Namespace: "tools", Name: "g"}, gadget); err != nil {
		t.Error(err)
	}
	// The host has nothing of it.
	if err := h.client.Get(t.Context(), client.ObjectKeyFromObject(configMapIn("lab", "about")), &corev1.ConfigMap{}); !apierrors.IsNotFound(err) {
		t.Errorf("on the host: %v", err)
	}
	if err := inside.Delete(t.Context(), configMapIn("default", "about")); err != nil {
		t.Fatal(err)
	}
	h.configMap(inside, "default", "about", map[string]string{"path": "root/labs/lab"})
	if err := inside.Delete(t.Context(), gadget); err != nil {
		t.Fatal(err)
	}
	h.eventually("the gadget is back", func(ctx context.Context) error {
		return inside.Get(ctx, client.ObjectKey{Namespace: "tools", Name: "g"}, gadget)
	})
	h.retemplate("platform", `
manifests:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: about}, data: {path: "now ${tenant.path}"}}
`)
	h.configMap(inside, "default", "about", map[string]string{"path": "now root/labs/lab"})
	h.lacks(inside, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "everything"}})
	// The namespace may hold more by now.
	if err := inside.Get(t.Context(), key("tools"), &corev1.Namespace{}); err != nil {
		t.Error(err)
	}
	h.remove("lab", "labs")
}

// testTemplateDocs makes what the page about templates shows.
func testTemplateDocs(h *managedHost) {
	t := h.t
	page, err := os.ReadFile("../../docs/templates.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(page), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	documents := strings.Split(example, "\n---\n")
	if len(documents) != 3 {
		t.Fatalf("%d objects in the example", len(documents))
	}
	for _, document := range documents {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
			t.Fatal(err)
		}
		h.create(object)
	}
	h.templateIs("bakery", "web", api.TemplateApplied, "Applied")
	h.configMap(h.client, "bakery", "settings", map[string]string{
		"host": "bakery.example.com", "zones": "a,b", "owners": "ann@example.com", "where": "this is root/customers/bakery", "script": `cd "${HOME}"`,
	})
	deployment := &appsv1.Deployment{}
	if err := h.client.Get(t.Context(), client.ObjectKey{Namespace: "bakery", Name: "web"}, deployment); err != nil {
		t.Fatal(err)
	}
	if *deployment.Spec.Replicas != 2 {
		t.Errorf("%d replicas", *deployment.Spec.Replicas)
	}
	// A status is nobody's drift, but another number is.
	before := deployment.DeepCopy()
	deployment.Spec.Replicas = new(int32(5))
	if err := h.client.Patch(t.Context(), deployment, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	h.eventually("the number of replicas is back", func(ctx context.Context) error {
		if err := h.client.Get(ctx, client.ObjectKeyFromObject(deployment), deployment); err != nil {
			return err
		}
		if *deployment.Spec.Replicas != 2 {
			return fmt.Errorf("%d replicas", *deployment.Spec.Replicas)
		}
		return nil
	})
	binding := &rbacv1.RoleBinding{}
	if err := h.client.Get(t.Context(), client.ObjectKey{Namespace: "bakery", Name: "everybody-views"}, binding); err != nil {
		t.Fatal(err)
	}
	if len(binding.Subjects) != 1 || binding.Subjects[0].Name != "ann@example.com" {
		t.Errorf("the subjects are %+v", binding.Subjects)
	}
	h.remove("bakery", "customers")
}

// chart writes one into the manager's folder of charts.
func (h *managedHost) chart(name string, templates map[string]string) {
	h.t.Helper()
	files := map[string]string{"Chart.yaml": "apiVersion: v2\nname: " + name + "\nversion: 1.0.0\n", "values.yaml": "color: blue\n"}
	for file, content := range templates {
		files["templates/"+file] = content
	}
	for file, content := range files {
		path := filepath.Join(h.charts, name, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			h.t.Fatal(err)
		}
	}
}

// hookEnds plays the kubelet for a hook's pod.
func (h *managedHost) hookEnds(namespace, name string, phase corev1.PodPhase, not types.UID) types.UID {
	h.t.Helper()
	pod := &corev1.Pod{}
	h.eventually("the hook "+name+" ends", func(ctx context.Context) error {
		pod = &corev1.Pod{}
		if err := h.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, pod); err != nil {
			return err
		}
		if pod.UID == not || pod.DeletionTimestamp != nil {
			return errors.New("it is the one of before")
		}
		pod.Status.Phase = phase
		return h.client.Status().Update(ctx, pod)
	})
	return pod.UID
}

func testTemplateChart(h *managedHost) {
	t := h.t
	hook := func(name, at, policy string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, annotations: {helm.sh/hook: "%s", helm.sh/hook-delete-policy: "%s"}}
spec: {restartPolicy: Never, containers: [{name: c, image: example.com/hook:1}]}
`, name, at, policy)
	}
	h.chart("site", map[string]string{
		"config.yaml": `
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}-config, annotations: {helm.sh/resource-policy: {{ .Values.keep | quote }}}}
data: {color: {{ .Values.color }}, namespace: {{ .Release.Namespace }}, apps: "{{ .Capabilities.APIVersions.Has "apps/v1/Deployment" }}"}
`,
		"before.yaml": hook("prepare", "pre-install,pre-upgrade", "before-hook-creation"),
		"after.yaml":  hook("announce", "post-install", "hook-succeeded"),
	})
	h.create(h.tmpl("site", `
parameters:
- {name: color}
chart: {path: site, values: {color: "${color}", keep: "no"}}
`))
	h.create(from(namespaceTenant("charted"), synced("site", "color", "red")))
	waits := func(hook string) {
		t.Helper()
		h.eventually("it waits for "+hook, func(context.Context) error {
			if entry := h.templateIs("charted", "site", api.TemplateApplying, "Applying"); !strings.Contains(entry.Message, `Pod "`+hook+`"`) {
				return errors.New(entry.Message)
			}
			return nil
		})
	}
	waits("prepare")
	if err := h.client.Get(t.Context(), client.ObjectKeyFromObject(configMapIn("charted", "site-config")), &corev1.ConfigMap{}); !apierrors.IsNotFound(err) {
		t.Errorf("what comes after the hook: %v", err)
	}
	first := h.hookEnds("charted", "prepare", corev1.PodSucceeded, "")
	waits("announce")
	h.hookEnds("charted", "announce", corev1.PodSucceeded, "")
	entry := h.templateIs("charted", "site", api.TemplateApplied, "Applied")
	if entry.Chart != "site-1.0.0" || len(entry.Objects) != 1 {
		t.Errorf("the entry is %+v", entry)
	}
	h.configMap(h.client, "charted", "site-config", map[string]string{"color": "red", "namespace": "charted", "apps": "true"})
	h.lacks(h.client, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "charted", Name: "announce"}})

	// Drift is no upgrade: no hook runs.
	if err := h.client.Delete(t.Context(), configMapIn("charted", "site-config")); err != nil {
		t.Fatal(err)
	}
	h.configMap(h.client, "charted", "site-config", map[string]string{"color": "red", "namespace": "charted", "apps": "true"})
	if pod := h.podNamed("charted", "prepare"); pod.UID != first {
		t.Error("the hook ran once more")
	}
	// An upgrade runs its hooks, and one that fails holds it up.
	h.change("charted", func(s *api.TenantSpec) { s.Templates = []api.TemplateRef{synced("site", "color", "green")} })
	second := h.hookEnds("charted", "prepare", corev1.PodFailed, first)
	if entry := h.templateIs("charted", "site", api.TemplateFailed, "HookFailed"); !strings.Contains(entry.Message, "prepare") {
		t.Errorf("the message is %s", entry.Message)
	}
	h.configMap(h.client, "charted", "site-config", map[string]string{"color": "red", "namespace": "charted", "apps": "true"})
	if err := h.client.Delete(t.Context(), h.podNamed("charted", "prepare"), client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	h.hookEnds("charted", "prepare", corev1.PodSucceeded, second)
	h.templateIs("charted", "site", api.TemplateApplied, "Applied")
	h.configMap(h.client, "charted", "site-config", map[string]string{"color": "green", "namespace": "charted", "apps": "true"})

	// A value cannot become more than a value.
	h.change("charted", func(s *api.TenantSpec) {
		s.Templates = []api.TemplateRef{synced("site", "color", "x}\n---\n{apiVersion: v1, kind: Secret, metadata: {name: climb}")}
	})
	if entry := h.templateIs("charted", "site", api.TemplateFailed, "InvalidTemplate"); !strings.Contains(entry.Message, `parameter "color"`) {
		t.Errorf("the message is %s", entry.Message)
	}
	if err := h.client.Get(t.Context(), client.ObjectKey{Namespace: "charted", Name: "climb"}, &corev1.Secret{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Secret: %v", err)
	}
	// Nor does what a chart makes have more rights than what a manifest does.
	h.chart("climbs", map[string]string{"role.yaml": "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: climb}\nrules: [{apiGroups: ['*'], resources: ['*'], verbs: ['*']}]\n"})
	h.create(h.tmpl("climbs", "chart: {path: climbs}"))
	h.chart("random", map[string]string{"c.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: random}\ndata: {password: {{ randAlphaNum 10 | quote }}}\n"})
	h.create(h.tmpl("random", "chart: {path: random}"))
	h.create(h.tmpl("gone", "chart: {configMap: {name: my-chart}}"))
	h.change("charted", func(s *api.TenantSpec) {
		s.Templates = []api.TemplateRef{synced("climbs"), synced("random"), synced("gone")}
	})
	h.lacks(h.client, configMapIn("charted", "site-config"))
	h.templateIs("charted", "climbs", api.TemplateFailed, "Forbidden")
	if entry := h.templateIs("charted", "random", api.TemplateFailed, "InvalidTemplate"); !strings.Contains(entry.Message, `ConfigMap "random" differently each time`) {
		t.Errorf("the message is %s", entry.Message)
	}
	if entry := h.templateIs("charted", "gone", api.TemplateFailed, "ChartNotFound"); !strings.Contains(entry.Message, "kubectl create configmap my-chart") {
		t.Errorf("the message is %s", entry.Message)
	}
	// Once is often enough for a password.
	h.change("charted", func(s *api.TenantSpec) { s.Templates = []api.TemplateRef{once("random"), synced("gone")} })
	h.templateIs("charted", "random", api.TemplateApplied, "Applied")
	loaded, err := loader.LoadDir(filepath.Join(h.charts, "climbs"))
	if err != nil {
		t.Fatal(err)
	}
	loaded.Templates[0].Data = []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-archive}\ndata: {k: v}\n")
	file, err := chartutil.Save(loaded, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	h.create(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: api.SystemNamespace, Name: "my-chart"}, BinaryData: map[string][]byte{"chart.tgz": content},
	})
	h.templateIs("charted", "gone", api.TemplateApplied, "Applied")
	h.configMap(h.client, "charted", "from-archive", map[string]string{"k": "v"})
	h.remove("charted")
}

func (h *managedHost) podNamed(namespace, name string) *corev1.Pod {
	h.t.Helper()
	pod := &corev1.Pod{}
	if err := h.client.Get(h.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, pod); err != nil {
		h.t.Fatal(err)
	}
	return pod
}
