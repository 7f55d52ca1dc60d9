package kinds

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// podRefs: what is needed only to create containers is read only as long as
// there are some to create.
func podRefs(virtual, host *corev1.Pod) []translate.Ref {
	if virtual == nil {
		return nil
	}
	r := refCollector{namespace: virtual.Namespace, seen: map[translate.Ref]bool{}}
	creating := host == nil || len(virtual.Spec.EphemeralContainers) > len(host.Spec.EphemeralContainers)

	r.add(translate.Ref{Kind: coreKind("Namespace"), Name: virtual.Namespace, Read: true, Watch: true})
	r.add(isolationRef(virtual.Namespace))
	if host == nil {
		r.accountRefs(virtual)
		r.runtimeClass(virtual.Spec.RuntimeClassName)
	}
	if creating {
		r.add(translate.Ref{Kind: coreKind("Service"), Namespace: metav1.NamespaceDefault, Name: apiServiceName, Read: true})
		if links := virtual.Spec.EnableServiceLinks; links == nil || *links {
			r.add(translate.Ref{Kind: coreKind("Service"), Namespace: virtual.Namespace, Read: true})
		}
		if needsNamespaces(virtual.Spec.Affinity) {
			r.add(translate.Ref{Kind: coreKind("Namespace"), Read: true})
		}
	}
	if name := virtual.Spec.NodeName; name != "" && (host == nil || host.Spec.NodeName == "") {
		r.add(translate.Ref{Side: translate.Host, Kind: coreKind("Node"), Name: name, Read: true})
	}
	if host != nil && host.Spec.NodeName != "" {
		r.add(translate.Ref{Side: translate.Host, Kind: coreKind("Node"), Name: host.Spec.NodeName, Read: true, Sync: true})
		r.add(translate.Ref{Kind: coreKind("Node"), Name: host.Spec.NodeName, Read: true, Watch: true})
	}
	for i := range virtual.Spec.Volumes {
		r.volume(virtual, &virtual.Spec.Volumes[i], host == nil)
	}
	for i := range virtual.Spec.InitContainers {
		r.container(&virtual.Spec.InitContainers[i], creating)
	}
	for i := range virtual.Spec.Containers {
		r.container(&virtual.Spec.Containers[i], creating)
	}
	for i := range virtual.Spec.EphemeralContainers {
		container := corev1.Container(virtual.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		r.container(&container, creating)
	}
	for _, secret := range virtual.Spec.ImagePullSecrets {
		r.secret(secret.Name, false)
	}
	return r.refs
}

type refCollector struct {
	namespace string
	seen      map[translate.Ref]bool
	refs      []translate.Ref
}

func coreKind(kind string) schema.GroupKind { return schema.GroupKind{Kind: kind} }

func (r *refCollector) add(ref translate.Ref) {
	if r.seen[ref] {
		return
	}
	r.seen[ref] = true
	r.refs = append(r.refs, ref)
}

func (r *refCollector) secret(name string, read bool) {
	if name != "" {
		r.add(translate.Ref{Kind: coreKind("Secret"), Namespace: r.namespace, Name: name, Sync: true, Read: read})
	}
}

func (r *refCollector) configMap(name string, read bool) {
	if name != "" {
		r.add(translate.Ref{Kind: coreKind("ConfigMap"), Namespace: r.namespace, Name: name, Sync: true, Read: read})
	}
}

func (r *refCollector) claim(name string, read bool) {
	r.add(translate.Ref{Kind: coreKind("PersistentVolumeClaim"), Namespace: r.namespace, Name: name, Sync: true, Read: read, Watch: read})
}

// runtimeClass: one of the tenant's own stands for one of the host's that has the
// same handler.
func (r *refCollector) runtimeClass(name *string) {
	if name == nil {
		return
	}
	kind := schema.GroupKind{Group: nodev1.GroupName, Kind: "RuntimeClass"}
	r.add(translate.Ref{Kind: kind, Name: *name, Read: true, Watch: true})
	r.add(translate.Ref{Side: translate.Host, Kind: kind, Read: true, Watch: true})
}

func (r *refCollector) local(ref *corev1.LocalObjectReference) {
	if ref != nil {
		r.secret(ref.Name, false)
	}
}

// container: the contents of what envFrom names decide which variables of
// Services are overridden.
func (r *refCollector) container(container *corev1.Container, creating bool) {
	for _, from := range container.EnvFrom {
		if from.ConfigMapRef != nil {
			r.configMap(from.ConfigMapRef.Name, creating)
		}
		if from.SecretRef != nil {
			r.secret(from.SecretRef.Name, creating)
		}
	}
	for _, variable := range container.Env {
		if variable.ValueFrom == nil {
			continue
		}
		if ref := variable.ValueFrom.ConfigMapKeyRef; ref != nil {
			r.configMap(ref.Name, false)
		}
		if ref := variable.ValueFrom.SecretKeyRef; ref != nil {
			r.secret(ref.Name, false)
		}
	}
}

func (r *refCollector) volume(pod *corev1.Pod, volume *corev1.Volume, creating bool) {
	switch {
	case volume.Secret != nil:
		r.secret(volume.Secret.SecretName, false)
	case volume.ConfigMap != nil:
		r.configMap(volume.ConfigMap.Name, false)
	case volume.PersistentVolumeClaim != nil:
		r.claim(volume.PersistentVolumeClaim.ClaimName, false)
	case volume.Ephemeral != nil:
		r.claim(ephemeralClaim(pod, volume), creating)
	case volume.ISCSI != nil:
		r.local(volume.ISCSI.SecretRef)
	case volume.RBD != nil:
		r.local(volume.RBD.SecretRef)
	case volume.FlexVolume != nil:
		r.local(volume.FlexVolume.SecretRef)
	case volume.Cinder != nil:
		r.local(volume.Cinder.SecretRef)
	case volume.CephFS != nil:
		r.local(volume.CephFS.SecretRef)
	case volume.AzureFile != nil:
		r.secret(volume.AzureFile.SecretName, false)
	case volume.ScaleIO != nil:
		r.local(volume.ScaleIO.SecretRef)
	case volume.StorageOS != nil:
		r.local(volume.StorageOS.SecretRef)
	case volume.CSI != nil:
		r.local(volume.CSI.NodePublishSecretRef)
	case volume.Projected != nil:
		for _, source := range volume.Projected.Sources {
			if source.Secret != nil {
				r.secret(source.Secret.Name, false)
			}
			if source.ConfigMap != nil {
				r.configMap(source.ConfigMap.Name, false)
			}
		}
	}
}

// needsNamespaces tells whether there is a term for which the matching
// namespaces must be listed; see fence.
func needsNamespaces(affinity *corev1.Affinity) bool {
	if affinity == nil || affinity.PodAffinity == nil {
		return false
	}
	return slices.ContainsFunc(affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, namesAndSelects)
}
