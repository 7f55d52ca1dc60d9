package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/charts"
	"github.com/sublet-dev/sublet/pkg/controlplane"
	"github.com/sublet-dev/sublet/pkg/manager"
	"github.com/sublet-dev/sublet/pkg/pki"
	"github.com/sublet-dev/sublet/pkg/version"
)

const (
	patience   = 30 * time.Second
	testImage  = "example.com/subletd:test"
	otherImage = "example.com/subletd:other"
)

// managedHost is a host cluster with the chart installed and the manager
// running in this process, with no more rights than the chart gives it. Nothing
// runs pods: the tests say how they are.
type managedHost struct {
	t      *testing.T
	config *rest.Config
	// network is config over a connection, for whoever is somebody else.
	network *rest.Config
	client  client.Client
	scheme  *runtime.Scheme
	stop    func()
	// planes are where the APIs of virtual clusters are, by the address of their
	// Service.
	planes sync.Map
	// charts is the manager's folder of charts.
	charts string
	// wrap, if set, comes between the manager that is started next and the host.
	wrap func(http.RoundTripper) http.RoundTripper
}

func TestMain(m *testing.M) {
	if os.Getenv("SUBLET_TEST_LOG") == "" {
		klog.SetLogger(logr.Discard()) // control planes have a lot to say
	}
	os.Exit(m.Run())
}

func startManagedHost(t *testing.T) *managedHost {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a real control plane")
	}
	ctx, cancel := context.WithCancel(context.Background())
	bundle, err := pki.NewBundle("host", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	plane, err := controlplane.Start(ctx, controlplane.Options{
		Name:         "host",
		DataDir:      filepath.Join(t.TempDir(), "data"),
		Profile:      controlplane.ProfileHost,
		PKI:          bundle,
		ServiceCIDRs: []string{"10.96.0.0/16"},
	})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := plane.Wait(); err != nil {
			t.Errorf("stopping the host: %v", err)
		}
	})
	h := &managedHost{t: t, config: plane.Config(), network: plane.NetworkConfig(), scheme: runtime.NewScheme(), charts: t.TempDir()}
	if err := errors.Join(clientgoscheme.AddToScheme(h.scheme), api.AddToScheme(h.scheme)); err != nil {
		t.Fatal(err)
	}
	if h.client, err = client.New(h.config, client.Options{Scheme: h.scheme}); err != nil {
		t.Fatal(err)
	}
	h.installChart()
	h.startManager()
	t.Cleanup(func() { h.stop() })
	return h
}

// installChart applies what helm would.
func (h *managedHost) installChart() {
	h.t.Helper()
	h.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: api.SystemNamespace}})
	content, err := charts.Sublet()
	if err != nil {
		h.t.Fatal(err)
	}
	var files []*loader.BufferedFile
	err = fs.WalkDir(content, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(content, path)
		files = append(files, &loader.BufferedFile{Name: path, Data: data})
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	loaded, err := loader.LoadFiles(files)
	if err != nil {
		h.t.Fatal(err)
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion.Version = version.Kubernetes
	// As discovery says it on a real host.
	capabilities.APIVersions = append(capabilities.APIVersions, "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy")
	values, err := chartutil.ToRenderValues(loaded, customResourceValues(),
		chartutil.ReleaseOptions{Name: "sublet", Namespace: api.SystemNamespace, IsInstall: true}, capabilities)
	if err != nil {
		h.t.Fatal(err)
	}
	rendered, err := engine.Render(loaded, values)
	if err != nil {
		h.t.Fatal(err)
	}
	for name, manifests := range rendered {
		// The manager runs here, not in a pod.
		if strings.HasSuffix(name, "NOTES.txt") || strings.HasSuffix(name, "deployment.yaml") {
			continue
		}
		reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(manifests)))
		for {
			document, err := reader.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				h.t.Fatal(err)
			}
			object := &unstructured.Unstructured{}
			if err := yaml.Unmarshal(document, &object.Object); err != nil {
				h.t.Fatalf("%s: %v", name, err)
			}
			if len(object.Object) > 0 {
				h.create(object)
			}
		}
	}
	// The definitions must be served, and the policies in force, before a test
	// relies on them.
	h.eventually("tenants are served", func(ctx context.Context) error {
		return h.client.List(ctx, &api.TenantList{})
	})
	admin := h.as("somebody@example.com", "system:masters")
	h.eventually("the admission policies are in force", func(ctx context.Context) error {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "probe", Labels: map[string]string{api.LabelTenant: "probe"}}}
		err := admin.Create(ctx, namespace, client.DryRunAll)
		if apierrors.IsForbidden(err) {
			return nil
		}
		return fmt.Errorf("not refused: %v", err)
	})
}

// startManager runs the manager as its ServiceAccount.
func (h *managedHost) startManager() {
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), testr.NewWithInterface(quietAfter{h.t}, testr.Options{})))
	config := rest.AnonymousClientConfig(h.network)
	config.BearerToken = h.token(api.SystemNamespace, api.ManagerName)
	if os.Getenv("SUBLET_TEST_LOG") != "" {
		config.Wrap(func(next http.RoundTripper) http.RoundTripper { return tracing{next} })
	}
	if h.wrap != nil {
		config.Wrap(h.wrap)
	}
	done := make(chan error, 1)
	go func() {
		done <- manager.Run(ctx, manager.Options{
			Config: config, Image: testImage, LeaderElection: true, DialTenant: h.dialTenant, ChartDirectory: h.charts,
		})
	}()
	h.stop = func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("the manager: %v", err)
		}
		h.stop = func() {}
	}
}

// token is one of a ServiceAccount.
func (h *managedHost) token(namespace, name string) string {
	h.t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	request := &authenticationv1.TokenRequest{}
	if err := h.client.SubResource("token").Create(h.t.Context(), account, request); err != nil {
		h.t.Fatal(err)
	}
	return request.Status.Token
}

// dialTenant connects to a virtual cluster that a test has started, by the address
// of its Service.
func (h *managedHost) dialTenant(ctx context.Context, network, address string) (net.Conn, error) {
	at, there := h.planes.Load(address)
	if !there {
		return nil, fmt.Errorf("dial %s: no such host", address)
	}
	return (&net.Dialer{}).DialContext(ctx, network, at.(string))
}

// quietAfter logs only failures: a manager logs a lot.
type quietAfter struct{ t *testing.T }

func (q quietAfter) Helper() { q.t.Helper() }
func (q quietAfter) Log(args ...any) {
	text := fmt.Sprint(args...)
	if os.Getenv("SUBLET_TEST_LOG") != "" {
		fmt.Fprintln(os.Stderr, text)
	}
}

// tracing tells of each request of the manager, and how long it took.
type tracing struct{ next http.RoundTripper }

func (tr tracing) RoundTrip(request *http.Request) (*http.Response, error) {
	begin := time.Now()
	response, err := tr.next.RoundTrip(request)
	if !request.URL.Query().Has("watch") {
		fmt.Fprintf(os.Stderr, "TRACE %s %6.1fms %s %s\n", begin.Format("05.000"), float64(time.Since(begin).Microseconds())/1000, request.Method, request.URL.Path)
	}
	return response, err
}

// as is a client of somebody else.
func (h *managedHost) as(user string, groups ...string) client.Client {
	h.t.Helper()
	config := rest.CopyConfig(h.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:authenticated")}
	c, err := client.New(config, client.Options{Scheme: h.scheme})
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *managedHost) create(object client.Object) {
	h.t.Helper()
	if err := h.client.Create(h.t.Context(), object); err != nil {
		h.t.Fatalf("create %T %s: %v", object, object.GetName(), err)
	}
}

func (h *managedHost) eventually(what string, check func(ctx context.Context) error) {
	h.t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(h.t.Context(), 10*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := check(ctx)
		if err == nil || ctx.Err() == nil {
			last = err
		}
		return err == nil, nil
	})
	if err != nil {
		h.t.Fatalf("%s: %v: %v", what, err, last)
	}
}

func (h *managedHost) tenant(name string) *api.Tenant {
	h.t.Helper()
	tenant := &api.Tenant{}
	if err := h.client.Get(h.t.Context(), client.ObjectKey{Name: name}, tenant); err != nil {
		h.t.Fatal(err)
	}
	return tenant
}

// change edits a tenant's spec.
func (h *managedHost) change(name string, edit func(*api.TenantSpec)) {
	h.t.Helper()
	tenant := h.tenant(name)
	before := tenant.DeepCopy()
	edit(&tenant.Spec)
	if err := h.client.Patch(h.t.Context(), tenant, client.MergeFrom(before)); err != nil {
		h.t.Fatal(err)
	}
}

// waitFor waits until a condition of a tenant has a reason.
func (h *managedHost) waitFor(name, kind, reason string) metav1.Condition {
	h.t.Helper()
	var found metav1.Condition
	h.eventually(fmt.Sprintf("condition %s of tenant %q with reason %s", kind, name, reason), func(ctx context.Context) error {
		tenant := &api.Tenant{}
		if err := h.client.Get(ctx, client.ObjectKey{Name: name}, tenant); err != nil {
			return err
		}
		c := meta.FindStatusCondition(tenant.Status.Conditions, kind)
		if c == nil || c.Reason != reason {
			return fmt.Errorf("conditions are %+v", tenant.Status.Conditions)
		}
		found = *c
		return nil
	})
	return found
}

func (h *managedHost) waitForPhase(name string, phase api.Phase) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("phase %s of tenant %q", phase, name), func(ctx context.Context) error {
		tenant := &api.Tenant{}
		if err := h.client.Get(ctx, client.ObjectKey{Name: name}, tenant); err != nil {
			return err
		}
		if tenant.Status.Phase != phase {
			return fmt.Errorf("phase is %s, conditions are %+v", tenant.Status.Phase, tenant.Status.Conditions)
		}
		return nil
	})
}

// pod waits for the control plane's pod.
func (h *managedHost) pod(namespace string) *corev1.Pod {
	h.t.Helper()
	pod := &corev1.Pod{}
	h.eventually("the control plane's pod in "+namespace, func(ctx context.Context) error {
		return h.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: api.ControlPlanePod}, pod)
	})
	return pod
}

// play plays the kubelet.
func (h *managedHost) play(namespace string, edit func(*corev1.PodStatus)) {
	h.t.Helper()
	h.eventually("the status of the control plane's pod", func(ctx context.Context) error {
		pod := h.pod(namespace)
		edit(&pod.Status)
		return h.client.Status().Update(ctx, pod)
	})
}

func running(status *corev1.PodStatus) {
	status.Phase = corev1.PodRunning
	status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "control-plane", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}}
}

func waiting(reason, message string) func(*corev1.PodStatus) {
	return func(status *corev1.PodStatus) {
		status.Phase = corev1.PodPending
		status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}}
		status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: "control-plane", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
		}}
	}
}

func virtualCluster(name string) *api.Tenant {
	return &api.Tenant{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: api.TenantSpec{
			Type:           api.VirtualCluster,
			VirtualCluster: &api.VirtualClusterSpec{Storage: &api.StorageSpec{Type: api.StorageEmptyDir}},
		},
	}
}

func namespaceTenant(name string) *api.Tenant {
	return &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: api.TenantSpec{Type: api.Namespace}}
}

// gone waits until a tenant and its namespace are gone and says how long that
// took.
func (h *managedHost) gone(tenant *api.Tenant) time.Duration {
	h.t.Helper()
	begin := time.Now()
	if err := h.client.Delete(h.t.Context(), tenant); err != nil {
		h.t.Fatal(err)
	}
	h.eventually("the namespace of "+tenant.Name+" is gone", func(ctx context.Context) error {
		if err := h.client.Get(ctx, client.ObjectKey{Name: tenant.Name}, &corev1.Namespace{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %v", err)
		}
		return nil
	})
	took := time.Since(begin)
	h.eventually("tenant "+tenant.Name+" is gone", func(ctx context.Context) error {
		left := &api.Tenant{}
		if err := h.client.Get(ctx, client.ObjectKeyFromObject(tenant), left); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %v %+v", err, left.Status)
		}
		return nil
	})
	for _, list := range []client.ObjectList{&rbacv1.ClusterRoleList{}, &rbacv1.ClusterRoleBindingList{}} {
		if err := h.client.List(h.t.Context(), list, client.MatchingLabels{api.LabelTenant: tenant.Name}); err != nil {
			h.t.Fatal(err)
		}
		if n := meta.LenList(list); n > 0 {
			h.t.Errorf("%d objects of %T are left over", n, list)
		}
	}
	return took
}

func TestManager(t *testing.T) {
	ctrl.SetLogger(logr.Discard())
	h := startManagedHost(t)
	// The order matters only where a test says so: each has tenants of its own.
	t.Run("VirtualCluster", func(t *testing.T) { h.t = t; testVirtualCluster(h) })
	t.Run("PodTroubles", func(t *testing.T) { h.t = t; testPodTroubles(h) })
	t.Run("Storage", func(t *testing.T) { h.t = t; testStorage(h) })
	t.Run("NamespaceNames", func(t *testing.T) { h.t = t; testNamespaceNames(h) })
	t.Run("Limits", func(t *testing.T) { h.t = t; testLimits(h) })
	t.Run("NamespaceTenant", func(t *testing.T) { h.t = t; testNamespaceTenant(h) })
	t.Run("PodLimits", func(t *testing.T) { h.t = t; testPodLimits(h) })
	t.Run("Network", func(t *testing.T) { h.t = t; testNetwork(h) })
	t.Run("Hosts", func(t *testing.T) { h.t = t; testHosts(h) })
	t.Run("HostClaims", func(t *testing.T) { h.t = t; testHostClaims(h) })
	t.Run("CustomResources", func(t *testing.T) { h.t = t; testCustomResources(h) })
	t.Run("Policies", func(t *testing.T) { h.t = t; testPolicies(h) })
	t.Run("Deletion", func(t *testing.T) { h.t = t; testDeletion(h) })
	t.Run("Definitions", func(t *testing.T) { h.t = t; testDefinitions(h) })
	t.Run("Restart", func(t *testing.T) { h.t = t; testRestart(h) })
	h.t = t
}

func testVirtualCluster(h *managedHost) {
	t := h.t
	tenant := virtualCluster("acme")
	tenant.Spec.Members = []api.Member{{Kind: "User", Name: "jane", Role: api.RoleEdit}}
	begin := time.Now()
	h.create(tenant)
	pod := h.pod("acme")
	t.Logf("tenant created to pod created: %s", time.Since(begin).Round(time.Millisecond))
	h.waitFor("acme", api.ConditionControlPlaneReady, "Starting")
	h.waitForPhase("acme", api.PhaseProvisioning)

	if got := pod.Spec.Containers[0].Image; got != testImage {
		t.Errorf("image is %q", got)
	}
	var config api.ControlPlaneConfig
	configMap := &corev1.ConfigMap{}
	if err := h.client.Get(t.Context(), client.ObjectKey{Namespace: "acme", Name: api.ControlPlaneName}, configMap); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict([]byte(configMap.Data[api.ConfigKey]), &config); err != nil {
		t.Fatal(err)
	}
	service, dns, host := &corev1.Service{}, &corev1.Service{}, &corev1.Service{}
	if err := errors.Join(
		h.client.Get(t.Context(), client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: "kubernetes"}, host),
		h.client.Get(t.Context(), client.ObjectKey{Namespace: "acme", Name: api.ControlPlaneName}, service),
		h.client.Get(t.Context(), client.ObjectKey{Namespace: "acme", Name: api.DNSServiceName}, dns),
	); err != nil {
		t.Fatal(err)
	}
	want := api.ControlPlaneConfig{
		Tenant: "acme", HostNamespace: "acme", Version: "1.36",
		ServiceCIDRs: []string{"10.96.0.0/16"},
		APIServiceIP: service.Spec.ClusterIP, DNSServiceIP: dns.Spec.ClusterIP,
		HostAPI: []string{host.Spec.ClusterIP + ":443"},
		Members: tenant.Spec.Members, PodSecurity: api.PodSecurityBaseline,
		Services: []corev1.ServiceType{corev1.ServiceTypeClusterIP},
	}
	if diff := cmp.Diff(want, config); diff != "" || config.APIServiceIP == "" {
		t.Errorf("the configuration (-want +got):\n%s", diff)
	}

	h.play("acme", running)
	h.waitForPhase("acme", api.PhaseReady)
	got := h.tenant("acme")
	if diff := cmp.Diff(&api.VirtualClusterStatus{Version: "1.36", Endpoint: "sublet.acme.svc:443"}, got.Status.VirtualCluster); diff != "" {
		t.Errorf("status.virtualCluster (-want +got):\n%s", diff)
	}
	if got.Status.ObservedGeneration != got.Generation || got.Status.Namespace != "acme" {
		t.Errorf("status is %+v", got.Status)
	}

	t.Run("nothing is written when nothing changes", func(t *testing.T) {
		before := h.versions(t, "acme")
		set := &appsv1.StatefulSet{}
		if err := h.client.Get(t.Context(), client.ObjectKey{Namespace: "acme", Name: api.ControlPlaneName}, set); err != nil {
			t.Fatal(err)
		}
		// Wake the manager up.
		h.play("acme", func(s *corev1.PodStatus) { s.Message = "still well" })
		time.Sleep(time.Second)
		after := h.versions(t, "acme")
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("resource versions (-before +after):\n%s", diff)
		}
	})
	t.Run("what is deleted comes back", func(t *testing.T) {
		for _, object := range []client.Object{
			&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: api.DNSServiceName}},
			&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "sublet-deny"}},
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "sublet-kubeconfig-view"}},
			&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "sublet-edit"}},
		} {
			if err := h.client.Delete(t.Context(), object); err != nil {
				t.Fatal(err)
			}
			h.eventually(fmt.Sprintf("%T %s", object, object.GetName()), func(ctx context.Context) error {
				return h.client.Get(ctx, client.ObjectKeyFromObject(object), object)
			})
		}
	})
	t.Run("a member reaches the control plane and nothing else", func(t *testing.T) {
		jane := h.as("jane")
		secret := &corev1.Secret{}
		// Her binding has just come back, of which the authorizer hears a little later.
		h.eventually("her kubeconfig", func(ctx context.Context) error {
			return jane.Get(ctx, client.ObjectKey{Namespace: "acme", Name: "sublet-kubeconfig-edit"}, secret)
		})
		if err := jane.Get(t.Context(), client.ObjectKey{Name: "acme"}, &api.Tenant{}); err != nil {
			t.Errorf("her tenant: %v", err)
		}
		// A new address of DNS, above, restarts the control plane.
		h.eventually("her control plane's pod", func(ctx context.Context) error {
			return jane.Get(ctx, client.ObjectKey{Namespace: "acme", Name: api.ControlPlanePod}, &corev1.Pod{})
		})
		for name, err := range map[string]error{
			"another role's kubeconfig": jane.Get(t.Context(), client.ObjectKey{Namespace: "acme", Name: "sublet-kubeconfig-admin"}, secret),
			"the keys":                  jane.Get(t.Context(), client.ObjectKey{Namespace: "acme", Name: api.PKISecretName}, secret),
			"the pods":                  jane.List(t.Context(), &corev1.PodList{}, client.InNamespace("acme")),
			"the tenants":               jane.List(t.Context(), &api.TenantList{}),
		} {
			if !apierrors.IsForbidden(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("the control plane may follow its configuration, and only that of its own", func(t *testing.T) {
		syncer := h.as("system:serviceaccount:acme:"+api.ControlPlaneName, "system:serviceaccounts", "system:serviceaccounts:acme")
		one := client.MatchingFields{"metadata.name": api.ControlPlaneName}
		list := &corev1.ConfigMapList{}
		if err := syncer.List(t.Context(), list, client.InNamespace("acme"), one); err != nil || len(list.Items) != 1 {
			t.Errorf("its own: %d, %v", len(list.Items), err)
		}
		if err := syncer.List(t.Context(), list, client.InNamespace("default"), one); !apierrors.IsForbidden(err) {
			t.Errorf("another's: %v", err)
		}
	})
	t.Run("members come and go without a restart", func(t *testing.T) {
		uid := h.pod("acme").UID
		h.change("acme", func(s *api.TenantSpec) {
			s.Members = []api.Member{{Kind: "Group", Name: "ops", Role: api.RoleAdmin}}
		})
		h.eventually("jane is out", func(ctx context.Context) error {
			binding := &rbacv1.RoleBinding{}
			err := h.client.Get(ctx, client.ObjectKey{Namespace: "acme", Name: "sublet-edit"}, binding)
			if !apierrors.IsNotFound(err) {
				return fmt.Errorf("her binding is there: %v", err)
			}
			return h.client.Get(ctx, client.ObjectKey{Namespace: "acme", Name: "sublet-admin"}, binding)
		})
		if now := h.pod("acme").UID; now != uid {
			t.Error("the control plane was restarted")
		}
	})
	t.Run("another version restarts it", func(t *testing.T) {
		uid := h.pod("acme").UID
		h.change("acme", func(s *api.TenantSpec) { s.VirtualCluster.Version = "1.34" })
		h.eventually("another pod", func(ctx context.Context) error {
			if h.pod("acme").UID == uid {
				return errors.New("it is the same")
			}
			return nil
		})
		h.waitForPhase("acme", api.PhaseDegraded)
		h.play("acme", running)
		h.waitForPhase("acme", api.PhaseReady)
		if got := h.tenant("acme").Status.VirtualCluster.Version; got != "1.34" {
			t.Errorf("version is %q", got)
		}
	})
	t.Run("a version that there is not changes nothing", func(t *testing.T) {
		uid := h.pod("acme").UID
		h.change("acme", func(s *api.TenantSpec) { s.VirtualCluster.Version = "1.20" })
		c := h.waitFor("acme", api.ConditionFullyApplied, "NotApplied")
		if !strings.Contains(c.Message, "1.33") {
			t.Errorf("the message does not say what there is: %s", c.Message)
		}
		if h.tenant("acme").Status.Phase != api.PhaseReady || h.pod("acme").UID != uid {
			t.Error("the control plane was touched")
		}
		h.change("acme", func(s *api.TenantSpec) { s.VirtualCluster.Version = "1.34" })
	})
	t.Run("keys that are lost are not made anew", func(t *testing.T) {
		secret := &corev1.Secret{}
		key := client.ObjectKey{Namespace: "acme", Name: api.PKISecretName}
		if err := h.client.Get(t.Context(), key, secret); err != nil {
			t.Fatal(err)
		}
		if secret.Immutable == nil || !*secret.Immutable {
			t.Error("the keys can be overwritten")
		}
		if err := h.client.Delete(t.Context(), secret.DeepCopy()); err != nil {
			t.Fatal(err)
		}
		// The control plane still runs; what it needs after a restart is gone.
		h.waitFor("acme", api.ConditionFullyApplied, "NotApplied")
		secret.ResourceVersion, secret.UID = "", ""
		h.create(secret)
		h.eventually("all is well again", func(ctx context.Context) error {
			if c := meta.FindStatusCondition(h.tenant("acme").Status.Conditions, api.ConditionFullyApplied); c != nil {
				return errors.New(c.Message)
			}
			return nil
		})
	})
}

// versions are the resource versions of what the manager keeps in a namespace,
// and of the tenant.
func (h *managedHost) versions(t *testing.T, tenant string) map[string]string {
	t.Helper()
	versions := map[string]string{"tenant": h.tenant(tenant).ResourceVersion}
	for _, list := range []client.ObjectList{
		&corev1.SecretList{}, &corev1.ConfigMapList{}, &corev1.ServiceList{}, &corev1.ServiceAccountList{},
		&corev1.LimitRangeList{}, &networkingv1.NetworkPolicyList{}, &rbacv1.RoleBindingList{},
	} {
		if err := h.client.List(t.Context(), list, client.InNamespace(tenant)); err != nil {
			t.Fatal(err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			if object, ok := item.(client.Object); ok {
				versions[fmt.Sprintf("%T %s", object, object.GetName())] = object.GetResourceVersion()
			}
		}
	}
	return versions
}

func testPodTroubles(h *managedHost) {
	t := h.t
	tenant := virtualCluster("broken")
	h.create(tenant)
	h.play("broken", waiting("ErrImagePull", "failed to pull and unpack image"))
	c := h.waitFor("broken", api.ConditionControlPlaneReady, "ImagePullFailed")
	if !strings.Contains(c.Message, testImage) {
		t.Errorf("the message does not name the image: %s", c.Message)
	}
	h.waitForPhase("broken", api.PhasePending)
	since := c.LastTransitionTime
	h.play("broken", waiting("ImagePullBackOff", "Back-off pulling image"))
	time.Sleep(300 * time.Millisecond)
	if again := h.waitFor("broken", api.ConditionControlPlaneReady, "ImagePullFailed"); again != c {
		t.Errorf("the condition flaps: %v since %v", again, since)
	}

	uid := h.pod("broken").UID
	h.change("broken", func(s *api.TenantSpec) { s.VirtualCluster.Image = otherImage })
	h.eventually("a pod with another image", func(ctx context.Context) error {
		pod := h.pod("broken")
		if pod.UID == uid || pod.Spec.Containers[0].Image != otherImage {
			return fmt.Errorf("image is %q", pod.Spec.Containers[0].Image)
		}
		return nil
	})

	h.play("broken", func(status *corev1.PodStatus) {
		waiting("CrashLoopBackOff", "back-off")(status)
		status.ContainerStatuses[0].RestartCount = 3
		status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{
			ExitCode: 1, Message: "etcd: the data directory is corrupt\n",
		}
	})
	c = h.waitFor("broken", api.ConditionControlPlaneReady, "Crashing")
	if !strings.Contains(c.Message, "the data directory is corrupt") {
		t.Errorf("the message does not say why: %s", c.Message)
	}

	h.play("broken", func(status *corev1.PodStatus) {
		*status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available: 1 Insufficient memory.",
		}}}
	})
	c = h.waitFor("broken", api.ConditionControlPlaneReady, "Unschedulable")
	if !strings.Contains(c.Message, "Insufficient memory") {
		t.Errorf("the message does not say why: %s", c.Message)
	}

	// A quota that somebody else made.
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: "broken", Name: "ours"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourceRequestsMemory: resource.MustParse("1Mi")}},
	}
	h.create(quota)
	h.eventually("the quota counts", func(ctx context.Context) error {
		if err := h.client.Get(ctx, client.ObjectKeyFromObject(quota), quota); err != nil {
			return err
		}
		if len(quota.Status.Hard) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	pod := h.pod("broken")
	if err := h.client.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	// Until the deleted pod is no longer counted, Sublet's own quota refuses the
	// new one.
	h.eventually("the message names the quota", func(context.Context) error {
		if c := h.waitFor("broken", api.ConditionControlPlaneReady, "QuotaExceeded"); !strings.Contains(c.Message, "exceeded quota: ours") {
			return errors.New(c.Message)
		}
		return nil
	})
	t.Logf("deleted in %s", h.gone(tenant).Round(time.Millisecond))
}

func testStorage(h *managedHost) {
	t := h.t
	tenant := &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "stored"}, Spec: api.TenantSpec{Type: api.VirtualCluster}}
	h.create(tenant)
	c := h.waitFor("stored", api.ConditionControlPlaneReady, "NoStorageClass")
	for _, choice := range []string{"--storage-class", "--ephemeral"} {
		if !strings.Contains(c.Message, choice) {
			t.Errorf("the message does not offer %s: %s", choice, c.Message)
		}
	}
	h.waitForPhase("stored", api.PhasePending)
	class := &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: "plain", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}},
		Provisioner: "example.com/none",
	}
	h.create(class)
	h.pod("stored")
	claim := &corev1.PersistentVolumeClaim{}
	if err := h.client.Get(t.Context(), client.ObjectKey{Namespace: "stored", Name: "data-sublet-0"}, claim); err != nil {
		t.Fatal(err)
	}
	h.play("stored", func(status *corev1.PodStatus) {
		status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "pod has unbound immediate PersistentVolumeClaims",
		}}
	})
	h.waitFor("stored", api.ConditionControlPlaneReady, "VolumePending")
	h.play("stored", running)
	h.waitForPhase("stored", api.PhaseReady)
	uid := h.pod("stored").UID
	h.change("stored", func(s *api.TenantSpec) {
		s.VirtualCluster = &api.VirtualClusterSpec{Storage: &api.StorageSpec{Type: api.StorageEmptyDir}}
	})
	h.waitFor("stored", api.ConditionFullyApplied, "NotApplied")
	h.eventually("the change is looked at", func(ctx context.Context) error {
		if tenant := h.tenant("stored"); tenant.Status.ObservedGeneration != tenant.Generation {
			return errors.New("not yet")
		}
		return nil
	})
	h.waitForPhase("stored", api.PhaseReady)
	if h.pod("stored").UID != uid {
		t.Error("a change that cannot be made restarted the control plane")
	}
	if err := h.client.Delete(t.Context(), class); err != nil {
		t.Fatal(err)
	}
	t.Logf("deleted in %s", h.gone(tenant).Round(time.Millisecond))
}

func testNamespaceNames(h *managedHost) {
	t := h.t
	t.Run("reserved", func(t *testing.T) {
		for name, namespace := range map[string]string{"taken-kube": "kube-system", "taken-default": "default", "taken-own": api.SystemNamespace} {
			tenant := namespaceTenant(name)
			tenant.Spec.Namespace = namespace
			h.create(tenant)
			h.waitFor(name, api.ConditionNamespaceReady, "NamespaceReserved")
			if err := h.client.Delete(t.Context(), tenant); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.client.Get(t.Context(), client.ObjectKey{Name: "default"}, &corev1.Namespace{}); err != nil {
			t.Errorf("namespace default: %v", err)
		}
	})
	t.Run("not adopted", func(t *testing.T) {
		foreign := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "foreign"}}
		h.create(foreign)
		tenant := namespaceTenant("foreign")
		h.create(tenant)
		c := h.waitFor("foreign", api.ConditionNamespaceReady, "NamespaceTaken")
		if !strings.Contains(c.Message, "spec.namespace") {
			t.Errorf("the message does not say what to do: %s", c.Message)
		}
		// Deleting the tenant does not touch it.
		if err := h.client.Delete(t.Context(), tenant); err != nil {
			t.Fatal(err)
		}
		h.eventually("the tenant is gone", func(ctx context.Context) error {
			if err := h.client.Get(ctx, client.ObjectKeyFromObject(tenant), tenant); !apierrors.IsNotFound(err) {
				return errors.New("it is there")
			}
			return nil
		})
		if err := h.client.Get(t.Context(), client.ObjectKeyFromObject(foreign), foreign); err != nil || foreign.DeletionTimestamp != nil {
			t.Errorf("the foreign namespace: %v", err)
		}
		// When it goes, a tenant that waits for the name gets it.
		h.create(namespaceTenant("foreign"))
		h.waitFor("foreign", api.ConditionNamespaceReady, "NamespaceTaken")
		if err := h.client.Delete(t.Context(), foreign); err != nil {
			t.Fatal(err)
		}
		h.waitForPhase("foreign", api.PhaseReady)
	})
	t.Run("the first wins", func(t *testing.T) {
		first, second := namespaceTenant("first"), namespaceTenant("second")
		first.Spec.Namespace, second.Spec.Namespace = "shared", "shared"
		h.create(first)
		h.waitForPhase("first", api.PhaseReady)
		h.create(second)
		c := h.waitFor("second", api.ConditionNamespaceReady, "NamespaceTaken")
		if !strings.Contains(c.Message, `"first"`) {
			t.Errorf("the message does not say who has it: %s", c.Message)
		}
	})
}

func testLimits(h *managedHost) {
	t := h.t
	tenant := virtualCluster("bounded")
	tenant.Spec.Limits = &api.Limits{Quota: corev1.ResourceList{"request.cpu": resource.MustParse("1")}}
	h.create(tenant)
	c := h.waitFor("bounded", api.ConditionFenceReady, "InvalidLimits")
	if !strings.Contains(c.Message, `"requests.cpu"`) {
		t.Errorf("the message suggests nothing: %s", c.Message)
	}
	if err := h.client.Get(t.Context(), client.ObjectKey{Namespace: "bounded", Name: api.ControlPlaneName}, &appsv1.StatefulSet{}); !apierrors.IsNotFound(err) {
		t.Errorf("a control plane without a fence: %v", err)
	}
	// Smaller than what the control plane takes by itself, of everything.
	h.change("bounded", func(s *api.TenantSpec) {
		s.Limits.Quota = corev1.ResourceList{}
		for _, name := range []corev1.ResourceName{
			"pods", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory", "requests.ephemeral-storage", "limits.ephemeral-storage",
			"services", "secrets", "configmaps", "persistentvolumeclaims", "requests.storage",
			"count/pods", "count/statefulsets.apps", "count/secrets", "count/services", "count/serviceaccounts",
			"count/rolebindings.rbac.authorization.k8s.io", "count/networkpolicies.networking.k8s.io", "count/resourcequotas", "count/limitranges",
			"count/endpointslices.discovery.k8s.io", "count/controllerrevisions.apps",
		} {
			s.Limits.Quota[name] = resource.MustParse("1")
		}
	})
	pod := h.pod("bounded")
	if pod.Spec.PriorityClassName != api.ControlPlanePriorityClass {
		t.Errorf("priority class is %q", pod.Spec.PriorityClassName)
	}
	if got := pod.Spec.Containers[0].Resources.Limits.Memory().String(); got != "2Gi" {
		t.Errorf("the control plane has a memory limit of %s", got)
	}
	h.play("bounded", running)
	h.waitForPhase("bounded", api.PhaseReady)
	// What is left is the tenant's figure, exactly.
	h.eventually("the quota counts", func(ctx context.Context) error {
		quota := &corev1.ResourceQuota{}
		if err := h.client.Get(ctx, client.ObjectKey{Namespace: "bounded", Name: "sublet-objects"}, quota); err != nil {
			return err
		}
		for _, name := range []corev1.ResourceName{"services", "secrets", "count/pods", "count/statefulsets.apps", "count/serviceaccounts"} {
			hard, used := quota.Status.Hard[name], quota.Status.Used[name]
			hard.Sub(used)
			if hard.Value() != 1 {
				return fmt.Errorf("%s: %s are left", name, hard.String())
			}
		}
		pods := &corev1.ResourceQuota{}
		if err := h.client.Get(ctx, client.ObjectKey{Namespace: "bounded", Name: "sublet-pods"}, pods); err != nil {
			return err
		}
		for name, used := range pods.Status.Used {
			if !used.IsZero() {
				return fmt.Errorf("the control plane eats %s of the tenant's %s", used.String(), name)
			}
		}
		if len(pods.Status.Used) == 0 {
			return errors.New("not counted yet")
		}
		return nil
	})
	// A fence that is broken later stands as it was.
	h.change("bounded", func(s *api.TenantSpec) { s.Limits.Network = &api.NetworkLimits{AllowedCIDRs: []string{"10.1.2.3/16"}} })
	h.waitFor("bounded", api.ConditionFenceReady, "InvalidLimits")
	h.waitForPhase("bounded", api.PhaseDegraded)
	h.change("bounded", func(s *api.TenantSpec) { s.Limits = &api.Limits{Network: &api.NetworkLimits{Internet: "Deny"}} })
	h.waitForPhase("bounded", api.PhaseReady)
	h.eventually("the internet is closed, the quota gone", func(ctx context.Context) error {
		for _, object := range []client.Object{
			&corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "bounded", Name: "sublet-pods"}},
			&corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "bounded", Name: "sublet"}},
		} {
			if err := h.client.Get(ctx, client.ObjectKeyFromObject(object), object); !apierrors.IsNotFound(err) {
				return fmt.Errorf("%T %s: %v", object, object.GetName(), err)
			}
		}
		policy := &networkingv1.NetworkPolicy{}
		if err := h.client.Get(ctx, client.ObjectKey{Namespace: "bounded", Name: api.FenceEgressPolicy}, policy); err != nil || len(policy.Spec.Egress) > 0 {
			return fmt.Errorf("the way out: %v, %v", policy.Spec.Egress, err)
		}
		return nil
	})
}

func testNamespaceTenant(h *managedHost) {
	t := h.t
	tenant := namespaceTenant("shop")
	tenant.Spec.Members = []api.Member{{Kind: "Group", Name: "shop-team", Role: api.RoleEdit}, {Kind: "User", Name: "boss", Role: api.RoleAdmin}}
	tenant.Spec.Limits = &api.Limits{
		PodSecurity: api.PodSecurityRestricted,
		Quota:       corev1.ResourceList{"requests.cpu": resource.MustParse("1"), "limits.memory": resource.MustParse("1Gi"), "pods": resource.MustParse("2")},
	}
	begin := time.Now()
	h.create(tenant)
	h.waitForPhase("shop", api.PhaseReady)
	t.Logf("ready in %s", time.Since(begin).Round(time.Millisecond))
	namespace := &corev1.Namespace{}
	if err := h.client.Get(t.Context(), client.ObjectKey{Name: "shop"}, namespace); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{
		api.LabelTenant: "shop", api.LabelTenantType: "Namespace",
		"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted",
	} {
		if namespace.Labels[key] != value {
			t.Errorf("label %s is %q", key, namespace.Labels[key])
		}
	}

	joe := h.as("joe", "shop-team")
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "shop", Name: name} }
	h.eventually("joe may work", func(ctx context.Context) error {
		return client.IgnoreAlreadyExists(joe.Create(ctx, &corev1.ConfigMap{ObjectMeta: meta("work")}))
	})
	if err := joe.Get(t.Context(), client.ObjectKey{Name: "shop"}, &api.Tenant{}); err != nil {
		t.Errorf("his tenant: %v", err)
	}
	no, yes := false, true
	pod := func(name string, edit func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: meta(name), Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: &yes, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{Name: "c", Image: "example.com/c", SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}}},
		}}
		if edit != nil {
			edit(p)
		}
		return p
	}
	// The quota must be counted once before it admits anything.
	silent := pod("silent", nil)
	h.eventually("a pod that asks for nothing", func(ctx context.Context) error { return joe.Create(ctx, silent) })
	if silent.Spec.Containers[0].Resources.Limits.Memory().IsZero() || silent.Spec.Containers[0].Resources.Requests.Cpu().IsZero() {
		t.Errorf("it has no defaults: %+v", silent.Spec.Containers[0].Resources)
	}
	tcp := []corev1.ServicePort{{Port: 80}}
	everywhere := networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress:      []networkingv1.NetworkPolicyEgressRule{{}},
	}
	fence := &networkingv1.NetworkPolicy{}
	if err := joe.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "sublet-deny"}, fence); err != nil {
		t.Fatal(err)
	}
	opened := fence.DeepCopy()
	opened.Spec = everywhere
	for name, attempt := range map[string]func() error{
		"a pod in the node's network": func() error {
			return joe.Create(t.Context(), pod("root", func(p *corev1.Pod) { p.Spec.HostNetwork = true }))
		},
		"a pod with the priority of control planes": func() error {
			return joe.Create(t.Context(), pod("important", func(p *corev1.Pod) { p.Spec.PriorityClassName = api.ControlPlanePriorityClass }))
		},
		"a pod that says it is a control plane": func() error {
			return joe.Create(t.Context(), pod("posing", func(p *corev1.Pod) {
				p.Labels = map[string]string{api.LabelComponent: api.ComponentControlPlane}
			}))
		},
		"a load balancer": func() error {
			return joe.Create(t.Context(), &corev1.Service{ObjectMeta: meta("lb"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: tcp}})
		},
		"a node port": func() error {
			return joe.Create(t.Context(), &corev1.Service{ObjectMeta: meta("np"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: tcp}})
		},
		"an external name": func() error {
			return joe.Create(t.Context(), &corev1.Service{ObjectMeta: meta("en"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}})
		},
		"an external IP": func() error {
			return joe.Create(t.Context(), &corev1.Service{ObjectMeta: meta("ip"), Spec: corev1.ServiceSpec{ExternalIPs: []string{"192.0.2.1"}, Ports: tcp}})
		},
		"a way out": func() error {
			return joe.Create(t.Context(), &networkingv1.NetworkPolicy{ObjectMeta: meta("out"), Spec: everywhere})
		},
		"a way to what the fence opens": func() error {
			return joe.Create(t.Context(), wayTo(meta("block"), networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "93.184.215.0/24"}}))
		},
		"opening the fence":  func() error { return joe.Update(t.Context(), opened) },
		"deleting the fence": func() error { return joe.Delete(t.Context(), fence.DeepCopy()) },
		"deleting it all": func() error {
			return joe.DeleteAllOf(t.Context(), &networkingv1.NetworkPolicy{}, client.InNamespace("shop"))
		},
		"the quota": func() error {
			return h.as("boss").Delete(t.Context(), &corev1.ResourceQuota{ObjectMeta: meta("sublet-pods")})
		},
		"another's binding": func() error {
			return h.as("boss").Delete(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta("sublet-edit")})
		},
		"the namespace": func() error { return h.as("boss").Delete(t.Context(), namespace.DeepCopy()) },
	} {
		if err := attempt(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, object := range map[string]client.Object{
		"an ordinary service": &corev1.Service{ObjectMeta: meta("web"), Spec: corev1.ServiceSpec{Ports: tcp}},
		"a way in": &networkingv1.NetworkPolicy{ObjectMeta: meta("in"), Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, Ingress: []networkingv1.NetworkPolicyIngressRule{{}},
		}},
		"a way within": wayTo(meta("within"), networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}}),
	} {
		if err := joe.Create(t.Context(), object); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Logf("deleted in %s", h.gone(tenant).Round(time.Millisecond))
}

func wayTo(meta metav1.ObjectMeta, peer networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: meta, Spec: networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress:      []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{peer}}},
	}}
}

// testNetwork: what a syncer opens stays within the fence, also when the fence
// becomes narrower and nobody syncs.
func testNetwork(h *managedHost) {
	t := h.t
	tenant := virtualCluster("networked")
	tenant.Spec.Limits = &api.Limits{Network: &api.NetworkLimits{AllowedCIDRs: []string{"10.1.0.0/16"}}}
	h.create(tenant)
	h.play("networked", running)
	h.waitForPhase("networked", api.PhaseReady)
	syncer := h.as("system:serviceaccount:networked:sublet", "system:serviceaccounts", "system:serviceaccounts:networked")
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "networked", Name: name, Labels: map[string]string{api.LabelTenant: "networked", api.LabelComponent: api.ComponentSynced}}
	}
	block := func(name, cidr string, except ...string) *networkingv1.NetworkPolicy {
		return wayTo(meta(name), networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}})
	}
	for name, way := range map[string]*networkingv1.NetworkPolicy{
		"everything":                        block("way", "0.0.0.0/0"),
		"everything, in IPv6":               block("way", "::/0"),
		"metadata":                          block("way", "169.254.169.254/32"),
		"a private range":                   block("way", "10.0.0.0/8"),
		"part of a private range":           block("way", "10.2.0.0/16", "10.2.1.0/24"),
		"more than an allowed range":        block("way", "10.0.0.0/15"),
		"a range with a private one in it":  block("way", "8.0.0.0/6"),
		"the same with too little left out": block("way", "8.0.0.0/6", "10.0.0.0/9"),
		"metadata in the guise of IPv6":     block("way", "::ffff:169.254.0.0/112"),
		"other namespaces":                  wayTo(meta("way"), networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}}),
		"pods of other namespaces": wayTo(meta("way"), networkingv1.NetworkPolicyPeer{
			NamespaceSelector: &metav1.LabelSelector{}, PodSelector: &metav1.LabelSelector{},
		}),
	} {
		if err := syncer.Create(t.Context(), way); !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
			t.Errorf("a way to %s: %v", name, err)
		}
	}
	ways := map[string]*networkingv1.NetworkPolicy{
		"its own pods":                     wayTo(meta("pods"), networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}}),
		"a public range":                   block("public", "93.184.215.0/24"),
		"a range without its private part": block("holed", "8.0.0.0/6", "10.0.0.0/8"),
		"an allowed range":                 block("allowed", "10.1.2.0/24"),
	}
	for name, way := range ways {
		if err := syncer.Create(t.Context(), way); err != nil {
			t.Errorf("a way to %s: %v", name, err)
		}
	}
	h.change("networked", func(s *api.TenantSpec) {
		s.Limits.Network = &api.NetworkLimits{Internet: "Deny", AllowedCIDRs: []string{"10.1.0.0/16"}}
	})
	h.eventually("what is more than the narrower fence opens is gone, the rest is there", func(ctx context.Context) error {
		for name, way := range ways {
			err := h.client.Get(ctx, client.ObjectKeyFromObject(way), &networkingv1.NetworkPolicy{})
			if stays := name == "its own pods" || name == "an allowed range"; stays && err != nil || !stays && !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s: %v", name, err)
			}
		}
		return nil
	})
}

func testPolicies(h *managedHost) {
	t := h.t
	h.create(virtualCluster("guarded"))
	h.pod("guarded")
	admin := h.as("admin@example.com", "system:masters")
	self := h.as("system:serviceaccount:"+api.SystemNamespace+":"+api.ManagerName, "system:serviceaccounts", "system:masters")
	syncer := h.as("system:serviceaccount:guarded:sublet", "system:serviceaccounts", "system:serviceaccounts:guarded")
	get := func(object client.Object, name string) client.Object {
		t.Helper()
		object.SetName(name)
		if _, cluster := object.(*corev1.Namespace); !cluster {
			object.SetNamespace("guarded")
		}
		if err := h.client.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
			t.Fatal(err)
		}
		return object
	}
	patch := func(c client.Client, object client.Object, edit func(client.Object), opts ...client.PatchOption) error {
		before, ok := object.DeepCopyObject().(client.Object)
		if !ok {
			t.Fatal("no object")
		}
		edit(object)
		return c.Patch(t.Context(), object, client.MergeFrom(before), opts...)
	}
	label := func(key, value string) func(client.Object) {
		return func(o client.Object) {
			labels := map[string]string{}
			for k, v := range o.GetLabels() {
				labels[k] = v
			}
			labels[key] = value
			o.SetLabels(labels)
		}
	}
	annotate := func(key, value string) func(client.Object) {
		return func(o client.Object) {
			annotations := o.GetAnnotations()
			if annotations == nil {
				annotations = map[string]string{}
			}
			annotations[key] = value
			o.SetAnnotations(annotations)
		}
	}
	refused := map[string]func() error{
		"a label of ours on a namespace": func() error {
			return patch(admin, get(&corev1.Namespace{}, "guarded"), label(api.LabelTenant, "other"))
		},
		"a label of ours by the status": func() error {
			ns := get(&corev1.Namespace{}, "guarded")
			before, _ := ns.DeepCopyObject().(client.Object)
			label(api.LabelTenant, "other")(ns)
			return admin.Status().Patch(t.Context(), ns, client.MergeFrom(before))
		},
		"an annotation of ours": func() error {
			return patch(admin, get(&corev1.Namespace{}, "guarded"), annotate(api.AnnotationServices, "LoadBalancer"))
		},
		"another Pod Security level": func() error {
			return patch(admin, get(&corev1.Namespace{}, "guarded"), label("pod-security.kubernetes.io/enforce", "privileged"))
		},
		"a namespace that poses as a tenant's": func() error {
			return admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "posing", Labels: map[string]string{api.LabelTenant: "posing"}}})
		},
		"the namespace's deletion": func() error { return admin.Delete(t.Context(), get(&corev1.Namespace{}, "guarded")) },
		"the StatefulSet": func() error {
			return patch(admin, get(&appsv1.StatefulSet{}, api.ControlPlaneName), func(o client.Object) {
				if set, ok := o.(*appsv1.StatefulSet); ok {
					zero := int32(0)
					set.Spec.Replicas = &zero
				}
			})
		},
		"taking a label of ours off": func() error {
			return patch(admin, get(&corev1.Secret{}, api.PKISecretName), func(o client.Object) { o.SetLabels(nil) })
		},
		"a synced pod that poses as the control plane": func() error {
			return syncer.Create(t.Context(), &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "guarded", Name: "posing", Labels: map[string]string{api.LabelComponent: api.ComponentControlPlane}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "example.com/c"}}},
			})
		},
		"the syncer on the keys": func() error {
			return syncer.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "guarded", Name: api.PKISecretName}})
		},
		"the syncer in another namespace": func() error {
			return syncer.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "mine"}})
		},
		"the manager in another namespace": func() error {
			return self.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "mine"}})
		},
		"the manager on another namespace": func() error {
			bystander := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bystander"}}
			h.create(bystander)
			return self.Delete(t.Context(), bystander)
		},
		"the manager's own role": func() error {
			return self.Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "mine"}})
		},
	}
	for name, attempt := range refused {
		t.Run(name, func(t *testing.T) {
			if err := attempt(); !apierrors.IsForbidden(err) {
				t.Errorf("got %v", err)
			} else {
				t.Log(err)
			}
		})
	}
	allowed := map[string]func() error{
		"a label of their own": func() error {
			return patch(admin, get(&corev1.Namespace{}, "guarded"), label("example.com/team", "a"))
		},
		"a restart": func() error { return admin.Delete(t.Context(), get(&corev1.Pod{}, api.ControlPlanePod)) },
		"a synced object": func() error {
			return syncer.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "guarded", Name: "synced", Labels: map[string]string{api.LabelComponent: api.ComponentSynced}}})
		},
	}
	for name, attempt := range allowed {
		t.Run(name, func(t *testing.T) {
			if err := attempt(); err != nil {
				t.Error(err)
			}
		})
	}
}

func testDeletion(h *managedHost) {
	t := h.t
	t.Run("full", func(t *testing.T) {
		h.t = t
		tenant := virtualCluster("full")
		begin := time.Now()
		h.create(tenant)
		h.pod("full")
		t.Logf("tenant created to pod created: %s", time.Since(begin).Round(time.Millisecond))
		h.play("full", running)
		h.waitForPhase("full", api.PhaseReady)
		// What a syncer leaves behind.
		for i := range 20 {
			name := fmt.Sprintf("synced-%d", i)
			labels := map[string]string{api.LabelTenant: "full", api.LabelComponent: api.ComponentSynced}
			h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "full", Name: name, Labels: labels}})
			h.create(&corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "full", Name: name, Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "example.com/c"}}},
			})
		}
		// How fast it is, delete_s of the benchmarks holds.
		t.Logf("deleted in %s", h.gone(tenant).Round(time.Millisecond))
	})
	t.Run("at once", func(t *testing.T) {
		h.t = t
		// At any moment of being made: the first before it has a finalizer.
		for i := range 10 {
			tenant := virtualCluster(fmt.Sprintf("fleeting-%d", i))
			h.create(tenant)
			time.Sleep(time.Duration(i) * 20 * time.Millisecond)
			if err := h.client.Delete(t.Context(), tenant); err != nil {
				t.Fatal(err)
			}
		}
		h.eventually("all of them are gone", func(ctx context.Context) error {
			var left []string
			for _, list := range []client.ObjectList{&api.TenantList{}, &corev1.NamespaceList{}, &rbacv1.ClusterRoleBindingList{}} {
				if err := h.client.List(ctx, list); err != nil {
					return err
				}
				if err := meta.EachListItem(list, func(object runtime.Object) error {
					if o, ok := object.(client.Object); ok && strings.Contains(o.GetName(), "fleeting-") {
						left = append(left, fmt.Sprintf("%T %s", o, o.GetName()))
					}
					return nil
				}); err != nil {
					return err
				}
			}
			if len(left) > 0 {
				return errors.New(strings.Join(left, ", "))
			}
			return nil
		})
	})
	t.Run("blocked", func(t *testing.T) {
		h.t = t
		tenant := virtualCluster("stuck")
		h.create(tenant)
		h.pod("stuck")
		foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "stuck", Name: "held", Finalizers: []string{"example.com/hold"}}}
		h.create(foreign)
		if err := h.client.Delete(t.Context(), tenant); err != nil {
			t.Fatal(err)
		}
		h.waitForPhase("stuck", api.PhaseDeleting)
		c := h.waitFor("stuck", api.ConditionDeletionBlocked, "ContentRemaining")
		h.eventually("the condition names the finalizer", func(ctx context.Context) error {
			c = h.waitFor("stuck", api.ConditionDeletionBlocked, "ContentRemaining")
			if !strings.Contains(c.Message, "example.com/hold") {
				return errors.New(c.Message)
			}
			return nil
		})
		if err := h.client.Get(t.Context(), client.ObjectKeyFromObject(foreign), foreign); err != nil {
			t.Fatal(err)
		}
		foreign.Finalizers = nil
		if err := h.client.Update(t.Context(), foreign); err != nil {
			t.Fatal(err)
		}
		h.eventually("the tenant is gone", func(ctx context.Context) error {
			if err := h.client.Get(ctx, client.ObjectKeyFromObject(tenant), tenant); !apierrors.IsNotFound(err) {
				return fmt.Errorf("it is there: %+v", tenant.Status)
			}
			return nil
		})
	})
	t.Run("with invalid limits", func(t *testing.T) {
		h.t = t
		tenant := virtualCluster("unfenced")
		tenant.Spec.Limits = &api.Limits{Quota: corev1.ResourceList{"nonsense": resource.MustParse("1")}}
		h.create(tenant)
		h.waitFor("unfenced", api.ConditionFenceReady, "InvalidLimits")
		h.gone(tenant)
	})
}

// testDefinitions holds what the schema of a Tenant refuses by itself.
func testDefinitions(h *managedHost) {
	t := h.t
	cases := map[string]func(*api.Tenant){
		"a name that is too long":           func(t *api.Tenant) { t.Name = strings.Repeat("a", 41) },
		"a name that starts with a digit":   func(t *api.Tenant) { t.Name = "1a" },
		"a name with a dot":                 func(t *api.Tenant) { t.Name = "a.b" },
		"a type that there is not":          func(t *api.Tenant) { t.Spec.Type = "Cluster" },
		"a folder with a namespace":         func(t *api.Tenant) { t.Spec.Type = api.Folder; t.Spec.Namespace = "x" },
		"a namespace with a control plane":  func(t *api.Tenant) { t.Spec.VirtualCluster = &api.VirtualClusterSpec{} },
		"an unknown role":                   func(t *api.Tenant) { t.Spec.Members = []api.Member{{Kind: "User", Name: "x", Role: "owner"}} },
		"a service account in no namespace": func(t *api.Tenant) { t.Spec.Members = []api.Member{{Kind: "ServiceAccount", Name: "x", Role: "edit"}} },
		"its own parent":                    func(t *api.Tenant) { t.Spec.Parent = t.Name },
		"a root that is no folder":          func(t *api.Tenant) { t.Name = api.RootTenant },
		"a root with a parent":              func(t *api.Tenant) { t.Name, t.Spec.Type, t.Spec.Parent = api.RootTenant, api.Folder, "x" },
		"a root that expires": func(t *api.Tenant) {
			t.Name, t.Spec.Type, t.Spec.TTL = api.RootTenant, api.Folder, &metav1.Duration{Duration: time.Hour}
		},
		"a policy that there is not": func(t *api.Tenant) { t.Spec.DeletionPolicy = "Forget" },
	}
	for name, edit := range cases {
		tenant := namespaceTenant("valid")
		edit(tenant)
		if err := h.client.Create(t.Context(), tenant, client.DryRunAll); !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	tenant := namespaceTenant("fixed")
	h.create(tenant)
	h.waitForPhase("fixed", api.PhaseReady)
	for name, edit := range map[string]func(*api.TenantSpec){
		"type":      func(s *api.TenantSpec) { s.Type = api.VirtualCluster },
		"namespace": func(s *api.TenantSpec) { s.Namespace = "other" },
	} {
		current := h.tenant("fixed")
		edit(&current.Spec)
		if err := h.client.Update(t.Context(), current); !apierrors.IsInvalid(err) {
			t.Errorf("changing %s: %v", name, err)
		}
	}
}

// testRestart holds that another manager goes on where the last one was, and
// that nothing restarts because of it.
func testRestart(h *managedHost) {
	t := h.t
	h.create(virtualCluster("lasting"))
	h.play("lasting", running)
	h.waitForPhase("lasting", api.PhaseReady)
	before, uid := h.versions(t, "lasting"), h.pod("lasting").UID
	h.stop()
	h.create(virtualCluster("waiting"))
	h.startManager()
	h.pod("waiting")
	time.Sleep(time.Second)
	if diff := cmp.Diff(before, h.versions(t, "lasting")); diff != "" {
		t.Errorf("resource versions (-before +after):\n%s", diff)
	}
	if h.pod("lasting").UID != uid {
		t.Error("the control plane was restarted")
	}
	names := []string{}
	tenants := &api.TenantList{}
	if err := h.client.List(t.Context(), tenants); err != nil {
		t.Fatal(err)
	}
	for _, tenant := range tenants.Items {
		names = append(names, tenant.Name+"="+string(tenant.Status.Phase))
	}
	slices.Sort(names)
	t.Log(strings.Join(names, " "))
}
