package controlplane

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
)

// TestLateControllers checks that controllers begin to work with their first
// object, that of an earlier run included, and not before.
func TestLateControllers(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir, nil)
	ctx := t.Context()
	// Workers are methods of types that only these controllers have.
	const (
		deployments = "deployment.(*DeploymentController)"
		quotas      = "resourcequota.(*Controller)"
		jobs        = "job.(*Controller)"
	)
	eventually(t, "the others work", func(context.Context) error { return runs("namespace.(*NamespaceController)") })
	for _, worker := range []string{deployments, quotas, jobs} {
		if runs(worker) == nil {
			t.Errorf("%s works, and there is nothing to do for it", worker)
		}
	}

	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	replicas := int32(2)
	_, err := p.client.AppsV1().Deployments("default").Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template},
	}, metav1.CreateOptions{})
	must(t, "creating a deployment", err)
	pods := func(ctx context.Context, want int) error {
		list, err := p.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil || len(list.Items) != want {
			return fmt.Errorf("%d pods, %v", len(list.Items), err)
		}
		return nil
	}
	eventually(t, "its pods", func(ctx context.Context) error { return pods(ctx, 2) })
	if err := runs(jobs); err == nil {
		t.Error("the Job controller works for a Deployment's pods")
	}

	_, err = p.client.CoreV1().ResourceQuotas("default").Create(ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "pods"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"pods": resource.MustParse("5")}},
	}, metav1.CreateOptions{})
	must(t, "creating a quota", err)
	eventually(t, "what is used", func(ctx context.Context) error {
		quota, err := p.client.CoreV1().ResourceQuotas("default").Get(ctx, "pods", metav1.GetOptions{})
		if used := quota.Status.Used["pods"]; err != nil || used.Value() != 2 {
			return fmt.Errorf("%v, %v", quota.Status.Used, err)
		}
		return nil
	})

	// A pod whose Job is long gone is let go, without any Job.
	_, err = p.client.CoreV1().Pods("default").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "orphan", Finalizers: []string{batchv1.JobTrackingFinalizer}},
		Spec:       template.Spec,
	}, metav1.CreateOptions{})
	must(t, "creating a pod that a Job has left", err)
	eventually(t, "the pod is let go", func(ctx context.Context) error {
		pod, err := p.client.CoreV1().Pods("default").Get(ctx, "orphan", metav1.GetOptions{})
		if err != nil || len(pod.Finalizers) > 0 {
			return fmt.Errorf("finalizers %v, %v", pod.Finalizers, err)
		}
		return nil
	})

	must(t, "stopping", p.stop())
	p = start(t, dir, nil)
	must(t, "deleting a pod", p.client.CoreV1().Pods("default").DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=web"}))
	eventually(t, "its pods again, after a restart", func(ctx context.Context) error { return pods(ctx, 2) })
}

// runs tells whether a goroutine has a function of that name on its stack.
func runs(function string) error {
	var stacks bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		return err
	}
	if !strings.Contains(stacks.String(), function) {
		return fmt.Errorf("%s does not run", function)
	}
	return nil
}

// TestFirstObjects looks at those controllers that not every object wakes.
func TestFirstObjects(t *testing.T) {
	condition := func(kind corev1.PodConditionType) []corev1.PodCondition {
		return []corev1.PodCondition{{Type: kind, Status: corev1.ConditionTrue}}
	}
	cases := map[string]struct {
		is   func(any) bool
		pod  *corev1.Pod
		want bool
	}{
		"a plain pod has no ephemeral volume": {podOf(hasEphemeralVolume), &corev1.Pod{Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v"}}}}, false},
		"an ephemeral volume": {podOf(hasEphemeralVolume), &corev1.Pod{Spec: corev1.PodSpec{Volumes: []corev1.Volume{
			{Name: "v"}, {Name: "e", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}},
		}}}, true},
		"a plain pod has no Job":      {podOf(isTrackedByJob), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{"other"}}}, false},
		"a Job's pod":                 {podOf(isTrackedByJob), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{"other", batchv1.JobTrackingFinalizer}}}, true},
		"a plain pod is not evicted":  {podOf(isDisruptionTarget), &corev1.Pod{Status: corev1.PodStatus{Conditions: condition(corev1.PodReady)}}, false},
		"a pod about to be disrupted": {podOf(isDisruptionTarget), &corev1.Pod{Status: corev1.PodStatus{Conditions: condition(corev1.DisruptionTarget)}}, true},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			if got := test.is(test.pod); got != test.want {
				t.Errorf("it wakes: %v", got)
			}
		})
	}
	if hasJob := podOf(isTrackedByJob); hasJob(&corev1.Service{}) {
		t.Error("something else than a pod wakes it")
	}
}

// TestLateControllersAreKnown checks that each name is that of a controller that
// tenants have.
func TestLateControllersAreKnown(t *testing.T) {
	if err := wakeLate([]firstObjects{{wakes: map[string]func(any) bool{names.NodeLifecycleController: anyObject}}}, nil); err == nil {
		t.Error("a controller that is not there was accepted")
	}
}
