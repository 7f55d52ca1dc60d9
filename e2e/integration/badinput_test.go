package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// TestBadInput holds what must not go wrong when things do. What is about a broken
// tree is in TestTree, about templates in TestTemplates.
func TestBadInput(t *testing.T) {
	ctrl.SetLogger(logr.Discard())
	h := startManagedHost(t)
	h.run("MemberRemovedAtWork", func(*testing.T) { testMemberRemovedAtWork(h) })
	h.run("LimitBelowUse", func(*testing.T) { testLimitBelowUse(h) })
	h.run("Burst", func(*testing.T) { testBurst(h) })
	h.run("Killed", func(*testing.T) { testKilled(h) })
}

// testMemberRemovedAtWork takes a member away, of a Folder above, while he works in
// two namespaces below without pause.
func testMemberRemovedAtWork(h *managedHost) {
	t := h.t
	h.create(with(folder("office"), user("ann", api.RoleEdit), user("bob", api.RoleEdit)))
	rooms := []string{"room-1", "room-2"}
	for _, room := range rooms {
		h.create(below("office", namespaceTenant(room)))
	}
	for _, room := range rooms {
		h.holds(room, "edit=ann", "edit=bob")
	}
	as := func(name string) kubernetes.Interface {
		config := rest.CopyConfig(h.config)
		config.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: []string{"system:authenticated"}}
		config.QPS = -1
		c, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	type work struct {
		refused chan struct{}
		// after is what was still done once something had been refused.
		after []string
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	begin := func(who, room string) *work {
		c, w, once := as(who), &work{refused: make(chan struct{})}, sync.Once{}
		group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				done := map[string]error{}
				_, done["create"] = c.CoreV1().ConfigMaps(room).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", who, i)}}, metav1.CreateOptions{})
				_, done["list"] = c.CoreV1().Secrets(room).List(ctx, metav1.ListOptions{})
				// A watch of his own client is begun anew again and again.
				watching, err := c.CoreV1().Pods(room).Watch(ctx, metav1.ListOptions{TimeoutSeconds: new(int64)})
				if done["watch"] = err; err == nil {
					watching.Stop()
				}
				for what, err := range done {
					switch {
					case apierrors.IsForbidden(err):
						once.Do(func() { close(w.refused) })
					case err == nil:
						select {
						case <-w.refused:
							w.after = append(w.after, fmt.Sprintf("%s %d", what, i))
						default:
						}
					}
				}
			}
		})
		return w
	}
	var anns, bobs []*work
	for _, room := range rooms {
		anns, bobs = append(anns, begin("ann", room)), append(bobs, begin("bob", room))
	}
	h.eventually("both are at work", func(ctx context.Context) error {
		for _, room := range rooms {
			for _, who := range []string{"ann", "bob"} {
				if err := h.client.Get(ctx, client.ObjectKey{Namespace: room, Name: who + "-2"}, &corev1.ConfigMap{}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	h.change("office", func(s *api.TenantSpec) { s.Members = []api.Member{user("bob", api.RoleEdit)} })
	for i, room := range rooms {
		select {
		case <-anns[i].refused:
		case <-time.After(patience):
			t.Fatalf("ann goes on to work in %s", room)
		}
	}
	// All of it, at once, and for good.
	h.eventually("nothing of ann's comes through", func(ctx context.Context) error {
		for _, room := range rooms {
			for what, err := range map[string]error{
				"a list":     h.as("ann").List(ctx, &corev1.ConfigMapList{}, client.InNamespace(room)),
				"the tenant": h.as("ann").Get(ctx, key(room), &api.Tenant{}),
			} {
				if !apierrors.IsForbidden(err) {
					return fmt.Errorf("%s of %s: %v", what, room, err)
				}
			}
		}
		return nil
	})
	cancel()
	group.Wait()
	for i, room := range rooms {
		select {
		case <-bobs[i].refused:
			t.Errorf("(control) bob was refused in %s", room)
		default:
		}
		// The three rights go with one binding; a request may have been under way.
		if len(anns[i].after) > 3 {
			t.Errorf("after the first refusal ann still did in %s: %v", room, anns[i].after)
		}
	}
	h.remove("room-1", "room-2", "office")
}

// testLimitBelowUse sets a quota below what there is: nothing goes away, nothing
// more comes, and everybody sees why.
func testLimitBelowUse(h *managedHost) {
	t := h.t
	h.create(limited(folder("shop"), "services", "6"))
	h.create(below("shop", namespaceTenant("till")))
	h.waitForPhase("till", api.PhaseReady)
	for i := range 4 {
		h.eventually("a service fits", func(ctx context.Context) error {
			return client.IgnoreAlreadyExists(h.client.Create(ctx, service("till", fmt.Sprintf("s%d", i))))
		})
	}
	h.change("shop", func(s *api.TenantSpec) { s.Limits.Quota = corev1.ResourceList{"services": resource.MustParse("2")} })
	h.eventually("it is in force", func(ctx context.Context) error {
		quota := &corev1.ResourceQuota{}
		if err := h.client.Get(ctx, client.ObjectKey{Namespace: "till", Name: "sublet-objects"}, quota); err != nil {
			return err
		}
		if hard := quota.Status.Hard["services"]; hard.Value() != 2 {
			return fmt.Errorf("%s", hard.String())
		}
		return nil
	})
	err := h.client.Create(t.Context(), service("till", "more"))
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "exceeded quota") || !strings.Contains(err.Error(), "used: services=4, limited: services=2") {
		t.Errorf("one more: %v", err)
	}
	if n, err := h.services(t.Context(), "till"); err != nil || n != 4 {
		t.Errorf("%d of 4 services are left: %v", n, err)
	}
	for _, name := range []string{"shop", "till"} {
		h.waitForPhase(name, api.PhaseReady)
		h.eventually("the usage of "+name+" says so", func(context.Context) error {
			tenant := h.tenant(name)
			used := tenant.Status.Usage["services"]
			if used.Value() != 4 || limit(tenant, "quota.services").Value != "2" {
				return fmt.Errorf("%s of %s", used.String(), limit(tenant, "quota.services").Value)
			}
			return nil
		})
	}
	// One that goes makes no room while there are more than there may be.
	for i := range 3 {
		if err := h.client.Delete(t.Context(), service("till", fmt.Sprintf("s%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	h.eventually("there is room again", func(ctx context.Context) error { return h.client.Create(ctx, service("till", "more")) })
	h.remove("till", "shop")
}

// testBurst makes many tenants as fast as the API server takes them, some of which
// cannot be, and wants that all others are ready and nobody else waits for them.
// The benchmark tree_converge_ms has thousands.
func testBurst(h *managedHost) {
	t := h.t
	h.create(with(folder("crowd"), user("ann", api.RoleEdit)))
	h.create(namespaceTenant("bystander"))
	h.waitForPhase("bystander", api.PhaseReady)
	const many = 30
	names := make([]string, many)
	var group sync.WaitGroup
	for i := range many {
		names[i] = fmt.Sprintf("crowd-%d", i)
		group.Go(func() {
			tenant := below("crowd", namespaceTenant(names[i]))
			switch i % 10 {
			case 7:
				tenant = below("crowd", folder(names[i]))
			case 8:
				tenant.Spec.Namespace = "crowd-shared" // one of them has it
			case 9:
				tenant.Spec.Parent = "never-was"
			}
			if err := h.client.Create(t.Context(), tenant); err != nil {
				t.Errorf("%s: %v", names[i], err)
			}
		})
	}
	group.Wait()
	h.change("bystander", func(s *api.TenantSpec) { s.Members = []api.Member{user("zoe", api.RoleView)} })
	h.holds("bystander", "view=zoe")
	var sharing []string
	for i, name := range names {
		switch i % 10 {
		case 8:
			sharing = append(sharing, name)
		case 9:
			h.waitFor(name, api.ConditionPlaced, tenancy.BrokenMissing)
		case 7:
			h.waitForPhase(name, api.PhaseReady)
		default:
			h.waitForPhase(name, api.PhaseReady)
			h.holds(name, "edit=ann")
		}
	}
	h.eventually("one has the namespace that several want, and the others say so", func(context.Context) error {
		ready := 0
		for _, name := range sharing {
			c := meta.FindStatusCondition(h.tenant(name).Status.Conditions, api.ConditionNamespaceReady)
			switch {
			case c == nil:
				return fmt.Errorf("%s says nothing yet", name)
			case c.Status == metav1.ConditionTrue:
				ready++
			case c.Reason != "NamespaceTaken":
				return fmt.Errorf("%s: %+v", name, c)
			}
		}
		if ready != 1 {
			return fmt.Errorf("%d have it", ready)
		}
		return nil
	})
	h.eventually("all are counted", func(context.Context) error {
		if got := h.tenant("crowd").Status.Children; got != many-many/10 {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
	h.change("crowd", func(s *api.TenantSpec) { s.DeletionPolicy = api.DeletionCascade })
	if err := h.client.Delete(t.Context(), h.tenant("crowd")); err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if i%10 == 9 {
			h.remove(name)
			continue
		}
		h.isGone(name)
	}
	h.remove("crowd", "bystander")
}

// killer ends a manager as a power failure would: from one write on nothing that it
// writes gets through, but that another one may take its place. What it still reads
// does no harm.
type killer struct {
	next http.RoundTripper
	mu   *sync.Mutex
	// left are the writes that it has yet; dead is closed when there is none.
	left *int
	dead chan struct{}
}

func (k killer) RoundTrip(request *http.Request) (*http.Response, error) {
	other := slices.ContainsFunc([]string{"/leases", "/events", "reviews"}, func(kind string) bool { return strings.Contains(request.URL.Path, kind) })
	if request.Method == http.MethodGet || other {
		return k.next.RoundTrip(request)
	}
	k.mu.Lock()
	if *k.left >= 0 {
		if *k.left--; *k.left < 0 {
			close(k.dead)
		}
	}
	alive := *k.left >= 0
	k.mu.Unlock()
	if !alive {
		return nil, errors.New("the manager is dead")
	}
	return k.next.RoundTrip(request)
}

// killAfter has the next manager die after some writes.
func (h *managedHost) killAfter(writes int) (dead <-chan struct{}) {
	ended, mu := make(chan struct{}), &sync.Mutex{}
	h.wrap = func(next http.RoundTripper) http.RoundTripper { return killer{next, mu, &writes, ended} }
	return ended
}

// testKilled has managers die in the middle of a move and of a cascade, after any
// number of writes, several times each. Meanwhile nobody gets what he may not have
// before or after, and nothing goes that should stay; the end is as if nothing had
// happened.
func testKilled(h *managedHost) {
	for seed := range uint64(3) {
		h.run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 17))
			h.create(limited(with(folder("here"), user("ann", api.RoleEdit)), "services", "12"))
			h.create(limited(with(folder("there"), user("bob", api.RoleEdit), user("eve", api.RoleView)), "services", "12"))
			h.create(below("here", namespaceTenant("beside")))
			h.create(below("here", folder("group")))
			var parts []string
			for i := range 3 {
				parts = append(parts, fmt.Sprintf("part-%d", i))
				h.create(below("group", namespaceTenant(parts[i])))
			}
			for _, part := range append(slices.Clone(parts), "beside") {
				h.holds(part, "edit=ann")
			}
			before, after := []string{"edit=ann"}, []string{"edit=bob", "view=eve"}
			watched := h.watchSum("services", 12, parts...)

			// dies has one manager after another die until all is done or they were
			// enough, and looks at what there is each time.
			dies := func(done func(ctx context.Context) bool, look func()) {
				t.Helper()
				for range 2 {
					dead := h.killAfter(r.IntN(14))
					h.startManager()
					h.eventually("it is dead, or all is done", func(ctx context.Context) error {
						select {
						case <-dead:
							return nil
						default:
						}
						if done(ctx) {
							return nil
						}
						return errors.New("neither")
					})
					h.stop()
					look()
				}
				h.wrap = nil
				h.startManager()
			}
			holders := func(ctx context.Context, part string) []string {
				got, err := h.subjectsOf(ctx, part)
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
			h.stop()
			h.change("group", func(s *api.TenantSpec) { s.Parent = "there" })
			dies(func(ctx context.Context) bool {
				return !slices.ContainsFunc(parts, func(part string) bool { return !slices.Equal(holders(ctx, part), after) })
			}, func() {
				for _, part := range parts {
					for _, who := range holders(t.Context(), part) {
						if !slices.Contains(before, who) && !slices.Contains(after, who) {
							t.Errorf("in %s there is %s", part, who)
						}
					}
				}
				if got := holders(t.Context(), "beside"); !slices.Equal(got, before) {
					t.Errorf("in beside there are %v", got)
				}
			})
			for _, part := range parts {
				h.holds(part, after...)
				h.eventually(part+" has moved", func(context.Context) error {
					if path := h.tenant(part).Status.Path; path != "root/there/group/"+part {
						return errors.New(path)
					}
					return nil
				})
				h.waitForPhase(part, api.PhaseReady)
			}
			watched()

			h.change("group", func(s *api.TenantSpec) { s.DeletionPolicy = api.DeletionCascade })
			h.stop()
			if err := h.client.Delete(t.Context(), h.tenant("group")); err != nil {
				t.Fatal(err)
			}
			gone := func(ctx context.Context) bool {
				return apierrors.IsNotFound(h.client.Get(ctx, key("group"), &api.Tenant{}))
			}
			dies(gone, func() {
				for _, name := range []string{"here", "there", "beside"} {
					if h.tenant(name).DeletionTimestamp != nil {
						t.Errorf("%s is deleted, too", name)
					}
				}
				namespace := &corev1.Namespace{}
				if err := h.client.Get(t.Context(), key("beside"), namespace); err != nil || namespace.DeletionTimestamp != nil {
					t.Errorf("the namespace beside: %v, deleted at %v", err, namespace.DeletionTimestamp)
				}
				// Nobody gets in while it goes.
				for _, part := range parts {
					for _, who := range holders(t.Context(), part) {
						if !slices.Contains(after, who) {
							t.Errorf("in %s there is %s", part, who)
						}
					}
				}
			})
			for _, part := range parts {
				h.isGone(part)
				h.eventually("the namespace of "+part+" is gone", func(ctx context.Context) error {
					if err := h.client.Get(ctx, key(part), &corev1.Namespace{}); !apierrors.IsNotFound(err) {
						return fmt.Errorf("it is there: %v", err)
					}
					return nil
				})
			}
			h.isGone("group")
			h.remove("beside", "here", "there")
		})
	}
}
