package kinds

import (
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// All is every kind that crosses. A kind that is not in it does not exist for
// the syncer.
func All() []translate.Any {
	return []translate.Any{
		Pod().Erase(),
		Service().Erase(),
		EndpointSlice().Erase(),
		ConfigMap().Erase(),
		Secret().Erase(),
		PersistentVolumeClaim().Erase(),
		NetworkPolicy().Erase(),
		PersistentVolume().Erase(),
		Ingress().Erase(),
		HTTPRoute().Erase(),
		PodDisruptionBudget().Erase(),
		ServiceAccount().Erase(),
		Node().Erase(),
		StorageClass().Erase(),
		PriorityClass().Erase(),
		RuntimeClass().Erase(),
		IngressClass().Erase(),
		GatewayClass().Erase(),
		VolumeSnapshotClass().Erase(),
		Event().Erase(),
	}
}

// Rules is what the syncer of a tenant must be allowed to do on the host:
// namespaced rules for a Role in the tenant's namespace, cluster rules to read
// the few cluster-scoped kinds. The chart's ClusterRoles are made of them.
func Rules() (namespaced, cluster []rbacv1.PolicyRule) {
	for _, kind := range All() {
		namespaced = append(namespaced, kind.Rules...)
		cluster = append(cluster, kind.ClusterRules...)
	}
	// What the kubelet of the virtual nodes forwards: exec, attach, logs and
	// port-forward. A WebSocket is a GET, but hosts ask for create as well.
	namespaced = append(namespaced,
		rule("", "get,create", "pods/exec", "pods/attach", "pods/portforward"),
		rule("", "get", "pods/log"))
	// What the tenant's metrics.k8s.io is made of.
	namespaced = append(namespaced, rule("metrics.k8s.io", "list", "pods"))
	// The syncer looks up the owner of all it makes.
	owner := rule("apps", "get", "statefulsets")
	owner.ResourceNames = []string{api.ControlPlaneName}
	return append(namespaced, owner), cluster
}

// everything is what the syncer does with a kind that begins in the tenant.
const everything = "get,list,watch,create,update,patch,delete"

// readOnly is what it does with a kind that begins on the host.
const readOnly = "get,list,watch"

func rule(group, verbs string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: strings.Split(verbs, ",")}
}
