//go:build linux

package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// TestInClusterConfig: a program in a pod finds its API server and is who its
// ServiceAccount says, with the rights that RBAC in the tenant gives it.
func TestInClusterConfig(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ctx := t.Context()
	ns := tn.newNamespace(t, "token")
	if _, err := tn.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "reader"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := newPod("reader")
	pod.Spec.ServiceAccountName = "reader"
	pod.Spec.Volumes = []corev1.Volume{{Name: "tokens", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "vault", Audience: "vault", ExpirationSeconds: ptr.To[int64](700)}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "bank", Audience: "bank", ExpirationSeconds: ptr.To[int64](1400)}},
		}}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "tokens", MountPath: "/tokens", ReadOnly: true}}
	pod = tn.start(t, ns, pod)

	list := `cd /var/run/secrets/kubernetes.io/serviceaccount
		curl -sS --max-time 10 --cacert ca.crt -H "Authorization: Bearer $(cat token)" -w '\n%{http_code}' https://kubernetes.default.svc/api/v1/namespaces/$(cat namespace)/pods`
	body, code := cutLast(tn.sh(t, ns, "reader", list))
	if code != "403" || !strings.Contains(body, "system:serviceaccount:"+ns+":reader") {
		t.Errorf("without a role: got %s %s, want 403 and the name of the ServiceAccount", code, body)
	}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "reader"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}}}}
	if _, err := tn.RbacV1().Roles(ns).Create(ctx, role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bind(t, tn.cluster, ns, "reader", rbacv1.Subject{Kind: "ServiceAccount", Name: "reader", Namespace: ns})
	eventually(t, 10*time.Second, "the role counts", func() error {
		body, code = cutLast(tn.sh(t, ns, "reader", list))
		if code != "200" {
			return fmt.Errorf("got %s %s", code, body)
		}
		return nil
	})
	var pods corev1.PodList
	if err := json.Unmarshal([]byte(body), &pods); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if len(pods.Items) != 1 || pods.Items[0].UID != pod.UID {
		t.Errorf("the pod sees %d pods, want itself: %s", len(pods.Items), body)
	}

	for audience, lifetime := range map[string]time.Duration{"vault": 700 * time.Second, "bank": 1400 * time.Second} {
		got := decodeToken(t, tn.sh(t, ns, "reader", "cat /tokens/"+audience))
		if !slices.Equal(got.Audience, []string{audience}) || got.Subject != "system:serviceaccount:"+ns+":reader" {
			t.Errorf("token for %s: audience %v, subject %q", audience, got.Audience, got.Subject)
		}
		if got.Kubernetes.Pod.Name != "reader" || got.Kubernetes.Pod.UID != pod.UID {
			t.Errorf("token for %s is bound to pod %+v, want %s %s", audience, got.Kubernetes.Pod, pod.Name, pod.UID)
		}
		if is := time.Duration(got.Expires-got.IssuedAt) * time.Second; is != lifetime {
			t.Errorf("token for %s lives %v, want %v", audience, is, lifetime)
		}
	}
}

type tokenClaims struct {
	Audience   []string `json:"aud"`
	Subject    string   `json:"sub"`
	IssuedAt   int64    `json:"iat"`
	Expires    int64    `json:"exp"`
	Kubernetes struct {
		Pod struct {
			Name string    `json:"name"`
			UID  types.UID `json:"uid"`
		} `json:"pod"`
	} `json:"kubernetes.io"`
}

func decodeToken(t *testing.T, token string) tokenClaims {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("not a token: %q", token)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims tokenClaims
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// cutLast splits off the last line.
func cutLast(s string) (before, last string) {
	if i := strings.LastIndex(s, "\n"); i >= 0 {
		return s[:i], s[i+1:]
	}
	return "", s
}

func bind(t *testing.T, c *cluster, namespace, role string, subject rbacv1.Subject) {
	t.Helper()
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: role + "-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
		Subjects:   []rbacv1.Subject{subject},
	}
	if _, err := c.RbacV1().RoleBindings(namespace).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestEnvironmentOfServices: service links show the tenant's Services, and
// $(VARIABLE) finds them.
func TestEnvironmentOfServices(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ctx := t.Context()
	ns := tn.newNamespace(t, "env")
	service, err := tn.CoreV1().Services(ns).Create(ctx, newService("my-database"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kubernetes, err := tn.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	linked := newPod("linked")
	linked.Spec.Containers[0].Env = []corev1.EnvVar{
		{Name: "URL", Value: "http://$(MY_DATABASE_SERVICE_HOST):$(MY_DATABASE_SERVICE_PORT)"},
		{Name: "MY_DATABASE_PORT_80_TCP_PROTO", Value: "mine"},
	}
	unlinked := newPod("unlinked")
	unlinked.Spec.EnableServiceLinks = ptr.To(false)
	if _, err := tn.CoreV1().Pods(ns).Create(ctx, unlinked, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	tn.start(t, ns, linked)
	tn.ready(t, ns, "unlinked")

	env := environment(tn.sh(t, ns, "linked", "env"))
	for name, want := range map[string]string{
		"MY_DATABASE_SERVICE_HOST":      service.Spec.ClusterIP,
		"MY_DATABASE_SERVICE_PORT":      "80",
		"MY_DATABASE_SERVICE_PORT_HTTP": "80",
		"MY_DATABASE_PORT_80_TCP_ADDR":  service.Spec.ClusterIP,
		"MY_DATABASE_PORT_80_TCP_PROTO": "mine",
		"URL":                           "http://" + service.Spec.ClusterIP + ":80",
		"KUBERNETES_SERVICE_HOST":       kubernetes.Spec.ClusterIP,
		"KUBERNETES_SERVICE_PORT":       "443",
	} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
	env = environment(tn.sh(t, ns, "unlinked", "env"))
	if _, there := env["MY_DATABASE_SERVICE_HOST"]; there {
		t.Error("enableServiceLinks: false, and yet there are links")
	}
	if env["KUBERNETES_SERVICE_HOST"] != kubernetes.Spec.ClusterIP {
		t.Errorf("KUBERNETES_SERVICE_HOST is %q, want %q", env["KUBERNETES_SERVICE_HOST"], kubernetes.Spec.ClusterIP)
	}
	for name := range env {
		if strings.HasPrefix(name, "SUBLET") {
			t.Errorf("the pod sees the host's Service in %s", name)
		}
	}
}

func environment(text string) map[string]string {
	env := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		env[name] = value
	}
	return env
}

// TestDownwardAPI: everything that a pod learns of itself is as the tenant has it.
func TestDownwardAPI(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ns := tn.newNamespace(t, "downward")
	pod := newPod("self")
	pod.Labels["color"] = "blue"
	pod.Annotations = map[string]string{"note": "hello"}
	for name, path := range map[string]string{
		"NAME": "metadata.name", "NAMESPACE": "metadata.namespace", "POD_UID": "metadata.uid", "COLOR": "metadata.labels['color']",
		"NOTE": "metadata.annotations['note']", "ACCOUNT": "spec.serviceAccountName", "NODE": "spec.nodeName", "IP": "status.podIP",
	} {
		pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, corev1.EnvVar{
			Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}})
	}
	pod.Spec.Volumes = []corev1.Volume{{Name: "self", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
		{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}},
		{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}},
		{Path: "uid", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.uid"}},
		{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
	}}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "self", MountPath: "/self", ReadOnly: true}}
	pod = tn.start(t, ns, pod)

	env := environment(tn.sh(t, ns, "self", "env"))
	for name, want := range map[string]string{
		"NAME": "self", "NAMESPACE": ns, "POD_UID": string(pod.UID), "COLOR": "blue", "NOTE": "hello",
		"ACCOUNT": "default", "NODE": pod.Spec.NodeName, "IP": pod.Status.PodIP, "HOSTNAME": "self",
	} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
	for file, want := range map[string]string{
		"name": "self", "namespace": ns, "uid": string(pod.UID), "labels": "app=\"self\"\ncolor=\"blue\"",
	} {
		if got := tn.sh(t, ns, "self", "cat /self/"+file); got != want {
			t.Errorf("file %s is %q, want %q", file, got, want)
		}
	}
	if _, err := tn.CoreV1().Nodes().Get(t.Context(), pod.Spec.NodeName, metav1.GetOptions{}); err != nil {
		t.Errorf("the pod's node is not in the tenant: %v", err)
	}

	patch := []byte(`{"metadata":{"labels":{"color":"red"}}}`)
	if _, err := tn.CoreV1().Pods(ns).Patch(t.Context(), "self", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	// The kubelet looks at its volumes about once a minute.
	eventually(t, 2*time.Minute, "a change of labels reaches the file", func() error {
		if got := tn.sh(t, ns, "self", "cat /self/labels"); !strings.Contains(got, `color="red"`) {
			return errors.New(got)
		}
		return nil
	})
}

// TestStatefulSetNames: the pods of a headless StatefulSet are found by their
// names, and know them.
func TestStatefulSetNames(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ctx := t.Context()
	ns := tn.newNamespace(t, "names")
	service := newService("db")
	service.Spec.ClusterIP = corev1.ClusterIPNone
	if _, err := tn.CoreV1().Services(ns).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	server := newServer("db")
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			ServiceName:         "db",
			Replicas:            ptr.To[int32](2),
			PodManagementPolicy: appsv1.ParallelPodManagement,
			Selector:            &metav1.LabelSelector{MatchLabels: server.Labels},
			Template:            corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: server.Labels}, Spec: server.Spec},
		},
	}
	if _, err := tn.AppsV1().StatefulSets(ns).Create(ctx, set, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	tn.start(t, ns, newPod("client"))
	for _, name := range []string{"db-0", "db-1"} {
		pod := tn.ready(t, ns, name)
		for _, host := range []string{name + ".db", name + ".db." + ns + ".svc.cluster.local"} {
			eventually(t, 30*time.Second, host+" resolves", func() error {
				got, err := tn.exec(ctx, ns, "client", "curl", "-sS", "--max-time", "5", "http://"+host+":8080/hostname")
				if err != nil {
					return err
				}
				if strings.TrimSpace(got) != name {
					return fmt.Errorf("answered as %q, want %q", got, name)
				}
				return nil
			})
		}
		fqdn := name + ".db." + ns + ".svc.cluster.local"
		if got := tn.sh(t, ns, name, "hostname"); got != name {
			t.Errorf("hostname of %s is %q", name, got)
		}
		if got := tn.sh(t, ns, "client", "dig +short "+fqdn); got != pod.Status.PodIP {
			t.Errorf("%s is %q, want the address %s of its pod", fqdn, got, pod.Status.PodIP)
		}
	}
	full := newPod("full")
	full.Spec.Hostname, full.Spec.Subdomain, full.Spec.SetHostnameAsFQDN = "me", "db", ptr.To(true)
	tn.start(t, ns, full)
	if got, want := tn.sh(t, ns, "full", "hostname"), "me.db."+ns+".svc.cluster.local"; got != want {
		t.Errorf("with setHostnameAsFQDN hostname is %q, want %q", got, want)
	}
}

// TestClusterIP: a Service has one address, on both sides; it is reached by name,
// and survives updates.
func TestClusterIP(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ctx := t.Context()
	ns := tn.newNamespace(t, "service")
	service, err := tn.CoreV1().Services(ns).Create(ctx, newService("web"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if service.Spec.ClusterIP == "" {
		t.Fatal("a Service was created without an address")
	}
	onHost := func() (*corev1.Service, error) {
		list, err := s.host.CoreV1().Services(tn.namespace).List(ctx, metav1.ListOptions{LabelSelector: api.LabelVirtualNamespace + "=" + ns})
		if err != nil {
			return nil, err
		}
		for _, svc := range list.Items {
			if svc.Annotations[api.AnnotationVirtualName] == "web" {
				return &svc, nil
			}
		}
		return nil, errors.New("the host has no such Service")
	}
	var hostService *corev1.Service
	eventually(t, 10*time.Second, "the Service is on the host", func() (err error) { hostService, err = onHost(); return err })
	if hostService.Spec.ClusterIP != service.Spec.ClusterIP {
		t.Errorf("the address is %s in the tenant and %s on the host", service.Spec.ClusterIP, hostService.Spec.ClusterIP)
	}
	tn.start(t, ns, newServer("web"))
	tn.start(t, ns, newPod("client"))
	eventually(t, 20*time.Second, "the Service answers by its name", func() error {
		got, err := tn.exec(ctx, ns, "client", "curl", "-sS", "--max-time", "5", "http://web/hostname")
		if err == nil && got != "web" {
			err = fmt.Errorf("answered %q", got)
		}
		return err
	})
	if got := tn.sh(t, ns, "client", "dig +short +search web"); got != service.Spec.ClusterIP {
		t.Errorf("web resolves to %q, want %s", got, service.Spec.ClusterIP)
	}
	service, err = tn.CoreV1().Services(ns).Patch(ctx, "web", types.MergePatchType, []byte(`{"spec":{"ports":[{"name":"http","port":81,"targetPort":"http"}]}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "a change of ports counts", func() error {
		_, err := tn.exec(ctx, ns, "client", "curl", "-sS", "--max-time", "5", "http://web:81/hostname")
		return err
	})
	if hostService, err = onHost(); err != nil || hostService.Spec.ClusterIP != service.Spec.ClusterIP {
		t.Errorf("after a change the address is %s in the tenant and %v (%v) on the host", service.Spec.ClusterIP, hostService, err)
	}
	if err := tn.CoreV1().Services(ns).Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the host's Service goes, too", func() error {
		if _, err := onHost(); err == nil {
			return errors.New("it is still there")
		}
		return nil
	})
}

// TestPodComesBack: a pod deleted on the host, behind the tenant's back, comes
// back as its Deployment wants.
func TestPodComesBack(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ctx := t.Context()
	ns := tn.newNamespace(t, "back")
	server := newServer("web")
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](1),
			Selector: &metav1.LabelSelector{MatchLabels: server.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: server.Labels}, Spec: server.Spec},
		},
	}
	if _, err := tn.AppsV1().Deployments(ns).Create(ctx, deployment, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	one := func(not types.UID) (*corev1.Pod, *corev1.Pod) {
		var virtual, host *corev1.Pod
		eventually(t, time.Minute, "one pod is ready, on both sides", func() error {
			pods, err := tn.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			if len(pods.Items) != 1 || !podReady(&pods.Items[0]) {
				return fmt.Errorf("%d pods", len(pods.Items))
			}
			virtual = &pods.Items[0]
			if host, err = s.hostPod(ctx, tn, ns, virtual.Name); err != nil {
				return err
			}
			if host.UID == not {
				return errors.New("the host still has the pod that was deleted")
			}
			return nil
		})
		return virtual, host
	}
	_, before := one("")
	if err := s.host.CoreV1().Pods(tn.namespace).Delete(ctx, before.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	virtual, after := one(before.UID)
	if !podReady(after) {
		t.Errorf("the tenant says that %s is ready, and the host does not: %s", virtual.Name, describeStatus(after))
	}
}

// TestStatusIsTrue: what the tenant says of its pods is what the host says.
func TestStatusIsTrue(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	ns := tn.newNamespace(t, "status")
	pod := newPod("once", "--help")
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	pod.Spec.Containers[0].Command = []string{"sh", "-c", "echo done; exit 3"}
	pod.Spec.Containers[0].Args = nil
	if _, err := tn.CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the pod has failed", func() error {
		got, err := tn.CoreV1().Pods(ns).Get(t.Context(), "once", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got.Status.Phase != corev1.PodFailed {
			return fmt.Errorf("phase %s", got.Status.Phase)
		}
		if state := got.Status.ContainerStatuses[0].State.Terminated; state == nil || state.ExitCode != 3 {
			return fmt.Errorf("state %+v", got.Status.ContainerStatuses[0].State)
		}
		return nil
	})
	if got, err := tn.logs(t.Context(), ns, "once"); err != nil || got != "done\n" {
		t.Errorf("logs: %q, %v", got, err)
	}
	eventually(t, 30*time.Second, "the tenant sees the kubelet's events, with its own names", func() error {
		events, err := tn.CoreV1().Events(ns).List(context.Background(), metav1.ListOptions{FieldSelector: "involvedObject.name=once,reason=Started"})
		if err == nil && len(events.Items) == 0 {
			err = errors.New("none")
		}
		return err
	})
	if err := tn.CoreV1().Pods(ns).Delete(t.Context(), "once", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the pod is gone on both sides", func() error {
		if _, err := tn.CoreV1().Pods(ns).Get(t.Context(), "once", metav1.GetOptions{}); err == nil {
			return errors.New("it is in the tenant")
		}
		if _, err := s.hostPod(t.Context(), tn, ns, "once"); !errors.Is(err, errNoHostPod) {
			return fmt.Errorf("on the host: %w", err)
		}
		return nil
	})
}
