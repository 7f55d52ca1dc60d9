package template

import (
	"context"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// indexTemplate finds Tenants by the templates that apply to them.
const indexTemplate = "template"

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// SetupWithManager makes both controllers. Watches end with ctx.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	var err error
	if r.hosts, err = r.newHost(ctx); err != nil {
		return err
	}
	r.virtual.ctx = ctx
	r.changed = make(chan event.GenericEvent)
	r.retries = workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryFirst, retryMost)
	if err := mgr.GetFieldIndexer().IndexField(ctx, &api.Tenant{}, indexTemplate, templatesOf); err != nil {
		return err
	}
	err = ctrl.NewControllerManagedBy(mgr).
		Named("template").
		For(&api.Tenant{}, builder.WithPredicates(predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok1 := e.ObjectOld.(*api.Tenant)
			after, ok2 := e.ObjectNew.(*api.Tenant)
			return ok1 && ok2 && matter(before, after)
		}})).
		Watches(&api.Template{}, handler.EnqueueRequestsFromMapFunc(r.usersOf), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&rbacv1.RoleBinding{}, handler.EnqueueRequestsFromMapFunc(ofBinding)).
		WatchesRawSource(source.Channel(r.changed, repair())).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrency}).
		Complete(r)
	if err != nil {
		return err
	}
	return (&rollout{Client: r.Client, Now: r.Now}).setup(mgr)
}

// templatesOf are the templates that apply to a tenant, or did.
func templatesOf(object client.Object) []string {
	tenant, ok := object.(*api.Tenant)
	if !ok {
		return nil
	}
	var names []string
	for _, t := range effective(tenant) {
		names = append(names, t.Name)
	}
	for i := range tenant.Status.Templates {
		names = append(names, tenant.Status.Templates[i].Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// matter says whether a change of a tenant may change what its templates make, or
// whether they can be applied. What this controller writes itself does not.
func matter(before, after *api.Tenant) bool {
	is := func(t *api.Tenant, kind string) bool { return meta.IsStatusConditionTrue(t.Status.Conditions, kind) }
	for _, kind := range []string{api.ConditionPlaced, api.ConditionFenceReady, api.ConditionControlPlaneReady} {
		if is(before, kind) != is(after, kind) {
			return true
		}
	}
	members := func(t *api.Tenant) []api.EffectiveMember {
		if t.Status.Effective == nil {
			return nil
		}
		return t.Status.Effective.Members
	}
	return before.UID != after.UID || before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero() ||
		before.Status.Path != after.Status.Path || before.Status.Namespace != after.Status.Namespace ||
		before.Spec.Parent != after.Spec.Parent ||
		!equality.Semantic.DeepEqual(before.Labels, after.Labels) ||
		!equality.Semantic.DeepEqual(effective(before), effective(after)) ||
		!equality.Semantic.DeepEqual(members(before), members(after))
}

// usersOf are the tenants that a template applies to.
func (r *Reconciler) usersOf(ctx context.Context, tmpl client.Object) []reconcile.Request {
	tenants := &api.TenantList{}
	if err := r.Client.List(ctx, tenants, client.MatchingFields{indexTemplate: tmpl.GetName()}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot find the tenants of a template", "template", tmpl.GetName())
		return nil
	}
	var requests []reconcile.Request
	for i := range tenants.Items {
		requests = append(requests, requestFor(tenants.Items[i].Name))
	}
	return requests
}

func requestFor(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: client.ObjectKey{Name: name}}
}

// ofBinding waits for the rights to be given.
func ofBinding(_ context.Context, binding client.Object) []reconcile.Request {
	if tenant := binding.GetLabels()[api.LabelTenant]; tenant != "" && binding.GetName() == api.TemplateBinding {
		return []reconcile.Request{requestFor(tenant)}
	}
	return nil
}

// repair looks at a tenant some time after one of its objects changed, and once
// for all that change until then.
func repair() handler.EventHandler {
	return handler.Funcs{GenericFunc: func(_ context.Context, e event.GenericEvent, q queue) {
		q.AddAfter(requestFor(e.Object.GetName()), drift)
	}}
}
