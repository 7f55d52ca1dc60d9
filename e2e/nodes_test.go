//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

const firstNode, secondNode = "node-1", "node-2"

// on makes the scheduler put a pod on a node.
func on(node string, pod *corev1.Pod) *corev1.Pod {
	pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
	return pod
}

// TestNodes holds the local host's two nodes to what they are relied on for, as
// the tests of tenants would otherwise blame Sublet for what is wrong here.
func TestNodes(t *testing.T) {
	s := shared(t)
	s.onLocalHost(t)
	ctx := t.Context()
	host, err := newCluster(s.config)
	if err != nil {
		t.Fatal(err)
	}
	ns := host.newNamespace(t, "e2e-nodes")
	near := host.start(t, ns, on(firstNode, newServer("near")))
	far := host.start(t, ns, on(secondNode, newServer("far")))
	friend := host.start(t, ns, on(firstNode, newServer("friend")))
	for pod, node := range map[*corev1.Pod]string{near: firstNode, far: secondNode, friend: firstNode} {
		if pod.Spec.NodeName != node {
			t.Fatalf("%s is on %s", pod.Name, pod.Spec.NodeName)
		}
		if out := host.sh(t, ns, pod.Name, "hostname"); out != pod.Name {
			t.Errorf("exec in %s on %s: %q", pod.Name, node, out)
		}
		// Each answers the probe, and says so.
		eventually(t, 10*time.Second, "logs of "+pod.Name+" on "+node, func() error {
			if log, err := host.logs(ctx, ns, pod.Name); err != nil || !strings.Contains(log, "hostname") {
				return fmt.Errorf("%q, %v", log, err)
			}
			return nil
		})
	}

	get := func(from, address string) error {
		_, err := host.exec(ctx, ns, from, "curl", "-sSf", "--max-time", "2", "http://"+address+"/hostname")
		return err
	}
	reaches := func(from, address string) {
		t.Helper()
		eventually(t, 20*time.Second, from+" reaches "+address, func() error { return get(from, address) })
	}
	cut := func(from, address string) {
		t.Helper()
		eventually(t, 20*time.Second, from+" does not reach "+address, func() error {
			if get(from, address) == nil {
				return errors.New("it does")
			}
			return nil
		})
	}

	for _, backend := range []string{"near", "far"} {
		service, err := host.CoreV1().Services(ns).Create(ctx, newService(backend), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		reaches("near", service.Spec.ClusterIP)
		reaches("far", service.Spec.ClusterIP)
	}

	t.Run("NetworkPolicy", func(t *testing.T) {
		policies := host.NetworkingV1().NetworkPolicies(ns)
		apply := func(spec networkingv1.NetworkPolicySpec) (remove func()) {
			policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "between-nodes"}, Spec: spec}
			if _, err := policies.Create(ctx, policy, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := policies.Delete(ctx, policy.Name, metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		labelled := func(app string) metav1.LabelSelector {
			return metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
		}
		selected := labelled("friend")
		remove := apply(networkingv1.NetworkPolicySpec{
			PodSelector: labelled("far"),
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &selected}}}},
		})
		cut("near", far.Status.PodIP+":8080")
		reaches("friend", far.Status.PodIP+":8080")
		remove()
		reaches("near", far.Status.PodIP+":8080")
		remove = apply(networkingv1.NetworkPolicySpec{
			PodSelector: labelled("far"),
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		})
		cut("far", near.Status.PodIP+":8080")
		reaches("near", far.Status.PodIP+":8080")
		remove()
		reaches("far", near.Status.PodIP+":8080")
	})

	t.Run("Volume", func(t *testing.T) {
		claim := &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: "data"},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
			},
		}
		if _, err := host.CoreV1().PersistentVolumeClaims(ns).Create(ctx, claim, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		pod := on(secondNode, newPod("writer"))
		pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name}}}}
		pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		host.start(t, ns, pod)
		host.sh(t, ns, "writer", "echo kept >/data/file")
		bound, err := host.CoreV1().PersistentVolumeClaims(ns).Get(ctx, claim.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		volume := "var/lib/local-path/" + bound.Spec.VolumeName
		here, elsewhere := s.path(".host/"+secondNode+"/"+volume), s.path(".host/"+volume)
		if content, err := os.ReadFile(here + "/file"); err != nil || string(content) != "kept\n" {
			t.Errorf("on the node of the pod there is %q, %v", content, err)
		}
		if _, err := os.Stat(elsewhere); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the volume is on the other node, too: %v", err)
		}
		if err := host.CoreV1().Pods(ns).Delete(ctx, "writer", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := host.CoreV1().PersistentVolumeClaims(ns).Delete(ctx, claim.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "the volume is removed from its node", func() error {
			if _, err := os.Stat(here); !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("it is there, %v", err)
			}
			return nil
		})
	})

	t.Run("Pull", func(t *testing.T) {
		// Each node plays all registries, with the images that it has.
		for _, node := range []string{firstNode, secondNode} {
			pod := on(node, newPod("pulls-on-"+node))
			pod.Spec.Containers[0].ImagePullPolicy = corev1.PullAlways
			host.start(t, ns, pod)
			absent := on(node, newPod("cannot-pull-on-"+node))
			absent.Spec.Containers[0].Image = "registry.example/absent:1"
			if _, err := host.CoreV1().Pods(ns).Create(ctx, absent, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, time.Minute, "an image that is nowhere cannot be pulled on "+node, func() error {
				got, err := host.CoreV1().Pods(ns).Get(ctx, absent.Name, metav1.GetOptions{})
				if err != nil {
					return err
				}
				if status := describeStatus(got); !strings.Contains(status, "ErrImagePull") && !strings.Contains(status, "ImagePullBackOff") {
					return fmt.Errorf("status %s", status)
				}
				return nil
			})
		}
	})

	t.Run("NoWayOut", func(t *testing.T) {
		// The machine is the neighbour before the first node.
		nodes, err := host.CoreV1().Nodes().Get(ctx, firstNode, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		first, err := netip.ParseAddr(nodes.Status.Addresses[0].Address)
		if err != nil {
			t.Fatal(err)
		}
		machine, err := net.Listen("tcp4", net.JoinHostPort(first.Prev().String(), "0"))
		if err != nil {
			t.Fatalf("listen on the machine's end of the link: %v", err)
		}
		defer machine.Close()
		conn, err := net.Dial("tcp4", machine.Addr().String())
		if err != nil {
			t.Fatalf("the machine does not answer itself: %v", err)
		}
		_ = conn.Close()
		_, port, _ := net.SplitHostPort(machine.Addr().String())
		for _, pod := range []string{"near", "far"} {
			if _, err := host.exec(ctx, ns, pod, "nc", "-z", "-w", "2", first.Prev().String(), port); err == nil {
				t.Errorf("%s reaches the machine", pod)
			}
		}
	})
}

// TestLossOfANode stops the kubelet of a node and starts it again. It does not run
// beside other tests, whose pods are on that node.
func TestLossOfANode(t *testing.T) {
	s, err := setUp()
	if err != nil {
		t.Fatal(err)
	}
	s.onLocalHost(t)
	ctx := t.Context()
	host, err := newCluster(s.config)
	if err != nil {
		t.Fatal(err)
	}
	command := func(verb string) {
		t.Helper()
		if out, err := s.command(ctx, s.path(".cache/bin/host"), "node", verb, secondNode).CombinedOutput(); err != nil {
			t.Fatalf("host node %s: %v\n%s", verb, err, out)
		}
	}
	readyIn := func(c kubernetes.Interface, name string) corev1.ConditionStatus {
		node, err := c.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				return condition.Status
			}
		}
		return ""
	}
	nodeReady := func(name string) corev1.ConditionStatus { return readyIn(s.host, name) }
	becomes := func(want corev1.ConditionStatus) {
		t.Helper()
		eventually(t, 2*time.Minute, fmt.Sprintf("%s has Ready %s", secondNode, want), func() error {
			if got := nodeReady(secondNode); got != want {
				return fmt.Errorf("it has Ready %s", got)
			}
			return nil
		})
	}
	// The control plane of a tenant on the other node sees it all.
	cordon := func(unschedulable bool) {
		t.Helper()
		if _, err := host.CoreV1().Nodes().Patch(context.Background(), secondNode, types.StrategicMergePatchType, fmt.Appendf(nil, `{"spec":{"unschedulable":%v}}`, unschedulable), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	cordon(true)
	t.Cleanup(func() { cordon(false) })
	tn := s.newTenant(t, "e2e-loss", "--ephemeral")
	cordon(false)
	there := tn.newNamespace(t, "loss")
	tn.start(t, there, on(secondNode, newServer("lost")))

	ns := host.newNamespace(t, "e2e-loss")
	host.start(t, ns, on(secondNode, newServer("lost")))
	t.Cleanup(func() {
		_ = s.command(context.Background(), s.path(".cache/bin/host"), "node", "start", secondNode).Run()
	})
	command("stop")
	becomes(corev1.ConditionUnknown)
	if got := nodeReady(firstNode); got != corev1.ConditionTrue {
		t.Errorf("the other node has Ready %s", got)
	}
	eventually(t, time.Minute, "the pod on the lost node is not ready", func() error {
		pod, err := host.CoreV1().Pods(ns).Get(ctx, "lost", metav1.GetOptions{})
		if err == nil && podReady(pod) {
			err = errors.New("it is ready")
		}
		return err
	})
	// It is the host's node controller that takes its time: from here on the tenant
	// follows at once, its node and its pod.
	eventually(t, 10*time.Second, "the tenant knows", func() error {
		pod, err := tn.CoreV1().Pods(there).Get(ctx, "lost", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got := readyIn(tn, secondNode); got != corev1.ConditionUnknown || podReady(pod) {
			return fmt.Errorf("its node has Ready %s, its pod is ready: %v", got, podReady(pod))
		}
		return nil
	})
	command("start")
	becomes(corev1.ConditionTrue)
	host.ready(t, ns, "lost")
	tn.ready(t, there, "lost")
	eventually(t, 10*time.Second, "the tenant's node is back", func() error {
		if got := readyIn(tn, secondNode); got != corev1.ConditionTrue {
			return fmt.Errorf("it has Ready %s", got)
		}
		return nil
	})
	// The manager may have been there, which the other tests need.
	eventually(t, time.Minute, "all of Sublet is ready again", func() error {
		pods, err := s.host.CoreV1().Pods(api.SystemNamespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range pods.Items {
			if !podReady(&pods.Items[i]) {
				return fmt.Errorf("pod %s: %s", pods.Items[i].Name, describeStatus(&pods.Items[i]))
			}
		}
		return nil
	})
}
