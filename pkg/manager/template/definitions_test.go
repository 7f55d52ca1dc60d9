package template

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/workqueue"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

func definition(name string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
	}
}

// TestDefinitionsTell holds that who waits for a kind is told when it comes, and
// nobody else.
func TestDefinitionsTell(t *testing.T) {
	scheme := fake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	client := fake.NewSimpleMetadataClient(scheme, definition("gadgets.example.com"))
	// The fake loses what comes between the list and the watch.
	watched := make(chan struct{}, 10)
	client.PrependWatchReactor("*", func(clienttesting.Action) (bool, watch.Interface, error) {
		w, err := client.Tracker().Watch(crds, "")
		watched <- struct{}{}
		return true, w, err
	})
	var mu sync.Mutex
	var told []string
	d := &definitions{
		ctx: t.Context(), client: client,
		allowed: func(context.Context, schema.GroupVersionResource) bool { return true },
		came: func(tenant string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, tenant)
		},
	}
	tells := func(want ...string) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for {
			mu.Lock()
			got := slices.Sorted(slices.Values(told))
			mu.Unlock()
			if slices.Equal(got, want) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("told %v, want %v", got, want)
			}
			time.Sleep(time.Millisecond)
		}
		mu.Lock()
		told = nil
		mu.Unlock()
	}
	define := func(name string) {
		t.Helper()
		if _, err := client.Resource(crds).(fake.MetadataClient).CreateFake(definition(name), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	d.await(t.Context(), "team-a", "widgets.example.com")
	// What is there when the watch begins is told, for it may have come since.
	d.await(t.Context(), "team-b", "example.com")
	tells("team-b")
	if !d.informer.HasSynced() {
		t.Fatal("told before the list was there")
	}
	// And so it is to who comes later, once.
	d.await(t.Context(), "team-c", "example.com")
	tells("team-c")
	d.await(t.Context(), "team-c", "example.com")
	<-watched
	define("things.other.example.com")
	define("widgets.widgets.example.com")
	tells("team-a")
	d.forget("team-b")
	define("widgets.example.com")
	tells("team-c")
}

// TestNothingIsWatchedWithoutTheRight leaves it to the next attempt.
func TestNothingIsWatchedWithoutTheRight(t *testing.T) {
	d := &definitions{allowed: func(context.Context, schema.GroupVersionResource) bool { return false }}
	d.await(t.Context(), "team-a", "example.com")
	if d.informer != nil {
		t.Error("definitions are watched")
	}
	d.forget("team-a")
}

// TestAgain holds that a failure is tried again later and later, and soon once
// something else is wanted.
func TestAgain(t *testing.T) {
	r := &Reconciler{retries: workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryFirst, retryMost)}
	tenant := &api.Tenant{}
	tenant.Name, tenant.Generation = "team-a", 1
	tmpl := &api.Template{}
	tmpl.Name, tmpl.Generation = "t", 1
	fails := func(want time.Duration) {
		t.Helper()
		s := newRound(tenant)
		s.saw(tmpl)
		s.fail(s.entry("t"), &problem{reason: reasonRefused, message: "no"})
		if got := r.again(s).RequeueAfter; got != want {
			t.Errorf("tried again after %v, want %v", got, want)
		}
	}
	fails(retryFirst)
	fails(2 * retryFirst)
	fails(4 * retryFirst)
	tmpl.Generation = 2
	fails(retryFirst)
	fails(2 * retryFirst)
	tenant.Generation = 2
	fails(retryFirst)
	tenant.Labels = map[string]string{"k": "v"}
	fails(retryFirst)
	fails(2 * retryFirst)
	r.retries.Forget("team-a")
	fails(retryFirst)
}
