package dns

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// testAPI has what a DNS server looks at, and changes nothing.
func testAPI(t *testing.T, clusterIP string) *rest.Config {
	t.Helper()
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "shop", Name: name} }
	port := []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}
	name, number, protocol := "http", int32(8080), corev1.ProtocolTCP
	hostname := "web-0"
	ready := true
	lists := map[string]any{
		"/api/v1/namespaces": corev1.NamespaceList{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NamespaceList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"},
			Items: []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}},
		},
		"/api/v1/services": corev1.ServiceList{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"},
			Items: []corev1.Service{
				{ObjectMeta: meta("web"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: clusterIP, ClusterIPs: []string{clusterIP, "fd00::1"}, Ports: port}},
				{ObjectMeta: meta("peers"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: corev1.ClusterIPNone, ClusterIPs: []string{corev1.ClusterIPNone}, Ports: port}},
				{ObjectMeta: meta("outside"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "db.example.com"}},
			},
		},
		"/apis/discovery.k8s.io/v1/endpointslices": discoveryv1.EndpointSliceList{
			TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSliceList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"},
			Items: []discoveryv1.EndpointSlice{{
				ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "peers-1", Labels: map[string]string{discoveryv1.LabelServiceName: "peers"}},
				AddressType: discoveryv1.AddressTypeIPv4,
				Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &number, Protocol: &protocol}},
				Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.7"}, Hostname: &hostname, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
			}},
		},
	}
	pods := []corev1.Pod{
		// Tests ask from this address.
		{ObjectMeta: meta("asker"), Spec: corev1.PodSpec{Hostname: "me", Subdomain: "private"}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "127.0.0.1"}, {IP: "fd00::7"}}}},
		{ObjectMeta: meta("neighbour"), Spec: corev1.PodSpec{Subdomain: "private"}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "127.0.0.1"}}}},
		{ObjectMeta: meta("other"), Spec: corev1.PodSpec{Hostname: "other", Subdomain: "private"}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.244.0.9"}}}},
	}
	stop := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		list, ok := lists[r.URL.Path]
		switch {
		case r.URL.Path == "/api/v1/namespaces/shop/pods":
			list := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}}
			for _, pod := range pods {
				if r.URL.Query().Get("fieldSelector") == "status.podIP="+pod.Status.PodIPs[0].IP {
					list.Items = append(list.Items, pod)
				}
			}
			_ = json.NewEncoder(w).Encode(list)
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Query().Get("sendInitialEvents") == "true":
			// As an older API server: list first.
			w.WriteHeader(http.StatusUnprocessableEntity)
			_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonInvalid, Code: http.StatusUnprocessableEntity})
		case r.URL.Query().Has("watch"):
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-stop:
			}
		default:
			_ = json.NewEncoder(w).Encode(list)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(stop) })
	return &rest.Config{Host: server.URL}
}

// testUpstream is a DNS server that answers every A query alike.
func testUpstream(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			record, err := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.1")
			if err == nil {
				answer.Answer = append(answer.Answer, record)
			}
		}
		_ = w.WriteMsg(answer)
	})
	for _, server := range []*dns.Server{{Listener: l, Handler: handler}, {PacketConn: p, Handler: handler}} {
		go func() { _ = server.ActivateAndServe() }()
		t.Cleanup(func() { _ = server.Shutdown() })
	}
	return p.LocalAddr().String()
}

// start runs a server until the test ends, and returns its address.
func start(t *testing.T, o Options) string {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- serve(ctx, o, tcp, udp) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-stopped:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the server did not stop")
		}
	})
	return tcp.Addr().String()
}

func ask(t *testing.T, network, address, name string, kind uint16) []string {
	t.Helper()
	client := &dns.Client{Net: network, Timeout: 10 * time.Second}
	var answer *dns.Msg
	var err error
	for range 100 { // UDP is not answered before the server has started
		answer, _, err = client.Exchange(new(dns.Msg).SetQuestion(name, kind), address)
		if err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	records := []string{}
	for _, r := range append(answer.Answer, answer.Extra...) {
		if a, ok := r.(*dns.A); ok && a.A.String() == "192.0.2.1" {
			a.Hdr.Ttl = 60 // it ages in the cache
		}
		if _, isOpt := r.(*dns.OPT); !isOpt {
			records = append(records, strings.Join(strings.Fields(r.String()), " "))
		}
	}
	slices.Sort(records)
	if answer.Rcode != dns.RcodeSuccess {
		records = append(records, dns.RcodeToString[answer.Rcode])
	}
	return records
}

func TestRecords(t *testing.T) {
	address := start(t, Options{Config: testAPI(t, "10.96.0.42"), Upstreams: []string{testUpstream(t)}})
	tests := map[string]struct {
		name string
		kind uint16
		want []string
	}{
		"Service":            {"web.shop.svc.cluster.local.", dns.TypeA, []string{"web.shop.svc.cluster.local. 30 IN A 10.96.0.42"}},
		"Service, IPv6":      {"web.shop.svc.cluster.local.", dns.TypeAAAA, []string{"web.shop.svc.cluster.local. 30 IN AAAA fd00::1"}},
		"headless Service":   {"peers.shop.svc.cluster.local.", dns.TypeA, []string{"peers.shop.svc.cluster.local. 30 IN A 10.244.0.7"}},
		"pod by hostname":    {"web-0.peers.shop.svc.cluster.local.", dns.TypeA, []string{"web-0.peers.shop.svc.cluster.local. 30 IN A 10.244.0.7"}},
		"pod by address":     {"10-244-0-7.shop.pod.cluster.local.", dns.TypeA, []string{"10-244-0-7.shop.pod.cluster.local. 30 IN A 10.244.0.7"}},
		"ports of a Service": {"_http._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, []string{"_http._tcp.web.shop.svc.cluster.local. 30 IN SRV 0 50 80 web.shop.svc.cluster.local.", "web.shop.svc.cluster.local. 30 IN A 10.96.0.42", "web.shop.svc.cluster.local. 30 IN AAAA fd00::1"}},
		"ports of a headless Service": {"_http._tcp.peers.shop.svc.cluster.local.", dns.TypeSRV, []string{
			"_http._tcp.peers.shop.svc.cluster.local. 30 IN SRV 0 100 8080 web-0.peers.shop.svc.cluster.local.", "web-0.peers.shop.svc.cluster.local. 30 IN A 10.244.0.7",
		}},
		"ExternalName is followed":       {"outside.shop.svc.cluster.local.", dns.TypeA, []string{"db.example.com. 60 IN A 192.0.2.1", "outside.shop.svc.cluster.local. 30 IN CNAME db.example.com."}},
		"reverse of a Service":           {"42.0.96.10.in-addr.arpa.", dns.TypePTR, []string{"42.0.96.10.in-addr.arpa. 30 IN PTR web.shop.svc.cluster.local."}},
		"reverse of a pod":               {"7.0.244.10.in-addr.arpa.", dns.TypePTR, []string{"7.0.244.10.in-addr.arpa. 30 IN PTR web-0.peers.shop.svc.cluster.local."}},
		"a pod's own name":               {"me.private.shop.svc.cluster.local.", dns.TypeA, []string{"me.private.shop.svc.cluster.local. 30 IN A 127.0.0.1"}},
		"a pod's own name, IPv6":         {"me.private.shop.svc.cluster.local.", dns.TypeAAAA, []string{"me.private.shop.svc.cluster.local. 30 IN AAAA fd00::7"}},
		"own name, from the pod's name":  {"neighbour.private.shop.svc.cluster.local.", dns.TypeA, []string{"neighbour.private.shop.svc.cluster.local. 30 IN A 127.0.0.1"}},
		"own name, no address of a kind": {"neighbour.private.shop.svc.cluster.local.", dns.TypeAAAA, []string{}},
		"own name, in capitals":          {"Me.Private.Shop.svc.cluster.local.", dns.TypeA, []string{"Me.Private.Shop.svc.cluster.local. 30 IN A 127.0.0.1"}},
		"another pod's own name":         {"other.private.shop.svc.cluster.local.", dns.TypeA, []string{"NXDOMAIN"}},
		"own name, another namespace":    {"me.private.bank.svc.cluster.local.", dns.TypeA, []string{"NXDOMAIN"}},
		"own name, another kind":         {"me.private.shop.svc.cluster.local.", dns.TypeMX, []string{"NXDOMAIN"}},
		"unknown Service":                {"nothing.shop.svc.cluster.local.", dns.TypeA, []string{"NXDOMAIN"}},
		"another tenant's address":       {"9.0.244.10.in-addr.arpa.", dns.TypePTR, []string{"NXDOMAIN"}},
		"another tenant's IPv6 address":  {"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, []string{"NXDOMAIN"}},
		"a public address is the host's": {"1.2.0.192.in-addr.arpa.", dns.TypePTR, []string{}},
		"other name is the host's":       {"www.example.com.", dns.TypeA, []string{"www.example.com. 60 IN A 192.0.2.1"}},
		"version of the DNS conventions": {"dns-version.cluster.local.", dns.TypeTXT, []string{`dns-version.cluster.local. 28800 IN TXT "1.1.0"`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, network := range []string{"udp", "tcp"} {
				got := ask(t, network, address, test.name, test.kind)
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("over %s (-want +got):\n%s", network, diff)
				}
			}
		})
	}
}

func TestSeveralServersInOneProcess(t *testing.T) {
	one := start(t, Options{Config: testAPI(t, "10.96.0.1"), Upstreams: []string{testUpstream(t)}})
	two := start(t, Options{Config: testAPI(t, "10.96.0.2"), Upstreams: []string{testUpstream(t)}, ClusterDomain: "two.example"})
	if diff := cmp.Diff([]string{"web.shop.svc.cluster.local. 30 IN A 10.96.0.1"}, ask(t, "udp", one, "web.shop.svc.cluster.local.", dns.TypeA)); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"web.shop.svc.two.example. 30 IN A 10.96.0.2"}, ask(t, "udp", two, "web.shop.svc.two.example.", dns.TypeA)); diff != "" {
		t.Errorf("second (-want +got):\n%s", diff)
	}
}

func TestBadOptions(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for name, o := range map[string]Options{
		"no config":       {Listen: "127.0.0.1:0"},
		"port is taken":   {Listen: taken.Addr().String(), Config: &rest.Config{Host: "http://127.0.0.1:1"}},
		"bad upstream":    {Listen: "127.0.0.1:0", Config: &rest.Config{Host: "http://127.0.0.1:1"}, Upstreams: []string{"not an address"}},
		"no such file":    {Listen: "127.0.0.1:0", Config: &rest.Config{Host: "http://127.0.0.1:1"}, Upstreams: []string{"/nonexistent/resolv.conf"}},
		"bad API address": {Listen: "127.0.0.1:0", Config: &rest.Config{Host: "::"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if err := Run(ctx, o); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got error %v, want one about the options", err)
			}
		})
	}
}

func TestFence(t *testing.T) {
	resolvConf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolvConf, []byte("nameserver 10.96.0.10\nsearch acme.svc.host.example svc.host.example host.example company.example\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := fence{domains: hostDomains([]string{"192.0.2.53", resolvConf})}
	for name, closed := range map[string]bool{
		"web.other.svc.host.example.":   true,
		"host.example.":                 true,
		"myhost.example.":               false,
		"intranet.company.example.":     false,
		"9.0.244.10.in-addr.arpa.":      true,
		"1.64.100.in-addr.arpa.":        false, // not a whole address
		"1.0.64.100.in-addr.arpa.":      true,
		"254.169.254.169.in-addr.arpa.": true,
		"8.8.8.8.in-addr.arpa.":         false,
	} {
		if got := f.closed(name); got != closed {
			t.Errorf("%s is closed: %v, want %v", name, got, closed)
		}
	}
}
