package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/engine"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

const space = "default"

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: space, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "busybox"}}},
	}
}

func (p *planes) hostPod(name string) func(context.Context) (*corev1.Pod, error) {
	return func(ctx context.Context) (*corev1.Pod, error) {
		return p.host.CoreV1().Pods(hostNamespace).Get(ctx, translate.HostName(space, name), metav1.GetOptions{})
	}
}

func (p *planes) virtualPod(name string) func(context.Context) (*corev1.Pod, error) {
	return func(ctx context.Context) (*corev1.Pod, error) {
		return p.virtual.CoreV1().Pods(space).Get(ctx, name, metav1.GetOptions{})
	}
}

func (p *planes) createPod(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	var made *corev1.Pod
	// The tenant's default service account may take a moment.
	eventually(t, "create virtual pod "+pod.Name, func(ctx context.Context) error {
		var err error
		made, err = p.virtual.CoreV1().Pods(space).Create(ctx, pod, metav1.CreateOptions{})
		return err
	})
	return made
}

func running(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodRunning }

// TestSyncer runs the whole path without a node, then with one.
func TestSyncer(t *testing.T) {
	p := startPlanes(t)
	t.Run("refused", p.testRefused)
	t.Run("pending", p.testPending)
	p.runNode(t)
	t.Run("pod", p.testPod)
	t.Run("writes", p.testWrites)
	t.Run("references", p.testReferences)
	t.Run("changes", p.testChanges)
	t.Run("deleted in the tenant", p.testDeletedInTenant)
	t.Run("kept by a finalizer", p.testKeptByFinalizer)
	t.Run("deleted on the host", p.testDeletedOnHost)
	t.Run("orphans", p.testOrphans)
	t.Run("services", p.testServices)
	t.Run("endpoints", p.testEndpoints)
	t.Run("claims", p.testClaims)
	t.Run("cluster-scoped", p.testClusterScoped)
	t.Run("events", p.testEvents)
	t.Run("network policies", p.testNetworkPolicies)
	t.Run("ingresses", p.testIngresses)
	t.Run("budgets", p.testBudgets)
	t.Run("service accounts", p.testServiceAccounts)
	t.Run("latency", p.testLatency)
	t.Run("burst", p.testBurst)
	t.Run("restart", p.testRestart)
}

func (p *planes) testPod(t *testing.T) {
	ctx := t.Context()
	virtual := p.createPod(t, pod("web"))
	host := waitFor(t, "host pod", p.hostPod("web"), nil)

	if host.Spec.ServiceAccountName != api.WorkloadServiceAccountName || *host.Spec.AutomountServiceAccountToken {
		t.Errorf("the host pod runs as %q", host.Spec.ServiceAccountName)
	}
	if host.Annotations[api.AnnotationVirtualUID] != string(virtual.UID) || host.Labels["app"] != "web" || len(host.OwnerReferences) != 1 {
		t.Errorf("metadata of the host pod: %v %v %v", host.Labels, host.Annotations, host.OwnerReferences)
	}
	if got := host.Spec.DNSConfig.Searches[0]; got != "default.svc.cluster.local" {
		t.Errorf("first search domain %q", got)
	}

	back := waitFor(t, "virtual pod runs", p.virtualPod("web"), running)
	if back.Spec.NodeName != nodeName || back.Status.PodIP != "10.0.0.7" || len(back.Status.ContainerStatuses) != 1 {
		t.Errorf("virtual pod: node %q, status %+v", back.Spec.NodeName, back.Status)
	}

	// Its token is for the virtual service account and bound to the virtual pod.
	secret := waitFor(t, "tokens", func(ctx context.Context) (*corev1.Secret, error) {
		return p.host.CoreV1().Secrets(hostNamespace).Get(ctx, translate.TokenSecretName(space, "web"), metav1.GetOptions{})
	}, nil)
	review, err := p.virtual.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: string(secret.Data["token-0"])},
	}, metav1.CreateOptions{})
	if err != nil || !review.Status.Authenticated || review.Status.User.Username != "system:serviceaccount:default:default" || review.Status.User.Extra["authentication.kubernetes.io/pod-name"][0] != "web" {
		t.Errorf("token: %+v, %v", review, err)
	}
	// It says where the pod runs, although there was no node yet when it was made.
	node, err := p.virtual.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"node-name": node.Name, "node-uid": string(node.UID)} {
		if got := review.Status.User.Extra["authentication.kubernetes.io/"+key]; len(got) != 1 || got[0] != want {
			t.Errorf("%s of the token is %q, want %q", key, got, want)
		}
	}
	hostReview, err := p.host.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: string(secret.Data["token-0"])},
	}, metav1.CreateOptions{})
	if err != nil || hostReview.Status.Authenticated {
		t.Errorf("the host takes the tenant's token: %+v, %v", hostReview.Status, err)
	}
	if owner := secret.OwnerReferences; len(owner) != 1 || owner[0].UID != host.UID {
		t.Errorf("owner of the tokens: %v", owner)
	}
	// kube-root-ca.crt is the tenant's.
	ca, err := p.virtual.CoreV1().ConfigMaps(space).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "root certificate", func(ctx context.Context) (*corev1.ConfigMap, error) {
		return p.host.CoreV1().ConfigMaps(hostNamespace).Get(ctx, translate.HostName(space, "kube-root-ca.crt"), metav1.GetOptions{})
	}, func(c *corev1.ConfigMap) bool { return c.Data["ca.crt"] == ca.Data["ca.crt"] })

	name, err := p.syncer.HostPod(ctx, space, "web")
	if err != nil || name != host.Name {
		t.Errorf("HostPod: %q, %v", name, err)
	}
	if _, err := p.syncer.HostPod(ctx, space, "none"); !apierrors.IsNotFound(err) {
		t.Errorf("HostPod of a pod that is not there: %v", err)
	}
}

// testWrites: one write for a change, none without.
func (p *planes) testWrites(t *testing.T) {
	time.Sleep(time.Second)
	p.hostWrites.reset()
	p.virtualWrites.reset()
	p.createPod(t, pod("writes"))
	waitFor(t, "virtual pod runs", p.virtualPod("writes"), running)
	waitFor(t, "tokens", func(ctx context.Context) (*corev1.Secret, error) {
		return p.host.CoreV1().Secrets(hostNamespace).Get(ctx, translate.TokenSecretName(space, "writes"), metav1.GetOptions{})
	}, nil)
	time.Sleep(time.Second)
	if diff := cmp.Diff(map[string]int{"POST pods": 1, "POST secrets": 1}, p.hostWrites.reset()); diff != "" {
		t.Errorf("written on the host for one pod (-want +got):\n%s", diff)
	}
	want := map[string]int{"POST pods/binding": 1, "POST serviceaccounts/token": 1}
	got := p.virtualWrites.reset()
	if n := got["PUT pods/status"]; n < 1 || n > 3 {
		t.Errorf("status of one pod written %d times", n)
	}
	delete(got, "PUT pods/status")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("written in the tenant for one pod (-want +got):\n%s", diff)
	}
}

// testPending: without a scheduler the pod stays pending; deleted on the host,
// it is made again; deleted in the tenant, it goes.
func (p *planes) testPending(t *testing.T) {
	ctx := t.Context()
	p.createPod(t, pod("pending"))
	host := waitFor(t, "host pod", p.hostPod("pending"), nil)
	if err := p.host.CoreV1().Pods(hostNamespace).Delete(ctx, host.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "host pod made again", p.hostPod("pending"), func(again *corev1.Pod) bool { return again.UID != host.UID })
	if err := p.virtual.CoreV1().Pods(space).Delete(ctx, "pending", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "host pod", p.hostPod("pending"))
}

// testRefused: the host's no becomes an event in the tenant's names, and a yes
// as soon as the cause is gone.
func (p *planes) testRefused(t *testing.T) {
	ctx := t.Context()
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "none"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
	}
	quotas := p.host.CoreV1().ResourceQuotas(hostNamespace)
	if _, err := quotas.Create(ctx, quota, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "quota counts", func(ctx context.Context) (*corev1.ResourceQuota, error) {
		return quotas.Get(ctx, "none", metav1.GetOptions{})
	}, func(q *corev1.ResourceQuota) bool { return len(q.Status.Hard) > 0 })
	p.createPod(t, pod("refused"))
	eventually(t, "an event tells the host's reason", func(ctx context.Context) error {
		events, err := p.virtual.CoreV1().Events(space).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=refused"})
		if err != nil {
			return err
		}
		for _, event := range events.Items {
			if strings.Contains(event.Message, "exceeded quota") {
				if strings.Contains(event.Message, translate.HostName(space, "refused")) || !strings.Contains(event.Message, `"refused"`) {
					t.Fatalf("the event speaks of the host: %q", event.Message)
				}
				return nil
			}
		}
		return fmt.Errorf("%d events", len(events.Items))
	})
	time.Sleep(3 * time.Second) // By now the next try of its own accord is seconds away.
	if err := quotas.Delete(ctx, "none", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	freed := time.Now()
	waitFor(t, "host pod", p.hostPod("refused"), nil)
	t.Logf("on the host %s after the quota went", time.Since(freed))
	if err := p.virtual.CoreV1().Pods(space).Delete(ctx, "refused", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "host pod", p.hostPod("refused"))
}

// testReferences: config maps and secrets cross when a pod refers to them,
// whichever comes first, and follow changes.
func (p *planes) testReferences(t *testing.T) {
	ctx := t.Context()
	core := p.virtual.CoreV1()
	hostConfigMap := func(name string) func(context.Context) (*corev1.ConfigMap, error) {
		return func(ctx context.Context) (*corev1.ConfigMap, error) {
			return p.host.CoreV1().ConfigMaps(hostNamespace).Get(ctx, translate.HostName(space, name), metav1.GetOptions{})
		}
	}
	for _, name := range []string{"used", "unused"} {
		if _, err := core.ConfigMaps(space).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"KUBERNETES_PORT": "mine"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	refers := pod("refers")
	refers.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{
		{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "used"}}},
		{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "later"}}},
	}
	p.createPod(t, refers)
	waitFor(t, "config map", hostConfigMap("used"), nil)
	host := waitFor(t, "host pod", p.hostPod("refers"), nil)
	var variables []string
	for _, variable := range host.Spec.Containers[0].Env {
		variables = append(variables, variable.Name)
	}
	if !slices.Contains(variables, "KUBERNETES_SERVICE_HOST") || slices.Contains(variables, "KUBERNETES_PORT") {
		t.Errorf("variables %v: those of Services must be there but not override envFrom", variables)
	}
	if _, err := hostConfigMap("unused")(ctx); !apierrors.IsNotFound(err) {
		t.Errorf("a config map that nobody uses is on the host (%v)", err)
	}
	if _, err := core.Secrets(space).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "later"}, StringData: map[string]string{"a": "1"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	hostSecret := func(ctx context.Context) (*corev1.Secret, error) {
		return p.host.CoreV1().Secrets(hostNamespace).Get(ctx, translate.HostName(space, "later"), metav1.GetOptions{})
	}
	waitFor(t, "secret", hostSecret, nil)
	data, patchType := patch(`{"stringData":{"a":"2"}}`)
	if _, err := core.Secrets(space).Patch(ctx, "later", patchType, data, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "secret follows", hostSecret, func(s *corev1.Secret) bool { return string(s.Data["a"]) == "2" })
	if err := core.Secrets(space).Delete(ctx, "later", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "secret", hostSecret)
}

// testChanges: labels of pods and namespaces, images, deadlines, ephemeral
// containers and resizes reach the host.
func (p *planes) testChanges(t *testing.T) {
	ctx := t.Context()
	changes := pod("changes")
	changes.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
	p.createPod(t, changes)
	waitFor(t, "virtual pod runs", p.virtualPod("changes"), running)
	pods := p.virtual.CoreV1().Pods(space)

	data, patchType := patch(`{"metadata":{"labels":{"app":null,"new":"yes"}},"spec":{"activeDeadlineSeconds":600,"containers":[{"name":"main","image":"busybox:2"}]}}`)
	if _, err := pods.Patch(ctx, "changes", patchType, data, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "host pod follows", p.hostPod("changes"), func(pod *corev1.Pod) bool {
		_, old := pod.Labels["app"]
		return !old && pod.Labels["new"] == "yes" && pod.Spec.Containers[0].Image == "busybox:2" && pod.Spec.ActiveDeadlineSeconds != nil
	})

	data, patchType = patch(`{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"200m"}}}]}}`)
	if _, err := pods.Patch(ctx, "changes", patchType, data, metav1.PatchOptions{}, "resize"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "host pod is resized", p.hostPod("changes"), func(pod *corev1.Pod) bool {
		return pod.Spec.Containers[0].Resources.Requests.Cpu().MilliValue() == 200
	})

	data, patchType = patch(`{"spec":{"ephemeralContainers":[{"name":"debug","image":"busybox","targetContainerName":"main"}]}}`)
	if _, err := pods.Patch(ctx, "changes", patchType, data, metav1.PatchOptions{}, "ephemeralcontainers"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "host pod has the ephemeral container", p.hostPod("changes"), func(pod *corev1.Pod) bool {
		return len(pod.Spec.EphemeralContainers) == 1
	})

	data, patchType = patch(`{"metadata":{"labels":{"team":"blue"}}}`)
	if _, err := p.virtual.CoreV1().Namespaces().Patch(ctx, space, patchType, data, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "host pod has its namespace's label", p.hostPod("changes"), func(pod *corev1.Pod) bool {
		return pod.Labels[translate.NamespaceLabel("team")] == "blue"
	})
}

func (p *planes) testDeletedInTenant(t *testing.T) {
	ctx := t.Context()
	p.createPod(t, pod("deleted"))
	waitFor(t, "virtual pod runs", p.virtualPod("deleted"), running)
	if err := p.virtual.CoreV1().Pods(space).Delete(ctx, "deleted", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "host pod", p.hostPod("deleted"))
	gone(t, "virtual pod", p.virtualPod("deleted"))
	gone(t, "tokens", func(ctx context.Context) (*corev1.Secret, error) {
		return p.host.CoreV1().Secrets(hostNamespace).Get(ctx, translate.TokenSecretName(space, "deleted"), metav1.GetOptions{})
	})
}

// testKeptByFinalizer: a pod that only a finalizer keeps is not shown as running,
// whether it went at once or was lost on the host.
func (p *planes) testKeptByFinalizer(t *testing.T) {
	const finalizer = "example.com/kept"
	for name, remove := range map[string]func(ctx context.Context, name string) error{
		"kept-at-once": func(ctx context.Context, name string) error {
			return p.virtual.CoreV1().Pods(space).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		},
		"kept-and-lost": func(ctx context.Context, name string) error {
			return p.host.CoreV1().Pods(hostNamespace).Delete(ctx, translate.HostName(space, name), metav1.DeleteOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			kept := pod(name)
			kept.Finalizers = []string{finalizer}
			p.createPod(t, kept)
			waitFor(t, "virtual pod runs", p.virtualPod(name), running)
			if err := remove(ctx, name); err != nil {
				t.Fatal(err)
			}
			gone(t, "host pod", p.hostPod(name))
			left := waitFor(t, "the virtual pod has ended", p.virtualPod(name), func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodFailed })
			if state := left.Status.ContainerStatuses[0].State; state.Terminated == nil || state.Terminated.Reason != "ContainerStatusUnknown" {
				t.Errorf("its container is %+v", state)
			}
			for _, condition := range left.Status.Conditions {
				if condition.Type == corev1.PodReady && condition.Status != corev1.ConditionFalse {
					t.Errorf("it is ready: %+v", condition)
				}
			}
			patch := []byte(`{"metadata":{"finalizers":null}}`)
			if _, err := p.virtual.CoreV1().Pods(space).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			gone(t, "virtual pod", p.virtualPod(name))
		})
	}
}

// testDeletedOnHost: a pod that ran is lost and says so; it is the business of
// its owner to make another.
func (p *planes) testDeletedOnHost(t *testing.T) {
	ctx := t.Context()
	p.createPod(t, pod("lost"))
	waitFor(t, "virtual pod runs", p.virtualPod("lost"), running)
	if err := p.host.CoreV1().Pods(hostNamespace).Delete(ctx, translate.HostName(space, "lost"), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "virtual pod", p.virtualPod("lost"))
}

// testOrphans: what is ours and has no virtual object goes; a copy under
// another name is not ours.
func (p *planes) testOrphans(t *testing.T) {
	ctx := t.Context()
	marked := func(name string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      map[string]string{api.LabelTenant: "acme", api.LabelComponent: api.ComponentSynced, api.LabelVirtualNamespace: space},
			Annotations: map[string]string{api.AnnotationVirtualName: "orphan", api.AnnotationVirtualNamespace: space, api.AnnotationVirtualUID: "gone"},
		}}
	}
	configMaps := p.host.CoreV1().ConfigMaps(hostNamespace)
	for _, name := range []string{"copy", translate.HostName(space, "orphan")} {
		if _, err := configMaps.Create(ctx, marked(name), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	gone(t, "orphan", func(ctx context.Context) (*corev1.ConfigMap, error) {
		return configMaps.Get(ctx, translate.HostName(space, "orphan"), metav1.GetOptions{})
	})
	if _, err := configMaps.Get(ctx, "copy", metav1.GetOptions{}); err != nil {
		t.Errorf("a copy that is not ours: %v", err)
	}
}

func (p *planes) testServices(t *testing.T) {
	ctx := t.Context()
	services := p.virtual.CoreV1().Services(space)
	hostService := func(ctx context.Context) (*corev1.Service, error) {
		return p.host.CoreV1().Services(hostNamespace).Get(ctx, translate.HostName(space, "web"), metav1.GetOptions{})
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}},
	}
	dry, err := services.Create(ctx, service, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil || dry.Spec.ClusterIP == "" {
		t.Fatalf("dry run: %v, %v", dry, err)
	}
	if _, err := hostService(ctx); !apierrors.IsNotFound(err) {
		t.Errorf("a dry run made a host Service (%v)", err)
	}
	made, err := services.Create(ctx, service, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	host, err := hostService(ctx) // It is there already.
	if err != nil || made.Spec.ClusterIP == "" || host.Spec.ClusterIP != made.Spec.ClusterIP {
		t.Fatalf("virtual %q, host %v (%v)", made.Spec.ClusterIP, host, err)
	}
	waitFor(t, "host Service gets the uid", hostService, func(s *corev1.Service) bool {
		return s.Annotations[api.AnnotationVirtualUID] == string(made.UID)
	})

	// Two with names that the API server makes up.
	for range 2 {
		generated, err := services.Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "made-up-"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		host, err := p.host.CoreV1().Services(hostNamespace).Get(ctx, translate.HostName(space, generated.Name), metav1.GetOptions{})
		if err != nil || host.Spec.ClusterIP != generated.Spec.ClusterIP {
			t.Errorf("the Service %s has %s, its host Service %v (%v)", generated.Name, generated.Spec.ClusterIP, host.Spec.ClusterIP, err)
		}
	}

	data, patchType := patch(`{"spec":{"type":"NodePort"}}`)
	changed, err := services.Patch(ctx, "web", patchType, data, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if host, err = hostService(ctx); err != nil || changed.Spec.Ports[0].NodePort == 0 || host.Spec.Ports[0].NodePort != changed.Spec.Ports[0].NodePort {
		t.Errorf("node port: virtual %v, host %v (%v)", changed.Spec.Ports, host.Spec.Ports, err)
	}
	data, _ = patch(`{"spec":{"type":"LoadBalancer"}}`)
	if _, err := services.Patch(ctx, "web", patchType, data, metav1.PatchOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a type that the limits do not allow: %v", err)
	}

	// A second one of the same name is refused and changes nothing.
	if _, err := services.Create(ctx, service, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("a second Service of the same name: %v", err)
	}
	if host, err = hostService(ctx); err != nil || host.Spec.ClusterIP != made.Spec.ClusterIP || host.Spec.Type != corev1.ServiceTypeNodePort {
		t.Errorf("after a second Service of the same name the host has %v (%v)", host, err)
	}

	// Made again under the same name, at once.
	if err := services.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	again, err := services.Create(ctx, service, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "host Service of the new one", hostService, func(s *corev1.Service) bool {
		return s.Annotations[api.AnnotationVirtualUID] == string(again.UID) && s.Spec.ClusterIP == again.Spec.ClusterIP
	})
	if err := services.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "host Service", hostService)
}

func (p *planes) testEndpoints(t *testing.T) {
	ctx := t.Context()
	if _, err := p.virtual.DiscoveryV1().EndpointSlices(space).Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "outside-1", Labels: map[string]string{discoveryv1.LabelServiceName: "outside"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.10"}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// The Service comes later.
	if _, err := p.virtual.CoreV1().Services(space).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "outside"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "host EndpointSlice", func(ctx context.Context) (*discoveryv1.EndpointSlice, error) {
		return p.host.DiscoveryV1().EndpointSlices(hostNamespace).Get(ctx, translate.HostName(space, "outside-1"), metav1.GetOptions{})
	}, func(s *discoveryv1.EndpointSlice) bool {
		return s.Labels[discoveryv1.LabelServiceName] == translate.HostName(space, "outside")
	})
}

func (p *planes) testClaims(t *testing.T) {
	ctx := t.Context()
	class := "fast"
	if _, err := p.virtual.CoreV1().PersistentVolumeClaims(space).Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: &class,
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	hostName := translate.HostName(space, "data")
	claim := waitFor(t, "host claim", func(ctx context.Context) (*corev1.PersistentVolumeClaim, error) {
		return p.host.CoreV1().PersistentVolumeClaims(hostNamespace).Get(ctx, hostName, metav1.GetOptions{})
	}, nil)
	if _, err := p.host.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "volume"},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: class,
			Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			ClaimRef:               &corev1.ObjectReference{Namespace: hostNamespace, Name: hostName, UID: claim.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/nowhere"}},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "virtual claim is bound", func(ctx context.Context) (*corev1.PersistentVolumeClaim, error) {
		return p.virtual.CoreV1().PersistentVolumeClaims(space).Get(ctx, "data", metav1.GetOptions{})
	}, func(c *corev1.PersistentVolumeClaim) bool { return c.Status.Phase == corev1.ClaimBound })
}

func (p *planes) testClusterScoped(t *testing.T) {
	ctx := t.Context()
	waitFor(t, "storage class", func(ctx context.Context) (metav1.Object, error) {
		return p.virtual.StorageV1().StorageClasses().Get(ctx, "fast", metav1.GetOptions{})
	}, nil)
	node, err := p.virtual.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, foreign := node.Labels["example.com/secret"]; foreign || node.Status.Capacity.Cpu().Value() != 64 || len(node.Spec.Taints) > 0 {
		t.Errorf("virtual node: %v %v %v", node.Labels, node.Status.Capacity, node.Spec.Taints)
	}
	// A tenant cannot make it something else for long; what it adds stays.
	data, _ := patch(`{"metadata":{"labels":{"kubernetes.io/hostname":"other","mine":"a"}},"spec":{"unschedulable":true}}`)
	if _, err := p.virtual.CoreV1().Nodes().Patch(ctx, nodeName, types.MergePatchType, data, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "node as on the host", func(ctx context.Context) (*corev1.Node, error) {
		return p.virtual.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	}, func(n *corev1.Node) bool {
		return n.Labels[corev1.LabelHostname] == nodeName && n.Labels["mine"] == "a" && n.Spec.Unschedulable
	})
}

func (p *planes) testEvents(t *testing.T) {
	ctx := t.Context()
	host := waitFor(t, "host pod", p.hostPod("web"), nil)
	if _, err := p.host.CoreV1().Events(hostNamespace).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: host.Name + ".1"},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: hostNamespace, Name: host.Name, UID: host.UID},
		Reason:         "Scheduled", Message: "Successfully assigned " + hostNamespace + "/" + host.Name + " to " + nodeName, Type: corev1.EventTypeNormal,
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "virtual event", func(ctx context.Context) (*corev1.Event, error) {
		return p.virtual.CoreV1().Events(space).Get(ctx, "web.1", metav1.GetOptions{})
	}, func(e *corev1.Event) bool { return e.Message == "Successfully assigned default/web to "+nodeName })
}

// testRestart: what changed while no syncer ran is made good, and tokens are
// renewed in time; the clock is ours.
func (p *planes) testRestart(t *testing.T) {
	ctx := t.Context()
	seconds := int64(600)
	keeps := pod("keeps")
	keeps.Spec.Volumes = []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "vault", ExpirationSeconds: &seconds}}},
	}}}}
	p.createPod(t, keeps)
	p.createPod(t, pod("forced"))
	for _, name := range []string{"keeps", "forced"} {
		waitFor(t, "virtual pod runs", p.virtualPod(name), running)
	}
	tokens := func(ctx context.Context) (*corev1.Secret, error) {
		return p.host.CoreV1().Secrets(hostNamespace).Get(ctx, translate.TokenSecretName(space, "keeps"), metav1.GetOptions{})
	}
	before := waitFor(t, "tokens", tokens, nil)
	if string(before.Data["token-0"]) == string(before.Data["token-1"]) {
		t.Error("two sources have the same token")
	}

	p.stopSyncer()
	if err := p.virtual.CoreV1().Pods(space).Delete(ctx, "forced", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	p.createPod(t, pod("forced"))
	if err := p.virtual.CoreV1().Services(space).Delete(ctx, "outside", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	forced, err := p.hostPod("forced")(ctx)
	if err != nil {
		t.Fatal(err)
	}

	fake := testclock.NewFakeClock(time.Now())
	again, err := engine.New(engine.Options{
		Tenant:  translate.NewTenant(p.config, nil),
		Kinds:   kinds.All(),
		Virtual: p.asAdmin,
		Host:    p.asSyncer,
		Clock:   fake,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, again.Run)
	// Tries that wait for the clock get their turn.
	step := func(what string, by time.Duration, check func(context.Context) error) {
		t.Helper()
		eventually(t, what, func(ctx context.Context) error {
			err := check(ctx)
			if err != nil {
				fake.Step(by)
			}
			return err
		})
	}
	step("the pod of the same name has a host pod of its own", 10*time.Millisecond, func(ctx context.Context) error {
		pod, err := p.hostPod("forced")(ctx)
		if err == nil && pod.UID == forced.UID {
			err = errors.New("still the old one")
		}
		return err
	})
	step("the host Service is gone", 10*time.Millisecond, func(ctx context.Context) error {
		_, err := p.host.CoreV1().Services(hostNamespace).Get(ctx, translate.HostName(space, "outside"), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("still there (%v)", err)
	})
	if now := waitFor(t, "tokens", tokens, nil); string(now.Data["token-0"]) != string(before.Data["token-0"]) {
		t.Error("tokens were renewed without need")
	}
	fake.Step(470 * time.Second)
	time.Sleep(100 * time.Millisecond)
	if now := waitFor(t, "tokens", tokens, nil); string(now.Data["token-0"]) != string(before.Data["token-0"]) {
		t.Error("tokens were renewed before 80 % of their life")
	}
	step("tokens are renewed", time.Second, func(ctx context.Context) error {
		now, err := tokens(ctx)
		if err == nil && (string(now.Data["token-0"]) == string(before.Data["token-0"]) || string(now.Data["token-1"]) == string(before.Data["token-1"])) {
			err = errors.New("still the old ones")
		}
		return err
	})
}

// testLatency logs how long a pod takes to the host.
func (p *planes) testLatency(t *testing.T) {
	ctx := t.Context()
	w, err := p.host.CoreV1().Pods(hostNamespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var took []time.Duration
	for i := range 15 {
		name := fmt.Sprintf("latency-%d", i)
		begin := time.Now()
		if _, err := p.virtual.CoreV1().Pods(space).Create(ctx, pod(name), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		for event := range w.ResultChan() {
			if host, ok := event.Object.(*corev1.Pod); ok && host.Name == translate.HostName(space, name) {
				break
			}
		}
		took = append(took, time.Since(begin))
		time.Sleep(200 * time.Millisecond)
	}
	slices.Sort(took)
	t.Logf("virtual create called to host pod seen: median %s, worst %s", took[len(took)/2], took[len(took)-1])
}

// testBurst logs how long 100 pods take to the host, against the same straight
// on the host.
func (p *planes) testBurst(t *testing.T) {
	const pods, workers = 100, 10
	burst := func(prefix string, create func(context.Context, string) error) time.Duration {
		w, err := p.host.CoreV1().Pods(hostNamespace).Watch(t.Context(), metav1.ListOptions{LabelSelector: "burst=" + prefix})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		begin := time.Now()
		errs := make(chan error, workers)
		var called atomic.Int64
		for worker := range workers {
			go func() {
				for i := worker; i < pods; i += workers {
					if err := create(t.Context(), fmt.Sprintf("%s-%d", prefix, i)); err != nil {
						errs <- err
						return
					}
				}
				called.Store(int64(time.Since(begin)))
				errs <- nil
			}()
		}
		seen := map[string]bool{}
		for event := range w.ResultChan() {
			if pod, ok := event.Object.(*corev1.Pod); ok {
				seen[pod.Name] = true
			}
			if len(seen) == pods {
				break
			}
		}
		took := time.Since(begin)
		for range workers {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%s: all created after %s, all seen after %s", prefix, time.Duration(called.Load()), took)
		return took
	}
	labelled := func(prefix, name string) *corev1.Pod {
		made := pod(name)
		made.Labels["burst"] = prefix
		return made
	}
	direct := burst("direct", func(ctx context.Context, name string) error {
		made := labelled("direct", name)
		made.Namespace = hostNamespace
		_, err := p.host.CoreV1().Pods(hostNamespace).Create(ctx, made, metav1.CreateOptions{})
		return err
	})
	time.Sleep(time.Second)
	synced := burst("synced", func(ctx context.Context, name string) error {
		_, err := p.virtual.CoreV1().Pods(space).Create(ctx, labelled("synced", name), metav1.CreateOptions{})
		return err
	})
	t.Logf("%d pods: host %s, through the tenant %s, ratio %.1f", pods, direct, synced, float64(synced)/float64(direct))
	eventually(t, "all virtual pods run", func(ctx context.Context) error {
		list, err := p.virtual.CoreV1().Pods(space).List(ctx, metav1.ListOptions{LabelSelector: "burst=synced"})
		if err != nil {
			return err
		}
		for i := range list.Items {
			if !running(&list.Items[i]) {
				return fmt.Errorf("%s is %s", list.Items[i].Name, list.Items[i].Status.Phase)
			}
		}
		return nil
	})
}
