package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/server/egressselector"
	apiserverapp "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

const (
	egressSocket = "egress.sock"
	egressFile   = "egress.yaml"
)

// egress opens, with Options.EgressDialer, the connections that objects in the
// API ask for. The API server asks a proxy for them, the one seam through which
// Kubernetes lets all of them go:
//
//	webhooks, aggregated API servers, ─► CONNECT on a unix socket ─► EgressDialer
//	proxies to pods, Services, nodes
type egress struct {
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	listener net.Listener
}

// newEgress listens, and tells the API server where.
func newEgress(o Options, opts *apiserveroptions.ServerRunOptions, runDir string) (*egress, error) {
	socket := filepath.Join(runDir, egressSocket)
	opts.EgressSelector.ConfigFile = filepath.Join(runDir, egressFile)
	if err := os.WriteFile(opts.EgressSelector.ConfigFile, []byte(egressConfiguration(socket)), 0o600); err != nil {
		return nil, fmt.Errorf("egress configuration: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("egress: %w", err)
	}
	return &egress{dial: o.EgressDialer, listener: listener}, nil
}

func egressConfiguration(socket string) string {
	var b strings.Builder
	b.WriteString("apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n")
	for _, name := range []string{egressselector.Cluster.String(), egressselector.ControlPlane.String()} {
		fmt.Fprintf(&b, "- name: %s\n  connection:\n    proxyProtocol: HTTPConnect\n    transport:\n      uds:\n        udsName: %s\n", name, strconv.Quote(socket))
	}
	return b.String()
}

// keepKubelets leaves connections to kubelets as they were: nothing in the API
// decides where they go, as far as KubeletDialer does.
func keepKubelets(config *apiserverapp.Config, o Options) {
	config.KubeAPIs.Extra.KubeletClientConfig.Lookup = nil
	if o.KubeletDialer != nil {
		config.KubeAPIs.Extra.KubeletClientConfig.Lookup = func(egressselector.NetworkContext) (utilnet.DialFunc, error) {
			return o.KubeletDialer, nil
		}
	}
}

// run serves until ctx ends, and leaves no connection open.
func (e *egress) run(ctx context.Context) error {
	server := &http.Server{
		Handler:           e,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// close is for an egress that never ran.
func (e *egress) close() {
	if e != nil {
		_ = e.listener.Close()
	}
}

// ServeHTTP joins a client with the address that it asks for.
func (e *egress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	hijacker, ok := w.(http.Hijacker)
	if r.Method != http.MethodConnect || !ok {
		http.Error(w, "only CONNECT is served here", http.StatusMethodNotAllowed)
		return
	}
	there, err := e.dial(r.Context(), "tcp", r.Host)
	if err != nil {
		refuse(hijacker, err)
		return
	}
	defer there.Close()
	here, buffered, err := hijacker.Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	stop := context.AfterFunc(r.Context(), func() {
		_ = here.Close()
		_ = there.Close()
	})
	defer stop()
	if _, err := io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	var running sync.WaitGroup
	running.Go(func() { carry(there, buffered) })
	running.Go(func() { carry(here, there) })
	running.Wait()
}

// refuse answers with the reason in the status line, which is all of an answer
// that the API server shows.
func refuse(hijacker http.Hijacker, reason error) {
	here, _, err := hijacker.Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	text := strings.Join(strings.Fields(reason.Error()), " ")
	_, _ = fmt.Fprintf(here, "HTTP/1.1 502 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", text)
}

// carry copies until one side has no more to say, and passes that on.
func carry(to net.Conn, from io.Reader) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = to.Close()
}
