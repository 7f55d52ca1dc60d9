package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// TestNewTenant: its pods may reach each node, and no more of its network.
func TestNewTenant(t *testing.T) {
	addresses := func(list ...corev1.NodeAddress) corev1.Node {
		return corev1.Node{Status: corev1.NodeStatus{Addresses: list}}
	}
	tenant := newTenant("acme", []corev1.Node{
		addresses(corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "10.0.0.2"}, corev1.NodeAddress{Type: corev1.NodeHostName, Address: "node-1"}),
		addresses(corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "fd00::3"}, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "192.0.2.3"}),
	})
	if diff := cmp.Diff([]string{"10.0.0.2/32", "fd00::3/128"}, tenant.Spec.Limits.Network.AllowedCIDRs); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestPresencePods: the namespace comes before what is in it, and there is a pod
// for each node.
func TestPresencePods(t *testing.T) {
	list := presencePods(3)
	if len(list.Items) != 2 || list.Items[0].Object.GetObjectKind().GroupVersionKind().Kind != "Namespace" {
		t.Fatalf("the list begins with %v", list.Items)
	}
	deployment, ok := list.Items[1].Object.(*appsv1.Deployment)
	if !ok || *deployment.Spec.Replicas != 3 {
		t.Errorf("it goes on with %v, want a Deployment of three pods", list.Items[1].Object)
	}
}
