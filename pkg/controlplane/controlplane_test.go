package controlplane

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/pprof/profile"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatorclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/pki"
)

const testTimeout = 30 * time.Second

// helperVariable makes the test binary one of the helper processes below.
const helperVariable = "SUBLET_TEST_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperVariable) {
	case "writer":
		os.Exit(helper(writeUntilKilled))
	case "etcd writer":
		os.Exit(helper(putUntilKilled))
	case "emulated":
		os.Exit(helper(showEmulated))
	}
	if os.Getenv("SUBLET_TEST_LOG") == "" {
		klog.SetLogger(logr.Discard()) // control planes have a lot to say
	}
	os.Exit(m.Run())
}

func helper(run func(ctx context.Context, dir string) error) int {
	if err := run(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// testOptions are those of a tenant whose data and authorities are in dir.
func testOptions(dir string) (Options, error) {
	pkiDir := filepath.Join(dir, "pki")
	bundle, err := pki.LoadBundle(pkiDir)
	if err != nil {
		if bundle, err = pki.NewBundle("test", time.Now()); err != nil {
			return Options{}, err
		}
		if err := bundle.Save(pkiDir); err != nil {
			return Options{}, err
		}
	}
	return Options{
		Name:                "test",
		DataDir:             filepath.Join(dir, "data"),
		PKI:                 bundle,
		ServiceCIDRs:        []string{"10.96.0.0/16"},
		KubernetesServiceIP: net.IPv4(10, 96, 3, 3),
	}, nil
}

// plane is a control plane with clients and a way to stop it.
type plane struct {
	*ControlPlane
	client kubernetes.Interface
	stop   func() error
}

func start(t *testing.T, dir string, change func(*Options)) *plane {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a real control plane")
	}
	o, err := testOptions(dir)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	begin := time.Now()
	started, err := Start(ctx, o)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Logf("started in %s", time.Since(begin).Round(time.Millisecond))
	p := &plane{ControlPlane: started, client: kubernetes.NewForConfigOrDie(started.Config())}
	p.stop = sync.OnceValue(func() error {
		cancel()
		return started.Wait()
	})
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Errorf("stopping: %v", err)
		}
	})
	return p
}

// eventually polls until check passes.
func eventually(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, testTimeout, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v: %v", what, err, last)
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// countingAllocator gives addresses from its own part of the range.
type countingAllocator struct {
	next    atomic.Int32
	dryRuns atomic.Int32
}

func (a *countingAllocator) AllocateService(_ context.Context, svc, _ *corev1.Service, dryRun bool) error {
	if dryRun {
		a.dryRuns.Add(1)
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP != "" {
		return nil
	}
	svc.Spec.ClusterIP = fmt.Sprintf("10.96.77.%d", a.next.Add(1))
	svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP}
	return nil
}

// TestTwoInOneProcess is the life of a tenant, twice at the same time.
func TestTwoInOneProcess(t *testing.T) {
	ready := atomic.Bool{}
	allocator := &countingAllocator{}
	one := start(t, t.TempDir(), func(o *Options) {
		o.ServiceAllocator = allocator
		o.PodSecurity = "baseline"
		o.Members = []Binding{{Kind: "User", Name: "ada", Role: api.RoleView}}
		o.Profiling = true
		o.ReadyChecks = []ReadyCheck{{Name: "syncer", Check: func() error {
			if ready.Load() {
				return nil
			}
			return errors.New("the syncer has not begun")
		}}}
	})
	two := start(t, t.TempDir(), nil)

	t.Run("Workloads", func(t *testing.T) {
		testWorkloads(t, one)
		testWorkloads(t, two)
	})
	t.Run("CustomResources", func(t *testing.T) {
		testCustomResources(t, one, "v1")
		testCustomResources(t, two, "v2")
	})
	t.Run("Aggregation", func(t *testing.T) { testAggregation(t, one) })
	t.Run("Services", func(t *testing.T) { testServices(t, one, allocator) })
	t.Run("KubernetesService", func(t *testing.T) { testKubernetesService(t, one) })
	t.Run("Tokens", func(t *testing.T) { testTokens(t, one, two) })
	t.Run("Members", func(t *testing.T) { testMembers(t, one) })
	t.Run("PodSecurity", func(t *testing.T) { testPodSecurity(t, one, two) })
	t.Run("Readiness", func(t *testing.T) { testReadiness(t, one, &ready) })
	t.Run("Profiling", func(t *testing.T) { testProfiling(t, one, two) })
	t.Run("Version", func(t *testing.T) { testVersion(t, one) })
	t.Run("Certificates", func(t *testing.T) { testCertificates(t, one) })
	t.Run("Seed", func(t *testing.T) { testSeed(t, two) })
	t.Run("Protected", func(t *testing.T) { testProtected(t, two) })
}

// testProtected deletes an object to which the API server gives a finalizer: a
// controller has to take it away.
func testProtected(t *testing.T, p *plane) {
	ctx := t.Context()
	classes := p.client.StorageV1().VolumeAttributesClasses()
	made, err := classes.Create(ctx, &storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{Name: "fast"},
		DriverName: "csi.example.com",
		Parameters: map[string]string{"iops": "1000"},
	}, metav1.CreateOptions{})
	must(t, "creating a class", err)
	if len(made.Finalizers) == 0 {
		t.Fatal("the class has no finalizer, so that its deletion shows nothing")
	}
	must(t, "deleting a class", classes.Delete(ctx, "fast", metav1.DeleteOptions{}))
	eventually(t, "end of a class", func(ctx context.Context) error {
		_, err := classes.Get(ctx, "fast", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is still there: %v", err)
	})
}

func testWorkloads(t *testing.T, p *plane) {
	ctx := t.Context()
	_, err := p.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{})
	must(t, "creating a namespace", err)
	eventually(t, "service account and CA of a namespace", func(ctx context.Context) error {
		if _, err := p.client.CoreV1().ServiceAccounts("shop").Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		ca, err := p.client.CoreV1().ConfigMaps("shop").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if ca.Data["ca.crt"] != string(p.options.PKI.CA.CertPEM) {
			return errors.New("kube-root-ca.crt is not the CA")
		}
		return nil
	})

	labels := map[string]string{"app": "web"}
	replicas := int32(2)
	_, err = p.client.AppsV1().Deployments("shop").Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}},
			},
		},
	}, metav1.CreateOptions{})
	must(t, "creating a deployment", err)
	pods := func(ctx context.Context, want int) error {
		list, err := p.client.CoreV1().Pods("shop").List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			return err
		}
		if len(list.Items) != want {
			return fmt.Errorf("%d pods, want %d", len(list.Items), want)
		}
		return nil
	}
	eventually(t, "pods of a deployment", func(ctx context.Context) error { return pods(ctx, 2) })

	must(t, "deleting a deployment", p.client.AppsV1().Deployments("shop").Delete(ctx, "web", metav1.DeleteOptions{}))
	eventually(t, "garbage collection", func(ctx context.Context) error { return pods(ctx, 0) })

	must(t, "deleting a namespace", p.client.CoreV1().Namespaces().Delete(ctx, "shop", metav1.DeleteOptions{}))
	eventually(t, "end of a namespace", func(ctx context.Context) error {
		_, err := p.client.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is still there: %v", err)
	})
}

func testCustomResources(t *testing.T, p *plane, version string) {
	ctx := t.Context()
	definitions := apiextensionsclient.NewForConfigOrDie(p.Config()).ApiextensionsV1().CustomResourceDefinitions()
	preserve := true
	_, err := definitions.Create(ctx, &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "boats.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com",
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "boats", Singular: "boat", Kind: "Boat", ListKind: "BoatList"},
			Scope: apiextensionsv1.ClusterScoped,
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{
					OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &preserve},
				},
			}},
		},
	}, metav1.CreateOptions{})
	must(t, "creating a CRD", err)
	boats := dynamic.NewForConfigOrDie(p.Config()).Resource(schema.GroupVersionResource{Group: "example.com", Version: version, Resource: "boats"})
	boat := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/" + version, "kind": "Boat", "metadata": map[string]any{"name": "dinghy"},
	}}
	eventually(t, "a custom resource", func(ctx context.Context) error {
		_, err := boats.Create(ctx, boat, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
}

func testAggregation(t *testing.T, p *plane) {
	ctx := t.Context()
	services := aggregatorclient.NewForConfigOrDie(p.Config()).ApiregistrationV1().APIServices()
	_, err := services.Create(ctx, &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: "v1beta1.metrics.k8s.io"},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: "metrics.k8s.io", Version: "v1beta1",
			GroupPriorityMinimum: 100, VersionPriority: 100, InsecureSkipTLSVerify: true,
			Service: &apiregistrationv1.ServiceReference{Namespace: "kube-system", Name: "metrics-server"},
		},
	}, metav1.CreateOptions{})
	must(t, "registering an API service", err)
	eventually(t, "the state of an API service without a server", func(ctx context.Context) error {
		service, err := services.Get(ctx, "v1beta1.metrics.k8s.io", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range service.Status.Conditions {
			if condition.Type == apiregistrationv1.Available && condition.Reason == "ServiceNotFound" {
				return nil
			}
		}
		return fmt.Errorf("conditions are %v", service.Status.Conditions)
	})
	must(t, "removing an API service", services.Delete(ctx, "v1beta1.metrics.k8s.io", metav1.DeleteOptions{}))
}

func testServices(t *testing.T, p *plane, allocator *countingAllocator) {
	ctx := t.Context()
	services := p.client.CoreV1().Services("default")
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}
	_, err := services.Create(ctx, service.DeepCopy(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	must(t, "creating a Service as a dry run", err)
	if allocator.dryRuns.Load() != 1 {
		t.Errorf("the allocator saw %d dry runs, want 1", allocator.dryRuns.Load())
	}
	created, err := services.Create(ctx, service.DeepCopy(), metav1.CreateOptions{})
	must(t, "creating a Service", err)
	if !strings.HasPrefix(created.Spec.ClusterIP, "10.96.77.") {
		t.Errorf("the Service has address %q, want one by the allocator", created.Spec.ClusterIP)
	}
	if _, err := p.client.NetworkingV1().IPAddresses().Get(ctx, created.Spec.ClusterIP, metav1.GetOptions{}); err != nil {
		t.Errorf("the address of the Service is not recorded: %v", err)
	}

	external := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "external"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"},
	}
	created, err = services.Create(ctx, external, metav1.CreateOptions{})
	must(t, "creating a Service without an address", err)
	created.Spec.Type = corev1.ServiceTypeClusterIP
	created.Spec.ExternalName = ""
	created.Spec.Ports = []corev1.ServicePort{{Port: 80}}
	changed, err := services.Update(ctx, created, metav1.UpdateOptions{})
	must(t, "changing the type of a Service", err)
	if !strings.HasPrefix(changed.Spec.ClusterIP, "10.96.77.") {
		t.Errorf("the changed Service has address %q, want one by the allocator", changed.Spec.ClusterIP)
	}
}

func testKubernetesService(t *testing.T, p *plane) {
	ctx := t.Context()
	service, err := p.client.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	must(t, "getting default/kubernetes", err)
	if service.Spec.ClusterIP != "10.96.3.3" || service.Spec.Ports[0].Port != 443 {
		t.Errorf("default/kubernetes is %s:%d, want 10.96.3.3:443", service.Spec.ClusterIP, service.Spec.Ports[0].Port)
	}
	eventually(t, "endpoints of default/kubernetes", func(ctx context.Context) error {
		slice, err := p.client.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(slice.Endpoints) != 1 || slice.Endpoints[0].Addresses[0] != "10.96.3.3" || *slice.Ports[0].Port != 443 {
			return fmt.Errorf("got %v, %v", slice.Endpoints, slice.Ports)
		}
		return nil
	})
	leases, err := p.client.CoordinationV1().Leases(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	must(t, "listing leases", err)
	if len(leases.Items) != 0 {
		t.Errorf("there are %d leases, each a write every few seconds; want none", len(leases.Items))
	}
}

func testTokens(t *testing.T, p, other *plane) {
	ctx := t.Context()
	request, err := p.client.CoreV1().ServiceAccounts("default").CreateToken(ctx, "default",
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, "requesting a token", err)
	whoAmI := func(target *plane) (string, error) {
		config := rest.AnonymousClientConfig(target.NetworkConfig())
		config.BearerToken = request.Status.Token
		review, err := kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().
			Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return "", err
		}
		return review.Status.UserInfo.Username, nil
	}
	user, err := whoAmI(p)
	must(t, "using a token", err)
	if user != "system:serviceaccount:default:default" {
		t.Errorf("the token is that of %q", user)
	}
	if user, err := whoAmI(other); !apierrors.IsUnauthorized(err) {
		t.Errorf("another control plane takes the token for %q, %v", user, err)
	}

	_, err = p.client.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	must(t, "creating a token Secret", err)
	eventually(t, "a token in a Secret", func(ctx context.Context) error {
		secret, err := p.client.CoreV1().Secrets("default").Get(ctx, "token", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(secret.Data[corev1.ServiceAccountTokenKey]) == 0 {
			return errors.New("it is empty")
		}
		return nil
	})
}

func testMembers(t *testing.T, p *plane) {
	ctx := t.Context()
	may := func(ctx context.Context, user string, groups []string, verb string, want bool) error {
		review, err := p.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{
				User: user, Groups: groups,
				ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: "default", Verb: verb, Resource: "pods"},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		if review.Status.Allowed != want {
			return fmt.Errorf("%s %v may %s pods: %t", user, groups, verb, review.Status.Allowed)
		}
		return nil
	}
	check := func(user string, groups []string, verb string, want bool) {
		t.Helper()
		eventually(t, "rights of members", func(ctx context.Context) error { return may(ctx, user, groups, verb, want) })
	}
	check("ada", nil, "list", true)
	check("ada", nil, "delete", false)
	check("someone", []string{api.GroupView}, "list", true)
	check("someone", []string{api.GroupView}, "delete", false)
	check("someone", []string{api.GroupEdit}, "delete", true)
	check("someone", []string{api.GroupAdmin}, "impersonate", true)
	check("someone", nil, "list", false)

	must(t, "changing members", p.SetMembers(ctx, []Binding{{Kind: "User", Name: "bob", Role: api.RoleEdit}}))
	check("ada", nil, "list", false)
	check("bob", nil, "delete", true)
	bindings, err := p.client.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{LabelSelector: bindingLabel})
	must(t, "listing bindings", err)
	if len(bindings.Items) != 4 {
		t.Errorf("%d bindings, want those of three groups and one role", len(bindings.Items))
	}
	uid := func() string {
		binding, err := p.client.RbacV1().ClusterRoleBindings().Get(ctx, "sublet:members:edit", metav1.GetOptions{})
		must(t, "reading a binding", err)
		return string(binding.UID)
	}
	before := uid()
	must(t, "adding a member", p.SetMembers(ctx, []Binding{{Kind: "User", Name: "bob", Role: api.RoleEdit}, {Kind: "User", Name: "eve", Role: api.RoleEdit}}))
	check("eve", nil, "delete", true)
	if uid() != before {
		t.Error("the binding was made anew: bob had no rights for a moment")
	}
}

func testPodSecurity(t *testing.T, baseline, privileged *plane) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "host-network"},
		Spec:       corev1.PodSpec{HostNetwork: true, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	if _, err := baseline.client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a pod on the host's network at level baseline: %v", err)
	}
	if _, err := privileged.client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Errorf("a pod on the host's network at level privileged: %v", err)
	}
}

func testReadiness(t *testing.T, p *plane, ready *atomic.Bool) {
	anonymous := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer anonymous.CloseIdleConnections()
	status := func(path string) int {
		response, err := anonymous.Get(p.URL() + path)
		must(t, "probing", err)
		_ = response.Body.Close()
		return response.StatusCode
	}
	if got := status("/readyz"); got != http.StatusInternalServerError {
		t.Errorf("/readyz before the syncer is %d", got)
	}
	if got := status("/livez"); got != http.StatusOK {
		t.Errorf("/livez before the syncer is %d", got)
	}
	ready.Store(true)
	if got := status("/readyz"); got != http.StatusOK {
		t.Errorf("/readyz is %d", got)
	}
	if got := status("/api/v1/namespaces"); got != http.StatusForbidden {
		t.Errorf("anonymous access to namespaces is %d", got)
	}
	body, err := p.client.CoreV1().RESTClient().Get().AbsPath("/readyz").Param("verbose", "").DoRaw(t.Context())
	must(t, "probing", err)
	for _, check := range []string{"[+]etcd ok", "[+]syncer ok"} {
		if !strings.Contains(string(body), check) {
			t.Errorf("/readyz lacks %q:\n%s", check, body)
		}
	}
}

func testProfiling(t *testing.T, on, off *plane) {
	get := func(p *plane, user, path string) ([]byte, error) {
		config := p.Config()
		config.Impersonate.UserName = user
		request := kubernetes.NewForConfigOrDie(config).CoreV1().RESTClient().Get().AbsPath("/debug/pprof/" + path)
		return request.Param("seconds", "1").DoRaw(t.Context())
	}
	for _, path := range []string{"heap", "allocs", "goroutine", "profile", "trace"} {
		t.Run(path, func(t *testing.T) {
			content, err := get(on, "", path)
			if err != nil {
				t.Fatalf("for an administrator: %v", err)
			}
			if path == "trace" {
				if !bytes.HasPrefix(content, []byte("go 1.")) {
					t.Errorf("it begins with %q", content[:min(len(content), 16)])
				}
			} else if parsed, err := profile.ParseData(content); err != nil || len(parsed.SampleType) == 0 {
				t.Errorf("%d bytes: %v", len(content), err)
			}
			if _, err := get(on, "ada", path); !apierrors.IsForbidden(err) {
				t.Errorf("for somebody who may look at objects: %v", err)
			}
			if _, err := get(off, "", path); !apierrors.IsNotFound(err) {
				t.Errorf("where profiling is off: %v", err)
			}
		})
	}
}

func testVersion(t *testing.T, p *plane) {
	version, err := p.client.Discovery().ServerVersion()
	must(t, "asking for the version", err)
	if version.GitVersion != "v1.36.3" || version.Minor != "36" {
		t.Errorf("the version is %+v", version)
	}
}

// testCertificates checks that a client by name and CA alone gets in, and that
// a renewal reaches new connections without a restart.
func testCertificates(t *testing.T, p *plane) {
	content, err := p.Kubeconfig("")
	must(t, "making a kubeconfig", err)
	config, err := clientcmd.RESTConfigFromKubeConfig(content)
	must(t, "reading a kubeconfig", err)
	for _, name := range []string{"", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", "10.96.3.3"} {
		named := rest.CopyConfig(config)
		named.ServerName = name
		if _, err := kubernetes.NewForConfigOrDie(named).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Errorf("as %q: %v", name, err)
		}
	}

	serial := func() string {
		connection, err := tls.Dial("tcp", strings.TrimPrefix(p.URL(), "https://"), &tls.Config{InsecureSkipVerify: true})
		must(t, "connecting", err)
		defer func() { _ = connection.Close() }()
		return connection.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	must(t, "renewing", p.certs.serving.issue(time.Now()))
	eventually(t, "a renewed certificate", func(context.Context) error {
		if serial() == before {
			return errors.New("it is the old one")
		}
		return nil
	})
}

// testSeed checks that our seeding wrote what upstream's hooks would have: they
// find nothing to change.
func testSeed(t *testing.T, p *plane) {
	ctx := t.Context()
	versions := func() map[string]string {
		found := map[string]string{}
		roles, err := p.client.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{})
		must(t, "listing cluster roles", err)
		for _, object := range roles.Items {
			found["clusterrole "+object.Name] = object.ResourceVersion
		}
		bindings, err := p.client.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{})
		must(t, "listing cluster role bindings", err)
		for _, object := range bindings.Items {
			found["clusterrolebinding "+object.Name] = object.ResourceVersion
		}
		namespaced, err := p.client.RbacV1().Roles("").List(ctx, metav1.ListOptions{})
		must(t, "listing roles", err)
		for _, object := range namespaced.Items {
			found["role "+object.Namespace+"/"+object.Name] = object.ResourceVersion
		}
		namespacedBindings, err := p.client.RbacV1().RoleBindings("").List(ctx, metav1.ListOptions{})
		must(t, "listing role bindings", err)
		for _, object := range namespacedBindings.Items {
			found["rolebinding "+object.Namespace+"/"+object.Name] = object.ResourceVersion
		}
		classes, err := p.client.SchedulingV1().PriorityClasses().List(ctx, metav1.ListOptions{})
		must(t, "listing priority classes", err)
		for _, object := range classes.Items {
			found["priorityclass "+object.Name] = object.ResourceVersion
		}
		return found
	}
	eventually(t, "aggregated roles", func(ctx context.Context) error {
		role, err := p.client.RbacV1().ClusterRoles().Get(ctx, "admin", metav1.GetOptions{})
		if err == nil && len(role.Rules) == 0 {
			err = errors.New("it has no rules")
		}
		return err
	})
	before := versions()
	if len(before) < 100 {
		t.Errorf("only %d objects were seeded", len(before))
	}
	must(t, "upstream's reconciliation", reconcileSeed(ctx, p.config))
	if diff := compare(before, versions()); diff != "" {
		t.Errorf("upstream's reconciliation changed what was seeded, -before +after:\n%s", diff)
	}

	must(t, "spoiling a role", p.client.RbacV1().ClusterRoles().Delete(ctx, "system:basic-user", metav1.DeleteOptions{}))
	must(t, "reconciling", reconcileSeed(ctx, p.config))
	if _, err := p.client.RbacV1().ClusterRoles().Get(ctx, "system:basic-user", metav1.GetOptions{}); err != nil {
		t.Errorf("a deleted default role did not come back: %v", err)
	}
}

// TestRestart checks that data outlives a clean stop, and that members are
// brought up to date at the next start.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir, func(o *Options) { o.Members = []Binding{{Kind: "User", Name: "ada", Role: api.RoleView}} })
	made, err := first.client.CoreV1().ConfigMaps("default").Create(t.Context(),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}}, metav1.CreateOptions{})
	must(t, "creating a ConfigMap", err)
	must(t, "stopping", first.stop())
	if first.Ready() {
		t.Error("it is ready after it stopped")
	}

	second := start(t, dir, nil)
	kept, err := second.client.CoreV1().ConfigMaps("default").Get(t.Context(), "kept", metav1.GetOptions{})
	must(t, "getting the ConfigMap after a restart", err)
	if kept.UID != made.UID {
		t.Errorf("the ConfigMap is another one")
	}
	eventually(t, "the binding of a member who is gone", func(ctx context.Context) error {
		_, err := second.client.RbacV1().ClusterRoleBindings().Get(ctx, "sublet:members:view", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is still there: %v", err)
	})
}

// TestHostProfile starts what the local host starts.
func TestHostProfile(t *testing.T) {
	p := start(t, t.TempDir(), func(o *Options) {
		o.Profile = ProfileHost
		o.BindAddress = "0.0.0.0"
		o.AdvertiseAddress = "192.0.2.7"
		o.KubernetesServiceIP = nil
	})
	ctx := t.Context()
	eventually(t, "the endpoint of default/kubernetes", func(ctx context.Context) error {
		slice, err := p.client.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(slice.Endpoints) != 1 || slice.Endpoints[0].Addresses[0] != "192.0.2.7" {
			return fmt.Errorf("got %v", slice.Endpoints)
		}
		return nil
	})
	_, err := p.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one"}}, metav1.CreateOptions{})
	must(t, "creating a node", err)
	eventually(t, "the taint of a node that is not ready", func(ctx context.Context) error {
		node, err := p.client.CoreV1().Nodes().Get(ctx, "one", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == corev1.TaintNodeNotReady }) {
			return fmt.Errorf("taints are %v", node.Spec.Taints)
		}
		return nil
	})
	// A node may write itself and no other: Node authorization and
	// NodeRestriction are on.
	node := rest.CopyConfig(p.Config())
	node.Impersonate = rest.ImpersonationConfig{UserName: "system:node:two", Groups: []string{"system:nodes", "system:authenticated"}}
	patch := []byte(`{"metadata":{"labels":{"a":"b"}}}`)
	if _, err := kubernetes.NewForConfigOrDie(node).CoreV1().Nodes().Patch(ctx, "one", "application/merge-patch+json", patch, metav1.PatchOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a node changes another one: %v", err)
	}
	if _, err := p.client.RbacV1().ClusterRoleBindings().Get(ctx, "system:node", metav1.GetOptions{}); err != nil {
		t.Errorf("default bindings are missing: %v", err)
	}
	if _, err := p.client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "mine"}}, metav1.CreateOptions{}); err != nil {
		t.Errorf("creating a role: %v", err)
	}
}

// TestStopLeavesNothing checks ports, files and goroutines.
func TestStopLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", shortTempDir(t))
	// The first control plane of a process starts what the libraries keep.
	warm := start(t, t.TempDir(), nil)
	must(t, "stopping", warm.stop())
	// Some requests wait three seconds before they notice.
	time.Sleep(5 * time.Second)
	before := runtime.NumGoroutine()

	p := start(t, t.TempDir(), nil)
	address := strings.TrimPrefix(p.URL(), "https://")
	must(t, "stopping", p.stop())
	if connection, err := net.Dial("tcp", address); err == nil {
		_ = connection.Close()
		t.Errorf("%s is still open", address)
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "sublet-*"))
	must(t, "listing files", err)
	if len(left) != 0 {
		t.Errorf("files are left: %v", left)
	}
	err = wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, testTimeout, true, func(context.Context) (bool, error) {
		// Client-go ends what belongs to a transport when the collector finds it.
		runtime.GC()
		return runtime.NumGoroutine() <= before+5, nil
	})
	if err != nil {
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
	}
}

// TestWatchesOfFiles counts the inotify instances of a control plane, of which a
// user may have 128 by default: as many as tenants on a machine.
func TestWatchesOfFiles(t *testing.T) {
	before := watchesOfFiles(t)
	p := start(t, t.TempDir(), nil)
	defer func() { must(t, "stopping", p.stop()) }()
	// The certificate for the servers of aggregated APIs is replaced as a file.
	if added := watchesOfFiles(t) - before; added > 1 {
		t.Errorf("a control plane has %d inotify instances, and more than one are too many", added)
	}
}

func watchesOfFiles(t *testing.T) int {
	descriptors, err := filepath.Glob("/proc/self/fd/*")
	must(t, "listing descriptors", err)
	count := 0
	for _, descriptor := range descriptors {
		// Some are closed by now.
		if target, err := os.Readlink(descriptor); err == nil && target == "anon_inode:inotify" {
			count++
		}
	}
	return count
}

// shortTempDir is one whose sockets have names that are short enough.
func shortTempDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "cp")
	must(t, "making a directory", err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestCorruptData checks that data which cannot be read is an error that says
// what to do, and that it stays as it is.
func TestCorruptData(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir, nil)
	must(t, "stopping", p.stop())

	damage := map[string]struct {
		reason string
		file   string
		break_ func(path string) error
	}{
		"Database": {
			reason: "The database is no database.",
			file:   "member/snap/db",
			break_: func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("nonsense", 4096)), 0o600) },
		},
		"Log": {
			reason: "The log is damaged in the middle.",
			file:   "member/wal/0000000000000000-0000000000000000.wal",
			break_: func(path string) error {
				file, err := os.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					return err
				}
				_, err = file.WriteAt([]byte(strings.Repeat("x", 512)), 64)
				return errors.Join(err, file.Close())
			},
		},
	}
	for name, tc := range damage {
		t.Run(name, func(t *testing.T) {
			broken := t.TempDir()
			must(t, "copying data", os.CopyFS(broken, os.DirFS(dir)))
			path := filepath.Join(broken, "data", tc.file)
			must(t, "damaging data", tc.break_(path))
			damaged, err := os.ReadFile(path)
			must(t, "reading data", err)

			o, err := testOptions(broken)
			must(t, "making options", err)
			_, err = Start(t.Context(), o)
			if err == nil {
				t.Fatalf("%s\nStart() gave no error", tc.reason)
			}
			for _, part := range []string{o.DataDir, "backup", "nothing was deleted"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s\nStart() = %v, want it to say %q", tc.reason, err, part)
				}
			}
			after, err := os.ReadFile(path)
			must(t, "reading data", err)
			if string(after) != string(damaged) {
				t.Errorf("%s\n%s was changed", tc.reason, tc.file)
			}
		})
	}
}

// TestDirectoryInUse checks that two control planes never share their data.
func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	start(t, dir, nil)
	o, err := testOptions(dir)
	must(t, "making options", err)
	if _, err := Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Start() = %v", err)
	}
}

// TestProcessSettings checks that what is global is not changed under the feet
// of another control plane, and that unknown values say what is known.
func TestProcessSettings(t *testing.T) {
	start(t, t.TempDir(), nil)
	cases := map[string]struct {
		reason string
		change func(*Options)
		want   []string
	}{
		"UnknownVersion": {
			reason: "An unknown version says which are known.",
			change: func(o *Options) { o.EmulatedVersion = "1.20" },
			want:   []string{`"1.20"`, "1.33, 1.34, 1.35, 1.36"},
		},
		"Nonsense": {
			reason: "No version says which are known.",
			change: func(o *Options) { o.EmulatedVersion = "newest" },
			want:   []string{`"newest"`, "1.33, 1.34, 1.35, 1.36"},
		},
		"OtherVersion": {
			reason: "The emulated version is one for a process.",
			change: func(o *Options) { o.EmulatedVersion = "1.34" },
			want:   []string{`"1.34"`, "another process"},
		},
		"OtherGates": {
			reason: "Feature gates are one set for a process.",
			change: func(o *Options) { o.FeatureGates = map[string]bool{"GenericWorkload": true} },
			want:   []string{"another process"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			o, err := testOptions(t.TempDir())
			must(t, "making options", err)
			tc.change(&o)
			_, err = Start(t.Context(), o)
			for _, part := range tc.want {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("%s\nStart() = %v, want it to say %s", tc.reason, err, part)
				}
			}
		})
	}
}

// TestKill kills a control plane while it writes, and looks for everything that
// it had acknowledged.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real control plane")
	}
	dir := t.TempDir()
	command := exec.Command(os.Args[0], dir)
	command.Env = append(os.Environ(), helperVariable+"=writer")
	output, err := command.StdoutPipe()
	must(t, "starting a writer", err)
	must(t, "starting a writer", command.Start())

	var names []string
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "acknowledged "); ok {
			names = append(names, name)
		}
		if len(names) == 200 {
			must(t, "killing the writer", command.Process.Kill())
		}
	}
	_ = command.Wait()
	if len(names) < 200 {
		t.Fatalf("the writer ended after %d objects", len(names))
	}

	p := start(t, dir, nil)
	list, err := p.client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	must(t, "listing ConfigMaps", err)
	found := map[string]bool{}
	for _, object := range list.Items {
		found[object.Name] = true
	}
	for _, name := range names {
		if !found[name] {
			t.Errorf("ConfigMap %q was acknowledged and is lost", name)
		}
	}
}

// writeUntilKilled is the process that TestKill kills.
func writeUntilKilled(ctx context.Context, dir string) error {
	o, err := testOptions(dir)
	if err != nil {
		return err
	}
	p, err := Start(ctx, o)
	if err != nil {
		return err
	}
	config := p.Config()
	config.QPS = -1
	maps := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps("default")
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("kept-%d-%d", w, i)
				object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"a": strings.Repeat("b", 500)}}
				if _, err := maps.Create(ctx, object, metav1.CreateOptions{}); err != nil {
					return
				}
				fmt.Println("acknowledged", name)
			}
		})
	}
	writers.Wait()
	return errors.New("the API server refused a write")
}

// TestEmulatedVersion asks for an older API in a process of its own, as the
// version is global.
func TestEmulatedVersion(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real control plane")
	}
	command := exec.Command(os.Args[0], t.TempDir())
	command.Env = append(os.Environ(), helperVariable+"=emulated")
	var problems strings.Builder
	command.Stderr = &problems
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, problems.String())
	}
	var got emulation
	must(t, "reading the answer", json.Unmarshal(output, &got))
	want := emulation{GitVersion: "v1.34.0+sublet-1.36.3", Minor: "34", EmulationMajor: "1", EmulationMinor: "34", Gate: true, PodsAppear: true}
	if diff := compare(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// emulation is what showEmulated found.
type emulation struct {
	GitVersion, Minor, EmulationMajor, EmulationMinor string
	// NewAPI tells whether an API is served that 1.34 did not have.
	NewAPI bool
	// Gate tells whether a feature gate took effect.
	Gate bool
	// PodsAppear tells whether the controllers work with the older API.
	PodsAppear bool
}

func showEmulated(ctx context.Context, dir string) error {
	o, err := testOptions(dir)
	if err != nil {
		return err
	}
	o.EmulatedVersion = "1.34"
	o.FeatureGates = map[string]bool{"ClusterTrustBundle": true}
	o.RuntimeConfig = map[string]string{"certificates.k8s.io/v1beta1": "true"}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p, err := Start(ctx, o)
	if err != nil {
		return err
	}
	client := kubernetes.NewForConfigOrDie(p.Config())
	version, err := client.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	found := emulation{GitVersion: version.GitVersion, Minor: version.Minor, EmulationMajor: version.EmulationMajor, EmulationMinor: version.EmulationMinor}
	has := func(groupVersion, resource string) (bool, error) {
		list, err := client.Discovery().ServerResourcesForGroupVersion(groupVersion)
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == resource }), nil
	}
	if found.NewAPI, err = has("admissionregistration.k8s.io/v1", "mutatingadmissionpolicies"); err != nil {
		return err
	}
	if found.Gate, err = has("certificates.k8s.io/v1beta1", "clustertrustbundles"); err != nil {
		return err
	}
	labels := map[string]string{"app": "web"}
	_, err = client.AppsV1().ReplicaSets("default").Create(ctx, &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.ReplicaSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	found.PodsAppear = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, testTimeout, true, func(ctx context.Context) (bool, error) {
		pods, err := client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		return err == nil && len(pods.Items) == 1, nil
	}) == nil
	cancel()
	if err := p.Wait(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

// TestFailedChecks holds that who waits for a start in vain is told for what.
func TestFailedChecks(t *testing.T) {
	body := []byte("[+]ping ok\n[-]informer-sync failed: reason withheld\n[+]etcd ok\n[-]poststarthook/x failed: reason withheld\nreadyz check failed\n")
	if got, want := failedChecks(body, errors.New("500")), "[-]informer-sync failed: reason withheld, [-]poststarthook/x failed: reason withheld"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := failedChecks(nil, errors.New("no answer")); got != "no answer" {
		t.Errorf("got %q", got)
	}
}
