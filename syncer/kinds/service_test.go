package kinds_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func serviceFields() []fieldList {
	return []fieldList{
		{
			of:         corev1.Service{},
			translated: []string{"ObjectMeta", "Spec"},
			dropped:    []string{"TypeMeta", "Status"},
		},
		{
			of: corev1.ServiceSpec{},
			copied: []string{
				"Ports", "ClusterIP", "ClusterIPs", "Type", "SessionAffinity", "SessionAffinityConfig",
				"LoadBalancerIP", "LoadBalancerSourceRanges", "LoadBalancerClass", "AllocateLoadBalancerNodePorts",
				"ExternalTrafficPolicy", "InternalTrafficPolicy", "TrafficDistribution", "HealthCheckNodePort",
				"PublishNotReadyAddresses", "IPFamilies", "IPFamilyPolicy",
			},
			translated: []string{"Selector"},
			dropped:    []string{"ExternalName"},
			refused:    []string{"ExternalIPs"},
		},
		{
			of:     corev1.ServicePort{},
			copied: []string{"Name", "Protocol", "AppProtocol", "Port", "TargetPort", "NodePort"},
		},
	}
}

func TestServiceFields(t *testing.T) { checkFields(t, serviceFields()) }

func FuzzService(f *testing.F) {
	fuzzToHost(f, kinds.Service(), func(t *testing.T, in translate.Input[translate.Object]) {
		virtual := in.Virtual.DeepCopyObject().(*corev1.Service)
		// Else hardly any would pass.
		virtual.Spec.Type = corev1.ServiceTypeClusterIP
		virtual.Spec.ExternalIPs = nil
		host, err := kinds.Service().ToHost(translate.Input[*corev1.Service]{Tenant: in.Tenant, Virtual: virtual})
		if err != nil {
			t.Fatal(err)
		}
		checkCopied(t, serviceFields()[1], virtual.Spec, host.Spec)
		if len(virtual.Spec.Selector) == 0 {
			if len(host.Spec.Selector) != 0 {
				t.Fatal("a Service without selector got one")
			}
			return
		}
		if host.Spec.Selector[api.LabelTenant] != in.Tenant.Name || host.Spec.Selector[api.LabelVirtualNamespace] != virtual.Namespace {
			t.Fatalf("selector %v leaves the tenant's virtual namespace", host.Spec.Selector)
		}
	})
}

// TestServiceMergeKeepsAllocations: a client that writes a Service without
// having read it does not lose what was allocated.
func TestServiceMergeKeepsAllocations(t *testing.T) {
	policy, yes := corev1.IPFamilyPolicySingleStack, true
	host := corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.9", ClusterIPs: []string{"10.96.0.9"},
		IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, IPFamilyPolicy: &policy,
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, HealthCheckNodePort: 32000,
		AllocateLoadBalancerNodePorts: &yes,
		Ports:                         []corev1.ServicePort{{Name: "a", Port: 80, NodePort: 31001}, {Name: "b", Port: 81, NodePort: 31002}, {Name: "c", Port: 82, NodePort: 31003}},
	}
	tests := map[string]struct {
		desired corev1.ServiceSpec
		want    corev1.ServiceSpec
	}{
		"nothing said": {
			desired: corev1.ServiceSpec{
				Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
				Ports: []corev1.ServicePort{{Name: "a", Port: 80}, {Name: "b", Port: 8081}},
			},
			want: corev1.ServiceSpec{
				Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.9", ClusterIPs: []string{"10.96.0.9"},
				IPFamilies: host.IPFamilies, IPFamilyPolicy: &policy,
				ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, HealthCheckNodePort: 32000,
				AllocateLoadBalancerNodePorts: &yes,
				Ports:                         []corev1.ServicePort{{Name: "a", Port: 80, NodePort: 31001}, {Name: "b", Port: 8081, NodePort: 31002}},
			},
		},
		"a node port moved to another port": {
			desired: corev1.ServiceSpec{
				Type:  corev1.ServiceTypeNodePort,
				Ports: []corev1.ServicePort{{Name: "a", Port: 80}, {Name: "b", Port: 81, NodePort: 31001}},
			},
			want: corev1.ServiceSpec{
				Type: corev1.ServiceTypeNodePort, ClusterIP: "10.96.0.9", ClusterIPs: []string{"10.96.0.9"},
				IPFamilies: host.IPFamilies, IPFamilyPolicy: &policy,
				Ports: []corev1.ServicePort{{Name: "a", Port: 80}, {Name: "b", Port: 81, NodePort: 31001}},
			},
		},
		"no longer exposed": {
			desired: corev1.ServiceSpec{
				Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Name: "a", Port: 80}},
			},
			want: corev1.ServiceSpec{
				Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.9", ClusterIPs: []string{"10.96.0.9"},
				IPFamilies: host.IPFamilies, IPFamilyPolicy: &policy,
				Ports: []corev1.ServicePort{{Name: "a", Port: 80}},
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := kinds.Service().Merge(&corev1.Service{Spec: *host.DeepCopy()}, &corev1.Service{Spec: test.desired})
			if diff := cmp.Diff(test.want, got.Spec); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
