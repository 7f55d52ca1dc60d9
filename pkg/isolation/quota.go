package isolation

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// Names of the ResourceQuotas.
const (
	QuotaPods    = "sublet-pods"
	QuotaObjects = "sublet-objects"
	// QuotaControlPlane is the one that a control plane's own pod can meet: for
	// a moment, when the last pod is gone and still counts.
	QuotaControlPlane = "sublet-control-plane"
)

// quota keeps the tenant within its figures, and the control plane out of them:
//
//	sublet-pods           what pods take. In a VirtualCluster's namespace its
//	                      scope leaves the control plane's priority class out.
//	sublet-objects        everything else. Such a quota cannot have a scope, so
//	                      what the control plane takes is added to the figures.
//	sublet-control-plane  how many pods may have the control plane's priority
//	                      class: the one, so that nobody slips past sublet-pods
//	                      with it.
//
// Types of Service that may not be used are a quota of none.
func quota(in Input) []Object {
	pods, objects := corev1.ResourceList{}, corev1.ResourceList{}
	own := corev1.ResourceList{}
	for name, figure := range in.Tenant.Limits.Quota {
		if share, ok := in.Shares[name]; ok {
			figure = share
		}
		if scopable(name) {
			pods[name] = figure.DeepCopy()
			continue
		}
		figure = figure.DeepCopy()
		if needs, ok := in.ControlPlane[name]; ok {
			figure.Add(needs)
			own[name] = needs
		}
		objects[name] = figure
	}
	loadBalancers := slices.Contains(in.Tenant.Limits.Services, corev1.ServiceTypeLoadBalancer)
	nodePorts := slices.Contains(in.Tenant.Limits.Services, corev1.ServiceTypeNodePort)
	if !loadBalancers {
		objects[corev1.ResourceServicesLoadBalancers] = resource.MustParse("0")
	}
	// A load balancer takes node ports too.
	if !loadBalancers && !nodePorts {
		objects[corev1.ResourceServicesNodePorts] = resource.MustParse("0")
	}

	virtual := in.Tenant.Type == api.VirtualCluster
	controlPlanePods := "0"
	if virtual {
		controlPlanePods = "1"
	}
	counted := resourceQuota(in, QuotaObjects, objects, nil)
	if len(own) > 0 {
		counted.Annotations = map[string]string{api.AnnotationControlPlaneShare: amounts(own)}
	}
	quotas := []Object{
		counted,
		resourceQuota(in, QuotaControlPlane,
			corev1.ResourceList{corev1.ResourcePods: resource.MustParse(controlPlanePods)},
			controlPlaneScope(corev1.ScopeSelectorOpIn)),
	}
	if len(pods) == 0 {
		return quotas
	}
	var scope *corev1.ScopeSelector
	if virtual {
		scope = controlPlaneScope(corev1.ScopeSelectorOpNotIn)
	}
	return append(quotas, resourceQuota(in, QuotaPods, pods, scope))
}

// amounts writes a list in one line: "secrets=4,services=2".
func amounts(list corev1.ResourceList) string {
	var parts []string
	for name, amount := range list {
		parts = append(parts, string(name)+"="+amount.String())
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

func resourceQuota(in Input, name string, hard corev1.ResourceList, scope *corev1.ScopeSelector) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ResourceQuota"},
		ObjectMeta: meta(in, name),
		Spec:       corev1.ResourceQuotaSpec{Hard: hard, ScopeSelector: scope},
	}
}

func controlPlaneScope(op corev1.ScopeSelectorOperator) *corev1.ScopeSelector {
	return &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{{
		ScopeName: corev1.ResourceQuotaScopePriorityClass,
		Operator:  op,
		Values:    []string{api.ControlPlanePriorityClass},
	}}}
}

// scopable says whether a quota with a scope by priority class may bound a
// resource: IsResourceQuotaScopeValidForResource in k8s.io/kubernetes,
// pkg/apis/core/helper.
func scopable(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourcePods, corev1.ResourceCPU, corev1.ResourceMemory,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory:
		return true
	}
	return false
}
