package kinds

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// hostVolumeDriver stands for where the data of a volume is, if that is not with
// a CSI driver.
const hostVolumeDriver = "host.sublet.dev"

// PersistentVolume of the host is shown to the tenant, under its own name, as
// long as it is bound to one of the tenant's claims: to be read, not changed. Its
// size, class and nodes are true; where its data is, and by which secrets it is
// reached, stays behind.
//
// The syncer may get a volume that a claim of the tenant is bound to, by the
// name that the host's binder wrote into the claim. It can neither list nor
// watch volumes, and a volume that is not bound back to a claim of the tenant is
// dropped.
func PersistentVolume() translate.Kind[*corev1.PersistentVolume] {
	return translate.Kind[*corev1.PersistentVolume]{
		GroupVersionKind:  corev1.SchemeGroupVersion.WithKind("PersistentVolume"),
		Resource:          "persistentvolumes",
		New:               func() *corev1.PersistentVolume { return &corev1.PersistentVolume{} },
		NewList:           func() translate.ObjectList { return &corev1.PersistentVolumeList{} },
		ClusterRules:      []rbacv1.PolicyRule{rule("", "get", "persistentvolumes")},
		WhenReferenced:    true,
		HostByName:        true,
		StatusSubresource: true,
		Refs:              volumeRefs,
		ToVirtual:         volumeToVirtual,
		Parting:           volumeParting,
	}
}

// volumeRefs names the claim that a volume is bound to.
func volumeRefs(_, host *corev1.PersistentVolume) []translate.Ref {
	if host == nil || host.Spec.ClaimRef == nil {
		return nil
	}
	return []translate.Ref{{Side: translate.Host, Kind: coreKind("PersistentVolumeClaim"), Name: host.Spec.ClaimRef.Name, Read: true}}
}

// boundClaim returns the virtual name and uid of the claim that a host volume is
// bound to, if it is one of the tenant's and says so itself.
func boundClaim(in translate.Input[*corev1.PersistentVolume]) (types.NamespacedName, types.UID, bool) {
	ref := in.Host.Spec.ClaimRef
	if ref == nil || ref.Namespace != in.Tenant.HostNamespace {
		return types.NamespacedName{}, "", false
	}
	claim := translate.Find[*corev1.PersistentVolumeClaim](in.Refs, translate.Host, in.Tenant.HostNamespace, ref.Name)
	if claim == nil || claim.UID != ref.UID || claim.Spec.VolumeName != in.Host.Name {
		return types.NamespacedName{}, "", false
	}
	name, ours := in.Tenant.Owns(claim)
	return name, types.UID(claim.Annotations[api.AnnotationVirtualUID]), ours
}

func volumeToVirtual(in translate.Input[*corev1.PersistentVolume]) (*corev1.PersistentVolume, error) {
	claim, uid, ours := boundClaim(in)
	if !ours {
		return nil, nil
	}
	host := in.Host.DeepCopy()
	virtual := &corev1.PersistentVolume{
		ObjectMeta: translate.VirtualMeta(&metaOnlyLabels{host}, nodeLabel),
		Spec: corev1.PersistentVolumeSpec{
			Capacity:               host.Spec.Capacity,
			PersistentVolumeSource: volumeSource(host),
			AccessModes:            host.Spec.AccessModes,
			ClaimRef: &corev1.ObjectReference{
				Kind:       "PersistentVolumeClaim",
				APIVersion: corev1.SchemeGroupVersion.Version,
				Namespace:  claim.Namespace,
				Name:       claim.Name,
				UID:        uid,
			},
			PersistentVolumeReclaimPolicy: host.Spec.PersistentVolumeReclaimPolicy,
			StorageClassName:              host.Spec.StorageClassName,
			VolumeMode:                    host.Spec.VolumeMode,
			NodeAffinity:                  volumeNodes(host.Spec.NodeAffinity),
		},
		Status: corev1.PersistentVolumeStatus{Phase: host.Status.Phase},
	}
	if old := in.Virtual; old != nil {
		// These cannot be changed. The time is the API's to write.
		virtual.Spec.PersistentVolumeSource = *old.Spec.PersistentVolumeSource.DeepCopy()
		if old.Spec.NodeAffinity != nil {
			virtual.Spec.NodeAffinity = old.Spec.NodeAffinity.DeepCopy()
		}
		virtual.Status.LastPhaseTransitionTime = old.Status.LastPhaseTransitionTime.DeepCopy()
	}
	return virtual, nil
}

// metaOnlyLabels is a volume without its annotations: what the host's
// controllers keep there is theirs, and would make those of the tenant act.
type metaOnlyLabels struct{ *corev1.PersistentVolume }

// GetAnnotations returns none.
func (*metaOnlyLabels) GetAnnotations() map[string]string { return nil }

// volumeSource says which driver has the data, and nothing about where.
func volumeSource(host *corev1.PersistentVolume) corev1.PersistentVolumeSource {
	source := &corev1.CSIPersistentVolumeSource{Driver: hostVolumeDriver, VolumeHandle: host.Name}
	if csi := host.Spec.CSI; csi != nil {
		source.Driver = csi.Driver
		source.FSType = csi.FSType
		source.ReadOnly = csi.ReadOnly
	}
	return corev1.PersistentVolumeSource{CSI: source}
}

// volumeNodes keeps what the tenant's nodes show the labels for. Without the
// rest more nodes fit than do on the host, which has the last word.
func volumeNodes(host *corev1.VolumeNodeAffinity) *corev1.VolumeNodeAffinity {
	if host == nil || host.Required == nil {
		return nil
	}
	var terms []corev1.NodeSelectorTerm
	for _, term := range host.Required.NodeSelectorTerms {
		term.MatchExpressions = slices.DeleteFunc(term.MatchExpressions, func(r corev1.NodeSelectorRequirement) bool { return !nodeLabel(r.Key) })
		if len(term.MatchExpressions)+len(term.MatchFields) == 0 {
			return nil // Any node may do.
		}
		terms = append(terms, term)
	}
	if len(terms) == 0 {
		return nil
	}
	return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: terms}}
}

// volumeParting: a bound volume is protected from being deleted.
func volumeParting(virtual *corev1.PersistentVolume) *corev1.PersistentVolume {
	out := virtual.DeepCopy()
	out.Status.Phase = corev1.VolumeReleased
	return out
}
