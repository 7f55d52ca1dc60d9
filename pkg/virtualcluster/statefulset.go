package virtualcluster

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

const (
	// DataVolume names the volume with etcd's data, and with the pod's name its
	// PersistentVolumeClaim.
	DataVolume = "data"

	configDir = "/etc/sublet"
	pkiDir    = "/etc/sublet/pki"
	dataDir   = "/var/lib/sublet"

	// The image's user; any other but root would do.
	userID = 65532

	// scratchLimit is what the pod may write beside its data.
	scratchLimit = "512Mi"

	gracePeriod = 10
	revisions   = 2
)

// ClaimName names the control plane's PersistentVolumeClaim.
func ClaimName() string {
	return DataVolume + "-" + api.ControlPlanePod
}

// Storage is where a control plane keeps its data, decided.
type Storage struct {
	Type api.StorageType
	// Class is nil for the host's default.
	Class *string
	Size  resource.Quantity
}

// Spec is what the StatefulSet needs beside the tenant.
type Spec struct {
	Image   string
	Config  api.ControlPlaneConfig
	Storage Storage
}

// StatefulSet runs the control plane: one pod, at most one at a time, which
// holds to the `restricted` level of the Pod Security Standards.
func StatefulSet(e tenancy.Effective, spec Spec) (*appsv1.StatefulSet, error) {
	hash, err := configHash(spec.Config)
	if err != nil {
		return nil, fmt.Errorf("hash the configuration of tenant %q: %w", e.Name, err)
	}
	replicas, history := int32(1), int32(revisions)
	set := &appsv1.StatefulSet{
		TypeMeta:   typeMeta("apps/v1", "StatefulSet"),
		ObjectMeta: meta(e, api.ControlPlaneName),
		Spec: appsv1.StatefulSetSpec{
			Replicas:    &replicas,
			ServiceName: api.ControlPlaneName,
			Selector:    &metav1.LabelSelector{MatchLabels: Labels(e.Name)},
			// OrderedReady would leave a pod that never became ready, such as
			// one whose image is not there, in place after it was corrected.
			PodManagementPolicy:  appsv1.ParallelPodManagement,
			RevisionHistoryLimit: &history,
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{
					Labels:      Labels(e.Name),
					Annotations: map[string]string{api.AnnotationConfigHash: hash},
				},
				Spec: podSpec(e, spec),
			},
		},
	}
	if spec.Storage.Type == api.StoragePVC {
		// No retention policy: the claim goes with the namespace. With one the
		// StatefulSet controller writes to the claim right after it made it,
		// which the scheduler loses a race against, and a second or two.
		set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{
			TypeMeta:   typeMeta("v1", "PersistentVolumeClaim"),
			ObjectMeta: metav1.ObjectMeta{Name: DataVolume, Labels: Labels(e.Name)},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				StorageClassName: spec.Storage.Class,
				Resources: corev1.VolumeResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceStorage: spec.Storage.Size},
				},
			},
		}}
	}
	return set, nil
}

// configHash changes with whatever makes a restart necessary. Members do not:
// their way in is a kubeconfig on the host, and nobody's work stops because
// somebody joins, or because an API server of the host moves.
func configHash(config api.ControlPlaneConfig) (string, error) {
	config.Members, config.HostAPI = nil, nil
	content, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8]), nil
}

func podSpec(e tenancy.Effective, spec Spec) corev1.PodSpec {
	yes, no := true, false
	user, grace := int64(userID), int64(gracePeriod)
	onRootMismatch := corev1.FSGroupChangeOnRootMismatch
	pod := corev1.PodSpec{
		ServiceAccountName:            api.ControlPlaneName,
		AutomountServiceAccountToken:  &yes,
		EnableServiceLinks:            &no,
		PriorityClassName:             api.ControlPlanePriorityClass,
		TerminationGracePeriodSeconds: &grace,
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot:        &yes,
			RunAsUser:           &user,
			RunAsGroup:          &user,
			FSGroup:             &user,
			FSGroupChangePolicy: &onRootMismatch,
			SeccompProfile:      &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{container(e, spec)},
		Volumes:    volumes(),
	}
	if spec.Storage.Type == api.StorageEmptyDir {
		size := spec.Storage.Size.DeepCopy()
		pod.Volumes = append(pod.Volumes, corev1.Volume{
			Name:         DataVolume,
			VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size}},
		})
	}
	return pod
}

func container(e tenancy.Effective, spec Spec) corev1.Container {
	yes, no := true, false
	return corev1.Container{
		Name:            "control-plane",
		Image:           spec.Image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Command: []string{
			"subletd", "tenant",
			"--config", configDir + "/" + api.ConfigKey,
			"--pki", pkiDir,
			"--data", dataDir,
		},
		Ports: []corev1.ContainerPort{
			{Name: "https", ContainerPort: api.APIServerPort, Protocol: corev1.ProtocolTCP},
			{Name: "dns", ContainerPort: api.DNSPort, Protocol: corev1.ProtocolUDP},
			{Name: "dns-tcp", ContainerPort: api.DNSPort, Protocol: corev1.ProtocolTCP},
		},
		Resources: resourcesOf(e, spec.Storage),
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: &no,
			ReadOnlyRootFilesystem:   &yes,
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "config", MountPath: configDir, ReadOnly: true},
			{Name: "pki", MountPath: pkiDir, ReadOnly: true},
			{Name: DataVolume, MountPath: dataDir},
			{Name: "tmp", MountPath: "/tmp"},
		},
		// The first boot is looked at each second, for whoever waits for it.
		StartupProbe:   probe("/readyz", 1, 180),
		ReadinessProbe: probe("/readyz", 10, 3),
		LivenessProbe:  probe("/livez", 10, 6),
		// What it said last is what the Tenant's condition shows after a crash.
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

// resourcesOf are those of the tenant, with a bound on what the pod writes on
// the node's disk: logs, temporary files, and the data if they are there.
func resourcesOf(e tenancy.Effective, storage Storage) corev1.ResourceRequirements {
	resources := *e.VirtualCluster.Resources.DeepCopy()
	if _, ok := resources.Limits[corev1.ResourceEphemeralStorage]; ok {
		return resources
	}
	limit := resource.MustParse(scratchLimit)
	if request := resources.Requests[corev1.ResourceEphemeralStorage]; request.Cmp(limit) > 0 {
		limit = request.DeepCopy()
	}
	if storage.Type == api.StorageEmptyDir {
		limit.Add(storage.Size)
	}
	if resources.Limits == nil {
		resources.Limits = corev1.ResourceList{}
	}
	resources.Limits[corev1.ResourceEphemeralStorage] = limit
	return resources
}

func probe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: path, Port: intstr.FromInt(api.APIServerPort), Scheme: corev1.URISchemeHTTPS,
		}},
		PeriodSeconds:    period,
		TimeoutSeconds:   5,
		FailureThreshold: failures,
	}
}

// volumes are the same wherever the data lives. The keys are in a directory
// inside that of the configuration, so both are parts of one volume each.
func volumes() []corev1.Volume {
	groupReadable := int32(0o440)
	return []corev1.Volume{
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: api.ControlPlaneName},
		}}},
		{Name: "pki", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: api.PKISecretName, DefaultMode: &groupReadable,
		}}},
		{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
}
