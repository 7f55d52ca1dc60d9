package isolation

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// Object is any Kubernetes object.
type Object interface {
	metav1.Object
	runtime.Object
}

// Input is all that a policy may know.
type Input struct {
	Tenant tenancy.Effective
	Host   Host
	// Shares is what this namespace has of the tenant's quota, where others below
	// have parts of it too; nil for all of it.
	Shares corev1.ResourceList
	// ControlPlane is what the tenant's control plane itself takes of countable
	// and storage resources, by the names of a quota; nil for other types.
	ControlPlane corev1.ResourceList
	// Templates says that there are templates to be applied in the namespace, or
	// to be taken away.
	Templates bool
}

// Host is what the fence must know of the host cluster.
type Host struct {
	// SystemNamespace is the manager's.
	SystemNamespace string
	// Unguarded says that no admission policy holds what a tenant's admin may
	// change about it.
	Unguarded bool
	// APIServers are the endpoints of the host's API, APIServiceIPs the
	// addresses of the Service in front of them.
	APIServers    []Endpoint
	APIServiceIPs []string
	// Ranges are the CIDRs of the cluster itself: pods, Services, nodes.
	Ranges []string
	// PodRanges are those of Ranges that pods have their addresses of.
	PodRanges []string
	// DefaultPriorityClass is that of pods that name none, if there is one.
	DefaultPriorityClass string
	// IngressNamespaces are where the host's ingress controllers and gateways
	// run.
	IngressNamespaces []string
}

// Endpoint is an address and a port.
type Endpoint struct {
	IP   string
	Port int32
}

// Policy makes one part of the fence.
type Policy struct {
	// Name is that of its file.
	Name string
	// Objects of the policy; none when the tenant needs none.
	Objects func(Input) []Object
}

// All are the policies that make up the fence.
func All() []Policy {
	return []Policy{
		{"quota", quota},
		{"limitrange", limitRange},
		{"network", network},
		{"cleanup", Cleanup},
	}
}

// Objects is the whole fence of a tenant, in the order of All. What else bears
// the fence's label in the namespace is left over from an earlier one. Members'
// rights are Access: they are given last.
func Objects(in Input) []Object {
	var objects []Object
	for _, policy := range All() {
		objects = append(objects, policy.Objects(in)...)
	}
	return objects
}

// meta is what every object of the fence carries.
func meta(in Input, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:      name,
		Namespace: in.Tenant.Namespace,
		Labels:    Labels(in.Tenant.Name),
	}
}

// Labels of every object of a tenant's fence.
func Labels(tenant string) map[string]string {
	return map[string]string{
		api.LabelTenant:    tenant,
		api.LabelComponent: api.ComponentFence,
	}
}
