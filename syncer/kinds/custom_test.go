package kinds_test

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// fuzzedResource has a path of every sort, over the names that anything makes.
func fuzzedResource() api.CustomResource {
	return api.CustomResource{
		Group: "example.com", Version: "v1", Kind: "Thing", Resource: "things",
		References: []api.CustomReference{
			{Path: ".spec.name", Kind: "Secret", From: api.FromHost},
			{Path: ".spec.items[*].name", Kind: "ConfigMap", KindPath: ".spec.items[*].kind"},
			{Path: ".spec.items[*].name", Kind: "Service"},
			{Path: ".spec.names[*]", Kind: "Pod"},
		},
		SelectorPaths:  []string{".spec.selector"},
		LabelPaths:     []string{".spec.labels"},
		NamespacePaths: []string{".spec.namespace"},
		HostPaths:      []string{".spec.host", ".spec.hosts[*]"},
	}
}

// FuzzCustom: of an object of any shape nothing crosses that leads out of the
// tenant, and what was synced goes again without taking anything else along.
func FuzzCustom(f *testing.F) {
	for _, seed := range [][]byte{{}, []byte("a"), []byte("thing"), []byte("another"), []byte("one with more in it"), make([]byte, 64)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		random := rand.New(rand.NewPCG(uint64(len(data)), sum(data)))
		for range 50 {
			checkCustom(t, random)
		}
	})
}

func checkCustom(t *testing.T, random *rand.Rand) {
	t.Helper()
	thing := func(name string) *unstructured.Unstructured {
		object := &unstructured.Unstructured{Object: map[string]any{}}
		for _, field := range []string{"spec", "data", "status"} {
			if random.IntN(4) > 0 {
				object.Object[field] = thingField(random, 4)
			}
		}
		object.SetAPIVersion("example.com/v1")
		object.SetKind("Thing")
		named(object, name)
		return object
	}
	config := testTenant()
	config.Hosts = []string{"*.example.com"}
	kind := kinds.Custom(fuzzedResource())
	in := translate.Input[*unstructured.Unstructured]{Tenant: translate.NewTenant(config, testOwner()), Virtual: thing("virtual"), Host: thing("host")}
	erased := translate.Input[translate.Object]{Tenant: in.Tenant, Virtual: in.Virtual, Host: in.Host}
	checkInvariants(t, kind.Erase(), erased)

	desired, err := kind.ToHost(in)
	if err != nil {
		return
	}
	leads := func(path string, value any) {
		text, ok := value.(string)
		switch {
		case ok && (text == "sublet-pki" || strings.HasPrefix(text, api.Prefix)):
			t.Fatalf("%s: %q crossed", path, text)
		case ok && strings.HasSuffix(path, ".namespace") && text != "" && text != in.Tenant.HostNamespace:
			t.Fatalf("%s: namespace %q crossed", path, text)
		case ok && path == ".spec.name" && text != "" && !isHostName(text):
			t.Fatalf("%s: %q is not translated", path, text)
		case ok && path == ".spec.host" && !api.HostCovers("*.example.com", text):
			t.Fatalf("%s: host %q crossed", path, text)
		}
	}
	walk("", map[string]any{"spec": desired.Object["spec"], "data": desired.Object["data"]}, leads)
	for _, path := range [][]string{{"spec", "selector", "matchLabels"}, {"spec", "labels"}} {
		above, found, _ := unstructured.NestedFieldNoCopy(desired.Object, path[:2]...)
		if !found || above == nil {
			continue
		}
		labels, _, _ := unstructured.NestedStringMap(desired.Object, path...)
		if labels[api.LabelTenant] != "acme" || labels[api.LabelVirtualNamespace] != "default" {
			t.Fatalf("%v is not confined: %v", path, labels)
		}
	}
	for _, made := range kind.Made(in.Virtual) {
		if made.Host != translate.HostName("default", made.Virtual.Name) || made.Virtual.Namespace != "default" {
			t.Fatalf("made: %+v", made)
		}
	}

	// Laid over an object of the host's own fields, and then over that another
	// one, only the latter's fields and the host's are left.
	host := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"filledIn": "by the host"}}}
	host.SetAnnotations(map[string]string{api.AnnotationSyncedFields: "{}"})
	if _, ok := desired.Object["spec"].(map[string]any); !ok && desired.Object["spec"] != nil {
		return
	}
	merge := func(desired *unstructured.Unstructured) {
		host = kind.Merge(host, desired)
		translate.MergeMeta(host, desired)
	}
	merge(desired)
	merge(desired)
	if got, _, _ := unstructured.NestedString(host.Object, "spec", "filledIn"); got != "by the host" {
		t.Fatalf("what the host filled in is gone: %v", host.Object)
	}
	empty := in
	empty.Virtual = in.Virtual.DeepCopy()
	delete(empty.Virtual.Object, "data")
	empty.Virtual.Object["spec"] = map[string]any{"left": "over"}
	last, err := kind.ToHost(empty)
	if err != nil {
		t.Fatal(err)
	}
	merge(last)
	if diff := cmp.Diff(map[string]any{"filledIn": "by the host", "left": "over"}, host.Object["spec"]); diff != "" {
		t.Fatalf("after all else went (-want +got):\n%s", diff)
	}
}

// walk visits every value below one.
func walk(at string, value any, visit func(at string, value any)) {
	visit(at, value)
	switch value := value.(type) {
	case []any:
		for i := range value {
			walk(at+"[*]", value[i], visit)
		}
	case map[string]any:
		for name := range value {
			walk(at+"."+name, value[name], visit)
		}
	}
}

// thingField is some JSON with the names of fields and values that mean something.
func thingField(random *rand.Rand, depth int) any {
	texts := []string{
		"", "web", "a.b", "default", "kube-system", "sublet-pki", "acme-host/sublet-pki", "x.example.com", "example.org", "web:tokens",
		"Secret", "ConfigMap", api.LabelTenant, "acme-host",
	}
	switch n := random.IntN(10); {
	case depth > 0 && n < 6:
		names := []string{
			"name", "names", "items", "kind", "selector", "matchLabels", "matchExpressions", "labels", "namespace", "namespaces",
			"namespaceSelector", "host", "hosts", "other", api.Prefix + "component",
		}
		object := map[string]any{}
		for range random.IntN(4) {
			name := names[random.IntN(len(names))]
			if random.IntN(8) > 0 && name == api.Prefix+"component" {
				name = "other"
			}
			object[name] = thingField(random, depth-1)
		}
		return object
	case depth > 0 && n < 7:
		list := []any{}
		for range random.IntN(3) {
			list = append(list, thingField(random, depth-1))
		}
		return list
	case n < 9:
		return texts[random.IntN(len(texts))]
	default:
		return int64(random.IntN(3))
	}
}

// TestFor: what the limits name is added once, and takes the place of nothing.
func TestFor(t *testing.T) {
	things := fuzzedResource()
	older := things
	older.Version = "v1beta1"
	routes := api.CustomResource{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "HTTPRoute", Resource: "httproutes"}
	got := kinds.For([]api.CustomResource{routes, things, older})
	if len(got) != len(kinds.All())+1 {
		t.Errorf("%d kinds, want %d", len(got), len(kinds.All())+1)
	}
	last := got[len(got)-1]
	if last.GroupVersionKind.Version != "v1" || !last.Borrowed || !last.Optional {
		t.Errorf("%+v", last.GroupVersionKind)
	}
	if i := slices.IndexFunc(got, func(k translate.Any) bool { return k.GroupVersionKind.Kind == "HTTPRoute" }); got[i].Borrowed {
		t.Error("HTTPRoute is no longer what it was")
	}
}

// TestMadeIsACopy: what goes to the tenant shares nothing with the cache.
func TestMadeIsACopy(t *testing.T) {
	virtual := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"name": "tls"}}}
	named(virtual, "virtual")
	made := kinds.Custom(fuzzedResource()).Made(virtual)
	if len(made) != 1 || made[0].Virtual != (types.NamespacedName{Namespace: "default", Name: "tls"}) {
		t.Fatalf("%+v", made)
	}
	host := &corev1.Secret{Data: map[string][]byte{"k": []byte("v")}}
	host.Finalizers = []string{"example.com/f"}
	host.OwnerReferences = append(host.OwnerReferences, *testOwner())
	out, err := made[0].ToVirtual(translate.NewTenant(testTenant(), nil), nil, host)
	if err != nil {
		t.Fatal(err)
	}
	out.(*corev1.Secret).Data["k"][0] = 'x'
	if string(host.Data["k"]) != "v" {
		t.Error("the copy shares its data")
	}
	if len(out.GetFinalizers()) > 0 || len(out.GetOwnerReferences()) > 0 || out.GetNamespace() != "default" || !translate.FromHost(out) {
		content, _ := json.Marshal(out)
		t.Errorf("%s", content)
	}
}
