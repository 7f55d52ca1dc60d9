package skew_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/cli"
	"github.com/sublet-dev/sublet/pkg/controlplane"
	"github.com/sublet-dev/sublet/pkg/manager"
	"github.com/sublet-dev/sublet/pkg/pki"
	"github.com/sublet-dev/sublet/syncer"
)

const (
	tenantName = "acme"
	nodeName   = "node-1"
)

// planes are a host with Sublet on it, and a tenant with its syncer.
type planes struct {
	host, virtual                kubernetes.Interface
	hostVersion, virtualVersion  *version.Version
	hostConfig                   *rest.Config
	objects                      client.Client
	hostKubeconfig, tenantConfig string // files
	// What the syncer has written.
	hostWrites, virtualWrites *writes
}

// writes counts requests that are no reads, by method and path.
type writes struct {
	mu    sync.Mutex
	count map[string]int
}

func (w *writes) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodGet {
			w.mu.Lock()
			w.count[r.Method+" "+r.URL.Path]++
			w.mu.Unlock()
		}
		return next.RoundTrip(r)
	})
}

// all returns what was counted so far.
func (w *writes) all() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.count)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// startPlanes installs Sublet on a host and makes a tenant, as people do; the
// tenant's pod, which needs a node, runs here.
func startPlanes(t *testing.T) *planes {
	t.Helper()
	p := &planes{hostKubeconfig: startHost(t)}
	var err error
	if p.hostConfig, err = clientcmd.BuildConfigFromFlags("", p.hostKubeconfig); err != nil {
		t.Fatal(err)
	}
	p.host, p.hostVersion = connect(t, p.hostConfig)
	scheme := runtime.NewScheme()
	if err := api.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if p.objects, err = client.New(p.hostConfig, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	p.install(t)
	p.prepareNode(t)
	p.startTenant(t)
	return p
}

func connect(t *testing.T, config *rest.Config) (kubernetes.Interface, *version.Version) {
	t.Helper()
	config = rest.CopyConfig(config)
	config.QPS = -1
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	major, _, _ := strings.Cut(info.Minor, "+")
	return c, version.MustParse(info.Major + "." + major)
}

// install installs the chart and runs the manager with the rights that it has
// from there.
func (p *planes) install(t *testing.T) {
	t.Helper()
	var output bytes.Buffer
	err := cli.Run(t.Context(), cli.Process{
		Args:  []string{"sublet", "install", "--wait=false", "--kubeconfig", p.hostKubeconfig},
		Stdin: strings.NewReader(""), Stdout: &output, Stderr: &output,
	})
	if err != nil {
		t.Fatalf("sublet install: %v\n%s", err, &output)
	}
	config := asServiceAccount(p.hostConfig, api.SystemNamespace, api.ManagerName)
	run(t, "manager", func(ctx context.Context) error {
		return manager.Run(ctx, manager.Options{Config: config, Image: "example.com/subletd:test"})
	})
}

func asServiceAccount(config *rest.Config, namespace, name string) *rest.Config {
	config = rest.CopyConfig(config)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":" + name,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
	return config
}

// run runs something that must not end before the test.
func run(t *testing.T, name string, do func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- do(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(patience):
			t.Errorf("%s did not stop", name)
		}
	})
}

func (p *planes) prepareNode(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}}, Provisioner: "example.com/fast"}
	if _, err := p.host.StorageV1().StorageClasses().Create(ctx, class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	nodes := p.host.CoreV1().Nodes()
	if _, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	many := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("64Gi"), corev1.ResourcePods: resource.MustParse("500"),
	}
	eventually(t, "the node has a status", func(ctx context.Context) error {
		node, err := nodes.Get(ctx, nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Status = corev1.NodeStatus{
			Capacity: many, Allocatable: many,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}},
			// Known from 1.36 on.
			DeclaredFeatures: []string{"RestartAllContainersOnContainerExits"},
		}
		_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
		return err
	})
}

// startTenant makes a tenant, and does what its pod would with what the manager
// has prepared for it.
func (p *planes) startTenant(t *testing.T) {
	t.Helper()
	wanted, ok := os.LookupEnv(tenantVariable)
	if !ok {
		wanted = "1.34"
	}
	tenant := &api.Tenant{
		ObjectMeta: metav1.ObjectMeta{Name: tenantName},
		Spec: api.TenantSpec{
			Type:           api.VirtualCluster,
			VirtualCluster: &api.VirtualClusterSpec{Version: wanted},
			Limits:         &api.Limits{Services: []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort}},
		},
	}
	if err := p.objects.Create(t.Context(), tenant); err != nil {
		t.Fatal(err)
	}
	set := waitFor(t, "the control plane's StatefulSet", func(ctx context.Context) (metav1.Object, error) {
		set, err := p.host.AppsV1().StatefulSets(tenantName).Get(ctx, api.ControlPlaneName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			// The tenant says what is missing.
			err = errors.Join(err, p.objects.Get(ctx, client.ObjectKeyFromObject(tenant), tenant), fmt.Errorf("%+v", tenant.Status.Conditions))
		}
		return set, err
	}, nil)
	configMap, err := p.host.CoreV1().ConfigMaps(set.GetNamespace()).Get(t.Context(), api.ControlPlaneName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := p.host.CoreV1().Secrets(set.GetNamespace()).Get(t.Context(), api.PKISecretName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var config api.ControlPlaneConfig
	if err := yaml.UnmarshalStrict([]byte(configMap.Data[api.ConfigKey]), &config); err != nil {
		t.Fatal(err)
	}
	bundle, err := pki.BundleFromData(secret.Data)
	if err != nil {
		t.Fatal(err)
	}

	p.hostWrites, p.virtualWrites = &writes{count: map[string]int{}}, &writes{count: map[string]int{}}
	asSyncer := asServiceAccount(p.hostConfig, config.HostNamespace, api.ControlPlaneName)
	asSyncer.Wrap(p.hostWrites.wrap)
	virtual := &rest.Config{}
	syncer, err := syncer.New(syncer.Options{Config: config, Virtual: virtual, Host: asSyncer})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	plane, err := controlplane.Start(ctx, controlplane.Options{
		Name: tenantName, DataDir: t.TempDir(), PKI: bundle,
		ServiceCIDRs: config.ServiceCIDRs, KubernetesServiceIP: net.ParseIP(config.APIServiceIP),
		EmulatedVersion: config.Version, PodSecurity: string(config.PodSecurity), ServiceAllocator: syncer,
	})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := plane.Wait(); err != nil {
			t.Errorf("tenant: %v", err)
		}
	})
	*virtual = *plane.Config()
	virtual.Wrap(p.virtualWrites.wrap)
	run(t, "syncer", syncer.Run)
	p.virtual, p.virtualVersion = connect(t, plane.Config())
	content, err := plane.Kubeconfig("")
	if err != nil {
		t.Fatal(err)
	}
	p.tenantConfig = t.TempDir() + "/kubeconfig"
	if err := os.WriteFile(p.tenantConfig, content, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the syncer is ready", func(context.Context) error { return syncer.Ready() })
	t.Logf("the host is %s, the tenant %s", p.hostVersion, p.virtualVersion)
}

// kubectl runs kubectl, of the newest version, in the tenant.
func (p *planes) kubectl(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), kubectlVariable+"=1", "KUBECONFIG="+p.tenantConfig, "HOME="+t.TempDir())
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// runNode does what scheduler, kubelet and the provisioner of volumes do, until
// the test ends.
func (p *planes) runNode(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	watch := func(plural string, example runtime.Object, step func(context.Context, any) error) {
		do := func(object any) {
			if err := step(ctx, object); err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				t.Errorf("node: %s: %v", plural, err)
			}
		}
		_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
			ListerWatcher: cache.NewListWatchFromClient(p.host.CoreV1().RESTClient(), plural, tenantName, fields.Everything()),
			ObjectType:    example,
			Handler:       cache.ResourceEventHandlerFuncs{AddFunc: do, UpdateFunc: func(_, object any) { do(object) }},
		})
		running.Go(func() { informer.RunWithContext(ctx) })
	}
	watch("pods", &corev1.Pod{}, p.podStep)
	watch("persistentvolumeclaims", &corev1.PersistentVolumeClaim{}, p.claimStep)
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func (p *planes) podStep(ctx context.Context, object any) error {
	pod := object.(*corev1.Pod).DeepCopy()
	pods := p.host.CoreV1().Pods(pod.Namespace)
	switch {
	case pod.Labels[api.LabelComponent] != api.ComponentSynced:
		return nil // The control plane's own runs here.
	case pod.DeletionTimestamp != nil:
		return pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64), Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	case pod.Spec.NodeName == "":
		return pods.Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, UID: pod.UID}, Target: corev1.ObjectReference{Kind: "Node", Name: nodeName}}, metav1.CreateOptions{})
	case pod.Status.Phase == corev1.PodPending:
		setRunning(pod)
		_, err := pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		return err
	}
	return nil
}

// setRunning gives a pod the status of one that runs, with all that the newest
// kubelet says; an older host keeps less.
func setRunning(pod *corev1.Pod) {
	now := metav1.Now()
	status := &pod.Status
	status.Phase, status.StartTime, status.ObservedGeneration = corev1.PodRunning, &now, pod.Generation
	status.HostIP, status.PodIP = "192.0.2.1", "10.0.0.7"
	status.HostIPs, status.PodIPs = []corev1.HostIP{{IP: status.HostIP}}, []corev1.PodIP{{IP: status.PodIP}}
	status.AllocatedResources = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
	status.Resources = &corev1.ResourceRequirements{Requests: status.AllocatedResources}
	status.Conditions = append(status.Conditions, corev1.PodCondition{
		Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now, ObservedGeneration: pod.Generation,
	})
	for _, c := range pod.Spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Ready: true, Started: ptr.To(true), Resources: &c.Resources,
			StopSignal: ptr.To(corev1.SIGTERM),
			State:      corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
}

// claimStep makes the volume that a claim asks for; the host's controllers bind
// the two.
func (p *planes) claimStep(ctx context.Context, object any) error {
	claim := object.(*corev1.PersistentVolumeClaim)
	if claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil {
		return nil
	}
	_, err := p.host.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "volume-of-" + string(claim.UID)},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes: claim.Spec.AccessModes, Capacity: claim.Spec.Resources.Requests, StorageClassName: *claim.Spec.StorageClassName,
			ClaimRef:               &corev1.ObjectReference{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/nowhere"}},
		},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// eventually waits until check returns nil.
func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		now := check(ctx)
		if ctx.Err() == nil || last == nil {
			last = now // and not that time is up
		}
		return now == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v (%v)", what, last, err)
	}
}

// waitFor waits until get gives an object that is as wanted.
func waitFor[T metav1.Object](t *testing.T, what string, get func(context.Context) (T, error), ok func(T) bool) T {
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
