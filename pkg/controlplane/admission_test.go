package controlplane

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/ptr"

	"github.com/sublet-dev/sublet/pkg/pki"
)

// gatekeeper dials, and refuses what is closed.
type gatekeeper struct {
	mu     sync.Mutex
	dialed []string
	closed map[string]bool
}

func (g *gatekeeper) dial(ctx context.Context, network, address string) (net.Conn, error) {
	g.mu.Lock()
	g.dialed = append(g.dialed, address)
	closed := g.closed[address]
	g.mu.Unlock()
	if closed {
		return nil, errors.New("the way there\nis closed")
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

func (g *gatekeeper) close(address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed[address] = true
}

func (g *gatekeeper) saw(address string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Contains(g.dialed, address)
}

// TestEgress: nothing that the API server calls for its objects goes past the
// dialer, and connections to kubelets do not come by it.
func TestEgress(t *testing.T) {
	gate := &gatekeeper{closed: map[string]bool{}}
	kubelet := make(chan string, 100)
	p := start(t, t.TempDir(), func(o *Options) {
		o.EgressDialer = gate.dial
		o.KubeletDialer = func(_ context.Context, _, address string) (net.Conn, error) {
			kubelet <- address
			return nil, errors.New("no kubelet here")
		}
	})
	t.Run("conversion", func(t *testing.T) { testConversion(t, p) })
	t.Run("webhook", func(t *testing.T) { testWebhookEgress(t, p, gate) })
	t.Run("proxy", func(t *testing.T) { testProxyEgress(t, p, gate, kubelet) })
	t.Run("openapi", func(t *testing.T) { testOpenAPIEgress(t, p, gate) })
}

func testWebhookEgress(t *testing.T, p *plane, gate *gatekeeper) {
	url, ca := serveTLS(t, admit(t, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: "no by the webhook"}}
	}))
	address := strings.TrimPrefix(url, "https://")
	none := admissionregistrationv1.SideEffectClassNone
	_, err := p.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "egress"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "egress.example.com", Rules: configMaps(), ObjectSelector: matching("egress"), SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: ca},
		}, {
			Name: "closed.example.com", Rules: configMaps(), ObjectSelector: matching("closed"), SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: ptr.To("https://192.0.2.7:443/"), CABundle: ca},
		}},
	}, metav1.CreateOptions{})
	must(t, "registering webhooks", err)
	gate.close("192.0.2.7:443")
	eventually(t, "the webhook is asked", func(ctx context.Context) error {
		_, err := p.create(ctx, "egress", nil)
		return refusedWith(err, "no by the webhook")
	})
	if !gate.saw(address) {
		t.Errorf("the webhook at %s was called past the dialer", address)
	}
	_, err = p.create(t.Context(), "closed", nil)
	if err := refusedWith(err, "the way there is closed"); err != nil {
		t.Error(err)
	}
}

func testProxyEgress(t *testing.T, p *plane, gate *gatekeeper, kubelet <-chan string) {
	ctx := t.Context()
	eventually(t, "the default service account", func(ctx context.Context) error {
		_, err := p.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	pod, err := p.client.CoreV1().Pods("default").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "there"},
		Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}, metav1.CreateOptions{})
	must(t, "creating a pod", err)
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, "192.0.2.9", []corev1.PodIP{{IP: "192.0.2.9"}}
	_, err = p.client.CoreV1().Pods("default").UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	must(t, "giving a pod an address", err)
	gate.close("192.0.2.9:80")
	// Its node has to be there for logs.
	node, err := p.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, metav1.CreateOptions{})
	must(t, "creating a node", err)
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.10"}}
	_, err = p.client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
	must(t, "giving a node an address", err)

	body, err := p.client.CoreV1().Pods("default").ProxyGet("http", "there", "80", "/", nil).DoRaw(ctx)
	if err == nil || !gate.saw("192.0.2.9:80") {
		t.Errorf("the proxy to a pod went past the dialer: %q, %v", body, err)
	}
	if _, err := p.client.CoreV1().Pods("default").GetLogs("there", &corev1.PodLogOptions{}).DoRaw(ctx); err == nil {
		t.Error("there are logs without a kubelet")
	}
	select {
	case address := <-kubelet:
		if address != "192.0.2.10:10250" || gate.saw(address) {
			t.Errorf("the kubelet was dialled at %s", address)
		}
	default:
		t.Error("nobody dialled the kubelet")
	}
}

// TestAdmission: what a tenant puts in the way of its objects.
func TestAdmission(t *testing.T) {
	p := start(t, t.TempDir(), nil)
	t.Run("validating policy", func(t *testing.T) { testValidatingPolicy(t, p) })
	t.Run("mutating policy", func(t *testing.T) { testMutatingPolicy(t, p) })
	t.Run("webhooks", func(t *testing.T) { testWebhooks(t, p) })
	t.Run("conversion", func(t *testing.T) { testConversion(t, p) })
}

// matching is configmaps with the label that a test uses.
func matching(test string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"test": test}}
}

func configMaps() []admissionregistrationv1.RuleWithOperations {
	return []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
	}}
}

func matchingResources(test string) *admissionregistrationv1.MatchResources {
	return &admissionregistrationv1.MatchResources{
		ObjectSelector: matching(test),
		ResourceRules:  []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: configMaps()[0]}},
	}
}

// create creates a ConfigMap for a test, but only for show.
func (p *plane) create(ctx context.Context, test string, data map[string]string) (*corev1.ConfigMap, error) {
	return p.client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "admission-", Labels: map[string]string{"test": test}}, Data: data,
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

func refusedWith(err error, text string) error {
	if err == nil || !strings.Contains(err.Error(), text) {
		return fmt.Errorf("want a refusal with %q, got %v", text, err)
	}
	return nil
}

func testValidatingPolicy(t *testing.T, p *plane) {
	ctx := t.Context()
	policies := p.client.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	_, err := p.client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "limit"}, Data: map[string]string{"most": "2"}}, metav1.CreateOptions{})
	must(t, "creating parameters", err)
	_, err = policies.Create(ctx, &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "few"},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: matchingResources("policy"),
			ParamKind:        &admissionregistrationv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"},
			Validations: []admissionregistrationv1.Validation{
				{Expression: "object.data.size() <= int(params.data.most)", MessageExpression: "'at most ' + params.data.most + ' keys'"},
				{Expression: "!authorizer.group('').resource('configmaps').namespace('default').check('delete').allowed() || true"},
			},
		},
	}, metav1.CreateOptions{})
	must(t, "creating a policy", err)
	_, err = p.client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Create(ctx, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "few"},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: "few", ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
			ParamRef: &admissionregistrationv1.ParamRef{Name: "limit", Namespace: "default", ParameterNotFoundAction: ptr.To(admissionregistrationv1.DenyAction)},
		},
	}, metav1.CreateOptions{})
	must(t, "binding a policy", err)
	eventually(t, "the policy refuses", func(ctx context.Context) error {
		_, err := p.create(ctx, "policy", map[string]string{"a": "", "b": "", "c": ""})
		return refusedWith(err, "at most 2 keys")
	})
	if _, err := p.create(ctx, "policy", map[string]string{"a": ""}); err != nil {
		t.Errorf("what the policy allows: %v", err)
	}
	// The status controller looks at its types.
	bad, err := policies.Create(ctx, &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "bad"},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: configMaps()[0]}}},
			Validations:      []admissionregistrationv1.Validation{{Expression: "object.dada.size() > 0"}},
		},
	}, metav1.CreateOptions{})
	must(t, "creating a policy", err)
	eventually(t, "a warning about a field that is not there", func(ctx context.Context) error {
		bad, err = policies.Get(ctx, "bad", metav1.GetOptions{})
		if err == nil && (bad.Status.TypeChecking == nil || len(bad.Status.TypeChecking.ExpressionWarnings) == 0) {
			err = fmt.Errorf("status %+v", bad.Status)
		}
		return err
	})
}

func testMutatingPolicy(t *testing.T, p *plane) {
	ctx := t.Context()
	_, err := p.client.AdmissionregistrationV1().MutatingAdmissionPolicies().Create(ctx, &admissionregistrationv1.MutatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "stamp"},
		Spec: admissionregistrationv1.MutatingAdmissionPolicySpec{
			MatchConstraints:   matchingResources("mutation"),
			ReinvocationPolicy: admissionregistrationv1.NeverReinvocationPolicy,
			Mutations: []admissionregistrationv1.Mutation{{
				PatchType:          admissionregistrationv1.PatchTypeApplyConfiguration,
				ApplyConfiguration: &admissionregistrationv1.ApplyConfiguration{Expression: `Object{metadata: Object.metadata{annotations: {"by": request.userInfo.username}}}`},
			}, {
				PatchType: admissionregistrationv1.PatchTypeJSONPatch,
				JSONPatch: &admissionregistrationv1.JSONPatch{Expression: `[JSONPatch{op: "add", path: "/data/added", value: "yes"}]`},
			}},
		},
	}, metav1.CreateOptions{})
	must(t, "creating a policy", err)
	_, err = p.client.AdmissionregistrationV1().MutatingAdmissionPolicyBindings().Create(ctx, &admissionregistrationv1.MutatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "stamp"},
		Spec:       admissionregistrationv1.MutatingAdmissionPolicyBindingSpec{PolicyName: "stamp"},
	}, metav1.CreateOptions{})
	must(t, "binding a policy", err)
	eventually(t, "the policy changes objects", func(ctx context.Context) error {
		made, err := p.create(ctx, "mutation", map[string]string{"a": ""})
		if err == nil && (made.Annotations["by"] == "" || made.Data["added"] != "yes") {
			err = fmt.Errorf("annotations %v, data %v", made.Annotations, made.Data)
		}
		return err
	})
	other, err := p.create(ctx, "other", map[string]string{"a": ""})
	if err != nil || other.Annotations["by"] != "" {
		t.Errorf("what the policy does not match: %v, %v", other.Annotations, err)
	}
}

// serveTLS answers on loopback with a certificate of an authority of its own.
func serveTLS(t *testing.T, handler http.Handler) (url string, caBundle []byte) {
	t.Helper()
	authority, err := pki.NewAuthority("webhooks", time.Now())
	must(t, "making an authority", err)
	cert, key, err := authority.Issue(pki.Leaf{CommonName: "webhook", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true, Lifetime: time.Hour}, time.Now())
	must(t, "issuing a certificate", err)
	pair, err := tls.X509KeyPair(cert, key)
	must(t, "loading a certificate", err)
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL, authority.CertPEM
}

// admit answers reviews.
func admit(t *testing.T, answer func(request *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Errorf("a webhook gets no review: %v", err)
			return
		}
		review.Response = answer(review.Request)
		review.Response.UID = review.Request.UID
		if err := json.NewEncoder(w).Encode(review); err != nil {
			t.Errorf("answering: %v", err)
		}
	})
}

func testWebhooks(t *testing.T, p *plane) {
	ctx := t.Context()
	var dryRuns atomic.Int32
	mutating, mutatingCA := serveTLS(t, admit(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if r.DryRun != nil && *r.DryRun {
			dryRuns.Add(1)
		}
		return &admissionv1.AdmissionResponse{
			Allowed: true, PatchType: ptr.To(admissionv1.PatchTypeJSONPatch), Patch: []byte(`[{"op":"add","path":"/data/patched","value":"yes"}]`),
			Warnings: []string{"patched"},
		}
	}))
	validating, validatingCA := serveTLS(t, admit(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		var object corev1.ConfigMap
		err := json.Unmarshal(r.Object.Raw, &object)
		allowed := err == nil && object.Data["patched"] == "yes" && object.Data["bad"] == ""
		return &admissionv1.AdmissionResponse{Allowed: allowed, Result: &metav1.Status{Message: "bad data"}}
	}))
	none := admissionregistrationv1.SideEffectClassNone
	registration := p.client.AdmissionregistrationV1()
	_, err := registration.MutatingWebhookConfigurations().Create(ctx, &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "mutating"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "mutating.example.com", Rules: configMaps(), ObjectSelector: matching("webhook"), SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &mutating, CABundle: mutatingCA},
		}},
	}, metav1.CreateOptions{})
	must(t, "registering a webhook", err)
	_, err = registration.ValidatingWebhookConfigurations().Create(ctx, &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "validating"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{
			{
				Name: "validating.example.com", Rules: configMaps(), ObjectSelector: matching("webhook"), SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
				ClientConfig:    admissionregistrationv1.WebhookClientConfig{URL: &validating, CABundle: validatingCA},
				MatchConditions: []admissionregistrationv1.MatchCondition{{Name: "not-exempt", Expression: "!('exempt' in object.data)"}},
			},
			{
				// Its certificate is from somebody else.
				Name: "untrusted.example.com", Rules: configMaps(), ObjectSelector: matching("untrusted"), SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
				ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &validating, CABundle: mutatingCA},
			},
			{
				Name: "ignored.example.com", Rules: configMaps(), ObjectSelector: matching("ignored"), SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
				ClientConfig:  admissionregistrationv1.WebhookClientConfig{URL: &validating, CABundle: mutatingCA},
				FailurePolicy: ptr.To(admissionregistrationv1.Ignore),
			},
			{
				// Nobody answers for the Service.
				Name: "absent.example.com", Rules: configMaps(), ObjectSelector: matching("absent"), SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
				ClientConfig: admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Namespace: "default", Name: "absent"}, CABundle: mutatingCA},
			},
		},
	}, metav1.CreateOptions{})
	must(t, "registering webhooks", err)

	eventually(t, "both webhooks are asked, one after the other", func(ctx context.Context) error {
		_, err := p.create(ctx, "webhook", map[string]string{"bad": "yes"})
		return refusedWith(err, "bad data")
	})
	made, err := p.create(ctx, "webhook", map[string]string{"a": ""})
	if err != nil || made.Data["patched"] != "yes" {
		t.Errorf("with webhooks: %v, %v", made.Data, err)
	}
	if dryRuns.Load() == 0 {
		t.Error("webhooks are not told that it is a dry run")
	}
	if _, err := p.create(ctx, "webhook", map[string]string{"bad": "yes", "exempt": ""}); err != nil {
		t.Errorf("what a match condition leaves out: %v", err)
	}
	if _, err := p.create(ctx, "ignored", nil); err != nil {
		t.Errorf("a webhook that may fail, and does: %v", err)
	}
	for test, text := range map[string]string{"untrusted": "certificate signed by unknown authority", "absent": `service "absent" not found`} {
		_, err := p.create(ctx, test, nil)
		if err := refusedWith(err, text); err != nil {
			t.Errorf("a webhook that is %s: %v", test, err)
		}
	}
	must(t, "deleting webhooks", errors.Join(
		registration.ValidatingWebhookConfigurations().Delete(ctx, "validating", metav1.DeleteOptions{}),
		registration.MutatingWebhookConfigurations().Delete(ctx, "mutating", metav1.DeleteOptions{})))
}

// testConversion: a custom resource in two versions, with a webhook that knows
// how the one becomes the other.
func testConversion(t *testing.T, p *plane) {
	ctx := t.Context()
	url, ca := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review apiextensionsv1.ConversionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Errorf("a webhook gets no review: %v", err)
			return
		}
		response := &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
		for _, raw := range review.Request.Objects {
			object := &unstructured.Unstructured{}
			if err := json.Unmarshal(raw.Raw, object); err != nil {
				t.Errorf("decoding: %v", err)
			}
			object.SetAPIVersion(review.Request.DesiredAPIVersion)
			if from, to := "length", "size"; object.GetAPIVersion() == "example.com/v2" {
				move(object, from, to)
			} else {
				move(object, to, from)
			}
			response.ConvertedObjects = append(response.ConvertedObjects, runtime.RawExtension{Object: object})
		}
		review.Request, review.Response = nil, response
		if err := json.NewEncoder(w).Encode(review); err != nil {
			t.Errorf("answering: %v", err)
		}
	}))
	served := func(name, field string, storage bool) apiextensionsv1.CustomResourceDefinitionVersion {
		return apiextensionsv1.CustomResourceDefinitionVersion{
			Name: name, Served: true, Storage: storage,
			Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
				Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{field: {Type: "integer"}},
			}},
		}
	}
	_, err := apiextensionsclient.NewForConfigOrDie(p.Config()).ApiextensionsV1().CustomResourceDefinitions().Create(ctx, &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "ships.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group:    "example.com",
			Names:    apiextensionsv1.CustomResourceDefinitionNames{Plural: "ships", Singular: "ship", Kind: "Ship", ListKind: "ShipList"},
			Scope:    apiextensionsv1.ClusterScoped,
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{served("v1", "length", true), served("v2", "size", false)},
			Conversion: &apiextensionsv1.CustomResourceConversion{
				Strategy: apiextensionsv1.WebhookConverter,
				Webhook: &apiextensionsv1.WebhookConversion{
					ClientConfig:             &apiextensionsv1.WebhookClientConfig{URL: &url, CABundle: ca},
					ConversionReviewVersions: []string{"v1"},
				},
			},
		},
	}, metav1.CreateOptions{})
	must(t, "creating a CRD", err)
	ships := func(version string) dynamic.ResourceInterface {
		return dynamic.NewForConfigOrDie(p.Config()).Resource(schema.GroupVersionResource{Group: "example.com", Version: version, Resource: "ships"})
	}
	eventually(t, "an object of the version that is not stored", func(ctx context.Context) error {
		_, err := ships("v2").Create(ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "example.com/v2", "kind": "Ship", "metadata": map[string]any{"name": "brig"}, "size": int64(30),
		}}, metav1.CreateOptions{})
		return err
	})
	for version, field := range map[string]string{"v1": "length", "v2": "size"} {
		list, err := ships(version).List(ctx, metav1.ListOptions{})
		must(t, "listing ships as "+version, err)
		if got, _, _ := unstructured.NestedInt64(list.Items[0].Object, field); got != 30 || len(list.Items) != 1 {
			t.Errorf("as %s it is %v", version, list.Items[0].Object)
		}
	}
}

func move(object *unstructured.Unstructured, from, to string) {
	if value, ok := object.Object[from]; ok {
		object.Object[to] = value
		delete(object.Object, from)
	}
}
