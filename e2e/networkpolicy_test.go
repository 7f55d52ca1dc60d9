//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// TestNetworkPolicies sends packets: a tenant's policies close and open what they
// say, for the pods that they select and no others, and open nothing that the
// fence closes. Whatever is expected to be closed was, or is for somebody else,
// open at the same time.
func TestNetworkPolicies(t *testing.T) {
	s := shared(t)
	s.onLocalHost(t)
	ctx := t.Context()
	tn := s.sharedTenant(t, "e2e-blue")
	const internet, neighbour, metadata = "93.184.216.34", "192.168.78.7", "169.254.169.253"
	s.outside(t, internet, neighbour, metadata)

	here, there := tn.newNamespace(t, "here"), tn.newNamespace(t, "there")
	for _, ns := range []string{here, there} {
		for _, pod := range []*corev1.Pod{newServer("web"), newPod("client")} {
			if _, err := tn.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := tn.CoreV1().Services(ns).Create(ctx, newService("web"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	address := map[string]string{
		"the internet": internet + ":80", "a private network": neighbour + ":80", "metadata": metadata + ":80", "the API": "",
	}
	for _, ns := range []string{here, there} {
		tn.ready(t, ns, "client")
		web := tn.ready(t, ns, "web")
		service, err := tn.CoreV1().Services(ns).Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		name := map[string]string{here: "here", there: "there"}[ns]
		address["web "+name] = web.Status.PodIP + ":8080"
		address["Service web "+name] = service.Spec.ClusterIP + ":80"
	}
	api, err := tn.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	address["the API"] = net.JoinHostPort(api.Spec.ClusterIP, "443")
	hostAPI, err := s.host.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	address["the host's API"] = net.JoinHostPort(hostAPI.Spec.ClusterIP, "443")

	// reaches tells whether a client gets there; "DNS" is a name to be looked up.
	reaches := func(ns, what string) bool {
		if what == "DNS" {
			_, err := tn.exec(ctx, ns, "client", "timeout", "4", "getent", "hosts", "kubernetes.default.svc.cluster.local")
			return err == nil
		}
		host, port, err := net.SplitHostPort(address[what])
		if err != nil {
			t.Fatalf("%s has no address: %v", what, err)
		}
		_, err = tn.exec(ctx, ns, "client", "nc", "-z", "-w", "2", host, port)
		return err == nil
	}
	type table map[string]bool
	expect := func(step string, fromHere, fromThere table) {
		t.Helper()
		eventually(t, time.Minute, step, func() error {
			var mu sync.Mutex
			var errs []error
			var wg sync.WaitGroup
			for _, side := range []struct {
				name, ns string
				want     table
			}{{"here", here, fromHere}, {"there", there, fromThere}} {
				for what, want := range side.want {
					wg.Go(func() {
						if got := reaches(side.ns, what); got != want {
							mu.Lock()
							errs = append(errs, fmt.Errorf("from %s to %s: reached is %v", side.name, what, got))
							mu.Unlock()
						}
					})
				}
			}
			wg.Wait()
			return errors.Join(errs...)
		})
	}
	policies := tn.NetworkingV1().NetworkPolicies(here)
	apply := func(name string, spec networkingv1.NetworkPolicySpec) {
		t.Helper()
		_ = policies.Delete(ctx, name, metav1.DeleteOptions{})
		if _, err := policies.Create(ctx, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	selected := func(app string) metav1.LabelSelector {
		return metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	}
	ingress := func(rules ...networkingv1.NetworkPolicyIngressRule) networkingv1.NetworkPolicySpec {
		return networkingv1.NetworkPolicySpec{PodSelector: selected("web"), PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, Ingress: rules}
	}
	egress := func(rules ...networkingv1.NetworkPolicyEgressRule) networkingv1.NetworkPolicySpec {
		return networkingv1.NetworkPolicySpec{PodSelector: selected("client"), PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, Egress: rules}
	}
	toBlock := func(cidr string) networkingv1.NetworkPolicyEgressRule {
		return networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: cidr}}}}
	}
	byName := func(name string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: name}}
	}

	open := table{
		"web here": true, "web there": true, "Service web here": true, "Service web there": true, "the internet": true, "the API": true, "DNS": true,
		"a private network": false, "metadata": false, "the host's API": false,
	}
	expect("without policies all is as the fence has it", open, open)

	// What the fence closes answers those who may reach it.
	free := newPod("e2e-free-policies")
	free.Namespace = metav1.NamespaceDefault
	host, err := newCluster(s.config)
	if err != nil {
		t.Fatal(err)
	}
	remove := func() {
		_ = s.host.CoreV1().Pods(free.Namespace).Delete(context.Background(), free.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	}
	remove()
	t.Cleanup(remove)
	eventually(t, 20*time.Second, "a pod outside of all fences can be made", func() error {
		_, err := s.host.CoreV1().Pods(free.Namespace).Create(ctx, free.DeepCopy(), metav1.CreateOptions{})
		return err
	})
	host.ready(t, free.Namespace, free.Name)
	for _, what := range []string{"a private network", "metadata", "the host's API"} {
		name, port, _ := net.SplitHostPort(address[what])
		if err := retry(3, func() error {
			_, err := host.exec(ctx, free.Namespace, free.Name, "nc", "-z", "-w", "2", name, port)
			return err
		}); err != nil {
			t.Fatalf("%s does not answer those who may reach it, so that nothing is shown: %v", what, err)
		}
	}

	apply("in", ingress())
	expect("a policy closes the way in",
		table{"web here": false, "Service web here": false, "web there": true, "the internet": true, "DNS": true},
		table{"web here": false, "Service web here": false, "web there": true})
	// The API server reaches the pod, as a node does.
	if out, err := tn.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces/" + here + "/services/http:web:http/proxy/hostname").DoRaw(ctx); err != nil || string(out) != "web" {
		t.Errorf("through the API server: %q, %v", out, err)
	}

	apply("in", ingress(networkingv1.NetworkPolicyIngressRule{
		From:  []networkingv1.NetworkPolicyPeer{{NamespaceSelector: byName(there), PodSelector: ptr.To(selected("client"))}},
		Ports: []networkingv1.NetworkPolicyPort{{Port: ptr.To(intstr.FromString("http"))}},
	}))
	expect("a rule opens it for pods of another namespace",
		table{"web here": false, "Service web here": false, "web there": true},
		table{"web here": true, "Service web here": true, "web there": true})
	if err := policies.Delete(ctx, "in", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}

	apply("out", egress())
	expect("a policy closes the way out, DNS and the API included",
		table{"web here": false, "web there": false, "the internet": false, "the API": false, "DNS": false},
		open)

	// In a tenant as in any cluster: kube-dns in kube-system.
	apply("out", egress(networkingv1.NetworkPolicyEgressRule{
		To: []networkingv1.NetworkPolicyPeer{{
			NamespaceSelector: byName(metav1.NamespaceSystem), PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}},
		}},
		Ports: []networkingv1.NetworkPolicyPort{
			{Protocol: ptr.To(corev1.ProtocolUDP), Port: ptr.To(intstr.FromInt32(53))}, {Protocol: ptr.To(corev1.ProtocolTCP), Port: ptr.To(intstr.FromInt32(53))},
		},
	}))
	expect("a rule opens DNS and nothing else",
		table{"DNS": true, "web here": false, "web there": false, "the internet": false, "the API": false},
		open)

	apply("out", egress(networkingv1.NetworkPolicyEgressRule{}))
	expect("a rule for everything opens what the fence does", open, open)
	apply("out", egress(toBlock("0.0.0.0/0")))
	expect("all addresses are what the fence opens", open, open)

	host32, _, _ := net.SplitHostPort(address["web there"])
	apply("out", egress(toBlock(host32+"/32"), toBlock(neighbour+"/32"), toBlock(metadata+"/32"), toBlock(hostAPI.Spec.ClusterIP+"/32")))
	expect("single addresses are open if they are the tenant's pods, closed if the fence closes them",
		table{"web there": true, "web here": false, "the internet": false, "DNS": false, "a private network": false, "metadata": false, "the host's API": false},
		open)

	if err := policies.Delete(ctx, "out", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("without policies all is as before", open, open)
}
