package kinds

import (
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// IngressClass of the host is shown to the tenant if its limits allow it. A class
// that the tenant makes is the tenant's, for a controller that runs in it.
func IngressClass() translate.Kind[*networkingv1.IngressClass] {
	return translate.Kind[*networkingv1.IngressClass]{
		GroupVersionKind: networkingv1.SchemeGroupVersion.WithKind("IngressClass"),
		Resource:         "ingressclasses",
		New:              func() *networkingv1.IngressClass { return &networkingv1.IngressClass{} },
		NewList:          func() translate.ObjectList { return &networkingv1.IngressClassList{} },
		ClusterRules:     []rbacv1.PolicyRule{rule(networkingv1.GroupName, readOnly, "ingressclasses")},
		ToVirtual:        ingressClassToVirtual,
		PruneHost:        func(host *networkingv1.IngressClass) { host.Labels, host.Spec.Parameters = nil, nil },
	}
}

// ingressClassAllowed tells whether the tenant may use a class of the host.
func ingressClassAllowed(tenant translate.Tenant, name string) bool {
	return len(tenant.IngressClasses) == 0 || slices.Contains(tenant.IngressClasses, name)
}

func ingressClassToVirtual(in translate.Input[*networkingv1.IngressClass]) (*networkingv1.IngressClass, error) {
	host := in.Host.DeepCopy()
	if !ingressClassAllowed(in.Tenant, host.Name) {
		return nil, nil
	}
	virtual := &networkingv1.IngressClass{
		ObjectMeta: translate.VirtualMeta(host, func(key string) bool { return key == networkingv1.AnnotationIsDefaultIngressClass }),
		// Parameters stay behind: they name an object of the host.
		Spec: networkingv1.IngressClassSpec{Controller: host.Spec.Controller},
	}
	if old := in.Virtual; old != nil && old.Spec.Controller != virtual.Spec.Controller {
		// The host's was made anew, and this cannot be changed: so is this one.
		return nil, nil
	}
	return virtual, nil
}
