package tenant

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// place finds the way from the root to the tenant and what counts for it. Where
// there is none, the tenant keeps what it has: no phase runs, and the status goes
// on to say what was true last.
func (r *Reconciler) place(ctx context.Context, s *state) error {
	children, err := r.children(ctx, s.tenant.Name)
	if err != nil {
		return err
	}
	s.countBelow(children)
	path, err := r.pathTo(ctx, s.tenant)
	var broken *tenancy.Broken
	if errors.As(err, &broken) {
		s.block(api.ConditionPlaced, &blocked{broken.Reason, broken.Message})
		return nil
	}
	if err != nil {
		return err
	}
	s.placed, s.path, s.effective = true, path, tenancy.Fold(path)
	s.status.Path = tenancy.PathText(s.effective.Path)
	s.status.Depth = int32(len(path) - 1) //nolint:gosec // at most tenancy.MaxDepth
	s.status.Effective = s.effective.Status()
	s.status.Parent = nil
	message := "this is the root of the tree"
	if len(path) > 1 {
		parent := path[len(path)-2]
		s.status.Parent = &api.ParentStatus{Name: parent.Name, UID: parent.UID}
		message = fmt.Sprintf("below %q", parent.Name)
	}
	s.condition(api.ConditionPlaced, metav1.ConditionTrue, reasonPlaced, message)
	return nil
}

func (r *Reconciler) pathTo(ctx context.Context, tenant *api.Tenant) ([]*api.Tenant, error) {
	return tenancy.PathTo(tenant, func(name string) (*api.Tenant, error) { return r.lookup(ctx, name) })
}

// lookup finds a tenant; nil when there is none.
func (r *Reconciler) lookup(ctx context.Context, name string) (*api.Tenant, error) {
	tenant := &api.Tenant{}
	err := r.Client.Get(ctx, client.ObjectKey{Name: name}, tenant)
	if apierrors.IsNotFound(err) && name == api.RootTenant {
		// The cache may not know yet that it was made a moment ago.
		if err := r.EnsureRoot(ctx); err != nil {
			return nil, err
		}
		err = r.Live.Get(ctx, client.ObjectKey{Name: name}, tenant)
	}
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read tenant %q: %w", name, err)
	}
	return tenant, nil
}

// children are the tenants directly below one. They are the cache's own, to be
// looked at only.
func (r *Reconciler) children(ctx context.Context, name string) ([]api.Tenant, error) {
	list := &api.TenantList{}
	if err := r.Client.List(ctx, list, client.MatchingFields{IndexParent: name}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the tenants below %q: %w", name, err)
	}
	return list.Items, nil
}

// EnsureRoot makes the Folder at the top of the tree when Sublet is new in a
// cluster. Where tenants have been below a root that is gone, it is not made: an
// empty one would allow them what the other did not.
func (r *Reconciler) EnsureRoot(ctx context.Context) error {
	err := r.Live.Get(ctx, client.ObjectKey{Name: api.RootTenant}, &api.Tenant{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	list := &api.TenantList{}
	if err := r.Live.List(ctx, list); err != nil {
		return fmt.Errorf("list the tenants: %w", err)
	}
	for i := range list.Items {
		if list.Items[i].Status.Path != "" {
			return nil // its condition says what to do
		}
	}
	root := &api.Tenant{
		ObjectMeta: metav1.ObjectMeta{Name: api.RootTenant},
		Spec:       api.TenantSpec{Type: api.Folder},
	}
	if err := r.Client.Create(ctx, root, client.FieldOwner(api.ManagerName)); client.IgnoreAlreadyExists(err) != nil {
		return fmt.Errorf("make the root of the tree: %w", err)
	}
	return nil
}
