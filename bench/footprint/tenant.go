//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/bench/proc"
	"github.com/sublet-dev/sublet/pkg/pki"
)

// site is where a tenant lives, from one boot to the next.
type site struct {
	options
	name, dir string
	host      *host
	bundle    *pki.Bundle
	config    *rest.Config
}

// newSite prepares both the host and the files that the manager would mount.
func newSite(ctx context.Context, o options, h *host, dir, name string) (*site, error) {
	s := &site{options: o, name: name, dir: filepath.Join(dir, name), host: h}
	if err := h.prepare(ctx, name); err != nil {
		return nil, err
	}
	var err error
	if s.bundle, err = pki.NewBundle(name, time.Now()); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	if err := s.bundle.Save(filepath.Join(s.dir, "pki")); err != nil {
		return nil, err
	}
	content, err := yaml.Marshal(api.ControlPlaneConfig{
		Tenant:        name,
		HostNamespace: name,
		ServiceCIDRs:  []string{serviceCIDR},
		APIServiceIP:  "10.96.0.11",
		DNSServiceIP:  "10.96.0.12",
		PodSecurity:   api.PodSecurityBaseline,
		Services:      []corev1.ServiceType{corev1.ServiceTypeClusterIP},
	})
	if err != nil {
		return nil, err
	}
	return s, os.WriteFile(filepath.Join(s.dir, "config.yaml"), content, 0o600)
}

// process is one boot of a tenant.
type process struct {
	*site
	cmd    *exec.Cmd
	client *kubernetes.Clientset
	log    bytes.Buffer
	ended  chan error
	// boot is how long it took until all was ready, and bootCPU the seconds of
	// CPU time that it took.
	boot    time.Duration
	bootCPU float64
}

// start runs the tenant's process and returns as soon as /readyz says ok.
func (s *site) start(ctx context.Context) (*process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dnsPort, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &process{site: s, ended: make(chan error, 1)}
	args := []string{
		"tenant",
		"--config", filepath.Join(s.dir, "config.yaml"),
		"--pki", filepath.Join(s.dir, "pki"),
		"--data", filepath.Join(s.dir, "data"),
		"--kubeconfig", s.host.kubeconfig,
		"--bind-address", "127.0.0.1",
		"--port", strconv.Itoa(port),
		"--dns-port", strconv.Itoa(dnsPort),
		"--profiling",
	}
	p.cmd = exec.Command(s.subletd, append(args, strings.Fields(s.args)...)...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.config, err = s.clientConfig(port); err != nil {
		return nil, err
	}
	if p.client, err = kubernetes.NewForConfig(p.config); err != nil {
		return nil, err
	}

	start := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.subletd, err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	for {
		var status int
		err := p.client.RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&status).Error()
		if err == nil && status == http.StatusOK {
			p.boot = time.Since(start)
			if p.bootCPU, err = proc.CPUSeconds(p.pid()); err != nil {
				return nil, errors.Join(err, p.stop())
			}
			return p, nil
		}
		select {
		case err := <-p.ended:
			return nil, fmt.Errorf("the tenant ended: %w\n%s", err, p.log.String())
		default:
		}
		if time.Since(start) > patience || ctx.Err() != nil {
			_ = p.cmd.Process.Kill()
			return nil, fmt.Errorf("the tenant was not ready within %v (%w)\n%s", patience, err, p.log.String())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) stop() error {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	select {
	case err := <-p.ended:
		if err != nil {
			return fmt.Errorf("stop the tenant: %w\n%s", err, p.log.String())
		}
		return nil
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		return fmt.Errorf("the tenant did not stop\n%s", p.log.String())
	}
}

// clientConfig is that of an administrator.
func (s *site) clientConfig(port int) (*rest.Config, error) {
	cert, key, err := s.bundle.CA.Issue(pki.Leaf{CommonName: "bench", Organizations: []string{"system:masters"}, Client: true, Lifetime: 24 * time.Hour}, time.Now())
	if err != nil {
		return nil, err
	}
	return &rest.Config{
		Host:            "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		QPS:             -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: s.bundle.CA.CertPEM, CertData: cert, KeyData: key},
	}, nil
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// memory is what the Go runtime says of itself.
type memory struct {
	// bytes and objects were allocated since the start.
	bytes, objects float64
	goroutines     float64
}

func (p *process) memory(ctx context.Context) (memory, error) {
	content, err := p.client.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return memory{}, fmt.Errorf("read the metrics: %w", err)
	}
	var m memory
	wanted := map[string]*float64{
		"go_memstats_alloc_bytes_total": &m.bytes,
		"go_memstats_mallocs_total":     &m.objects,
		"go_goroutines":                 &m.goroutines,
	}
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, text, _ := strings.Cut(lines.Text(), " ")
		if into, ok := wanted[name]; ok {
			if *into, err = strconv.ParseFloat(text, 64); err != nil {
				return memory{}, err
			}
			delete(wanted, name)
		}
	}
	if len(wanted) > 0 {
		return memory{}, errors.New("the metrics lack some of the Go runtime's")
	}
	return m, lines.Err()
}

// liveHeap is what is left after a collection, in bytes.
func (p *process) liveHeap(ctx context.Context) (float64, error) {
	content, err := p.client.RESTClient().Get().AbsPath("/debug/pprof/heap").Param("debug", "1").Param("gc", "1").DoRaw(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the heap: %w", err)
	}
	for line := range strings.Lines(string(content)) {
		if text, ok := strings.CutPrefix(line, "# HeapAlloc = "); ok {
			return strconv.ParseFloat(strings.TrimSpace(text), 64)
		}
	}
	return 0, errors.New("the heap's profile does not tell its size")
}

// profile saves a profile of the Go runtime.
func (p *process) profile(ctx context.Context, name, file string) error {
	request := p.client.RESTClient().Get().AbsPath("/debug/pprof/" + name)
	switch name {
	case "heap":
		request = request.Param("gc", "1")
	case "trace":
		request = request.Param("seconds", "5")
	case "profile":
		request = request.Param("seconds", strconv.Itoa(int(p.idle.Seconds())))
	}
	content, err := request.DoRaw(ctx)
	if err != nil {
		return fmt.Errorf("profile %s: %w", name, err)
	}
	return os.WriteFile(file, content, 0o644)
}

// metrics saves all that the process says of itself.
func (p *process) metrics(ctx context.Context, file string) error {
	content, err := p.client.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return fmt.Errorf("read the metrics: %w", err)
	}
	return os.WriteFile(file, content, 0o644)
}

// revision is etcd's: it grows with each write.
func (p *process) revision(ctx context.Context) (float64, error) {
	list, err := p.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(list.ResourceVersion, 64)
}
