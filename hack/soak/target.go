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
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// target is a tenant on the local host, and both APIs.
type target struct {
	options
	kubeconfig string
	// sandbox is the process in whose network the node lives.
	sandbox int
	made    bool

	host, virtual               *kubernetes.Clientset
	hostObjects, virtualObjects dynamic.Interface
	namespace                   string
}

// requestTimeout is for one request: a killed tenant does not answer.
const requestTimeout = 15 * time.Second

func open(ctx context.Context, o options) (*target, error) {
	t := &target{options: o, kubeconfig: filepath.Join(o.root, ".host/kubeconfig")}
	pid, err := os.ReadFile(filepath.Join(o.root, ".host/init.pid"))
	if err != nil {
		return nil, errors.New("the local host does not run: make up")
	}
	if t.sandbox, err = strconv.Atoi(strings.TrimSpace(string(pid))); err != nil {
		return nil, fmt.Errorf("find the local host's process: %w", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", t.kubeconfig)
	if err != nil {
		return nil, err
	}
	if t.host, t.hostObjects, err = t.clients(config, ""); err != nil {
		return nil, err
	}
	if out, err := t.sublet(ctx, "install").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("sublet install: %w\n%s", err, out)
	}
	if err := t.openTenant(ctx); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *target) openTenant(ctx context.Context) error {
	_, err := t.host.CoreV1().Namespaces().Get(ctx, t.tenant, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		t.made = true
		if out, err := t.sublet(ctx, "create", t.tenant).CombinedOutput(); err != nil {
			return fmt.Errorf("sublet create %s: %w\n%s", t.tenant, err, out)
		}
	} else if err != nil {
		return err
	}
	t.namespace = t.tenant
	secret, err := t.host.CoreV1().Secrets(t.namespace).Get(ctx, api.KubeconfigSecretPrefix+string(api.RoleAdmin), metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("find the tenant's kubeconfig: %w", err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data[api.KubeconfigSecretKey])
	if err != nil {
		return err
	}
	service, err := t.host.CoreV1().Services(t.namespace).Get(ctx, api.ControlPlaneName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("find the tenant's address: %w", err)
	}
	// By the Service, as the tenant's own pods: the pod may be another one later.
	t.virtual, t.virtualObjects, err = t.clients(config, net.JoinHostPort(service.Spec.ClusterIP, strconv.Itoa(int(service.Spec.Ports[0].Port))))
	return err
}

// clients speaks from the node's network; to address, or where config says.
func (t *target) clients(config *rest.Config, address string) (*kubernetes.Clientset, dynamic.Interface, error) {
	config = rest.CopyConfig(config)
	config.Dial = t.dial(address)
	config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	config.QPS = -1
	config.Timeout = requestTimeout
	config.WarningHandler = rest.NoWarnings{} // What is random is odd at times.
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	objects, err := dynamic.NewForConfig(config)
	return typed, objects, err
}

func (t *target) dial(address string) func(ctx context.Context, network, to string) (net.Conn, error) {
	return func(ctx context.Context, network, to string) (net.Conn, error) {
		if address != "" {
			to = address
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
			file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", t.sandbox))
			if err != nil {
				answers <- answer{nil, err}
				return
			}
			defer file.Close()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				answers <- answer{nil, fmt.Errorf("enter the node's network: %w", err)}
				return
			}
			conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, to)
			answers <- answer{conn, err}
		}()
		a := <-answers
		return a.conn, a.err
	}
}

func (t *target) sublet(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(t.root, "bin/sublet"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+t.kubeconfig, "PATH="+filepath.Join(t.root, ".cache/bin")+":"+os.Getenv("PATH"))
	return cmd
}

// restartPatience is how long a killed process may take to start again by
// itself.
const restartPatience = 20 * time.Second

// restarted sees to it that a killed process does start again: after a few kills
// the kubelet takes its time, which a new pod does not need. killed is the
// container that it was, which may look alive for a while.
func (t *target) restarted(ctx context.Context, killed string) error {
	deadline := time.Now().Add(restartPatience)
	for time.Now().Before(deadline) {
		pause(ctx, time.Second)
		pod, err := t.host.CoreV1().Pods(t.namespace).Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
		if now := container(pod); err == nil && now != "" && now != killed {
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	return t.host.CoreV1().Pods(t.namespace).Delete(ctx, api.ControlPlanePod, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
}

// container is the one that runs in the control plane's pod, if any.
func container(pod *corev1.Pod) string {
	if len(pod.Status.ContainerStatuses) == 0 || pod.Status.ContainerStatuses[0].State.Running == nil {
		return ""
	}
	return pod.Status.ContainerStatuses[0].ContainerID
}

// kill ends the tenant's process without warning; it starts again by itself. It
// returns the container that the process was.
func (t *target) kill(ctx context.Context) (killed string, err error) {
	pod, err := t.host.CoreV1().Pods(t.namespace).Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil || strings.TrimSpace(string(comm)) != "subletd" {
			continue
		}
		cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil || !strings.Contains(string(cgroup), string(pod.UID)) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return "", err
		}
		return container(pod), syscall.Kill(pid, syscall.SIGKILL)
	}
	return "", errors.New("it does not run")
}

// translation is the tenant as the syncer knows it.
func (t *target) translation(ctx context.Context) (translate.Tenant, error) {
	configMap, err := t.host.CoreV1().ConfigMaps(t.namespace).Get(ctx, api.ControlPlaneName, metav1.GetOptions{})
	if err != nil {
		return translate.Tenant{}, fmt.Errorf("find what the manager tells the syncer: %w", err)
	}
	var config api.ControlPlaneConfig
	if err := yaml.UnmarshalStrict([]byte(configMap.Data[api.ConfigKey]), &config); err != nil {
		return translate.Tenant{}, err
	}
	set, err := t.host.AppsV1().StatefulSets(t.namespace).Get(ctx, api.ControlPlaneName, metav1.GetOptions{})
	if err != nil {
		return translate.Tenant{}, err
	}
	return translate.NewTenant(config, &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: set.Name, UID: set.UID}), nil
}

// close deletes the tenant if it was made here, even when interrupted.
func (t *target) close() {
	if !t.made || t.keep {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if out, err := t.sublet(ctx, "delete", t.tenant, "--yes", "--ignore-not-found").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "delete the tenant %s: %v\n%s", t.tenant, err, out)
	}
}
