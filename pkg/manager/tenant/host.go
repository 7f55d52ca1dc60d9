package tenant

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sublet-dev/sublet/pkg/isolation"
)

// Where the host's own API is.
const (
	hostAPINamespace = metav1.NamespaceDefault
	hostAPIName      = "kubernetes"
)

// hostFacts are what never changes on a host, read once.
type hostFacts struct {
	mu            sync.Mutex
	serviceRanges []string
	apiServiceIPs []string
}

// hostOf tells what the fence must know of the host.
func (r *Reconciler) hostOf(ctx context.Context) (isolation.Host, error) {
	ranges, err := r.serviceRanges(ctx)
	if err != nil {
		return isolation.Host{}, err
	}
	serviceIPs, err := r.apiServiceIPs(ctx)
	if err != nil {
		return isolation.Host{}, err
	}
	host := isolation.Host{
		SystemNamespace:   r.SystemNamespace,
		Unguarded:         r.Unguarded,
		APIServiceIPs:     serviceIPs,
		Ranges:            slices.Clone(ranges),
		IngressNamespaces: r.IngressNamespaces,
	}
	if host.APIServers, err = r.apiServers(ctx); err != nil {
		return isolation.Host{}, err
	}
	nodes := &corev1.NodeList{}
	if err := r.Client.List(ctx, nodes); err != nil {
		return isolation.Host{}, fmt.Errorf("list the host's nodes: %w", err)
	}
	for i := range nodes.Items {
		host.Ranges = append(host.Ranges, rangesOf(&nodes.Items[i])...)
		host.PodRanges = append(host.PodRanges, nodes.Items[i].Spec.PodCIDRs...)
	}
	if host.DefaultPriorityClass, err = r.defaultPriorityClass(ctx); err != nil {
		return isolation.Host{}, err
	}
	slices.Sort(host.PodRanges)
	host.PodRanges = slices.Compact(host.PodRanges)
	slices.Sort(host.Ranges)
	host.Ranges = slices.Compact(host.Ranges)
	return host, nil
}

// defaultPriorityClass is what the host gives to pods that name none: of several
// that say so the lowest, as its admission has it.
func (r *Reconciler) defaultPriorityClass(ctx context.Context) (string, error) {
	list := &schedulingv1.PriorityClassList{}
	if err := r.Client.List(ctx, list); err != nil {
		return "", fmt.Errorf("list the host's priority classes: %w", err)
	}
	var lowest *schedulingv1.PriorityClass
	for i := range list.Items {
		if class := &list.Items[i]; class.GlobalDefault && (lowest == nil || class.Value < lowest.Value) {
			lowest = class
		}
	}
	if lowest == nil {
		return "", nil
	}
	return lowest.Name, nil
}

func (r *Reconciler) apiServers(ctx context.Context) ([]isolation.Endpoint, error) {
	slice := &discoveryv1.EndpointSlice{}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: hostAPINamespace, Name: hostAPIName}, slice)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read the endpoints of the host's API: %w", err)
	}
	return endpointsOf(slice), nil
}

// hostAPI is where the host's API is, as ADDRESS:PORT.
func (r *Reconciler) hostAPI(ctx context.Context) ([]string, error) {
	servers, err := r.apiServers(ctx)
	if err != nil {
		return nil, err
	}
	services, err := r.apiServiceIPs(ctx)
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, ip := range services {
		addresses = append(addresses, net.JoinHostPort(ip, "443"))
	}
	for _, server := range servers {
		addresses = append(addresses, net.JoinHostPort(server.IP, strconv.Itoa(int(server.Port))))
	}
	return addresses, nil
}

func endpointsOf(slice *discoveryv1.EndpointSlice) []isolation.Endpoint {
	var endpoints []isolation.Endpoint
	for _, endpoint := range slice.Endpoints {
		for _, address := range endpoint.Addresses {
			for _, port := range slice.Ports {
				if port.Port != nil {
					endpoints = append(endpoints, isolation.Endpoint{IP: address, Port: *port.Port})
				}
			}
		}
	}
	slices.SortFunc(endpoints, func(a, b isolation.Endpoint) int { return strings.Compare(a.IP, b.IP) })
	return endpoints
}

// rangesOf are the addresses of a node and of its pods, as CIDRs.
func rangesOf(node *corev1.Node) []string {
	ranges := slices.Clone(node.Spec.PodCIDRs)
	for _, address := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(address.Address); err == nil {
			ranges = append(ranges, netip.PrefixFrom(ip, ip.BitLen()).String())
		}
	}
	slices.Sort(ranges)
	return ranges
}

// serviceRanges are the host's ranges of ClusterIPs, at most one for each IP
// family.
func (r *Reconciler) serviceRanges(ctx context.Context) ([]string, error) {
	r.host.mu.Lock()
	defer r.host.mu.Unlock()
	if len(r.host.serviceRanges) > 0 {
		return r.host.serviceRanges, nil
	}
	object := &networkingv1.ServiceCIDR{}
	err := r.Live.Get(ctx, client.ObjectKey{Name: hostAPIName}, object)
	switch {
	case err == nil && len(object.Spec.CIDRs) > 0:
		r.host.serviceRanges = object.Spec.CIDRs
		return object.Spec.CIDRs, nil
	case err != nil && !apierrors.IsNotFound(err) && !meta.IsNoMatchError(err):
		return nil, fmt.Errorf("read the host's service range: %w", err)
	}
	// Before 1.33 no object says it, but an error does.
	cidr, err := r.askServiceRange(ctx)
	if err != nil {
		return nil, err
	}
	r.host.serviceRanges = []string{cidr}
	return r.host.serviceRanges, nil
}

// askServiceRange tries to create a Service whose address is surely outside of
// the range, without creating it: the refusal names the range.
func (r *Reconciler) askServiceRange(ctx context.Context) (string, error) {
	probe := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "sublet-probe-", Namespace: r.SystemNamespace},
		Spec: corev1.ServiceSpec{
			ClusterIP: "1.1.1.1",
			Ports:     []corev1.ServicePort{{Port: 443}},
		},
	}
	err := r.Client.Create(ctx, probe, client.DryRunAll)
	if err == nil {
		return "", errors.New("find the host's service range: it has neither a ServiceCIDR named kubernetes nor a range that excludes 1.1.1.1")
	}
	cidr, ok := rangeIn(err.Error())
	if !ok {
		return "", fmt.Errorf("find the host's service range: it has no ServiceCIDR named kubernetes, and a probe says: %w", err)
	}
	return cidr, nil
}

// rangeIn finds the range that an API server names when it refuses an address.
func rangeIn(message string) (string, bool) {
	match := regexp.MustCompile(`range of valid IPs is ([0-9a-fA-F.:]+/[0-9]+)`).FindStringSubmatch(message)
	if match == nil {
		return "", false
	}
	prefix, err := netip.ParsePrefix(match[1])
	if err != nil {
		return "", false
	}
	return prefix.String(), true
}

func (r *Reconciler) apiServiceIPs(ctx context.Context) ([]string, error) {
	r.host.mu.Lock()
	defer r.host.mu.Unlock()
	if len(r.host.apiServiceIPs) > 0 {
		return r.host.apiServiceIPs, nil
	}
	service := &corev1.Service{}
	if err := r.Live.Get(ctx, client.ObjectKey{Namespace: hostAPINamespace, Name: hostAPIName}, service); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("read the Service of the host's API: %w", err)
	}
	r.host.apiServiceIPs = service.Spec.ClusterIPs
	return service.Spec.ClusterIPs, nil
}
