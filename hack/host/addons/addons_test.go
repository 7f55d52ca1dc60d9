package addons

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRender(t *testing.T) {
	objects, err := Render(Values{
		CoreDNSImage:       "coredns:test",
		MetricsServerImage: "metrics-server:test",
		ClusterDomain:      "cluster.test",
		DNSAddress:         netip.MustParseAddr("10.96.0.10"),
		Provisioner:        "sublet.dev/test",
	}, Storage, DNS, Metrics)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, object := range objects {
		got = append(got, object.GetKind()+" "+object.GetName())
		if _, err := resourceOf(object); err != nil {
			t.Error(err)
		}
	}
	want := []string{
		"StorageClass local-path",
		"ServiceAccount coredns",
		"ClusterRole system:coredns",
		"ClusterRoleBinding system:coredns",
		"ConfigMap coredns",
		"Deployment coredns",
		"Service kube-dns",
		"ServiceAccount metrics-server",
		"ClusterRole system:aggregated-metrics-reader",
		"ClusterRole system:metrics-server",
		"ClusterRoleBinding system:metrics-server",
		"ClusterRoleBinding metrics-server:system:auth-delegator",
		"RoleBinding metrics-server-auth-reader",
		"Deployment metrics-server",
		"Service metrics-server",
		"APIService v1beta1.metrics.k8s.io",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
}

func TestNodeReady(t *testing.T) {
	cases := map[string]struct {
		conditions []corev1.NodeCondition
		ready      bool
	}{
		"nothing told":     {},
		"other conditions": {conditions: []corev1.NodeCondition{{Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue}}},
		"not ready":        {conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse}}},
		"unknown":          {conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}}},
		"ready":            {conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}, ready: true},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			err := nodeReady(&corev1.Node{Status: corev1.NodeStatus{Conditions: test.conditions}})
			if (err == nil) != test.ready {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDeploymentReady(t *testing.T) {
	cases := map[string]struct {
		status appsv1.DeploymentStatus
		ready  bool
	}{
		"not seen yet":    {status: appsv1.DeploymentStatus{ObservedGeneration: 1, UpdatedReplicas: 1, AvailableReplicas: 1}},
		"not available":   {status: appsv1.DeploymentStatus{ObservedGeneration: 2, UpdatedReplicas: 1}},
		"only an old one": {status: appsv1.DeploymentStatus{ObservedGeneration: 2, AvailableReplicas: 1}},
		"available":       {status: appsv1.DeploymentStatus{ObservedGeneration: 2, UpdatedReplicas: 1, AvailableReplicas: 1}, ready: true},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			err := deploymentReady(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Generation: 2}, Status: test.status})
			if (err == nil) != test.ready {
				t.Errorf("got %v", err)
			}
		})
	}
}
