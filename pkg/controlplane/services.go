package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1conversion "k8s.io/kubernetes/pkg/apis/core/v1"
)

// servicePluginName is that of the admission plugin below.
const servicePluginName = "SubletServices"

// kubernetesServiceName names default/kubernetes, which is the API server's own
// and has its address from Options.
const kubernetesServiceName = "kubernetes"

// servicePlugin asks the ServiceAllocator for addresses and ports before a
// Service is stored, so that they are right from the first moment:
//
//	create/update ─► defaulting ─► admission: webhooks ─► servicePlugin ─► storage
//	                                                          │
//	                                       host Service made or changed first
//
// It stands after the webhooks, as nothing may change a Service afterwards. A
// request that is refused later, by quota or validation, leaves a host Service
// behind, which the syncer deletes when the request's context ends.
type servicePlugin struct {
	*admission.Handler
	allocator ServiceAllocator
}

var _ admission.MutationInterface = servicePlugin{}

func registerServicePlugin(plugins *admission.Plugins, allocator ServiceAllocator) {
	plugins.Register(servicePluginName, func(io.Reader) (admission.Interface, error) {
		return servicePlugin{
			Handler:   admission.NewHandler(admission.Create, admission.Update),
			allocator: allocator,
		}, nil
	})
}

// Admit fills in what the allocator gives.
func (p servicePlugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != core.Resource("services") || a.GetSubresource() != "" {
		return nil
	}
	if a.GetNamespace() == metav1.NamespaceDefault && a.GetName() == kubernetesServiceName {
		return nil
	}
	service, ok := a.GetObject().(*core.Service)
	if !ok {
		return apierrors.NewInternalError(fmt.Errorf("admission got %T for a Service", a.GetObject()))
	}
	if !service.DeletionTimestamp.IsZero() {
		return nil
	}

	var old *corev1.Service
	if a.GetOperation() == admission.Update {
		stored, ok := a.GetOldObject().(*core.Service)
		if !ok {
			return apierrors.NewInternalError(fmt.Errorf("admission got %T for an old Service", a.GetOldObject()))
		}
		if service.ResourceVersion != "" && service.ResourceVersion != stored.ResourceVersion {
			return nil // It will be refused as a conflict: nothing to do on the host.
		}
		var err error
		if old, err = toVersioned(stored); err != nil {
			return err
		}
	}
	tries := 1
	generated := service.Name == "" && a.GetName() == "" && service.GenerateName != ""
	if generated {
		tries = generateTries
	}
	for try := 1; ; try++ {
		if generated {
			// The API server would choose later, and the host's is needed now.
			service.Name = names.SimpleNameGenerator.GenerateName(service.GenerateName)
		}
		err := p.allocate(ctx, a, service, old)
		if err == nil || try == tries || !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
}

// generateTries is how often a name is generated until it is a new one, as
// often as the API server does.
const generateTries = 8

func (p servicePlugin) allocate(ctx context.Context, a admission.Attributes, service *core.Service, old *corev1.Service) error {
	wanted, err := toVersioned(service)
	if err != nil {
		return err
	}
	// The namespace is set after admission on some paths.
	wanted.Namespace = a.GetNamespace()
	if wanted.Name == "" {
		wanted.Name = a.GetName()
	}
	if err := p.allocator.AllocateService(ctx, wanted, old, a.IsDryRun()); err != nil {
		return allocationError(a, err)
	}
	return copyAllocation(wanted, service)
}

func toVersioned(service *core.Service) (*corev1.Service, error) {
	versioned := &corev1.Service{}
	if err := corev1conversion.Convert_core_Service_To_v1_Service(service.DeepCopy(), versioned, nil); err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("converting a Service: %w", err))
	}
	return versioned, nil
}

// copyAllocation takes over what an allocator may fill in, and nothing else.
func copyAllocation(from *corev1.Service, to *core.Service) error {
	allocated := &core.Service{}
	if err := corev1conversion.Convert_v1_Service_To_core_Service(from.DeepCopy(), allocated, nil); err != nil {
		return apierrors.NewInternalError(fmt.Errorf("converting a Service: %w", err))
	}
	if len(allocated.Spec.Ports) != len(to.Spec.Ports) {
		return apierrors.NewInternalError(fmt.Errorf("%d ports were allocated for %d", len(allocated.Spec.Ports), len(to.Spec.Ports)))
	}
	to.Spec.ClusterIP = allocated.Spec.ClusterIP
	to.Spec.ClusterIPs = allocated.Spec.ClusterIPs
	to.Spec.IPFamilies = allocated.Spec.IPFamilies
	to.Spec.IPFamilyPolicy = allocated.Spec.IPFamilyPolicy
	to.Spec.HealthCheckNodePort = allocated.Spec.HealthCheckNodePort
	for i := range to.Spec.Ports {
		to.Spec.Ports[i].NodePort = allocated.Spec.Ports[i].NodePort
	}
	return nil
}

// allocationError passes on what the host's API said, and else says that the
// host could not be asked.
func allocationError(a admission.Attributes, err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return err
	}
	return admission.NewForbidden(a, fmt.Errorf("no address for the Service on the host: %w", err))
}
