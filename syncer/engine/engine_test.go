package engine

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	testclock "k8s.io/utils/clock/testing"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// testKind stands for any kind that begins in the tenant.
func testKind() translate.Kind[*corev1.Service] {
	return translate.Kind[*corev1.Service]{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Service"),
		Resource:         "services",
		Namespaced:       true,
		New:              func() *corev1.Service { return &corev1.Service{} },
		NewList:          func() translate.ObjectList { return &corev1.ServiceList{} },
		ToHost: func(in translate.Input[*corev1.Service]) (*corev1.Service, error) {
			return &corev1.Service{ObjectMeta: in.Tenant.HostMeta(in.Virtual)}, nil
		},
	}
}

// testEngine talks to nobody; its caches are filled by hand.
func testEngine(t *testing.T, kinds ...translate.Any) (*Engine, *testclock.FakeClock) {
	t.Helper()
	return testEngineAt(t, "http://virtual.invalid", kinds...)
}

func testEngineAt(t *testing.T, virtual string, kinds ...translate.Any) (*Engine, *testclock.FakeClock) {
	t.Helper()
	return testEngineBetween(t, virtual, "host.invalid", kinds...)
}

func testEngineBetween(t *testing.T, virtual, host string, kinds ...translate.Any) (*Engine, *testclock.FakeClock) {
	t.Helper()
	clock := testclock.NewFakeClock(time.Unix(1000, 0))
	e, err := New(Options{
		Tenant:  translate.NewTenant(api.ControlPlaneConfig{Tenant: "acme", HostNamespace: "acme-host"}, nil),
		Kinds:   kinds,
		Virtual: &rest.Config{Host: virtual},
		Host:    &rest.Config{Host: host},
		Clock:   clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range e.sources {
		s.store = cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{namespaceIndex: cache.MetaNamespaceIndexFunc})
	}
	return e, clock
}

func put(t *testing.T, s *source, object metav1.Object) {
	t.Helper()
	if err := s.store.Update(object); err != nil {
		t.Fatal(err)
	}
}

func service(version string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "web", UID: "1", ResourceVersion: version}}
}

func TestKindsAreListedOnce(t *testing.T) {
	if _, err := New(Options{Kinds: []translate.Any{testKind().Erase(), testKind().Erase()}, Virtual: &rest.Config{}, Host: &rest.Config{}}); err == nil {
		t.Error("a kind may be listed twice")
	}
}

// TestHold: the engine does not undo on the host what has yet to be stored in
// the tenant, and does as soon as it is known that it never will be.
func TestHold(t *testing.T) {
	var stored atomic.Pointer[corev1.Service]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		service := stored.Load()
		if service == nil {
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(apierrors.NewNotFound(corev1.Resource("services"), "web").ErrStatus)
			return
		}
		service = service.DeepCopy()
		service.APIVersion, service.Kind = "v1", "Service"
		_ = json.NewEncoder(w).Encode(service)
	}))
	defer server.Close()
	e, clock := testEngineAt(t, server.URL, testKind().Erase())
	k := e.kinds[0]
	name := types.NamespacedName{Namespace: "n", Name: "web"}
	r := request{k, name}
	hold := func() func() { return e.Hold(k.GroupKind(), name) }
	check := func(what string, want bool) {
		t.Helper()
		if got := e.isHeld(r); got != want {
			t.Errorf("%s: held %v, want %v", what, got, want)
		}
	}
	put(t, k.virtual, service("1"))
	check("nobody asked", false)

	release := hold()
	check("under way", true)
	stored.Store(service("2"))
	check("stored, and not over", true)
	release()
	release() // Once more does no harm.
	check("over, and not seen", true)
	put(t, k.virtual, service("2"))
	check("seen", false)
	check("and it stays so", false)

	one, two := hold(), hold()
	one()
	check("the other is under way", true)
	two()
	check("both failed", false)

	hold()
	clock.Step(holdTime - time.Second)
	check("just before the time is over", true)
	clock.Step(time.Second)
	check("nobody ever said what became of it", false)

	if err := k.virtual.store.Delete(service("2")); err != nil {
		t.Fatal(err)
	}
	stored.Store(nil)
	release = hold()
	check("being created", true)
	release()
	check("not created", false)
	if !e.isAbandoned(r) {
		t.Error("what was made on the host for it is not known to be abandoned")
	}
	if e.isAbandoned(r) {
		t.Error("it is told twice")
	}
	release = hold()
	stored.Store(service("3"))
	release()
	check("created, and not seen", true)
	clock.Step(seenTime)
	check("and never seen: deleted again meanwhile", false)
}

// TestFutile: what a server does not keep is written once, not for ever.
func TestFutile(t *testing.T) {
	e, _ := testEngine(t, testKind().Erase())
	r := request{e.kinds[0], types.NamespacedName{Namespace: "n", Name: "web"}}
	w := write{r, translate.Virtual, "status"}
	have, want := service("1"), service("1")
	want.Spec.ClusterIP = "10.0.0.1"
	kept := service("2")
	if e.isFutile(w, have, want) {
		t.Error("not written yet, but futile")
	}
	e.noteFutile(w, want, kept)
	want = want.DeepCopy()
	want.ResourceVersion = "2"
	if !e.isFutile(w, kept, want) {
		t.Error("what was not kept is written again")
	}
	want.Spec.ClusterIP = "10.0.0.2"
	if e.isFutile(w, kept, want) {
		t.Error("another change is taken for the same")
	}
	kept = want.DeepCopy()
	kept.ResourceVersion = "3"
	e.noteFutile(w, want, kept)
	if len(e.futile) > 0 {
		t.Error("a write that was kept is remembered")
	}
}

// TestLinger: a copy stays for a while after the last reference to it, and the
// engine comes back to it.
func TestLinger(t *testing.T) {
	kind := testKind()
	kind.WhenReferenced = true
	e, clock := testEngine(t, kind.Erase())
	k := e.kinds[0]
	name := types.NamespacedName{Namespace: "n", Name: "web"}
	r := request{k, name}
	if e.referenced(r, translate.Virtual) {
		t.Error("referenced by nobody")
	}
	one, oneName := holder("one")
	reference := translate.Ref{Kind: k.GroupKind(), Namespace: "n", Name: "web", Sync: true}
	e.index.set(one, oneName, []translate.Ref{reference})
	if !e.referenced(r, translate.Virtual) {
		t.Error("not referenced")
	}
	e.index.drop(one)
	if !e.referenced(r, translate.Virtual) {
		t.Error("gone at once")
	}
	clock.Step(e.Linger)
	if e.referenced(r, translate.Virtual) {
		t.Error("stays for ever")
	}
}

// TestFresh: what is on the host, or is not in the tenant, has no priority.
func TestFresh(t *testing.T) {
	e, _ := testEngine(t, testKind().Erase())
	k := e.kinds[0]
	r := request{k, types.NamespacedName{Namespace: "n", Name: "web"}}
	if e.isFresh(r) {
		t.Error("nothing is fresh")
	}
	put(t, k.virtual, service("1"))
	if !e.isFresh(r) {
		t.Error("a new object is not fresh")
	}
	host, err := testKind().ToHost(translate.Input[*corev1.Service]{Tenant: e.Tenant, Virtual: service("1")})
	if err != nil {
		t.Fatal(err)
	}
	put(t, k.host, host)
	if e.isFresh(r) {
		t.Error("what is on the host is fresh")
	}
	if name, ok := e.HostObjectName(k.GroupKind(), r.NamespacedName); !ok || name != host.Name {
		t.Errorf("host name %q, %v", name, ok)
	}
}
