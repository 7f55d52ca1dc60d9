package kubelet

import (
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	quota "k8s.io/apiserver/pkg/quota/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/utils/ptr"
)

// summary serves what the tenant's pods on a virtual node use, as far as the host
// lets it be known: processors and memory at a moment. What a kubelet has beside
// that, of the node itself, file systems and networks, is the host's.
func (s *Server) summary(w http.ResponseWriter, r *http.Request, node *corev1.Node, pods *corev1.PodList) {
	usage, err := s.options.Usage(r.Context(), node.Name)
	if apierrors.IsServiceUnavailable(err) {
		err = &requestError{http.StatusServiceUnavailable, err.Error()}
	}
	if err != nil {
		writeError(w, r, err)
		return
	}
	writeJSON(w, summaryOf(node, pods.Items, usage))
}

// summaryOf puts pods and what was measured of them together. The node's part is
// their sum.
func summaryOf(node *corev1.Node, pods []corev1.Pod, usage []metricsv1beta1.PodMetrics) statsv1alpha1.Summary {
	measured := map[types.NamespacedName]*metricsv1beta1.PodMetrics{}
	for i := range usage {
		measured[types.NamespacedName{Namespace: usage[i].Namespace, Name: usage[i].Name}] = &usage[i]
	}
	summary := statsv1alpha1.Summary{
		Node: statsv1alpha1.NodeStats{NodeName: node.Name, StartTime: node.CreationTimestamp},
		Pods: []statsv1alpha1.PodStats{},
	}
	sum := corev1.ResourceList{}
	var oldest time.Time
	for i := range pods {
		pod := &pods[i]
		found := measured[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}]
		if found == nil {
			continue // It does not run, or not for long.
		}
		stats := statsv1alpha1.PodStats{
			PodRef:    statsv1alpha1.PodReference{Name: pod.Name, Namespace: pod.Namespace, UID: string(pod.UID)},
			StartTime: ptr.Deref(pod.Status.StartTime, pod.CreationTimestamp),
		}
		of := corev1.ResourceList{}
		for _, container := range found.Containers {
			cpu, memory := statsOf(found.Timestamp.Time, container.Usage)
			stats.Containers = append(stats.Containers, statsv1alpha1.ContainerStats{
				Name: container.Name, StartTime: startOf(pod, container.Name, stats.StartTime), CPU: cpu, Memory: memory,
			})
			of = quota.Add(of, container.Usage)
		}
		stats.CPU, stats.Memory = statsOf(found.Timestamp.Time, of)
		summary.Pods = append(summary.Pods, stats)
		sum = quota.Add(sum, of)
		if oldest.IsZero() || found.Timestamp.Time.Before(oldest) {
			oldest = found.Timestamp.Time
		}
	}
	if !oldest.IsZero() {
		summary.Node.CPU, summary.Node.Memory = statsOf(oldest, sum)
	}
	return summary
}

// statsOf is the usage of processors and memory, as far as there is one.
func statsOf(at time.Time, usage corev1.ResourceList) (*statsv1alpha1.CPUStats, *statsv1alpha1.MemoryStats) {
	var cpu *statsv1alpha1.CPUStats
	var memory *statsv1alpha1.MemoryStats
	if used, ok := usage[corev1.ResourceCPU]; ok {
		cpu = &statsv1alpha1.CPUStats{Time: metav1.NewTime(at), UsageNanoCores: ptr.To(uint64(max(0, used.ScaledValue(resource.Nano))))}
	}
	if used, ok := usage[corev1.ResourceMemory]; ok {
		memory = &statsv1alpha1.MemoryStats{Time: metav1.NewTime(at), WorkingSetBytes: ptr.To(uint64(max(0, used.Value())))}
	}
	return cpu, memory
}

// startOf is when a container that runs was started.
func startOf(pod *corev1.Pod, container string, otherwise metav1.Time) metav1.Time {
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		if status.Name == container && status.State.Running != nil {
			return status.State.Running.StartedAt
		}
	}
	return otherwise
}
