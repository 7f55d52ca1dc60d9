//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// bench is the local host with Sublet on it.
type bench struct {
	options
	kubeconfig string
	// sandbox is the process in whose network the node lives.
	sandbox int
	config  *rest.Config
	host    *kubernetes.Clientset
	tenants []string
}

func newBench(ctx context.Context, o options) (*bench, error) {
	root, err := filepath.Abs(o.root)
	if err != nil {
		return nil, err
	}
	o.root = root
	b := &bench{options: o, kubeconfig: filepath.Join(root, ".host/kubeconfig")}
	pid, err := os.ReadFile(filepath.Join(root, ".host/init.pid"))
	if err != nil {
		return nil, errors.New("the local host does not run, and measuring needs its node: make up")
	}
	if b.sandbox, err = strconv.Atoi(strings.TrimSpace(string(pid))); err != nil {
		return nil, fmt.Errorf("find the local host's process: %w", err)
	}
	if b.config, err = clientcmd.BuildConfigFromFlags("", b.kubeconfig); err != nil {
		return nil, err
	}
	// Both the host's API and a tenant's are spoken to from the node itself, so
	// that the way to neither is longer.
	b.config.Dial = b.dial("")
	b.config.QPS = -1
	b.config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	if b.host, err = kubernetes.NewForConfig(b.config); err != nil {
		return nil, err
	}
	if out, err := b.sublet(ctx, "install").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("sublet install: %w\n%s", err, out)
	}
	return b, nil
}

// close deletes the tenants that were made, even when interrupted.
func (b *bench) close() {
	if len(b.tenants) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	args := append([]string{"delete", "--yes", "--ignore-not-found"}, b.tenants...)
	if out, err := b.sublet(ctx, args...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "delete the tenants: %v\n%s", err, out)
	}
}

func (b *bench) sublet(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(b.root, "bin/sublet"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+b.kubeconfig,
		"PATH="+filepath.Join(b.root, ".cache/bin")+":"+os.Getenv("PATH"))
	return cmd
}

// dial connects from the node's network; to address, or where it is asked to.
func (b *bench) dial(address string) func(ctx context.Context, network, target string) (net.Conn, error) {
	return func(ctx context.Context, network, target string) (net.Conn, error) {
		if address != "" {
			target = address
		}
		type answer struct {
			conn net.Conn
			err  error
		}
		answers := make(chan answer, 1)
		go func() {
			// Never unlocked: the thread ends with the goroutine, so that nothing
			// else runs in the node's network.
			runtime.LockOSThread()
			file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", b.sandbox))
			if err != nil {
				answers <- answer{nil, err}
				return
			}
			defer file.Close()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				answers <- answer{nil, fmt.Errorf("enter the node's network: %w", err)}
				return
			}
			conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, target)
			answers <- answer{conn, err}
		}()
		a := <-answers
		return a.conn, a.err
	}
}

// tenant is a virtual cluster to measure.
type tenant struct {
	name   string
	pod    *corev1.Pod
	client *kubernetes.Clientset
	pid    int
}

// create makes a tenant and notes that it has to be deleted.
func (b *bench) create(ctx context.Context, name string) error {
	b.tenants = append(b.tenants, name)
	if out, err := b.sublet(ctx, "create", name).CombinedOutput(); err != nil {
		return fmt.Errorf("sublet create %s: %w\n%s", name, err, out)
	}
	return nil
}

// open finds the pod, the process and the API of a tenant.
func (b *bench) open(ctx context.Context, name string) (*tenant, error) {
	pod, err := b.host.CoreV1().Pods(name).Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	for pod.Status.PodIP == "" {
		if pod, err = b.host.CoreV1().Pods(name).Get(ctx, api.ControlPlanePod, metav1.GetOptions{}); err != nil {
			return nil, err
		}
		time.Sleep(50 * time.Millisecond)
	}
	config, err := b.tenantConfig(ctx, name, pod.Status.PodIP)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	pid := processOf(string(pod.UID))
	if pid == 0 {
		return nil, fmt.Errorf("there is no process of the control plane of %s", name)
	}
	return &tenant{name: name, pod: pod, client: client, pid: pid}, nil
}

func (b *bench) tenantConfig(ctx context.Context, name, ip string) (*rest.Config, error) {
	secret, err := b.host.CoreV1().Secrets(name).Get(ctx, api.KubeconfigSecretPrefix+string(api.RoleAdmin), metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data[api.KubeconfigSecretKey])
	if err != nil {
		return nil, err
	}
	config.Dial = b.dial(net.JoinHostPort(ip, strconv.Itoa(api.APIServerPort)))
	config.QPS = -1
	config.Proxy = b.config.Proxy
	return config, nil
}

// processOf finds the process of a control plane by its pod's cgroup; 0 if there
// is none yet.
func processOf(podUID string) int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil || strings.TrimSpace(string(comm)) != "subletd" {
			continue
		}
		cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err == nil && strings.Contains(string(cgroup), podUID) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid
		}
	}
	return 0
}
