package syncer_test

import (
	"context"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// testBudgets: what a budget in the tenant allows, the host allows too: neither
// more nor, for want of a Deployment that it knows, nothing at all.
func (p *planes) testBudgets(t *testing.T) {
	ctx := t.Context()
	labels := map[string]string{"app": "budget"}
	if _, err := p.virtual.AppsV1().Deployments(space).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "budget"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](4), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod("x").Spec},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	virtual, onHost := p.virtual.PolicyV1().PodDisruptionBudgets(space), p.host.PolicyV1().PodDisruptionBudgets(hostNamespace)
	if _, err := virtual.Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "budget"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromString("25%")), Selector: &metav1.LabelSelector{MatchLabels: labels}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	hostBudget := func(ctx context.Context) (*policyv1.PodDisruptionBudget, error) {
		return onHost.Get(ctx, translate.HostName(space, "budget"), metav1.GetOptions{})
	}
	needs := func(n int) func(*policyv1.PodDisruptionBudget) bool {
		return func(b *policyv1.PodDisruptionBudget) bool {
			return b.Spec.MaxUnavailable == nil && b.Spec.MinAvailable != nil && *b.Spec.MinAvailable == intstr.FromInt(n)
		}
	}
	// Not by what it was before.
	allows := func(n int32) func(*policyv1.PodDisruptionBudget) bool {
		return func(b *policyv1.PodDisruptionBudget) bool {
			return b.Status.ObservedGeneration == b.Generation && b.Status.DisruptionsAllowed == n
		}
	}
	waitFor(t, "host budget needs three of four", hostBudget, needs(3))
	waitFor(t, "the host allows one eviction", hostBudget, allows(1))
	pods, err := p.host.CoreV1().Pods(hostNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app=budget"})
	if err != nil || len(pods.Items) != 4 {
		t.Fatalf("%d pods, %v", len(pods.Items), err)
	}
	evict := func(name string) error {
		return p.host.PolicyV1().Evictions(hostNamespace).Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: hostNamespace}})
	}
	if err := evict(pods.Items[0].Name); err != nil {
		t.Errorf("the first eviction: %v", err)
	}
	if err := evict(pods.Items[1].Name); !apierrors.IsTooManyRequests(err) {
		t.Errorf("the second at once: %v", err)
	}
	// The tenant makes a pod in its place, and it goes on.
	waitFor(t, "the host allows another", hostBudget, allows(1))

	// It follows the scale, and what it says.
	if _, err := p.virtual.AppsV1().Deployments(space).Patch(ctx, "budget", types.MergePatchType, []byte(`{"spec":{"replicas":8}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "host budget needs six of eight", hostBudget, needs(6))
	if _, err := virtual.Patch(ctx, "budget", types.MergePatchType, []byte(`{"spec":{"maxUnavailable":null,"minAvailable":1}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	host := waitFor(t, "host budget needs one", hostBudget, needs(1))

	// Behind our back.
	host.Spec.MinAvailable = ptr.To(intstr.FromInt(8))
	if _, err := onHost.Update(ctx, host, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) {
		t.Fatal(err)
	}
	waitFor(t, "host budget is as it was", hostBudget, needs(1))
	if err := onHost.Delete(ctx, host.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "host budget is made again", hostBudget, func(b *policyv1.PodDisruptionBudget) bool { return b.UID != host.UID })
	if err := virtual.Delete(ctx, "budget", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "host budget", hostBudget)
	if err := p.virtual.AppsV1().Deployments(space).Delete(ctx, "budget", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// testServiceAccounts: one with an allowed annotation has a copy without rights
// that its pods run under; pull secrets of any reach the host with its pods.
func (p *planes) testServiceAccounts(t *testing.T) {
	ctx := t.Context()
	core := p.virtual.CoreV1()
	hostAccount := func(name string) func(context.Context) (*corev1.ServiceAccount, error) {
		return func(ctx context.Context) (*corev1.ServiceAccount, error) {
			return p.host.CoreV1().ServiceAccounts(hostNamespace).Get(ctx, translate.HostName(space, name), metav1.GetOptions{})
		}
	}
	for name, annotations := range map[string]map[string]string{
		"identity": {identity: "me", "example.com/other": "x"}, "ordinary": {"example.com/other": "x"},
	} {
		if _, err := core.ServiceAccounts(space).Create(ctx, &corev1.ServiceAccount{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "registry"}},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		// At once: the pod waits for the copy.
		runs := pod("as-" + name)
		runs.Spec.ServiceAccountName = name
		p.createPod(t, runs)
	}
	if _, err := core.Secrets(space).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "registry"}, Data: map[string][]byte{"a": []byte("b")}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	copied := waitFor(t, "host ServiceAccount", hostAccount("identity"), nil)
	if copied.Annotations[identity] != "me" || copied.Annotations["example.com/other"] != "" || *copied.AutomountServiceAccountToken || len(copied.ImagePullSecrets) > 0 {
		t.Errorf("the copy: %v", copied)
	}
	for name, want := range map[string]string{"identity": copied.Name, "ordinary": api.WorkloadServiceAccountName} {
		host := waitFor(t, "host pod", p.hostPod("as-"+name), nil)
		if host.Spec.ServiceAccountName != want || *host.Spec.AutomountServiceAccountToken {
			t.Errorf("a pod of %s runs as %q, want %q", name, host.Spec.ServiceAccountName, want)
		}
		if secrets := host.Spec.ImagePullSecrets; len(secrets) != 1 || secrets[0].Name != translate.HostName(space, "registry") {
			t.Errorf("pull secrets of a pod of %s: %v", name, secrets)
		}
	}
	waitFor(t, "the pull secret", func(ctx context.Context) (*corev1.Secret, error) {
		return p.host.CoreV1().Secrets(hostNamespace).Get(ctx, translate.HostName(space, "registry"), metav1.GetOptions{})
	}, nil)
	if _, err := hostAccount("ordinary")(ctx); !apierrors.IsNotFound(err) {
		t.Errorf("a ServiceAccount without an allowed annotation is on the host (%v)", err)
	}
	// The copy follows, comes back, and goes.
	patchAccount := func(data string) {
		t.Helper()
		if _, err := core.ServiceAccounts(space).Patch(ctx, "identity", types.MergePatchType, []byte(data), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	patchAccount(`{"metadata":{"annotations":{"` + identity + `":"you"}}}`)
	waitFor(t, "the copy follows", hostAccount("identity"), func(a *corev1.ServiceAccount) bool { return a.Annotations[identity] == "you" })
	if err := p.host.CoreV1().ServiceAccounts(hostNamespace).Delete(ctx, copied.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the copy is made again", hostAccount("identity"), func(a *corev1.ServiceAccount) bool { return a.UID != copied.UID })
	patchAccount(`{"metadata":{"annotations":{"` + identity + `":null}}}`)
	gone(t, "the copy", hostAccount("identity"))
	if _, err := p.hostPod("as-identity")(ctx); err != nil {
		t.Errorf("its pod: %v", err)
	}
	for _, name := range []string{"identity", "ordinary"} {
		if err := core.Pods(space).Delete(ctx, "as-"+name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// identity is the annotation of ServiceAccounts that the limits allow.
const identity = "identity.example.com/role"
