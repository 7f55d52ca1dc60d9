package integration

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// define makes a kind on the host whose objects may hold anything.
func (h *managedHost) define(group, kind, plural string) {
	h.t.Helper()
	yes := true
	definition := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: plural + "." + group, Annotations: map[string]string{"api-approved.kubernetes.io": "unapproved, a test"}},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: group, Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Kind: kind, ListKind: kind + "List", Plural: plural, Singular: strings.ToLower(kind)},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &yes}},
			}},
		},
	}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(definition)
	if err != nil {
		h.t.Fatal(err)
	}
	u := &unstructured.Unstructured{Object: object}
	u.SetAPIVersion("apiextensions.k8s.io/v1")
	u.SetKind("CustomResourceDefinition")
	if err := h.client.Create(h.t.Context(), u); err != nil {
		h.t.Fatal(err)
	}
}

// testHosts: in a tenant's namespace nobody claims host names beyond the limits,
// by whichever kind, nor has an ingress controller do anything for others.
func testHosts(h *managedHost) {
	t := h.t
	tenant := namespaceTenant("hosted")
	tenant.Spec.Limits = &api.Limits{
		Hosts: []string{"*.hosted.example.com", "hosted.example.com"}, IngressClasses: []string{"public"}, Gateways: []string{"gateways/public"},
	}
	h.create(tenant)
	h.waitForPhase("hosted", api.PhaseReady)
	h.create(namespaceTenant("hostless"))
	h.waitForPhase("hostless", api.PhaseReady)
	h.define("gateway.networking.k8s.io", "HTTPRoute", "httproutes")
	h.define("gateway.networking.k8s.io", "Gateway", "gateways")
	h.define("cert-manager.io", "Certificate", "certificates")
	// Rights are not the question: somebody who has all of them.
	admin := h.as("admin@example.com", "system:masters")

	public, internal, prefix := "public", "internal", networkingv1.PathTypePrefix
	backend := networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}}
	ingress := func(host string, edit func(*networkingv1.Ingress)) client.Object {
		in := &networkingv1.Ingress{
			ObjectMeta: metav1.ObjectMeta{Namespace: "hosted", GenerateName: "i-", Annotations: map[string]string{}},
			Spec: networkingv1.IngressSpec{IngressClassName: &public, Rules: []networkingv1.IngressRule{{
				Host: host, IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
					Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: &prefix, Backend: backend}},
				}},
			}}},
		}
		if edit != nil {
			edit(in)
		}
		return in
	}
	annotated := func(key, value string) func(*networkingv1.Ingress) {
		return func(in *networkingv1.Ingress) { in.Annotations[key] = value }
	}
	custom := func(apiVersion, kind string, spec map[string]any) client.Object {
		u := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
		u.SetAPIVersion(apiVersion)
		u.SetKind(kind)
		u.SetNamespace("hosted")
		u.SetGenerateName("c-")
		return u
	}
	route := func(spec map[string]any) client.Object {
		return custom("gateway.networking.k8s.io/v1", "HTTPRoute", spec)
	}
	gateway := func(listeners ...any) client.Object {
		return custom("gateway.networking.k8s.io/v1", "Gateway", map[string]any{"gatewayClassName": "x", "listeners": listeners})
	}
	certificate := func(spec map[string]any) client.Object { return custom("cert-manager.io/v1", "Certificate", spec) }
	names := func(names ...any) []any { return names }

	// The definitions are served a moment after they are made.
	h.eventually("the definitions are served", func(ctx context.Context) error {
		for _, object := range []client.Object{
			route(map[string]any{"hostnames": names("a.hosted.example.com")}), gateway(map[string]any{"hostname": "a.hosted.example.com"}),
			certificate(map[string]any{"dnsNames": names("a.hosted.example.com")}),
		} {
			if err := admin.Create(ctx, object); err != nil {
				return err
			}
		}
		return nil
	})
	for name, object := range map[string]client.Object{
		"a host name":         ingress("a.hosted.example.com", nil),
		"the top":             ingress("hosted.example.com", nil),
		"all names below":     ingress("*.hosted.example.com", nil),
		"names further below": ingress("*.a.hosted.example.com", nil),
		"TLS": ingress("a.hosted.example.com", func(in *networkingv1.Ingress) {
			in.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"a.hosted.example.com"}}}
		}),
		"a harmless annotation": ingress("a.hosted.example.com", annotated("nginx.ingress.kubernetes.io/proxy-body-size", "8m")),
		"a name in DNS":         ingress("a.hosted.example.com", annotated("external-dns.alpha.kubernetes.io/hostname", "a.hosted.example.com, hosted.example.com")),
		"a name in DNS for a Service": &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "hosted", GenerateName: "s-", Annotations: map[string]string{"external-dns.alpha.kubernetes.io/hostname": "a.hosted.example.com"}},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		},
		"annotations of nobody's":   ingress("a.hosted.example.com", annotated("example.com/owner", "me; {}")),
		"a route":                   route(map[string]any{"hostnames": names("a.hosted.example.com"), "parentRefs": names(map[string]any{"namespace": "gateways", "name": "public"})}),
		"a route to a gateway here": route(map[string]any{"hostnames": names("a.hosted.example.com"), "parentRefs": names(map[string]any{"name": "own"})}),
		"a certificate":             certificate(map[string]any{"dnsNames": names("*.hosted.example.com"), "commonName": "hosted.example.com"}),
	} {
		if err := admin.Create(t.Context(), object); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, object := range map[string]client.Object{
		"a host name of others": ingress("example.com", nil),
		"one that ends alike":   ingress("evilhosted.example.com", nil),
		"names above":           ingress("*.example.com", nil),
		"no host name":          ingress("", nil),
		"a default backend":     ingress("a.hosted.example.com", func(in *networkingv1.Ingress) { in.Spec.DefaultBackend = &backend }),
		"TLS for others": ingress("a.hosted.example.com", func(in *networkingv1.Ingress) {
			in.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"example.com"}}}
		}),
		"TLS for nobody": ingress("a.hosted.example.com", func(in *networkingv1.Ingress) { in.Spec.TLS = []networkingv1.IngressTLS{{SecretName: "tls"}} }),
		"another class":  ingress("a.hosted.example.com", func(in *networkingv1.Ingress) { in.Spec.IngressClassName = &internal }),
		"no class":       ingress("a.hosted.example.com", func(in *networkingv1.Ingress) { in.Spec.IngressClassName = nil }),
		"another class by annotation": ingress("a.hosted.example.com", func(in *networkingv1.Ingress) {
			in.Spec.IngressClassName = nil
			in.Annotations["kubernetes.io/ingress.class"] = "internal"
		}),
		"a name in DNS": ingress("a.hosted.example.com", annotated("external-dns.alpha.kubernetes.io/hostname", "a.hosted.example.com, example.com")),
		"a name in DNS for a Service": &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "hosted", GenerateName: "s-", Annotations: map[string]string{"external-dns.alpha.kubernetes.io/hostname": "example.com"}},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		},
		"a snippet":               ingress("a.hosted.example.com", annotated("nginx.ingress.kubernetes.io/server-snippet", "return 200;")),
		"somebody's secret":       ingress("a.hosted.example.com", annotated("nginx.ingress.kubernetes.io/auth-secret", "kube-system/secret")),
		"a value with more in it": ingress("a.hosted.example.com", annotated("nginx.ingress.kubernetes.io/proxy-body-size", "8m; return 200")),
		"a path with more in it": ingress("a.hosted.example.com", func(in *networkingv1.Ingress) {
			path := &in.Spec.Rules[0].HTTP.Paths[0]
			specific := networkingv1.PathTypeImplementationSpecific
			path.Path, path.PathType = "/{ return 200; }", &specific
		}),
		"a route for others":            route(map[string]any{"hostnames": names("example.com")}),
		"a route for all":               route(map[string]any{}),
		"a route to another gateway":    route(map[string]any{"hostnames": names("a.hosted.example.com"), "parentRefs": names(map[string]any{"namespace": "gateways", "name": "internal"})}),
		"a gateway for others":          gateway(map[string]any{"hostname": "example.com"}),
		"a gateway for all":             gateway(map[string]any{"port": int64(80)}),
		"a certificate for others":      certificate(map[string]any{"dnsNames": names("example.com")}),
		"a certificate for an address":  certificate(map[string]any{"ipAddresses": names("10.0.0.1")}),
		"a certificate with a subject":  certificate(map[string]any{"dnsNames": names("a.hosted.example.com"), "literalSubject": "CN=example.com"}),
		"a certificate for a workload":  certificate(map[string]any{"uris": names("spiffe://example.com/admin")}),
		"a certificate for a person":    certificate(map[string]any{"emailAddresses": names("root@example.com")}),
		"a certificate for a user":      certificate(map[string]any{"otherNames": names(map[string]any{"oid": "1.3.6.1.4.1.311.20.2.3", "utf8Value": "root"})}),
		"a certificate in others' name": certificate(map[string]any{"commonName": "example.com"}),
	} {
		if err := admin.Create(t.Context(), object); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	none := ingress("a.hosted.example.com", nil)
	none.SetNamespace("hostless")
	if err := admin.Create(t.Context(), none); !apierrors.IsForbidden(err) || !strings.Contains(fmt.Sprint(err), "limits.hosts") {
		t.Errorf("a host name where there is none to have: %v", err)
	}

	// What is there stays changeable, as far as it claims nothing more, when the
	// limit becomes narrower.
	kept := ingress("a.hosted.example.com", nil).(*networkingv1.Ingress)
	kept.GenerateName, kept.Name, kept.Finalizers = "", "kept", []string{"example.com/f"}
	if err := admin.Create(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	h.change("hosted", func(s *api.TenantSpec) { s.Limits.Hosts = []string{"b.hosted.example.com"} })
	h.eventually("the namespace says the narrower limit", func(ctx context.Context) error {
		if err := admin.Create(ctx, ingress("a.hosted.example.com", nil)); !apierrors.IsForbidden(err) {
			return fmt.Errorf("still allowed: %v", err)
		}
		return nil
	})
	h.eventually("finalizers can go", func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(kept), kept); err != nil {
			return err
		}
		kept.Finalizers = nil
		return admin.Update(ctx, kept)
	})
	kept.Spec.Rules[0].Host = "c.hosted.example.com"
	if err := admin.Update(t.Context(), kept); !apierrors.IsForbidden(err) {
		t.Errorf("an update that claims another host: %v", err)
	}
}
