package kinds

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// bindCompletedAnnotation tells those who look at claims, as schedulers, that
// nothing more is to be done.
const bindCompletedAnnotation = "pv.kubernetes.io/bind-completed"

// PersistentVolumeClaim of a class of the host crosses to the host, which binds
// it; the tenant sees the result. Others stay in the tenant, whose volume binder
// gives them volumes that the tenant made.
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

// claimRefs names the class, which decides whose the claim is, the volume on
// both sides, and what a new one takes its contents from, so that its host name
// is known in texts.
func claimRefs(virtual, host *corev1.PersistentVolumeClaim) []translate.Ref {
	if virtual == nil {
		// Its volume is shown as long as the host has it bound.
		return claimVolume(host)
	}
	var refs []translate.Ref
	if class := claimClassName(virtual); class != "" {
		refs = append(refs, translate.Ref{Kind: schema.GroupKind{Group: storagev1.GroupName, Kind: "StorageClass"}, Name: class, Read: true, Watch: true})
	}
	volume := virtual.Spec.VolumeName
	if host != nil && host.Spec.VolumeName != "" {
		volume = host.Spec.VolumeName
	}
	refs = append(refs, claimVolume(host)...)
	if volume != "" {
		refs = append(refs, translate.Ref{Kind: coreKind("PersistentVolume"), Name: volume, Read: true, Watch: true})
	}
	// The API fills in this one from the other.
	if source := virtual.Spec.DataSourceRef; source != nil && isLocal(virtual, source) {
		refs = append(refs, translate.Ref{Kind: sourceKind(source.APIGroup, source.Kind), Namespace: virtual.Namespace, Name: source.Name})
	}
	return refs
}

// isLocal tells that a source is in the namespace of its claim.
func isLocal(claim *corev1.PersistentVolumeClaim, source *corev1.TypedObjectReference) bool {
	namespace := ptr.Deref(source.Namespace, "")
	return namespace == "" || namespace == claim.Namespace
}

func sourceKind(group *string, kind string) schema.GroupKind {
	return schema.GroupKind{Group: ptr.Deref(group, ""), Kind: kind}
}

// claimVolume is the volume that a host claim is bound to.
func claimVolume(host *corev1.PersistentVolumeClaim) []translate.Ref {
	if host == nil || host.Spec.VolumeName == "" {
		return nil
	}
	return []translate.Ref{{Side: translate.Host, Kind: coreKind("PersistentVolume"), Name: host.Spec.VolumeName, Sync: true}}
}

// claimClassName is the class that counts: an old annotation has precedence, as
// everywhere in Kubernetes.
func claimClassName(claim *corev1.PersistentVolumeClaim) string {
	if old, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return old
	}
	if claim.Spec.StorageClassName != nil {
		return *claim.Spec.StorageClassName
	}
	return ""
}

// staysInside tells whether the tenant's own volume binder has the claim: it
// names a volume by itself, which can only be one that the tenant made, or its
// class is none of the host's. Volumes of the host that have no class are not
// the tenant's to take.
func staysInside(in translate.Input[*corev1.PersistentVolumeClaim]) bool {
	if in.Host != nil && in.Host.Spec.VolumeName != "" {
		return false // The host has bound it.
	}
	virtual := in.Virtual
	if name := virtual.Spec.VolumeName; name != "" && (in.Host != nil || virtual.Status.Phase != corev1.ClaimBound) {
		volume := translate.Find[*corev1.PersistentVolume](in.Refs, translate.Virtual, "", name)
		return volume == nil || !translate.FromHost(volume)
	}
	class := translate.Find[*storagev1.StorageClass](in.Refs, translate.Virtual, "", claimClassName(virtual))
	return class == nil || !translate.FromHost(class)
}

func claimToHost(in translate.Input[*corev1.PersistentVolumeClaim]) (*corev1.PersistentVolumeClaim, error) {
	virtual := in.Virtual
	if staysInside(in) {
		return nil, claimNowhere(in)
	}
	if in.Host == nil && virtual.Spec.VolumeName != "" && virtual.Status.Phase != corev1.ClaimBound {
		return nil, fmt.Errorf("spec.volumeName %q is a volume of the host that is bound to another claim: leave it out", virtual.Spec.VolumeName)
	}
	if virtual.Spec.VolumeAttributesClassName != nil && *virtual.Spec.VolumeAttributesClassName != "" {
		return nil, errors.New("spec.volumeAttributesClassName may not be used in this cluster: the host shows no such classes; leave it out")
	}
	source, sourceRef, err := claimSource(in.Tenant, virtual)
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
			StorageClassName: new(claimClassName(virtual)),
			VolumeMode:       spec.VolumeMode,
			DataSource:       source,
			DataSourceRef:    sourceRef,
		},
	}, nil
}

// claimNowhere tells of a class that is neither the host's nor the tenant's own,
// where the limits name those that there are: a volume that the tenant made may
// still be bound.
func claimNowhere(in translate.Input[*corev1.PersistentVolumeClaim]) error {
	class := claimClassName(in.Virtual)
	own := translate.Find[*storagev1.StorageClass](in.Refs, translate.Virtual, "", class) != nil
	if class == "" || own || len(in.Tenant.StorageClasses) == 0 || in.Virtual.Spec.VolumeName != "" || slices.Contains(in.Tenant.StorageClasses, class) {
		return nil
	}
	return fmt.Errorf("storage class %q may not be used in this cluster, only: %s", class, strings.Join(in.Tenant.StorageClasses, ", "))
}

// claimSource translates what the volume begins with, which is in the same
// namespace: another claim, or a custom resource that crosses, as a snapshot. The
// API keeps both fields alike.
func claimSource(tenant translate.Tenant, virtual *corev1.PersistentVolumeClaim) (*corev1.TypedLocalObjectReference, *corev1.TypedObjectReference, error) {
	var source *corev1.TypedLocalObjectReference
	if from := virtual.Spec.DataSource; from != nil {
		if err := checkSource(tenant, sourceKind(from.APIGroup, from.Kind)); err != nil {
			return nil, nil, err
		}
		source = from.DeepCopy()
		source.Name = translate.HostName(virtual.Namespace, from.Name)
	}
	var sourceRef *corev1.TypedObjectReference
	if from := virtual.Spec.DataSourceRef; from != nil {
		if err := checkSource(tenant, sourceKind(from.APIGroup, from.Kind)); err != nil {
			return nil, nil, err
		}
		if !isLocal(virtual, from) {
			return nil, nil, fmt.Errorf("a volume cannot begin as a copy of one in another namespace (%q)", *from.Namespace)
		}
		sourceRef = &corev1.TypedObjectReference{APIGroup: from.DeepCopy().APIGroup, Kind: from.Kind, Name: translate.HostName(virtual.Namespace, from.Name)}
	}
	return source, sourceRef, nil
}

// checkSource: the host would not find what does not cross, and wait for ever.
func checkSource(tenant translate.Tenant, kind schema.GroupKind) error {
	crosses := func(r api.CustomResource) bool { return r.Group == kind.Group && r.Kind == kind.Kind }
	if kind == coreKind("PersistentVolumeClaim") || slices.ContainsFunc(tenant.CustomResources, crosses) {
		return nil
	}
	return fmt.Errorf("a volume cannot begin as a copy of a %s in this cluster, only of a PersistentVolumeClaim or of a custom resource that limits.customResources names", kind.Kind)
}

// claimMerge lets a claim grow; nothing else can change.
func claimMerge(host, desired *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	host.Spec.Resources = desired.Spec.Resources
	return host
}

func claimStatus(in translate.Input[*corev1.PersistentVolumeClaim]) (*corev1.PersistentVolumeClaim, error) {
	virtual, host := in.Virtual.DeepCopy(), in.Host.DeepCopy()
	if virtual.Spec.VolumeName == "" && host.Spec.VolumeName != "" && host.Status.Phase == corev1.ClaimBound {
		// The volume is shown first: who sees a bound claim looks for it.
		volume := translate.Find[*corev1.PersistentVolume](in.Refs, translate.Virtual, "", host.Spec.VolumeName)
		if volume == nil || !translate.FromHost(volume) {
			host.Spec.VolumeName = ""
			host.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
		}
	}
	if host.Status.Phase == corev1.ClaimBound {
		metav1.SetMetaDataAnnotation(&virtual.ObjectMeta, bindCompletedAnnotation, "yes")
	}
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
