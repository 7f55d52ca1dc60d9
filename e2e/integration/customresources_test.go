package integration

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// customResourceValues are those of the chart: the kinds that tenants may be given.
func customResourceValues() map[string]any {
	return map[string]any{"customResources": []any{map[string]any{"group": "crossing.example.com", "resources": []any{"things"}}}}
}

// testCustomResources: a syncer gets its rights on the custom resources of the
// limits, on these and nothing else, and loses them again with what it made.
func testCustomResources(h *managedHost) {
	t := h.t
	things := api.CustomResource{Group: "crossing.example.com", Version: "v1", Kind: "Thing", Resource: "things"}
	tenant := &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "crossing"}, Spec: api.TenantSpec{
		Type:           api.VirtualCluster,
		VirtualCluster: &api.VirtualClusterSpec{Storage: &api.StorageSpec{Type: api.StorageEmptyDir}},
		Limits:         &api.Limits{CustomResources: []api.CustomResource{things}},
	}}
	h.create(tenant)
	h.play("crossing", running)
	h.waitForPhase("crossing", api.PhaseReady)
	// says waits until the condition about what is not applied says something; the
	// empty text is that all is.
	says := func(text string) {
		t.Helper()
		h.eventually("the tenant says: "+text, func(ctx context.Context) error {
			c := meta.FindStatusCondition(h.tenant("crossing").Status.Conditions, api.ConditionFullyApplied)
			if c == nil && text == "" || c != nil && text != "" && strings.Contains(c.Message, text) {
				return nil
			}
			return fmt.Errorf("it says %+v", c)
		})
	}
	says("the host does not have things of crossing.example.com/v1: install it")

	h.define("crossing.example.com", "Thing", "things")
	h.define("crossing.example.com", "Other", "others")
	thing := func(namespace, kind string) *unstructured.Unstructured {
		u := &unstructured.Unstructured{Object: map[string]any{}}
		u.SetAPIVersion("crossing.example.com/v1")
		u.SetKind(kind)
		u.SetNamespace(namespace)
		u.SetGenerateName("a-")
		u.SetLabels(map[string]string{api.LabelTenant: "crossing", api.LabelComponent: api.ComponentSynced})
		return u
	}
	syncer := h.as("system:serviceaccount:crossing:" + api.ControlPlaneName)
	made := thing("crossing", "Thing")
	h.eventually("the syncer may create a thing", func(ctx context.Context) error { return syncer.Create(ctx, made) })
	// Another change looks at the host again, sooner than in a minute.
	h.change("crossing", func(s *api.TenantSpec) { s.Limits.Hosts = []string{"*.example.com"} })
	says("")
	for what, object := range map[string]*unstructured.Unstructured{"elsewhere": thing("default", "Thing"), "of another kind": thing("crossing", "Other")} {
		if err := syncer.Create(t.Context(), object); !apierrors.IsForbidden(err) {
			t.Errorf("a thing %s: %v", what, err)
		}
	}
	definition := &unstructured.Unstructured{}
	definition.SetAPIVersion("apiextensions.k8s.io/v1")
	definition.SetKind("CustomResourceDefinition")
	if err := syncer.Get(t.Context(), client.ObjectKey{Name: "things.crossing.example.com"}, definition); err != nil {
		t.Errorf("its definition: %v", err)
	}
	if err := syncer.Get(t.Context(), client.ObjectKey{Name: "others.crossing.example.com"}, definition); !apierrors.IsForbidden(err) {
		t.Errorf("another definition: %v", err)
	}
	configuration := &corev1.ConfigMap{}
	if err := h.client.Get(t.Context(), client.ObjectKey{Namespace: "crossing", Name: api.ControlPlaneName}, configuration); err != nil || !strings.Contains(configuration.Data[api.ConfigKey], "things") {
		t.Errorf("the control plane is not told: %v %v", configuration.Data, err)
	}

	// Paths that cannot be read change nothing, and are told.
	broken := things
	broken.HostPaths = []string{".spec.hosts[0]"}
	h.change("crossing", func(s *api.TenantSpec) { s.Limits.CustomResources = []api.CustomResource{broken} })
	if c := h.waitFor("crossing", api.ConditionFenceReady, "InvalidLimits"); !strings.Contains(c.Message, `customResources[0].hostPaths[0]`) || !strings.Contains(c.Message, ".spec.hosts[0]") {
		t.Errorf("it says %q", c.Message)
	}
	if err := syncer.Create(t.Context(), thing("crossing", "Thing")); err != nil {
		t.Errorf("while the limits are invalid: %v", err)
	}

	// A kind that the chart's values do not name: what there is stays.
	h.change("crossing", func(s *api.TenantSpec) {
		s.Limits.CustomResources = []api.CustomResource{things, {Group: "crossing.example.com", Version: "v1", Kind: "Other", Resource: "others"}}
	})
	says("value customResources of the chart")
	h.waitFor("crossing", api.ConditionFenceReady, "Applied")
	if err := syncer.Create(t.Context(), thing("crossing", "Thing")); err != nil {
		t.Errorf("a thing, while others may not be given: %v", err)
	}
	if err := syncer.Create(t.Context(), thing("crossing", "Other")); !apierrors.IsForbidden(err) {
		t.Errorf("an other: %v", err)
	}

	// Out of the limits: the rights go, and what the syncer made; the host's own stay.
	own := thing("crossing", "Thing")
	own.SetLabels(nil)
	if err := h.client.Create(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	h.change("crossing", func(s *api.TenantSpec) { s.Limits.CustomResources = nil })
	h.eventually("what the syncer made is gone, and its rights", func(ctx context.Context) error {
		list := &unstructured.UnstructuredList{}
		list.SetAPIVersion("crossing.example.com/v1")
		list.SetKind("ThingList")
		if err := h.client.List(ctx, list, client.InNamespace("crossing")); err != nil {
			return err
		}
		if len(list.Items) != 1 || list.Items[0].GetName() != own.GetName() {
			return fmt.Errorf("%d things", len(list.Items))
		}
		for _, object := range []client.Object{
			&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "crossing", Name: api.CustomResourcesRole}},
			&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "crossing", Name: api.CustomResourcesRole}},
			&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "sublet-tenant-crossing:definitions"}},
			&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "sublet-tenant-crossing:definitions"}},
		} {
			if err := h.client.Get(ctx, client.ObjectKeyFromObject(object), object); !apierrors.IsNotFound(err) {
				return fmt.Errorf("%T: %v", object, err)
			}
		}
		return nil
	})
	says("")

	// The manager itself gives away nothing else, were it taken over.
	manager := h.as("system:serviceaccount:" + api.SystemNamespace + ":" + api.ManagerName)
	role := func(name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "crossing", Name: name}, Rules: rules}
	}
	rule := func(group, resource, verb string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{verb}}
	}
	elsewhere := role(api.CustomResourcesRole, rule("crossing.example.com", "things", "get"))
	elsewhere.Namespace = "default"
	if err := manager.Create(t.Context(), role(api.CustomResourcesRole, rule("crossing.example.com", "things", "get")), client.DryRunAll); err != nil {
		t.Errorf("what it may give: %v", err)
	}
	for name, object := range map[string]*rbacv1.Role{
		"another role":        role("mine", rule("crossing.example.com", "things", "get")),
		"secrets":             role(api.CustomResourcesRole, rule("", "secrets", "get")),
		"its own rights":      role(api.CustomResourcesRole, rule("rbac.authorization.k8s.io", "roles", "create")),
		"what it has not":     role(api.CustomResourcesRole, rule("crossing.example.com", "others", "get")),
		"all of them":         role(api.CustomResourcesRole, rule("crossing.example.com", "*", "get")),
		"a subresource":       role(api.CustomResourcesRole, rule("crossing.example.com", "things/scale", "get")),
		"another verb":        role(api.CustomResourcesRole, rule("crossing.example.com", "things", "deletecollection")),
		"in other namespaces": elsewhere,
	} {
		if err := manager.Create(t.Context(), object, client.DryRunAll); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
