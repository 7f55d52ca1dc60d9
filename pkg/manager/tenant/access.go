package tenant

import (
	"context"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/apply"
	"github.com/sublet-dev/sublet/pkg/isolation"
)

// accessPhase gives members their rights, and the syncer those on custom
// resources: nobody comes in before the fence stands.
type accessPhase struct {
	client  client.Client
	applier *apply.Applier
	host    func(context.Context) (isolation.Host, error)
	// clear deletes what a syncer made of a custom resource, and tells whether
	// there was any.
	clear func(ctx context.Context, kind schema.GroupResource, namespace string) (bool, error)
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
	var roles, bindings, keep []client.Object
	for _, object := range isolation.Access(in) {
		if _, role := object.(*rbacv1.ClusterRole); role {
			roles = append(roles, object)
			continue
		}
		bindings = append(bindings, object)
	}
	if err := p.applier.All(ctx, roles...); err != nil {
		return err
	}
	if err := p.bind(ctx, bindings); err != nil {
		return err
	}
	if keep, err = p.customResources(ctx, s, in); err != nil {
		return err
	}
	// The fence has bindings too; they are not this phase's to take away.
	if s.effective.Type != api.Folder {
		for _, object := range isolation.Objects(in) {
			keep = append(keep, object)
		}
	}
	keep = append(append(keep, roles...), bindings...)
	if s.effective.Type != api.Folder {
		for _, list := range []client.ObjectList{&rbacv1.RoleBindingList{}, &rbacv1.RoleList{}} {
			if err := prune(ctx, p.client, p.applier, list, s.effective, keep); err != nil {
				return err
			}
		}
	}
	outside := s.effective
	outside.Namespace = ""
	for _, list := range clusterScoped() {
		if err := prune(ctx, p.client, p.applier, list, outside, keep); err != nil {
			return err
		}
	}
	s.fenced()
	return nil
}

// bind applies bindings. The API server looks up what a role allows before it
// lets anybody give it away, in a cache that may not know a new role yet.
func (p accessPhase) bind(ctx context.Context, bindings []client.Object) error {
	var err error
	// The time is for new attempts: one that is under way at a busy API server is
	// not given up, to be done all over again.
	_ = wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, soon, true, func(context.Context) (bool, error) {
		err = p.applier.All(ctx, bindings...)
		return !apierrors.IsNotFound(err), nil
	})
	return err
}
