package tenant

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/apply"
	"github.com/sublet-dev/sublet/pkg/isolation"
)

// accessPhase gives members their rights: nobody comes in before the fence
// stands.
type accessPhase struct {
	client  client.Client
	applier *apply.Applier
	host    func(context.Context) (isolation.Host, error)
}

func (accessPhase) Condition() string { return api.ConditionFenceReady }

func (p accessPhase) Run(ctx context.Context, s *state) error {
	if b := invalidLimits(s); b != nil {
		return b
	}
	in, err := input(ctx, s, p.host)
	if err != nil {
		return err
	}
	var access, keep []client.Object
	for _, object := range isolation.Access(in) {
		access = append(access, object)
	}
	if err := p.applier.All(ctx, access...); err != nil {
		return err
	}
	// The fence has bindings too; they are not this phase's to take away.
	if s.effective.Type != api.Folder {
		for _, object := range isolation.Objects(in) {
			keep = append(keep, object)
		}
	}
	keep = append(keep, access...)
	if s.effective.Type != api.Folder {
		if err := prune(ctx, p.client, p.applier, &rbacv1.RoleBindingList{}, s.effective, keep); err != nil {
			return err
		}
	}
	clusterScoped := s.effective
	clusterScoped.Namespace = ""
	for _, list := range []client.ObjectList{&rbacv1.ClusterRoleBindingList{}, &rbacv1.ClusterRoleList{}} {
		if err := prune(ctx, p.client, p.applier, list, clusterScoped, keep); err != nil {
			return err
		}
	}
	s.fenced()
	return nil
}
