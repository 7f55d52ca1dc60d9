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
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
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
	if err := forward(); err != nil {
		return err
	}
	if err := configure("lo", nil); err != nil {
		return err
	}
	if err := configure(insideInterface, &s.Link.Node); err != nil {
		return err
	}
	// The machine takes the addresses of further nodes for its neighbours'; the
	// first node answers for them.
	if err := set("net/ipv4/conf/" + insideInterface + "/proxy_arp"); err != nil {
		return err
	}
	if err := routeServices(s); err != nil {
		return err
	}
	return fence()
}

func forward() error {
	return errors.Join(set("net/ipv4/ip_forward"), set("net/ipv4/conf/all/forwarding"))
}

// set switches on a setting of the network namespace.
func set(setting string) error {
	if err := os.WriteFile("/proc/sys/"+setting, []byte("1"), 0); err != nil {
		return fmt.Errorf("switch on %s: %w", setting, err)
	}
	return nil
}

// joinNode connects the calling process' network with that of the first node, in
// which it makes the interface and the routes that lead to the new node.
func joinNode(s Spec, node int, first netns.NsHandle) error {
	own, err := netns.Get()
	if err != nil {
		return fmt.Errorf("find the node's own network: %w", err)
	}
	defer own.Close()
	there, err := netlink.NewHandleAt(first)
	if err != nil {
		return fmt.Errorf("reach the first node's network: %w", err)
	}
	defer there.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = s.Nodes[node].Name
	// One that ended a moment ago may have left its end.
	if old, err := there.LinkByName(attrs.Name); err == nil {
		if err := there.LinkDel(old); err != nil {
			return fmt.Errorf("remove the last interface %s: %w", attrs.Name, err)
		}
	}
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: insideInterface, PeerNamespace: netlink.NsFd(own)}
	if err := there.LinkAdd(veth); err != nil {
		return fmt.Errorf("make the veth %s: %w", attrs.Name, err)
	}
	link, err := there.LinkByName(attrs.Name)
	if err != nil {
		return fmt.Errorf("look for the interface %s: %w", attrs.Name, err)
	}
	if err := there.AddrAdd(link, pointToPoint(s.Link.Address(0), s.Link.Address(node))); err != nil {
		return fmt.Errorf("give %s an address: %w", attrs.Name, err)
	}
	if err := there.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", attrs.Name, err)
	}
	// Pods of the node see the first node's processes under its usual address.
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       ipNet(s.Nodes[node].Pods),
		Gw:        s.Link.Address(node).AsSlice(),
		Src:       s.Link.Address(0).AsSlice(),
	}
	if err := there.RouteAdd(route); err != nil {
		return fmt.Errorf("route %s to %s: %w", s.Nodes[node].Pods, attrs.Name, err)
	}
	return nil
}

// enterNodeNetwork sets up what a further node sees of the network: the first
// node, through which everything goes.
func enterNodeNetwork(s Spec, node int) error {
	if err := forward(); err != nil {
		return err
	}
	if err := configure("lo", nil); err != nil {
		return err
	}
	if err := configure(insideInterface, nil); err != nil {
		return err
	}
	link, err := netlink.LinkByName(insideInterface)
	if err != nil {
		return fmt.Errorf("look for the interface %s: %w", insideInterface, err)
	}
	if err := netlink.AddrAdd(link, pointToPoint(s.Link.Address(node), s.Link.Address(0))); err != nil {
		return fmt.Errorf("give %s an address: %w", insideInterface, err)
	}
	for _, route := range []*netlink.Route{
		{LinkIndex: link.Attrs().Index, Gw: s.Link.Address(0).AsSlice()},
		// Else what is sent to a pod that is gone would go to and fro.
		{Dst: ipNet(s.Nodes[node].Pods), Type: unix.RTN_UNREACHABLE},
	} {
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("add the route %s: %w", route, err)
		}
	}
	return routeServices(s)
}

// pointToPoint is the address of one end of a link between two nodes.
func pointToPoint(own, peer netip.Addr) *netlink.Addr {
	return &netlink.Addr{
		IPNet: ipNet(netip.PrefixFrom(own, own.BitLen())),
		Peer:  ipNet(netip.PrefixFrom(peer, peer.BitLen())),
	}
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
// go out by eth0. They come after kube-proxy's, which refuse connections to
// Services without endpoints: nobody else would answer these.
const fenceRules = `
table inet sublet-host {
	chain forward {
		type filter hook forward priority filter + 10; policy accept;
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
