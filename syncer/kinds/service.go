package kinds

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// Service crosses to the host, which gives it its addresses and node ports;
// they are the same on both sides.
//
// An ExternalName is a name in the tenant's DNS and nothing else: it does not
// cross, and no limit is needed for it. Neither does default/kubernetes, which
// leads to the control plane.
func Service() translate.Kind[*corev1.Service] {
	return translate.Kind[*corev1.Service]{
		GroupVersionKind:  corev1.SchemeGroupVersion.WithKind("Service"),
		Resource:          "services",
		Namespaced:        true,
		New:               func() *corev1.Service { return &corev1.Service{} },
		NewList:           func() translate.ObjectList { return &corev1.ServiceList{} },
		Rules:             []rbacv1.PolicyRule{rule("", everything, "services")},
		ToHost:            serviceToHost,
		Merge:             serviceMerge,
		Replace:           serviceReplace,
		Status:            serviceStatus,
		StatusSubresource: true,
	}
}

// apiService tells whether a Service is that of the tenant's API.
func apiService(namespace, name string) bool {
	return namespace == metav1.NamespaceDefault && name == apiServiceName
}

func serviceToHost(in translate.Input[*corev1.Service]) (*corev1.Service, error) {
	virtual := in.Virtual
	if apiService(virtual.Namespace, virtual.Name) || virtual.Spec.Type == corev1.ServiceTypeExternalName {
		return nil, nil
	}
	if err := serviceAllowed(in.Tenant, virtual); err != nil {
		return nil, err
	}
	spec := virtual.Spec.DeepCopy()
	meta := in.Tenant.HostMeta(virtual)
	if in.Host != nil {
		if shown := shownStatus(in); len(shown) > 0 {
			meta.Annotations[api.AnnotationShownStatus] = strings.Join(shown, ",")
		}
	}
	return &corev1.Service{
		ObjectMeta: meta,
		Spec: corev1.ServiceSpec{
			Type:                          spec.Type,
			Ports:                         spec.Ports,
			Selector:                      serviceSelector(in.Tenant, virtual),
			ClusterIP:                     spec.ClusterIP,
			ClusterIPs:                    spec.ClusterIPs,
			IPFamilies:                    spec.IPFamilies,
			IPFamilyPolicy:                spec.IPFamilyPolicy,
			SessionAffinity:               spec.SessionAffinity,
			SessionAffinityConfig:         spec.SessionAffinityConfig,
			PublishNotReadyAddresses:      spec.PublishNotReadyAddresses,
			InternalTrafficPolicy:         spec.InternalTrafficPolicy,
			ExternalTrafficPolicy:         spec.ExternalTrafficPolicy,
			TrafficDistribution:           spec.TrafficDistribution,
			HealthCheckNodePort:           spec.HealthCheckNodePort,
			LoadBalancerIP:                spec.LoadBalancerIP,
			LoadBalancerClass:             spec.LoadBalancerClass,
			LoadBalancerSourceRanges:      spec.LoadBalancerSourceRanges,
			AllocateLoadBalancerNodePorts: spec.AllocateLoadBalancerNodePorts,
		},
	}, nil
}

func serviceAllowed(tenant translate.Tenant, virtual *corev1.Service) error {
	allowed := tenant.Services
	if len(allowed) == 0 {
		allowed = []corev1.ServiceType{corev1.ServiceTypeClusterIP}
	}
	kind := virtual.Spec.Type
	if kind == "" {
		kind = corev1.ServiceTypeClusterIP
	}
	if !slices.Contains(allowed, kind) {
		names := make([]string, len(allowed))
		for i := range allowed {
			names[i] = string(allowed[i])
		}
		return fmt.Errorf("type %s may not be used for a Service in this cluster, only %s: use another type, or ask whoever manages the tenant for it", kind, strings.Join(names, ", "))
	}
	if len(virtual.Spec.ExternalIPs) > 0 {
		// Anybody could take over traffic to any address that way.
		return errors.New("spec.externalIPs may not be used in this cluster: use a Service of type LoadBalancer")
	}
	return nil
}

// serviceSelector confines a selector to pods of the same virtual namespace.
// Without a selector there is none on the host either: the EndpointSlices come
// from the tenant.
func serviceSelector(tenant translate.Tenant, virtual *corev1.Service) map[string]string {
	if len(virtual.Spec.Selector) == 0 {
		return nil
	}
	selector := maps.Clone(virtual.Spec.Selector)
	selector[api.LabelTenant] = tenant.Name
	selector[api.LabelVirtualNamespace] = virtual.Namespace
	return selector
}

// serviceMerge takes over all that the tenant says. Where it says nothing, as a
// client may that writes a Service without having read it, stays what the host
// has allocated.
func serviceMerge(host, desired *corev1.Service) *corev1.Service {
	before, spec := host.Spec, *desired.Spec.DeepCopy()
	if spec.ClusterIP == "" {
		spec.ClusterIP, spec.ClusterIPs = before.ClusterIP, before.ClusterIPs
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = before.IPFamilies
	}
	if spec.IPFamilyPolicy == nil {
		spec.IPFamilyPolicy = before.IPFamilyPolicy
	}
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = before.SessionAffinity
	}
	if spec.InternalTrafficPolicy == nil {
		spec.InternalTrafficPolicy = before.InternalTrafficPolicy
	}
	if hasNodePorts(spec) {
		keepNodePorts(before.Ports, spec.Ports)
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		if spec.AllocateLoadBalancerNodePorts == nil {
			spec.AllocateLoadBalancerNodePorts = before.AllocateLoadBalancerNodePorts
		}
		if spec.LoadBalancerClass == nil {
			spec.LoadBalancerClass = before.LoadBalancerClass
		}
		if spec.HealthCheckNodePort == 0 && spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
			spec.HealthCheckNodePort = before.HealthCheckNodePort
		}
	}
	if len(spec.Selector) == 0 && len(before.Selector) > 0 {
		// Else the host would keep for ever the endpoints that it last made.
		spec.Selector = map[string]string{api.LabelVirtualNamespace: noNamespace}
	}
	host.Spec = spec
	return host
}

// serviceReplace: an address cannot be changed. The host has another one than
// the tenant only if two wrote a Service of one name at once.
func serviceReplace(host, desired *corev1.Service) bool {
	return desired.Spec.ClusterIP != "" && host.Spec.ClusterIP != "" && desired.Spec.ClusterIP != host.Spec.ClusterIP
}

// hasNodePorts tells whether node ports are allocated where none is asked for.
func hasNodePorts(spec corev1.ServiceSpec) bool {
	switch spec.Type {
	case corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeLoadBalancer:
		return spec.AllocateLoadBalancerNodePorts == nil || *spec.AllocateLoadBalancerNodePorts
	}
	return false
}

// keepNodePorts fills in, by port name, the node ports that to does not say,
// except those that it gives to another port now.
func keepNodePorts(from, to []corev1.ServicePort) {
	used := map[int32]bool{}
	for i := range to {
		used[to[i].NodePort] = true
	}
	byName := map[string]int32{}
	for i := range from {
		byName[from[i].Name] = from[i].NodePort
	}
	for i := range to {
		if port := byName[to[i].Name]; to[i].NodePort == 0 && !used[port] {
			to[i].NodePort = port
			used[port] = true
		}
	}
}

// serviceStatus brings back what the host decided.
func serviceStatus(in translate.Input[*corev1.Service]) (*corev1.Service, error) {
	virtual, host := in.Virtual.DeepCopy(), in.Host.DeepCopy()
	if virtual.Spec.Type == corev1.ServiceTypeExternalName {
		return virtual, nil
	}
	virtual.Spec.ClusterIP = host.Spec.ClusterIP
	virtual.Spec.ClusterIPs = host.Spec.ClusterIPs
	virtual.Spec.IPFamilies = host.Spec.IPFamilies
	virtual.Spec.IPFamilyPolicy = host.Spec.IPFamilyPolicy
	virtual.Spec.HealthCheckNodePort = host.Spec.HealthCheckNodePort
	nodePorts := map[string]int32{}
	for i := range host.Spec.Ports {
		nodePorts[host.Spec.Ports[i].Name] = host.Spec.Ports[i].NodePort
	}
	for i := range virtual.Spec.Ports {
		if port, ok := nodePorts[virtual.Spec.Ports[i].Name]; ok {
			virtual.Spec.Ports[i].NodePort = port
		}
	}
	serviceShow(in, virtual, host)
	return virtual, nil
}

// shownLoadBalancer stands, among types of conditions, for the addresses.
const shownLoadBalancer = "loadBalancer"

// shownStatus is what of the host's status the tenant has been shown, or is to
// be now: what has gone on the host stays in the list until it has gone in the
// tenant.
func shownStatus(in translate.Input[*corev1.Service]) []string {
	virtual, host := in.Virtual, in.Host
	before := shownBefore(host)
	var shown []string
	if len(host.Status.LoadBalancer.Ingress) > 0 || before[shownLoadBalancer] && len(virtual.Status.LoadBalancer.Ingress) > 0 {
		shown = append(shown, shownLoadBalancer)
	}
	for _, condition := range host.Status.Conditions {
		shown = append(shown, condition.Type)
	}
	for _, condition := range virtual.Status.Conditions {
		if before[condition.Type] && !slices.Contains(shown, condition.Type) {
			shown = append(shown, condition.Type)
		}
	}
	return slices.Sorted(slices.Values(shown))
}

func shownBefore(host *corev1.Service) map[string]bool {
	before := map[string]bool{}
	for name := range strings.SplitSeq(host.Annotations[api.AnnotationShownStatus], ",") {
		before[name] = true
	}
	return before
}

// serviceShow puts the host's status over the virtual one. What the host says
// nothing about is for the tenant's own controllers to say, as a load balancer
// of its own may.
func serviceShow(in translate.Input[*corev1.Service], virtual, host *corev1.Service) {
	before := shownBefore(host)
	switch {
	case virtual.Spec.Type != corev1.ServiceTypeLoadBalancer:
		virtual.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	case len(host.Status.LoadBalancer.Ingress) > 0 || before[shownLoadBalancer]:
		virtual.Status.LoadBalancer = host.Status.LoadBalancer
	}
	conditions := slices.DeleteFunc(virtual.Status.Conditions, func(c metav1.Condition) bool { return before[c.Type] })
	for _, condition := range host.Status.Conditions {
		condition.Message = in.Tenant.Rewrite(condition.Message, in.Names)
		condition.ObservedGeneration = virtual.Generation
		same := func(c metav1.Condition) bool { return c.Type == condition.Type }
		conditions = append(slices.DeleteFunc(conditions, same), condition)
	}
	if len(conditions) == 0 {
		conditions = nil
	}
	virtual.Status.Conditions = conditions
}
