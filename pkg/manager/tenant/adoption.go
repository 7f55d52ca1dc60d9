package tenant

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/apply"
	"github.com/sublet-dev/sublet/pkg/isolation"
)

// Adoption: a namespace that somebody else made becomes a tenant's, when both sides
// say so.
//
//	who may change the namespace   annotation give-to names the tenant
//	who may make the tenant        it is of type Namespace and names the namespace
//
// The admission policy sublet-namespaces lets people write that one annotation, on
// namespaces that are no tenant's; sublet-manager-cluster holds the manager to it.
// When the tenant goes, the namespace stays, without what the manager put there.

// offered says whether a namespace was given to this very tenant.
func offered(tenant *api.Tenant, namespace *corev1.Namespace) bool {
	if tenant.Spec.Type != api.Namespace || namespace.Labels[api.LabelTenant] != "" {
		return false
	}
	name, uid, exact := strings.Cut(namespace.Annotations[api.AnnotationGiveTo], "/")
	return name == tenant.Name && (!exact || uid == string(tenant.UID))
}

// adopted says whether a tenant's namespace was there before the tenant.
func adopted(namespace *corev1.Namespace) bool {
	_, marked := namespace.Annotations[api.AnnotationAdopted]
	return marked
}

// adopt takes up an offer. It looks at the host itself: the offer may have been
// withdrawn a moment ago.
func (p namespacePhase) adopt(ctx context.Context, s *state, known *corev1.Namespace) (*corev1.Namespace, error) {
	namespace := &corev1.Namespace{}
	if err := p.live.Get(ctx, client.ObjectKeyFromObject(known), namespace); err != nil {
		return nil, fmt.Errorf("read namespace %q: %w", known.Name, err)
	}
	if owns(s.tenant, namespace) || !offered(s.tenant, namespace) {
		return namespace, nil
	}
	if !namespace.DeletionTimestamp.IsZero() {
		return nil, &blocked{reasonNamespaceLeaving, fmt.Sprintf(
			"namespace %q, which was given to the tenant, is being deleted; one is made anew, empty, when it is gone", namespace.Name)}
	}
	if err := p.fits(ctx, namespace, false); err != nil {
		s.wakeIn(unfitPatience)
		return nil, err
	}
	before := namespace.DeepCopy()
	former := labels.Set(isolation.PodSecurityLabels(namespace.Labels)).String()
	if namespace.Labels == nil {
		namespace.Labels = map[string]string{}
	}
	namespace.Labels[api.LabelTenant] = s.tenant.Name
	namespace.Annotations[api.AnnotationTenantUID] = string(s.tenant.UID)
	namespace.Annotations[api.AnnotationAdopted] = former
	delete(namespace.Annotations, api.AnnotationGiveTo)
	// Refused should anybody have changed it since it was looked at.
	if err := p.client.Patch(ctx, namespace, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), client.FieldOwner(api.ManagerName)); err != nil {
		return nil, fmt.Errorf("adopt namespace %q: %w", namespace.Name, err)
	}
	return namespace, nil
}

// begin makes sure that an adopted namespace starts with the tenant's fence and
// nothing that was made to look like it, before anybody gets rights in it. Admission
// lets nobody add to it any more, but the host's API servers hear of that a moment
// later than this does: what comes in between is found when the tenant is looked at
// again, as it is when the fence has been made.
func (p namespacePhase) begin(ctx context.Context, s *state, namespace *corev1.Namespace) error {
	started := s.status.Namespace == namespace.Name
	if !started {
		if err := deleteFence(ctx, p.live, p.applier, s.tenant.Name, namespace.Name); err != nil {
			return err
		}
	}
	if err := p.fits(ctx, namespace, started); err != nil {
		s.wakeIn(unfitPatience)
		return err
	}
	return nil
}

// unfitPatience is when a namespace that was not fit is looked at again: nothing
// tells of what is deleted in it.
const unfitPatience = 5 * time.Second

// fits refuses a namespace with objects that a tenant's fence would not have let
// in and that it cannot undo: NetworkPolicies only add up, and what has the names or
// the labels of the fence would become part of it.
// Once the fence stands those are its own, and only the first is looked for.
func (p namespacePhase) fits(ctx context.Context, namespace *corev1.Namespace, fenced bool) error {
	var open, own []string
	lists := append(fenceLists(), &corev1.PodList{})
	if fenced {
		lists = []client.ObjectList{&networkingv1.NetworkPolicyList{}}
	}
	for _, list := range lists {
		objects, err := listed(ctx, p.live, list, client.InNamespace(namespace.Name))
		if err != nil {
			return err
		}
		for _, object := range objects {
			policy, _ := object.(*networkingv1.NetworkPolicy)
			switch {
			case fenced && isFenceOf(namespace.Labels[api.LabelTenant], object):
			case !fenced && looksOurs(object):
				own = append(own, strings.TrimPrefix(fmt.Sprintf("%T ", object), "*v1.")+object.GetName())
			case policy != nil && isolation.Opens(policy):
				open = append(open, object.GetName())
			}
		}
	}
	var reasons []string
	if len(open) > 0 {
		reasons = append(reasons, fmt.Sprintf("the NetworkPolicies %s let pods reach more than pods of their own namespace (limits.network of the tenant says what else they reach)", few(open)))
	}
	if len(own) > 0 {
		reasons = append(reasons, fmt.Sprintf("%s: what has labels under %s or a name that begins with %q is Sublet's", few(own), api.Prefix, fencePrefix))
	}
	if reasons == nil {
		return nil
	}
	return &blocked{reasonNamespaceUnfit, fmt.Sprintf("namespace %q is not adopted as it is. Delete what is named here: %s", namespace.Name, strings.Join(reasons, "; "))}
}

func isFenceOf(tenant string, object client.Object) bool {
	return object.GetLabels()[api.LabelComponent] == api.ComponentFence && object.GetLabels()[api.LabelTenant] == tenant
}

// looksOurs says whether an object has what Sublet knows its own by, or what an
// apply would merge with one of its own.
func looksOurs(object client.Object) bool {
	_, component := object.GetLabels()[api.LabelComponent]
	_, tenant := object.GetLabels()[api.LabelTenant]
	_, pod := object.(*corev1.Pod)
	return component || tenant || !pod && strings.HasPrefix(object.GetName(), fencePrefix)
}

// fencePrefix begins the names of all objects of a fence.
const fencePrefix = "sublet"

// few names some of many.
func few(all []string) string {
	slices.Sort(all)
	if len(all) > named {
		all = append(all[:named:named], fmt.Sprintf("and %d more", len(all)-named))
	}
	return strings.Join(all, ", ")
}

// fenceLists are of the kinds that a fence is made of.
func fenceLists() []client.ObjectList {
	return []client.ObjectList{
		&corev1.ResourceQuotaList{}, &corev1.LimitRangeList{}, &networkingv1.NetworkPolicyList{}, &rbacv1.RoleBindingList{},
	}
}

func listed(ctx context.Context, reader client.Reader, list client.ObjectList, options ...client.ListOption) ([]client.Object, error) {
	if err := reader.List(ctx, list, options...); err != nil {
		return nil, fmt.Errorf("list %T: %w", list, err)
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return nil, fmt.Errorf("list %T: %w", list, err)
	}
	objects := make([]client.Object, 0, len(items))
	for _, item := range items {
		if object, ok := item.(client.Object); ok {
			objects = append(objects, object)
		}
	}
	return objects, nil
}

// deleteFence takes away what bears the labels of a tenant's fence.
func deleteFence(ctx context.Context, live client.Reader, applier *apply.Applier, tenant, namespace string) error {
	for _, list := range fenceLists() {
		objects, err := listed(ctx, live, list, client.InNamespace(namespace), client.MatchingLabels(isolation.Labels(tenant)))
		if err != nil {
			return err
		}
		for _, object := range objects {
			if err := applier.Delete(ctx, object); err != nil {
				return err
			}
		}
	}
	return nil
}

// release gives an adopted namespace back: all that the manager put there goes, the
// labels last, since without them it may not write there.
func (r *Reconciler) release(ctx context.Context, s *state, namespace *corev1.Namespace) (gone bool, err error) {
	if err := deleteFence(ctx, r.Live, r.Applier, s.tenant.Name, namespace.Name); err != nil {
		return false, err
	}
	before := namespace.DeepCopy()
	ours := func(key string, _ string) bool { return strings.HasPrefix(key, api.Prefix) }
	former, err := labels.ConvertSelectorToLabelsMap(namespace.Annotations[api.AnnotationAdopted])
	if err != nil {
		return false, fmt.Errorf("read the annotation %s of namespace %q: %w", api.AnnotationAdopted, namespace.Name, err)
	}
	for key := range isolation.PodSecurityLabels(namespace.Labels) {
		delete(namespace.Labels, key)
	}
	maps.Copy(namespace.Labels, former)
	maps.DeleteFunc(namespace.Labels, ours)
	maps.DeleteFunc(namespace.Annotations, ours)
	err = r.Client.Patch(ctx, namespace, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), client.FieldOwner(api.ManagerName))
	if apierrors.IsConflict(err) {
		return false, nil // it is looked at again
	}
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("give namespace %q back: %w", namespace.Name, err)
	}
	return true, nil
}
