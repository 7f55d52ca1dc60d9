package kinds

import (
	corev1 "k8s.io/api/core/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// accountRefs are both sides of a pod's ServiceAccount: it is chosen once, when
// the pod is made.
func (r *refCollector) accountRefs(pod *corev1.Pod) {
	name := virtualServiceAccount(pod)
	r.add(translate.Ref{Kind: coreKind("ServiceAccount"), Namespace: pod.Namespace, Name: name, Read: true, Watch: true})
	r.add(translate.Ref{Side: translate.Host, Kind: coreKind("ServiceAccount"), Name: translate.HostName(pod.Namespace, name), Read: true, Watch: true})
}

// account is the host's ServiceAccount for the pod: the copy of its own if that
// crosses, else the one without any right that all share.
func (t *podTranslation) account() string {
	if virtual := t.virtualAccount(); virtual != nil && len(accountAnnotations(t.in.Tenant, virtual)) > 0 {
		return t.hostName(virtual.Name)
	}
	return api.WorkloadServiceAccountName
}

// waitsForAccount tells whether the copy has yet to be made: the host takes no
// pod without its ServiceAccount.
func (t *podTranslation) waitsForAccount() bool {
	name := t.account()
	return t.in.Host == nil && name != api.WorkloadServiceAccountName &&
		translate.Find[*corev1.ServiceAccount](t.in.Refs, translate.Host, t.in.Tenant.HostNamespace, name) == nil
}

func (t *podTranslation) virtualAccount() *corev1.ServiceAccount {
	return translate.Find[*corev1.ServiceAccount](t.in.Refs, translate.Virtual, t.pod.Namespace, virtualServiceAccount(t.pod))
}
