//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// TestNetworkFence attacks the network from a tenant's pod. Each thing that must
// not be reached is shown to be there, by somebody who may reach it.
func TestNetworkFence(t *testing.T) {
	s := shared(t)
	s.onLocalHost(t)
	blue, green := s.sharedTenant(t, "e2e-blue"), s.sharedTenant(t, "e2e-green")
	ctx := t.Context()
	const internet, metadata, neighbour, sharedRange = "93.184.215.14", "169.254.169.254", "192.168.77.7", "100.100.100.200"
	s.outside(t, internet, metadata, neighbour, sharedRange)

	// The same on both sides: a server, a Service, a client.
	type side struct {
		*tenant
		ns, podIP, serviceIP string
	}
	build := func(tn *tenant) side {
		ns := tn.newNamespace(t, "fence")
		service, err := tn.CoreV1().Services(ns).Create(ctx, newService("web"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tn.CoreV1().Pods(ns).Create(ctx, newPod("client"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		web := tn.start(t, ns, newServer("web"))
		tn.ready(t, ns, "client")
		return side{tn, ns, web.Status.PodIP, service.Spec.ClusterIP}
	}
	a, b := build(blue), build(green)

	// A pod of nobody's, which no fence surrounds, for controls.
	free := newPod("e2e-free")
	free.Namespace = "default"
	_ = s.host.CoreV1().Pods("default").Delete(ctx, free.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	t.Cleanup(func() {
		_ = s.host.CoreV1().Pods("default").Delete(context.Background(), free.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	})
	host, err := newCluster(s.config)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "a pod outside of all fences can be made", func() error {
		_, err := s.host.CoreV1().Pods("default").Create(ctx, free, metav1.CreateOptions{})
		return err
	})
	host.ready(t, "default", free.Name)

	hostAPI, err := s.host.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := s.host.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var nodeIPs []string
	for _, node := range nodes.Items {
		for _, address := range node.Status.Addresses {
			if address.Type == corev1.NodeInternalIP {
				nodeIPs = append(nodeIPs, address.Address)
			}
		}
	}
	if len(nodeIPs) == 0 {
		t.Fatal("no node has an address")
	}
	// The first one serves the API.
	nodeIP, lastIP := nodeIPs[0], nodeIPs[len(nodeIPs)-1]
	greenControlPlane, err := s.host.CoreV1().Pods(green.namespace).Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	greenAPI, err := s.host.CoreV1().Services(green.namespace).Get(ctx, api.ControlPlaneName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	managers, err := s.host.CoreV1().Pods(api.SystemNamespace).List(ctx, metav1.ListOptions{})
	if err != nil || len(managers.Items) == 0 {
		t.Fatalf("no pod of the manager: %v", err)
	}

	dial := func(c *cluster, ns, pod string) func(address string) error {
		return func(address string) error {
			host, port, err := net.SplitHostPort(address)
			if err != nil {
				return err
			}
			_, err = c.exec(ctx, ns, pod, "nc", "-z", "-w", "2", host, port)
			return err
		}
	}
	fromA, fromB, fromFree := dial(blue.cluster, a.ns, "client"), dial(green.cluster, b.ns, "client"), dial(host, "default", free.Name)

	allowed := map[string]string{
		"a pod of its own":             a.podIP + ":8080",
		"a Service of its own":         a.serviceIP + ":80",
		"its own API":                  "kubernetes.default.svc:443",
		"an address on the internet":   internet + ":80",
		"its own Service by full name": "web." + a.ns + ".svc.cluster.local:80",
	}
	denied := map[string]struct {
		address string
		control func(string) error
	}{
		"another tenant's pod":             {b.podIP + ":8080", fromB},
		"another tenant's Service":         {b.serviceIP + ":80", fromB},
		"another tenant's API, by Service": {greenAPI.Spec.ClusterIP + ":443", fromB},
		"another tenant's API, by pod":     {greenControlPlane.Status.PodIP + ":" + strconv.Itoa(api.APIServerPort), fromB},
		"the host's API, by Service":       {hostAPI.Spec.ClusterIP + ":443", fromFree},
		"the host's API, by node":          {nodeIP + ":6443", fromFree},
		"the kubelet":                      {nodeIP + ":10250", fromFree},
		"the kubelet of the last node":     {lastIP + ":10250", fromFree},
		"the manager's probes":             {managers.Items[0].Status.PodIP + ":" + strconv.Itoa(api.HealthPort), fromFree},
		"the metadata service":             {metadata + ":80", fromFree},
		"a neighbouring private network":   {neighbour + ":80", fromFree},
		"a shared address range":           {sharedRange + ":80", fromFree},
	}
	var wg sync.WaitGroup
	for what, address := range allowed {
		wg.Go(func() {
			if err := retry(3, func() error { return fromA(address) }); err != nil {
				t.Errorf("%s (%s) is not reached: %v", what, address, err)
			}
		})
	}
	for what, d := range denied {
		wg.Go(func() {
			if err := retry(3, func() error { return d.control(d.address) }); err != nil {
				t.Errorf("%s (%s) does not answer those who may reach it, so that nothing is shown: %v", what, d.address, err)
			}
			if err := fromA(d.address); err == nil {
				t.Errorf("%s (%s) is reached", what, d.address)
			}
		})
	}
	wg.Wait()

	// The fence stands on the host: policies in the tenant, even one that opens
	// all, do not move it.
	err = blue.NetworkingV1().RESTClient().Post().Namespace(a.ns).Resource("networkpolicies").
		Body([]byte(`{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"open"},"spec":{"podSelector":{},"ingress":[{}],"egress":[{}],"policyTypes":["Ingress","Egress"]}}`)).
		SetHeader("Content-Type", "application/json").Do(ctx).Error()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	for _, what := range []string{"another tenant's pod", "the host's API, by Service", "the metadata service"} {
		if err := fromA(denied[what].address); err == nil {
			t.Errorf("a NetworkPolicy in the tenant opened the way to %s", what)
		}
	}
}

func retry(times int, f func() error) (err error) {
	for range times {
		if err = f(); err == nil {
			return nil
		}
	}
	return err
}

// TestPodSecurity: pods that would own the node do not run, whatever the tenant's
// admin says inside; a tenant whose level is privileged may have them.
func TestPodSecurity(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-green")
	ctx := t.Context()
	attacks := map[string]func(*corev1.Pod){
		"privileged": func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
		},
		"host-path": func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "root", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "root", MountPath: "/root"}}
		},
		"host-network": func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		"host-pid":     func(p *corev1.Pod) { p.Spec.HostPID = true },
		"host-port": func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8085}}
		},
		"capability": func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext.Capabilities = &corev1.Capabilities{Add: []corev1.Capability{"SYS_ADMIN"}}
		},
		"init-container": func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: agnhost(), Command: []string{"true"}, SecurityContext: &corev1.SecurityContext{Privileged: ptr.To(true)}}}
		},
	}
	plain := tn.newNamespace(t, "attack")
	lax := tn.newNamespace(t, "lax")
	patch := []byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"privileged"}}}`)
	if _, err := tn.CoreV1().Namespaces().Patch(ctx, lax, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, attack := range attacks {
		pod := newPod(name)
		attack(pod)
		if _, err := tn.CoreV1().Pods(plain).Create(ctx, pod.DeepCopy(), metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "PodSecurity") {
			t.Errorf("%s: got %v, want the tenant's API to refuse it at once with what violates PodSecurity", name, err)
		}
		// Here the tenant's own admission is switched off; the host's is not.
		if _, err := tn.CoreV1().Pods(lax).Create(ctx, pod.DeepCopy(), metav1.CreateOptions{}); err != nil && !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name := range attacks {
		if _, err := tn.CoreV1().Pods(lax).Get(ctx, name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			continue // refused at once there, too
		}
		eventually(t, 30*time.Second, "an event says why "+name+" does not run", func() error {
			events, err := tn.CoreV1().Events(lax).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
			if err != nil {
				return err
			}
			for _, event := range events.Items {
				if event.Type == corev1.EventTypeWarning && strings.Contains(event.Message, "PodSecurity") {
					if strings.Contains(event.Message, api.LabelTenant) {
						return fmt.Errorf("the event shows the host's names: %s", event.Message)
					}
					return nil
				}
			}
			return fmt.Errorf("%d events", len(events.Items))
		})
		if pod, err := s.hostPod(ctx, tn, lax, name); !errors.Is(err, errNoHostPod) {
			t.Errorf("%s: the host has it: %v %v", name, pod, err)
		}
		got, err := tn.CoreV1().Pods(lax).Get(ctx, name, metav1.GetOptions{})
		if err != nil || got.Status.Phase != corev1.PodPending {
			t.Errorf("%s: phase %v (%v), want Pending", name, got.Status.Phase, err)
		}
	}

	trusted := s.newTenant(t, "e2e-trusted", "--pod-security", "privileged", "--ephemeral")
	ns := trusted.newNamespace(t, "trusted")
	pod := newPod("privileged")
	attacks["privileged"](pod)
	pod.Spec.SecurityContext = nil
	trusted.start(t, ns, pod)
	if got := trusted.sh(t, ns, "privileged", "mkdir /tmp/m && mount -t tmpfs none /tmp/m && echo mounted"); got != "mounted" {
		t.Errorf("the control: a privileged pod is not privileged: %q", got)
	}
}

// TestQuota: a tenant gets what its quota allows and not a pod more, and hears
// why; what is freed is used.
func TestQuota(t *testing.T) {
	s := shared(t)
	ctx := t.Context()
	tn := s.newTenant(t, "e2e-quota", "--quota", "pods=3,requests.cpu=2,requests.memory=2Gi", "--ephemeral")
	ns := tn.newNamespace(t, "quota")
	server := newPod("many")
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "many"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](5),
			Selector: &metav1.LabelSelector{MatchLabels: server.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: server.Labels}, Spec: server.Spec},
		},
	}
	if _, err := tn.AppsV1().Deployments(ns).Create(ctx, deployment, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	running := func() (ready []corev1.Pod, waiting []corev1.Pod) {
		pods, err := tn.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, pod := range pods.Items {
			if podReady(&pod) && pod.DeletionTimestamp == nil {
				ready = append(ready, pod)
			} else {
				waiting = append(waiting, pod)
			}
		}
		return ready, waiting
	}
	eventually(t, time.Minute, "three pods run", func() error {
		if ready, waiting := running(); len(ready) != 3 || len(waiting) != 2 {
			return fmt.Errorf("%d run, %d wait", len(ready), len(waiting))
		}
		return nil
	})
	_, waiting := running()
	eventually(t, 30*time.Second, "a pod over the quota hears why", func() error {
		events, err := tn.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + waiting[0].Name})
		if err != nil {
			return err
		}
		for _, event := range events.Items {
			if strings.Contains(event.Message, "exceeded quota") {
				return nil
			}
		}
		return fmt.Errorf("%d events", len(events.Items))
	})
	hostPods, err := s.host.CoreV1().Pods(tn.namespace).List(ctx, metav1.ListOptions{LabelSelector: api.LabelVirtualNamespace})
	if err != nil {
		t.Fatal(err)
	}
	if len(hostPods.Items) != 3 {
		t.Errorf("the host has %d pods of the tenant, want 3", len(hostPods.Items))
	}
	// One finishes and makes room.
	scale := []byte(`{"spec":{"replicas":3}}`)
	if _, err := tn.AppsV1().Deployments(ns).Patch(ctx, "many", types.MergePatchType, scale, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "what waits goes first, and three still run", func() error {
		if ready, waiting := running(); len(ready) != 3 || len(waiting) != 0 {
			return fmt.Errorf("%d run, %d wait", len(ready), len(waiting))
		}
		return nil
	})
	if _, err := tn.CoreV1().Pods(ns).Create(ctx, newPod("late"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	if _, err := s.hostPod(ctx, tn, ns, "late"); !errors.Is(err, errNoHostPod) {
		t.Fatalf("a pod over the quota is on the host: %v", err)
	}
	if _, err := tn.AppsV1().Deployments(ns).Patch(ctx, "many", types.MergePatchType, []byte(`{"spec":{"replicas":2}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	tn.ready(t, ns, "late")
	t.Logf("the pod that waited runs %v after room was made", time.Since(start).Round(100*time.Millisecond))
}
