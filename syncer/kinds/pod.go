package kinds

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// Pod runs on the host, under a powerless ServiceAccount in the tenant's
// namespace, and sees nothing but its virtual cluster: environment, downward
// API, tokens, DNS and every reference are the tenant's.
//
//	pod.go             this list, spec, metadata
//	pod_containers.go  containers and their environment
//	pod_account.go     the ServiceAccount
//	pod_isolation.go   labels for NetworkPolicies
//	pod_volumes.go     volumes, tokens, downward API
//	pod_scheduling.go  affinity, spreading, DNS, names
//	pod_pinned.go      where the tenant has a scheduler of its own
//	pod_tolerations.go tolerations that the limits allow
//	pod_rejected.go    where a pod does not fit the node it was made for
//	pod_refs.go        what a pod refers to
//	pod_merge.go       what may change after creation
//	pod_status.go      what comes back
func Pod() translate.Kind[*corev1.Pod] {
	return translate.Kind[*corev1.Pod]{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Pod"),
		Resource:         "pods",
		Namespaced:       true,
		New:              func() *corev1.Pod { return &corev1.Pod{} },
		NewList:          func() translate.ObjectList { return &corev1.PodList{} },
		Rules: []rbacv1.PolicyRule{
			rule("", everything, "pods", "secrets"),
			rule("", "get,update,patch", "pods/ephemeralcontainers", "pods/resize", "pods/status"),
			// For the kubelet that the virtual nodes show.
			rule("", "get,create", "pods/exec", "pods/attach", "pods/portforward"),
			rule("", "get", "pods/log"),
			rule("", readOnly, "resourcequotas", "limitranges"),
		},
		ReadsVirtual: []translate.Object{&corev1.Namespace{}, &corev1.Service{}, &corev1.Node{}},
		MayRefuse:    []translate.Object{&corev1.ResourceQuota{}, &corev1.LimitRange{}},
		Refs:         podRefs,
		ToHost:       podToHost,
		Merge:        podMerge,
		Subresources: []translate.Subresource[*corev1.Pod]{
			{Name: "ephemeralcontainers", From: podWithEphemeralContainers, Merge: podMergeEphemeralContainers},
			{Name: "resize", Merge: podMergeResources},
			{Name: "status", From: podOfInput, Merge: podMergeStatus},
		},
		Status:            podStatus,
		StatusSubresource: true,
		Bind:              podBinding,
		Tokens:            podTokens,
		Graceful:          true,
		Lost:              podLost,
		Parting:           podParting,
	}
}

// droppedPodAnnotations would make the host's kubelet take the pod for the
// mirror of a static one.
var droppedPodAnnotations = []string{
	"kubernetes.io/config.mirror",
	"kubernetes.io/config.hash",
	"kubernetes.io/config.seen",
	"kubernetes.io/config.source",
}

// podTranslation is the translation of one pod.
type podTranslation struct {
	in  translate.Input[*corev1.Pod]
	pod *corev1.Pod
	// annotations that the host pod needs for what was rewritten.
	annotations map[string]string
	// reads are the annotations that the downward API reads as they are.
	reads []string
	// services is the environment that the kubelet would make of the virtual
	// Services.
	services []corev1.EnvVar
}

func newPodTranslation(in translate.Input[*corev1.Pod]) *podTranslation {
	return &podTranslation{
		in:          in,
		pod:         in.Virtual,
		annotations: map[string]string{},
		services:    serviceEnv(in),
	}
}

func podToHost(in translate.Input[*corev1.Pod]) (*corev1.Pod, error) {
	if waitsForNode(in.Tenant, in.Virtual) || isRejected(in.Virtual) {
		return nil, nil
	}
	t := newPodTranslation(in)
	spec, err := t.spec()
	if err != nil || t.waitsForClaims() || t.waitsForAccount() {
		return nil, err
	}
	meta := in.Tenant.HostMeta(in.Virtual, droppedPodAnnotations...)
	if namespace := translate.Find[*corev1.Namespace](in.Refs, translate.Virtual, "", in.Virtual.Namespace); namespace != nil {
		for key, value := range namespace.Labels {
			meta.Labels[translate.NamespaceLabel(key)] = value
		}
	}
	maps.Copy(meta.Labels, t.isolation())
	if gates := in.Virtual.Spec.SchedulingGates; len(gates) > 0 {
		meta.Annotations[api.AnnotationSchedulingGates] = joinGates(gates)
	}
	maps.Copy(meta.Annotations, t.annotations)
	translate.FitAnnotations(&meta)
	for _, key := range t.reads {
		if _, crossed := meta.Annotations[key]; !crossed && in.Virtual.Annotations[key] != "" {
			return nil, fmt.Errorf("metadata.annotations are too large for the host, which has to add some: make them smaller, as the downward API reads %q", key)
		}
	}
	return &corev1.Pod{ObjectMeta: meta, Spec: *spec}, nil
}

// spec begins with an empty PodSpec; the fields are in the order of the type.
func (t *podTranslation) spec() (*corev1.PodSpec, error) {
	in := t.pod.Spec
	if err := refusePod(in); err != nil {
		return nil, err
	}
	runtimeClass, err := t.runtimeClass()
	if err != nil {
		return nil, err
	}
	out := &corev1.PodSpec{
		RestartPolicy:                 in.RestartPolicy,
		TerminationGracePeriodSeconds: in.TerminationGracePeriodSeconds,
		ActiveDeadlineSeconds:         in.ActiveDeadlineSeconds,
		NodeSelector:                  t.nodeSelector(),
		ServiceAccountName:            t.account(),
		AutomountServiceAccountToken:  new(bool),
		HostNetwork:                   in.HostNetwork,
		HostPID:                       in.HostPID,
		HostIPC:                       in.HostIPC,
		ShareProcessNamespace:         in.ShareProcessNamespace,
		SecurityContext:               in.SecurityContext.DeepCopy(),
		Affinity:                      t.affinity(),
		Tolerations:                   tolerations(t.in.Tenant, in.Tolerations),
		HostAliases:                   slices.Clone(in.HostAliases),
		ReadinessGates:                slices.Clone(in.ReadinessGates),
		EnableServiceLinks:            new(bool),
		RuntimeClassName:              runtimeClass,
		TopologySpreadConstraints:     t.topologySpread(),
		OS:                            in.OS.DeepCopy(),
		HostUsers:                     in.HostUsers,
		SchedulingGates:               slices.Clone(in.SchedulingGates),
		Resources:                     in.Resources.DeepCopy(),
	}
	if out.Volumes, err = t.volumes(); err != nil {
		return nil, err
	}
	for i := range in.InitContainers {
		out.InitContainers = append(out.InitContainers, t.container(&in.InitContainers[i]))
	}
	for i := range in.Containers {
		out.Containers = append(out.Containers, t.container(&in.Containers[i]))
	}
	for _, secret := range in.ImagePullSecrets {
		out.ImagePullSecrets = append(out.ImagePullSecrets, corev1.LocalObjectReference{Name: t.hostName(secret.Name)})
	}
	if slices.Contains(t.in.Tenant.PriorityClasses, in.PriorityClassName) {
		// One of the tenant's own means nothing on the host, where the pod runs with
		// the default priority.
		out.PriorityClassName = in.PriorityClassName
	}
	if err := t.names(out); err != nil {
		return nil, err
	}
	t.dns(out)
	if t.in.Tenant.Scheduler {
		t.pin(out)
	}
	return out, nil
}

// refusePod says no where to leave something out would give the pod less, or
// other, than it asks for.
func refusePod(spec corev1.PodSpec) error {
	if len(spec.ResourceClaims) > 0 {
		return fmt.Errorf("spec.resourceClaims is not supported: request devices as extended resources of the containers")
	}
	if spec.SchedulingGroup != nil {
		return fmt.Errorf("spec.schedulingGroup is not supported: leave it out")
	}
	return nil
}

// hostName translates a name in the pod's namespace.
func (t *podTranslation) hostName(name string) string {
	if name == "" {
		return ""
	}
	return translate.HostName(t.pod.Namespace, name)
}

// fieldRef rewrites a downward API reference so that the value is the virtual
// one: where the host pod's own would be another, it is kept in an annotation
// and read from there. Annotations follow later changes.
func (t *podTranslation) fieldRef(in *corev1.ObjectFieldSelector) *corev1.ObjectFieldSelector {
	if in == nil {
		return nil
	}
	out := in.DeepCopy()
	annotation := func(key string) *corev1.ObjectFieldSelector {
		out.FieldPath = "metadata.annotations['" + key + "']"
		return out
	}
	kept := func(key, value string) *corev1.ObjectFieldSelector {
		t.annotations[key] = value
		return annotation(key)
	}
	switch in.FieldPath {
	case "metadata.name":
		return annotation(api.AnnotationVirtualName)
	case "metadata.namespace":
		return annotation(api.AnnotationVirtualNamespace)
	case "metadata.uid":
		return annotation(api.AnnotationVirtualUID)
	case "spec.serviceAccountName":
		return kept(api.AnnotationServiceAccount, virtualServiceAccount(t.pod))
	case "metadata.labels":
		return kept(api.AnnotationLabels, formatMap(t.pod.Labels))
	case "metadata.annotations":
		return kept(api.AnnotationAnnotations, formatMap(t.pod.Annotations))
	}
	if key, ok := subscript(in.FieldPath, "metadata.labels"); ok && strings.HasPrefix(key, api.Prefix) {
		return kept(translate.FieldAnnotation(in.FieldPath), t.pod.Labels[key])
	}
	if key, ok := subscript(in.FieldPath, "metadata.annotations"); ok {
		if !t.crosses(key) {
			return kept(translate.FieldAnnotation(in.FieldPath), t.pod.Annotations[key])
		}
		t.reads = append(t.reads, key)
	}
	return out
}

// crosses tells whether the host pod has this annotation of the virtual one.
func (t *podTranslation) crosses(key string) bool {
	_, synced := t.in.Tenant.HostMeta(&metav1.ObjectMeta{Name: "x", Annotations: map[string]string{key: ""}}, droppedPodAnnotations...).Annotations[key]
	return synced && !strings.HasPrefix(key, api.Prefix)
}

// subscript returns x of path['x'].
func subscript(fieldPath, path string) (string, bool) {
	rest, ok := strings.CutPrefix(fieldPath, path+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

// formatMap writes a map as the kubelet does in files of the downward API.
func formatMap(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, fmt.Sprintf("%v=%q", key, m[key]))
	}
	return strings.Join(lines, "\n")
}

func virtualServiceAccount(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName == "" {
		return "default"
	}
	return pod.Spec.ServiceAccountName
}

func joinGates(gates []corev1.PodSchedulingGate) string {
	names := make([]string, 0, len(gates))
	for _, gate := range gates {
		names = append(names, gate.Name)
	}
	return strings.Join(names, ",")
}
