package template

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/template"
)

// gathering is the time from a change in a tenant until its templates are counted:
// most changes come together.
const gathering = 250 * time.Millisecond

// Reasons of the conditions of a Template.
const (
	reasonValid      = "Valid"
	reasonRolledOut  = "RolledOut"
	reasonUnused     = "Unused"
	reasonRollingOut = "RollingOut"
)

// rollout counts in the status of a template how far it is.
type rollout struct {
	Client client.Client
	Now    func() time.Time
}

func (r *rollout) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("template-rollout").
		For(&api.Template{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&api.Tenant{}, handler.Funcs{
			CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { count(q, e.Object) },
			DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { count(q, e.Object) },
			UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
				before, ok1 := e.ObjectOld.(*api.Tenant)
				after, ok2 := e.ObjectNew.(*api.Tenant)
				if !ok1 || !ok2 || (equality.Semantic.DeepEqual(before.Status.Templates, after.Status.Templates) &&
					equality.Semantic.DeepEqual(effective(before), effective(after)) &&
					before.DeletionTimestamp.IsZero() == after.DeletionTimestamp.IsZero()) {
					return
				}
				count(q, before, after)
			},
		}).
		Complete(r)
}

func count(q queue, tenants ...client.Object) {
	for _, tenant := range tenants {
		for _, name := range templatesOf(tenant) {
			q.AddAfter(requestFor(name), gathering)
		}
	}
}

// Reconcile implements reconcile.Reconciler.
func (r *rollout) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	tmpl := &api.Template{}
	if err := r.Client.Get(ctx, request.NamespacedName, tmpl); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	tenants := &api.TenantList{}
	if err := r.Client.List(ctx, tenants, client.MatchingFields{indexTemplate: tmpl.Name}); err != nil {
		return ctrl.Result{}, fmt.Errorf("list the tenants of template %q: %w", tmpl.Name, err)
	}
	after := tmpl.DeepCopy()
	counted(after, tenants.Items, r.Now())
	if equality.Semantic.DeepEqual(tmpl.Status, after.Status) {
		return ctrl.Result{}, nil
	}
	if err := r.Client.Status().Patch(ctx, after, client.MergeFrom(tmpl)); client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("write the status of template %q: %w", tmpl.Name, err)
	}
	return ctrl.Result{}, nil
}

// counted fills in the status of a template.
func counted(tmpl *api.Template, tenants []api.Tenant, now time.Time) {
	status := &tmpl.Status
	status.ObservedGeneration = tmpl.Generation
	status.Tenants, status.Applied, status.Failed = 0, 0, 0
	var failed []string
	for i := range tenants {
		tenant := &tenants[i]
		at := slices.IndexFunc(effective(tenant), func(t api.EffectiveTemplate) bool { return t.Name == tmpl.Name })
		if at < 0 || !tenant.DeletionTimestamp.IsZero() {
			continue
		}
		status.Tenants++
		entry := slices.IndexFunc(tenant.Status.Templates, func(e api.AppliedTemplate) bool { return e.Name == tmpl.Name })
		if entry < 0 {
			continue
		}
		e := &tenant.Status.Templates[entry]
		switch {
		case e.State == api.TemplateFailed:
			status.Failed++
			failed = append(failed, tenant.Name+": "+e.Message)
		case e.State == api.TemplateApplied && (e.ObservedGeneration == tmpl.Generation || !effective(tenant)[at].Sync):
			status.Applied++
		}
	}
	set := func(kind string, is bool, reason, message string) {
		c := metav1.Condition{
			Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message,
			ObservedGeneration: tmpl.Generation, LastTransitionTime: metav1.NewTime(now),
		}
		if is {
			c.Status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&status.Conditions, c)
	}
	if errs := template.Validate(tmpl); len(errs) > 0 {
		set(api.ConditionValid, false, reasonInvalid, oneLine(errs.ToAggregate().Error()))
	} else {
		set(api.ConditionValid, true, reasonValid, "parameters and manifests are in order")
	}
	progress := fmt.Sprintf("%d of %d tenants have it as it stands now", status.Applied, status.Tenants)
	switch {
	case status.Tenants == 0:
		set(api.ConditionRolledOut, true, reasonUnused, "no tenant refers to it")
	case status.Applied == status.Tenants:
		set(api.ConditionRolledOut, true, reasonRolledOut, progress)
	case status.Failed > 0:
		const most = 3
		slices.Sort(failed)
		if more := len(failed) - most; more > 0 {
			failed = append(failed[:most], fmt.Sprintf("and %d more tenants", more))
		}
		set(api.ConditionRolledOut, false, "Failed", oneLine(progress+"; in "+strings.Join(failed, "; in ")))
	default:
		set(api.ConditionRolledOut, false, reasonRollingOut, progress)
	}
}
