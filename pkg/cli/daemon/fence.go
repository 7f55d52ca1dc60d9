package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
)

// dialPatience is how long an address may take to answer.
const dialPatience = 30 * time.Second

// fence dials for the tenant's API server whatever the tenant has it call. The
// process itself reaches the host's API and what is in its own pod, which pods of
// the tenant do not: nor may the tenant by a webhook, a pod whose status names
// such an address, or a node's port. For the rest the host's network policies
// hold, as for every pod.
type fence struct {
	resolver *net.Resolver
	own      []netip.AddrPort

	mu      sync.RWMutex
	hostAPI map[netip.AddrPort]bool
}

// newFence asks the tenant's DNS, at address, for names: the host's would tell
// of other tenants.
func newFence(host *rest.Config, dns string) *fence {
	f := &fence{resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, dns)
	}}}
	// The way that this process itself takes.
	if parsed, err := url.Parse(host.Host); err == nil {
		port := parsed.Port()
		if port == "" {
			port = "443"
		}
		if address, err := netip.ParseAddrPort(net.JoinHostPort(parsed.Hostname(), port)); err == nil {
			f.own = append(f.own, address)
		}
	}
	f.set(nil)
	return f
}

// set says where the host's API is, as ADDRESS:PORT.
func (f *fence) set(hostAPI []string) {
	addresses := map[netip.AddrPort]bool{}
	for _, address := range f.own {
		addresses[address] = true
	}
	for _, text := range hostAPI {
		if address, err := netip.ParseAddrPort(text); err == nil {
			addresses[address] = true
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hostAPI = addresses
}

func (f *fence) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialPatience, Resolver: f.resolver, ControlContext: f.check}
	return dialer.DialContext(ctx, network, address)
}

// check sees an address as it is about to be dialled, names resolved.
func (f *fence) check(_ context.Context, _, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("the API server of a virtual cluster does not call %q: %w", address, err)
	}
	ip := target.Addr().Unmap().WithZone("")
	if ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast() {
		return fmt.Errorf("the API server of a virtual cluster does not call %s: name a Service, a pod or a public address", address)
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.hostAPI[netip.AddrPortFrom(ip, target.Port())] {
		return fmt.Errorf("the API server of a virtual cluster does not call %s: that is the API of the host", address)
	}
	return nil
}
