//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// TestAudit: what a tenant's policy names is in the log of its control plane, and
// a policy that cannot be leaves the control plane as it is.
func TestAudit(t *testing.T) {
	s := shared(t)
	ctx := t.Context()
	const name = "e2e-audit"
	t.Cleanup(func() { s.cleanUp(t, name) })
	object := &api.Tenant{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: api.TenantSpec{Type: api.VirtualCluster, VirtualCluster: &api.VirtualClusterSpec{
			Storage: &api.StorageSpec{Type: api.StorageEmptyDir},
			Audit: &api.AuditSpec{
				Rules:      []api.AuditRule{{Level: "Request", Verbs: []string{"create"}, Resources: []api.AuditResources{{Resources: []string{"configmaps"}}}, Namespaces: []string{"default"}}},
				OmitStages: []api.AuditStage{"RequestReceived"},
			},
		}},
	}
	if err := s.objects.Create(ctx, object); err != nil {
		t.Fatal(err)
	}
	ready := func() error {
		if err := s.objects.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		if object.Status.Phase != api.PhaseReady {
			return fmt.Errorf("phase %s: %+v", object.Status.Phase, object.Status.Conditions)
		}
		return nil
	}
	eventually(t, 2*time.Minute, "the tenant is ready", ready)
	tn, err := s.open(t, name)
	if err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{"default", "kube-public"} {
		_, err := tn.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "noted"}, Data: map[string]string{"a": "b"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	type event struct {
		Kind, Level, Verb string
		ObjectRef         struct{ Namespace, Name string }
		RequestObject     struct{ Data map[string]string }
	}
	var found []event
	eventually(t, 30*time.Second, "the log has the event", func() error {
		found = nil
		content, err := s.host.CoreV1().Pods(tn.namespace).GetLogs(api.ControlPlanePod, &corev1.PodLogOptions{}).DoRaw(ctx)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(content)) {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil && e.Kind == "Event" && e.ObjectRef.Name == "noted" {
				found = append(found, e)
			}
		}
		if len(found) == 0 {
			return fmt.Errorf("not in %d bytes", len(content))
		}
		return nil
	})
	if len(found) != 1 || found[0].ObjectRef.Namespace != "default" || found[0].Level != "Request" || found[0].RequestObject.Data["a"] != "b" {
		t.Errorf("written down is %+v", found)
	}

	pod, err := s.host.CoreV1().Pods(tn.namespace).Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wrong := `{"spec":{"virtualCluster":{"audit":{"rules":[{"level":"Metadata","nonResourceURLs":["/version"],"resources":[{"resources":["pods"]}]}]}}}}`
	if err := s.objects.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(wrong))); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the tenant says what is wrong", func() error {
		if err := s.objects.Get(context.Background(), client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		for _, condition := range object.Status.Conditions {
			if strings.Contains(condition.Message, "spec.virtualCluster.audit.rules[0]") {
				return nil
			}
		}
		return fmt.Errorf("conditions %+v", object.Status.Conditions)
	})
	again, err := s.host.CoreV1().Pods(tn.namespace).Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
	if err != nil || again.UID != pod.UID {
		t.Errorf("the control plane was replaced for a policy that cannot be: %v", err)
	}
}
