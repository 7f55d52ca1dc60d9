package isolation

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

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
//	from            to                                                  policy
//	any pod         pods of the tenant                                  within, within-egress
//	any pod         public addresses, limits.network.allowedCIDRs       egress
//	outside         any pod, as far as limits.hosts and services say    ingress
//	any pod         the host's DNS; in a VirtualCluster the control     dns
//	                plane only, which keeps others' names to itself
//	control plane   any pod, the host's API                             control-plane, webhooks, host-api
//	tenant, system  the control plane's API and DNS, no other port      control-plane
//
// A policy of the tenant's own must be able to close, too, as Kubernetes has it:
// a pod that one selects may do what such policies say and nothing else. So the
// fence's permissions give way to it: the syncer labels the pods that the
// tenant's policies isolate, and only pods without the label are given anything
// here. What the syncer makes of the tenant's policies stays within what stands
// in egress and ingress.
func network(in Input) []Object {
	policies := []Object{
		policy(in, "sublet-deny", networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		}),
		policy(in, "sublet-within", ingress(ungoverned(workloads(in), api.LabelIngressIsolated),
			networkingv1.NetworkPolicyIngressRule{From: everyPod()})),
		policy(in, "sublet-within-egress", egress(ungoverned(workloads(in), api.LabelEgressIsolated),
			networkingv1.NetworkPolicyEgressRule{To: everyPod()})),
		policy(in, api.FenceEgressPolicy, egress(ungoverned(metav1.LabelSelector{}, api.LabelEgressIsolated), egressRules(in)...)),
		policy(in, api.FenceIngressPolicy, ingress(ungoverned(workloads(in), api.LabelIngressIsolated), ingressRules(in)...)),
	}
	if in.Tenant.Type != api.VirtualCluster {
		return append(policies, policy(in, "sublet-dns", egress(metav1.LabelSelector{}, dnsRule())))
	}
	policies = append(policies,
		policy(in, "sublet-dns", egress(controlPlanePods(), dnsRule())),
		controlPlane(in),
		policy(in, "sublet-webhooks", ingress(workloads(in), networkingv1.NetworkPolicyIngressRule{
			From: []networkingv1.NetworkPolicyPeer{{PodSelector: ptr.To(controlPlanePods())}},
		})))
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

func ingress(pods metav1.LabelSelector, rules ...networkingv1.NetworkPolicyIngressRule) networkingv1.NetworkPolicySpec {
	return networkingv1.NetworkPolicySpec{
		PodSelector: pods,
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		Ingress:     rules,
	}
}

func everyPod() []networkingv1.NetworkPolicyPeer {
	return []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}
}

func controlPlanePods() metav1.LabelSelector {
	return metav1.LabelSelector{MatchLabels: map[string]string{api.LabelComponent: api.ComponentControlPlane}}
}

// workloads are all pods but the control plane, which is open on two ports only.
func workloads(in Input) metav1.LabelSelector {
	if in.Tenant.Type != api.VirtualCluster {
		return metav1.LabelSelector{}
	}
	return metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key: api.LabelComponent, Operator: metav1.LabelSelectorOpNotIn, Values: []string{api.ComponentControlPlane},
	}}}
}

// ungoverned leaves out the pods that policies of the tenant's own isolate; label
// says so.
func ungoverned(pods metav1.LabelSelector, label string) metav1.LabelSelector {
	pods.MatchExpressions = append(pods.MatchExpressions, metav1.LabelSelectorRequirement{
		Key: label, Operator: metav1.LabelSelectorOpDoesNotExist,
	})
	return pods
}

// egressRules lead to addresses outside of the tenant; they name nothing but
// blocks of addresses, and no ports.
func egressRules(in Input) []networkingv1.NetworkPolicyEgressRule {
	var rules []networkingv1.NetworkPolicyEgressRule
	if in.Tenant.Limits.Internet {
		rules = append(rules, internetRule(in.Host))
	}
	if cidrs := in.Tenant.Limits.AllowedCIDRs; len(cidrs) > 0 {
		rules = append(rules, networkingv1.NetworkPolicyEgressRule{To: blocks(cidrs)})
	}
	return rules
}

// ingressRules lead into the tenant from outside: from the host's ingress
// controllers if the tenant may have host names, and from everywhere but other
// pods if its Services may be of a type that is meant for it. They name blocks
// of addresses and namespaces by name, and no ports.
func ingressRules(in Input) []networkingv1.NetworkPolicyIngressRule {
	var rules []networkingv1.NetworkPolicyIngressRule
	if namespaces := in.Host.IngressNamespaces; len(namespaces) > 0 && len(in.Tenant.Limits.Hosts) > 0 {
		rules = append(rules, networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{{
			NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
				Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: slices.Sorted(slices.Values(namespaces)),
			}}},
		}}})
	}
	if slices.ContainsFunc(in.Tenant.Limits.Services, func(service corev1.ServiceType) bool {
		return service == corev1.ServiceTypeLoadBalancer || service == corev1.ServiceTypeNodePort
	}) {
		rules = append(rules, networkingv1.NetworkPolicyIngressRule{From: allBut(parsePrefixes(in.Host.PodRanges))})
	}
	return rules
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
	except := append(notPublic(), parsePrefixes(host.Ranges)...)
	for _, endpoint := range host.APIServers {
		if address, err := netip.ParseAddr(endpoint.IP); err == nil {
			except = append(except, single(address))
		}
	}
	return networkingv1.NetworkPolicyEgressRule{To: allBut(except)}
}

// allBut are all addresses of both families without some.
func allBut(except []netip.Prefix) []networkingv1.NetworkPolicyPeer {
	slices.SortFunc(except, netip.Prefix.Compare)
	v4 := &networkingv1.IPBlock{CIDR: "0.0.0.0/0"}
	v6 := &networkingv1.IPBlock{CIDR: "::/0"}
	var last netip.Prefix
	for _, prefix := range except {
		// Sorted, a range comes before those within it. One that is all there is
		// would leave nothing, and is no range of a cluster.
		if prefix.Bits() == 0 || last.IsValid() && last.Overlaps(prefix) {
			continue
		}
		last = prefix
		if prefix.Addr().Is4() {
			v4.Except = append(v4.Except, prefix.String())
			continue
		}
		v6.Except = append(v6.Except, prefix.String())
	}
	return []networkingv1.NetworkPolicyPeer{{IPBlock: v4}, {IPBlock: v6}}
}

// parsePrefixes leaves out what is none.
func parsePrefixes(ranges []string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, text := range ranges {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			prefixes = append(prefixes, prefix.Masked())
		}
	}
	return prefixes
}

// Exceeds tells whether a policy opens a way that those of the fence do not: it
// is one that was made when the fence was wider. Ways between the tenant's own
// pods are not looked at.
func Exceeds(policy *networkingv1.NetworkPolicy, fence []*networkingv1.NetworkPolicy) bool {
	var in, out []networkingv1.NetworkPolicyPeer
	for _, part := range fence {
		for _, rule := range part.Spec.Ingress {
			in = append(in, rule.From...)
		}
		for _, rule := range part.Spec.Egress {
			out = append(out, rule.To...)
		}
	}
	beyond := func(wide []networkingv1.NetworkPolicyPeer) func(networkingv1.NetworkPolicyPeer) bool {
		return func(peer networkingv1.NetworkPolicyPeer) bool {
			outside := peer.IPBlock != nil || peer.NamespaceSelector != nil
			return outside && !slices.ContainsFunc(wide, func(w networkingv1.NetworkPolicyPeer) bool { return within(peer, w) })
		}
	}
	return slices.ContainsFunc(policy.Spec.Ingress, func(rule networkingv1.NetworkPolicyIngressRule) bool {
		return len(rule.From) == 0 || slices.ContainsFunc(rule.From, beyond(in))
	}) || slices.ContainsFunc(policy.Spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
		return len(rule.To) == 0 || slices.ContainsFunc(rule.To, beyond(out))
	})
}

// within tells whether all of a peer is in a wider one. Of selectors of
// namespaces it knows those of the fence, which list names.
func within(peer, wide networkingv1.NetworkPolicyPeer) bool {
	if peer.IPBlock == nil || wide.IPBlock == nil {
		return peer.IPBlock == nil && wide.IPBlock == nil && listed(peer.NamespaceSelector, wide.NamespaceSelector)
	}
	in, err := netip.ParsePrefix(peer.IPBlock.CIDR)
	around, errAround := netip.ParsePrefix(wide.IPBlock.CIDR)
	if err != nil || errAround != nil || !around.Overlaps(in) || around.Bits() > in.Bits() {
		return false
	}
	left := parsePrefixes(peer.IPBlock.Except)
	return !slices.ContainsFunc(parsePrefixes(wide.IPBlock.Except), func(closed netip.Prefix) bool {
		return closed.Overlaps(in) && !slices.ContainsFunc(left, func(l netip.Prefix) bool { return l.Overlaps(closed) && l.Bits() <= closed.Bits() })
	})
}

func listed(selector, wide *metav1.LabelSelector) bool {
	return len(names(selector)) > 0 && !slices.ContainsFunc(names(selector), func(name string) bool { return !slices.Contains(names(wide), name) })
}

// names are those that a selector of namespaces lists.
func names(selector *metav1.LabelSelector) []string {
	if selector == nil || len(selector.MatchLabels) > 0 || len(selector.MatchExpressions) != 1 {
		return nil
	}
	only := selector.MatchExpressions[0]
	if only.Key != corev1.LabelMetadataName || only.Operator != metav1.LabelSelectorOpIn {
		return nil
	}
	return only.Values
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

// Opens says whether a NetworkPolicy lets pods reach more than pods of their own
// namespace. It is what the admission policy sublet-network refuses to everybody but
// a syncer; one that was there before the namespace was a tenant's can be such.
func Opens(policy *networkingv1.NetworkPolicy) bool {
	return slices.ContainsFunc(policy.Spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
		return len(rule.To) == 0 || slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool {
			return peer.PodSelector == nil || peer.NamespaceSelector != nil || peer.IPBlock != nil
		})
	})
}
