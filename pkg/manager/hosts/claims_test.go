package hosts_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/manager/hosts"
)

func key(namespace, name string) hosts.Key {
	return hosts.Key{Kind: "Ingress", NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}
}

func claim(second int, names ...string) *hosts.Claim {
	slices.Sort(names)
	return &hosts.Claim{Created: time.Unix(int64(second), 0), Shown: "default/shown", Hosts: names}
}

func TestClaims(t *testing.T) {
	c := &hosts.Claims{}
	late := func(k hosts.Key, want ...string) {
		t.Helper()
		got, _ := c.Late(k)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v came late for (-want +got):\n%s", k, diff)
		}
	}
	one, two, own, three := key("one", "web"), key("two", "shop"), key("one", "second"), key("three", "x")
	c.Set(two, claim(20, "a.example.com", "b.example.com"))
	late(two)
	if diff := cmp.Diff([]hosts.Key{one, two}, c.Set(one, claim(10, "a.example.com", "c.example.com"))); diff != "" {
		t.Errorf("who is concerned (-want +got):\n%s", diff)
	}
	// It is heard of later, as after a restart, but was there before.
	late(one)
	late(two, "a.example.com")
	// Within a tenant there is no conflict.
	c.Set(own, claim(30, "a.example.com", "c.example.com"))
	late(own)
	// A wildcard is another name.
	c.Set(three, claim(40, "*.example.com", "b.example.com", "a.example.com"))
	late(three, "a.example.com", "b.example.com")
	said := c.LateIn("three")
	if !strings.Contains(said, "a.example.com, b.example.com (Ingress default/shown)") || strings.Contains(said, "one") || strings.Contains(said, "two") || strings.Contains(said, "shop") {
		t.Errorf("it says %q", said)
	}
	if said := c.LateIn("one"); said != "" {
		t.Errorf("the first is told %q", said)
	}
	// The first goes, or claims something else: the next one moves up.
	if diff := cmp.Diff([]hosts.Key{own, one, three, two}, c.Set(one, nil)); diff != "" {
		t.Errorf("who is concerned (-want +got):\n%s", diff)
	}
	late(two)
	late(own, "a.example.com")
	c.Set(own, claim(30, "c.example.com"))
	c.Set(two, claim(20, "d.example.com"))
	late(three)
	if said := c.LateIn("three"); said != "" {
		t.Errorf("it says %q", said)
	}
	// In the same second it goes by name.
	c.Set(key("b", "x"), claim(50, "s.example.com"))
	c.Set(key("a", "x"), claim(50, "s.example.com"))
	late(key("a", "x"))
	late(key("b", "x"), "s.example.com")
}

func TestClaimOf(t *testing.T) {
	object := func(kind string, spec map[string]any) *unstructured.Unstructured {
		u := &unstructured.Unstructured{Object: map[string]any{"kind": kind, "spec": spec}}
		u.SetNamespace("n")
		u.SetName("host-name")
		return u
	}
	synced := object("Ingress", map[string]any{})
	synced.SetAnnotations(map[string]string{api.AnnotationVirtualNamespace: "default", api.AnnotationVirtualName: "web"})
	for name, test := range map[string]struct {
		object *unstructured.Unstructured
		hosts  []string
		shown  string
	}{
		"an Ingress": {object("Ingress", map[string]any{
			"rules": []any{map[string]any{"host": "B.example.com"}, map[string]any{"host": "a.example.com"}, map[string]any{"host": "a.example.com"}, map[string]any{}},
			"tls":   []any{map[string]any{"hosts": []any{"c.example.com"}}},
		}), []string{"a.example.com", "b.example.com", "c.example.com"}, "host-name"},
		"an HTTPRoute":             {object("HTTPRoute", map[string]any{"hostnames": []any{"a.example.com", "*.example.com"}}), []string{"*.example.com", "a.example.com"}, "host-name"},
		"one without names":        {object("HTTPRoute", map[string]any{}), nil, "host-name"},
		"one of another shape":     {object("Ingress", map[string]any{"rules": "x", "tls": []any{"y"}}), nil, "host-name"},
		"one of a virtual cluster": {synced, nil, "default/web"},
	} {
		got := hosts.ClaimOf(test.object)
		if diff := cmp.Diff(test.hosts, got.Hosts); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if got.Shown != test.shown {
			t.Errorf("%s is called %q", name, got.Shown)
		}
	}
}
