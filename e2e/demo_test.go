//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestChart does in a tenant what the demo does: a CRD, a chart with all that
// needs rights in a whole cluster, by unmodified kubectl and helm.
func TestChart(t *testing.T) {
	s := shared(t)
	blue, green := s.sharedTenant(t, "e2e-blue"), s.sharedTenant(t, "e2e-green")
	ctx := t.Context()
	run := func(tn *tenant, program string, args ...string) string {
		t.Helper()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*time.Minute)
		defer cancel()
		cmd := s.command(limit, s.path(".cache/bin/"+program), args...)
		cmd.Env = append(cmd.Env, "KUBECONFIG="+tn.kubeconfigOf(t))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	// The same CRD, in another version in each.
	for tn, version := range map[*tenant]string{blue: "v1", green: "v2"} {
		run(tn, "kubectl", "apply", "-f", "hack/demo/manifests/widgets-"+version+".yaml")
		run(tn, "kubectl", "wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=30s")
		client, err := dynamic.NewForConfig(tn.config)
		if err != nil {
			t.Fatal(err)
		}
		for _, asked := range []string{"v1", "v2"} {
			_, err := client.Resource(schema.GroupVersionResource{Group: "example.com", Version: asked, Resource: "widgets"}).List(ctx, metav1.ListOptions{})
			if (err == nil) != (asked == version) {
				t.Errorf("%s has the CRD in %s; asked for %s: %v", tn.name, version, asked, err)
			}
		}
	}
	crd := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	for _, name := range []string{"widgets.example.com", "notices.board.example.com"} {
		if _, err := s.dynamic.Resource(crd).Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the host has the tenant's CRD %s: %v", name, err)
		}
	}

	ns := blue.newNamespace(t, "chart")
	out := run(blue, "helm", "install", "board", "hack/demo/charts/board", "-n", ns, "--wait", "--timeout", "3m")
	if !strings.Contains(out, "STATUS: deployed") {
		t.Fatalf("helm says:\n%s", out)
	}
	t.Cleanup(func() {
		if os.Getenv("SUBLET_E2E_KEEP") == "" {
			run(blue, "helm", "uninstall", "board", "-n", ns)
		}
	})
	if out := run(blue, "kubectl", "-n", ns, "get", "notice", "first", "-o", "jsonpath={.spec.text}"); out != "put up by the hook of the chart" {
		t.Errorf("the hook wrote %q", out)
	}
	blue.start(t, ns, newPod("client"))
	got := blue.sh(t, ns, "client", fmt.Sprintf("curl -sS --max-time 5 http://board.%s.svc.cluster.local/hostname", ns))
	if !regexp.MustCompile(`^board-[a-z0-9]+-[a-z0-9]+$`).MatchString(got) {
		t.Errorf("the Service answers as %q", got)
	}
	if out := run(blue, "kubectl", "-n", ns, "exec", "deploy/board", "--", "sh", "-c", "echo $KEY; cat /etc/board/welcome.txt; echo kept > /var/board/x; cat /var/board/x"); out != "open-sesame\nWelcome to the board\nkept\n" {
		t.Errorf("in the pod: %q", out)
	}
	if out := run(blue, "kubectl", "-n", ns, "logs", "job/board-first-notice"); !strings.Contains(out, "the first notice is up") {
		t.Errorf("the hook's log: %s", out)
	}
	if claim, err := blue.CoreV1().PersistentVolumeClaims(ns).Get(ctx, "board", metav1.GetOptions{}); err != nil || claim.Status.Phase != "Bound" {
		t.Errorf("the volume claim is %s (%v), want Bound", claim.Status.Phase, err)
	}
	// The same pods on the host, in the tenant's one namespace.
	pods, err := blue.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "app=board"})
	if err != nil || len(pods.Items) != 2 {
		t.Fatalf("%d pods: %v", len(pods.Items), err)
	}
	for _, pod := range pods.Items {
		host, err := s.hostPod(ctx, blue, ns, pod.Name)
		if err != nil {
			t.Errorf("%s: %v", pod.Name, err)
			continue
		}
		if host.Status.PodIP != pod.Status.PodIP || host.Spec.NodeName != pod.Spec.NodeName {
			t.Errorf("%s is at %s on %s in the tenant, at %s on %s on the host", pod.Name, pod.Status.PodIP, pod.Spec.NodeName, host.Status.PodIP, host.Spec.NodeName)
		}
	}
	// Files come and go with cp, as a stream through exec.
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, []byte("through exec"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(blue, "kubectl", "-n", ns, "cp", file, "client:/tmp/file")
	if got := blue.sh(t, ns, "client", "cat /tmp/file"); got != "through exec" {
		t.Errorf("the file has %q", got)
	}
}
