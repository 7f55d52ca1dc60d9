//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// TestKillUnderLoad kills a tenant's process while clients write. What its API
// has acknowledged must be there afterwards, with the content that was written.
func TestKillUnderLoad(t *testing.T) {
	s := shared(t)
	s.onLocalHost(t)
	tn := s.newTenant(t, "e2e-crash")
	ctx := t.Context()
	ns := tn.newNamespace(t, "load")
	workload := tn.start(t, ns, newServer("bystander"))
	before, err := s.hostPod(ctx, tn, ns, "bystander")
	if err != nil {
		t.Fatal(err)
	}
	controlPlane, err := s.host.CoreV1().Pods(tn.namespace).Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}

	// At most so many objects; the load stops earlier when the killing is done.
	const writers, each, kills = 4, 1500, 3
	var (
		mu           sync.Mutex
		acknowledged = map[string]string{}
		wg           sync.WaitGroup
	)
	load, stop := context.WithCancel(ctx)
	defer stop()
	for writer := range writers {
		wg.Go(func() {
			for i := range each {
				if load.Err() != nil {
					return
				}
				name, value := fmt.Sprintf("load-%d-%d", writer, i), fmt.Sprintf("%d.%d", writer, time.Now().UnixNano())
				attempt, cancel := context.WithTimeout(load, 5*time.Second)
				_, err := tn.CoreV1().ConfigMaps(ns).Create(attempt, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"value": value}}, metav1.CreateOptions{})
				cancel()
				if err == nil {
					mu.Lock()
					acknowledged[name] = value
					mu.Unlock()
					continue
				}
				// Not acknowledged, so either outcome is right; the name is not
				// used again.
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged)
	}
	for kill := range kills {
		had := count()
		eventually(t, 2*time.Minute, "writes are acknowledged before a kill", func() error {
			if n := count() - had; n < 50 {
				return fmt.Errorf("%d since the last one", n)
			}
			return nil
		})
		pid := s.processOf(t, string(controlPlane.UID), "subletd")
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill -9 %d: %v", pid, err)
		}
		t.Logf("kill %d: process %d, %d writes acknowledged", kill+1, pid, count())
	}
	had := count()
	eventually(t, 2*time.Minute, "writes are acknowledged after the last kill", func() error {
		if n := count() - had; n < 20 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	stop()
	wg.Wait()

	found := map[string]string{}
	list, err := tn.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, configMap := range list.Items {
		found[configMap.Name] = configMap.Data["value"]
	}
	lost := 0
	for name, value := range acknowledged {
		if found[name] != value {
			lost++
			t.Errorf("%s was acknowledged with %q and is %q", name, value, found[name])
		}
	}
	t.Logf("%d acknowledged writes, %d objects, %d lost", len(acknowledged), len(found), lost)

	// Those who had nothing to do with it noticed nothing.
	after, err := s.hostPod(ctx, tn, ns, "bystander")
	if err != nil || after.UID != before.UID {
		t.Errorf("the pod on the host was replaced: %v", err)
	}
	virtual, err := tn.CoreV1().Pods(ns).Get(ctx, "bystander", metav1.GetOptions{})
	if err != nil || virtual.UID != workload.UID {
		t.Errorf("the pod in the tenant was replaced: %v", err)
	}
	tn.start(t, ns, newPod("afterwards"))
	if got := tn.sh(t, ns, "afterwards", "curl -sS --max-time 5 http://"+after.Status.PodIP+":8080/hostname"); got != "bystander" {
		t.Errorf("the pod answers as %q", got)
	}
	now, err := s.host.CoreV1().Pods(tn.namespace).Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
	if err != nil || now.UID != controlPlane.UID || now.Status.ContainerStatuses[0].RestartCount != kills {
		t.Errorf("the control plane's pod: %v, restarts %v, want the same pod with %d restarts", err, now.Status.ContainerStatuses, kills)
	}
	if err := tn.CoreV1().ConfigMaps(ns).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// processOf finds the process of a pod's container by the pod's cgroup.
func (s *suite) processOf(t *testing.T, podUID, program string) int {
	t.Helper()
	pid := 0
	eventually(t, time.Minute, program+" runs in the pod", func() error {
		dirs, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
			if err != nil || !strings.Contains(string(cgroup), podUID) {
				continue
			}
			comm, err := os.ReadFile(filepath.Join(dir, "comm"))
			if err == nil && strings.TrimSpace(string(comm)) == program {
				pid, err = strconv.Atoi(filepath.Base(dir))
				return err
			}
		}
		return fmt.Errorf("no process")
	})
	return pid
}
