package kinds

import (
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// PodDisruptionBudget crosses to the host, so that draining a node there keeps
// it. Evictions in the tenant go by the virtual one, whose status the tenant's
// own controller keeps: it sees the same pods.
//
// That controller also says how many pods must be there, and that number is what
// crosses. A share of all pods, or a number that may be missing, would have no
// meaning on the host: there the pods have no Deployment that says how many there
// ought to be, and the host's controller would allow no eviction at all.
func PodDisruptionBudget() translate.Kind[*policyv1.PodDisruptionBudget] {
	return translate.Kind[*policyv1.PodDisruptionBudget]{
		GroupVersionKind: policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"),
		Resource:         "poddisruptionbudgets",
		Namespaced:       true,
		New:              func() *policyv1.PodDisruptionBudget { return &policyv1.PodDisruptionBudget{} },
		NewList:          func() translate.ObjectList { return &policyv1.PodDisruptionBudgetList{} },
		Rules:            []rbacv1.PolicyRule{rule(policyv1.GroupName, everything, "poddisruptionbudgets")},
		ToHost:           budgetToHost,
		Merge:            budgetMerge,
	}
}

func budgetToHost(in translate.Input[*policyv1.PodDisruptionBudget]) (*policyv1.PodDisruptionBudget, error) {
	virtual := in.Virtual
	available := intstr.FromInt32(virtual.Status.DesiredHealthy)
	if virtual.Status.ObservedGeneration < virtual.Generation || virtual.Status.ObservedGeneration == 0 {
		// The tenant's controller has yet to say it. What it said before counts.
		if in.Host == nil || in.Host.Spec.MinAvailable == nil {
			return nil, nil
		}
		available = *in.Host.Spec.MinAvailable
	}
	spec := policyv1.PodDisruptionBudgetSpec{
		MinAvailable:               &available,
		UnhealthyPodEvictionPolicy: virtual.Spec.UnhealthyPodEvictionPolicy,
	}
	if virtual.Spec.Selector != nil { // Without it a budget is for no pod.
		spec.Selector = fencedSelector(virtual.Spec.Selector, inNamespace(virtual.Namespace))
	}
	return &policyv1.PodDisruptionBudget{ObjectMeta: in.Tenant.HostMeta(virtual), Spec: spec}, nil
}

func budgetMerge(host, desired *policyv1.PodDisruptionBudget) *policyv1.PodDisruptionBudget {
	host.Spec = desired.Spec
	return host
}
