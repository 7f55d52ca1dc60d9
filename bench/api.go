//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/sublet-dev/sublet/bench/report"
)

const (
	rateObjects = 500
	// calls are those of one latency, in one turn.
	calls = 100
	// watchers see changes at once, which are made one after the other in one turn.
	watchers, changes = 100, 40
)

// side is one API of those that are compared.
type side struct {
	client kubernetes.Interface
	ns     string
	// samples by metric.
	samples map[string][]float64
}

// measureAPI does the same with a tenant's API, the host's and that of separate
// processes, in turns. All write to an etcd with fsync on, on the same disk.
func measureAPI(ctx context.Context, b *bench) ([]result, error) {
	const name = "bench-rate"
	t, err := b.sideBySide(ctx, name)
	if err != nil {
		return nil, err
	}
	plane, err := b.separate("api")
	if err != nil {
		return nil, err
	}
	if err := plane.Start(ctx); err != nil {
		return nil, err
	}
	apart, err := kubernetes.NewForConfig(plane.Config())
	if err != nil {
		return nil, err
	}
	host := &side{client: b.host, ns: name + "-host", samples: map[string][]float64{}}
	tenant := &side{client: t.client, ns: namespace, samples: map[string][]float64{}}
	separate := &side{client: apart, ns: namespace, samples: map[string][]float64{}}
	sides := []*side{host, tenant, separate}

	for _, s := range sides { // warms up connections
		if _, err := s.rate(ctx); err != nil {
			return nil, err
		}
	}
	for range b.runs {
		for _, s := range sides {
			perSecond, err := s.rate(ctx)
			if err != nil {
				return nil, err
			}
			s.add("api_create_per_s", perSecond)
		}
		for _, s := range sides {
			if err := s.latencies(ctx); err != nil {
				return nil, err
			}
		}
		for _, s := range sides {
			if err := s.fanOut(ctx); err != nil {
				return nil, err
			}
		}
	}
	for _, s := range sides {
		if err := s.list(ctx, b.list); err != nil {
			return nil, err
		}
	}

	var ratios []float64
	for i, virtual := range tenant.samples["api_create_per_s"] {
		ratios = append(ratios, virtual/host.samples["api_create_per_s"][i])
	}
	results := []result{newResult("api_rate_ratio", ratios, map[string]any{
		"host_per_s": host.samples["api_create_per_s"], "tenant_per_s": tenant.samples["api_create_per_s"],
	})}
	for _, metric := range []string{"api_create_per_s", "api_create_p50_ms", "api_get_p50_ms", "api_get_per_s", "api_list5000_ms", "api_watch100_p50_ms"} {
		results = append(results, compared(metric, 0.5, sides))
	}
	for _, metric := range []string{"api_create_p50_ms", "api_get_p50_ms", "api_watch100_p50_ms"} {
		results = append(results, compared(metric, 0.99, sides))
	}
	return results, ctx.Err()
}

// compared is a quantile of what was noted as the median.
func compared(median string, q float64, sides []*side) result {
	name := median
	if q == 0.99 {
		name = name[:len(name)-len("p50_ms")] + "p99_ms"
	}
	host, tenant, separate := sides[0], sides[1], sides[2]
	r := newResult(name, tenant.samples[median], nil)
	r.Host, r.Separate = report.Baseline(host.samples[median]), report.Baseline(separate.samples[median])
	for _, m := range []*report.Measured{&r.Measured, r.Host, r.Separate} {
		m.Value = report.Quantile(slices.Sorted(slices.Values(m.Samples)), q)
	}
	return r
}

func (s *side) add(metric string, value float64) {
	s.samples[metric] = append(s.samples[metric], value)
}

// rate is in creates a second.
func (s *side) rate(ctx context.Context) (float64, error) {
	start := time.Now()
	if err := s.create(ctx, "rate", rateObjects); err != nil {
		return 0, err
	}
	perSecond := rateObjects / time.Since(start).Seconds()
	return perSecond, s.clear(ctx)
}

// create makes small objects, by ten workers.
func (s *side) create(ctx context.Context, prefix string, count int) error {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return inParallel(workers, names, func(name string) error {
		_, err := s.client.CoreV1().ConfigMaps(s.ns).Create(ctx, newConfigMap(name), metav1.CreateOptions{})
		return err
	})
}

func newConfigMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "bench"}},
		Data:       map[string]string{"key": "value"},
	}
}

// clear deletes all, and lets the machine come to rest.
func (s *side) clear(ctx context.Context) error {
	err := s.client.CoreV1().ConfigMaps(s.ns).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=bench"})
	sleep(ctx, time.Second)
	return err
}

// latencies are those of one client that does nothing else meanwhile, and the rate
// of gets by ten workers.
func (s *side) latencies(ctx context.Context) error {
	maps := s.client.CoreV1().ConfigMaps(s.ns)
	var names []string
	for i := range calls {
		names = append(names, fmt.Sprintf("call-%d", i))
	}
	for _, call := range []struct {
		metric string
		do     func(name string) error
	}{
		{"api_create_p50_ms", func(name string) error {
			_, err := maps.Create(ctx, newConfigMap(name), metav1.CreateOptions{})
			return err
		}},
		{"api_get_p50_ms", func(name string) error {
			_, err := maps.Get(ctx, name, metav1.GetOptions{})
			return err
		}},
	} {
		for _, name := range names {
			start := time.Now()
			if err := call.do(name); err != nil {
				return err
			}
			s.add(call.metric, milliseconds(time.Since(start)))
		}
	}
	many := slices.Repeat(names, rateObjects/calls)
	start := time.Now()
	err := inParallel(workers, many, func(name string) error {
		_, err := maps.Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return err
	}
	s.add("api_get_per_s", float64(len(many))/time.Since(start).Seconds())
	return s.clear(ctx)
}

// list reads all of many objects at once, several times.
func (s *side) list(ctx context.Context, count int) error {
	if err := s.create(ctx, "list", count); err != nil {
		return err
	}
	const rounds = 10
	for range rounds {
		start := time.Now()
		list, err := s.client.CoreV1().ConfigMaps(s.ns).List(ctx, metav1.ListOptions{LabelSelector: "app=bench"})
		if err != nil {
			return err
		}
		s.add("api_list5000_ms", milliseconds(time.Since(start)))
		if len(list.Items) != count {
			return fmt.Errorf("%d objects were created and %d listed", count, len(list.Items))
		}
	}
	return s.clear(ctx)
}

// fanOut changes an object that many watch, and waits until the last has seen it.
func (s *side) fanOut(ctx context.Context) error {
	maps := s.client.CoreV1().ConfigMaps(s.ns)
	made, err := maps.Create(ctx, newConfigMap("watched"), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	// Each watcher tells of each change that it sees, by its number.
	seen := make(chan int, watchers)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	for range watchers {
		w, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: made.ResourceVersion, FieldSelector: "metadata.name=" + made.Name})
		if err != nil {
			return err
		}
		defer w.Stop()
		go func() {
			for event := range w.ResultChan() {
				object, ok := event.Object.(*corev1.ConfigMap)
				if !ok || event.Type != watch.Modified {
					continue
				}
				change, err := strconv.Atoi(object.Data["change"])
				if err != nil {
					continue
				}
				select {
				case seen <- change:
				case <-watching.Done():
				}
			}
		}()
	}
	for change := range changes {
		start := time.Now()
		patch := fmt.Appendf(nil, `{"data":{"change":"%d"}}`, change)
		if _, err := maps.Patch(ctx, made.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
		deadline := time.After(patience)
		for missing := watchers; missing > 0; {
			select {
			case got := <-seen:
				if got == change {
					missing--
				}
			case <-ctx.Done():
				return ctx.Err()
			case <-deadline:
				return fmt.Errorf("%d of %d watchers did not see a change", missing, watchers)
			}
		}
		s.add("api_watch100_p50_ms", milliseconds(time.Since(start)))
	}
	return s.clear(ctx)
}
