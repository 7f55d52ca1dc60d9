// Package controlplane runs a whole Kubernetes control plane inside this
// process: etcd, kube-apiserver with CRDs and aggregation, and the controllers
// that the profile needs.
//
//	Start
//	  │ etcd          unix socket, fsync on
//	  │ seed          default roles, namespaces, members: one transaction
//	  │ API server    TLS on one port
//	  │ controllers   through the API server's loopback
//	  ▼
//	 ready ── ctx ends ──► controllers stop ► requests drain ► etcd closes
//
// Several may live in one process. They share what the libraries keep once for
// a process: feature gates, the emulated version, metrics.
package controlplane

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/sublet-dev/sublet/pkg/kubeconfig"
	"github.com/sublet-dev/sublet/pkg/pki"
)

const (
	// startTimeout is how long a start may take, most of it for data that must
	// be read from a slow disk.
	startTimeout = 3 * time.Minute
	readyPoll    = 10 * time.Millisecond

	adminLifetime = 365 * 24 * time.Hour

	apiServerComponent = "API server"
)

// ControlPlane is one that was started.
type ControlPlane struct {
	options Options
	config  *rest.Config
	address *net.TCPAddr
	certs   *certificates
	server  *apiServer
	ready   atomic.Bool
	// missing is what the API server's readiness lacks while it starts.
	missing atomic.Pointer[string]

	stop    context.CancelCauseFunc
	stopped chan struct{}
	err     error
}

// Start runs a control plane until ctx ends, and returns once it is ready but
// for Options.ReadyChecks. When it returns an error nothing is left that listens
// or writes.
//
// Feature gates and the emulated version are global in the libraries: the first
// control plane of a process sets them, and Start refuses others.
func Start(ctx context.Context, o Options) (*ControlPlane, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("control plane %q: %w", o.Name, err)
	}
	if err := setProcess(o); err != nil {
		return nil, fmt.Errorf("control plane %q: %w", o.Name, err)
	}
	logger := klog.FromContext(ctx).WithValues("controlPlane", o.Name)
	running, stop := context.WithCancelCause(klog.NewContext(ctx, logger))
	c := &ControlPlane{options: o, stop: stop, stopped: make(chan struct{})}

	started := make(chan struct{})
	go func() {
		defer close(c.stopped)
		c.err = c.run(running, started)
		c.ready.Store(false)
	}()

	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case <-started:
		return c, nil
	case <-c.stopped:
	case <-timeout.C:
		stop(fmt.Errorf("it was not ready within %s: %s", startTimeout, c.lacks()))
		<-c.stopped
	}
	err := c.err
	if err == nil {
		err = context.Cause(running)
	}
	return nil, fmt.Errorf("control plane %q: %w", o.Name, err)
}

// Config is for clients in this process, with the rights of system:masters. Its
// requests need no connection, so they cannot be upgraded to streams, and who
// changes its TLS settings or leaves out who one is must take NetworkConfig.
func (c *ControlPlane) Config() *rest.Config { return plain(c.config) }

// NetworkConfig is the same over a connection.
func (c *ControlPlane) NetworkConfig() *rest.Config {
	return plain(networkConfig(c.options, c.config))
}

func plain(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	// The API server's own clients speak protobuf, which custom resources
	// cannot; each client library chooses for itself.
	config.ContentConfig = rest.ContentConfig{}
	return config
}

// URL is where the API server listens, as a client on this machine reaches it.
func (c *ControlPlane) URL() string {
	ip := c.address.IP
	if ip.IsUnspecified() {
		ip = net.IPv4(127, 0, 0, 1)
	}
	return "https://" + net.JoinHostPort(ip.String(), strconv.Itoa(c.address.Port))
}

// Ready tells whether it has started and has not begun to stop.
func (c *ControlPlane) Ready() bool { return c.ready.Load() }

// Wait blocks until all has stopped. The error tells what died, and is nil
// after ctx ended.
func (c *ControlPlane) Wait() error {
	<-c.stopped
	if c.err != nil {
		return fmt.Errorf("control plane %q: %w", c.options.Name, c.err)
	}
	return nil
}

// SetMembers makes members the ones that have roles in the whole control plane;
// those who are not named lose theirs.
func (c *ControlPlane) SetMembers(ctx context.Context, members []Binding) error {
	for _, member := range members {
		if err := member.validate(); err != nil {
			return fmt.Errorf("control plane %q: %w", c.options.Name, err)
		}
	}
	if err := reconcileMembers(ctx, c.config, c.options.Profile, members); err != nil {
		return fmt.Errorf("control plane %q: %w", c.options.Name, err)
	}
	return nil
}

// Kubeconfig is an administrator's, valid for a year, for server (URL when
// empty).
func (c *ControlPlane) Kubeconfig(server string) ([]byte, error) {
	if server == "" {
		server = c.URL()
	}
	cert, key, err := c.options.PKI.CA.Issue(pki.Leaf{
		CommonName:    "sublet:admin",
		Organizations: []string{adminGroup},
		Client:        true,
		Lifetime:      adminLifetime,
	}, time.Now())
	if err != nil {
		return nil, err
	}
	return kubeconfig.Marshal(kubeconfig.Entry{
		Name:       c.options.Name,
		Server:     server,
		CA:         c.options.PKI.CA.CertPEM,
		ClientCert: cert,
		ClientKey:  key,
	})
}

// run holds everything together: it starts the components in order, waits until
// ctx ends or one of them dies, and stops them in reverse.
func (c *ControlPlane) run(ctx context.Context, started chan<- struct{}) error {
	if err := prepareDataDir(c.options.DataDir); err != nil {
		return err
	}
	lock, err := lockDataDir(c.options.DataDir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	runDir, err := makeRunDir(c.options.DataDir)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(runDir) }()

	listener, err := listen(c.options)
	if err != nil {
		return err
	}
	// The API server closes it, too, once it runs.
	defer func() { _ = listener.Close() }()
	c.address = listener.Addr().(*net.TCPAddr)

	// etcd waits for the disk while the API server is configured.
	opening := make(chan error, 1)
	var storage *etcd
	go func() {
		var err error
		storage, err = startEtcd(ctx, c.options.DataDir, runDir)
		opening <- err
	}()
	server, certs, err := c.configure(ctx, listener, runDir)
	if openErr := <-opening; openErr != nil {
		return openErr
	}
	defer storage.stop()
	if err != nil {
		return err
	}
	c.certs, c.server = certs, server
	c.config = server.config.KubeAPIs.ControlPlane.Generic.LoopbackClientConfig
	if c.options.Loopback != nil {
		c.options.Loopback(c.Config())
	}
	// Who keeps a control plane that has stopped does not keep all of it.
	defer func() { c.server = nil }()
	defer server.egress.close()
	server.storage.open(storage)
	defer server.storage.close()
	if err := server.build(); err != nil {
		return err
	}
	var first bool
	err = storage.call(func() (err error) {
		first, err = seed(ctx, storage.client, server, c.address.Port)
		return err
	})
	if err != nil {
		return err
	}

	// Controllers stop first, then the API server, which their last writes
	// need, then what it calls through, then etcd by the deferred call.
	beneath := newComponents(ctx, c.stop)
	if server.egress != nil {
		beneath.start("egress", server.egress.run)
	}
	components := newComponents(ctx, c.stop)
	components.start(apiServerComponent, server.run)
	components.start("certificates", func(ctx context.Context) error {
		certs.run(ctx)
		return nil
	})
	working := newComponents(ctx, c.stop)
	go c.watchStorage(ctx, storage)

	err = c.becomeReady(ctx)
	if err == nil {
		err = c.startControllers(ctx, working, server, certs, runDir)
	}
	if err == nil {
		if !first {
			working.start("roles", func(ctx context.Context) error {
				reconcile(ctx, c.config, c.options.Profile, c.options.Members)
				return nil
			})
		}
		c.ready.Store(true)
		close(started)
		<-ctx.Done()
		c.ready.Store(false)
	}
	c.stop(err)
	working.stop()
	components.stop()
	beneath.stop()
	return components.failure(ctx, err)
}

// makeRunDir makes an empty directory for sockets and for certificates that the
// API server reads as files. Its name is short, as that of a socket must be, and
// the same for the same data, so that what a killed process left is removed.
func makeRunDir(dataDir string) (string, error) {
	info, err := os.Stat(dataDir)
	if err != nil {
		return "", fmt.Errorf("data directory %q: %w", dataDir, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("data directory %q: this system does not tell its inode", dataDir)
	}
	// Not by the path: another mount namespace may have other data there, and
	// share the directory for temporary files.
	sum := sha256.Sum256(fmt.Appendf(nil, "%d/%d", stat.Dev, stat.Ino))
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("sublet-%x", sum[:6]))
	// Whoever made it before is gone: the data is locked.
	err = os.RemoveAll(dir)
	if err == nil {
		// Mkdir fails if somebody else was faster, in a directory for all.
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return "", fmt.Errorf("making a directory for sockets: %w; make %q writable, or set TMPDIR", err, os.TempDir())
	}
	return dir, nil
}

// configure does what needs no data.
func (c *ControlPlane) configure(ctx context.Context, listener net.Listener, runDir string) (*apiServer, *certificates, error) {
	certs, err := newCertificates(c.options, c.addresses(), runDir)
	if err != nil {
		return nil, nil, err
	}
	server, err := newAPIServer(ctx, c.options, listener, certs, runDir)
	if err != nil {
		return nil, nil, err
	}
	return server, certs, nil
}

func (c *ControlPlane) startControllers(ctx context.Context, working *components, server *apiServer, certs *certificates, runDir string) error {
	built, err := newControllers(working.ctx, c.options, c.config, server.config.KubeAPIs.ControlPlane.VersionedInformers, certs, runDir)
	if err != nil {
		return err
	}
	working.start("controllers", built.run)
	working.start("range of Services", func(ctx context.Context) error { return server.keepServiceRange(ctx, c.config) })
	if len(server.local.list) > 0 {
		working.start("local APIs", func(ctx context.Context) error { return server.local.run(ctx, c.config) })
	}
	if !c.options.Scheduler {
		return nil
	}
	scheduler, err := newScheduler(working.ctx, c.options, c.config, server.config.KubeAPIs.ControlPlane.VersionedInformers)
	if err != nil {
		return err
	}
	working.start("scheduler", scheduler.run)
	return nil
}

// watchStorage stops everything when etcd cannot go on.
func (c *ControlPlane) watchStorage(ctx context.Context, storage *etcd) {
	select {
	case <-ctx.Done():
	case err := <-storage.died:
		c.stop(dataDirError(c.options.DataDir, err))
	}
}

// becomeReady waits for the API server's own readiness.
func (c *ControlPlane) becomeReady(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	request := func(ctx context.Context) (bool, error) {
		var code int
		body, err := client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&code).Raw()
		if err != nil {
			c.missing.Store(new(failedChecks(body, err)))
		}
		return code == http.StatusOK, nil
	}
	if err := wait.PollUntilContextCancel(ctx, readyPoll, true, request); err != nil {
		return context.Cause(ctx)
	}
	// Clients look for default/kubernetes, which is seeded, and which the API
	// server makes again once it is ready.
	service := func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, kubernetesServiceName, metav1.GetOptions{})
		return err == nil, nil
	}
	if err := wait.PollUntilContextCancel(ctx, readyPoll, true, service); err != nil {
		return context.Cause(ctx)
	}
	return nil
}

// failedChecks are the lines of an answer from /readyz that say what failed.
func failedChecks(body []byte, err error) string {
	var failed []string
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "[-]") {
			failed = append(failed, strings.TrimSpace(line))
		}
	}
	if len(failed) == 0 {
		return err.Error()
	}
	return strings.Join(failed, ", ")
}

// lacks says what a start waits for, as far as it got.
func (c *ControlPlane) lacks() string {
	if missing := c.missing.Load(); missing != nil {
		return *missing
	}
	return "the API server has not answered yet"
}

// addresses are those under which the API server is reached.
func (c *ControlPlane) addresses() []net.IP {
	var ips []net.IP
	for _, text := range []string{c.options.BindAddress, c.options.AdvertiseAddress} {
		if ip := net.ParseIP(text); ip != nil && !ip.IsUnspecified() {
			ips = append(ips, ip)
		}
	}
	if c.options.KubernetesServiceIP != nil {
		return append(ips, c.options.KubernetesServiceIP)
	}
	if ip, ok := firstServiceIP(c.options.ServiceCIDRs[0]); ok {
		ips = append(ips, ip)
	}
	return ips
}

// components run until their context ends; when one ends before, all of the
// control plane stops.
type components struct {
	ctx     context.Context
	cancel  context.CancelFunc
	fail    context.CancelCauseFunc
	running sync.WaitGroup

	mu   sync.Mutex
	errs []error
}

func newComponents(ctx context.Context, fail context.CancelCauseFunc) *components {
	// They outlive ctx, to be stopped in order.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return &components{ctx: own, cancel: cancel, fail: fail}
}

// start runs a component.
func (c *components) start(name string, run func(context.Context) error) {
	c.running.Go(func() {
		err := recovered(func() error { return run(c.ctx) })
		switch {
		case err != nil:
			err = fmt.Errorf("%s: %w", name, err)
			c.mu.Lock()
			c.errs = append(c.errs, err)
			c.mu.Unlock()
			c.fail(err)
		case c.ctx.Err() == nil && name == apiServerComponent:
			c.fail(fmt.Errorf("%s ended by itself", name))
		}
	})
}

func (c *components) stop() {
	c.cancel()
	c.running.Wait()
}

func (c *components) failure(ctx context.Context, err error) error {
	if err != nil {
		return err
	}
	cause := context.Cause(ctx)
	if cause == nil || errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
		return errors.Join(c.errs...)
	}
	return cause
}

// recovered turns a panic into an error, so that the others can stop in order.
func recovered(run func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return run()
}
