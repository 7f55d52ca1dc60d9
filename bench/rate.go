//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const rateObjects = 500

// measureRate creates config maps through a tenant's API and through the host's,
// in turns. Both write to an etcd with fsync on.
func measureRate(ctx context.Context, b *bench) ([]result, error) {
	const name = "bench-rate"
	t, remove, err := b.sideBySide(ctx, name)
	if err != nil {
		return nil, err
	}
	defer remove()
	var host, virtual, ratios []float64
	for i := range b.runs + 1 {
		h, err := rate(ctx, b.host, name+"-host")
		if err != nil {
			return nil, err
		}
		v, err := rate(ctx, t.client, namespace)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			continue // warms up connections
		}
		host, virtual, ratios = append(host, h), append(virtual, v), append(ratios, v/h)
	}
	return []result{newResult("api_rate_ratio", ratios, map[string]any{"host_per_s": host, "tenant_per_s": virtual})}, nil
}

// rate is in objects a second.
func rate(ctx context.Context, client kubernetes.Interface, ns string) (float64, error) {
	names := make([]string, rateObjects)
	for i := range names {
		names[i] = fmt.Sprintf("rate-%d", i)
	}
	start := time.Now()
	err := inParallel(names, func(name string) error {
		_, err := client.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "bench"}},
			Data:       map[string]string{"key": "value"},
		}, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return 0, err
	}
	took := time.Since(start)
	if err := client.CoreV1().ConfigMaps(ns).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=bench"}); err != nil {
		return 0, err
	}
	sleep(ctx, time.Second)
	return rateObjects / took.Seconds(), ctx.Err()
}
