package kubelet

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	clientportforward "k8s.io/client-go/tools/portforward"
	clientremotecommand "k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	utilexec "k8s.io/utils/exec"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/controlplane/kubelet/kubelettest"
	"github.com/sublet-dev/sublet/pkg/pki"
)

// start runs a Server between a host and a tenant, and returns how the tenant's
// API server would reach it, and the requests that arrive on the host.
func start(t *testing.T, hostPods map[string]*corev1.Pod) (config *rest.Config, requests chan *http.Request) {
	t.Helper()
	host := &kubelettest.Host{Pods: hostPods, Requests: make(chan *http.Request, 10)}
	hostServer := httptest.NewTLSServer(host)
	t.Cleanup(hostServer.Close)

	virtual := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/namespaces/shop/pods/web-0":
			kubelettest.WriteJSON(w, kubelettest.VirtualPod("web-0"))
		case "/api/v1/namespaces/shop/pods/pending":
			kubelettest.WriteJSON(w, kubelettest.VirtualPod("pending"))
		case "/api/v1/nodes":
			kubelettest.WriteJSON(w, corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, Items: []corev1.Node{{
				ObjectMeta: metav1.ObjectMeta{Name: "node-a"},
				Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: kubelettest.NodeAddress}}},
			}}})
		case "/api/v1/pods":
			if got, want := r.URL.Query().Get("fieldSelector"), "spec.nodeName=node-a"; got != want {
				t.Errorf("pods were listed with field selector %q, want %q", got, want)
			}
			kubelettest.WriteJSON(w, corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []corev1.Pod{*kubelettest.VirtualPod("web-0")}})
		default:
			kubelettest.WriteStatus(w, http.StatusNotFound, "not found")
		}
	}))
	t.Cleanup(virtual.Close)

	ca, err := pki.NewAuthority("ca", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	server, err := New(Options{
		Tenant: "acme", HostNamespace: kubelettest.HostNamespace,
		Host: &rest.Config{Host: hostServer.URL, BearerToken: "syncer", TLSClientConfig: rest.TLSClientConfig{Insecure: true}},
		HostPod: func(_ context.Context, _, name string) (string, error) {
			return strings.Replace(kubelettest.HostName, "web-0", name, 1), nil
		},
		Virtual: func() (*rest.Config, error) { return &rest.Config{Host: virtual.URL}, nil },
		CA:      ca,
		Usage: func(context.Context, string) ([]metricsv1beta1.PodMetrics, error) {
			return nil, apierrors.NewServiceUnavailable("no metrics at the moment")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := server.Dial(context.Background(), "tcp", kubelettest.NodeAddress+":10250"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dialing a stopped server: got error %v, want net.ErrClosed", err)
		}
	})
	return clientConfig(t, server, ca, pki.KubeletClientName), host.Requests
}

// bridge lets clients that dial for themselves reach the server: client-go's
// streaming clients do, the API server does not.
func bridge(t *testing.T, config *rest.Config) *rest.Config {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	dial := config.Dial
	go func() {
		for {
			outer, err := l.Accept()
			if err != nil {
				return
			}
			inner, err := dial(context.Background(), "tcp", l.Addr().String())
			if err != nil {
				_ = outer.Close()
				return
			}
			for _, pair := range [][2]net.Conn{{outer, inner}, {inner, outer}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					_ = pair[0].(interface{ CloseWrite() error }).CloseWrite()
				}()
			}
		}
	}()
	config = rest.CopyConfig(config)
	config.Dial = nil
	config.Host = "https://" + l.Addr().String()
	return config
}

func clientConfig(t *testing.T, server *Server, ca *pki.Authority, commonName string) *rest.Config {
	t.Helper()
	certPEM, keyPEM, err := ca.Issue(pki.Leaf{CommonName: commonName, Client: true, Lifetime: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &rest.Config{
		Host: "https://" + kubelettest.NodeAddress + ":10250",
		Dial: server.Dial,
		TLSClientConfig: rest.TLSClientConfig{
			CAData: server.options.CA.CertPEM, CertData: certPEM, KeyData: keyPEM,
		},
	}
}

func ours() map[string]*corev1.Pod {
	return map[string]*corev1.Pod{kubelettest.HostName: kubelettest.HostPod()}
}

func get(t *testing.T, config *rest.Config, path string, header http.Header) (code int, body string) {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodGet, config.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for key, values := range header {
		request.Header[key] = values
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

// arrived is the next request that arrived on the host.
func arrived(t *testing.T, requests chan *http.Request) *http.Request {
	t.Helper()
	select {
	case r := <-requests:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("no request arrived on the host")
		return nil
	}
}

func TestStreams(t *testing.T) {
	config, _ := start(t, ours())
	config = bridge(t, config)
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	spdyExecutor := func(path, query string) (clientremotecommand.Executor, error) {
		u := *target
		u.Path, u.RawQuery = path, query
		return clientremotecommand.NewSPDYExecutor(config, http.MethodPost, &u)
	}
	webSocketExecutor := func(path, query string) (clientremotecommand.Executor, error) {
		return clientremotecommand.NewWebSocketExecutorForProtocols(config, http.MethodGet, config.Host+path+"?"+query, "v4.channel.k8s.io")
	}
	large := strings.Repeat("0123456789abcdef", 64<<10) // more than any buffer on the way

	tests := map[string]struct {
		executor     func(path, query string) (clientremotecommand.Executor, error)
		path, query  string
		stdin        string
		tty          bool
		stdout       string
		stderr       string
		wantExitCode int
	}{
		"SPDY exec": {
			executor: spdyExecutor, path: "/exec/shop/web-0/main", query: "command=sh&command=-c&command=a+b%26&output=1&error=1",
			stdout: "main [\"sh\" \"-c\" \"a b&\"] tty=false\n", stderr: "done\n",
		},
		"SPDY exec by uid": {
			executor: spdyExecutor, path: "/exec/shop/web-0/u-1/main", query: "command=id&output=1&error=1",
			stdout: "main [\"id\"] tty=false\n", stderr: "done\n",
		},
		"SPDY exec with much input that ends": {
			executor: spdyExecutor, path: "/exec/shop/web-0/main", query: "command=cat&input=1&output=1&error=1", stdin: large,
			stdout: "main [\"cat\"] tty=false\n" + large, stderr: "done\n",
		},
		"SPDY exec with exit code": {
			executor: spdyExecutor, path: "/exec/shop/web-0/main", query: "command=fail&output=1&error=1",
			stdout: "main [\"fail\"] tty=false\n", stderr: "done\n", wantExitCode: 3,
		},
		"SPDY exec on a terminal": {
			executor: spdyExecutor, path: "/exec/shop/web-0/main", query: "command=sh&output=1&tty=1", tty: true,
			stdout: "main [\"sh\"] tty=true\n",
		},
		"SPDY attach to an init container": {
			executor: spdyExecutor, path: "/attach/shop/web-0/init", query: "output=1&error=1",
			stdout: "init [\"attached\"] tty=false\n", stderr: "done\n",
		},
		"WebSocket exec": {
			executor: webSocketExecutor, path: "/exec/shop/web-0/main", query: "command=ls&output=1&error=1",
			stdout: "main [\"ls\"] tty=false\n", stderr: "done\n",
		},
		"WebSocket exec with exit code": {
			executor: webSocketExecutor, path: "/exec/shop/web-0/main", query: "command=fail&output=1&error=1",
			stdout: "main [\"fail\"] tty=false\n", stderr: "done\n", wantExitCode: 3,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			executor, err := test.executor(test.path, test.query)
			if err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			options := clientremotecommand.StreamOptions{Stdout: &stdout, Tty: test.tty}
			if !test.tty {
				options.Stderr = &stderr
			}
			if test.stdin != "" {
				options.Stdin = strings.NewReader(test.stdin)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			err = executor.StreamWithContext(ctx, options)
			code := 0
			var exit utilexec.ExitError
			if errors.As(err, &exit) {
				code = exit.ExitStatus()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != test.wantExitCode {
				t.Errorf("exit code %d, want %d", code, test.wantExitCode)
			}
			if diff := cmp.Diff(test.stdout, stdout.String()); diff != "" {
				t.Errorf("stdout (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.stderr, stderr.String()); diff != "" {
				t.Errorf("stderr (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPortForward(t *testing.T) {
	config, _ := start(t, ours())
	config = bridge(t, config)
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(config.Host + "/portForward/shop/web-0")
	if err != nil {
		t.Fatal(err)
	}
	stop, ready, failed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	forwarder, err := clientportforward.NewOnAddresses(
		spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, target),
		[]string{"127.0.0.1"}, []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
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
	// Half-close: the answer comes after we have said all.
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if want := "port 8080\nhello"; string(got) != want {
		t.Errorf("got %q through the port, want %q", got, want)
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

func TestLogs(t *testing.T) {
	config, requests := start(t, ours())
	code, body := get(t, config, "/containerLogs/shop/web-0/main?previous=true&tailLines=5&sinceSeconds=60&timestamps=true&limitBytes=100&sinceTime=2026-01-02T03%3A04%3A05Z&stream=All&insecureSkipTLSVerifyBackend=true", nil)
	if code != http.StatusOK || body != "first\n" {
		t.Errorf("got %d %q, want 200 and the log", code, body)
	}
	want := url.Values{"container": {"main"}, "previous": {"true"}, "tailLines": {"5"}, "sinceSeconds": {"60"}, "timestamps": {"true"}, "limitBytes": {"100"}, "sinceTime": {"2026-01-02T03:04:05Z"}}
	if diff := cmp.Diff(want, arrived(t, requests).URL.Query()); diff != "" {
		t.Errorf("the host was asked for (-want +got):\n%s", diff)
	}
}

func TestFollowedLogsArriveAtOnceAndEndWithTheClient(t *testing.T) {
	config, requests := start(t, ours())
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/containerLogs/shop/web-0/main?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("first\n"))
	if _, err := io.ReadFull(response.Body, line); err != nil {
		t.Fatal(err)
	}
	onHost := arrived(t, requests)
	if got := onHost.URL.Query().Get("follow"); got != "true" {
		t.Errorf("follow=%q on the host, want true", got)
	}
	cancel()
	_ = response.Body.Close()
	// The test host's server waits for its handlers when it is closed: the
	// cleanup hangs unless the request ended there too.
}

func TestRefusals(t *testing.T) {
	foreign := map[string]func(*corev1.Pod){
		"label of another tenant": func(p *corev1.Pod) { p.Labels[api.LabelTenant] = "other" },
		"not synced":              func(p *corev1.Pod) { p.Labels[api.LabelComponent] = api.ComponentControlPlane },
		"another virtual pod's":   func(p *corev1.Pod) { p.Annotations[api.AnnotationVirtualName] = "web-1" },
		"another namespace's":     func(p *corev1.Pod) { p.Annotations[api.AnnotationVirtualNamespace] = "default" },
		"an older pod's":          func(p *corev1.Pod) { p.Annotations[api.AnnotationVirtualUID] = "u-0" },
	}
	for name, change := range foreign {
		t.Run(name, func(t *testing.T) {
			pods := ours()
			change(pods[kubelettest.HostName])
			config, requests := start(t, pods)
			code, body := get(t, config, "/containerLogs/shop/web-0/main", nil)
			if code != http.StatusForbidden {
				t.Errorf("got %d %q, want 403", code, body)
			}
			if len(requests) != 0 {
				t.Error("the host was asked for the logs")
			}
		})
	}

	config, requests := start(t, ours())
	for path, want := range map[string]int{
		"/containerLogs/shop/unknown/main":                             http.StatusNotFound,
		"/containerLogs/other/web-0/main":                              http.StatusNotFound,
		"/containerLogs/shop/pending/main":                             http.StatusNotFound, // not on the host yet
		"/containerLogs/shop/web-0/injected":                           http.StatusNotFound, // only on the host
		"/exec/shop/web-0/u-0/main?command=id":                         http.StatusNotFound, // another uid
		"/containerLogs/shop/..%2F..%2Fweb-0/main":                     http.StatusInternalServerError,
		"/containerLogs/shop/web-0/main?tailLines=many":                http.StatusBadRequest,
		"/portForward/shop/web-0?port=70000":                           http.StatusBadRequest,
		"/run/shop/web-0/main":                                         http.StatusNotFound,
		"/stats/summary?only_cpu_and_memory=true":                      http.StatusServiceUnavailable, // nobody has measured
		"/metrics/cadvisor":                                            http.StatusNotFound,
		"/configz":                                                     http.StatusNotFound,
		"/logs/":                                                       http.StatusNotFound,
		"/api/v1/namespaces/" + kubelettest.HostNamespace + "/secrets": http.StatusNotFound,
		"/containerLogs/shop/web-0/main/../../../../secrets":           http.StatusNotFound,
	} {
		if code, body := get(t, config, path, nil); code != want || strings.Contains(body, kubelettest.HostName) {
			t.Errorf("GET %s: got %d %q, want %d without a host name", path, code, body, want)
		}
	}
	if len(requests) != 0 {
		t.Error("a refused request reached the host")
	}
}

func TestErrorsOfTheHostAreInVirtualNames(t *testing.T) {
	config, _ := start(t, ours())
	code, body := get(t, config, "/containerLogs/shop/web-0/waiting", nil)
	want := `container "waiting" in pod "web-0" is waiting to start: ContainerCreating (web-0_shop, namespace "shop")`
	if code != http.StatusBadRequest || body != want {
		t.Errorf("got %d %q, want 400 %q", code, body, want)
	}
	code, body = get(t, config, "/exec/shop/web-0/forbidden?command=id", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}})
	want = `the host cluster refused the request: pods "web-0" is forbidden: quota`
	if code != http.StatusInternalServerError || body != want {
		t.Errorf("got %d %q, want 500 %q", code, body, want)
	}
}

func TestNothingOfTheUserReachesTheHost(t *testing.T) {
	config, requests := start(t, ours())
	get(t, config, "/containerLogs/shop/web-0/main", http.Header{
		"Authorization":          {"Bearer stolen"},
		"Impersonate-User":       {"system:admin"},
		"Impersonate-Group":      {"system:masters"},
		"X-Remote-User":          {"system:admin"},
		"Cookie":                 {"a=b"},
		"X-Forwarded-For":        {"1.2.3.4"},
		"Sec-Websocket-Protocol": {"v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0"},
	})
	got := arrived(t, requests).Header
	got.Del("User-Agent")
	want := http.Header{"Authorization": {"Bearer syncer"}, "Sec-Websocket-Protocol": {"v4.channel.k8s.io"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers on the host (-want +got):\n%s", diff)
	}
}

func TestPods(t *testing.T) {
	config, _ := start(t, ours())
	code, body := get(t, config, "/pods", nil)
	var list corev1.PodList
	if err := json.Unmarshal([]byte(body), &list); err != nil || code != http.StatusOK {
		t.Fatalf("got %d %q (%v), want a list of pods", code, body, err)
	}
	if len(list.Items) != 1 || list.Items[0].Name != "web-0" {
		t.Errorf("got %v, want web-0 alone", list.Items)
	}
	config.Host = "https://10.9.9.9:10250"
	if code, body := get(t, config, "/pods", nil); code != http.StatusNotFound {
		t.Errorf("pods of an unknown node: got %d %q, want 404", code, body)
	}
	if code, body := get(t, config, "/healthz", nil); code != http.StatusOK || body != "ok" {
		t.Errorf("healthz: got %d %q", code, body)
	}
}

// TestMetrics: a virtual node counts what is the tenant's, and has nothing else
// of the host's kubelet.
func TestMetrics(t *testing.T) {
	config, requests := start(t, ours())
	code, body := get(t, config, "/metrics", nil)
	if code != http.StatusOK {
		t.Fatalf("got %d %q", code, body)
	}
	var samples []string
	for line := range strings.Lines(body) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			samples = append(samples, line)
		}
	}
	slices.Sort(samples)
	want := []string{`kubelet_node_name{node="node-a"} 1`, `kubelet_running_pods 0`}
	if diff := cmp.Diff(want, samples); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(requests) != 0 {
		t.Error("it was asked of the host")
	}
	config.Host = "https://10.9.9.9:10250"
	if code, body := get(t, config, "/metrics", nil); code != http.StatusNotFound {
		t.Errorf("metrics of an unknown node: got %d %q, want 404", code, body)
	}
}

func TestNodeMetrics(t *testing.T) {
	running := corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	ended := corev1.ContainerStatus{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}
	waiting := corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}}
	pods := []corev1.Pod{
		{Status: corev1.PodStatus{
			Phase:                 corev1.PodRunning,
			InitContainerStatuses: []corev1.ContainerStatus{ended},
			ContainerStatuses:     []corev1.ContainerStatus{running, waiting},
		}},
		{Status: corev1.PodStatus{Phase: corev1.PodSucceeded, ContainerStatuses: []corev1.ContainerStatus{ended}}},
		{Status: corev1.PodStatus{Phase: corev1.PodPending}},
	}
	families, err := nodeMetrics(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}, pods).Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += " " + label.GetValue()
			}
			got[name] = metric.GetGauge().GetValue()
		}
	}
	want := map[string]float64{
		"kubelet_node_name node-a": 1, "kubelet_running_pods": 1,
		"kubelet_running_containers running": 1, "kubelet_running_containers exited": 2,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestOnlyTheAPIServerMayConnect(t *testing.T) {
	ca, err := pki.NewAuthority("ca", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewAuthority("ca", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	server, err := New(Options{
		Tenant: "acme", HostNamespace: kubelettest.HostNamespace, Host: &rest.Config{Host: "https://127.0.0.1:1"},
		HostPod: func(context.Context, string, string) (string, error) { return "", errors.New("unused") },
		Virtual: func() (*rest.Config, error) { return nil, errors.New("unused") },
		CA:      ca,
		Usage: func(context.Context, string) ([]metricsv1beta1.PodMetrics, error) {
			return nil, apierrors.NewServiceUnavailable("no metrics at the moment")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- server.Run(ctx) }()
	defer func() {
		cancel()
		<-stopped
	}()
	for name, config := range map[string]*rest.Config{
		"another client of the same CA": clientConfig(t, server, ca, "admin"),
		"the right name of another CA":  clientConfig(t, server, other, pki.KubeletClientName),
	} {
		client, err := rest.HTTPClientFor(config)
		if err != nil {
			t.Fatal(err)
		}
		if response, err := client.Get(config.Host + "/healthz"); err == nil {
			_ = response.Body.Close()
			t.Errorf("%s got %d, want no connection", name, response.StatusCode)
		}
	}
	anonymous, err := server.Dial(ctx, "tcp", kubelettest.NodeAddress+":10250")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	c := tls.Client(anonymous, &tls.Config{RootCAs: roots, ServerName: kubelettest.NodeAddress})
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a client without a certificate was let in")
	}
	_ = c.Close()
}

func TestDialEndsWithItsContext(t *testing.T) {
	l := newListener() // nobody accepts
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := l.dial(ctx, "a:1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want the deadline", err)
	}
}
