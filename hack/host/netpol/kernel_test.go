package netpol

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/knftables"
)

// inside tells the test's second process that it has its namespaces.
const inside = "SUBLET_NETPOL_TEST_INSIDE"

// TestKernel sends real packets between network namespaces joined as the ptp
// plugin joins pods, in network and mount namespaces of its own.
func TestKernel(t *testing.T) {
	if os.Getenv(inside) == "" {
		if os.Getuid() != 0 {
			t.Skip("needs root, to make network namespaces")
		}
		for _, program := range []string{"ip", "nft"} {
			if _, err := exec.LookPath(program); err != nil {
				t.Skipf("needs the program %s", program)
			}
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestKernel$", "-test.v", "-test.count=1")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Fatal(err)
		}
		return
	}

	n := newNetwork(t)
	web, client, stranger := n.pod("a", "web", "10.99.0.2"), n.pod("a", "client", "10.99.0.3"), n.pod("b", "stranger", "10.99.0.4")
	web.Spec.Containers = []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	n.listen("web", "10.99.0.2:8080")
	n.listen("web", "10.99.0.2:9090")
	n.listen("client", "10.99.0.3:8080")
	n.listen("", n.gateway+":6443")

	ctx, cancel := context.WithCancel(t.Context())
	objects := fake.NewSimpleClientset(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"name": "a"}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "b", Labels: map[string]string{"name": "b"}}},
		web, client, stranger)
	nft, err := knftables.New(knftables.InetFamily, TableName)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- enforce(ctx, objects, nft, Options{NodeName: "node-1"}) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("enforce: %v", err)
		}
	}()

	policies := objects.NetworkingV1().NetworkPolicies("a")
	apply := func(spec networkingv1.NetworkPolicySpec) {
		t.Helper()
		policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"}, Spec: spec}
		_ = policies.Delete(ctx, "p", metav1.DeleteOptions{})
		if _, err := policies.Create(ctx, policy, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	tcp := func(port any) []networkingv1.NetworkPolicyPort {
		p := intstr.FromString("http")
		if number, ok := port.(int); ok {
			p = intstr.FromInt(number)
		}
		return []networkingv1.NetworkPolicyPort{{Protocol: ptr.To(corev1.ProtocolTCP), Port: &p}}
	}
	subject := metav1.LabelSelector{MatchLabels: map[string]string{"name": "web"}}
	clients := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"name": "client"}}}

	n.eventually("the first rules are written", func() bool {
		return exec.Command("nft", "list", "table", "inet", TableName).Run() == nil
	})

	t.Log("Without a policy everything is open")
	n.allowed("client", "10.99.0.2:8080")
	n.allowed("stranger", "10.99.0.2:8080")
	n.allowed("web", n.gateway+":6443")
	if err := n.ping("web", n.gateway); err != nil {
		t.Errorf("ping: %v", err)
	}

	t.Log("Ingress from one pod on a named port")
	apply(networkingv1.NetworkPolicySpec{PodSelector: subject, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{clients}, Ports: tcp("http")}}})
	n.denied("stranger", "10.99.0.2:8080")
	n.denied("client", "10.99.0.2:9090")
	n.allowed("client", "10.99.0.2:8080")
	n.allowed("", "10.99.0.2:9090") // from the node, as the kubelet's probes
	n.allowed("web", "10.99.0.3:8080")
	n.allowed("web", "10.99.0.2:9090")

	t.Log("Ingress from a namespace, to a port")
	apply(networkingv1.NetworkPolicySpec{PodSelector: subject, Ingress: []networkingv1.NetworkPolicyIngressRule{{
		From:  []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"name": "b"}}}},
		Ports: tcp(9090)}}})
	n.denied("client", "10.99.0.2:9090")
	n.allowed("stranger", "10.99.0.2:9090")
	n.denied("stranger", "10.99.0.2:8080")

	t.Log("No egress: neither to pods nor to the node, nor by ICMP")
	apply(networkingv1.NetworkPolicySpec{PodSelector: subject, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}})
	n.denied("web", "10.99.0.3:8080")
	n.denied("web", n.gateway+":6443")
	n.allowed("client", "10.99.0.2:8080")
	if err := n.ping("web", n.gateway); err != unix.EAGAIN {
		t.Errorf("ping: got %v, want no answer", err)
	}

	t.Log("Egress to a block but for an exception")
	apply(networkingv1.NetworkPolicySpec{PodSelector: subject, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{{
			IPBlock: &networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: []string{n.gateway + "/32"}}}}}}})
	n.allowed("web", "10.99.0.3:8080")
	n.denied("web", n.gateway+":6443")

	t.Log("A change of labels moves a pod in and out")
	apply(networkingv1.NetworkPolicySpec{PodSelector: subject, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{clients}}}})
	n.denied("stranger", "10.99.0.2:8080")
	n.allowed("client", "10.99.0.2:8080")
	client = client.DeepCopy()
	client.Labels = map[string]string{"name": "former-client"}
	start := time.Now()
	if _, err := objects.CoreV1().Pods("a").Update(ctx, client, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	n.denied("client", "10.99.0.2:8080")
	t.Logf("in force within %v of the change, as far as a dialer with a limit of %v can tell", time.Since(start), dialTimeout)

	t.Log("A forged sender is dropped")
	n.run("ip", "-n", "stranger", "addr", "add", "10.99.0.3/32", "dev", "eth0")
	arrived := n.datagrams(n.gateway + ":5353")
	n.send("stranger", "10.99.0.3", n.gateway+":5353", "forged")
	n.send("stranger", "10.99.0.4", n.gateway+":5353", "honest")
	select {
	case got := <-arrived:
		if got != "honest" {
			t.Errorf("a datagram arrived from a forged sender: %q", got)
		}
	case <-time.After(3 * time.Second):
		t.Error("the honest datagram did not arrive")
	}

	t.Log("Without the policy everything is open again")
	if err := policies.Delete(ctx, "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	n.allowed("stranger", "10.99.0.2:8080")
}

const dialTimeout = 150 * time.Millisecond

// network is the node: the network namespace of the process, to which each
// pod's is joined by a veth pair and a route.
type network struct {
	t       *testing.T
	gateway string
	// echoes counts the ICMP echoes that were sent.
	echoes uint16
}

func newNetwork(t *testing.T) *network {
	n := &network{t: t, gateway: "10.99.0.1"}
	// Names of network namespaces must not be seen by the machine.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		t.Fatal(err)
	}
	for dir, kind := range map[string]string{"/run/netns": "tmpfs", "/sys": "sysfs"} {
		if err := unix.Mount(kind, dir, kind, 0, ""); err != nil {
			t.Fatalf("mount %s: %v", dir, err)
		}
	}
	n.run("ip", "link", "set", "lo", "up")
	n.run("ip", "addr", "add", n.gateway+"/32", "dev", "lo")
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	return n
}

// pod joins a network namespace and returns the Pod that it stands for.
func (n *network) pod(namespace, name, ip string) *corev1.Pod {
	n.t.Helper()
	for _, command := range []string{
		"ip netns add " + name,
		"ip link add veth" + name + " type veth peer name eth0 netns " + name,
		"ip link set veth" + name + " up",
		"ip route add " + ip + "/32 dev veth" + name,
		"ip -n " + name + " link set lo up",
		"ip -n " + name + " link set eth0 up",
		"ip -n " + name + " addr add " + ip + "/32 dev eth0",
		"ip -n " + name + " route add " + n.gateway + " dev eth0",
		"ip -n " + name + " route add default via " + n.gateway,
	} {
		n.run(strings.Fields(command)...)
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"name": name}},
		Spec:       corev1.PodSpec{NodeName: "node-1"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip},
	}
}

func (n *network) run(command ...string) {
	n.t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

// in calls f in a pod's network namespace; the empty name is the node's.
func (n *network) in(pod string, f func() error) error {
	if pod == "" {
		return f()
	}
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nothing else
		// runs in the wrong namespace.
		runtime.LockOSThread()
		fd, err := unix.Open("/run/netns/"+pod, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

func (n *network) listen(pod, address string) {
	n.t.Helper()
	err := n.in(pod, func() error {
		listener, err := net.Listen("tcp4", address)
		if err != nil {
			return err
		}
		n.t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_ = conn.Close()
			}
		}()
		return nil
	})
	if err != nil {
		n.t.Fatalf("listen on %s in %s: %v", address, pod, err)
	}
}

func (n *network) dial(pod, to string) error {
	dialer := net.Dialer{Timeout: dialTimeout}
	return n.in(pod, func() error {
		conn, err := dialer.Dial("tcp4", to)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func (n *network) allowed(pod, to string) {
	n.t.Helper()
	n.eventually(fmt.Sprintf("%q reaches %s", pod, to), func() bool { return n.dial(pod, to) == nil })
}

func (n *network) denied(pod, to string) {
	n.t.Helper()
	n.eventually(fmt.Sprintf("%q does not reach %s", pod, to), func() bool { return isTimeout(n.dial(pod, to)) })
}

// ping sends an ICMP echo and waits for any answer.
func (n *network) ping(pod, to string) error {
	return n.in(pod, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		timeout := unix.NsecToTimeval(dialTimeout.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return err
		}
		// An id of its own: an echo with the id of an answered one belongs, for
		// connection tracking, to a flow that was allowed and stays so.
		n.echoes++
		echo := []byte{8, 0, 0, 0, 0, 0, 0, 1} // type, code, checksum, id, sequence
		binary.BigEndian.PutUint16(echo[4:], n.echoes)
		binary.BigEndian.PutUint16(echo[2:], ^(8<<8 + n.echoes + 1))
		if err := unix.Sendto(fd, echo, 0, &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(to).To4())}); err != nil {
			return err
		}
		_, _, err = unix.Recvfrom(fd, make([]byte, 128), 0)
		return err
	})
}

// datagrams returns what arrives at the node's UDP port.
func (n *network) datagrams(address string) <-chan string {
	n.t.Helper()
	conn, err := net.ListenPacket("udp4", address)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	out := make(chan string, 16)
	go func() {
		buffer := make([]byte, 128)
		for {
			size, _, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			out <- string(buffer[:size])
		}
	}()
	return out
}

func (n *network) send(pod, from, to, text string) {
	n.t.Helper()
	err := n.in(pod, func() error {
		dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
		conn, err := dialer.Dial("udp4", to)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte(text))
		return err
	})
	if err != nil {
		n.t.Fatalf("send from %q as %s: %v", pod, from, err)
	}
}

func (n *network) eventually(what string, f func() bool) {
	n.t.Helper()
	deadline := time.Now().Add(3 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			n.t.Errorf("not within 3 s: %s", what)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func isTimeout(err error) bool {
	netErr, ok := err.(net.Error)
	return ok && netErr.Timeout()
}
