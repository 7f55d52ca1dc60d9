package isolation

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

const (
	dnsPort   = 53
	httpsPort = 443
)

// network closes the namespace and opens what a tenant needs. NetworkPolicies
// only add up: the first selects every pod and allows nothing, each of the
// others allows one thing.
//
//	from            to
//	any pod         pods of the tenant, the host's DNS
//	any pod         public addresses, unless limits.network.internet is Deny
//	any pod         limits.network.allowedCIDRs
//	control plane   the host's API
//	tenant, system  the control plane's API and DNS, no other of its ports
func network(in Input) []Object {
	policies := []Object{
		policy(in, "sublet-deny", networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		}),
		within(in),
		policy(in, "sublet-dns", egress(metav1.LabelSelector{}, dnsRule())),
	}
	if in.Tenant.Limits.Internet {
		policies = append(policies, policy(in, "sublet-internet", egress(metav1.LabelSelector{}, internetRule(in.Host))))
	}
	if cidrs := in.Tenant.Limits.AllowedCIDRs; len(cidrs) > 0 {
		policies = append(policies, policy(in, "sublet-allowed-cidrs", egress(metav1.LabelSelector{},
			networkingv1.NetworkPolicyEgressRule{To: blocks(cidrs)})))
	}
	if in.Tenant.Type != api.VirtualCluster {
		return policies
	}
	policies = append(policies, controlPlane(in))
	if len(in.Host.APIServers) > 0 {
		policies = append(policies, policy(in, "sublet-host-api", egress(controlPlanePods(), hostAPIRules(in.Host)...)))
	}
	return policies
}

func policy(in Input, name string, spec networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: meta(in, name),
		Spec:       spec,
	}
}

func egress(pods metav1.LabelSelector, rules ...networkingv1.NetworkPolicyEgressRule) networkingv1.NetworkPolicySpec {
	return networkingv1.NetworkPolicySpec{
		PodSelector: pods,
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress:      rules,
	}
}

func controlPlanePods() metav1.LabelSelector {
	return metav1.LabelSelector{MatchLabels: map[string]string{api.LabelComponent: api.ComponentControlPlane}}
}

// within lets the tenant's pods reach each other, without the control plane,
// which is open on two ports only.
func within(in Input) Object {
	everyPod := []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}
	workloads := metav1.LabelSelector{}
	if in.Tenant.Type == api.VirtualCluster {
		workloads.MatchExpressions = []metav1.LabelSelectorRequirement{{
			Key: api.LabelComponent, Operator: metav1.LabelSelectorOpNotIn, Values: []string{api.ComponentControlPlane},
		}}
	}
	return policy(in, "sublet-within", networkingv1.NetworkPolicySpec{
		PodSelector: workloads,
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: everyPod}},
		Egress:      []networkingv1.NetworkPolicyEgressRule{{To: everyPod}},
	})
}

// controlPlane opens the API and the DNS of the control plane to the
// tenant, and the API to the system's namespace. The control plane in turn calls
// the tenant's webhooks and aggregated API servers.
func controlPlane(in Input) Object {
	tenant := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}}
	system := networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{
		MatchLabels: map[string]string{corev1.LabelMetadataName: in.Host.SystemNamespace},
	}}
	return policy(in, "sublet-control-plane", networkingv1.NetworkPolicySpec{
		PodSelector: controlPlanePods(),
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		Ingress: []networkingv1.NetworkPolicyIngressRule{
			{
				From:  []networkingv1.NetworkPolicyPeer{tenant, system},
				Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, api.APIServerPort)},
			},
			{
				From: []networkingv1.NetworkPolicyPeer{tenant},
				Ports: []networkingv1.NetworkPolicyPort{
					port(corev1.ProtocolUDP, api.DNSPort), port(corev1.ProtocolTCP, api.DNSPort),
				},
			},
		},
		Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{tenant}}},
	})
}

// dnsRule leads to the host's DNS, by the label that every common distribution
// gives it.
func dnsRule() networkingv1.NetworkPolicyEgressRule {
	return networkingv1.NetworkPolicyEgressRule{
		To: []networkingv1.NetworkPolicyPeer{{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: metav1.NamespaceSystem}},
			PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}},
		}},
		Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolUDP, dnsPort), port(corev1.ProtocolTCP, dnsPort)},
	}
}

// hostAPIRules lead to the host's API: to its endpoints, and to the Service in
// front of them for network plugins that look at addresses before they are
// translated.
func hostAPIRules(host Host) []networkingv1.NetworkPolicyEgressRule {
	var rules []networkingv1.NetworkPolicyEgressRule
	allow := func(ip string, number int32) {
		address, err := netip.ParseAddr(ip)
		if err != nil {
			return
		}
		rules = append(rules, networkingv1.NetworkPolicyEgressRule{
			To:    blocks([]string{single(address).String()}),
			Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, int(number))},
		})
	}
	for _, endpoint := range host.APIServers {
		allow(endpoint.IP, endpoint.Port)
	}
	for _, ip := range host.APIServiceIPs {
		allow(ip, httpsPort)
	}
	return rules
}

// notPublic are the ranges that no public address lies in: private, shared,
// loopback, link-local (cloud metadata is there), documentation, benchmarks,
// multicast and reserved ones (IANA's special-purpose registries).
func notPublic() []netip.Prefix {
	var ranges []netip.Prefix
	for _, text := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"::/127", "64:ff9b:1::/48", "100::/64", "2001:db8::/32", "fc00::/7", "fe80::/10", "ff00::/8",
	} {
		ranges = append(ranges, netip.MustParsePrefix(text))
	}
	return ranges
}

// internetRule leads to public addresses, without those of the cluster itself.
func internetRule(host Host) networkingv1.NetworkPolicyEgressRule {
	except := notPublic()
	add := func(prefix netip.Prefix) {
		covered := slices.ContainsFunc(except, func(known netip.Prefix) bool {
			return known.Bits() <= prefix.Bits() && known.Contains(prefix.Addr())
		})
		if !covered && prefix.Bits() > 0 {
			except = append(except, prefix)
		}
	}
	for _, text := range host.Ranges {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			add(prefix.Masked())
		}
	}
	for _, endpoint := range host.APIServers {
		if address, err := netip.ParseAddr(endpoint.IP); err == nil {
			add(single(address))
		}
	}
	slices.SortFunc(except, netip.Prefix.Compare)
	except = slices.Compact(except)

	v4 := &networkingv1.IPBlock{CIDR: "0.0.0.0/0"}
	v6 := &networkingv1.IPBlock{CIDR: "::/0"}
	for _, prefix := range except {
		if prefix.Addr().Is4() {
			v4.Except = append(v4.Except, prefix.String())
			continue
		}
		v6.Except = append(v6.Except, prefix.String())
	}
	return networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{IPBlock: v4}, {IPBlock: v6}}}
}

func single(address netip.Addr) netip.Prefix {
	address = address.Unmap()
	return netip.PrefixFrom(address, address.BitLen())
}

func blocks(cidrs []string) []networkingv1.NetworkPolicyPeer {
	var peers []networkingv1.NetworkPolicyPeer
	for _, cidr := range cidrs {
		peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}})
	}
	return peers
}

func port(protocol corev1.Protocol, number int) networkingv1.NetworkPolicyPort {
	value := intstr.FromInt(number)
	return networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &value}
}
