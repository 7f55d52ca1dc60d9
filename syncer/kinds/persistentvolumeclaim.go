package kinds

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// PersistentVolumeClaim crosses to the host, which binds it; the tenant sees
// the result. Nothing in the tenant binds claims.
func PersistentVolumeClaim() translate.Kind[*corev1.PersistentVolumeClaim] {
	return translate.Kind[*corev1.PersistentVolumeClaim]{
		GroupVersionKind:  corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"),
		Resource:          "persistentvolumeclaims",
		Namespaced:        true,
		New:               func() *corev1.PersistentVolumeClaim { return &corev1.PersistentVolumeClaim{} },
		NewList:           func() translate.ObjectList { return &corev1.PersistentVolumeClaimList{} },
		Rules:             []rbacv1.PolicyRule{rule("", everything, "persistentvolumeclaims")},
		Refs:              claimRefs,
		ToHost:            claimToHost,
		Merge:             claimMerge,
		Status:            claimStatus,
		StatusSubresource: true,
	}
}

// claimRefs names the claim whose contents a new one begins with, so that its
// host name is known in texts.
func claimRefs(virtual, _ *corev1.PersistentVolumeClaim) []translate.Ref {
	if virtual == nil {
		return nil
	}
	source := virtual.Spec.DataSource
	if source == nil || source.Kind != "PersistentVolumeClaim" {
		return nil
	}
	return []translate.Ref{{
		Side:      translate.Virtual,
		Kind:      coreKind("PersistentVolumeClaim"),
		Namespace: virtual.Namespace,
		Name:      source.Name,
	}}
}

func claimToHost(in translate.Input[*corev1.PersistentVolumeClaim]) (*corev1.PersistentVolumeClaim, error) {
	virtual := in.Virtual
	if virtual.Spec.VolumeName != "" && virtual.Status.Phase != corev1.ClaimBound && in.Host == nil {
		// A name given by hand; afterwards it is what the host has bound.
		return nil, errors.New("spec.volumeName may not be used in this cluster: volumes of the host cannot be chosen; leave it out")
	}
	if virtual.Spec.VolumeAttributesClassName != nil && *virtual.Spec.VolumeAttributesClassName != "" {
		return nil, errors.New("spec.volumeAttributesClassName may not be used in this cluster: the host shows no such classes; leave it out")
	}
	class, err := claimClass(in.Tenant, virtual)
	if err != nil {
		return nil, err
	}
	source, sourceRef, err := claimSource(virtual)
	if err != nil {
		return nil, err
	}
	spec := virtual.Spec.DeepCopy()
	return &corev1.PersistentVolumeClaim{
		// Under these prefixes the host's controllers keep what they know.
		ObjectMeta: in.Tenant.HostMeta(virtual, "pv.kubernetes.io/", "volume.kubernetes.io/", "volume.beta.kubernetes.io/"),
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      spec.AccessModes,
			Selector:         spec.Selector,
			Resources:        spec.Resources,
			StorageClassName: class,
			VolumeMode:       spec.VolumeMode,
			DataSource:       source,
			DataSourceRef:    sourceRef,
		},
	}, nil
}

// claimClass is the class that counts: an old annotation has precedence, as
// everywhere in Kubernetes.
func claimClass(tenant translate.Tenant, virtual *corev1.PersistentVolumeClaim) (*string, error) {
	class := virtual.Spec.StorageClassName
	if old, ok := virtual.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		class = &old
	}
	if len(tenant.StorageClasses) == 0 {
		return class, nil
	}
	allowed := strings.Join(tenant.StorageClasses, ", ")
	if class == nil {
		return nil, fmt.Errorf("spec.storageClassName is needed in this cluster, one of: %s", allowed)
	}
	if !slices.Contains(tenant.StorageClasses, *class) {
		return nil, fmt.Errorf("storage class %q may not be used in this cluster, only: %s", *class, allowed)
	}
	return class, nil
}

// claimSource translates what the volume begins with: another claim of the same
// namespace. The API keeps both fields alike.
func claimSource(virtual *corev1.PersistentVolumeClaim) (*corev1.TypedLocalObjectReference, *corev1.TypedObjectReference, error) {
	check := func(group *string, kind string) error {
		if kind == "PersistentVolumeClaim" && (group == nil || *group == "") {
			return nil
		}
		return fmt.Errorf("a volume cannot begin as a copy of a %s in this cluster, only of a PersistentVolumeClaim", kind)
	}
	var source *corev1.TypedLocalObjectReference
	if from := virtual.Spec.DataSource; from != nil {
		if err := check(from.APIGroup, from.Kind); err != nil {
			return nil, nil, err
		}
		source = &corev1.TypedLocalObjectReference{Kind: from.Kind, Name: translate.HostName(virtual.Namespace, from.Name)}
	}
	var sourceRef *corev1.TypedObjectReference
	if from := virtual.Spec.DataSourceRef; from != nil {
		if err := check(from.APIGroup, from.Kind); err != nil {
			return nil, nil, err
		}
		if from.Namespace != nil && *from.Namespace != "" && *from.Namespace != virtual.Namespace {
			return nil, nil, fmt.Errorf("a volume cannot begin as a copy of one in another namespace (%q)", *from.Namespace)
		}
		sourceRef = &corev1.TypedObjectReference{Kind: from.Kind, Name: translate.HostName(virtual.Namespace, from.Name)}
	}
	return source, sourceRef, nil
}

// claimMerge lets a claim grow; nothing else can change.
func claimMerge(host, desired *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	host.Spec.Resources = desired.Spec.Resources
	return host
}

func claimStatus(in translate.Input[*corev1.PersistentVolumeClaim]) (*corev1.PersistentVolumeClaim, error) {
	virtual, host := in.Virtual.DeepCopy(), in.Host.DeepCopy()
	// Both can be set once.
	if virtual.Spec.VolumeName == "" {
		virtual.Spec.VolumeName = host.Spec.VolumeName
	}
	if _, old := virtual.Annotations[corev1.BetaStorageClassAnnotation]; virtual.Spec.StorageClassName == nil && !old {
		virtual.Spec.StorageClassName = host.Spec.StorageClassName
	}
	virtual.Status = corev1.PersistentVolumeClaimStatus{
		Phase:                     host.Status.Phase,
		AccessModes:               host.Status.AccessModes,
		Capacity:                  host.Status.Capacity,
		AllocatedResources:        host.Status.AllocatedResources,
		AllocatedResourceStatuses: host.Status.AllocatedResourceStatuses,
	}
	for _, condition := range host.Status.Conditions {
		condition.Message = in.Tenant.Rewrite(condition.Message, in.Names)
		virtual.Status.Conditions = append(virtual.Status.Conditions, condition)
	}
	return virtual, nil
}
