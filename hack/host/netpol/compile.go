package netpol

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Input is all that the rules depend on.
type Input struct {
	Pods       []*corev1.Pod
	Namespaces []*corev1.Namespace
	Policies   []*networkingv1.NetworkPolicy
	// NodeName confines the subjects of policies to the pods of one node; empty
	// means all pods. Peers may be anywhere.
	NodeName string
}

// Ruleset is the set of rules that the policies amount to, in an order that
// depends on nothing but their content.
type Ruleset struct {
	// Pods are the addresses of all pods.
	Pods []netip.Addr
	// Egress and Ingress name, for each pod address that is isolated in that
	// direction, the chain that decides.
	Egress, Ingress map[netip.Addr]string
	// Chains that the two maps lead to.
	Chains []Chain
	// AddressSets hold the pods that selectors select.
	AddressSets map[string][]netip.Addr
	// PortSets hold, for a port's name and protocol, the pods that have such a
	// port with its number.
	PortSets map[string][]PodPort
}

// PodPort is a port of a pod.
type PodPort struct {
	Addr netip.Addr
	Port int32
}

// Chain holds what a set of policies allows in one direction. A packet that
// none of the matches fits is dropped.
type Chain struct {
	Name string
	// Comment names the policies.
	Comment string
	// Matches are nftables expressions; a packet that fits one of them is
	// allowed.
	Matches []string
}

type direction struct {
	prefix     string
	policyType networkingv1.PolicyType
	// peer is the nftables expression of the address at the other end.
	peer string
}

// Compile turns policies into rules. It fails on what the API server should
// have refused, and names the policy.
func Compile(in Input) (*Ruleset, error) {
	c := &compiler{
		namespaces: map[string]labels.Set{},
		out: &Ruleset{
			Egress:      map[netip.Addr]string{},
			Ingress:     map[netip.Addr]string{},
			AddressSets: map[string][]netip.Addr{},
			PortSets:    map[string][]PodPort{},
		},
	}
	for _, ns := range in.Namespaces {
		c.namespaces[ns.Name] = ns.Labels
	}
	for _, pod := range in.Pods {
		if addr, ok := podAddress(pod); ok {
			c.pods = append(c.pods, addressedPod{Pod: pod, addr: addr})
		}
	}
	// An address belongs to the pod that was created last, should a pod that
	// ended still show it.
	slices.SortFunc(c.pods, func(a, b addressedPod) int {
		return cmp.Or(
			a.addr.Compare(b.addr),
			b.CreationTimestamp.Compare(a.CreationTimestamp.Time),
			strings.Compare(string(a.UID), string(b.UID)))
	})
	c.pods = slices.CompactFunc(c.pods, func(a, b addressedPod) bool { return a.addr == b.addr })

	policies := slices.Clone(in.Policies)
	slices.SortFunc(policies, func(a, b *networkingv1.NetworkPolicy) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	selectors := make([]labels.Selector, len(policies))
	for i, policy := range policies {
		selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
		if err != nil {
			return nil, fmt.Errorf("policy %s/%s: pod selector: %w", policy.Namespace, policy.Name, err)
		}
		selectors[i] = selector
	}

	chains := map[string]Chain{}
	for _, pod := range c.pods {
		c.out.Pods = append(c.out.Pods, pod.addr)
		if in.NodeName != "" && pod.Spec.NodeName != in.NodeName {
			continue
		}
		for _, d := range []direction{
			{prefix: "egress", policyType: networkingv1.PolicyTypeEgress, peer: "ip daddr"},
			{prefix: "ingress", policyType: networkingv1.PolicyTypeIngress, peer: "ip saddr"},
		} {
			var mine []*networkingv1.NetworkPolicy
			for i, policy := range policies {
				if policy.Namespace == pod.Namespace && selectors[i].Matches(labels.Set(pod.Labels)) && appliesTo(policy, d.policyType) {
					mine = append(mine, policy)
				}
			}
			if len(mine) == 0 {
				continue
			}
			name, err := c.chain(chains, d, mine)
			if err != nil {
				return nil, err
			}
			if d.policyType == networkingv1.PolicyTypeEgress {
				c.out.Egress[pod.addr] = name
			} else {
				c.out.Ingress[pod.addr] = name
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(chains)) {
		c.out.Chains = append(c.out.Chains, chains[name])
	}
	return c.out, nil
}

type addressedPod struct {
	*corev1.Pod
	addr netip.Addr
}

// podAddress returns the pod's IPv4 address, if it has one of its own.
func podAddress(pod *corev1.Pod) (netip.Addr, bool) {
	if pod.Spec.HostNetwork || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return netip.Addr{}, false
	}
	ips := pod.Status.PodIPs
	if len(ips) == 0 {
		ips = []corev1.PodIP{{IP: pod.Status.PodIP}}
	}
	for _, ip := range ips {
		if addr, err := netip.ParseAddr(ip.IP); err == nil && addr.Is4() {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// appliesTo follows the defaults of policyTypes, which the API server fills in
// too: every policy is about ingress unless it says otherwise.
func appliesTo(policy *networkingv1.NetworkPolicy, t networkingv1.PolicyType) bool {
	if len(policy.Spec.PolicyTypes) > 0 {
		return slices.Contains(policy.Spec.PolicyTypes, t)
	}
	return t == networkingv1.PolicyTypeIngress || len(policy.Spec.Egress) > 0
}

type compiler struct {
	namespaces map[string]labels.Set
	pods       []addressedPod
	out        *Ruleset
}

// chain returns the name of the chain for a list of policies and adds it to
// chains. Pods under the same policies share one.
func (c *compiler) chain(chains map[string]Chain, d direction, policies []*networkingv1.NetworkPolicy) (string, error) {
	names := make([]string, len(policies))
	for i, p := range policies {
		names[i] = p.Namespace + "/" + p.Name
	}
	comment := strings.Join(names, " ")
	name := d.prefix + "-" + hash(comment)
	if _, done := chains[name]; done {
		return name, nil
	}
	chain := Chain{Name: name, Comment: comment}
	for _, policy := range policies {
		matches, err := c.matches(d, policy)
		if err != nil {
			return "", fmt.Errorf("policy %s/%s: %w", policy.Namespace, policy.Name, err)
		}
		chain.Matches = append(chain.Matches, matches...)
	}
	chains[name] = chain
	return name, nil
}

// matches returns what one policy allows.
func (c *compiler) matches(d direction, policy *networkingv1.NetworkPolicy) ([]string, error) {
	type rule struct {
		peers []networkingv1.NetworkPolicyPeer
		ports []networkingv1.NetworkPolicyPort
	}
	var rules []rule
	if d.policyType == networkingv1.PolicyTypeEgress {
		for _, r := range policy.Spec.Egress {
			rules = append(rules, rule{r.To, r.Ports})
		}
	} else {
		for _, r := range policy.Spec.Ingress {
			rules = append(rules, rule{r.From, r.Ports})
		}
	}
	var out []string
	for _, r := range rules {
		ports, err := c.portMatches(r.ports)
		if err != nil {
			return nil, err
		}
		peers, err := c.peerMatches(d, policy.Namespace, r.peers)
		if err != nil {
			return nil, err
		}
		for _, peer := range peers {
			for _, port := range ports {
				out = append(out, strings.TrimSpace(peer+" "+port))
			}
		}
	}
	return out, nil
}

// peerMatches returns one expression for each peer; an empty one fits
// everything. Peers that no pod fits are left out.
func (c *compiler) peerMatches(d direction, namespace string, peers []networkingv1.NetworkPolicyPeer) ([]string, error) {
	if len(peers) == 0 {
		return []string{""}, nil
	}
	var out []string
	for _, peer := range peers {
		if peer.IPBlock != nil {
			match, err := blockMatch(d, peer.IPBlock)
			if err != nil {
				return nil, err
			}
			if match != "" {
				out = append(out, match)
			}
			continue
		}
		set, err := c.addressSet(namespace, peer)
		if err != nil {
			return nil, err
		}
		if set != "" {
			out = append(out, fmt.Sprintf("%s @%s", d.peer, set))
		}
	}
	return out, nil
}

// blockMatch returns nothing for an IPv6 block: there are no such packets.
func blockMatch(d direction, block *networkingv1.IPBlock) (string, error) {
	prefix, err := netip.ParsePrefix(block.CIDR)
	if err != nil {
		return "", fmt.Errorf("ipBlock: %w", err)
	}
	if !prefix.Addr().Is4() {
		return "", nil
	}
	var match string
	// nft knows no 0.0.0.0/0, as it fits everything.
	if prefix.Bits() > 0 {
		match = fmt.Sprintf("%s %s", d.peer, prefix.Masked())
	}
	var except []string
	for _, e := range block.Except {
		p, err := netip.ParsePrefix(e)
		if err != nil {
			return "", fmt.Errorf("ipBlock: except: %w", err)
		}
		if p.Bits() == 0 {
			return "", nil
		}
		except = append(except, p.Masked().String())
	}
	if len(except) > 0 {
		// One comparison each, as nft refuses a set whose elements overlap.
		for _, e := range except {
			match += fmt.Sprintf(" %s != %s", d.peer, e)
		}
	}
	match = strings.TrimSpace(match)
	if match == "" {
		match = "meta nfproto ipv4"
	}
	return match, nil
}

// addressSet fills and names the set of the pods that a peer's selectors
// select; it returns "" when there is none.
func (c *compiler) addressSet(namespace string, peer networkingv1.NetworkPolicyPeer) (string, error) {
	inNamespace := func(name string) bool { return name == namespace }
	key := "in " + namespace
	if peer.NamespaceSelector != nil {
		selector, err := metav1.LabelSelectorAsSelector(peer.NamespaceSelector)
		if err != nil {
			return "", fmt.Errorf("namespace selector: %w", err)
		}
		inNamespace = func(name string) bool {
			set, known := c.namespaces[name]
			return known && selector.Matches(set)
		}
		key = "where " + selector.String()
	}
	selector := labels.Everything()
	if peer.PodSelector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(peer.PodSelector); err != nil {
			return "", fmt.Errorf("pod selector: %w", err)
		}
	}
	name := "pods-" + hash(key+" pods "+selector.String())
	if _, done := c.out.AddressSets[name]; done {
		return name, nil
	}
	var addrs []netip.Addr
	for _, pod := range c.pods {
		if inNamespace(pod.Namespace) && selector.Matches(labels.Set(pod.Labels)) {
			addrs = append(addrs, pod.addr)
		}
	}
	if len(addrs) == 0 {
		return "", nil
	}
	c.out.AddressSets[name] = addrs
	return name, nil
}

// portMatches returns expressions of which one must fit; an empty one fits
// every packet of any protocol.
func (c *compiler) portMatches(ports []networkingv1.NetworkPolicyPort) ([]string, error) {
	if len(ports) == 0 {
		return []string{""}, nil
	}
	var out []string
	for _, p := range ports {
		protocol := corev1.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		match := "meta l4proto " + strings.ToLower(string(protocol))
		switch {
		case p.Port == nil:
		case p.Port.Type == intstr.String:
			set := c.portSet(protocol, p.Port.StrVal)
			if set == "" {
				continue
			}
			// The receiver's port has the name, whichever way the policy looks.
			match += " ip daddr . th dport @" + set
		case p.EndPort != nil && *p.EndPort < p.Port.IntVal:
			return nil, fmt.Errorf("endPort %d is below port %d", *p.EndPort, p.Port.IntVal)
		case p.EndPort != nil && *p.EndPort > p.Port.IntVal:
			match += fmt.Sprintf(" th dport %d-%d", p.Port.IntVal, *p.EndPort)
		default:
			match += fmt.Sprintf(" th dport %d", p.Port.IntVal)
		}
		out = append(out, match)
	}
	return out, nil
}

// portSet fills and names the set of the ports of all pods that have a name.
func (c *compiler) portSet(protocol corev1.Protocol, portName string) string {
	name := "ports-" + strings.ToLower(string(protocol)) + "-" + hash(portName)
	if _, done := c.out.PortSets[name]; done {
		return name
	}
	var ports []PodPort
	for _, pod := range c.pods {
		containers := slices.Clone(pod.Spec.Containers)
		for _, init := range pod.Spec.InitContainers {
			if init.RestartPolicy != nil && *init.RestartPolicy == corev1.ContainerRestartPolicyAlways {
				containers = append(containers, init)
			}
		}
		for _, container := range containers {
			for _, p := range container.Ports {
				if p.Name == portName && cmp.Or(p.Protocol, corev1.ProtocolTCP) == protocol {
					ports = append(ports, PodPort{pod.addr, p.ContainerPort})
				}
			}
		}
	}
	if len(ports) == 0 {
		return ""
	}
	c.out.PortSets[name] = ports
	return name
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:6])
}
