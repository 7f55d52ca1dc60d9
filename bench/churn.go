//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	churnTenant = "bench-churn"
	// churnObjects are written again and again.
	churnObjects = 100
	// churnBytes is the size of each, about that of a small Deployment.
	churnBytes = 1024
	// churnWorkers are many, as it is not the rate that is measured, and etcd writes
	// down at once what comes at once.
	churnWorkers = 40
)

// churned is a tenant that was written to a lot.
type churned struct {
	tenant *tenant
	since  time.Time
	// empty, peak and written are in MiB: before, at most while and right after.
	empty, peak, written float64
	took                 time.Duration
}

// beginChurn writes a lot, so that the tenant can rest while other things are
// measured.
func beginChurn(ctx context.Context, b *bench) error {
	t, err := b.make(ctx, churnTenant)
	if err != nil {
		return err
	}
	b.tenants, b.kept = nil, append(b.kept, churnTenant)
	c := &churned{tenant: t}
	if c.empty, err = t.disk(); err != nil {
		return err
	}
	for i := range churnObjects {
		if _, err := t.client.CoreV1().ConfigMaps(namespace).Create(ctx, churnObject(i, 0), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	start := time.Now()
	if c.peak, err = b.writeALot(ctx, t); err != nil {
		return err
	}
	c.took = time.Since(start)
	if c.written, err = t.disk(); err != nil {
		return err
	}
	c.since = time.Now()
	b.churned = c
	return nil
}

// measureChurn looks at the tenant after its rest, and writes as much again.
func measureChurn(ctx context.Context, b *bench) ([]result, error) {
	c := b.churned
	b.tenants, b.kept = append(b.tenants, b.kept...), nil
	if wait := time.Until(c.since.Add(b.rest)); wait > 0 {
		fmt.Fprintf(os.Stderr, "  waiting %v more for old revisions to be dropped\n", wait.Round(time.Second))
		sleep(ctx, wait)
	}
	rested, err := c.tenant.disk()
	if err != nil {
		return nil, err
	}
	m, err := c.tenant.memory()
	if err != nil {
		return nil, err
	}
	again, err := b.writeALot(ctx, c.tenant)
	if err != nil {
		return nil, err
	}
	details := map[string]any{
		"writes": b.churn, "objects": churnObjects, "bytes": churnBytes, "seconds": c.took.Seconds(),
		"rest_seconds": b.rest.Seconds(), "empty_mib": c.empty, "written_mib": c.written, "second_peak_mib": again,
	}
	return []result{
		newResult("disk_churn_mib", []float64{rested}, details),
		newResult("disk_churn_peak_mib", []float64{c.peak}, details),
		newResult("disk_churn_growth", []float64{again / c.peak}, details),
		newResult("loaded_rss_anon_mib", []float64{m.anon}, details),
	}, ctx.Err()
}

// writeALot returns the most MiB that the data are meanwhile.
func (b *bench) writeALot(ctx context.Context, t *tenant) (peak float64, _ error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	var mu sync.Mutex
	var written int
	watched := make(chan error, 1)
	go func() {
		for tick := 0; ctx.Err() == nil; tick++ {
			used, err := t.disk()
			if err != nil {
				watched <- err
				return
			}
			peak = max(peak, used)
			if tick%20 == 19 {
				mu.Lock()
				fmt.Fprintf(os.Stderr, "  %d of %d writes after %v, %.0f MiB\n", written, b.churn, time.Since(start).Round(time.Second), used)
				mu.Unlock()
			}
			sleep(ctx, 500*time.Millisecond)
		}
		watched <- nil
	}()
	writes := make([]int, b.churn)
	for i := range writes {
		writes[i] = i
	}
	err := inParallel(churnWorkers, writes, func(i int) error {
		_, err := t.client.CoreV1().ConfigMaps(namespace).Update(ctx, churnObject(i%churnObjects, i+1), metav1.UpdateOptions{})
		mu.Lock()
		written++
		mu.Unlock()
		return err
	})
	cancel()
	if watching := <-watched; err == nil {
		err = watching
	}
	return peak, err
}

// churnObject differs from one write to the next.
func churnObject(index, write int) *corev1.ConfigMap {
	text := strings.Repeat("x", churnBytes)
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("churn-%d", index)},
		Data:       map[string]string{"text": fmt.Sprintf("%d %s", write, text)},
	}
}
