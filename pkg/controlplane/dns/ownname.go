package dns

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/nonwriter"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
)

const (
	// ownNameTTL is that of the answers, and how long a pod is remembered: what
	// makes its name cannot change.
	ownNameTTL = 30 * time.Second
	// absentTTL is how long no pod is remembered at an address: it may be there
	// in a moment.
	absentTTL = time.Second
	// ownNamesKept bounds the memory.
	ownNamesKept = 4096
)

// ownName answers a pod for its own full name, HOSTNAME.SUBDOMAIN.NAMESPACE.svc.DOMAIN,
// where no headless Service makes that a name for everybody. A kubelet of the
// tenant would write it into the pod's /etc/hosts; the host's cannot, since it
// would put the host's namespace into it.
type ownName struct {
	next plugin.Handler
	// zone is svc.DOMAIN, fully qualified.
	zone string
	pods kubernetes.Interface

	mu    sync.Mutex
	known map[asker]names
}

// asker is an address that asks for names of a namespace.
type asker struct {
	address   netip.Addr
	namespace string
}

// names are the full names at an address, with the addresses of their pods. There
// are several if pods share their node's address.
type names struct {
	until time.Time
	ips   map[string][]netip.Addr
}

func (*ownName) Name() string { return "ownname" }

func (o *ownName) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	namespace, ok := o.namespaceOf(state.Name())
	if !ok || (state.QType() != dns.TypeA && state.QType() != dns.TypeAAAA) {
		return plugin.NextOrFailure(o.Name(), o.next, ctx, w, r)
	}
	held := nonwriter.New(w)
	code, err := plugin.NextOrFailure(o.Name(), o.next, ctx, held, r)
	if held.Msg == nil {
		return code, err
	}
	answer := held.Msg
	if answer.Rcode == dns.RcodeNameError {
		if own := o.answer(ctx, state, namespace); own != nil {
			answer, code, err = own, dns.RcodeSuccess, nil
		}
	}
	if writeErr := w.WriteMsg(answer); writeErr != nil {
		return dns.RcodeServerFailure, writeErr
	}
	return code, err
}

// namespaceOf reads the namespace out of HOSTNAME.SUBDOMAIN.NAMESPACE.svc.DOMAIN.
func (o *ownName) namespaceOf(name string) (string, bool) {
	rest, ok := strings.CutSuffix(name, "."+o.zone)
	if !ok {
		return "", false
	}
	labels := strings.Split(rest, ".")
	if len(labels) != 3 {
		return "", false
	}
	return labels[2], true
}

// answer is nil if the name is not the asker's own.
func (o *ownName) answer(ctx context.Context, state request.Request, namespace string) *dns.Msg {
	address, err := netip.ParseAddr(state.IP())
	if err != nil {
		return nil
	}
	ips, ok := o.lookUp(ctx, asker{address.Unmap(), namespace})[state.Name()]
	if !ok {
		return nil
	}
	m := new(dns.Msg).SetReply(state.Req)
	m.Authoritative = true
	for _, ip := range ips {
		header := dns.RR_Header{Name: state.QName(), Rrtype: state.QType(), Class: dns.ClassINET, Ttl: uint32(ownNameTTL.Seconds())}
		switch {
		case ip.Is4() && state.QType() == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: header, A: ip.AsSlice()})
		case ip.Is6() && state.QType() == dns.TypeAAAA:
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: header, AAAA: ip.AsSlice()})
		}
	}
	return m
}

// lookUp asks the tenant's API, since every other name that a pod looks up with
// search domains may look like this one, at most once in a while for each asker.
func (o *ownName) lookUp(ctx context.Context, a asker) map[string][]netip.Addr {
	now := time.Now()
	o.mu.Lock()
	found, ok := o.known[a]
	o.mu.Unlock()
	if ok && now.Before(found.until) {
		return found.ips
	}
	pods, err := o.pods.CoreV1().Pods(a.namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("status.podIP", a.address.String()).String(),
		// What the API server has in memory will do.
		ResourceVersion: "0",
	})
	if err != nil {
		// The name was not found, and stays so.
		return nil
	}
	found = names{until: now.Add(absentTTL), ips: map[string][]netip.Addr{}}
	for _, pod := range pods.Items {
		found.until = now.Add(ownNameTTL)
		if pod.Spec.Subdomain != "" {
			found.ips[o.fullName(&pod)] = addresses(&pod)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known == nil || len(o.known) >= ownNamesKept {
		o.known = map[asker]names{}
	}
	o.known[a] = found
	return found.ips
}

func (o *ownName) fullName(pod *corev1.Pod) string {
	hostname := pod.Spec.Hostname
	if hostname == "" {
		hostname = pod.Name
	}
	return dns.CanonicalName(strings.Join([]string{hostname, pod.Spec.Subdomain, pod.Namespace, o.zone}, "."))
}

func addresses(pod *corev1.Pod) []netip.Addr {
	var all []netip.Addr
	for _, ip := range pod.Status.PodIPs {
		if address, err := netip.ParseAddr(ip.IP); err == nil {
			all = append(all, address)
		}
	}
	return all
}
