package kinds_test

import (
	"regexp"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func TestIngressFields(t *testing.T) {
	checkFields(t, []fieldList{
		{of: networkingv1.Ingress{}, translated: []string{"ObjectMeta", "Spec"}, dropped: []string{"TypeMeta", "Status"}},
		{of: networkingv1.IngressSpec{}, copied: []string{"IngressClassName"}, translated: []string{"DefaultBackend", "TLS", "Rules"}},
		{of: networkingv1.IngressBackend{}, translated: []string{"Service"}, refused: []string{"Resource"}},
		{of: networkingv1.IngressServiceBackend{}, copied: []string{"Port"}, translated: []string{"Name"}},
		{of: networkingv1.ServiceBackendPort{}, copied: []string{"Name", "Number"}},
		{of: networkingv1.IngressTLS{}, copied: []string{"Hosts"}, translated: []string{"SecretName"}},
		{of: networkingv1.IngressRule{}, copied: []string{"Host"}, translated: []string{"IngressRuleValue"}},
		{of: networkingv1.IngressRuleValue{}, translated: []string{"HTTP"}},
		{of: networkingv1.HTTPIngressRuleValue{}, translated: []string{"Paths"}},
		{of: networkingv1.HTTPIngressPath{}, copied: []string{"Path", "PathType"}, translated: []string{"Backend"}},
		{of: networkingv1.IngressStatus{}, copied: []string{"LoadBalancer"}},
	})
}

// FuzzIngress: names that cross are those of the tenant's objects, annotations
// that cross are on the list, hosts are within the limit.
func FuzzIngress(f *testing.F) {
	fuzzToHost(f, kinds.Ingress(), func(t *testing.T, in translate.Input[translate.Object]) {
		virtual := in.Virtual.DeepCopyObject().(*networkingv1.Ingress)
		if virtual.Spec.DefaultBackend != nil {
			virtual.Spec.DefaultBackend.Resource = nil
		}
		for i := range virtual.Spec.Rules {
			if http := virtual.Spec.Rules[i].HTTP; http != nil {
				for j := range http.Paths {
					http.Paths[j].Backend.Resource = nil
				}
			}
		}
		config := testTenant()
		config.Hosts = []string{"*"}
		tenant := translate.NewTenant(config, testOwner())
		host, err := kinds.Ingress().ToHost(translate.Input[*networkingv1.Ingress]{Tenant: tenant, Virtual: virtual})
		if len(virtual.Spec.Rules) == 0 && virtual.Spec.DefaultBackend == nil {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		checkHostObject(t, translate.Input[translate.Object]{Tenant: tenant, Virtual: virtual}, host)
		for key := range host.Annotations {
			if _, allowed := kinds.IngressAnnotations()[key]; !allowed && !strings.HasPrefix(key, api.Prefix) {
				t.Fatalf("annotation %q crossed", key)
			}
		}
		ours := func(name string) {
			if name != "" && !isHostName(name) {
				t.Fatalf("the host's Ingress refers to %q, which no virtual object of the tenant has for a host name", name)
			}
		}
		for _, tls := range host.Spec.TLS {
			ours(tls.SecretName)
		}
		backend := func(backend *networkingv1.IngressBackend) {
			if backend == nil {
				return
			}
			if backend.Resource != nil {
				t.Fatal("a resource crossed")
			}
			if backend.Service != nil {
				ours(backend.Service.Name)
			}
		}
		backend(host.Spec.DefaultBackend)
		for _, rule := range host.Spec.Rules {
			if rule.HTTP != nil {
				for i := range rule.HTTP.Paths {
					backend(&rule.HTTP.Paths[i].Backend)
				}
			}
		}

		// With hosts bounded, a random one is not among them.
		config.Hosts = []string{"*.example.com"}
		bounded, err := kinds.Ingress().ToHost(translate.Input[*networkingv1.Ingress]{Tenant: translate.NewTenant(config, testOwner()), Virtual: virtual})
		if err == nil {
			t.Fatalf("hosts beyond the limit crossed: %v", bounded.Spec)
		}
	})
}

// TestIngressAnnotationsAreNarrow: a form that lets anything through that ends
// something in a configuration would undo the list.
func TestIngressAnnotationsAreNarrow(t *testing.T) {
	for key, form := range kinds.IngressAnnotations() {
		if messages := validation.IsQualifiedName(strings.ToLower(key)); len(messages) > 0 {
			t.Errorf("%q is no key: %v", key, messages)
		}
		if !kinds.ForIngressControllers(key) {
			t.Errorf("%q is allowed, but would not be refused if it were not: its domain is missing", key)
		}
		pattern := regexp.MustCompile(`^` + form + `$`)
		for _, bad := range []string{"", "a;b", "a{b", "a}b", "a\nb", "1\n", "1;", "true;", "a\"b", "a'b", "a`b", "a\\b", "a#b", "other-namespace/secret;", "/a b"} {
			if pattern.MatchString(bad) {
				t.Errorf("%q lets %q through", key, bad)
			}
		}
	}
	for _, dangerous := range []string{
		"nginx.ingress.kubernetes.io/configuration-snippet", "nginx.ingress.kubernetes.io/server-snippet", "nginx.ingress.kubernetes.io/auth-secret",
		"nginx.ingress.kubernetes.io/auth-url", "nginx.ingress.kubernetes.io/mirror-target", "nginx.ingress.kubernetes.io/server-alias",
		"nginx.ingress.kubernetes.io/upstream-vhost", "nginx.ingress.kubernetes.io/auth-tls-secret", "nginx.org/server-snippets",
		"traefik.ingress.kubernetes.io/router.middlewares", "alb.ingress.kubernetes.io/group.name", "haproxy.org/backend-config-snippet",
		"kubernetes.io/ingress.global-static-ip-name", "zalando.org/skipper-filter",
	} {
		if _, allowed := kinds.IngressAnnotations()[dangerous]; allowed || !kinds.ForIngressControllers(dangerous) {
			t.Errorf("%q is not refused", dangerous)
		}
	}
	for _, harmless := range []string{"meta.helm.sh/release-name", "kubernetes.io/description", "example.com/owner", "cert-manager.io/cluster-issuer", "plain"} {
		if kinds.ForIngressControllers(harmless) {
			t.Errorf("%q is refused", harmless)
		}
	}
}
