//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// TestResolvConf: what a pod's resolver is told is what its dnsPolicy and
// dnsConfig say, with the tenant's DNS where a cluster has its own.
func TestResolvConf(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ctx := t.Context()
	ns := tn.newNamespace(t, "resolv")
	dns, err := s.host.CoreV1().Services(tn.namespace).Get(ctx, api.DNSServiceName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := &corev1.PodDNSConfig{
		Nameservers: []string{"192.0.2.53"},
		Searches:    []string{"corp.example.com"},
		Options:     []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr.To("2")}, {Name: "timeout", Value: ptr.To("1")}, {Name: "rotate"}},
	}
	domains := []string{ns + ".svc.cluster.local", "svc.cluster.local", "cluster.local"}
	for name, c := range map[string]struct {
		policy corev1.DNSPolicy
		config *corev1.PodDNSConfig
		want   resolvConf
	}{
		"plain": {
			corev1.DNSClusterFirst, nil,
			resolvConf{[]string{dns.Spec.ClusterIP}, domains, []string{"ndots:5"}},
		},
		"more": {
			corev1.DNSClusterFirst, config,
			resolvConf{[]string{dns.Spec.ClusterIP, "192.0.2.53"}, append(slices.Clone(domains), "corp.example.com"), []string{"ndots:2", "rotate", "timeout:1"}},
		},
		"own": {
			corev1.DNSNone, config,
			resolvConf{[]string{"192.0.2.53"}, []string{"corp.example.com"}, []string{"ndots:2", "rotate", "timeout:1"}},
		},
	} {
		pod := newPod("resolv-" + name)
		pod.Spec.DNSPolicy, pod.Spec.DNSConfig = c.policy, c.config
		tn.start(t, ns, pod)
		if got := parseResolvConf(tn.sh(t, ns, pod.Name, "cat /etc/resolv.conf")); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: resolv.conf is %v, want %v", name, got, c.want)
		}
	}

	// As the node has it: what a pod of the host gets, and not the tenant's.
	host, err := newCluster(s.config)
	if err != nil {
		t.Fatal(err)
	}
	hostNamespace := host.newNamespace(t, "e2e-resolv")
	pod := newPod("resolv-default")
	pod.Spec.DNSPolicy = corev1.DNSDefault
	node := tn.start(t, ns, pod).Spec.NodeName
	twin := on(node, newPod("resolv-default"))
	twin.Spec.DNSPolicy = corev1.DNSDefault
	host.start(t, hostNamespace, twin)
	got, want := tn.sh(t, ns, "resolv-default", "cat /etc/resolv.conf"), host.sh(t, hostNamespace, "resolv-default", "cat /etc/resolv.conf")
	if got != want {
		t.Errorf("with the policy Default resolv.conf is\n%s\nand for a pod of the host\n%s", got, want)
	}
	if strings.Contains(got, dns.Spec.ClusterIP) {
		t.Errorf("with the policy Default the tenant's DNS is in resolv.conf:\n%s", got)
	}
}

// resolvConf is a resolv.conf, options in order of their names.
type resolvConf struct {
	nameservers, searches, options []string
}

func parseResolvConf(text string) resolvConf {
	var c resolvConf
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			c.nameservers = append(c.nameservers, fields[1:]...)
		case "search":
			c.searches = append(c.searches, fields[1:]...)
		case "options":
			c.options = append(c.options, fields[1:]...)
		}
	}
	slices.Sort(c.options)
	return c
}

// TestHostsFile: a pod's hosts file has its own name and its aliases.
func TestHostsFile(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ns := tn.newNamespace(t, "hosts")
	pod := newPod("web")
	pod.Spec.Hostname = "front"
	pod.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.7", Hostnames: []string{"legacy", "legacy.example.com"}}}
	pod = tn.start(t, ns, pod)
	if got := tn.sh(t, ns, "web", "hostname"); got != "front" {
		t.Errorf("the host name is %q, want front", got)
	}
	for name, want := range map[string]string{"front": pod.Status.PodIP, "legacy.example.com": "192.0.2.7"} {
		got := tn.sh(t, ns, "web", "getent hosts "+name)
		if address, _, _ := strings.Cut(got, " "); address != want {
			t.Errorf("%s is %q, want %s", name, got, want)
		}
	}
}

// TestReferences: what a pod refers to is there, as the tenant has it, in its
// environment and files; what is required keeps it waiting, what is optional does
// not; a change reaches the files.
func TestReferences(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ctx := t.Context()
	ns := tn.newNamespace(t, "refs")
	core := tn.CoreV1()
	configMap := func(name string, data map[string]string) {
		t.Helper()
		if _, err := core.ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data, BinaryData: map[string][]byte{"binary": {0, 255}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	configMap("settings", map[string]string{"color": "blue", "size": "5"})
	pod := newPod("refers")
	pod.Spec.SecurityContext.FSGroup = ptr.To[int64](2000)
	c := &pod.Spec.Containers[0]
	c.EnvFrom = []corev1.EnvFromSource{
		{Prefix: "SET_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}},
		{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "missing"}, Optional: ptr.To(true)}},
	}
	c.Env = []corev1.EnvVar{
		{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "late"}, Key: "password"}}},
		{Name: "NOTHING", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "missing", Optional: ptr.To(true)}}},
		{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu", Divisor: resource.MustParse("1m")}}},
	}
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "settings", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
		{Name: "some", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: ptr.To[int32](0o440), Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Items: []corev1.KeyToPath{{Key: "color", Path: "deep/color"}}}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "late"}}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "missing"}, Optional: ptr.To(true)}},
		}}}},
		{Name: "own", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
		}}}}},
	}
	for _, volume := range []string{"settings", "some", "own"} {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: volume, MountPath: "/" + volume})
	}
	if _, err := core.Pods(ns).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the pod waits for the Secret, and says so in the tenant's names", func() error {
		events, err := core.Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=refers,reason=FailedMount"})
		if err != nil {
			return err
		}
		for _, event := range events.Items {
			if strings.Contains(event.Message, `"late" not found`) {
				return nil
			}
		}
		return fmt.Errorf("%d events of mounts", len(events.Items))
	})
	if _, err := core.Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "late"}, StringData: map[string]string{"password": "s3cret"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// The kubelet's own pause between two tries grows to two minutes.
	eventually(t, 3*time.Minute, "the pod runs when the Secret has come", func() error {
		found, err := core.Pods(ns).Get(ctx, "refers", metav1.GetOptions{})
		if err == nil && !podReady(found) {
			err = errors.New(describeStatus(found))
		}
		return err
	})
	env := environment(tn.sh(t, ns, "refers", "env"))
	for name, want := range map[string]string{"SET_color": "blue", "SET_size": "5", "PASSWORD": "s3cret", "CPU": "200"} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
	if value, there := env["NOTHING"]; there {
		t.Errorf("what is optional and missing is %q", value)
	}
	for script, want := range map[string]string{
		"cat /settings/color":                      "blue",
		"od -An -tx1 /settings/binary | tr -d ' '": "00ff",
		"cat /some/deep/color":                     "blue",
		"cat /some/password":                       "s3cret",
		"stat -Lc %a /some/password":               "440",
		"ls /some | tr '\\n' ' '":                  "deep password",
		"echo kept > /own/file; cat /own/file":     "kept",
	} {
		if got := tn.sh(t, ns, "refers", script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	claims, err := core.PersistentVolumeClaims(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(claims.Items) != 1 || claims.Items[0].Name != "refers-own" || claims.Items[0].Status.Phase != corev1.ClaimBound {
		t.Errorf("claims of the ephemeral volume: %v", claims.Items)
	}

	if _, err := core.ConfigMaps(ns).Patch(ctx, "settings", types.MergePatchType, []byte(`{"data":{"color":"red"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	// The kubelet looks at its volumes about once a minute.
	eventually(t, 3*time.Minute, "a change reaches both files", func() error {
		if got := tn.sh(t, ns, "refers", "cat /settings/color /some/deep/color"); got != "redred" {
			return errors.New(got)
		}
		return nil
	})
	if err := core.Pods(ns).Delete(ctx, "refers", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the ephemeral volume goes with its pod", func() error {
		claims, err := core.PersistentVolumeClaims(ns).List(ctx, metav1.ListOptions{})
		if err == nil && len(claims.Items) > 0 {
			err = errors.New("its claim is there")
		}
		return err
	})
}

// TestContainersOfAPod: init containers and sidecars run in order, hooks and
// probes as they are given; gates hold a pod back until they are opened; a resize
// reaches the running container.
func TestContainersOfAPod(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ctx := t.Context()
	ns := tn.newNamespace(t, "containers")
	pods := tn.CoreV1().Pods(ns)
	pod := newPod("many")
	pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}}
	pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/approved"}}
	pod.Spec.Volumes = []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	mount := []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
	main := &pod.Spec.Containers[0]
	like := func(name, script string) corev1.Container {
		return corev1.Container{Name: name, Image: main.Image, Command: []string{"sh", "-euc", script}, SecurityContext: main.SecurityContext, VolumeMounts: mount}
	}
	sidecar := like("sidecar", "echo sidecar >> /shared/order; touch /shared/up; exec sleep 1000000")
	sidecar.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
	sidecar.StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-e", "/shared/up"}}}, PeriodSeconds: 1, FailureThreshold: 60}
	pod.Spec.InitContainers = []corev1.Container{
		like("one", "echo one >> /shared/order"),
		sidecar,
		like("two", "test -e /shared/up; echo two >> /shared/order"),
	}
	main.Command, main.Args = []string{"sh", "-euc", "echo main >> /shared/order; exec sleep 1000000"}, nil
	main.VolumeMounts = mount
	main.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"touch", "/shared/started"}}}}
	main.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-e", "/shared/ready"}}}, PeriodSeconds: 1}
	main.Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")},
	}
	made, err := pods.Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	condition := func(of corev1.PodConditionType) (*corev1.Pod, corev1.PodCondition, error) {
		found, err := pods.Get(ctx, "many", metav1.GetOptions{})
		if err != nil {
			return nil, corev1.PodCondition{}, err
		}
		for _, c := range found.Status.Conditions {
			if c.Type == of {
				return found, c, nil
			}
		}
		return found, corev1.PodCondition{}, nil
	}
	eventually(t, 30*time.Second, "the pod waits for its gate", func() error {
		found, c, err := condition(corev1.PodScheduled)
		if err == nil && (c.Reason != corev1.PodReasonSchedulingGated || found.Spec.NodeName != "") {
			err = fmt.Errorf("%+v on node %q", c, found.Spec.NodeName)
		}
		return err
	})
	if _, err := pods.Patch(ctx, "many", types.JSONPatchType, []byte(`[{"op":"remove","path":"/spec/schedulingGates"}]`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "all containers run, and the probe says no", func() error {
		_, c, err := condition(corev1.ContainersReady)
		if err != nil {
			return err
		}
		if out, err := tn.exec(ctx, ns, "many", "cat", "/shared/started", "/shared/order"); err != nil || out != "one\nsidecar\ntwo\nmain\n" {
			return fmt.Errorf("order %q, %w", out, err)
		}
		if c.Status != corev1.ConditionFalse {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	tn.sh(t, ns, "many", "touch /shared/ready")
	eventually(t, 30*time.Second, "the probe says yes, and the readiness gate is closed", func() error {
		_, containers, err := condition(corev1.ContainersReady)
		if err != nil {
			return err
		}
		_, ready, err := condition(corev1.PodReady)
		if err == nil && (containers.Status != corev1.ConditionTrue || ready.Status != corev1.ConditionFalse || ready.Reason != "ReadinessGatesNotReady") {
			err = fmt.Errorf("%+v, %+v", containers, ready)
		}
		return err
	})
	if _, err := pods.Patch(ctx, "many", types.StrategicMergePatchType, []byte(`{"status":{"conditions":[{"type":"example.com/approved","status":"True"}]}}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	found := tn.ready(t, ns, "many")
	if found.UID != made.UID {
		t.Errorf("it is another pod by now")
	}

	quota := func() string {
		return tn.sh(t, ns, "many", `cd /sys/fs/cgroup; if [ -e cpu.max ]; then cut -d' ' -f1 cpu.max; else cat cpu/cpu.cfs_quota_us; fi`)
	}
	if got := quota(); got != "10000" {
		t.Errorf("the container may use %s of each 100000 µs, want 10000", got)
	}
	if _, err := pods.Patch(ctx, "many", types.StrategicMergePatchType, []byte(`{"spec":{"containers":[{"name":"main","resources":{"limits":{"cpu":"250m"}}}]}}`), metav1.PatchOptions{}, "resize"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the running container may use more, and the tenant knows", func() error {
		if got := quota(); got != "25000" {
			return fmt.Errorf("it may use %s of each 100000 µs", got)
		}
		found, err := pods.Get(ctx, "many", metav1.GetOptions{})
		if err != nil {
			return err
		}
		status := found.Status.ContainerStatuses[0]
		if status.RestartCount != 0 || status.Resources == nil || status.Resources.Limits.Cpu().MilliValue() != 250 {
			return fmt.Errorf("restarts %d, resources %v", status.RestartCount, status.Resources)
		}
		return nil
	})

	short := newPod("short")
	short.Spec.ActiveDeadlineSeconds = ptr.To[int64](3)
	if _, err := pods.Create(ctx, short, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "a pod's time is up", func() error {
		found, err := pods.Get(ctx, "short", metav1.GetOptions{})
		if err == nil && (found.Status.Phase != corev1.PodFailed || found.Status.Reason != "DeadlineExceeded") {
			err = fmt.Errorf("phase %s, reason %q", found.Status.Phase, found.Status.Reason)
		}
		return err
	})
}
