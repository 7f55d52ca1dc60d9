package tenancy

import (
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/version"
)

// Effective is what counts for one tenant, with every default filled in.
type Effective struct {
	Name string
	UID  types.UID
	Type api.TenantType
	// Namespace is the host namespace; empty for a Folder.
	Namespace string
	// Path has the names from the root to the tenant.
	Path []string
	// Members whose role counts in the tenant, without scope, those that the root
	// names first.
	Members []api.Member
	// Templates that apply to the tenant, those that the root names first.
	Templates []api.EffectiveTemplate
	Limits    Limits
	// VirtualCluster is only set for that type.
	VirtualCluster *VirtualCluster

	// MemberOrigins are the tenants that name Members, by index. LimitOrigins are
	// those that set a limit, by its name in api.EffectiveLimit; what has none is a
	// default.
	MemberOrigins []string
	LimitOrigins  map[string][]string
}

// Limits are api.Limits with the defaults filled in.
type Limits struct {
	Quota corev1.ResourceList
	// ContainerDefaults are for containers that say nothing. They cover every
	// resource that the quota makes mandatory, and never exceed the quota.
	ContainerDefaults api.ContainerDefaults
	PodSecurity       api.PodSecurityLevel
	// Lists are sorted. Services are none when the list is empty.
	Services []corev1.ServiceType
	// StorageClasses and IngressClasses are all when the list is empty, and none
	// when it is api.Nothing.
	StorageClasses []string
	IngressClasses []string
	RuntimeClass   string
	NodeSelector   map[string]string
	// What follows is none when the list is empty.
	RuntimeClasses            []string
	PriorityClasses           []string
	Tolerations               []corev1.Toleration
	Gateways                  []string
	Hosts                     []string
	ServiceAccountAnnotations []string
	CustomResources           []api.CustomResource
	// Internet says whether pods reach public addresses.
	Internet     bool
	AllowedCIDRs []string
}

// VirtualCluster is api.VirtualClusterSpec with the defaults filled in. Where
// the data lives is left open when the spec says nothing, because that depends
// on the host.
type VirtualCluster struct {
	Version       string
	FeatureGates  map[string]bool
	RuntimeConfig map[string]string
	// StorageType is empty when the spec says nothing.
	StorageType api.StorageType
	// StorageClass is nil for the host's default.
	StorageClass *string
	StorageSize  resource.Quantity
	Resources    corev1.ResourceRequirements
	// Image is empty for the manager's own.
	Image string
	// What follows is as in api.VirtualClusterSpec.
	Nodes          *api.NodesSpec
	Scheduler      bool
	Profiling      bool
	Audit          *api.AuditSpec
	Authentication *api.AuthenticationSpec
}

// Defaults of a control plane.
const (
	defaultStorageSize = "2Gi"
	// The control plane always has limits of its own: without them the
	// LimitRange would give it the tenant's, which are meant for small
	// workloads.
	defaultCPURequest    = "50m"
	defaultMemoryRequest = "160Mi"
	defaultCPULimit      = "4"
	defaultMemoryLimit   = "2Gi"
	// What a control plane writes beside its data: logs and temporary files. The
	// limit depends on where the data are; see package virtualcluster.
	scratchRequest = "64Mi"
)

// DefaultVersion is the Kubernetes version, as MAJOR.MINOR, of a virtual
// cluster that names none: the newest there is.
func DefaultVersion() string {
	return minor(version.Kubernetes)
}

// HostNamespace is the namespace that a tenant has on the host.
func HostNamespace(t *api.Tenant) string {
	if t.Spec.Type == api.Folder {
		return ""
	}
	if t.Spec.Namespace != "" {
		return t.Spec.Namespace
	}
	return t.Name
}

// containerDefaults gives a default to every resource of containers that the
// quota makes mandatory: without one it refuses pods that say nothing.
func containerDefaults(quota corev1.ResourceList, asked *api.ContainerDefaults) api.ContainerDefaults {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	if asked != nil {
		maps.Copy(requests, asked.Requests)
		maps.Copy(limits, asked.Limits)
	}
	small := map[corev1.ResourceName]struct{ request, limit string }{
		corev1.ResourceCPU:              {"50m", "1"},
		corev1.ResourceMemory:           {"64Mi", "512Mi"},
		corev1.ResourceEphemeralStorage: {"64Mi", "1Gi"},
	}
	for name, size := range small {
		_, asIs := quota[name]
		_, requested := quota["requests."+name]
		_, limited := quota["limits."+name]
		if asIs || requested {
			setDefault(requests, name, size.request)
		}
		if limited {
			setDefault(limits, name, size.limit)
			// A default limit alone would become the default request too.
			setDefault(requests, name, size.request)
		}
		for _, bound := range []corev1.ResourceName{name, "requests." + name} {
			atMost(requests, name, quota[bound], asIs || requested)
		}
		atMost(limits, name, quota["limits."+name], limited)
		if limit, ok := limits[name]; ok {
			atMost(requests, name, limit, true)
		}
	}
	defaults := api.ContainerDefaults{}
	if len(requests) > 0 {
		defaults.Requests = requests
	}
	if len(limits) > 0 {
		defaults.Limits = limits
	}
	return defaults
}

func setDefault(list corev1.ResourceList, name corev1.ResourceName, value string) {
	if _, ok := list[name]; !ok {
		list[name] = resource.MustParse(value)
	}
}

// atMost lowers what exceeds a bound; a bound of zero is none, because nothing
// could start below it anyway.
func atMost(list corev1.ResourceList, name corev1.ResourceName, bound resource.Quantity, bounded bool) {
	value, ok := list[name]
	if ok && bounded && !bound.IsZero() && value.Cmp(bound) > 0 {
		list[name] = bound.DeepCopy()
	}
}

func virtualClusterOf(spec *api.VirtualClusterSpec) *VirtualCluster {
	if spec == nil {
		spec = &api.VirtualClusterSpec{}
	}
	vc := &VirtualCluster{
		Version:       spec.Version,
		FeatureGates:  maps.Clone(spec.FeatureGates),
		RuntimeConfig: maps.Clone(spec.RuntimeConfig),
		StorageSize:   resource.MustParse(defaultStorageSize),
		Image:         spec.Image,
		Nodes:         spec.Nodes.DeepCopy(),
		Scheduler:     spec.Scheduler,
		Profiling:     spec.Profiling,

		Audit:          spec.Audit.DeepCopy(),
		Authentication: spec.Authentication.DeepCopy(),
	}
	if vc.Version == "" {
		vc.Version = DefaultVersion()
	}
	if s := spec.Storage; s != nil {
		vc.StorageType = s.Type
		if s.Size != nil {
			vc.StorageSize = s.Size.DeepCopy()
		}
		if s.Class != nil {
			class := *s.Class
			vc.StorageClass = &class
			// Who names a class means a volume.
			vc.StorageType = api.StoragePVC
		}
	}
	vc.Resources = controlPlaneResources(spec.Resources)
	return vc
}

func controlPlaneResources(asked *corev1.ResourceRequirements) corev1.ResourceRequirements {
	resources := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	if asked != nil {
		maps.Copy(resources.Requests, asked.Requests)
		maps.Copy(resources.Limits, asked.Limits)
	}
	setDefault(resources.Requests, corev1.ResourceCPU, defaultCPURequest)
	setDefault(resources.Requests, corev1.ResourceMemory, defaultMemoryRequest)
	setDefault(resources.Requests, corev1.ResourceEphemeralStorage, scratchRequest)
	setDefault(resources.Limits, corev1.ResourceCPU, defaultCPULimit)
	setDefault(resources.Limits, corev1.ResourceMemory, defaultMemoryLimit)
	// Who asks for more than the default limit means the limit too, and who
	// limits below the default request means less.
	for name, request := range resources.Requests {
		limit, ok := resources.Limits[name]
		if !ok || request.Cmp(limit) <= 0 {
			continue
		}
		if asked != nil && has(asked.Limits, name) && !has(asked.Requests, name) {
			resources.Requests[name] = limit.DeepCopy()
			continue
		}
		if asked == nil || !has(asked.Limits, name) {
			resources.Limits[name] = request.DeepCopy()
		}
	}
	return resources
}

func has(list corev1.ResourceList, name corev1.ResourceName) bool {
	_, ok := list[name]
	return ok
}

// minor is MAJOR.MINOR of a version such as v1.36.3.
func minor(v string) string {
	parts := strings.SplitN(strings.TrimPrefix(v, "v"), ".", 3)
	if len(parts) < 2 {
		return v
	}
	return fmt.Sprintf("%s.%s", parts[0], parts[1])
}
