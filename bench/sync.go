//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/bench/report"
)

const (
	syncPods     = 120
	syncInterval = time.Second / 3
	burstPods    = 100
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

// appearances tells when pods, by the name that they were created with, are seen
// on the host.
type appearances struct {
	mu      sync.Mutex
	seen    map[string]time.Time
	changed chan struct{}
	watch   watch.Interface
}

func (b *bench) watchPods(ctx context.Context, hostNamespace string) (*appearances, error) {
	list, err := b.host.CoreV1().Pods(hostNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	w, err := b.host.CoreV1().Pods(hostNamespace).Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return nil, err
	}
	a := &appearances{seen: map[string]time.Time{}, changed: make(chan struct{}, 1), watch: w}
	go func() {
		for event := range w.ResultChan() {
			now := time.Now()
			pod, ok := event.Object.(*corev1.Pod)
			if !ok || event.Type != watch.Added {
				continue
			}
			name := pod.Annotations[api.AnnotationVirtualName]
			if name == "" {
				name = pod.Name
			}
			a.mu.Lock()
			a.seen[name] = now
			a.mu.Unlock()
			select {
			case a.changed <- struct{}{}:
			default:
			}
		}
	}()
	return a, nil
}

// wait waits until all the pods were seen and returns when the last one was.
func (a *appearances) wait(ctx context.Context, names []string) (time.Time, error) {
	deadline := time.After(time.Minute)
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
			return last, fmt.Errorf("%d of %d pods did not come to the host within a minute", missing, len(names))
		case <-a.changed:
		}
	}
}

func (a *appearances) at(name string) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[name]
}

// hostNamespace makes a plain namespace on the host to compare with.
func (b *bench) hostNamespace(ctx context.Context, name string) (remove func(), _ error) {
	_, err := b.host.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	for ctx.Err() == nil {
		// Pods need the ServiceAccount that a controller makes.
		if _, err := b.host.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{}); err == nil {
			break
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return func() {
		if err := b.host.CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), name, metav1.DeleteOptions{}); err != nil {
			fmt.Fprintf(os.Stderr, "delete namespace %s: %v\n", name, err)
		}
	}, ctx.Err()
}

// sideBySide makes a tenant and, to compare it with, the host namespace NAME-host,
// which remove takes away.
func (b *bench) sideBySide(ctx context.Context, name string) (t *tenant, remove func(), err error) {
	if err := b.create(ctx, name); err != nil {
		return nil, nil, err
	}
	if t, err = b.open(ctx, name); err != nil {
		return nil, nil, err
	}
	if remove, err = b.hostNamespace(ctx, name+"-host"); err != nil {
		return nil, nil, err
	}
	return t, remove, nil
}

// measureSync creates pods three a second and takes the time from the call until
// the host's watch shows each; first straight on the host, then in a tenant.
func measureSync(ctx context.Context, b *bench) ([]result, error) {
	const name = "bench-sync"
	t, remove, err := b.sideBySide(ctx, name)
	if err != nil {
		return nil, err
	}
	defer remove()
	host, err := b.latencies(ctx, b.host, name+"-host", name+"-host")
	if err != nil {
		return nil, err
	}
	virtual, err := b.latencies(ctx, t.client, namespace, name)
	if err != nil {
		return nil, err
	}
	details := map[string]any{
		"pods":        syncPods,
		"host_p50_ms": report.Quantile(host, 0.5),
		"host_p99_ms": report.Quantile(host, 0.99),
	}
	median, slow := newResult("sync_p50_ms", virtual, details), newResult("sync_p99_ms", virtual, details)
	slow.Value = report.Quantile(virtual, 0.99)
	return []result{median, slow}, nil
}

// latencies returns milliseconds, sorted.
func (b *bench) latencies(ctx context.Context, client kubernetes.Interface, ns, hostNamespace string) ([]float64, error) {
	seen, err := b.watchPods(ctx, hostNamespace)
	if err != nil {
		return nil, err
	}
	defer seen.watch.Stop()
	var names []string
	called := map[string]time.Time{}
	ticker := time.NewTicker(syncInterval)
	defer ticker.Stop()
	// The first ones warm up connections and caches.
	const warm = 5
	for i := range syncPods + warm {
		<-ticker.C
		name := fmt.Sprintf("sync-%d", i)
		start := time.Now()
		if _, err := client.CoreV1().Pods(ns).Create(ctx, newPod(name), metav1.CreateOptions{}); err != nil {
			return nil, err
		}
		if i >= warm {
			names = append(names, name)
			called[name] = start
		}
	}
	if _, err := seen.wait(ctx, names); err != nil {
		return nil, err
	}
	var out []float64
	for _, name := range names {
		out = append(out, float64(seen.at(name).Sub(called[name]).Microseconds())/1000)
	}
	slices.Sort(out)
	return out, client.CoreV1().Pods(ns).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=bench"})
}

// measureBurst creates a hundred pods at once and waits until all are on the
// host; in turns straight on the host and in a tenant.
func measureBurst(ctx context.Context, b *bench) ([]result, error) {
	const name = "bench-burst"
	t, remove, err := b.sideBySide(ctx, name)
	if err != nil {
		return nil, err
	}
	defer remove()
	var host, virtual, ratios []float64
	for range b.runs {
		h, err := b.burst(ctx, b.host, name+"-host", name+"-host")
		if err != nil {
			return nil, err
		}
		v, err := b.burst(ctx, t.client, namespace, name)
		if err != nil {
			return nil, err
		}
		host, virtual, ratios = append(host, h), append(virtual, v), append(ratios, v/h)
	}
	return []result{newResult("burst100_ratio", ratios, map[string]any{"host_s": host, "tenant_s": virtual})}, nil
}

func (b *bench) burst(ctx context.Context, client kubernetes.Interface, ns, hostNamespace string) (float64, error) {
	seen, err := b.watchPods(ctx, hostNamespace)
	if err != nil {
		return 0, err
	}
	defer seen.watch.Stop()
	names := make([]string, burstPods)
	for i := range names {
		names[i] = fmt.Sprintf("burst-%d", i)
	}
	start := time.Now()
	err = inParallel(names, func(name string) error {
		_, err := client.CoreV1().Pods(ns).Create(ctx, newPod(name), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return 0, err
	}
	last, err := seen.wait(ctx, names)
	if err != nil {
		return 0, err
	}
	took := last.Sub(start).Seconds()
	if err := client.CoreV1().Pods(ns).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, metav1.ListOptions{LabelSelector: "app=bench"}); err != nil {
		return 0, err
	}
	for ctx.Err() == nil {
		inTenant, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "app=bench"})
		if err != nil {
			return 0, err
		}
		onHost, err := b.host.CoreV1().Pods(hostNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app=bench"})
		if err != nil {
			return 0, err
		}
		if len(inTenant.Items)+len(onHost.Items) == 0 {
			break
		}
		sleep(ctx, 100*time.Millisecond)
	}
	sleep(ctx, time.Second)
	return took, ctx.Err()
}

// inParallel calls f for each item, by as many workers as the budgets say.
func inParallel[T any](items []T, f func(T) error) error {
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
