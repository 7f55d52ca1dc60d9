//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/bench/report"
)

const (
	syncInterval = time.Second / 3
	workers      = 10
	namespace    = "default"
)

// newPod returns a pod that no node takes: it is the way to the host that is
// measured, not how fast containers start.
func newPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "bench"}},
		Spec: corev1.PodSpec{
			NodeSelector:                  map[string]string{"bench.example.com/no-such": "node"},
			TerminationGracePeriodSeconds: ptr.To[int64](0),
			Containers:                    []corev1.Container{{Name: "main", Image: "registry.k8s.io/pause:3.10"}},
		},
	}
}

// appearances tells when something was first seen in a watch of pods.
type appearances struct {
	mu      sync.Mutex
	seen    map[string]time.Time
	changed chan struct{}
	watch   watch.Interface
}

// watchPods notes when what is called by name is seen for the first time; events
// that are called nothing do not count.
func watchPods(ctx context.Context, client kubernetes.Interface, ns string, name func(watch.EventType, *corev1.Pod) string) (*appearances, error) {
	list, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	w, err := client.CoreV1().Pods(ns).Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return nil, err
	}
	a := &appearances{seen: map[string]time.Time{}, changed: make(chan struct{}, 1), watch: w}
	go func() {
		for event := range w.ResultChan() {
			now := time.Now()
			pod, ok := event.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			what := name(event.Type, pod)
			if what == "" {
				continue
			}
			a.mu.Lock()
			if _, known := a.seen[what]; !known {
				a.seen[what] = now
			}
			a.mu.Unlock()
			select {
			case a.changed <- struct{}{}:
			default:
			}
		}
	}()
	return a, nil
}

// created names a pod of the host as it was created, when it comes.
func created(event watch.EventType, pod *corev1.Pod) string {
	switch name := pod.Annotations[api.AnnotationVirtualName]; {
	case event != watch.Added:
		return ""
	case name != "":
		return name
	}
	return pod.Name
}

// marked names the change of a pod's status.
func marked(_ watch.EventType, pod *corev1.Pod) string { return pod.Status.Message }

// wait waits until all the pods were seen and returns when the last one was.
func (a *appearances) wait(ctx context.Context, names []string) (time.Time, error) {
	deadline := time.After(patience)
	for {
		var last time.Time
		missing := 0
		a.mu.Lock()
		for _, name := range names {
			at, ok := a.seen[name]
			if !ok {
				missing++
			}
			if at.After(last) {
				last = at
			}
		}
		a.mu.Unlock()
		if missing == 0 {
			return last, nil
		}
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-deadline:
			return last, fmt.Errorf("%d of %d pods, or changes of them, were not seen within %v", missing, len(names), patience)
		case <-a.changed:
		}
	}
}

func (a *appearances) at(name string) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[name]
}

// sideBySide makes a tenant and, to compare it with, the host namespace NAME-host.
func (b *bench) sideBySide(ctx context.Context, name string) (*tenant, error) {
	t, err := b.make(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := awaitAccount(ctx, t.client, namespace); err != nil {
		return nil, err
	}
	return t, b.hostNamespace(ctx, name+"-host")
}

// measureSync creates pods three a second and takes the time from the call until
// the host's watch shows each; then it changes the status of each host pod, and
// takes the time until the tenant's watch shows that. The same straight on the host
// shows how much of it is the host's own.
func measureSync(ctx context.Context, b *bench) ([]result, error) {
	const name = "bench-sync"
	t, err := b.sideBySide(ctx, name)
	if err != nil {
		return nil, err
	}
	hostDown, hostUp, err := b.latencies(ctx, b.host, name+"-host", name+"-host")
	if err != nil {
		return nil, err
	}
	down, up, err := b.latencies(ctx, t.client, namespace, name)
	if err != nil {
		return nil, err
	}
	var results []result
	for _, part := range []struct {
		name         string
		tenant, host []float64
	}{{"sync", down, hostDown}, {"sync_status", up, hostUp}} {
		details := map[string]any{"pods": b.pods}
		median, slow := newResult(part.name+"_p50_ms", part.tenant, details), newResult(part.name+"_p99_ms", part.tenant, details)
		median.Host, slow.Host = report.Baseline(part.host), report.Baseline(part.host)
		slow.Value, slow.Host.Value = report.Quantile(part.tenant, 0.99), report.Quantile(part.host, 0.99)
		results = append(results, median, slow)
	}
	return results, nil
}

// latencies returns milliseconds, sorted: of pods on their way to the host, and of
// their status on its way back.
func (b *bench) latencies(ctx context.Context, client kubernetes.Interface, ns, hostNamespace string) (down, up []float64, _ error) {
	// The first ones warm up connections and caches.
	const warm = 5
	var names, marks []string
	for i := range b.pods + warm {
		names, marks = append(names, fmt.Sprintf("sync-%d", i)), append(marks, fmt.Sprintf("mark-%d", i))
	}
	arrived, err := watchPods(ctx, b.host, hostNamespace, created)
	if err != nil {
		return nil, nil, err
	}
	defer arrived.watch.Stop()
	called, err := paced(ctx, names, func(i int) error {
		_, err := client.CoreV1().Pods(ns).Create(ctx, newPod(names[i]), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if down, err = arrived.since(ctx, names, called, warm); err != nil {
		return nil, nil, err
	}
	hostNames := map[string]string{}
	list, err := b.host.CoreV1().Pods(hostNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, err
	}
	for i := range list.Items {
		hostNames[created(watch.Added, &list.Items[i])] = list.Items[i].Name
	}
	back, err := watchPods(ctx, client, ns, marked)
	if err != nil {
		return nil, nil, err
	}
	defer back.watch.Stop()
	called, err = paced(ctx, marks, func(i int) error {
		patch := fmt.Appendf(nil, `{"status":{"message":%q}}`, marks[i])
		_, err := b.host.CoreV1().Pods(hostNamespace).Patch(ctx, hostNames[names[i]], types.MergePatchType, patch, metav1.PatchOptions{}, "status")
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if up, err = back.since(ctx, marks, called, warm); err != nil {
		return nil, nil, err
	}
	return down, up, client.CoreV1().Pods(ns).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=bench"})
}

// paced calls for each name, three a second, and notes when.
func paced(ctx context.Context, names []string, call func(i int) error) (map[string]time.Time, error) {
	called := map[string]time.Time{}
	ticker := time.NewTicker(syncInterval)
	defer ticker.Stop()
	for i, name := range names {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticker.C:
		}
		called[name] = time.Now()
		if err := call(i); err != nil {
			return nil, err
		}
	}
	return called, nil
}

// since waits for all, and returns how many milliseconds after the call each was
// seen, sorted, without the first ones.
func (a *appearances) since(ctx context.Context, names []string, called map[string]time.Time, warm int) ([]float64, error) {
	if _, err := a.wait(ctx, names); err != nil {
		return nil, err
	}
	var out []float64
	for _, name := range names[warm:] {
		out = append(out, milliseconds(a.at(name).Sub(called[name])))
	}
	slices.Sort(out)
	return out, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// inParallel calls f for each item, by so many workers.
func inParallel[T any](workers int, items []T, f func(T) error) error {
	queue := make(chan T, len(items))
	for _, item := range items {
		queue <- item
	}
	close(queue)
	errs := make(chan error, workers)
	for range workers {
		go func() {
			for item := range queue {
				if err := f(item); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var first error
	for range workers {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}
