package kinds

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// noNamespace is a label value that is no namespace's name.
const noNamespace = "no.namespace"

// nodeSelector: the tenant's comes on top.
func (t *podTranslation) nodeSelector() map[string]string {
	if len(t.pod.Spec.NodeSelector)+len(t.in.Tenant.NodeSelector) == 0 {
		return nil
	}
	out := maps.Clone(t.pod.Spec.NodeSelector)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, t.in.Tenant.NodeSelector)
	return out
}

// affinity keeps pod affinity inside the tenant: all its pods are in one host
// namespace, so virtual namespaces become conditions on labels.
func (t *podTranslation) affinity() *corev1.Affinity {
	out := t.pod.Spec.Affinity.DeepCopy()
	if out == nil {
		out = &corev1.Affinity{}
	}
	if pods := out.PodAffinity; pods != nil {
		for i := range pods.RequiredDuringSchedulingIgnoredDuringExecution {
			t.term(&pods.RequiredDuringSchedulingIgnoredDuringExecution[i])
		}
		pods.PreferredDuringSchedulingIgnoredDuringExecution = t.weighted(pods.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if pods := out.PodAntiAffinity; pods != nil {
		pods.RequiredDuringSchedulingIgnoredDuringExecution = t.avoided(pods.RequiredDuringSchedulingIgnoredDuringExecution)
		pods.PreferredDuringSchedulingIgnoredDuringExecution = t.weighted(pods.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if name := t.pod.Spec.NodeName; name != "" {
		// The scheduler of the host is not to be gone round: a wish for a node
		// is a wish to it.
		out.NodeAffinity = onNode(out.NodeAffinity, name)
	}
	if *out == (corev1.Affinity{}) {
		return nil
	}
	return out
}

// runtimeClass is the host's class for the pod: the one that its limits give to
// all, or the one that it asks for. A class that the tenant made itself stands for
// the class with the same handler among those that the limits allow; what it says
// of overhead counts in the tenant.
func (t *podTranslation) runtimeClass() (*string, error) {
	tenant, wanted := t.in.Tenant, t.pod.Spec.RuntimeClassName
	switch {
	case t.in.Host != nil:
		return t.in.Host.Spec.RuntimeClassName, nil // It cannot change any more.
	case wanted == nil && tenant.RuntimeClass == "":
		return nil, nil
	case wanted == nil:
		return new(tenant.RuntimeClass), nil
	case runtimeClassAllowed(tenant, *wanted):
		return new(*wanted), nil
	}
	own := translate.Find[*nodev1.RuntimeClass](t.in.Refs, translate.Virtual, "", *wanted)
	if own == nil {
		return nil, refuseRuntimeClass(tenant, *wanted)
	}
	var same []string
	for _, class := range translate.FindAll[*nodev1.RuntimeClass](t.in.Refs, translate.Host, "") {
		if class.Handler == own.Handler && runtimeClassAllowed(tenant, class.Name) {
			same = append(same, class.Name)
		}
	}
	if len(same) == 0 {
		return nil, fmt.Errorf("%w; none of the host's has its handler %q", refuseRuntimeClass(tenant, *wanted), own.Handler)
	}
	return new(slices.Min(same)), nil
}

func refuseRuntimeClass(tenant translate.Tenant, class string) error {
	allowed := slices.Clone(tenant.RuntimeClasses)
	if tenant.RuntimeClass != "" {
		allowed = append(allowed, tenant.RuntimeClass)
	}
	if len(allowed) == 0 {
		return fmt.Errorf("spec.runtimeClassName %q is not available to this tenant: leave it out", class)
	}
	slices.Sort(allowed)
	return fmt.Errorf("spec.runtimeClassName %q is not available to this tenant: use one of %q or leave it out", class, slices.Compact(allowed))
}

func onNode(affinity *corev1.NodeAffinity, name string) *corev1.NodeAffinity {
	if affinity == nil {
		affinity = &corev1.NodeAffinity{}
	}
	field := corev1.NodeSelectorRequirement{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{name}}
	required := affinity.RequiredDuringSchedulingIgnoredDuringExecution
	if required == nil {
		required = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{}}}
		affinity.RequiredDuringSchedulingIgnoredDuringExecution = required
	}
	for i := range required.NodeSelectorTerms {
		term := &required.NodeSelectorTerms[i]
		if slices.ContainsFunc(term.MatchFields, func(f corev1.NodeSelectorRequirement) bool { return f.Key == metav1.ObjectNameField }) {
			continue // One that already names a node, as DaemonSets do.
		}
		term.MatchFields = append(term.MatchFields, field)
	}
	return affinity
}

// avoided are required terms of anti-affinity: whoever avoids two groups of
// pods avoids both together.
func (t *podTranslation) avoided(terms []corev1.PodAffinityTerm) []corev1.PodAffinityTerm {
	var out []corev1.PodAffinityTerm
	for _, term := range terms {
		out = append(out, t.split(term)...)
	}
	return out
}

// weighted are preferred terms: each pod that one matches counts, and each is
// in one part only.
func (t *podTranslation) weighted(terms []corev1.WeightedPodAffinityTerm) []corev1.WeightedPodAffinityTerm {
	var out []corev1.WeightedPodAffinityTerm
	for _, weighted := range terms {
		for _, part := range t.split(weighted.PodAffinityTerm) {
			out = append(out, corev1.WeightedPodAffinityTerm{Weight: weighted.Weight, PodAffinityTerm: part})
		}
	}
	return out
}

// split translates a term. One that names namespaces and selects others means
// either, which one selector of labels cannot say: it becomes two, which have
// no pod in common and follow the labels of namespaces.
func (t *podTranslation) split(term corev1.PodAffinityTerm) []corev1.PodAffinityTerm {
	if !namesAndSelects(term) || term.LabelSelector == nil {
		t.term(&term)
		return []corev1.PodAffinityTerm{term}
	}
	named, selected := term.DeepCopy(), term.DeepCopy()
	named.NamespaceSelector, selected.Namespaces = nil, nil
	t.term(named)
	t.term(selected)
	selected.LabelSelector.MatchExpressions = append(selected.LabelSelector.MatchExpressions, metav1.LabelSelectorRequirement{
		Key: api.LabelVirtualNamespace, Operator: metav1.LabelSelectorOpNotIn, Values: slices.Sorted(slices.Values(term.Namespaces)),
	})
	return []corev1.PodAffinityTerm{*named, *selected}
}

// namesAndSelects tells whether a term names namespaces and selects some
// others.
func namesAndSelects(term corev1.PodAffinityTerm) bool {
	selector := term.NamespaceSelector
	return len(term.Namespaces) > 0 && selector != nil && len(selector.MatchLabels)+len(selector.MatchExpressions) > 0
}

// term changes its argument, which is a copy.
func (t *podTranslation) term(term *corev1.PodAffinityTerm) {
	if term.LabelSelector != nil { // Without it a term matches no pod.
		term.LabelSelector.MatchExpressions = append(term.LabelSelector.MatchExpressions, t.fence(term)...)
		t.labelKeys(term.LabelSelector, term.MatchLabelKeys, metav1.LabelSelectorOpIn)
		t.labelKeys(term.LabelSelector, term.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	}
	term.MatchLabelKeys, term.MismatchLabelKeys = nil, nil
	term.Namespaces, term.NamespaceSelector = nil, nil
}

// fence says in labels of host pods which virtual namespaces a term means.
func (t *podTranslation) fence(term *corev1.PodAffinityTerm) []metav1.LabelSelectorRequirement {
	selector := term.NamespaceSelector
	switch {
	case selector == nil && len(term.Namespaces) == 0:
		return inNamespace(t.pod.Namespace)
	case selector == nil:
		return inNamespace(slices.Sorted(slices.Values(term.Namespaces))...)
	case len(term.Namespaces) == 0 || len(selector.MatchLabels)+len(selector.MatchExpressions) == 0:
		return inNamespaces(selector)
	}
	// Both, in a term that cannot be split: those that exist now are listed.
	names := slices.Clone(term.Namespaces)
	if matching, err := metav1.LabelSelectorAsSelector(selector); err == nil {
		for _, namespace := range translate.FindAll[*corev1.Namespace](t.in.Refs, translate.Virtual, "") {
			if matching.Matches(labels.Set(namespace.Labels)) {
				names = append(names, namespace.Name)
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		names = []string{noNamespace}
	}
	return inNamespace(names...)
}

// labelKeys says a matchLabelKeys in the selector itself, as newer API servers
// do, unless it is there already.
func (t *podTranslation) labelKeys(selector *metav1.LabelSelector, keys []string, operator metav1.LabelSelectorOperator) {
	for _, key := range keys {
		value, ok := t.pod.Labels[key]
		want := metav1.LabelSelectorRequirement{Key: key, Operator: operator, Values: []string{value}}
		there := slices.ContainsFunc(selector.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
			return r.Key == want.Key && r.Operator == want.Operator && slices.Equal(r.Values, want.Values)
		})
		if ok && !there {
			selector.MatchExpressions = append(selector.MatchExpressions, want)
		}
	}
}

func (t *podTranslation) topologySpread() []corev1.TopologySpreadConstraint {
	var out []corev1.TopologySpreadConstraint
	for i := range t.pod.Spec.TopologySpreadConstraints {
		constraint := t.pod.Spec.TopologySpreadConstraints[i].DeepCopy()
		if constraint.LabelSelector != nil { // Without it no pod counts.
			constraint.LabelSelector.MatchExpressions = append(constraint.LabelSelector.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: api.LabelVirtualNamespace, Operator: metav1.LabelSelectorOpIn, Values: []string{t.pod.Namespace},
			})
			t.labelKeys(constraint.LabelSelector, constraint.MatchLabelKeys, metav1.LabelSelectorOpIn)
		}
		constraint.MatchLabelKeys = nil
		out = append(out, *constraint)
	}
	return out
}

// names gives the containers the host name that a kubelet would give them. The
// subdomain does not cross: the kubelet would make a name of it in the host's
// namespace and domain.
func (t *podTranslation) names(out *corev1.PodSpec) error {
	in := t.pod.Spec
	if in.HostNetwork {
		return nil // It has the node's.
	}
	name := in.Hostname
	if name == "" {
		name = hostnameOf(t.pod.Name)
	}
	// The field takes no dots, and an older host knows no other.
	out.Hostname = strings.ReplaceAll(name, ".", "-")
	switch {
	case in.HostnameOverride != nil:
		out.HostnameOverride = new(*in.HostnameOverride)
	case in.SetHostnameAsFQDN != nil && *in.SetHostnameAsFQDN && in.Subdomain != "":
		full := strings.Join([]string{name, in.Subdomain, t.pod.Namespace, "svc", t.in.Tenant.ClusterDomain}, ".")
		if len(full) > maxHostname {
			return fmt.Errorf("spec.setHostnameAsFQDN: the name %q has %d characters, and a host name at most %d: choose a shorter hostname or subdomain", full, len(full), maxHostname)
		}
		out.HostnameOverride = &full
	case name != out.Hostname:
		out.HostnameOverride = &name
	}
	return nil
}

// maxHostname is what the kernel takes.
const maxHostname = 64

// hostnameOf cuts a pod's name to what a host name may be, as the kubelet does.
func hostnameOf(name string) string {
	if len(name) > 63 {
		name = name[:63]
	}
	return strings.TrimRight(name, "-.")
}

// What the API allows in a dnsConfig (pkg/apis/core/validation). The kubelet,
// too, leaves out what is more.
const (
	maxNameservers      = 3
	maxSearches         = 32
	maxSearchCharacters = 2048
)

// dns leads to the tenant's DNS where a real cluster leads to its own.
func (t *podTranslation) dns(out *corev1.PodSpec) {
	in := t.pod.Spec
	policy := in.DNSPolicy
	if policy == "" {
		policy = corev1.DNSClusterFirst
	}
	if policy == corev1.DNSClusterFirst && in.HostNetwork {
		policy = corev1.DNSDefault // So does the kubelet.
	}
	if policy == corev1.DNSClusterFirstWithHostNet {
		policy = corev1.DNSClusterFirst
	}
	out.DNSPolicy, out.DNSConfig = policy, in.DNSConfig.DeepCopy()
	if policy != corev1.DNSClusterFirst {
		return
	}
	domain := t.in.Tenant.ClusterDomain
	config := &corev1.PodDNSConfig{
		Nameservers: []string{t.in.Tenant.DNSServiceIP},
		Searches:    []string{t.pod.Namespace + ".svc." + domain, "svc." + domain, domain},
	}
	ndots := "5"
	options := []corev1.PodDNSConfigOption{{Name: "ndots", Value: &ndots}}
	if own := in.DNSConfig; own != nil {
		config.Nameservers = unique(append(config.Nameservers, own.Nameservers...), maxNameservers)
		config.Searches = unique(append(config.Searches, own.Searches...), maxSearches)
		for len(strings.Join(config.Searches, " ")) > maxSearchCharacters {
			config.Searches = config.Searches[:len(config.Searches)-1]
		}
		if slices.ContainsFunc(own.Options, func(o corev1.PodDNSConfigOption) bool { return o.Name == "ndots" }) {
			options = nil
		}
		options = append(options, in.DNSConfig.DeepCopy().Options...)
	}
	config.Options = options
	out.DNSPolicy, out.DNSConfig = corev1.DNSNone, config
}

func unique(in []string, most int) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) && len(out) < most {
			out = append(out, s)
		}
	}
	return out
}
