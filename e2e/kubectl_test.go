//go:build linux

package e2e

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// base64Of is how bytes look in an object.
func base64Of(content []byte) string { return base64.StdEncoding.EncodeToString(content) }

// kubectl runs kubectl in a tenant with some standard input, and returns what it
// printed.
func (tn *tenant) kubectl(t *testing.T, s *suite) func(input string, args ...string) (string, error) {
	t.Helper()
	file := tn.kubeconfigOf(t)
	// kubectl keeps what it discovered by address and port, and another tenant
	// may have had this port before.
	cache := "KUBECACHEDIR=" + t.TempDir()
	return func(input string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		cmd := s.command(ctx, s.path(".cache/bin/kubectl"), append([]string{"--kubeconfig", file}, args...)...)
		cmd.Env = append(cmd.Env, cache)
		cmd.Stdin = strings.NewReader(input)
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return string(out), err
	}
}

// TestKubectl: what people do with kubectl every day, in a tenant of an older
// version at that, against the real node.
func TestKubectl(t *testing.T) {
	s := shared(t)
	tn := s.newTenant(t, "e2e-kubectl", "--version", "1.34", "--ephemeral")
	k := &kubectlTest{tn: tn, s: s, kubectl: tn.kubectl(t, s), ns: tn.newNamespace(t, "kubectl")}
	web := newServer("web")
	web.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	web.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}
	k.node = tn.start(t, k.ns, web).Spec.NodeName

	t.Run("version", k.testVersion)
	t.Run("apply", k.testApply)
	t.Run("cp", k.testCopy)
	t.Run("port-forward", k.testPortForward)
	t.Run("proxy", k.testProxy)
	t.Run("debug", k.testDebug)
	t.Run("drain", k.testDrain)
}

type kubectlTest struct {
	tn       *tenant
	s        *suite
	kubectl  func(input string, args ...string) (string, error)
	ns, node string
}

// must runs kubectl in the test's namespace and wants it to succeed.
func (k *kubectlTest) must(t *testing.T, input string, args ...string) string {
	t.Helper()
	out, err := k.kubectl(input, append([]string{"-n", k.ns}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// testVersion: the tenant is what it was made as, for kubectl and for a chart.
func (k *kubectlTest) testVersion(t *testing.T) {
	if out := k.must(t, "", "version"); !strings.Contains(out, "Server Version: v1.34.0+sublet-") {
		t.Errorf("kubectl version:\n%s", out)
	}
	if out, err := k.kubectl("", "get", "mutatingadmissionpolicies"); err == nil || !strings.Contains(out, "doesn't have a resource type") {
		t.Errorf("a kind that came with 1.36: %v\n%s", err, out)
	}
}

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: paused, labels: {team: %s}}
spec:
  replicas: %d
  selector: {matchLabels: {app: paused}}
  template:
    metadata: {labels: {app: paused}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "%s", args: [pause]}]
`

func (k *kubectlTest) testApply(t *testing.T) {
	first := fmt.Sprintf(deployment, "blue", 1, agnhost())
	k.must(t, first, "apply", "--server-side", "--field-manager=one", "-f", "-")
	k.must(t, "", "wait", "--for=condition=Available", "deployment/paused", "--timeout=60s")
	k.must(t, "", "wait", "--for=jsonpath={.status.readyReplicas}=1", "deployment/paused", "--timeout=10s")
	k.must(t, "", "rollout", "status", "deployment/paused", "--timeout=30s")

	other := fmt.Sprintf(deployment, "green", 1, agnhost())
	if out, err := k.kubectl(other, "-n", k.ns, "apply", "--server-side", "--field-manager=two", "-f", "-"); err == nil || !strings.Contains(out, `conflict with "one"`) {
		t.Errorf("a second manager takes a field over: %v\n%s", err, out)
	}
	k.must(t, other, "apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", "-")
	if got := k.must(t, "", "get", "deployment", "paused", "-o", "jsonpath={.metadata.labels.team}"); got != "green" {
		t.Errorf("the label is %q", got)
	}
	k.must(t, other, "diff", "--server-side", "--field-manager=two", "--force-conflicts", "-f", "-")
	if out := k.must(t, "", "explain", "deployment.spec.strategy.rollingUpdate.maxSurge"); !strings.Contains(out, "IntOrString") {
		t.Errorf("kubectl explain:\n%s", out)
	}
	if out, err := k.kubectl(strings.Replace(first, "replicas:", "replicaz:", 1), "-n", k.ns, "apply", "--dry-run=server", "-f", "-"); err == nil || !strings.Contains(out, "replicaz") {
		t.Errorf("a field that is not there: %v\n%s", err, out)
	}
}

func (k *kubectlTest) testCopy(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "to/below"), 0o755); err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("0123456789abcdef", 64<<10)
	if err := os.WriteFile(filepath.Join(dir, "to/below/file"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	k.must(t, "", "cp", filepath.Join(dir, "to"), "web:/scratch/copied")
	k.must(t, "", "cp", "web:/scratch/copied", filepath.Join(dir, "back"))
	back, err := os.ReadFile(filepath.Join(dir, "back/below/file"))
	if err != nil || string(back) != content {
		t.Errorf("a directory there and back: %d bytes of %d, %v", len(back), len(content), err)
	}
}

// serving runs a kubectl that goes on until the test ends, and returns the address
// that it prints.
func (k *kubectlTest) serving(t *testing.T, args ...string) string {
	t.Helper()
	cmd := k.s.command(t.Context(), k.s.path(".cache/bin/kubectl"), append([]string{"--kubeconfig", k.tn.kubeconfigOf(t), "-n", k.ns}, args...)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`)
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if found := address.FindString(lines.Text()); found != "" {
			go func() { _, _ = io.Copy(io.Discard, stdout) }()
			return found
		}
	}
	t.Fatalf("kubectl %s ended: %s", strings.Join(args, " "), stderr.String())
	return ""
}

func fetch(url string) (string, error) {
	client := &http.Client{Timeout: 10 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func (k *kubectlTest) testPortForward(t *testing.T) {
	for _, target := range []string{"pod/web", "service/web"} {
		if target == "service/web" {
			if _, err := k.tn.CoreV1().Services(k.ns).Create(t.Context(), newService("web"), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		port := map[string]string{"pod/web": ":8080", "service/web": ":80"}[target]
		address := k.serving(t, "port-forward", target, port)
		for range 3 {
			if body, err := fetch("http://" + address + "/hostname"); err != nil || body != "web" {
				t.Errorf("through a port-forward to %s: %q, %v", target, body, err)
			}
		}
	}
}

func (k *kubectlTest) testProxy(t *testing.T) {
	address := k.serving(t, "proxy", "--port=0")
	if body, err := fetch("http://" + address + "/api/v1/namespaces/" + k.ns); err != nil || !strings.Contains(body, `"name":"`+k.ns+`"`) {
		t.Errorf("the API through kubectl proxy: %v\n%s", err, body)
	}
	for _, path := range []string{"pods/web:8080", "services/web:80"} {
		if body, err := fetch("http://" + address + "/api/v1/namespaces/" + k.ns + "/" + path + "/proxy/hostname"); err != nil || body != "web" {
			t.Errorf("%s through kubectl proxy: %q, %v", path, body, err)
		}
	}
}

func (k *kubectlTest) testDebug(t *testing.T) {
	k.must(t, "", "debug", "web", "--profile=restricted", "--image="+agnhost(), "--container=look", "--", "sh", "-c", "echo seen; curl -s http://127.0.0.1:8080/hostname")
	eventually(t, time.Minute, "the ephemeral container has looked", func() error {
		out, err := k.kubectl("", "-n", k.ns, "logs", "web", "-c", "look")
		if err == nil && !strings.Contains(out, "seen\nweb") {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
	k.must(t, "", "debug", "web", "--profile=restricted", "--image="+agnhost(), "--copy-to=copy", "--container=look", "--", "sh", "-c", "sleep 600")
	k.must(t, "", "wait", "--for=condition=Ready", "pod/copy", "--timeout=60s")
	k.must(t, "", "delete", "pod", "copy", "--grace-period=1")

	// A shell on the node is what the tenant's Pod Security level forbids; see
	// TestPodSecurity for a tenant that may have it.
	if out, err := k.kubectl("", "-n", k.ns, "debug", "node/"+k.node, "--image="+agnhost(), "--", "sleep", "60"); err == nil || !strings.Contains(out, "violates PodSecurity") {
		t.Errorf("kubectl debug node: %v\n%s", err, out)
	}
}

// testDrain: evictions heed the tenant's budgets, and the cordon is the tenant's
// own.
func (k *kubectlTest) testDrain(t *testing.T) {
	ctx := t.Context()
	budget := `{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":"web"},"spec":{"minAvailable":1,"selector":{"matchLabels":{"app":"web"}}}}`
	k.must(t, budget, "create", "-f", "-")
	eventually(t, 30*time.Second, "the budget counts", func() error {
		object, err := k.tn.PolicyV1().PodDisruptionBudgets(k.ns).Get(ctx, "web", metav1.GetOptions{})
		if err == nil && object.Status.CurrentHealthy != 1 {
			err = fmt.Errorf("status %+v", object.Status)
		}
		return err
	})
	drain := []string{"drain", k.node, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--pod-selector=app=web"}
	if out, err := k.kubectl("", append(drain, "--timeout=8s")...); err == nil || !strings.Contains(out, "violate the pod's disruption budget") {
		t.Errorf("draining against a budget: %v\n%s", err, out)
	}
	if _, err := k.tn.CoreV1().Pods(k.ns).Get(ctx, "web", metav1.GetOptions{}); err != nil {
		t.Errorf("the pod that a budget keeps: %v", err)
	}
	k.must(t, "", "delete", "pdb", "web")
	if out, err := k.kubectl("", append(drain, "--timeout=60s")...); err != nil || !strings.Contains(out, "drained") {
		t.Errorf("draining: %v\n%s", err, out)
	}
	if _, err := k.tn.CoreV1().Pods(k.ns).Get(ctx, "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the pod that was evicted: %v", err)
	}
	virtual, err := k.tn.CoreV1().Nodes().Get(ctx, k.node, metav1.GetOptions{})
	if err != nil || !virtual.Spec.Unschedulable {
		t.Errorf("the tenant's node is cordoned: %v, %v", virtual.Spec.Unschedulable, err)
	}
	host, err := k.s.host.CoreV1().Nodes().Get(ctx, k.node, metav1.GetOptions{})
	if err != nil || host.Spec.Unschedulable {
		t.Errorf("the host's node is cordoned: %v, %v", host.Spec.Unschedulable, err)
	}
	k.must(t, "", "uncordon", k.node)
}
