package quota

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/isolation"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// Ledger holds what each namespace has of the quotas above it. Whoever writes a
// ResourceQuota asks it, so that there is one place that decides.
type Ledger struct {
	// Client reads from the manager's cache, with Tenants indexed by parent; Live
	// from the API server.
	Client, Live client.Reader
	// IndexParent names that index.
	IndexParent string

	mu     sync.Mutex
	seeded bool
	// shares by tenant.
	shares map[string]map[corev1.ResourceName]int64
	// demands are what was refused lately, by tenant.
	demands map[string]map[corev1.ResourceName]demand
	// uses are what was in use lately, by tenant.
	uses map[string]map[corev1.ResourceName]use
	// wake has a tree decided about again.
	wake func(tenant string)
}

// use is what is in use, since when, and since when it has not been the same for
// quietTime.
type use struct {
	used         int64
	since, stirs time.Time
}

type demand struct {
	amount int64
	until  time.Time
	// used is what was in use when the demand was looked at first.
	used  int64
	known bool
}

// Of is what a tenant's namespace has now of each resource that it has a quota of.
// A namespace that is alone under its quotas has all of them. Another that is new
// has nothing yet; it will be told when it has.
func (l *Ledger) Of(ctx context.Context, e tenancy.Effective) (corev1.ResourceList, error) {
	if len(e.Limits.Quota) == 0 || e.Type == api.Folder {
		return nil, nil
	}
	bounds, err := l.boundsOf(ctx, e.Path)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.seed(ctx); err != nil {
		return nil, err
	}
	if l.shares[e.Name] == nil {
		l.shares[e.Name] = map[corev1.ResourceName]int64{}
	}
	shares, shared := corev1.ResourceList{}, false
	for name, limit := range e.Limits.Quota {
		alone := true
		for _, b := range bounds {
			_, limits := b.limits[name]
			alone = alone && (!limits || !b.shared)
		}
		if alone {
			l.shares[e.Name][name] = units(name, limit)
		}
		shared = shared || !alone
		shares[name] = amount(name, l.shares[e.Name][name])
	}
	if shared && l.wake != nil {
		l.wake(e.Name)
	}
	return shares, nil
}

// bound is a tenant with a quota, and whether several namespaces are under it.
type bound struct {
	limits corev1.ResourceList
	shared bool
}

func (l *Ledger) boundsOf(ctx context.Context, path []string) ([]bound, error) {
	var bounds []bound
	for _, name := range path {
		tenant := &api.Tenant{}
		if err := l.Client.Get(ctx, client.ObjectKey{Name: name}, tenant); err != nil {
			return nil, fmt.Errorf("read tenant %q: %w", name, err)
		}
		if tenant.Spec.Limits == nil || len(tenant.Spec.Limits.Quota) == 0 {
			continue
		}
		under, err := subtree(ctx, l.Client, l.IndexParent, tenant, 2)
		if err != nil {
			return nil, err
		}
		bounds = append(bounds, bound{tenant.Spec.Limits.Quota, spaces(under) > 1})
	}
	return bounds, nil
}

// seed learns what is in force from the API server itself: a cache may not show
// yet what an earlier leader wrote last.
func (l *Ledger) seed(ctx context.Context) error {
	if l.seeded {
		return nil
	}
	list := &corev1.ResourceQuotaList{}
	if err := l.Live.List(ctx, list, client.MatchingLabels{api.LabelComponent: api.ComponentFence}); err != nil {
		return fmt.Errorf("list the quotas of tenants: %w", err)
	}
	l.shares = map[string]map[corev1.ResourceName]int64{}
	l.demands = map[string]map[corev1.ResourceName]demand{}
	for i := range list.Items {
		quota := &list.Items[i]
		if !ours(quota) {
			continue
		}
		tenant := quota.Labels[api.LabelTenant]
		if l.shares[tenant] == nil {
			l.shares[tenant] = map[corev1.ResourceName]int64{}
		}
		own := controlPlaneShare(quota)
		for name, hard := range quota.Spec.Hard {
			l.shares[tenant][name] = units(name, hard) - own[name]
		}
	}
	l.seeded = true
	return nil
}

// Forget drops a tenant that is gone.
func (l *Ledger) Forget(tenant string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.shares, tenant)
	delete(l.demands, tenant)
	delete(l.uses, tenant)
}

// ask notes what was refused in a namespace.
func (l *Ledger) ask(tenant string, amounts map[corev1.ResourceName]int64, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.demands == nil {
		l.demands = map[string]map[corev1.ResourceName]demand{}
	}
	l.demands[tenant] = map[corev1.ResourceName]demand{}
	for name, amount := range amounts {
		l.demands[tenant][name] = demand{amount: amount, until: until}
	}
}

// demanded is what was refused and has not come since: when more is in use than
// before, it was served.
func (l *Ledger) demanded(tenant string, name corev1.ResourceName, used int64, now time.Time) int64 {
	d, ok := l.demands[tenant][name]
	if !ok {
		return 0
	}
	if !d.known {
		d.used, d.known = used, true
		l.demands[tenant][name] = d
	}
	if used > d.used || !now.Before(d.until) {
		delete(l.demands[tenant], name)
		return 0
	}
	return d.amount
}

// quiet says whether nothing has come or gone for quietTime. When a ResourceQuota
// changes, Kubernetes counts anew what it sees; what was let in a moment before is
// perhaps not among it, and then one too many is let in later.
func (l *Ledger) quiet(tenant string, name corev1.ResourceName, s seen, now time.Time) bool {
	if l.uses == nil {
		l.uses = map[string]map[corev1.ResourceName]use{}
	}
	if l.uses[tenant] == nil {
		l.uses[tenant] = map[corev1.ResourceName]use{}
	}
	u, known := l.uses[tenant][name]
	if s.used == 0 && s.hard == 0 {
		u = use{} // Nothing can have been let in.
	} else if !known || u.used != s.used {
		if now.Sub(u.since) >= quietTime {
			u.stirs = now
		}
		u.used, u.since = s.used, now
	}
	l.uses[tenant][name] = u
	return now.Sub(u.since) >= quietTime || now.Sub(u.stirs) >= patience
}

// ours says whether a ResourceQuota holds shares: the one that keeps the control
// plane's priority to itself does not.
func ours(quota *corev1.ResourceQuota) bool {
	return quota.Name == isolation.QuotaPods || quota.Name == isolation.QuotaObjects
}

// controlPlaneShare reads what of a ResourceQuota is the control plane's own.
func controlPlaneShare(quota *corev1.ResourceQuota) map[corev1.ResourceName]int64 {
	return parseAmounts(quota.Annotations[api.AnnotationControlPlaneShare])
}

// parseAmounts reads "services=2,secrets=4" as units; what it cannot read it
// leaves out.
func parseAmounts(text string) map[corev1.ResourceName]int64 {
	amounts := map[corev1.ResourceName]int64{}
	for _, pair := range strings.Split(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		quantity, err := resource.ParseQuantity(value)
		if ok && err == nil {
			amounts[corev1.ResourceName(name)] = units(corev1.ResourceName(name), quantity)
		}
	}
	return amounts
}

// seen is what the cache shows of one resource in one namespace, without what is
// the control plane's.
type seen struct {
	spec, hard, used int64
	// counted says that the API server enforces and counts it.
	counted bool
}

// look reads the quotas of a namespace.
func look(ctx context.Context, c client.Reader, namespace string) (map[corev1.ResourceName]seen, error) {
	all := map[corev1.ResourceName]seen{}
	for _, name := range []string{isolation.QuotaPods, isolation.QuotaObjects} {
		quota := &corev1.ResourceQuota{}
		err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, quota)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read quota %q in namespace %q: %w", name, namespace, err)
		}
		own := controlPlaneShare(quota)
		for name, spec := range quota.Spec.Hard {
			hard, counted := quota.Status.Hard[name]
			all[name] = seen{
				spec: units(name, spec) - own[name],
				hard: units(name, hard) - own[name],
				// The control plane may not have all that it may yet.
				used:    max(0, units(name, quota.Status.Used[name])-own[name]),
				counted: counted,
			}
		}
	}
	return all, nil
}

// subtree is a tenant and all below it, those above first; at most so many that
// enough of them have a namespace, if enough is not zero.
func subtree(ctx context.Context, c client.Reader, index string, top *api.Tenant, enough int) ([]*api.Tenant, error) {
	all, known := []*api.Tenant{top}, map[string]bool{top.Name: true}
	for i := 0; i < len(all) && (enough == 0 || spaces(all) < enough); i++ {
		list := &api.TenantList{}
		if err := c.List(ctx, list, client.MatchingFields{index: all[i].Name}, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("list the tenants below %q: %w", all[i].Name, err)
		}
		for j := range list.Items {
			if child := &list.Items[j]; !known[child.Name] {
				known[child.Name] = true
				all = append(all, child)
			}
		}
	}
	return all, nil
}

func spaces(tenants []*api.Tenant) int {
	n := 0
	for _, tenant := range tenants {
		if tenancy.HostNamespace(tenant) != "" {
			n++
		}
	}
	return n
}

// units are what shares are counted in: thousandths of cores, else whole numbers.
func units(name corev1.ResourceName, quantity resource.Quantity) int64 {
	if isCPU(name) {
		return quantity.MilliValue()
	}
	return quantity.Value()
}

func amount(name corev1.ResourceName, units int64) resource.Quantity {
	switch {
	case isCPU(name):
		return *resource.NewMilliQuantity(units, resource.DecimalSI)
	case isSize(name):
		return *resource.NewQuantity(units, resource.BinarySI)
	}
	return *resource.NewQuantity(units, resource.DecimalSI)
}

// grain is the smallest amount worth moving.
func grain(name corev1.ResourceName) int64 {
	switch {
	case isCPU(name):
		return 10
	case isSize(name):
		return 1 << 20
	}
	return 1
}

func isCPU(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || strings.HasSuffix(string(name), ".cpu")
}

func isSize(name corev1.ResourceName) bool {
	text := string(name)
	for _, suffix := range []string{"memory", "storage"} {
		if text == suffix || strings.HasSuffix(text, "."+suffix) || strings.HasSuffix(text, "/requests."+suffix) || strings.HasSuffix(text, "-"+suffix) {
			return true
		}
	}
	return strings.Contains(text, "hugepages-")
}

func sortedKeys[K ~string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
