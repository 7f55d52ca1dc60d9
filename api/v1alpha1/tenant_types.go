package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Tenant is a node in the tree of tenants.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=tn,categories=sublet
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name="Parent",type=string,JSONPath=`.spec.parent`
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.status.namespace`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.virtualCluster.version`
// +kubebuilder:printcolumn:name="Path",type=string,priority=1,JSONPath=`.status.path`
// +kubebuilder:printcolumn:name="Children",type=integer,priority=1,JSONPath=`.status.children`
// +kubebuilder:printcolumn:name="Expires",type=date,priority=1,JSONPath=`.status.expiresAt`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 40",message="a tenant's name has at most 40 characters"
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="a tenant's name is a DNS label that starts with a letter: a-z, 0-9 and -"
// +kubebuilder:validation:XValidation:rule="self.metadata.name != 'root' || self.spec.type == 'Folder'",message="root is the Folder at the top of the tree"
// +kubebuilder:validation:XValidation:rule="self.metadata.name != 'root' || !(has(self.spec.parent) || has(self.spec.ttl) || has(self.spec.expiresAt))",message="the Folder root has no parent and does not expire"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.parent) || self.spec.parent != self.metadata.name",message="a tenant is not its own parent"
type Tenant struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   TenantSpec   `json:"spec"`
	Status TenantStatus `json:"status,omitempty"`
}

// TenantList is a list of Tenants.
//
// +kubebuilder:object:root=true
type TenantList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Tenant `json:"items"`
}

// TenantType says what a tenant owns on the host.
//
// +kubebuilder:validation:Enum=Folder;Namespace;VirtualCluster
type TenantType string

const (
	// Folder groups tenants and owns nothing on the host.
	Folder TenantType = "Folder"
	// Namespace owns one host namespace that people use directly.
	Namespace TenantType = "Namespace"
	// VirtualCluster owns one host namespace in which a control plane and the
	// objects synced from it run.
	VirtualCluster TenantType = "VirtualCluster"
)

// TenantSpec is what the owner of a tenant wants.
//
// +kubebuilder:validation:XValidation:rule="self.type == oldSelf.type",message="type is immutable: create another tenant instead"
// +kubebuilder:validation:XValidation:rule="!has(self.virtualCluster) || self.type == 'VirtualCluster'",message="virtualCluster is for type VirtualCluster"
// +kubebuilder:validation:XValidation:rule="!has(self.__namespace__) || self.type != 'Folder'",message="a Folder has no namespace"
// +kubebuilder:validation:XValidation:rule="has(self.__namespace__) == has(oldSelf.__namespace__) && (!has(self.__namespace__) || self.__namespace__ == oldSelf.__namespace__)",message="namespace is immutable: create another tenant instead"
type TenantSpec struct {
	// Type says what the tenant owns on the host: VirtualCluster (an API server
	// of its own), Namespace (a plain namespace) or Folder (nothing; it groups).
	// +kubebuilder:default=VirtualCluster
	Type TenantType `json:"type"`

	// Parent names the tenant above this one, of any type. Without it the parent
	// is the Folder "root". To change it is to move the tenant with all that is
	// below it.
	// +optional
	// +kubebuilder:validation:MaxLength=40
	Parent string `json:"parent,omitempty"`

	// Namespace is the tenant's host namespace. Without it the namespace has
	// the tenant's name. One that exists already is only adopted, by a tenant of
	// type Namespace, when its annotation sublet.dev/give-to names the tenant.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Namespace string `json:"namespace,omitempty"`

	// Members are the people, groups and service accounts that may use the
	// tenant and what is below it. Kind, name and role tell one from another, so
	// that whoever applies some of them, on the server's side, leaves those of
	// others alone. Of two ServiceAccounts of one name and role, in two namespaces,
	// one is written as the User system:serviceaccount:NAMESPACE:NAME.
	// +optional
	// +listType=map
	// +listMapKey=kind
	// +listMapKey=name
	// +listMapKey=role
	// +kubebuilder:validation:MaxItems=256
	Members []Member `json:"members,omitempty"`

	// Limits bound what the tenant and all that is below it may use. They are
	// set by whoever manages the parent.
	// +optional
	Limits *Limits `json:"limits,omitempty"`

	// DeletionPolicy says what becomes of the tenants below when this one is
	// deleted: Refuse (the default) keeps this one until they are moved or
	// deleted, Cascade deletes them first, Orphan leaves them as they are, without
	// a parent: nothing about them changes until they are moved. A tenant that is
	// deleted by a Cascade further up and says nothing itself goes on with it.
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// TTL is how long the tenant lives, from its creation: "72h". Then it is
	// deleted, as if somebody had done so.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(s|m|h))+$`
	TTL *metav1.Duration `json:"ttl,omitempty"`

	// ExpiresAt is when the tenant is deleted. With a TTL too, the earlier counts.
	// +optional
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`

	// Templates are applied to the tenant; those of a Folder to all below it.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Templates []TemplateRef `json:"templates,omitempty"`

	// VirtualCluster configures the control plane of a VirtualCluster tenant.
	// +optional
	VirtualCluster *VirtualClusterSpec `json:"virtualCluster,omitempty"`
}

// DeletionPolicy says what becomes of the tenants below one that is deleted.
//
// +kubebuilder:validation:Enum=Refuse;Cascade;Orphan
type DeletionPolicy string

const (
	// DeletionRefuse keeps a tenant until there is none below it.
	DeletionRefuse DeletionPolicy = "Refuse"
	// DeletionCascade deletes the tenants below first.
	DeletionCascade DeletionPolicy = "Cascade"
	// DeletionOrphan leaves the tenants below without a parent.
	DeletionOrphan DeletionPolicy = "Orphan"
)

// Role is what a member may do in a tenant.
//
// +kubebuilder:validation:Enum=admin;edit;view
type Role string

const (
	// RoleAdmin manages everything in the tenant: in a Namespace tenant
	// Kubernetes' ClusterRole admin, in a virtual cluster cluster-admin.
	RoleAdmin Role = "admin"
	// RoleEdit is Kubernetes' ClusterRole edit.
	RoleEdit Role = "edit"
	// RoleView is Kubernetes' ClusterRole view.
	RoleView Role = "view"
)

// Member gives one subject a role.
//
// +kubebuilder:validation:XValidation:rule="(self.kind == 'ServiceAccount') == has(self.__namespace__)",message="namespace is for kind ServiceAccount, and required there"
type Member struct {
	// Kind of the subject: User, Group or ServiceAccount.
	// +kubebuilder:validation:Enum=User;Group;ServiceAccount
	Kind string `json:"kind"`
	// Name of the subject, as the host's authentication knows it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Namespace of a ServiceAccount on the host.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// Role is what the subject may do.
	Role Role `json:"role"`
	// Scope says where the role counts: in the tenant and below (Subtree, the
	// default), or only below it (Descendants).
	// +optional
	// +kubebuilder:validation:Enum=Subtree;Descendants
	Scope string `json:"scope,omitempty"`
}

// Scopes of a Member.
const (
	// ScopeSubtree is the tenant and all below it.
	ScopeSubtree = "Subtree"
	// ScopeDescendants is what is below the tenant.
	ScopeDescendants = "Descendants"
)

// PodSecurityLevel is a level of the Pod Security Standards.
//
// +kubebuilder:validation:Enum=privileged;baseline;restricted
type PodSecurityLevel string

const (
	PodSecurityPrivileged PodSecurityLevel = "privileged"
	PodSecurityBaseline   PodSecurityLevel = "baseline"
	PodSecurityRestricted PodSecurityLevel = "restricted"
)

// Limits bound a tenant and all below it. Going down the tree they only tighten:
// of two quantities the smaller counts, of two lists what both allow, of two
// levels the stricter. What a tenant leaves out it has from its parent; what
// nobody on the way from the root says has the default named here. More than a
// default can be given by the limits of the root and of the tenants directly
// below it, no further down. An empty list is as good as none, but where "empty
// means none" an explicit [] takes all away.
type Limits struct {
	// Quota bounds the sum over the tenant and all below it, with the resource
	// names of a ResourceQuota (requests.cpu, limits.memory, pods, services,
	// count/deployments.apps and so on). The control plane does not count.
	// +optional
	Quota corev1.ResourceList `json:"quota,omitempty"`

	// PodDefaults become the LimitRange's defaults for containers that say
	// nothing. With a quota on cpu or memory there is always a default, because
	// the quota refuses pods without one.
	// +optional
	PodDefaults *ContainerDefaults `json:"podDefaults,omitempty"`

	// PodSecurity is the level of the Pod Security Standards that the host
	// enforces. The default is baseline.
	// +optional
	PodSecurity PodSecurityLevel `json:"podSecurity,omitempty"`

	// Services are the types of Service that may be used. The default is
	// ClusterIP.
	// +optional
	// +listType=set
	Services []corev1.ServiceType `json:"services,omitempty"`

	// StorageClasses are the storage classes that may be used. Empty means all.
	// +optional
	// +listType=set
	StorageClasses []string `json:"storageClasses,omitempty"`

	// RuntimeClass is given to every pod of the tenant.
	// +optional
	RuntimeClass string `json:"runtimeClass,omitempty"`

	// RuntimeClasses are the host's runtime classes that pods may ask for beside
	// RuntimeClass. Empty means none.
	// +optional
	// +listType=set
	RuntimeClasses []string `json:"runtimeClasses,omitempty"`

	// PriorityClasses are the host's priority classes that pods may run with.
	// Empty means none: a pod then runs with the host's default priority,
	// whatever its class in a virtual cluster.
	// +optional
	// +listType=set
	PriorityClasses []string `json:"priorityClasses,omitempty"`

	// Tolerations are the taints of the host's nodes that pods may tolerate,
	// beside those that Kubernetes itself sets (node.kubernetes.io/...). Empty
	// means none. An entry covers a pod's toleration that tolerates no more.
	// +optional
	// +listType=atomic
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`

	// IngressClasses are the host's ingress classes that may be used. Empty
	// means all.
	// +optional
	// +listType=set
	IngressClasses []string `json:"ingressClasses,omitempty"`

	// Gateways are the host's Gateways, as NAMESPACE/NAME, that HTTPRoutes may
	// attach to. Empty means none.
	// +optional
	// +listType=set
	Gateways []string `json:"gateways,omitempty"`

	// Hosts are the host names that Ingresses and HTTPRoutes may claim:
	// "shop.example.com", or "*.example.com" for all names below. Empty means
	// none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:items:MaxLength=255
	Hosts []string `json:"hosts,omitempty"`

	// ServiceAccountAnnotations are the keys of annotations that cross from
	// ServiceAccounts of a virtual cluster to the host, for workload identity.
	// Empty means none.
	// +optional
	// +listType=set
	ServiceAccountAnnotations []string `json:"serviceAccountAnnotations,omitempty"`

	// CustomResources are kinds beyond Kubernetes' own that cross from a virtual
	// cluster to the host, where something acts upon them for all tenants.
	// +optional
	// +listType=map
	// +listMapKey=group
	// +listMapKey=resource
	// +kubebuilder:validation:MaxItems=32
	CustomResources []CustomResource `json:"customResources,omitempty"`

	// NodeSelector confines every pod of the tenant to nodes with these labels.
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`

	// Network opens the network fence. Without it pods reach each other, DNS,
	// their API server, and public addresses.
	// +optional
	Network *NetworkLimits `json:"network,omitempty"`
}

// CustomResource is a namespaced kind of the host that a virtual cluster may use
// as if it were its own: the virtual cluster gets the kind's definition, objects
// cross to the host, their status comes back. All but metadata and status crosses
// as it stands, except what is named here.
//
// Paths lead to fields, as in ".spec.secretName" or ".spec.tls[*].secretName".
type CustomResource struct {
	// Group, Version, Kind and Resource (the plural) name the kind on the host. A
	// virtual cluster has it in this version only.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Version string `json:"version"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Resource string `json:"resource"`
	// References are the fields that name other objects of the tenant. A field
	// that names an object and is not listed crosses as it stands: on the host it
	// names what is called so in the tenant's namespace there, if anything. Names
	// of what the control plane itself has there are refused.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	References []CustomReference `json:"references,omitempty"`
	// SelectorPaths are fields that hold a label selector (with matchLabels and
	// matchExpressions), LabelPaths those that select by plain labels, as a
	// Service does. On the host they are confined to what came from the object's
	// own namespace.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	SelectorPaths []string `json:"selectorPaths,omitempty"`
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	LabelPaths []string `json:"labelPaths,omitempty"`
	// NamespacePaths are fields that name a namespace. They may name the object's
	// own, for which the tenant's on the host is written.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	NamespacePaths []string `json:"namespacePaths,omitempty"`
	// VerbatimPaths are fields, with all below them, that cross as they stand
	// although they look as if they led out of the tenant. Without that, fields
	// called namespace, namespaces or namespaceSelector are refused where they say
	// anything.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	VerbatimPaths []string `json:"verbatimPaths,omitempty"`
	// HostPaths are fields with host names, which the tenant's limit Hosts
	// bounds. A field of another kind of name, such as an address, can be listed
	// too: it is then refused, unless Hosts allows everything.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	HostPaths []string `json:"hostPaths,omitempty"`
}

// Values of CustomReference.From.
const (
	// FromTenant says that the object begins in the tenant.
	FromTenant = "Tenant"
	// FromHost says that something on the host makes it.
	FromHost = "Host"
)

// CustomReference is a field of a custom resource that names another object in
// the same namespace.
type CustomReference struct {
	// Path of the field, as in ".spec.secretName" or ".spec.tls[*].secretName".
	Path string `json:"path"`
	// Group and Kind of the object that the field names; the group of core
	// kinds is empty. ConfigMaps and Secrets cross because of it.
	// +optional
	Group string `json:"group,omitempty"`
	// +kubebuilder:validation:MinLength=1
	Kind string `json:"kind"`
	// KindPath is a field of the same object as Path that says which kind is
	// meant; the reference counts where it equals Kind, and where it says nothing,
	// if no reference before this one counted. Optional.
	// +optional
	KindPath string `json:"kindPath,omitempty"`
	// From says where the object begins: in the Tenant (the default), or on the
	// Host, where something makes it for the custom resource, as a certificate's
	// Secret, and from where it is brought to the tenant. Such objects are Secrets
	// and ConfigMaps; they go when the custom resource goes.
	// +optional
	// +kubebuilder:validation:Enum=Tenant;Host
	From string `json:"from,omitempty"`
}

// ContainerDefaults are requests and limits for containers without any.
type ContainerDefaults struct {
	// +optional
	Requests corev1.ResourceList `json:"requests,omitempty"`
	// +optional
	Limits corev1.ResourceList `json:"limits,omitempty"`
}

// NetworkLimits open or close the network fence.
type NetworkLimits struct {
	// Internet says whether pods reach public addresses. The default is Allow.
	// +optional
	// +kubebuilder:validation:Enum=Allow;Deny
	Internet string `json:"internet,omitempty"`
	// AllowedCIDRs are further ranges that pods may reach.
	// +optional
	// +listType=set
	AllowedCIDRs []string `json:"allowedCIDRs,omitempty"`
}

// TemplateRef applies a Template to a tenant.
type TemplateRef struct {
	// Name of the Template.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// Parameters for the template, by name. Each is text, whatever its type: "3",
	// "true", and for a list "a,b" or "[\"a\",\"b\"]".
	// +optional
	Parameters map[string]string `json:"parameters,omitempty"`
	// Sync keeps what the template makes in force: what somebody changes is
	// changed back, and what the template no longer has is deleted. Else the
	// template is applied once, and what it made belongs to the tenant.
	// +optional
	Sync bool `json:"sync,omitempty"`
}

// VirtualClusterSpec configures a tenant's control plane.
//
// +kubebuilder:validation:XValidation:rule="!has(self.scheduler) || !self.scheduler || has(self.nodes)",message="scheduler needs nodes: say which nodes it may choose among, as in nodes: {selector: {}} for all"
type VirtualClusterSpec struct {
	// Version is the Kubernetes version whose API the tenant sees, as
	// "MAJOR.MINOR"; the default is the newest that this release knows. An older
	// one is emulated by the same binary.
	// +optional
	// +kubebuilder:validation:Pattern=`^1\.[0-9]{2}$`
	Version string `json:"version,omitempty"`

	// FeatureGates of the tenant's control plane, by name.
	// +optional
	FeatureGates map[string]bool `json:"featureGates,omitempty"`

	// RuntimeConfig switches API groups and versions on or off, as the API
	// server's --runtime-config does: {"resource.k8s.io/v1alpha3": "true"}.
	// +optional
	RuntimeConfig map[string]string `json:"runtimeConfig,omitempty"`

	// Nodes says which nodes the tenant sees. Without it: those that its pods
	// run on.
	// +optional
	Nodes *NodesSpec `json:"nodes,omitempty"`

	// Scheduler runs a scheduler in the tenant, which chooses among the nodes
	// that the tenant sees by the tenant's own rules: labels and taints that the
	// tenant puts on its nodes, priorities and preemption within the tenant. The
	// host's scheduler then admits the pod to that node or not. Needs Nodes.
	// +optional
	Scheduler bool `json:"scheduler,omitempty"`

	// Profiling serves profiles of the control plane's process under
	// /debug/pprof of the tenant's API, to its admins: what "sublet debug profile"
	// asks for. A change restarts the control plane.
	// +optional
	Profiling bool `json:"profiling,omitempty"`

	// Audit writes requests to the tenant's API down. Without it none is.
	// +optional
	Audit *AuditSpec `json:"audit,omitempty"`

	// Authentication adds issuers of tokens that the tenant's API believes, such as
	// an OpenID Connect provider.
	// +optional
	Authentication *AuthenticationSpec `json:"authentication,omitempty"`

	// Storage of the control plane.
	// +optional
	Storage *StorageSpec `json:"storage,omitempty"`

	// Resources of the control plane's container. The default requests 50m cpu
	// and 160Mi memory, and limits them at 4 and 2Gi.
	// +optional
	Resources *corev1.ResourceRequirements `json:"resources,omitempty"`

	// Image of the control plane; the default is the manager's own.
	// +optional
	Image string `json:"image,omitempty"`
}

// NodesSpec chooses nodes of the host.
type NodesSpec struct {
	// Selector chooses nodes by their labels on the host; the empty selector all
	// of them. The limit NodeSelector applies beside it.
	// +optional
	Selector metav1.LabelSelector `json:"selector,omitempty"`
}

// StorageType says where a control plane keeps its data.
//
// +kubebuilder:validation:Enum=PersistentVolumeClaim;EmptyDir
type StorageType string

const (
	// StoragePVC keeps the data in a PersistentVolumeClaim.
	StoragePVC StorageType = "PersistentVolumeClaim"
	// StorageEmptyDir keeps the data with the pod: a pod that is deleted or
	// evicted loses it. For tenants that may be thrown away.
	StorageEmptyDir StorageType = "EmptyDir"
)

// StorageSpec says where a control plane keeps its data.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.class) && has(self.type) && self.type == 'EmptyDir')",message="class is for type PersistentVolumeClaim"
type StorageSpec struct {
	// Type is PersistentVolumeClaim (the default) or EmptyDir.
	// +optional
	Type StorageType `json:"type,omitempty"`
	// Class is the host's StorageClass; the default is the host's default.
	// +optional
	Class *string `json:"class,omitempty"`
	// Size of the volume; the default is 2Gi.
	// +optional
	Size *resource.Quantity `json:"size,omitempty"`
}

// Phase is where a tenant stands, in one word. The conditions say why.
type Phase string

const (
	// PhasePending means that something the tenant needs is missing; see the
	// conditions.
	PhasePending Phase = "Pending"
	// PhaseProvisioning means that the tenant is being made.
	PhaseProvisioning Phase = "Provisioning"
	// PhaseReady means that the tenant can be used.
	PhaseReady Phase = "Ready"
	// PhaseDegraded means that the tenant was ready and now is not.
	PhaseDegraded Phase = "Degraded"
	// PhaseDeleting means that the tenant is being deleted.
	PhaseDeleting Phase = "Deleting"
)

// Types of conditions of a Tenant.
const (
	// ConditionReady sums the others up: the tenant can be used now.
	ConditionReady = "Ready"
	// ConditionNamespaceReady is about the host namespace.
	ConditionNamespaceReady = "NamespaceReady"
	// ConditionFenceReady is about quota, limits, network and role bindings.
	ConditionFenceReady = "FenceReady"
	// ConditionControlPlaneReady is about the control plane of a
	// VirtualCluster: its API answers.
	ConditionControlPlaneReady = "ControlPlaneReady"
	// ConditionFullyApplied is False when the spec asks for something that cannot
	// be done to what is there already, and absent otherwise.
	ConditionFullyApplied = "FullyApplied"
	// ConditionDeletionBlocked says what a deletion waits for.
	ConditionDeletionBlocked = "DeletionBlocked"
	// ConditionPlaced is about the way from the root of the tree to the tenant.
	// While it is False, nothing about the tenant changes.
	ConditionPlaced = "Placed"
	// ConditionExpires is True for a tenant with a TTL or ExpiresAt, and absent
	// otherwise; it says when the tenant is deleted.
	ConditionExpires = "Expires"
	// ConditionTemplatesApplied is about the templates of a tenant, and absent
	// without any. It does not count for Ready: a tenant can be used while one
	// of its templates has a mistake.
	ConditionTemplatesApplied = "TemplatesApplied"
	// ConditionHostsFree is there, and false, when something of the tenant claims a
	// host name that somebody else claimed before.
	ConditionHostsFree = "HostsFree"
)

// TenantStatus is what is true of a tenant.
type TenantStatus struct {
	// ObservedGeneration is the generation of the spec that the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Phase is where the tenant stands, in one word.
	// +optional
	Phase Phase `json:"phase,omitempty"`
	// Namespace is the tenant's host namespace, once it is the tenant's.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// VirtualCluster is about the control plane.
	// +optional
	VirtualCluster *VirtualClusterStatus `json:"virtualCluster,omitempty"`
	// Path leads from the root to the tenant: "root/company/team1".
	// +optional
	Path string `json:"path,omitempty"`
	// Depth is how far below the root the tenant is.
	// +optional
	Depth int32 `json:"depth,omitempty"`
	// Children is how many tenants are directly below.
	// +optional
	Children int32 `json:"children,omitempty"`
	// Parent is the one under which the tenant was put. One of the same name that
	// is made later is another.
	// +optional
	Parent *ParentStatus `json:"parent,omitempty"`
	// ExpiresAt is when the tenant is deleted by itself.
	// +optional
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`
	// Usage is what the tenant and all below it use of what there is a quota of. It
	// is brought up to date every few seconds.
	// +optional
	Usage corev1.ResourceList `json:"usage,omitempty"`
	// Effective is what counts for the tenant, and where it comes from.
	// +optional
	Effective *EffectiveStatus `json:"effective,omitempty"`
	// Templates are how far each of the templates that apply to the tenant is.
	// +optional
	// +listType=map
	// +listMapKey=name
	Templates []AppliedTemplate `json:"templates,omitempty"`
	// Conditions say where to look next.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// VirtualClusterStatus is what is true of a control plane.
type VirtualClusterStatus struct {
	// Version of Kubernetes that the tenant sees.
	// +optional
	Version string `json:"version,omitempty"`
	// Endpoint is the host Service that leads to the API, as host:port.
	// +optional
	Endpoint string `json:"endpoint,omitempty"`
}

// ParentStatus is the parent under which a tenant was put.
type ParentStatus struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid"`
}

// EffectiveStatus is what counts for a tenant: its own spec and that of every
// tenant on the path from the root, folded into one.
type EffectiveStatus struct {
	// Members are those whose role counts in the tenant.
	// +optional
	// +listType=atomic
	Members []EffectiveMember `json:"members,omitempty"`
	// Limits of the tenant, each with who set it.
	// +optional
	// +listType=map
	// +listMapKey=name
	Limits []EffectiveLimit `json:"limits,omitempty"`
	// Templates that apply to the tenant.
	// +optional
	// +listType=map
	// +listMapKey=name
	Templates []EffectiveTemplate `json:"templates,omitempty"`
}

// EffectiveMember is a member, and the tenant that names him.
type EffectiveMember struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// +optional
	Namespace string `json:"namespace,omitempty"`
	Role      Role   `json:"role"`
	// From is the tenant that names the member, the one next to the root if there
	// are several.
	From string `json:"from"`
}

// EffectiveLimit is a limit in words.
type EffectiveLimit struct {
	// Name is the field of Limits, for a map with the key: "quota.pods".
	Name string `json:"name"`
	// Value of the limit; of a list its entries, separated by ", ", and "none"
	// when it allows nothing.
	Value string `json:"value"`
	// From are the tenants whose limits make up the value; none for a default.
	// +optional
	// +listType=atomic
	From []string `json:"from,omitempty"`
}

// EffectiveTemplate is a template, and the tenant that refers to it.
type EffectiveTemplate struct {
	TemplateRef `json:",inline"`
	// From is the tenant that refers to the template, the one next to the root if
	// there are several.
	From string `json:"from"`
}
