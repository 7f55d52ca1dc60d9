package kinds_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

var update = flag.Bool("update", false, "rewrite the want files of testdata/*/*.txtar")

// TestGolden runs every testdata/KIND/CASE.txtar. The comment of an archive is
// the reason of the case; its files are:
//
//	config.yaml          fields of api.ControlPlaneConfig that differ from testTenant
//	virtual.yaml         the virtual object
//	host.yaml            the host object as it is
//	refs.virtual.yaml    gathered objects, by side; several documents
//	refs.host.yaml
//
// and what comes out, rewritten by -update:
//
//	want.host.yaml       ToHost; merged into host.yaml if that is there
//	want.virtual.yaml    Status or ToVirtual, if the host object is there
//	want.replace         Replace, if the host object is to be made anew
//	want.NAME.yaml       the host object written to the subresource NAME
//	want.refs            Refs
//	want.tokens.yaml     Tokens
//	want.made.yaml       Made, and what it makes of those objects in refs.host.yaml
//	want.binding.yaml    Bind
//	want.error           the error of ToHost or ToVirtual
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no goldens under testdata")
	}
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".txtar")
		t.Run(name, func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			kind := kindNamed(t, filepath.Base(filepath.Dir(file)), archive)
			golden := parseGolden(t, kind, archive)
			got := golden.outcome(t)
			checkInvariants(t, kind, golden.in)
			if *update {
				writeGolden(t, file, archive, got)
				return
			}
			want := map[string]string{}
			for _, f := range archive.Files {
				if strings.HasPrefix(f.Name, "want.") {
					want[f.Name] = string(f.Data)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: run go test with -update if the change is meant (-want +got):\n%s", file, diff)
			}
		})
	}
}

// TestEveryKindHasGoldens fails for a kind without a case.
func TestEveryKindHasGoldens(t *testing.T) {
	for _, kind := range kinds.All() {
		dir := filepath.Join("testdata", strings.ToLower(kind.GroupVersionKind.Kind))
		if files, _ := filepath.Glob(filepath.Join(dir, "*.txtar")); len(files) == 0 {
			t.Errorf("%s has no golden: add one under %s", kind.GroupVersionKind.Kind, dir)
		}
	}
}

// testTenant is the tenant of every golden.
func testTenant() api.ControlPlaneConfig {
	return api.ControlPlaneConfig{
		Tenant:        "acme",
		HostNamespace: "acme-host",
		ServiceCIDRs:  []string{"10.96.0.0/16"},
		APIServiceIP:  "10.96.0.11",
		DNSServiceIP:  "10.96.0.12",
		ClusterDomain: "cluster.local",
		PodSecurity:   api.PodSecurityBaseline,
	}
}

func testOwner() *metav1.OwnerReference {
	return &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "sublet", UID: "owner-uid"}
}

type golden struct {
	kind translate.Any
	in   translate.Input[translate.Object]
}

// kindNamed finds the kind of a directory; in testdata/custom it is the first one
// of a case's limits.
func kindNamed(t *testing.T, name string, archive *txtar.Archive) translate.Any {
	t.Helper()
	if name == "custom" {
		config := api.ControlPlaneConfig{}
		for _, f := range archive.Files {
			if f.Name == "config.yaml" {
				if err := yaml.UnmarshalStrict(f.Data, &config); err != nil {
					t.Fatalf("config.yaml: %v", err)
				}
			}
		}
		return kinds.Custom(config.CustomResources[0]).Erase()
	}
	for _, kind := range kinds.All() {
		if strings.EqualFold(kind.GroupVersionKind.Kind, name) {
			return kind
		}
	}
	t.Fatalf("no kind %q in kinds.All()", name)
	return translate.Any{}
}

func parseGolden(t *testing.T, kind translate.Any, archive *txtar.Archive) golden {
	t.Helper()
	config := testTenant()
	g := golden{kind: kind}
	for _, f := range archive.Files {
		switch {
		case f.Name == "config.yaml":
			if err := yaml.UnmarshalStrict(f.Data, &config); err != nil {
				t.Fatalf("config.yaml: %v", err)
			}
		case f.Name == "virtual.yaml":
			g.in.Virtual = decodeOne(t, f)
		case f.Name == "host.yaml":
			g.in.Host = decodeOne(t, f)
		case f.Name == "refs.virtual.yaml":
			g.in.Refs.Virtual = decode(t, f)
		case f.Name == "refs.host.yaml":
			g.in.Refs.Host = decode(t, f)
		case !strings.HasPrefix(f.Name, "want."):
			t.Fatalf("unknown file %q", f.Name)
		}
	}
	g.in.Tenant = translate.NewTenant(config, testOwner())
	g.in.Names = namesOf(g)
	return g
}

// namesOf knows what the engine would: the object's own names and those of all
// that its references name.
func namesOf(g golden) translate.Names {
	known := map[string]types.NamespacedName{}
	add := func(namespace, name string) {
		known[translate.HostName(namespace, name)] = types.NamespacedName{Namespace: namespace, Name: name}
	}
	if g.in.Virtual != nil {
		add(g.in.Virtual.GetNamespace(), g.in.Virtual.GetName())
	}
	if g.kind.Refs != nil {
		for _, ref := range g.kind.Refs(g.in.Virtual, g.in.Host) {
			if ref.Side == translate.Virtual && ref.Name != "" {
				add(ref.Namespace, ref.Name)
			}
		}
	}
	for _, host := range g.in.Refs.Host {
		if virtual, ok := g.in.Tenant.Owns(host); ok {
			add(virtual.Namespace, virtual.Name)
		}
	}
	return func(host string) (types.NamespacedName, bool) {
		name, ok := known[host]
		return name, ok
	}
}

func (g golden) outcome(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	put := func(name string, object any) {
		data, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(data)
	}
	if g.kind.Refs != nil {
		var b strings.Builder
		for _, ref := range g.kind.Refs(g.in.Virtual, g.in.Host) {
			name := ref.Name
			if name == "" {
				name = "*"
			}
			b.WriteString(ref.Side.String() + " " + ref.Kind.String() + " " + ref.Namespace + "/" + name)
			for _, use := range []struct {
				set  bool
				name string
			}{{ref.Read, "read"}, {ref.Watch, "watch"}, {ref.Sync, "sync"}} {
				if use.set {
					b.WriteString(" " + use.name)
				}
			}
			b.WriteString("\n")
		}
		if b.Len() > 0 {
			out["want.refs"] = b.String()
		}
	}
	if g.kind.ToHost != nil && g.in.Virtual != nil {
		desired, err := g.kind.ToHost(g.in)
		switch {
		case err != nil:
			out["want.error"] = err.Error() + "\n"
		case desired == nil:
			out["want.host.yaml"] = "null\n"
		case g.in.Host == nil:
			put("want.host.yaml", desired)
		case g.kind.Replace != nil && g.kind.Replace(g.in.Host, desired):
			out["want.replace"] = "true\n"
			put("want.host.yaml", desired)
		default:
			merged := g.in.Host.DeepCopyObject().(translate.Object)
			if g.kind.Merge != nil {
				merged = g.kind.Merge(merged, desired)
			}
			translate.MergeMeta(merged, desired)
			put("want.host.yaml", merged)
			for _, sub := range g.kind.Subresources {
				want := desired
				if sub.From != nil {
					want = sub.From(g.in)
				}
				before := g.in.Host.DeepCopyObject().(translate.Object)
				after := sub.Merge(before.DeepCopyObject().(translate.Object), want)
				if !cmp.Equal(before, after) {
					put("want."+sub.Name+".yaml", after)
				}
			}
		}
		if g.kind.Tokens != nil {
			if tokens := g.kind.Tokens(g.in.Virtual); len(tokens) > 0 {
				put("want.tokens.yaml", tokens)
			}
		}
	}
	if g.kind.Made != nil && g.in.Virtual != nil {
		g.putMade(t, put)
	}
	if g.in.Host == nil {
		return out
	}
	if g.kind.Bind != nil {
		if binding := g.kind.Bind(g.in); binding != nil {
			put("want.binding.yaml", binding)
		}
	}
	back := g.kind.Status
	if g.kind.ToVirtual != nil {
		back = g.kind.ToVirtual
	}
	if back == nil {
		return out
	}
	virtual, err := back(g.in)
	switch {
	case err != nil:
		out["want.error"] = err.Error() + "\n"
	case virtual == nil:
		out["want.virtual.yaml"] = "null\n"
	default:
		put("want.virtual.yaml", virtual)
	}
	return out
}

// putMade puts what something on the host makes for the object.
func (g golden) putMade(t *testing.T, put func(string, any)) {
	t.Helper()
	type entry struct {
		Kind, Virtual, Host string
		Copy                translate.Object `json:",omitempty"`
	}
	var all []entry
	for _, made := range g.kind.Made(g.in.Virtual) {
		e := entry{Kind: made.Kind.String(), Virtual: made.Virtual.String(), Host: made.Host}
		for _, object := range g.in.Refs.Host {
			if object.GetName() != made.Host {
				continue
			}
			var err error
			if e.Copy, err = made.ToVirtual(g.in.Tenant, g.in.Names, object); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, e)
	}
	if len(all) > 0 {
		put("want.made.yaml", all)
	}
}

func writeGolden(t *testing.T, file string, archive *txtar.Archive, got map[string]string) {
	t.Helper()
	written := &txtar.Archive{Comment: archive.Comment}
	for _, f := range archive.Files {
		if !strings.HasPrefix(f.Name, "want.") {
			written.Files = append(written.Files, f)
		}
	}
	names := make([]string, 0, len(got))
	for name := range got {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		written.Files = append(written.Files, txtar.File{Name: name, Data: []byte(got[name])})
	}
	if err := os.WriteFile(file, txtar.Format(written), 0o644); err != nil {
		t.Fatal(err)
	}
}

func testScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme, networkingv1.AddToScheme, nodev1.AddToScheme, policyv1.AddToScheme, schedulingv1.AddToScheme, storagev1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return scheme
}

func decodeOne(t *testing.T, f txtar.File) translate.Object {
	t.Helper()
	all := decode(t, f)
	if len(all) != 1 {
		t.Fatalf("%s: %d documents, want 1", f.Name, len(all))
	}
	return all[0]
}

func decode(t *testing.T, f txtar.File) []translate.Object {
	t.Helper()
	decoder := serializer.NewCodecFactory(testScheme(), serializer.EnableStrict).UniversalDeserializer()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(f.Data)))
	var all []translate.Object
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if runtime.IsNotRegisteredError(err) {
			// A custom resource, which says itself what it is.
			// By the decoder of the API, which tells whole numbers from others.
			untyped := &unstructured.Unstructured{}
			content, err := yaml.YAMLToJSON(document)
			if err != nil {
				t.Fatalf("%s: %v", f.Name, err)
			}
			if err := untyped.UnmarshalJSON(content); err != nil {
				t.Fatalf("%s: %v", f.Name, err)
			}
			all = append(all, untyped)
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		// Objects come from caches without apiVersion and kind.
		object.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		all = append(all, object.(translate.Object))
	}
}
