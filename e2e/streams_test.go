//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
)

// TestStreams: what kubectl does through the kubelet, through the tenant's API:
// logs of now, of before and as they come, attach, port-forward.
func TestStreams(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ns := tn.newNamespace(t, "streams")

	pod := newPod("restarter")
	pod.Spec.Containers[0].Command = []string{"sh", "-c", `if [ -e /again/x ]; then echo second; while :; do sleep 1; echo tick; done; fi; touch /again/x; echo first; exit 1`}
	pod.Spec.Containers[0].Args = nil
	pod.Spec.Volumes = []corev1.Volume{{Name: "again", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "again", MountPath: "/again"}}
	echo := newPod("echo")
	echo.Spec.Containers[0].Command = []string{"sh", "-c", `while read line; do echo "you said $line"; done; sleep 3600`}
	echo.Spec.Containers[0].Args = nil
	echo.Spec.Containers[0].Stdin = true
	tn.start(t, ns, echo)
	tn.start(t, ns, newServer("web"))
	tn.start(t, ns, pod)

	eventually(t, 30*time.Second, "the container has restarted", func() error {
		body, err := tn.CoreV1().Pods(ns).GetLogs("restarter", &corev1.PodLogOptions{Previous: true}).DoRaw(t.Context())
		if err == nil && string(body) != "first\n" {
			err = fmt.Errorf("the log of before is %q", body)
		}
		return err
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := tn.CoreV1().Pods(ns).GetLogs("restarter", &corev1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	ticks, lines := 0, bufio.NewScanner(stream)
	for ticks < 3 && lines.Scan() {
		if lines.Text() == "tick" {
			ticks++
		}
	}
	if ticks < 3 {
		t.Errorf("following the log ended after %d lines to wait for: %v", ticks, lines.Err())
	}

	request := tn.CoreV1().RESTClient().Post().Resource("pods").Namespace(ns).Name("echo").SubResource("attach").
		VersionedParams(&corev1.PodAttachOptions{Stdin: true, Stdout: true}, scheme.ParameterCodec)
	// Both protocols, as old and new clients use them.
	for name, executor := range map[string]func() (remotecommand.Executor, error){
		"SPDY": func() (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(tn.config, "POST", request.URL())
		},
		"WebSocket": func() (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(tn.config, "GET", request.URL().String())
		},
	} {
		attached, err := executor()
		if err != nil {
			t.Fatal(err)
		}
		stdin, typing := io.Pipe()
		out := &bytes.Buffer{}
		limit, stop := context.WithTimeout(t.Context(), 10*time.Second)
		heard := make(chan struct{})
		go func() {
			_, _ = fmt.Fprintf(typing, "hello by %s\n", name)
			select {
			case <-heard:
			case <-limit.Done():
			}
			stop()
			_ = typing.Close()
		}()
		_ = attached.StreamWithContext(limit, remotecommand.StreamOptions{Stdin: stdin, Stdout: &notifier{to: out, want: "you said hello by " + name, heard: heard}})
		if !strings.Contains(out.String(), "you said hello by "+name) {
			t.Errorf("attach by %s: got %q", name, out)
		}
	}

	address, err := forward(tn.config, ns, "web", 8080)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "a port-forward through the tenant's API answers", func() error {
		client := &http.Client{Timeout: 5 * time.Second}
		response, err := client.Get("http://" + address + "/hostname")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err == nil && string(body) != "web" {
			err = fmt.Errorf("answered %q", body)
		}
		return err
	})
}

// notifier closes heard once a text was written.
type notifier struct {
	to    *bytes.Buffer
	want  string
	heard chan struct{}
}

func (n *notifier) Write(p []byte) (int, error) {
	n.to.Write(p)
	if strings.Contains(n.to.String(), n.want) {
		select {
		case <-n.heard:
		default:
			close(n.heard)
		}
	}
	return len(p), nil
}
