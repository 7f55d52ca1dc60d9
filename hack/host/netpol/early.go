package netpol

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// early knows the addresses of pods before the kubelet tells them: from the file
// that the host-local plugin writes for each address, which names a sandbox, and
// the sandbox's own configuration, which names the pod. Both are there before
// the first container of the pod starts.
type early struct {
	leases, bundles string
	changed         func()

	mu        sync.Mutex
	addresses map[types.UID]netip.Addr
}

const (
	// bundlePatience is how long a sandbox may take to start after it got its
	// address; longer means that it failed.
	bundlePatience = 10 * time.Second
	bundlePoll     = 10 * time.Millisecond
	uidAnnotation  = "io.kubernetes.cri.sandbox-uid"
)

func newEarly(o Options, changed func()) *early {
	return &early{leases: o.Leases, bundles: o.Bundles, changed: changed, addresses: map[types.UID]netip.Addr{}}
}

// run follows the directory of leases until the context ends.
func (e *early) run(ctx context.Context) error {
	if e.leases == "" {
		return nil
	}
	if err := os.MkdirAll(e.leases, 0o755); err != nil {
		return fmt.Errorf("watch the addresses of pods: %w", err)
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the addresses of pods: %w", err)
	}
	defer watcher.Close()
	if err := watcher.Add(e.leases); err != nil {
		return fmt.Errorf("watch the addresses of pods: %w", err)
	}
	entries, err := os.ReadDir(e.leases)
	if err != nil {
		return fmt.Errorf("list the addresses of pods: %w", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	found := func(name string) {
		if address, err := netip.ParseAddr(filepath.Base(name)); err == nil && address.Is4() {
			wg.Go(func() { e.learn(ctx, address) })
		}
	}
	for _, entry := range entries {
		found(entry.Name())
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-watcher.Events:
			switch {
			case !ok:
				return errors.New("the watch on the addresses of pods ended")
			case event.Has(fsnotify.Create):
				found(event.Name)
			case event.Has(fsnotify.Remove):
				if address, err := netip.ParseAddr(filepath.Base(event.Name)); err == nil {
					e.forget(address)
				}
			}
		case err := <-watcher.Errors:
			return fmt.Errorf("watch the addresses of pods: %w", err)
		}
	}
}

// learn waits until it is known whose address it is.
func (e *early) learn(ctx context.Context, address netip.Addr) {
	deadline := time.Now().Add(bundlePatience)
	for ctx.Err() == nil && time.Now().Before(deadline) {
		if uid := e.owner(address); uid != "" {
			e.mu.Lock()
			e.addresses[uid] = address
			e.mu.Unlock()
			e.changed()
			return
		}
		time.Sleep(bundlePoll)
	}
}

// owner is empty until everything is written.
func (e *early) owner(address netip.Addr) types.UID {
	lease, err := os.ReadFile(filepath.Join(e.leases, address.String()))
	if err != nil {
		return ""
	}
	sandbox := strings.TrimSpace(strings.SplitN(string(lease), "\n", 2)[0])
	if sandbox == "" {
		return ""
	}
	content, err := os.ReadFile(filepath.Join(e.bundles, sandbox, "config.json"))
	if err != nil {
		return ""
	}
	var config struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(content, &config); err != nil {
		return ""
	}
	return types.UID(config.Annotations[uidAnnotation])
}

func (e *early) forget(address netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for uid, known := range e.addresses {
		if known == address {
			delete(e.addresses, uid)
		}
	}
}

// complete fills in what the pods' status does not say yet.
func (e *early) complete(pods []*corev1.Pod) []*corev1.Pod {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]*corev1.Pod, len(pods))
	for i, pod := range pods {
		out[i] = pod
		if address, known := e.addresses[pod.UID]; known && pod.Status.PodIP != address.String() {
			pod = pod.DeepCopy()
			pod.Status.PodIP = address.String()
			pod.Status.PodIPs = []corev1.PodIP{{IP: address.String()}}
			out[i] = pod
		}
	}
	return out
}
