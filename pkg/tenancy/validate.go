package tenancy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/version"
)

// ValidateNamespace tells why a tenant may not have its host namespace; nil
// when it may. system is the manager's own namespace.
func ValidateNamespace(t *api.Tenant, system string) *field.Error {
	path, name := field.NewPath("spec", "namespace"), HostNamespace(t)
	if t.Spec.Namespace == "" {
		path = field.NewPath("metadata", "name")
	}
	if name == "" {
		return nil
	}
	reserved := name == "default" || name == system || strings.HasPrefix(name, "kube-")
	if reserved {
		return field.Invalid(path, name, "this namespace is reserved for the host cluster: choose another name, or set spec.namespace")
	}
	if messages := validation.IsDNS1123Label(name); len(messages) > 0 {
		return field.Invalid(path, name, messages[0])
	}
	return nil
}

// ValidateLimits names everything in spec.limits and spec.members that cannot
// be applied and that the schema of a Tenant does not refuse by itself.
func ValidateLimits(t *api.Tenant) field.ErrorList {
	var errs field.ErrorList
	for i, member := range t.Spec.Members {
		path := field.NewPath("spec", "members").Index(i)
		if member.Kind == "ServiceAccount" && member.Namespace == "" {
			errs = append(errs, field.Required(path.Child("namespace"), "a ServiceAccount has a namespace"))
		}
	}
	limits := t.Spec.Limits
	if limits == nil {
		return errs
	}
	path := field.NewPath("spec", "limits")
	errs = append(errs, validateQuota(limits.Quota, path.Child("quota"))...)
	if d := limits.PodDefaults; d != nil {
		errs = append(errs, validateContainerResources(d.Requests, path.Child("podDefaults", "requests"))...)
		errs = append(errs, validateContainerResources(d.Limits, path.Child("podDefaults", "limits"))...)
		errs = append(errs, validateRequestsFit(d.Requests, d.Limits, path.Child("podDefaults", "requests"))...)
	}
	for i, service := range limits.Services {
		if !slices.Contains(serviceTypes(), service) {
			errs = append(errs, field.NotSupported(path.Child("services").Index(i), service, serviceTypes()))
		}
	}
	for i, class := range limits.StorageClasses {
		if messages := validation.IsDNS1123Subdomain(class); len(messages) > 0 {
			errs = append(errs, field.Invalid(path.Child("storageClasses").Index(i), class, messages[0]))
		}
	}
	for i, class := range limits.IngressClasses {
		if messages := validation.IsDNS1123Subdomain(class); len(messages) > 0 {
			errs = append(errs, field.Invalid(path.Child("ingressClasses").Index(i), class, messages[0]))
		}
	}
	for i, host := range limits.Hosts {
		if !validHost(host) {
			errs = append(errs, field.Invalid(path.Child("hosts").Index(i), host, "must be a host name such as shop.example.com, or *.example.com for all names below, or * for all there are"))
		}
	}
	for i, gateway := range limits.Gateways {
		namespace, name, ok := strings.Cut(gateway, "/")
		if !ok || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
			errs = append(errs, field.Invalid(path.Child("gateways").Index(i), gateway, "must be NAMESPACE/NAME of a Gateway of the host"))
		}
	}
	for i, key := range limits.ServiceAccountAnnotations {
		at := path.Child("serviceAccountAnnotations").Index(i)
		if messages := validation.IsQualifiedName(strings.ToLower(key)); len(messages) > 0 {
			errs = append(errs, field.Invalid(at, key, messages[0]))
		} else if strings.HasPrefix(key, api.Prefix) {
			errs = append(errs, field.Invalid(at, key, "keys under "+api.Prefix+" are Sublet's own"))
		}
	}
	errs = append(errs, validateCustomResources(limits.CustomResources, path.Child("customResources"))...)
	if class := limits.RuntimeClass; class != "" {
		if messages := validation.IsDNS1123Subdomain(class); len(messages) > 0 {
			errs = append(errs, field.Invalid(path.Child("runtimeClass"), class, messages[0]))
		}
	}
	errs = append(errs, metav1validation.ValidateLabels(limits.NodeSelector, path.Child("nodeSelector"))...)
	if n := limits.Network; n != nil {
		for i, cidr := range n.AllowedCIDRs {
			errs = append(errs, validateCIDR(cidr, path.Child("network", "allowedCIDRs").Index(i))...)
		}
	}
	return errs
}

func validHost(host string) bool {
	return host == "*" || len(validation.IsDNS1123Subdomain(strings.TrimPrefix(host, "*."))) == 0
}

// ValidateVirtualCluster names everything in spec.virtualCluster that cannot be
// applied and that the schema of a Tenant does not refuse by itself.
func ValidateVirtualCluster(t *api.Tenant) field.ErrorList {
	spec := t.Spec.VirtualCluster
	if spec == nil {
		return nil
	}
	var errs field.ErrorList
	path := field.NewPath("spec", "virtualCluster")
	if spec.Version != "" && !slices.Contains(Versions(), spec.Version) {
		errs = append(errs, field.NotSupported(path.Child("version"), spec.Version, Versions()))
	}
	for _, key := range slices.Sorted(maps.Keys(spec.RuntimeConfig)) {
		if _, err := strconv.ParseBool(spec.RuntimeConfig[key]); err != nil {
			errs = append(errs, field.Invalid(path.Child("runtimeConfig").Key(key), spec.RuntimeConfig[key], `must be "true" or "false"`))
		}
	}
	if spec.Nodes != nil {
		errs = append(errs, metav1validation.ValidateLabelSelector(&spec.Nodes.Selector, metav1validation.LabelSelectorValidationOptions{}, path.Child("nodes", "selector"))...)
	}
	if s := spec.Storage; s != nil && s.Size != nil {
		if least := resource.MustParse("64Mi"); s.Size.Cmp(least) < 0 {
			errs = append(errs, field.Invalid(path.Child("storage", "size"), s.Size.String(), "a control plane needs at least 64Mi"))
		}
	}
	errs = append(errs, validateAudit(spec.Audit, path.Child("audit"))...)
	if r := spec.Resources; r != nil {
		errs = append(errs, validateContainerResources(r.Requests, path.Child("resources", "requests"))...)
		errs = append(errs, validateContainerResources(r.Limits, path.Child("resources", "limits"))...)
		errs = append(errs, validateRequestsFit(r.Requests, r.Limits, path.Child("resources", "requests"))...)
	}
	return errs
}

// Versions are the Kubernetes versions that a virtual cluster can have, oldest
// first.
func Versions() []string {
	oldest, newest := minorNumber(version.OldestEmulated), minorNumber(DefaultVersion())
	var versions []string
	for n := oldest; n <= newest; n++ {
		versions = append(versions, fmt.Sprintf("1.%d", n))
	}
	return versions
}

func minorNumber(v string) int {
	_, text, _ := strings.Cut(v, ".")
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

func serviceTypes() []corev1.ServiceType {
	return []corev1.ServiceType{
		corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName,
		corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort,
	}
}

// quotaNames are the names without a slash that the API server's validation of
// a ResourceQuota knows (k8s.io/kubernetes, pkg/apis/core/helper).
func quotaNames() []corev1.ResourceName {
	return []corev1.ResourceName{
		corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
		corev1.ResourceRequestsStorage, corev1.ResourcePersistentVolumeClaims,
		corev1.ResourcePods, corev1.ResourceServices, corev1.ResourceServicesLoadBalancers,
		corev1.ResourceServicesNodePorts, corev1.ResourceReplicationControllers, corev1.ResourceQuotas,
		corev1.ResourceSecrets, corev1.ResourceConfigMaps,
	}
}

func validateQuota(quota corev1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(quota)) {
		if problem := quotaNameProblem(name); problem != "" {
			errs = append(errs, field.Invalid(path, name, problem))
			continue
		}
		value := quota[name]
		if value.Sign() < 0 {
			errs = append(errs, field.Invalid(path.Key(string(name)), value.String(), "must not be negative"))
		}
		if counts(name) && value.MilliValue()%1000 != 0 {
			errs = append(errs, field.Invalid(path.Key(string(name)), value.String(), "must be a whole number"))
		}
	}
	return errs
}

// counts says whether a resource of a quota is a number of objects.
func counts(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourcePods, corev1.ResourceServices, corev1.ResourceServicesLoadBalancers,
		corev1.ResourceServicesNodePorts, corev1.ResourceReplicationControllers, corev1.ResourceQuotas,
		corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims:
		return true
	}
	return strings.HasPrefix(string(name), "count/") || strings.HasSuffix(string(name), "/persistentvolumeclaims")
}

// quotaNameProblem says what is wrong with the name of a resource in a quota
// and what to write instead; empty when nothing is.
func quotaNameProblem(name corev1.ResourceName) string {
	text := string(name)
	for _, prefix := range []string{"hugepages-", "requests.hugepages-"} {
		if strings.HasPrefix(text, prefix) && len(text) > len(prefix) {
			return ""
		}
	}
	if !strings.Contains(text, "/") {
		if slices.Contains(quotaNames(), name) {
			return ""
		}
		problem := "not a resource that a quota can bound"
		if near := nearest(text); near != "" {
			return fmt.Sprintf("%s: did you mean %q?", problem, near)
		}
		return problem + `: write count/RESOURCE.GROUP (such as "count/deployments.apps") to bound the number of objects of a kind`
	}
	if kind, ok := strings.CutPrefix(text, "count/"); ok {
		if messages := validation.IsDNS1123Subdomain(kind); len(messages) > 0 {
			return `must be count/RESOURCE.GROUP, such as "count/deployments.apps"`
		}
		return ""
	}
	if messages := validation.IsQualifiedName(text); len(messages) > 0 {
		return messages[0]
	}
	// An extended resource is bounded by its requests only.
	if !strings.HasPrefix(text, "requests.") && !strings.Contains(text, ".k8s.io/") {
		return fmt.Sprintf("an extended resource is bounded as %q", "requests."+text)
	}
	return ""
}

// nearest is the known name that a wrong one was probably meant to be.
func nearest(name string) string {
	best, distance := "", 3
	for _, known := range quotaNames() {
		if d := editDistance(strings.ToLower(name), string(known)); d < distance {
			best, distance = string(known), d
		}
	}
	return best
}

// editDistance is the number of letters to insert, delete or replace.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j+1]+1, row[j]+1, diagonal+cost)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}

func validateContainerResources(list corev1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(list)) {
		value := list[name]
		standard := name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage ||
			strings.HasPrefix(string(name), "hugepages-")
		if !standard && (!strings.Contains(string(name), "/") || len(validation.IsQualifiedName(string(name))) > 0) {
			errs = append(errs, field.Invalid(path, name, "not a resource of containers: cpu, memory, ephemeral-storage, hugepages-SIZE or DOMAIN/NAME"))
		}
		if value.Sign() < 0 {
			errs = append(errs, field.Invalid(path.Key(string(name)), value.String(), "must not be negative"))
		}
	}
	return errs
}

func validateRequestsFit(requests, limits corev1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(requests)) {
		request := requests[name]
		if limit, ok := limits[name]; ok && request.Cmp(limit) > 0 {
			errs = append(errs, field.Invalid(path.Key(string(name)), request.String(), fmt.Sprintf("more than the limit of %s", limit.String())))
		}
	}
	return errs
}

func validateCIDR(cidr string, path *field.Path) field.ErrorList {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return field.ErrorList{field.Invalid(path, cidr, "must be a range such as 10.1.0.0/16 or 2001:db8::/32")}
	}
	if prefix.Masked() != prefix {
		return field.ErrorList{field.Invalid(path, cidr, fmt.Sprintf("has bits beyond its length: did you mean %s?", prefix.Masked()))}
	}
	return nil
}
