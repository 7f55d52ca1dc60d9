//go:build linux

// Package separate runs the parts of a control plane as anybody runs them: etcd,
// kube-apiserver, kube-controller-manager and CoreDNS as four processes with their
// default settings. It is what a tenant's one process is compared with.
//
//	kube-apiserver ──► etcd
//	   ▲     ▲
//	   │     └── CoreDNS
//	   └──────── kube-controller-manager        all on loopback
package separate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sublet-dev/sublet/bench/proc"
	"github.com/sublet-dev/sublet/pkg/kubeconfig"
	"github.com/sublet-dev/sublet/pkg/pki"
)

const (
	etcd              = "etcd"
	apiServer         = "kube-apiserver"
	controllerManager = "kube-controller-manager"
	coreDNS           = "coredns"

	lifetime = 24 * time.Hour
	patience = 2 * time.Minute
)

// Options of a control plane.
type Options struct {
	// Programs is the directory with the four programs.
	Programs string
	// Dir gets data, certificates and logs. It must be there, and empty at first.
	Dir string
}

// ControlPlane is one of four processes. It can be started and stopped again and
// again, with the same data.
type ControlPlane struct {
	options   Options
	bundle    *pki.Bundle
	arguments map[string][]string
	processes []*process
	config    *rest.Config

	// APIReady is how long the last start took from the first process until the
	// API server's /readyz was ok, AllReady until the last of the four was.
	APIReady, AllReady time.Duration
}

// New prepares certificates, and starts nothing.
func New(o Options) (*ControlPlane, error) {
	for _, program := range []string{etcd, apiServer, controllerManager, coreDNS} {
		if _, err := os.Stat(filepath.Join(o.Programs, program)); err != nil {
			return nil, fmt.Errorf("the program to compare with is not built: make baseline-tools: %w", err)
		}
	}
	bundle, err := pki.NewBundle("separate", time.Now())
	if err != nil {
		return nil, err
	}
	c := &ControlPlane{options: o, bundle: bundle}
	return c, bundle.Save(c.path("pki"))
}

// Start starts all four and returns when all are ready.
func (c *ControlPlane) Start(ctx context.Context) error {
	ports, err := freePorts(7)
	if err != nil {
		return err
	}
	if err := c.prepare(ports); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	started := time.Now()
	if err := c.start(etcd, apiServer); err != nil {
		return errors.Join(err, c.Stop())
	}
	err = c.await(ctx, 2*time.Millisecond, func() error { return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() })
	if err != nil {
		return errors.Join(err, c.Stop())
	}
	c.APIReady = time.Since(started)
	// Both give up where there is no API server, and would be started again.
	if err := c.start(controllerManager, coreDNS); err != nil {
		return errors.Join(err, c.Stop())
	}
	for _, address := range []string{
		"https://" + ports.at(controllerManagerPort) + "/healthz",
		"http://" + ports.at(dnsReadyPort) + "/ready",
	} {
		if err := c.await(ctx, 10*time.Millisecond, func() error { return get(ctx, address) }); err != nil {
			return errors.Join(err, c.Stop())
		}
	}
	c.AllReady = time.Since(started)
	return nil
}

// Stop ends what runs, in the reverse order, and waits for it.
func (c *ControlPlane) Stop() error {
	var errs []error
	for _, p := range slices.Backward(c.processes) {
		errs = append(errs, p.stop())
	}
	c.processes = nil
	return errors.Join(errs...)
}

// Config is that of an administrator.
func (c *ControlPlane) Config() *rest.Config { return rest.CopyConfig(c.config) }

// DataDir is etcd's.
func (c *ControlPlane) DataDir() string { return c.path("data") }

// Sum adds up what a function says of each process.
func (c *ControlPlane) Sum(of func(pid int) (float64, error)) (float64, error) {
	var sum float64
	for _, p := range c.processes {
		value, err := of(p.pid)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", p.name, err)
		}
		sum += value
	}
	return sum, nil
}

// RssAnon of each process, in bytes, by name.
func (c *ControlPlane) RssAnon() (map[string]float64, error) {
	all := map[string]float64{}
	for _, p := range c.processes {
		value, err := proc.RssAnon(p.pid)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		all[p.name] = value
	}
	return all, nil
}

func (c *ControlPlane) path(name string) string { return filepath.Join(c.options.Dir, name) }

func (c *ControlPlane) start(names ...string) error {
	for _, name := range names {
		p, err := startProcess(name, filepath.Join(c.options.Programs, name), c.arguments[name], c.path(name+".log"))
		if err != nil {
			return err
		}
		c.processes = append(c.processes, p)
	}
	return nil
}

// await asks again and again until there is no error.
func (c *ControlPlane) await(ctx context.Context, pause time.Duration, ask func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := ask()
		if err == nil {
			return nil
		}
		for _, p := range c.processes {
			if ended := p.failure(); ended != nil {
				return ended
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the separate processes were not ready within %v: %w", patience, err)
		}
		time.Sleep(pause)
	}
}

// The ports of a control plane, by their place in what freePorts returns.
const (
	etcdPort = iota
	etcdPeerPort
	apiPort
	controllerManagerPort
	dnsPort
	dnsHealthPort
	dnsReadyPort
)

type ports []int

func (p ports) at(index int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p[index])) }

// freePorts are free a moment ago: whoever starts something else on loopback at
// this very moment makes the start fail, no worse.
func freePorts(count int) (ports, error) {
	var free ports
	for range count {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		free = append(free, listener.Addr().(*net.TCPAddr).Port)
	}
	return free, nil
}

// prepare writes certificates, configuration and arguments.
func (c *ControlPlane) prepare(p ports) error {
	now := time.Now()
	cert, key, err := c.bundle.CA.Issue(pki.Leaf{
		CommonName: "kube-apiserver",
		DNSNames:   []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
		IPs:        []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)},
		Server:     true,
		Lifetime:   lifetime,
	}, now)
	if err != nil {
		return err
	}
	server := "https://" + p.at(apiPort)
	manager, _, err := c.kubeconfig(server, pki.Leaf{CommonName: "system:kube-controller-manager"})
	if err != nil {
		return err
	}
	admin, config, err := c.kubeconfig(server, pki.Leaf{CommonName: "bench", Organizations: []string{"system:masters"}})
	if err != nil {
		return err
	}
	c.config = config
	files := map[string][]byte{
		"apiserver.crt":      cert,
		"apiserver.key":      key,
		"manager.kubeconfig": manager,
		// CoreDNS reads a little; what it may read costs nothing to check.
		"dns.kubeconfig": admin,
		"Corefile":       c.corefile(p),
	}
	c.arguments = c.argumentsFor(p)
	for name, content := range files {
		if err := os.WriteFile(c.path(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// argumentsFor are those that each program cannot be without. All else is left at its
// default, but for authorization, which is RBAC in every cluster.
func (c *ControlPlane) argumentsFor(p ports) map[string][]string {
	etcdURL, peerURL := "http://"+p.at(etcdPort), "http://"+p.at(etcdPeerPort)
	return map[string][]string{
		etcd: {
			"--data-dir=" + c.DataDir(),
			"--listen-client-urls=" + etcdURL, "--advertise-client-urls=" + etcdURL,
			"--listen-peer-urls=" + peerURL, "--initial-advertise-peer-urls=" + peerURL,
		},
		apiServer: {
			"--etcd-servers=" + etcdURL,
			"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(p[apiPort]),
			// What default/kubernetes leads to; nobody goes there.
			"--advertise-address=192.0.2.1",
			"--tls-cert-file=" + c.path("apiserver.crt"), "--tls-private-key-file=" + c.path("apiserver.key"),
			"--client-ca-file=" + c.path("pki/"+pki.CACertKey),
			"--authorization-mode=RBAC",
			"--service-cluster-ip-range=10.96.0.0/16",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + c.path("pki/"+pki.ServiceAccountKey),
			"--service-account-signing-key-file=" + c.path("pki/"+pki.ServiceAccountKey),
		},
		controllerManager: {
			"--kubeconfig=" + c.path("manager.kubeconfig"),
			"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(p[controllerManagerPort]),
			"--root-ca-file=" + c.path("pki/"+pki.CACertKey),
			"--service-account-private-key-file=" + c.path("pki/"+pki.ServiceAccountKey),
		},
		coreDNS: {"-conf", c.path("Corefile")},
	}
}

// corefile is that which clusters have, without a server outside to ask.
func (c *ControlPlane) corefile(p ports) []byte {
	return fmt.Appendf(nil, `.:%d {
    bind 127.0.0.1
    errors
    health %s {
        lameduck 1s
    }
    ready %s
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig %s
        pods insecure
        ttl 30
    }
    cache 30
    reload
}
`, p[dnsPort], p.at(dnsHealthPort), p.at(dnsReadyPort), c.path("dns.kubeconfig"))
}

func (c *ControlPlane) kubeconfig(server string, leaf pki.Leaf) ([]byte, *rest.Config, error) {
	leaf.Client, leaf.Lifetime = true, lifetime
	cert, key, err := c.bundle.CA.Issue(leaf, time.Now())
	if err != nil {
		return nil, nil, err
	}
	content, err := kubeconfig.Marshal(kubeconfig.Entry{Name: "separate", Server: server, CA: c.bundle.CA.CertPEM, ClientCert: cert, ClientKey: key})
	config := &rest.Config{
		Host:            server,
		QPS:             -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.bundle.CA.CertPEM, CertData: cert, KeyData: key},
	}
	return content, config, err
}

// get wants a 200. The controller manager's certificate is one that it has made
// for itself, and all is on loopback.
func get(ctx context.Context, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport, Timeout: time.Second}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", address, response.Status)
	}
	return nil
}
