package syncer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatorclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"

	"github.com/sublet-dev/sublet/pkg/controlplane"
	"github.com/sublet-dev/sublet/pkg/controlplane/metrics"
)

// measure is the host's metrics server: each container of each pod uses the
// same, and one that the host has injected.
type measure struct {
	host   *planes
	memory atomic.Int64
	exists atomic.Bool
}

// ServeHTTP answers a list of one namespace.
func (m *measure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info, _ := request.RequestInfoFrom(r.Context())
	if !info.IsResourceRequest {
		_ = json.NewEncoder(w).Encode(metav1.APIResourceList{APIResources: metrics.Resources()})
		return
	}
	pods, err := m.host.host.CoreV1().Pods(info.Namespace).List(r.Context(), metav1.ListOptions{})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	list := metricsv1beta1.PodMetricsList{}
	for _, pod := range pods.Items {
		item := metricsv1beta1.PodMetrics{
			ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, Labels: pod.Labels},
			Timestamp:  metav1.Now(), Window: metav1.Duration{Duration: 10 * time.Second},
		}
		for _, name := range append([]string{"injected"}, pod.Spec.Containers[0].Name) {
			item.Containers = append(item.Containers, metricsv1beta1.ContainerMetrics{Name: name, Usage: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: *resource.NewQuantity(m.memory.Load(), resource.BinarySI),
			}})
		}
		list.Items = append(list.Items, item)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list)
}

// TestMetrics: what the tenant's pods use, in the tenant's names, and an
// autoscaler that goes by it.
func TestMetrics(t *testing.T) {
	m := &measure{}
	m.memory.Store(100 << 20)
	p := startPlanesWith(t, planesOptions{interval: 20 * time.Millisecond, hostAPIs: []controlplane.LocalAPI{{
		GroupVersion: metrics.GroupVersion(), Resources: metrics.Resources(), Handler: m, Interval: 20 * time.Millisecond,
		Available: func(context.Context) (bool, error) { return m.exists.Load(), nil },
	}}})
	m.host = p
	p.runNode(t)
	ctx := t.Context()
	services, err := aggregatorclient.NewForConfig(p.asAdmin)
	if err != nil {
		t.Fatal(err)
	}
	usage, err := metricsclient.NewForConfig(p.asAdmin)
	if err != nil {
		t.Fatal(err)
	}
	served := func() bool {
		groups, err := p.virtual.Discovery().ServerGroups()
		return err == nil && slices.ContainsFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == metricsv1beta1.GroupName })
	}

	// Until the host has metrics, the tenant has none.
	eventually(t, "the tenant's API is quiet", func(ctx context.Context) error {
		_, err := services.ApiregistrationV1().APIServices().Get(ctx, "v1beta1.metrics.k8s.io", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) || served() {
			return fmt.Errorf("metrics are served already: %v", err)
		}
		return nil
	})
	if _, err := usage.MetricsV1beta1().PodMetricses(space).List(ctx, metav1.ListOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("metrics without the host's: %v", err)
	}
	m.exists.Store(true)
	eventually(t, "metrics are served", func(context.Context) error {
		if !served() {
			return fmt.Errorf("not in discovery")
		}
		resources, err := p.virtual.Discovery().ServerResourcesForGroupVersion("metrics.k8s.io/v1beta1")
		if err == nil && len(resources.APIResources) != 2 {
			err = fmt.Errorf("%v", resources.APIResources)
		}
		return err
	})

	for _, name := range []string{"one", "two"} {
		p.createPod(t, pod(name))
		waitFor(t, name+" runs", p.virtualPod(name), running)
	}
	// Somebody else's pod, in another namespace and on the same node.
	foreign := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "foreign"}, Spec: corev1.PodSpec{NodeName: nodeName, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	eventually(t, "foreign pod", func(ctx context.Context) error {
		_, err := p.host.CoreV1().Pods("default").Create(ctx, foreign, metav1.CreateOptions{})
		return err
	})

	t.Run("pods", func(t *testing.T) {
		list, err := usage.MetricsV1beta1().PodMetricses("").List(ctx, metav1.ListOptions{})
		if err != nil || len(list.Items) != 2 {
			t.Fatalf("%d pods, %v", len(list.Items), err)
		}
		one, err := usage.MetricsV1beta1().PodMetricses(space).Get(ctx, "one", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if one.Namespace != space || one.Labels["app"] != "one" || len(one.Containers) != 1 || one.Containers[0].Name != "main" || one.Containers[0].Usage.Memory().Value() != 100<<20 {
			t.Errorf("metrics of one pod: %+v", one)
		}
		selected, err := usage.MetricsV1beta1().PodMetricses(space).List(ctx, metav1.ListOptions{LabelSelector: "app=two"})
		if err != nil || len(selected.Items) != 1 || selected.Items[0].Name != "two" {
			t.Errorf("selected: %+v, %v", selected, err)
		}
		for _, name := range []string{"none", "foreign"} {
			if _, err := usage.MetricsV1beta1().PodMetricses(space).Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("metrics of %s: %v", name, err)
			}
		}
		if _, err := usage.MetricsV1beta1().PodMetricses(space).Watch(ctx, metav1.ListOptions{}); !apierrors.IsMethodNotSupported(err) {
			t.Errorf("watch: %v", err)
		}
	})
	t.Run("nodes show the tenant's share", func(t *testing.T) {
		node, err := usage.MetricsV1beta1().NodeMetricses().Get(ctx, nodeName, metav1.GetOptions{})
		if err != nil || node.Usage.Cpu().MilliValue() != 200 || node.Usage.Memory().Value() != 200<<20 {
			t.Errorf("usage of the node: %v, %v", node.Usage, err)
		}
	})
	t.Run("as a table", func(t *testing.T) {
		data, err := p.virtual.Discovery().RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods").
			SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").DoRaw(ctx)
		if err != nil || !strings.Contains(string(data), `"kind":"Table"`) || !strings.Contains(string(data), `"100Mi"`) {
			t.Errorf("%s, %v", data, err)
		}
	})
	t.Run("rights are the tenant's", func(t *testing.T) {
		config := *p.asAdmin
		config.Impersonate.UserName = "nobody"
		nobody, err := metricsclient.NewForConfig(&config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nobody.MetricsV1beta1().PodMetricses(space).List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("somebody without rights: %v", err)
		}
	})
	t.Run("autoscaler", p.testAutoscaler)
	t.Run("a metrics server of the tenant's own", func(t *testing.T) {
		apiServices := services.ApiregistrationV1().APIServices()
		service, err := apiServices.Get(ctx, "v1beta1.metrics.k8s.io", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := apiServices.Delete(ctx, service.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "it is back", func(ctx context.Context) (string, error) {
			again, err := apiServices.Get(ctx, service.Name, metav1.GetOptions{})
			if err != nil {
				return "", err
			}
			return string(again.UID), nil
		}, func(uid string) bool { return uid != string(service.UID) })
		eventually(t, "put another in the place", func(ctx context.Context) error {
			own, err := apiServices.Get(ctx, service.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			own.Annotations = nil
			own.Spec.Service = &apiregistrationv1.ServiceReference{Namespace: space, Name: "metrics-server"}
			own.Spec.InsecureSkipTLSVerify = true
			_, err = apiServices.Update(ctx, own, metav1.UpdateOptions{})
			return err
		})
		eventually(t, "it is asked", func(ctx context.Context) error {
			_, err := usage.MetricsV1beta1().PodMetricses(space).List(ctx, metav1.ListOptions{})
			if apierrors.IsServiceUnavailable(err) {
				return nil
			}
			return fmt.Errorf("not the one that does not run: %v", err)
		})
		if err := apiServices.Delete(ctx, service.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "ours serves again", func(ctx context.Context) error {
			_, err := usage.MetricsV1beta1().PodMetricses(space).List(ctx, metav1.ListOptions{})
			return err
		})
	})
	t.Run("the host's metrics are gone", func(t *testing.T) {
		m.exists.Store(false)
		eventually(t, "so are the tenant's", func(ctx context.Context) error {
			_, err := usage.MetricsV1beta1().PodMetricses(space).List(ctx, metav1.ListOptions{})
			if !apierrors.IsNotFound(err) || served() {
				return fmt.Errorf("still served: %v", err)
			}
			return nil
		})
	})
}

// testAutoscaler: one pod that uses 100 Mi, where 40 Mi are wanted, becomes
// three.
func (p *planes) testAutoscaler(t *testing.T) {
	ctx := t.Context()
	labels := map[string]string{"app": "scaled"}
	template := pod("scaled").Spec
	template.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("10Mi")}
	if _, err := p.virtual.AppsV1().Deployments(space).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "scaled"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: template},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.virtual.AutoscalingV2().HorizontalPodAutoscalers(space).Create(ctx, &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "scaled"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "scaled"},
			MaxReplicas:    3,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name:   corev1.ResourceMemory,
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewQuantity(40<<20, resource.BinarySI)},
			}}},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, 2*patience, "the autoscaler scales", func(ctx context.Context) error {
		deployment, err := p.virtual.AppsV1().Deployments(space).Get(ctx, "scaled", metav1.GetOptions{})
		if err == nil && deployment.Status.ReadyReplicas != 3 {
			err = fmt.Errorf("%d of 3 pods are ready", deployment.Status.ReadyReplicas)
		}
		return err
	})
}
