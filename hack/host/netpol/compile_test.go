package netpol

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/knftables"
)

var update = flag.Bool("update", false, "write the golden files")

// TestCompile compares what each testdata/*.yaml compiles to with the golden
// file next to it, which is the transaction as nft reads it.
func TestCompile(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			ruleset, err := Compile(readInput(t, file))
			if err != nil {
				t.Fatal(err)
			}
			tx := knftables.NewFake(knftables.InetFamily, TableName).NewTransaction()
			ruleset.addTo(tx)
			got := tx.String()
			golden := strings.TrimSuffix(file, ".yaml") + ".nft"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got; write anew with -update:\n%s", diff)
			}
		})
	}
}

func TestCompileIgnoresOrder(t *testing.T) {
	in := readInput(t, "testdata/peers.yaml")
	forwards, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(in.Pods)
	slices.Reverse(in.Namespaces)
	slices.Reverse(in.Policies)
	backwards, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	fake := knftables.NewFake(knftables.InetFamily, TableName)
	a, b := fake.NewTransaction(), fake.NewTransaction()
	forwards.addTo(a)
	backwards.addTo(b)
	if diff := cmp.Diff(a.String(), b.String()); diff != "" {
		t.Errorf("the order of the input changed the rules:\n%s", diff)
	}
}

func TestCompileRefuses(t *testing.T) {
	policy := func(change func(*networkingv1.NetworkPolicySpec)) *networkingv1.NetworkPolicy {
		p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "bad"}}
		change(&p.Spec)
		return p
	}
	badSelector := metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "x", Operator: "Near"}}}
	from := func(peer networkingv1.NetworkPolicyPeer) []networkingv1.NetworkPolicyIngressRule {
		return []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{peer}}}
	}
	cases := map[string]*networkingv1.NetworkPolicy{
		"pod selector of the policy": policy(func(s *networkingv1.NetworkPolicySpec) { s.PodSelector = badSelector }),
		"pod selector of a peer": policy(func(s *networkingv1.NetworkPolicySpec) {
			s.Ingress = from(networkingv1.NetworkPolicyPeer{PodSelector: &badSelector})
		}),
		"namespace selector": policy(func(s *networkingv1.NetworkPolicySpec) {
			s.Ingress = from(networkingv1.NetworkPolicyPeer{NamespaceSelector: &badSelector})
		}),
		"block": policy(func(s *networkingv1.NetworkPolicySpec) {
			s.Ingress = from(networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/33"}})
		}),
		"exception": policy(func(s *networkingv1.NetworkPolicySpec) {
			s.Ingress = from(networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1"}}})
		}),
		"port range": policy(func(s *networkingv1.NetworkPolicySpec) {
			s.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{
				{Port: ptr.To(intstr.FromInt32(90)), EndPort: ptr.To[int32](80)}}}}
		}),
	}
	for name, p := range cases {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"}, Status: corev1.PodStatus{PodIP: "10.0.0.1"}}
			_, err := Compile(Input{Pods: []*corev1.Pod{pod}, Policies: []*networkingv1.NetworkPolicy{p}})
			if err == nil || !strings.Contains(err.Error(), "a/bad") {
				t.Errorf("got %v, want an error that names the policy", err)
			}
		})
	}
}

func readInput(t *testing.T, file string) Input {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	in := Input{NodeName: "node-1"}
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return in
		}
		if err != nil {
			t.Fatal(err)
		}
		var kind metav1.TypeMeta
		decode(t, doc, &kind, false)
		switch kind.Kind {
		case "Pod":
			obj := &corev1.Pod{}
			decode(t, doc, obj, true)
			in.Pods = append(in.Pods, obj)
		case "Namespace":
			obj := &corev1.Namespace{}
			decode(t, doc, obj, true)
			in.Namespaces = append(in.Namespaces, obj)
		case "NetworkPolicy":
			obj := &networkingv1.NetworkPolicy{}
			decode(t, doc, obj, true)
			in.Policies = append(in.Policies, obj)
		default:
			t.Fatalf("%s: unexpected kind %q", file, kind.Kind)
		}
	}
}

func decode(t *testing.T, doc []byte, into any, strict bool) {
	t.Helper()
	unmarshal := func(data []byte, into any) error { return yaml.Unmarshal(data, into) }
	if strict {
		unmarshal = yaml.UnmarshalStrict
	}
	if err := unmarshal(bytes.TrimSpace(doc), into); err != nil {
		t.Fatalf("%v in:\n%s", err, doc)
	}
}
