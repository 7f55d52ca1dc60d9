//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/dynamic"
	certutil "k8s.io/client-go/util/cert"
	imageutils "k8s.io/kubernetes/test/utils/image"
	"k8s.io/utils/ptr"
)

const securePort = 8444

// serveTLS runs a server that speaks TLS, behind a Service of the same name with
// port 443, and returns what to verify it with.
func (tn *tenant) serveTLS(t *testing.T, ns string, pod *corev1.Pod) (caBundle []byte) {
	t.Helper()
	ctx := t.Context()
	cert, key, err := certutil.GenerateSelfSignedCertKey(pod.Name+"."+ns+".svc", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tn.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
		Name: "cert", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: pod.Name}},
	})
	main := &pod.Spec.Containers[0]
	main.VolumeMounts = append(main.VolumeMounts, corev1.VolumeMount{Name: "cert", MountPath: "/cert", ReadOnly: true})
	main.Args = append(main.Args, "--tls-cert-file=/cert/tls.crt", "--tls-private-key-file=/cert/tls.key")
	main.ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Scheme: corev1.URISchemeHTTPS, Path: "/readyz", Port: intstr.FromInt32(securePort)}},
		PeriodSeconds: 1,
	}
	_, err = tn.CoreV1().Services(ns).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name},
		Spec: corev1.ServiceSpec{
			Selector: pod.Labels,
			Ports:    []corev1.ServicePort{{Port: 443, TargetPort: intstr.FromInt32(securePort)}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tn.start(t, ns, pod)
	return cert
}

// inNamespace selects what is in one namespace.
func inNamespace(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: name}}
}

func createsConfigMaps() []admissionregistrationv1.RuleWithOperations {
	return []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
	}}
}

// afterwards deletes something cluster-scoped when the test has ended.
func afterwards(t *testing.T, what string, remove func(ctx context.Context) error) {
	t.Helper()
	t.Cleanup(func() {
		if err := remove(context.Background()); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("delete %s: %v", what, err)
		}
	})
}

// TestWebhooks: the tenant's API server asks webhooks that run in the tenant,
// through a Service of the tenant.
func TestWebhooks(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ctx := t.Context()
	ns := tn.newNamespace(t, "webhooks")
	ca := tn.serveTLS(t, ns, newPod("hook", "webhook", "--port="+strconv.Itoa(securePort)))

	none := admissionregistrationv1.SideEffectClassNone
	client := func(path string) admissionregistrationv1.WebhookClientConfig {
		return admissionregistrationv1.WebhookClientConfig{
			Service: &admissionregistrationv1.ServiceReference{Namespace: ns, Name: "hook", Path: &path}, CABundle: ca,
		}
	}
	registration := tn.AdmissionregistrationV1()
	_, err := registration.MutatingWebhookConfigurations().Create(ctx, &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: ns},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "mutating.example.com", Rules: createsConfigMaps(), NamespaceSelector: inNamespace(ns), SideEffects: &none,
			AdmissionReviewVersions: []string{"v1"}, ClientConfig: client("/mutating-configmaps"),
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	afterwards(t, "webhooks", func(ctx context.Context) error {
		return registration.MutatingWebhookConfigurations().Delete(ctx, ns, metav1.DeleteOptions{})
	})
	_, err = registration.ValidatingWebhookConfigurations().Create(ctx, &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: ns},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "validating.example.com", Rules: createsConfigMaps(), NamespaceSelector: inNamespace(ns), SideEffects: &none,
			AdmissionReviewVersions: []string{"v1"}, ClientConfig: client("/configmaps"),
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	afterwards(t, "webhooks", func(ctx context.Context) error {
		return registration.ValidatingWebhookConfigurations().Delete(ctx, ns, metav1.DeleteOptions{})
	})

	create := func(namespace string, data map[string]string) (*corev1.ConfigMap, error) {
		return tn.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "asked-"}, Data: data}, metav1.CreateOptions{})
	}
	bad := map[string]string{"webhook-e2e-test": "webhook-disallow"}
	eventually(t, 30*time.Second, "the validating webhook refuses", func() error {
		_, err := create(ns, bad)
		if err == nil || !strings.Contains(err.Error(), "unwanted key and value") {
			return fmt.Errorf("answered %v", err)
		}
		return nil
	})
	eventually(t, 30*time.Second, "the mutating webhook changes objects", func() error {
		made, err := create(ns, map[string]string{"mutation-start": "yes"})
		if err == nil && made.Data["mutation-stage-1"] != "yes" {
			err = fmt.Errorf("data %v", made.Data)
		}
		return err
	})
	if err := registration.ValidatingWebhookConfigurations().Delete(ctx, ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// Called by a name, it is the tenant's DNS that knows it.
	byName := "https://hook." + ns + ".svc/configmaps"
	_, err = registration.ValidatingWebhookConfigurations().Create(ctx, &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: ns + "-by-name"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "by-name.example.com", Rules: createsConfigMaps(), NamespaceSelector: inNamespace(ns), SideEffects: &none,
			AdmissionReviewVersions: []string{"v1"}, ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &byName, CABundle: ca},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	afterwards(t, "webhooks", func(ctx context.Context) error {
		return registration.ValidatingWebhookConfigurations().Delete(ctx, ns+"-by-name", metav1.DeleteOptions{})
	})
	eventually(t, 30*time.Second, "the webhook refuses when it is called by its name", func() error {
		_, err := create(ns, bad)
		if err == nil || !strings.Contains(err.Error(), "by-name.example.com") {
			return fmt.Errorf("answered %v", err)
		}
		return nil
	})
	if _, err := create("default", bad); err != nil {
		t.Errorf("in a namespace that the webhook does not select: %v", err)
	}
}

// TestConversionWebhook: a custom resource in two versions, converted by a
// program in the tenant.
func TestConversionWebhook(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ctx := t.Context()
	ns := tn.newNamespace(t, "conversion")
	ca := tn.serveTLS(t, ns, newPod("converter", "crd-conversion-webhook", "--port="+strconv.Itoa(securePort)))

	objects, err := dynamic.NewForConfig(tn.config)
	if err != nil {
		t.Fatal(err)
	}
	crds := objects.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	served := func(name string, storage bool) any {
		return map[string]any{"name": name, "served": true, "storage": storage, "schema": map[string]any{
			"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true},
		}}
	}
	_, err = crds.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": "endpoints.stable.example.com"},
		"spec": map[string]any{
			"group": "stable.example.com", "scope": "Namespaced", "names": map[string]any{"plural": "endpoints", "kind": "Endpoint"},
			"versions": []any{served("v1", true), served("v2", false)},
			"conversion": map[string]any{"strategy": "Webhook", "webhook": map[string]any{
				"conversionReviewVersions": []any{"v1"},
				"clientConfig":             map[string]any{"caBundle": base64Of(ca), "service": map[string]any{"namespace": ns, "name": "converter", "path": "/crdconvert"}},
			}},
		},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	afterwards(t, "the CRD", func(ctx context.Context) error {
		return crds.Delete(ctx, "endpoints.stable.example.com", metav1.DeleteOptions{})
	})
	endpoints := func(version string) dynamic.ResourceInterface {
		return objects.Resource(schema.GroupVersionResource{Group: "stable.example.com", Version: version, Resource: "endpoints"}).Namespace(ns)
	}
	eventually(t, 30*time.Second, "an object of the stored version", func() error {
		_, err := endpoints("v1").Create(ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "stable.example.com/v1", "kind": "Endpoint", "metadata": map[string]any{"name": "db"}, "hostPort": "db:5432",
		}}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
	eventually(t, 30*time.Second, "the same object in the other version", func() error {
		other, err := endpoints("v2").Get(ctx, "db", metav1.GetOptions{})
		if err == nil && (other.Object["host"] != "db" || other.Object["port"] != "5432" || other.Object["hostPort"] != nil) {
			err = fmt.Errorf("it is %v", other.Object)
		}
		return err
	})
}

// TestAggregatedAPI: an API server of somebody else's, Kubernetes' sample, in the
// tenant, with the tenant's users and roles.
func TestAggregatedAPI(t *testing.T) {
	s := shared(t)
	s.onLocalHost(t)
	if out, err := s.command(t.Context(), s.path(".cache/bin/host"), "load", "sample-apiserver", "etcd").CombinedOutput(); err != nil {
		t.Fatalf("load images: %v\n%s", err, out)
	}
	tn := s.sharedTenant(t, "e2e-blue")
	ctx := t.Context()
	ns := tn.newNamespace(t, "aggregated")

	subject := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: "default"}
	role := func(kind, name string) rbacv1.RoleRef {
		return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
	}
	reader := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: ns}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"admissionregistration.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"flowcontrol.apiserver.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"get", "list", "watch"}},
	}}
	if _, err := tn.RbacV1().ClusterRoles().Create(ctx, reader, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	afterwards(t, "a role", func(ctx context.Context) error {
		return tn.RbacV1().ClusterRoles().Delete(ctx, ns, metav1.DeleteOptions{})
	})
	for name, ref := range map[string]rbacv1.RoleRef{ns: role("ClusterRole", ns), ns + "-delegator": role("ClusterRole", "system:auth-delegator")} {
		binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: ref, Subjects: []rbacv1.Subject{subject}}
		if _, err := tn.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		afterwards(t, "a binding", func(ctx context.Context) error {
			return tn.RbacV1().ClusterRoleBindings().Delete(ctx, name, metav1.DeleteOptions{})
		})
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: ns}, RoleRef: role("Role", "extension-apiserver-authentication-reader"), Subjects: []rbacv1.Subject{subject},
	}
	if _, err := tn.RbacV1().RoleBindings(metav1.NamespaceSystem).Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	afterwards(t, "a binding", func(ctx context.Context) error {
		return tn.RbacV1().RoleBindings(metav1.NamespaceSystem).Delete(ctx, ns, metav1.DeleteOptions{})
	})

	pod := newPod("wardle", "--etcd-servers=http://127.0.0.1:2379", "--secure-port="+strconv.Itoa(securePort))
	pod.Spec.Containers[0].Image = imageutils.GetE2EImage(imageutils.APIServer)
	etcd := pod.Spec.Containers[0].DeepCopy()
	etcd.Name, etcd.Image, etcd.Args = "etcd", imageutils.GetE2EImage(imageutils.Etcd), nil
	etcd.Command = []string{"/usr/local/bin/etcd", "--data-dir=/data/etcd", "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379"}
	etcd.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	pod.Spec.Containers = append(pod.Spec.Containers, *etcd)
	pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	ca := tn.serveTLS(t, ns, pod)

	objects, err := dynamic.NewForConfig(tn.config)
	if err != nil {
		t.Fatal(err)
	}
	const group, version = "wardle.example.com", "v1alpha1"
	services := objects.Resource(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"})
	_, err = services.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": version + "." + group},
		"spec": map[string]any{
			"group": group, "version": version, "groupPriorityMinimum": int64(2000), "versionPriority": int64(200),
			"caBundle": base64Of(ca), "service": map[string]any{"namespace": ns, "name": "wardle"},
		},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	afterwards(t, "the APIService", func(ctx context.Context) error {
		return services.Delete(ctx, version+"."+group, metav1.DeleteOptions{})
	})

	kubectl := tn.kubectl(t, s)
	const flunder = `{"apiVersion":"wardle.example.com/v1alpha1","kind":"Flunder","metadata":{"name":"f"},"spec":{"reference":"g"}}`
	eventually(t, time.Minute, "the other API server takes an object", func() error {
		_, err := kubectl(flunder, "-n", ns, "apply", "-f", "-")
		return err
	})
	for _, args := range [][]string{
		{"-n", ns, "get", "flunders", "f", "-o", "jsonpath={.spec.reference}"},
		{"explain", "flunder.spec.reference"},
		{"api-resources", "--api-group=" + group},
		{"wait", "--for=condition=Available", "apiservice/" + version + "." + group, "--timeout=20s"},
	} {
		// The aggregator asks for the documents a second after it sees the server
		// available, and after a minute when that failed.
		eventually(t, 2*time.Minute, "kubectl "+strings.Join(args, " "), func() error {
			out, err := kubectl("", args...)
			if err == nil && out == "" {
				err = errors.New("it prints nothing")
			}
			return err
		})
	}
	// It learns who asks, and asks the tenant what that one may do.
	token, err := tn.CoreV1().ServiceAccounts(ns).CreateToken(ctx, "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mine, err := dynamic.NewForConfig(tn.as(t, token.Status.Token).config)
	if err != nil {
		t.Fatal(err)
	}
	flunders := mine.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: "flunders"}).Namespace(ns)
	if _, err := flunders.List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "system:serviceaccount:"+ns+":default") {
		t.Errorf("somebody without a right lists flunders: %v", err)
	}
}

// TestCallsOut: whatever a tenant has its API server call, it reaches no more than
// a pod of the tenant would.
func TestCallsOut(t *testing.T) {
	s := shared(t)
	blue, green := s.sharedTenant(t, "e2e-blue"), s.sharedTenant(t, "e2e-green")
	ctx := t.Context()
	there := green.newNamespace(t, "called")
	target := green.start(t, there, newServer("target"))
	own := blue.newNamespace(t, "calls-out")
	mine := blue.start(t, own, newServer("target"))
	host, err := s.host.DiscoveryV1().EndpointSlices("default").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kubernetes"})
	if err != nil || len(host.Items) == 0 {
		t.Fatalf("find the host's API: %v", err)
	}
	hostIP, hostPort := host.Items[0].Endpoints[0].Addresses[0], *host.Items[0].Ports[0].Port
	hostService, err := s.host.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}

	tests := map[string]struct {
		scheme, ip string
		port       int32
		reached    bool
	}{
		"a pod of its own":            {"http", mine.Status.PodIP, 8080, true},
		"the control plane's own pod": {"https", "127.0.0.1", 8443, false},
		"a pod of another tenant":     {"http", target.Status.PodIP, 8080, false},
		"the host's API":              {"https", hostIP, hostPort, false},
		"the Service of the host API": {"https", hostService.Spec.ClusterIP, 443, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			// As a cluster administrator inside, say that a pod has that address,
			// and have the API server ask it.
			if tc.ip == "127.0.0.1" {
				// Kubernetes itself takes no such status.
				if err := blue.hookTo(t, own, tc.ip, tc.port); !unreached(err) {
					t.Errorf("through a webhook: %v", err)
				}
				return
			}
			err := blue.proxyTo(t, own, tc.scheme, tc.ip, tc.port)
			if tc.reached {
				eventually(t, 30*time.Second, "it is reached", func() error { return blue.proxyTo(t, own, tc.scheme, tc.ip, tc.port) })
				return
			}
			if !unreached(err) {
				t.Errorf("through the API server's proxy: %v", err)
			}
			if err := blue.hookTo(t, own, tc.ip, tc.port); !unreached(err) {
				t.Errorf("through a webhook: %v", err)
			}
		})
	}
}

// unreached tells a dial that failed or was refused from an answer.
func unreached(err error) bool {
	if apierrors.IsServiceUnavailable(err) {
		return true // the proxy's own answer
	}
	for _, text := range []string{"does not call", "i/o timeout", "context deadline exceeded"} {
		if err != nil && strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// proxyTo asks an address through a pod that is said to have it.
func (tn *tenant) proxyTo(t *testing.T, ns, scheme, ip string, port int32) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	defer cancel()
	pod := newPod("detour")
	pod.Name, pod.GenerateName = "", "detour-"
	// It never runs, so its status is corrected once at most.
	pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/never"}}
	pod, err := tn.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	status := fmt.Sprintf(`{"status":{"podIP":%[1]q,"podIPs":[{"ip":%[1]q}]}}`, ip)
	var answer error
	eventually(t, 30*time.Second, "the pod is said to have the address", func() error {
		_, err := tn.CoreV1().Pods(ns).Patch(ctx, pod.Name, types.StrategicMergePatchType, []byte(status), metav1.PatchOptions{}, "status")
		if err != nil {
			return err
		}
		_, answer = tn.CoreV1().Pods(ns).ProxyGet(scheme, pod.Name, strconv.Itoa(int(port)), "/hostname", nil).DoRaw(ctx)
		if apierrors.IsBadRequest(answer) {
			return answer // It has no address any more.
		}
		return nil
	})
	return answer
}

// hookTo has the API server call an address as a webhook.
func (tn *tenant) hookTo(t *testing.T, ns, ip string, port int32) error {
	t.Helper()
	ctx := t.Context()
	url := "https://" + net.JoinHostPort(ip, strconv.Itoa(int(port))) + "/hook"
	none := admissionregistrationv1.SideEffectClassNone
	hooks := tn.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	made, err := hooks.Create(ctx, &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{GenerateName: ns + "-"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "detour.example.com", Rules: createsConfigMaps(), NamespaceSelector: inNamespace(ns), SideEffects: &none, TimeoutSeconds: ptr.To[int32](5),
			AdmissionReviewVersions: []string{"v1"}, ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hooks.Delete(context.Background(), made.Name, metav1.DeleteOptions{}) }()
	var answer error
	eventually(t, 30*time.Second, "the webhook is asked", func() error {
		_, answer = tn.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "asked-"}}, metav1.CreateOptions{})
		if answer == nil {
			return errors.New("it was not asked")
		}
		return nil
	})
	return answer
}
