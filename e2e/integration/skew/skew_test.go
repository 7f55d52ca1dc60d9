package skew_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

const space = "default"

// TestSkew: what crosses does so between versions; what one side does not know
// makes nobody write for ever, and is told where it matters.
func TestSkew(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a host and a tenant")
	}
	p := startPlanes(t)
	p.runNode(t)
	t.Run("workload", p.testWorkload)
	t.Run("fence", p.testFence)
	t.Run("unknown to the host", p.testUnknownToHost)
	t.Run("quiet", p.testQuiet)
	t.Run("served version", p.testServedVersion)
	t.Run("deletion", p.testDeletion)
}

func (p *planes) hostPod(name string) func(context.Context) (*corev1.Pod, error) {
	return func(ctx context.Context) (*corev1.Pod, error) {
		return p.host.CoreV1().Pods(tenantName).Get(ctx, translate.HostName(space, name), metav1.GetOptions{})
	}
}

func (p *planes) virtualPod(name string) func(context.Context) (*corev1.Pod, error) {
	return func(ctx context.Context) (*corev1.Pod, error) {
		return p.virtual.CoreV1().Pods(space).Get(ctx, name, metav1.GetOptions{})
	}
}

// workload is what a pod commonly needs.
const workload = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {password: hunter2}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  storageClassName: fast
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  type: NodePort
  selector: {app: shop}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
      - name: main
        image: busybox
        envFrom: [{configMapRef: {name: settings}}]
        resources: {requests: {cpu: 100m}}
        volumeMounts: [{name: data, mountPath: /data}, {name: password, mountPath: /password}]
      volumes:
      - {name: data, persistentVolumeClaim: {claimName: data}}
      - {name: password, secret: {secretName: password}}
`

func (p *planes) testWorkload(t *testing.T) {
	ctx := t.Context()
	if out, err := p.kubectl(t, workload, "apply", "--server-side", "-f", "-"); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	waitFor(t, "the Deployment is available", func(ctx context.Context) (*appsv1.Deployment, error) {
		return p.virtual.AppsV1().Deployments(space).Get(ctx, "shop", metav1.GetOptions{})
	}, func(d *appsv1.Deployment) bool { return d.Status.AvailableReplicas == 2 })
	if out, err := p.kubectl(t, "", "rollout", "status", "deployment/shop", "--timeout=10s"); err != nil {
		t.Errorf("kubectl rollout status: %v\n%s", err, out)
	}

	for name, check := range map[string]func() (string, error){
		"configmap": func() (string, error) {
			c, err := p.host.CoreV1().ConfigMaps(tenantName).Get(ctx, translate.HostName(space, "settings"), metav1.GetOptions{})
			return c.Data["color"], err
		},
		"secret": func() (string, error) {
			s, err := p.host.CoreV1().Secrets(tenantName).Get(ctx, translate.HostName(space, "password"), metav1.GetOptions{})
			return string(s.Data["password"]), err
		},
	} {
		if got, err := check(); err != nil || got != "blue" && got != "hunter2" {
			t.Errorf("%s on the host: %q, %v", name, got, err)
		}
	}
	waitFor(t, "the claim is bound", func(ctx context.Context) (*corev1.PersistentVolumeClaim, error) {
		return p.virtual.CoreV1().PersistentVolumeClaims(space).Get(ctx, "data", metav1.GetOptions{})
	}, func(c *corev1.PersistentVolumeClaim) bool {
		return c.Status.Phase == corev1.ClaimBound && c.Status.Capacity.Storage().Cmp(resource.MustParse("1Gi")) == 0
	})
	virtual, err := p.virtual.CoreV1().Services(space).Get(ctx, "shop", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	host, err := p.host.CoreV1().Services(tenantName).Get(ctx, translate.HostName(space, "shop"), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if virtual.Spec.ClusterIP == "" || virtual.Spec.ClusterIP != host.Spec.ClusterIP || virtual.Spec.Ports[0].NodePort != host.Spec.Ports[0].NodePort {
		t.Errorf("the Service has %s and port %d in the tenant, %s and %d on the host",
			virtual.Spec.ClusterIP, virtual.Spec.Ports[0].NodePort, host.Spec.ClusterIP, host.Spec.Ports[0].NodePort)
	}

	// An event of the host's pod shows in the tenant.
	pods, err := p.virtual.CoreV1().Pods(space).List(ctx, metav1.ListOptions{LabelSelector: "app=shop"})
	if err != nil || len(pods.Items) != 2 {
		t.Fatalf("%d pods, %v", len(pods.Items), err)
	}
	name := pods.Items[0].Name
	hostPod, err := p.hostPod(name)(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.host.CoreV1().Events(tenantName).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: "pulled-", Namespace: tenantName},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: tenantName, Name: hostPod.Name, UID: hostPod.UID},
		Reason:         "Pulled", Message: "Pulled for " + hostPod.Name, Type: corev1.EventTypeNormal,
		FirstTimestamp: metav1.Now(), LastTimestamp: metav1.Now(), Count: 1,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.waitForEvent(t, name, "Pulled", name)
}

func (p *planes) waitForEvent(t *testing.T, about, reason string, texts ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("an event %s about %s", reason, about), func(ctx context.Context) error {
		events, err := p.virtual.CoreV1().Events(space).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		var have []string
		for _, event := range events.Items {
			if event.InvolvedObject.Name != about {
				continue
			}
			have = append(have, event.Reason+": "+event.Message)
			if event.Reason == reason && !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(event.Message, text) }) {
				return nil
			}
		}
		return fmt.Errorf("only %q", have)
	})
}

// testFence: the admission policies are in force, whatever the host's CEL knows,
// and the host keeps no policy with a warning about its expressions.
func (p *planes) testFence(t *testing.T) {
	ctx := t.Context()
	policies, err := p.host.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=sublet"})
	if err != nil {
		t.Fatal(err)
	}
	if len(policies.Items) == 0 {
		t.Error("no admission policy is installed")
	}
	for _, policy := range policies.Items {
		waitFor(t, "the host has checked the types in "+policy.Name, func(ctx context.Context) (metav1.Object, error) {
			p, err := p.host.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(ctx, policy.Name, metav1.GetOptions{})
			if err == nil && p.Status.ObservedGeneration != p.Generation {
				err = fmt.Errorf("observed generation %d of %d", p.Status.ObservedGeneration, p.Generation)
			}
			if err == nil && p.Status.TypeChecking != nil {
				for _, warning := range p.Status.TypeChecking.ExpressionWarnings {
					t.Errorf("%s: %s: %s", p.Name, warning.FieldRef, warning.Warning)
				}
			}
			return p, err
		}, nil)
	}
	tests := map[string]struct {
		do     func() error
		reason string
	}{
		"LoadBalancer": {
			do: func() error {
				_, err := p.host.CoreV1().Services(tenantName).Create(ctx, &corev1.Service{
					ObjectMeta: metav1.ObjectMeta{Name: "balancer"},
					Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}},
				}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
				return err
			},
			reason: "the tenant's limits name two other types",
		},
		"namespace": {
			do: func() error {
				_, err := p.host.CoreV1().Namespaces().Patch(ctx, tenantName, types.MergePatchType, []byte(`{"metadata":{"labels":{"`+api.LabelTenant+`":"other"}}}`), metav1.PatchOptions{})
				return err
			},
			reason: "what ties a namespace to its tenant is the manager's",
		},
		"control plane": {
			do: func() error {
				return p.host.CoreV1().ConfigMaps(tenantName).Delete(ctx, api.ControlPlaneName, metav1.DeleteOptions{})
			},
			reason: "what the manager makes is the manager's",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			// A policy counts shortly after it was made.
			eventually(t, "it is refused, as "+tc.reason, func(context.Context) error {
				if err := tc.do(); !apierrors.IsForbidden(err) {
					return fmt.Errorf("answered %v", err)
				}
				return nil
			})
		})
	}
	// The host's own controllers get through.
	eventually(t, "the quotas are counted", func(ctx context.Context) error {
		quotas, err := p.host.CoreV1().ResourceQuotas(tenantName).List(ctx, metav1.ListOptions{})
		if err == nil && len(quotas.Items) == 0 {
			err = errors.New("there is none")
		}
		for _, quota := range quotas.Items {
			if len(quota.Status.Hard) == 0 {
				err = errors.Join(err, fmt.Errorf("%s has no status", quota.Name))
			}
		}
		return err
	})
	_, err = p.host.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "balancer"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		t.Errorf("outside of tenants it is allowed, but: %v", err)
	}
}

func newPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: space},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "busybox"}}},
	}
}

// testUnknownToHost: pods with fields that the host does not know run without
// them, or do not, and the tenant is told.
func (p *planes) testUnknownToHost(t *testing.T) {
	// since is the version that has a field, by default.
	tests := map[string]struct {
		since  string
		set    func(*corev1.PodSpec)
		reason string
		texts  []string
		runs   bool
	}{
		"a field that changes little": {
			since:  "1.35",
			set:    func(spec *corev1.PodSpec) { spec.HostnameOverride = ptr.To("db.example.com") },
			reason: "HostDropped", texts: []string{"spec.hostnameOverride"}, runs: true,
		},
		"resources of the whole pod": {
			since: "1.34",
			set: func(spec *corev1.PodSpec) {
				spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}}
			},
			reason: "HostDropped", texts: []string{"spec.resources"}, runs: true,
		},
		"a field that others depend on": {
			since: "1.35",
			set: func(spec *corev1.PodSpec) {
				always := corev1.ContainerRestartPolicyOnFailure
				spec.Containers[0].RestartPolicy = &always
			},
			reason: "HostRefused", texts: []string{"restartPolicy"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			since := version.MustParse(tc.since)
			if p.virtualVersion.LessThan(since) {
				// It does not get as far as the host; see testServedVersion.
				return
			}
			pod := newPod("unknown-" + strings.ReplaceAll(name, " ", "-"))
			tc.set(&pod.Spec)
			if _, err := p.virtual.CoreV1().Pods(space).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if p.hostVersion.LessThan(since) {
				p.waitForEvent(t, pod.Name, tc.reason, tc.texts...)
			}
			if tc.runs || p.hostVersion.AtLeast(since) {
				waitFor(t, "the pod runs", p.virtualPod(pod.Name), func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodRunning })
				return
			}
			virtual, err := p.virtualPod(pod.Name)(t.Context())
			if err != nil || virtual.Status.Phase != corev1.PodPending {
				t.Errorf("the refused pod is %v, %v", virtual.Status.Phase, err)
			}
			// It would be tried again, and rightly.
			if err := p.virtual.CoreV1().Pods(space).Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
			gone(t, "the refused pod", p.virtualPod(pod.Name))
		})
	}
}

// testQuiet: however often the syncer looks at objects of which one side keeps
// less than the other, it writes nothing.
func (p *planes) testQuiet(t *testing.T) {
	ctx := t.Context()
	// The reason for the test: one side has what the other does not keep.
	pods, err := p.virtual.CoreV1().Pods(space).List(ctx, metav1.ListOptions{LabelSelector: "app=shop"})
	if err != nil || len(pods.Items) == 0 {
		t.Fatalf("%d pods, %v", len(pods.Items), err)
	}
	knows := p.virtualVersion.AtLeast(version.MustParse("1.36")) && p.hostVersion.AtLeast(version.MustParse("1.36"))
	if has := pods.Items[0].Status.AllocatedResources != nil; has != knows {
		t.Errorf("pod in the tenant: allocatedResources %v", pods.Items[0].Status.AllocatedResources)
	}

	settle := func(what string) (host, virtual map[string]int) {
		eventually(t, what, func(context.Context) error {
			host, virtual = p.hostWrites.all(), p.virtualWrites.all()
			time.Sleep(time.Second)
			if h, v := p.hostWrites.all(), p.virtualWrites.all(); !maps.Equal(host, h) || !maps.Equal(virtual, v) {
				return fmt.Errorf("written in the last second: on the host %v, in the tenant %v", more(host, h), more(virtual, v))
			}
			return nil
		})
		return host, virtual
	}
	host, virtual := settle("the syncer has nothing to do")
	for i := range 10 {
		note := fmt.Appendf(nil, `{"metadata":{"annotations":{"example.com/look":"%d"}}}`, i)
		for _, pod := range pods.Items {
			if _, err := p.host.CoreV1().Pods(tenantName).Patch(ctx, translate.HostName(space, pod.Name), types.MergePatchType, note, metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.host.CoreV1().Nodes().Patch(ctx, nodeName, types.MergePatchType, note, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.host.CoreV1().PersistentVolumeClaims(tenantName).Patch(ctx, translate.HostName(space, "data"), types.MergePatchType, note, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.host.CoreV1().Services(tenantName).Patch(ctx, translate.HostName(space, "shop"), types.MergePatchType, note, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // Each change is looked at on its own.
	}
	hostAfter, virtualAfter := settle("the syncer has looked at all of it")
	if written := more(host, hostAfter); len(written) > 0 {
		t.Errorf("written on the host, for nothing: %v", written)
	}
	if written := more(virtual, virtualAfter); len(written) > 0 {
		t.Errorf("written in the tenant, for nothing: %v", written)
	}

	// The control: a change that the tenant can show is written, once.
	before := p.virtualWrites.all()
	name := pods.Items[0].Name
	hostPod, err := p.hostPod(name)(ctx)
	if err != nil {
		t.Fatal(err)
	}
	hostPod.Status.ContainerStatuses[0].RestartCount = 7
	if _, err := p.host.CoreV1().Pods(tenantName).UpdateStatus(ctx, hostPod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the tenant sees the restart", p.virtualPod(name), func(pod *corev1.Pod) bool { return pod.Status.ContainerStatuses[0].RestartCount == 7 })
	_, after := settle("the syncer has nothing to do")
	want := map[string]int{"PUT /api/v1/namespaces/default/pods/" + name + "/status": 1}
	if got := more(before, after); !maps.Equal(got, want) {
		t.Errorf("written in the tenant for one change: %v, want %v", got, want)
	}
}

func more(before, after map[string]int) map[string]int {
	written := map[string]int{}
	for request, n := range after {
		if n > before[request] {
			written[request] = n - before[request]
		}
	}
	return written
}

// testServedVersion: the tenant serves the API of its version, as kubectl sees
// it: what is newer is not there.
func (p *planes) testServedVersion(t *testing.T) {
	out, err := p.kubectl(t, "", "get", "--raw", "/version")
	if err != nil || !strings.Contains(out, `"gitVersion": "v`+p.virtualVersion.String()+".") {
		t.Errorf("the version is not shown: %v\n%s", err, out)
	}
	for _, args := range [][]string{
		{"get", "pods,services,deployments,events,nodes", "-A"},
		{"api-resources"},
		{"explain", "deployment.spec.template.spec.containers"},
		{"describe", "deployment/shop"},
		{"wait", "--for=condition=Available", "deployment/shop", "--timeout=10s"},
		{"auth", "whoami"},
		{"label", "deployment/shop", "looked=yes"},
		{"scale", "deployment/shop", "--replicas=2"},
	} {
		if out, err := p.kubectl(t, "", args...); err != nil {
			t.Errorf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}

	newest := p.virtualVersion.AtLeast(version.MustParse("1.36"))
	out, err = p.kubectl(t, "", "get", "mutatingadmissionpolicies")
	if newest != (err == nil) || !newest && !strings.Contains(out, "the server doesn't have a resource type") {
		t.Errorf("mutatingadmissionpolicies, served since 1.36: %v\n%s", err, out)
	}
	policy := `{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingAdmissionPolicy","metadata":{"name":"p"},"spec":{
		"matchConstraints":{"resourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["configmaps"]}]},
		"reinvocationPolicy":"Never","mutations":[{"patchType":"ApplyConfiguration","applyConfiguration":{"expression":"Object{}"}}]}}`
	if out, err := p.kubectl(t, policy, "create", "--dry-run=server", "-f", "-"); newest != (err == nil) {
		t.Errorf("creating a MutatingAdmissionPolicy: %v\n%s", err, out)
	}
	// Fields that are on by default since 1.35 are dropped, as Kubernetes does.
	since := p.virtualVersion.AtLeast(version.MustParse("1.35"))
	policyOfContainer := corev1.ContainerRestartPolicyOnFailure
	pod := newPod("newer")
	pod.Spec.HostnameOverride, pod.Spec.Containers[0].RestartPolicy = ptr.To("db.example.com"), &policyOfContainer
	made, err := p.virtual.CoreV1().Pods(space).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		t.Fatal(err)
	}
	if (made.Spec.HostnameOverride != nil) != since || (made.Spec.Containers[0].RestartPolicy != nil) != since {
		t.Errorf("the pod has hostnameOverride %v and a container with restartPolicy %v", made.Spec.HostnameOverride, made.Spec.Containers[0].RestartPolicy)
	}
}

// testDeletion: nothing of it is left on either side.
func (p *planes) testDeletion(t *testing.T) {
	if out, err := p.kubectl(t, workload, "delete", "--wait=false", "-f", "-"); err != nil {
		t.Fatalf("kubectl delete: %v\n%s", err, out)
	}
	eventually(t, "the host has nothing of the tenant's", func(ctx context.Context) error {
		pods, err := p.host.CoreV1().Pods(tenantName).List(ctx, metav1.ListOptions{LabelSelector: "app=shop"})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("%d pods", len(pods.Items))
		}
		return err
	})
	gone(t, "the host's Service", func(ctx context.Context) (*corev1.Service, error) {
		return p.host.CoreV1().Services(tenantName).Get(ctx, translate.HostName(space, "shop"), metav1.GetOptions{})
	})
	tenant := &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: tenantName}}
	if err := p.objects.Delete(t.Context(), tenant); err != nil {
		t.Fatal(err)
	}
	gone(t, "the tenant's namespace", func(ctx context.Context) (*corev1.Namespace, error) {
		return p.host.CoreV1().Namespaces().Get(ctx, tenantName, metav1.GetOptions{})
	})
	gone(t, "the tenant", func(ctx context.Context) (*api.Tenant, error) {
		return tenant, p.objects.Get(ctx, types.NamespacedName{Name: tenantName}, tenant)
	})
}
