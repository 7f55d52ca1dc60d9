// Package forward leads local connections to a port of a pod, through the API
// of the host. Unlike kubectl's port-forward it owns its listener and outlives
// the pod: when the pod comes back, the next connection finds it. It also keeps
// the books about forwards that run in the background.
package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// dialPatience bounds how long one local connection waits for the pod.
const dialPatience = 20 * time.Second

// Forwarder leads connections to one port of one pod. All of them share one
// connection to the host's API, made when it is needed and again when it is
// lost.
type Forwarder struct {
	dialer httpstream.Dialer
	port   int
	target string

	mu      sync.Mutex
	conn    httpstream.Connection
	request int
}

// New makes a Forwarder for a port of a pod. It does not connect yet.
func New(config *rest.Config, namespace, pod string, port int) (*Forwarder, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	target := client.CoreV1().RESTClient().Post().
		Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	dialer, err := newDialer(config, target)
	if err != nil {
		return nil, fmt.Errorf("preparing the port-forward to pod %s/%s: %w", namespace, pod, err)
	}
	return &Forwarder{dialer: dialer, port: port, target: namespace + "/" + pod}, nil
}

// newDialer upgrades to a WebSocket, or to SPDY where something in between
// cannot, as kubectl does.
func newDialer(config *rest.Config, target *url.URL) (httpstream.Dialer, error) {
	roundTripper, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	old := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: roundTripper}, http.MethodPost, target)
	tunnel, err := portforward.NewSPDYOverWebsocketDialerForStreaming(target, config)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialerForStreaming(tunnel, old, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

// Connect makes sure that there is a connection to the pod, and returns a
// channel that is closed when it is lost.
func (f *Forwarder) Connect() (<-chan bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	conn, err := f.connectLocked()
	if err != nil {
		return nil, err
	}
	return conn.CloseChan(), nil
}

func (f *Forwarder) connectLocked() (httpstream.Connection, error) {
	if f.conn != nil {
		select {
		case <-f.conn.CloseChan():
			f.conn = nil
		default:
			return f.conn, nil
		}
	}
	conn, protocol, err := f.dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, fmt.Errorf("port-forward to pod %s: %w", f.target, err)
	}
	if protocol != portforward.PortForwardProtocolV1Name {
		_ = conn.Close()
		return nil, fmt.Errorf("port-forward to pod %s: the host speaks %q, not %q", f.target, protocol, portforward.PortForwardProtocolV1Name)
	}
	f.conn = conn
	return conn, nil
}

// Close ends all connections.
func (f *Forwarder) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn != nil {
		_ = f.conn.Close()
		f.conn = nil
	}
}

// drop forgets a connection that does not work any more.
func (f *Forwarder) drop(conn httpstream.Connection) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn == conn {
		_ = conn.Close()
		f.conn = nil
	}
}

// DialContext opens one connection to the pod, whatever the address; it fits
// rest.Config.Dial.
func (f *Forwarder) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	type result struct {
		stream *stream
		err    error
	}
	opened := make(chan result, 1)
	go func() {
		s, err := f.open()
		opened <- result{s, err}
	}()
	select {
	case <-ctx.Done():
		// The upgrade knows no context; what it still opens is closed again.
		go func() {
			if late := <-opened; late.err == nil {
				_ = late.stream.data.Reset()
				late.stream.conn.RemoveStreams(late.stream.data, late.stream.trail)
			}
		}()
		return nil, ctx.Err()
	case r := <-opened:
		if r.err != nil {
			return nil, r.err
		}
		near, far := net.Pipe()
		go func() { _ = r.stream.join(far) }()
		return near, nil
	}
}

// Serve leads every connection of a listener to the pod until ctx ends. A
// connection that comes while the pod is away waits for it for a while.
func (f *Forwarder) Serve(ctx context.Context, listener net.Listener, problem func(error)) error {
	stop := context.AfterFunc(ctx, func() {
		_ = listener.Close()
		f.Close()
	})
	defer stop()
	for {
		local, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accepting connections on %s: %w", listener.Addr(), err)
		}
		go func() {
			open, err := f.openPatiently(ctx)
			if err != nil {
				problem(err)
				_ = local.Close()
				return
			}
			if err := open.join(local); err != nil {
				problem(err)
			}
		}()
	}
}

func (f *Forwarder) openPatiently(ctx context.Context) (*stream, error) {
	deadline := time.Now().Add(dialPatience)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		open, err := f.open()
		if err == nil || time.Now().After(deadline) {
			return open, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// stream is one connection through the forward: the data, and what the kubelet
// has to say about it.
type stream struct {
	owner       *Forwarder
	conn        httpstream.Connection
	data, trail httpstream.Stream
}

func (f *Forwarder) open() (*stream, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	conn, err := f.connectLocked()
	if err != nil {
		return nil, err
	}
	f.request++
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(f.port))
	headers.Set(corev1.PortForwardRequestIDHeader, strconv.Itoa(f.request))
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	trail, err := conn.CreateStream(headers)
	if err != nil {
		_ = conn.Close()
		f.conn = nil
		return nil, fmt.Errorf("port-forward to pod %s: %w", f.target, err)
	}
	_ = trail.Close() // we never write to it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := conn.CreateStream(headers)
	if err != nil {
		_ = conn.Close()
		f.conn = nil
		return nil, fmt.Errorf("port-forward to pod %s: %w", f.target, err)
	}
	return &stream{owner: f, conn: conn, data: data, trail: trail}, nil
}

// join copies both ways until the pod's side ends, then tells what went wrong.
func (s *stream) join(local net.Conn) error {
	defer s.conn.RemoveStreams(s.data, s.trail)
	defer func() { _ = local.Close() }()
	failed := make(chan error, 1)
	go func() {
		message, err := io.ReadAll(s.trail)
		if err == nil && len(message) > 0 {
			err = errors.New(string(message))
		}
		failed <- err
	}()
	localDone, remoteDone := make(chan struct{}), make(chan struct{})
	var localEnded atomic.Bool
	go func() {
		_, _ = io.Copy(local, s.data)
		close(remoteDone)
	}()
	go func() {
		_, err := io.Copy(s.data, local)
		localEnded.Store(true)
		if err != nil {
			close(localDone) // do not wait for the other side
		}
		_ = s.data.Close()
	}()
	select {
	case <-remoteDone:
	case <-localDone:
	case <-s.conn.CloseChan():
	}
	// Unread data would otherwise keep the error from arriving.
	_ = s.data.Reset()
	select {
	case err := <-failed:
		if err != nil {
			// The kubelet ends the whole session after such an error.
			s.owner.drop(s.conn)
			if localEnded.Load() {
				return nil // the pod's complaint that nobody listens any more
			}
			return fmt.Errorf("port-forward to pod %s: %w", s.owner.target, err)
		}
	case <-s.conn.CloseChan():
	}
	return nil
}
