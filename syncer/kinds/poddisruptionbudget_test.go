package kinds_test

import (
	"slices"
	"testing"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func TestPodDisruptionBudgetFields(t *testing.T) {
	checkFields(t, []fieldList{
		// The status of the virtual one says how many pods are needed.
		{of: policyv1.PodDisruptionBudget{}, translated: []string{"ObjectMeta", "Spec", "Status"}, dropped: []string{"TypeMeta"}},
		{of: policyv1.PodDisruptionBudgetSpec{}, copied: []string{"UnhealthyPodEvictionPolicy"}, translated: []string{"MinAvailable", "MaxUnavailable", "Selector"}},
		{
			of: policyv1.PodDisruptionBudgetStatus{}, translated: []string{"DesiredHealthy", "ObservedGeneration"},
			dropped: []string{"DisruptedPods", "DisruptionsAllowed", "CurrentHealthy", "ExpectedPods", "Conditions"},
		},
	})
}

// FuzzPodDisruptionBudget: a host's budget is for the tenant's pods of one
// virtual namespace, and names a number of pods.
func FuzzPodDisruptionBudget(f *testing.F) {
	fuzzToHost(f, kinds.PodDisruptionBudget(), func(t *testing.T, in translate.Input[translate.Object]) {
		virtual := in.Virtual.DeepCopyObject().(*policyv1.PodDisruptionBudget)
		virtual.Generation, virtual.Status.ObservedGeneration = 1, 1
		host, err := kinds.PodDisruptionBudget().ToHost(translate.Input[*policyv1.PodDisruptionBudget]{Tenant: in.Tenant, Virtual: virtual})
		if err != nil || host == nil {
			t.Fatalf("%v, %v", host, err)
		}
		checkHostObject(t, translate.Input[translate.Object]{Tenant: in.Tenant, Virtual: virtual}, host)
		if host.Spec.MaxUnavailable != nil || host.Spec.MinAvailable == nil || host.Spec.MinAvailable.Type != intstr.Int {
			t.Fatalf("the host's budget is %v, %v", host.Spec.MinAvailable, host.Spec.MaxUnavailable)
		}
		if virtual.Spec.Selector == nil {
			if host.Spec.Selector != nil {
				t.Fatalf("a budget for no pod is for %v", host.Spec.Selector)
			}
			return
		}
		if !slices.ContainsFunc(host.Spec.Selector.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
			return r.Key == api.LabelVirtualNamespace && r.Operator == metav1.LabelSelectorOpIn && slices.Equal(r.Values, []string{virtual.Namespace})
		}) {
			t.Fatalf("selector %v leaves the tenant's virtual namespace", host.Spec.Selector)
		}
	})
}
