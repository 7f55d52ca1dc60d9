package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/pki"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// TestGitOps holds that Tenants and Templates can live in git: what a tool applies
// again and again is never different from what there is, the manager writes nothing
// that people write, and health can be told by the usual rules.
func TestGitOps(t *testing.T) {
	ctrl.SetLogger(logr.Discard())
	h := startManagedHost(t)
	h.define("crossing.example.com", "Thing", "things")
	h.run("EveryField", func(*testing.T) { testEveryField(h) })
	h.run("TwoAppliers", func(*testing.T) { testTwoAppliers(h) })
	h.run("Health", func(*testing.T) { testHealth(h) })
}

const (
	applier = "kustomize-controller"
	another = "argocd-controller"
)

// everyField are manifests as people write them, amounts and times in no canonical
// form, which together set every field there is; %CA% stands for a certificate.
const everyField = `
apiVersion: sublet.dev/v1alpha1
kind: Tenant
metadata:
  name: git-folder
  labels: {example.com/cost: "17"}
  annotations: {example.com/owner: platform}
spec:
  type: Folder
  parent: root
  deletionPolicy: Cascade
  ttl: 90m0.5s
  expiresAt: "2099-01-01T00:00:00+00:00"
  members:
  - {kind: User, name: ann@example.com, role: admin}
  - {kind: Group, name: sre, role: view, scope: Descendants}
  - {kind: ServiceAccount, namespace: ci, name: bot, role: edit, scope: Subtree}
  templates:
  - {name: git-manifests, sync: true, parameters: {color: blue, size: "3"}}
  limits:
    quota: {requests.cpu: "0.50", limits.cpu: 4000m, requests.memory: 2048Mi, limits.memory: "8e9", pods: "20"}
    podDefaults:
      requests: {cpu: "0.01", memory: 16Mi}
      limits: {cpu: "1.0", memory: 0.25Gi}
    podSecurity: restricted
    services: [NodePort, ClusterIP]
    storageClasses: [slow, fast]
    runtimeClass: gvisor
    runtimeClasses: [gvisor, kata]
    priorityClasses: [low]
    tolerations:
    - {key: gpu, operator: Equal, value: "yes", effect: NoExecute, tolerationSeconds: 60}
    ingressClasses: [nginx]
    gateways: [gateways/public]
    hosts: ["*.example.com"]
    serviceAccountAnnotations: [eks.amazonaws.com/role-arn]
    customResources:
    - group: crossing.example.com
      version: v1
      kind: Thing
      resource: things
      references:
      - {path: .spec.secretName, kind: Secret, kindPath: .spec.secretKind, from: Host}
      - {path: .spec.other, group: crossing.example.com, kind: Thing}
      selectorPaths: [.spec.selector]
      labelPaths: [.spec.labels]
      namespacePaths: [.spec.namespace]
      verbatimPaths: [.spec.namespaces]
      hostPaths: [.spec.host]
    nodeSelector: {pool: small}
    network: {internet: Deny, allowedCIDRs: [10.1.0.0/16]}
---
apiVersion: sublet.dev/v1alpha1
kind: Tenant
metadata: {name: git-namespace}
spec:
  type: Namespace
  parent: git-folder
  namespace: git-namespace-own
  members:
  - {kind: User, name: bob, role: edit}
  templates:
  - {name: git-chart}
  limits:
    quota: {pods: "10", requests.cpu: 250m}
    services: [ClusterIP]
---
apiVersion: sublet.dev/v1alpha1
kind: Tenant
metadata: {name: git-cluster}
spec:
  type: VirtualCluster
  parent: git-folder
  virtualCluster:
    version: "1.35"
    profiling: true
    featureGates: {MutatingAdmissionPolicy: true}
    runtimeConfig: {resource.k8s.io/v1beta1: "true"}
    nodes: {selector: {matchLabels: {pool: small}, matchExpressions: [{key: arch, operator: In, values: [arm64, amd64]}]}}
    scheduler: true
    audit:
      omitStages: [RequestReceived]
      omitManagedFields: true
      rules:
      - level: Request
        users: [ann]
        userGroups: [sre]
        verbs: [get]
        resources: [{group: "apps", resources: [deployments], resourceNames: [web]}]
        namespaces: [default]
        omitStages: [ResponseStarted]
        omitManagedFields: false
      - level: Metadata
        nonResourceURLs: [/healthz*]
      webhook: {url: "https://10.1.0.1/audit", caBundle: %CA%}
    authentication:
      jwt:
      - issuer:
          url: https://one.example.com
          discoveryURL: https://discovery.example.com/.well-known/openid-configuration
          certificateAuthority: &ca |
%PEM%
          audiences: [kubernetes, others]
          audienceMatchPolicy: MatchAny
        claimValidationRules: [{claim: hd, requiredValue: example.com}]
        claimMappings:
          username: {claim: email, prefix: "oidc:"}
          groups: {claim: groups, prefix: ""}
          uid: {claim: sub}
        userValidationRules: [{expression: "!user.username.startsWith('system:')", message: nobody}]
      - issuer: {url: "https://two.example.com", certificateAuthority: *ca, audiences: [kubernetes]}
        claimValidationRules: [{expression: "claims.hd == 'example.com'", message: elsewhere}]
        claimMappings:
          username: {expression: "'two:' + claims.sub"}
          groups: {expression: "claims.roles"}
          uid: {expression: "claims.sub"}
          extra: [{key: example.com/tenant, valueExpression: "claims.tenant"}]
    storage: {type: PersistentVolumeClaim, class: slow, size: 1024Mi}
    resources:
      requests: {cpu: "0.05", memory: 0.25Gi}
      limits: {cpu: "2.0", memory: 2048Mi}
    image: example.com/subletd:other
---
apiVersion: sublet.dev/v1alpha1
kind: Template
metadata: {name: git-manifests}
spec:
  description: All kinds of parameters
  namespace: made
  parameters:
  - {name: color, description: which, type: string, required: true, pattern: "[a-z]+", enum: [blue, red]}
  - {name: size, type: integer, default: "1"}
  - {name: names, type: list, default: "a,b"}
  manifests:
  - apiVersion: v1
    kind: ConfigMap
    metadata: {name: git}
    data: {color: "${color}", size: "${size:string}"}
---
apiVersion: sublet.dev/v1alpha1
kind: Template
metadata: {name: git-chart}
spec:
  chart:
    path: gitops
    releaseName: git
    skipCRDs: true
    values: {depth: 1.50, list: [a, {b: c}], text: "x"}
---
apiVersion: sublet.dev/v1alpha1
kind: Template
metadata: {name: git-archive}
spec:
  chart: {archive: H4sIAAAAAAAA/+xZ+w==}
---
apiVersion: sublet.dev/v1alpha1
kind: Template
metadata: {name: git-configmap}
spec:
  chart: {configMap: {name: charts, key: web.tgz}}
---
apiVersion: sublet.dev/v1alpha1
kind: Template
metadata: {name: git-repository}
spec:
  chart: {repository: {url: "oci://charts.example.com/team", name: web, version: 1.2.3, caBundle: %CA%, plainHTTP: true, secretName: login}}
`

// manifests reads them as a tool does: nothing is known about kinds.
func manifests(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	var all []*unstructured.Unstructured
	for _, document := range strings.Split(text, "\n---\n") {
		content, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(content); err != nil {
			t.Fatal(err)
		}
		all = append(all, u)
	}
	return all
}

// applyAs applies on the server's side, without force: who owns a field that is
// applied differently makes it fail.
func (h *managedHost) applyAs(manager string, desired *unstructured.Unstructured, options ...client.ApplyOption) (*unstructured.Unstructured, error) {
	result := desired.DeepCopy()
	err := h.client.Apply(h.t.Context(), client.ApplyConfigurationFromUnstructured(result), append(options, client.FieldOwner(manager))...)
	return result, err
}

func (h *managedHost) live(of *unstructured.Unstructured) *unstructured.Unstructured {
	h.t.Helper()
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(of.GroupVersionKind())
	if err := h.client.Get(h.t.Context(), client.ObjectKeyFromObject(of), live); err != nil {
		h.t.Fatal(err)
	}
	return live
}

// withoutNoise is what tools compare of an object.
func withoutNoise(u *unstructured.Unstructured) map[string]any {
	u = u.DeepCopy()
	u.SetManagedFields(nil)
	u.SetResourceVersion("")
	delete(u.Object, "status")
	return u.Object
}

func testEveryField(h *managedHost) {
	t := h.t
	authority, err := pki.NewAuthority("issuer", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(authority.CertPEM)
	if err != nil {
		t.Fatal(err)
	}
	indented := "            " + strings.ReplaceAll(strings.TrimSpace(string(authority.CertPEM)), "\n", "\n            ")
	all := manifests(t, strings.NewReplacer("%CA%", string(encoded), "%PEM%", indented).Replace(strings.TrimSpace(everyField)))
	set := map[string]map[string]bool{"Tenant": {}, "Template": {}}
	for _, u := range all {
		pathsSet("", u.Object["spec"], set[u.GetKind()])
	}
	for kind, spec := range map[string]any{"Tenant": api.TenantSpec{}, "Template": api.TemplateSpec{}} {
		want := map[string]bool{}
		pathsOf("", reflect.TypeOf(spec), want)
		for _, path := range slices.Sorted(maps.Keys(want)) {
			if !set[kind][path] {
				t.Errorf("no %s here sets .spec%s, so nothing is known about it", kind, path)
			}
		}
	}
	slow := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "slow"}, Provisioner: "example.com/none"}
	h.create(slow)
	h.chart("gitops", map[string]string{"made.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-chart}\n"})
	for _, u := range all {
		if _, err := h.applyAs(applier, u); err != nil {
			t.Fatalf("%s %s: %v", u.GetKind(), u.GetName(), err)
		}
	}
	for _, name := range []string{"git-folder", "git-namespace"} {
		h.waitForPhase(name, api.PhaseReady)
	}
	h.waitFor("git-cluster", api.ConditionControlPlaneReady, "Starting")
	h.templateIs("git-namespace", "git-manifests", api.TemplateApplied, "Applied")
	h.templateIs("git-namespace", "git-chart", api.TemplateApplied, "Applied")
	for _, u := range all {
		h.run(u.GetKind()+" "+u.GetName(), func(t *testing.T) {
			h.eventually("the manager has seen it", func(context.Context) error {
				live := h.live(u)
				if seen, _, _ := unstructured.NestedInt64(live.Object, "status", "observedGeneration"); seen != live.GetGeneration() {
					return fmt.Errorf("generation %d of %d; status %v", seen, live.GetGeneration(), live.Object["status"])
				}
				return nil
			})
			testStable(h, u)
			if u.GetKind() == "Tenant" {
				for _, c := range h.tenant(u.GetName()).Status.Conditions {
					if c.ObservedGeneration != h.tenant(u.GetName()).Generation {
						t.Errorf("condition %s is about generation %d, which is past", c.Type, c.ObservedGeneration)
					}
				}
			}
		})
	}
	h.run("the root, applied by somebody", func(t *testing.T) {
		u := manifests(t, "apiVersion: sublet.dev/v1alpha1\nkind: Tenant\nmetadata: {name: root}\nspec: {type: Folder, limits: {hosts: [\"*.example.com\"]}}")[0]
		if _, err := h.applyAs(applier, u); err != nil {
			t.Fatal(err)
		}
		h.eventually("the manager has seen it", func(context.Context) error {
			if root := h.tenant("root"); root.Status.ObservedGeneration != root.Generation {
				return errors.New("not yet")
			}
			return nil
		})
		testStable(h, u)
		h.change("root", func(s *api.TenantSpec) { s.Limits = nil })
	})
	h.run("what is left out gets a default that no tool sees", func(t *testing.T) {
		u := manifests(t, "apiVersion: sublet.dev/v1alpha1\nkind: Tenant\nmetadata: {name: git-plain}\nspec: {}")[0]
		if _, err := h.applyAs(applier, u); err != nil {
			t.Fatal(err)
		}
		h.waitFor("git-plain", api.ConditionFenceReady, "Applied")
		testStable(h, u)
		h.remove("git-plain")
	})
	h.remove("git-folder")
	if err := h.client.Delete(t.Context(), slow); err != nil {
		t.Error(err)
	}
	for _, u := range all {
		if u.GetKind() == "Template" {
			if err := h.client.Delete(t.Context(), u); err != nil {
				t.Error(err)
			}
		}
	}
}

// testStable holds that an object which was applied is as it was written, by each
// way that tools compare, and is only written in its status by the manager.
func testStable(h *managedHost, desired *unstructured.Unstructured) {
	t := h.t
	t.Helper()
	// Applied again, nothing happens at all.
	for range 3 {
		before := h.live(desired)
		after, err := h.applyAs(applier, desired)
		if err != nil {
			t.Fatal(err)
		}
		if before.GetGeneration() != after.GetGeneration() {
			t.Errorf("applied again, it has generation %d, not %d", after.GetGeneration(), before.GetGeneration())
		}
		// The manager may have brought the status up to date in between.
		if before.GetResourceVersion() != after.GetResourceVersion() && reflect.DeepEqual(before.Object["status"], after.Object["status"]) {
			t.Errorf("applied again, it was written: %s", cmp.Diff(before.Object, after.Object))
		}
	}
	live := h.live(desired)
	// As Flux and the server-side diff of Argo CD do, for themselves and for
	// another tool that comes to it.
	for _, manager := range []string{applier, another} {
		dry, err := h.applyAs(manager, desired, client.DryRunAll)
		if err != nil {
			t.Fatalf("%s: %v", manager, err)
		}
		if diff := cmp.Diff(withoutNoise(live), withoutNoise(dry)); diff != "" {
			t.Errorf("%s would change (-live +applied):\n%s", manager, diff)
		}
	}
	changed := desired.DeepCopy()
	changed.SetLabels(map[string]string{"example.com/control": "yes"})
	dry, err := h.applyAs(applier, changed, client.DryRunAll)
	if err != nil || cmp.Diff(withoutNoise(live), withoutNoise(dry)) == "" {
		t.Errorf("(control) a change is no difference: %v", err)
	}
	// As the client-side diffs of Argo CD and kubectl do: what was applied last,
	// what is to be applied, what there is.
	if patch := threeWay(t, desired, desired, live); patch != "{}" {
		t.Errorf("a three-way diff is %s", patch)
	}
	if patch := threeWay(t, desired, changed, live); patch == "{}" {
		t.Error("(control) a change is no difference to a three-way diff")
	}
	for _, difference := range missing("", desired.Object, live.Object) {
		t.Errorf("it is not as it was written: %s", difference)
	}
	// Who owns what.
	for _, entry := range live.GetManagedFields() {
		fields := map[string]any{}
		if err := json.Unmarshal(entry.FieldsV1.Raw, &fields); err != nil {
			t.Fatal(err)
		}
		if entry.Manager == applier || entry.Subresource == "status" {
			continue
		}
		var owned []string
		ownedFields("", fields, &owned)
		for _, path := range owned {
			finalizer := strings.HasPrefix(path, "f:metadata/f:finalizers")
			// Made with Sublet, before anybody could.
			root := desired.GetName() == api.RootTenant && (path == "f:spec" || path == "f:spec/f:type")
			if !finalizer && !root {
				t.Errorf("%s owns %s", entry.Manager, path)
			}
		}
	}
}

// threeWay is what a client-side apply would send.
func threeWay(t *testing.T, last, desired, live *unstructured.Unstructured) string {
	t.Helper()
	var texts [3][]byte
	for i, u := range []*unstructured.Unstructured{last, desired, live} {
		content, err := u.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = content
	}
	patch, err := jsonmergepatch.CreateThreeWayJSONMergePatch(texts[0], texts[1], texts[2])
	if err != nil {
		t.Fatal(err)
	}
	return string(patch)
}

// missing is what of a value is not, or not the same, in another; fields that only
// the other has do not count.
func missing(path string, want, got any) []string {
	wanted, ok := want.(map[string]any)
	if !ok {
		if !reflect.DeepEqual(want, got) {
			return []string{fmt.Sprintf("%s is %v, not %v", path, got, want)}
		}
		return nil
	}
	have, _ := got.(map[string]any)
	var all []string
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		all = append(all, missing(path+"."+name, wanted[name], have[name])...)
	}
	return all
}

// ownedFields are the paths in a set of fields.
func ownedFields(path string, fields map[string]any, owned *[]string) {
	for name, below := range fields {
		if name == "." {
			continue
		}
		at := strings.TrimPrefix(path+"/"+name, "/")
		*owned = append(*owned, at)
		if more, ok := below.(map[string]any); ok {
			ownedFields(at, more, owned)
		}
	}
	// What only leads to owned fields is not owned.
	*owned = slices.DeleteFunc(*owned, func(a string) bool {
		return a == "f:metadata" || slices.ContainsFunc(*owned, func(b string) bool { return strings.HasPrefix(b, a+"/") && a != "f:spec" })
	})
}

// pathsSet are the fields that a manifest sets.
func pathsSet(path string, value any, set map[string]bool) {
	switch v := value.(type) {
	case map[string]any:
		for name, below := range v {
			set[path+"."+name] = true
			pathsSet(path+"."+name, below, set)
		}
	case []any:
		for _, item := range v {
			pathsSet(path+"[]", item, set)
		}
	}
}

// pathsOf are the fields that a type has.
func pathsOf(path string, kind reflect.Type, all map[string]bool) {
	switch kind {
	case reflect.TypeOf(resource.Quantity{}), reflect.TypeOf(metav1.Time{}), reflect.TypeOf(metav1.Duration{}), reflect.TypeOf(runtime.RawExtension{}):
		return
	}
	switch kind.Kind() {
	case reflect.Pointer:
		pathsOf(path, kind.Elem(), all)
	case reflect.Slice:
		pathsOf(path+"[]", kind.Elem(), all)
	case reflect.Struct:
		for i := range kind.NumField() {
			name, _, _ := strings.Cut(kind.Field(i).Tag.Get("json"), ",")
			// Claims of devices are no resource of a container that a control plane has.
			if path+"."+name == ".virtualCluster.resources.claims" {
				continue
			}
			all[path+"."+name] = true
			pathsOf(path+"."+name, kind.Field(i).Type, all)
		}
	}
}

// testTwoAppliers holds that two tools, or a tool and a person, each keep what is
// theirs of lists and maps.
func testTwoAppliers(h *managedHost) {
	t := h.t
	tenant := func(spec string) *unstructured.Unstructured {
		t.Helper()
		return manifests(t, "apiVersion: sublet.dev/v1alpha1\nkind: Tenant\nmetadata: {name: shared}\nspec: "+spec)[0]
	}
	apply := func(manager, spec string) {
		t.Helper()
		if _, err := h.applyAs(manager, tenant(spec)); err != nil {
			t.Fatal(err)
		}
	}
	members := func() []string {
		var all []string
		for _, m := range h.tenant("shared").Spec.Members {
			all = append(all, m.Name+"="+string(m.Role))
		}
		slices.Sort(all)
		return all
	}
	same := func(what string, got, want any) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	apply(applier, `{type: Folder, members: [{kind: User, name: ann, role: admin}, {kind: User, name: both, role: view}],
		templates: [{name: one}], limits: {quota: {pods: "5"}, services: [ClusterIP], hosts: [a.example.com],
		customResources: [{group: example.com, version: v1, kind: A, resource: as}], nodeSelector: {pool: a}}}`)
	apply(another, `{type: Folder, members: [{kind: Group, name: sre, role: view}, {kind: User, name: both, role: view}],
		templates: [{name: two, sync: true}], limits: {quota: {services: "7"}, services: [NodePort], hosts: [b.example.com],
		customResources: [{group: example.com, version: v1, kind: B, resource: bs}], nodeSelector: {disk: b}}}`)
	got := h.tenant("shared").Spec
	same("members", members(), []string{"ann=admin", "both=view", "sre=view"})
	same("services", got.Limits.Services, []corev1.ServiceType{"ClusterIP", "NodePort"})
	same("hosts", got.Limits.Hosts, []string{"a.example.com", "b.example.com"})
	same("quota", len(got.Limits.Quota), 2)
	same("templates", got.Templates, []api.TemplateRef{{Name: "one"}, {Name: "two", Sync: true}})
	same("custom resources", len(got.Limits.CustomResources), 2)
	same("node selector", got.Limits.NodeSelector, map[string]string{"pool": "a", "disk": "b"})

	// One changes what is his, and leaves out what both said; a person adds.
	apply(applier, `{type: Folder, members: [{kind: User, name: ann, role: edit}], limits: {quota: {pods: "6"}, services: [ClusterIP]}}`)
	h.change("shared", func(s *api.TenantSpec) { s.Members = append(s.Members, user("late", api.RoleView)) })
	apply(another, `{type: Folder, members: [{kind: Group, name: sre, role: view}, {kind: User, name: both, role: view}]}`)
	got = h.tenant("shared").Spec
	same("members", members(), []string{"ann=edit", "both=view", "late=view", "sre=view"})
	same("services", got.Limits.Services, []corev1.ServiceType{"ClusterIP"})
	same("quota", len(got.Limits.Quota), 1)
	same("templates", len(got.Templates), 0)

	// What both want differently is a conflict that names the other; not silence.
	_, err := h.applyAs(another, tenant(`{type: Folder, limits: {quota: {pods: "9"}}}`))
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), applier) || !strings.Contains(err.Error(), ".spec.limits.quota.pods") {
		t.Errorf("two quotas of pods: %v", err)
	}
	// The same member twice is a mistake.
	_, err = h.applyAs("third", tenant(`{type: Folder, members: [{kind: User, name: x, role: view}, {kind: User, name: x, role: view}]}`))
	if err == nil {
		t.Error("a member twice is taken")
	}
	h.remove("shared")

	// Of a Template, parameters.
	template := func(name string) *unstructured.Unstructured {
		return manifests(t, "apiVersion: sublet.dev/v1alpha1\nkind: Template\nmetadata: {name: shared}\nspec: {parameters: [{name: "+name+"}]}")[0]
	}
	for manager, name := range map[string]string{applier: "one", another: "two"} {
		if _, err := h.applyAs(manager, template(name)); err != nil {
			t.Fatal(err)
		}
	}
	made := &api.Template{}
	if err := h.client.Get(t.Context(), key("shared"), made); err != nil || len(made.Spec.Parameters) != 2 {
		t.Errorf("parameters are %+v: %v", made.Spec.Parameters, err)
	}
	if err := h.client.Delete(t.Context(), made); err != nil {
		t.Error(err)
	}
}

// met says whether "kubectl wait --for=condition=Ready" would end: what a condition
// says of an earlier generation does not count.
func met(u *unstructured.Unstructured, kind string) bool {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, one := range conditions {
		c, _ := one.(map[string]any)
		if c["type"] != kind {
			continue
		}
		if observed, ok := c["observedGeneration"].(int64); ok && observed < u.GetGeneration() {
			return false
		}
		return c["status"] == "True"
	}
	return false
}

// health is how kstatus, and with it Flux and others, see an object: by rules that
// know nothing about its kind.
func health(u *unstructured.Unstructured) string {
	if u.GetDeletionTimestamp() != nil {
		return "Terminating"
	}
	if observed, ok, _ := unstructured.NestedInt64(u.Object, "status", "observedGeneration"); ok && observed != u.GetGeneration() {
		return "InProgress"
	}
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	ready := ""
	for _, one := range conditions {
		c, _ := one.(map[string]any)
		switch {
		case c["type"] == "Reconciling" && c["status"] == "True":
			return "InProgress"
		case c["type"] == "Stalled" && c["status"] == "True":
			return "Failed"
		case c["type"] == "Ready":
			ready, _ = c["status"].(string)
		}
	}
	if ready == "True" || ready == "" && u.Object["status"] != nil {
		return "Current"
	}
	return "InProgress"
}

func testHealth(h *managedHost) {
	t := h.t
	u := manifests(t, "apiVersion: sublet.dev/v1alpha1\nkind: Tenant\nmetadata: {name: healthy, finalizers: [example.com/wait]}\nspec: {type: Namespace}")[0]
	becomes := func(want string) {
		t.Helper()
		h.eventually("it is "+want, func(context.Context) error {
			live := h.live(u)
			if got := health(live); got != want || met(live, "Ready") != (want == "Current") {
				return fmt.Errorf("it is %s: %v", got, live.Object["status"])
			}
			return nil
		})
	}
	if _, err := h.applyAs(applier, u); err != nil {
		t.Fatal(err)
	}
	becomes("Current")
	// From the moment of a change on, and until it is made.
	h.stop()
	h.change("healthy", func(s *api.TenantSpec) { s.Members = []api.Member{user("ann", api.RoleView)} })
	for range 3 {
		becomes("InProgress")
	}
	h.startManager()
	becomes("Current")
	h.holds("healthy", "view=ann")
	// What cannot be made is not healthy, however often one looks.
	h.change("healthy", func(s *api.TenantSpec) {
		s.Limits = &api.Limits{Quota: corev1.ResourceList{"request.cpu": resource.MustParse("1")}}
	})
	h.waitFor("healthy", api.ConditionReady, "InvalidLimits")
	becomes("InProgress")
	h.change("healthy", func(s *api.TenantSpec) { s.Limits = nil })
	becomes("Current")
	if err := h.client.Delete(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	becomes("Terminating")
	if err := h.client.Patch(t.Context(), u, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	h.isGone("healthy")
	// In any order: what comes before its parent waits for it.
	h.create(below("later", namespaceTenant("early")))
	h.waitFor("early", api.ConditionPlaced, tenancy.BrokenMissing)
	h.create(folder("later"))
	h.waitForPhase("early", api.PhaseReady)
	h.remove("early", "later")
	// A virtual cluster is healthy when its API answers.
	if err := h.client.Create(t.Context(), virtualCluster("healthy-vc")); err != nil {
		t.Fatal(err)
	}
	u.SetName("healthy-vc")
	h.waitFor("healthy-vc", api.ConditionControlPlaneReady, "Starting")
	becomes("InProgress")
	h.play("healthy-vc", running)
	becomes("Current")
	if c := meta.FindStatusCondition(h.tenant("healthy-vc").Status.Conditions, api.ConditionReady); c == nil || c.Message == "" {
		t.Errorf("it does not say how to use it: %+v", c)
	}
	h.remove("healthy-vc")
}
