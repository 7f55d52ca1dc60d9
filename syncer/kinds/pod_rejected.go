package kinds

import (
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// A pod that was made for a node goes past the scheduler, and the node's kubelet
// rejects it if it does not fit: it has failed, and its owner makes another one.
// On the host the scheduler is not gone round, and leaves such a pod pending:
//
//	virtual pod for a node ─► host pod, for that node only
//	                              │ host's scheduler: unschedulable
//	Failed, as a kubelet says it ◄┘ host pod deleted

// rejection is what a kubelet would say to a pod that the host's scheduler found
// unfit for the node it was made for.
func rejection(virtual, host *corev1.Pod) (reason, message string, rejected bool) {
	if virtual.Spec.NodeName == "" || host.Spec.NodeName != "" || isScheduled(virtual) {
		return "", "", false
	}
	scheduled := conditionOf(host.Status.Conditions, corev1.PodScheduled)
	if scheduled == nil || scheduled.Status != corev1.ConditionFalse || scheduled.Reason != corev1.PodReasonUnschedulable {
		return "", "", false
	}
	said, _, _ := strings.Cut(scheduled.Message, "preemption:")
	switch insufficient := insufficientResource().FindStringSubmatch(said); {
	case strings.Contains(said, "didn't have free ports"):
		return "NodePorts", "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports", true
	case strings.Contains(said, "Too many pods"):
		return "OutOfpods", "Pod was rejected: Node didn't have enough resource: pods", true
	case insufficient != nil:
		return "OutOf" + insufficient[1], "Pod was rejected: Node didn't have enough resource: " + insufficient[1], true
	}
	return "", "", false
}

// insufficientResource finds the resource in the words of the scheduler.
func insufficientResource() *regexp.Regexp {
	return regexp.MustCompile(`Insufficient ([a-z0-9A-Z./-]*[a-z0-9A-Z])`)
}

// isScheduled tells that a scheduler of the tenant's chose the node: the API says
// so when it binds a pod.
func isScheduled(virtual *corev1.Pod) bool {
	scheduled := conditionOf(virtual.Status.Conditions, corev1.PodScheduled)
	return scheduled != nil && scheduled.Status == corev1.ConditionTrue
}

// isRejected tells that a pod has failed without ever having run: there is
// nothing of it on the host any more.
func isRejected(virtual *corev1.Pod) bool {
	status := virtual.Status
	return virtual.Spec.NodeName != "" && status.Phase == corev1.PodFailed &&
		status.StartTime == nil && len(status.ContainerStatuses)+len(status.InitContainerStatuses) == 0
}
