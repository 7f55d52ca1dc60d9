package syncer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// TestBadInput: objects at the limits of what an API takes, too many at once,
// references to nothing, a host that refuses, lacks an API, or is meddled with.
// Each gets what a cluster would give it, or an event with the reason.
func TestBadInput(t *testing.T) {
	var closed atomic.Bool
	closed.Store(true)
	p := startPlanesWith(t, planesOptions{toHost: func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if closed.Load() && strings.HasSuffix(strings.SplitN(r.URL.Path, "?", 2)[0], "/networkpolicies") {
				return &http.Response{
					StatusCode: http.StatusNotFound, Request: r, Header: http.Header{"Content-Type": {"text/plain"}},
					Body: io.NopCloser(strings.NewReader("404 page not found\n")),
				}, nil
			}
			return next.RoundTrip(r)
		})
	}})
	p.runNode(t)
	t.Run("an API that the host does not have", func(t *testing.T) { p.testMissingAPI(t, &closed) })
	t.Run("limits", p.testLimits)
	t.Run("references", p.testReferencesLater)
	t.Run("quota", p.testQuotaOfClaims)
	t.Run("meddling", p.testMeddling)
	// What it starts has to outlive it.
	again := func() func() { return run(t, p.syncer.Run) }
	t.Run("strays", func(t *testing.T) { p.testStrayPods(t, again) })
	t.Run("many", p.testMany)
	p.removeClaims(t)
	p.quiet(t)
}

// removeClaims removes all claims. While one waits for its volume, the host says
// so every quarter of a minute in an event, which the tenant gets to see.
func (p *planes) removeClaims(t *testing.T) {
	t.Helper()
	if err := p.virtual.CoreV1().PersistentVolumeClaims(space).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	seldom(t, "all claims are gone from the host", func(ctx context.Context) error {
		list, err := p.host.CoreV1().PersistentVolumeClaims(hostNamespace).List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d are left", len(list.Items))
		}
		return err
	})
	p.settle(t)
}

func (p *planes) testMissingAPI(t *testing.T, closed *atomic.Bool) {
	ctx := t.Context()
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "waits"}, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "nobody"}},
		Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}}},
	}}
	if _, err := p.virtual.NetworkingV1().NetworkPolicies(space).Create(ctx, policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p.hears(t, "NetworkPolicy", "waits", "the host has no place for a NetworkPolicy")
	p.createPod(t, pod("meanwhile"))
	waitFor(t, "all else goes on", p.virtualPod("meanwhile"), running)
	closed.Store(false)
	// Both the informer and the retry may be half a minute away.
	for deadline := time.Now().Add(3 * patience); ; time.Sleep(100 * time.Millisecond) {
		_, err := p.host.NetworkingV1().NetworkPolicies(hostNamespace).Get(ctx, translate.HostName(space, "waits"), metav1.GetOptions{})
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the API has come, and the object has not crossed: %v", err)
		}
	}
	if err := p.virtual.NetworkingV1().NetworkPolicies(space).Delete(ctx, "waits", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "host policy", func(ctx context.Context) (*networkingv1.NetworkPolicy, error) {
		return p.host.NetworkingV1().NetworkPolicies(hostNamespace).Get(ctx, translate.HostName(space, "waits"), metav1.GetOptions{})
	})
}

// testLimits: as large, long and odd as an API takes it.
func (p *planes) testLimits(t *testing.T) {
	ctx := t.Context()
	name := func(letter string) string {
		parts := []string{strings.Repeat(letter, 63), strings.Repeat(letter, 63), strings.Repeat(letter, 63), strings.Repeat(letter, 61)}
		return strings.Join(parts, ".")
	}
	if len(name("a")) != 253 {
		t.Fatal("the test is wrong")
	}
	mebi := 1<<20 - 100
	core := p.virtual.CoreV1()
	if _, err := core.ConfigMaps(space).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name("c")}, Data: map[string]string{"big": strings.Repeat("x", mebi)}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := core.Secrets(space).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name("s")}, Data: map[string][]byte{"big": bytes.Repeat([]byte{0, 255, '\n'}, mebi/3)}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	full := pod(name("p"))
	full.Labels = map[string]string{strings.Repeat("l", 63): strings.Repeat("v", 63), strings.Repeat("d", 63) + ".example.com/" + strings.Repeat("l", 63): ""}
	full.Annotations = map[string]string{"example.com/unicode": "ü€😀\u0000\u202e\"\\\n", "example.com/empty": ""}
	full.Annotations["example.com/full"] = strings.Repeat("ä", 100<<10)
	full.Spec.Containers = nil
	for i := range 50 {
		full.Spec.Volumes = append(full.Spec.Volumes, corev1.Volume{Name: fmt.Sprintf("v%d", i), VolumeSource: []corev1.VolumeSource{
			{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name("c")}}},
			{Secret: &corev1.SecretVolumeSource{SecretName: name("s")}},
			{EmptyDir: &corev1.EmptyDirVolumeSource{}},
			{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}},
		}[i%4]})
		full.Spec.Containers = append(full.Spec.Containers, corev1.Container{
			Name: fmt.Sprintf("c%d-%s", i, strings.Repeat("c", 50)), Image: "busybox",
			VolumeMounts: []corev1.VolumeMount{{Name: fmt.Sprintf("v%d", i), MountPath: "/v"}},
			Env:          []corev1.EnvVar{{Name: "UNICODE", Value: "ü€😀"}, {Name: "NOTE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations['example.com/unicode']"}}}},
		})
	}
	p.createPod(t, full)
	waitFor(t, "virtual pod runs", p.virtualPod(full.Name), running)
	host := waitFor(t, "host pod", p.hostPod(full.Name), nil)
	if len(host.Spec.Containers) != 50 || len(host.Spec.Volumes) < 50 {
		t.Errorf("the host pod has %d containers and %d volumes", len(host.Spec.Containers), len(host.Spec.Volumes))
	}
	if host.Annotations["example.com/unicode"] != full.Annotations["example.com/unicode"] || host.Spec.Hostname != strings.Repeat("p", 63) {
		t.Errorf("annotation %q, host name %q", host.Annotations["example.com/unicode"], host.Spec.Hostname)
	}
	configMap := waitFor(t, "config map", func(ctx context.Context) (*corev1.ConfigMap, error) {
		return p.host.CoreV1().ConfigMaps(hostNamespace).Get(ctx, translate.HostName(space, name("c")), metav1.GetOptions{})
	}, nil)
	secret := waitFor(t, "secret", func(ctx context.Context) (*corev1.Secret, error) {
		return p.host.CoreV1().Secrets(hostNamespace).Get(ctx, translate.HostName(space, name("s")), metav1.GetOptions{})
	}, nil)
	if len(configMap.Data["big"]) != mebi || len(secret.Data["big"]) != mebi/3*3 {
		t.Errorf("%d and %d bytes of a mebibyte have crossed", len(configMap.Data["big"]), len(secret.Data["big"]))
	}
	p.remove(t, full.Name)
	p.testLongNames(t, name)
}

// testLongNames: each kind that may have a name of 253 characters, with dots in
// it, gets one on the host.
func (p *planes) testLongNames(t *testing.T, name func(letter string) string) {
	ctx, create := t.Context(), metav1.CreateOptions{}
	made := map[string]func(context.Context) error{}
	add := func(kind string, err error, host func(ctx context.Context, name string) error, long string) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		made[kind] = func(ctx context.Context) error { return host(ctx, translate.HostName(space, long)) }
	}
	long := name("v")
	_, err := p.virtual.CoreV1().PersistentVolumeClaims(space).Create(ctx, claim(long, new("fast")), create)
	add("PersistentVolumeClaim", err, func(ctx context.Context, name string) error {
		_, err := p.host.CoreV1().PersistentVolumeClaims(hostNamespace).Get(ctx, name, metav1.GetOptions{})
		return err
	}, long)
	_, err = p.virtual.CoreV1().ServiceAccounts(space).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: long, Annotations: map[string]string{identity: "me"}}}, create)
	add("ServiceAccount", err, func(ctx context.Context, name string) error {
		_, err := p.host.CoreV1().ServiceAccounts(hostNamespace).Get(ctx, name, metav1.GetOptions{})
		return err
	}, long)
	_, err = p.virtual.NetworkingV1().NetworkPolicies(space).Create(ctx, &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: long},
		Spec:       networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "nobody"}}, Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}}}},
	}, create)
	add("NetworkPolicy", err, func(ctx context.Context, name string) error {
		_, err := p.host.NetworkingV1().NetworkPolicies(hostNamespace).Get(ctx, name, metav1.GetOptions{})
		return err
	}, long)
	_, err = p.virtual.NetworkingV1().Ingresses(space).Create(ctx, &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: long},
		Spec: networkingv1.IngressSpec{
			TLS:   []networkingv1.IngressTLS{{Hosts: []string{"long.example.com"}, SecretName: name("s")}},
			Rules: []networkingv1.IngressRule{{Host: "long.example.com"}},
		},
	}, create)
	add("Ingress", err, func(ctx context.Context, name string) error {
		_, err := p.host.NetworkingV1().Ingresses(hostNamespace).Get(ctx, name, metav1.GetOptions{})
		return err
	}, long)
	_, err = p.virtual.PolicyV1().PodDisruptionBudgets(space).Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: long},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "nobody"}}},
	}, create)
	add("PodDisruptionBudget", err, func(ctx context.Context, name string) error {
		_, err := p.host.PolicyV1().PodDisruptionBudgets(hostNamespace).Get(ctx, name, metav1.GetOptions{})
		return err
	}, long)
	service := strings.Repeat("s", 63)
	_, err = p.virtual.CoreV1().Services(space).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: service}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}, create)
	add("Service", err, func(ctx context.Context, name string) error {
		_, err := p.host.CoreV1().Services(hostNamespace).Get(ctx, name, metav1.GetOptions{})
		return err
	}, service)
	_, err = p.virtual.DiscoveryV1().EndpointSlices(space).Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: long, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.10"}}},
	}, create)
	add("EndpointSlice", err, func(ctx context.Context, name string) error {
		_, err := p.host.DiscoveryV1().EndpointSlices(hostNamespace).Get(ctx, name, metav1.GetOptions{})
		return err
	}, long)
	for kind, get := range made {
		eventually(t, kind+" with the longest name is on the host", get)
	}
	if err := p.virtual.NetworkingV1().Ingresses(space).Delete(ctx, long, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (p *planes) remove(t *testing.T, name string) {
	t.Helper()
	if err := p.virtual.CoreV1().Pods(space).Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
	gone(t, "host pod "+name, p.hostPod(name))
}

// testReferencesLater: what does not exist stays away; what comes, crosses.
func (p *planes) testReferencesLater(t *testing.T) {
	ctx := t.Context()
	refers := pod("later")
	optional := true
	refers.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "none"}}
	refers.Spec.Volumes = []corev1.Volume{
		{Name: "a", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "later"}}},
		{Name: "b", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Optional: &optional}}},
		{Name: "c", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "later"}}},
		}}}},
	}
	p.createPod(t, refers)
	host := waitFor(t, "host pod", p.hostPod("later"), nil)
	if got := host.Spec.Volumes[1].ConfigMap.Optional; got == nil || !*got {
		t.Error("what was optional is required now")
	}
	if _, err := p.virtual.CoreV1().Secrets(space).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "later"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the secret comes", func(ctx context.Context) (*corev1.Secret, error) {
		return p.host.CoreV1().Secrets(hostNamespace).Get(ctx, translate.HostName(space, "later"), metav1.GetOptions{})
	}, nil)
	if _, err := p.virtual.CoreV1().PersistentVolumeClaims(space).Create(ctx, claim("later", new("fast")), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the claim comes", p.hostClaim("later"), nil)
	p.remove(t, "later")
}

// testQuotaOfClaims: the host's quota says no to other kinds than pods, too, and
// yes later.
func (p *planes) testQuotaOfClaims(t *testing.T) {
	ctx := t.Context()
	quotas := p.host.CoreV1().ResourceQuotas(hostNamespace)
	if _, err := quotas.Create(ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "claims"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePersistentVolumeClaims: resource.MustParse("0")}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "quota counts", func(ctx context.Context) (*corev1.ResourceQuota, error) {
		return quotas.Get(ctx, "claims", metav1.GetOptions{})
	}, func(q *corev1.ResourceQuota) bool { return len(q.Status.Hard) > 0 })
	if _, err := p.virtual.CoreV1().PersistentVolumeClaims(space).Create(ctx, claim("refused", new("fast")), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p.hears(t, "PersistentVolumeClaim", "refused", "exceeded quota")
	data, patchType := patch(`{"spec":{"hard":{"persistentvolumeclaims":"10"}}}`)
	if _, err := quotas.Patch(ctx, "claims", patchType, data, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the claim crosses", p.hostClaim("refused"), nil)
	if err := quotas.Delete(ctx, "claims", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// testMeddling: what an administrator of the host edits or deletes is made good;
// what is none of our business stays.
func (p *planes) testMeddling(t *testing.T) {
	ctx := t.Context()
	core, host := p.virtual.CoreV1(), p.host.CoreV1()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(core.ConfigMaps(space).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "meddled", Labels: map[string]string{"a": "b"}}, Data: map[string]string{"k": "v"}}, metav1.CreateOptions{}))
	must(core.Secrets(space).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "meddled"}, Type: "example.com/key", StringData: map[string]string{"k": "v"}}, metav1.CreateOptions{}))
	must(core.PersistentVolumeClaims(space).Create(ctx, claim("meddled", new("fast")), metav1.CreateOptions{}))
	must(core.Services(space).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "meddled"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{}))
	must(p.virtual.DiscoveryV1().EndpointSlices(space).Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "meddled", Labels: map[string]string{discoveryv1.LabelServiceName: "meddled"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.10"}}},
	}, metav1.CreateOptions{}))
	holder := pod("meddled")
	holder.Spec.Volumes = []corev1.Volume{
		{Name: "a", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "meddled"}}}},
		{Name: "b", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "meddled"}}},
		{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "meddled"}}},
	}
	virtual := p.createPod(t, holder)
	waitFor(t, "virtual pod runs", p.virtualPod("meddled"), running)

	name := translate.HostName(space, "meddled")
	type accessor struct {
		get    func(context.Context) (translate.Object, error)
		patch  func(context.Context, []byte) error
		delete func(context.Context) error
	}
	kinds := map[string]accessor{
		"ConfigMap": {
			func(ctx context.Context) (translate.Object, error) {
				return host.ConfigMaps(hostNamespace).Get(ctx, name, metav1.GetOptions{})
			},
			func(ctx context.Context, data []byte) error {
				_, err := host.ConfigMaps(hostNamespace).Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{})
				return err
			},
			func(ctx context.Context) error {
				return host.ConfigMaps(hostNamespace).Delete(ctx, name, metav1.DeleteOptions{})
			},
		},
		"Secret": {
			func(ctx context.Context) (translate.Object, error) {
				return host.Secrets(hostNamespace).Get(ctx, name, metav1.GetOptions{})
			},
			func(ctx context.Context, data []byte) error {
				_, err := host.Secrets(hostNamespace).Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{})
				return err
			},
			func(ctx context.Context) error {
				return host.Secrets(hostNamespace).Delete(ctx, name, metav1.DeleteOptions{})
			},
		},
		"PersistentVolumeClaim": {
			func(ctx context.Context) (translate.Object, error) {
				return host.PersistentVolumeClaims(hostNamespace).Get(ctx, name, metav1.GetOptions{})
			},
			func(ctx context.Context, data []byte) error {
				_, err := host.PersistentVolumeClaims(hostNamespace).Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{})
				return err
			},
			nil,
		},
		"EndpointSlice": {
			func(ctx context.Context) (translate.Object, error) {
				return p.host.DiscoveryV1().EndpointSlices(hostNamespace).Get(ctx, name, metav1.GetOptions{})
			},
			func(ctx context.Context, data []byte) error {
				_, err := p.host.DiscoveryV1().EndpointSlices(hostNamespace).Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{})
				return err
			},
			func(ctx context.Context) error {
				return p.host.DiscoveryV1().EndpointSlices(hostNamespace).Delete(ctx, name, metav1.DeleteOptions{})
			},
		},
		"Pod": {
			func(ctx context.Context) (translate.Object, error) {
				return host.Pods(hostNamespace).Get(ctx, name, metav1.GetOptions{})
			},
			func(ctx context.Context, data []byte) error {
				_, err := host.Pods(hostNamespace).Patch(ctx, name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
				return err
			},
			nil,
		},
	}
	tokens := accessor{
		func(ctx context.Context) (translate.Object, error) {
			return host.Secrets(hostNamespace).Get(ctx, translate.TokenSecretName(space, "meddled"), metav1.GetOptions{})
		},
		func(ctx context.Context, data []byte) error {
			_, err := host.Secrets(hostNamespace).Patch(ctx, translate.TokenSecretName(space, "meddled"), types.MergePatchType, data, metav1.PatchOptions{})
			return err
		},
		func(ctx context.Context) error {
			return host.Secrets(hostNamespace).Delete(ctx, translate.TokenSecretName(space, "meddled"), metav1.DeleteOptions{})
		},
	}
	for kind, edits := range map[string][]string{
		"ConfigMap":             {`{"data":{"k":"x","more":"y"}}`, `{"data":{"k":"x"},"immutable":true}`, `{"metadata":{"labels":null}}`, `{"metadata":{"annotations":null}}`, `{"metadata":{"labels":null,"annotations":null}}`},
		"Secret":                {`{"data":{"k":"eA=="}}`, `{"data":null,"immutable":true}`, `{"metadata":{"labels":null}}`},
		"PersistentVolumeClaim": {`{"metadata":{"labels":null}}`, `{"metadata":{"annotations":null}}`, `{"metadata":{"labels":null,"annotations":null}}`},
		"EndpointSlice":         {`{"endpoints":null}`, `{"metadata":{"labels":null}}`, `{"metadata":{"labels":{"kubernetes.io/service-name":"other"}}}`},
		"Pod":                   {`{"metadata":{"labels":null}}`, `{"metadata":{"annotations":null}}`, `{"metadata":{"labels":null,"annotations":null}}`, `{"spec":{"containers":[{"name":"main","image":"other"}]}}`},
	} {
		on := kinds[kind]
		before := waitFor(t, kind+" on the host", on.get, nil)
		made := func(what string) {
			t.Helper()
			eventually(t, kind+": "+what+" is made good", func(ctx context.Context) error {
				now, err := on.get(ctx)
				if err != nil {
					return err
				}
				if diff := cmp.Diff(contents(before), contents(now)); diff != "" {
					return errors.New(diff)
				}
				return nil
			})
		}
		for _, edit := range edits {
			if err := retry.OnError(retry.DefaultRetry, apierrors.IsNotFound, func() error { return on.patch(ctx, []byte(edit)) }); err != nil {
				t.Fatalf("%s: %s: %v", kind, edit, err)
			}
			made(edit)
		}
		if err := on.patch(ctx, []byte(`{"metadata":{"labels":{"host/own":"x"},"annotations":{"host/own":"x"}}}`)); err != nil {
			t.Fatal(err)
		}
		if on.delete == nil {
			continue
		}
		if err := on.delete(ctx); err != nil {
			t.Fatal(err)
		}
		made("deletion")
	}
	for what, meddle := range map[string]func() error{
		"other contents":         func() error { return tokens.patch(ctx, []byte(`{"data":{"token-0":"eA=="}}`)) },
		"other, immutably":       func() error { return tokens.patch(ctx, []byte(`{"data":{"token-0":"eA=="},"immutable":true}`)) },
		"no labels":              func() error { return tokens.patch(ctx, []byte(`{"metadata":{"labels":null}}`)) },
		"no annotations":         func() error { return tokens.patch(ctx, []byte(`{"data":null,"metadata":{"annotations":null}}`)) },
		"deleted":                func() error { return tokens.delete(ctx) },
		"no owner, no more data": func() error { return tokens.patch(ctx, []byte(`{"data":null,"metadata":{"ownerReferences":null}}`)) },
	} {
		if err := retry.OnError(retry.DefaultRetry, apierrors.IsNotFound, meddle); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		eventually(t, "tokens: "+what+" is made good", func(ctx context.Context) error {
			now, err := tokens.get(ctx)
			if err != nil {
				return err
			}
			secret := now.(*corev1.Secret)
			if len(secret.Data["token-0"]) < 100 || len(secret.Labels) == 0 || len(secret.Annotations) == 0 || len(secret.OwnerReferences) != 1 {
				return fmt.Errorf("%v", secret)
			}
			return nil
		})
	}
	if now, err := p.virtualPod("meddled")(ctx); err != nil || now.UID != virtual.UID || !running(now) {
		t.Errorf("after all that the pod is %v (%v)", now, err)
	}
	p.settle(t)
	p.remove(t, "meddled")
}

// contents are all of an object but what changes with each write.
func contents(o translate.Object) translate.Object {
	o = o.DeepCopyObject().(translate.Object)
	o.SetResourceVersion("")
	o.SetUID("")
	o.SetCreationTimestamp(metav1.Time{})
	o.SetManagedFields(nil)
	o.SetGeneration(0)
	for _, keys := range []map[string]string{o.GetLabels(), o.GetAnnotations()} {
		delete(keys, "host/own")
	}
	if pod, ok := o.(*corev1.Pod); ok {
		pod.Status = corev1.PodStatus{}
	}
	return o
}

// testStrayPods: a pod whose host pod has lost our marks is neither lost nor
// forgotten.
func (p *planes) testStrayPods(t *testing.T, again func() (stop func())) {
	ctx := t.Context()
	virtual := p.createPod(t, pod("stray"))
	waitFor(t, "virtual pod runs", p.virtualPod("stray"), running)
	host, err := p.hostPod("stray")(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p.stopSyncer()
	if _, err := p.host.CoreV1().Pods(hostNamespace).Patch(ctx, host.Name, types.MergePatchType, []byte(`{"metadata":{"labels":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	p.stopSyncer = again()
	waitFor(t, "marks are back", p.hostPod("stray"), func(h *corev1.Pod) bool { return h.UID == host.UID && cmp.Equal(h.Labels, host.Labels) })
	if now, err := p.virtualPod("stray")(ctx); err != nil || now.UID != virtual.UID {
		t.Errorf("the virtual pod is another one: %v", err)
	}
	p.stopSyncer()
	if _, err := p.host.CoreV1().Pods(hostNamespace).Patch(ctx, host.Name, types.MergePatchType, []byte(`{"metadata":{"labels":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := p.virtual.CoreV1().Pods(space).Delete(ctx, "stray", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.stopSyncer = again()
	gone(t, "virtual pod", p.virtualPod("stray"))
	if _, err := p.hostPod("stray")(ctx); !apierrors.IsNotFound(err) {
		t.Errorf("the virtual pod is gone, and its host pod runs on (%v)", err)
	}
}

// testMany: thousands of objects at once all arrive, each written once.
func (p *planes) testMany(t *testing.T) {
	const configMaps, perPod, services, pods, workers = 2000, 100, 100, 100, 20
	ctx := t.Context()
	core := p.virtual.CoreV1()
	var jobs []func(context.Context) error
	for i := range configMaps {
		jobs = append(jobs, func(ctx context.Context) error {
			_, err := core.ConfigMaps(space).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("many-%d", i)}, Data: map[string]string{"i": fmt.Sprint(i)}}, metav1.CreateOptions{})
			return err
		})
	}
	for i := range services {
		jobs = append(jobs, func(ctx context.Context) error {
			_, err := core.Services(space).Create(ctx, newService(fmt.Sprintf("many-%d", i), `{}`), metav1.CreateOptions{})
			return err
		})
	}
	many := func(name string) *corev1.Pod {
		made := pod(name)
		made.Labels["many"] = "yes"
		return made
	}
	for i := range configMaps / perPod {
		jobs = append(jobs, func(ctx context.Context) error {
			made := many(fmt.Sprintf("many-volumes-%d", i))
			for j := range perPod {
				made.Spec.Volumes = append(made.Spec.Volumes, corev1.Volume{Name: fmt.Sprintf("v%d", j), VolumeSource: corev1.VolumeSource{
					ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: fmt.Sprintf("many-%d", i*perPod+j)}}}})
			}
			_, err := core.Pods(space).Create(ctx, made, metav1.CreateOptions{})
			return err
		})
	}
	for i := range pods {
		jobs = append(jobs, func(ctx context.Context) error {
			_, err := core.Pods(space).Create(ctx, many(fmt.Sprintf("many-%d", i)), metav1.CreateOptions{})
			return err
		})
	}
	p.hostWrites.reset()
	var group errgroup.Group
	group.SetLimit(workers)
	for i := range jobs {
		// In a mixed order: what refers comes before what it refers to, and after.
		group.Go(func() error {
			err := retry.OnError(nodeRetry, overloaded, func() error { return jobs[i*7919%len(jobs)](ctx) })
			if apierrors.IsAlreadyExists(err) {
				return nil // A try that was not answered.
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	seldom(t, "all run", func(ctx context.Context) error {
		list, err := core.Pods(space).List(ctx, metav1.ListOptions{LabelSelector: "many=yes"})
		if err != nil {
			return err
		}
		waiting := slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return running(&pod) })
		onHost, err := p.host.CoreV1().ConfigMaps(hostNamespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(waiting) > 0 || len(onHost.Items) < configMaps {
			return fmt.Errorf("%d pods do not run, and %d config maps are on the host", len(waiting), len(onHost.Items))
		}
		return nil
	})
	wrote := p.hostWrites.reset()
	t.Logf("written on the host: %v", wrote)
	for what, want := range map[string]int{"POST pods": pods + configMaps/perPod, "POST configmaps": configMaps, "POST services": services, "PUT configmaps": 0, "PUT pods": 0} {
		if wrote[what] != want {
			t.Errorf("%s: %d times, want %d", what, wrote[what], want)
		}
	}
	p.settle(t)
	if err := core.Pods(space).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}, metav1.ListOptions{LabelSelector: "many=yes"}); err != nil {
		t.Fatal(err)
	}
	seldom(t, "all host pods are gone", func(ctx context.Context) error {
		list, err := p.host.CoreV1().Pods(hostNamespace).List(ctx, metav1.ListOptions{LabelSelector: "many=yes"})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d are left", len(list.Items))
		}
		return err
	})
	// They outlive the last pod that refers to them, but not for long.
	seldom(t, "what nothing refers to any more is gone from the host", func(ctx context.Context) error {
		list, err := p.host.CoreV1().ConfigMaps(hostNamespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		left := slices.DeleteFunc(list.Items, func(c corev1.ConfigMap) bool { return !strings.HasPrefix(c.Name, "many-") })
		if len(left) > 0 {
			return fmt.Errorf("%d config maps are left", len(left))
		}
		return nil
	})
}

// seldom waits for something that takes long and costs a lot to look at, so as
// not to be what keeps it from happening: as long as there is progress, of which
// the error tells.
func seldom(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	last, deadline := "", time.Time{}
	for ; ; time.Sleep(time.Second) {
		err := check(t.Context())
		if err == nil {
			return
		}
		if now := time.Now(); err.Error() != last {
			last, deadline = err.Error(), now.Add(2*patience)
		} else if now.After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}
