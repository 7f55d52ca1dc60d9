package sandbox

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
)

// ID names the sandbox of a state directory: short enough for the name of a
// network interface, and different for different directories.
func ID(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:4])
}

// Link is the veth between machine and sandbox.
type Link struct {
	// Interface is its name on the machine; inside it is eth0.
	Interface string
	// Machine and Node are its addresses, each with the length of the prefix
	// that both share. Further nodes have those that follow.
	Machine, Node netip.Prefix
}

// MaxNodes is how many nodes a link has addresses for.
const MaxNodes = 5

// Address is that of a node, counted from 0.
func (l Link) Address(node int) netip.Addr {
	address := l.Node.Addr()
	for range node {
		address = address.Next()
	}
	return address
}

const (
	linkBits = 29
	// attempts bounds the search; that many ranges taken in a row means
	// something is wrong with what we think is taken.
	attempts = 4096
)

// linkRange is private, so that a tenant's fence treats the node as it would
// treat a real one, and overlaps with neither the pods' range, the Services' nor
// what Docker takes.
func linkRange() netip.Prefix { return netip.MustParsePrefix("10.192.0.0/11") }

// ChooseLink picks the addresses of the sandbox id: the same ones each time, or
// the next ones when those overlap with a network that is taken.
func ChooseLink(id string, taken []netip.Prefix) (Link, error) {
	sum := sha256.Sum256([]byte(id))
	space := linkRange()
	ranges := uint32(1) << (linkBits - space.Bits())
	base := binary.BigEndian.Uint32(space.Addr().AsSlice())
	first := binary.BigEndian.Uint32(sum[:4]) % ranges
	for i := range uint32(attempts) {
		network := base + (first+i)%ranges<<(32-linkBits)
		if overlaps(prefix(network), taken) {
			continue
		}
		return Link{
			Interface: interfaceName(id),
			Machine:   prefix(network + 1),
			Node:      prefix(network + 2),
		}, nil
	}
	return Link{}, fmt.Errorf("no free network in %s for the local host: the machine's routes and addresses cover it; free some of it", space)
}

// interfaceName is as long as Linux allows: 15 characters.
func interfaceName(id string) string { return "sublet-" + id }

func prefix(address uint32) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, address))), linkBits)
}

func overlaps(p netip.Prefix, taken []netip.Prefix) bool {
	for _, t := range taken {
		if p.Overlaps(t) {
			return true
		}
	}
	return false
}
