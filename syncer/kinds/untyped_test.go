package kinds_test

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// fuzzUntyped gives a kind objects of any shape: what comes out holds no other
// fields than the listed ones, and the input stays untouched.
func fuzzUntyped(f *testing.F, kind translate.Kind[*unstructured.Unstructured], fields map[string][]string) {
	random := rand.New(rand.NewPCG(7, 8))
	for _, size := range []int{0, 64, 256, 1024, 4096} {
		seed := make([]byte, size)
		for i := range seed {
			seed[i] = byte(random.Uint32())
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		random := rand.New(rand.NewPCG(uint64(len(data)), sum(data)))
		host := &unstructured.Unstructured{Object: map[string]any{}}
		for _, name := range []string{"spec", "status", "parameters", "driver", "deletionPolicy", "other"} {
			host.Object[name] = anything(random, 3)
		}
		host.SetGroupVersionKind(kind.GroupVersionKind)
		host.SetName("a")
		host.SetLabels(map[string]string{"company.example/tier": "gold"})
		driver, _ := host.Object["driver"].(string)
		class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Provisioner: driver}
		before := host.DeepCopy()
		in := translate.Input[*unstructured.Unstructured]{
			Tenant: translate.NewTenant(testTenant(), nil), Host: host, Refs: translate.Objects{Host: []translate.Object{class}},
		}
		virtual, err := kind.ToVirtual(in)
		if diff := cmp.Diff(before, host); diff != "" {
			t.Fatalf("ToVirtual changed what it was given:\n%s", diff)
		}
		if err != nil || virtual == nil {
			return
		}
		if !translate.FromHost(virtual) || len(virtual.GetLabels()) > 0 {
			t.Fatalf("metadata: %v", virtual.Object["metadata"])
		}
		if _, err := json.Marshal(virtual); err != nil {
			t.Fatal(err)
		}
		for name, value := range virtual.Object {
			below, known := fields[name]
			if !known && !slices.Contains([]string{"apiVersion", "kind", "metadata"}, name) {
				t.Fatalf("field %q crossed", name)
			}
			if nested, ok := value.(map[string]any); ok && known {
				for key := range nested {
					if !slices.Contains(below, key) {
						t.Fatalf("field %s.%s crossed", name, key)
					}
				}
			}
		}
	})
}

func sum(data []byte) uint64 {
	var out uint64
	for _, b := range data {
		out = out*31 + uint64(b)
	}
	return out
}

// anything is some JSON, with the names of fields that mean something.
func anything(random *rand.Rand, depth int) any {
	switch n := random.IntN(5); {
	case n == 0:
		return "text"
	case n == 1:
		return int64(random.IntN(10))
	case n == 2 || depth == 0:
		return nil
	case n == 3:
		return []any{anything(random, depth-1), anything(random, depth-1)}
	}
	out := map[string]any{}
	for _, name := range []string{"controllerName", "parametersRef", "description", "conditions", "supportedFeatures", "secretName", "other"} {
		if random.IntN(2) == 0 {
			out[name] = anything(random, depth-1)
		}
	}
	return out
}

func FuzzGatewayClass(f *testing.F) {
	fuzzUntyped(f, kinds.GatewayClass(), map[string][]string{
		"spec": {"controllerName", "description"}, "status": {"conditions", "supportedFeatures"},
	})
}

func FuzzVolumeSnapshotClass(f *testing.F) {
	fuzzUntyped(f, kinds.VolumeSnapshotClass(), map[string][]string{"driver": nil, "deletionPolicy": nil})
}
