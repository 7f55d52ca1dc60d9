package syncer

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sublet-dev/sublet/syncer/engine"
	"github.com/sublet-dev/sublet/syncer/translate"
)

const (
	// minRenewal is how often the lease of a node is renewed, at most.
	minRenewal = 20 * time.Second
	// renewalShare is the time that the renewals of a tenant are apart: the more
	// nodes it sees, the longer each lease lasts, so that what an idle tenant
	// writes does not grow with the host.
	renewalShare = 2 * time.Second
)

// heartbeat renews the leases of the nodes in the tenant (kube-node-lease), as
// their kubelets do on the host.
//
// It goes by the host's word on the node, the condition Ready: as long as that is
// not Unknown, the host takes the kubelet for alive. The host's own leases are
// not read: that would be a right over a namespace that is not the tenant's, and
// one event for each node every ten seconds in each tenant.
type heartbeat struct {
	clock clock.Clock
	// woken tells that nodes have changed.
	woken chan struct{}
	beats map[string]*beat
}

// beat is the lease of one node as it was last written.
type beat struct {
	uid   types.UID
	lease *coordinationv1.Lease
	due   time.Time
}

func newHeartbeat() *heartbeat {
	return &heartbeat{clock: clock.RealClock{}, woken: make(chan struct{}, 1), beats: map[string]*beat{}}
}

// changed is for engine.Options.
func (h *heartbeat) changed(kind schema.GroupKind) {
	if kind != corev1.SchemeGroupVersion.WithKind("Node").GroupKind() {
		return
	}
	select {
	case h.woken <- struct{}{}:
	default: // It knows.
	}
}

// nodesFromHost are the tenant's nodes but for those that it made itself.
func nodesFromHost(e *engine.Engine) []*corev1.Node {
	var nodes []*corev1.Node
	for _, object := range e.VirtualObjects(corev1.SchemeGroupVersion.WithKind("Node").GroupKind()) {
		if node, ok := object.(*corev1.Node); ok && translate.FromHost(node) && node.DeletionTimestamp == nil {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// run renews until ctx ends. Without a node it sleeps.
func (h *heartbeat) run(ctx context.Context, leases coordinationclient.LeaseInterface, nodes func() []*corev1.Node) {
	for {
		var timer <-chan time.Time
		if next := h.renew(ctx, leases, nodes()); next > 0 {
			timer = h.clock.After(next)
		}
		select {
		case <-ctx.Done():
			return
		case <-timer:
		case <-h.woken:
		}
	}
}

// renew writes the leases that are due, and returns after which time the next
// one is; 0 if there is none.
func (h *heartbeat) renew(ctx context.Context, leases coordinationclient.LeaseInterface, nodes []*corev1.Node) time.Duration {
	every := max(minRenewal, time.Duration(len(nodes))*renewalShare)
	known := map[string]bool{}
	var next time.Duration
	for _, node := range nodes {
		if !alive(node) {
			continue // The lease runs out.
		}
		known[node.Name] = true
		b := h.beats[node.Name]
		if b == nil || b.uid != node.UID {
			b = &beat{uid: node.UID}
			h.beats[node.Name] = b
		}
		if now := h.clock.Now(); !now.Before(b.due) {
			if err := h.beat(ctx, leases, node, b, 2*every); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Could not renew the lease of a node, will try again", "node", node.Name)
			}
			b.due = now.Add(every)
		}
		if left := b.due.Sub(h.clock.Now()); next == 0 || left < next {
			next = max(left, time.Millisecond)
		}
	}
	for name := range h.beats {
		if !known[name] {
			delete(h.beats, name) // The lease itself goes with its node.
		}
	}
	return next
}

// alive tells whether the host still hears of the node.
func alive(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status != corev1.ConditionUnknown
		}
	}
	return true // It has just come.
}

func (h *heartbeat) beat(ctx context.Context, leases coordinationclient.LeaseInterface, node *corev1.Node, b *beat, duration time.Duration) error {
	for range 3 { // Somebody else may write, create or delete it in between.
		var err error
		if b.lease == nil {
			b.lease, err = leases.Get(ctx, node.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				b.lease, err = leases.Create(ctx, h.fill(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: node.Name}}, node, duration), metav1.CreateOptions{})
				if err == nil {
					return nil
				}
			}
		}
		if err == nil {
			b.lease, err = leases.Update(ctx, h.fill(b.lease.DeepCopy(), node, duration), metav1.UpdateOptions{})
			if err == nil {
				return nil
			}
		}
		b.lease = nil
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("lease %q in namespace %q: %w", node.Name, corev1.NamespaceNodeLease, err)
		}
	}
	return fmt.Errorf("lease %q in namespace %q: somebody else keeps writing it", node.Name, corev1.NamespaceNodeLease)
}

// fill makes a lease what a kubelet's is.
func (h *heartbeat) fill(lease *coordinationv1.Lease, node *corev1.Node, duration time.Duration) *coordinationv1.Lease {
	seconds := int32(duration / time.Second)
	lease.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: corev1.SchemeGroupVersion.Version,
		Kind:       "Node",
		Name:       node.Name,
		UID:        node.UID,
	}}
	lease.Spec.HolderIdentity = &node.Name
	lease.Spec.LeaseDurationSeconds = &seconds
	lease.Spec.RenewTime = new(metav1.NewMicroTime(h.clock.Now()))
	return lease
}
