package kinds_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"k8s.io/utils/ptr"

	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func podFields() map[string]fieldList {
	return map[string]fieldList{
		"Pod": {
			of:         corev1.Pod{},
			translated: []string{"ObjectMeta", "Spec"},
			dropped:    []string{"TypeMeta", "Status"},
		},
		"PodSpec": {
			of: corev1.PodSpec{},
			copied: []string{
				"RestartPolicy", "TerminationGracePeriodSeconds", "ActiveDeadlineSeconds",
				"HostNetwork", "HostPID", "HostIPC", "ShareProcessNamespace", "SecurityContext",
				"HostAliases", "ReadinessGates", "OS", "HostUsers", "SchedulingGates",
				"Resources", "HostnameOverride",
			},
			translated: []string{
				"Volumes", "InitContainers", "Containers", "EphemeralContainers", "DNSPolicy", "DNSConfig",
				"NodeSelector", "ServiceAccountName", "AutomountServiceAccountToken", "NodeName",
				"ImagePullSecrets", "Hostname", "Affinity", "EnableServiceLinks", "TopologySpreadConstraints",
				"SetHostnameAsFQDN", "Tolerations",
				// As far as the limits name the class.
				"PriorityClassName", "RuntimeClassName",
			},
			// The subdomain has a meaning in the virtual namespace only; priority,
			// preemption and overhead belong to classes that the host's admission
			// looks up; the host's scheduler has to be obeyed.
			dropped: []string{
				"DeprecatedServiceAccount", "Subdomain", "SchedulerName", "Priority",
				"PreemptionPolicy", "Overhead",
			},
			refused: []string{"ResourceClaims", "SchedulingGroup"},
		},
		"Volume": {of: corev1.Volume{}, copied: []string{"Name"}, translated: []string{"VolumeSource"}},
		"VolumeSource": {
			of: corev1.VolumeSource{},
			copied: []string{
				"HostPath", "EmptyDir", "GCEPersistentDisk", "AWSElasticBlockStore", "NFS", "Flocker", "FC",
				"VsphereVolume", "Quobyte", "AzureDisk", "PhotonPersistentDisk", "PortworxVolume", "Image",
			},
			translated: []string{
				"Secret", "ISCSI", "Glusterfs", "PersistentVolumeClaim", "RBD", "FlexVolume", "Cinder", "CephFS",
				"DownwardAPI", "AzureFile", "ConfigMap", "Projected", "ScaleIO", "StorageOS", "CSI", "Ephemeral",
			},
			refused: []string{"GitRepo"},
		},
		"VolumeProjection": {
			of:         corev1.VolumeProjection{},
			translated: []string{"Secret", "DownwardAPI", "ConfigMap", "ServiceAccountToken"},
			refused:    []string{"ClusterTrustBundle", "PodCertificate"},
		},
		"Container": {
			of: corev1.Container{},
			copied: []string{
				"Name", "Image", "Command", "Args", "WorkingDir", "Ports", "ResizePolicy", "RestartPolicy",
				"RestartPolicyRules", "VolumeMounts", "VolumeDevices", "LivenessProbe", "ReadinessProbe",
				"StartupProbe", "Lifecycle", "TerminationMessagePath", "TerminationMessagePolicy",
				"ImagePullPolicy", "SecurityContext", "Stdin", "StdinOnce", "TTY",
			},
			translated: []string{"EnvFrom", "Env", "Resources"},
		},
		"ResourceRequirements": {
			of:      corev1.ResourceRequirements{},
			copied:  []string{"Limits", "Requests"},
			refused: []string{"Claims"}, // With the pod's ResourceClaims, which they name.
		},
		"EphemeralContainer": {
			of:         corev1.EphemeralContainer{},
			copied:     []string{"TargetContainerName"},
			translated: []string{"EphemeralContainerCommon"}, // As Container.
		},
		"EnvFromSource": {of: corev1.EnvFromSource{}, copied: []string{"Prefix"}, translated: []string{"ConfigMapRef", "SecretRef"}},
		"EnvVarSource": {
			of:         corev1.EnvVarSource{},
			copied:     []string{"ResourceFieldRef", "FileKeyRef"},
			translated: []string{"FieldRef", "ConfigMapKeyRef", "SecretKeyRef"},
		},
		"Affinity": {of: corev1.Affinity{}, translated: []string{"NodeAffinity", "PodAffinity", "PodAntiAffinity"}},
		"PodAffinityTerm": {
			of:         corev1.PodAffinityTerm{},
			copied:     []string{"TopologyKey"},
			translated: []string{"LabelSelector", "Namespaces", "NamespaceSelector", "MatchLabelKeys", "MismatchLabelKeys"},
		},
		"TopologySpreadConstraint": {
			of:         corev1.TopologySpreadConstraint{},
			copied:     []string{"MaxSkew", "TopologyKey", "WhenUnsatisfiable", "MinDomains", "NodeAffinityPolicy", "NodeTaintsPolicy"},
			translated: []string{"LabelSelector", "MatchLabelKeys"},
		},
		"PodStatus": {
			of: corev1.PodStatus{},
			copied: []string{
				"Phase", "Reason", "HostIP", "HostIPs", "PodIP", "PodIPs", "StartTime", "Resize",
				"AllocatedResources", "Resources",
			},
			translated: []string{
				"ObservedGeneration", "Conditions", "Message", "InitContainerStatuses", "ContainerStatuses",
				"EphemeralContainerStatuses", "QOSClass",
			},
			// The nominated node may not exist in the tenant; claims do not cross.
			dropped: []string{
				"NominatedNodeName", "ResourceClaimStatuses", "ExtendedResourceClaimStatus",
				"NodeAllocatableResourceClaimStatuses",
			},
		},
	}
}

func TestPodFields(t *testing.T) {
	var lists []fieldList
	for _, list := range podFields() {
		lists = append(lists, list)
	}
	checkFields(t, lists)
	if reflect.TypeFor[corev1.EphemeralContainerCommon]().NumField() != reflect.TypeFor[corev1.Container]().NumField() {
		t.Error("EphemeralContainerCommon is no longer the same as Container")
	}
}

// TestPodCopied fills a pod completely and looks whether what is listed as
// copied is.
func TestPodCopied(t *testing.T) {
	pod := &corev1.Pod{}
	newFiller(nil).NilChance(0).NumElements(1, 1).MaxDepth(20).Fill(pod)
	named(pod, "full")
	pod.Spec.RuntimeClassName, pod.Spec.ResourceClaims, pod.Spec.SchedulingGroup = nil, nil, nil
	pod.Spec.Volumes = []corev1.Volume{{Name: "v"}}
	in := translate.Input[*corev1.Pod]{Tenant: translate.NewTenant(testTenant(), nil), Virtual: pod}
	host, err := kinds.Pod().ToHost(in)
	if err != nil {
		t.Fatal(err)
	}
	fields := podFields()
	checkCopied(t, fields["PodSpec"], pod.Spec, host.Spec)
	checkCopied(t, fields["Container"], pod.Spec.Containers[0], host.Spec.Containers[0])
	checkCopied(t, fields["Container"], pod.Spec.InitContainers[0], host.Spec.InitContainers[0])
	for i, source := range reflectSources(t) {
		pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: source}}
		in.Refs.Virtual = []translate.Object{claimOf(pod, "v")}
		host, err := kinds.Pod().ToHost(in)
		if err != nil {
			continue // Refused; see podFields.
		}
		checkCopied(t, fields["VolumeSource"], source, host.Spec.Volumes[0].VolumeSource)
		if reflect.DeepEqual(host.Spec.Volumes[0].VolumeSource, corev1.VolumeSource{}) {
			t.Errorf("volume source %d vanished", i)
		}
	}

	running := pod.DeepCopy()
	newFiller([]byte("status")).NilChance(0).NumElements(1, 1).MaxDepth(20).Fill(&running.Status)
	in.Host = running
	back, err := kinds.Pod().Status(in)
	if err != nil || back == nil {
		t.Fatalf("Status: %v, %v", back, err)
	}
	checkCopied(t, fields["PodStatus"], running.Status, back.Status)
}

// reflectSources is every volume source, filled.
func reflectSources(t *testing.T) []corev1.VolumeSource {
	t.Helper()
	full := corev1.VolumeSource{}
	newFiller(nil).NilChance(0).NumElements(1, 1).MaxDepth(20).Fill(&full)
	var all []corev1.VolumeSource
	for i := range reflect.TypeOf(full).NumField() {
		one := corev1.VolumeSource{}
		reflect.ValueOf(&one).Elem().Field(i).Set(reflect.ValueOf(full).Field(i))
		all = append(all, one)
	}
	return all
}

func FuzzPod(f *testing.F) { fuzzToHost(f, kinds.Pod(), checkPodReferences) }

// checkPodReferences: no reference of a host pod is outside of the tenant.
func checkPodReferences(t *testing.T, in translate.Input[translate.Object]) {
	virtual := in.Virtual.(*corev1.Pod)
	var refs translate.Objects
	for _, volume := range virtual.Spec.Volumes {
		refs.Virtual = append(refs.Virtual, claimOf(virtual, volume.Name))
	}
	host, err := kinds.Pod().ToHost(translate.Input[*corev1.Pod]{Tenant: in.Tenant, Virtual: virtual, Refs: refs})
	if err != nil {
		return
	}
	if host.Spec.ServiceAccountName != api.WorkloadServiceAccountName || *host.Spec.AutomountServiceAccountToken || host.Spec.PriorityClassName != "" || host.Spec.NodeName != "" {
		t.Fatal("the host pod has rights, a priority or a node of its own")
	}
	forEachReference(reflect.ValueOf(host.Spec), func(path, name string) {
		if name == "" {
			return
		}
		if name != translate.TokenSecretName(virtual.Namespace, virtual.Name) && !isHostName(name) {
			t.Fatalf("%s refers to %q, which no virtual object of the tenant has for a host name", path, name)
		}
	})
	affinity := host.Spec.Affinity
	if affinity == nil {
		return
	}
	for _, term := range append(requiredTerms(affinity), preferredTerms(affinity)...) {
		if len(term.Namespaces) > 0 || term.NamespaceSelector != nil {
			t.Fatal("an affinity term looks into other host namespaces")
		}
		if term.LabelSelector != nil && !hasFence(term) {
			t.Fatalf("an affinity term is not confined to the tenant's pods: %v", term.LabelSelector)
		}
	}
}

// claimOf is the claim that the tenant's controller makes for an ephemeral
// volume.
func claimOf(pod *corev1.Pod, volume string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace:       pod.Namespace,
		Name:            pod.Name + "-" + volume,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod"))},
	}}
}

// isHostName relies on the filler's names s0 to s49.
func isHostName(name string) bool {
	return strings.Contains(name, "-default-")
}

// forEachReference visits every string that names another namespaced object.
func forEachReference(v reflect.Value, visit func(path, name string)) {
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer, reflect.Interface:
			if !v.IsNil() {
				walk(path, v.Elem())
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(path, v.Index(i))
			}
		case reflect.Struct:
			if reference, ok := v.Interface().(corev1.LocalObjectReference); ok {
				visit(path, reference.Name)
				return
			}
			for i := range v.NumField() {
				field := v.Type().Field(i)
				switch field.Name {
				case "SecretName", "ClaimName", "EndpointsName":
					visit(path+"."+field.Name, v.Field(i).String())
					continue
				}
				if field.Name == "SecretRef" || field.Name == "NodePublishSecretRef" {
					if reference, ok := v.Field(i).Interface().(*corev1.SecretReference); ok && reference != nil {
						visit(path+"."+field.Name, reference.Name)
						continue
					}
				}
				walk(path+"."+field.Name, v.Field(i))
			}
		}
	}
	walk("spec", v)
}

func requiredTerms(a *corev1.Affinity) []corev1.PodAffinityTerm {
	var all []corev1.PodAffinityTerm
	if a.PodAffinity != nil {
		all = append(all, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution...)
	}
	if a.PodAntiAffinity != nil {
		all = append(all, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution...)
	}
	return all
}

func preferredTerms(a *corev1.Affinity) []corev1.PodAffinityTerm {
	var all []corev1.PodAffinityTerm
	if a.PodAffinity != nil {
		for _, term := range a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
			all = append(all, term.PodAffinityTerm)
		}
	}
	if a.PodAntiAffinity != nil {
		for _, term := range a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
			all = append(all, term.PodAffinityTerm)
		}
	}
	return all
}

func hasFence(term corev1.PodAffinityTerm) bool {
	for _, r := range term.LabelSelector.MatchExpressions {
		if r.Key == api.LabelVirtualNamespace {
			return true
		}
	}
	return false
}

// TestPodServiceVariablesFit: a pod in a namespace with very many Services is
// no larger than the host takes, and has the variables that it uses.
func TestPodServiceVariablesFit(t *testing.T) {
	pod := named(&corev1.Pod{}, "pod").(*corev1.Pod)
	for i := range 50 {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: fmt.Sprintf("c%d", i)})
	}
	pod.Spec.Containers[3].Args = []string{"--a=$(UNKNOWN) --b=$(SERVICE_7_SERVICE_HOST)"}
	in := translate.Input[*corev1.Pod]{Tenant: translate.NewTenant(testTenant(), nil), Virtual: pod}
	names := func() map[string]bool {
		host, err := kinds.Pod().ToHost(in)
		if err != nil {
			t.Fatal(err)
		}
		if size := host.Size(); size > 1<<20 {
			t.Errorf("with %d Services the pod has %d bytes", len(in.Refs.Virtual), size)
		}
		all := map[string]bool{}
		for _, variable := range host.Spec.Containers[49].Env {
			all[variable.Name] = true
		}
		return all
	}
	add := func(upTo int) {
		for i := len(in.Refs.Virtual); i < upTo; i++ {
			in.Refs.Virtual = append(in.Refs.Virtual, &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("service-%d", i)},
				Spec:       corev1.ServiceSpec{ClusterIP: "10.96.1.1", Ports: []corev1.ServicePort{{Port: 80}}},
			})
		}
	}
	add(10)
	if got := names(); !got["SERVICE_9_SERVICE_HOST"] || !got["KUBERNETES_SERVICE_HOST"] {
		t.Errorf("with few Services: %v", got)
	}
	add(1000)
	if got := names(); got["SERVICE_9_SERVICE_HOST"] || !got["SERVICE_7_SERVICE_HOST"] || !got["KUBERNETES_SERVICE_HOST"] {
		t.Errorf("with many Services: %v", got)
	}
}

// TestPodParting: what only finalizers keep shows what was known of its end, and
// nothing as running.
func TestPodParting(t *testing.T) {
	deleted := metav1.Unix(1000, 0)
	running := corev1.ContainerStatus{Name: "a", Ready: true, Started: ptr.To(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	completed := corev1.ContainerStatus{Name: "a", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed"}}}
	ready := []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	cases := map[string]struct {
		virtual corev1.Pod
		phase   corev1.PodPhase
		reason  string
	}{
		"Running": {corev1.Pod{Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{
			Phase: corev1.PodRunning, Conditions: ready, ContainerStatuses: []corev1.ContainerStatus{running},
		}}, corev1.PodFailed, "PodFailed"},
		"Completed": {corev1.Pod{Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{
			Phase: corev1.PodRunning, Conditions: ready, ContainerStatuses: []corev1.ContainerStatus{completed},
		}}, corev1.PodSucceeded, "PodCompleted"},
		"NeverRan": {corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending}}, corev1.PodPending, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tc.virtual.DeletionTimestamp = &deleted
			before := tc.virtual.DeepCopy()
			got := kinds.Pod().Parting(&tc.virtual)
			if diff := cmp.Diff(before, &tc.virtual); diff != "" {
				t.Errorf("it changed its input:\n%s", diff)
			}
			if got.Status.Phase != tc.phase {
				t.Errorf("phase %s, want %s", got.Status.Phase, tc.phase)
			}
			for _, c := range got.Status.ContainerStatuses {
				if c.Ready || c.State.Terminated == nil {
					t.Errorf("container %+v", c)
				}
			}
			for _, c := range got.Status.Conditions {
				if c.Type == corev1.PodReady && (c.Status != corev1.ConditionFalse || c.Reason != tc.reason || c.LastTransitionTime != deleted) {
					t.Errorf("condition %+v", c)
				}
			}
			if diff := cmp.Diff(got, kinds.Pod().Parting(got)); diff != "" {
				t.Errorf("it does not settle:\n%s", diff)
			}
		})
	}
}
