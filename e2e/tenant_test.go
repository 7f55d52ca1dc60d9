//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	imageutils "k8s.io/kubernetes/test/utils/image"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// cluster is an API to work with: the host's, a tenant's, or either as somebody
// with fewer rights.
type cluster struct {
	*kubernetes.Clientset
	config *rest.Config
}

func newCluster(config *rest.Config) (*cluster, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 200, 400
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &cluster{Clientset: clientset, config: config}, nil
}

// tenant is a VirtualCluster tenant, with its API as its admin.
type tenant struct {
	*cluster
	name string
	// namespace is the host's.
	namespace string
}

// newTenant makes a tenant of the test's own, which is deleted after it.
func (s *suite) newTenant(t *testing.T, name string, flags ...string) *tenant {
	t.Helper()
	return s.newTenantBy(t, name, append([]string{name}, flags...)...)
}

// newTenantBy is like newTenant, with all that sublet create is told.
func (s *suite) newTenantBy(t *testing.T, name string, args ...string) *tenant {
	t.Helper()
	t.Cleanup(func() { s.cleanUp(t, name) })
	s.mustSublet(t, append([]string{"create"}, args...)...)
	tn, err := s.open(t, name)
	if err != nil {
		t.Fatal(err)
	}
	return tn
}

// cleanUp deletes a tenant if it is there.
func (s *suite) cleanUp(t *testing.T, name string) {
	t.Helper()
	s.remove(t, name, s.diagnose)
}

// remove deletes a tenant if it is there, and diagnoses it first when the test
// failed. Without its context the test's has ended.
func (s *suite) remove(t *testing.T, name string, diagnose func(t *testing.T, ctx context.Context, name string), flags ...string) {
	t.Helper()
	if os.Getenv("SUBLET_E2E_KEEP") != "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if t.Failed() {
		diagnose(t, ctx, name)
	}
	args := append([]string{"delete", name, "--yes", "--ignore-not-found"}, flags...)
	if r := s.run(t, ctx, nil, args...); r.code != 0 {
		t.Errorf("delete tenant %s: %s%s", name, r.stdout, r.stderr)
	}
}

// diagnose prints what helps to find out why a test failed.
func (s *suite) diagnose(t *testing.T, ctx context.Context, namespace string) {
	t.Helper()
	for _, args := range [][]string{
		{"get", "tenant", namespace, "-o", "wide"},
		{"-n", namespace, "get", "pods", "-o", "wide"},
		{"-n", namespace, "get", "events", "--sort-by=.lastTimestamp", "--field-selector=type!=Normal"},
		{"-n", namespace, "logs", api.ControlPlanePod, "--tail=30"},
	} {
		out, _ := s.command(ctx, s.path(".cache/bin/kubectl"), args...).CombinedOutput()
		t.Logf("kubectl %s\n%s", strings.Join(args, " "), out)
	}
}

type sharedTenant struct {
	once sync.Once
	*tenant
	err error
}

// sharedTenant returns a tenant that several tests use, each in namespaces of its
// own.
func (s *suite) sharedTenant(t *testing.T, name string) *tenant {
	t.Helper()
	s.mu.Lock()
	st := s.tenants[name]
	if st == nil {
		st = &sharedTenant{}
		s.tenants[name] = st
	}
	s.mu.Unlock()
	st.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if r := s.run(t, ctx, nil, "create", name); r.code != 0 {
			st.err = fmt.Errorf("create shared tenant %s: %s%s", name, r.stdout, r.stderr)
			return
		}
		st.tenant, st.err = s.open(t, name)
	})
	if st.err != nil {
		t.Fatal(st.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.diagnose(t, context.Background(), name)
		}
	})
	return st.tenant
}

// open connects to a tenant's API by a port-forward of the test's own.
func (s *suite) open(t *testing.T, name string) (*tenant, error) {
	t.Helper()
	ctx := context.Background()
	var object api.Tenant
	if err := s.objects.Get(ctx, namespacedName("", name), &object); err != nil {
		return nil, err
	}
	namespace := object.Status.Namespace
	secret, err := s.host.CoreV1().Secrets(namespace).Get(ctx, api.KubeconfigSecretPrefix+string(api.RoleAdmin), metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data[api.KubeconfigSecretKey])
	if err != nil {
		return nil, err
	}
	address, err := forward(s.config, namespace, api.ControlPlanePod, api.APIServerPort)
	if err != nil {
		return nil, err
	}
	config.Host = "https://" + address
	c, err := newCluster(config)
	if err != nil {
		return nil, err
	}
	return &tenant{cluster: c, name: name, namespace: namespace}, nil
}

// as returns the same API for the holder of a token.
func (c *cluster) as(t *testing.T, token string) *cluster {
	t.Helper()
	config := rest.AnonymousClientConfig(c.config)
	config.BearerToken = token
	other, err := newCluster(config)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

// newNamespace makes a namespace in the tenant that goes when the test ends.
func (c *cluster) newNamespace(t *testing.T, prefix string) string {
	t.Helper()
	ns, err := c.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix + "-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if os.Getenv("SUBLET_E2E_KEEP") != "" {
			return
		}
		if err := c.CoreV1().Namespaces().Delete(context.Background(), ns.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("delete namespace %s: %v", ns.Name, err)
		}
	})
	// Pods need the ServiceAccount that a controller makes.
	eventually(t, 20*time.Second, "the namespace has its default ServiceAccount", func() error {
		_, err := c.CoreV1().ServiceAccounts(ns.Name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	return ns.Name
}

// agnhost is Kubernetes' own test image: here on a Debian root file system with
// sh, curl, dig and nc.
func agnhost() string { return imageutils.GetE2EImage(imageutils.Agnhost) }

// newPod returns a pod that Pod Security's level restricted accepts.
func newPod(name string, args ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec:       podSpec(args...),
	}
}

func podSpec(args ...string) corev1.PodSpec {
	if len(args) == 0 {
		args = []string{"pause"}
	}
	return corev1.PodSpec{
		TerminationGracePeriodSeconds: ptr.To[int64](1),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot:   ptr.To(true),
			RunAsUser:      ptr.To[int64](1000),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{{
			Name:  "main",
			Image: agnhost(),
			Args:  args,
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false),
				Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		}},
	}
}

// newServer returns a pod that answers HTTP on port 8080 with its host name.
func newServer(name string) *corev1.Pod {
	pod := newPod(name, "netexec", "--http-port=8080", "--udp-port=-1")
	pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}
	pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/hostname", Port: intstrFrom("http")}},
		PeriodSeconds: 1,
	}
	return pod
}

func newService(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstrFrom("http")}},
		},
	}
}

// start makes a pod and waits until it is ready.
func (c *cluster) start(t *testing.T, namespace string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	if _, err := c.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatalf("create pod %s/%s: %v", namespace, pod.Name, err)
	}
	return c.ready(t, namespace, pod.Name)
}

func (c *cluster) ready(t *testing.T, namespace, name string) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	eventually(t, time.Minute, fmt.Sprintf("pod %s/%s is ready", namespace, name), func() (err error) {
		if pod, err = c.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			return err
		}
		if !podReady(pod) {
			return fmt.Errorf("phase %s: %s", pod.Status.Phase, describeStatus(pod))
		}
		return nil
	})
	return pod
}

func podReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue && pod.Status.PodIP != ""
		}
	}
	return false
}

func describeStatus(pod *corev1.Pod) string {
	var parts []string
	for _, condition := range pod.Status.Conditions {
		if condition.Status != corev1.ConditionTrue {
			parts = append(parts, fmt.Sprintf("%s: %s %s", condition.Type, condition.Reason, condition.Message))
		}
	}
	for _, status := range pod.Status.ContainerStatuses {
		if waiting := status.State.Waiting; waiting != nil {
			parts = append(parts, fmt.Sprintf("container %s: %s %s", status.Name, waiting.Reason, waiting.Message))
		}
	}
	return strings.Join(parts, "; ")
}

// exec runs a command in a pod.
func (c *cluster) exec(ctx context.Context, namespace, pod string, command ...string) (stdout string, _ error) {
	// A hanging stream must not hang the test.
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	request := c.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(c.config, "GET", request.URL().String())
	if err != nil {
		return "", err
	}
	var out, errOut bytes.Buffer
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut})
	if err != nil {
		return out.String(), &execError{err: err, stderr: errOut.String()}
	}
	return out.String(), nil
}

type execError struct {
	err    error
	stderr string
}

func (e *execError) Error() string { return strings.TrimSpace(e.err.Error() + ": " + e.stderr) }
func (e *execError) Unwrap() error { return e.err }

// sh runs a shell command in a pod and returns what it printed.
func (c *cluster) sh(t *testing.T, namespace, pod, script string) string {
	t.Helper()
	out, err := c.exec(t.Context(), namespace, pod, "sh", "-euc", script)
	if err != nil {
		t.Fatalf("in pod %s/%s: %s: %v\n%s", namespace, pod, script, err, out)
	}
	return strings.TrimSpace(out)
}

func (c *cluster) logs(ctx context.Context, namespace, pod string) (string, error) {
	stream, err := c.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{}).Stream(ctx)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	content, err := io.ReadAll(stream)
	return string(content), err
}

// hostPod finds the host's pod of a tenant's pod.
func (s *suite) hostPod(ctx context.Context, tn *tenant, namespace, name string) (*corev1.Pod, error) {
	pods, err := s.host.CoreV1().Pods(tn.namespace).List(ctx, metav1.ListOptions{LabelSelector: api.LabelVirtualNamespace + "=" + namespace})
	if err != nil {
		return nil, err
	}
	for _, pod := range pods.Items {
		if pod.Annotations[api.AnnotationVirtualName] == name && pod.Annotations[api.AnnotationVirtualNamespace] == namespace {
			return &pod, nil
		}
	}
	return nil, errNoHostPod
}

var errNoHostPod = errors.New("no pod on the host stands for it")

// eventually tries until f returns nil.
func eventually(t *testing.T, timeout time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) || t.Context().Err() != nil {
			t.Fatalf("not within %v: %s: %v", timeout, what, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// kubeconfigOf writes a kubeconfig that a program can use.
func (c *cluster) kubeconfigOf(t *testing.T) string {
	t.Helper()
	config := clientcmdConfig(c.config)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}
