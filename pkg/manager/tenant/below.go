package tenant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// named is how many tenants a message names.
const named = 5

// clearBelow does for the tenants below one that is being deleted what its
// deletion policy says. It returns what the deletion waits for, nil when it can
// go on.
func (r *Reconciler) clearBelow(ctx context.Context, s *state) (*blocked, error) {
	children, err := r.children(ctx, s.tenant.Name)
	if err != nil {
		return nil, err
	}
	s.countBelow(children)
	if len(children) == 0 {
		return nil, nil
	}
	policy, err := tenancy.DeletionPolicyOf(s.tenant, func(name string) (*api.Tenant, error) { return r.lookup(ctx, name) })
	if err != nil {
		return nil, err
	}
	switch policy {
	case api.DeletionOrphan:
		return nil, nil
	case api.DeletionCascade:
		return r.cascade(ctx, s, children)
	}
	return &blocked{reasonHasChildren, fmt.Sprintf(
		"there are tenants below, %s: move them (sublet move) or delete them, or set spec.deletionPolicy to Cascade to delete all of them, or to Orphan to leave them as they are",
		namesIn(children))}, nil
}

// countBelow notes how many tenants are directly below.
func (s *state) countBelow(children []api.Tenant) {
	s.status.Children = int32(len(children)) //nolint:gosec // an API server holds fewer objects
}

// cascade deletes the tenants below, who do the same for those below them. What
// says for itself that it refuses is left, and named.
func (r *Reconciler) cascade(ctx context.Context, s *state, children []api.Tenant) (*blocked, error) {
	var broken *tenancy.Broken
	if _, err := r.pathTo(ctx, s.tenant); errors.As(err, &broken) && broken.Reason == tenancy.BrokenCycle {
		// What is below is above, too.
		return &blocked{broken.Reason, broken.Message}, nil
	}
	var refusing []api.Tenant
	for i := range children {
		child := &children[i]
		if !child.DeletionTimestamp.IsZero() {
			continue
		}
		if child.Spec.DeletionPolicy == api.DeletionRefuse {
			below, err := r.children(ctx, child.Name)
			if err != nil {
				return nil, err
			}
			if len(below) > 0 {
				refusing = append(refusing, *child)
				continue
			}
		}
		uid := child.UID
		// Whoever moved it away a moment ago meant it to stay.
		version := child.ResourceVersion
		err := r.Client.Delete(ctx, child.DeepCopy(), client.Preconditions{UID: &uid, ResourceVersion: &version})
		if apierrors.IsConflict(err) {
			// Changed a moment ago. The cache may know of that already, and then
			// nothing else comes back to it.
			s.wakeIn(soon)
			continue
		}
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("delete tenant %q, which is below %q: %w", child.Name, s.tenant.Name, err)
		}
	}
	if len(refusing) > 0 {
		return &blocked{reasonHasChildren, fmt.Sprintf(
			"tenants below, %s, have tenants below them and a spec.deletionPolicy of Refuse: move them (sublet move) or change their policy", namesIn(refusing))}, nil
	}
	return &blocked{reasonCascading, fmt.Sprintf("tenants below are deleted first: %s", namesIn(children))}, nil
}

// namesIn names some tenants, and how many more there are.
func namesIn(tenants []api.Tenant) string {
	names := make([]string, 0, len(tenants))
	for i := range tenants {
		names = append(names, tenants[i].Name)
	}
	slices.Sort(names)
	if more := len(names) - named; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:named], ", "), more)
	}
	return strings.Join(names, ", ")
}
