package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// serveLoopback returns a client of handler.
func serveLoopback(t *testing.T, handler http.HandlerFunc) (*loopback, *http.Client) {
	t.Helper()
	loop := newLoopback(t.Context())
	t.Cleanup(loop.stop)
	if handler != nil {
		loop.serve(handler)
	}
	client, err := rest.HTTPClientFor(loop.config("https://api:6443", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	return loop, client
}

func TestLoopbackRequest(t *testing.T) {
	_, client := serveLoopback(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Answer", "yes")
		w.WriteHeader(http.StatusTeapot)
		w.Header().Set("X-Late", "no")
		_, _ = fmt.Fprintf(w, "%s %s %s %s %q %d %v", r.Method, r.RequestURI, r.Host, r.Header.Get("Authorization"), body, r.ProtoMajor, r.URL.Host)
	})
	response, err := client.Post("https://api:6443/a%2Fb?c=d", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := `POST /a%2Fb?c=d api:6443 Bearer secret "hello" 2 `
	if string(content) != want || response.StatusCode != http.StatusTeapot || response.ContentLength != int64(len(want)) {
		t.Errorf("answer %d of %d bytes: %s, want %s", response.StatusCode, response.ContentLength, content, want)
	}
	if response.Header.Get("X-Answer") != "yes" || response.Header.Get("X-Late") != "" {
		t.Errorf("header %v", response.Header)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
}

// TestLoopbackStream: what is flushed arrives while the handler goes on, and a
// client that leaves ends it.
func TestLoopbackStream(t *testing.T) {
	next, ended := make(chan string), make(chan error, 1)
	_, client := serveLoopback(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		for {
			select {
			case text := <-next:
				_, _ = io.WriteString(w, text)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				ended <- r.Context().Err()
				return
			}
		}
	})
	for name, leave := range map[string]func(body io.Closer, cancel func()){
		"closes the body":     func(body io.Closer, _ func()) { _ = body.Close() },
		"cancels its context": func(_ io.Closer, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api:6443/", nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{"one", "two"} {
				next <- text
				got := make([]byte, 3)
				if _, err := io.ReadFull(response.Body, got); err != nil || string(got) != text {
					t.Fatalf("read %q (%v), want %q", got, err, text)
				}
			}
			leave(response.Body, cancel)
			select {
			case err := <-ended:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("the handler ended with %v", err)
				}
			case <-time.After(testTimeout):
				t.Fatal("the handler goes on")
			}
			if _, err := response.Body.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("reading on: %v", err)
			}
		})
	}
}

// TestLoopbackWindow: a handler runs no more than a window ahead of a slow
// reader, and the reader gets everything.
func TestLoopbackWindow(t *testing.T) {
	const total = 20 * loopbackWindow
	written := make(chan int, 1000)
	_, client := serveLoopback(t, func(w http.ResponseWriter, _ *http.Request) {
		for sent := 0; sent < total; {
			n, err := w.Write([]byte(strings.Repeat("x", min(total-sent, loopbackWindow/2))))
			if err != nil {
				return
			}
			sent += n
			written <- sent
		}
		close(written)
	})
	response, err := client.Get("https://api:6443/")
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // for a handler that does not wait
	if got := len(written); got > 2 {
		t.Errorf("%d parts of half a window were taken before anybody read", got)
	}
	content, err := io.ReadAll(response.Body)
	if err != nil || len(content) != total {
		t.Errorf("%d bytes (%v), want %d", len(content), err, total)
	}
}

func TestLoopbackBreaks(t *testing.T) {
	handlers := map[string]http.HandlerFunc{
		"before it answers": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"half way": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			panic("broken")
		},
	}
	for name, handler := range handlers {
		t.Run(name, func(t *testing.T) {
			_, client := serveLoopback(t, handler)
			response, err := client.Get("https://api:6443/")
			if err == nil {
				_, err = io.ReadAll(response.Body)
			}
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestLoopbackLife: requests wait for the API server to come, and find nobody
// once it has gone.
func TestLoopbackLife(t *testing.T) {
	loop, client := serveLoopback(t, nil)
	early, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(early, http.MethodGet, "https://api:6443/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Do(request); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before there is a server: %v", err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := client.Get("https://api:6443/")
		answered <- err
	}()
	entered := make(chan struct{}, 2)
	loop.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			entered <- struct{}{}
			<-r.Context().Done()
		}
	}))
	if err := <-answered; err != nil {
		t.Errorf("a request that waited: %v", err)
	}
	long := make(chan error, 1)
	go func() {
		_, err := client.Get("https://api:6443/long")
		long <- err
	}()
	<-entered
	loop.stop()
	select {
	case <-long:
	case <-time.After(testTimeout):
		t.Error("a long request outlives the server")
	}
	if _, err := client.Get("https://api:6443/"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the server: %v", err)
	}
}

// TestLoopbackContext: nothing that a client's context carries reaches the
// server, which would take it for its own.
func TestLoopbackContext(t *testing.T) {
	type key struct{}
	_, client := serveLoopback(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Context().Value(key{}))
	})
	request, err := http.NewRequestWithContext(context.WithValue(t.Context(), key{}, "mine"), http.MethodGet, "https://api:6443/", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(response.Body)
	if err != nil || string(content) != "<nil>" {
		t.Errorf("the server sees %q (%v)", content, err)
	}
}
