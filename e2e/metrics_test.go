//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// TestMetrics: kubectl top and a HorizontalPodAutoscaler in a tenant work by what
// the host has measured, and show nothing of another tenant's.
func TestMetrics(t *testing.T) {
	s := shared(t)
	s.onLocalHost(t)
	if out, err := s.command(t.Context(), s.path(".cache/bin/host"), "addon", "metrics-server").CombinedOutput(); err != nil {
		t.Fatalf("put metrics-server on the host: %v\n%s", err, out)
	}
	ctx := t.Context()
	other := s.sharedTenant(t, "e2e-green")
	there := other.newNamespace(t, "measured")
	other.start(t, there, newPod("hidden"))

	tn := s.newTenant(t, "e2e-metrics", "--ephemeral")
	ns := tn.newNamespace(t, "metrics")
	spec := podSpec()
	spec.Containers[0].Command, spec.Containers[0].Args = []string{"sh", "-c", "while :; do :; done"}, nil
	spec.Containers[0].Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("20m")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("60m")},
	}
	labels := map[string]string{"app": "busy"}
	_, err := tn.AppsV1().Deployments(ns).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "busy"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	scalers := tn.AutoscalingV2().HorizontalPodAutoscalers(ns)
	_, err = scalers.Create(ctx, &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "busy"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "busy"},
			MinReplicas:    ptr.To[int32](1), MaxReplicas: 2,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name:   corev1.ResourceCPU,
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr.To[int32](50)},
			}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}

	kubectl := tn.kubectl(t, s)
	var top string
	eventually(t, 3*time.Minute, "kubectl top shows the pod", func() (err error) {
		if top, err = kubectl("", "top", "pods", "-A"); err == nil && !strings.Contains(top, "busy-") {
			err = errors.New(top)
		}
		return err
	})
	if strings.Contains(top, "hidden") || strings.Contains(top, there) || strings.Contains(top, "sublet-0") {
		t.Errorf("it shows what is not the tenant's:\n%s", top)
	}
	eventually(t, time.Minute, "kubectl top shows the node", func() error {
		out, err := kubectl("", "top", "nodes")
		if err == nil && len(strings.Split(strings.TrimSpace(out), "\n")) < 2 {
			err = errors.New(out)
		}
		return err
	})
	nodes, err := tn.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var summaries strings.Builder
	for _, node := range nodes.Items {
		body, err := tn.RESTClient().Get().AbsPath("/api/v1/nodes/" + node.Name + "/proxy/stats/summary").Do(ctx).Raw()
		if err != nil {
			t.Errorf("the summary of %s: %v", node.Name, err)
		}
		summaries.Write(body)
	}
	if text := summaries.String(); !strings.Contains(text, `"name":"busy-`) || strings.Contains(text, "hidden") || strings.Contains(text, there) || strings.Contains(text, "sublet-0") {
		t.Errorf("the kubelets' summaries show %s", text)
	}
	eventually(t, 3*time.Minute, "the autoscaler adds a pod", func() error {
		scaler, err := scalers.Get(ctx, "busy", metav1.GetOptions{})
		if err == nil && scaler.Status.CurrentReplicas != 2 {
			err = fmt.Errorf("status %+v", scaler.Status)
		}
		return err
	})
}
