//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/sublet-dev/sublet/bench/report"
)

const smallBurst = 100

// bigBursts is how often a big one is measured: it takes long, and varies less.
func bigBursts(runs int) int { return min(runs, 3) }

// measureBurst creates many pods at once and waits until all are on the host; in
// turns straight on the host and in a tenant.
func measureBurst(ctx context.Context, b *bench) ([]result, error) {
	const name = "bench-burst"
	t, err := b.sideBySide(ctx, name)
	if err != nil {
		return nil, err
	}
	var results []result
	for _, size := range []struct {
		metric     string
		pods, runs int
	}{{"burst100", smallBurst, b.runs}, {"burst1000", b.burst, bigBursts(b.runs)}} {
		var host, virtual, ratios []float64
		for range size.runs {
			h, err := b.burstOf(ctx, b.host, name+"-host", name+"-host", size.pods)
			if err != nil {
				return results, err
			}
			v, err := b.burstOf(ctx, t.client, namespace, name, size.pods)
			if err != nil {
				return results, err
			}
			fmt.Fprintf(os.Stderr, "  %d pods: %.2f s on the host, %.2f s from a tenant\n", size.pods, h, v)
			host, virtual, ratios = append(host, h), append(virtual, v), append(ratios, v/h)
		}
		details := map[string]any{"pods": size.pods}
		ratio, seconds := newResult(size.metric+"_ratio", ratios, details), newResult(size.metric+"_s", virtual, details)
		seconds.Host = report.Baseline(host)
		results = append(results, ratio, seconds)
	}
	return results, nil
}

// burstOf returns seconds.
func (b *bench) burstOf(ctx context.Context, client kubernetes.Interface, ns, hostNamespace string, pods int) (float64, error) {
	seen, err := watchPods(ctx, b.host, hostNamespace, created)
	if err != nil {
		return 0, err
	}
	defer seen.watch.Stop()
	names := make([]string, pods)
	for i := range names {
		names[i] = fmt.Sprintf("burst-%d", i)
	}
	start := time.Now()
	err = inParallel(workers, names, func(name string) error {
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
	ours := metav1.ListOptions{LabelSelector: "app=bench"}
	if err := client.CoreV1().Pods(ns).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, ours); err != nil {
		return 0, err
	}
	err = poll(ctx, 200*time.Millisecond, "the pods of a burst to be gone", func() (bool, error) {
		few := metav1.ListOptions{LabelSelector: ours.LabelSelector, Limit: 1}
		inTenant, err := client.CoreV1().Pods(ns).List(ctx, few)
		if err != nil {
			return false, err
		}
		onHost, err := b.host.CoreV1().Pods(hostNamespace).List(ctx, few)
		return err == nil && len(inTenant.Items)+len(onHost.Items) == 0, err
	})
	sleep(ctx, time.Second)
	return took, err
}
