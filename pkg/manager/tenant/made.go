package tenant

import (
	"context"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// made remembers for which Tenants this process made something. A finalizer
// alone is not enough: when a Tenant is deleted in the very moment in which it
// gets its finalizer, the API server may delete it nevertheless, since a delete
// that has seen no finalizer does not look again.
//
// It is kept in memory on purpose. A namespace whose Tenant is missing when the
// manager starts is left alone: after a restore from a backup Tenants may come
// later than namespaces.
type made struct {
	mu      sync.Mutex
	tenants map[string]*api.Tenant
}

func (m *made) remember(tenant *api.Tenant) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tenants == nil {
		m.tenants = map[string]*api.Tenant{}
	}
	// No more of it than a deletion needs.
	m.tenants[tenant.Name] = &api.Tenant{
		ObjectMeta: metav1.ObjectMeta{Name: tenant.Name, UID: tenant.UID},
		Spec:       api.TenantSpec{Type: tenant.Spec.Type, Namespace: tenant.Spec.Namespace},
	}
}

func (m *made) forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.tenants, name)
}

// lost is the Tenant of a name that something was made for and that is not the
// one that there is now.
func (m *made) lost(name string, now types.UID) *api.Tenant {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.tenants[name]; known != nil && known.UID != now {
		return known.DeepCopy()
	}
	return nil
}

// finalizeLost takes away what was made for a Tenant that went without its
// finalizer.
func (r *Reconciler) finalizeLost(ctx context.Context, lost *api.Tenant) (ctrl.Result, error) {
	current := &api.Tenant{}
	err := r.Live.Get(ctx, client.ObjectKeyFromObject(lost), current)
	if err != nil && !apierrors.IsNotFound(err) {
		return ctrl.Result{}, fmt.Errorf("read tenant %q: %w", lost.Name, err)
	}
	if err == nil && current.UID == lost.UID {
		// The cache is behind.
		return ctrl.Result{RequeueAfter: soon}, nil
	}
	gone, err := r.takeAway(ctx, newState(lost, r.Now()))
	if err != nil {
		return ctrl.Result{}, err
	}
	if !gone {
		return ctrl.Result{RequeueAfter: soon}, nil
	}
	r.finished(lost)
	// There may be another Tenant of that name by now.
	return ctrl.Result{RequeueAfter: soon}, nil
}

// finished forgets a tenant of which nothing is left.
func (r *Reconciler) finished(tenant *api.Tenant) {
	s := newState(tenant, r.Now())
	r.drains.stop(s.effective.Namespace)
	r.Applier.Forget(s.effective.Namespace)
	r.ways.forget(s.effective.Namespace)
	r.made.forget(tenant.Name)
}
