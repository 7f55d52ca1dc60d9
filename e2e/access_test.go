//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// TestExecAndLogsNeedRights: exec and logs pass the tenant's own RBAC.
func TestExecAndLogsNeedRights(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ctx := t.Context()
	ns := tn.newNamespace(t, "rights")
	pod := newPod("talker")
	pod.Spec.Containers[0].Command = []string{"sh", "-c", "echo hello; exec sleep 3600"}
	pod.Spec.Containers[0].Args = nil
	tn.start(t, ns, pod)
	if _, err := tn.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "ann"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	token, err := tn.CoreV1().ServiceAccounts(ns).CreateToken(ctx, "ann", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ann := tn.as(t, token.Status.Token)
	grant := func(name string, rule rbacv1.PolicyRule) {
		t.Helper()
		if _, err := tn.RbacV1().Roles(ns).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{rule}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		bind(t, tn.cluster, ns, name, rbacv1.Subject{Kind: "ServiceAccount", Name: "ann", Namespace: ns})
	}
	grant("see", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list"}})
	eventually(t, 10*time.Second, "ann sees the pod", func() error {
		_, err := ann.CoreV1().Pods(ns).Get(ctx, "talker", metav1.GetOptions{})
		return err
	})
	if out, err := ann.exec(ctx, ns, "talker", "true"); err == nil || !isForbidden(err) {
		t.Errorf("exec without the right: got %q, %v, want it to be forbidden", out, err)
	}
	if out, err := ann.logs(ctx, ns, "talker"); !apierrors.IsForbidden(err) {
		t.Errorf("logs without the right: got %q, %v, want it to be forbidden", out, err)
	}
	grant("use", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods/exec", "pods/log"}, Verbs: []string{"get", "create"}})
	eventually(t, 10*time.Second, "ann may exec", func() error {
		out, err := ann.exec(ctx, ns, "talker", "echo", "in")
		if err == nil && out != "in\n" {
			err = fmt.Errorf("got %q", out)
		}
		return err
	})
	if out, err := ann.logs(ctx, ns, "talker"); err != nil || out != "hello\n" {
		t.Errorf("logs with the right: got %q, %v", out, err)
	}
	// The exit code of a command comes through.
	if _, err := ann.exec(ctx, ns, "talker", "sh", "-c", "exit 7"); err == nil || !strings.Contains(err.Error(), "exit code 7") {
		t.Errorf("exit 7: got %v", err)
	}
}

// isForbidden also knows the error of a websocket that was not opened.
func isForbidden(err error) bool {
	return apierrors.IsForbidden(err) || strings.Contains(err.Error(), "forbidden") || strings.Contains(err.Error(), http.StatusText(http.StatusForbidden))
}

// TestOtherTenantsDoNotExist: in a tenant, as its admin, there is no way to name
// another tenant's pod, or the host's.
func TestOtherTenantsDoNotExist(t *testing.T) {
	s := shared(t)
	blue, green := s.sharedTenant(t, "e2e-blue"), s.sharedTenant(t, "e2e-green")
	ctx := t.Context()
	ns := green.newNamespace(t, "victim")
	victim := newPod("victim")
	victim.Spec.Containers[0].Command = []string{"sh", "-c", "echo a secret of green; exec sleep 3600"}
	victim.Spec.Containers[0].Args = nil
	green.start(t, ns, victim)
	host, err := s.hostPod(ctx, green, ns, "victim")
	if err != nil {
		t.Fatal(err)
	}
	// The control: it can be had by its own admin.
	if out, err := green.logs(ctx, ns, "victim"); err != nil || !strings.Contains(out, "a secret of green") {
		t.Fatalf("green's admin cannot read the pod's log: %q, %v", out, err)
	}
	mine := blue.newNamespace(t, "attacker")
	pod := blue.start(t, mine, newPod("mine"))
	// Namespaces of the same names, should anything go by name alone.
	for _, name := range []string{ns, green.namespace} {
		_, err := blue.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	for _, target := range []struct{ namespace, name string }{
		{ns, "victim"}, {ns, host.Name}, {green.namespace, host.Name}, {mine, host.Name},
		{green.namespace, api.ControlPlanePod}, {mine, api.ControlPlanePod}, {"kube-system", "coredns"},
	} {
		if out, err := blue.logs(ctx, target.namespace, target.name); !apierrors.IsNotFound(err) {
			t.Errorf("logs of %v: got %q, %v, want not found", target, out, err)
		}
		if out, err := blue.exec(ctx, target.namespace, target.name, "true"); err == nil || !strings.Contains(err.Error(), "not found") {
			t.Errorf("exec in %v: got %q, %v, want not found", target, out, err)
		}
		// Past the pod, straight to what plays the kubelet.
		for _, path := range []string{
			fmt.Sprintf("/api/v1/nodes/%s/proxy/containerLogs/%s/%s/main", pod.Spec.NodeName, target.namespace, target.name),
			fmt.Sprintf("/api/v1/nodes/%s/proxy/exec/%s/%s/main?command=id&output=1", pod.Spec.NodeName, target.namespace, target.name),
			fmt.Sprintf("/api/v1/nodes/%s/proxy/run/%s/%s/main?cmd=id", pod.Spec.NodeName, target.namespace, target.name),
		} {
			body, err := blue.RESTClient().Get().AbsPath(strings.Split(path, "?")[0]).
				Param("command", "id").Param("output", "1").Do(ctx).Raw()
			if err == nil {
				t.Errorf("GET %s: got %q, want an error", path, body)
			}
		}
	}
	body, err := blue.RESTClient().Get().AbsPath("/api/v1/nodes/" + pod.Spec.NodeName + "/proxy/pods").Do(ctx).Raw()
	if strings.Contains(string(body), "victim") || strings.Contains(string(body), green.namespace+"\"") && strings.Contains(string(body), api.ControlPlanePod) {
		t.Errorf("the node shows pods that are not blue's (%v): %s", err, body)
	}
	node, err := blue.CoreV1().Nodes().Get(ctx, pod.Spec.NodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// By its own address the node is reached for NodePorts, where they are
	// allowed; others are the host's affair.
	for _, address := range node.Status.Addresses {
		if address.Type != corev1.NodeInternalIP && address.Type != corev1.NodeHostName {
			t.Errorf("the tenant sees the address %v", address)
		}
	}
	if len(node.Status.Images) > 0 {
		t.Errorf("the tenant sees the node's images: %v", node.Status.Images)
	}
	pods, err := blue.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		if p.Name == "victim" || p.Name == api.ControlPlanePod {
			t.Errorf("blue sees %s/%s", p.Namespace, p.Name)
		}
	}
}
