package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
)

// ConfigKey is the key of the ControlPlaneConfig, as YAML, in the ConfigMap
// named ControlPlaneName in a tenant's host namespace.
const ConfigKey = "config.yaml"

// ControlPlaneConfig is what the manager tells a tenant's control plane: the
// one thing in which the manager and the syncer meet. It is a file, not a
// stored kind.
type ControlPlaneConfig struct {
	// Tenant is the tenant's name, HostNamespace its namespace on the host.
	Tenant        string `json:"tenant"`
	HostNamespace string `json:"hostNamespace"`

	// Version, FeatureGates and RuntimeConfig are those of the
	// VirtualClusterSpec.
	Version       string            `json:"version,omitempty"`
	FeatureGates  map[string]bool   `json:"featureGates,omitempty"`
	RuntimeConfig map[string]string `json:"runtimeConfig,omitempty"`

	// ServiceCIDRs are the host's service ranges: a Service has the same
	// ClusterIP on both sides. At most one for each IP family.
	ServiceCIDRs []string `json:"serviceCIDRs"`
	// APIServiceIP is the ClusterIP of the host Service of the tenant's API; in
	// the tenant it is the ClusterIP of default/kubernetes.
	APIServiceIP string `json:"apiServiceIP"`
	// DNSServiceIP is the ClusterIP of the host Service of the tenant's DNS.
	DNSServiceIP string `json:"dnsServiceIP"`
	// HostAPI is where the host's API is, as ADDRESS:PORT: the tenant may not have
	// its API server call it.
	HostAPI []string `json:"hostAPI,omitempty"`
	// ClusterDomain of the tenant; the default is cluster.local.
	ClusterDomain string `json:"clusterDomain,omitempty"`

	// Members that apply to the tenant, from everywhere above it.
	Members []Member `json:"members,omitempty"`

	// PodSecurity is the level that the host enforces.
	PodSecurity PodSecurityLevel `json:"podSecurity"`
	// Services are the types of Service that may be used.
	Services []corev1.ServiceType `json:"services,omitempty"`
	// StorageClasses that the tenant may see; empty means all.
	StorageClasses []string `json:"storageClasses,omitempty"`
	// RuntimeClass and NodeSelector are given to every pod.
	RuntimeClass string            `json:"runtimeClass,omitempty"`
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// What follows is as in Limits.
	RuntimeClasses            []string            `json:"runtimeClasses,omitempty"`
	PriorityClasses           []string            `json:"priorityClasses,omitempty"`
	Tolerations               []corev1.Toleration `json:"tolerations,omitempty"`
	IngressClasses            []string            `json:"ingressClasses,omitempty"`
	Gateways                  []string            `json:"gateways,omitempty"`
	Hosts                     []string            `json:"hosts,omitempty"`
	ServiceAccountAnnotations []string            `json:"serviceAccountAnnotations,omitempty"`
	CustomResources           []CustomResource    `json:"customResources,omitempty"`
	// Nodes, Scheduler and Profiling are as in VirtualClusterSpec.
	Nodes     *NodesSpec `json:"nodes,omitempty"`
	Scheduler bool       `json:"scheduler,omitempty"`
	Profiling bool       `json:"profiling,omitempty"`
	// Audit and Authentication are as in VirtualClusterSpec.
	Audit          *AuditSpec          `json:"audit,omitempty"`
	Authentication *AuthenticationSpec `json:"authentication,omitempty"`
}
