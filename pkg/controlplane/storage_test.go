package controlplane

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// TestStorage checks what upstream's connections to etcd gave, without them.
func TestStorage(t *testing.T) {
	p := start(t, t.TempDir(), nil)
	ctx := t.Context()
	maps := p.client.CoreV1().ConfigMaps("default")
	raw := func(path string) (content []byte) {
		t.Helper()
		// The informers of controllers are the last.
		eventually(t, path, func(ctx context.Context) (err error) {
			content, err = p.client.CoreV1().RESTClient().Get().AbsPath(path).Param("verbose", "").DoRaw(ctx)
			return err
		})
		return content
	}

	t.Run("health", func(t *testing.T) {
		for path, names := range map[string][]string{"/readyz": {"etcd", "etcd-readiness"}, "/healthz": {"etcd"}, "/livez": {"etcd"}} {
			for _, name := range names {
				if !bytes.Contains(raw(path), []byte("[+]"+name+" ok\n")) {
					t.Errorf("%s does not tell of %s", path, name)
				}
			}
		}
		if !bytes.Contains(raw("/metrics"), []byte("\napiserver_storage_size_bytes{")) {
			t.Error("metrics do not tell the size of the database")
		}
	})

	t.Run("too large", func(t *testing.T) {
		// Less than the API server takes of a request, and more than etcd does.
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "large", Annotations: map[string]string{}}, Data: map[string]string{"half": strings.Repeat("x", 1000<<10)}}
		object.BinaryData = map[string][]byte{}
		_, err := maps.Create(ctx, object, metav1.CreateOptions{})
		must(t, "an object that is large", err)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "large"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
		for i := range 2000 {
			pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("V%d", i), Value: strings.Repeat("x", 1000)})
		}
		if _, err := p.client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "request is too large") {
			t.Errorf("an object that is too large: %v", err)
		}
	})

	t.Run("conflict", func(t *testing.T) {
		made, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "contended"}}, metav1.CreateOptions{})
		must(t, "creating", err)
		first, second := made.DeepCopy(), made.DeepCopy()
		first.Data, second.Data = map[string]string{"by": "first"}, map[string]string{"by": "second"}
		_, err = maps.Update(ctx, first, metav1.UpdateOptions{})
		must(t, "the first update", err)
		if _, err := maps.Update(ctx, second, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("the second update: %v", err)
		}
		if _, err := maps.Create(ctx, made, metav1.CreateOptions{}); err == nil {
			t.Error("it was created twice")
		}
	})

	t.Run("lease", func(t *testing.T) {
		_, err := p.client.CoreV1().Events("default").Create(ctx, &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: "short"}, InvolvedObject: corev1.ObjectReference{Namespace: "default"},
		}, metav1.CreateOptions{})
		must(t, "creating an event", err)
		got, err := p.server.storage.opened.Load().client.Get(ctx, "/registry/events/default/short")
		must(t, "reading it", err)
		if len(got.Kvs) != 1 || got.Kvs[0].Lease == 0 {
			t.Errorf("an event does not go by itself: %v", got.Kvs)
		}
	})

	t.Run("watch from the past", func(t *testing.T) {
		list, err := maps.List(ctx, metav1.ListOptions{Limit: 1})
		must(t, "listing", err)
		for i := range 3 {
			_, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("past-%d", i)}}, metav1.CreateOptions{})
			must(t, "creating", err)
		}
		watching, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
		must(t, "watching", err)
		defer watching.Stop()
		for i := range 3 {
			event := <-watching.ResultChan()
			if object, ok := event.Object.(*corev1.ConfigMap); event.Type != watch.Added || !ok || object.Name != fmt.Sprintf("past-%d", i) {
				t.Errorf("event %d is %s of %v", i, event.Type, event.Object)
			}
		}
	})

	t.Run("compacted", func(t *testing.T) {
		old, err := maps.List(ctx, metav1.ListOptions{Limit: 1})
		must(t, "listing", err)
		_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "later"}}, metav1.CreateOptions{})
		must(t, "creating", err)
		member := p.server.storage.opened.Load().member
		_, err = p.server.storage.opened.Load().client.Compact(ctx, member.KV().Rev())
		must(t, "compacting", err)
		if old.Continue == "" {
			t.Fatal("there is no second page")
		}
		eventually(t, "an old page is gone", func(ctx context.Context) error {
			_, err := p.client.CoreV1().Events("default").List(ctx, metav1.ListOptions{ResourceVersion: old.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact})
			if !apierrors.IsResourceExpired(err) {
				return fmt.Errorf("it says %v", err)
			}
			return nil
		})
	})

	t.Run("no connections", func(t *testing.T) {
		var stacks bytes.Buffer
		must(t, "reading stacks", pprof.Lookup("goroutine").WriteTo(&stacks, 2))
		// The allocators of node ports and addresses have three.
		if n := strings.Count(stacks.String(), "transport.(*http2Client).reader("); n > 3 {
			t.Errorf("%d connections to etcd", n)
		}
	})
}
