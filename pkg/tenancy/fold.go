package tenancy

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// Fold tells what counts for the last tenant of a path that begins at the root;
// see PathTo. What is invalid is taken as it stands: ask Validate first.
//
//	root ─► … ─► the tenant
//	members, templates   everything said on the way, said once
//	limits               what is allowed by everybody on the way who says
//	                     anything; what nobody says has a default, which binds
//	                     all that is below the root's own children
//	pod defaults         the nearest
func Fold(path []*api.Tenant) Effective {
	t := path[len(path)-1]
	e := Effective{
		Name:      t.Name,
		UID:       t.UID,
		Type:      t.Spec.Type,
		Namespace: HostNamespace(t),
	}
	if e.Type == "" {
		e.Type = api.VirtualCluster
	}
	f := newFolding()
	var defaults api.ContainerDefaults
	for depth, above := range path {
		e.Path = append(e.Path, above.Name)
		e.addMembers(above, depth == len(path)-1)
		e.addTemplates(above)
		if l := above.Spec.Limits; l != nil {
			f.tighten(l, above.Name)
			defaults = overlay(defaults, l.PodDefaults)
		}
		if depth == 1 {
			f.fillIn()
		}
	}
	f.fillIn()
	e.Limits, e.LimitOrigins = f.result()
	e.Limits.ContainerDefaults = containerDefaults(e.Limits.Quota, &defaults)
	if e.Type == api.VirtualCluster {
		e.VirtualCluster = virtualClusterOf(t.Spec.VirtualCluster)
	}
	return e
}

// Of tells what counts for a tenant directly below a root that says nothing.
func Of(t *api.Tenant) Effective {
	if t.Name == api.RootTenant {
		return Fold([]*api.Tenant{t})
	}
	root := &api.Tenant{Spec: api.TenantSpec{Type: api.Folder}}
	root.Name = api.RootTenant
	return Fold([]*api.Tenant{root, t})
}

func (e *Effective) addMembers(t *api.Tenant, itself bool) {
	for _, member := range t.Spec.Members {
		if itself && member.Scope == api.ScopeDescendants {
			continue
		}
		member.Scope = ""
		if !slices.Contains(e.Members, member) {
			e.Members = append(e.Members, member)
			e.MemberOrigins = append(e.MemberOrigins, t.Name)
		}
	}
}

func (e *Effective) addTemplates(t *api.Tenant) {
	for _, ref := range t.Spec.Templates {
		known := slices.ContainsFunc(e.Templates, func(k api.EffectiveTemplate) bool { return k.Name == ref.Name })
		if !known {
			e.Templates = append(e.Templates, api.EffectiveTemplate{TemplateRef: *ref.DeepCopy(), From: t.Name})
		}
	}
}

// overlay lays the defaults of a tenant over those from above.
func overlay(above api.ContainerDefaults, own *api.ContainerDefaults) api.ContainerDefaults {
	if own == nil {
		return above
	}
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	maps.Copy(requests, above.Requests)
	maps.Copy(requests, own.Requests)
	maps.Copy(limits, above.Limits)
	maps.Copy(limits, own.Limits)
	return api.ContainerDefaults{Requests: requests, Limits: limits}
}

// bound is one limit on the way down: nothing yet, or a value and who said it.
type bound[T any] struct {
	set   bool
	value T
	from  []string
}

// tighten makes a bound what it allows together with another value. Meet is what
// both of two values allow; it never is more than either.
func (b *bound[T]) tighten(value T, from string, meet func(a, b T) T, same func(a, b T) bool) {
	if !b.set {
		*b = bound[T]{true, value, []string{from}}
		return
	}
	both := meet(b.value, value)
	switch {
	case same(both, b.value):
	case same(both, value):
		b.value, b.from = both, []string{from}
	default:
		b.value, b.from = both, append(slices.Clone(b.from), from)
	}
}

// fillIn is the default of a limit that nobody set.
func (b *bound[T]) fillIn(value T) {
	if !b.set {
		*b = bound[T]{set: true, value: value}
	}
}

// list is a bound on a list, by how much two of its entries allow together.
type list[T any] struct {
	bound[[]T]
	meet func(a, b T) (T, bool)
	less func(a, b T) int
}

func (l *list[T]) tighten(values []T, from string) {
	values = l.sorted(values)
	l.bound.tighten(values, from, l.both, func(a, b []T) bool { return reflect.DeepEqual(a, b) })
}

// both are the entries that two lists have in common; of an entry within
// another, the narrower one.
func (l *list[T]) both(a, b []T) []T {
	common := []T{}
	for _, x := range a {
		for _, y := range b {
			if z, ok := l.meet(x, y); ok {
				common = append(common, z)
			}
		}
	}
	return l.sorted(common)
}

// sorted orders a list and drops what another entry allows already.
func (l *list[T]) sorted(values []T) []T {
	kept := []T{}
	for i, v := range values {
		within := func(j int) bool {
			both, ok := l.meet(v, values[j])
			if !ok || l.less(both, v) != 0 {
				return false
			}
			// Of two that are the same the first stays.
			return l.less(values[j], v) != 0 || j < i
		}
		covered := false
		for j := range values {
			covered = covered || j != i && within(j)
		}
		if !covered {
			kept = append(kept, v)
		}
	}
	slices.SortFunc(kept, l.less)
	return kept
}

// folding is the limits on the way down.
type folding struct {
	quota        map[corev1.ResourceName]*bound[resource.Quantity]
	podSecurity  bound[api.PodSecurityLevel]
	services     list[corev1.ServiceType]
	runtimeClass bound[string]
	nodeSelector map[string]*bound[string]
	internet     bound[bool]
	cidrs        list[string]
	// Empty means all.
	storageClasses, ingressClasses list[string]
	// Empty means none.
	runtimeClasses, priorityClasses, gateways, hosts, annotations list[string]
	tolerations                                                   list[corev1.Toleration]
	resources                                                     list[api.CustomResource]
	podDefaults                                                   []string
}

func newFolding() *folding {
	names := func() list[string] { return list[string]{meet: equal[string], less: strings.Compare} }
	f := &folding{
		quota:          map[corev1.ResourceName]*bound[resource.Quantity]{},
		nodeSelector:   map[string]*bound[string]{},
		services:       list[corev1.ServiceType]{meet: equal[corev1.ServiceType], less: compareText[corev1.ServiceType]},
		cidrs:          list[string]{meet: meetCIDRs, less: strings.Compare},
		storageClasses: names(), ingressClasses: names(),
		runtimeClasses: names(), priorityClasses: names(), gateways: names(), annotations: names(),
		hosts:       list[string]{meet: meetHosts, less: strings.Compare},
		tolerations: list[corev1.Toleration]{meet: meetTolerations, less: compareTolerations},
		resources:   list[api.CustomResource]{meet: meetResources, less: compareResources},
	}
	return f
}

// tighten adds the limits of one tenant.
func (f *folding) tighten(l *api.Limits, from string) {
	for name, amount := range l.Quota {
		if f.quota[name] == nil {
			f.quota[name] = &bound[resource.Quantity]{}
		}
		f.quota[name].tighten(amount.DeepCopy(), from, smaller, func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 })
	}
	if l.PodSecurity != "" {
		f.podSecurity.tighten(l.PodSecurity, from, stricter, same)
	}
	if l.RuntimeClass != "" {
		f.runtimeClass.tighten(l.RuntimeClass, from, upper, same)
	}
	for key, value := range l.NodeSelector {
		if f.nodeSelector[key] == nil {
			f.nodeSelector[key] = &bound[string]{}
		}
		f.nodeSelector[key].tighten(value, from, upper, same)
	}
	if len(l.Services) > 0 {
		f.services.tighten(l.Services, from)
	}
	if len(l.StorageClasses) > 0 {
		f.storageClasses.tighten(l.StorageClasses, from)
	}
	if len(l.IngressClasses) > 0 {
		f.ingressClasses.tighten(l.IngressClasses, from)
	}
	if l.PodDefaults != nil {
		f.podDefaults = append(f.podDefaults, from)
	}
	tightenIfSaid(&f.runtimeClasses, l.RuntimeClasses, from)
	tightenIfSaid(&f.priorityClasses, l.PriorityClasses, from)
	tightenIfSaid(&f.tolerations, l.Tolerations, from)
	tightenIfSaid(&f.gateways, l.Gateways, from)
	tightenIfSaid(&f.hosts, l.Hosts, from)
	tightenIfSaid(&f.annotations, l.ServiceAccountAnnotations, from)
	tightenIfSaid(&f.resources, l.CustomResources, from)
	if n := l.Network; n != nil {
		if n.Internet != "" {
			f.internet.tighten(n.Internet != internetDeny, from, func(a, b bool) bool { return a && b }, same)
		}
		tightenIfSaid(&f.cidrs, n.AllowedCIDRs, from)
	}
}

// internetDeny is the strict value of NetworkLimits.Internet.
const internetDeny = "Deny"

// tightenIfSaid takes an empty list for one that allows nothing, and none at all
// for no opinion.
func tightenIfSaid[T any](l *list[T], values []T, from string) {
	if values != nil {
		l.tighten(values, from)
	}
}

// fillIn gives the default to what nobody set. It is done at the root's children:
// whoever manages the root may give them more, and below them a default is a
// bound like any other.
func (f *folding) fillIn() {
	f.podSecurity.fillIn(api.PodSecurityBaseline)
	f.services.fillIn([]corev1.ServiceType{corev1.ServiceTypeClusterIP})
	f.internet.fillIn(true)
	f.runtimeClasses.fillIn([]string{})
	f.priorityClasses.fillIn([]string{})
	f.gateways.fillIn([]string{})
	f.hosts.fillIn([]string{})
	f.annotations.fillIn([]string{})
	f.cidrs.fillIn([]string{})
	f.tolerations.fillIn([]corev1.Toleration{})
	f.resources.fillIn([]api.CustomResource{})
}

// result is the limits, and who set each, by the names of api.EffectiveLimit.
func (f *folding) result() (Limits, map[string][]string) {
	origins := map[string][]string{}
	note := func(name string, from []string) {
		if len(from) > 0 {
			origins[name] = from
		}
	}
	limits := Limits{
		PodSecurity:               f.podSecurity.value,
		Services:                  f.services.value,
		StorageClasses:            orNothing(f.storageClasses.bound),
		IngressClasses:            orNothing(f.ingressClasses.bound),
		RuntimeClass:              f.runtimeClass.value,
		RuntimeClasses:            orNil(f.runtimeClasses.value),
		PriorityClasses:           orNil(f.priorityClasses.value),
		Tolerations:               orNil(f.tolerations.value),
		Gateways:                  orNil(f.gateways.value),
		Hosts:                     orNil(f.hosts.value),
		ServiceAccountAnnotations: orNil(f.annotations.value),
		CustomResources:           orNil(f.resources.value),
		Internet:                  f.internet.value,
		AllowedCIDRs:              orNil(f.cidrs.value),
	}
	for name, b := range f.quota {
		if limits.Quota == nil {
			limits.Quota = corev1.ResourceList{}
		}
		limits.Quota[name] = b.value
		note(limitQuota+"."+string(name), b.from)
	}
	for key, b := range f.nodeSelector {
		if limits.NodeSelector == nil {
			limits.NodeSelector = map[string]string{}
		}
		limits.NodeSelector[key] = b.value
		note(limitNodeSelector+"."+key, b.from)
	}
	note(limitPodSecurity, f.podSecurity.from)
	note(limitServices, f.services.from)
	note(limitStorageClasses, f.storageClasses.from)
	note(limitIngressClasses, f.ingressClasses.from)
	note(limitRuntimeClass, f.runtimeClass.from)
	note(limitRuntimeClasses, f.runtimeClasses.from)
	note(limitPriorityClasses, f.priorityClasses.from)
	note(limitTolerations, f.tolerations.from)
	note(limitGateways, f.gateways.from)
	note(limitHosts, f.hosts.from)
	note(limitAnnotations, f.annotations.from)
	note(limitCustomResources, f.resources.from)
	note(limitInternet, f.internet.from)
	note(limitCIDRs, f.cidrs.from)
	note(limitPodDefaults, f.podDefaults)
	return limits, origins
}

// orNothing keeps a list of which nothing is left from meaning everything.
func orNothing(b bound[[]string]) []string {
	if b.set && len(b.value) == 0 {
		return []string{api.Nothing}
	}
	return b.value
}

func orNil[T any](values []T) []T {
	if len(values) == 0 {
		return nil
	}
	return values
}

func same[T comparable](a, b T) bool { return a == b }

// upper is the value of the one further up: there can be but one.
func upper[T any](above, _ T) T { return above }

func smaller(a, b resource.Quantity) resource.Quantity {
	if b.Cmp(a) < 0 {
		return b
	}
	return a
}

func stricter(a, b api.PodSecurityLevel) api.PodSecurityLevel {
	if Laxity(b) < Laxity(a) {
		return b
	}
	return a
}

// Laxity orders the levels of the Pod Security Standards, the strictest first.
// One that there is not is as strict as any.
func Laxity(level api.PodSecurityLevel) int {
	return slices.Index([]api.PodSecurityLevel{api.PodSecurityRestricted, api.PodSecurityBaseline, api.PodSecurityPrivileged}, level)
}

func equal[T comparable](a, b T) (T, bool) { return a, a == b }

func compareText[T ~string](a, b T) int { return strings.Compare(string(a), string(b)) }

// meetHosts is what two patterns of host names both allow.
func meetHosts(a, b string) (string, bool) {
	switch {
	case api.HostCovers(a, b):
		return b, true
	case api.HostCovers(b, a):
		return a, true
	}
	return "", false
}

// meetCIDRs is the narrower of two ranges, one of which is within the other.
func meetCIDRs(a, b string) (string, bool) {
	if a == b {
		return a, true
	}
	x, errX := netip.ParsePrefix(a)
	y, errY := netip.ParsePrefix(b)
	if errX != nil || errY != nil || !x.Overlaps(y) {
		return "", false
	}
	if x.Bits() >= y.Bits() {
		return a, true
	}
	return b, true
}

// meetTolerations is what two tolerations both tolerate.
func meetTolerations(a, b corev1.Toleration) (corev1.Toleration, bool) {
	if compareTolerations(a, b) == 0 {
		return a, true
	}
	known := func(t corev1.Toleration) bool {
		return t.Operator == "" || t.Operator == corev1.TolerationOpEqual || t.Operator == corev1.TolerationOpExists
	}
	if !known(a) || !known(b) {
		return corev1.Toleration{}, false
	}
	both := a
	if a.Key == "" {
		both.Key, both.Operator, both.Value = b.Key, b.Operator, b.Value
	}
	if a.Key != "" && b.Key != "" {
		exists := func(t corev1.Toleration) bool { return t.Operator == corev1.TolerationOpExists }
		switch {
		case a.Key != b.Key, !exists(a) && !exists(b) && a.Value != b.Value:
			return corev1.Toleration{}, false
		case exists(a):
			both.Operator, both.Value = b.Operator, b.Value
		}
	}
	if a.Effect == "" {
		both.Effect = b.Effect
	} else if b.Effect != "" && a.Effect != b.Effect {
		return corev1.Toleration{}, false
	}
	// None means for ever.
	if a.TolerationSeconds == nil || b.TolerationSeconds != nil && *b.TolerationSeconds < *a.TolerationSeconds {
		both.TolerationSeconds = b.TolerationSeconds
	}
	return both, true
}

func compareTolerations(a, b corev1.Toleration) int {
	return strings.Compare(tolerationText(a), tolerationText(b))
}

// tolerationText is a toleration as kubectl shows it.
func tolerationText(t corev1.Toleration) string {
	text := t.Key
	if text == "" {
		text = "*"
	}
	switch t.Operator {
	case corev1.TolerationOpExists:
	case "", corev1.TolerationOpEqual:
		text += "=" + t.Value
	default:
		text += " " + string(t.Operator) + " " + t.Value
	}
	if t.Effect != "" {
		text += ":" + string(t.Effect)
	}
	if t.TolerationSeconds != nil {
		text += fmt.Sprintf(" for %ds", *t.TolerationSeconds)
	}
	return text
}

// meetResources is a kind that both lists name, as the one further up describes
// it: a reference lets something of the host in. Fields with host names are those
// of both.
func meetResources(a, b api.CustomResource) (api.CustomResource, bool) {
	if compareResources(a, b) != 0 {
		return api.CustomResource{}, false
	}
	both := *a.DeepCopy()
	for _, path := range b.HostPaths {
		if !slices.Contains(both.HostPaths, path) {
			both.HostPaths = append(both.HostPaths, path)
		}
	}
	return both, true
}

func compareResources(a, b api.CustomResource) int {
	return strings.Compare(resourceText(a), resourceText(b))
}

func resourceText(r api.CustomResource) string {
	return fmt.Sprintf("%s.%s/%s", r.Resource, r.Group, r.Version)
}
