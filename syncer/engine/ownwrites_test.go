package engine

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	testclock "k8s.io/utils/clock/testing"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// apiServer stores objects, and counts what is written. Nobody watches it: a
// cache shows what a test puts there, as with a watch that is behind.
type apiServer struct {
	t   *testing.T
	url string

	mu      sync.Mutex
	version int
	objects map[string]translate.Object
	writes  map[string]int
}

func newAPIServer(t *testing.T) *apiServer {
	s := &apiServer{t: t, version: 100, objects: map[string]translate.Object{}, writes: map[string]int{}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// ServeHTTP serves /api/v1/namespaces/NAMESPACE/RESOURCE[/NAME[/SUBRESOURCE]].
func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/"), "/")
	namespace, plural := parts[0], parts[1]
	subresource := ""
	if len(parts) > 3 {
		subresource = "/" + parts[3]
	}
	if r.Method != http.MethodGet {
		s.writes[r.Method+" "+plural+subresource]++
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Error(err)
	}
	var sent translate.Object
	if len(body) > 0 && r.Method != http.MethodDelete {
		decoded, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		if err != nil {
			s.t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		}
		sent, _ = decoded.(translate.Object)
	}
	var name string
	if len(parts) > 2 {
		name = parts[2]
	} else {
		name = sent.GetName()
	}
	key := namespace + "/" + plural + "/" + name
	have := s.objects[key]
	resource := schema.GroupResource{Resource: plural}
	switch {
	case r.Method == http.MethodPost && subresource == "/binding":
		s.version++
		pod := have.DeepCopyObject().(*corev1.Pod)
		pod.Spec.NodeName, pod.ResourceVersion = sent.(*corev1.Binding).Target.Name, strconv.Itoa(s.version)
		s.objects[key] = pod
		s.answer(w, &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess})
	case r.Method == http.MethodPost && subresource == "/token":
		issued := sent.(*authenticationv1.TokenRequest)
		issued.Status = authenticationv1.TokenRequestStatus{Token: "t", ExpirationTimestamp: metav1.NewTime(time.Unix(100000, 0))}
		s.answer(w, issued)
	case r.Method == http.MethodPost && have != nil:
		s.refuse(w, apierrors.NewAlreadyExists(resource, name))
	case have == nil && r.Method != http.MethodPost:
		s.refuse(w, apierrors.NewNotFound(resource, name))
	case r.Method == http.MethodPut && sent.GetResourceVersion() != have.GetResourceVersion():
		s.refuse(w, apierrors.NewConflict(resource, name, nil))
	case r.Method == http.MethodDelete:
		s.version++
		delete(s.objects, key)
		s.answer(w, &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess})
	case r.Method == http.MethodGet:
		s.answer(w, have)
	default:
		s.version++
		sent.SetResourceVersion(strconv.Itoa(s.version))
		if have == nil {
			sent.SetUID(types.UID("made-at-" + sent.GetResourceVersion()))
		}
		s.objects[key] = sent
		s.answer(w, sent)
	}
}

func (s *apiServer) answer(w http.ResponseWriter, object any) {
	if typed, ok := object.(translate.Object); ok {
		copied := typed.DeepCopyObject().(translate.Object)
		gvks, _, err := scheme.Scheme.ObjectKinds(copied)
		if err != nil {
			s.t.Error(err)
		}
		copied.GetObjectKind().SetGroupVersionKind(gvks[0])
		object = copied
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(object); err != nil {
		s.t.Error(err)
	}
}

func (s *apiServer) refuse(w http.ResponseWriter, err *apierrors.StatusError) {
	status := err.Status()
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(status.Code))
	if err := json.NewEncoder(w).Encode(status); err != nil {
		s.t.Error(err)
	}
}

// store puts an object there behind the engine's back.
func (s *apiServer) store(plural string, object translate.Object) translate.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	object = object.DeepCopyObject().(translate.Object)
	object.SetResourceVersion(strconv.Itoa(s.version))
	s.objects[object.GetNamespace()+"/"+plural+"/"+object.GetName()] = object
	return object
}

// show brings a cache up to date with an object, as its watch would.
func (s *apiServer) show(from *source, namespace, name string) {
	s.t.Helper()
	s.mu.Lock()
	object := s.objects[namespace+"/"+from.plural+"/"+name]
	s.mu.Unlock()
	key := types.NamespacedName{Namespace: namespace, Name: name}
	if object == nil {
		if before := from.object(namespace, name); before != nil {
			if err := from.store.Delete(before); err != nil {
				s.t.Fatal(err)
			}
		}
	} else {
		object = object.DeepCopyObject().(translate.Object)
		object.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		put(s.t, from, object)
	}
	from.remembered(key) // As the handler does first of all.
}

func (s *apiServer) wrote() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.writes
	s.writes = map[string]int{}
	return was
}

// twoServers is an engine between two of them.
func twoServers(t *testing.T, kinds ...translate.Any) (e *Engine, clock *testclock.FakeClock, virtual, host *apiServer) {
	t.Helper()
	virtual, host = newAPIServer(t), newAPIServer(t)
	e, clock = testEngineBetween(t, virtual.url, host.url, kinds...)
	e.events = &record.FakeRecorder{}
	return e, clock, virtual, host
}

// testPods stands for any kind with all that the engine can write of one.
func testPods() translate.Kind[*corev1.Pod] {
	return translate.Kind[*corev1.Pod]{
		GroupVersionKind:  corev1.SchemeGroupVersion.WithKind("Pod"),
		Resource:          "pods",
		Namespaced:        true,
		New:               func() *corev1.Pod { return &corev1.Pod{} },
		NewList:           func() translate.ObjectList { return &corev1.PodList{} },
		StatusSubresource: true,
		ToHost: func(in translate.Input[*corev1.Pod]) (*corev1.Pod, error) {
			if in.Virtual.Labels["stay"] != "" {
				return nil, nil
			}
			made := &corev1.Pod{ObjectMeta: in.Tenant.HostMeta(in.Virtual)}
			made.Labels["a"] = in.Virtual.Labels["a"]
			return made, nil
		},
		Bind: func(in translate.Input[*corev1.Pod]) *corev1.Binding {
			if in.Virtual.Spec.NodeName != "" || in.Host.Spec.NodeName == "" {
				return nil
			}
			return &corev1.Binding{
				ObjectMeta: metav1.ObjectMeta{Namespace: in.Virtual.Namespace, Name: in.Virtual.Name, UID: in.Virtual.UID},
				Target:     corev1.ObjectReference{Kind: "Node", Name: in.Host.Spec.NodeName},
			}
		},
		Status: func(in translate.Input[*corev1.Pod]) (*corev1.Pod, error) {
			out := in.Virtual.DeepCopy()
			if phase := in.Host.Status.Phase; phase != "" {
				out.Status.Phase = phase
			}
			return out, nil
		},
		Tokens: func(*corev1.Pod) []translate.Token {
			return []translate.Token{{Key: "token", ServiceAccount: "default"}}
		},
	}
}

// TestWritesOnce: a cache that does not show yet what the engine has written does
// not make it write that again, and makes it wait no longer than that.
func TestWritesOnce(t *testing.T) {
	e, _, virtual, host := twoServers(t, testPods().Erase())
	k := e.kinds[0]
	r := request{k, types.NamespacedName{Namespace: "n", Name: "web"}}
	hostName := translate.HostName(r.Namespace, r.Name)
	showVirtual := func() { virtual.show(k.virtual, r.Namespace, r.Name) }
	showHost := func() { host.show(k.host, e.Tenant.HostNamespace, hostName) }
	changeVirtual := func(change func(*corev1.Pod)) {
		t.Helper()
		pod := virtual.objects["n/pods/web"].DeepCopyObject().(*corev1.Pod)
		change(pod)
		virtual.store("pods", pod)
		showVirtual()
	}
	changeHost := func(change func(*corev1.Pod)) {
		t.Helper()
		pod := host.objects[e.Tenant.HostNamespace+"/pods/"+hostName].DeepCopyObject().(*corev1.Pod)
		change(pod)
		host.store("pods", pod)
		showHost()
	}
	// step reconciles several times in a row, before and after the caches show
	// what the first time did.
	step := func(what string, inTenant, onHost map[string]int) {
		t.Helper()
		again := func(when string) {
			t.Helper()
			for range 3 {
				if err := e.reconcile(t.Context(), r); err != nil {
					t.Errorf("%s, %s: %v", what, when, err)
				}
			}
		}
		again("not shown")
		if diff := cmp.Diff(inTenant, virtual.wrote()); diff != "" {
			t.Errorf("%s: written in the tenant (-want +got):\n%s", what, diff)
		}
		if diff := cmp.Diff(onHost, host.wrote()); diff != "" {
			t.Errorf("%s: written on the host (-want +got):\n%s", what, diff)
		}
		showVirtual()
		showHost()
		if left := len(k.virtual.writes.byName) + len(k.host.writes.byName); left > 0 && inTenant["POST pods/binding"] == 0 {
			t.Errorf("%s: %d writes are remembered that the caches show", what, left)
		}
		again("shown")
		if v, h := virtual.wrote(), host.wrote(); len(v)+len(h) > 0 {
			t.Errorf("%s: written when all was: %v in the tenant, %v on the host", what, v, h)
		}
		if left := len(k.virtual.writes.byName) + len(k.host.writes.byName); left > 0 {
			t.Errorf("%s: %d writes are remembered for ever", what, left)
		}
	}
	none := map[string]int{}

	virtual.store("pods", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "web", UID: "1"}})
	showVirtual()
	step("a new object", none, map[string]int{"POST pods": 1})
	changeVirtual(func(pod *corev1.Pod) { pod.Labels = map[string]string{"a": "b"} })
	step("a change", none, map[string]int{"PUT pods": 1})
	changeHost(func(pod *corev1.Pod) { pod.Spec.NodeName = "node" })
	step("a binding", map[string]int{"POST pods/binding": 1}, none)
	changeHost(func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodRunning })
	step("a status", map[string]int{"PUT pods/status": 1}, none)
	changeVirtual(func(pod *corev1.Pod) { pod.Labels = map[string]string{"stay": "here"} })
	step("no place on the host", none, map[string]int{"DELETE pods": 1})
	changeVirtual(func(pod *corev1.Pod) { pod.Labels = nil })
	step("a place again", none, map[string]int{"POST pods": 1})
	// Gone in the tenant: the first of these writes has nothing to do with the
	// object that comes after it under the same name.
	virtual.mu.Lock()
	delete(virtual.objects, "n/pods/web")
	virtual.mu.Unlock()
	showVirtual()
	step("the end", none, map[string]int{"DELETE pods": 1})
}

// TestBindsOnce: a change that comes between a binding and the word of it does
// not make the engine bind again; another object of the same name is bound.
func TestBindsOnce(t *testing.T) {
	e, _, virtual, _ := twoServers(t, testPods().Erase())
	k := e.kinds[0]
	bind := func(pod *corev1.Pod) {
		t.Helper()
		in := translate.Input[translate.Object]{Tenant: e.Tenant, Virtual: pod, Host: &corev1.Pod{Spec: corev1.PodSpec{NodeName: "node"}}}
		if err := e.status(t.Context(), request{k, types.NamespacedName{Namespace: "n", Name: "web"}}, in); err != nil {
			t.Fatal(err)
		}
	}
	pod := virtual.store("pods", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "web", UID: "1"}}).(*corev1.Pod)
	put(t, k.virtual, pod)
	bind(pod)
	pod = pod.DeepCopy()
	pod.ResourceVersion, pod.Labels = "102", map[string]string{"changed": "before the binding"}
	put(t, k.virtual, pod)
	bind(pod)
	if diff := cmp.Diff(map[string]int{"POST pods/binding": 1}, virtual.wrote()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	pod = pod.DeepCopy()
	pod.UID = "2"
	virtual.store("pods", pod)
	put(t, k.virtual, pod)
	bind(pod)
	if diff := cmp.Diff(map[string]int{"POST pods/binding": 1}, virtual.wrote()); diff != "" {
		t.Errorf("another pod: -want +got:\n%s", diff)
	}
}

// TestTokensOnce: so it is with the Secret that the tokens are in.
func TestTokensOnce(t *testing.T) {
	e, clock, virtual, host := twoServers(t, testPods().Erase())
	k := e.kinds[0]
	r := request{k, types.NamespacedName{Namespace: "n", Name: "web"}}
	put(t, k.virtual, virtual.store("pods", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "web", UID: "1"}}))
	if err := e.reconcile(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	host.show(k.host, e.Tenant.HostNamespace, translate.HostName(r.Namespace, r.Name))
	host.wrote()
	refresh := func(what string, inTenant, onHost map[string]int) {
		t.Helper()
		for range 3 {
			if err := e.refreshTokens(t.Context(), r); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		if diff := cmp.Diff([]map[string]int{inTenant, onHost}, []map[string]int{virtual.wrote(), host.wrote()}); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", what, diff)
		}
		host.show(e.tokens, e.Tenant.HostNamespace, translate.TokenSecretName(r.Namespace, r.Name))
	}
	refresh("new", map[string]int{"POST serviceaccounts/token": 1}, map[string]int{"POST secrets": 1})
	refresh("shown", map[string]int{}, map[string]int{})
	clock.Step(tokenMaxAge)
	refresh("old", map[string]int{"POST serviceaccounts/token": 1}, map[string]int{"PUT secrets": 1})
	if left := len(e.tokens.writes.byName); left > 0 {
		t.Errorf("%d writes are remembered for ever", left)
	}
}

// TestFoundOurs: what turns out to be ours already is waited for.
func TestFoundOurs(t *testing.T) {
	for name, told := range map[string]bool{
		"an earlier run, or an answer that was lost, made it": false,
		"somebody else made it for the tenant, and says so":   true,
	} {
		t.Run(name, func(t *testing.T) {
			e, clock, virtual, host := twoServers(t, testKind().Erase())
			k := e.kinds[0]
			r := request{k, types.NamespacedName{Namespace: "n", Name: "web"}}
			object := virtual.store("services", service("1")).(*corev1.Service)
			put(t, k.virtual, object)
			made, err := testKind().ToHost(translate.Input[*corev1.Service]{Tenant: e.Tenant, Virtual: object})
			if err != nil {
				t.Fatal(err)
			}
			found := host.store("services", made)
			want := map[string]int{"POST services": 1}
			if told {
				e.Wrote(k.GroupKind(), found)
				want = map[string]int{}
			}
			for range 3 {
				_ = e.reconcile(t.Context(), r)
			}
			if diff := cmp.Diff(want, host.wrote()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			clock.Step(unseenTime)
			_ = e.reconcile(t.Context(), r)
			if diff := cmp.Diff(map[string]int{"POST services": 1}, host.wrote()); diff != "" {
				t.Errorf("the watch is broken, and nobody looks (-want +got):\n%s", diff)
			}
		})
	}
}

// TestShown: what tells that a store has come as far as a write, and what does
// not.
func TestShown(t *testing.T) {
	one := func(version string, change ...func(*corev1.Service)) *corev1.Service {
		object := service(version)
		for _, c := range change {
			c(object)
		}
		return object
	}
	other := func(version string) *corev1.Service {
		return one(version, func(s *corev1.Service) { s.Name = "other" })
	}
	deleting := func(s *corev1.Service) {
		s.DeletionTimestamp, s.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Unix(1, 0)}, new(int64(30))
	}
	write := ownWrite{version: "100"}
	deletion := ownWrite{uid: "1"}
	for name, c := range map[string]struct {
		write  ownWrite
		before []*corev1.Service
		then   func(cache.Store)
		behind bool
	}{
		"nothing came":                     {write: write, behind: true},
		"an earlier version":               {write: write, before: []*corev1.Service{one("99")}, behind: true},
		"an earlier version, fewer digits": {write: write, before: []*corev1.Service{one("9")}, behind: true},
		"this version":                     {write: write, before: []*corev1.Service{one("100")}},
		"a later version":                  {write: write, before: []*corev1.Service{one("1000")}},
		"a later version of another uid":   {write: write, before: []*corev1.Service{one("101", func(s *corev1.Service) { s.UID = "2" })}},
		"an earlier word of another":       {write: write, before: []*corev1.Service{other("99")}, behind: true},
		"a later word of another":          {write: write, before: []*corev1.Service{other("101")}},
		"a later word, then an old store":  {write: write, before: []*corev1.Service{other("101"), other("99")}, behind: true},
		"an early bookmark":                {write: write, then: func(s cache.Store) { s.Bookmark("99") }, behind: true},
		"a late bookmark":                  {write: write, then: func(s cache.Store) { s.Bookmark("101") }},
		"gone again":                       {write: write, before: []*corev1.Service{one("99")}, then: func(s cache.Store) { _ = s.Delete(one("101")) }},
		"an earlier one of the name gone":  {write: write, before: []*corev1.Service{one("98")}, then: func(s cache.Store) { _ = s.Delete(one("99")) }, behind: true},
		"read anew, and not there":         {write: write, before: []*corev1.Service{one("99")}, then: func(s cache.Store) { _ = s.Replace(nil, "150") }},
		"read anew, from before":           {write: write, then: func(s cache.Store) { _ = s.Replace([]any{one("90")}, "95") }, behind: true},

		"deleted: still there":             {write: deletion, before: []*corev1.Service{one("99")}, behind: true},
		"deleted: a later word of it":      {write: deletion, before: []*corev1.Service{one("101")}, behind: true},
		"deleted: gone":                    {write: deletion, before: []*corev1.Service{one("99")}, then: func(s cache.Store) { _ = s.Delete(one("101")) }},
		"deleted: another of the name":     {write: deletion, before: []*corev1.Service{one("101", func(s *corev1.Service) { s.UID = "2" })}},
		"deleted: on its way":              {write: deletion, before: []*corev1.Service{one("101", deleting)}},
		"deleted: on its way for longer":   {write: ownWrite{uid: "1", grace: new(int64)}, before: []*corev1.Service{one("101", deleting)}, behind: true},
		"deleted: on its way for that":     {write: ownWrite{uid: "1", grace: new(int64(30))}, before: []*corev1.Service{one("101", deleting)}},
		"bound: nothing waits for it":      {write: ownWrite{uid: "1", bound: true}, before: []*corev1.Service{one("99")}},
		"of a version that has no meaning": {write: ownWrite{version: "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			e, clock := testEngine(t, testKind().Erase())
			s := e.kinds[0].virtual
			for _, object := range c.before {
				put(t, s, object)
			}
			key := nameOf(service(""))
			if c.write.version != "" {
				s.wrote(one(c.write.version))
			} else {
				s.remember(key, c.write)
			}
			if c.then != nil {
				c.then(s.store)
			}
			want := time.Duration(0)
			if c.behind {
				want = unseenTime
			}
			if got := s.behind(key); got != want {
				t.Errorf("to be waited for %v, want %v", got, want)
			}
			clock.Step(unseenTime - time.Second)
			if got := s.behind(key); got != 0 != c.behind {
				t.Errorf("a second before the end, to be waited for %v", got)
			}
			clock.Step(time.Second)
			if got := s.behind(key); got != 0 || len(s.writes.byName) != 0 && !c.write.bound {
				t.Errorf("for ever: %v, %v", got, s.writes.byName)
			}
		})
	}
}

// TestForgetsOwnWrites: what was never shown, and nobody asks for, is not kept.
func TestForgetsOwnWrites(t *testing.T) {
	e, clock := testEngine(t, testKind().Erase())
	s := e.kinds[0].host
	for i := range 1000 {
		object := service("100")
		object.Name = strconv.Itoa(i)
		s.wrote(object)
		s.remember(types.NamespacedName{Name: object.Name}, ownWrite{uid: "1", bound: true})
		clock.Step(time.Second)
		if kept, most := len(s.writes.byName), 2*2*int(unseenTime/time.Second)+2; kept > most {
			t.Fatalf("%d writes are remembered, one second apart", kept)
		}
	}
	unkept := &source{now: clock.Now}
	unkept.wrote(service("100"))
	if len(unkept.writes.byName) > 0 {
		t.Error("a write is waited for that nothing will show")
	}
}

// TestWaitsNoLongerThanNeeded: the change that shows a write goes on where the
// engine has stopped.
func TestWaitsNoLongerThanNeeded(t *testing.T) {
	e, clock, virtual, host := twoServers(t, testKind().Erase())
	k := e.kinds[0]
	r := request{k, types.NamespacedName{Namespace: "n", Name: "web"}}
	put(t, k.virtual, virtual.store("services", service("1")))
	for range 2 {
		if err := e.reconcile(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.queue.Len(); n != 0 {
		t.Errorf("%d are queued, with nothing to do yet", n)
	}
	clock.Step(unseenTime + time.Second)
	waitForLen(t, e, 1)
	if err := e.reconcile(t.Context(), r); err == nil {
		t.Error("nobody has looked what became of it")
	}
	if diff := cmp.Diff(map[string]int{"POST services": 2}, host.wrote()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func waitForLen(t *testing.T, e *Engine, want int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); e.queue.Len() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d are queued, want %d", e.queue.Len(), want)
		}
	}
}

// testEvents stands for a kind whose virtual side is not kept.
func testEvents() translate.Kind[*corev1.Event] {
	return translate.Kind[*corev1.Event]{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Event"),
		Resource:         "events",
		Namespaced:       true,
		New:              func() *corev1.Event { return &corev1.Event{} },
		NewList:          func() translate.ObjectList { return &corev1.EventList{} },
		Unwatched:        true,
		ToVirtual: func(in translate.Input[*corev1.Event]) (*corev1.Event, error) {
			return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: in.Host.Name}, Count: in.Host.Count}, nil
		},
	}
}

// TestEventsOnce: what is not kept in memory is written once for each change,
// too, whoever wrote it first.
func TestEventsOnce(t *testing.T) {
	none := map[string]int{}
	post, update := map[string]int{"POST events": 1}, map[string]int{"PUT events": 1}
	event := func(count int32) *corev1.Event {
		return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "acme-host", Name: "e", ResourceVersion: strconv.Itoa(int(count))}, Count: count}
	}
	start := func(t *testing.T) (e *Engine, virtual *apiServer, change func(event *corev1.Event, tries int) map[string]int) {
		e, _, virtual, _ = twoServers(t, testEvents().Erase())
		k := e.kinds[0]
		handle := e.handler(sourceKey{translate.Host, k.GroupKind()}, k.host)
		return e, virtual, func(event *corev1.Event, tries int) map[string]int {
			t.Helper()
			var before, after metav1.Object
			if old := k.host.object("acme-host", "e"); old != nil {
				before = old
			}
			if event == nil {
				if err := k.host.store.Delete(before); err != nil {
					t.Fatal(err)
				}
			} else {
				after = event
				put(t, k.host, event)
			}
			handle(before, after)
			for range tries {
				if err := e.reconcile(context.Background(), request{k, types.NamespacedName{Namespace: "acme-host", Name: "e"}}); err != nil {
					t.Error(err)
				}
			}
			return virtual.wrote()
		}
	}
	check := func(t *testing.T, what string, want, got map[string]int) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	t.Run("new", func(t *testing.T) {
		e, virtual, change := start(t)
		e.begun.Store(true)
		check(t, "new", post, change(event(1), 3))
		check(t, "nothing changes", none, change(event(1), 3))
		check(t, "once more on the host", update, change(event(2), 3))
		virtual.mu.Lock()
		delete(virtual.objects, "n/events/e")
		virtual.mu.Unlock()
		check(t, "expired in the tenant, and once more on the host", post, change(event(3), 3))
		check(t, "gone", none, change(nil, 3))
		if len(e.made) > 0 {
			t.Error("an event that is gone is remembered")
		}
	})
	t.Run("from an earlier run", func(t *testing.T) {
		e, virtual, change := start(t)
		virtual.store("events", &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "e"}, Count: 1})
		check(t, "read with all others", none, change(event(1), 3))
		e.begun.Store(true)
		check(t, "once more on the host", update, change(event(2), 3))
	})
	t.Run("from an earlier run, but not in the tenant", func(t *testing.T) {
		_, _, change := start(t)
		check(t, "read with all others", post, change(event(1), 3))
	})
}
