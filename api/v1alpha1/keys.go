package v1alpha1

// Labels that Sublet writes on host objects. Users of a tenant can neither set
// nor change them: the syncer drops whatever a virtual object carries under
// the prefix sublet.dev/.
const (
	// Prefix is the reserved prefix of all keys below.
	Prefix = "sublet.dev/"

	// LabelTenant names the tenant that a host object belongs to. It stands on
	// every host object that the manager or a syncer wrote.
	LabelTenant = Prefix + "tenant"
	// LabelComponent tells what a host object is for, one of the Component
	// constants.
	LabelComponent = Prefix + "component"
	// LabelVirtualNamespace stands on every synced host object of a namespaced
	// kind; its value is the virtual namespace, so that host selectors can be
	// confined to one virtual namespace.
	LabelVirtualNamespace = Prefix + "virtual-namespace"
	// LabelVirtualUID stands on host pods, so that a selector can name single
	// ones.
	LabelVirtualUID = Prefix + "virtual-uid"
	// LabelIngressIsolated and LabelEgressIsolated stand on host pods that some
	// NetworkPolicy of the tenant selects, by direction: the fence then allows
	// them nothing, and what the tenant's policies allow, within the fence, is
	// all that is open.
	LabelIngressIsolated = Prefix + "ingress-isolated"
	LabelEgressIsolated  = Prefix + "egress-isolated"
	// LabelTemplate names the Template that made an object, in a tenant's
	// namespace or in a virtual cluster.
	LabelTemplate = Prefix + "template"
	// LabelTenantType stands on the tenant's host namespace.
	LabelTenantType = Prefix + "tenant-type"
)

// Values of LabelComponent.
const (
	// ComponentControlPlane marks what makes up a tenant's control plane.
	ComponentControlPlane = "control-plane"
	// ComponentSynced marks a host object that stands for a virtual one.
	ComponentSynced = "synced"
	// ComponentFence marks what the manager keeps around a tenant: quota,
	// limits, network policies, role bindings.
	ComponentFence = "fence"
)

// Annotations that Sublet writes on host objects.
const (
	// AnnotationVirtualName, AnnotationVirtualNamespace and
	// AnnotationVirtualUID name the virtual object a synced one stands for.
	AnnotationVirtualName      = Prefix + "virtual-name"
	AnnotationVirtualNamespace = Prefix + "virtual-namespace"
	AnnotationVirtualUID       = Prefix + "virtual-uid"
	// AnnotationSyncedLabels and AnnotationSyncedAnnotations list the keys that
	// came from the virtual object, so that the host's own are left alone.
	AnnotationSyncedLabels      = Prefix + "synced-labels"
	AnnotationSyncedAnnotations = Prefix + "synced-annotations"
	// AnnotationSyncedFields lists, as JSON, the fields of a custom resource that
	// came from the virtual object, for the same reason.
	AnnotationSyncedFields = Prefix + "synced-fields"
	// AnnotationTokensOf marks a Secret with the service account tokens of a
	// synced object and names its kind; AnnotationTokensRefresh tells when they
	// are to be renewed (RFC 3339).
	AnnotationTokensOf      = Prefix + "tokens-of"
	AnnotationTokensRefresh = Prefix + "tokens-refresh"
	// AnnotationTokensSum is a checksum of such a Secret's contents: what
	// somebody changed on the host is made anew.
	AnnotationTokensSum = Prefix + "tokens-sum"
	// AnnotationShownStatus lists what of a host Service's status the tenant has
	// been shown, so that it can be withdrawn without taking away what the
	// tenant's own controllers wrote.
	AnnotationShownStatus = Prefix + "shown-status"
)

// Annotations on host pods that hold virtual values for the downward API, and
// what else a host pod needs to know of its virtual one.
const (
	// AnnotationServiceAccount is the virtual spec.serviceAccountName.
	AnnotationServiceAccount = Prefix + "service-account-name"
	// AnnotationLabels and AnnotationAnnotations are the virtual maps, in the
	// format of downward API files.
	AnnotationLabels      = Prefix + "labels"
	AnnotationAnnotations = Prefix + "annotations"
	// AnnotationFieldPrefix and a hash make the key for any other field.
	AnnotationFieldPrefix = Prefix + "field-"
	// AnnotationSchedulingGates lists the gates that came from the tenant.
	AnnotationSchedulingGates = Prefix + "scheduling-gates"
)

// NamespaceLabelPrefix and a hash make the key under which a host pod carries
// a label of its virtual namespace.
const NamespaceLabelPrefix = Prefix + "namespace-"

// AnnotationFromHost marks an object in a virtual cluster that stands for one
// on the host, such as a Node.
const AnnotationFromHost = Prefix + "from-host"

const (
	// AnnotationHostPart stands on a Node in a virtual cluster and tells, as
	// JSON, what of it came from the host: the rest is the tenant's.
	AnnotationHostPart = Prefix + "host-part"
	// TaintHost stands on a Node in a virtual cluster where the host's node has
	// taints that the tenant's pods may not tolerate.
	TaintHost = Prefix + "host-taint"
)

// Annotations that the manager writes on what it makes for a tenant.
const (
	// AnnotationTenantUID stands on the tenant's host namespace: the UID of the
	// Tenant that made it, so that a namespace is never taken for that of
	// another Tenant of the same name.
	AnnotationTenantUID = Prefix + "tenant-uid"
	// AnnotationServices stands on the tenant's host namespace: the types of
	// Service that may be used in it, separated by commas.
	AnnotationServices = Prefix + "services"
	// AnnotationHosts, AnnotationIngressClasses and AnnotationGateways stand there
	// too: the limits of these names, separated by commas.
	AnnotationHosts          = Prefix + "hosts"
	AnnotationIngressClasses = Prefix + "ingress-classes"
	AnnotationGateways       = Prefix + "gateways"
	// AnnotationNodeSelector and AnnotationRuntimeClass stand there too: what every
	// pod must have, as "pool=gpu,zone=a" and as a name.
	AnnotationNodeSelector = Prefix + "node-selector"
	AnnotationRuntimeClass = Prefix + "runtime-class"
	// AnnotationRuntimeClasses, AnnotationPriorityClasses, AnnotationStorageClasses
	// and AnnotationTolerations stand there too: the names that pods and claims may
	// use, and as KEY|OPERATOR|VALUE|EFFECT|SECONDS what pods may tolerate, separated
	// by commas. No storage class at all means that all may be used.
	AnnotationRuntimeClasses  = Prefix + "runtime-classes"
	AnnotationPriorityClasses = Prefix + "priority-classes"
	AnnotationStorageClasses  = Prefix + "storage-classes"
	AnnotationTolerations     = Prefix + "tolerations"
	// AnnotationControlPlaneShare stands on a ResourceQuota: what of it is the
	// control plane's own, as "services=2,secrets=4".
	AnnotationControlPlaneShare = Prefix + "control-plane-share"
	// AnnotationRenewAt stands on a Secret with a certificate: when it is time
	// for the next one (RFC 3339).
	AnnotationRenewAt = Prefix + "renew-at"
	// AnnotationConfigHash stands on the control plane's pod: another one means
	// that the pod must start anew.
	AnnotationConfigHash = Prefix + "config-hash"
)

// Annotations on a namespace that somebody else made, for a Namespace tenant to have
// it.
const (
	// AnnotationGiveTo is written by whoever may change the namespace: the name of the
	// tenant that it is given to, or NAME/UID for one that is there already. The
	// manager takes it away when it takes the offer up.
	AnnotationGiveTo = Prefix + "give-to"
	// AnnotationAdopted stands on a tenant's namespace that was given to it, and so
	// is not deleted with it. It holds the labels of Pod Security admission that the
	// namespace had before, as KEY=VALUE separated by commas.
	AnnotationAdopted = Prefix + "adopted"
)

// AnnotationAcceptParent stands on a Tenant whose parent was deleted and made
// anew: the UID of the one that is meant to be its parent now.
const AnnotationAcceptParent = Prefix + "accept-parent"

// AnnotationRevision stands on a hook of a chart that a template runs: of which
// revision of the template it is.
const AnnotationRevision = Prefix + "revision"

// FinalizerTenant keeps a Tenant until everything on the host is gone.
const FinalizerTenant = Prefix + "cleanup"

// Names that are the same in every tenant's host namespace.
const (
	// ControlPlaneName names the StatefulSet, ServiceAccount, Role and the API
	// Service of a tenant's control plane; its one pod is ControlPlanePod.
	ControlPlaneName = "sublet"
	ControlPlanePod  = ControlPlaneName + "-0"
	// DNSServiceName names the Service that leads to the tenant's DNS.
	DNSServiceName = "sublet-dns"
	// FenceEgressPolicy and FenceIngressPolicy name the NetworkPolicies that say
	// which addresses outside of the tenant its pods reach, and from where
	// outside they are reached. What a tenant's own policies open is confined to
	// them.
	FenceEgressPolicy  = "sublet-egress"
	FenceIngressPolicy = "sublet-ingress"
	// PKISecretName names the Secret with the tenant's certificate authorities
	// and signing keys; see package pki for its keys.
	PKISecretName = "sublet-pki"
	// KubeconfigSecretPrefix and a Role make the name of the Secret that holds
	// the kubeconfig for that role, under KubeconfigSecretKey.
	KubeconfigSecretPrefix = "sublet-kubeconfig-"
	KubeconfigSecretKey    = "kubeconfig"
	// WorkloadServiceAccountName names the ServiceAccount, without any right,
	// under which the tenant's pods run on the host.
	WorkloadServiceAccountName = "sublet-workload"
	// ControlPlanePriorityClass is the cluster-scoped PriorityClass of control
	// planes.
	ControlPlanePriorityClass = "sublet-control-plane"
	// SyncerClusterRole is the ClusterRole that each tenant's ServiceAccount is
	// bound to in its own namespace; SyncerReadClusterRole the one with read
	// rights on the listed cluster-scoped kinds.
	SyncerClusterRole     = "sublet-syncer"
	SyncerReadClusterRole = "sublet-syncer-read"
	// CustomResourcesRole is the Role in a tenant's namespace that gives its syncer
	// the custom resources of its limits.
	CustomResourcesRole = "sublet-custom-resources"
	// ConnectClusterRolePrefix and a Role make the name of the ClusterRole that
	// lets a member of that role reach the control plane in the namespace that
	// it is bound in.
	ConnectClusterRolePrefix = "sublet-connect-"
	// CleanupClusterRole lets the manager empty the namespace it is bound in.
	CleanupClusterRole = "sublet-cleanup"
	// ManagerName names the manager's Deployment and ServiceAccount; it is the
	// manager's field owner.
	ManagerName = "sublet-manager"
	// TemplateAccountPrefix and the name of a tenant make the name of the
	// ServiceAccount, in the manager's namespace, in whose name templates are
	// applied in the tenant's namespace. TemplateBinding is the RoleBinding there
	// that makes it an admin. The account itself does not exist: nobody can be
	// given its token.
	TemplateAccountPrefix = "sublet-template-"
	TemplateBinding       = "sublet-templates"
	// TemplateOwner is the field owner of what templates make.
	TemplateOwner = "sublet-templates"
	// SystemNamespace is the default namespace of the manager.
	SystemNamespace = "sublet-system"
	// RootTenant is the Folder at the top of the tree, the implicit parent of every
	// tenant that names none.
	RootTenant = "root"
)

// Verbs on Tenants, beside those that every kind has. The admission policy of the
// chart asks for them.
const (
	// VerbNest is the right to put tenants below one, and to move them away.
	VerbNest = "nest"
	// VerbManage is the right to decide about the tenants directly below one: their
	// limits, their templates, how long they live.
	VerbManage = "manage"
)

// Nothing stands alone in a list of limits where an empty one would allow
// everything, and as the value of what nothing may have. No object of a host
// has this name.
const Nothing = "none.sublet.dev"

// Ports of a tenant's control-plane pod.
const (
	APIServerPort = 8443
	DNSPort       = 1053
	HealthPort    = 8081
)

// Groups inside a virtual cluster that the roles of members map to: the client
// certificates of the kubeconfigs carry them.
const (
	GroupAdmin = "sublet:admin"
	GroupEdit  = "sublet:edit"
	GroupView  = "sublet:view"
)
