package tenant

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/isolation"
	"github.com/sublet-dev/sublet/pkg/virtualcluster"
)

// seen is what there is to see of a control plane; nil where there is nothing.
type seen struct {
	namespace string
	pod       *corev1.Pod
	claim     *corev1.PersistentVolumeClaim
	// refusal is why the pod could not be created.
	refusal *corev1.Event
}

// observation is how a control plane is, in the words of a condition.
type observation struct {
	ready           bool
	reason, message string
}

func (o observation) status() metav1.ConditionStatus {
	if o.ready {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}

// lastWords is how much of a crashed container's output a condition shows.
const lastWords = 600

// look says how a control plane is. Its words stay the same while nothing
// changes: what alternates by itself, such as a container between two crashes,
// is one state.
func look(s seen) observation {
	if s.pod == nil {
		return lookRefused(s)
	}
	pod := s.pod
	if !pod.DeletionTimestamp.IsZero() {
		return observation{reason: reasonStarting, message: "the control plane's pod is being replaced"}
	}
	if podIs(pod, corev1.PodReady) {
		return observation{ready: true, reason: reasonReady, message: "the API answers at " + virtualcluster.Endpoint(s.namespace)}
	}
	if o, ok := lookContainer(s); ok {
		return o
	}
	if c := podCondition(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse && c.Reason != corev1.PodReasonSchedulerError {
		if s.claim != nil && s.claim.Status.Phase == corev1.ClaimPending {
			class := "the host's default storage class"
			if s.claim.Spec.StorageClassName != nil {
				class = fmt.Sprintf("storage class %q", *s.claim.Spec.StorageClassName)
			}
			return observation{reason: reasonVolumePending, message: fmt.Sprintf(
				"no node can take the control plane yet, and its volume of %s is not there. See: kubectl --namespace %s describe pvc %s; %s",
				class, s.namespace, s.claim.Name, oneLine(c.Message))}
		}
		return observation{reason: reasonUnschedulable, message: "no node can take the control plane: " + oneLine(c.Message)}
	}
	return observation{reason: reasonStarting, message: "the control plane is starting"}
}

// lookContainer finds what stops a container that has a node.
func lookContainer(s seen) (observation, bool) {
	for _, status := range s.pod.Status.ContainerStatuses {
		if w := status.State.Waiting; w != nil {
			switch w.Reason {
			case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable":
				return observation{reason: reasonImagePullFailed, message: fmt.Sprintf(
					"the node cannot get the image %q of the control plane: import it on the nodes, or make its registry reachable for them, or set spec.virtualCluster.image. See: kubectl --namespace %s describe pod %s",
					image(s.pod, status), s.namespace, s.pod.Name)}, true
			case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
				if status.LastTerminationState.Terminated == nil {
					return observation{reason: reasonContainerFailed, message: fmt.Sprintf(
						"the node cannot start the control plane: %s", oneLine(w.Message))}, true
				}
			}
		}
		ended := status.State.Terminated
		if ended == nil {
			ended = status.LastTerminationState.Terminated
		}
		// One orderly end is a restart; what ended with an error, or again and
		// again, crashes.
		if ended != nil && (ended.ExitCode != 0 || status.RestartCount > 1) {
			return observation{reason: reasonCrashing, message: fmt.Sprintf(
				"the control plane ended with exit code %d and is started again. See: kubectl --namespace %s logs %s --previous. Its last words: %s",
				ended.ExitCode, s.namespace, s.pod.Name, tail(ended.Message))}, true
		}
	}
	if s.pod.Status.Phase == corev1.PodFailed {
		return observation{reason: reasonCrashing, message: fmt.Sprintf(
			"the control plane's pod failed (%s): %s", s.pod.Status.Reason, oneLine(s.pod.Status.Message))}, true
	}
	return observation{}, false
}

func lookRefused(s seen) observation {
	if s.refusal == nil {
		return observation{reason: reasonStarting, message: "the control plane's pod is being created"}
	}
	message := oneLine(s.refusal.Message)
	if strings.Contains(message, "exceeded quota: "+isolation.QuotaControlPlane+",") {
		return observation{reason: reasonStarting, message: "the host still counts the control plane's last pod"}
	}
	if strings.Contains(message, "exceeded quota") || strings.Contains(message, "must specify") {
		return observation{reason: reasonQuotaExceeded, message: fmt.Sprintf(
			"a quota on namespace %q has no room for the control plane. Sublet's own leave room for it: raise or remove the one that is named here. %s",
			s.namespace, message)}
	}
	return observation{reason: reasonPodRefused, message: fmt.Sprintf(
		"the host refuses the control plane's pod: change what is named here in namespace %q, or on the host. %s", s.namespace, message)}
}

// latest is the newest refusal that is about this StatefulSet.
func latest(events []corev1.Event, set *appsv1.StatefulSet) *corev1.Event {
	var newest *corev1.Event
	for i := range events {
		e := &events[i]
		if e.InvolvedObject.Name != api.ControlPlaneName || (set.UID != "" && e.InvolvedObject.UID != set.UID) {
			continue
		}
		if newest == nil || when(e).After(when(newest)) {
			newest = e
		}
	}
	return newest
}

func when(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	}
	return e.CreationTimestamp.Time
}

func podIs(pod *corev1.Pod, kind corev1.PodConditionType) bool {
	c := podCondition(pod, kind)
	return c != nil && c.Status == corev1.ConditionTrue
}

func podCondition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// image is that of the spec: the status of a container that never ran has none
// or another spelling.
func image(pod *corev1.Pod, status corev1.ContainerStatus) string {
	for _, container := range pod.Spec.Containers {
		if container.Name == status.Name {
			return container.Image
		}
	}
	return status.Image
}

// tail is the end of what a container said: the error is there.
func tail(text string) string {
	text = oneLine(text)
	if text == "" {
		return "none"
	}
	if len(text) > lastWords {
		text = "…" + text[len(text)-lastWords:]
	}
	return strings.ToValidUTF8(text, "")
}
