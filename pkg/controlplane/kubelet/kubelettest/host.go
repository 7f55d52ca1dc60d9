// Package kubelettest is a host's API for tests of the kubelet shim: it has the
// pods it is given, and serves their subresources with what kubelets are made
// of.
package kubelettest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// What the pods below are called, and where they are.
const (
	HostNamespace = "acme-host"
	HostName      = "web-0-shop-0123456789"
	NodeAddress   = "10.1.2.3"
)

// Host is a host's API: it has the pods given, and serves their
// subresources with what kubelets are made of.
type Host struct {
	// Pods by host name.
	Pods map[string]*corev1.Pod
	// Requests for subresources, as they arrive; it must not be full.
	Requests chan *http.Request
}

func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, sub, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/"+HostNamespace+"/pods/"), "/")
	pod := h.Pods[name]
	if pod == nil {
		WriteStatus(w, http.StatusNotFound, fmt.Sprintf("pods %q not found", name))
		return
	}
	if sub == "" {
		WriteJSON(w, pod)
		return
	}
	h.Requests <- r.Clone(context.Background())
	query := r.URL.Query()
	isTrue := func(name string) bool { return query.Get(name) == "true" }
	streams := &remotecommand.Options{Stdin: isTrue("stdin"), Stdout: isTrue("stdout"), Stderr: isTrue("stderr"), TTY: isTrue("tty")}
	switch {
	case query.Get("container") == "forbidden":
		WriteStatus(w, http.StatusForbidden, fmt.Sprintf("pods %q is forbidden: quota", name))
	case query.Get("container") == "waiting":
		WriteStatus(w, http.StatusBadRequest, fmt.Sprintf("container \"waiting\" in pod %q is waiting to start: ContainerCreating (%s_%s, namespace %q)", name, name, HostNamespace, HostNamespace))
	case sub == "exec":
		remotecommand.ServeExec(w, r, program{}, name, "", query.Get("container"), query["command"], streams, time.Minute, time.Minute, remotecommand.SupportedStreamingProtocols)
	case sub == "attach":
		remotecommand.ServeAttach(w, r, program{}, name, "", query.Get("container"), streams, time.Minute, time.Minute, remotecommand.SupportedStreamingProtocols)
	case sub == "portforward":
		portforward.ServePortForward(w, r, echoPort{}, name, "", &portforward.V4Options{}, time.Minute, time.Minute, portforward.SupportedProtocols)
	case sub == "log":
		_, _ = io.WriteString(w, "first\n")
		w.(http.Flusher).Flush()
		if isTrue("follow") {
			<-r.Context().Done()
		}
	}
}

// program is what runs in the container: it tells its arguments, copies its
// input and exits with 3 when asked to fail.
type program struct{}

func (program) ExecInContainer(_ context.Context, _, _, container string, command []string, in io.Reader, out, errOut io.WriteCloser, tty bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	_, _ = fmt.Fprintf(out, "%s %q tty=%v\n", container, command, tty)
	if in != nil {
		_, _ = io.Copy(out, in)
	}
	if errOut != nil {
		_, _ = io.WriteString(errOut, "done\n")
	}
	if command[0] == "fail" {
		return utilexec.CodeExitError{Err: errors.New("exit 3"), Code: 3}
	}
	return nil
}

func (p program) AttachContainer(ctx context.Context, name, uid, container string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	return p.ExecInContainer(ctx, name, uid, container, []string{"attached"}, in, out, errOut, tty, resize, 0)
}

type echoPort struct{}

func (echoPort) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer func() { _ = stream.Close() }()
	_, _ = fmt.Fprintf(stream, "port %d\n", port)
	_, err := io.Copy(stream, stream)
	return err
}

// WriteJSON answers with an object.
func WriteJSON(w http.ResponseWriter, object any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(object)
}

// WriteStatus answers with a failure.
func WriteStatus(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: int32(code), Message: message,
		Reason: map[int]metav1.StatusReason{http.StatusNotFound: metav1.StatusReasonNotFound}[code],
	})
}

// VirtualPod is a pod of the tenant.
func VirtualPod(name string) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "u-1"},
		Spec: corev1.PodSpec{
			NodeName:       "node-a",
			Containers:     []corev1.Container{{Name: "main"}, {Name: "forbidden"}, {Name: "waiting"}},
			InitContainers: []corev1.Container{{Name: "init"}},
		},
	}
}

// HostPod is the host pod of VirtualPod("web-0").
func HostPod() *corev1.Pod {
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: HostNamespace, Name: HostName,
			Labels:      map[string]string{api.LabelTenant: "acme", api.LabelComponent: api.ComponentSynced},
			Annotations: map[string]string{api.AnnotationVirtualNamespace: "shop", api.AnnotationVirtualName: "web-0", api.AnnotationVirtualUID: "u-1"},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}, {Name: "injected"}}},
	}
}
