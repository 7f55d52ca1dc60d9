package tenant

import (
	"context"
	"fmt"
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/isolation"
)

// lookAgain is how soon the host is looked at again for a kind that it lacks.
const lookAgain = time.Minute

// lookForCustomResources says which kinds of the limits the host does not have as
// they are described. The tenant gets them when it has, without a word from here.
func (r *Reconciler) lookForCustomResources(ctx context.Context, s *state) {
	if s.effective.Type != api.VirtualCluster || !s.placed || invalidLimits(s) != nil {
		return
	}
	for _, custom := range s.effective.Limits.CustomResources {
		if missing := r.missing(ctx, custom); missing != "" {
			s.notApplied = append(s.notApplied, fmt.Sprintf("limits.customResources: %s", missing))
			s.wakeIn(lookAgain)
		}
	}
}

// missing says what the host lacks of a kind; nothing if it cannot be found out.
func (r *Reconciler) missing(ctx context.Context, custom api.CustomResource) string {
	version := schema.GroupVersion{Group: custom.Group, Version: custom.Version}.String()
	list, err := r.Discovery.ServerResourcesForGroupVersion(version)
	if err != nil && !apierrors.IsNotFound(err) {
		log.FromContext(ctx).V(1).Info("Cannot look whether the host has a kind", "version", version, "error", err.Error())
		return ""
	}
	install := fmt.Sprintf("the host does not have %s of %s: install it, and it is there a minute later", custom.Resource, version)
	if err != nil {
		return install
	}
	i := slices.IndexFunc(list.APIResources, func(a metav1.APIResource) bool { return a.Name == custom.Resource })
	switch {
	case i < 0:
		return install
	case list.APIResources[i].Kind != custom.Kind:
		return fmt.Sprintf("the kind of %s of %s is %q on the host, not %q", custom.Resource, version, list.APIResources[i].Kind, custom.Kind)
	case !list.APIResources[i].Namespaced:
		return fmt.Sprintf("%s of %s have no namespace on the host: only kinds with namespaces can cross", custom.Resource, version)
	}
	return ""
}

// customResources gives the syncer its rights, and returns the objects that are not
// to be pruned. Where the manager may not give them, those that there are stay, and
// all else goes on.
func (p accessPhase) customResources(ctx context.Context, s *state, in isolation.Input) (keep []client.Object, err error) {
	left, err := p.retire(ctx, in)
	if err != nil {
		return nil, err
	}
	if left != nil {
		s.wakeIn(soon)
		keep = append(keep, left)
	}
	var roles, bindings []client.Object
	for _, object := range isolation.SyncerAccess(in) {
		keep = append(keep, object)
		switch object.(type) {
		case *rbacv1.Role:
			if left == nil {
				roles = append(roles, object)
			}
		case *rbacv1.ClusterRole:
			roles = append(roles, object)
		default:
			bindings = append(bindings, object)
		}
	}
	err = p.applier.All(ctx, roles...)
	if apierrors.IsForbidden(err) {
		s.notApplied = append(s.notApplied, "limits.customResources: the manager may not give the syncer its rights: name all these kinds in the value customResources of the chart that Sublet is installed by. "+oneLine(err.Error()))
		s.wakeIn(lookAgain)
		return keep, nil
	}
	if err != nil {
		return nil, err
	}
	return keep, p.bind(ctx, bindings)
}

// retire deletes what the syncer made of custom resources that the limits do not
// name any more, and returns the Role that is to be as long as something is left;
// nil when nothing is. That Role remembers what is to be deleted:
//
//	all verbs ─► list only (the syncer can write no more) ─► objects deleted ─► gone
func (p accessPhase) retire(ctx context.Context, in isolation.Input) (*rbacv1.Role, error) {
	if in.Tenant.Type != api.VirtualCluster {
		return nil, nil
	}
	role := &rbacv1.Role{}
	err := p.client.Get(ctx, client.ObjectKey{Namespace: in.Tenant.Namespace, Name: api.CustomResourcesRole}, role)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the syncer's rights in tenant %q: %w", in.Tenant.Name, err)
	}
	want := isolation.CustomResourcesRole(in, in.Tenant.Limits.CustomResources)
	former := former(role.Rules, want.Rules)
	if len(former) == 0 {
		return nil, nil
	}
	for _, kind := range former {
		want.Rules = append(want.Rules, rbacv1.PolicyRule{APIGroups: []string{kind.Group}, Resources: []string{kind.Resource}, Verbs: []string{"list"}})
	}
	if err := p.applier.Apply(ctx, want); err != nil {
		return nil, err
	}
	left := false
	for _, kind := range former {
		some, err := p.clear(ctx, kind, in.Tenant.Namespace)
		if err != nil {
			return nil, err
		}
		left = left || some
	}
	if left {
		return want, nil
	}
	return nil, nil
}

// former are the kinds that rules have and those wanted do not.
func former(rules, wanted []rbacv1.PolicyRule) []schema.GroupResource {
	var kinds []schema.GroupResource
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				kept := slices.ContainsFunc(wanted, func(r rbacv1.PolicyRule) bool {
					return slices.Contains(r.APIGroups, group) && slices.Contains(r.Resources, resource)
				})
				if !kept {
					kinds = append(kinds, schema.GroupResource{Group: group, Resource: resource})
				}
			}
		}
	}
	return kinds
}

// clearSynced deletes a tenant's objects of a kind on the host, and tells whether
// there were any: a syncer may have made another one in the meantime.
func (r *Reconciler) clearSynced(ctx context.Context, kind schema.GroupResource, namespace string) (bool, error) {
	groups, err := r.Discovery.ServerGroups()
	if err != nil {
		return false, fmt.Errorf("find the host's kinds: %w", err)
	}
	synced := metav1.ListOptions{LabelSelector: api.LabelComponent + "=" + api.ComponentSynced}
	background := metav1.DeletePropagationBackground
	for _, group := range groups.Groups {
		if group.Name != kind.Group {
			continue
		}
		for _, version := range group.Versions {
			objects := r.Metadata.Resource(kind.WithVersion(version.Version)).Namespace(namespace)
			list, err := objects.List(ctx, synced)
			if apierrors.IsNotFound(err) {
				continue // Not in this version, or not at all.
			}
			if err != nil {
				return false, fmt.Errorf("list the tenant's %s on the host: %w", kind, err)
			}
			if !slices.ContainsFunc(list.Items, func(o metav1.PartialObjectMetadata) bool { return o.DeletionTimestamp.IsZero() }) {
				return false, nil
			}
			if err := objects.DeleteCollection(ctx, metav1.DeleteOptions{PropagationPolicy: &background}, synced); err != nil {
				return false, fmt.Errorf("delete the tenant's %s on the host: %w", kind, err)
			}
			return true, nil
		}
	}
	return false, nil
}
