// Package kubelet speaks the kubelet's API for the virtual nodes of one tenant.
//
// A tenant's API server reaches what it believes to be the kubelets of its
// nodes through a dialer that leads here, within the process. So exec, attach,
// logs, port-forward, cp and debug pass the tenant's own authentication, RBAC,
// admission and audit, and are then forwarded to the pod's subresources on the
// host:
//
//	kubectl ─► virtual API server ─► Dial ─► Server ─► host API ─► real kubelet
//
// It answers for the tenant's own pods only.
package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/sublet-dev/sublet/pkg/pki"
)

// Options of a Server. All are required but for Usage.
type Options struct {
	// Tenant is the tenant's name: the value of the tenant label on its host
	// pods.
	Tenant string
	// HostNamespace is where the tenant's host pods are.
	HostNamespace string
	// Host reaches the host's API, with the syncer's identity. It needs get on
	// pods and pods/log, and get and create on pods/exec, pods/attach and
	// pods/portforward, in HostNamespace.
	Host *rest.Config
	// HostPod tells the name of the host pod of a virtual one.
	HostPod func(ctx context.Context, virtualNamespace, name string) (hostName string, err error)
	// Virtual reaches the tenant's API. It is a function because the Server is
	// made before the API server that dials it; an error says that there is no
	// API server yet.
	Virtual func() (*rest.Config, error)
	// CA signs the serving certificates, and must have signed that of the client,
	// which must be pki.KubeletClientName.
	CA *pki.Authority
	// Usage tells what the tenant's pods on a node use; the error is
	// ServiceUnavailable as long as nobody knows. Without it nothing is said of
	// that.
	Usage func(ctx context.Context, node string) ([]metricsv1beta1.PodMetrics, error)
}

// Server is the kubelet of all virtual nodes of one tenant.
type Server struct {
	options   Options
	listener  *listener
	host      kubernetes.Interface
	transport http.RoundTripper
	certs     certificates

	virtualMutex sync.Mutex
	virtual      kubernetes.Interface
}

// New returns a Server that answers once Run is called.
func New(o Options) (*Server, error) {
	for name, missing := range map[string]bool{
		"Tenant":        o.Tenant == "",
		"HostNamespace": o.HostNamespace == "",
		"Host":          o.Host == nil,
		"HostPod":       o.HostPod == nil,
		"Virtual":       o.Virtual == nil,
		"CA":            o.CA == nil,
	} {
		if missing {
			return nil, fmt.Errorf("kubelet: option %s is missing", name)
		}
	}
	host := rest.CopyConfig(o.Host)
	host.QPS = -1 // each request is a person's, already limited by the tenant's API
	client, err := kubernetes.NewForConfig(host)
	if err != nil {
		return nil, fmt.Errorf("kubelet: host client: %w", err)
	}
	// Streams are upgrades, which HTTP/2 does not have.
	streaming := rest.CopyConfig(host)
	streaming.NextProtos = []string{"http/1.1"}
	streaming.DisableCompression = true
	streaming.Timeout = 0
	transport, err := rest.TransportFor(streaming)
	if err != nil {
		return nil, fmt.Errorf("kubelet: host transport: %w", err)
	}
	return &Server{
		options:   o,
		listener:  newListener(),
		host:      client,
		transport: transport,
		certs:     certificates{ca: o.CA, issued: map[string]certificate{}},
	}, nil
}

// Dial connects to the kubelet of the virtual node at addr, HOST:PORT. Nothing
// leaves the process. It blocks until Run accepts.
func (s *Server) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	c, err := s.listener.dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dialing the kubelet of the virtual node at %q: %w", addr, err)
	}
	return c, nil
}

// Run serves until ctx ends, then ends all streams and returns nil. A Server
// runs once.
func (s *Server) Run(ctx context.Context) error {
	roots := x509.NewCertPool()
	roots.AddCert(s.options.CA.Cert)

	// Streams are hijacked connections, which http.Server forgets; they end
	// with the base context, and Run waits for their handlers.
	base, cancel := context.WithCancel(ctx)
	defer cancel()
	var streams sync.WaitGroup
	handler := s.handler()
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			streams.Add(1)
			defer streams.Done()
			handler.ServeHTTP(w, r)
		}),
		TLSConfig: &tls.Config{
			MinVersion:     tls.VersionTLS13,
			NextProtos:     []string{"http/1.1"},
			ClientAuth:     tls.RequireAndVerifyClientCert,
			ClientCAs:      roots,
			GetCertificate: s.certs.forConnection,
			VerifyConnection: func(state tls.ConnectionState) error {
				if got := state.PeerCertificates[0].Subject.CommonName; got != pki.KubeletClientName {
					return fmt.Errorf("client %q is not the API server", got)
				}
				return nil
			},
		},
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withNodeAddress,
		ErrorLog:          klog.NewStandardLogger("WARNING"),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ServeTLS(s.listener, "", "") }()

	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	cancel()
	_ = s.listener.Close()
	_ = server.Close()
	streams.Wait()
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("kubelet: serving: %w", err)
	}
	return nil
}

// virtualClient is made late: see Options.Virtual.
func (s *Server) virtualClient() (kubernetes.Interface, error) {
	s.virtualMutex.Lock()
	defer s.virtualMutex.Unlock()
	if s.virtual != nil {
		return s.virtual, nil
	}
	config, err := s.options.Virtual()
	if err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	s.virtual = client
	return client, nil
}

type nodeAddressKey struct{}

// withNodeAddress remembers which virtual node was dialed.
func withNodeAddress(ctx context.Context, c net.Conn) context.Context {
	host, _, err := net.SplitHostPort(c.LocalAddr().String())
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, nodeAddressKey{}, host)
}
