package isolation

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// Owner refers to a Tenant as the owner of a cluster-scoped object.
func Owner(name string, uid types.UID) metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: api.GroupVersion.String(),
		Kind:       "Tenant",
		Name:       name,
		UID:        uid,
	}
}
