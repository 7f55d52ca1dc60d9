package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// TestQuota shares quotas out over subtrees.
func TestQuota(t *testing.T) {
	ctrl.SetLogger(logr.Discard())
	h := startManagedHost(t)
	h.run("Race", func(*testing.T) { testQuotaRace(h) })
	h.run("Sizes", func(*testing.T) { testQuotaSizes(h) })
	h.run("ComingAndGoing", func(*testing.T) { testQuotaMoves(h) })
}

func limited(tenant *api.Tenant, pairs ...string) *api.Tenant {
	tenant.Spec.Limits = &api.Limits{Quota: corev1.ResourceList{}}
	for i := 0; i < len(pairs); i += 2 {
		tenant.Spec.Limits.Quota[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return tenant
}

// enforced is what the API server enforces of a resource in some namespaces, added
// up.
func (h *managedHost) enforced(ctx context.Context, name corev1.ResourceName, namespaces ...string) (int64, error) {
	var sum int64
	for _, namespace := range namespaces {
		list := &corev1.ResourceQuotaList{}
		if err := h.client.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return 0, err
		}
		for _, quota := range list.Items {
			if quota.Name == "sublet-objects" || quota.Name == "sublet-pods" {
				hard, used := quota.Status.Hard[name], quota.Status.Used[name]
				sum += max(hard.MilliValue(), used.MilliValue())
			}
		}
	}
	return sum / 1000, nil
}

// watchSum fails the test when namespaces together may have more than a limit at
// any time until the returned function is called.
func (h *managedHost) watchSum(name corev1.ResourceName, limit int64, namespaces ...string) (stop func()) {
	ctx, cancel := context.WithCancel(h.t.Context())
	t, ended := h.t, make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			// The namespaces are read one after the other, so what moves between them
			// may be seen twice; what is seen again at once is true.
			if sum, err := h.enforced(ctx, name, namespaces...); err == nil && sum > limit {
				if again, err := h.enforced(ctx, name, namespaces...); err == nil && again > limit {
					t.Errorf("%s: together they may have %d, and then %d; the limit is %d", name, sum, again, limit)
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return func() { cancel(); <-ended }
}

func service(namespace, name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

func (h *managedHost) services(ctx context.Context, namespaces ...string) (int, error) {
	n := 0
	for _, namespace := range namespaces {
		list := &corev1.ServiceList{}
		if err := h.client.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return 0, err
		}
		n += len(list.Items)
	}
	return n, nil
}

// testQuotaRace has ten Services created at the same time in two namespaces of a
// subtree that may have five.
func testQuotaRace(h *managedHost) {
	t := h.t
	h.create(limited(folder("five"), "services", "5"))
	h.create(with(below("five", namespaceTenant("five-a")), user("ann", api.RoleEdit)))
	h.create(with(below("five", namespaceTenant("five-b")), user("ann", api.RoleEdit)))
	h.create(limited(namespaceTenant("other"), "services", "5"))
	h.waitForPhase("five-a", api.PhaseReady)
	h.waitForPhase("five-b", api.PhaseReady)
	stop := h.watchSum("services", 5, "five-a", "five-b")
	defer stop()
	h.eventually("all of it is shared out", func(ctx context.Context) error {
		if sum, err := h.enforced(ctx, "services", "five-a", "five-b"); err != nil || sum != 5 {
			return fmt.Errorf("%d: %v", sum, err)
		}
		return nil
	})
	// Everybody goes on trying, as controllers do.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	ann := h.as("ann")
	for i := range 10 {
		namespace := []string{"five-a", "five-b"}[i%2]
		group.Go(func() {
			for ctx.Err() == nil {
				err := ann.Create(ctx, service(namespace, fmt.Sprintf("s%d", i)))
				if err == nil || apierrors.IsAlreadyExists(err) {
					return
				}
				// The API server says conflict when a quota changed too often while it
				// counted.
				if ctx.Err() == nil && !apierrors.IsForbidden(err) && !apierrors.IsConflict(err) {
					t.Errorf("creating a Service: %v", err)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	h.eventually("five of ten", func(ctx context.Context) error {
		if n, err := h.services(ctx, "five-a", "five-b"); err != nil || n != 5 {
			return fmt.Errorf("%d: %v", n, err)
		}
		return nil
	})
	for begin := time.Now(); time.Since(begin) < 3*time.Second; time.Sleep(50 * time.Millisecond) {
		if n, err := h.services(t.Context(), "five-a", "five-b"); err != nil || n != 5 {
			t.Fatalf("%d Services: %v", n, err)
		}
	}
	cancel()
	group.Wait()
	h.eventually("the usage is told, all the way up", func(ctx context.Context) error {
		for name, want := range map[string]int64{"five": 5} {
			used := h.tenant(name).Status.Usage["services"]
			if used.Value() != want {
				return fmt.Errorf("%s uses %s", name, used.String())
			}
		}
		return nil
	})
	// One goes, wherever; then one can come, wherever else.
	for _, c := range [][2]string{{"five-a", "five-b"}, {"five-b", "five-a"}, {"five-b", "five-b"}} {
		from, to := c[0], c[1]
		list := &corev1.ServiceList{}
		if err := h.client.List(t.Context(), list, client.InNamespace(from)); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) == 0 {
			continue
		}
		if err := h.client.Delete(t.Context(), &list.Items[0]); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		next := service(to, "next-"+from+"-"+to)
		h.eventually("another Service in "+to, func(ctx context.Context) error { return ann.Create(ctx, next.DeepCopy()) })
		t.Logf("after a deletion in %s one came in %s within %s", from, to, time.Since(begin).Round(10*time.Millisecond))
		if n, err := h.services(t.Context(), "five-a", "five-b"); err != nil || n != 5 {
			t.Errorf("%d Services: %v", n, err)
		}
	}
	// The control: next door there is room.
	if err := h.client.Create(t.Context(), service("other", "s")); err != nil {
		t.Errorf("a neighbour may not: %v", err)
	}
	// Raised, it is there for all; lowered below what is in use, nothing goes and
	// nothing comes.
	stop()
	h.change("five", func(s *api.TenantSpec) { s.Limits.Quota["services"] = resource.MustParse("6") })
	h.eventually("a sixth", func(ctx context.Context) error { return ann.Create(ctx, service("five-a", "sixth")) })
	h.change("five", func(s *api.TenantSpec) { s.Limits.Quota["services"] = resource.MustParse("2") })
	h.eventually("no more may come", func(ctx context.Context) error {
		var hard int64
		for _, namespace := range []string{"five-a", "five-b"} {
			quota := &corev1.ResourceQuota{}
			if err := h.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "sublet-objects"}, quota); err != nil {
				return err
			}
			share := quota.Status.Hard["services"]
			hard += share.Value()
		}
		if hard != 2 {
			return fmt.Errorf("%d", hard)
		}
		return nil
	})
	if n, err := h.services(t.Context(), "five-a", "five-b"); err != nil || n != 6 {
		t.Errorf("%d Services are left: %v", n, err)
	}
	h.change("five", func(s *api.TenantSpec) { s.DeletionPolicy = api.DeletionCascade })
	h.remove("five", "other")
}

// testQuotaSizes has the cpu of a sibling refused, and had when it is free; a
// refusal that an event tells of is served.
func testQuotaSizes(h *managedHost) {
	t := h.t
	h.create(limited(folder("cores"), "requests.cpu", "4"))
	names := []string{"cores-a", "cores-b", "cores-c"}
	for _, name := range names {
		h.create(below("cores", namespaceTenant(name)))
	}
	for _, name := range names {
		h.waitForPhase(name, api.PhaseReady)
	}
	defer h.watchSum("requests.cpu", 4, names...)()
	deployment := func(namespace, cpu string) *appsv1.Deployment {
		labels := map[string]string{"app": "x"}
		no := false
		return &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "x"},
			Spec: appsv1.DeploymentSpec{
				Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: corev1.PodTemplateSpec{
					ObjectMeta: metav1.ObjectMeta{Labels: labels},
					Spec: corev1.PodSpec{AutomountServiceAccountToken: &no, Containers: []corev1.Container{{
						Name: "c", Image: "example.com/c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse(cpu)}},
					}}},
				},
			},
		}
	}
	pods := func(ctx context.Context, namespace string) (int, error) {
		list := &corev1.PodList{}
		err := h.client.List(ctx, list, client.InNamespace(namespace))
		return len(list.Items), err
	}
	there := func(namespace string) {
		t.Helper()
		begin := time.Now()
		h.eventually("the pod in "+namespace, func(ctx context.Context) error {
			if n, err := pods(ctx, namespace); err != nil || n != 1 {
				return fmt.Errorf("%d pods: %v", n, err)
			}
			return nil
		})
		t.Logf("the pod in %s is there after %s", namespace, time.Since(begin).Round(10*time.Millisecond))
	}
	// More than an equal part for each of them.
	h.create(deployment("cores-a", "2500m"))
	there("cores-a")
	h.create(deployment("cores-b", "1"))
	there("cores-b")
	// Half a core is left; a whole one is refused.
	h.create(deployment("cores-c", "1"))
	h.eventually("a refusal", func(ctx context.Context) error {
		events := &corev1.EventList{}
		if err := h.client.List(ctx, events, client.InNamespace("cores-c")); err != nil {
			return err
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, "exceeded quota") {
				return nil
			}
		}
		return errors.New("none yet")
	})
	time.Sleep(2 * time.Second)
	if n, err := pods(t.Context(), "cores-c"); err != nil || n != 0 {
		t.Errorf("%d pods: %v", n, err)
	}
	// Another Deployment, since the controller tries the refused one more and more
	// seldom.
	for _, namespace := range []string{"cores-b", "cores-c"} {
		if err := h.client.Delete(t.Context(), deployment(namespace, "1")); err != nil {
			t.Fatal(err)
		}
	}
	h.eventually("the ReplicaSet in cores-c is gone", func(ctx context.Context) error {
		list := &appsv1.ReplicaSetList{}
		if err := h.client.List(ctx, list, client.InNamespace("cores-c")); err != nil || len(list.Items) > 0 {
			return fmt.Errorf("%d: %v", len(list.Items), err)
		}
		return nil
	})
	h.create(deployment("cores-c", "1"))
	there("cores-c")
	h.change("cores", func(s *api.TenantSpec) { s.DeletionPolicy = api.DeletionCascade })
	h.remove("cores")
}

// testQuotaMoves has namespaces come under a quota and leave it.
func testQuotaMoves(h *managedHost) {
	t := h.t
	h.create(limited(folder("shelf"), "secrets", "9"))
	h.create(below("shelf", namespaceTenant("shelf-a")))
	h.waitForPhase("shelf-a", api.PhaseReady)
	share := func(namespace string, want func(int64) bool) {
		t.Helper()
		h.eventually("the share of "+namespace, func(ctx context.Context) error {
			quota := &corev1.ResourceQuota{}
			if err := h.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "sublet-objects"}, quota); err != nil {
				return err
			}
			hard, ok := quota.Status.Hard["secrets"]
			if !ok || !want(hard.Value()) {
				return fmt.Errorf("%s", hard.String())
			}
			return nil
		})
	}
	is := func(n int64) func(int64) bool { return func(m int64) bool { return m == n } }
	share("shelf-a", is(9))
	stop := h.watchSum("secrets", 9, "shelf-a", "shelf-b")
	h.create(below("shelf", namespaceTenant("shelf-b")))
	share("shelf-b", func(n int64) bool { return n > 0 })
	share("shelf-a", func(n int64) bool { return n > 0 && n < 9 })
	stop()
	h.stop()
	h.startManager()
	stop = h.watchSum("secrets", 9, "shelf-a", "shelf-b")
	h.eventually("another manager shares all of it out", func(ctx context.Context) error {
		if sum, err := h.enforced(ctx, "secrets", "shelf-a", "shelf-b"); err != nil || sum != 9 {
			return fmt.Errorf("%d: %v", sum, err)
		}
		return nil
	})
	stop()
	h.change("shelf-b", func(s *api.TenantSpec) { s.Parent = "" })
	share("shelf-a", is(9))
	h.eventually("what left has no quota any more", func(ctx context.Context) error {
		quota := &corev1.ResourceQuota{}
		if err := h.client.Get(ctx, client.ObjectKey{Namespace: "shelf-b", Name: "sublet-objects"}, quota); err != nil {
			return err
		}
		if _, limited := quota.Spec.Hard["secrets"]; limited {
			return errors.New("it has")
		}
		if len(h.tenant("shelf-b").Status.Usage) > 0 {
			return errors.New("it tells of a usage")
		}
		return nil
	})
	h.remove("shelf-a", "shelf-b", "shelf")
}
