//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// TestConnect goes in and out of a tenant as people do, with kubectl, and with a
// kubeconfig of their own.
func TestConnect(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	file := s.copyKubeconfig(t)
	state := []string{"KUBECONFIG=" + file, "XDG_STATE_HOME=" + t.TempDir(), "XDG_RUNTIME_DIR=" + t.TempDir(), "HOME=" + t.TempDir()}
	before, err := clientcmd.LoadFromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	kubectl := func(args ...string) string {
		t.Helper()
		cmd := s.command(t.Context(), s.path(".cache/bin/kubectl"), args...)
		cmd.Env = append(cmd.Env, state...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	kubeSystemUID := func() string {
		return kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
	}
	hostUID := kubeSystemUID()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s.run(t, ctx, state, "disconnect")
	})

	if r := s.subletWith(t, state, "connect", tn.name); r.code != 0 {
		t.Fatalf("connect: %s%s", r.stdout, r.stderr)
	}
	inside, err := tn.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := kubeSystemUID(); got != string(inside.UID) {
		t.Errorf("after connect kubectl is in the cluster %s, want the tenant %s (the host is %s)", got, inside.UID, hostUID)
	}
	if r := s.subletWith(t, state, "list"); r.code != 0 || !regexp.MustCompile(`(?m)^>\s+`+tn.name).MatchString(r.stdout) {
		t.Errorf("while connected, list does not mark the tenant: %s%s", r.stdout, r.stderr)
	}
	if r := s.subletWith(t, state, "disconnect"); r.code != 0 {
		t.Fatalf("disconnect: %s%s", r.stdout, r.stderr)
	}
	if got := kubeSystemUID(); got != hostUID {
		t.Errorf("after disconnect kubectl is in %s, want the host %s", got, hostUID)
	}
	after, err := clientcmd.LoadFromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if after.CurrentContext != before.CurrentContext || len(after.Contexts) != len(before.Contexts) || len(after.AuthInfos) != len(before.AuthInfos) {
		t.Errorf("disconnect leaves contexts %v, current %q; before there were %v, current %q", after.Contexts, after.CurrentContext, before.Contexts, before.CurrentContext)
	}
}

// copyKubeconfig gives the test a kubeconfig of its own to change.
func (s *suite) copyKubeconfig(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(s.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestConnectCommand: a command runs in the tenant, and its exit code comes out.
func TestConnectCommand(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	if r := s.sublet(t, "connect", tn.name, "--", "sh", "-c", "exit 42"); r.code != 42 || r.stderr != "" {
		t.Errorf("exit 42: got exit code %d and %q", r.code, r.stderr)
	}
	if r := s.sublet(t, "connect", tn.name, "--", "no-such-program"); r.code != 127 {
		t.Errorf("a program that is not there: got exit code %d, want 127: %s", r.code, r.stderr)
	}
	out := s.mustSublet(t, "connect", tn.name, "--role", "view", "--", "kubectl", "auth", "can-i", "--list", "-n", "default")
	if !strings.Contains(out, "configmaps") || regexp.MustCompile(`(?m)^secrets\s`).MatchString(out) {
		t.Errorf("with the role view:\n%s", out)
	}
}

// TestObjects: what the commands print for programs is what the API says.
func TestObjects(t *testing.T) {
	s := shared(t)
	tn := s.sharedTenant(t, "e2e-blue")
	var list api.TenantList
	if err := json.Unmarshal([]byte(s.mustSublet(t, "list", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, item := range list.Items {
		if item.Name == tn.name {
			found = true
			if item.Status.Phase != api.PhaseReady || item.Status.Namespace != tn.namespace {
				t.Errorf("list says %+v", item.Status)
			}
		}
	}
	if !found {
		t.Errorf("%s is not listed", tn.name)
	}
	if out := s.mustSublet(t, "describe", tn.name); !strings.Contains(out, tn.name) || !strings.Contains(out, "Ready") {
		t.Errorf("describe says:\n%s", out)
	}
	config, err := clientcmd.Load([]byte(s.mustSublet(t, "kubeconfig", tn.name)))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("https://%s.%s.svc:443", api.ControlPlaneName, tn.namespace)
	if got := config.Clusters[config.Contexts[config.CurrentContext].Cluster].Server; got != want {
		t.Errorf("kubeconfig leads to %s, want %s", got, want)
	}
	if out := s.mustSublet(t, "version"); !strings.Contains(out, "0.1") {
		t.Errorf("version says:\n%s", out)
	}
}

// TestMembers: a person whom a tenant names as a member reaches it with his own
// identity on the host, and nothing else there.
func TestMembers(t *testing.T) {
	s := shared(t)
	ctx := t.Context()
	const name, person = "e2e-members", "e2e-vera"
	s.newTenant(t, name, "--member", "serviceaccount:default/"+person+"=view", "--ephemeral")
	_, err := s.host.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: person}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.host.CoreV1().ServiceAccounts("default").Delete(context.Background(), person, metav1.DeleteOptions{})
	})
	env := []string{"KUBECONFIG=" + s.kubeconfigFor(t, "default", person)}
	r := s.subletWith(t, env, "connect", name, "--", "kubectl", "get", "configmaps", "-A")
	if r.code != 0 {
		t.Errorf("a member cannot look: %s%s", r.stdout, r.stderr)
	}
	if r := s.subletWith(t, env, "connect", name, "--", "kubectl", "create", "configmap", "x"); r.code == 0 || !strings.Contains(r.stderr, "orbidden") {
		t.Errorf("a member with the role view can write: %d %s%s", r.code, r.stdout, r.stderr)
	}
	if r := s.subletWith(t, env, "connect", name, "--role", "admin", "--", "true"); r.code == 0 || !strings.Contains(r.stderr, "admin") {
		t.Errorf("a member with the role view can be admin: %d %s%s", r.code, r.stdout, r.stderr)
	}
	if r := s.subletWith(t, env, "create", "e2e-by-vera"); r.code != 1 || !strings.Contains(r.stderr, "too few rights") {
		t.Errorf("a member of a tenant creates another: %d %s%s", r.code, r.stdout, r.stderr)
	}
	other := s.sharedTenant(t, "e2e-green")
	if r := s.subletWith(t, env, "connect", other.name, "--", "true"); r.code == 0 {
		t.Error("a member of one tenant gets into another")
	}
}

// kubeconfigFor writes a kubeconfig for a ServiceAccount on the host.
func (s *suite) kubeconfigFor(t *testing.T, namespace, account string) string {
	t.Helper()
	host, err := newCluster(s.config)
	if err != nil {
		t.Fatal(err)
	}
	token, err := host.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, tokenRequest(), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.LoadFromFile(s.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	user := config.AuthInfos[config.Contexts[config.CurrentContext].AuthInfo]
	user.ClientCertificateData, user.ClientKeyData, user.Token = nil, nil, token.Status.Token
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestInterruptedCreate: create that is interrupted says so, and goes on when it
// is run again.
func TestInterruptedCreate(t *testing.T) {
	s := shared(t)
	const name = "e2e-interrupted"
	t.Cleanup(func() { s.cleanUp(t, name) })
	cmd := s.command(t.Context(), s.path("bin/sublet"), "create", name, "--ephemeral")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the tenant is being made", func() error {
		return s.objects.Get(t.Context(), namespacedName("", name), &api.Tenant{})
	})
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("Ctrl-C: exit code %d and %q, want 130 and a word of how to go on", code, stderr.String())
	}
	s.mustSublet(t, "create", name, "--ephemeral")
	if out := s.mustSublet(t, "connect", name, "--", "kubectl", "get", "namespaces", "-o", "name"); !strings.Contains(out, "namespace/default") {
		t.Errorf("got %s", out)
	}
	if out := s.mustSublet(t, "create", name, "--ephemeral"); !strings.Contains(out, "exists already") {
		t.Errorf("a third time: %s", out)
	}
}

// TestNamespaceTenant: a plain namespace has its fence, members and quota.
func TestNamespaceTenant(t *testing.T) {
	s := shared(t)
	ctx := t.Context()
	const name = "e2e-plain"
	t.Cleanup(func() { s.cleanUp(t, name) })
	s.mustSublet(t, "create", name, "--type", "Namespace", "--quota", "pods=1,requests.cpu=1,requests.memory=1Gi", "--member", "user:ann=edit")
	host, err := newCluster(s.config)
	if err != nil {
		t.Fatal(err)
	}
	// The pod says nothing of resources: the LimitRange has defaults.
	host.start(t, name, newServer("one"))
	if _, err := s.host.CoreV1().Pods(name).Create(ctx, newPod("two"), metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "exceeded quota") {
		t.Errorf("a second pod: got %v, want it to be over the quota", err)
	}
	bad := newPod("bad")
	bad.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
	if _, err := s.host.CoreV1().Pods(name).Create(ctx, bad, metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "PodSecurity") {
		t.Errorf("a privileged pod: got %v, want it to violate PodSecurity", err)
	}
	hostAPI, err := s.host.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := host.exec(ctx, name, "one", "nc", "-z", "-w", "2", hostAPI.Spec.ClusterIP, "443"); err == nil {
		t.Errorf("the host's API is reached: %s", out)
	}
	if _, err := host.exec(ctx, name, "one", "nc", "-z", "-w", "2", "127.0.0.1", "8080"); err != nil {
		t.Errorf("the control: nc reaches nothing at all: %v", err)
	}
	bindings, err := s.host.RbacV1().RoleBindings(name).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bound := false
	for _, binding := range bindings.Items {
		for _, subject := range binding.Subjects {
			bound = bound || subject.Kind == "User" && subject.Name == "ann" && binding.RoleRef.Name == "edit"
		}
	}
	if !bound {
		t.Errorf("ann has no role: %+v", bindings.Items)
	}
	if r := s.sublet(t, "delete", name, "--yes"); r.code != 0 {
		t.Fatalf("delete: %s%s", r.stdout, r.stderr)
	}
	s.nothingLeft(t, name)
}

// TestBadInput: each mistake gets its exit code and a word of what to do, and
// makes nothing.
func TestBadInput(t *testing.T) {
	s := shared(t)
	blue := s.sharedTenant(t, "e2e-blue")
	ctx := t.Context()
	foreign, err := s.host.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-foreign-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.host.CoreV1().Namespaces().Delete(context.Background(), foreign.Name, metav1.DeleteOptions{})
	})
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	config, err := clientcmd.LoadFromFile(s.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, cluster := range config.Clusters {
		cluster.Server = "https://127.0.0.1:1"
	}
	if err := clientcmd.WriteToFile(*config, nowhere); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		args []string
		env  []string
		code int
		// says are what standard error has in it, in any case of letters.
		says []string
		// makes is the tenant that must not be there afterwards.
		makes string
	}{
		"invalid name":         {args: []string{"create", "Not_A_Name"}, code: 2, says: []string{"Not_A_Name", "not-a-name"}},
		"name too long":        {args: []string{"create", strings.Repeat("a", 41)}, code: 2, says: []string{"at most 40"}, makes: strings.Repeat("a", 41)},
		"no name":              {args: []string{"create"}, code: 2, says: []string{"name"}},
		"unknown command":      {args: []string{"craete"}, code: 2, says: []string{"create"}},
		"unknown flag":         {args: []string{"list", "--frmat"}, code: 2, says: []string{"--help"}},
		"name that is taken":   {args: []string{"create", blue.name, "--type", "Namespace"}, code: 1, says: []string{"taken", "spec.type"}},
		"reserved namespace":   {args: []string{"create", "kube-system"}, code: 2, says: []string{"kube-system"}, makes: "kube-system"},
		"foreign namespace":    {args: []string{"create", foreign.Name}, code: 1, says: []string{foreign.Name, "exists already", "--namespace"}, makes: foreign.Name},
		"unknown tenant":       {args: []string{"connect", "e2e-bleu"}, code: 1, says: []string{`"e2e-bleu"`, "did you mean", "e2e-blue"}},
		"delete of an unknown": {args: []string{"delete", "e2e-bleu", "--yes"}, code: 1, says: []string{`"e2e-bleu"`, "e2e-blue"}},
		"unknown storage":      {args: []string{"create", "e2e-bad", "--storage-class", "none-such"}, code: 1, says: []string{"storage class", "none-such", "--ephemeral"}, makes: "e2e-bad"},
		"unknown version":      {args: []string{"create", "e2e-bad", "--version", "1.12"}, code: 2, says: []string{"1.12", "1.36"}, makes: "e2e-bad"},
		"quota that is none":   {args: []string{"create", "e2e-bad", "--quota", "cpu=many"}, code: 2, says: []string{"many", "amount"}, makes: "e2e-bad"},
		"unreachable host":     {args: []string{"list"}, env: []string{"KUBECONFIG=" + nowhere}, code: 1, says: []string{"cannot be reached", "127.0.0.1:1"}},
		"no kubeconfig":        {args: []string{"list"}, env: []string{"KUBECONFIG=/nonexistent", "HOME=/nonexistent"}, code: 1, says: []string{"kubeconfig"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			limit, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			r := s.run(t, limit, c.env, c.args...)
			if r.code != c.code {
				t.Errorf("exit code %d, want %d: %s%s", r.code, c.code, r.stdout, r.stderr)
			}
			for _, want := range c.says {
				if !strings.Contains(strings.ToLower(r.stderr), strings.ToLower(want)) {
					t.Errorf("it does not say %q:\n%s", want, r.stderr)
				}
			}
			if strings.Contains(r.stderr, "panic") || strings.Contains(r.stderr, "goroutine") {
				t.Errorf("it fell over:\n%s", r.stderr)
			}
			if c.makes != "" {
				if err := s.objects.Get(ctx, namespacedName("", c.makes), &api.Tenant{}); !apierrors.IsNotFound(err) {
					t.Errorf("it made the tenant: %v", err)
				}
			}
		})
	}
}

// TestHopelessTenants: what cannot work says why, in the command and in the
// tenant's conditions, and can be deleted.
func TestHopelessTenants(t *testing.T) {
	s := shared(t)
	cases := map[string]struct {
		flags []string
		says  []string
	}{
		"e2e-no-image":    {[]string{"--image", "sublet.invalid/subletd:none", "--ephemeral"}, []string{"sublet.invalid/subletd:none", "describe"}},
		"e2e-small-quota": {[]string{"--quota", "pods=0", "--ephemeral"}, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { s.cleanUp(t, name) })
			r := s.sublet(t, append([]string{"create", name, "--timeout", "40s"}, c.flags...)...)
			if c.says == nil {
				// The control plane does not count against its tenant's quota.
				if r.code != 0 {
					t.Errorf("exit code %d: %s%s", r.code, r.stdout, r.stderr)
				}
				return
			}
			if r.code != 1 {
				t.Errorf("exit code %d, want 1: %s%s", r.code, r.stdout, r.stderr)
			}
			for _, want := range c.says {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("it does not say %q:\n%s", want, r.stderr)
				}
			}
			var object api.Tenant
			if err := s.objects.Get(t.Context(), namespacedName("", name), &object); err != nil {
				t.Fatal(err)
			}
			if object.Status.Phase == api.PhaseReady {
				t.Error("the tenant says that it is ready")
			}
			if r := s.sublet(t, "delete", name, "--yes"); r.code != 0 {
				t.Errorf("delete: %s%s", r.stdout, r.stderr)
			}
			s.nothingLeft(t, name)
		})
	}
}

// TestCorruptData: a control plane whose data cannot be read says so, and does
// not start over with nothing.
func TestCorruptData(t *testing.T) {
	s := shared(t)
	s.onLocalHost(t)
	ctx := t.Context()
	tn := s.newTenant(t, "e2e-corrupt")
	ns := tn.newNamespace(t, "kept")
	if _, err := tn.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "precious"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod, err := s.host.CoreV1().Pods(tn.namespace).Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pid := s.processOf(t, string(pod.UID), "subletd")
	database := ""
	root := fmt.Sprintf("/proc/%d/root/var/lib/sublet", pid)
	err = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Name() == "db" {
			database = path
		}
		return err
	})
	if err != nil || database == "" {
		t.Fatalf("no database below %s: %v", root, err)
	}
	// Both copies of what tells where the data is.
	file, err := os.OpenFile(database, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	original := make([]byte, 8192)
	if _, err := file.ReadAt(original, 0); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(make([]byte, len(original)), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the control plane says what is wrong", func() error {
		pod, err := s.host.CoreV1().Pods(tn.namespace).Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
		if err != nil {
			return err
		}
		status := pod.Status.ContainerStatuses[0]
		if status.Ready {
			return errors.New("it is ready")
		}
		if status.RestartCount < 1 || status.LastTerminationState.Terminated == nil {
			return errors.New("it was not started again")
		}
		logs, err := s.host.CoreV1().Pods(tn.namespace).GetLogs(api.ControlPlanePod, &corev1.PodLogOptions{Previous: status.State.Running == nil}).DoRaw(ctx)
		if err != nil {
			return err
		}
		if !strings.Contains(string(logs), "/var/lib/sublet") {
			return fmt.Errorf("its log does not name the directory: %s", logs)
		}
		if strings.Contains(string(logs), "goroutine ") {
			return fmt.Errorf("it fell over: %s", logs)
		}
		return nil
	})
	if _, err := file.WriteAt(original, 0); err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	eventually(t, 90*time.Second, "with the data mended it goes on, and has lost nothing", func() error {
		_, err := tn.CoreV1().ConfigMaps(ns).Get(ctx, "precious", metav1.GetOptions{})
		return err
	})
}
