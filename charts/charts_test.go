package charts_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"

	"github.com/sublet-dev/sublet/charts"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func load(t *testing.T) *chart.Chart {
	t.Helper()
	content, err := charts.Sublet()
	if err != nil {
		t.Fatal(err)
	}
	var files []*loader.BufferedFile
	err = fs.WalkDir(content, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(content, path)
		files = append(files, &loader.BufferedFile{Name: path, Data: data})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := loader.LoadFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// newHost is a version of Kubernetes that has all that the chart makes use of.
const newHost = "v1.36.0"

func capabilities(version string) *chartutil.Capabilities {
	capabilities := chartutil.DefaultCapabilities.Copy()
	if version == newHost {
		capabilities.APIVersions = append(capabilities.APIVersions, "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy")
	}
	capabilities.KubeVersion.Version = version
	return capabilities
}

// render is what helm would install on a host of this version, without the
// notes, ordered by file.
func render(t *testing.T, version string, values map[string]any) (manifests, notes string) {
	t.Helper()
	loaded := load(t)
	release := chartutil.ReleaseOptions{Name: "sublet", Namespace: "sublet-system", IsInstall: true, Revision: 1}
	all, err := chartutil.ToRenderValues(loaded, values, release, capabilities(version))
	if err != nil {
		t.Fatal(err)
	}
	rendered, err := engine.Engine{Strict: true}.Render(loaded, all)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range rendered {
			if !yield(name) {
				return
			}
		}
	}) {
		if strings.HasSuffix(name, "NOTES.txt") {
			notes = rendered[name]
			continue
		}
		if strings.TrimSpace(rendered[name]) != "" {
			out.WriteString("---\n# Source: " + name + "\n" + strings.TrimSpace(rendered[name]) + "\n")
		}
	}
	return out.String(), notes
}

// decode reads every object strictly: a field that its kind does not have is an
// error.
func decode(t *testing.T, manifests string) []runtime.Object {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), apiextensionsv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(manifests)))
	var objects []runtime.Object
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimSpace(withoutComments(document))) == 0 {
			continue
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Errorf("%v in:\n%s", err, document)
			continue
		}
		objects = append(objects, object)
	}
}

func withoutComments(document []byte) []byte {
	var out []byte
	for line := range bytes.Lines(document) {
		if !bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) && !bytes.HasPrefix(line, []byte("---")) {
			out = append(out, line...)
		}
	}
	return out
}

func TestGolden(t *testing.T) {
	manifests, _ := render(t, newHost, nil)
	// The CustomResourceDefinitions are generated and checked by their own pair.
	var parts []string
	for _, part := range strings.Split(manifests, "---\n# Source: ") {
		if part != "" && !strings.HasPrefix(part, "sublet/templates/crds/") {
			parts = append(parts, "---\n# Source: "+part)
		}
	}
	got := strings.Join(parts, "")
	golden := filepath.Join("testdata", "default.yaml")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the chart renders differently (-want +got); run with -update if that is meant:\n%s", diff)
	}
}

func TestDecodesStrictly(t *testing.T) {
	cases := map[string]map[string]any{
		"defaults": nil,
		"everything set": {
			"imagePullSecrets": []any{map[string]any{"name": "registry"}},
			"controlPlane":     map[string]any{"image": "registry.example.com/subletd:1"},
			"manager": map[string]any{
				"replicas":       2,
				"podAnnotations": map[string]any{"a": "b"},
				"nodeSelector":   map[string]any{"kubernetes.io/os": "linux"},
				"tolerations":    []any{map[string]any{"operator": "Exists"}},
				"affinity":       map[string]any{"nodeAffinity": map[string]any{}},
			},
			"metrics": map[string]any{"service": map[string]any{"annotations": map[string]any{"c": "d"}}},
			"ingress": map[string]any{"namespaces": []any{"ingress-nginx", "gateways"}},
			"customResources": []any{
				map[string]any{"group": "cert-manager.io", "resources": []any{"certificates", "issuers"}},
				map[string]any{"group": "acme.example.com", "resources": []any{"things"}},
			},
		},
		"everything off": {
			"admissionPolicies": map[string]any{"enabled": false},
			"networkPolicy":     map[string]any{"enabled": false},
			"metrics":           map[string]any{"service": map[string]any{"enabled": false}},
		},
	}
	for name, values := range cases {
		t.Run(name, func(t *testing.T) {
			for _, version := range []string{"v1.30.0", newHost} {
				manifests, notes := render(t, version, values)
				if objects := decode(t, manifests); len(objects) < 10 {
					t.Errorf("got %d objects only", len(objects))
				}
				if !strings.Contains(notes, "sublet create") {
					t.Errorf("the notes do not say how to go on:\n%s", notes)
				}
			}
		})
	}
}

func TestValuesSchema(t *testing.T) {
	cases := map[string]map[string]any{
		"an unknown value":           {"replicas": 2},
		"a wrong type":               {"manager": map[string]any{"replicas": "two"}},
		"a grace in words":           {"manager": map[string]any{"deletionGrace": "soon"}},
		"all resources":              {"customResources": []any{map[string]any{"group": "cert-manager.io", "resources": []any{"*"}}}},
		"a group of Kubernetes' own": {"customResources": []any{map[string]any{"group": "apps", "resources": []any{"deployments"}}}},
		"a pull policy":              {"image": map[string]any{"pullPolicy": "Sometimes"}},
	}
	for name, values := range cases {
		t.Run(name, func(t *testing.T) {
			loaded := load(t)
			release := chartutil.ReleaseOptions{Name: "sublet", Namespace: "sublet-system"}
			if _, err := chartutil.ToRenderValues(loaded, values, release, capabilities(newHost)); err == nil {
				t.Error("the schema accepts it")
			}
		})
	}
}

// TestKeepsDefinitions holds that uninstalling loses no Tenant.
func TestKeepsDefinitions(t *testing.T) {
	manifests, _ := render(t, newHost, nil)
	found := 0
	for _, object := range decode(t, manifests) {
		definition, ok := object.(*apiextensionsv1.CustomResourceDefinition)
		if !ok {
			continue
		}
		found++
		if definition.Annotations["helm.sh/resource-policy"] != "keep" {
			t.Errorf("CustomResourceDefinition %s goes away with the release", definition.Name)
		}
	}
	if found != 2 {
		t.Errorf("got %d CustomResourceDefinitions, want 2", found)
	}
}

// TestCustomResources holds that the manager has of custom resources what the
// values say, and nothing without them.
func TestCustomResources(t *testing.T) {
	rules := func(values map[string]any) (rules []rbacv1.PolicyRule) {
		manifests, _ := render(t, newHost, values)
		for _, object := range decode(t, manifests) {
			if role, ok := object.(*rbacv1.ClusterRole); ok && role.Name == "sublet-manager-custom-resources" {
				rules = append(rules, role.Rules...)
			}
		}
		return rules
	}
	if got := rules(nil); got != nil {
		t.Errorf("without values: %v", got)
	}
	got := rules(map[string]any{"customResources": []any{map[string]any{"group": "cert-manager.io", "resources": []any{"certificates", "issuers"}}}})
	want := []rbacv1.PolicyRule{{
		APIGroups: []string{"cert-manager.io"}, Resources: []string{"certificates", "issuers"},
		Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestImpersonation holds that the manager becomes nobody but accounts of its own
// namespace.
func TestImpersonation(t *testing.T) {
	manifests, _ := render(t, newHost, nil)
	found := false
	for _, object := range decode(t, manifests) {
		role, ok := object.(*rbacv1.Role)
		if !ok {
			continue
		}
		for _, rule := range role.Rules {
			if !slices.Contains(rule.Verbs, "impersonate") {
				continue
			}
			found = true
			if role.Namespace != "sublet-system" || !slices.Equal(rule.Resources, []string{"serviceaccounts"}) {
				t.Errorf("Role %s/%s may become others: %v", role.Namespace, role.Name, rule)
			}
		}
	}
	if !found {
		t.Error("nobody may impersonate: the test guards nothing")
	}
}

// TestNoWildcards holds that a wildcard is only in the role that is bound in
// tenants' namespaces.
func TestNoWildcards(t *testing.T) {
	manifests, _ := render(t, newHost, nil)
	for _, object := range decode(t, manifests) {
		role, ok := object.(*rbacv1.ClusterRole)
		if !ok || role.Name == "sublet-cleanup" {
			continue
		}
		for _, rule := range role.Rules {
			for _, list := range [][]string{rule.APIGroups, rule.Resources, rule.Verbs} {
				if slices.Contains(list, "*") {
					t.Errorf("ClusterRole %s has a wildcard: %v", role.Name, rule)
				}
			}
			if slices.Contains(rule.Verbs, "escalate") || slices.Contains(rule.Verbs, "impersonate") {
				t.Errorf("ClusterRole %s may become anybody: %v", role.Name, rule)
			}
			if slices.Contains(rule.Verbs, "bind") && len(rule.ResourceNames) == 0 {
				t.Errorf("ClusterRole %s may give away every role", role.Name)
			}
		}
	}
}

// TestProfiling: the manager serves profiles only if the values say so, on the
// port that "sublet debug profile --manager" asks.
func TestProfiling(t *testing.T) {
	const flag = "--profiling-port=6060"
	if manifests, _ := render(t, newHost, nil); strings.Contains(manifests, "--profiling") {
		t.Error("profiles are on without being asked for")
	}
	manifests, _ := render(t, newHost, map[string]any{"manager": map[string]any{"profiling": true}})
	if !strings.Contains(manifests, flag) {
		t.Errorf("the manager lacks %s", flag)
	}
	decode(t, manifests)
}
