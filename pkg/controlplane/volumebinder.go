package controlplane

import (
	"context"
	"fmt"
	"maps"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	controllerapp "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// newVolumeBinder is the controller that binds claims to PersistentVolumes, for
// those that the tenant makes itself. It sees nothing of volumes that stand for
// the host's, and of claims that the host binds: two binders at one claim would
// take turns in undoing what the other did.
func newVolumeBinder(ctx context.Context, controllerContext controllerapp.ControllerContext, held heldInformers, known map[string]*controllerapp.ControllerDescriptor) ([]controllerapp.Controller, error) {
	split := volumeSplit{
		volumes: held.Core().V1().PersistentVolumes().Lister(),
		classes: held.Storage().V1().StorageClasses().Lister(),
	}
	keep := maps.Clone(held.keep)
	if keep == nil {
		keep = map[reflect.Type]func(any) bool{}
	}
	keep[reflect.TypeFor[*corev1.PersistentVolume]()] = split.ownVolume
	keep[reflect.TypeFor[*corev1.PersistentVolumeClaim]()] = split.staysInside
	held.keep = keep
	controllerContext.InformerFactory = held
	built, err := controllerapp.BuildControllers(ctx, controllerContext, map[string]*controllerapp.ControllerDescriptor{
		names.PersistentVolumeBinderController: known[names.PersistentVolumeBinderController],
	}, nil, noHealthChecks{})
	if err != nil {
		return nil, fmt.Errorf("building the volume binder: %w", err)
	}
	return built, nil
}

// volumeSplit tells the tenant's volumes and claims from those of the host. The
// syncer has the same rule, in kinds/persistentvolumeclaim.go: what stays inside
// here does not cross there.
type volumeSplit struct {
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
}

func fromHost(object metav1.Object) bool {
	return object.GetAnnotations()[api.AnnotationFromHost] != ""
}

func (volumeSplit) ownVolume(object any) bool {
	volume, ok := lastKnown(object).(*corev1.PersistentVolume)
	return !ok || !fromHost(volume)
}

// staysInside: a claim is the host's if its class is, but for one that names a
// volume by itself, which can only be the tenant's.
func (s volumeSplit) staysInside(object any) bool {
	claim, ok := lastKnown(object).(*corev1.PersistentVolumeClaim)
	if !ok {
		return true
	}
	hosts := false
	if name := storagehelpers.GetPersistentVolumeClaimClass(claim); name != "" {
		class, err := s.classes.Get(name)
		hosts = err == nil && fromHost(class)
	}
	if claim.Spec.VolumeName == "" {
		return !hosts
	}
	volume, err := s.volumes.Get(claim.Spec.VolumeName)
	if err != nil {
		// Bound on the host, and the syncer is about to show the volume.
		return !hosts || claim.Status.Phase != corev1.ClaimBound
	}
	return !fromHost(volume)
}
