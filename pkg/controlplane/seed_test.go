package controlplane

import (
	"context"
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	flowcontrolbootstrap "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
)

// TestSeededFlowControl checks that priority and fairness finds what it begins
// with, as it would have made it, and makes what is missing.
func TestSeededFlowControl(t *testing.T) {
	p := start(t, t.TempDir(), nil)
	ctx := t.Context()
	client := p.client.FlowcontrolV1()
	levels, err := client.PriorityLevelConfigurations().List(ctx, metav1.ListOptions{})
	must(t, "listing levels", err)
	flows, err := client.FlowSchemas().List(ctx, metav1.ListOptions{})
	must(t, "listing flows", err)
	want := len(flowcontrolbootstrap.MandatoryPriorityLevelConfigurations) + len(flowcontrolbootstrap.SuggestedPriorityLevelConfigurations)
	if len(levels.Items) != want {
		t.Errorf("%d levels, want %d", len(levels.Items), want)
	}
	want = len(flowcontrolbootstrap.MandatoryFlowSchemas) + len(flowcontrolbootstrap.SuggestedFlowSchemas)
	if len(flows.Items) != want {
		t.Errorf("%d flows, want %d", len(flows.Items), want)
	}

	// Nothing is wrong with them that upstream would set right.
	etcd := p.server.storage.opened.Load().client
	stored, err := etcd.Get(ctx, "/registry/prioritylevelconfigurations/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	must(t, "reading levels", err)
	first := stored.Kvs[0].CreateRevision
	for _, kv := range stored.Kvs {
		if kv.Version != 1 || kv.CreateRevision != first {
			t.Errorf("%s was not seeded, or changed: revision %d, version %d", kv.Key, kv.CreateRevision, kv.Version)
		}
	}
	for _, flow := range flows.Items {
		if flow.Generation != 1 || flow.UID == "" {
			t.Errorf("%s has generation %d and UID %q", flow.Name, flow.Generation, flow.UID)
		}
	}

	// A flow that is created by the API server looks the same.
	gone, err := client.FlowSchemas().Get(ctx, "probes", metav1.GetOptions{})
	must(t, "reading a flow", err)
	must(t, "deleting it", client.FlowSchemas().Delete(ctx, "probes", metav1.DeleteOptions{}))
	again := gone.DeepCopy()
	again.ObjectMeta = metav1.ObjectMeta{Name: gone.Name, Annotations: gone.Annotations}
	made, err := client.FlowSchemas().Create(ctx, again, metav1.CreateOptions{})
	must(t, "creating it", err)
	if fmt.Sprint(made.Spec) != fmt.Sprint(gone.Spec) || made.Generation != gone.Generation || fmt.Sprint(made.Annotations) != fmt.Sprint(gone.Annotations) {
		t.Errorf("seeded %+v, created %+v", gone, made)
	}
	eventually(t, "each flow has its level", func(ctx context.Context) error {
		list, err := client.FlowSchemas().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, flow := range list.Items {
			if len(flow.Status.Conditions) != 1 || flow.Status.Conditions[0].Status != "False" {
				return fmt.Errorf("%s: %+v", flow.Name, flow.Status.Conditions)
			}
		}
		return nil
	})
}
