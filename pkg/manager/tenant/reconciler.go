package tenant

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/apply"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// Reconciler keeps Tenants. All fields but Recorder are needed.
type Reconciler struct {
	// Client reads from a cache that holds what CacheOptions names.
	Client client.Client
	// Live reads from the API server.
	Live client.Reader
	// Applier writes with Client.
	Applier *apply.Applier
	// Discovery and Metadata find what is left in a namespace.
	Discovery discovery.DiscoveryInterface
	Metadata  metadata.Interface
	// Recorder tells what changed in events.
	Recorder events.EventRecorder

	// SystemNamespace is the manager's own.
	SystemNamespace string
	// IngressNamespaces are where the host's ingress controllers and gateways
	// run.
	IngressNamespaces []string
	// Image of control planes that name none.
	Image string
	// DeletionGrace is the time that pods of a deleted tenant get to stop.
	DeletionGrace time.Duration
	// Unguarded says that no admission policy holds what a tenant's admin may
	// change, so that he gets no right to change a Tenant.
	Unguarded bool
	// Now is the clock.
	Now func() time.Time
	// Shares says what a namespace has of the quotas above it; SharesChanged tells
	// of tenants for whom that is something else now.
	Shares        Shares
	SharesChanged <-chan event.GenericEvent
	// Hosts knows whose host names somebody else claimed before; HostsChanged tells
	// for which tenants that is different now.
	Hosts        Hosts
	HostsChanged <-chan event.GenericEvent

	host   hostFacts
	drains drains
	ways   ways
	made   made
}

// Hosts knows about names of hosts.
type Hosts interface {
	// LateIn tells about what claims in a namespace a name that somebody else
	// claimed before; nothing if there is none.
	LateIn(namespace string) string
}

// Shares shares quotas out among namespaces.
type Shares interface {
	Of(ctx context.Context, e tenancy.Effective) (corev1.ResourceList, error)
}

// phase is one part of making a tenant. An error of type *blocked is the
// tenant's affair and stands in its conditions; any other is tried again.
type phase interface {
	// Condition is the type of the condition that the phase answers for.
	Condition() string
	Run(ctx context.Context, s *state) error
}

// phases are those of a type of tenant, in order.
func (r *Reconciler) phases(t api.TenantType) []phase {
	switch t {
	case api.Folder:
		return []phase{accessPhase{r.Client, r.Applier, r.hostOf, r.clearSynced}}
	case api.Namespace:
		return []phase{
			namespacePhase{r.Client, r.Live, r.Applier, r.SystemNamespace, r.hostOf},
			fencePhase{r.Client, r.Live, r.Applier, r.hostOf, &r.ways, r.Shares},
			accessPhase{r.Client, r.Applier, r.hostOf, r.clearSynced},
		}
	default:
		return []phase{
			namespacePhase{r.Client, r.Live, r.Applier, r.SystemNamespace, r.hostOf},
			groundworkPhase{r.Client, r.Live, r.Applier, r.serviceRanges, r.hostAPI, r.Now},
			fencePhase{r.Client, r.Live, r.Applier, r.hostOf, &r.ways, r.Shares},
			accessPhase{r.Client, r.Applier, r.hostOf, r.clearSynced},
			controlPlanePhase{r.Applier, r.Image},
		}
	}
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	tenant := &api.Tenant{}
	err := r.Client.Get(ctx, request.NamespacedName, tenant)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	if lost := r.made.lost(request.Name, tenant.UID); lost != nil {
		return r.finalizeLost(ctx, lost)
	}
	if err != nil && request.Name == api.RootTenant {
		return ctrl.Result{}, r.EnsureRoot(ctx)
	}
	if err != nil {
		return ctrl.Result{}, nil
	}
	s := newState(tenant, r.Now())
	if !tenant.DeletionTimestamp.IsZero() {
		return r.finalize(ctx, s)
	}
	if err := r.ensureFinalizer(ctx, tenant); err != nil {
		return again(0, err)
	}
	r.made.remember(tenant)
	err = r.place(ctx, s)
	if err == nil {
		var gone bool
		if gone, err = r.expire(ctx, s); gone {
			return ctrl.Result{}, nil
		}
	}
	if err == nil {
		err = r.gather(ctx, s)
	}
	if err == nil && s.placed {
		err = r.runPhases(ctx, s)
	}
	if err == nil {
		err = r.observe(ctx, s)
	}
	if err == nil {
		r.lookForCustomResources(ctx, s)
	}
	s.noteHosts(r.Hosts)
	s.summarize(err)
	return again(s.requeueAfter, errors.Join(err, r.writeStatus(ctx, s)))
}

// again is when to reconcile next. Somebody changed the Tenant in the meantime:
// that is no error, and the change itself starts the next attempt.
func again(after time.Duration, err error) (ctrl.Result, error) {
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: soon}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: after}, nil
}

// ensureFinalizer comes before anything is made on the host. The root has none:
// whoever uninstalls Sublet must not wait for a manager that is gone.
func (r *Reconciler) ensureFinalizer(ctx context.Context, tenant *api.Tenant) error {
	if tenant.Name == api.RootTenant {
		return nil
	}
	before := tenant.DeepCopy()
	if !controllerutil.AddFinalizer(tenant, api.FinalizerTenant) {
		return nil
	}
	if err := r.Client.Patch(ctx, tenant, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("add the finalizer to tenant %q: %w", tenant.Name, err)
	}
	return nil
}

func (r *Reconciler) runPhases(ctx context.Context, s *state) error {
	for _, p := range r.phases(s.effective.Type) {
		err := p.Run(ctx, s)
		var b *blocked
		if errors.As(err, &b) {
			s.block(p.Condition(), b)
			return nil
		}
		if err != nil {
			s.fail(p.Condition(), err)
			return err
		}
	}
	s.completed = true
	return nil
}
