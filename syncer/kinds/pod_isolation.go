package kinds

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// isolationRef: the NetworkPolicies of a pod's namespace decide about its labels.
func isolationRef(namespace string) translate.Ref {
	return translate.Ref{Kind: networkPolicyKind(), Namespace: namespace, Read: true, Watch: true}
}

// isolation are the labels that a host pod has for the network's sake. In
// Kubernetes a pod that no NetworkPolicy selects is open, and one that some
// select does what these allow and nothing else. The fence keeps every pod
// closed and opens pods that are without a label; so what isolates a pod in the
// tenant puts the label on its host pod:
//
//	policy selects pod      policy on the host      label      what is open
//	no                      –                       –          what the fence opens
//	yes                     translated              yes        what the policies and the fence open
//
// A new pod has its labels from the beginning. When a policy comes, it takes
// effect pod by pod, as the labels follow; in between a pod may have less than
// it should, or what the fence gives it, never more.
func (t *podTranslation) isolation() map[string]string {
	out := map[string]string{}
	if uid := t.pod.UID; uid != "" {
		out[api.LabelVirtualUID] = string(uid)
	}
	crossing := map[string]string{}
	for key, value := range t.pod.Labels {
		if !strings.HasPrefix(key, api.Prefix) {
			crossing[key] = value
		}
	}
	for _, policy := range translate.FindAll[*networkingv1.NetworkPolicy](t.in.Refs, translate.Virtual, t.pod.Namespace) {
		if !selects(&policy.Spec.PodSelector, crossing) {
			continue
		}
		for _, direction := range policyTypes(policy) {
			switch direction {
			case networkingv1.PolicyTypeIngress:
				out[api.LabelIngressIsolated] = "true"
			case networkingv1.PolicyTypeEgress:
				out[api.LabelEgressIsolated] = "true"
			}
		}
	}
	return out
}
