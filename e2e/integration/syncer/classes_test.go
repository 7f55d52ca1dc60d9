package syncer_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer"
)

// TestClasses: what of the host's classes a tenant sees and may use.
func TestClasses(t *testing.T) {
	p := startPlanesWith(t, planesOptions{config: func(c *api.ControlPlaneConfig) {
		c.PriorityClasses = []string{"gold"}
		c.RuntimeClasses = []string{"kata"}
		c.IngressClasses = []string{"public"}
	}})
	ctx := t.Context()
	create := metav1.CreateOptions{}
	// Those that are not to be shown come first: once the others are there, they
	// have been looked at.
	for _, name := range []string{"platinum", "gold"} {
		class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: 1000, GlobalDefault: name == "gold"}
		if _, err := p.host.SchedulingV1().PriorityClasses().Create(ctx, class, create); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"secret", "kata"} {
		class := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Handler: name}
		if _, err := p.host.NodeV1().RuntimeClasses().Create(ctx, class, create); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"internal", "public"} {
		class := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.IngressClassSpec{Controller: "example.com/" + name}}
		if _, err := p.host.NetworkingV1().IngressClasses().Create(ctx, class, create); err != nil {
			t.Fatal(err)
		}
	}
	gold := func(ctx context.Context) (*schedulingv1.PriorityClass, error) {
		return p.virtual.SchedulingV1().PriorityClasses().Get(ctx, "gold", metav1.GetOptions{})
	}
	kata := func(ctx context.Context) (*nodev1.RuntimeClass, error) {
		return p.virtual.NodeV1().RuntimeClasses().Get(ctx, "kata", metav1.GetOptions{})
	}
	public := func(ctx context.Context) (*networkingv1.IngressClass, error) {
		return p.virtual.NetworkingV1().IngressClasses().Get(ctx, "public", metav1.GetOptions{})
	}

	t.Run("shown", func(t *testing.T) {
		waitFor(t, "priority class", gold, func(c *schedulingv1.PriorityClass) bool { return c.Value == 1000 && !c.GlobalDefault })
		waitFor(t, "runtime class", kata, func(c *nodev1.RuntimeClass) bool { return c.Handler == "kata" })
		waitFor(t, "ingress class", public, func(c *networkingv1.IngressClass) bool { return c.Spec.Controller == "example.com/public" })
		if _, err := p.virtual.SchedulingV1().PriorityClasses().Get(ctx, "platinum", metav1.GetOptions{}); err == nil {
			t.Error("a priority class that the limits do not name is shown")
		}
		if _, err := p.virtual.NodeV1().RuntimeClasses().Get(ctx, "secret", metav1.GetOptions{}); err == nil {
			t.Error("a runtime class that the limits do not name is shown")
		}
		if _, err := p.virtual.NetworkingV1().IngressClasses().Get(ctx, "internal", metav1.GetOptions{}); err == nil {
			t.Error("an ingress class that the limits do not name is shown")
		}
	})

	t.Run("the tenant cannot change them for long", func(t *testing.T) {
		if err := p.virtual.NetworkingV1().IngressClasses().Delete(ctx, "public", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "it is back", public, nil)
		class, err := gold(ctx)
		if err != nil {
			t.Fatal(err)
		}
		class.Description = "mine"
		if _, err := p.virtual.SchedulingV1().PriorityClasses().Update(ctx, class, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "as on the host", gold, func(c *schedulingv1.PriorityClass) bool { return c.Description == "" })
	})

	t.Run("made anew on the host", func(t *testing.T) {
		classes := p.host.SchedulingV1().PriorityClasses()
		if err := classes.Delete(ctx, "gold", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := classes.Create(ctx, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, Value: 2000}, create); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the new value", gold, func(c *schedulingv1.PriorityClass) bool { return c.Value == 2000 })
	})

	t.Run("the tenant's own", func(t *testing.T) {
		if _, err := p.virtual.SchedulingV1().PriorityClasses().Create(ctx, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "platinum"}, Value: 7}, create); err != nil {
			t.Fatal(err)
		}
		if _, err := p.virtual.NodeV1().RuntimeClasses().Create(ctx, &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "secret"}, Handler: "x"}, create); err != nil {
			t.Fatal(err)
		}
		allowed := pod("gold")
		allowed.Spec.PriorityClassName, allowed.Spec.RuntimeClassName = "gold", new("kata")
		p.createPod(t, allowed)
		host := waitFor(t, "host pod", p.hostPod("gold"), nil)
		if *host.Spec.Priority != 2000 || *host.Spec.RuntimeClassName != "kata" {
			t.Errorf("priority %d, runtime class %q", *host.Spec.Priority, *host.Spec.RuntimeClassName)
		}
		// By the name of one that exists on the host and is not allowed.
		climber := pod("platinum")
		climber.Spec.PriorityClassName = "platinum"
		p.createPod(t, climber)
		host = waitFor(t, "host pod", p.hostPod("platinum"), nil)
		if *host.Spec.Priority != 0 || host.Spec.PriorityClassName != "" {
			t.Errorf("it got the host's priority %d", *host.Spec.Priority)
		}
		sandboxed := pod("secret")
		sandboxed.Spec.RuntimeClassName = new("secret")
		made := p.createPod(t, sandboxed)
		waitFor(t, "refused", func(ctx context.Context) (*corev1.EventList, error) {
			return p.virtual.CoreV1().Events(space).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(made.UID) + ",reason=CannotSync"})
		}, func(l *corev1.EventList) bool { return len(l.Items) > 0 })
		// One of the tenant's own leads to the host's of the same handler.
		if _, err := p.virtual.NodeV1().RuntimeClasses().Create(ctx, &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Handler: "kata"}, create); err != nil {
			t.Fatal(err)
		}
		own := pod("mine")
		own.Spec.RuntimeClassName = new("mine")
		p.createPod(t, own)
		host = waitFor(t, "host pod", p.hostPod("mine"), nil)
		if *host.Spec.RuntimeClassName != "kata" {
			t.Errorf("runtime class %q on the host", *host.Spec.RuntimeClassName)
		}
	})

	t.Run("limits taken back", func(t *testing.T) {
		p.stopSyncer()
		config := p.config
		config.PriorityClasses, config.RuntimeClasses, config.IngressClasses = nil, nil, []string{"other"}
		again, err := syncer.New(syncer.Options{Config: config, Virtual: p.asAdmin, Host: p.asSyncer})
		if err != nil {
			t.Fatal(err)
		}
		run(t, again.Run)
		gone(t, "priority class", gold)
		gone(t, "runtime class", kata)
		gone(t, "ingress class", public)
		// Without limits for them, no class of the host is read at all.
		late := pod("late")
		late.Spec.RuntimeClassName = new("mine")
		made := p.createPod(t, late)
		waitFor(t, "refused", func(ctx context.Context) (*corev1.EventList, error) {
			return p.virtual.CoreV1().Events(space).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(made.UID) + ",reason=CannotSync"})
		}, func(l *corev1.EventList) bool { return len(l.Items) > 0 })
		if _, err := p.virtual.SchedulingV1().PriorityClasses().Get(ctx, "platinum", metav1.GetOptions{}); err != nil {
			t.Errorf("the tenant's own class: %v", err)
		}
	})
}
