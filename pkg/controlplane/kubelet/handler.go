package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
)

// maxErrorBytes is how much of an error of the host is read.
const maxErrorBytes = 64 << 10

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for path, subresource := range map[string]subresource{
		"/exec/{namespace}/{pod}/{container}":         {"exec", execOptions},
		"/exec/{namespace}/{pod}/{uid}/{container}":   {"exec", execOptions},
		"/attach/{namespace}/{pod}/{container}":       {"attach", attachOptions},
		"/attach/{namespace}/{pod}/{uid}/{container}": {"attach", attachOptions},
		"/portForward/{namespace}/{pod}":              {"portforward", portForwardOptions},
		"/portForward/{namespace}/{pod}/{uid}":        {"portforward", portForwardOptions},
	} {
		mux.Handle("GET "+path, s.forward(subresource))
		mux.Handle("POST "+path, s.forward(subresource))
	}
	mux.Handle("GET /containerLogs/{namespace}/{pod}/{container}", s.forward(subresource{"log", logOptions}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("GET /pods", s.onNode(s.pods))
	mux.HandleFunc("GET /metrics", s.onNode(s.metrics))
	if s.options.Usage != nil {
		mux.HandleFunc("GET /stats/summary", s.onNode(s.summary))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, fmt.Sprintf("virtual nodes do not serve %s: they have exec, attach, port-forward, logs, /pods, /metrics, /stats/summary and /healthz", r.URL.Path), http.StatusNotFound)
	})
	return mux
}

// subresource of a host pod, and how the kubelet's parameters become its
// options.
type subresource struct {
	name    string
	options func(container string, query url.Values) (runtime.Object, error)
}

// The kubelet's API and the pod's subresources name the same things
// differently: input, output and error there, stdin, stdout and stderr here.

func execOptions(container string, query url.Values) (runtime.Object, error) {
	return &corev1.PodExecOptions{
		Container: container,
		Command:   query["command"],
		Stdin:     isSet(query, corev1.ExecStdinParam),
		Stdout:    isSet(query, corev1.ExecStdoutParam),
		Stderr:    isSet(query, corev1.ExecStderrParam),
		TTY:       isSet(query, corev1.ExecTTYParam),
	}, nil
}

func attachOptions(container string, query url.Values) (runtime.Object, error) {
	return &corev1.PodAttachOptions{
		Container: container,
		Stdin:     isSet(query, corev1.ExecStdinParam),
		Stdout:    isSet(query, corev1.ExecStdoutParam),
		Stderr:    isSet(query, corev1.ExecStderrParam),
		TTY:       isSet(query, corev1.ExecTTYParam),
	}, nil
}

func portForwardOptions(_ string, query url.Values) (runtime.Object, error) {
	options := &corev1.PodPortForwardOptions{}
	for _, list := range query[corev1.PortHeader] {
		for _, text := range strings.Split(list, ",") {
			port, err := strconv.ParseUint(text, 10, 16)
			if err != nil || port == 0 {
				return nil, fmt.Errorf("port %q is not a number from 1 to 65535", text)
			}
			options.Ports = append(options.Ports, int32(port))
		}
	}
	return options, nil
}

func logOptions(container string, query url.Values) (runtime.Object, error) {
	options := &corev1.PodLogOptions{
		Container:  container,
		Follow:     query.Get("follow") == "true",
		Previous:   query.Get("previous") == "true",
		Timestamps: query.Get("timestamps") == "true",
	}
	for name, number := range map[string]**int64{
		"sinceSeconds": &options.SinceSeconds,
		"tailLines":    &options.TailLines,
		"limitBytes":   &options.LimitBytes,
	} {
		text := query.Get(name)
		if text == "" {
			continue
		}
		value, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s %q is not a number", name, text)
		}
		*number = &value
	}
	if text := query.Get("sinceTime"); text != "" {
		since, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, fmt.Errorf("sinceTime %q is not a time (RFC 3339)", text)
		}
		options.SinceTime = &metav1.Time{Time: since}
	}
	// All is the default; hosts that do not know the parameter refuse it.
	if stream := query.Get("stream"); stream != "" && stream != corev1.LogStreamAll {
		options.Stream = &stream
	}
	return options, nil
}

func isSet(query url.Values, name string) bool { return query.Get(name) == "1" }

// forward proxies a stream, whatever protocol it is upgraded to, to the pod's
// subresource on the host.
func (s *Server) forward(sub subresource) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pod, err := s.resolve(r)
		if err != nil {
			writeError(w, r, err)
			return
		}
		options, err := sub.options(r.PathValue("container"), r.URL.Query())
		if err != nil {
			writeError(w, r, &requestError{http.StatusBadRequest, err.Error()})
			return
		}
		target := s.host.CoreV1().RESTClient().Get().Namespace(s.options.HostNamespace).
			Resource("pods").Name(pod.hostName).SubResource(sub.name).
			VersionedParams(options, scheme.ParameterCodec).URL()
		proxy := &httputil.ReverseProxy{
			Transport:     s.transport,
			FlushInterval: -1, // logs are followed line by line
			Rewrite: func(p *httputil.ProxyRequest) {
				p.Out.URL = target
				p.Out.Host = ""
				p.Out.Header = forwardedHeader(p.Out.Header)
				p.Out.Body = http.NoBody
				p.Out.ContentLength = 0
			},
			ModifyResponse: func(response *http.Response) error { return s.rewriteError(response, pod) },
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				if r.Context().Err() != nil {
					return // the client has gone, or we are stopping
				}
				writeError(w, r, fmt.Errorf("forwarding %s of pod %q to the host: %w", sub.name, pod.hostName, err))
			},
			ErrorLog: klog.NewStandardLogger("INFO"),
		}
		proxy.ServeHTTP(w, r)
	})
}

// forwardedHeader keeps what negotiates a stream. All else stays here: what a
// tenant's user sends must never be read as the syncer's on the host, least of
// all credentials and impersonation.
func forwardedHeader(in http.Header) http.Header {
	out := http.Header{}
	for _, key := range []string{
		"Connection", "Upgrade", "X-Stream-Protocol-Version",
		"Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Extensions",
	} {
		if values := in.Values(key); len(values) > 0 {
			out[key] = append([]string(nil), values...)
		}
	}
	// WebSocket clients may carry a bearer token as a protocol.
	for _, list := range in.Values("Sec-Websocket-Protocol") {
		for _, protocol := range strings.Split(list, ",") {
			protocol = strings.TrimSpace(protocol)
			if protocol != "" && !strings.HasPrefix(protocol, "base64url.bearer.authorization.k8s.io.") {
				out.Add("Sec-Websocket-Protocol", protocol)
			}
		}
	}
	if protocols := out["Sec-Websocket-Protocol"]; len(protocols) > 1 {
		out.Set("Sec-Websocket-Protocol", strings.Join(protocols, ", "))
	}
	return out
}

// rewriteError turns an error of the host's API into what a kubelet says: plain
// text, in the tenant's names.
func (s *Server) rewriteError(response *http.Response, pod *pod) error {
	if response.StatusCode < http.StatusBadRequest {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxErrorBytes))
	_ = response.Body.Close()
	if err != nil {
		return fmt.Errorf("reading the host's answer: %w", err)
	}
	text := strings.TrimSpace(string(body))
	var status metav1.Status
	if json.Unmarshal(body, &status) == nil && status.Kind == "Status" && status.Message != "" {
		text = status.Message
	}
	text = pod.inVirtualNames(text, s.options.HostNamespace)
	if response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden {
		// It was we who were refused: the tenant's user is not to look for a
		// right of his own.
		response.StatusCode = http.StatusInternalServerError
		text = "the host cluster refused the request: " + text
	}
	if text == "" {
		text = http.StatusText(response.StatusCode)
	}
	response.Status = ""
	response.Header = http.Header{
		"Content-Type":   {"text/plain; charset=utf-8"},
		"Content-Length": {strconv.Itoa(len(text))},
	}
	response.ContentLength = int64(len(text))
	response.TransferEncoding = nil
	response.Body = io.NopCloser(strings.NewReader(text))
	return nil
}

// requestError is for the one who asked; any other error is ours.
type requestError struct {
	code int
	text string
}

func (e *requestError) Error() string { return e.text }

func writeError(w http.ResponseWriter, r *http.Request, err error) {
	var asked *requestError
	if errors.As(err, &asked) {
		http.Error(w, asked.text, asked.code)
		return
	}
	klog.FromContext(r.Context()).Error(err, "Serving the kubelet's API", "path", r.URL.Path)
	http.Error(w, "the host cluster cannot be reached at the moment: try again", http.StatusInternalServerError)
}
