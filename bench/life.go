//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/bench/proc"
	"github.com/sublet-dev/sublet/bench/report"
	"github.com/sublet-dev/sublet/hack/images"
)

// life is what the life of one tenant took, in seconds.
type life struct {
	create, boot, again, firstPod, pod, remove float64
	// hostPod and hostRemove are those of a plain namespace on the host.
	hostPod, hostRemove float64
	// separateBoot and separateAgain are those of separate processes.
	separateBoot, separateAgain float64
}

// measureLife makes a tenant, uses it as people do, and deletes it, several times
// one after the other.
func measureLife(ctx context.Context, b *bench) ([]result, error) {
	var lives []life
	for i := range b.runs {
		name := fmt.Sprintf("bench-life-%d", i+1)
		l, err := b.life(ctx, name)
		if err != nil {
			return nil, err
		}
		if err := b.hostLife(ctx, name+"-host", &l); err != nil {
			return nil, err
		}
		if err := b.separateLife(ctx, name, &l); err != nil {
			return nil, err
		}
		fmt.Fprintf(os.Stderr, "  %s: usable after %.2f s, first pod after %.2f s, booted in %.2f s and %.2f s, deleted in %.2f s\n",
			name, l.create, l.firstPod, l.boot, l.again, l.remove)
		lives = append(lives, l)
	}
	of := func(part func(life) float64) []float64 {
		var all []float64
		for _, l := range lives {
			all = append(all, part(l))
		}
		return all
	}
	const inPlace = "in place, while the manager, the kubelet and the client work on the same cores"
	separate := "etcd and kube-apiserver until /readyz of the latter is ok, with nothing else to do"
	boot := newResult("boot_first_s", of(func(l life) float64 { return l.boot }), map[string]string{"tenant": inPlace, "separate": separate})
	boot.Separate = report.Baseline(of(func(l life) float64 { return l.separateBoot }))
	again := newResult("boot_again_s", of(func(l life) float64 { return l.again }), map[string]string{"tenant": inPlace, "separate": separate})
	again.Separate = report.Baseline(of(func(l life) float64 { return l.separateAgain }))
	pod := newResult("pod_running_s", of(func(l life) float64 { return l.pod }), nil)
	pod.Host = report.Baseline(of(func(l life) float64 { return l.hostPod }))
	remove := newResult("delete_s", of(func(l life) float64 { return l.remove }), map[string]string{"tenant": "with two pods in it", "host": "a plain namespace with one pod in it"})
	remove.Host = report.Baseline(of(func(l life) float64 { return l.hostRemove }))
	return []result{
		newResult("create_usable_s", of(func(l life) float64 { return l.create }), nil),
		boot, again,
		newResult("first_pod_s", of(func(l life) float64 { return l.firstPod }), nil),
		pod, remove,
	}, nil
}

// life is that of one tenant.
func (b *bench) life(ctx context.Context, name string) (life, error) {
	var l life
	if err := b.claim(ctx, name); err != nil {
		return l, err
	}
	booted := make(chan float64, 1)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go func() { booted <- b.watchBoot(watching, name, 0) }()

	start := time.Now()
	if out, err := b.sublet(ctx, "create", name).CombinedOutput(); err != nil {
		return l, fmt.Errorf("sublet create %s: %w\n%s", name, err, out)
	}
	if out, err := b.sublet(ctx, "connect", name, "--", "kubectl", "get", "ns").CombinedOutput(); err != nil {
		return l, fmt.Errorf("kubectl get ns in %s: %w\n%s", name, err, out)
	}
	l.create = time.Since(start).Seconds()
	t, err := b.open(ctx, name)
	if err != nil {
		return l, err
	}
	if err := awaitAccount(ctx, t.client, namespace); err != nil {
		return l, err
	}
	if err := runPod(ctx, t.client, namespace, "first"); err != nil {
		return l, err
	}
	l.firstPod = time.Since(start).Seconds()
	select {
	case l.boot = <-booted:
	case <-time.After(10 * time.Second):
		return l, fmt.Errorf("the API of %s answers, and its boot was not seen", name)
	}

	start = time.Now()
	if err := runPod(ctx, t.client, namespace, "second"); err != nil {
		return l, err
	}
	l.pod = time.Since(start).Seconds()

	// As after a crash of the node, but politely: the kubelet starts it again.
	go func() { booted <- b.watchBoot(watching, name, t.pid) }()
	if err := unix.Kill(t.pid, unix.SIGTERM); err != nil {
		return l, fmt.Errorf("end the control plane of %s: %w", name, err)
	}
	select {
	case l.again = <-booted:
	case <-time.After(patience):
		return l, fmt.Errorf("the control plane of %s was ended and did not come back", name)
	}

	start = time.Now()
	if out, err := b.sublet(ctx, "delete", name, "--yes").CombinedOutput(); err != nil {
		return l, fmt.Errorf("sublet delete %s: %w\n%s", name, err, out)
	}
	if err := b.deleteNamespace(ctx, name); err != nil {
		return l, err
	}
	l.remove = time.Since(start).Seconds()
	return l, ctx.Err()
}

// hostLife is that of a pod in a plain namespace.
func (b *bench) hostLife(ctx context.Context, name string, l *life) error {
	if err := b.hostNamespace(ctx, name); err != nil {
		return err
	}
	start := time.Now()
	if err := runPod(ctx, b.host, name, "first"); err != nil {
		return err
	}
	l.hostPod = time.Since(start).Seconds()
	start = time.Now()
	if err := b.deleteNamespace(ctx, name); err != nil {
		return err
	}
	l.hostRemove = time.Since(start).Seconds()
	return nil
}

// separateLife boots separate processes twice.
func (b *bench) separateLife(ctx context.Context, name string, l *life) error {
	c, err := b.separate(name)
	if err != nil {
		return err
	}
	for _, took := range []*float64{&l.separateBoot, &l.separateAgain} {
		if err := c.Start(ctx); err != nil {
			return err
		}
		*took = c.APIReady.Seconds()
		if err := c.Stop(); err != nil {
			return err
		}
	}
	return nil
}

// runPod makes a pod and waits until it is seen running.
func runPod(ctx context.Context, client kubernetes.Interface, ns, name string) error {
	image, err := images.Builder{}.Reference(images.Pause)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("pod %s/%s did not run within %v", ns, name, patience))
	defer cancel()
	pods := client.CoreV1().Pods(ns)
	w, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()})
	if err != nil {
		return err
	}
	defer w.Stop()
	_, err = pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](0),
			Containers:                    []corev1.Container{{Name: "main", Image: image, ImagePullPolicy: corev1.PullIfNotPresent}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case event, ok := <-w.ResultChan():
			if !ok {
				return errors.Join(errors.New("the watch for a pod ended"), context.Cause(ctx))
			}
			if pod, isPod := event.Object.(*corev1.Pod); isPod && pod.Status.Phase == corev1.PodRunning {
				return nil
			}
		}
	}
}

// watchBoot returns the seconds from the start of a tenant's process, another one
// than not, until its /readyz says ok.
func (b *bench) watchBoot(ctx context.Context, name string, not int) float64 {
	var client *kubernetes.Clientset
	var started time.Time
	for ctx.Err() == nil {
		pod, err := b.host.CoreV1().Pods(name).Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
		if err != nil {
			sleep(ctx, 20*time.Millisecond)
			continue
		}
		if started.IsZero() {
			started = proc.Start(processOf(string(pod.UID), not))
		}
		if started.IsZero() || pod.Status.PodIP == "" {
			sleep(ctx, 10*time.Millisecond)
			continue
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
			if err == nil && status == http.StatusOK {
				return time.Since(started).Seconds()
			}
			sleep(ctx, 5*time.Millisecond)
		}
	}
	return 0
}
