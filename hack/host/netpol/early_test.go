package netpol

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestEarly writes the files in the order in which plugin and runtime do.
func TestEarly(t *testing.T) {
	leases, bundles := filepath.Join(t.TempDir(), "not", "there", "yet"), t.TempDir()
	changed := make(chan struct{}, 8)
	e := newEarly(Options{Leases: leases, Bundles: bundles}, func() { changed <- struct{}{} })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(leases); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the directory of leases was not made")
		}
	}
	write := func(path, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(leases, "last_reserved_ip.0"), "10.1.0.7")
	lease := filepath.Join(leases, "10.1.0.7")
	write(lease, "abc\r\neth0")
	write(filepath.Join(bundles, "abc", "config.json"), `{"annotations":{"`+uidAnnotation+`":"uid-1"}}`)
	select {
	case <-changed:
	case <-time.After(5 * time.Second):
		t.Fatal("the address was not noticed")
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid-1"}}
	other := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid-2"}}
	got := e.complete([]*corev1.Pod{pod, other})
	if got[0].Status.PodIP != "10.1.0.7" || pod.Status.PodIP != "" || got[1] != other {
		t.Errorf("got %q and %q, the pod itself has %q", got[0].Status.PodIP, got[1].Status.PodIP, pod.Status.PodIP)
	}
	if err := os.Remove(lease); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); e.complete([]*corev1.Pod{pod})[0] != pod; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the address is still known after its lease ended")
		}
	}
}
