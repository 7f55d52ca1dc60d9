package tenant

import (
	"context"
	"fmt"
	"sync"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/isolation"
)

// ways remembers for which fence the syncer's policies of a namespace were
// looked at, so that they are read only when the fence has changed.
type ways struct {
	mu   sync.Mutex
	seen map[string]fenceVersion
}

// fenceVersion is that of the two policies which lead outside.
type fenceVersion [2]struct {
	uid        types.UID
	generation int64
}

func (w *ways) known(namespace string, version fenceVersion) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[namespace] == version
}

func (w *ways) note(namespace string, version fenceVersion) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen == nil {
		w.seen = map[string]fenceVersion{}
	}
	w.seen[namespace] = version
}

func (w *ways) forget(namespace string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.seen, namespace)
}

// narrow deletes what a syncer made when the fence was wider. A syncer that runs
// makes it again as it should be; one that does not would leave it open.
func (p fencePhase) narrow(ctx context.Context, s *state, applied []client.Object) error {
	if s.effective.Type != api.VirtualCluster {
		return nil // Nobody but a syncer may name addresses.
	}
	var fence []*networkingv1.NetworkPolicy
	var version fenceVersion
	for _, object := range applied {
		policy, ok := object.(*networkingv1.NetworkPolicy)
		if !ok || policy.Name != api.FenceEgressPolicy && policy.Name != api.FenceIngressPolicy {
			continue
		}
		version[len(fence)].uid, version[len(fence)].generation = policy.UID, policy.Generation
		fence = append(fence, policy)
	}
	namespace := s.effective.Namespace
	if p.ways.known(namespace, version) {
		return nil
	}
	policies := &networkingv1.NetworkPolicyList{}
	if err := p.live.List(ctx, policies, client.InNamespace(namespace), client.MatchingLabels{api.LabelComponent: api.ComponentSynced}); err != nil {
		return fmt.Errorf("list the network policies of tenant %q: %w", s.effective.Name, err)
	}
	for i := range policies.Items {
		policy := &policies.Items[i]
		if !isolation.Exceeds(policy, fence) {
			continue
		}
		if err := p.applier.Delete(ctx, policy); err != nil {
			return err
		}
	}
	p.ways.note(namespace, version)
	return nil
}
