package kinds

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// A tenant with a scheduler of its own chooses the node; the host's scheduler
// admits the pod to it, or not, in which case its event says why and the pod
// waits there:
//
//	tenant's scheduler ─► virtual pod bound ─► host pod, for that node only
//	                                              │
//	                                     host's scheduler ─► kubelet
//
// What the choice was made by stays behind: labels, taints and resources that
// the tenant gave its nodes are unknown on the host.

// waitsForNode tells that there is to be no host pod until the tenant's
// scheduler has chosen.
func waitsForNode(tenant translate.Tenant, virtual *corev1.Pod) bool {
	return tenant.Scheduler && virtual.Spec.NodeName == ""
}

// pin confines the host pod to the node that the tenant's scheduler chose.
func (t *podTranslation) pin(out *corev1.PodSpec) {
	out.NodeSelector = maps.Clone(t.in.Tenant.NodeSelector)
	out.Affinity = &corev1.Affinity{NodeAffinity: onNode(nil, t.pod.Spec.NodeName)}
	out.TopologySpreadConstraints = nil
	out.SchedulingGates = nil

	node := translate.Find[*corev1.Node](t.in.Refs, translate.Host, "", t.pod.Spec.NodeName)
	if node == nil {
		return
	}
	if out.Resources != nil {
		onlyOf(node, out.Resources)
	}
	for _, containers := range [][]corev1.Container{out.InitContainers, out.Containers} {
		for i := range containers {
			onlyOf(node, &containers[i].Resources)
		}
	}
}

// onlyOf drops extended resources that the node does not have on the host: the
// tenant's scheduler has counted them.
func onlyOf(node *corev1.Node, resources *corev1.ResourceRequirements) {
	for _, list := range []corev1.ResourceList{resources.Requests, resources.Limits} {
		maps.DeleteFunc(list, func(name corev1.ResourceName, _ resource.Quantity) bool {
			_, known := node.Status.Allocatable[name]
			return strings.Contains(string(name), "/") && !known
		})
	}
}
