package virtualcluster

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// Needs is what a control plane takes of those resources of a quota that a
// scope by priority class cannot leave it out of. The tenant's figures are
// raised by it, so that they stay what the tenant can use.
func Needs(e tenancy.Effective, storage Storage) corev1.ResourceList {
	needs := corev1.ResourceList{}
	count := func(number int64, names ...corev1.ResourceName) {
		for _, name := range names {
			needs[name] = *resource.NewQuantity(number, resource.DecimalSI)
		}
	}
	count(1, "count/pods", "count/statefulsets.apps")
	count(2, corev1.ResourceServices, "count/services")
	// Of each Service; the API server's Endpoints are mirrored.
	count(2, "count/endpoints", "count/endpointslices.discovery.k8s.io")
	// The keys, and a kubeconfig for each role.
	count(4, corev1.ResourceSecrets, "count/secrets")
	// Its own, and the host's kube-root-ca.crt.
	count(2, corev1.ResourceConfigMaps, "count/configmaps")
	// Its own, the workloads', and the namespace's default.
	count(3, "count/serviceaccounts")
	// The kept revisions, the current one, and the next.
	count(revisions+2, "count/controllerrevisions.apps")
	// Of the syncer, of the manager, and of each role.
	count(5, "count/rolebindings.rbac.authorization.k8s.io")
	if len(e.Limits.CustomResources) > 0 {
		// Of the syncer, for these.
		count(6, "count/rolebindings.rbac.authorization.k8s.io")
		count(1, "count/roles.rbac.authorization.k8s.io")
	}
	// Those of package isolation.
	count(3, corev1.ResourceQuotas, "count/resourcequotas")
	count(1, "count/limitranges")
	count(9, "count/networkpolicies.networking.k8s.io")

	resources := resourcesOf(e, storage)
	if request, ok := resources.Requests[corev1.ResourceEphemeralStorage]; ok {
		needs[corev1.ResourceEphemeralStorage] = request
		needs[corev1.ResourceRequestsEphemeralStorage] = request
	}
	if limit, ok := resources.Limits[corev1.ResourceEphemeralStorage]; ok {
		needs[corev1.ResourceLimitsEphemeralStorage] = limit
	}
	if storage.Type != api.StoragePVC {
		return needs
	}
	count(1, corev1.ResourcePersistentVolumeClaims, "count/persistentvolumeclaims")
	needs[corev1.ResourceRequestsStorage] = storage.Size
	if storage.Class != nil && *storage.Class != "" {
		prefix := *storage.Class + ".storageclass.storage.k8s.io/"
		count(1, corev1.ResourceName(prefix+string(corev1.ResourcePersistentVolumeClaims)))
		needs[corev1.ResourceName(prefix+string(corev1.ResourceRequestsStorage))] = storage.Size
	}
	return needs
}
