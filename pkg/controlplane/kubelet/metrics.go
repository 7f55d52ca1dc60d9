package kubelet

import (
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"
)

// metrics serves those of the kubelet's own metrics that say something about a
// virtual node. The others would tell of the host's kubelet, and by that of
// other tenants.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request, node *corev1.Node, pods *corev1.PodList) {
	registry := nodeMetrics(node, pods.Items)
	metrics.HandlerFor(registry, metrics.HandlerOpts{}).ServeHTTP(w, r)
}

// nodeMetrics are named and labelled as the kubelet's, so that dashboards and
// the suites that read them find what they know.
func nodeMetrics(node *corev1.Node, pods []corev1.Pod) metrics.KubeRegistry {
	name := metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: "kubelet", Name: "node_name", StabilityLevel: metrics.ALPHA,
		Help: "The name of the node; its value is always 1.",
	}, []string{"node"})
	running := metrics.NewGauge(&metrics.GaugeOpts{
		Subsystem: "kubelet", Name: "running_pods", StabilityLevel: metrics.ALPHA,
		Help: "Pods of this cluster that run on the node.",
	})
	containers := metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: "kubelet", Name: "running_containers", StabilityLevel: metrics.ALPHA,
		Help: "Containers of this cluster on the node, by their state.",
	}, []string{"container_state"})
	registry := metrics.NewKubeRegistry()
	registry.MustRegister(name, running, containers)

	name.WithLabelValues(node.Name).Set(1)
	for i := range pods {
		status := &pods[i].Status
		if status.Phase == corev1.PodRunning {
			running.Inc()
		}
		for _, list := range [][]corev1.ContainerStatus{status.InitContainerStatuses, status.ContainerStatuses, status.EphemeralContainerStatuses} {
			for _, container := range list {
				switch {
				case container.State.Running != nil:
					containers.WithLabelValues("running").Inc()
				case container.State.Terminated != nil:
					containers.WithLabelValues("exited").Inc()
				}
			}
		}
	}
	return registry
}
