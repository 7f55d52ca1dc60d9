package kinds

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// Node is shown to the tenant as far as its pods run on it: with its true size,
// versions and health, and without what it says about other tenants.
func Node() translate.Kind[*corev1.Node] {
	return translate.Kind[*corev1.Node]{
		GroupVersionKind:  corev1.SchemeGroupVersion.WithKind("Node"),
		Resource:          "nodes",
		New:               func() *corev1.Node { return &corev1.Node{} },
		NewList:           func() translate.ObjectList { return &corev1.NodeList{} },
		ClusterRules:      []rbacv1.PolicyRule{rule("", readOnly, "nodes")},
		WhenReferenced:    true,
		StatusSubresource: true,
		ToVirtual:         nodeToVirtual,
		PruneHost:         nodePrune,
	}
}

// nodeLabel tells which labels of a node the tenant sees: Kubernetes' own. What
// the host's people keep in others is theirs.
func nodeLabel(key string) bool {
	domain, _, _ := strings.Cut(key, "/")
	switch domain {
	case "kubernetes.io", "node.kubernetes.io", "topology.kubernetes.io":
		return true
	}
	return false
}

func nodeToVirtual(in translate.Input[*corev1.Node]) (*corev1.Node, error) {
	host := in.Host.DeepCopy()
	host.Annotations = nil // a machine's own affairs
	virtual := &corev1.Node{
		ObjectMeta: translate.VirtualMeta(host, nodeLabel),
		Spec: corev1.NodeSpec{
			// Taints stay behind: who may run here, the host has decided.
			Unschedulable: host.Spec.Unschedulable,
		},
		Status: corev1.NodeStatus{
			Capacity:         host.Status.Capacity,
			Allocatable:      host.Status.Allocatable,
			Conditions:       host.Status.Conditions,
			DaemonEndpoints:  host.Status.DaemonEndpoints,
			RuntimeHandlers:  host.Status.RuntimeHandlers,
			Features:         host.Status.Features,
			DeclaredFeatures: host.Status.DeclaredFeatures,
			NodeInfo: corev1.NodeSystemInfo{
				// The identity of the machine stays behind.
				KernelVersion:           host.Status.NodeInfo.KernelVersion,
				OSImage:                 host.Status.NodeInfo.OSImage,
				ContainerRuntimeVersion: host.Status.NodeInfo.ContainerRuntimeVersion,
				KubeletVersion:          host.Status.NodeInfo.KubeletVersion,
				KubeProxyVersion:        host.Status.NodeInfo.KubeProxyVersion,
				OperatingSystem:         host.Status.NodeInfo.OperatingSystem,
				Architecture:            host.Status.NodeInfo.Architecture,
				Swap:                    host.Status.NodeInfo.Swap,
			},
		},
	}
	for _, address := range host.Status.Addresses {
		if address.Type == corev1.NodeHostName || address.Type == corev1.NodeInternalIP {
			virtual.Status.Addresses = append(virtual.Status.Addresses, address)
		}
	}
	return virtual, nil
}

// nodePrune drops the bulk of a node before it is kept in memory.
func nodePrune(host *corev1.Node) {
	host.Annotations = nil
	host.Status.Images = nil
	host.Status.VolumesInUse = nil
	host.Status.VolumesAttached = nil
	host.Status.Config = nil
}
