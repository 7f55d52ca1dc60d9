// Package integration_test goes the whole way of a tenant's user, through a real
// API server with its RBAC, to the shim and to a host.
package integration_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	clientportforward "k8s.io/client-go/tools/portforward"
	clientremotecommand "k8s.io/client-go/tools/remotecommand"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/controlplane"
	"github.com/sublet-dev/sublet/pkg/controlplane/kubelet"
	"github.com/sublet-dev/sublet/pkg/controlplane/kubelet/kubelettest"
	"github.com/sublet-dev/sublet/pkg/pki"
)

func TestThroughTheAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real control plane")
	}
	host := &kubelettest.Host{Pods: map[string]*corev1.Pod{}, Requests: make(chan *http.Request, 100)}
	hostServer := httptest.NewTLSServer(host)
	t.Cleanup(hostServer.Close)
	bundle, err := pki.NewBundle("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var config *rest.Config
	server, err := kubelet.New(kubelet.Options{
		Tenant: "acme", HostNamespace: kubelettest.HostNamespace,
		Host: &rest.Config{Host: hostServer.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}},
		HostPod: func(_ context.Context, _, name string) (string, error) {
			return strings.Replace(kubelettest.HostName, "web-0", name, 1), nil
		},
		Virtual: func() (*rest.Config, error) { return config, nil },
		CA:      bundle.CA,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- server.Run(ctx) }()
	plane, err := controlplane.Start(ctx, controlplane.Options{
		Name: "test", DataDir: t.TempDir(), PKI: bundle, BindAddress: "127.0.0.1",
		ServiceCIDRs: []string{"10.96.0.0/16"}, KubernetesServiceIP: net.IPv4(10, 96, 3, 3),
		KubeletDialer: server.Dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if err := plane.Wait(); err != nil {
			t.Error(err)
		}
	})
	config = plane.NetworkConfig()
	client := kubernetes.NewForConfigOrDie(config)
	runningPod(t, client, host)

	exec := func(t *testing.T, config *rest.Config, webSocket bool, subresource string, options *corev1.PodExecOptions, stdin string) (string, error) {
		t.Helper()
		target := client.CoreV1().RESTClient().Post().Namespace("shop").Resource("pods").Name("web-0").SubResource(subresource).
			VersionedParams(options, scheme.ParameterCodec).URL()
		var executor clientremotecommand.Executor
		var err error
		if webSocket {
			executor, err = clientremotecommand.NewWebSocketExecutor(config, http.MethodGet, target.String())
		} else {
			executor, err = clientremotecommand.NewSPDYExecutor(config, http.MethodPost, target)
		}
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		streams := clientremotecommand.StreamOptions{Stdout: &out, Stderr: io.Discard}
		if stdin != "" {
			streams.Stdin = strings.NewReader(stdin)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		err = executor.StreamWithContext(ctx, streams)
		return out.String(), err
	}
	large := strings.Repeat("0123456789abcdef", 64<<10)
	for name, webSocket := range map[string]bool{"SPDY": false, "WebSocket": true} {
		t.Run("exec over "+name, func(t *testing.T) {
			got, err := exec(t, config, webSocket, "exec", &corev1.PodExecOptions{Container: "main", Command: []string{"cat"}, Stdin: true, Stdout: true, Stderr: true}, large)
			if err != nil {
				t.Fatal(err)
			}
			if want := "main [\"cat\"] tty=false\n" + large; got != want {
				t.Errorf("got %d bytes, want %d", len(got), len(want))
			}
		})
		t.Run("attach over "+name, func(t *testing.T) {
			got, err := exec(t, config, webSocket, "attach", &corev1.PodExecOptions{Container: "main", Stdout: true, Stderr: true}, "")
			if err != nil {
				t.Fatal(err)
			}
			if want := "main [\"attached\"] tty=false\n"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
		t.Run("no right over "+name, func(t *testing.T) {
			viewer := rest.CopyConfig(config)
			viewer.Impersonate = rest.ImpersonationConfig{UserName: "ada", Groups: []string{"system:authenticated"}}
			before := len(host.Requests)
			_, err := exec(t, viewer, webSocket, "exec", &corev1.PodExecOptions{Container: "main", Command: []string{"id"}, Stdout: true}, "")
			if err == nil || !strings.Contains(err.Error(), "orbidden") {
				t.Errorf("got error %v, want Forbidden", err)
			}
			if len(host.Requests) != before {
				t.Error("the host was asked")
			}
		})
	}

	t.Run("port-forward over WebSocket", func(t *testing.T) {
		target := client.CoreV1().RESTClient().Post().Namespace("shop").Resource("pods").Name("web-0").SubResource("portforward").URL()
		dialer, err := clientportforward.NewSPDYOverWebsocketDialer(target, config)
		if err != nil {
			t.Fatal(err)
		}
		stop, ready, failed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		forwarder, err := clientportforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		go func() { failed <- forwarder.ForwardPorts() }()
		select {
		case <-ready:
		case err := <-failed:
			t.Fatal(err)
		}
		ports, err := forwarder.GetPorts()
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if want := "port 8080\nhello"; err != nil || string(got) != want {
			t.Errorf("got %q (%v) through the port, want %q", got, err, want)
		}
		close(stop)
		<-failed
	})

	t.Run("logs", func(t *testing.T) {
		got, err := client.CoreV1().Pods("shop").GetLogs("web-0", &corev1.PodLogOptions{Container: "main"}).DoRaw(ctx)
		if err != nil || string(got) != "first\n" {
			t.Errorf("got %q (%v), want the log", got, err)
		}
		_, err = client.CoreV1().Pods("shop").GetLogs("web-0", &corev1.PodLogOptions{Container: "waiting"}).Stream(ctx)
		want := `container "waiting" in pod "web-0" is waiting to start: ContainerCreating (web-0_shop, namespace "shop")`
		if !apierrors.IsBadRequest(err) || err.Error() != want {
			t.Errorf("got error %v, want a bad request: %s", err, want)
		}
	})

	t.Run("pods of the node", func(t *testing.T) {
		got, err := client.CoreV1().RESTClient().Get().Resource("nodes").Name("node-a").SubResource("proxy").Suffix("pods").DoRaw(ctx)
		if err != nil || !bytes.Contains(got, []byte(`"web-0"`)) {
			t.Errorf("got %q (%v), want the list with web-0", got, err)
		}
	})
}

// runningPod makes a pod in the tenant that is bound to a node, as the syncer
// would, and its host pod.
func runningPod(t *testing.T, client kubernetes.Interface, host *kubelettest.Host) {
	t.Helper()
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{})
	check(err)
	_, err = client.RbacV1().RoleBindings("shop").Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "viewers"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "ada"}},
	}, metav1.CreateOptions{})
	check(err)
	node, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}, metav1.CreateOptions{})
	check(err)
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: kubelettest.NodeAddress}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = 10250
	_, err = client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
	check(err)

	want := kubelettest.VirtualPod("web-0")
	want.UID = ""
	for i := range want.Spec.Containers {
		want.Spec.Containers[i].Image = "web"
	}
	want.Spec.InitContainers[0].Image = "web"
	want.Spec.AutomountServiceAccountToken = new(bool)
	var pod *corev1.Pod
	// The namespace's service account takes a moment.
	check(wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		pod, err = client.CoreV1().Pods("shop").Create(ctx, want, metav1.CreateOptions{})
		return err == nil, nil
	}))
	onHost := kubelettest.HostPod()
	onHost.Annotations[api.AnnotationVirtualUID] = string(pod.UID)
	host.Pods[kubelettest.HostName] = onHost
	if diff := cmp.Diff("node-a", pod.Spec.NodeName); diff != "" {
		t.Fatal(diff)
	}
}
