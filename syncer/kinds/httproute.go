package kinds

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// HTTPRoute crosses to the host as far as it attaches to Gateways of the host
// that the limits name, which the tenant calls what they are called there. Parents
// that it has beside them are the tenant's own and stay. It is synced as long as
// both sides have the kind.
func HTTPRoute() translate.Kind[*unstructured.Unstructured] {
	return translate.Kind[*unstructured.Unstructured]{
		GroupVersionKind:  httpRouteKind(),
		Resource:          "httproutes",
		Namespaced:        true,
		New:               newUntyped,
		NewList:           newUntypedList,
		Rules:             []rbacv1.PolicyRule{rule(gatewayGroup, everything, "httproutes")},
		Optional:          true,
		ReadsVirtual:      []translate.Object{&corev1.Namespace{}},
		Refs:              httpRouteRefs,
		ToHost:            httpRouteToHost,
		Merge:             untypedMergeSpec,
		Status:            httpRouteStatus,
		StatusSubresource: true,
	}
}

func httpRouteKind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: gatewayGroup, Version: "v1", Kind: "HTTPRoute"}
}

// httpRouteOf is the route with types. Fields that this release of the Gateway
// API does not have are left out.
func httpRouteOf(object *unstructured.Unstructured) (*gatewayv1.HTTPRoute, error) {
	route := &gatewayv1.HTTPRoute{}
	if object == nil {
		return route, nil
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.DeepCopy().Object, route); err != nil {
		return nil, fmt.Errorf("the HTTPRoute cannot be read: %w", err)
	}
	return route, nil
}

func httpRouteRefs(virtual, _ *unstructured.Unstructured) []translate.Ref {
	route, err := httpRouteOf(virtual)
	if err != nil || virtual == nil {
		return nil
	}
	r := refCollector{namespace: virtual.GetNamespace(), seen: map[translate.Ref]bool{}}
	for _, parent := range route.Spec.ParentRefs {
		if parent.Namespace != nil {
			// Whether it is a namespace of the tenant's.
			r.add(translate.Ref{Kind: coreKind("Namespace"), Name: string(*parent.Namespace), Read: true, Watch: true})
		}
	}
	for _, rule := range route.Spec.Rules {
		for _, backend := range rule.BackendRefs {
			// For its name in texts; Services cross by themselves.
			r.add(translate.Ref{Kind: coreKind("Service"), Namespace: virtual.GetNamespace(), Name: string(backend.Name)})
		}
	}
	return r.refs
}

func httpRouteToHost(in translate.Input[*unstructured.Unstructured]) (*unstructured.Unstructured, error) {
	virtual, err := httpRouteOf(in.Virtual)
	if err != nil {
		return nil, err
	}
	parents, err := httpRouteParents(in, virtual)
	if err != nil || len(parents) == 0 {
		return nil, err
	}
	if virtual.Spec.UseDefaultGateways != "" {
		return nil, fmt.Errorf("spec.useDefaultGateways may not be used in this cluster: name the Gateway in spec.parentRefs")
	}
	if len(virtual.Spec.Hostnames) == 0 {
		if err := hostAllowed(in.Tenant, "spec.hostnames", ""); err != nil {
			return nil, err
		}
	}
	for i, name := range virtual.Spec.Hostnames {
		if err := hostAllowed(in.Tenant, fmt.Sprintf("spec.hostnames[%d]", i), string(name)); err != nil {
			return nil, err
		}
	}
	spec := gatewayv1.HTTPRouteSpec{
		CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: parents},
		Hostnames:       virtual.Spec.Hostnames,
	}
	namespace := in.Virtual.GetNamespace()
	for i, rule := range virtual.Spec.Rules {
		path := fmt.Sprintf("spec.rules[%d]", i)
		out := gatewayv1.HTTPRouteRule{
			Name: rule.Name, Matches: rule.Matches, Timeouts: rule.Timeouts, Retry: rule.Retry, SessionPersistence: rule.SessionPersistence,
		}
		if out.Filters, err = httpRouteFilters(namespace, path, rule.Filters); err != nil {
			return nil, err
		}
		for j, backend := range rule.BackendRefs {
			path := fmt.Sprintf("%s.backendRefs[%d]", path, j)
			reference, err := httpRouteBackend(namespace, path, backend.BackendObjectReference)
			if err != nil {
				return nil, err
			}
			filters, err := httpRouteFilters(namespace, path, backend.Filters)
			if err != nil {
				return nil, err
			}
			out.BackendRefs = append(out.BackendRefs, gatewayv1.HTTPBackendRef{
				BackendRef: gatewayv1.BackendRef{BackendObjectReference: reference, Weight: backend.Weight}, Filters: filters,
			})
		}
		spec.Rules = append(spec.Rules, out)
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&spec)
	if err != nil {
		return nil, fmt.Errorf("write the HTTPRoute: %w", err)
	}
	host := untypedToHost(in.Tenant, in.Virtual)
	host.Object["spec"] = content
	return host, nil
}

// httpRouteParents are those of the host that the limits name. One that is meant
// for the host and may not be used is refused: its namespace is none of the
// tenant's.
func httpRouteParents(in translate.Input[*unstructured.Unstructured], virtual *gatewayv1.HTTPRoute) ([]gatewayv1.ParentReference, error) {
	var parents []gatewayv1.ParentReference
	for i, parent := range virtual.Spec.ParentRefs {
		gateway := (parent.Group == nil || *parent.Group == gatewayGroup) && (parent.Kind == nil || *parent.Kind == "Gateway")
		if !gateway || parent.Namespace == nil {
			continue
		}
		namespace := string(*parent.Namespace)
		if slices.Contains(in.Tenant.Gateways, namespace+"/"+string(parent.Name)) {
			parents = append(parents, parent)
			continue
		}
		if len(in.Tenant.Gateways) > 0 && translate.Find[*corev1.Namespace](in.Refs, translate.Virtual, "", namespace) == nil {
			return nil, fmt.Errorf("spec.parentRefs[%d]: there is no namespace %q, and of the Gateways of the host may be used only: %s; ask whoever manages the tenant for it",
				i, namespace, strings.Join(in.Tenant.Gateways, ", "))
		}
	}
	return parents, nil
}

// httpRouteBackend translates a reference to a Service of the route's own
// namespace. One to another would need a ReferenceGrant there, and on the host
// all are in one.
func httpRouteBackend(namespace, path string, backend gatewayv1.BackendObjectReference) (gatewayv1.BackendObjectReference, error) {
	if backend.Group != nil && *backend.Group != "" || backend.Kind != nil && *backend.Kind != "Service" {
		return gatewayv1.BackendObjectReference{}, fmt.Errorf("%s: a backend that is no Service cannot be used in this cluster", path)
	}
	if backend.Namespace != nil && string(*backend.Namespace) != namespace {
		return gatewayv1.BackendObjectReference{}, fmt.Errorf("%s: a backend in another namespace (%q) cannot be used in this cluster: put the route beside its Services", path, *backend.Namespace)
	}
	return gatewayv1.BackendObjectReference{
		Group: backend.Group, Kind: backend.Kind, Port: backend.Port,
		Name: gatewayv1.ObjectName(translate.HostName(namespace, string(backend.Name))),
	}, nil
}

// httpRouteFilters refuses filters that name something of the gateway's own, or
// have it ask somebody else.
func httpRouteFilters(namespace, path string, virtual []gatewayv1.HTTPRouteFilter) ([]gatewayv1.HTTPRouteFilter, error) {
	var out []gatewayv1.HTTPRouteFilter
	for i, filter := range virtual {
		path := fmt.Sprintf("%s.filters[%d]", path, i)
		if filter.ExtensionRef != nil || filter.ExternalAuth != nil {
			return nil, fmt.Errorf("%s: filters of type %s cannot be used in this cluster", path, filter.Type)
		}
		translated := gatewayv1.HTTPRouteFilter{
			Type:                   filter.Type,
			RequestHeaderModifier:  filter.RequestHeaderModifier,
			ResponseHeaderModifier: filter.ResponseHeaderModifier,
			RequestRedirect:        filter.RequestRedirect,
			URLRewrite:             filter.URLRewrite,
			CORS:                   filter.CORS,
		}
		if mirror := filter.RequestMirror; mirror != nil {
			backend, err := httpRouteBackend(namespace, path+".requestMirror.backendRef", mirror.BackendRef)
			if err != nil {
				return nil, err
			}
			translated.RequestMirror = &gatewayv1.HTTPRequestMirrorFilter{BackendRef: backend, Percent: mirror.Percent, Fraction: mirror.Fraction}
		}
		out = append(out, translated)
	}
	return out, nil
}

// httpRouteStatus brings back what the host's gateways say, beside what gateways
// of the tenant's own may have said.
func httpRouteStatus(in translate.Input[*unstructured.Unstructured]) (*unstructured.Unstructured, error) {
	virtual := in.Virtual.DeepCopy()
	theirs, _, _ := unstructured.NestedSlice(in.Host.Object, "status", "parents")
	ours, _, _ := unstructured.NestedSlice(virtual.Object, "status", "parents")
	parents := []any{}
	for _, parent := range ours {
		if !fromHostGateway(in.Tenant, parent) {
			parents = append(parents, parent)
		}
	}
	for _, parent := range theirs {
		// Others may write into the status of a route of theirs; what counts is
		// said about the Gateways that it was attached to.
		entry, ok := parent.(map[string]any)
		if !ok || !fromHostGateway(in.Tenant, parent) {
			continue
		}
		untypedConditions(in, entry)
		parents = append(parents, entry)
	}
	if len(parents) == 0 && len(ours) == 0 {
		return virtual, nil
	}
	return virtual, unstructured.SetNestedSlice(virtual.Object, parents, "status", "parents")
}

// fromHostGateway tells whether an entry of status.parents is about a Gateway of
// the host.
func fromHostGateway(tenant translate.Tenant, entry any) bool {
	parent, ok := entry.(map[string]any)
	if !ok {
		return false
	}
	namespace, _, _ := unstructured.NestedString(parent, "parentRef", "namespace")
	name, _, _ := unstructured.NestedString(parent, "parentRef", "name")
	return slices.Contains(tenant.Gateways, namespace+"/"+name)
}
