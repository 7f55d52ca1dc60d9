package template

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

const (
	// concurrency is how many tenants are worked on at a time.
	concurrency = 8
	// resync is when what is not watched is compared again, and certificates of
	// tenants are looked at.
	resync = 5 * time.Minute
	// What fails is tried again after retryFirst, then after twice that, up to
	// retryMost.
	retryFirst, retryMost = 500 * time.Millisecond, 2 * time.Minute
	// poll is the time between two looks at a hook that runs.
	poll = time.Second
	// drift is the time from a change of an object to its repair. It bounds how
	// fast somebody else who insists on another value is answered.
	drift = 300 * time.Millisecond
)

// Reconciler applies the templates of tenants. All fields but Dial are needed.
type Reconciler struct {
	// Client reads from a cache.
	Client client.Client
	// Live reads from the API server.
	Live client.Reader
	// Config and Mapper are of the host.
	Config *rest.Config
	Mapper meta.RESTMapper
	// Charts renders them.
	Charts Charts
	// SystemNamespace is the manager's own.
	SystemNamespace string
	// IndexNamespace finds Tenants by their host namespace.
	IndexNamespace string
	// Dial connects to the API of a virtual cluster, as the address of its Service
	// on the host; plainly when nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the clock.
	Now func() time.Time

	made    memory
	inputs  inputs
	hosts   *host
	virtual virtuals
	changed chan event.GenericEvent
	retries workqueue.TypedRateLimiter[string]
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	tenant := &api.Tenant{}
	if err := r.Client.Get(ctx, request.NamespacedName, tenant); client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	wanted := effective(tenant)
	if tenant.UID == "" || !tenant.DeletionTimestamp.IsZero() || len(wanted)+len(tenant.Status.Templates) == 0 {
		r.forget(request.Name)
		return ctrl.Result{}, nil
	}
	if !meta.IsStatusConditionTrue(tenant.Status.Conditions, api.ConditionPlaced) {
		// Nothing changes while the way from the root is broken.
		return ctrl.Result{}, nil
	}
	s := newRound(tenant)
	waits, err := r.waitsFor(ctx, tenant)
	if err != nil {
		return ctrl.Result{}, err
	}
	if waits != "" {
		s.wait(wanted, waits)
		return ctrl.Result{}, r.write(ctx, s)
	}
	t, err := r.target(ctx, tenant)
	if err != nil {
		s.unreachable(wanted, err)
		return r.again(s), r.write(ctx, s)
	}
	if err := r.takeAway(ctx, s, t, wanted); err != nil {
		return ctrl.Result{}, err
	}
	for i := range wanted {
		if err := r.bring(ctx, s, t, &wanted[i]); err != nil {
			return ctrl.Result{}, err
		}
	}
	return r.again(s), r.write(ctx, s)
}

// again is when to look again. Who waits longer and longer need not once something
// else is wanted.
func (r *Reconciler) again(s *round) ctrl.Result {
	if r.inputs.changed(s.tenant.Name, s.input) {
		r.retries.Forget(s.tenant.Name)
	}
	if s.failed {
		return ctrl.Result{RequeueAfter: r.retries.When(s.tenant.Name)}
	}
	r.retries.Forget(s.tenant.Name)
	return ctrl.Result{RequeueAfter: s.after}
}

func effective(tenant *api.Tenant) []api.EffectiveTemplate {
	if tenant.Spec.Type == api.Folder || tenant.Status.Effective == nil {
		return nil
	}
	return tenant.Status.Effective.Templates
}

// waitsFor says what of a tenant is not there yet; empty when all is.
func (r *Reconciler) waitsFor(ctx context.Context, tenant *api.Tenant) (string, error) {
	needed := api.ConditionControlPlaneReady
	if tenant.Spec.Type == api.Namespace {
		needed = api.ConditionFenceReady
	}
	if tenant.Status.Namespace == "" || !meta.IsStatusConditionTrue(tenant.Status.Conditions, needed) {
		return fmt.Sprintf("the tenant is not ready yet: see its condition %s", needed), nil
	}
	if tenant.Spec.Type != api.Namespace {
		return "", nil
	}
	binding := &rbacv1.RoleBinding{}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: tenant.Status.Namespace, Name: api.TemplateBinding}, binding)
	if client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("read the role binding for templates of tenant %q: %w", tenant.Name, err)
	}
	if err != nil {
		return "the rights to apply templates are not given yet", nil
	}
	return "", nil
}

// takeAway removes templates that do not apply any more.
func (r *Reconciler) takeAway(ctx context.Context, s *round, t *target, wanted []api.EffectiveTemplate) error {
	for _, entry := range slices.Clone(s.entries) {
		if slices.ContainsFunc(wanted, func(w api.EffectiveTemplate) bool { return w.Name == entry.Name }) {
			continue
		}
		if entry.Sync {
			if problem := r.prune(ctx, s, t, entry.Name, entry.Objects, nil); problem != nil {
				s.fail(s.entry(entry.Name), problem)
				continue
			}
		}
		s.drop(entry.Name)
	}
	return nil
}

func (r *Reconciler) forget(tenant string) {
	r.made.forget(tenant)
	r.inputs.forget(tenant)
	r.hosts.definitions.forget(tenant)
	r.virtual.drop(tenant)
	r.retries.Forget(tenant)
}
