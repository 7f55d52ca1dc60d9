// Package syncer_test joins two real control planes, host and tenant, in one
// process with the syncer between them. There is no node: what scheduler and
// kubelet would do, the tests do themselves.
package syncer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"
	"k8s.io/klog/v2"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/controlplane"
	"github.com/sublet-dev/sublet/pkg/controlplane/metrics"
	"github.com/sublet-dev/sublet/pkg/pki"
	"github.com/sublet-dev/sublet/syncer"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

const (
	hostNamespace = "acme-host"
	nodeName      = "node-1"
	serviceCIDR   = "10.96.0.0/16"
	patience      = 30 * time.Second
)

func TestMain(m *testing.M) {
	if os.Getenv("SUBLET_TEST_LOG") == "" {
		klog.SetLogger(logr.Discard()) // control planes have a lot to say
	}
	os.Exit(m.Run())
}

// planes are a host and a tenant with a syncer between them.
type planes struct {
	host, virtual kubernetes.Interface
	hostConfig    *rest.Config
	config        api.ControlPlaneConfig
	// How the syncer reaches both sides.
	asSyncer, asAdmin *rest.Config
	syncer            *syncer.Syncer
	stopSyncer        func()
	// What the syncer has written.
	hostWrites, virtualWrites *writes
	// hostScheduler tells that a scheduler runs on the host.
	hostScheduler bool
}

// planesOptions are what a test wants otherwise.
type planesOptions struct {
	// hostScheduler runs a scheduler on the host.
	hostScheduler bool
	// hostAPIs are served by the host besides its own.
	hostAPIs []controlplane.LocalAPI
	// interval is how often the tenant looks whether the host has metrics.
	interval time.Duration
	// config changes what the manager says.
	config func(*api.ControlPlaneConfig)
	// toHost stands between the syncer and the host's API.
	toHost func(next http.RoundTripper) http.RoundTripper
}

// writes counts requests that are no reads, by method and path without names
// of objects.
type writes struct {
	mu    sync.Mutex
	count map[string]int
}

func (w *writes) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodGet {
			w.mu.Lock()
			w.count[r.Method+" "+resourceOf(r.URL.Path)]++
			w.mu.Unlock()
		}
		return next.RoundTrip(r)
	})
}

// reset returns what was counted since the last time.
func (w *writes) reset() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.count
	w.count = map[string]int{}
	return was
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// resourceOf is pods/status of /api/v1/namespaces/x/pods/y/status.
func resourceOf(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	parts = parts[2:]
	if parts[0] != "v1" && len(parts) > 1 && strings.HasPrefix(parts[0], "v1") {
		parts = parts[1:]
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		parts = parts[2:]
	}
	if len(parts) > 2 {
		return parts[0] + "/" + parts[2]
	}
	return parts[0]
}

// startPlane starts a control plane that ends with the test.
func startPlane(t *testing.T, o controlplane.Options) *controlplane.ControlPlane {
	t.Helper()
	bundle, err := pki.NewBundle(o.Name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o.DataDir, o.PKI, o.ServiceCIDRs = t.TempDir(), bundle, []string{serviceCIDR}
	ctx, cancel := context.WithCancel(context.Background())
	plane, err := controlplane.Start(ctx, o)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := plane.Wait(); err != nil {
			t.Errorf("control plane %s: %v", o.Name, err)
		}
	})
	return plane
}

// startPlanes starts a host, prepared as the manager would, a tenant and its
// syncer, which has no more rights on the host than the chart gives it.
func startPlanes(t *testing.T) *planes {
	t.Helper()
	return startPlanesWith(t, planesOptions{})
}

func startPlanesWith(t *testing.T, o planesOptions) *planes {
	t.Helper()
	if testing.Short() {
		t.Skip("starts two real control planes")
	}
	hostPlane := startPlane(t, controlplane.Options{Name: "host", Profile: controlplane.ProfileHost, Scheduler: o.hostScheduler, LocalAPIs: o.hostAPIs})
	p := &planes{hostConfig: hostPlane.Config(), host: client(t, hostPlane.Config()), hostScheduler: o.hostScheduler}
	p.prepareHost(t)

	config := api.ControlPlaneConfig{
		Tenant:        "acme",
		HostNamespace: hostNamespace,
		ServiceCIDRs:  []string{serviceCIDR},
		APIServiceIP:  "10.96.0.11",
		DNSServiceIP:  "10.96.0.12",
		PodSecurity:   api.PodSecurityPrivileged,
		Services:      []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort},
		Hosts:         []string{"*.example.com"},

		ServiceAccountAnnotations: []string{identity},
	}
	if o.config != nil {
		o.config(&config)
	}
	asSyncer := rest.CopyConfig(p.hostConfig)
	asSyncer.Impersonate.UserName = "system:serviceaccount:" + hostNamespace + ":" + api.ControlPlaneName
	p.hostWrites, p.virtualWrites = &writes{count: map[string]int{}}, &writes{count: map[string]int{}}
	asSyncer.Wrap(p.hostWrites.wrap)
	if o.toHost != nil {
		asSyncer.Wrap(o.toHost)
	}
	virtual := &rest.Config{}
	var err error
	if p.syncer, err = syncer.New(syncer.Options{Config: config, Virtual: virtual, Host: asSyncer}); err != nil {
		t.Fatal(err)
	}
	served, err := metrics.New(metrics.Options{
		HostNamespace: hostNamespace,
		Host:          asSyncer,
		HostPod:       p.syncer.HostPod,
		Virtual:       func() (*rest.Config, error) { return virtual, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	tenant := startPlane(t, controlplane.Options{
		LocalAPIs: []controlplane.LocalAPI{{
			GroupVersion: metrics.GroupVersion(),
			Resources:    metrics.Resources(),
			Handler:      served.Handler(),
			Available:    served.Available,
			Interval:     o.interval,
			Readers:      metrics.Readers(),
		}},
		Name:                config.Tenant,
		KubernetesServiceIP: net.ParseIP(config.APIServiceIP),
		ServiceAllocator:    p.syncer,
		Scheduler:           config.Scheduler,
	})
	*virtual = *rest.CopyConfig(tenant.Config())
	virtual.Wrap(p.virtualWrites.wrap)
	p.virtual = client(t, tenant.Config())
	p.config, p.asSyncer, p.asAdmin = config, asSyncer, virtual
	p.stopSyncer = run(t, p.syncer.Run)
	eventually(t, "the syncer is ready", func(context.Context) error { return p.syncer.Ready() })
	return p
}

// run runs a syncer until the test ends, or stop is called.
func run(t *testing.T, syncer func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- syncer(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("syncer: %v", err)
			}
		case <-time.After(patience):
			t.Error("the syncer did not stop")
		}
	})
	t.Cleanup(stop)
	return stop
}

func client(t *testing.T, config *rest.Config) kubernetes.Interface {
	t.Helper()
	config = rest.CopyConfig(config)
	config.QPS = -1
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (p *planes) prepareHost(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	core, rbac := p.host.CoreV1(), p.host.RbacV1()
	create := metav1.CreateOptions{}
	must(core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: hostNamespace}}, create))
	for _, name := range []string{api.ControlPlaneName, api.WorkloadServiceAccountName} {
		must(core.ServiceAccounts(hostNamespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, create))
	}
	must(p.host.AppsV1().StatefulSets(hostNamespace).Create(ctx, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: api.ControlPlaneName},
		Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
			},
		},
	}, create))
	namespaced, cluster := kinds.Rules()
	subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: hostNamespace, Name: api.ControlPlaneName}}
	role := func(name string) rbacv1.RoleRef {
		return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
	}
	must(rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: api.SyncerClusterRole}, Rules: namespaced}, create))
	must(rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: api.SyncerReadClusterRole}, Rules: cluster}, create))
	must(rbac.RoleBindings(hostNamespace).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "syncer"}, Subjects: subjects, RoleRef: role(api.SyncerClusterRole)}, create))
	must(rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "syncer"}, Subjects: subjects, RoleRef: role(api.SyncerReadClusterRole)}, create))
	must(p.host.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}, Provisioner: "example.com/fast"}, create))
	p.addNode(t, nodeName, nil)
}

// addNode adds a node to the host that looks healthy for some time.
func (p *planes) addNode(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	core := p.host.CoreV1()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"example.com/secret": "x", corev1.LabelHostname: name}}}
	maps.Copy(node.Labels, labels)
	if _, err := core.Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	many := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("64Gi"), corev1.ResourcePods: resource.MustParse("500"),
	}
	eventually(t, "the node has a status", func(ctx context.Context) error {
		node, err := core.Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Status = corev1.NodeStatus{
			Capacity: many, Allocatable: many,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}},
		}
		_, err = core.Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
		return err
	})
}

// runNode does what scheduler and kubelet do, until the test ends: binds pods,
// says that they run, and removes those that are deleted.
func (p *planes) runNode(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var steps sync.WaitGroup
	turn := make(chan struct{}, 8)
	step := func(object any) {
		steps.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			pod := object.(*corev1.Pod)
			err := retry.OnError(nodeRetry, overloaded, func() error { return p.nodeStep(ctx, pod) })
			if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				t.Errorf("node: pod %s: %v", pod.Name, err)
			}
		})
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(p.host.CoreV1().RESTClient(), "pods", hostNamespace, fields.Everything()),
		ObjectType:    &corev1.Pod{},
		Handler:       cache.ResourceEventHandlerFuncs{AddFunc: step, UpdateFunc: func(_, pod any) { step(pod) }},
	})
	var running sync.WaitGroup
	running.Go(func() { informer.RunWithContext(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		steps.Wait()
	})
}

// nodeRetry and overloaded: the node, as a kubelet, and who writes thousands of
// objects try again when the API server has no time.
var nodeRetry = wait.Backoff{Duration: time.Second, Factor: 1, Steps: 30}

func overloaded(err error) bool {
	return apierrors.IsInternalError(err) || apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsTooManyRequests(err)
}

func (p *planes) nodeStep(ctx context.Context, pod *corev1.Pod) error {
	pods := p.host.CoreV1().Pods(pod.Namespace)
	switch {
	case pod.DeletionTimestamp != nil:
		return pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64), Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	case pod.Spec.NodeName == "" && p.hostScheduler:
		return nil
	case pod.Spec.NodeName == "" && len(pod.Spec.SchedulingGates) == 0:
		return pods.Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, UID: pod.UID}, Target: corev1.ObjectReference{Kind: "Node", Name: nodeName}}, metav1.CreateOptions{})
	case pod.Spec.NodeName != "" && pod.Status.Phase == corev1.PodPending:
		pod = pod.DeepCopy()
		now := metav1.Now()
		pod.Status.Phase, pod.Status.StartTime = corev1.PodRunning, &now
		pod.Status.HostIP, pod.Status.PodIP = "192.0.2.1", "10.0.0.7"
		pod.Status.HostIPs, pod.Status.PodIPs = []corev1.HostIP{{IP: "192.0.2.1"}}, []corev1.PodIP{{IP: "10.0.0.7"}}
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now})
		for _, c := range pod.Spec.Containers {
			started := true
			pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
				Name: c.Name, Image: c.Image, Ready: true, Started: &started, Resources: &c.Resources, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
			})
		}
		_, err := pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		return err
	}
	return nil
}

// eventually waits until check returns nil.
func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	within(t, patience, what, check)
}

// within is for what takes its time.
func within(t *testing.T, timeout time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, timeout, true, func(ctx context.Context) (bool, error) {
		err := check(ctx)
		if err == nil || ctx.Err() == nil || last == nil {
			last = err // not that the time was over
		}
		return err == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v (%v)", what, last, err)
	}
}

// waitFor waits until get gives an object that is as wanted.
func waitFor[T any](t *testing.T, what string, get func(context.Context) (T, error), ok func(T) bool) T {
	t.Helper()
	var found T
	eventually(t, what, func(ctx context.Context) error {
		object, err := get(ctx)
		if err != nil {
			return err
		}
		found = object
		if ok == nil || ok(object) {
			return nil
		}
		data, _ := json.Marshal(object)
		return fmt.Errorf("not as wanted: %s", data)
	})
	return found
}

// gone waits until get finds nothing.
func gone[T any](t *testing.T, what string, get func(context.Context) (T, error)) {
	t.Helper()
	eventually(t, what+" is gone", func(ctx context.Context) error {
		_, err := get(ctx)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("still there (%v)", err)
	})
}

func jsonOf(object any) ([]byte, error) { return json.Marshal(object) }

// hears waits until an event about a virtual object says something, in the
// tenant's names.
func (p *planes) hears(t *testing.T, kind, name, text string) {
	t.Helper()
	eventually(t, fmt.Sprintf("an event about %s %q says %q", kind, name, text), func(ctx context.Context) error {
		events, err := p.virtual.CoreV1().Events(space).List(ctx, metav1.ListOptions{
			FieldSelector: fields.SelectorFromSet(fields.Set{"involvedObject.kind": kind, "involvedObject.name": name}).String(),
		})
		if err != nil {
			return err
		}
		var said []string
		for _, event := range events.Items {
			if strings.Contains(event.Message, translate.HostName(space, name)) {
				t.Fatalf("an event speaks of the host: %q", event.Message)
			}
			if strings.Contains(event.Message, text) {
				return nil
			}
			said = append(said, event.Message)
		}
		return fmt.Errorf("said was %q", said)
	})
}

// quiet fails the test if the syncer writes anything although nothing changes.
func (p *planes) quiet(t *testing.T) {
	t.Helper()
	time.Sleep(500 * time.Millisecond) // what is on its way
	p.hostWrites.reset()
	p.virtualWrites.reset()
	time.Sleep(time.Second)
	if host, virtual := p.hostWrites.reset(), p.virtualWrites.reset(); len(host)+len(virtual) > 0 {
		t.Errorf("nothing changes, and the syncer writes on the host %v, in the tenant %v", host, virtual)
	}
}

func patch(data string) ([]byte, types.PatchType) { return []byte(data), types.StrategicMergePatchType }
