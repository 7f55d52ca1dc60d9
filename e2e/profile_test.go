//go:build linux

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// TestProfiles: profiles of a control plane are off until its Tenant says
// otherwise, and then for admins of the tenant alone.
func TestProfiles(t *testing.T) {
	s := shared(t)
	ctx := t.Context()
	const name, person = "e2e-profiles", "e2e-emil"
	s.newTenant(t, name, "--member", "serviceaccount:default/"+person+"=edit", "--ephemeral")
	_, err := s.host.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: person}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.host.CoreV1().ServiceAccounts("default").Delete(context.Background(), person, metav1.DeleteOptions{})
	})
	dir := t.TempDir()
	file := filepath.Join(dir, "profile")

	r := s.sublet(t, "debug", "profile", name, "-o", file)
	if r.code != 1 || !strings.Contains(r.stderr, "they are off") || !strings.Contains(r.stderr, "kubectl patch tenant "+name) {
		t.Errorf("where profiles are off it ends with %d: %s%s", r.code, r.stdout, r.stderr)
	}

	tenant := &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}}
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"virtualCluster":{"profiling":true}}}`))
	if err := s.objects.Patch(ctx, tenant, patch); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*time.Minute, "profiles are on", func() error {
		if r := s.sublet(t, "debug", "profile", name, "-o", file); r.code != 0 {
			return &exitError{r}
		}
		return nil
	})
	for _, kind := range []string{"heap", "cpu", "goroutine", "allocs"} {
		args := []string{"debug", "profile", name, "--type", kind, "-o", file}
		if kind == "cpu" {
			args = append(args, "--seconds", "1")
		}
		if out := s.mustSublet(t, args...); out != file+"\n" {
			t.Errorf("%s: it prints %q", kind, out)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := profile.ParseData(content); err != nil {
			t.Errorf("%s: %d bytes: %v", kind, len(content), err)
		}
	}
	if out := s.mustSublet(t, "debug", "profile", name, "--type", "trace", "--seconds", "1", "-o", "-"); !strings.HasPrefix(out, "go 1.") {
		t.Errorf("a trace begins with %q", out[:min(len(out), 16)])
	}

	env := []string{"KUBECONFIG=" + s.kubeconfigFor(t, "default", person)}
	refused := filepath.Join(dir, "refused")
	r = s.subletWith(t, env, "debug", "profile", name, "-o", refused)
	if r.code != 1 || !strings.Contains(r.stderr, "are for its admins") {
		t.Errorf("for a member with the role edit it ends with %d: %s%s", r.code, r.stdout, r.stderr)
	}
	if _, err := os.Stat(refused); !os.IsNotExist(err) {
		t.Errorf("it was written all the same: %v", err)
	}

	r = s.sublet(t, "debug", "profile", "--manager", "-o", filepath.Join(dir, "manager"))
	if r.code != 1 || !strings.Contains(r.stderr, "manager.profiling=true") {
		t.Errorf("where the manager's are off it ends with %d: %s%s", r.code, r.stdout, r.stderr)
	}
}

type exitError struct{ result }

func (e *exitError) Error() string { return e.stdout + e.stderr }
