package tenant

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/apply"
	"github.com/sublet-dev/sublet/pkg/isolation"
	"github.com/sublet-dev/sublet/pkg/tenancy"
	"github.com/sublet-dev/sublet/pkg/virtualcluster"
)

// fencePhase keeps quota, limits and network policies. When the tenant's limits
// are invalid, the fence stays as it was.
type fencePhase struct {
	client  client.Client
	live    client.Reader
	applier *apply.Applier
	host    func(context.Context) (isolation.Host, error)
	ways    *ways
	shares  Shares
}

func (fencePhase) Condition() string { return api.ConditionFenceReady }

func (p fencePhase) Run(ctx context.Context, s *state) error {
	in, err := input(ctx, s, p.host)
	if err != nil {
		return err
	}
	if b := invalidLimits(s); b != nil {
		// Such a tenant will be corrected, or deleted: then all is to be emptied.
		for _, object := range isolation.Cleanup(in) {
			if err := p.applier.Apply(ctx, object); err != nil {
				return err
			}
		}
		return b
	}
	if in.Shares, err = p.shares.Of(ctx, s.effective); err != nil {
		return err
	}
	objects := isolation.Objects(in)
	want := make([]client.Object, 0, len(objects))
	for _, object := range objects {
		want = append(want, object)
	}
	if err := p.applier.All(ctx, want...); err != nil {
		return err
	}
	if err := p.narrow(ctx, s, want); err != nil {
		return err
	}
	for _, list := range []client.ObjectList{&corev1.ResourceQuotaList{}, &corev1.LimitRangeList{}, &networkingv1.NetworkPolicyList{}} {
		if err := prune(ctx, p.client, p.applier, list, s.effective, want); err != nil {
			return err
		}
	}
	return nil
}

// invalidLimits finds limits and members on the way from the root that cannot be
// applied.
func invalidLimits(s *state) *blocked {
	for _, tenant := range s.path {
		errs := tenancy.ValidateLimits(tenant)
		if len(errs) == 0 {
			continue
		}
		message := sentence(errs)
		if tenant.Name != s.tenant.Name {
			message = fmt.Sprintf("tenant %q, further up, has what cannot be applied, so nothing changes here: %s", tenant.Name, message)
		}
		return &blocked{reasonInvalidLimits, message}
	}
	return nil
}

// input gathers what the policies may know.
func input(ctx context.Context, s *state, host func(context.Context) (isolation.Host, error)) (isolation.Input, error) {
	facts, err := host(ctx)
	if err != nil {
		return isolation.Input{}, err
	}
	in := isolation.Input{
		Tenant: s.effective, Host: facts,
		Templates: len(s.effective.Templates) > 0 || len(s.tenant.Status.Templates) > 0,
	}
	if s.effective.Type == api.VirtualCluster {
		in.ControlPlane = virtualcluster.Needs(s.effective, s.storage)
	}
	return in, nil
}

// prune deletes what an earlier fence had and this one has not.
func prune(ctx context.Context, c client.Client, applier *apply.Applier, list client.ObjectList, e tenancy.Effective, want []client.Object) error {
	where := []client.ListOption{client.InNamespace(e.Namespace), client.MatchingLabels(isolation.Labels(e.Name))}
	if e.Namespace == "" {
		where = append(where, client.MatchingFields{indexTenant: e.Name})
	}
	if err := c.List(ctx, list, where...); err != nil {
		return fmt.Errorf("list the fence of tenant %q: %w", e.Name, err)
	}
	wanted := map[string]bool{}
	for _, object := range want {
		wanted[kindAndName(object)] = true
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return fmt.Errorf("list the fence of tenant %q: %w", e.Name, err)
	}
	for _, item := range items {
		object, ok := item.(client.Object)
		if !ok || wanted[kindAndName(object)] || !object.GetDeletionTimestamp().IsZero() {
			continue
		}
		if err := applier.Delete(ctx, object); err != nil {
			return err
		}
	}
	return nil
}

func kindAndName(object client.Object) string {
	return fmt.Sprintf("%T %s", object, object.GetName())
}

// fenced marks the fence as complete. Role bindings are the last part of it.
func (s *state) fenced() {
	message := "quota, limits, network policies and role bindings are in place"
	if s.effective.Type == api.Folder {
		message = "the limits can be applied, and members have their rights"
	}
	s.condition(api.ConditionFenceReady, metav1.ConditionTrue, reasonApplied, message)
}

// sentence joins what is wrong with a spec.
func sentence(errs field.ErrorList) string {
	messages := make([]string, 0, len(errs))
	for _, err := range errs {
		messages = append(messages, err.Error())
	}
	return oneLine(strings.Join(messages, "; "))
}
