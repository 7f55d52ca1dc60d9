package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kubernetes/test/utils/image"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

const (
	// patience is how long a tenant and its nodes may take to be there, on a
	// machine that does other things as well.
	patience = 5 * time.Minute
	// nodeCount is how many nodes the local host has for the suite.
	nodeCount = 2
	// tidy is how long it may take to delete a tenant.
	tidy = 3 * time.Minute
	// presence is the namespace in the tenant of the pods that bring nodes into it.
	presence = "sublet-conformance"
	// runtimeClass is the host's that the tenant may use.
	runtimeClass = "sublet-conformance"
	// handler is the one that the suite's classes name; the local host has it.
	handler = "test-handler"
)

// target is the cluster under test.
type target struct {
	// kubeconfig is the path of one that holds in the network of a node: no
	// port-forward that could break, and node ports and pods are within reach.
	kubeconfig string
	// network is the file of that network.
	network string
	// client is the host's.
	client kubernetes.Interface
	// close removes what was made for the run.
	close func() error
}

// closeAlso adds something to do at the end, before what was there already.
func (t *target) closeAlso(do func() error) {
	before := t.close
	t.close = func() error { return errors.Join(do(), before()) }
}

// prepare brings up what the options want to test.
func (o options) prepare(ctx context.Context, out io.Writer) (*target, error) {
	for _, program := range o.programs() {
		if _, err := os.Stat(program); err != nil {
			return nil, fmt.Errorf("%w: make conformance builds it", err)
		}
	}
	if err := o.prepareHost(ctx, out); err != nil {
		return nil, err
	}
	t := &target{kubeconfig: o.hostKubeconfig(), close: func() error { return nil }}
	host, err := clientcmd.BuildConfigFromFlags("", o.hostKubeconfig())
	if err != nil {
		return nil, err
	}
	host.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	if t.client, err = kubernetes.NewForConfig(host); err != nil {
		return nil, err
	}
	if o.tenant == "" {
		nodes, err := t.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list the host's nodes: %w", err)
		}
		if len(nodes.Items) == 0 {
			return nil, errors.New("the host has no node: see .cache/bin/host status")
		}
		t.network, err = o.networkOf(ctx, nodes.Items[0].Name)
		return t, err
	}
	if err := o.openTenant(ctx, out, host, t); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// prepareHost brings the local host up, with the suite's images on its nodes and
// Sublet if there will be a tenant.
func (o options) prepareHost(ctx context.Context, out io.Writer) error {
	steps := []struct {
		wanted  bool
		program string
		args    []string
	}{
		{!o.ready, ".cache/bin/host", []string{"up", "--nodes", strconv.Itoa(nodeCount)}},
		{true, ".cache/bin/host", []string{"load", "conformance"}},
		// Conformance asks for no metrics; tests of autoscaling do.
		{o.labels != conformanceLabel, ".cache/bin/host", []string{"addon", "metrics-server"}},
		{!o.ready && o.tenant != "", "bin/sublet", []string{"install"}},
	}
	for _, step := range steps {
		if !step.wanted {
			continue
		}
		if err := o.command(ctx, out, step.program, step.args...).Run(); err != nil {
			return fmt.Errorf("%s %s: %w", filepath.Base(step.program), strings.Join(step.args, " "), err)
		}
	}
	return nil
}

// programs are those that are needed, as make builds them.
func (o options) programs() []string {
	programs := []string{".cache/bin/host", ".cache/bin/kubectl", ".cache/bin/ginkgo", ".cache/bin/e2e.test"}
	if o.tenant != "" {
		programs = append(programs, "bin/sublet")
	}
	for i := range programs {
		programs[i] = o.path(programs[i])
	}
	return programs
}

func (o options) hostKubeconfig() string { return o.path(".host/kubeconfig") }

// openTenant makes the tenant, unless it is there, and waits until it can be used
// and shows all nodes.
func (o options) openTenant(ctx context.Context, out io.Writer, host *rest.Config, t *target) error {
	scheme := runtime.NewScheme()
	if err := api.AddToScheme(scheme); err != nil {
		return err
	}
	objects, err := client.New(host, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %v", patience))
	defer cancel()
	nodes, err := t.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the host's nodes: %w", err)
	}
	if err := addRuntimeClass(ctx, t); err != nil {
		return err
	}
	tenant := newTenant(o.tenant, nodes.Items)
	err = objects.Create(ctx, tenant)
	switch {
	case apierrors.IsAlreadyExists(err):
		fmt.Fprintf(out, "using the tenant %s, which is there already; it stays\n", o.tenant)
	case err != nil:
		return fmt.Errorf("make the tenant %s: %w", o.tenant, err)
	case o.keep:
		fmt.Fprintf(out, "made the tenant %s; it stays\n", o.tenant)
	default:
		fmt.Fprintf(out, "made the tenant %s\n", o.tenant)
		t.closeAlso(func() error { return o.deleteTenant(out) })
	}
	err = await(ctx, func() error {
		if err := objects.Get(ctx, client.ObjectKeyFromObject(tenant), tenant); err != nil {
			return err
		}
		if tenant.Status.Phase != api.PhaseReady {
			return fmt.Errorf("the tenant %s is %s", o.tenant, tenant.Status.Phase)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("wait for the tenant: %w", err)
	}
	service, err := t.client.CoreV1().Services(tenant.Status.Namespace).Get(ctx, api.ControlPlaneName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("find the tenant's API: %w", err)
	}
	if err := o.writeKubeconfig(ctx, t, service.Spec.ClusterIP); err != nil {
		return err
	}
	// The fence closes the tenant's API to nodes, but for the one that runs it.
	pod, err := t.client.CoreV1().Pods(tenant.Status.Namespace).Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("find the tenant's API: %w", err)
	}
	if t.network, err = o.networkOf(ctx, pod.Spec.NodeName); err != nil {
		return err
	}
	if spec := tenant.Spec.VirtualCluster; spec == nil || spec.Nodes == nil {
		if err := o.startOnNodes(ctx, t); err != nil {
			return err
		}
	}
	return o.awaitNodes(ctx, out, t)
}

// addRuntimeClass gives the host a class with the handler that the suite's own
// classes name, for the tenant's pods to be given.
func addRuntimeClass(ctx context.Context, t *target) error {
	classes := t.client.NodeV1().RuntimeClasses()
	_, err := classes.Create(ctx, &nodev1.RuntimeClass{
		ObjectMeta: metav1.ObjectMeta{Name: runtimeClass},
		Handler:    handler,
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("add a runtime class: %w", err)
	}
	t.closeAlso(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), tidy)
		defer cancel()
		if err := classes.Delete(ctx, runtimeClass, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete the runtime class: %w", err)
		}
		return nil
	})
	return nil
}

// writeKubeconfig writes one that reaches the tenant's API straight by its
// Service: a port-forward would end with the tenant's pod, and carry all traffic.
func (o options) writeKubeconfig(ctx context.Context, t *target, address string) error {
	cmd := o.command(ctx, nil, "bin/sublet", "connect", o.tenant, "--print", "--server", "https://"+address)
	content, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("sublet connect %s: %w", o.tenant, err)
	}
	t.kubeconfig = filepath.Join(o.dir(o.target()), "kubeconfig")
	if err := os.MkdirAll(filepath.Dir(t.kubeconfig), 0o755); err != nil {
		return fmt.Errorf("make the directory for results: %w", err)
	}
	if err := os.WriteFile(t.kubeconfig, content, 0o600); err != nil {
		return fmt.Errorf("write the tenant's kubeconfig: %w", err)
	}
	return nil
}

// networkOf finds the file of a node's network, by a process that lives in it. To
// enter that alone leaves programs the machine's files, and their processes ours.
func (o options) networkOf(ctx context.Context, node string) (string, error) {
	link, err := o.command(ctx, nil, ".cache/bin/host", "exec", "--node", node, "--", "readlink", "/proc/self/ns/net").Output()
	if err != nil {
		return "", fmt.Errorf("find the network of node %s: %w", node, err)
	}
	networks, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return "", err
	}
	// The oldest process, which is the node's first, lives as long as the node.
	slices.SortFunc(networks, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	for _, network := range networks {
		// Processes come and go meanwhile.
		if found, err := os.Readlink(network); err == nil && found == strings.TrimSpace(string(link)) {
			return network, nil
		}
	}
	return "", fmt.Errorf("no process lives in the network of node %s", node)
}

// startOnNodes brings all nodes of the host into a tenant that shows only those
// which its pods run on: it starts a pod on each.
func (o options) startOnNodes(ctx context.Context, t *target) error {
	hostNodes, err := t.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the host's nodes: %w", err)
	}
	manifest, err := json.Marshal(presencePods(int32(len(hostNodes.Items))))
	if err != nil {
		return err
	}
	apply := o.inNode(ctx, t, o.path(".cache/bin/kubectl"), "--kubeconfig", t.kubeconfig, "apply", "--server-side", "-f", "-")
	apply.Stdin = bytes.NewReader(manifest)
	if text, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("start a pod on each node: %w\n%s", err, text)
	}
	return nil
}

// awaitNodes waits until the tenant shows all nodes of the host.
func (o options) awaitNodes(ctx context.Context, out io.Writer, t *target) error {
	hostNodes, err := t.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the host's nodes: %w", err)
	}
	err = await(ctx, func() error {
		list := o.inNode(ctx, t, o.path(".cache/bin/kubectl"), "--kubeconfig", t.kubeconfig, "get", "nodes", "--output=name")
		names, err := list.Output()
		if err != nil {
			return fmt.Errorf("list the tenant's nodes: %w", err)
		}
		if shown := len(lines(string(names))); shown < len(hostNodes.Items) {
			return fmt.Errorf("the tenant shows %d nodes of %d", shown, len(hostNodes.Items))
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "the tenant shows %d nodes\n", len(hostNodes.Items))
	return nil
}

// presencePods is a pod for each node, as a list for kubectl.
func presencePods(nodes int32) *corev1.List {
	labels := map[string]string{"app": presence}
	namespace := &corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: presence},
	}
	deployment := &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: presence, Name: presence},
		Spec: appsv1.DeploymentSpec{
			Replicas: &nodes,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: ptr.To[int64](0),
					Containers:                    []corev1.Container{{Name: "pause", Image: image.GetE2EImage(image.Pause)}},
					TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
						MaxSkew:           1,
						TopologyKey:       corev1.LabelHostname,
						WhenUnsatisfiable: corev1.DoNotSchedule,
						LabelSelector:     &metav1.LabelSelector{MatchLabels: labels},
					}},
				},
			},
		},
	}
	return &corev1.List{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "List"},
		Items:    []runtime.RawExtension{{Object: namespace}, {Object: deployment}},
	}
}

// deleteTenant goes on when the run was interrupted.
func (o options) deleteTenant(out io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), tidy)
	defer cancel()
	if err := o.command(ctx, out, "bin/sublet", "delete", o.tenant, "--yes", "--ignore-not-found").Run(); err != nil {
		return fmt.Errorf("sublet delete %s: %w", o.tenant, err)
	}
	return nil
}

// command prepares a program of this checkout to run against the host.
func (o options) command(ctx context.Context, out io.Writer, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, o.path(program), args...)
	cmd.Dir = o.root
	cmd.Env = append(environment(), "KUBECONFIG="+o.hostKubeconfig(), "PATH="+o.path(".cache/bin")+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = out, out
	if out == nil {
		cmd.Stdout, cmd.Stderr = nil, nil
	}
	return cmd
}

// inNode prepares a program to run in the target's network.
func (o options) inNode(ctx context.Context, t *target, program string, args ...string) *exec.Cmd {
	argv := append([]string{"--net=" + t.network, "--", program}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", argv...)
	cmd.Env = append(environment(), "PATH="+o.path(".cache/bin")+":"+os.Getenv("PATH"))
	return cmd
}

// environment is ours without what would lead programs elsewhere: the cluster of
// the caller, and a proxy for the internet.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains([]string{"kubeconfig", "http_proxy", "https_proxy", "all_proxy"}, strings.ToLower(name))
	})
}

// await tries until it works, and returns the last error when it never does.
func await(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// newTenant is one that may do all that the suite tries, as a cluster of one's
// own would allow, and that schedules by its own rules, which the suite tests. Its
// pods may reach the nodes, on which they look for node ports.
func newTenant(name string, nodes []corev1.Node) *api.Tenant {
	network := &api.NetworkLimits{}
	for _, node := range nodes {
		for _, address := range node.Status.Addresses {
			if ip, err := netip.ParseAddr(address.Address); err == nil && address.Type == corev1.NodeInternalIP {
				network.AllowedCIDRs = append(network.AllowedCIDRs, netip.PrefixFrom(ip, ip.BitLen()).String())
			}
		}
	}
	return &api.Tenant{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: api.TenantSpec{
			Type:           api.VirtualCluster,
			VirtualCluster: &api.VirtualClusterSpec{Nodes: &api.NodesSpec{}, Scheduler: true},
			Limits: &api.Limits{
				PodSecurity: api.PodSecurityPrivileged,
				Services: []corev1.ServiceType{
					corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort,
					corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName,
				},
				Network:        network,
				RuntimeClasses: []string{runtimeClass},
			},
		},
	}
}
