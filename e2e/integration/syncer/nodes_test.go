package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func (p *planes) virtualNode(name string) func(context.Context) (*corev1.Node, error) {
	return func(ctx context.Context) (*corev1.Node, error) {
		return p.virtual.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	}
}

// changeNode changes a virtual or host node, with its status if that is said.
func changeNode(t *testing.T, p *planes, side translate.Side, name string, status bool, change func(*corev1.Node)) {
	t.Helper()
	nodes := p.virtual.CoreV1().Nodes()
	if side == translate.Host {
		nodes = p.host.CoreV1().Nodes()
	}
	eventually(t, "change "+side.String()+" node "+name, func(ctx context.Context) error {
		node, err := nodes.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(node)
		if status {
			_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
			return err
		}
		_, err = nodes.Update(ctx, node, metav1.UpdateOptions{})
		return err
	})
}

// TestScheduler: a tenant that sees chosen nodes and schedules by itself, on a
// host with a scheduler.
func TestScheduler(t *testing.T) {
	p := startPlanesWith(t, planesOptions{
		hostScheduler: true,
		config: func(c *api.ControlPlaneConfig) {
			c.Nodes = &api.NodesSpec{Selector: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "pool", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"others"}}}}}
			c.Scheduler = true
		},
	})
	p.addNode(t, "node-2", nil)
	p.addNode(t, "node-others", map[string]string{"pool": "others"})
	p.runNode(t)
	p.keepAlive(t, nodeName, "node-others")
	t.Run("shown", p.testShown)
	t.Run("leases", p.testLeases)
	t.Run("labels of the tenant", p.testNodeLabels)
	t.Run("resources of the tenant", p.testNodeResources)
	t.Run("preemption", p.testPreemption)
	t.Run("gates", p.testGates)
	t.Run("refused by the host", p.testHostRefuses)
	t.Run("daemon set", p.testDaemonSet)
	t.Run("failed daemon pod", p.testFailedDaemonPod)
	t.Run("taint evicts", p.testTaint)
	t.Run("volumes", p.testVolumeOnNode)
	t.Run("node of the tenant's own", p.testOwnNode)
	t.Run("deleted in the tenant", p.testNodeDeleted)
	t.Run("lost", p.testNodeLost)
}

// keepAlive does for nodes of the host what their kubelets would: where all are
// lost at once, the node controller takes the network for broken.
func (p *planes) keepAlive(t *testing.T, names ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var beating sync.WaitGroup
	beating.Go(func() {
		for {
			for _, name := range names {
				beat := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":%q}]}}`, time.Now().UTC().Format(time.RFC3339))
				if _, err := p.host.CoreV1().Nodes().PatchStatus(ctx, name, beat); err != nil && ctx.Err() == nil {
					t.Errorf("heartbeat of %s: %v", name, err)
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(5 * time.Second):
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		beating.Wait()
	})
}

// testShown: nodes that are chosen are there, used or not; no others.
func (p *planes) testShown(t *testing.T) {
	for _, name := range []string{nodeName, "node-2"} {
		node := waitFor(t, "virtual node "+name, p.virtualNode(name), func(n *corev1.Node) bool {
			return len(n.Spec.Taints) == 0 && n.Status.Capacity.Cpu().Value() == 64
		})
		if node.Labels["example.com/secret"] != "" || node.Labels[corev1.LabelHostname] != name {
			t.Errorf("labels of virtual node %s: %v", name, node.Labels)
		}
	}
	changeNode(t, p, translate.Host, "node-2", false, func(n *corev1.Node) { n.Labels["pool"] = "others" })
	gone(t, "a node that is no longer chosen", p.virtualNode("node-2"))
	changeNode(t, p, translate.Host, "node-2", false, func(n *corev1.Node) { delete(n.Labels, "pool") })
	waitFor(t, "chosen again", p.virtualNode("node-2"), func(n *corev1.Node) bool { return len(n.Spec.Taints) == 0 })
	if _, err := p.virtualNode("node-others")(t.Context()); err == nil {
		t.Error("a node that is not chosen is shown")
	}
}

// testLeases: as a kubelet's.
func (p *planes) testLeases(t *testing.T) {
	node := waitFor(t, "virtual node", p.virtualNode(nodeName), nil)
	waitFor(t, "lease", func(ctx context.Context) (*coordinationv1.Lease, error) {
		return p.virtual.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, nodeName, metav1.GetOptions{})
	}, func(l *coordinationv1.Lease) bool {
		return *l.Spec.HolderIdentity == nodeName && *l.Spec.LeaseDurationSeconds >= 40 && l.OwnerReferences[0].UID == node.UID &&
			time.Since(l.Spec.RenewTime.Time) < 2*time.Duration(*l.Spec.LeaseDurationSeconds)*time.Second
	})
}

func (p *planes) deleteVirtualPod(t *testing.T, name string) {
	t.Helper()
	if err := p.virtual.CoreV1().Pods(space).Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	gone(t, "virtual pod "+name, p.virtualPod(name))
}

// unschedulable waits until the tenant's scheduler has looked at a pod in vain.
func (p *planes) unschedulable(t *testing.T, name string) {
	t.Helper()
	waitFor(t, "virtual pod "+name+" cannot be scheduled", p.virtualPod(name), func(pod *corev1.Pod) bool {
		return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable
		})
	})
	if _, err := p.hostPod(name)(t.Context()); err == nil {
		t.Errorf("pod %s is on the host before its node is chosen", name)
	}
}

// testNodeLabels: a label that only the tenant's node has decides, and the host
// pod runs all the same.
func (p *planes) testNodeLabels(t *testing.T) {
	chosen := pod("labelled")
	chosen.Spec.NodeSelector = map[string]string{"kubernetes.io/e2e-test": "42"}
	p.createPod(t, chosen)
	p.unschedulable(t, "labelled")
	changeNode(t, p, translate.Virtual, "node-2", false, func(n *corev1.Node) { n.Labels["kubernetes.io/e2e-test"] = "42" })
	virtual := waitFor(t, "virtual pod runs", p.virtualPod("labelled"), running)
	host := waitFor(t, "host pod", p.hostPod("labelled"), nil)
	if virtual.Spec.NodeName != "node-2" || host.Spec.NodeName != "node-2" || len(host.Spec.NodeSelector) != 0 {
		t.Errorf("the pod is on virtual node %q, host node %q with selector %v", virtual.Spec.NodeName, host.Spec.NodeName, host.Spec.NodeSelector)
	}
	// A change on the host leaves the tenant's label alone.
	changeNode(t, p, translate.Host, "node-2", false, func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "z1" })
	waitFor(t, "both labels", p.virtualNode("node-2"), func(n *corev1.Node) bool {
		return n.Labels[corev1.LabelTopologyZone] == "z1" && n.Labels["kubernetes.io/e2e-test"] == "42"
	})
	changeNode(t, p, translate.Host, "node-2", false, func(n *corev1.Node) { delete(n.Labels, corev1.LabelTopologyZone) })
	waitFor(t, "the host's label is gone", p.virtualNode("node-2"), func(n *corev1.Node) bool {
		return n.Labels[corev1.LabelTopologyZone] == "" && n.Labels["kubernetes.io/e2e-test"] == "42"
	})
	p.deleteVirtualPod(t, "labelled")
}

const fakeCPU = corev1.ResourceName("example.com/fakecpu")

func fakePod(name, amount, class string) *corev1.Pod {
	made := pod(name)
	list := corev1.ResourceList{fakeCPU: resource.MustParse(amount)}
	made.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list, Limits: list}
	made.Spec.PriorityClassName = class
	made.Spec.TerminationGracePeriodSeconds = new(int64)
	return made
}

// testNodeResources: what the tenant adds to its node is counted in the tenant,
// and unknown to the host.
func (p *planes) testNodeResources(t *testing.T) {
	changeNode(t, p, translate.Virtual, nodeName, true, func(n *corev1.Node) { n.Status.Capacity[fakeCPU] = resource.MustParse("1000") })
	waitFor(t, "it can be allocated", p.virtualNode(nodeName), func(n *corev1.Node) bool {
		amount := n.Status.Allocatable[fakeCPU]
		return amount.Value() == 1000
	})
	p.createPod(t, fakePod("fake", "700", ""))
	virtual := waitFor(t, "virtual pod runs", p.virtualPod("fake"), running)
	if virtual.Spec.NodeName != nodeName {
		t.Errorf("the pod is on %q", virtual.Spec.NodeName)
	}
	host := waitFor(t, "host pod", p.hostPod("fake"), nil)
	if n := len(host.Spec.Containers[0].Resources.Requests); n != 0 {
		t.Errorf("the host pod requests %v", host.Spec.Containers[0].Resources.Requests)
	}
	p.createPod(t, fakePod("fake-more", "400", ""))
	p.unschedulable(t, "fake-more")
	p.deleteVirtualPod(t, "fake")
	waitFor(t, "the other one runs", p.virtualPod("fake-more"), running)
	p.deleteVirtualPod(t, "fake-more")
}

// testPreemption is within the tenant.
func (p *planes) testPreemption(t *testing.T) {
	for name, value := range map[string]int32{"low": 1, "high": 1000} {
		class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value}
		if _, err := p.virtual.SchedulingV1().PriorityClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	p.createPod(t, fakePod("victim", "900", "low"))
	waitFor(t, "victim runs", p.virtualPod("victim"), running)
	p.createPod(t, fakePod("preemptor", "900", "high"))
	waitFor(t, "preemptor runs", p.virtualPod("preemptor"), running)
	gone(t, "victim", p.virtualPod("victim"))
	gone(t, "victim on the host", p.hostPod("victim"))
	p.deleteVirtualPod(t, "preemptor")
}

// testGates: a gated pod is not even tried.
func (p *planes) testGates(t *testing.T) {
	gated := pod("gated")
	gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}}
	p.createPod(t, gated)
	waitFor(t, "the pod is gated", p.virtualPod("gated"), func(pod *corev1.Pod) bool {
		return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Reason == corev1.PodReasonSchedulingGated })
	})
	if _, err := p.hostPod("gated")(t.Context()); err == nil {
		t.Error("a gated pod is on the host")
	}
	eventually(t, "open the gate", func(ctx context.Context) error {
		pod, err := p.virtualPod("gated")(ctx)
		if err != nil {
			return err
		}
		pod.Spec.SchedulingGates = nil
		_, err = p.virtual.CoreV1().Pods(space).Update(ctx, pod, metav1.UpdateOptions{})
		return err
	})
	waitFor(t, "the pod runs", p.virtualPod("gated"), running)
	p.deleteVirtualPod(t, "gated")
}

// testHostRefuses: the host's scheduler has the last word on room, and says so
// in the tenant; the pod runs when there is some.
func (p *planes) testHostRefuses(t *testing.T) {
	// Somebody else's pod fills node-1, which the tenant cannot know.
	other := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "other", Namespace: "default"},
		Spec: corev1.PodSpec{NodeName: nodeName, Containers: []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("60")},
		}}}},
	}
	eventually(t, "somebody else's pod", func(ctx context.Context) error {
		_, err := p.host.CoreV1().Pods("default").Create(ctx, other, metav1.CreateOptions{})
		return err
	})
	big := pod("big")
	big.Spec.NodeSelector = map[string]string{corev1.LabelHostname: nodeName}
	big.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10")}
	made := p.createPod(t, big)
	eventually(t, "the host's no is an event on the virtual pod", func(ctx context.Context) error {
		events, err := p.virtual.CoreV1().Events(space).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(made.UID) + ",reason=FailedScheduling"})
		if err != nil {
			return err
		}
		if len(events.Items) == 0 {
			return errors.New("no event")
		}
		return nil
	})
	virtual, err := p.virtualPod("big")(t.Context())
	if err != nil || virtual.Spec.NodeName != nodeName || virtual.Status.Phase != corev1.PodPending {
		t.Errorf("virtual pod on %q is %s, %v", virtual.Spec.NodeName, virtual.Status.Phase, err)
	}
	if err := p.host.CoreV1().Pods("default").Delete(t.Context(), "other", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it runs once there is room", p.virtualPod("big"), running)
	p.deleteVirtualPod(t, "big")
}

// testDaemonSet: one pod for each node that is shown, and none for one that the
// tenant's pods may not run on.
func (p *planes) testDaemonSet(t *testing.T) {
	changeNode(t, p, translate.Host, "node-2", false, func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "dedicated", Value: "others", Effect: corev1.TaintEffectNoSchedule}}
	})
	waitFor(t, "a neutral taint", p.virtualNode("node-2"), func(n *corev1.Node) bool {
		return len(n.Spec.Taints) == 1 && n.Spec.Taints[0].Key == api.TaintHost && n.Spec.Taints[0].Value == ""
	})
	set := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "agents", Namespace: space},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "agents"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "agents"}}, Spec: pod("agents").Spec},
		},
	}
	sets := p.virtual.AppsV1().DaemonSets(space)
	if _, err := sets.Create(t.Context(), set, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	available := func(want int32) {
		t.Helper()
		waitFor(t, fmt.Sprintf("%d pods of the daemon set", want), func(ctx context.Context) (*appsv1.DaemonSet, error) {
			return sets.Get(ctx, "agents", metav1.GetOptions{})
		}, func(d *appsv1.DaemonSet) bool {
			return d.Status.DesiredNumberScheduled == want && d.Status.NumberReady == want && d.Status.CurrentNumberScheduled == want
		})
	}
	available(1)
	changeNode(t, p, translate.Host, "node-2", false, func(n *corev1.Node) { n.Spec.Taints = nil })
	available(2)
	// As the tenant says, even where the host does not.
	changeNode(t, p, translate.Virtual, "node-2", false, func(n *corev1.Node) {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "mine", Effect: corev1.TaintEffectNoExecute})
	})
	available(1)
	changeNode(t, p, translate.Virtual, "node-2", false, func(n *corev1.Node) { n.Spec.Taints = nil })
	available(2)
	if err := sets.Delete(t.Context(), "agents", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all pods are gone", func(ctx context.Context) error {
		pods, err := p.host.CoreV1().Pods(hostNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app=agents"})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("%d pods", len(pods.Items))
		}
		return err
	})
}

// testTaint: a NoExecute taint of the tenant evicts, after the time that the pod
// tolerates it; taken back in time, it does not.
func (p *planes) testTaint(t *testing.T) {
	var second, hour int64 = 1, 3600
	for name, seconds := range map[string]*int64{"evicted-at-once": nil, "evicted-later": &second, "not-evicted": &hour} {
		tolerant := pod(name)
		tolerant.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "node-2"}
		if seconds != nil {
			tolerant.Spec.Tolerations = []corev1.Toleration{{Key: "evict", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds}}
		}
		p.createPod(t, tolerant)
		waitFor(t, name+" runs", p.virtualPod(name), running)
	}
	changeNode(t, p, translate.Virtual, "node-2", false, func(n *corev1.Node) {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "evict", Effect: corev1.TaintEffectNoExecute})
	})
	for _, name := range []string{"evicted-at-once", "evicted-later"} {
		gone(t, name, p.virtualPod(name))
		gone(t, name+" on the host", p.hostPod(name))
	}
	changeNode(t, p, translate.Virtual, "node-2", false, func(n *corev1.Node) { n.Spec.Taints = nil })
	if pod, err := p.virtualPod("not-evicted")(t.Context()); err != nil || pod.DeletionTimestamp != nil {
		t.Errorf("a pod that tolerates the taint was evicted: %v", err)
	}
	p.deleteVirtualPod(t, "not-evicted")
}

// testVolumeOnNode: a claim that waits for its first pod goes where the tenant's
// scheduler has put that.
func (p *planes) testVolumeOnNode(t *testing.T) {
	ctx := t.Context()
	class := &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{Name: "local"},
		Provisioner:       "kubernetes.io/no-provisioner",
		VolumeBindingMode: new(storagev1.VolumeBindingWaitForFirstConsumer),
	}
	if _, err := p.host.StorageV1().StorageClasses().Create(ctx, class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{nodeName, "node-2"} {
		volume := &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "disk-of-" + node},
			Spec: corev1.PersistentVolumeSpec{
				Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
				AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				StorageClassName:       "local",
				PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/disk"}},
				NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
					MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
				}}}},
			},
		}
		if _, err := p.host.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "class in the tenant", func(ctx context.Context) (*storagev1.StorageClass, error) {
		return p.virtual.StorageV1().StorageClasses().Get(ctx, "local", metav1.GetOptions{})
	}, nil)
	claims := p.virtual.CoreV1().PersistentVolumeClaims(space)
	if _, err := claims.Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class.Name,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	changeNode(t, p, translate.Virtual, "node-2", false, func(n *corev1.Node) { n.Labels["disk"] = "mine" })
	user := pod("with-volume")
	user.Spec.NodeSelector = map[string]string{"disk": "mine"}
	user.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	p.createPod(t, user)
	waitFor(t, "it runs", p.virtualPod("with-volume"), running)
	claim := waitFor(t, "the claim is bound", func(ctx context.Context) (*corev1.PersistentVolumeClaim, error) {
		return claims.Get(ctx, "data", metav1.GetOptions{})
	},
		func(c *corev1.PersistentVolumeClaim) bool { return c.Status.Phase == corev1.ClaimBound })
	hostClaim, err := p.host.CoreV1().PersistentVolumeClaims(hostNamespace).Get(ctx, translate.HostName(space, "data"), metav1.GetOptions{})
	if err != nil || hostClaim.Spec.VolumeName != "disk-of-node-2" {
		t.Errorf("the host bound %q, virtual %q, %v", hostClaim.Spec.VolumeName, claim.Spec.VolumeName, err)
	}
	p.deleteVirtualPod(t, "with-volume")
}

// testOwnNode: a node that the tenant makes is the tenant's.
func (p *planes) testOwnNode(t *testing.T) {
	nodes := p.virtual.CoreV1().Nodes()
	if _, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "fake"}, Spec: corev1.NodeSpec{Unschedulable: true}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes.Patch(t.Context(), "fake", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := nodes.Delete(t.Context(), "fake", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "the tenant's node", p.virtualNode("fake"))
}

// testNodeDeleted: as with a kubelet, which registers again.
func (p *planes) testNodeDeleted(t *testing.T) {
	node := waitFor(t, "virtual node", p.virtualNode("node-2"), nil)
	if err := p.virtual.CoreV1().Nodes().Delete(t.Context(), "node-2", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it is back", p.virtualNode("node-2"), func(n *corev1.Node) bool { return n.UID != node.UID && len(n.Spec.Taints) == 0 })
}

// testNodeLost: no word from the kubelet of one of the nodes. The host's node
// controller says so after its time, and the tenant sees it on the node, on its
// taints, and on its pods.
func (p *planes) testNodeLost(t *testing.T) {
	lost := pod("on-lost-node")
	lost.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "node-2"}
	p.createPod(t, lost)
	waitFor(t, "it is known", p.virtualPod("on-lost-node"), func(pod *corev1.Pod) bool { return pod.Spec.NodeName == "node-2" })
	// The others are well: where all are lost, a node controller believes that it
	// is itself that is cut off, and evicts nobody.
	well, stop := context.WithCancel(t.Context())
	defer stop()
	go wait.UntilWithContext(well, func(ctx context.Context) {
		for _, name := range []string{nodeName, "node-others"} {
			patch := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":%q}]}}`, time.Now().UTC().Format(time.RFC3339))
			_, err := p.host.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
			if err != nil && ctx.Err() == nil {
				t.Errorf("keep %s well: %v", name, err)
			}
		}
	}, 5*time.Second)
	const nodeMonitorGrace = 50 * time.Second
	within(t, nodeMonitorGrace+patience, "the virtual node is lost", func(ctx context.Context) error {
		node, err := p.virtualNode("node-2")(ctx)
		if err != nil {
			return err
		}
		tainted := slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
			return taint.Key == corev1.TaintNodeUnreachable && taint.Effect == corev1.TaintEffectNoExecute
		})
		if node.Status.Conditions[0].Status != corev1.ConditionUnknown || !tainted {
			host, err := p.host.CoreV1().Nodes().Get(ctx, "node-2", metav1.GetOptions{})
			return fmt.Errorf("conditions %v, taints %v, on the host %v, %v (%v)",
				node.Status.Conditions, node.Spec.Taints, host.Status.Conditions, host.Spec.Taints, err)
		}
		return nil
	})
	waitFor(t, "its pod is not ready", p.virtualPod("on-lost-node"), func(pod *corev1.Pod) bool {
		return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse
		})
	})
	lease, err := p.virtual.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(t.Context(), "node-2", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node, err := p.virtualNode("node-2")(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if unknown := node.Status.Conditions[0].LastTransitionTime; lease.Spec.RenewTime.After(unknown.Add(2 * time.Second)) {
		t.Errorf("the lease of a lost node was renewed at %s, it is lost since %s", lease.Spec.RenewTime, unknown)
	}
	if err := p.host.CoreV1().Nodes().Delete(t.Context(), "node-2", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "the virtual node", p.virtualNode("node-2"))
}

// testFailedDaemonPod: a controller ends a pod by its status, which the host does
// not take back; another one takes its place.
func (p *planes) testFailedDaemonPod(t *testing.T) {
	ctx := t.Context()
	set := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "failing", Namespace: space},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "failing"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "failing"}}, Spec: pod("failing").Spec},
		},
	}
	set.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: nodeName}
	if _, err := p.virtual.AppsV1().DaemonSets(space).Create(ctx, set, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	other := func(than types.UID) *corev1.Pod {
		t.Helper()
		list := waitFor(t, "a pod runs", func(ctx context.Context) (*corev1.PodList, error) {
			return p.virtual.CoreV1().Pods(space).List(ctx, metav1.ListOptions{LabelSelector: "app=failing"})
		}, func(l *corev1.PodList) bool {
			return len(l.Items) == 1 && running(&l.Items[0]) && l.Items[0].UID != than
		})
		return &list.Items[0]
	}
	first := other("")
	eventually(t, "end it", func(ctx context.Context) error {
		failed, err := p.virtual.CoreV1().Pods(space).Get(ctx, first.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		failed.Status.Phase = corev1.PodFailed
		_, err = p.virtual.CoreV1().Pods(space).UpdateStatus(ctx, failed, metav1.UpdateOptions{})
		return err
	})
	other(first.UID)
	if err := p.virtual.AppsV1().DaemonSets(space).Delete(ctx, "failing", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}
