package dns

import (
	"context"
	"net/netip"
	"strings"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/dnsutil"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
)

// fence keeps questions from the host's DNS whose answers would tell a tenant
// about others: the names behind private addresses, which are those of the
// host's pods and Services, and names in the host's own cluster domain.
type fence struct {
	next plugin.Handler
	// domains of the host's cluster, as fully qualified names.
	domains []string
}

func (fence) Name() string { return "fence" }

func (f fence) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	if !f.closed(state.Name()) {
		return plugin.NextOrFailure(f.Name(), f.next, ctx, w, r)
	}
	if err := w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeNameError)); err != nil {
		return dns.RcodeServerFailure, err
	}
	return dns.RcodeNameError, nil
}

func (f fence) closed(name string) bool {
	if address, err := netip.ParseAddr(dnsutil.ExtractAddressFromReverse(name)); err == nil {
		return local(address)
	}
	for _, domain := range f.domains {
		if dns.IsSubDomain(domain, name) {
			return true
		}
	}
	return false
}

func local(address netip.Addr) bool {
	// RFC 6598: for carriers, and for clusters with many pods.
	shared := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, 0}), 10)
	return address.IsPrivate() || address.IsLinkLocalUnicast() || shared.Contains(address)
}

// hostDomains finds the host's cluster domain in the resolv.conf that its
// kubelet wrote for our pod, which searches svc.DOMAIN.
func hostDomains(upstreams []string) []string {
	var domains []string
	for _, upstream := range upstreams {
		config, err := dns.ClientConfigFromFile(upstream)
		if err != nil {
			continue // an address
		}
		for _, search := range config.Search {
			if domain, ok := strings.CutPrefix(search, "svc."); ok {
				domains = append(domains, dns.CanonicalName(domain))
			}
		}
	}
	return domains
}
