package translate

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// DefaultClusterDomain is the tenant's DNS domain when its config names none.
const DefaultClusterDomain = "cluster.local"

// Tenant is what every translation may know of the tenant.
type Tenant struct {
	// Name of the tenant, HostNamespace where all its host objects live.
	Name          string
	HostNamespace string
	// Owner is an object of the tenant's control plane in the host namespace;
	// the host's garbage collector takes what we made when it is gone. Nil
	// leaves owner references out.
	Owner *metav1.OwnerReference

	// ClusterDomain is the tenant's DNS domain, DNSServiceIP the address of its
	// DNS, APIServiceIP that of default/kubernetes.
	ClusterDomain string
	DNSServiceIP  string
	APIServiceIP  string

	// What the tenant's limits allow or impose; see api.ControlPlaneConfig.
	PodSecurity               api.PodSecurityLevel
	Services                  []corev1.ServiceType
	StorageClasses            []string
	RuntimeClass              string
	NodeSelector              map[string]string
	RuntimeClasses            []string
	PriorityClasses           []string
	Tolerations               []corev1.Toleration
	IngressClasses            []string
	Gateways                  []string
	Hosts                     []string
	ServiceAccountAnnotations []string
	CustomResources           []api.CustomResource
	// Nodes chooses the nodes that the tenant sees beside those in use; nil none.
	Nodes *api.NodesSpec
	// Scheduler tells that the tenant's own scheduler chooses nodes.
	Scheduler bool
}

// NewTenant is the tenant of a config.
func NewTenant(c api.ControlPlaneConfig, owner *metav1.OwnerReference) Tenant {
	domain := c.ClusterDomain
	if domain == "" {
		domain = DefaultClusterDomain
	}
	return Tenant{
		Name:                      c.Tenant,
		HostNamespace:             c.HostNamespace,
		Owner:                     owner,
		ClusterDomain:             domain,
		DNSServiceIP:              c.DNSServiceIP,
		APIServiceIP:              c.APIServiceIP,
		PodSecurity:               c.PodSecurity,
		Services:                  c.Services,
		StorageClasses:            c.StorageClasses,
		RuntimeClass:              c.RuntimeClass,
		NodeSelector:              c.NodeSelector,
		RuntimeClasses:            c.RuntimeClasses,
		PriorityClasses:           c.PriorityClasses,
		Tolerations:               c.Tolerations,
		IngressClasses:            c.IngressClasses,
		Gateways:                  c.Gateways,
		Hosts:                     c.Hosts,
		ServiceAccountAnnotations: c.ServiceAccountAnnotations,
		CustomResources:           c.CustomResources,
		Nodes:                     c.Nodes,
		Scheduler:                 c.Scheduler,
	}
}
