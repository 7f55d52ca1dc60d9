package kinds

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// NetworkPolicy crosses to the host, where something enforces it. It opens
// there what it opens in the tenant, as far as the fence does:
//
//	the tenant says                     on the host that is
//	pods, by labels of them and of      pods of the tenant by the same labels; labels of
//	their namespaces                    namespaces stand on their pods
//	a block of addresses                what it has in common with the fence's blocks, and
//	                                    the tenant's pods that have an address in it
//	everything                          all pods of the tenant, and all that the fence opens
//	kube-system's kube-dns, port 53;    the control plane, on the ports on which it serves
//	the API's address, port 443         the tenant's DNS and API
//
// NetworkPolicies only add up, so for a policy to close anything the fence must
// give way: see pod_isolation.go.
func NetworkPolicy() translate.Kind[*networkingv1.NetworkPolicy] {
	return translate.Kind[*networkingv1.NetworkPolicy]{
		GroupVersionKind: networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"),
		Resource:         "networkpolicies",
		Namespaced:       true,
		New:              func() *networkingv1.NetworkPolicy { return &networkingv1.NetworkPolicy{} },
		NewList:          func() translate.ObjectList { return &networkingv1.NetworkPolicyList{} },
		Rules:            []rbacv1.PolicyRule{rule("networking.k8s.io", everything, "networkpolicies")},
		ReadsVirtual:     []translate.Object{&corev1.Namespace{}},
		SeesFence:        true,
		Refs:             networkPolicyRefs,
		ToHost:           networkPolicyToHost,
		Merge:            networkPolicyMerge,
	}
}

// What every cluster calls its DNS, by the labels of its pods and the names of
// their ports.
const (
	dnsLabel      = "k8s-app"
	dnsLabelValue = "kube-dns"
	dnsPort       = 53
	dnsPortUDP    = "dns"
	dnsPortTCP    = "dns-tcp"
	// The API's, at its ClusterIP.
	apiPort     = 443
	apiPortName = "https"
)

func networkPolicyRefs(virtual, _ *networkingv1.NetworkPolicy) []translate.Ref {
	if virtual == nil {
		return nil
	}
	var outward, inward, byAddress, namespaces bool
	peer := func(peer networkingv1.NetworkPolicyPeer) {
		block, err := parseBlock(peer.IPBlock)
		// What is the same as all pods depends on the tenant: for IPv6 they are
		// there to be asked.
		byAddress = byAddress || err == nil && !(block.everything() && block.in.Addr().Is4())
	}
	for _, rule := range virtual.Spec.Egress {
		outward = outward || len(rule.To) == 0
		for _, to := range rule.To {
			peer(to)
			outward = outward || to.IPBlock != nil
			namespaces = namespaces || to.NamespaceSelector != nil
		}
	}
	for _, rule := range virtual.Spec.Ingress {
		inward = inward || len(rule.From) == 0
		for _, from := range rule.From {
			peer(from)
			inward = inward || from.IPBlock != nil || from.NamespaceSelector != nil
		}
	}
	fence := func(name string) translate.Ref {
		return translate.Ref{Side: translate.Host, Kind: networkPolicyKind(), Name: name, Read: true, Watch: true}
	}
	var refs []translate.Ref
	if outward {
		refs = append(refs, fence(api.FenceEgressPolicy))
	}
	if inward {
		refs = append(refs, fence(api.FenceIngressPolicy))
	}
	if namespaces {
		refs = append(refs, translate.Ref{Kind: coreKind("Namespace"), Name: metav1.NamespaceSystem, Read: true, Watch: true})
	}
	if byAddress {
		refs = append(refs, translate.Ref{Kind: coreKind("Pod"), Read: true, Watch: true})
	}
	return refs
}

// policyTranslation is the translation of one policy.
type policyTranslation struct {
	in     translate.Input[*networkingv1.NetworkPolicy]
	policy *networkingv1.NetworkPolicy
}

func networkPolicyToHost(in translate.Input[*networkingv1.NetworkPolicy]) (*networkingv1.NetworkPolicy, error) {
	t := policyTranslation{in: in, policy: in.Virtual}
	spec := networkingv1.NetworkPolicySpec{
		PodSelector: *fencedSelector(&in.Virtual.Spec.PodSelector, inNamespace(in.Virtual.Namespace)),
		PolicyTypes: policyTypes(in.Virtual),
	}
	for _, rule := range in.Virtual.Spec.Ingress {
		from, err := t.sources(rule.From)
		if err != nil {
			return nil, err
		}
		// A rule without sources would allow all.
		if len(from) > 0 {
			spec.Ingress = append(spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: from, Ports: rule.DeepCopy().Ports})
		}
	}
	for _, rule := range in.Virtual.Spec.Egress {
		to, err := t.destinations(rule.To)
		if err != nil {
			return nil, err
		}
		if len(to) > 0 {
			spec.Egress = append(spec.Egress, networkingv1.NetworkPolicyEgressRule{To: to, Ports: rule.DeepCopy().Ports})
		}
		if ports := t.controlPlanePorts(rule); len(ports) > 0 {
			spec.Egress = append(spec.Egress, networkingv1.NetworkPolicyEgressRule{
				To: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{
					MatchLabels: map[string]string{api.LabelComponent: api.ComponentControlPlane},
				}}},
				Ports: ports,
			})
		}
	}
	return &networkingv1.NetworkPolicy{ObjectMeta: in.Tenant.HostMeta(in.Virtual), Spec: spec}, nil
}

func networkPolicyMerge(host, desired *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	host.Spec = desired.Spec
	return host
}

func networkPolicyKind() schema.GroupKind {
	return schema.GroupKind{Group: networkingv1.GroupName, Kind: "NetworkPolicy"}
}

// policyTypes are the directions that a policy is about; the default is the API
// server's.
func policyTypes(policy *networkingv1.NetworkPolicy) []networkingv1.PolicyType {
	if len(policy.Spec.PolicyTypes) > 0 {
		return slices.Clone(policy.Spec.PolicyTypes)
	}
	types := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	if len(policy.Spec.Egress) > 0 {
		types = append(types, networkingv1.PolicyTypeEgress)
	}
	return types
}

// sources are the host's peers for the tenant's, of an ingress rule. The control
// plane, which calls webhooks, needs none: the fence lets it in as a node is let
// in anywhere.
func (t policyTranslation) sources(from []networkingv1.NetworkPolicyPeer) ([]networkingv1.NetworkPolicyPeer, error) {
	outside := t.fencePeers(api.FenceIngressPolicy)
	if len(from) == 0 {
		return append(t.allPods(), outside...), nil
	}
	var out []networkingv1.NetworkPolicyPeer
	for i := range from {
		peers, err := t.peers(&from[i], outside)
		if err != nil {
			return nil, err
		}
		out = append(out, peers...)
		out = append(out, ingressControllers(&from[i], outside)...)
	}
	return out, nil
}

// destinations are the host's peers for the tenant's, of an egress rule, without
// the control plane.
func (t policyTranslation) destinations(to []networkingv1.NetworkPolicyPeer) ([]networkingv1.NetworkPolicyPeer, error) {
	outside := t.fencePeers(api.FenceEgressPolicy)
	if len(to) == 0 {
		return append(t.allPods(), outside...), nil
	}
	var out []networkingv1.NetworkPolicyPeer
	for i := range to {
		peers, err := t.peers(&to[i], outside)
		if err != nil {
			return nil, err
		}
		out = append(out, peers...)
	}
	return out, nil
}

// fencePeers are those of a policy of the fence; none if it is not there.
func (t policyTranslation) fencePeers(name string) []networkingv1.NetworkPolicyPeer {
	fence := translate.Find[*networkingv1.NetworkPolicy](t.in.Refs, translate.Host, t.in.Tenant.HostNamespace, name)
	if fence == nil || fence.Labels[api.LabelComponent] != api.ComponentFence {
		return nil
	}
	var peers []networkingv1.NetworkPolicyPeer
	for _, rule := range fence.DeepCopy().Spec.Egress {
		if len(rule.Ports) == 0 {
			peers = append(peers, rule.To...)
		}
	}
	for _, rule := range fence.DeepCopy().Spec.Ingress {
		if len(rule.Ports) == 0 {
			peers = append(peers, rule.From...)
		}
	}
	return peers
}

// allPods are those of the tenant.
func (t policyTranslation) allPods() []networkingv1.NetworkPolicyPeer {
	return []networkingv1.NetworkPolicyPeer{{PodSelector: fencedSelector(nil, inAnyNamespace())}}
}

// peers translates one peer; outside is what the fence opens in its direction.
func (t policyTranslation) peers(peer *networkingv1.NetworkPolicyPeer, outside []networkingv1.NetworkPolicyPeer) ([]networkingv1.NetworkPolicyPeer, error) {
	switch {
	case peer.IPBlock != nil:
		return t.block(peer.IPBlock, outside)
	case peer.NamespaceSelector != nil:
		return []networkingv1.NetworkPolicyPeer{{PodSelector: fencedSelector(peer.PodSelector, inNamespaces(peer.NamespaceSelector))}}, nil
	case peer.PodSelector != nil:
		return []networkingv1.NetworkPolicyPeer{{PodSelector: fencedSelector(peer.PodSelector, inNamespace(t.policy.Namespace))}}, nil
	}
	return nil, fmt.Errorf("a peer of a NetworkPolicy names neither pods nor addresses")
}

// block translates a block of addresses. Pods are named by their uid, not by
// their addresses, which others may have next.
func (t policyTranslation) block(ipBlock *networkingv1.IPBlock, outside []networkingv1.NetworkPolicyPeer) ([]networkingv1.NetworkPolicyPeer, error) {
	wanted, err := parseBlock(ipBlock)
	if err != nil {
		return nil, err
	}
	var out []networkingv1.NetworkPolicyPeer
	for _, peer := range outside {
		if peer.IPBlock == nil {
			continue
		}
		open, err := parseBlock(peer.IPBlock)
		if err != nil {
			return nil, err
		}
		if both, ok := wanted.meet(open); ok {
			out = append(out, networkingv1.NetworkPolicyPeer{IPBlock: both.ipBlock()})
		}
	}
	// All addresses of the family in which the tenant's Services have theirs are
	// all pods, by whichever of their addresses.
	if address, err := netip.ParseAddr(t.in.Tenant.APIServiceIP); err == nil && wanted.everything() && wanted.in.Contains(address) {
		return append(out, t.allPods()...), nil
	}
	var uids []string
	for _, object := range t.in.Refs.Virtual {
		if pod, ok := object.(*corev1.Pod); ok && wanted.hasPod(pod) {
			uids = append(uids, string(pod.UID))
		}
	}
	if len(uids) > 0 {
		slices.Sort(uids)
		out = append(out, networkingv1.NetworkPolicyPeer{PodSelector: fencedSelector(nil, append(inAnyNamespace(),
			metav1.LabelSelectorRequirement{Key: api.LabelVirtualUID, Operator: metav1.LabelSelectorOpIn, Values: slices.Compact(uids)}))})
	}
	return out, nil
}

// ingressControllers are those of the host that a source means: their namespaces
// count as namespaces of the tenant with their name for a label, and all
// addresses include theirs.
func ingressControllers(source *networkingv1.NetworkPolicyPeer, outside []networkingv1.NetworkPolicyPeer) []networkingv1.NetworkPolicyPeer {
	var out []networkingv1.NetworkPolicyPeer
	for _, peer := range outside {
		if peer.NamespaceSelector == nil {
			continue
		}
		if block, err := parseBlock(source.IPBlock); source.IPBlock != nil && err == nil && block.everything() {
			out = append(out, peer)
		}
		if source.NamespaceSelector == nil {
			continue
		}
		var names []string
		for _, requirement := range peer.NamespaceSelector.MatchExpressions {
			if requirement.Key != corev1.LabelMetadataName || requirement.Operator != metav1.LabelSelectorOpIn {
				continue
			}
			for _, name := range requirement.Values {
				if selects(source.NamespaceSelector, map[string]string{corev1.LabelMetadataName: name}) {
					names = append(names, name)
				}
			}
		}
		if len(names) == 0 {
			continue
		}
		out = append(out, networkingv1.NetworkPolicyPeer{
			NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
				Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: names,
			}}},
			PodSelector: source.PodSelector.DeepCopy(),
		})
	}
	return out
}

// controlPlanePorts are the ports of the control plane that an egress rule
// opens. In the tenant its DNS is what it is in every cluster, pods of
// kube-system behind a ClusterIP, and its API has an address that is no pod's.
func (t policyTranslation) controlPlanePorts(rule networkingv1.NetworkPolicyEgressRule) []networkingv1.NetworkPolicyPort {
	dns, server := len(rule.To) == 0, len(rule.To) == 0
	for i := range rule.To {
		peer := &rule.To[i]
		if peer.IPBlock != nil {
			if block, err := parseBlock(peer.IPBlock); err == nil {
				dns = dns || block.has(t.in.Tenant.DNSServiceIP)
				server = server || block.has(t.in.Tenant.APIServiceIP)
			}
			continue
		}
		dns = dns || t.selectsDNS(peer)
	}
	var ports []networkingv1.NetworkPolicyPort
	open := func(protocol corev1.Protocol, number int32) {
		port := intstr.FromInt32(number)
		ports = append(ports, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &port})
	}
	if dns && opens(rule.Ports, corev1.ProtocolUDP, dnsPort, dnsPortUDP) {
		open(corev1.ProtocolUDP, api.DNSPort)
	}
	if dns && opens(rule.Ports, corev1.ProtocolTCP, dnsPort, dnsPortTCP) {
		open(corev1.ProtocolTCP, api.DNSPort)
	}
	if server && opens(rule.Ports, corev1.ProtocolTCP, apiPort, apiPortName) {
		open(corev1.ProtocolTCP, api.APIServerPort)
	}
	return ports
}

func (t policyTranslation) selectsDNS(peer *networkingv1.NetworkPolicyPeer) bool {
	if peer.NamespaceSelector == nil && t.policy.Namespace != metav1.NamespaceSystem {
		return false
	}
	if peer.NamespaceSelector != nil {
		system := translate.Find[*corev1.Namespace](t.in.Refs, translate.Virtual, "", metav1.NamespaceSystem)
		if system == nil || !selects(peer.NamespaceSelector, system.Labels) {
			return false
		}
	}
	return peer.PodSelector == nil || selects(peer.PodSelector, map[string]string{dnsLabel: dnsLabelValue})
}

// opens tells whether a rule's ports have one among them; none are all.
func opens(ports []networkingv1.NetworkPolicyPort, protocol corev1.Protocol, number int32, name string) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(port networkingv1.NetworkPolicyPort) bool {
		of := corev1.ProtocolTCP
		if port.Protocol != nil {
			of = *port.Protocol
		}
		switch {
		case of != protocol:
			return false
		case port.Port == nil:
			return true
		case port.Port.Type == intstr.String:
			return port.Port.StrVal == name
		case port.EndPort != nil:
			return port.Port.IntVal <= number && number <= *port.EndPort
		}
		return port.Port.IntVal == number
	})
}

// fencedSelector adds conditions, which a selector cannot take back.
func fencedSelector(selector *metav1.LabelSelector, conditions []metav1.LabelSelectorRequirement) *metav1.LabelSelector {
	out := selector.DeepCopy()
	if out == nil {
		out = &metav1.LabelSelector{}
	}
	out.MatchExpressions = append(out.MatchExpressions, conditions...)
	return out
}

// inNamespace is the condition of pods in one of these virtual namespaces.
func inNamespace(names ...string) []metav1.LabelSelectorRequirement {
	return []metav1.LabelSelectorRequirement{{Key: api.LabelVirtualNamespace, Operator: metav1.LabelSelectorOpIn, Values: names}}
}

// inAnyNamespace is the condition of pods of the tenant's.
func inAnyNamespace() []metav1.LabelSelectorRequirement {
	return []metav1.LabelSelectorRequirement{{Key: api.LabelVirtualNamespace, Operator: metav1.LabelSelectorOpExists}}
}

// inNamespaces is the condition of pods in virtual namespaces with these labels,
// which stand on the pods; so this follows them.
func inNamespaces(selector *metav1.LabelSelector) []metav1.LabelSelectorRequirement {
	conditions := inAnyNamespace()
	for _, key := range slices.Sorted(maps.Keys(selector.MatchLabels)) {
		conditions = append(conditions, metav1.LabelSelectorRequirement{Key: translate.NamespaceLabel(key), Operator: metav1.LabelSelectorOpIn, Values: []string{selector.MatchLabels[key]}})
	}
	for _, r := range selector.MatchExpressions {
		conditions = append(conditions, metav1.LabelSelectorRequirement{Key: translate.NamespaceLabel(r.Key), Operator: r.Operator, Values: slices.Clone(r.Values)})
	}
	return conditions
}

// selects tells whether a selector fits labels; one that is not valid fits none.
func selects(selector *metav1.LabelSelector, of map[string]string) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(labels.Set(of))
}
