package controlplane

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	flowcontrolbootstrap "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatorclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	"k8s.io/kubernetes/pkg/controlplane/controller/legacytokentracking"
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

// TestSeededAsMade compares what is seeded instead of being made by upstream's
// controllers with what the API server itself makes of the same wish.
func TestSeededAsMade(t *testing.T) {
	p := start(t, t.TempDir(), nil)
	ctx := t.Context()
	ignoreMade := cmpopts.IgnoreFields(metav1.ObjectMeta{}, "Name", "UID", "ResourceVersion", "CreationTimestamp", "ManagedFields")

	t.Run("APIServices", func(t *testing.T) {
		etcd := p.server.storage.opened.Load().client
		stored, err := etcd.Get(ctx, "/registry/apiregistration.k8s.io/apiservices/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
		must(t, "reading them", err)
		if len(stored.Kvs) < 20 {
			t.Errorf("there are %d only", len(stored.Kvs))
		}
		for _, kv := range stored.Kvs {
			if kv.Version != 1 || kv.CreateRevision != stored.Kvs[0].CreateRevision {
				t.Errorf("%s was not seeded, or changed: revision %d, version %d", kv.Key, kv.CreateRevision, kv.Version)
			}
		}
		client, err := aggregatorclient.NewForConfig(p.Config())
		must(t, "making a client", err)
		services := client.ApiregistrationV1().APIServices()
		seeded, err := services.Get(ctx, "v1.batch", metav1.GetOptions{})
		must(t, "reading one", err)
		must(t, "deleting it", services.Delete(ctx, seeded.Name, metav1.DeleteOptions{}))
		made, err := services.Create(ctx, &apiregistrationv1.APIService{
			ObjectMeta: metav1.ObjectMeta{Name: seeded.Name, Labels: seeded.Labels},
			Spec:       seeded.Spec,
		}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			// The API server's own controller, which looks at each once, was faster.
			made, err = services.Get(ctx, seeded.Name, metav1.GetOptions{})
		}
		must(t, "creating it", err)
		if diff := cmp.Diff(made, seeded, ignoreMade, cmpopts.IgnoreFields(apiregistrationv1.APIServiceCondition{}, "LastTransitionTime")); diff != "" {
			t.Errorf("made, and seeded (+):\n%s", diff)
		}
	})
	t.Run("TokenTracking", func(t *testing.T) {
		maps := p.client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
		seeded, err := maps.Get(ctx, legacytokentracking.ConfigMapName, metav1.GetOptions{})
		must(t, "reading it", err)
		must(t, "deleting it", maps.Delete(ctx, seeded.Name, metav1.DeleteOptions{}))
		var made *corev1.ConfigMap
		eventually(t, "upstream makes it again", func(ctx context.Context) error {
			made, err = maps.Get(ctx, seeded.Name, metav1.GetOptions{})
			return err
		})
		if diff := cmp.Diff(made, seeded, ignoreMade); diff != "" {
			t.Errorf("made, and seeded (+):\n%s", diff)
		}
	})
	t.Run("Service", func(t *testing.T) {
		services := p.client.CoreV1().Services(metav1.NamespaceDefault)
		seeded, err := services.Get(ctx, kubernetesServiceName, metav1.GetOptions{})
		must(t, "reading it", err)
		if seeded.UID == "" || seeded.CreationTimestamp.IsZero() {
			t.Errorf("it has UID %q and was created at %v", seeded.UID, seeded.CreationTimestamp)
		}
		made, err := services.Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "like-it", Labels: seeded.Labels},
			Spec:       corev1.ServiceSpec{Ports: seeded.Spec.Ports},
		}, metav1.CreateOptions{})
		must(t, "creating another", err)
		address := func(service *corev1.Service) *networkingv1.IPAddress {
			ip, err := p.client.NetworkingV1().IPAddresses().Get(ctx, service.Spec.ClusterIP, metav1.GetOptions{})
			must(t, "reading the address of "+service.Name, err)
			return ip
		}
		if diff := cmp.Diff(address(made), address(seeded), ignoreMade, cmpopts.IgnoreFields(networkingv1.ParentReference{}, "Name")); diff != "" {
			t.Errorf("address made, and seeded (+):\n%s", diff)
		}
		if diff := cmp.Diff(made, seeded, ignoreMade, cmpopts.IgnoreFields(corev1.ServiceSpec{}, "ClusterIP", "ClusterIPs")); diff != "" {
			t.Errorf("made, and seeded (+):\n%s", diff)
		}
	})
	t.Run("ServiceCIDR", func(t *testing.T) {
		ranges := p.client.NetworkingV1().ServiceCIDRs()
		seeded, err := ranges.Get(ctx, "kubernetes", metav1.GetOptions{})
		must(t, "reading it", err)
		made, err := ranges.Create(ctx, &networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{Name: "like-it"},
			Spec:       networkingv1.ServiceCIDRSpec{CIDRs: []string{"172.31.0.0/24"}},
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		must(t, "creating another", err)
		// A controller adds the finalizer to each.
		if diff := cmp.Diff(made, seeded, ignoreMade, cmpopts.IgnoreFields(metav1.ObjectMeta{}, "Finalizers"),
			cmpopts.IgnoreFields(networkingv1.ServiceCIDRSpec{}, "CIDRs"), cmpopts.IgnoreFields(networkingv1.ServiceCIDR{}, "Status")); diff != "" {
			t.Errorf("made, and seeded (+):\n%s", diff)
		}
		if !meta.IsStatusConditionTrue(seeded.Status.Conditions, networkingv1.ServiceCIDRConditionReady) {
			t.Errorf("its conditions are %+v", seeded.Status.Conditions)
		}
	})
}
