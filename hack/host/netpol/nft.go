package netpol

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"
)

// TableName names the nftables table, of family inet.
const TableName = "sublet-netpol"

// podInterfaces is what the ptp plugin calls the node's ends of its interfaces.
const podInterfaces = `"veth*"`

// addTo adds the operations to a transaction that replace the table as a whole.
func (r *Ruleset) addTo(tx *knftables.Transaction) {
	table := &knftables.Table{Comment: knftables.PtrTo("NetworkPolicies of the local host")}
	// Deleting what may not be there is an error, so it is added first.
	tx.Add(table)
	tx.Delete(&knftables.Table{})
	tx.Add(table)

	tx.Add(&knftables.Set{Name: "self", Type: "ipv4_addr . ipv4_addr", Comment: knftables.PtrTo("a pod reaches itself, through a Service too")})
	for _, addr := range r.Pods {
		tx.Add(&knftables.Element{Set: "self", Key: []string{addr.String(), addr.String()}})
	}
	for _, name := range slices.Sorted(maps.Keys(r.AddressSets)) {
		tx.Add(&knftables.Set{Name: name, Type: "ipv4_addr"})
		for _, addr := range r.AddressSets[name] {
			tx.Add(&knftables.Element{Set: name, Key: []string{addr.String()}})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.PortSets)) {
		tx.Add(&knftables.Set{Name: name, Type: "ipv4_addr . inet_service"})
		for _, p := range r.PortSets[name] {
			tx.Add(&knftables.Element{Set: name, Key: []string{p.Addr.String(), fmt.Sprint(p.Port)}})
		}
	}
	for _, chain := range r.Chains {
		tx.Add(&knftables.Chain{Name: chain.Name, Comment: knftables.PtrTo(shorten(chain.Comment))})
		for _, match := range chain.Matches {
			tx.Add(&knftables.Rule{Chain: chain.Name, Rule: strings.TrimSpace(match + " return")})
		}
		tx.Add(&knftables.Rule{Chain: chain.Name, Rule: "counter drop"})
	}
	for _, m := range []struct {
		name     string
		verdicts map[netip.Addr]string
	}{{"egress", r.Egress}, {"ingress", r.Ingress}} {
		tx.Add(&knftables.Map{Name: m.name, Type: "ipv4_addr : verdict"})
		for _, addr := range slices.SortedFunc(maps.Keys(m.verdicts), netip.Addr.Compare) {
			tx.Add(&knftables.Element{Map: m.name, Key: []string{addr.String()}, Value: []string{"jump " + m.verdicts[addr]}})
		}
	}
	for _, hook := range []knftables.BaseChainHook{knftables.ForwardHook, knftables.InputHook} {
		chain := string(hook)
		tx.Add(&knftables.Chain{
			Name:     chain,
			Type:     knftables.PtrTo(knftables.FilterType),
			Hook:     knftables.PtrTo(hook),
			Priority: knftables.PtrTo(knftables.FilterPriority + "-5"),
		})
		rules := []string{
			// Pods have IPv6 link-local addresses, and the node listens there too.
			"iifname " + podInterfaces + " meta nfproto ipv6 drop",
			// A pod that forges its sender's address would be taken for another.
			"iifname " + podInterfaces + " fib saddr . iif oif 0 drop",
			"ct state established,related accept",
			"ip saddr . ip daddr @self accept",
			"ip saddr vmap @egress",
		}
		if hook == knftables.ForwardHook {
			rules = append(rules, "ip daddr vmap @ingress")
		}
		for _, rule := range rules {
			tx.Add(&knftables.Rule{Chain: chain, Rule: rule})
		}
	}
}

func shorten(s string) string {
	if len(s) <= knftables.CommentLengthMax {
		return s
	}
	return s[:knftables.CommentLengthMax-4] + " ..."
}
