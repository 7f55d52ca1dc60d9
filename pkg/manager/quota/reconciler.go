package quota

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

const (
	// turnTime is how long a turn is at first; it doubles with each round in which
	// nothing changes, up to slowTurn.
	turnTime, slowTurn = time.Second, 2 * time.Minute
	// sizedTurn is the same where everybody has something of what is free, and it
	// is only not known whether that is enough for one.
	sizedTurn = 15 * time.Second
	// demandTime is how long a refusal counts.
	demandTime = time.Minute
	// quietTime is how long nothing must come or go in a namespace before its share
	// is changed, see Ledger.quiet; where there is no such time within patience, it
	// is changed all the same.
	quietTime, patience = time.Second, 10 * time.Second
	// usageTime is the time between two updates of a status.usage.
	usageTime = 3 * time.Second
	// restFactor is how much longer than a decision about a tree took nothing is
	// decided about it afterwards, up to restTime: what changes while many tenants
	// come is gone through together.
	restFactor, restTime = 9, time.Second
	// What fails is tried again after retryFirst, then after twice that, up to
	// retryMost.
	retryFirst, retryMost = 5 * time.Millisecond, time.Minute
)

// queue is what a handler puts requests in.
type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// Reconciler decides about shares, for one whole tree at a time: all below a
// child of the root, or below the root if that has a quota.
type Reconciler struct {
	Client client.Client
	Ledger *Ledger
	Now    func() time.Time
	// IndexNamespace finds Tenants by their host namespace.
	IndexNamespace string
	// Changed is told the tenants whose ResourceQuota must be written anew.
	Changed chan event.GenericEvent

	woken chan event.GenericEvent
	mu    sync.Mutex
	trees map[string]*turns
}

// turns is whose turn it is in a tree.
type turns struct {
	turn int
	// taken is how many there were since what is in use changed.
	taken int
	next  time.Time
	used  int64
	told  time.Time
	// rests is until when nothing is decided, see restFactor.
	rests time.Time
}

// SetupWithManager makes the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.woken = make(chan event.GenericEvent, 1024)
	r.trees = map[string]*turns{}
	r.Ledger.wake = func(tenant string) {
		select {
		case r.woken <- event.GenericEvent{Object: &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: tenant}}}:
		default: // its ResourceQuota will wake it
		}
	}
	toTree := func(ctx context.Context, object client.Object) []reconcile.Request {
		return r.treeOf(ctx, object.GetName())
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("quota").
		WatchesRawSource(source.Channel(r.woken, handler.EnqueueRequestsFromMapFunc(toTree))).
		Watches(&api.Tenant{}, handler.Funcs{
			CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) { r.enqueue(ctx, q, e.Object) },
			DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
				r.Ledger.Forget(e.Object.GetName())
				r.enqueue(ctx, q, e.Object)
			},
			UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
				before, ok1 := e.ObjectOld.(*api.Tenant)
				after, ok2 := e.ObjectNew.(*api.Tenant)
				if ok1 && ok2 && (before.Generation != after.Generation || before.Status.Namespace != after.Status.Namespace || before.Status.Path != after.Status.Path) {
					r.enqueue(ctx, q, before)
					r.enqueue(ctx, q, after)
				}
			},
		}).
		Watches(&corev1.ResourceQuota{}, handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, object client.Object) []reconcile.Request {
			return r.treeOf(ctx, object.GetLabels()[api.LabelTenant])
		})).
		Watches(&corev1.Event{}, handler.EnqueueRequestsFromMapFunc(r.refused)).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: 1,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryFirst, retryMost),
		}).
		Complete(r)
}

// enqueue has the tree of a tenant decided about, as it is or was.
func (r *Reconciler) enqueue(ctx context.Context, q queue, object client.Object) {
	tenant, ok := object.(*api.Tenant)
	if !ok {
		return
	}
	name := tenancy.Parent(tenant)
	if name == "" || name == api.RootTenant {
		name = tenant.Name
	}
	for _, request := range r.treeOf(ctx, name) {
		q.Add(request)
	}
}

// treeOf finds the tree that a tenant is in; none where nothing leads to the root.
func (r *Reconciler) treeOf(ctx context.Context, name string) []reconcile.Request {
	tenant, err := r.lookup(ctx, name)
	if err != nil || tenant == nil {
		return nil
	}
	path, err := tenancy.PathTo(tenant, func(name string) (*api.Tenant, error) { return r.lookup(ctx, name) })
	if err != nil {
		return nil
	}
	top := path[0]
	if len(path) > 1 && (top.Spec.Limits == nil || len(top.Spec.Limits.Quota) == 0) {
		top = path[1]
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: top.Name}}}
}

func (r *Reconciler) lookup(ctx context.Context, name string) (*api.Tenant, error) {
	tenant := &api.Tenant{}
	err := r.Client.Get(ctx, client.ObjectKey{Name: name}, tenant)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return tenant, err
}

// refused notes what a controller was refused for want of quota, and in whose
// namespace.
func (r *Reconciler) refused(ctx context.Context, object client.Object) []reconcile.Request {
	e, ok := object.(*corev1.Event)
	if !ok {
		return nil
	}
	asked := requested(e.Message)
	if len(asked) == 0 {
		return nil
	}
	tenants := &api.TenantList{}
	if err := r.Client.List(ctx, tenants, client.MatchingFields{r.IndexNamespace: e.Namespace}); err != nil {
		return nil
	}
	var requests []reconcile.Request
	for i := range tenants.Items {
		r.Ledger.ask(tenants.Items[i].Name, asked, r.Now().Add(demandTime))
		requests = append(requests, r.treeOf(ctx, tenants.Items[i].Name)...)
	}
	return requests
}

// requested reads what the API server says was asked for, of a message such as
// "exceeded quota: sublet-pods, requested: pods=1,requests.cpu=2, used: …".
func requested(message string) map[corev1.ResourceName]int64 {
	match := regexp.MustCompile(`exceeded quota: [^,]+, requested: ([^ ]+), used: `).FindStringSubmatch(message)
	if match == nil {
		return nil
	}
	return parseAmounts(match[1])
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	top, err := r.lookup(ctx, request.Name)
	if err != nil || top == nil {
		return ctrl.Result{}, err
	}
	began := r.Now()
	if rest := r.stateOf(request.Name).rests.Sub(began); rest > 0 {
		return ctrl.Result{RequeueAfter: rest}, nil
	}
	defer func() {
		ended := r.Now()
		r.stateOf(request.Name).rests = ended.Add(min(restFactor*ended.Sub(began), restTime))
	}()
	t, err := r.gather(ctx, top)
	if err != nil {
		return ctrl.Result{}, err
	}
	if len(t.limits) == 0 {
		return ctrl.Result{}, r.tell(ctx, t, true)
	}
	now := r.Now()
	state := r.turnOf(request.Name, t, now)
	changed, haste, stirs, err := r.decide(ctx, t, state.turn, now)
	if err != nil {
		return ctrl.Result{}, err
	}
	after := state.schedule(haste, len(t.seen), now)
	if stirs && (after == 0 || quietTime < after) {
		after = quietTime
	}
	for _, name := range changed {
		select {
		case r.Changed <- event.GenericEvent{Object: &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}}}:
		case <-ctx.Done():
			return ctrl.Result{}, nil
		}
	}
	due := now.Sub(state.told) >= usageTime
	if due {
		state.told = now
	}
	if err := r.tell(ctx, t, due); err != nil {
		return ctrl.Result{}, err
	}
	if !due && (after == 0 || usageTime < after) {
		after = usageTime
	}
	return ctrl.Result{RequeueAfter: after}, nil
}

// tree is what there is to decide about.
type tree struct {
	tenants []*api.Tenant
	byName  map[string]*api.Tenant
	// limits are the quotas of tenants, by resource and tenant.
	limits map[corev1.ResourceName]map[string]int64
	// seen is what the cache shows, by tenant with a namespace.
	seen map[string]map[corev1.ResourceName]seen
}

func (r *Reconciler) gather(ctx context.Context, top *api.Tenant) (*tree, error) {
	tenants, err := subtree(ctx, r.Client, r.Ledger.IndexParent, top, 0)
	if err != nil {
		return nil, err
	}
	t := &tree{tenants: tenants, byName: map[string]*api.Tenant{}, limits: map[corev1.ResourceName]map[string]int64{}, seen: map[string]map[corev1.ResourceName]seen{}}
	for _, tenant := range tenants {
		t.byName[tenant.Name] = tenant
		if tenant.Spec.Limits != nil {
			for name, limit := range tenant.Spec.Limits.Quota {
				if t.limits[name] == nil {
					t.limits[name] = map[string]int64{}
				}
				t.limits[name][tenant.Name] = units(name, limit)
			}
		}
	}
	if len(t.limits) == 0 {
		return t, nil // nothing counts
	}
	for _, tenant := range tenants {
		// A namespace that is not the tenant's is not looked at.
		if tenant.Status.Namespace != "" {
			if t.seen[tenant.Name], err = look(ctx, r.Client, tenant.Status.Namespace); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// above are a tenant and those above it in the tree, itself first.
func (t *tree) above(tenant *api.Tenant) []*api.Tenant {
	var all []*api.Tenant
	for tenant != nil && !slices.Contains(all, tenant) {
		all = append(all, tenant)
		tenant = t.byName[tenancy.Parent(tenant)]
	}
	return all
}

// leaves are the namespaces under a quota of a resource.
func (t *tree) leaves(name corev1.ResourceName, ledger *Ledger, now time.Time) []leaf {
	var leaves []leaf
	for _, tenant := range t.tenants {
		if tenancy.HostNamespace(tenant) == "" {
			continue
		}
		above := t.above(tenant)
		l := leaf{name: tenant.Name, share: ledger.shares[tenant.Name][name]}
		for _, a := range above {
			if _, limited := t.limits[name][a.Name]; limited {
				l.bounds = append(l.bounds, a.Name)
			}
			l.leaving = l.leaving || !a.DeletionTimestamp.IsZero()
		}
		if len(l.bounds) == 0 {
			continue
		}
		s, known := t.seen[tenant.Name][name]
		// One that never had a namespace has no use for a share; one that nothing
		// happens to, because of what is above it, keeps what it has.
		l.leaving = l.leaving || tenant.Status.Namespace == "" || !placed(tenant)
		l.settled = known && s.counted && s.spec == l.share && s.hard == l.share
		l.used = s.used
		l.claim = max(l.share, s.spec, s.hard, s.used)
		l.stirs = known && !ledger.quiet(tenant.Name, name, s, now)
		l.demand = ledger.demanded(tenant.Name, name, s.used, now)
		leaves = append(leaves, l)
	}
	slices.SortFunc(leaves, func(a, b leaf) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return leaves
}

func placed(tenant *api.Tenant) bool {
	for _, c := range tenant.Status.Conditions {
		if c.Type == api.ConditionPlaced {
			return c.Status == metav1.ConditionTrue
		}
	}
	return false
}

// decide makes new shares, and returns the tenants that have others now, how soon
// the turn must pass on, and whether something must come to rest first.
func (r *Reconciler) decide(ctx context.Context, t *tree, turn int, now time.Time) ([]string, haste, bool, error) {
	l := r.Ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.seed(ctx); err != nil {
		return nil, idle, false, err
	}
	most, changed, stirs := idle, map[string]bool{}, false
	for _, name := range sortedKeys(t.limits) {
		leaves := t.leaves(name, l, now)
		stirs = stirs || slices.ContainsFunc(leaves, func(one leaf) bool { return one.stirs })
		most = max(most, hasteOf(name, leaves, t.limits[name]))
		for tenant, share := range allot(leaves, t.limits[name], grain(name), turn) {
			if l.shares[tenant] == nil {
				l.shares[tenant] = map[corev1.ResourceName]int64{}
			}
			l.shares[tenant][name] = share
			changed[tenant] = true
		}
	}
	return slices.Sorted(maps.Keys(changed)), most, stirs, nil
}

// haste is how soon the next turn must come.
type haste int

const (
	// idle: everybody has at least one of what is free.
	idle haste = iota
	// sized: everybody has something, but perhaps less than one needs.
	sized
	// tight: some have nothing while something is free.
	tight
)

func (r *Reconciler) stateOf(name string) *turns {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trees[name] == nil {
		r.trees[name] = &turns{}
	}
	return r.trees[name]
}

// turnOf says whose turn it is now.
func (r *Reconciler) turnOf(name string, t *tree, now time.Time) *turns {
	state := r.stateOf(name)
	var used int64
	for _, s := range t.seen {
		for _, one := range s {
			used += one.used
		}
	}
	if used != state.used {
		// Whatever was refused before may fit now.
		state.used, state.taken, state.next = used, 0, time.Time{}
	}
	if !state.next.IsZero() && !now.Before(state.next) {
		state.turn, state.taken, state.next = state.turn+1, state.taken+1, time.Time{}
	}
	return state
}

// schedule says when the next turn comes: at first soon, in case somebody was
// refused what is free elsewhere, and more and more seldom while nothing changes.
func (s *turns) schedule(h haste, namespaces int, now time.Time) time.Duration {
	if h == idle || namespaces < 2 {
		s.next = time.Time{}
		return 0
	}
	if s.next.IsZero() {
		length := turnTime
		if h == sized {
			length = sizedTurn
		}
		for round := s.taken / namespaces; round > 0 && length < slowTurn; round-- {
			length *= 2
		}
		s.next = now.Add(min(length, slowTurn))
	}
	return s.next.Sub(now)
}

// hasteOf looks at one resource.
func hasteOf(name corev1.ResourceName, leaves []leaf, limits map[string]int64) haste {
	a := newAllotment(leaves, limits, grain(name), 0)
	most := idle
	for bound, under := range a.under {
		if len(under) < 2 || a.slack(bound) == 0 {
			continue
		}
		switch {
		case a.part(bound) == 0:
			return tight
		case isCPU(name) || isSize(name):
			most = sized
		}
	}
	return most
}

// tell writes status.usage where it is not true any more.
func (r *Reconciler) tell(ctx context.Context, t *tree, due bool) error {
	if !due {
		return nil
	}
	var errs []error
	sums := map[string]corev1.ResourceList{}
	for _, tenant := range t.tenants {
		for name, s := range t.seen[tenant.Name] {
			limited := false
			above := t.above(tenant)
			for _, a := range above {
				limited = limited || hasLimit(t, name, a.Name)
			}
			for _, a := range above {
				if !limited {
					break
				}
				if sums[a.Name] == nil {
					sums[a.Name] = corev1.ResourceList{}
				}
				sum := sums[a.Name][name]
				sum.Add(amount(name, s.used))
				sums[a.Name][name] = sum
			}
		}
	}
	for _, tenant := range t.tenants {
		if sameAmounts(tenant.Status.Usage, sums[tenant.Name]) {
			continue
		}
		// Nothing but the usage is written, so whoever writes the rest of the status
		// is not in the way.
		after := tenant.DeepCopy()
		after.Status.Usage = sums[tenant.Name]
		if err := r.Client.Status().Patch(ctx, after, client.MergeFrom(tenant)); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("write the usage of tenant %q: %w", tenant.Name, err))
		}
	}
	return errors.Join(errs...)
}

func hasLimit(t *tree, name corev1.ResourceName, tenant string) bool {
	_, ok := t.limits[name][tenant]
	return ok
}

func sameAmounts(a, b corev1.ResourceList) bool {
	return maps.EqualFunc(a, b, func(x, y resource.Quantity) bool { return x.Cmp(y) == 0 })
}
