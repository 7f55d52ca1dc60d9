package tenant

import (
	"strings"
	"testing"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

func TestDecideStorage(t *testing.T) {
	class := func(name string, isDefault bool) storagev1.StorageClass {
		c := storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if isDefault {
			c.Annotations = map[string]string{defaultClassAnnotation: "true"}
		}
		return c
	}
	name := func(s string) *string { return &s }
	cases := map[string]struct {
		spec    *api.StorageSpec
		classes []storagev1.StorageClass
		want    api.StorageType
		// says is what the problem must name.
		says []string
	}{
		"nothing said, a default":  {classes: []storagev1.StorageClass{class("a", true)}, want: api.StoragePVC},
		"nothing said, no default": {classes: []storagev1.StorageClass{class("a", false), class("b", false)}, says: []string{"--storage-class", "--ephemeral", "a, b"}},
		"nothing said, no class":   {says: []string{"none at all"}},
		"ephemeral":                {spec: &api.StorageSpec{Type: api.StorageEmptyDir}, want: api.StorageEmptyDir},
		"a class":                  {spec: &api.StorageSpec{Class: name("b")}, classes: []storagev1.StorageClass{class("b", false)}, want: api.StoragePVC},
		"a class that is not":      {spec: &api.StorageSpec{Class: name("c")}, classes: []storagev1.StorageClass{class("b", true)}, says: []string{`"c"`, "there is b"}},
	}
	for caseName, c := range cases {
		t.Run(caseName, func(t *testing.T) {
			e := tenancy.Of(&api.Tenant{
				ObjectMeta: metav1.ObjectMeta{Name: "acme"},
				Spec:       api.TenantSpec{Type: api.VirtualCluster, VirtualCluster: &api.VirtualClusterSpec{Storage: c.spec}},
			})
			got, problem := decideStorage(e, c.classes)
			if (problem != nil) != (c.want == "") {
				t.Fatalf("got %+v, %v", got, problem)
			}
			if problem == nil && got.Type != c.want {
				t.Errorf("got %+v", got)
			}
			for _, text := range c.says {
				if !strings.Contains(problem.message, text) {
					t.Errorf("the message lacks %q: %s", text, problem.message)
				}
			}
		})
	}
}

func TestRangeIn(t *testing.T) {
	cases := map[string]string{
		`Service "x" is invalid: spec.clusterIPs: Invalid value: ["1.1.1.1"]: failed to allocate IP 1.1.1.1: the provided IP (1.1.1.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12`: "10.96.0.0/12",
		`The range of valid IPs is fd00:10:96::/112`: "fd00:10:96::/112",
		`services is forbidden`:                      "",
	}
	for message, want := range cases {
		if got, ok := rangeIn(message); got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v", message, got, ok)
		}
	}
}
