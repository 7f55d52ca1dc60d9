//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/bench/proc"
)

// measureLife makes a tenant, uses it as people do, and deletes it, several
// times one after the other.
func measureLife(ctx context.Context, b *bench) ([]result, error) {
	var create, boot, remove []float64
	for i := range b.runs {
		name := fmt.Sprintf("bench-life-%d", i+1)
		booted := make(chan float64, 1)
		watching, stop := context.WithCancel(ctx)
		go func() { booted <- b.watchBoot(watching, name) }()

		start := time.Now()
		err := b.create(ctx, name)
		if err == nil {
			var out []byte
			if out, err = b.sublet(ctx, "connect", name, "--", "kubectl", "get", "ns").CombinedOutput(); err != nil {
				err = fmt.Errorf("kubectl get ns in %s: %w\n%s", name, err, out)
			}
		}
		took := time.Since(start).Seconds()
		if err != nil {
			stop()
			return nil, err
		}
		select {
		case s := <-booted:
			boot = append(boot, s)
		case <-time.After(10 * time.Second):
			stop()
			return nil, fmt.Errorf("the API of %s answers, and its boot was not seen", name)
		}
		stop()
		create = append(create, took)

		start = time.Now()
		if out, err := b.sublet(ctx, "delete", name, "--yes").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("sublet delete %s: %w\n%s", name, err, out)
		}
		for {
			_, err := b.host.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				break
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			time.Sleep(10 * time.Millisecond)
		}
		remove = append(remove, time.Since(start).Seconds())
		fmt.Fprintf(os.Stderr, "  %s: usable after %.2f s, booted in %.2f s, deleted in %.2f s\n", name, took, boot[len(boot)-1], remove[len(remove)-1])
	}
	return []result{
		newResult("create_usable_s", create, nil),
		newResult("boot_first_s", boot, "in place, while the manager, the kubelet and the client work on the same two cores"),
		newResult("delete_s", remove, nil),
	}, nil
}

// watchBoot returns the seconds from the start of a tenant's process until its
// /readyz says ok.
func (b *bench) watchBoot(ctx context.Context, name string) float64 {
	var client *kubernetes.Clientset
	var started time.Time
	for ctx.Err() == nil {
		pod, err := b.host.CoreV1().Pods(name).Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
		if err != nil || pod.Status.PodIP == "" {
			if err == nil && started.IsZero() {
				started = proc.Start(processOf(string(pod.UID)))
			}
			sleep(ctx, 20*time.Millisecond)
			continue
		}
		if started.IsZero() {
			started = proc.Start(processOf(string(pod.UID)))
		}
		if client == nil {
			config, err := b.tenantConfig(ctx, name, pod.Status.PodIP)
			if err == nil {
				config.Timeout = time.Second
				client, err = kubernetes.NewForConfig(config)
			}
			if err != nil {
				sleep(ctx, 10*time.Millisecond)
				continue
			}
		}
		for ctx.Err() == nil {
			var status int
			err := client.RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&status).Error()
			if err == nil && status == http.StatusOK && !started.IsZero() {
				return time.Since(started).Seconds()
			}
			if started.IsZero() {
				break
			}
			sleep(ctx, 5*time.Millisecond)
		}
	}
	return 0
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
