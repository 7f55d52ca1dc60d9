package translate_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func tenant() translate.Tenant {
	return translate.NewTenant(api.ControlPlaneConfig{Tenant: "acme", HostNamespace: "acme-host"}, nil)
}

func TestHostName(t *testing.T) {
	for reason, test := range map[string]struct{ namespace, name, want string }{
		"readable":                {"default", "web", `^web-default-[0-9a-f]{10}$`},
		"dots are not for labels": {"default", "kube-root-ca.crt", `^kube-root-ca-crt-default-[0-9a-f]{10}$`},
		"a letter comes first":    {"7", "0", `^x-0-7-[0-9a-f]{10}$`},
		"long names are cut":      {strings.Repeat("n", 63), strings.Repeat("a", 253), `^a{52}-[0-9a-f]{10}$`},
		"no dash before the dash": {"n", strings.Repeat("a", 51) + "-b", `^a{51}-[0-9a-f]{10}$`},
	} {
		t.Run(reason, func(t *testing.T) {
			if got := translate.HostName(test.namespace, test.name); !regexp.MustCompile(test.want).MatchString(got) {
				t.Errorf("HostName(%q, %q) = %q, want %s", test.namespace, test.name, got, test.want)
			}
		})
	}
}

// TestHostNamesDiffer: pairs that a careless rule would give the same name.
func TestHostNamesDiffer(t *testing.T) {
	names := map[string]string{}
	long := strings.Repeat("a", 100)
	for _, object := range [][2]string{
		{"a-b", "c"}, {"b", "c-a"}, {"b", "a.b"}, {"b", "a-b"}, {"n", long + "1"}, {"n", long + "2"},
		{"default", "web"}, {"web", "default"}, {"default", "web-tokens"},
	} {
		name := translate.HostName(object[0], object[1])
		if before, taken := names[name]; taken {
			t.Errorf("%v and %s have the host name %q", object, before, name)
		}
		names[name] = object[0] + "/" + object[1]
	}
	if name := translate.TokenSecretName("default", "web"); names[name] != "" {
		t.Errorf("the tokens of default/web have the name of %s", names[name])
	}
}

func FuzzHostName(f *testing.F) {
	f.Add("default", "web")
	f.Add("", "")
	f.Add("-", "Ä.:/")
	f.Fuzz(func(t *testing.T, namespace, name string) {
		got := translate.HostName(namespace, name)
		if problems := validation.IsDNS1035Label(got); len(problems) > 0 {
			t.Fatalf("HostName(%q, %q) = %q: %v", namespace, name, got, problems)
		}
		if again := translate.HostName(namespace, name); again != got {
			t.Fatalf("HostName(%q, %q) = %q, then %q", namespace, name, got, again)
		}
	})
}

func TestRewrite(t *testing.T) {
	web := translate.HostName("shop", "web")
	names := func(host string) (types.NamespacedName, bool) {
		return types.NamespacedName{Namespace: "shop", Name: "web"}, host == web
	}
	for reason, test := range map[string]struct{ text, want string }{
		"a name":                       {`pods "` + web + `" is forbidden`, `pods "web" is forbidden`},
		"with its namespace":           {`assigned acme-host/` + web + ` to node`, `assigned shop/web to node`},
		"with its namespace, quoted":   {`object "acme-host"/"` + web + `" not registered`, `object "shop"/"web" not registered`},
		"part of a longer name is not": {web + "-x", web + "-x"},
		"another namespace is not":     {`x-acme-host/` + web, `x-acme-host/web`},
		"at the end":                   {`see ` + web, `see web`},
		"nothing to do":                {`0/1 nodes are available`, `0/1 nodes are available`},
	} {
		t.Run(reason, func(t *testing.T) {
			if diff := cmp.Diff(test.want, tenant().Rewrite(test.text, names)); diff != "" {
				t.Error(diff)
			}
			if got := tenant().Rewrite(test.text, nil); got != test.text {
				t.Errorf("without names: %q", got)
			}
		})
	}
}

func TestOwns(t *testing.T) {
	ours := func(change func(*corev1.ConfigMap)) *corev1.ConfigMap {
		object := &corev1.ConfigMap{ObjectMeta: tenant().HostMeta(&metav1.ObjectMeta{Name: "a", Namespace: "n"})}
		change(object)
		return object
	}
	for reason, test := range map[string]struct {
		change func(*corev1.ConfigMap)
		want   bool
	}{
		"as made":                        {func(*corev1.ConfigMap) {}, true},
		"a copy under another name":      {func(c *corev1.ConfigMap) { c.Name += "-copy" }, false},
		"in another namespace":           {func(c *corev1.ConfigMap) { c.Namespace = "other" }, false},
		"of another tenant":              {func(c *corev1.ConfigMap) { c.Labels[api.LabelTenant] = "other" }, false},
		"part of the control plane":      {func(c *corev1.ConfigMap) { c.Labels[api.LabelComponent] = api.ComponentControlPlane }, false},
		"without the name it stands for": {func(c *corev1.ConfigMap) { delete(c.Annotations, api.AnnotationVirtualName) }, false},
	} {
		t.Run(reason, func(t *testing.T) {
			if _, got := tenant().Owns(ours(test.change)); got != test.want {
				t.Errorf("Owns: %v, want %v", got, test.want)
			}
		})
	}
}

func TestMergeMeta(t *testing.T) {
	virtual := &metav1.ObjectMeta{Name: "a", Namespace: "n", UID: "1", Labels: map[string]string{"app": "web", "old": "x"}, Annotations: map[string]string{"note": "1", "gone": "y"}}
	host := tenant().HostMeta(virtual)
	host.Labels["host"], host.Annotations["host/note"] = "stays", "stays"

	virtual.Labels, virtual.Annotations = map[string]string{"app": "db"}, map[string]string{"note": "2"}
	translate.MergeMeta(&host, new(tenant().HostMeta(virtual)))
	wantLabels := map[string]string{
		"app": "db", "host": "stays",
		api.LabelTenant: "acme", api.LabelComponent: api.ComponentSynced, api.LabelVirtualNamespace: "n",
	}
	wantAnnotations := map[string]string{
		"note": "2", "host/note": "stays",
		api.AnnotationVirtualName: "a", api.AnnotationVirtualNamespace: "n", api.AnnotationVirtualUID: "1",
		api.AnnotationSyncedLabels: "app", api.AnnotationSyncedAnnotations: "note",
	}
	if diff := cmp.Diff(wantLabels, host.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantAnnotations, host.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
}

// TestAnnotationsFit: an object that is full in the tenant has room for our
// marks on the host, and keeps what is small.
func TestAnnotationsFit(t *testing.T) {
	size := func(annotations map[string]string) int {
		sum := 0
		for key, value := range annotations {
			sum += len(key) + len(value)
		}
		return sum
	}
	const limit = 256 << 10
	full := map[string]string{"small": "kept", "large": "", "larger": strings.Repeat("ü", 100<<9)}
	full["large"] = strings.Repeat("x", limit-size(full))
	virtual := &metav1.ObjectMeta{Name: "a", Namespace: "n", Annotations: full}
	host := tenant().HostMeta(virtual)
	if got := size(host.Annotations); got > limit {
		t.Errorf("annotations have %d bytes, and the host takes %d", got, limit)
	}
	if host.Annotations["small"] != "kept" || host.Annotations["larger"] == "" || host.Annotations["large"] != "" {
		t.Errorf("kept: %v", host.Annotations[api.AnnotationSyncedAnnotations])
	}
	if got := host.Annotations[api.AnnotationSyncedAnnotations]; got != "larger,small" {
		t.Errorf("synced annotations are %q", got)
	}
	if size(full) != limit {
		t.Error("the virtual object was changed")
	}
	many := map[string]string{}
	for i := range 4000 {
		many[fmt.Sprintf("example.com/a-rather-long-key-without-a-value-%04d", i)] = strings.Repeat("v", i%7)
	}
	host = tenant().HostMeta(&metav1.ObjectMeta{Name: "a", Namespace: "n", Annotations: many})
	if got := size(host.Annotations); got > limit || len(host.Annotations) < 2000 {
		t.Errorf("of many small ones %d are left, with %d bytes", len(host.Annotations), got)
	}
}
