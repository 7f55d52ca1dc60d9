package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// testPodLimits: what pods and claims of a Namespace tenant ask of the host's
// nodes and storage is bounded by the host itself, and what every pod must have it
// gets.
func testPodLimits(h *managedHost) {
	t := h.t
	for _, object := range []client.Object{
		&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "gvisor"}, Handler: "runsc"},
		&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "kata"}, Handler: "kata"},
		&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "bare"}, Handler: "runc"},
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "low"}, Value: -10},
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000},
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "limited"}, Provisioner: "example.com/none"},
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "unlimited"}, Provisioner: "example.com/none"},
	} {
		h.create(object)
		t.Cleanup(func() {
			if err := h.client.Delete(context.WithoutCancel(t.Context()), object); client.IgnoreNotFound(err) != nil {
				t.Error(err)
			}
		})
	}
	fenced := namespaceTenant("fenced")
	fenced.Spec.Limits = &api.Limits{
		NodeSelector: map[string]string{"example.com/pool": "gpu", "zone": "a"},
		RuntimeClass: "gvisor", RuntimeClasses: []string{"kata"}, PriorityClasses: []string{"low"}, StorageClasses: []string{"limited"},
		Tolerations: []corev1.Toleration{
			{Key: "dedicated", Value: "gpu", Effect: corev1.TaintEffectNoSchedule},
			{Key: "spot", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(300))},
		},
	}
	h.create(fenced)
	// One without limits: no class, no taint, any storage.
	h.create(namespaceTenant("open"))
	for _, name := range []string{"fenced", "open"} {
		h.waitFor(name, api.ConditionReady, "Ready")
	}
	admin := h.as("admin@example.com", "system:masters")

	pod := func(namespace string, edit ...func(*corev1.Pod)) *corev1.Pod {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "example.com/c"}}},
		}
		for _, e := range edit {
			e(pod)
		}
		return pod
	}
	runtimeClass := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.RuntimeClassName = &name }
	}
	priority := func(name string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.PriorityClassName = name } }
	tolerates := func(all ...corev1.Toleration) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Tolerations = all }
	}
	selects := func(key, value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{key: value} }
	}
	spot := func(operator corev1.TolerationOperator, value string, seconds *int64) corev1.Toleration {
		return corev1.Toleration{Key: "spot", Operator: operator, Value: value, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds}
	}
	gpu := corev1.Toleration{Key: "dedicated", Value: "gpu", Effect: corev1.TaintEffectNoSchedule}
	claim := func(namespace string, class *string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "c"},
			Spec: corev1.PersistentVolumeClaimSpec{
				StorageClassName: class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		}
	}

	// Each is refused with these words, or allowed where there are none.
	tests := map[string]struct {
		object client.Object
		words  string
	}{
		"nothing said":                       {pod("fenced"), ""},
		"a runtime class of the limits":      {pod("fenced", runtimeClass("kata")), ""},
		"another runtime class":              {pod("fenced", runtimeClass("bare")), `the runtime class "bare" may not be used by this tenant, only gvisor, kata: the limits.runtimeClasses`},
		"a runtime class without limits":     {pod("open", runtimeClass("bare")), `only none`},
		"a priority class of the limits":     {pod("fenced", priority("low")), ""},
		"another priority class":             {pod("fenced", priority("high")), `the priority class "high" may not be used by this tenant, only low: the limits.priorityClasses`},
		"a system's priority class":          {pod("open", priority("system-node-critical")), `the priority class "system-node-critical" may not be used by this tenant, only none`},
		"the control plane's priority class": {pod("open", priority(api.ControlPlanePriorityClass)), "forbidden"},
		"a node of another pool":             {pod("fenced", selects("example.com/pool", "other")), ""},
		"a toleration of the limits":         {pod("fenced", tolerates(gpu)), ""},
		"one for all effects":                {pod("fenced", tolerates(corev1.Toleration{Key: "dedicated", Value: "gpu"})), `may not tolerate the taint "dedicated"`},
		"one for another value":              {pod("fenced", tolerates(corev1.Toleration{Key: "dedicated", Value: "db", Effect: gpu.Effect})), `may not tolerate the taint "dedicated"`},
		"one for all values":                 {pod("fenced", tolerates(corev1.Toleration{Key: "dedicated", Operator: corev1.TolerationOpExists, Effect: gpu.Effect})), `may not tolerate the taint "dedicated"`},
		"one for all keys":                   {pod("fenced", tolerates(gpu, corev1.Toleration{Operator: corev1.TolerationOpExists})), `may not tolerate the taint of any key`},
		"one for a while":                    {pod("fenced", tolerates(spot(corev1.TolerationOpExists, "", new(int64(300))))), ""},
		"one for a value and a while":        {pod("fenced", tolerates(spot("", "x", new(int64(10))))), ""},
		"one for too long":                   {pod("fenced", tolerates(spot(corev1.TolerationOpExists, "", new(int64(301))))), `may not tolerate the taint "spot"`},
		"one for ever":                       {pod("fenced", tolerates(spot(corev1.TolerationOpExists, "", nil))), `may not tolerate the taint "spot"`},
		"Kubernetes' own taints":             {pod("open", tolerates(corev1.Toleration{Key: "node.kubernetes.io/memory-pressure", Operator: corev1.TolerationOpExists})), ""},
		"a taint without limits":             {pod("open", tolerates(gpu)), `may not tolerate the taint "dedicated"`},
		"posing as the control plane": {pod("open", func(p *corev1.Pod) {
			p.Labels = map[string]string{api.LabelComponent: api.ComponentControlPlane}
		}), "Sublet's manager"},
		"a storage class of the limits":  {claim("fenced", new("limited")), ""},
		"another storage class":          {claim("fenced", new("unlimited")), `the storage class "unlimited" may not be used by this tenant, only limited: the limits.storageClasses`},
		"no storage class":               {claim("fenced", new("")), `the storage class "" may not be used`},
		"any storage class":              {claim("open", new("unlimited")), ""},
		"a storage class that is no one": {claim("open", new("")), ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			err := admin.Create(t.Context(), tc.object, client.DryRunAll)
			switch {
			case tc.words == "" && err != nil:
				t.Error(err)
			case tc.words != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), tc.words)):
				t.Errorf("got %v, want %q", err, tc.words)
			}
			made, ok := tc.object.(*corev1.Pod)
			if tc.words != "" || !ok || made.Namespace != "fenced" {
				return
			}
			if s := made.Spec.NodeSelector; s["example.com/pool"] != "gpu" || s["zone"] != "a" {
				t.Errorf("it may run on nodes with %v", s)
			}
			if made.Spec.RuntimeClassName == nil {
				t.Error("it has no runtime class")
			}
		})
	}

	t.Run("a toleration added later", func(t *testing.T) {
		there := pod("fenced", tolerates(gpu))
		there.Name = "there"
		if err := admin.Create(t.Context(), there); err != nil {
			t.Fatal(err)
		}
		before := there.DeepCopy()
		there.Spec.Tolerations = append(there.Spec.Tolerations, corev1.Toleration{Key: "other", Operator: corev1.TolerationOpExists})
		if err := admin.Patch(t.Context(), there, client.MergeFrom(before)); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `the taint "other"`) {
			t.Errorf("got %v", err)
		}
		// What it has it keeps, even if the limit goes.
		h.change("fenced", func(spec *api.TenantSpec) { spec.Limits.Tolerations = nil })
		h.eventually("the limit is gone", func(ctx context.Context) error {
			if err := admin.Create(ctx, pod("fenced", tolerates(gpu)), client.DryRunAll); !apierrors.IsForbidden(err) {
				return fmt.Errorf("not refused: %v", err)
			}
			return nil
		})
		after := before.DeepCopy()
		after.Labels = map[string]string{"a": "b"}
		if err := admin.Patch(t.Context(), after, client.MergeFrom(before)); err != nil {
			t.Error(err)
		}
	})
	t.Run("posing by a controller of the host", func(t *testing.T) {
		labels := map[string]string{"app": "posing", api.LabelComponent: api.ComponentControlPlane}
		set := &appsv1.ReplicaSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: "open", Name: "posing"},
			Spec: appsv1.ReplicaSetSpec{
				Replicas: new(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod("open").Spec},
			},
		}
		if err := admin.Create(t.Context(), set); err != nil {
			t.Fatal(err)
		}
		h.eventually("the controller is refused", func(ctx context.Context) error {
			if err := h.client.Get(ctx, client.ObjectKeyFromObject(set), set); err != nil {
				return err
			}
			for _, c := range set.Status.Conditions {
				if c.Type == appsv1.ReplicaSetReplicaFailure && strings.Contains(c.Message, "made by Sublet's manager only") {
					return nil
				}
			}
			return fmt.Errorf("its status is %+v", set.Status)
		})
	})
	t.Run("the host's default priority class", func(t *testing.T) {
		class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "normal"}, Value: 5, GlobalDefault: true}
		h.create(class)
		defer func() {
			if err := h.client.Delete(t.Context(), class); err != nil {
				t.Error(err)
			}
		}()
		for _, name := range []string{"fenced", "open"} {
			h.eventually("pods get the default", func(ctx context.Context) error {
				made := pod(name)
				if err := admin.Create(ctx, made, client.DryRunAll); err != nil {
					return err
				}
				if made.Spec.PriorityClassName != "normal" {
					return fmt.Errorf("it has %q", made.Spec.PriorityClassName)
				}
				return nil
			})
		}
	})
}
