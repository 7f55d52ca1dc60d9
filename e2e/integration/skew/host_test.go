package skew_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sublet-dev/sublet/pkg/kubeconfig"
	"github.com/sublet-dev/sublet/pkg/pki"
)

const kubeconfigFile = "kubeconfig"

// startHost starts the host that was asked for; it ends with the test. It
// returns the path of its kubeconfig.
func startHost(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if programs := os.Getenv(hostVariable); programs != "" {
		startReleased(t, dir, programs)
	} else {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), serveVariable+"="+dir)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		start(t, cmd, func() { _ = stdin.Close() })
	}
	file := filepath.Join(dir, kubeconfigFile)
	eventually(t, "the host is ready", func(ctx context.Context) error {
		config, err := clientcmd.BuildConfigFromFlags("", file)
		if err != nil {
			return err
		}
		return ready(ctx, config)
	})
	return file
}

func ready(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	var code int
	err = client.RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&code).Error()
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("/readyz answers %d", code)
	}
	return err
}

// start starts a process that must live until the test tells it to stop.
func start(t *testing.T, cmd *exec.Cmd, stop func()) {
	t.Helper()
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		name := filepath.Base(cmd.Path)
		select {
		case err := <-ended:
			t.Errorf("%s ended by itself: %v\n%s", name, err, tail(output.Bytes()))
			return
		default:
		}
		stop()
		select {
		case err := <-ended:
			if err != nil || t.Failed() {
				t.Logf("%s: %v\n%s", name, err, tail(output.Bytes()))
			}
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			t.Errorf("%s did not stop\n%s", name, tail(output.Bytes()))
		}
	})
}

func tail(output []byte) []byte {
	const most = 8 << 10
	return output[max(0, len(output)-most):]
}

// startReleased starts etcd, and an API server and controllers as Kubernetes
// released them.
func startReleased(t *testing.T, dir, programs string) {
	t.Helper()
	etcd := startEtcd(t, dir)
	bundle, err := pki.NewBundle("host", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	loopback := net.IPv4(127, 0, 0, 1)
	serving, servingKey, err := bundle.CA.Issue(pki.Leaf{CommonName: "kube-apiserver", IPs: []net.IP{loopback}, Server: true, Lifetime: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	as := func(user string, groups ...string) []byte {
		cert, key, err := bundle.CA.Issue(pki.Leaf{CommonName: user, Organizations: groups, Client: true, Lifetime: time.Hour}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		config, err := kubeconfig.Marshal(kubeconfig.Entry{
			Name: "host", Server: "https://" + net.JoinHostPort(loopback.String(), port), CA: bundle.CA.CertPEM, ClientCert: cert, ClientKey: key,
		})
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	files := map[string][]byte{
		"ca.crt": bundle.CA.CertPEM, "serving.crt": serving, "serving.key": servingKey, "sa.key": bundle.ServiceAccountKeyPEM, "front-proxy-ca.crt": bundle.FrontProxyCA.CertPEM,
		"controllers": as("system:kube-controller-manager"),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := publish(dir, as("admin", "system:masters")); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	run := func(program string, args ...string) {
		path, err := filepath.Abs(filepath.Join(programs, program))
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path, args...)
		start(t, cmd, func() { _ = cmd.Process.Signal(os.Interrupt) })
	}
	run("kube-apiserver",
		"--etcd-servers="+etcd,
		"--bind-address="+loopback.String(), "--secure-port="+port, "--advertise-address="+loopback.String(),
		"--cert-dir="+dir, "--tls-cert-file="+in("serving.crt"), "--tls-private-key-file="+in("serving.key"),
		"--client-ca-file="+in("ca.crt"), "--requestheader-client-ca-file="+in("front-proxy-ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file="+in("sa.key"), "--service-account-signing-key-file="+in("sa.key"),
		"--service-cluster-ip-range="+serviceCIDR, "--authorization-mode=Node,RBAC", "--endpoint-reconciler-type=none",
		"--allow-privileged=true", "--shutdown-delay-duration=0s")
	// It gives up when there is no API server to begin with.
	eventually(t, "the host's API server is ready", func(ctx context.Context) error {
		c, err := clientcmd.BuildConfigFromFlags("", in(kubeconfigFile))
		if err != nil {
			return err
		}
		return ready(ctx, c)
	})
	run("kube-controller-manager",
		"--kubeconfig="+in("controllers"), "--authentication-kubeconfig="+in("controllers"), "--authorization-kubeconfig="+in("controllers"),
		"--use-service-account-credentials=true",
		"--secure-port=0", "--leader-elect=false", "--service-account-private-key-file="+in("sa.key"), "--root-ca-file="+in("ca.crt"),
		"--controllers=*,-nodelifecycle,-nodeipam,-taint-eviction-controller", "--kube-api-qps=200", "--kube-api-burst=400")
}

func startEtcd(t *testing.T, dir string) (endpoint string) {
	t.Helper()
	config := embed.NewConfig()
	config.Dir = filepath.Join(dir, "etcd")
	// Paths of sockets are short, those of tests are not.
	sockets, err := os.MkdirTemp("", "skew")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	socket := url.URL{Scheme: "unix", Path: filepath.Join(sockets, "etcd.sock")}
	config.ListenClientUrls = []url.URL{socket}
	config.AdvertiseClientUrls = []url.URL{{Scheme: "http", Host: "localhost:2379"}}
	config.ListenPeerUrls = nil
	config.TickMs, config.ElectionMs = 20, 100
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err := embed.StartEtcd(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	select {
	case <-server.Server.ReadyNotify():
	case <-time.After(patience):
		t.Fatal(errors.New("etcd does not lead"))
	}
	return socket.String()
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}
