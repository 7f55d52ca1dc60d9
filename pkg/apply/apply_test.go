package apply_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sublet-dev/sublet/pkg/apply"
)

// newApplier counts what is sent.
func newApplier(t *testing.T) (*apply.Applier, client.Client, *atomic.Int32) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	sent := &atomic.Int32{}
	c := fake.NewClientBuilder().WithScheme(scheme).WithInterceptorFuncs(interceptor.Funcs{
		Apply: func(ctx context.Context, c client.WithWatch, obj runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			sent.Add(1)
			return c.Apply(ctx, obj, opts...)
		},
	}).Build()
	return apply.New(c, "tester"), c, sent
}

func configMap(value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "config"},
		Data:       map[string]string{"key": value},
	}
}

func TestApplySendsWhatDiffers(t *testing.T) {
	a, c, sent := newApplier(t)
	steps := []struct {
		name   string
		change func() error
		value  string
		sends  int32
	}{
		{name: "the first time", value: "a", sends: 1},
		{name: "the same again", value: "a", sends: 0},
		{name: "another intent", value: "b", sends: 1},
		{name: "somebody changed it", value: "b", sends: 1, change: func() error {
			current := &corev1.ConfigMap{}
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(configMap("")), current); err != nil {
				return err
			}
			current.Data["key"] = "theirs"
			return c.Update(t.Context(), current)
		}},
		{name: "somebody wrote something else", value: "b", sends: 0, change: func() error {
			current := &corev1.ConfigMap{}
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(configMap("")), current); err != nil {
				return err
			}
			current.Labels = map[string]string{"theirs": "yes"}
			return c.Update(t.Context(), current)
		}},
		{name: "somebody deleted it", value: "b", sends: 1, change: func() error { return c.Delete(t.Context(), configMap("")) }},
	}
	for _, step := range steps {
		if step.change != nil {
			if err := step.change(); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
		}
		before, object := sent.Load(), configMap(step.value)
		if err := a.Apply(t.Context(), object); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := sent.Load() - before; got != step.sends {
			t.Errorf("%s: sent %d times, want %d", step.name, got, step.sends)
		}
		if object.ResourceVersion == "" || object.Data["key"] != step.value {
			t.Errorf("%s: the object was not filled in: %+v", step.name, object)
		}
	}
}

func TestAllReturnsEveryError(t *testing.T) {
	a, c, _ := newApplier(t)
	nameless := func() *corev1.ConfigMap { return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}} }
	err := a.All(t.Context(), nameless(), configMap("a"), nameless())
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) || len(joined.Unwrap()) != 2 {
		t.Errorf("got %v", err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(configMap("")), &corev1.ConfigMap{}); err != nil {
		t.Errorf("one error kept the others from being applied: %v", err)
	}
}

func TestDelete(t *testing.T) {
	a, c, _ := newApplier(t)
	if err := a.Apply(t.Context(), configMap("a")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Delete(t.Context(), configMap("a")); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(configMap("")), &corev1.ConfigMap{}); !apierrors.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	if err := a.Apply(t.Context(), configMap("a")); err != nil {
		t.Errorf("apply after delete: %v", err)
	}
}
