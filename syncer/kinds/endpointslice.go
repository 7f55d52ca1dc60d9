package kinds

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// endpointSliceManager marks the host's EndpointSlices as ours: the host's own
// controllers would delete slices that claim to be theirs.
const endpointSliceManager = "sublet.dev"

// Managers of what Kubernetes makes of selectors, and of Endpoints.
const (
	endpointSliceController = "endpointslice-controller.k8s.io"
	endpointSliceMirror     = "endpointslicemirroring-controller.k8s.io"
)

// EndpointSlice crosses to the host unless a controller has made it of the
// selector of a Service: those the host makes itself. Endpoints do not cross:
// the tenant's control plane mirrors them into EndpointSlices, and those do.
func EndpointSlice() translate.Kind[*discoveryv1.EndpointSlice] {
	return translate.Kind[*discoveryv1.EndpointSlice]{
		GroupVersionKind: discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
		Resource:         "endpointslices",
		Namespaced:       true,
		New:              func() *discoveryv1.EndpointSlice { return &discoveryv1.EndpointSlice{} },
		NewList:          func() translate.ObjectList { return &discoveryv1.EndpointSliceList{} },
		Rules:            []rbacv1.PolicyRule{rule(discoveryv1.GroupName, everything, "endpointslices")},
		Refs:             endpointSliceRefs,
		ToHost:           endpointSliceToHost,
		Merge:            endpointSliceMerge,
		Replace:          func(host, desired *discoveryv1.EndpointSlice) bool { return host.AddressType != desired.AddressType },
	}
}

func endpointSliceRefs(virtual, _ *discoveryv1.EndpointSlice) []translate.Ref {
	if virtual == nil || virtual.Labels[discoveryv1.LabelServiceName] == "" {
		return nil
	}
	return []translate.Ref{{
		Side:      translate.Virtual,
		Kind:      coreKind("Service"),
		Namespace: virtual.Namespace,
		Name:      virtual.Labels[discoveryv1.LabelServiceName],
		Read:      true,
		Watch:     true,
	}}
}

func endpointSliceToHost(in translate.Input[*discoveryv1.EndpointSlice]) (*discoveryv1.EndpointSlice, error) {
	virtual := in.Virtual
	service := virtual.Labels[discoveryv1.LabelServiceName]
	if service == "" || apiService(virtual.Namespace, service) {
		return nil, nil
	}
	owner := translate.Find[*corev1.Service](in.Refs, translate.Virtual, virtual.Namespace, service)
	if owner == nil || owner.Spec.Type == corev1.ServiceTypeExternalName {
		return nil, nil
	}
	if manager := virtual.Labels[discoveryv1.LabelManagedBy]; len(owner.Spec.Selector) > 0 && (manager == endpointSliceController || manager == endpointSliceMirror) {
		return nil, nil // A mirrored one is on its way out.
	}
	host := &discoveryv1.EndpointSlice{
		ObjectMeta:  in.Tenant.HostMeta(virtual),
		AddressType: virtual.AddressType,
	}
	host.Labels[discoveryv1.LabelServiceName] = translate.HostName(virtual.Namespace, service)
	host.Labels[discoveryv1.LabelManagedBy] = endpointSliceManager
	copied := virtual.DeepCopy()
	host.Ports = copied.Ports
	for _, endpoint := range copied.Endpoints {
		for _, address := range endpoint.Addresses {
			if err := reachable(address); err != nil {
				return nil, err
			}
		}
		host.Endpoints = append(host.Endpoints, discoveryv1.Endpoint{
			Addresses:  endpoint.Addresses,
			Conditions: endpoint.Conditions,
			Hostname:   endpoint.Hostname,
			TargetRef:  endpointTarget(in.Tenant, virtual.Namespace, endpoint.TargetRef),
			NodeName:   endpoint.NodeName,
			Zone:       endpoint.Zone,
			Hints:      endpoint.Hints,
		})
	}
	return host, nil
}

func endpointSliceMerge(host, desired *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	host.Endpoints = desired.Endpoints
	host.Ports = desired.Ports
	return host
}

// endpointTarget names the host's pod; what else an address may stand for is
// not on the host.
func endpointTarget(tenant translate.Tenant, namespace string, virtual *corev1.ObjectReference) *corev1.ObjectReference {
	if virtual == nil || virtual.Kind != "Pod" || virtual.Namespace != "" && virtual.Namespace != namespace {
		return nil
	}
	return &corev1.ObjectReference{
		Kind:      virtual.Kind,
		Namespace: tenant.HostNamespace,
		Name:      translate.HostName(namespace, virtual.Name),
	}
}

// reachable refuses addresses behind which a node talks to itself or to the
// cloud it runs in: no Service may lead there, whoever calls it. All others
// are for the network fence around the tenant, which looks at the address that
// a Service leads to.
func reachable(text string) error {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return nil // A name; nothing is routed to it.
	}
	address = address.Unmap()
	refused := address.IsLoopback() || address.IsUnspecified() || address.IsMulticast() || address.IsLinkLocalUnicast()
	for _, metadata := range []netip.Addr{
		netip.AddrFrom4([4]byte{168, 63, 129, 16}),                             // Azure
		netip.AddrFrom4([4]byte{100, 100, 100, 200}),                           // Alibaba
		netip.AddrFrom4([4]byte{192, 0, 0, 192}),                               // Oracle
		netip.AddrFrom16([16]byte{0xfd, 0x00, 0x0e, 0xc2, 14: 0x02, 15: 0x54}), // AWS
	} {
		refused = refused || address == metadata
	}
	if refused {
		return fmt.Errorf("address %q may not be an endpoint: it is a node's own, link-local, multicast or a cloud's metadata service", text)
	}
	return nil
}
