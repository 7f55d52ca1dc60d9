package syncer_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/isolation"
	"github.com/sublet-dev/sublet/pkg/tenancy"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// fence puts the network policies around the tenant as the manager does.
func (p *planes) fence(t *testing.T, limits *api.Limits) {
	t.Helper()
	policies := p.host.NetworkingV1().NetworkPolicies(hostNamespace)
	for _, object := range isolation.Objects(isolation.Input{Tenant: tenancy.Of(&api.Tenant{
		ObjectMeta: metav1.ObjectMeta{Name: "acme"},
		Spec:       api.TenantSpec{Type: api.VirtualCluster, Namespace: hostNamespace, Limits: limits},
	})}) {
		policy, ok := object.(*networkingv1.NetworkPolicy)
		if !ok {
			continue
		}
		data, err := jsonOf(policy)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := policies.Patch(t.Context(), policy.Name, types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: "test"}); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *planes) hostPolicy(name string) func(context.Context) (*networkingv1.NetworkPolicy, error) {
	return func(ctx context.Context) (*networkingv1.NetworkPolicy, error) {
		return p.host.NetworkingV1().NetworkPolicies(hostNamespace).Get(ctx, translate.HostName(space, name), metav1.GetOptions{})
	}
}

// testNetworkPolicies: policies reach the host, follow the fence, the pods and
// the tenant, and give way on the pods that they isolate.
func (p *planes) testNetworkPolicies(t *testing.T) {
	ctx := t.Context()
	p.fence(t, nil)
	virtual := p.virtual.NetworkingV1().NetworkPolicies(space)
	p.createPod(t, pod("governed"))
	p.createPod(t, pod("free"))
	isolated := func(pod *corev1.Pod) [2]bool {
		return [2]bool{pod.Labels[api.LabelIngressIsolated] != "", pod.Labels[api.LabelEgressIsolated] != ""}
	}
	waitFor(t, "host pod", p.hostPod("governed"), func(pod *corev1.Pod) bool { return isolated(pod) == [2]bool{} })

	policy := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "rules"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "governed"}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
			Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{
				{IPBlock: &networkingv1.IPBlock{CIDR: "8.0.0.0/5"}},
				{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "blue"}}},
			}}},
		},
	}
	if _, err := virtual.Create(ctx, policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	blocks := func(policy *networkingv1.NetworkPolicy) []string {
		var out []string
		for _, rule := range policy.Spec.Egress {
			for _, to := range rule.To {
				if to.IPBlock != nil {
					out = append(out, fmt.Sprint(to.IPBlock.CIDR, to.IPBlock.Except))
				}
			}
		}
		return out
	}
	byAddress := func(policy *networkingv1.NetworkPolicy) []string {
		for _, rule := range policy.Spec.Egress {
			for _, to := range rule.To {
				if to.PodSelector == nil {
					continue
				}
				for _, r := range to.PodSelector.MatchExpressions {
					if r.Key == api.LabelVirtualUID {
						return r.Values
					}
				}
			}
		}
		return nil
	}
	// The node gives every pod the address 10.0.0.7.
	waitFor(t, "host policy opens no more than the fence", p.hostPolicy("rules"), func(policy *networkingv1.NetworkPolicy) bool {
		return cmp.Equal(blocks(policy), []string{"8.0.0.0/5[10.0.0.0/8]"}) && len(byAddress(policy)) >= 2
	})
	waitFor(t, "the fence gives way", p.hostPod("governed"), func(pod *corev1.Pod) bool { return isolated(pod) == [2]bool{false, true} })
	waitFor(t, "and only for the pod that is selected", p.hostPod("free"), func(pod *corev1.Pod) bool { return isolated(pod) == [2]bool{} })

	// A new pod is isolated from the beginning, and its address counts.
	late := pod("late")
	late.Labels["app"] = "governed"
	p.createPod(t, late)
	host := waitFor(t, "host pod", p.hostPod("late"), nil)
	if isolated(host) != [2]bool{false, true} {
		t.Errorf("a pod that comes after the policy has labels %v", host.Labels)
	}
	waitFor(t, "host policy knows the new pod's address", p.hostPolicy("rules"), func(policy *networkingv1.NetworkPolicy) bool {
		for _, uid := range byAddress(policy) {
			if uid == host.Labels[api.LabelVirtualUID] {
				return true
			}
		}
		return false
	})

	// The fence changes.
	p.fence(t, &api.Limits{Network: &api.NetworkLimits{Internet: "Deny", AllowedCIDRs: []string{"9.1.0.0/16"}}})
	waitFor(t, "host policy follows the fence", p.hostPolicy("rules"), func(policy *networkingv1.NetworkPolicy) bool {
		return cmp.Equal(blocks(policy), []string{"9.1.0.0/16[]"})
	})

	// Behind our back: changed, then deleted.
	opened := p.mustGetPolicy(t, "rules")
	opened.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}}
	if _, err := p.host.NetworkingV1().NetworkPolicies(hostNamespace).Update(ctx, opened, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "host policy is as it was", p.hostPolicy("rules"), func(policy *networkingv1.NetworkPolicy) bool {
		return !slices.ContainsFunc(policy.Spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool { return len(rule.To) == 0 })
	})
	if err := p.host.NetworkingV1().NetworkPolicies(hostNamespace).Delete(ctx, opened.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "host policy is made again", p.hostPolicy("rules"), func(policy *networkingv1.NetworkPolicy) bool { return policy.UID != opened.UID })

	// It turns to another direction and other pods.
	data := []byte(`{"spec":{"podSelector":{"matchLabels":{"app":"free"}},"policyTypes":["Ingress"],"egress":null}}`)
	if _, err := virtual.Patch(ctx, "rules", types.MergePatchType, data, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the pod is free again", p.hostPod("governed"), func(pod *corev1.Pod) bool { return isolated(pod) == [2]bool{} })
	waitFor(t, "the other is not", p.hostPod("free"), func(pod *corev1.Pod) bool { return isolated(pod) == [2]bool{true, false} })

	// Nothing is written when nothing changes.
	p.quiet(t)

	if err := virtual.Delete(ctx, "rules", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "host policy", p.hostPolicy("rules"))
	waitFor(t, "the other is free again", p.hostPod("free"), func(pod *corev1.Pod) bool { return isolated(pod) == [2]bool{} })

	// What the host refuses is told.
	quotas := p.host.CoreV1().ResourceQuotas(hostNamespace)
	if _, err := quotas.Create(ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "no-policies"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/networkpolicies.networking.k8s.io": resource.MustParse("0")}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "quota counts", func(ctx context.Context) (*corev1.ResourceQuota, error) {
		return quotas.Get(ctx, "no-policies", metav1.GetOptions{})
	}, func(q *corev1.ResourceQuota) bool { return len(q.Status.Hard) > 0 })
	refused := policy.DeepCopy()
	refused.Name = "refused"
	if _, err := virtual.Create(ctx, refused, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p.hears(t, "NetworkPolicy", "refused", "exceeded quota")
	waitFor(t, "a policy that is refused closes all the same", p.hostPod("governed"), func(pod *corev1.Pod) bool { return isolated(pod) == [2]bool{false, true} })
	if err := quotas.Delete(ctx, "no-policies", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "what was refused is there", p.hostPolicy("refused"), nil)
	if err := virtual.Delete(ctx, "refused", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

func (p *planes) mustGetPolicy(t *testing.T, name string) *networkingv1.NetworkPolicy {
	t.Helper()
	policy, err := p.hostPolicy(name)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return policy
}
