package syncer

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	testclock "k8s.io/utils/clock/testing"
)

func nodeWith(name, uid string, ready corev1.ConditionStatus) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid)},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}},
	}
}

// TestHeartbeat follows leases through the life of nodes.
func TestHeartbeat(t *testing.T) {
	ctx := context.Background()
	client := fake.NewClientset()
	clock := testclock.NewFakeClock(time.Unix(1_000_000, 0))
	h := newHeartbeat()
	h.clock = clock
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	lease := func(name string) *coordinationv1.Lease {
		t.Helper()
		found, err := leases.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	age := func(name string) time.Duration { return clock.Since(lease(name).Spec.RenewTime.Time) }

	if next := h.renew(ctx, leases, nil); next != 0 {
		t.Errorf("without a node it wakes after %s", next)
	}
	a, b := nodeWith("a", "1", corev1.ConditionTrue), nodeWith("b", "2", corev1.ConditionFalse)
	if next := h.renew(ctx, leases, []*corev1.Node{a, b}); next != minRenewal {
		t.Errorf("it wakes after %s", next)
	}
	if l := lease("a"); *l.Spec.HolderIdentity != "a" || *l.Spec.LeaseDurationSeconds != 40 || l.OwnerReferences[0].UID != "1" {
		t.Errorf("lease %+v", l)
	}
	client.ClearActions()
	clock.Step(5 * time.Second)
	if h.renew(ctx, leases, []*corev1.Node{a, b}); len(client.Actions()) != 0 {
		t.Errorf("asked the API before anything was due: %v", client.Actions())
	}
	clock.Step(15 * time.Second)
	h.renew(ctx, leases, []*corev1.Node{a, b})
	if age("a") != 0 || age("b") != 0 {
		t.Errorf("not renewed: %s, %s; a node that is not ready is alive, too", age("a"), age("b"))
	}

	// The host has lost one. When it is back, its lease is renewed at once.
	b.Status.Conditions[0].Status = corev1.ConditionUnknown
	clock.Step(time.Minute)
	h.renew(ctx, leases, []*corev1.Node{a, b})
	if age("a") != 0 || age("b") != time.Minute {
		t.Errorf("ages %s, %s of an alive node and a lost one", age("a"), age("b"))
	}
	b.Status.Conditions[0].Status = corev1.ConditionTrue
	if h.renew(ctx, leases, []*corev1.Node{a, b}); age("b") != 0 {
		t.Errorf("age %s of a node that is back", age("b"))
	}

	// Made anew under the same name.
	if h.renew(ctx, leases, []*corev1.Node{nodeWith("a", "3", corev1.ConditionTrue), b}); lease("a").OwnerReferences[0].UID != "3" {
		t.Error("the lease belongs to an earlier node")
	}
	// Taken away.
	if err := leases.Delete(ctx, "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	clock.Step(minRenewal)
	if h.renew(ctx, leases, []*corev1.Node{a, b}); age("b") != 0 {
		t.Error("a lease that was deleted is not back")
	}
}

// TestHeartbeatOfManyNodes: many nodes cost no more writes than a few.
func TestHeartbeatOfManyNodes(t *testing.T) {
	ctx := context.Background()
	client := fake.NewClientset()
	clock := testclock.NewFakeClock(time.Unix(1_000_000, 0))
	h := newHeartbeat()
	h.clock = clock
	var nodes []*corev1.Node
	for i := range 100 {
		nodes = append(nodes, nodeWith(fmt.Sprint("n", i), fmt.Sprint(i), corev1.ConditionTrue))
	}
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	if next := h.renew(ctx, leases, nodes); next != 200*time.Second {
		t.Errorf("the next renewal is after %s", next)
	}
	lease, err := leases.Get(ctx, "n7", metav1.GetOptions{})
	if err != nil || *lease.Spec.LeaseDurationSeconds != 400 {
		t.Errorf("a lease is valid for %d s, %v", *lease.Spec.LeaseDurationSeconds, err)
	}
}

// TestHeartbeatFails: an API that refuses is asked again later, not at once.
func TestHeartbeatFails(t *testing.T) {
	ctx := context.Background()
	client := fake.NewClientset()
	client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("no")
	})
	h := newHeartbeat()
	h.clock = testclock.NewFakeClock(time.Unix(1_000_000, 0))
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	if next := h.renew(ctx, leases, []*corev1.Node{nodeWith("a", "1", corev1.ConditionTrue)}); next != minRenewal {
		t.Errorf("it tries again after %s", next)
	}
}
