//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// privateImage is one of the registry on the local host's nodes that wants a
// password.
func privateImage() string { return "private.example/" + agnhost() }

const privateCredentials = `{"auths":{"private.example":{"username":"user","password":"password"}}}`

// testPullSecret: an image of a registry that wants a password is pulled with the
// tenant's Secret, named by the pod or by its account, and not without.
func (k *kindsTest) testPullSecret(t *testing.T) {
	ctx, tn := t.Context(), k.tn
	ns := tn.newNamespace(t, "pull")
	if _, err := tn.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "registry"}, Type: corev1.SecretTypeDockerConfigJson,
		StringData: map[string]string{corev1.DockerConfigJsonKey: privateCredentials},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secrets := []corev1.LocalObjectReference{{Name: "registry"}}
	if _, err := tn.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "puller"}, ImagePullSecrets: secrets}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	private := func(name string) *corev1.Pod {
		pod := newPod(name)
		pod.Spec.Containers[0].Image, pod.Spec.Containers[0].ImagePullPolicy = privateImage(), corev1.PullAlways
		return pod
	}
	byPod, byAccount := private("by-pod"), private("by-account")
	byPod.Spec.ImagePullSecrets, byAccount.Spec.ServiceAccountName = secrets, "puller"
	for _, pod := range []*corev1.Pod{byPod, byAccount} {
		tn.start(t, ns, pod)
		if got := tn.sh(t, ns, pod.Name, "hostname"); got != pod.Name {
			t.Errorf("in %s the host name is %q", pod.Name, got)
		}
	}
	if _, err := tn.CoreV1().Pods(ns).Create(ctx, private("without"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "without it the image cannot be pulled", func() error {
		pod, err := tn.CoreV1().Pods(ns).Get(ctx, "without", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if status := describeStatus(pod); !strings.Contains(status, "ErrImagePull") && !strings.Contains(status, "ImagePullBackOff") {
			return fmt.Errorf("status %s", status)
		}
		return nil
	})
	secret := onHost[corev1.Secret](t, k, corev1.SchemeGroupVersion.WithResource("secrets"), ns, "registry", nil)
	host, err := k.hostPod(ctx, tn, ns, "by-account")
	if err != nil {
		t.Fatal(err)
	}
	if secret.Type != corev1.SecretTypeDockerConfigJson || !slices.Equal(host.Spec.ImagePullSecrets, []corev1.LocalObjectReference{{Name: secret.Name}}) {
		t.Errorf("on the host the pod names %v, and %s has type %s", host.Spec.ImagePullSecrets, secret.Name, secret.Type)
	}
}

// testClasses: a pod runs with the priority and the runtime of the host's classes
// that the limits name, with the tolerations that they name, and with nothing of
// what the tenant gives itself.
func (k *kindsTest) testClasses(t *testing.T) {
	ctx, tn := t.Context(), k.tn
	ns := tn.newNamespace(t, "classes")
	eventually(t, time.Minute, "the tenant sees the classes", func() error {
		_, err := tn.SchedulingV1().PriorityClasses().Get(ctx, "e2e-kinds", metav1.GetOptions{})
		_, other := tn.NodeV1().RuntimeClasses().Get(ctx, "e2e-kinds", metav1.GetOptions{})
		return errors.Join(err, other)
	})
	if _, err := tn.SchedulingV1().PriorityClasses().Create(ctx, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "own"}, Value: 1_000_000}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	tolerates := func(key string) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}
	}
	pods := map[string]*corev1.Pod{"plain": newPod("plain"), "given": newPod("given"), "own": newPod("own")}
	pods["given"].Spec.PriorityClassName, pods["given"].Spec.RuntimeClassName = "e2e-kinds", ptr.To("e2e-kinds")
	pods["given"].Spec.Tolerations = []corev1.Toleration{tolerates("e2e.example.com/dedicated"), tolerates("e2e.example.com/other")}
	pods["own"].Spec.PriorityClassName = "own"
	hosts := map[string]*corev1.Pod{}
	for name, pod := range pods {
		tn.start(t, ns, pod)
		host, err := k.hostPod(ctx, tn, ns, name)
		if err != nil {
			t.Fatal(err)
		}
		hosts[name] = host
	}
	priority := func(name string) int32 { return ptr.Deref(hosts[name].Spec.Priority, 0) }
	if priority("given") != 4711 || priority("own") != priority("plain") {
		t.Errorf("priorities on the host: %d of the class that the limits name, %d of the tenant's own, %d of none", priority("given"), priority("own"), priority("plain"))
	}
	if class := hosts["given"].Spec.RuntimeClassName; class == nil || *class != "e2e-kinds" {
		t.Errorf("runtime class on the host: %v", class)
	}
	tolerated := func(key string) bool {
		return slices.ContainsFunc(hosts["given"].Spec.Tolerations, func(t corev1.Toleration) bool { return t.Key == key })
	}
	if !tolerated("e2e.example.com/dedicated") || tolerated("e2e.example.com/other") {
		t.Errorf("tolerations on the host: %v", hosts["given"].Spec.Tolerations)
	}
}

// testPlacement: pods stand where their affinities and spread constraints put
// them, by the tenant's own pods; those of another tenant, which have the same
// labels, neither attract nor repel them.
func (k *kindsTest) testPlacement(t *testing.T) {
	ctx, tn := t.Context(), k.tn
	green := k.sharedTenant(t, "e2e-green")
	ns, other, there := tn.newNamespace(t, "placement"), tn.newNamespace(t, "placement"), green.newNamespace(t, "placement")
	everywhere := func(app string) corev1.PodAffinityTerm {
		return corev1.PodAffinityTerm{
			TopologyKey: corev1.LabelHostname, NamespaceSelector: &metav1.LabelSelector{},
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
		}
	}
	// Each pod can say from inside where it is.
	pod := func(name string) *corev1.Pod {
		pod := newPod(name)
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "NODE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}}}
		return pod
	}
	near := func(name string, terms ...corev1.PodAffinityTerm) *corev1.Pod {
		pod := pod(name)
		pod.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
		return pod
	}
	far := func(name string, terms ...corev1.PodAffinityTerm) *corev1.Pod {
		pod := pod(name)
		pod.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
		return pod
	}
	stands := func(c *cluster, namespace string, pod *corev1.Pod, want string) {
		t.Helper()
		c.start(t, namespace, pod)
		if got := c.sh(t, namespace, pod.Name, "echo $NODE"); want != "" && got != want {
			t.Errorf("%s is on %s, want %s", pod.Name, got, want)
		}
	}
	unschedulable := func(c *cluster, namespace string, pod *corev1.Pod) {
		t.Helper()
		if _, err := c.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, pod.Name+" finds no node", func() error {
			found, err := c.CoreV1().Pods(namespace).Get(ctx, pod.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, condition := range found.Status.Conditions {
				if condition.Type == corev1.PodScheduled && condition.Reason == corev1.PodReasonUnschedulable && strings.Contains(condition.Message, "affinity") {
					return nil
				}
			}
			return fmt.Errorf("on node %q: %+v", found.Spec.NodeName, found.Status.Conditions)
		})
	}
	// The other tenant is there first: on each node a pod that suffers no guests, and
	// on one of them a crowd.
	for _, node := range []string{firstNode, secondNode} {
		hermit := on(node, far("hermit-"+node, everywhere("guest")))
		hermit.Labels["app"] = "hermit"
		stands(green.cluster, there, hermit, node)
	}
	for i := range 3 {
		member := on(firstNode, pod(fmt.Sprintf("crowd-%d", i)))
		member.Labels["app"] = "crowd"
		stands(green.cluster, there, member, firstNode)
	}

	stands(tn.cluster, ns, on(secondNode, pod("anchor")), secondNode)
	inNamespace := everywhere("anchor")
	inNamespace.NamespaceSelector = nil
	stands(tn.cluster, ns, near("near", inNamespace), secondNode)
	stands(tn.cluster, ns, far("far", inNamespace), firstNode)
	named := inNamespace
	named.Namespaces = []string{ns}
	selected := everywhere("anchor")
	selected.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: ns}}
	stands(tn.cluster, other, near("near-named", named), secondNode)
	stands(tn.cluster, other, far("far-selected", selected), firstNode)
	stands(tn.cluster, other, far("far-everywhere", everywhere("anchor")), firstNode)
	unschedulable(tn.cluster, other, near("near-nobody", inNamespace)) // There is none in this namespace.

	count := map[string]int{}
	for i := range 4 {
		spread := pod(fmt.Sprintf("spread-%d", i))
		spread.Labels["app"] = "crowd" // That of the other tenant does not count.
		spread.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.DoNotSchedule,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "crowd"}},
		}}
		if i == 0 {
			spread = on(firstNode, spread)
		}
		stands(tn.cluster, ns, spread, "")
		count[tn.sh(t, ns, spread.Name, "echo $NODE")]++
	}
	if count[firstNode] != 2 || count[secondNode] != 2 {
		t.Errorf("four pods are spread as %v", count)
	}

	// What the other tenant's pods would do to its own, they do not do here.
	stands(tn.cluster, ns, pod("guest"), "")
	unschedulable(green.cluster, there, pod("guest"))
	stands(tn.cluster, ns, far("shy", everywhere("hermit")), "")
	unschedulable(green.cluster, there, far("shy", everywhere("hermit")))
	unschedulable(tn.cluster, ns, near("fan", everywhere("hermit")))
	stands(green.cluster, there, near("fan", everywhere("hermit")), "")
}

// schedulerTenant sees all nodes and chooses among them by itself.
const schedulerTenant = `
apiVersion: sublet.dev/v1alpha1
kind: Tenant
metadata: {name: e2e-scheduler}
spec:
  type: VirtualCluster
  virtualCluster: {nodes: {selector: {}}, scheduler: true}
`

// TestOwnScheduler: a tenant with a scheduler of its own puts pods where its own
// labels, taints and classes say, of which the host knows nothing.
func TestOwnScheduler(t *testing.T) {
	s := shared(t)
	s.onLocalHost(t)
	ctx := t.Context()
	file := filepath.Join(t.TempDir(), "tenant.yaml")
	if err := os.WriteFile(file, []byte(schedulerTenant), 0o644); err != nil {
		t.Fatal(err)
	}
	tn := s.newTenantBy(t, "e2e-scheduler", "-f", file)
	ns := tn.newNamespace(t, "scheduler")
	nodes := tn.CoreV1().Nodes()
	eventually(t, time.Minute, "the tenant sees both nodes, unused as they are", func() error {
		list, err := nodes.List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) != 2 {
			err = fmt.Errorf("%d nodes", len(list.Items))
		}
		return err
	})
	if _, err := nodes.Patch(ctx, secondNode, types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"disk":"fast"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	fast := newPod("fast")
	fast.Spec.NodeSelector = map[string]string{"disk": "fast"}
	if got := tn.start(t, ns, fast).Spec.NodeName; got != secondNode {
		t.Errorf("a pod that selects the tenant's label is on %s", got)
	}
	if _, err := nodes.Patch(ctx, secondNode, types.StrategicMergePatchType, []byte(`{"spec":{"taints":[{"key":"reserved","effect":"NoSchedule"}]}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if got := tn.start(t, ns, newPod(fmt.Sprintf("plain-%d", i))).Spec.NodeName; got != firstNode {
			t.Errorf("a pod that does not tolerate the tenant's taint is on %s", got)
		}
	}
	tolerant := on(secondNode, newPod("tolerant"))
	tolerant.Spec.Tolerations = []corev1.Toleration{{Key: "reserved", Operator: corev1.TolerationOpExists}}
	tn.start(t, ns, tolerant)
	host, err := s.hostPod(ctx, tn, ns, "fast")
	if err != nil || host.Spec.NodeName != secondNode || host.Spec.NodeSelector["disk"] != "" {
		t.Errorf("the host's pod is on %q with the selector %v (%v)", host.Spec.NodeName, host.Spec.NodeSelector, err)
	}
	node, err := s.host.CoreV1().Nodes().Get(ctx, secondNode, metav1.GetOptions{})
	if err != nil || node.Labels["disk"] != "" || slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == "reserved" }) {
		t.Errorf("the host's node has what the tenant gave its own: %v %v (%v)", node.Labels, node.Spec.Taints, err)
	}
}
