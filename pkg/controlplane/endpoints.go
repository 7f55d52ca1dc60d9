package controlplane

import (
	"net"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/storage"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	discoveryv1client "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
)

// newEndpointReconciler keeps the endpoints of default/kubernetes without any
// lease, as there is one API server.
func newEndpointReconciler(config *rest.Config) (reconcilers.EndpointReconciler, error) {
	endpoints, err := corev1client.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	slices, err := discoveryv1client.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return reconcilers.NewMasterCountEndpointReconciler(1, reconcilers.NewEndpointsAdapter(endpoints, slices)), nil
}

// serviceEndpoint shows the ClusterIP of the control plane's host Service as
// the endpoint of default/kubernetes: that is what pods of the tenant can
// reach, and it stays the same when the control plane moves.
type serviceEndpoint struct {
	reconcilers.EndpointReconciler
	ip       net.IP
	port     int32
	stopping atomic.Bool
}

// ReconcileEndpoints writes the endpoint if it is not there.
func (s *serviceEndpoint) ReconcileEndpoints(service string, _ net.IP, ports []corev1.EndpointPort, reconcilePorts bool) error {
	return s.EndpointReconciler.ReconcileEndpoints(service, s.ip, s.ports(ports), reconcilePorts)
}

// StopReconciling comes before the last RemoveEndpoints.
func (s *serviceEndpoint) StopReconciling() {
	s.stopping.Store(true)
	s.EndpointReconciler.StopReconciling()
}

// RemoveEndpoints does nothing: the host Service takes the control plane out of
// its own endpoints when it is not ready. At the start the caller takes success
// for the remains of a crash, and at the end anything else for an error.
func (s *serviceEndpoint) RemoveEndpoints(service string, _ net.IP, _ []corev1.EndpointPort) error {
	if s.stopping.Load() {
		return nil
	}
	return storage.NewKeyNotFoundError(service, 0)
}

func (s *serviceEndpoint) ports(ports []corev1.EndpointPort) []corev1.EndpointPort {
	fixed := make([]corev1.EndpointPort, 0, len(ports))
	for _, port := range ports {
		port.Port = s.port
		fixed = append(fixed, port)
	}
	return fixed
}
