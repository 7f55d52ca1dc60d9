package kubelet

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/utils/ptr"
)

// TestSummary: of a node the tenant's pods that were measured, and their sum.
func TestSummary(t *testing.T) {
	at := func(second int64) metav1.Time { return metav1.NewTime(time.Unix(second, 0)) }
	uses := func(name, cpu, memory string) metricsv1beta1.ContainerMetrics {
		return metricsv1beta1.ContainerMetrics{Name: name, Usage: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory),
		}}
	}
	measured := func(name string, second int64, containers ...metricsv1beta1.ContainerMetrics) metricsv1beta1.PodMetrics {
		return metricsv1beta1.PodMetrics{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Timestamp: at(second), Containers: containers}
	}
	pods := []corev1.Pod{
		{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u-1"},
			Status: corev1.PodStatus{StartTime: ptr.To(at(10)), ContainerStatuses: []corev1.ContainerStatus{
				{Name: "main", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(12)}}},
			}},
		},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db", UID: "u-2", CreationTimestamp: at(20)}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "starting", UID: "u-3"}},
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a", CreationTimestamp: at(1)}}
	got := summaryOf(node, pods, []metricsv1beta1.PodMetrics{
		measured("web", 101, uses("main", "1500u", "10Mi"), uses("side", "1", "1Mi")),
		measured("db", 100, uses("main", "2", "1Gi")),
		measured("elsewhere", 99, uses("main", "9", "9Gi")),
	})
	cpu := func(second int64, nano uint64) *statsv1alpha1.CPUStats {
		return &statsv1alpha1.CPUStats{Time: at(second), UsageNanoCores: &nano}
	}
	memory := func(second int64, bytes uint64) *statsv1alpha1.MemoryStats {
		return &statsv1alpha1.MemoryStats{Time: at(second), WorkingSetBytes: &bytes}
	}
	const mebi = 1 << 20
	want := statsv1alpha1.Summary{
		Node: statsv1alpha1.NodeStats{NodeName: "node-a", StartTime: at(1), CPU: cpu(100, 3_001_500_000), Memory: memory(100, 1035*mebi)},
		Pods: []statsv1alpha1.PodStats{
			{
				PodRef: statsv1alpha1.PodReference{Namespace: "shop", Name: "web", UID: "u-1"}, StartTime: at(10),
				Containers: []statsv1alpha1.ContainerStats{
					{Name: "main", StartTime: at(12), CPU: cpu(101, 1_500_000), Memory: memory(101, 10*mebi)},
					{Name: "side", StartTime: at(10), CPU: cpu(101, 1_000_000_000), Memory: memory(101, mebi)},
				},
				CPU: cpu(101, 1_001_500_000), Memory: memory(101, 11*mebi),
			},
			{
				PodRef: statsv1alpha1.PodReference{Namespace: "shop", Name: "db", UID: "u-2"}, StartTime: at(20),
				Containers: []statsv1alpha1.ContainerStats{{Name: "main", StartTime: at(20), CPU: cpu(100, 2_000_000_000), Memory: memory(100, 1024*mebi)}},
				CPU:        cpu(100, 2_000_000_000), Memory: memory(100, 1024*mebi),
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if none := summaryOf(node, pods, nil); none.Node.CPU != nil || none.Pods == nil || len(none.Pods) > 0 {
		t.Errorf("of what nobody has measured: %+v", none)
	}
}
