package integration

import (
	"context"
	"fmt"
	"strings"

	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// testHostClaims: of two tenants that claim one host name, the later one is told,
// and hears nothing about the other.
func testHostClaims(h *managedHost) {
	t := h.t
	for _, name := range []string{"claims-first", "claims-second"} {
		tenant := namespaceTenant(name)
		tenant.Spec.Limits = &api.Limits{Hosts: []string{"*.claims.example.com"}}
		h.create(tenant)
		h.waitForPhase(name, api.PhaseReady)
	}
	admin := h.as("admin@example.com", "system:masters")
	prefix := networkingv1.PathTypePrefix
	ingress := func(namespace, name, host string) *networkingv1.Ingress {
		return &networkingv1.Ingress{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{
				Host: host, IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
					Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: &prefix, Backend: networkingv1.IngressBackend{
						Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}},
					}}},
				}},
			}}},
		}
	}
	create := func(object client.Object) {
		t.Helper()
		h.eventually("create "+object.GetName(), func(ctx context.Context) error { return client.IgnoreAlreadyExists(admin.Create(ctx, object)) })
	}
	free := func(tenant string, want func(*metav1.Condition) bool) {
		t.Helper()
		h.eventually("what "+tenant+" is told", func(ctx context.Context) error {
			c := meta.FindStatusCondition(h.tenant(tenant).Status.Conditions, api.ConditionHostsFree)
			if !want(c) {
				return fmt.Errorf("it is told %+v", c)
			}
			return nil
		})
	}
	nothing := func(c *metav1.Condition) bool { return c == nil }

	create(ingress("claims-first", "private-name", "shop.claims.example.com"))
	// Who came in the same second goes by name, and so is first, too.
	create(ingress("claims-second", "web", "shop.claims.example.com"))
	create(ingress("claims-second", "other", "other.claims.example.com"))
	free("claims-second", func(c *metav1.Condition) bool {
		return c != nil && c.Status == metav1.ConditionFalse && c.Reason == "HostTaken" && strings.Contains(c.Message, "shop.claims.example.com (Ingress web)")
	})
	second := h.tenant("claims-second")
	if said := meta.FindStatusCondition(second.Status.Conditions, api.ConditionHostsFree).Message; strings.Contains(said, "claims-first") || strings.Contains(said, "private-name") || strings.Contains(said, "other.claims") {
		t.Errorf("it says %q", said)
	}
	if second.Status.Phase != api.PhaseReady {
		t.Errorf("its phase is %s", second.Status.Phase)
	}
	free("claims-first", nothing)
	h.eventually("an event on the Ingress", func(ctx context.Context) error {
		events := &eventsv1.EventList{}
		if err := h.client.List(ctx, events, client.InNamespace("claims-second")); err != nil {
			return err
		}
		for _, event := range events.Items {
			if event.Reason != "HostTaken" {
				continue
			}
			if event.Regarding.Kind != "Ingress" || event.Regarding.Name != "web" || strings.Contains(event.Note, "claims-first") || strings.Contains(event.Note, "private-name") {
				t.Fatalf("an event about %s %s says %q", event.Regarding.Kind, event.Regarding.Name, event.Note)
			}
			if strings.Contains(event.Note, "shop.claims.example.com") {
				return nil
			}
		}
		return fmt.Errorf("%d events", len(events.Items))
	})
	events := &eventsv1.EventList{}
	if err := h.client.List(t.Context(), events, client.InNamespace("claims-first")); err != nil {
		t.Fatal(err)
	}
	for _, event := range events.Items {
		if event.Reason == "HostTaken" {
			t.Errorf("the first is told: %q", event.Note)
		}
	}
	// The first one gives it up.
	if err := admin.Delete(t.Context(), ingress("claims-first", "private-name", "")); err != nil {
		t.Fatal(err)
	}
	free("claims-second", nothing)
}
