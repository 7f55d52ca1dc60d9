package isolation

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// limitRange gives containers that say nothing what the quota demands of them.
// It bounds nothing, so that the control plane, which says everything for
// itself, always fits.
func limitRange(in Input) []Object {
	defaults := in.Tenant.Limits.ContainerDefaults
	if len(defaults.Requests) == 0 && len(defaults.Limits) == 0 {
		return nil
	}
	return []Object{&corev1.LimitRange{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "LimitRange"},
		ObjectMeta: meta(in, "sublet"),
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type:           corev1.LimitTypeContainer,
			DefaultRequest: defaults.Requests,
			Default:        defaults.Limits,
		}}},
	}}
}
