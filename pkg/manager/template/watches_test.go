package template

import (
	"context"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
)

// TestWatchesBegin holds that tenants are looked at once a kind is seen that was
// used before: what happened to its objects until then nobody else says.
func TestWatchesBegin(t *testing.T) {
	scheme := fake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	client := fake.NewSimpleMetadataClient(scheme)
	listed := make(chan struct{})
	client.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		<-listed
		return false, nil, nil
	})
	began := make(chan string, 10)
	gadgets, gadget := schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "gadgets"},
		schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Gadget"}
	w := newWatches(t.Context(), client, func(context.Context, schema.GroupVersionResource) bool { return true },
		func(schema.GroupVersionKind, *metav1.PartialObjectMetadata) {}, func(tenant string) { began <- tenant })
	for _, tenant := range []string{"team-a", "team-b", "team-a"} {
		w.ensure(t.Context(), tenant, gadgets, gadget)
	}
	select {
	case tenant := <-began:
		t.Fatalf("tenant %s is looked at before anything is seen", tenant)
	case <-time.After(20 * time.Millisecond):
	}
	close(listed)
	got := []string{<-began, <-began}
	if slices.Sort(got); !slices.Equal(got, []string{"team-a", "team-b"}) {
		t.Errorf("looked at are %v", got)
	}
	w.ensure(t.Context(), "team-c", gadgets, gadget)
	w.mu.Lock()
	if unseen := w.kinds[gadgets].unseen; unseen != nil {
		t.Errorf("%v wait for what is seen", unseen)
	}
	w.mu.Unlock()
	if len(began) > 0 {
		t.Errorf("tenant %s is looked at once more", <-began)
	}
}
