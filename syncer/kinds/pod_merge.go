package kinds

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// podMerge takes over what the API lets change in a pod (ValidatePodUpdate).
// Where the host has more than we asked for, as tolerations and gates by its
// own admission, that stays.
func podMerge(host, desired *corev1.Pod) *corev1.Pod {
	ours := strings.Split(host.Annotations[api.AnnotationSchedulingGates], ",")
	gated := len(host.Spec.SchedulingGates) > 0

	mergeImages(host.Spec.InitContainers, desired.Spec.InitContainers)
	mergeImages(host.Spec.Containers, desired.Spec.Containers)
	if want := desired.Spec.ActiveDeadlineSeconds; want != nil {
		if have := host.Spec.ActiveDeadlineSeconds; have == nil || *want < *have {
			host.Spec.ActiveDeadlineSeconds = want
		}
	}
	for _, want := range desired.Spec.Tolerations {
		same := func(have corev1.Toleration) bool { return have.MatchToleration(&want) }
		if i := slices.IndexFunc(host.Spec.Tolerations, same); i >= 0 {
			host.Spec.Tolerations[i] = want
			continue
		}
		host.Spec.Tolerations = append(host.Spec.Tolerations, want)
	}
	host.Spec.SchedulingGates = slices.DeleteFunc(host.Spec.SchedulingGates, func(gate corev1.PodSchedulingGate) bool {
		return slices.Contains(ours, gate.Name) && !slices.Contains(desired.Spec.SchedulingGates, gate)
	})
	if gated {
		mergeWhileGated(host, desired)
	}
	return host
}

// mergeWhileGated: where a pod may run can be narrowed until it is scheduled.
func mergeWhileGated(host, desired *corev1.Pod) {
	for key, value := range desired.Spec.NodeSelector {
		if _, ok := host.Spec.NodeSelector[key]; ok {
			continue
		}
		if host.Spec.NodeSelector == nil {
			host.Spec.NodeSelector = map[string]string{}
		}
		host.Spec.NodeSelector[key] = value
	}
	if desired.Spec.Affinity == nil || desired.Spec.Affinity.NodeAffinity == nil {
		return
	}
	if host.Spec.Affinity == nil {
		host.Spec.Affinity = &corev1.Affinity{}
	}
	host.Spec.Affinity.NodeAffinity = desired.Spec.Affinity.NodeAffinity
}

func mergeImages(host, desired []corev1.Container) {
	for i := range host {
		if want := containerNamed(desired, host[i].Name); want != nil {
			host[i].Image = want.Image
		}
	}
}

func containerNamed(containers []corev1.Container, name string) *corev1.Container {
	for i := range containers {
		if containers[i].Name == name {
			return &containers[i]
		}
	}
	return nil
}

func podOfInput(in translate.Input[*corev1.Pod]) *corev1.Pod { return in.Virtual }

// podWithEphemeralContainers is a pod with nothing else: they may only be
// added, by their subresource, to a pod that exists.
func podWithEphemeralContainers(in translate.Input[*corev1.Pod]) *corev1.Pod {
	out := &corev1.Pod{}
	if len(in.Virtual.Spec.EphemeralContainers) == 0 {
		return out
	}
	t := newPodTranslation(in)
	for i := range in.Virtual.Spec.EphemeralContainers {
		virtual := &in.Virtual.Spec.EphemeralContainers[i]
		container := corev1.Container(virtual.EphemeralContainerCommon)
		out.Spec.EphemeralContainers = append(out.Spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon(t.container(&container)),
			TargetContainerName:      virtual.TargetContainerName,
		})
	}
	return out
}

func podMergeEphemeralContainers(host, desired *corev1.Pod) *corev1.Pod {
	for _, want := range desired.Spec.EphemeralContainers {
		if !slices.ContainsFunc(host.Spec.EphemeralContainers, func(have corev1.EphemeralContainer) bool { return have.Name == want.Name }) {
			host.Spec.EphemeralContainers = append(host.Spec.EphemeralContainers, want)
		}
	}
	return host
}

// podMergeResources resizes in place. What the host has on top, as defaults of
// its LimitRange, stays.
func podMergeResources(host, desired *corev1.Pod) *corev1.Pod {
	if host.Status.Phase == corev1.PodSucceeded || host.Status.Phase == corev1.PodFailed {
		return host
	}
	for _, lists := range [][2][]corev1.Container{
		{host.Spec.InitContainers, desired.Spec.InitContainers},
		{host.Spec.Containers, desired.Spec.Containers},
	} {
		for i := range lists[0] {
			if want := containerNamed(lists[1], lists[0][i].Name); want != nil {
				mergeResources(&lists[0][i].Resources, want.Resources)
			}
		}
	}
	if desired.Spec.Resources != nil {
		if host.Spec.Resources == nil {
			host.Spec.Resources = &corev1.ResourceRequirements{}
		}
		mergeResources(host.Spec.Resources, *desired.Spec.Resources)
	}
	return host
}

func mergeResources(host *corev1.ResourceRequirements, desired corev1.ResourceRequirements) {
	host.Requests = mergeResourceList(host.Requests, desired.Requests)
	host.Limits = mergeResourceList(host.Limits, desired.Limits)
}

func mergeResourceList(host, desired corev1.ResourceList) corev1.ResourceList {
	for name, want := range desired {
		have, ok := host[name]
		if ok && have.Cmp(want) == 0 {
			continue
		}
		if host == nil {
			host = corev1.ResourceList{}
		}
		host[name] = want
	}
	return host
}

// podMergeStatus brings to the host what the tenant said about the gates, and
// that it has ended the pod; desired is the virtual pod.
func podMergeStatus(host, desired *corev1.Pod) *corev1.Pod {
	if ended(desired.Status.Phase) && !ended(host.Status.Phase) {
		host.Status.Phase = desired.Status.Phase
		host.Status.Reason = desired.Status.Reason
		host.Status.Message = desired.Status.Message
	}
	return mergeReadinessGates(host, desired)
}

// ended phases are the last ones: the API lets a controller end a pod, and the
// kubelet does not take it back.
func ended(phase corev1.PodPhase) bool {
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

func mergeReadinessGates(host, desired *corev1.Pod) *corev1.Pod {
	for _, gate := range desired.Spec.ReadinessGates {
		want := conditionOf(desired.Status.Conditions, gate.ConditionType)
		if want == nil {
			continue
		}
		condition := *want
		condition.ObservedGeneration = 0
		have := conditionOf(host.Status.Conditions, gate.ConditionType)
		if have == nil {
			host.Status.Conditions = append(host.Status.Conditions, condition)
			continue
		}
		if have.Status != condition.Status || have.Reason != condition.Reason || have.Message != condition.Message {
			*have = condition
		}
	}
	return host
}

func conditionOf(conditions []corev1.PodCondition, of corev1.PodConditionType) *corev1.PodCondition {
	for i := range conditions {
		if conditions[i].Type == of {
			return &conditions[i]
		}
	}
	return nil
}
