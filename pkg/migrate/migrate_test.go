package migrate_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/migrate"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func peer(t testing.TB, name string) migrate.Peer {
	t.Helper()
	for _, p := range migrate.Peers() {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("no peer %q", name)
	return migrate.Peer{}
}

func goldens(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	return files
}

// TestGolden runs every testdata/PEER/CASE.txtar: objects.yaml has the peer's
// objects, sublet.yaml what they become, with the notes as comments. What comes
// out is valid, and is the same when it is read in another order.
func TestGolden(t *testing.T) {
	schemas := readSchemas(t)
	for _, file := range goldens(t) {
		name := strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".txtar")
		t.Run(name, func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(archive.Files) == 0 || archive.Files[0].Name != "objects.yaml" {
				t.Fatal("it does not begin with objects.yaml")
			}
			objects, err := migrate.Read(archive.Files[0].Data)
			if err != nil {
				t.Fatal(err)
			}
			of := peer(t, filepath.Dir(name))
			result, err := of.Convert(objects)
			if err != nil {
				t.Fatal(err)
			}
			got, err := result.YAML()
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				archive.Files = []txtar.File{archive.Files[0], {Name: "sublet.yaml", Data: got}}
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if len(archive.Files) != 2 {
				t.Fatal("it has no sublet.yaml: run with -update")
			}
			if diff := cmp.Diff(string(archive.Files[len(archive.Files)-1].Data), string(got)); !*update && diff != "" {
				t.Errorf("sublet.yaml (-want +got; renew with -update):\n%s", diff)
			}
			isValid(t, schemas, got, result)

			for i, j := 0, len(objects)-1; i < j; i, j = i+1, j-1 {
				objects[i], objects[j] = objects[j], objects[i]
			}
			again, err := of.Convert(objects)
			if err != nil {
				t.Fatal(err)
			}
			backwards, err := again.YAML()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(got), string(backwards)); diff != "" {
				t.Errorf("another order of the objects gives something else:\n%s", diff)
			}
		})
	}
}

// isValid reads what was written as the host would.
func isValid(t testing.TB, schemas map[string]*schemaOf, content []byte, result *migrate.Result) {
	t.Helper()
	objects, err := migrate.Read(content)
	if err != nil {
		t.Fatalf("what came out cannot be read: %v", err)
	}
	if len(objects) != len(result.Tenants)+len(result.Templates) {
		t.Fatalf("%d objects came out of %d tenants and %d templates", len(objects), len(result.Tenants), len(result.Templates))
	}
	namespaces := map[string]string{}
	for _, object := range objects {
		schemas[object.GetKind()].check(t, object)
		if object.GetKind() != "Tenant" {
			continue
		}
		tenant := &api.Tenant{}
		raw, err := json.Marshal(object.Object)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(raw, tenant); err != nil {
			t.Errorf("tenant %q: %v", object.GetName(), err)
		}
		if err := tenancy.ValidateNamespace(tenant, api.SystemNamespace); err != nil {
			t.Errorf("tenant %q: %v", tenant.Name, err)
		}
		if errs := tenancy.ValidateLimits(tenant); len(errs) > 0 {
			t.Errorf("tenant %q: %v", tenant.Name, errs)
		}
		if namespace := tenancy.HostNamespace(tenant); namespace != "" {
			if other := namespaces[namespace]; other != "" {
				t.Errorf("tenants %q and %q both claim namespace %q", other, tenant.Name, namespace)
			}
			namespaces[namespace] = tenant.Name
		}
	}
	known := map[string]bool{"": true, api.RootTenant: true}
	for _, tenant := range result.Tenants {
		if !known[tenant.Spec.Parent] {
			t.Errorf("tenant %q comes before the one above it, %q", tenant.Name, tenant.Spec.Parent)
		}
		if known[tenant.Name] {
			t.Errorf("tenant %q is there twice", tenant.Name)
		}
		known[tenant.Name] = true
		for _, ref := range tenant.Spec.Templates {
			found := false
			for _, template := range result.Templates {
				found = found || template.Name == ref.Name
			}
			if !found {
				t.Errorf("tenant %q refers to a template %q that there is not", tenant.Name, ref.Name)
			}
		}
	}
}

// schemaOf is the schema of one of our kinds, as the host has it.
type schemaOf struct {
	structural *schema.Structural
	validator  validation.SchemaValidator
	rules      *cel.Validator
}

func readSchemas(t testing.TB) map[string]*schemaOf {
	t.Helper()
	schemas := map[string]*schemaOf{}
	for _, file := range []string{"sublet.dev_tenants.yaml", "sublet.dev_templates.yaml"} {
		content, err := os.ReadFile("../../charts/sublet/templates/crds/" + file)
		if err != nil {
			t.Fatal(err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal(content, crd); err != nil {
			t.Fatal(err)
		}
		internal := &apiextensions.JSONSchemaProps{}
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, internal, nil); err != nil {
			t.Fatal(err)
		}
		structural, err := schema.NewStructural(internal)
		if err != nil {
			t.Fatal(err)
		}
		validator, _, err := validation.NewSchemaValidator(internal)
		if err != nil {
			t.Fatal(err)
		}
		schemas[crd.Spec.Names.Kind] = &schemaOf{structural, validator, cel.NewValidator(structural, true, celconfig.PerCallLimit)}
	}
	return schemas
}

func (s *schemaOf) check(t testing.TB, object *unstructured.Unstructured) {
	t.Helper()
	if s == nil {
		t.Fatalf("%s %q is none of our kinds", object.GetKind(), object.GetName())
	}
	if errs := validation.ValidateCustomResource(nil, object.UnstructuredContent(), s.validator); len(errs) > 0 {
		t.Errorf("the schema refuses %s %q: %v", object.GetKind(), object.GetName(), errs)
	}
	if errs, _ := s.rules.Validate(t.Context(), nil, s.structural, object.UnstructuredContent(), nil, celconfig.RuntimeCELCostBudget); len(errs) > 0 {
		t.Errorf("the rules refuse %s %q: %v", object.GetKind(), object.GetName(), errs)
	}
	pruned := runtime.DeepCopyJSON(object.UnstructuredContent())
	pruning.Prune(pruned, s.structural, true)
	if diff := cmp.Diff(object.UnstructuredContent(), pruned); diff != "" {
		t.Errorf("the schema would drop something of %s %q:\n%s", object.GetKind(), object.GetName(), diff)
	}
}

func TestErrors(t *testing.T) {
	cases := map[string]struct {
		peer, objects string
		says          []string
	}{
		"no YAML":        {"kiosk", "a: [", []string{"document 1"}},
		"a key twice":    {"kiosk", "a: 1\na: 2", []string{"document 1", `"a"`}},
		"no object":      {"kiosk", "kind: x\n---\n- 1", []string{"document 2", "no object"}},
		"a list of none": {"kiosk", "{apiVersion: v1, kind: List, items: [1]}", []string{"items[0]"}},
		"items of none":  {"kiosk", "{apiVersion: v1, kind: List, items: 1}", []string{"no list"}},
		"no kind":        {"kiosk", "metadata: {name: a}", []string{"apiVersion and kind", `"a"`}},
		"no name":        {"kiosk", "{apiVersion: config.kiosk.sh/v1alpha1, kind: Account}", []string{"Account", "without a name"}},
		"twice": {
			"kiosk", "{apiVersion: config.kiosk.sh/v1alpha1, kind: Account, metadata: {name: a}}\n---\n{apiVersion: config.kiosk.sh/v1alpha1, kind: Account, metadata: {name: a}}",
			[]string{`Account "a" is there twice`},
		},
		"another version": {
			"kiosk", "{apiVersion: config.kiosk.sh/v1beta9, kind: Account, metadata: {name: a}}",
			[]string{`Account "a"`, "v1beta9", "v1alpha1"},
		},
		"another type": {
			"kiosk", "{apiVersion: config.kiosk.sh/v1alpha1, kind: Account, metadata: {name: a}, spec: {subjects: bob}}",
			[]string{`Account "a"`, "spec.subjects", "string"},
		},
		"a wrong amount": {
			"kiosk", "{apiVersion: config.kiosk.sh/v1alpha1, kind: AccountQuota, metadata: {name: a}, spec: {quota: {hard: {pods: lots}}}}",
			[]string{`AccountQuota "a"`, "quantities"},
		},
		"a manifest without a kind": {
			"kiosk", "{apiVersion: config.kiosk.sh/v1alpha1, kind: Template, metadata: {name: a}, resources: {manifests: [{data: {}}]}}",
			[]string{`Template "a"`, "resources.manifests[0]"},
		},
		"no namespace": {
			"hnc", "{apiVersion: hnc.x-k8s.io/v1alpha2, kind: HierarchyConfiguration, metadata: {name: hierarchy}}",
			[]string{"HierarchyConfiguration", "metadata.namespace"},
		},
		"a ring": {
			"hnc", "{apiVersion: hnc.x-k8s.io/v1alpha2, kind: HierarchyConfiguration, metadata: {name: hierarchy, namespace: a}, spec: {parent: b}}\n---\n" +
				"{apiVersion: hnc.x-k8s.io/v1alpha2, kind: HierarchyConfiguration, metadata: {name: hierarchy, namespace: b}, spec: {parent: a}}",
			[]string{"a, b", "each other's parents"},
		},
		"two anchors": {
			"hnc", "{apiVersion: hnc.x-k8s.io/v1alpha2, kind: SubnamespaceAnchor, metadata: {name: c, namespace: a}}\n---\n" +
				"{apiVersion: hnc.x-k8s.io/v1alpha2, kind: SubnamespaceAnchor, metadata: {name: c, namespace: b}}",
			[]string{`"c"`, `another anchor`, `"a"`},
		},
		"a wrong selector": {
			"capsule", "{apiVersion: capsule.clastix.io/v1beta2, kind: GlobalTenantResource, metadata: {name: a}, spec: {tenantSelector: {matchExpressions: [{key: a, operator: Maybe}]}}}",
			[]string{`GlobalTenantResource "a"`, "spec.tenantSelector"},
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			objects, err := migrate.Read([]byte(test.objects))
			if err == nil {
				_, err = peer(t, test.peer).Convert(objects)
			}
			for _, text := range test.says {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("%q is missing in: %v", text, err)
				}
			}
		})
	}
}

// TestMore: what HNC is configured to propagate has to be read, too.
func TestMore(t *testing.T) {
	objects, err := migrate.Read([]byte(`
apiVersion: hnc.x-k8s.io/v1alpha2
kind: HNCConfiguration
metadata: {name: config}
spec:
  resources:
  - {resource: secrets, mode: Propagate}
  - {resource: configmaps}
  - {group: networking.k8s.io, resource: networkpolicies, mode: AllowPropagate}
  - {resource: limitranges, mode: Ignore}
  - {resource: resourcequotas, mode: Remove}
`))
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(peer(t, "hnc").More(objects))
	if want := "[configmaps networkpolicies.networking.k8s.io secrets]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestJSON holds the same objects as the YAML.
func TestJSON(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/kiosk/account.txtar")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := migrate.Read(archive.Files[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	result, err := peer(t, "kiosk").Convert(objects)
	if err != nil {
		t.Fatal(err)
	}
	var read [2][]*unstructured.Unstructured
	for i, write := range []func() ([]byte, error){result.YAML, result.JSON} {
		content, err := write()
		if err != nil {
			t.Fatal(err)
		}
		if read[i], err = migrate.Read(content); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(read[0], read[1]); diff != "" {
		t.Errorf("(-YAML +JSON):\n%s", diff)
	}
}

// FuzzConvert: whatever is read, what comes out is valid, and each of the peer's own
// objects is either part of it or named in a note.
func FuzzConvert(f *testing.F) {
	for _, file := range goldens(f) {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for i := range migrate.Peers() {
			f.Add(i, archive.Files[0].Data)
		}
	}
	schemas := readSchemas(f)
	f.Fuzz(func(t *testing.T, index int, content []byte) {
		peers := migrate.Peers()
		if index < 0 || index >= len(peers) {
			return
		}
		objects, err := migrate.Read(content)
		if err != nil {
			return
		}
		before := make([]*unstructured.Unstructured, len(objects))
		for i, object := range objects {
			before[i] = object.DeepCopy()
		}
		result, err := peers[index].Convert(objects)
		if diff := cmp.Diff(before, objects); diff != "" {
			t.Fatalf("the objects were changed:\n%s", diff)
		}
		if err != nil {
			return
		}
		out, err := result.YAML()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(out, []byte("\x00")) {
			t.Error("there is a NUL in the output")
		}
		isValid(t, schemas, out, result)
	})
}
