package translate_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func hostDefinition() *unstructured.Unstructured {
	version := func(name string, served, storage, status bool) map[string]any {
		v := map[string]any{"name": name, "served": served, "storage": storage, "schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object"}}}
		if status {
			v["subresources"] = map[string]any{"status": map[string]any{}}
		}
		return v
	}
	object := &unstructured.Unstructured{Object: map[string]any{
		"spec": map[string]any{
			"group": "example.com", "scope": "Namespaced",
			"names":      map[string]any{"kind": "Thing", "plural": "things"},
			"versions":   []any{version("v1alpha1", false, false, false), version("v1beta1", true, false, false), version("v1", true, true, true)},
			"conversion": map[string]any{"strategy": "Webhook", "webhook": map[string]any{"clientConfig": map[string]any{"service": map[string]any{"name": "secret"}}}},
		},
		"status": map[string]any{"storedVersions": []any{"v1"}},
	}}
	object.SetName("things.example.com")
	object.SetLabels(map[string]string{"helm": "x"})
	object.SetAnnotations(map[string]string{"api-approved.kubernetes.io": "unapproved", "cert-manager.io/inject-ca-from": "cert-manager/ca"})
	object.SetFinalizers([]string{"customresourcecleanup.apiextensions.k8s.io"})
	return object
}

func TestDefinition(t *testing.T) {
	kind := func(version, kind string) translate.Any {
		return translate.Any{GroupVersionKind: schema.GroupVersionKind{Group: "example.com", Version: version, Kind: kind}, Resource: "things"}
	}
	host := hostDefinition()
	got, err := translate.Definition(host, kind("v1beta1", "Thing"))
	if err != nil {
		t.Fatal(err)
	}
	want := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{
			"name":        "things.example.com",
			"annotations": map[string]any{api.AnnotationFromHost: "true", "api-approved.kubernetes.io": "unapproved"},
		},
		"spec": map[string]any{
			"group": "example.com", "scope": "Namespaced",
			"names": map[string]any{"kind": "Thing", "plural": "things"},
			"versions": []any{map[string]any{
				"name": "v1beta1", "served": true, "storage": true, "schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object"}},
			}},
			"conversion": map[string]any{"strategy": "None"},
		},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(hostDefinition(), host); diff != "" {
		t.Errorf("it changed what it was given:\n%s", diff)
	}
	if translate.HasStatus(got) {
		t.Error("v1beta1 has no status of its own")
	}
	if newer, err := translate.Definition(host, kind("v1", "Thing")); err != nil || !translate.HasStatus(newer) {
		t.Errorf("v1 has a status of its own (%v)", err)
	}
	for says, object := range map[string]struct {
		kind translate.Any
		edit func(spec map[string]any)
	}{
		"v1, v1beta1, and not in v1alpha1": {kind("v1alpha1", "Thing"), nil},
		"and not in v2":                    {kind("v2", "Thing"), nil},
		`"Thing", and the limits`:          {kind("v1", "Other"), nil},
		"only kinds with namespaces":       {kind("v1", "Thing"), func(spec map[string]any) { spec["scope"] = "Cluster" }},
	} {
		host := hostDefinition()
		if object.edit != nil {
			object.edit(host.Object["spec"].(map[string]any))
		}
		if _, err := translate.Definition(host, object.kind); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}
