package tenant

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

func controlPlanePod(status corev1.PodStatus) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: api.ControlPlanePod},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "control-plane", Image: "example.com/subletd:1"}}},
		Status:     status,
	}
}

func containerIs(state, last corev1.ContainerState, restarts int32) corev1.PodStatus {
	return corev1.PodStatus{
		Phase: corev1.PodRunning,
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "control-plane", State: state, LastTerminationState: last, RestartCount: restarts,
		}},
	}
}

func waitingFor(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "the node says more"}}
}

func endedWith(code int32, words string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Message: words}}
}

func TestLook(t *testing.T) {
	now := metav1.Now()
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	leaving := controlPlanePod(corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}})
	leaving.DeletionTimestamp = &now
	noRoom := corev1.PodStatus{Conditions: []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/3 nodes are available",
	}}}
	cases := map[string]struct {
		seen   seen
		ready  bool
		reason string
		// says is what the message must hold.
		says []string
	}{
		"nothing yet": {reason: reasonStarting},
		"ready": {
			seen:  seen{pod: controlPlanePod(corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}})},
			ready: true, reason: reasonReady, says: []string{"sublet.acme.svc:443"},
		},
		"leaving, though still ready": {seen: seen{pod: leaving}, reason: reasonStarting},
		"running, not ready":          {seen: seen{pod: controlPlanePod(containerIs(runs, corev1.ContainerState{}, 0))}, reason: reasonStarting},
		"restarted in good order":     {seen: seen{pod: controlPlanePod(containerIs(runs, endedWith(0, ""), 1))}, reason: reasonStarting},
		"no image": {
			seen: seen{pod: controlPlanePod(containerIs(waitingFor("ErrImagePull"), corev1.ContainerState{}, 0))}, reason: reasonImagePullFailed,
			says: []string{"example.com/subletd:1", "describe pod sublet-0", "spec.virtualCluster.image"},
		},
		"still no image": {
			seen: seen{pod: controlPlanePod(containerIs(waitingFor("ImagePullBackOff"), corev1.ContainerState{}, 0))}, reason: reasonImagePullFailed,
		},
		"a command that is not there": {
			seen: seen{pod: controlPlanePod(containerIs(waitingFor("RunContainerError"), corev1.ContainerState{}, 0))}, reason: reasonContainerFailed,
			says: []string{"the node says more"},
		},
		"crashing": {
			seen: seen{pod: controlPlanePod(containerIs(waitingFor("CrashLoopBackOff"), endedWith(1, "etcd: disk is full"), 4))}, reason: reasonCrashing,
			says: []string{"exit code 1", "disk is full", "--previous"},
		},
		"between two crashes": {
			seen: seen{pod: controlPlanePod(containerIs(runs, endedWith(1, "etcd: disk is full"), 4))}, reason: reasonCrashing,
			says: []string{"disk is full"},
		},
		"just crashed": {
			seen: seen{pod: controlPlanePod(containerIs(endedWith(2, "panic"), corev1.ContainerState{}, 0))}, reason: reasonCrashing,
		},
		"evicted": {
			seen: seen{pod: controlPlanePod(corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "out of disk"})}, reason: reasonCrashing,
			says: []string{"Evicted", "out of disk"},
		},
		"a conflict that the scheduler tries again": {
			seen: seen{pod: controlPlanePod(corev1.PodStatus{Conditions: []corev1.PodCondition{{
				Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulerError, Message: "the object has been modified",
			}}})},
			reason: reasonStarting,
		},
		"no node": {seen: seen{pod: controlPlanePod(noRoom)}, reason: reasonUnschedulable, says: []string{"0/3 nodes"}},
		"no volume": {
			seen: seen{pod: controlPlanePod(noRoom), claim: &corev1.PersistentVolumeClaim{
				ObjectMeta: metav1.ObjectMeta{Name: "data-sublet-0"}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending},
			}},
			reason: reasonVolumePending, says: []string{"describe pvc data-sublet-0"},
		},
		"a quota": {
			seen:   seen{refusal: &corev1.Event{Message: `pods "sublet-0" is forbidden: exceeded quota: ours, requested: pods=1`}},
			reason: reasonQuotaExceeded, says: []string{"exceeded quota: ours", `"acme"`},
		},
		"a pod that is gone and still counts": {
			seen:   seen{refusal: &corev1.Event{Message: `pods "sublet-0" is forbidden: exceeded quota: sublet-control-plane, requested: pods=1, used: pods=1, limited: pods=1`}},
			reason: reasonStarting, says: []string{"last pod"},
		},
		"a webhook": {
			seen:   seen{refusal: &corev1.Event{Message: `admission webhook "x" denied the request`}},
			reason: reasonPodRefused, says: []string{"webhook"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			c.seen.namespace = "acme"
			got := look(c.seen)
			if got.ready != c.ready || got.reason != c.reason || got.message == "" {
				t.Fatalf("got %+v", got)
			}
			for _, text := range c.says {
				if !strings.Contains(got.message, text) {
					t.Errorf("the message lacks %q: %s", text, got.message)
				}
			}
		})
	}
}

// TestWordsStay holds that conditions do not flap: states that take turns by
// themselves are told in the same words.
func TestWordsStay(t *testing.T) {
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	pairs := map[string][2]corev1.PodStatus{
		"pulling and backing off": {
			containerIs(waitingFor("ErrImagePull"), corev1.ContainerState{}, 0),
			containerIs(waitingFor("ImagePullBackOff"), corev1.ContainerState{}, 0),
		},
		"running and backing off": {
			containerIs(runs, endedWith(1, "why"), 3),
			containerIs(waitingFor("CrashLoopBackOff"), endedWith(1, "why"), 4),
		},
	}
	for name, pair := range pairs {
		one := look(seen{namespace: "acme", pod: controlPlanePod(pair[0])})
		two := look(seen{namespace: "acme", pod: controlPlanePod(pair[1])})
		if one != two {
			t.Errorf("%s:\n%+v\n%+v", name, one, two)
		}
	}
}

func TestTail(t *testing.T) {
	long := strings.Repeat("ä", 2*lastWords) + " the end"
	got := tail(long)
	if !strings.HasSuffix(got, "the end") || len(got) > lastWords+len("…") {
		t.Errorf("got %d bytes: %q", len(got), got)
	}
	if got := tail(" \n"); got != "none" {
		t.Errorf("got %q", got)
	}
}

func TestLatestRefusal(t *testing.T) {
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: api.ControlPlaneName, UID: "mine"}}
	at := func(seconds int64) metav1.Time { return metav1.NewTime(time.Unix(seconds, 0)) }
	events := []corev1.Event{
		{Message: "old", InvolvedObject: corev1.ObjectReference{Name: api.ControlPlaneName, UID: "mine"}, LastTimestamp: at(1)},
		{Message: "new", InvolvedObject: corev1.ObjectReference{Name: api.ControlPlaneName, UID: "mine"}, LastTimestamp: at(3)},
		{Message: "another's", InvolvedObject: corev1.ObjectReference{Name: api.ControlPlaneName, UID: "earlier"}, LastTimestamp: at(9)},
	}
	if got := latest(events, set); got == nil || got.Message != "new" {
		t.Errorf("got %v", got)
	}
	if got := latest(nil, set); got != nil {
		t.Errorf("got %v", got)
	}
}
