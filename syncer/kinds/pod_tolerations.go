package kinds

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// nodeTaintDomain is that of the taints which Kubernetes itself puts on nodes;
// tolerating them concerns nobody but the pod.
const nodeTaintDomain = "node.kubernetes.io/"

// tolerations are those that the tenant's limits allow. What is left out leaves
// the pod to the host's scheduler, which says which taint keeps it from where.
func tolerations(tenant translate.Tenant, in []corev1.Toleration) []corev1.Toleration {
	var out []corev1.Toleration
	add := func(toleration corev1.Toleration) {
		same := func(have corev1.Toleration) bool { return have.MatchToleration(&toleration) }
		if !slices.ContainsFunc(out, same) {
			out = append(out, toleration)
		}
	}
	for i := range in {
		wanted := in[i].DeepCopy()
		if strings.HasPrefix(wanted.Key, nodeTaintDomain) {
			add(*wanted)
			continue
		}
		var allowed []corev1.Toleration
		for _, entry := range tenant.Tolerations {
			if both, ok := tolerated(entry, *wanted); ok {
				allowed = append(allowed, both)
			}
		}
		if wanted.Key == "" && !slices.ContainsFunc(allowed, func(t corev1.Toleration) bool { return t.MatchToleration(wanted) }) {
			// There is no toleration for a domain, so each is named.
			for _, key := range append(nodeTaints(), corev1.TaintNodeOutOfService) {
				narrowed := wanted.DeepCopy()
				narrowed.Key = key
				allowed = append(allowed, *narrowed)
			}
		}
		for _, toleration := range allowed {
			add(toleration)
		}
	}
	return out
}

// tolerated is what both an entry of the limits and a toleration tolerate, if
// anything.
func tolerated(entry, wanted corev1.Toleration) (corev1.Toleration, bool) {
	out := *wanted.DeepCopy()
	switch {
	case entry.Key == "" || entry.Key == wanted.Key:
	case wanted.Key == "":
		out.Key = entry.Key
	default:
		return out, false
	}
	switch {
	case exists(entry):
	case exists(wanted):
		out.Operator, out.Value = entry.Operator, entry.Value
	case entry.Value != wanted.Value || operator(entry) != operator(wanted):
		return out, false
	}
	switch {
	case entry.Effect == "" || entry.Effect == wanted.Effect:
	case wanted.Effect == "":
		out.Effect = entry.Effect
	default:
		return out, false
	}
	if out.Effect != corev1.TaintEffectNoExecute && out.Effect != "" {
		out.TolerationSeconds = nil
		return out, true
	}
	if most := entry.TolerationSeconds; most != nil && (out.TolerationSeconds == nil || *out.TolerationSeconds > *most) {
		out.TolerationSeconds = new(*most)
	}
	if out.TolerationSeconds != nil && out.Effect == "" {
		// The API wants an effect with it. Only this one knows a time.
		out.Effect = corev1.TaintEffectNoExecute
	}
	return out, true
}

func exists(t corev1.Toleration) bool { return t.Operator == corev1.TolerationOpExists }

// operator with its default.
func operator(t corev1.Toleration) corev1.TolerationOperator {
	if t.Operator == "" {
		return corev1.TolerationOpEqual
	}
	return t.Operator
}
