package kinds_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/randfill"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// checkInvariants holds for every kind and every input, sensible or not.
func checkInvariants(t *testing.T, kind translate.Any, in translate.Input[translate.Object]) {
	t.Helper()
	virtual, host := clone(in.Virtual), clone(in.Host)
	untouched := func(function string) {
		if diff := cmp.Diff(virtual, in.Virtual); diff != "" {
			t.Fatalf("%s changed the virtual object it was given:\n%s", function, diff)
		}
		if diff := cmp.Diff(host, in.Host); diff != "" {
			t.Fatalf("%s changed the host object it was given:\n%s", function, diff)
		}
	}
	if kind.Refs != nil {
		kind.Refs(in.Virtual, in.Host)
		untouched("Refs")
	}
	if kind.ToHost != nil && in.Virtual != nil {
		one, err := kind.ToHost(in)
		untouched("ToHost")
		two, again := kind.ToHost(in)
		if (err == nil) != (again == nil) {
			t.Fatalf("ToHost is not deterministic: %v, then %v", err, again)
		}
		if diff := cmp.Diff(one, two); diff != "" {
			t.Fatalf("ToHost is not deterministic:\n%s", diff)
		}
		if err == nil && one != nil {
			checkHostObject(t, in, one)
		}
	}
	if in.Host == nil {
		return
	}
	if kind.Status != nil && in.Virtual != nil {
		back, err := kind.Status(in)
		untouched("Status")
		if err == nil && back != nil && (back.GetName() != virtual.GetName() || back.GetNamespace() != virtual.GetNamespace() || back.GetUID() != virtual.GetUID()) {
			t.Fatalf("Status returned another object than %s/%s", virtual.GetNamespace(), virtual.GetName())
		}
	}
	if kind.ToVirtual != nil {
		back, err := kind.ToVirtual(in)
		untouched("ToVirtual")
		if err == nil && back != nil && !kind.Unwatched && !translate.FromHost(back) {
			t.Fatal("ToVirtual did not mark its object; use translate.VirtualMeta")
		}
	}
}

// checkHostObject: what goes to the host lies in the tenant's namespace, is
// marked as the tenant's, carries nothing reserved from the tenant.
func checkHostObject(t *testing.T, in translate.Input[translate.Object], host translate.Object) {
	t.Helper()
	if got, want := host.GetNamespace(), in.Tenant.HostNamespace; got != want {
		t.Fatalf("host namespace %q, want %q", got, want)
	}
	name, ours := in.Tenant.Owns(host)
	if !ours {
		t.Fatalf("host object %q is not marked as the tenant's: %v %v", host.GetName(), host.GetLabels(), host.GetAnnotations())
	}
	if want := (types.NamespacedName{Namespace: in.Virtual.GetNamespace(), Name: in.Virtual.GetName()}); name != want {
		t.Fatalf("host object stands for %v, want %v", name, want)
	}
	if got := host.GetFinalizers(); len(got) > 0 {
		t.Fatalf("finalizers crossed: %v", got)
	}
	if diff := cmp.Diff([]metav1.OwnerReference{*testOwner()}, host.GetOwnerReferences()); diff != "" {
		t.Fatalf("owner references (-want +got):\n%s", diff)
	}
	if host.GetUID() != "" || host.GetResourceVersion() != "" || host.GetGenerateName() != "" {
		t.Fatal("identity of the virtual object crossed")
	}
	for key, value := range in.Virtual.GetLabels() {
		if strings.HasPrefix(key, api.Prefix) && value != "" && host.GetLabels()[key] == value && value == forged {
			t.Fatalf("reserved label %q crossed", key)
		}
	}
}

// forged is a value that only a hostile tenant would put under a reserved key.
const forged = "forged-by-tenant"

// fuzzToHost is the body of a kind's fuzz target: objects filled at random
// must keep the invariants, and also those of check, if any.
func fuzzToHost[T translate.Object](f *testing.F, kind translate.Kind[T], check func(t *testing.T, in translate.Input[translate.Object])) {
	erased := kind.Erase()
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 16, 256, 1024, 4096, 4096, 16384, 16384} {
		seed := make([]byte, size)
		for i := range seed {
			seed[i] = byte(random.Uint32())
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := translate.Input[translate.Object]{Tenant: translate.NewTenant(testTenant(), testOwner())}
		filler := newFiller(data)
		virtual, host := kind.New(), kind.New()
		filler.Fill(virtual)
		filler.Fill(host)
		in.Virtual = named(virtual, "virtual")
		if kind.ToVirtual != nil {
			in.Virtual = nil
		}
		in.Host = named(host, "host")
		checkInvariants(t, erased, in)
		in.Host = nil
		checkInvariants(t, erased, in)
		if check != nil {
			check(t, in)
		}
	})
}

// named gives an object the identity that the API would have insisted on.
func named(o translate.Object, name string) translate.Object {
	o.SetName(name)
	o.SetNamespace("default")
	o.SetUID(types.UID(name + "-uid"))
	labels := o.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[api.LabelTenant] = forged
	labels[api.Prefix+"other"] = forged
	o.SetLabels(labels)
	return o
}

func newFiller(data []byte) *randfill.Filler {
	return randfill.NewFromGoFuzz(data).NilChance(0.4).NumElements(0, 3).MaxDepth(14).Funcs(
		func(s *string, c randfill.Continue) { *s = fmt.Sprintf("s%d", c.Intn(50)) },
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewQuantity(int64(c.Intn(1000)), resource.DecimalSI)
		},
		func(v *metav1.Time, c randfill.Continue) { *v = metav1.NewTime(time.Unix(int64(c.Intn(1_000_000)), 0)) },
		func(v *metav1.MicroTime, c randfill.Continue) {
			*v = metav1.NewMicroTime(time.Unix(int64(c.Intn(1_000_000)), 0))
		},
		func(v *metav1.FieldsV1, c randfill.Continue) {},
		func(v *intstr.IntOrString, c randfill.Continue) { *v = intstr.FromInt32(int32(c.Intn(1000))) },
	)
}

func clone(o translate.Object) translate.Object {
	if o == nil || reflect.ValueOf(o).IsNil() {
		return nil
	}
	return o.DeepCopyObject().(translate.Object)
}
