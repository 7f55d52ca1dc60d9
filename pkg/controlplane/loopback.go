package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"

	restclient "k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// loopbackWindow is how much of a response may wait for its reader.
const loopbackWindow = 64 << 10

// loopbackIdle is what a response may keep of its window while it waits, as
// watches do most of the time.
const loopbackIdle = 2 << 10

// loopback carries the requests of this process to its own API server: through
// the whole chain of handlers, but without connections, TLS and frames.
//
//	client ─► RoundTrip ─► handlers ─► authentication, authorization, …
//	   ▲                       │
//	   └────── response ◄──────┘ no more than a window ahead of the reader
type loopback struct {
	// ctx ends all requests.
	ctx    context.Context
	cancel context.CancelFunc

	// serving is closed once there is a handler, and handler nil after stop.
	serving chan struct{}
	handler atomic.Pointer[http.Handler]
}

var _ http.RoundTripper = (*loopback)(nil)

func newLoopback(ctx context.Context) *loopback {
	l := &loopback{serving: make(chan struct{})}
	// Its requests end after those who make them, in order.
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return l
}

// serve lets requests through, which wait until then. It is called once.
func (l *loopback) serve(handler http.Handler) {
	l.handler.Store(&handler)
	close(l.serving)
}

// stop ends all requests. Clients that somebody keeps do not keep the API
// server.
func (l *loopback) stop() {
	l.cancel()
	l.handler.Store(nil)
}

// config is for clients in this process, with the token of the API server's own
// identity. Nothing is sent to host, but its name shows in some places.
func (l *loopback) config(host, token string) *restclient.Config {
	return &restclient.Config{
		Host:        host,
		BearerToken: token,
		Transport:   l,
		// The API server's fairness is the only limit.
		QPS: -1,
	}
}

// RoundTrip lets the API server answer a request.
func (l *loopback) RoundTrip(request *http.Request) (*http.Response, error) {
	select {
	case <-l.serving:
	case <-l.ctx.Done():
	case <-request.Context().Done():
	}
	if err := request.Context().Err(); err != nil {
		closeBody(request)
		return nil, err
	}
	handler := l.handler.Load()
	if l.ctx.Err() != nil || handler == nil {
		closeBody(request)
		// What a client sees when nobody listens any more.
		return nil, fmt.Errorf("the API server has stopped: %w", syscall.ECONNREFUSED)
	}
	// Only the end of the client's context crosses, as it would on a wire, and
	// nothing that it carries.
	ctx, cancel := context.WithCancel(l.ctx)
	response := newLoopbackResponse(cancel)
	stop := context.AfterFunc(request.Context(), func() {
		cancel()
		response.abort(request.Context().Err())
	})
	go func() {
		defer stop()
		defer cancel()
		defer closeBody(request)
		// A handler may end its goroutine, as etcd does where it cannot go on.
		err := io.ErrUnexpectedEOF
		defer func() { response.finish(err) }()
		err = handle(*handler, response, received(ctx, request))
	}()
	return response.wait(request)
}

// handle returns an error when the handler breaks off.
func handle(handler http.Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = io.ErrUnexpectedEOF
			if reasonErr, ok := reason.(error); !ok || !errors.Is(reasonErr, http.ErrAbortHandler) {
				klog.FromContext(r.Context()).Error(fmt.Errorf("panic: %v", reason), "Handling a request of this process", "path", r.URL.Path)
			}
		}
	}()
	handler.ServeHTTP(w, r)
	return nil
}

// received is a request as a server gets it.
func received(ctx context.Context, sent *http.Request) *http.Request {
	r := sent.Clone(ctx)
	r.URL = &url.URL{Path: sent.URL.Path, RawPath: sent.URL.RawPath, RawQuery: sent.URL.RawQuery}
	r.RequestURI = r.URL.RequestURI()
	if r.Host == "" {
		r.Host = sent.URL.Host
	}
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
	r.RemoteAddr = "127.0.0.1:0"
	if r.Body == nil {
		r.Body = http.NoBody
	}
	return r
}

func closeBody(request *http.Request) {
	if request.Body != nil {
		_ = request.Body.Close()
	}
}

// loopbackResponse is written by a handler and read by a client.
type loopbackResponse struct {
	// cancel ends the handler.
	cancel context.CancelFunc
	// header is the handler's until it is sent.
	header http.Header

	mu      sync.Mutex
	changed sync.Cond
	// sent is the header as the client sees it, nil until then.
	sent   http.Header
	status int
	// visible tells that the client may look at what is there.
	visible bool
	content bytes.Buffer
	// ended is set when the handler is done, and failed when it broke off or the
	// client gave up; closed when the client reads no more.
	ended, closed bool
	failed        error
}

var (
	_ http.Flusher  = (*loopbackResponse)(nil)
	_ io.ReadCloser = (*loopbackResponse)(nil)
)

func newLoopbackResponse(cancel context.CancelFunc) *loopbackResponse {
	r := &loopbackResponse{cancel: cancel, header: http.Header{}}
	r.changed.L = &r.mu
	return r
}

// Header of the response, until the first byte of it is written.
func (r *loopbackResponse) Header() http.Header { return r.header }

// WriteHeader begins the response.
func (r *loopbackResponse) WriteHeader(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begin(status)
}

func (r *loopbackResponse) begin(status int) {
	if r.sent != nil || status < http.StatusOK {
		return // begun before, or only to inform
	}
	r.sent, r.status = r.header.Clone(), status
	if r.sent == nil {
		r.sent = http.Header{}
	}
}

// Write adds to the body, and waits for the reader when it is far ahead.
func (r *loopbackResponse) Write(content []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begin(http.StatusOK)
	written := 0
	for {
		if r.failed != nil {
			return written, r.failed
		}
		if r.closed {
			return written, io.ErrClosedPipe
		}
		if room := loopbackWindow - r.content.Len(); room > 0 {
			part := content[written:min(len(content), written+room)]
			_, _ = r.content.Write(part)
			if written += len(part); written == len(content) {
				if r.visible {
					r.changed.Broadcast()
				}
				return written, nil
			}
		}
		r.visible = true
		r.changed.Broadcast()
		r.changed.Wait()
	}
}

// Flush lets the client see what was written.
func (r *loopbackResponse) Flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begin(http.StatusOK)
	r.visible = true
	r.changed.Broadcast()
}

// CloseNotify is wanted of a response writer, and nobody listens: the context of
// the request tells the same.
func (r *loopbackResponse) CloseNotify() <-chan bool { return make(chan bool) }

// finish is called when the handler is done.
func (r *loopbackResponse) finish(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.begin(http.StatusOK)
	} else if r.failed == nil {
		r.failed = err
	}
	r.ended, r.visible = true, true
	r.changed.Broadcast()
}

// abort is called when the client has given up.
func (r *loopbackResponse) abort(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended && r.failed == nil {
		r.failed = err
	}
	r.changed.Broadcast()
}

// wait returns the response once there is something to see of it.
func (r *loopbackResponse) wait(request *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.visible && r.failed == nil {
		r.changed.Wait()
	}
	if r.sent == nil {
		return nil, r.failed
	}
	response := &http.Response{
		Status:        fmt.Sprintf("%d %s", r.status, http.StatusText(r.status)),
		StatusCode:    r.status,
		Proto:         "HTTP/2.0",
		ProtoMajor:    2,
		Header:        r.sent,
		Body:          r,
		ContentLength: -1,
		Request:       request,
	}
	if r.ended && r.failed == nil {
		response.ContentLength = int64(r.content.Len())
	}
	return response, nil
}

// Read is the client's.
func (r *loopbackResponse) Read(into []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case r.closed:
			return 0, http.ErrBodyReadAfterClose
		case r.content.Len() > 0:
			n, _ := r.content.Read(into)
			if r.content.Len() == 0 && r.content.Cap() > loopbackIdle {
				r.content = bytes.Buffer{}
			}
			r.changed.Broadcast()
			return n, nil
		case r.failed != nil:
			return 0, r.failed
		case r.ended:
			return 0, io.EOF
		}
		r.changed.Wait()
	}
}

// Close is the client's: it reads no more.
func (r *loopbackResponse) Close() error {
	defer r.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.content = bytes.Buffer{}
	r.changed.Broadcast()
	return nil
}
