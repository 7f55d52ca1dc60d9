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
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/bench/separate"
)

// bench is the local host with Sublet on it.
type bench struct {
	options
	kubeconfig string
	// sandbox is the process in whose network the node lives.
	sandbox int
	config  *rest.Config
	host    *kubernetes.Clientset
	// tenants were made by the measurement that runs, kept ones stay for a later.
	tenants, kept []string
	// undo takes away what else the measurement made, the last first.
	undo []func(context.Context) error
	// churned is the tenant that was written to a lot, at rest.
	churned *churned
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

// tidy takes away what a measurement made, also when it failed or was interrupted.
func (b *bench) tidy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute+time.Duration(len(b.tenants))*10*time.Second)
	defer cancel()
	var errs []error
	for _, undo := range slices.Backward(b.undo) {
		errs = append(errs, undo(ctx))
	}
	b.undo = nil
	// So many at once that the machine has something to do, and so few that one sees
	// it go on.
	for names := range slices.Chunk(b.tenants, 10) {
		args := append([]string{"delete", "--yes", "--ignore-not-found"}, names...)
		if out, err := b.sublet(ctx, args...).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("delete the tenants %s: %w\n%s", strings.Join(names, " "), err, out))
		}
	}
	b.tenants = nil
	return errors.Join(errs...)
}

// close takes away everything.
func (b *bench) close(ctx context.Context) error {
	b.tenants, b.kept = append(b.tenants, b.kept...), nil
	return b.tidy(ctx)
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
	config *rest.Config
	client *kubernetes.Clientset
	pid    int
}

// create makes a tenant and notes that it has to be deleted.
func (b *bench) create(ctx context.Context, name string) error {
	if err := b.claim(ctx, name); err != nil {
		return err
	}
	if out, err := b.sublet(ctx, "create", name).CombinedOutput(); err != nil {
		return fmt.Errorf("sublet create %s: %w\n%s", name, err, out)
	}
	return nil
}

// claim notes that a tenant has to be deleted, after it has deleted one of that name
// that a benchmark has left that was killed: it is nobody else's.
func (b *bench) claim(ctx context.Context, name string) error {
	b.tenants = append(b.tenants, name)
	if out, err := b.sublet(ctx, "delete", "--yes", "--ignore-not-found", name).CombinedOutput(); err != nil {
		return fmt.Errorf("delete the tenant %s of an earlier run: %w\n%s", name, err, out)
	}
	return nil
}

// make makes a tenant and opens it.
func (b *bench) make(ctx context.Context, name string) (*tenant, error) {
	if err := b.create(ctx, name); err != nil {
		return nil, err
	}
	return b.open(ctx, name)
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
	pid := processOf(string(pod.UID), 0)
	if pid == 0 {
		return nil, fmt.Errorf("there is no process of the control plane of %s", name)
	}
	return &tenant{name: name, pod: pod, config: config, client: client, pid: pid}, nil
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

// processOf finds the process of a control plane by its pod's cgroup, another one
// than not; 0 if there is none yet.
func processOf(podUID string, not int) int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil || strings.TrimSpace(string(comm)) != "subletd" {
			continue
		}
		cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err == nil && strings.Contains(string(cgroup), podUID) {
			if pid, _ := strconv.Atoi(filepath.Base(dir)); pid != not {
				return pid
			}
		}
	}
	return 0
}

// separate prepares a control plane of separate processes, and sees to it that they
// end.
func (b *bench) separate(name string) (*separate.ControlPlane, error) {
	// Below the checkout, so that its disk is that of the local host.
	dir, err := os.MkdirTemp(filepath.Join(b.root, ".cache"), "bench-"+name+"-")
	if err != nil {
		return nil, err
	}
	b.undo = append(b.undo, func(context.Context) error { return os.RemoveAll(dir) })
	c, err := separate.New(separate.Options{Programs: filepath.Join(b.root, ".cache/bin/baseline"), Dir: dir})
	if err != nil {
		return nil, err
	}
	b.undo = append(b.undo, func(context.Context) error { return c.Stop() })
	return c, nil
}

// hostNamespace makes a plain namespace on the host to compare with.
func (b *bench) hostNamespace(ctx context.Context, name string) error {
	namespaces := b.host.CoreV1().Namespaces()
	if err := b.deleteNamespace(ctx, name); err != nil {
		return fmt.Errorf("delete the namespace %s of an earlier run: %w", name, err)
	}
	b.undo = append(b.undo, func(ctx context.Context) error { return b.deleteNamespace(ctx, name) })
	if _, err := namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	return awaitAccount(ctx, b.host, name)
}

// deleteNamespace waits until it is gone. One that is not there is fine.
func (b *bench) deleteNamespace(ctx context.Context, name string) error {
	namespaces := b.host.CoreV1().Namespaces()
	if err := namespaces.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return poll(ctx, 10*time.Millisecond, "the namespace "+name+" to be gone", func() (bool, error) {
		_, err := namespaces.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, err
	})
}

// awaitAccount waits for the ServiceAccount that a controller makes, and that pods
// need.
func awaitAccount(ctx context.Context, client kubernetes.Interface, ns string) error {
	return poll(ctx, 10*time.Millisecond, "the default account of "+ns, func() (bool, error) {
		_, err := client.CoreV1().ServiceAccounts(ns).Get(ctx, "default", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
}

// patience is for what takes seconds on a machine that has nothing else to do.
const patience = 3 * time.Minute

// poll asks until it is told that it is done, or of an error.
func poll(ctx context.Context, pause time.Duration, what string, done func() (bool, error)) error {
	deadline := time.Now().Add(patience)
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s", patience, what)
		}
		sleep(ctx, pause)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
