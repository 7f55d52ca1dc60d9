package kinds_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func TestHTTPRouteFields(t *testing.T) {
	checkFields(t, []fieldList{
		{of: gatewayv1.HTTPRoute{}, translated: []string{"ObjectMeta", "Spec", "Status"}, dropped: []string{"TypeMeta"}},
		{of: gatewayv1.HTTPRouteSpec{}, copied: []string{"Hostnames"}, translated: []string{"CommonRouteSpec", "Rules"}},
		{of: gatewayv1.CommonRouteSpec{}, translated: []string{"ParentRefs"}, refused: []string{"UseDefaultGateways"}},
		{of: gatewayv1.ParentReference{}, copied: []string{"Group", "Kind", "Namespace", "Name", "SectionName", "Port"}},
		{
			of: gatewayv1.HTTPRouteRule{}, copied: []string{"Name", "Matches", "Timeouts", "Retry", "SessionPersistence"},
			translated: []string{"Filters", "BackendRefs"},
		},
		{
			of: gatewayv1.HTTPRouteFilter{}, copied: []string{"Type", "RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "CORS"},
			translated: []string{"RequestMirror"}, refused: []string{"ExternalAuth", "ExtensionRef"},
		},
		{of: gatewayv1.HTTPRequestMirrorFilter{}, copied: []string{"Percent", "Fraction"}, translated: []string{"BackendRef"}},
		{of: gatewayv1.HTTPBackendRef{}, translated: []string{"BackendRef", "Filters"}},
		{of: gatewayv1.BackendRef{}, copied: []string{"Weight"}, translated: []string{"BackendObjectReference"}},
		{of: gatewayv1.BackendObjectReference{}, copied: []string{"Group", "Kind", "Port"}, translated: []string{"Name"}, refused: []string{"Namespace"}},
		// None of these names an object.
		{of: gatewayv1.HTTPRouteMatch{}, copied: []string{"Path", "Headers", "QueryParams", "Method"}},
		{of: gatewayv1.HTTPRequestRedirectFilter{}, copied: []string{"Scheme", "Hostname", "Path", "Port", "StatusCode"}},
		{of: gatewayv1.HTTPURLRewriteFilter{}, copied: []string{"Hostname", "Path"}},
		{of: gatewayv1.HTTPHeaderFilter{}, copied: []string{"Set", "Add", "Remove"}},
		{of: gatewayv1.HTTPCORSFilter{}, copied: []string{"AllowOrigins", "AllowCredentials", "AllowMethods", "AllowHeaders", "ExposeHeaders", "MaxAge"}},
		{of: gatewayv1.HTTPRouteRetry{}, copied: []string{"Codes", "Attempts", "Backoff"}},
		{of: gatewayv1.SessionPersistence{}, copied: []string{"SessionName", "AbsoluteTimeout", "IdleTimeout", "Type", "CookieConfig"}},
	})
}

// FuzzHTTPRoute: a route that crosses attaches to the Gateways of the limits
// only, and leads to Services of the tenant's only.
func FuzzHTTPRoute(f *testing.F) {
	for _, seed := range [][]byte{{}, []byte("route"), []byte("another route, with more to fill it from, and more"), make([]byte, 4096)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		route := &gatewayv1.HTTPRoute{}
		newFiller(data).Fill(&route.Spec)
		// Else hardly any would pass.
		namespace, group, kind := gatewayv1.Namespace("gateways"), gatewayv1.Group(""), gatewayv1.Kind("Service")
		route.Spec.UseDefaultGateways = ""
		route.Spec.ParentRefs = append(route.Spec.ParentRefs, gatewayv1.ParentReference{Namespace: &namespace, Name: "public"})
		for i := range route.Spec.ParentRefs {
			if route.Spec.ParentRefs[i].Namespace != nil && string(route.Spec.ParentRefs[i].Name) != "public" {
				route.Spec.ParentRefs[i].Namespace = nil
			}
		}
		sensible := func(backend *gatewayv1.BackendObjectReference) {
			backend.Group, backend.Kind, backend.Namespace, backend.Name = &group, &kind, nil, "web"
		}
		filters := func(filters []gatewayv1.HTTPRouteFilter) {
			for i := range filters {
				filters[i].ExtensionRef, filters[i].ExternalAuth = nil, nil
				if filters[i].RequestMirror != nil {
					sensible(&filters[i].RequestMirror.BackendRef)
				}
			}
		}
		for i := range route.Spec.Rules {
			filters(route.Spec.Rules[i].Filters)
			for j := range route.Spec.Rules[i].BackendRefs {
				sensible(&route.Spec.Rules[i].BackendRefs[j].BackendObjectReference)
				filters(route.Spec.Rules[i].BackendRefs[j].Filters)
			}
		}
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(route)
		if err != nil {
			t.Fatal(err)
		}
		virtual := &unstructured.Unstructured{Object: content}
		virtual.SetAPIVersion("gateway.networking.k8s.io/v1")
		virtual.SetKind("HTTPRoute")
		named(virtual, "virtual")
		config := testTenant()
		config.Gateways, config.Hosts = []string{"gateways/public"}, []string{"*"}
		tenant := translate.NewTenant(config, testOwner())
		in := translate.Input[translate.Object]{Tenant: tenant, Virtual: virtual}
		checkInvariants(t, kinds.HTTPRoute().Erase(), in)
		host, err := kinds.HTTPRoute().ToHost(translate.Input[*unstructured.Unstructured]{Tenant: tenant, Virtual: virtual})
		if err != nil {
			t.Fatal(err)
		}
		out := &gatewayv1.HTTPRoute{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(host.Object, out); err != nil {
			t.Fatal(err)
		}
		for _, parent := range out.Spec.ParentRefs {
			if parent.Namespace == nil || *parent.Namespace != "gateways" || parent.Name != "public" {
				t.Fatalf("attached to %v", parent)
			}
		}
		ours := func(backend gatewayv1.BackendObjectReference) {
			if backend.Namespace != nil || !isHostName(string(backend.Name)) {
				t.Fatalf("backend %v is none of the tenant's", backend)
			}
		}
		mirrors := func(filters []gatewayv1.HTTPRouteFilter) {
			for _, filter := range filters {
				if filter.ExtensionRef != nil || filter.ExternalAuth != nil {
					t.Fatalf("filter %v crossed", filter)
				}
				if filter.RequestMirror != nil {
					ours(filter.RequestMirror.BackendRef)
				}
			}
		}
		for i, rule := range out.Spec.Rules {
			mirrors(rule.Filters)
			for _, backend := range rule.BackendRefs {
				ours(backend.BackendObjectReference)
				mirrors(backend.Filters)
			}
			if diff := cmp.Diff(route.Spec.Rules[i].Matches, rule.Matches, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("matches changed:\n%s", diff)
			}
		}
		// Without the limit nothing crosses.
		config.Gateways = nil
		none, err := kinds.HTTPRoute().ToHost(translate.Input[*unstructured.Unstructured]{Tenant: translate.NewTenant(config, testOwner()), Virtual: virtual})
		if none != nil || err != nil {
			t.Fatalf("it crosses though no Gateway may be used: %v, %v", none, err)
		}
	})
}
