package kinds

import (
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sublet-dev/sublet/syncer/translate"
)

func (t *podTranslation) volumes() ([]corev1.Volume, error) {
	var out []corev1.Volume
	token := 0
	for i := range t.pod.Spec.Volumes {
		volume, err := t.volume(&t.pod.Spec.Volumes[i], &token)
		if err != nil {
			return nil, fmt.Errorf("spec.volumes %q: %w", t.pod.Spec.Volumes[i].Name, err)
		}
		out = append(out, volume)
	}
	return out, nil
}

// volume begins with an empty Volume; the sources are in the order of the
// type. token counts the tokens, in the same order as podTokens.
func (t *podTranslation) volume(in *corev1.Volume, token *int) (corev1.Volume, error) {
	out := corev1.Volume{Name: in.Name}
	switch {
	case in.HostPath != nil: // The Pod Security level decides, in the tenant and on the host.
		out.HostPath = in.HostPath.DeepCopy()
	case in.EmptyDir != nil:
		out.EmptyDir = in.EmptyDir.DeepCopy()
	case in.GCEPersistentDisk != nil:
		out.GCEPersistentDisk = in.GCEPersistentDisk.DeepCopy()
	case in.AWSElasticBlockStore != nil:
		out.AWSElasticBlockStore = in.AWSElasticBlockStore.DeepCopy()
	case in.GitRepo != nil:
		return out, fmt.Errorf("gitRepo is not supported: clone in an init container")
	case in.Secret != nil:
		out.Secret = in.Secret.DeepCopy()
		out.Secret.SecretName = t.hostName(in.Secret.SecretName)
	case in.NFS != nil:
		out.NFS = in.NFS.DeepCopy()
	case in.ISCSI != nil:
		out.ISCSI = in.ISCSI.DeepCopy()
		out.ISCSI.SecretRef = t.local(in.ISCSI.SecretRef)
	case in.Glusterfs != nil:
		out.Glusterfs = in.Glusterfs.DeepCopy()
		out.Glusterfs.EndpointsName = t.hostName(in.Glusterfs.EndpointsName)
	case in.PersistentVolumeClaim != nil:
		out.PersistentVolumeClaim = in.PersistentVolumeClaim.DeepCopy()
		out.PersistentVolumeClaim.ClaimName = t.hostName(in.PersistentVolumeClaim.ClaimName)
	case in.RBD != nil:
		out.RBD = in.RBD.DeepCopy()
		out.RBD.SecretRef = t.local(in.RBD.SecretRef)
	case in.FlexVolume != nil:
		out.FlexVolume = in.FlexVolume.DeepCopy()
		out.FlexVolume.SecretRef = t.local(in.FlexVolume.SecretRef)
	case in.Cinder != nil:
		out.Cinder = in.Cinder.DeepCopy()
		out.Cinder.SecretRef = t.local(in.Cinder.SecretRef)
	case in.CephFS != nil:
		out.CephFS = in.CephFS.DeepCopy()
		out.CephFS.SecretRef = t.local(in.CephFS.SecretRef)
	case in.Flocker != nil:
		out.Flocker = in.Flocker.DeepCopy()
	case in.DownwardAPI != nil:
		out.DownwardAPI = &corev1.DownwardAPIVolumeSource{
			Items:       t.downwardFiles(in.DownwardAPI.Items),
			DefaultMode: in.DownwardAPI.DefaultMode,
		}
	case in.FC != nil:
		out.FC = in.FC.DeepCopy()
	case in.AzureFile != nil:
		out.AzureFile = in.AzureFile.DeepCopy()
		out.AzureFile.SecretName = t.hostName(in.AzureFile.SecretName)
	case in.ConfigMap != nil:
		out.ConfigMap = in.ConfigMap.DeepCopy()
		out.ConfigMap.Name = t.hostName(in.ConfigMap.Name)
	case in.VsphereVolume != nil:
		out.VsphereVolume = in.VsphereVolume.DeepCopy()
	case in.Quobyte != nil:
		out.Quobyte = in.Quobyte.DeepCopy()
	case in.AzureDisk != nil:
		out.AzureDisk = in.AzureDisk.DeepCopy()
	case in.PhotonPersistentDisk != nil:
		out.PhotonPersistentDisk = in.PhotonPersistentDisk.DeepCopy()
	case in.Projected != nil:
		out.Projected = &corev1.ProjectedVolumeSource{DefaultMode: in.Projected.DefaultMode}
		for i := range in.Projected.Sources {
			source, err := t.projection(&in.Projected.Sources[i], token)
			if err != nil {
				return out, fmt.Errorf("projected source %d: %w", i, err)
			}
			out.Projected.Sources = append(out.Projected.Sources, source)
		}
	case in.PortworxVolume != nil:
		out.PortworxVolume = in.PortworxVolume.DeepCopy()
	case in.ScaleIO != nil:
		out.ScaleIO = in.ScaleIO.DeepCopy()
		out.ScaleIO.SecretRef = t.local(in.ScaleIO.SecretRef)
	case in.StorageOS != nil:
		// A volume of the pod's own namespace: StorageOS knows the host's.
		out.StorageOS = in.StorageOS.DeepCopy()
		out.StorageOS.VolumeNamespace = ""
		out.StorageOS.SecretRef = t.local(in.StorageOS.SecretRef)
	case in.CSI != nil:
		out.CSI = in.CSI.DeepCopy()
		out.CSI.NodePublishSecretRef = t.local(in.CSI.NodePublishSecretRef)
	case in.Ephemeral != nil:
		// The tenant's controller makes the claim: there is exactly one.
		name := ephemeralClaim(t.pod, in)
		if claim := t.claim(name); claim != nil && t.in.Host == nil && !metav1.IsControlledBy(claim, t.pod) {
			return out, fmt.Errorf("the claim %q was not made for this pod: delete it, or rename the pod or the volume", name)
		}
		out.PersistentVolumeClaim = &corev1.PersistentVolumeClaimVolumeSource{ClaimName: t.hostName(name)}
	case in.Image != nil:
		out.Image = in.Image.DeepCopy()
	default:
		// No source at all is an emptyDir, by the API's defaulting.
		out.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	return out, nil
}

// ephemeralClaim is the name of the claim of an ephemeral volume.
func ephemeralClaim(pod *corev1.Pod, volume *corev1.Volume) string {
	return pod.Name + "-" + volume.Name
}

func (t *podTranslation) claim(name string) *corev1.PersistentVolumeClaim {
	return translate.Find[*corev1.PersistentVolumeClaim](t.in.Refs, translate.Virtual, t.pod.Namespace, name)
}

// waitsForClaims tells whether the claim of an ephemeral volume is still to be
// made. Until then nobody knows whose it will be.
func (t *podTranslation) waitsForClaims() bool {
	for i := range t.pod.Spec.Volumes {
		volume := &t.pod.Spec.Volumes[i]
		if volume.Ephemeral != nil && t.in.Host == nil && t.claim(ephemeralClaim(t.pod, volume)) == nil {
			return true
		}
	}
	return false
}

func (t *podTranslation) local(in *corev1.LocalObjectReference) *corev1.LocalObjectReference {
	if in == nil {
		return nil
	}
	return &corev1.LocalObjectReference{Name: t.hostName(in.Name)}
}

func (t *podTranslation) projection(in *corev1.VolumeProjection, token *int) (corev1.VolumeProjection, error) {
	var out corev1.VolumeProjection
	switch {
	case in.Secret != nil:
		out.Secret = in.Secret.DeepCopy()
		out.Secret.Name = t.hostName(in.Secret.Name)
	case in.DownwardAPI != nil:
		out.DownwardAPI = &corev1.DownwardAPIProjection{Items: t.downwardFiles(in.DownwardAPI.Items)}
	case in.ConfigMap != nil:
		out.ConfigMap = in.ConfigMap.DeepCopy()
		out.ConfigMap.Name = t.hostName(in.ConfigMap.Name)
	case in.ServiceAccountToken != nil:
		out.Secret = &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: translate.TokenSecretName(t.pod.Namespace, t.pod.Name)},
			Items:                []corev1.KeyToPath{{Key: tokenKey(*token), Path: in.ServiceAccountToken.Path}},
		}
		*token++
	case in.ClusterTrustBundle != nil:
		return out, fmt.Errorf("clusterTrustBundle is not supported: put the certificates into a ConfigMap")
	case in.PodCertificate != nil:
		return out, fmt.Errorf("podCertificate is not supported: put the certificate into a Secret")
	default:
		return out, fmt.Errorf("a projection of an unknown kind is not supported: use secret, configMap, downwardAPI or serviceAccountToken")
	}
	return out, nil
}

func (t *podTranslation) downwardFiles(in []corev1.DownwardAPIVolumeFile) []corev1.DownwardAPIVolumeFile {
	var out []corev1.DownwardAPIVolumeFile
	for _, file := range in {
		out = append(out, corev1.DownwardAPIVolumeFile{
			Path:             file.Path,
			FieldRef:         t.fieldRef(file.FieldRef),
			ResourceFieldRef: file.ResourceFieldRef.DeepCopy(),
			Mode:             file.Mode,
		})
	}
	return out
}

// podTokens lists the tokens of all projected volumes, each source its own. They
// name the node, as those do that a kubelet asks for, so the pod must have one.
func podTokens(pod *corev1.Pod) []translate.Token {
	if pod.Spec.NodeName == "" {
		return nil
	}
	var tokens []translate.Token
	for _, volume := range pod.Spec.Volumes {
		if volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			if source.Secret != nil || source.DownwardAPI != nil || source.ConfigMap != nil || source.ServiceAccountToken == nil {
				continue
			}
			token := translate.Token{
				Key:            tokenKey(len(tokens)),
				ServiceAccount: virtualServiceAccount(pod),
				Spec:           authenticationv1.TokenRequestSpec{ExpirationSeconds: source.ServiceAccountToken.ExpirationSeconds},
			}
			if audience := source.ServiceAccountToken.Audience; audience != "" {
				token.Spec.Audiences = []string{audience}
			}
			tokens = append(tokens, token)
		}
	}
	return tokens
}

func tokenKey(n int) string { return fmt.Sprintf("token-%d", n) }
