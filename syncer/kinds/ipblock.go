package kinds

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	netutils "k8s.io/utils/net"
)

// addressBlock is a networkingv1.IPBlock that can be reckoned with.
type addressBlock struct {
	in     netip.Prefix
	except []netip.Prefix
}

// parseBlock refuses nil, and IPv4 in the guise of IPv6: it would be compared as
// the one here, and might be enforced as the other.
func parseBlock(block *networkingv1.IPBlock) (addressBlock, error) {
	if block == nil {
		return addressBlock{}, fmt.Errorf("no ipBlock")
	}
	in, err := parseCIDR(block.CIDR)
	if err != nil {
		return addressBlock{}, err
	}
	out := addressBlock{in: in}
	for _, text := range block.Except {
		except, err := parseCIDR(text)
		if err != nil {
			return addressBlock{}, err
		}
		out.except = append(out.except, except)
	}
	return out, nil
}

// parseCIDR takes whatever an API server has taken, such as 010.1.2.3/8 for
// 10.0.0.0/8.
func parseCIDR(text string) (netip.Prefix, error) {
	_, network, err := netutils.ParseCIDRSloppy(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("ipBlock: %q is not a range of addresses", text)
	}
	bits, size := network.Mask.Size()
	address, _ := netip.AddrFromSlice(network.IP)
	if size == 128 && address.Is4In6() {
		return netip.Prefix{}, fmt.Errorf("ipBlock: %q is IPv4 in the guise of IPv6: write it as IPv4", text)
	}
	return netip.PrefixFrom(address, bits).Masked(), nil
}

// everything tells whether all addresses of the family are in it.
func (b addressBlock) everything() bool {
	return b.in.IsValid() && b.in.Bits() == 0 && len(b.except) == 0
}

// has tells whether an address is in it.
func (b addressBlock) has(ip string) bool {
	address, err := netip.ParseAddr(ip)
	if err != nil {
		return false
	}
	address = address.Unmap()
	return b.in.Contains(address) && !slices.ContainsFunc(b.except, func(p netip.Prefix) bool { return p.Contains(address) })
}

// hasPod tells whether a pod with an address of its own has it in the block.
func (b addressBlock) hasPod(pod *corev1.Pod) bool {
	if pod.Spec.HostNetwork || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	return slices.ContainsFunc(pod.Status.PodIPs, func(ip corev1.PodIP) bool { return b.has(ip.IP) })
}

// meet is what two blocks have in common, if anything: the smaller range without
// what either leaves out.
func (b addressBlock) meet(other addressBlock) (addressBlock, bool) {
	if !b.in.Overlaps(other.in) {
		return addressBlock{}, false
	}
	both := addressBlock{in: b.in}
	if other.in.Bits() > b.in.Bits() {
		both.in = other.in
	}
	var except []netip.Prefix
	for _, prefix := range slices.Concat(b.except, other.except) {
		if !prefix.Overlaps(both.in) {
			continue
		}
		if prefix.Bits() <= both.in.Bits() {
			return addressBlock{}, false
		}
		except = append(except, prefix)
	}
	// Sorted, a range comes before those within it.
	slices.SortFunc(except, netip.Prefix.Compare)
	for _, prefix := range except {
		if last := len(both.except) - 1; last < 0 || !both.except[last].Overlaps(prefix) {
			both.except = append(both.except, prefix)
		}
	}
	return both, true
}

func (b addressBlock) ipBlock() *networkingv1.IPBlock {
	out := &networkingv1.IPBlock{CIDR: b.in.String()}
	for _, prefix := range b.except {
		out.Except = append(out.Except, prefix.String())
	}
	return out
}
