package kinds

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sublet-dev/sublet/syncer/translate"
)

const gatewayGroup = "gateway.networking.k8s.io"

// GatewayClass of the host is shown to a tenant whose limits name a Gateway, if
// both have the kind. A class that the tenant makes is the tenant's.
func GatewayClass() translate.Kind[*unstructured.Unstructured] {
	return translate.Kind[*unstructured.Unstructured]{
		GroupVersionKind: schema.GroupVersionKind{Group: gatewayGroup, Version: "v1", Kind: "GatewayClass"},
		Resource:         "gatewayclasses",
		New:              newUntyped,
		NewList:          newUntypedList,
		ClusterRules:     []rbacv1.PolicyRule{rule(gatewayGroup, readOnly, "gatewayclasses")},
		Optional:         true,
		Unused:           func(tenant translate.Tenant) bool { return len(tenant.Gateways) == 0 },
		// Its status tells whether the host's controller has accepted it.
		StatusSubresource: true,
		ToVirtual:         gatewayClassToVirtual,
	}
}

func gatewayClassToVirtual(in translate.Input[*unstructured.Unstructured]) (*unstructured.Unstructured, error) {
	host := in.Host
	virtual := untypedToVirtual(host)
	controller := text(host, "spec", "controllerName")
	if old := in.Virtual; old != nil && text(old, "spec", "controllerName") != controller {
		// The host's was made anew, and this cannot be changed: so is this one.
		return nil, nil
	}
	// spec.parametersRef stays behind: it names an object of the host.
	spec := map[string]any{"controllerName": controller}
	if description := text(host, "spec", "description"); description != "" {
		spec["description"] = description
	}
	virtual.Object["spec"] = spec

	status := map[string]any{}
	for _, field := range []string{"conditions", "supportedFeatures"} {
		if list, ok, err := unstructured.NestedSlice(host.Object, "status", field); ok && err == nil {
			status[field] = list
		}
	}
	if len(status) > 0 {
		virtual.Object["status"] = status
	}
	return virtual, nil
}
