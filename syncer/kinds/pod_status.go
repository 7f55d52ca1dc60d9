package kinds

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// podBinding binds the virtual pod to the node that the host chose, once the
// tenant has that node: its pod collector would delete a pod on an unknown one.
func podBinding(in translate.Input[*corev1.Pod]) *corev1.Binding {
	virtual, node := in.Virtual, in.Host.Spec.NodeName
	if virtual.Spec.NodeName != "" || node == "" || virtual.DeletionTimestamp != nil {
		return nil
	}
	if translate.Find[*corev1.Node](in.Refs, translate.Virtual, "", node) == nil {
		return nil
	}
	return &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: virtual.Namespace, Name: virtual.Name, UID: virtual.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
}

// podLost: a pod that is bound on account of its host pod cannot move to
// another node.
func podLost(tenant translate.Tenant, virtual *corev1.Pod) bool {
	if virtual.Spec.NodeName == "" || isRejected(virtual) {
		return false
	}
	if virtual.Status.StartTime != nil || virtual.Status.Phase != "" && virtual.Status.Phase != corev1.PodPending {
		return true
	}
	// A scheduler in the tenant binds before there is a host pod.
	return !tenant.Scheduler && isScheduled(virtual)
}

// podParting: a pod whose host pod is gone runs no more. What its containers ended
// with nobody knows any longer, and is said as a kubelet says it that finds them gone.
func podParting(virtual *corev1.Pod) *corev1.Pod {
	if virtual.Spec.NodeName == "" || virtual.DeletionTimestamp == nil {
		return virtual // It never ran.
	}
	out := virtual.DeepCopy()
	status := &out.Status
	failed := false
	for _, of := range [][]corev1.ContainerStatus{status.InitContainerStatuses, status.ContainerStatuses, status.EphemeralContainerStatuses} {
		for i := range of {
			container := &of[i]
			container.Ready, container.Started = false, ptr.To(false)
			if container.State.Terminated == nil {
				container.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
					ExitCode:    137,
					Reason:      "ContainerStatusUnknown",
					Message:     "The container was gone when the pod was deleted",
					StartedAt:   startOf(container.State),
					FinishedAt:  *virtual.DeletionTimestamp,
					ContainerID: container.ContainerID,
				}}
			}
			failed = failed || container.State.Terminated.ExitCode != 0
		}
	}
	reason := "PodCompleted"
	switch {
	case ended(status.Phase):
	case failed || len(status.ContainerStatuses) == 0:
		status.Phase = corev1.PodFailed
	default:
		status.Phase = corev1.PodSucceeded
	}
	if status.Phase == corev1.PodFailed {
		reason = "PodFailed"
	}
	for i := range status.Conditions {
		condition := &status.Conditions[i]
		if (condition.Type == corev1.PodReady || condition.Type == corev1.ContainersReady) && condition.Status != corev1.ConditionFalse {
			condition.Status, condition.Reason, condition.Message = corev1.ConditionFalse, reason, ""
			condition.LastTransitionTime = *virtual.DeletionTimestamp
		}
	}
	return out
}

func startOf(state corev1.ContainerState) metav1.Time {
	if state.Running != nil {
		return state.Running.StartedAt
	}
	return metav1.Time{}
}

// podStatus copies the status field by field; the fields are in the order of
// the type.
func podStatus(in translate.Input[*corev1.Pod]) (*corev1.Pod, error) {
	virtual, host := in.Virtual, in.Host
	if virtual.Spec.NodeName == "" && host.Spec.NodeName != "" {
		return nil, nil // Bound first: a pod without a node does not run.
	}
	out := virtual.DeepCopy()
	if reason, message, rejected := rejection(virtual, host); rejected {
		out.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: reason, Message: message, QOSClass: virtual.Status.QOSClass}
		return out, nil
	}
	from, to := host.Status.DeepCopy(), &out.Status
	text := func(s string) string { return in.Tenant.Rewrite(s, in.Names) }

	if from.ObservedGeneration != 0 && from.ObservedGeneration == host.Generation {
		to.ObservedGeneration = virtual.Generation
	}
	if from.Phase != "" {
		to.Phase = from.Phase
	}
	if scheduled := conditionOf(virtual.Status.Conditions, corev1.PodScheduled); in.Tenant.Scheduler && scheduled != nil {
		// The tenant's scheduler has the word; whether the host's agrees, its
		// events tell.
		from.Conditions = slices.DeleteFunc(from.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodScheduled })
		from.Conditions = append(from.Conditions, *scheduled)
	}
	to.Conditions = podConditions(virtual, from.Conditions, to.ObservedGeneration, text)
	to.Message = text(from.Message)
	to.Reason = from.Reason
	if ended(virtual.Status.Phase) && !ended(from.Phase) {
		// The tenant has ended it, which the host is told meanwhile.
		to.Phase, to.Reason, to.Message = virtual.Status.Phase, virtual.Status.Reason, virtual.Status.Message
	}
	to.HostIP = from.HostIP
	to.HostIPs = from.HostIPs
	to.PodIP = from.PodIP
	to.PodIPs = from.PodIPs
	to.StartTime = from.StartTime
	to.InitContainerStatuses = containerStatuses(from.InitContainerStatuses, text, virtual.Spec.InitContainers)
	to.ContainerStatuses = containerStatuses(from.ContainerStatuses, text, virtual.Spec.Containers)
	if to.QOSClass == "" {
		to.QOSClass = from.QOSClass
	}
	var ephemeral []corev1.Container
	for i := range virtual.Spec.EphemeralContainers {
		ephemeral = append(ephemeral, corev1.Container(virtual.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	to.EphemeralContainerStatuses = containerStatuses(from.EphemeralContainerStatuses, text, ephemeral)
	to.Resize = from.Resize
	to.AllocatedResources = from.AllocatedResources
	to.Resources = from.Resources
	return out, nil
}

// hostConditions are those that only the host's kubelet and scheduler set.
var hostConditions = []corev1.PodConditionType{
	corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady,
	corev1.PodReadyToStartContainers, corev1.PodResizePending, corev1.PodResizeInProgress,
	corev1.AllContainersRestarting,
}

// podConditions: the host's; but readiness gates are the tenant's business,
// and so is what else its controllers have set.
func podConditions(virtual *corev1.Pod, host []corev1.PodCondition, observed int64, text func(string) string) []corev1.PodCondition {
	var out []corev1.PodCondition
	for _, condition := range host {
		gate := slices.ContainsFunc(virtual.Spec.ReadinessGates, func(g corev1.PodReadinessGate) bool { return g.ConditionType == condition.Type })
		if own := conditionOf(virtual.Status.Conditions, condition.Type); gate && own != nil {
			out = append(out, *own)
			continue
		}
		condition.Message = text(condition.Message)
		if condition.ObservedGeneration != 0 {
			condition.ObservedGeneration = observed
		}
		out = append(out, condition)
	}
	for _, own := range virtual.Status.Conditions {
		if conditionOf(out, own.Type) == nil && !slices.Contains(hostConditions, own.Type) {
			out = append(out, own)
		}
	}
	return out
}

// containerStatuses leaves out containers, and mounts in them, that the host has
// added.
func containerStatuses(in []corev1.ContainerStatus, text func(string) string, known []corev1.Container) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	for _, status := range in {
		container := containerNamed(known, status.Name)
		if container == nil {
			continue
		}
		for _, state := range []*corev1.ContainerState{&status.State, &status.LastTerminationState} {
			if state.Waiting != nil {
				state.Waiting.Message = text(state.Waiting.Message)
			}
			if state.Terminated != nil && state.Terminated.Reason == "ContainerCannotRun" {
				state.Terminated.Message = text(state.Terminated.Message)
			}
		}
		status.VolumeMounts = slices.DeleteFunc(status.VolumeMounts, func(mounted corev1.VolumeMountStatus) bool {
			return !slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == mounted.MountPath })
		})
		out = append(out, status)
	}
	return out
}
