//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/dynamic"
	certutil "k8s.io/client-go/util/cert"
	imageutils "k8s.io/kubernetes/test/utils/image"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// kindsTenant may use what a tenant has only if its limits say so.
const kindsTenant = `
apiVersion: sublet.dev/v1alpha1
kind: Tenant
metadata: {name: e2e-kinds}
spec:
  type: VirtualCluster
  limits:
    hosts: ["*.shop.example.com"]
    gateways: [e2e-gateways/public]
    serviceAccountAnnotations: [identity.example.com/role]
    priorityClasses: [e2e-kinds]
    runtimeClasses: [e2e-kinds]
    tolerations: [{key: e2e.example.com/dedicated, operator: Exists}]
    customResources:
    - group: e2e.example.com
      version: v1
      kind: Certificate
      resource: certificates
      references: [{path: .spec.secretName, kind: Secret, from: Host}]
      hostPaths: [".spec.dnsNames[*]"]
`

// What the suite installs Sublet with, for these tests.
const (
	ingressNamespace = "e2e-ingress"
	customGroup      = "e2e.example.com"
	customResource   = "certificates"
)

// kindsTest is a tenant that several tests share, each in a namespace of its own.
type kindsTest struct {
	*suite
	tn *tenant
	// virtual reaches the tenant's custom resources.
	virtual dynamic.Interface
}

// TestKinds: what crosses to the host beside the kinds that every pod needs does
// there what it says, and what the host says of it comes back.
func TestKinds(t *testing.T) {
	s := shared(t)
	s.onLocalHost(t)
	s.hostOfKinds(t)
	file := filepath.Join(t.TempDir(), "tenant.yaml")
	if err := os.WriteFile(file, []byte(kindsTenant), 0o644); err != nil {
		t.Fatal(err)
	}
	k := &kindsTest{suite: s, tn: s.newTenantBy(t, "e2e-kinds", "-f", file)}
	var err error
	if k.virtual, err = dynamic.NewForConfig(k.tn.config); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]func(*testing.T){
		"Ingress":             k.testIngress,
		"HTTPRoute":           k.testHTTPRoute,
		"PodDisruptionBudget": k.testBudget,
		"ServiceAccount":      k.testServiceAccount,
		"CustomResource":      k.testCustomResource,
		"Volume":              k.testVolume,
		"PullSecret":          k.testPullSecret,
		"Classes":             k.testClasses,
		"Placement":           k.testPlacement,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// hostOfKinds makes what the platform has: classes and the definition of a custom
// resource.
func (s *suite) hostOfKinds(t *testing.T) {
	t.Helper()
	const name = "e2e-kinds"
	ctx, create := t.Context(), metav1.CreateOptions{}
	made := func(what string, err error, remove func(context.Context) error) {
		t.Helper()
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		afterwards(t, what, remove)
	}
	meta := metav1.ObjectMeta{Name: name}
	_, err := s.host.NetworkingV1().IngressClasses().Create(ctx, &networkingv1.IngressClass{
		ObjectMeta: meta, Spec: networkingv1.IngressClassSpec{Controller: "e2e.example.com/ingress"},
	}, create)
	made("the ingress class", err, func(ctx context.Context) error {
		return s.host.NetworkingV1().IngressClasses().Delete(ctx, name, metav1.DeleteOptions{})
	})
	_, err = s.host.SchedulingV1().PriorityClasses().Create(ctx, &schedulingv1.PriorityClass{ObjectMeta: meta, Value: 4711}, create)
	made("the priority class", err, func(ctx context.Context) error {
		return s.host.SchedulingV1().PriorityClasses().Delete(ctx, name, metav1.DeleteOptions{})
	})
	_, err = s.host.NodeV1().RuntimeClasses().Create(ctx, &nodev1.RuntimeClass{ObjectMeta: meta, Handler: "test-handler"}, create)
	made("the runtime class", err, func(ctx context.Context) error {
		return s.host.NodeV1().RuntimeClasses().Delete(ctx, name, metav1.DeleteOptions{})
	})
	s.define(t, s.dynamic, certificates)
}

// certificates is a kind of the host as a program like cert-manager has it.
const certificates = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: certificates.e2e.example.com}
spec:
  group: e2e.example.com
  scope: Namespaced
  names: {plural: certificates, singular: certificate, kind: Certificate, listKind: CertificateList}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [secretName]
            properties:
              secretName: {type: string}
              dnsNames: {type: array, items: {type: string}}
          status:
            type: object
            properties:
              conditions:
                type: array
                items: {type: object, properties: {type: {type: string}, status: {type: string}, message: {type: string}}}
`

func definitions() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
}

// define installs a definition for as long as the test runs, unless it is there.
func (s *suite) define(t *testing.T, in dynamic.Interface, text string) {
	t.Helper()
	definition := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &definition.Object); err != nil {
		t.Fatal(err)
	}
	delete(definition.Object, "status")
	_, err := in.Resource(definitions()).Create(t.Context(), definition, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	afterwards(t, "a definition", func(ctx context.Context) error {
		return in.Resource(definitions()).Delete(ctx, definition.GetName(), metav1.DeleteOptions{})
	})
}

// onHost waits for the host's object of a virtual one, as it should be.
func onHost[T any](t *testing.T, k *kindsTest, in schema.GroupVersionResource, namespace, name string, ok func(*T) error) *T {
	t.Helper()
	var found *T
	// Kinds that somebody has to install are looked for once a minute.
	eventually(t, 90*time.Second, fmt.Sprintf("%s %s is on the host", in.Resource, name), func() error {
		object, err := k.counterpart(t.Context(), in, namespace, name)
		if err != nil {
			return err
		}
		found = new(T)
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, found); err != nil {
			return err
		}
		if ok == nil {
			return nil
		}
		return ok(found)
	})
	return found
}

// counterpart is the host's object of a virtual one.
func (k *kindsTest) counterpart(ctx context.Context, in schema.GroupVersionResource, namespace, name string) (*unstructured.Unstructured, error) {
	list, err := k.dynamic.Resource(in).Namespace(k.tn.namespace).List(ctx, metav1.ListOptions{LabelSelector: api.LabelVirtualNamespace + "=" + namespace})
	if err != nil {
		return nil, err
	}
	for i := range list.Items {
		if list.Items[i].GetAnnotations()[api.AnnotationVirtualName] == name {
			return &list.Items[i], nil
		}
	}
	return nil, errNotOnHost
}

var errNotOnHost = errors.New("the host has none")

// hears waits for an event about a virtual object that says something.
func (k *kindsTest) hears(t *testing.T, namespace, kind, name, text string) {
	t.Helper()
	eventually(t, time.Minute, fmt.Sprintf("an event about the %s %s says %q", kind, name, text), func() error {
		events, err := k.tn.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=" + kind + ",involvedObject.name=" + name})
		if err != nil {
			return err
		}
		for _, event := range events.Items {
			if strings.Contains(event.Message, text) {
				return nil
			}
		}
		return fmt.Errorf("%d events", len(events.Items))
	})
}

func ingresses() schema.GroupVersionResource {
	return networkingv1.SchemeGroupVersion.WithResource("ingresses")
}

// testIngress: who asks an ingress controller of the host for a host name reaches
// the tenant's pod, with the tenant's certificate. The controller is nginx, with
// the configuration that one would make of the host's Ingress.
func (k *kindsTest) testIngress(t *testing.T) {
	ctx, tn := t.Context(), k.tn
	if out, err := k.command(ctx, k.path(".cache/bin/host"), "load", "nginx").CombinedOutput(); err != nil {
		t.Fatalf("put nginx on the host: %v\n%s", err, out)
	}
	const name = "www.shop.example.com"
	ns := tn.newNamespace(t, "ingress")
	tn.start(t, ns, newServer("web"))
	if _, err := tn.CoreV1().Services(ns).Create(ctx, newService("web"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	cert, key, err := certutil.GenerateSelfSignedCertKey(name, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	certificate := map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key}
	if _, err := tn.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "web-tls"}, Type: corev1.SecretTypeTLS, Data: certificate}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the tenant sees the host's class", func() error {
		_, err := tn.NetworkingV1().IngressClasses().Get(ctx, "e2e-kinds", metav1.GetOptions{})
		return err
	})
	ingress := func(name, host string) *networkingv1.Ingress {
		return &networkingv1.Ingress{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: networkingv1.IngressSpec{
				IngressClassName: ptr.To("e2e-kinds"),
				TLS:              []networkingv1.IngressTLS{{Hosts: []string{host}, SecretName: "web-tls"}},
				Rules: []networkingv1.IngressRule{{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
					Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: ptr.To(networkingv1.PathTypePrefix), Backend: networkingv1.IngressBackend{
						Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Name: "http"}},
					}}},
				}}}},
			},
		}
	}
	for _, made := range []*networkingv1.Ingress{ingress("web", name), ingress("greedy", "www.example.com")} {
		if _, err := tn.NetworkingV1().Ingresses(ns).Create(ctx, made, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	host := onHost[networkingv1.Ingress](t, k, ingresses(), ns, "web", nil)
	k.hears(t, ns, "Ingress", "greedy", "www.example.com")
	if _, err := k.counterpart(ctx, ingresses(), ns, "greedy"); !errors.Is(err, errNotOnHost) {
		t.Errorf("an Ingress for somebody else's host is on the host (%v)", err)
	}

	address := k.ingressController(t, host)
	visitor := newPod("visitor")
	controllers, err := newCluster(k.config)
	if err != nil {
		t.Fatal(err)
	}
	controllers.start(t, ingressNamespace, visitor)
	eventually(t, time.Minute, "the name leads to the tenant's pod", func() error {
		script := fmt.Sprintf("echo %s | base64 -d >/tmp/ca.crt; curl -sS --max-time 5 --cacert /tmp/ca.crt --resolve %[2]s:8443:%[3]s https://%[2]s:8443/hostname", base64Of(cert), name, address)
		out, err := controllers.exec(ctx, ingressNamespace, "visitor", "sh", "-euc", script)
		if err == nil && out != "web" {
			err = fmt.Errorf("answered %q", out)
		}
		return err
	})

	status := []byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.7"}]}}}`)
	if _, err := k.host.NetworkingV1().Ingresses(k.tn.namespace).Patch(ctx, host.Name, types.MergePatchType, status, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the tenant sees the address", func() error {
		found, err := tn.NetworkingV1().Ingresses(ns).Get(ctx, "web", metav1.GetOptions{})
		if err == nil && (len(found.Status.LoadBalancer.Ingress) != 1 || found.Status.LoadBalancer.Ingress[0].IP != "198.51.100.7") {
			err = fmt.Errorf("status %+v", found.Status)
		}
		return err
	})
}

// ingressController runs nginx as an ingress controller would, and returns its
// address.
func (k *kindsTest) ingressController(t *testing.T, ingress *networkingv1.Ingress) string {
	t.Helper()
	ctx := t.Context()
	host, err := newCluster(k.config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := host.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ingressNamespace}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	afterwards(t, "the controller's namespace", func(ctx context.Context) error {
		return host.CoreV1().Namespaces().Delete(ctx, ingressNamespace, metav1.DeleteOptions{})
	})
	eventually(t, 20*time.Second, "the namespace has its default ServiceAccount", func() error {
		_, err := host.CoreV1().ServiceAccounts(ingressNamespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	rule, secretName := ingress.Spec.Rules[0], ingress.Spec.TLS[0].SecretName
	backend := rule.HTTP.Paths[0].Backend.Service
	var secret *corev1.Secret
	eventually(t, 20*time.Second, "the certificate is on the host", func() (err error) {
		secret, err = host.CoreV1().Secrets(ingress.Namespace).Get(ctx, secretName, metav1.GetOptions{})
		return err
	})
	service, err := host.CoreV1().Services(ingress.Namespace).Get(ctx, backend.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	port := int32(0)
	for _, p := range service.Spec.Ports {
		if p.Name == backend.Port.Name {
			port = p.Port
		}
	}
	configuration := fmt.Sprintf(`
pid /tmp/nginx.pid;
events {}
http {
	access_log off;
	server {
		listen 8443 ssl;
		server_name %s;
		ssl_certificate /controller/tls.crt;
		ssl_certificate_key /controller/tls.key;
		location %s { proxy_pass http://%s:%d; proxy_set_header Host $host; }
	}
}
`, rule.Host, rule.HTTP.Paths[0].Path, service.Spec.ClusterIP, port)
	if _, err := host.CoreV1().Secrets(ingressNamespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "controller"},
		Data:       map[string][]byte{"nginx.conf": []byte(configuration), "tls.crt": secret.Data[corev1.TLSCertKey], "tls.key": secret.Data[corev1.TLSPrivateKeyKey]},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	controller := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "controller"},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			Volumes:                       []corev1.Volume{{Name: "controller", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "controller"}}}},
			Containers: []corev1.Container{{
				Name: "main", Image: imageutils.GetE2EImage(imageutils.Nginx),
				Command:        []string{"nginx", "-e", "/dev/stderr", "-c", "/controller/nginx.conf", "-g", "daemon off;"},
				VolumeMounts:   []corev1.VolumeMount{{Name: "controller", MountPath: "/controller", ReadOnly: true}},
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8443)}}, PeriodSeconds: 1},
			}},
		},
	}
	return host.start(t, ingressNamespace, controller).Status.PodIP
}

// testHTTPRoute: a route attaches to the host's Gateway that the limits name, and
// hears what that says; the definitions of the Gateway API come late.
func (k *kindsTest) testHTTPRoute(t *testing.T) {
	ctx := t.Context()
	module := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api")
	module.Dir = k.root
	dir, err := module.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, plural := range []string{"gatewayclasses", "httproutes"} {
		text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "config/crd/standard/gateway.networking.k8s.io_"+plural+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		k.define(t, k.dynamic, string(text))
		k.define(t, k.virtual, string(text))
	}
	group := schema.GroupVersion{Group: "gateway.networking.k8s.io", Version: "v1"}
	classes, routes := group.WithResource("gatewayclasses"), group.WithResource("httproutes")
	class := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": group.String(), "kind": "GatewayClass", "metadata": map[string]any{"name": "e2e-kinds"},
		"spec": map[string]any{"controllerName": "e2e.example.com/gateway"},
	}}
	route := func(name, gateway string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": group.String(), "kind": "HTTPRoute", "metadata": map[string]any{"name": name},
			"spec": map[string]any{
				"hostnames":  []any{"routed.shop.example.com"},
				"parentRefs": []any{map[string]any{"namespace": "e2e-gateways", "name": gateway}},
				"rules":      []any{map[string]any{"backendRefs": []any{map[string]any{"name": "web", "port": int64(80)}}}},
			},
		}}
	}
	ns := k.tn.newNamespace(t, "route")
	create := func(in dynamic.ResourceInterface, object *unstructured.Unstructured) {
		t.Helper()
		eventually(t, 30*time.Second, "create "+object.GetName(), func() error {
			_, err := in.Create(ctx, object, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) {
				return nil
			}
			return err
		})
	}
	create(k.dynamic.Resource(classes), class)
	afterwards(t, "the gateway class", func(ctx context.Context) error {
		return k.dynamic.Resource(classes).Delete(ctx, "e2e-kinds", metav1.DeleteOptions{})
	})
	virtual := k.virtual.Resource(routes).Namespace(ns)
	create(virtual, route("web", "public"))
	create(virtual, route("foreign", "internal"))
	host := onHost[unstructured.Unstructured](t, k, routes, ns, "web", nil)
	rules, _, _ := unstructured.NestedSlice(host.Object, "spec", "rules")
	if text, _ := json.Marshal(rules); len(rules) != 1 || strings.Contains(string(text), `"name":"web"`) {
		t.Errorf("the host's route leads to %s", text)
	}
	k.hears(t, ns, "HTTPRoute", "foreign", "e2e-gateways/public")
	if _, err := k.counterpart(ctx, routes, ns, "foreign"); !errors.Is(err, errNotOnHost) {
		t.Errorf("a route for a Gateway that the limits do not name is on the host (%v)", err)
	}
	status := fmt.Appendf(nil, `{"status":{"parents":[{"parentRef":{"namespace":"e2e-gateways","name":"public"},"controllerName":"e2e.example.com/gateway",
		"conditions":[{"type":"Accepted","status":"True","reason":"Accepted","message":"%s is attached","observedGeneration":%d,"lastTransitionTime":"2026-01-02T03:04:05Z"}]}]}}`, host.GetName(), host.GetGeneration())
	if _, err := k.dynamic.Resource(routes).Namespace(k.tn.namespace).Patch(ctx, host.GetName(), types.MergePatchType, status, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the Gateway's word comes back, in the tenant's names", func() error {
		found, err := virtual.Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if text, _ := json.Marshal(found.Object["status"]); !strings.Contains(string(text), "web is attached") || strings.Contains(string(text), host.GetName()) {
			return fmt.Errorf("status %s", text)
		}
		return nil
	})
	eventually(t, 90*time.Second, "the tenant sees the host's class", func() error {
		_, err := k.virtual.Resource(classes).Get(ctx, "e2e-kinds", metav1.GetOptions{})
		return err
	})
}

// testBudget: who drains a node of the host cannot evict what a budget of the
// tenant keeps.
func (k *kindsTest) testBudget(t *testing.T) {
	ctx, tn := t.Context(), k.tn
	ns := tn.newNamespace(t, "budget")
	server := newServer("kept")
	if _, err := tn.AppsV1().Deployments(ns).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "kept"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](2),
			Selector: &metav1.LabelSelector{MatchLabels: server.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: server.Labels}, Spec: server.Spec},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	budget := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "kept"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromInt32(0)), Selector: &metav1.LabelSelector{MatchLabels: server.Labels}},
	}
	if _, err := tn.PolicyV1().PodDisruptionBudgets(ns).Create(ctx, budget, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	budgets := policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets")
	allows := func(n int32) func(*policyv1.PodDisruptionBudget) error {
		return func(b *policyv1.PodDisruptionBudget) error {
			if b.Status.CurrentHealthy != 2 || b.Status.DisruptionsAllowed != n || b.Status.ObservedGeneration != b.Generation {
				return fmt.Errorf("status %+v", b.Status)
			}
			return nil
		}
	}
	onHost(t, k, budgets, ns, "kept", allows(0))
	pods, err := k.host.CoreV1().Pods(tn.namespace).List(ctx, metav1.ListOptions{LabelSelector: api.LabelVirtualNamespace + "=" + ns})
	if err != nil || len(pods.Items) != 2 {
		t.Fatalf("%d pods, %v", len(pods.Items), err)
	}
	evict := func() error {
		return k.host.PolicyV1().Evictions(tn.namespace).Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: tn.namespace, Name: pods.Items[0].Name}})
	}
	if err := evict(); !apierrors.IsTooManyRequests(err) {
		t.Errorf("an eviction that the tenant's budget forbids: %v", err)
	}
	if _, err := tn.PolicyV1().PodDisruptionBudgets(ns).Patch(ctx, "kept", types.MergePatchType, []byte(`{"spec":{"maxUnavailable":1}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	onHost(t, k, budgets, ns, "kept", allows(1))
	if err := evict(); err != nil {
		t.Errorf("an eviction that the tenant's budget allows: %v", err)
	}
	eventually(t, time.Minute, "another pod takes its place", func() error {
		now, err := tn.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		ready := 0
		for i := range now.Items {
			if host := pods.Items[0].Annotations[api.AnnotationVirtualUID]; podReady(&now.Items[i]) && string(now.Items[i].UID) != host {
				ready++
			}
		}
		if ready != 2 {
			return fmt.Errorf("%d of %d are ready", ready, len(now.Items))
		}
		return nil
	})
}

// testServiceAccount: a pod of an account with an annotation that the limits name
// runs on the host under an account with that annotation and no rights; in the
// pod it is the tenant's account as ever.
func (k *kindsTest) testServiceAccount(t *testing.T) {
	ctx, tn := t.Context(), k.tn
	ns := tn.newNamespace(t, "account")
	if _, err := tn.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
		Name: "robot", Annotations: map[string]string{"identity.example.com/role": "reader", "identity.example.com/other": "x"},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := newPod("robot")
	pod.Spec.ServiceAccountName = "robot"
	tn.start(t, ns, pod)
	tn.start(t, ns, newPod("plain"))
	account := onHost[corev1.ServiceAccount](t, k, corev1.SchemeGroupVersion.WithResource("serviceaccounts"), ns, "robot", nil)
	if account.Annotations["identity.example.com/role"] != "reader" || account.Annotations["identity.example.com/other"] != "" {
		t.Errorf("annotations of the host's account: %v", account.Annotations)
	}
	for name, want := range map[string]string{"robot": account.Name, "plain": api.WorkloadServiceAccountName} {
		host, err := k.hostPod(ctx, tn, ns, name)
		if err != nil || host.Spec.ServiceAccountName != want {
			t.Errorf("the pod %s runs as %q on the host (%v), want %q", name, host.Spec.ServiceAccountName, err, want)
		}
	}
	claims := struct {
		Subject string `json:"sub"`
	}{}
	token := tn.sh(t, ns, "robot", "cut -d. -f2 /var/run/secrets/kubernetes.io/serviceaccount/token | tr -- '-_' '+/' | base64 -d 2>/dev/null || true")
	if err := json.Unmarshal([]byte(token), &claims); err != nil || claims.Subject != "system:serviceaccount:"+ns+":robot" {
		t.Errorf("in the pod it is %q (%v)", claims.Subject, err)
	}
}

// testCustomResource: a kind of the host is the tenant's too; what a program on
// the host makes for it comes to the tenant, into a pod, and what it says.
func (k *kindsTest) testCustomResource(t *testing.T) {
	ctx, tn := t.Context(), k.tn
	ns := tn.newNamespace(t, "custom")
	resources := schema.GroupVersionResource{Group: customGroup, Version: "v1", Resource: customResource}
	virtual := k.virtual.Resource(resources).Namespace(ns)
	certificate := func(name, dnsName string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": resources.GroupVersion().String(), "kind": "Certificate", "metadata": map[string]any{"name": name},
			"spec": map[string]any{"secretName": name + "-tls", "dnsNames": []any{dnsName}},
		}}
	}
	for name, dnsName := range map[string]string{"web": "www.shop.example.com", "greedy": "www.example.com"} {
		eventually(t, 90*time.Second, "the tenant has the kind", func() error {
			_, err := virtual.Create(ctx, certificate(name, dnsName), metav1.CreateOptions{})
			return err
		})
	}
	host := onHost[unstructured.Unstructured](t, k, resources, ns, "web", nil)
	k.hears(t, ns, "Certificate", "greedy", "www.example.com")
	if _, err := k.counterpart(ctx, resources, ns, "greedy"); !errors.Is(err, errNotOnHost) {
		t.Errorf("a certificate for somebody else's host is on the host (%v)", err)
	}
	secretName, _, _ := unstructured.NestedString(host.Object, "spec", "secretName")
	if _, err := k.host.CoreV1().Secrets(tn.namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: secretName}, Data: map[string][]byte{"tls.crt": []byte("issued by the host")},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	status := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":"True","message":"%s is in %s"}]}}`, host.GetName(), secretName)
	if _, err := k.dynamic.Resource(resources).Namespace(tn.namespace).Patch(ctx, host.GetName(), types.MergePatchType, status, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the status comes back, in the tenant's names", func() error {
		found, err := virtual.Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if text, _ := json.Marshal(found.Object["status"]); !strings.Contains(string(text), "web is in web-tls") {
			return fmt.Errorf("status %s", text)
		}
		return nil
	})
	pod := newPod("user")
	pod.Spec.Volumes = []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "web-tls"}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "tls", MountPath: "/tls", ReadOnly: true}}
	tn.start(t, ns, pod)
	if got := tn.sh(t, ns, "user", "cat /tls/tls.crt"); got != "issued by the host" {
		t.Errorf("in the pod there is %q", got)
	}
	if err := virtual.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "both go, on both sides", func() error {
		if _, err := k.counterpart(ctx, resources, ns, "web"); !errors.Is(err, errNotOnHost) {
			return fmt.Errorf("the host's certificate: %w", err)
		}
		if _, err := tn.CoreV1().Secrets(ns).Get(ctx, "web-tls", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the tenant's Secret: %w", err)
		}
		if _, err := k.host.CoreV1().Secrets(tn.namespace).Get(ctx, secretName, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the host's Secret: %w", err)
		}
		return nil
	})
}

// testVolume: what a pod has written the next one reads; the tenant sees its
// volume, and nothing of where that is.
func (k *kindsTest) testVolume(t *testing.T) {
	ctx, tn := t.Context(), k.tn
	ns := tn.newNamespace(t, "volume")
	if _, err := tn.CoreV1().PersistentVolumeClaims(ns).Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	user := func(name string) *corev1.Pod {
		pod := newPod(name)
		pod.Spec.SecurityContext.FSGroup = ptr.To[int64](2000)
		pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
		pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		return pod
	}
	tn.start(t, ns, user("writer"))
	tn.sh(t, ns, "writer", "echo kept >/data/file")
	if err := tn.CoreV1().Pods(ns).Delete(ctx, "writer", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	tn.start(t, ns, user("reader"))
	if got := tn.sh(t, ns, "reader", "cat /data/file"); got != "kept" {
		t.Errorf("the next pod reads %q", got)
	}
	claim, err := tn.CoreV1().PersistentVolumeClaims(ns).Get(ctx, "data", metav1.GetOptions{})
	if err != nil || claim.Status.Phase != corev1.ClaimBound {
		t.Fatalf("the claim is %v, %v", claim.Status, err)
	}
	volume, err := tn.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if ref := volume.Spec.ClaimRef; ref == nil || ref.Namespace != ns || ref.Name != "data" || ref.UID != claim.UID {
		t.Errorf("the volume is of the claim %+v", ref)
	}
	text, err := json.Marshal(volume)
	if err != nil {
		t.Fatal(err)
	}
	for _, hidden := range []string{"/var/lib/local-path", `"` + tn.namespace + `"`} {
		if strings.Contains(string(text), hidden) {
			t.Errorf("the volume tells of %s: %s", hidden, text)
		}
	}
	for name, remove := range map[string]func() error{
		"pod": func() error { return tn.CoreV1().Pods(ns).Delete(ctx, "reader", metav1.DeleteOptions{}) },
		"claim": func() error {
			return tn.CoreV1().PersistentVolumeClaims(ns).Delete(ctx, "data", metav1.DeleteOptions{})
		},
	} {
		if err := remove(); err != nil {
			t.Fatalf("delete the %s: %v", name, err)
		}
	}
	eventually(t, time.Minute, "the volume goes, on both sides", func() error {
		if _, err := tn.CoreV1().PersistentVolumes().Get(ctx, volume.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("in the tenant: %w", err)
		}
		if _, err := k.host.CoreV1().PersistentVolumes().Get(ctx, volume.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("on the host: %w", err)
		}
		return nil
	})
}
