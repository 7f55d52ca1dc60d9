//go:build linux

package sandbox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
)

// insideInterface is the sandbox's end of the veth.
const insideInterface = "eth0"

// Taken lists the networks that the machine has an address in or a route to.
// The default route is none of them, nor is what belongs to the interface except,
// so that a sandbox gets its addresses back.
func Taken(except string) ([]netip.Prefix, error) {
	exceptIndex := -1
	if link, err := netlink.LinkByName(except); err == nil {
		exceptIndex = link.Attrs().Index
	}
	var taken []netip.Prefix
	add := func(network *net.IPNet, index int) {
		if network == nil || index == exceptIndex {
			return
		}
		address, ok := netip.AddrFromSlice(network.IP)
		ones, _ := network.Mask.Size()
		if ok && address.Unmap().Is4() && ones > 0 {
			taken = append(taken, netip.PrefixFrom(address.Unmap(), ones).Masked())
		}
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the machine's addresses: %w", err)
	}
	for _, address := range addresses {
		add(address.IPNet, address.LinkIndex)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the machine's routes: %w", err)
	}
	for _, route := range routes {
		add(route.Dst, route.LinkIndex)
	}
	return taken, nil
}

// connect makes the veth, with its other end in the sandbox of the process pid.
func connect(l Link, pid int) error {
	if err := disconnect(l.Interface); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = l.Interface
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: insideInterface, PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make the veth %s: %w", l.Interface, err)
	}
	return configure(l.Interface, &l.Machine)
}

// disconnect removes the veth. It is fine when there is none.
func disconnect(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the interface %s: %w", name, err)
	}
	if err := netlink.LinkDel(link); err != nil && exists(name) {
		return fmt.Errorf("remove the interface %s: %w", name, err)
	}
	return nil
}

func exists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

// enterNetwork sets up what the sandbox sees of the network.
func enterNetwork(s Spec) error {
	for _, setting := range []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/"+setting, []byte("1"), 0); err != nil {
			return fmt.Errorf("switch on forwarding between pods: %w", err)
		}
	}
	if err := configure("lo", nil); err != nil {
		return err
	}
	if err := configure(insideInterface, &s.Link.Node); err != nil {
		return err
	}
	if err := routeServices(s); err != nil {
		return err
	}
	return fence()
}

// routeServices gives the Services' range a route, to where nobody answers.
// Without one the kernel refuses a connection from the node to a ClusterIP before
// kube-proxy can translate it, as there is no default route.
func routeServices(s Spec) error {
	link, err := netlink.LinkByName(insideInterface)
	if err != nil {
		return fmt.Errorf("look for the interface %s: %w", insideInterface, err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(s.ServiceCIDR), Scope: netlink.SCOPE_LINK}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("route %s: %w", s.ServiceCIDR, err)
	}
	return nil
}

// fenceRules keep pods from the machine: only answers to what the machine began
// go out by eth0.
const fenceRules = `
table inet sublet-host {
	chain forward {
		type filter hook forward priority filter - 10; policy accept;
		oifname "eth0" ct state established,related accept
		oifname "eth0" drop
	}
}
`

func fence() error {
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(fenceRules)
	if out, err := nft.CombinedOutput(); err != nil {
		return fmt.Errorf("fence off the machine's network: nft: %w: %s", err, out)
	}
	return nil
}

// configure brings an interface up, with an address if there is one.
func configure(name string, address *netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("look for the interface %s: %w", name, err)
	}
	if address != nil {
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(*address)}); err != nil {
			return fmt.Errorf("give %s the address %s: %w", name, address, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
