package tenant

import (
	"context"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// concurrency is how many tenants are reconciled at a time. A reconciliation
// waits for the API server most of the time.
const concurrency = 8

// What fails is tried again after retryFirst, then after twice that, up to
// retryMost: nobody waits much longer than the cause lasted.
const (
	retryFirst = 5 * time.Millisecond
	retryMost  = time.Minute
)

// Indexes of Tenants in the cache: IndexNamespace finds them by their host
// namespace, IndexParent by the name of the one above.
const (
	IndexNamespace = "hostNamespace"
	IndexParent    = "parent"
)

// indexTenant finds what has no namespace by the tenant whose it is: to go through
// that of all tenants for each of them takes the longer the more there are.
const indexTenant = "tenant"

// clusterScoped are the kinds of what a tenant has outside of its namespace.
func clusterScoped() []client.ObjectList {
	return []client.ObjectList{&rbacv1.ClusterRoleBindingList{}, &rbacv1.ClusterRoleList{}}
}

// generated are the kinds of the objects that the manager writes.
func generated() []client.Object {
	return []client.Object{
		&corev1.Secret{}, &corev1.ConfigMap{}, &corev1.Service{}, &corev1.ServiceAccount{},
		&corev1.ResourceQuota{}, &corev1.LimitRange{}, &networkingv1.NetworkPolicy{},
		&appsv1.StatefulSet{},
		&rbacv1.Role{}, &rbacv1.RoleBinding{}, &rbacv1.ClusterRole{}, &rbacv1.ClusterRoleBinding{},
	}
}

// CacheOptions is what the manager's cache holds: of the objects in tenants'
// namespaces those of fences and control planes, never the tenants' own, and
// never the content of a Secret.
func CacheOptions() cache.Options {
	ours := labels.NewSelector()
	if requirement, err := labels.NewRequirement(api.LabelComponent, selection.In,
		[]string{api.ComponentControlPlane, api.ComponentFence}); err == nil {
		ours = ours.Add(*requirement)
	}
	options := cache.Options{
		ReaderFailOnMissingInformer: true,
		DefaultTransform:            cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:                   {Label: ours},
			&corev1.PersistentVolumeClaim{}: {Label: ours},
			&corev1.Event{}: {Field: fields.SelectorFromSet(fields.Set{
				"reason": "FailedCreate",
			})},
			&discoveryv1.EndpointSlice{}: {
				Namespaces: map[string]cache.Config{hostAPINamespace: {}},
				Field:      fields.OneTermEqualSelector("metadata.name", hostAPIName),
			},
			&corev1.Node{}: {Transform: stripNode},
		},
	}
	for _, kind := range generated() {
		by := cache.ByObject{Label: ours}
		if _, secret := kind.(*corev1.Secret); secret {
			by.Transform = stripSecret
		}
		options.ByObject[kind] = by
	}
	return options
}

// stripSecret drops what is secret: whether there is one, and how old it is, is
// all that is asked of the cache.
func stripSecret(in any) (any, error) {
	if secret, ok := in.(*corev1.Secret); ok {
		secret.Data = nil
		secret.ManagedFields = nil
	}
	return in, nil
}

// stripNode keeps the addresses of a node.
func stripNode(in any) (any, error) {
	if node, ok := in.(*corev1.Node); ok {
		node.ManagedFields, node.Annotations, node.Labels = nil, nil, nil
		node.Spec = corev1.NodeSpec{PodCIDRs: node.Spec.PodCIDRs}
		node.Status = corev1.NodeStatus{Addresses: node.Status.Addresses}
	}
	return in, nil
}

// SetupWithManager makes the controller. Its watches end with ctx.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, watcher client.WithWatch) error {
	index := func(object client.Object) []string {
		if tenant, ok := object.(*api.Tenant); ok {
			if namespace := tenancy.HostNamespace(tenant); namespace != "" {
				return []string{namespace}
			}
		}
		return nil
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &api.Tenant{}, IndexNamespace, index); err != nil {
		return err
	}
	parentOf := func(object client.Object) []string {
		if tenant, ok := object.(*api.Tenant); ok && tenancy.Parent(tenant) != "" {
			return []string{tenancy.Parent(tenant)}
		}
		return nil
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &api.Tenant{}, IndexParent, parentOf); err != nil {
		return err
	}
	tenantName := func(object client.Object) []string {
		if name := object.GetLabels()[api.LabelTenant]; name != "" {
			return []string{name}
		}
		return nil
	}
	for _, kind := range []client.Object{&rbacv1.ClusterRole{}, &rbacv1.ClusterRoleBinding{}} {
		if err := mgr.GetFieldIndexer().IndexField(ctx, kind, indexTenant, tenantName); err != nil {
			return err
		}
	}
	if err := mgr.Add(rootMaker{r}); err != nil {
		return err
	}
	byLabel := handler.EnqueueRequestsFromMapFunc(tenantOf)
	virtual := handler.EnqueueRequestsFromMapFunc(r.allVirtualClusters)
	every := handler.EnqueueRequestsFromMapFunc(r.allTenants)
	b := ctrl.NewControllerManagedBy(mgr).
		Named("tenant").
		For(&api.Tenant{}).
		Watches(&api.Tenant{}, r.relatives()).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.ofNamespace)).
		Watches(&corev1.Pod{}, byLabel).
		Watches(&corev1.PersistentVolumeClaim{}, byLabel).
		Watches(&corev1.Event{}, handler.EnqueueRequestsFromMapFunc(r.ofControlPlane)).
		Watches(&discoveryv1.EndpointSlice{}, virtual).
		Watches(&corev1.Node{}, every, withRanges()).
		Watches(&storagev1.StorageClass{}, virtual).
		Watches(&schedulingv1.PriorityClass{}, every, builder.WithPredicates(predicate.NewPredicateFuncs(isDefault))).
		WatchesRawSource(source.Channel(r.HostsChanged, &handler.EnqueueRequestForObject{})).
		WatchesRawSource(source.Channel(r.SharesChanged, &handler.EnqueueRequestForObject{})).
		WatchesRawSource(source.Channel(r.drains.init(ctx, watcher), &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: concurrency,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryFirst, retryMost),
		})
	for _, kind := range generated() {
		b = b.Watches(kind, byLabel)
	}
	return b.Complete(r)
}

// relatives finds the tenants that a change of another one is about: the one
// above, which counts those below it and may wait for them to go, and all below,
// for whom it counts. The
// status of a tenant counts for nobody but where it says which parent it has.
func (r *Reconciler) relatives() handler.EventHandler {
	enqueue := func(queue workqueue.TypedRateLimitingInterface[reconcile.Request], names ...string) {
		for _, request := range requests(names...) {
			queue.Add(request)
		}
	}
	all := func(ctx context.Context, object client.Object, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
		if tenant, ok := object.(*api.Tenant); ok {
			enqueue(queue, above(tenant)...)
			enqueue(queue, r.below(ctx, tenant.Name)...)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			all(ctx, e.Object, queue)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			all(ctx, e.Object, queue)
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			before, ok1 := e.ObjectOld.(*api.Tenant)
			after, ok2 := e.ObjectNew.(*api.Tenant)
			if !ok1 || !ok2 || !countsForOthers(before, after) {
				return
			}
			// Of the two parents, if there are two.
			enqueue(queue, above(before)...)
			enqueue(queue, above(after)...)
			enqueue(queue, r.below(ctx, after.Name)...)
		},
	}
}

// countsForOthers says whether a change of a tenant may matter to those below.
func countsForOthers(before, after *api.Tenant) bool {
	return before.UID != after.UID || before.Generation != after.Generation ||
		before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero() ||
		before.Annotations[api.AnnotationAcceptParent] != after.Annotations[api.AnnotationAcceptParent] ||
		!equality.Semantic.DeepEqual(before.Status.Parent, after.Status.Parent)
}

func above(tenant *api.Tenant) []string {
	if parent := tenancy.Parent(tenant); parent != "" {
		return []string{parent}
	}
	return nil
}

// below are the names of all tenants below one, each once, even in a ring.
func (r *Reconciler) below(ctx context.Context, name string) []string {
	var names []string
	seen := map[string]bool{name: true}
	for next := []string{name}; len(next) > 0; next = next[1:] {
		children, err := r.children(ctx, next[0])
		if err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Cannot find the tenants below", "tenant", name)
			return names
		}
		for i := range children {
			if child := children[i].Name; !seen[child] {
				seen[child] = true
				names, next = append(names, child), append(next, child)
			}
		}
	}
	return names
}

// rootMaker makes the root of the tree when the manager starts.
type rootMaker struct{ *Reconciler }

// Start implements manager.Runnable; it begins when the manager leads.
func (m rootMaker) Start(ctx context.Context) error {
	for {
		err := m.EnsureRoot(ctx)
		if err == nil {
			return nil
		}
		ctrl.LoggerFrom(ctx).Error(err, "Cannot make the root of the tree yet, will try again")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(soon):
		}
	}
}

// tenantOf reads the tenant off an object of ours.
func tenantOf(_ context.Context, object client.Object) []reconcile.Request {
	name := object.GetLabels()[api.LabelTenant]
	if name == "" {
		return nil
	}
	return requests(name)
}

// ofNamespace finds the tenant that owns a namespace, and those that want one
// of that name and could have it when it goes.
func (r *Reconciler) ofNamespace(ctx context.Context, namespace client.Object) []reconcile.Request {
	names := r.wanting(ctx, namespace.GetName())
	if owner := namespace.GetLabels()[api.LabelTenant]; owner != "" {
		names = append(names, owner)
	}
	slices.Sort(names)
	return requests(slices.Compact(names)...)
}

// ofControlPlane finds the tenant whose control plane an event is about. Others in
// its namespace are about what people made.
func (r *Reconciler) ofControlPlane(ctx context.Context, object client.Object) []reconcile.Request {
	e, ok := object.(*corev1.Event)
	if !ok || e.InvolvedObject.Kind != "StatefulSet" || e.InvolvedObject.Name != api.ControlPlaneName {
		return nil
	}
	return requests(r.wanting(ctx, object.GetNamespace())...)
}

func (r *Reconciler) wanting(ctx context.Context, namespace string) []string {
	tenants := &api.TenantList{}
	if err := r.Client.List(ctx, tenants, client.MatchingFields{IndexNamespace: namespace}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot find the tenants of a namespace", "namespace", namespace)
		return nil
	}
	return namesOf(tenants, nil)
}

func (r *Reconciler) allVirtualClusters(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.all(ctx, func(t *api.Tenant) bool { return t.Spec.Type == api.VirtualCluster })
}

func (r *Reconciler) allTenants(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.all(ctx, func(t *api.Tenant) bool { return t.Spec.Type != api.Folder })
}

func (r *Reconciler) all(ctx context.Context, which func(*api.Tenant) bool) []reconcile.Request {
	tenants := &api.TenantList{}
	if err := r.Client.List(ctx, tenants); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot list the tenants")
		return nil
	}
	return requests(namesOf(tenants, which)...)
}

func namesOf(tenants *api.TenantList, which func(*api.Tenant) bool) []string {
	var names []string
	for i := range tenants.Items {
		if which == nil || which(&tenants.Items[i]) {
			names = append(names, tenants.Items[i].Name)
		}
	}
	return names
}

func requests(names ...string) []reconcile.Request {
	var all []reconcile.Request
	for _, name := range names {
		all = append(all, reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
	}
	return all
}

// withRanges lets through what changes the ranges of the cluster: a node
// reports itself often, and every fence depends on its addresses.
func isDefault(object client.Object) bool {
	class, ok := object.(*schedulingv1.PriorityClass)
	return ok && class.GlobalDefault
}

func withRanges() builder.Predicates {
	return builder.WithPredicates(predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok1 := e.ObjectOld.(*corev1.Node)
			after, ok2 := e.ObjectNew.(*corev1.Node)
			return !ok1 || !ok2 || !slices.Equal(rangesOf(before), rangesOf(after))
		},
	})
}
