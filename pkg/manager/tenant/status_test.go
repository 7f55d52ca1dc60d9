package tenant

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

func TestSummarize(t *testing.T) {
	yes := func(s *state, kinds ...string) {
		for _, kind := range kinds {
			s.condition(kind, metav1.ConditionTrue, reasonApplied, "fine")
		}
	}
	cases := map[string]struct {
		was    api.Phase
		make   func(*state)
		err    error
		phase  api.Phase
		ready  metav1.ConditionStatus
		reason string
	}{
		"new": {
			make: func(s *state) { s.status.Conditions = nil }, phase: api.PhaseProvisioning, ready: metav1.ConditionFalse, reason: reasonWaiting,
		},
		"starting": {
			make: func(s *state) {
				yes(s, api.ConditionNamespaceReady, api.ConditionFenceReady)
				s.condition(api.ConditionControlPlaneReady, metav1.ConditionFalse, reasonStarting, "wait")
			},
			phase: api.PhaseProvisioning, ready: metav1.ConditionFalse, reason: reasonStarting,
		},
		"somebody must act": {
			make: func(s *state) {
				yes(s, api.ConditionNamespaceReady, api.ConditionFenceReady)
				s.condition(api.ConditionControlPlaneReady, metav1.ConditionFalse, reasonImagePullFailed, "import it")
			},
			phase: api.PhasePending, ready: metav1.ConditionFalse, reason: reasonImagePullFailed,
		},
		"was ready": {
			was: api.PhaseReady,
			make: func(s *state) {
				yes(s, api.ConditionNamespaceReady, api.ConditionFenceReady)
				s.condition(api.ConditionControlPlaneReady, metav1.ConditionFalse, reasonStarting, "wait")
			},
			phase: api.PhaseDegraded, ready: metav1.ConditionFalse, reason: reasonStarting,
		},
		"the first trouble counts": {
			make: func(s *state) {
				s.block(api.ConditionNamespaceReady, &blocked{reasonNamespaceTaken, "taken"})
				yes(s, api.ConditionFenceReady)
			},
			phase: api.PhasePending, ready: metav1.ConditionFalse, reason: reasonNamespaceTaken,
		},
		"all is well": {
			make: func(s *state) {
				yes(s, api.ConditionNamespaceReady, api.ConditionFenceReady, api.ConditionControlPlaneReady)
				s.completed = true
			},
			phase: api.PhaseReady, ready: metav1.ConditionTrue, reason: reasonReady,
		},
		"an error that passes does not make it unready": {
			was: api.PhaseReady,
			make: func(s *state) {
				yes(s, api.ConditionNamespaceReady, api.ConditionFenceReady, api.ConditionControlPlaneReady)
				s.condition(api.ConditionReady, metav1.ConditionTrue, reasonReady, "as before")
				meta.FindStatusCondition(s.status.Conditions, api.ConditionReady).ObservedGeneration = 6
			},
			err: errors.New("timeout"), phase: api.PhaseReady, ready: metav1.ConditionTrue, reason: reasonReady,
		},
		"an error before it was ever ready": {
			make: func(s *state) {
				yes(s, api.ConditionNamespaceReady, api.ConditionFenceReady, api.ConditionControlPlaneReady)
			},
			err: errors.New("timeout"), phase: api.PhaseProvisioning, ready: metav1.ConditionFalse, reason: reasonError,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tenant := acme()
			tenant.Generation = 7
			tenant.Status.Phase = c.was
			s := newState(tenant, time.Now())
			yes(s, api.ConditionPlaced)
			c.make(s)
			s.summarize(c.err)
			ready := meta.FindStatusCondition(s.status.Conditions, api.ConditionReady)
			if s.status.Phase != c.phase || ready == nil || ready.Status != c.ready || ready.Reason != c.reason {
				t.Errorf("phase is %s, Ready is %+v", s.status.Phase, ready)
			}
			// What waits for a change must not take what was before for it.
			if ready != nil && ready.Status == metav1.ConditionTrue && (ready.ObservedGeneration == 7) != (c.err == nil) {
				t.Errorf("Ready is about generation %d", ready.ObservedGeneration)
			}
			if observed := s.status.ObservedGeneration == 7; observed != s.completed {
				t.Errorf("observed generation is %d", s.status.ObservedGeneration)
			}
		})
	}
}

func TestOwnership(t *testing.T) {
	tenant := acme()
	namespace := func(name, uid string) *metav1.ObjectMeta {
		return &metav1.ObjectMeta{Labels: map[string]string{api.LabelTenant: name}, Annotations: map[string]string{api.AnnotationTenantUID: uid}}
	}
	cases := map[string]struct {
		meta *metav1.ObjectMeta
		want bool
	}{
		"its own":                      {namespace("acme", "1234"), true},
		"an earlier one's of its name": {namespace("acme", "0"), false},
		"another's":                    {namespace("other", "1234"), false},
		"nobody's":                     {&metav1.ObjectMeta{}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := owns(tenant, namespaceWith(*c.meta)); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func namespaceWith(m metav1.ObjectMeta) *corev1.Namespace { return &corev1.Namespace{ObjectMeta: m} }
