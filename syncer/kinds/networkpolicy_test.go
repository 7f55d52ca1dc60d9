package kinds_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/isolation"
	"github.com/sublet-dev/sublet/pkg/tenancy"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func TestNetworkPolicyFields(t *testing.T) {
	checkFields(t, []fieldList{
		{of: networkingv1.NetworkPolicy{}, translated: []string{"ObjectMeta", "Spec"}, dropped: []string{"TypeMeta"}},
		{of: networkingv1.NetworkPolicySpec{}, copied: []string{"PolicyTypes"}, translated: []string{"PodSelector", "Ingress", "Egress"}},
		{of: networkingv1.NetworkPolicyIngressRule{}, copied: []string{"Ports"}, translated: []string{"From"}},
		{of: networkingv1.NetworkPolicyEgressRule{}, copied: []string{"Ports"}, translated: []string{"To"}},
		{of: networkingv1.NetworkPolicyPeer{}, translated: []string{"PodSelector", "NamespaceSelector", "IPBlock"}},
		{of: networkingv1.NetworkPolicyPort{}, copied: []string{"Protocol", "Port", "EndPort"}},
		{of: networkingv1.IPBlock{}, translated: []string{"CIDR", "Except"}},
	})
}

// FuzzNetworkPolicy: whatever a tenant writes, the host's policy selects the
// tenant's pods of one virtual namespace, and names no peers but the tenant's
// pods, two ports of its control plane, and what the fence opens.
func FuzzNetworkPolicy(f *testing.F) {
	fuzzToHost(f, kinds.NetworkPolicy(), func(t *testing.T, in translate.Input[translate.Object]) {
		virtual := in.Virtual.DeepCopyObject().(*networkingv1.NetworkPolicy)
		// Random strings are no addresses, which would end it.
		ranges := []string{"10.0.0.0/8", "0.0.0.0/0", "93.184.0.0/16", "169.254.169.254/32", "::/0", "fd00::/8"}
		next := 0
		sensible := func(peers []networkingv1.NetworkPolicyPeer) {
			for i := range peers {
				if peers[i].IPBlock != nil {
					peers[i] = networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: ranges[next%len(ranges)]}}
					next++
				} else if peers[i].NamespaceSelector == nil && peers[i].PodSelector == nil {
					peers[i].PodSelector = &metav1.LabelSelector{}
				}
			}
		}
		for i := range virtual.Spec.Ingress {
			sensible(virtual.Spec.Ingress[i].From)
		}
		for i := range virtual.Spec.Egress {
			sensible(virtual.Spec.Egress[i].To)
		}
		whole := translate.Input[translate.Object]{Tenant: in.Tenant, Virtual: virtual}
		for _, policy := range testFence(api.Limits{}) {
			whole.Refs.Host = append(whole.Refs.Host, policy)
		}
		erased := kinds.NetworkPolicy().Erase()
		checkInvariants(t, erased, whole)
		object, err := erased.ToHost(whole)
		if err != nil {
			t.Fatal(err)
		}
		host := object.(*networkingv1.NetworkPolicy)
		confined := func(selector *metav1.LabelSelector) bool {
			return selector != nil && slices.ContainsFunc(selector.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
				return r.Key == api.LabelVirtualNamespace && (r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpExists)
			})
		}
		if !confined(&host.Spec.PodSelector) {
			t.Fatalf("the policy selects other pods than the tenant's: %v", host.Spec.PodSelector)
		}
		for _, rule := range host.Spec.Ingress {
			if len(rule.From) == 0 {
				t.Fatal("a rule allows all sources")
			}
			for _, from := range rule.From {
				if from.IPBlock != nil || from.NamespaceSelector != nil || !confined(from.PodSelector) {
					t.Fatalf("the source %v is outside of the tenant", from)
				}
			}
		}
		for _, rule := range host.Spec.Egress {
			if len(rule.To) == 0 {
				t.Fatal("a rule allows all destinations")
			}
			for _, to := range rule.To {
				switch {
				case to.NamespaceSelector != nil:
					t.Fatalf("the destination %v is outside of the tenant", to)
				case to.IPBlock != nil:
					for _, closed := range []string{"10.0.0.1", "169.254.169.254", "192.168.1.10", "fd00:ec2::254"} {
						if blockHas(t, to.IPBlock, netip.MustParseAddr(closed)) {
							t.Fatalf("the destination %v is closed by the fence (%s)", to.IPBlock, closed)
						}
					}
				case !confined(to.PodSelector):
					if to.PodSelector.MatchLabels[api.LabelComponent] != api.ComponentControlPlane || len(rule.Ports) == 0 {
						t.Fatalf("the destination %v is outside of the tenant", to.PodSelector)
					}
					for _, port := range rule.Ports {
						if n := port.Port.IntValue(); n != api.DNSPort && n != api.APIServerPort {
							t.Fatalf("port %d of the control plane is opened", n)
						}
					}
				}
			}
		}
	})
}

// testFence are the NetworkPolicies around the tenant of all goldens.
func testFence(limits api.Limits) []*networkingv1.NetworkPolicy {
	in := isolation.Input{
		Tenant: tenancy.Of(&api.Tenant{
			ObjectMeta: metav1.ObjectMeta{Name: testTenant().Tenant},
			Spec:       api.TenantSpec{Type: api.VirtualCluster, Namespace: testTenant().HostNamespace, Limits: &limits},
		}),
		Host: isolation.Host{
			SystemNamespace:   api.SystemNamespace,
			APIServers:        []isolation.Endpoint{{IP: "192.168.1.10", Port: 6443}},
			APIServiceIPs:     []string{"10.96.0.1"},
			Ranges:            []string{"10.96.0.0/16", "10.244.0.0/16", "192.168.1.10/32"},
			PodRanges:         []string{"10.244.0.0/16"},
			IngressNamespaces: []string{"ingress-nginx"},
		},
	}
	var fence []*networkingv1.NetworkPolicy
	for _, object := range isolation.Objects(in) {
		if policy, ok := object.(*networkingv1.NetworkPolicy); ok {
			fence = append(fence, policy)
		}
	}
	return fence
}

func TestBlocksInCommon(t *testing.T) {
	fence := "0.0.0.0/0 but 10.0.0.0/8 169.254.0.0/16 192.168.0.0/16"
	tests := map[string]struct{ cidr, open, want string }{
		"all of it":                   {"0.0.0.0/0", fence, fence},
		"within what is left out":     {"10.1.0.0/16", fence, ""},
		"just what is left out":       {"10.0.0.0/8", fence, ""},
		"metadata":                    {"169.254.169.254/32", fence, ""},
		"public":                      {"93.184.0.0/16", fence, "93.184.0.0/16"},
		"around what is left out":     {"8.0.0.0/6", fence, "8.0.0.0/6 but 10.0.0.0/8"},
		"the tenant leaves out more":  {"0.0.0.0/0 but 1.0.0.0/8 10.1.0.0/16", fence, "0.0.0.0/0 but 1.0.0.0/8 10.0.0.0/8 169.254.0.0/16 192.168.0.0/16"},
		"the tenant leaves all out":   {"0.0.0.0/0 but 0.0.0.0/1 128.0.0.0/1", "93.184.0.0/16", ""},
		"another family":              {"::/0", fence, ""},
		"an allowed range":            {"10.0.0.0/8", "10.7.0.0/16", "10.7.0.0/16"},
		"bits beyond the length":      {"93.184.1.2/16", fence, "93.184.0.0/16"},
		"zeros that lead":             {"093.184.000.000/16", fence, "93.184.0.0/16"},
		"IPv4 in the guise of IPv6":   {"::ffff:10.0.0.0/104", "::/0", "error"},
		"the same among what is left": {"::/0 but ::ffff:10.0.0.0/104", "::/0", "error"},
		"IPv6":                        {"2000::/3 but 2001:db8::/32", "::/0 but fc00::/7", "2000::/3 but 2001:db8::/32"},
	}
	block := func(text string) *networkingv1.IPBlock {
		cidr, except, _ := strings.Cut(text, " but ")
		return &networkingv1.IPBlock{CIDR: cidr, Except: strings.Fields(except)}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			fence := &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{
				Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{{IPBlock: block(test.open)}}}},
			}}
			fence.Namespace, fence.Name, fence.Labels = testTenant().HostNamespace, api.FenceEgressPolicy, isolation.Labels(testTenant().Tenant)
			virtual := &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{
				Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{{IPBlock: block(test.cidr)}}}},
			}}
			virtual.Namespace, virtual.Name = "default", "p"
			host, err := kinds.NetworkPolicy().ToHost(translate.Input[*networkingv1.NetworkPolicy]{
				Tenant: translate.NewTenant(testTenant(), nil), Virtual: virtual, Refs: translate.Objects{Host: []translate.Object{fence}},
			})
			got := ""
			if err != nil {
				got = "error"
			} else {
				for _, rule := range host.Spec.Egress {
					for _, to := range rule.To {
						if to.IPBlock != nil {
							got = to.IPBlock.CIDR
							if len(to.IPBlock.Except) > 0 {
								got += " but " + strings.Join(to.IPBlock.Except, " ")
							}
						}
					}
				}
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestNetworkPolicyMeansTheSame makes tenants with pods and policies at random
// and asks of each pair of ends and each port whether they may talk: in the
// tenant, as Kubernetes has it, within what the fence allows; and on the host, by
// the fence and what became of the policies. It must be the same.
func TestNetworkPolicyMeansTheSame(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			newWorld(t, seed).compare(t)
		})
	}
}

// end is one end of a connection.
type end struct {
	name string
	// namespace and labels are of pods; others have only an address.
	namespace string
	labels    map[string]string
	address   netip.Addr
	// port is the one that it listens on, portName its name in the pod.
	port     int32
	protocol corev1.Protocol
	portName string
}

// cluster decides who may talk to whom.
type cluster struct {
	namespaces map[string]map[string]string
	policies   []*networkingv1.NetworkPolicy
	// selectors are those that were parsed.
	selectors map[*metav1.LabelSelector]labels.Selector
}

// world is a tenant with what is around it.
type world struct {
	tenant, host cluster
	// pods are the tenant's, hostPods the same on the host.
	pods, hostPods []end
	fence          cluster
}

const (
	edge       = "ingress-nginx"
	otherSpace = "other-host"
)

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 7))
	config := testTenant()
	tenant := translate.NewTenant(config, nil)
	limits := api.Limits{}
	if random.IntN(2) == 0 {
		limits.Hosts = []string{"*.example.com"}
	}
	if random.IntN(2) == 0 {
		limits.Services = []corev1.ServiceType{corev1.ServiceTypeLoadBalancer}
	}
	limits.Network = &api.NetworkLimits{Internet: []string{"Allow", "Deny"}[random.IntN(2)], AllowedCIDRs: []string{"10.1.0.0/16"}}

	w := &world{}
	for _, c := range []*cluster{&w.tenant, &w.host, &w.fence} {
		c.selectors = map[*metav1.LabelSelector]labels.Selector{}
	}
	w.fence.policies = testFence(limits)
	var gathered translate.Objects
	for _, policy := range w.fence.policies {
		gathered.Host = append(gathered.Host, policy)
	}
	// The tenant's namespaces; the ingress controllers' counts as one.
	w.tenant.namespaces = map[string]map[string]string{edge: {corev1.LabelMetadataName: edge}}
	for _, name := range []string{"blue", "green", metav1.NamespaceSystem} {
		w.tenant.namespaces[name] = randomLabels(random)
		w.tenant.namespaces[name][corev1.LabelMetadataName] = name
		gathered.Virtual = append(gathered.Virtual, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: w.tenant.namespaces[name]}})
	}
	w.host.namespaces = map[string]map[string]string{}
	for _, name := range []string{config.HostNamespace, otherSpace, edge, api.SystemNamespace} {
		w.host.namespaces[name] = map[string]string{corev1.LabelMetadataName: name}
	}

	for range random.IntN(4) {
		policy := randomPolicy(random)
		policy.Name = fmt.Sprintf("p%d", len(w.tenant.policies))
		w.tenant.policies = append(w.tenant.policies, policy)
	}
	var pods []*corev1.Pod
	for _, namespace := range []string{"blue", "green"} {
		for i := range 3 {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Name: fmt.Sprintf("%s-%d", namespace, i), Namespace: namespace, UID: types.UID(fmt.Sprintf("uid-%s-%d", namespace, i)), Labels: randomLabels(random),
			}}
			address := fmt.Sprintf("10.244.%d.%d", len(pods)%2, len(pods)+1)
			pod.Status.PodIPs = []corev1.PodIP{{IP: address}}
			pods = append(pods, pod)
			gathered.Virtual = append(gathered.Virtual, pod)
			w.pods = append(w.pods, end{
				name: pod.Name, namespace: namespace, labels: pod.Labels, address: netip.MustParseAddr(address), protocol: corev1.ProtocolTCP,
			})
		}
	}
	var all []translate.Object
	for _, policy := range w.tenant.policies {
		all = append(all, policy)
		kind, in := kinds.NetworkPolicy(), translate.Input[*networkingv1.NetworkPolicy]{Tenant: tenant, Virtual: policy}
		in.Refs = only(gathered, kind.Refs(policy, nil))
		host, err := kind.ToHost(in)
		if err != nil {
			t.Fatal(err)
		}
		w.host.policies = append(w.host.policies, host)
	}
	gathered.Virtual = append(gathered.Virtual, all...)
	w.host.policies = append(w.host.policies, w.fence.policies...)
	for i, pod := range pods {
		kind, in := kinds.Pod(), translate.Input[*corev1.Pod]{Tenant: tenant, Virtual: pod}
		in.Refs = only(gathered, kind.Refs(pod, nil))
		host, err := kind.ToHost(in)
		if err != nil {
			t.Fatal(err)
		}
		same := w.pods[i]
		same.namespace, same.labels = host.Namespace, host.Labels
		w.hostPods = append(w.hostPods, same)
	}
	return w
}

// only are the objects that references with Read name, as the engine gathers
// them.
func only(all translate.Objects, refs []translate.Ref) translate.Objects {
	named := func(objects []translate.Object, side translate.Side) (out []translate.Object) {
		for _, object := range objects {
			kind := strings.TrimPrefix(fmt.Sprintf("%T", object), "*v1.")
			if slices.ContainsFunc(refs, func(ref translate.Ref) bool {
				return ref.Read && ref.Side == side && ref.Kind.Kind == kind && (ref.Name == "" || ref.Name == object.GetName()) &&
					(side == translate.Host || ref.Name == "" && ref.Namespace == "" || ref.Namespace == object.GetNamespace())
			}) {
				out = append(out, object)
			}
		}
		return out
	}
	return translate.Objects{Virtual: named(all.Virtual, translate.Virtual), Host: named(all.Host, translate.Host)}
}

func randomLabels(random *rand.Rand) map[string]string {
	out := map[string]string{}
	for _, key := range []string{"app", "tier"} {
		if value := random.IntN(3); value > 0 {
			out[key] = fmt.Sprint(value)
		}
	}
	return out
}

func randomSelector(random *rand.Rand) *metav1.LabelSelector {
	selector := &metav1.LabelSelector{}
	if random.IntN(2) == 0 {
		selector.MatchLabels = map[string]string{"app": fmt.Sprint(1 + random.IntN(2))}
	}
	if random.IntN(3) == 0 {
		operators := []metav1.LabelSelectorOperator{metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn}
		r := metav1.LabelSelectorRequirement{Key: "tier", Operator: operators[random.IntN(len(operators))]}
		if r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpNotIn {
			r.Values = []string{"1"}
		}
		selector.MatchExpressions = append(selector.MatchExpressions, r)
	}
	return selector
}

func randomPeer(random *rand.Rand) networkingv1.NetworkPolicyPeer {
	byName := func(name string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: name}}
	}
	switch random.IntN(8) {
	case 0:
		return networkingv1.NetworkPolicyPeer{PodSelector: randomSelector(random)}
	case 1:
		return networkingv1.NetworkPolicyPeer{NamespaceSelector: randomSelector(random)}
	case 2:
		return networkingv1.NetworkPolicyPeer{NamespaceSelector: randomSelector(random), PodSelector: randomSelector(random)}
	case 3:
		return networkingv1.NetworkPolicyPeer{NamespaceSelector: byName(metav1.NamespaceSystem), PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}}}
	case 4:
		return networkingv1.NetworkPolicyPeer{NamespaceSelector: byName([]string{"blue", edge}[random.IntN(2)])}
	default:
		blocks := []networkingv1.IPBlock{
			{CIDR: "0.0.0.0/0"}, {CIDR: "::/0"}, {CIDR: "10.0.0.0/8"}, {CIDR: "10.244.0.0/24"}, {CIDR: "10.244.1.2/32"}, {CIDR: "93.184.0.0/16"},
			{CIDR: "0.0.0.0/0", Except: []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}},
			{CIDR: "10.244.0.0/16", Except: []string{"10.244.0.1/32"}}, {CIDR: "169.254.169.254/32"}, {CIDR: "10.1.0.0/24"}, {CIDR: "10.96.0.0/16"},
		}
		return networkingv1.NetworkPolicyPeer{IPBlock: &blocks[random.IntN(len(blocks))]}
	}
}

func randomPorts(random *rand.Rand) []networkingv1.NetworkPolicyPort {
	udp, tcp, sctp := corev1.ProtocolUDP, corev1.ProtocolTCP, corev1.ProtocolSCTP
	number := func(n int32) *intstr.IntOrString { v := intstr.FromInt32(n); return &v }
	name := func(n string) *intstr.IntOrString { v := intstr.FromString(n); return &v }
	last := int32(500)
	all := []networkingv1.NetworkPolicyPort{
		{Protocol: &tcp, Port: number(80)}, {Protocol: &tcp, Port: number(81)}, {Protocol: &tcp, Port: name("web")}, {Protocol: &udp, Port: number(53)},
		{Protocol: &tcp, Port: number(53)}, {Protocol: &udp, Port: name("dns")}, {Protocol: &tcp, Port: number(443)}, {Protocol: &tcp, Port: number(50), EndPort: &last},
		{Protocol: &tcp}, {Protocol: &udp}, {Protocol: &sctp, Port: number(80)},
	}
	var ports []networkingv1.NetworkPolicyPort
	for range random.IntN(3) {
		ports = append(ports, all[random.IntN(len(all))])
	}
	return ports
}

func randomPolicy(random *rand.Rand) *networkingv1.NetworkPolicy {
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: []string{"blue", "green"}[random.IntN(2)]}}
	policy.Spec.PodSelector = *randomSelector(random)
	peers := func() (out []networkingv1.NetworkPolicyPeer) {
		for range random.IntN(3) {
			out = append(out, randomPeer(random))
		}
		return out
	}
	which := random.IntN(3)
	if which != 0 {
		policy.Spec.PolicyTypes = append(policy.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
		for range random.IntN(3) {
			policy.Spec.Ingress = append(policy.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers(), Ports: randomPorts(random)})
		}
	}
	if which != 1 {
		policy.Spec.PolicyTypes = append(policy.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		for range random.IntN(3) {
			policy.Spec.Egress = append(policy.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: peers(), Ports: randomPorts(random)})
		}
	}
	return policy
}

func (w *world) compare(t *testing.T) {
	t.Helper()
	config := testTenant()
	check := func(what string, want, got bool) {
		if want == got {
			return
		}
		for _, policy := range slices.Concat(w.tenant.policies, w.host.policies) {
			if policy.Labels[api.LabelComponent] != api.ComponentFence {
				text, _ := yaml.Marshal(policy.Spec)
				t.Logf("policy %s/%s:\n%s", policy.Namespace, policy.Name, text)
			}
		}
		t.Fatalf("%s: in the tenant %v, on the host %v", what, want, got)
	}
	ports := []struct {
		number int32
		name   string
	}{{80, "web"}, {81, ""}, {443, ""}}

	// Between the tenant's pods.
	for i := range w.pods {
		for j := range w.pods {
			for _, port := range ports {
				from, to, hostTo := w.pods[i], w.pods[j], w.hostPods[j]
				if i == j {
					continue
				}
				to.port, to.portName, hostTo.port, hostTo.portName = port.number, port.name, port.number, port.name
				check(fmt.Sprintf("%s to %s:%d", from.name, to.name, port.number),
					w.tenant.egress(t, from, to) && w.tenant.ingress(t, from, to),
					w.host.egress(t, w.hostPods[i], hostTo) && w.host.ingress(t, w.hostPods[i], hostTo))
			}
		}
	}
	// To and from outside. What the fence says of a pod without policies is the
	// bound.
	free := end{name: "free", namespace: config.HostNamespace, labels: map[string]string{api.LabelVirtualNamespace: "blue", api.LabelComponent: api.ComponentSynced}}
	outside := []end{
		{name: "the internet", address: netip.MustParseAddr("93.184.215.14")},
		{name: "an allowed range", address: netip.MustParseAddr("10.1.0.5")},
		{name: "the same, elsewhere", address: netip.MustParseAddr("10.1.7.5")},
		{name: "a private range", address: netip.MustParseAddr("192.168.77.7")},
		{name: "metadata", address: netip.MustParseAddr("169.254.169.254")},
		{name: "the host's API", address: netip.MustParseAddr("192.168.1.10")},
		{name: "IPv6", address: netip.MustParseAddr("2606:4700::1111")},
	}
	foreign := end{name: "another tenant's pod", namespace: otherSpace, labels: map[string]string{"app": "1", api.LabelVirtualNamespace: "blue", api.LabelComponent: api.ComponentSynced}, address: netip.MustParseAddr("10.244.1.99")}
	for i := range w.pods {
		for _, other := range append(outside, foreign) {
			for _, port := range ports {
				there, here, hostHere := other, w.pods[i], w.hostPods[i]
				there.port, there.portName, there.protocol = port.number, port.name, corev1.ProtocolTCP
				here.port, here.portName, hostHere.port, hostHere.portName = port.number, port.name, port.number, port.name
				// To the tenant it is an address and nothing else.
				seen := there
				seen.namespace, seen.labels = "", nil
				check(fmt.Sprintf("%s to %s:%d", here.name, other.name, port.number),
					w.tenant.egress(t, here, seen) && w.fence.egress(t, free, there),
					w.host.egress(t, hostHere, there))
				check(fmt.Sprintf("%s to %s:%d", other.name, here.name, port.number),
					w.tenant.ingress(t, seen, here) && w.fence.ingress(t, there, free),
					w.host.ingress(t, there, hostHere))
			}
		}
		// The host's ingress controllers, whose addresses nobody knows.
		controller := end{name: "an ingress controller", namespace: edge, labels: map[string]string{"app": "1"}, address: netip.MustParseAddr("10.244.1.77")}
		here, hostHere := w.pods[i], w.hostPods[i]
		here.port, here.portName, hostHere.port, hostHere.portName = 80, "web", 80, "web"
		w.fence.namespaces = w.host.namespaces
		known := controller
		known.address = netip.Addr{}
		check(fmt.Sprintf("an ingress controller to %s", here.name),
			w.tenant.ingress(t, known, here) && w.fence.ingress(t, controller, free),
			w.host.ingress(t, controller, hostHere))

		// The control plane: DNS is a pod of kube-system in the tenant.
		plane := end{name: "the control plane", namespace: config.HostNamespace, labels: map[string]string{api.LabelComponent: api.ComponentControlPlane}, address: netip.MustParseAddr("10.244.0.200")}
		check("the control plane to "+here.name, true, w.host.ingress(t, plane, hostHere))
		for _, service := range []struct {
			virtual, host end
		}{
			{
				end{namespace: metav1.NamespaceSystem, labels: map[string]string{"k8s-app": "kube-dns"}, address: netip.MustParseAddr(config.DNSServiceIP), port: 53, portName: "dns", protocol: corev1.ProtocolUDP},
				end{port: api.DNSPort, protocol: corev1.ProtocolUDP},
			},
			{
				end{namespace: metav1.NamespaceSystem, labels: map[string]string{"k8s-app": "kube-dns"}, address: netip.MustParseAddr(config.DNSServiceIP), port: 53, portName: "dns-tcp", protocol: corev1.ProtocolTCP},
				end{port: api.DNSPort, protocol: corev1.ProtocolTCP},
			},
			{
				end{address: netip.MustParseAddr(config.APIServiceIP), port: 443, portName: "https", protocol: corev1.ProtocolTCP},
				end{port: api.APIServerPort, protocol: corev1.ProtocolTCP},
			},
		} {
			to := plane
			to.port, to.protocol = service.host.port, service.host.protocol
			check(fmt.Sprintf("%s to the control plane, %s %d", here.name, to.protocol, to.port),
				w.tenant.egress(t, here, service.virtual), w.host.egress(t, hostHere, to) && w.host.ingress(t, hostHere, to))
		}
		metrics := plane
		metrics.port, metrics.protocol = api.HealthPort, corev1.ProtocolTCP
		check(here.name+" to another port of the control plane", false, w.host.egress(t, hostHere, metrics) && w.host.ingress(t, hostHere, metrics))
	}
}

// egress tells whether what isolates from lets it talk to the other end.
func (c cluster) egress(t *testing.T, from, to end) bool {
	t.Helper()
	isolated := false
	for _, policy := range c.policies {
		if !c.governs(t, policy, from, networkingv1.PolicyTypeEgress) {
			continue
		}
		isolated = true
		for _, rule := range policy.Spec.Egress {
			if c.peers(t, policy.Namespace, rule.To, to) && portFits(rule.Ports, to) {
				return true
			}
		}
	}
	return !isolated
}

func (c cluster) ingress(t *testing.T, from, to end) bool {
	t.Helper()
	isolated := false
	for _, policy := range c.policies {
		if !c.governs(t, policy, to, networkingv1.PolicyTypeIngress) {
			continue
		}
		isolated = true
		for _, rule := range policy.Spec.Ingress {
			if c.peers(t, policy.Namespace, rule.From, from) && portFits(rule.Ports, to) {
				return true
			}
		}
	}
	return !isolated
}

func (c cluster) governs(t *testing.T, policy *networkingv1.NetworkPolicy, pod end, direction networkingv1.PolicyType) bool {
	t.Helper()
	return policy.Namespace == pod.namespace && slices.Contains(policy.Spec.PolicyTypes, direction) && c.fits(t, &policy.Spec.PodSelector, pod.labels)
}

func (c cluster) peers(t *testing.T, namespace string, peers []networkingv1.NetworkPolicyPeer, other end) bool {
	t.Helper()
	return len(peers) == 0 || slices.ContainsFunc(peers, func(peer networkingv1.NetworkPolicyPeer) bool {
		if peer.IPBlock != nil {
			if !other.address.IsValid() {
				// One that nobody knows, in all addresses.
				return (peer.IPBlock.CIDR == "0.0.0.0/0" || peer.IPBlock.CIDR == "::/0") && len(peer.IPBlock.Except) == 0
			}
			return blockHas(t, peer.IPBlock, other.address)
		}
		if other.namespace == "" {
			return false
		}
		if peer.NamespaceSelector == nil && other.namespace != namespace {
			return false
		}
		if peer.NamespaceSelector != nil && !c.fits(t, peer.NamespaceSelector, c.namespaces[other.namespace]) {
			return false
		}
		return peer.PodSelector == nil || c.fits(t, peer.PodSelector, other.labels)
	})
}

func portFits(ports []networkingv1.NetworkPolicyPort, to end) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(port networkingv1.NetworkPolicyPort) bool {
		switch {
		case *port.Protocol != to.protocol:
			return false
		case port.Port == nil:
			return true
		case port.Port.Type == intstr.String:
			// Addresses outside have no names for ports.
			return to.namespace != "" && port.Port.StrVal == to.portName
		case port.EndPort != nil:
			return port.Port.IntVal <= to.port && to.port <= *port.EndPort
		}
		return port.Port.IntVal == to.port
	})
}

func blockHas(t *testing.T, block *networkingv1.IPBlock, address netip.Addr) bool {
	t.Helper()
	for _, except := range block.Except {
		if netip.MustParsePrefix(except).Contains(address) {
			return false
		}
	}
	return netip.MustParsePrefix(block.CIDR).Contains(address)
}

func (c cluster) fits(t *testing.T, selector *metav1.LabelSelector, of map[string]string) bool {
	t.Helper()
	if c.selectors[selector] == nil {
		parsed, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil {
			t.Fatal(err)
		}
		c.selectors[selector] = parsed
	}
	return c.selectors[selector].Matches(labels.Set(of))
}
