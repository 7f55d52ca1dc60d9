//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// TestDeleteLeavesNothing: after a tenant with all sorts of things in it is
// deleted, nothing on the host belongs to it or mentions it.
func TestDeleteLeavesNothing(t *testing.T) {
	s := shared(t)
	const name = "e2e-gone"
	tn := s.newTenant(t, name, "--member", "user:ann=admin", "--quota", "pods=10")
	fill(t, s, tn)
	if left := s.leftovers(t, name); len(left) < 10 {
		t.Fatalf("the search for what is left is no good: it finds only %v while the tenant lives", left)
	}
	r := s.sublet(t, "delete", name, "--yes")
	if r.code != 0 {
		t.Fatalf("delete: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	t.Logf("deleted within %v", r.took.Round(100*time.Millisecond))
	if _, err := s.host.CoreV1().Namespaces().Get(t.Context(), tn.namespace, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("delete returned, and the namespace is there: %v", err)
	}
	s.nothingLeft(t, name)
}

// TestDeleteOfADeadTenant: a tenant whose control plane cannot run any more is
// deleted like any other.
func TestDeleteOfADeadTenant(t *testing.T) {
	s := shared(t)
	const name = "e2e-dead"
	tn := s.newTenant(t, name, "--ephemeral")
	fill(t, s, tn)
	// Its image is gone, and so is its process for good.
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"virtualCluster":{"image":"sublet.invalid/gone:1"}}}`))
	if err := s.objects.Patch(t.Context(), &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}}, patch); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the control plane is dead", func() error {
		if err := tn.RESTClient().Get().AbsPath("/readyz").Timeout(2 * time.Second).Do(t.Context()).Error(); err == nil {
			return errors.New("its API answers")
		}
		return nil
	})
	eventually(t, time.Minute, "the tenant says so", func() error {
		var object api.Tenant
		if err := s.objects.Get(t.Context(), namespacedName("", name), &object); err != nil {
			return err
		}
		if condition := meta.FindStatusCondition(object.Status.Conditions, api.ConditionReady); condition == nil || condition.Status != metav1.ConditionFalse || !strings.Contains(condition.Message, "sublet.invalid/gone:1") {
			return fmt.Errorf("phase %s, condition %+v", object.Status.Phase, condition)
		}
		return nil
	})
	if r := s.sublet(t, "delete", name, "--yes"); r.code != 0 {
		t.Fatalf("delete: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	s.nothingLeft(t, name)
}

// fill puts a pod, a Service, a volume and what they refer to in a tenant.
func fill(t *testing.T, s *suite, tn *tenant) {
	t.Helper()
	ctx := t.Context()
	ns := "filled"
	if _, err := tn.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tn.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "config"}, Data: map[string]string{"a": "b"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tn.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "secret"}, StringData: map[string]string{"a": "b"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tn.CoreV1().Services(ns).Create(ctx, newService("web"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data", Finalizers: []string{"example.com/never-removed"}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("16Mi")}},
		},
	}
	if _, err := tn.CoreV1().PersistentVolumeClaims(ns).Create(ctx, claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := newServer("web")
	pod.Finalizers = []string{"example.com/never-removed"}
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "config"}}}},
		{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "secret"}}},
		{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
	}
	eventually(t, 20*time.Second, "the pod is accepted", func() error {
		_, err := tn.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{})
		return err
	})
	tn.ready(t, ns, "web")
	if _, err := s.hostPod(ctx, tn, ns, "web"); err != nil {
		t.Fatal(err)
	}
}

// nothingLeft waits for what the host removes behind a deleted tenant, such as
// its volumes, and fails if anything stays.
func (s *suite) nothingLeft(t *testing.T, name string) {
	t.Helper()
	eventually(t, time.Minute, "nothing on the host belongs to "+name, func() error {
		if left := s.leftovers(t, name); len(left) > 0 {
			return fmt.Errorf("left: %s", strings.Join(left, ", "))
		}
		return nil
	})
}

// leftovers lists all objects of the host, of every kind, that belong to a tenant:
// by label, by namespace, by name, or since they refer to its namespace.
func (s *suite) leftovers(t *testing.T, name string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	lists, err := s.host.Discovery().ServerPreferredResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		t.Fatal(err)
	}
	var left []string
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, resource := range list.APIResources {
			// Events tell what happened, and expire by themselves.
			if !slices.Contains(resource.Verbs, "list") || resource.Kind == "Event" {
				continue
			}
			objects, err := s.dynamic.Resource(gv.WithResource(resource.Name)).List(ctx, metav1.ListOptions{})
			if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
				continue
			}
			if err != nil {
				t.Fatalf("list %s: %v", resource.Name, err)
			}
			for _, object := range objects.Items {
				if belongs(object, name) {
					left = append(left, strings.TrimPrefix(fmt.Sprintf("%s %s/%s", resource.Name, object.GetNamespace(), object.GetName()), "/"))
				}
			}
		}
	}
	return left
}

func belongs(object unstructured.Unstructured, tenant string) bool {
	if object.GetNamespace() == tenant || object.GetLabels()[api.LabelTenant] == tenant {
		return true
	}
	if object.GetNamespace() == "" && (object.GetName() == tenant || strings.Contains(object.GetName(), tenant)) {
		return true
	}
	claimed, _, _ := unstructured.NestedString(object.Object, "spec", "claimRef", "namespace")
	if claimed == tenant {
		return true
	}
	subjects, _, _ := unstructured.NestedSlice(object.Object, "subjects")
	for _, subject := range subjects {
		if fields, ok := subject.(map[string]any); ok && fields["namespace"] == tenant {
			return true
		}
	}
	return false
}
