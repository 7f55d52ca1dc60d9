// Package apply writes objects by server-side apply, and remembers what it
// wrote: an object that the cluster still holds as it was written last is not
// sent again.
package apply

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Applier applies objects under one field owner. Its methods may be called
// concurrently.
type Applier struct {
	client client.Client
	owner  string

	mu   sync.Mutex
	last map[key]written
}

type key struct {
	kind schema.GroupKind
	name types.NamespacedName
}

// written is what an object was at its last apply.
type written struct {
	// intent is the hash of what was sent.
	intent [sha256.Size]byte
	// version is the resource version that came back.
	version string
}

// New makes an Applier. The client's reads should come from a cache: they
// decide whether a write is needed.
func New(c client.Client, owner string) *Applier {
	return &Applier{client: c, owner: owner, last: map[key]written{}}
}

// Apply makes obj so on the server, taking fields over from whoever else set
// them, and fills obj with what the server has then. When the cluster already
// has it, obj is filled from the client's cache.
func (a *Applier) Apply(ctx context.Context, obj client.Object) error {
	gvk, err := apiutil.GVKForObject(obj, a.client.Scheme())
	if err != nil {
		return fmt.Errorf("find the kind of %T: %w", obj, err)
	}
	intent, err := intentOf(obj, gvk)
	if err != nil {
		return fmt.Errorf("apply %s %q: %w", gvk.Kind, name(obj), err)
	}
	content, err := json.Marshal(intent.Object)
	if err != nil {
		return fmt.Errorf("apply %s %q: %w", gvk.Kind, name(obj), err)
	}
	k := key{gvk.GroupKind(), client.ObjectKeyFromObject(obj)}
	sum := sha256.Sum256(content)
	unchanged, err := a.unchanged(ctx, k, sum, intent, obj)
	if err != nil || unchanged {
		return err
	}
	if err := a.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(intent), client.ForceOwnership, client.FieldOwner(a.owner)); err != nil {
		return fmt.Errorf("apply %s %q: %w", gvk.Kind, name(obj), err)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(intent.Object, obj); err != nil {
		return fmt.Errorf("read the answer for %s %q: %w", gvk.Kind, name(obj), err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last[k] = written{sum, obj.GetResourceVersion()}
	return nil
}

// unchanged says whether the same was applied before and still holds; then obj
// becomes what is in the cache. It holds when nothing was written since, or when
// whatever was written since left it as it was: that is what a status is.
func (a *Applier) unchanged(ctx context.Context, k key, sum [sha256.Size]byte, intent *unstructured.Unstructured, obj client.Object) (bool, error) {
	a.mu.Lock()
	last, known := a.last[k]
	a.mu.Unlock()
	if !known || last.intent != sum {
		return false, nil
	}
	current, ok := obj.DeepCopyObject().(client.Object)
	if !ok {
		return false, nil
	}
	err := a.client.Get(ctx, k.name, current)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s %q: %w", k.kind.Kind, k.name, err)
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(current)
	if err != nil {
		return false, fmt.Errorf("read %s %q: %w", k.kind.Kind, k.name, err)
	}
	if current.GetResourceVersion() != last.version && !contains(content, withoutType(intent.Object)) {
		return false, nil
	}
	return true, runtime.DefaultUnstructuredConverter.FromUnstructured(content, obj)
}

// withoutType leaves out what objects from a cache do not carry.
func withoutType(content map[string]any) map[string]any {
	content = maps.Clone(content)
	delete(content, "apiVersion")
	delete(content, "kind")
	return content
}

// contains says whether an object has all that is intended. What it has beside
// that belongs to others, or is a default.
func contains(current, intent any) bool {
	switch intent := intent.(type) {
	case map[string]any:
		current, ok := current.(map[string]any)
		if !ok {
			return len(intent) == 0 && current == nil
		}
		for key, value := range intent {
			if !contains(current[key], value) {
				return false
			}
		}
		return true
	case []any:
		current, ok := current.([]any)
		if !ok || len(current) != len(intent) {
			return false
		}
		for i := range intent {
			if !contains(current[i], intent[i]) {
				return false
			}
		}
		return true
	}
	return current == intent
}

// All applies objects at the same time. It returns every error there was.
func (a *Applier) All(ctx context.Context, objects ...client.Object) error {
	errs := make([]error, len(objects))
	var group sync.WaitGroup
	for i, obj := range objects {
		group.Go(func() { errs[i] = a.Apply(ctx, obj) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// Delete removes an object that may be gone already.
func (a *Applier) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	gvk, err := apiutil.GVKForObject(obj, a.client.Scheme())
	if err != nil {
		return fmt.Errorf("find the kind of %T: %w", obj, err)
	}
	a.mu.Lock()
	delete(a.last, key{gvk.GroupKind(), client.ObjectKeyFromObject(obj)})
	a.mu.Unlock()
	if err := a.client.Delete(ctx, obj, opts...); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete %s %q: %w", gvk.Kind, name(obj), err)
	}
	return nil
}

// Forget drops what is remembered of a namespace, once it is gone.
func (a *Applier) Forget(namespace string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k := range a.last {
		if k.name.Namespace == namespace {
			delete(a.last, k)
		}
	}
}

// intentOf is what is sent: the object without what only a server sets.
func intentOf(obj client.Object, gvk schema.GroupVersionKind) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, err
	}
	intent := &unstructured.Unstructured{Object: content}
	intent.SetGroupVersionKind(gvk)
	delete(content, "status")
	for _, field := range []string{"creationTimestamp", "resourceVersion", "generation", "managedFields"} {
		unstructured.RemoveNestedField(content, "metadata", field)
	}
	return intent, nil
}

func name(obj client.Object) string {
	return client.ObjectKeyFromObject(obj).String()
}
