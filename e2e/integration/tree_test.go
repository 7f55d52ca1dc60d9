package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

func TestTree(t *testing.T) {
	ctrl.SetLogger(logr.Discard())
	h := startManagedHost(t)
	h.run("Root", func(*testing.T) { testRoot(h) })
	h.run("Inheritance", func(*testing.T) { testInheritance(h) })
	h.run("BrokenTree", func(*testing.T) { testBrokenTree(h) })
	h.run("ReplacedParent", func(*testing.T) { testReplacedParent(h) })
	h.run("InvalidAbove", func(*testing.T) { testInvalidAbove(h) })
	h.run("DeletionPolicies", func(*testing.T) { testDeletionPolicies(h) })
	h.run("Expiry", func(*testing.T) { testExpiry(h) })
	h.run("Authorization", func(*testing.T) { testAuthorization(h) })
	h.run("MovesMidway", func(*testing.T) { testMovesMidway(h) })
}

// run runs a part of a test, in which failures are that part's.
func (h *managedHost) run(name string, part func(t *testing.T)) {
	whole := h.t
	whole.Run(name, func(t *testing.T) {
		h.t = t
		defer func() { h.t = whole }()
		part(t)
	})
}

func folder(name string) *api.Tenant {
	return &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: api.TenantSpec{Type: api.Folder}}
}

func below(parent string, tenant *api.Tenant) *api.Tenant {
	tenant.Spec.Parent = parent
	return tenant
}

func with(tenant *api.Tenant, members ...api.Member) *api.Tenant {
	tenant.Spec.Members = members
	return tenant
}

func user(name string, role api.Role) api.Member {
	return api.Member{Kind: "User", Name: name, Role: role}
}

// subjectsOf are the members that hold a RoleBinding, as role=name.
func (h *managedHost) subjectsOf(ctx context.Context, namespace string) ([]string, error) {
	list := &rbacv1.RoleBindingList{}
	if err := h.client.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels{api.LabelComponent: api.ComponentFence}); err != nil {
		return nil, err
	}
	var names []string
	for _, binding := range list.Items {
		if binding.Name == "sublet-cleanup" {
			continue
		}
		for _, subject := range binding.Subjects {
			names = append(names, strings.TrimPrefix(binding.Name, "sublet-")+"="+subject.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// holds waits until the members in a namespace are the given ones.
func (h *managedHost) holds(namespace string, want ...string) {
	h.t.Helper()
	h.eventually("the members in "+namespace, func(ctx context.Context) error {
		got, err := h.subjectsOf(ctx, namespace)
		if diff := cmp.Diff(want, got); err == nil && diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return err
	})
}

// counted waits until it is known what tenants use.
func (h *managedHost) counted(names ...string) {
	h.t.Helper()
	for _, name := range names {
		h.eventually("the usage of "+name, func(context.Context) error {
			if _, known := h.tenant(name).Status.Usage["pods"]; !known {
				return errors.New("not known")
			}
			return nil
		})
	}
}

// limit is one of a tenant's effective limits.
func limit(tenant *api.Tenant, name string) api.EffectiveLimit {
	if tenant.Status.Effective != nil {
		for _, l := range tenant.Status.Effective.Limits {
			if l.Name == name {
				return l
			}
		}
	}
	return api.EffectiveLimit{}
}

func (h *managedHost) isGone(name string) {
	h.t.Helper()
	h.eventually("tenant "+name+" is gone", func(ctx context.Context) error {
		tenant := &api.Tenant{}
		if err := h.client.Get(ctx, client.ObjectKey{Name: name}, tenant); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %v %+v", err, tenant.Status)
		}
		return nil
	})
}

func testRoot(h *managedHost) {
	t := h.t
	h.waitForPhase(api.RootTenant, api.PhaseReady)
	// Without anything below it may be made anew.
	root := h.tenant(api.RootTenant)
	if err := h.client.Delete(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	h.eventually("another root", func(ctx context.Context) error {
		now := &api.Tenant{}
		if err := h.client.Get(ctx, client.ObjectKey{Name: api.RootTenant}, now); err != nil {
			return err
		}
		if now.UID == root.UID || now.Status.Phase != api.PhaseReady {
			return errors.New("not yet")
		}
		return nil
	})
	h.create(folder("anybody"))
	h.waitForPhase("anybody", api.PhaseReady)
	h.eventually("the root counts it", func(ctx context.Context) error {
		if n := h.tenant(api.RootTenant).Status.Children; n != 1 {
			return fmt.Errorf("%d children", n)
		}
		return nil
	})
	if err := h.as("admin", "system:masters").Delete(t.Context(), h.tenant(api.RootTenant)); !apierrors.IsForbidden(err) {
		t.Errorf("deleting the root: %v", err)
	}
	h.remove("anybody")
}

// remove deletes a tenant as its owner would, and waits until it is gone.
func (h *managedHost) remove(names ...string) {
	h.t.Helper()
	for _, name := range names {
		tenant := &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}}
		h.eventually("tenant "+name+" can be deleted", func(ctx context.Context) error {
			return client.IgnoreNotFound(h.client.Delete(ctx, tenant))
		})
		h.isGone(name)
	}
}

func testInheritance(h *managedHost) {
	t := h.t
	sre := api.Member{Kind: "Group", Name: "sre", Role: api.RoleView, Scope: api.ScopeDescendants}
	bot := api.Member{Kind: "ServiceAccount", Namespace: "build", Name: "bot", Role: api.RoleEdit}
	company := with(folder("company"), sre)
	company.Spec.Limits = &api.Limits{
		PodSecurity: api.PodSecurityRestricted,
		Quota:       corev1.ResourceList{"pods": resource.MustParse("10")},
		Services:    []corev1.ServiceType{"ClusterIP", "LoadBalancer"},
	}
	// Below comes before above: it waits.
	shop := below("team1", namespaceTenant("shop"))
	shop.Spec.Limits = &api.Limits{Quota: corev1.ResourceList{"pods": resource.MustParse("20")}, PodSecurity: api.PodSecurityPrivileged}
	h.create(shop)
	c := h.waitFor("shop", api.ConditionPlaced, tenancy.BrokenMissing)
	if !strings.Contains(c.Message, `"team1"`) {
		t.Errorf("the message does not name the parent: %s", c.Message)
	}
	h.waitForPhase("shop", api.PhasePending)
	h.create(with(below("company", folder("team1")), user("lead", api.RoleAdmin), api.Member{Kind: "Group", Name: "team1", Role: api.RoleEdit}, bot))
	h.create(company)
	h.create(with(below("company", folder("team2")), user("other", api.RoleAdmin)))
	h.waitForPhase("shop", api.PhaseReady)
	h.holds("shop", "admin=lead", "edit=bot", "edit=team1", "view=sre")

	tenant := h.tenant("shop")
	if tenant.Status.Path != "root/company/team1/shop" || tenant.Status.Depth != 3 {
		t.Errorf("path is %q, depth %d", tenant.Status.Path, tenant.Status.Depth)
	}
	for name, want := range map[string]api.EffectiveLimit{
		"quota.pods":  {Name: "quota.pods", Value: "10", From: []string{"company"}},
		"podSecurity": {Name: "podSecurity", Value: "restricted", From: []string{"company"}},
		"services":    {Name: "services", Value: "ClusterIP, LoadBalancer", From: []string{"company"}},
	} {
		if diff := cmp.Diff(want, limit(tenant, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	from := map[string]string{}
	for _, member := range tenant.Status.Effective.Members {
		from[member.Name] = member.From
	}
	if diff := cmp.Diff(map[string]string{"sre": "company", "lead": "team1", "team1": "team1", "bot": "team1"}, from); diff != "" {
		t.Errorf("where members come from (-want +got):\n%s", diff)
	}
	namespace := &corev1.Namespace{}
	if err := h.client.Get(t.Context(), client.ObjectKey{Name: "shop"}, namespace); err != nil {
		t.Fatal(err)
	}
	if got := namespace.Labels["pod-security.kubernetes.io/enforce"]; got != "restricted" {
		t.Errorf("Pod Security is %q", got)
	}
	t.Run("what they may do", func(t *testing.T) {
		configMap := func(name string) *corev1.ConfigMap {
			return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
		}
		for name, c := range map[string]client.Client{
			"an admin from above":                     h.as("lead"),
			"a group from above":                      h.as("joe", "team1"),
			"a service account from above":            h.as("system:serviceaccount:build:bot", "system:serviceaccounts"),
			"(control: who is there by himself only)": h.as("admin", "system:masters"),
		} {
			if err := c.Create(t.Context(), configMap("of-"+strings.Map(onlyLetters, name))); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := h.as("sam", "sre").Create(t.Context(), configMap("x")); !apierrors.IsForbidden(err) {
			t.Errorf("a viewer writes: %v", err)
		}
		if err := h.as("sam", "sre").Get(t.Context(), client.ObjectKeyFromObject(configMap("of-agroupfromabove")), &corev1.ConfigMap{}); err != nil {
			t.Errorf("a viewer reads: %v", err)
		}
		if err := h.as("other").List(t.Context(), &corev1.ConfigMapList{}, client.InNamespace("shop")); !apierrors.IsForbidden(err) {
			t.Errorf("a neighbour reads: %v", err)
		}
		for name, visible := range map[string]bool{"shop": true, "team1": true, "company": false, "team2": false} {
			err := h.as("sam", "team1").Get(t.Context(), client.ObjectKey{Name: name}, &api.Tenant{})
			if visible != (err == nil) {
				t.Errorf("tenant %s: %v", name, err)
			}
		}
		// Of Descendants: not the tenant that names them, but those below.
		if err := h.as("sam", "sre").Get(t.Context(), client.ObjectKey{Name: "company"}, &api.Tenant{}); !apierrors.IsForbidden(err) {
			t.Errorf("a member of what is below sees what is above: %v", err)
		}
	})
	h.run("a virtual cluster follows too", func(t *testing.T) {
		h.create(below("team1", virtualCluster("lab")))
		h.pod("lab")
		members := func(ctx context.Context) ([]string, error) {
			configMap := &corev1.ConfigMap{}
			if err := h.client.Get(ctx, client.ObjectKey{Namespace: "lab", Name: api.ControlPlaneName}, configMap); err != nil {
				return nil, err
			}
			var config api.ControlPlaneConfig
			if err := yaml.UnmarshalStrict([]byte(configMap.Data[api.ConfigKey]), &config); err != nil {
				return nil, err
			}
			var names []string
			for _, member := range config.Members {
				names = append(names, member.Name)
			}
			if config.PodSecurity != api.PodSecurityRestricted {
				return nil, fmt.Errorf("its Pod Security is %q", config.PodSecurity)
			}
			return names, nil
		}
		is := func(want ...string) {
			t.Helper()
			h.eventually("members of lab", func(ctx context.Context) error {
				got, err := members(ctx)
				if diff := cmp.Diff(want, got); err == nil && diff != "" {
					return errors.New(diff)
				}
				return err
			})
		}
		is("sre", "lead", "team1", "bot")
		uid := h.pod("lab").UID
		h.change("company", func(s *api.TenantSpec) { s.Members = append(s.Members, user("chief", api.RoleAdmin)) })
		is("sre", "chief", "lead", "team1", "bot")
		h.holds("shop", "admin=chief", "admin=lead", "edit=bot", "edit=team1", "view=sre")
		h.holds("lab", "admin=chief", "admin=lead", "edit=bot", "edit=team1", "view=sre")
		h.change("company", func(s *api.TenantSpec) { s.Members = s.Members[:1] })
		is("sre", "lead", "team1", "bot")
		h.holds("lab", "admin=lead", "edit=bot", "edit=team1", "view=sre")
		if h.pod("lab").UID != uid {
			t.Error("a change of members restarted the control plane")
		}
	})
	h.run("a limit above reaches those below, and nobody else", func(t *testing.T) {
		h.create(below("team2", namespaceTenant("bystander")))
		h.waitForPhase("bystander", api.PhaseReady)
		h.counted("bystander")
		before := h.versions(t, "bystander")
		h.change("team1", func(s *api.TenantSpec) { s.Limits = &api.Limits{Services: []corev1.ServiceType{"ClusterIP"}} })
		h.eventually("the services of shop", func(ctx context.Context) error {
			if err := h.client.Get(ctx, client.ObjectKey{Name: "shop"}, namespace); err != nil {
				return err
			}
			if got := namespace.Annotations[api.AnnotationServices]; got != "ClusterIP" {
				return errors.New(got)
			}
			return nil
		})
		if diff := cmp.Diff(before, h.versions(t, "bystander")); diff != "" {
			t.Errorf("a neighbour was written to (-before +after):\n%s", diff)
		}
	})
	h.run("a move brings everything along", func(t *testing.T) {
		h.change("team2", func(s *api.TenantSpec) {
			s.Limits = &api.Limits{Quota: corev1.ResourceList{"pods": resource.MustParse("3")}}
		})
		h.create(below("shop", namespaceTenant("counter")))
		h.holds("counter", "admin=lead", "edit=bot", "edit=team1", "view=sre")
		h.change("shop", func(s *api.TenantSpec) { s.Parent = "team2" })
		// What is below moves with it: all three types may have something below.
		for _, name := range []string{"shop", "counter"} {
			h.holds(name, "admin=other", "view=sre")
			h.eventually("the limits of "+name, func(ctx context.Context) error {
				tenant := h.tenant(name)
				hard := limit(tenant, "quota.pods").Value
				if hard != "3" || !strings.HasPrefix(tenant.Status.Path, "root/company/team2/shop") || limit(tenant, "services").Value != "ClusterIP, LoadBalancer" {
					return fmt.Errorf("pods %s, path %s, %+v", hard, tenant.Status.Path, tenant.Status.Effective)
				}
				return nil
			})
		}
		if err := h.as("joe", "team1").List(t.Context(), &corev1.ConfigMapList{}, client.InNamespace("shop")); !apierrors.IsForbidden(err) {
			t.Errorf("the old team still reads: %v", err)
		}
		for name, children := range map[string]int32{"team1": 1, "team2": 2, "shop": 1} {
			h.eventually("the children of "+name, func(ctx context.Context) error {
				if n := h.tenant(name).Status.Children; n != children {
					return fmt.Errorf("%d", n)
				}
				return nil
			})
		}
	})
	h.run("nothing is written when nothing changes", func(t *testing.T) {
		h.waitForPhase("counter", api.PhaseReady)
		h.counted("counter", "shop", "bystander", "lab", "company", "team1", "team2")
		time.Sleep(300 * time.Millisecond) // what is under way ends
		before, folders := h.versions(t, "counter"), map[string]string{}
		for _, name := range []string{"root", "company", "team1", "team2"} {
			folders[name] = h.tenant(name).ResourceVersion
		}
		// A change that counts for nobody wakes them all.
		h.change("company", func(s *api.TenantSpec) { s.TTL = &metav1.Duration{Duration: 100 * time.Hour} })
		h.waitFor("company", api.ConditionExpires, "Scheduled")
		time.Sleep(time.Second)
		if diff := cmp.Diff(before, h.versions(t, "counter")); diff != "" {
			t.Errorf("resource versions (-before +after):\n%s", diff)
		}
		delete(folders, "company")
		for name, version := range folders {
			if now := h.tenant(name); now.ResourceVersion != version {
				t.Errorf("tenant %s was written: %+v", name, now.Status)
			}
		}
		h.change("company", func(s *api.TenantSpec) { s.TTL = nil })
	})
	h.remove("lab", "counter", "shop", "bystander", "team1", "team2", "company")
	for _, list := range []client.ObjectList{&rbacv1.ClusterRoleList{}, &rbacv1.ClusterRoleBindingList{}} {
		h.eventually(fmt.Sprintf("%T of tenants", list), func(ctx context.Context) error {
			if err := h.client.List(ctx, list, client.HasLabels{api.LabelTenant}); err != nil {
				return err
			}
			if n := meta.LenList(list); n > 0 {
				return fmt.Errorf("%d are left", n)
			}
			return nil
		})
	}
}

func onlyLetters(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return -1
}

// testBrokenTree holds that nothing below changes, goes away or gets more while
// there is no way from the root, and that all is well once there is.
func testBrokenTree(h *managedHost) {
	t := h.t
	tight := folder("upper")
	tight.Spec.Limits = &api.Limits{PodSecurity: api.PodSecurityRestricted, Quota: corev1.ResourceList{"pods": resource.MustParse("4")}}
	tight.Spec.Members = []api.Member{user("ann", api.RoleEdit)}
	h.create(tight)
	h.create(below("upper", folder("lower")))
	h.create(below("lower", namespaceTenant("leaf")))
	h.waitForPhase("leaf", api.PhaseReady)
	h.holds("leaf", "edit=ann")

	// What there is on the host, without the Tenant, whose condition changes.
	state := func() map[string]string {
		versions := h.versions(t, "leaf")
		delete(versions, "tenant")
		namespace := &corev1.Namespace{}
		if err := h.client.Get(t.Context(), client.ObjectKey{Name: "leaf"}, namespace); err != nil {
			t.Fatal(err)
		}
		versions["namespace"] = namespace.ResourceVersion
		for _, list := range []client.ObjectList{&rbacv1.ClusterRoleList{}, &rbacv1.ClusterRoleBindingList{}} {
			if err := h.client.List(t.Context(), list, client.MatchingLabels{api.LabelTenant: "leaf"}); err != nil {
				t.Fatal(err)
			}
			_ = meta.EachListItem(list, func(o runtime.Object) error {
				object, _ := o.(client.Object)
				versions[fmt.Sprintf("%T %s", object, object.GetName())] = object.GetResourceVersion()
				return nil
			})
		}
		return versions
	}
	breaks := map[string]struct {
		reason      string
		breakIt     func()
		mend        func()
		whileBroken func()
	}{
		"a ring": {
			reason: tenancy.BrokenCycle,
			breakIt: func() {
				// Each alone is right; together they are not.
				h.change("upper", func(s *api.TenantSpec) { s.Parent = "lower" })
			},
			mend: func() { h.change("upper", func(s *api.TenantSpec) { s.Parent = "" }) },
		},
		"a parent that never was": {
			reason:  tenancy.BrokenMissing,
			breakIt: func() { h.change("upper", func(s *api.TenantSpec) { s.Parent = "never-was" }) },
			mend:    func() { h.change("upper", func(s *api.TenantSpec) { s.Parent = "" }) },
		},
	}
	for _, name := range slices.Sorted(maps.Keys(breaks)) {
		c := breaks[name]
		h.run(name, func(t *testing.T) {
			before := state()
			c.breakIt()
			for _, tenant := range []string{"upper", "lower", "leaf"} {
				h.waitFor(tenant, api.ConditionPlaced, c.reason)
			}
			h.waitForPhase("leaf", api.PhaseDegraded)
			// Wider limits and new members further up come to nothing meanwhile, and
			// so do those of the leaf itself.
			h.change("upper", func(s *api.TenantSpec) {
				s.Limits, s.Members = nil, []api.Member{user("ann", api.RoleEdit), user("mallory", api.RoleAdmin)}
			})
			h.change("leaf", func(s *api.TenantSpec) { s.Members = []api.Member{user("mallory", api.RoleAdmin)} })
			h.create(below("leaf", namespaceTenant("new")))
			h.waitFor("new", api.ConditionPlaced, c.reason)
			time.Sleep(500 * time.Millisecond)
			if diff := cmp.Diff(before, state()); diff != "" {
				t.Errorf("something changed (-before +after):\n%s", diff)
			}
			if err := h.client.Get(t.Context(), client.ObjectKey{Name: "new"}, &corev1.Namespace{}); !apierrors.IsNotFound(err) {
				t.Errorf("something was made: %v", err)
			}
			if got := h.tenant("leaf").Status.Effective; got == nil || limit(h.tenant("leaf"), "podSecurity").Value != "restricted" {
				t.Errorf("the status does not say what is in force: %+v", got)
			}
			h.change("upper", func(s *api.TenantSpec) {
				s.Limits, s.Members = tight.Spec.Limits, tight.Spec.Members
			})
			h.change("leaf", func(s *api.TenantSpec) { s.Members = nil })
			c.mend()
			h.waitForPhase("leaf", api.PhaseReady)
			h.waitForPhase("new", api.PhaseReady)
			h.holds("leaf", "edit=ann")
			h.remove("new")
		})
	}
	h.run("its own deletion goes on all the same", func(t *testing.T) {
		h.change("upper", func(s *api.TenantSpec) { s.Parent = "never-was" })
		h.waitFor("leaf", api.ConditionPlaced, tenancy.BrokenMissing)
		h.remove("leaf", "lower", "upper")
	})
	h.run("deeper than may be", func(t *testing.T) {
		parent := ""
		var names []string
		for i := range tenancy.MaxDepth + 1 {
			name := fmt.Sprintf("deep-%d", i+1)
			h.create(below(parent, folder(name)))
			names, parent = append(names, name), name
		}
		h.waitForPhase(names[tenancy.MaxDepth-1], api.PhaseReady)
		h.waitFor(parent, api.ConditionPlaced, tenancy.BrokenTooDeep)
		slices.Reverse(names)
		h.remove(names...)
	})
}

// testReplacedParent holds that nobody gets at a tenant by making a parent of the
// name that it lost.
func testReplacedParent(h *managedHost) {
	t := h.t
	first := folder("home")
	first.Spec.DeletionPolicy = api.DeletionOrphan
	h.create(with(first, user("ann", api.RoleAdmin)))
	h.create(with(below("home", namespaceTenant("child")), user("kid", api.RoleEdit)))
	h.create(below("child", namespaceTenant("grandchild")))
	h.holds("child", "admin=ann", "edit=kid")
	h.holds("grandchild", "admin=ann", "edit=kid")
	h.remove("home")
	h.waitFor("child", api.ConditionPlaced, tenancy.BrokenMissing)
	h.waitFor("grandchild", api.ConditionPlaced, tenancy.BrokenMissing)
	h.create(with(folder("home"), user("mallory", api.RoleAdmin)))
	h.waitForPhase("home", api.PhaseReady)
	c := h.waitFor("child", api.ConditionPlaced, tenancy.BrokenReplaced)
	h.waitFor("grandchild", api.ConditionPlaced, tenancy.BrokenReplaced)
	if !strings.Contains(c.Message, "sublet move child home") {
		t.Errorf("the message does not say what to do: %s", c.Message)
	}
	time.Sleep(300 * time.Millisecond)
	for _, name := range []string{"child", "grandchild"} {
		h.holds(name, "admin=ann", "edit=kid")
		if err := h.as("mallory").Get(t.Context(), client.ObjectKey{Name: name}, &api.Tenant{}); !apierrors.IsForbidden(err) {
			t.Errorf("mallory sees %s: %v", name, err)
		}
	}
	// Whoever is admin of both may accept it.
	accept := func(c client.Client) error {
		child := h.tenant("child")
		before := child.DeepCopy()
		child.Annotations = map[string]string{api.AnnotationAcceptParent: string(h.tenant("home").UID)}
		return c.Patch(t.Context(), child, client.MergeFrom(before))
	}
	for name, c := range map[string]client.Client{"mallory": h.as("mallory"), "ann": h.as("ann"), "kid": h.as("kid")} {
		if err := accept(c); !apierrors.IsForbidden(err) {
			t.Errorf("%s may: %v", name, err)
		}
	}
	if err := accept(h.client); err != nil {
		t.Fatal(err)
	}
	h.holds("child", "admin=mallory", "edit=kid")
	h.holds("grandchild", "admin=mallory", "edit=kid")
	h.remove("grandchild", "child", "home")
}

func testInvalidAbove(h *managedHost) {
	t := h.t
	h.create(with(folder("firm"), user("ann", api.RoleEdit)))
	h.create(below("firm", namespaceTenant("desk")))
	h.holds("desk", "edit=ann")
	h.waitForPhase("desk", api.PhaseReady)
	h.change("firm", func(s *api.TenantSpec) {
		s.Limits = &api.Limits{Quota: corev1.ResourceList{"request.cpu": resource.MustParse("1")}}
		s.Members = []api.Member{user("mallory", api.RoleAdmin)}
	})
	h.waitFor("firm", api.ConditionFenceReady, "InvalidLimits")
	c := h.waitFor("desk", api.ConditionFenceReady, "InvalidLimits")
	if !strings.Contains(c.Message, `"firm"`) || !strings.Contains(c.Message, `"requests.cpu"`) {
		t.Errorf("the message does not say where and what: %s", c.Message)
	}
	h.waitForPhase("firm", api.PhaseDegraded)
	h.waitForPhase("desk", api.PhaseDegraded)
	h.holds("desk", "edit=ann")
	h.change("firm", func(s *api.TenantSpec) {
		s.Limits = &api.Limits{Quota: corev1.ResourceList{"requests.cpu": resource.MustParse("1")}}
	})
	h.waitForPhase("desk", api.PhaseReady)
	h.holds("desk", "admin=mallory")
	h.remove("desk", "firm")
}

func testDeletionPolicies(h *managedHost) {
	t := h.t
	// The last has a namespace; those above are folders, which go quickly.
	tree := func(policy api.DeletionPolicy, names ...string) {
		t.Helper()
		parent := ""
		for i, name := range names {
			tenant := below(parent, folder(name))
			if i == len(names)-1 {
				tenant = below(parent, namespaceTenant(name))
			}
			if i == 0 {
				tenant.Spec.DeletionPolicy = policy
			}
			h.create(tenant)
			parent = name
		}
		h.waitForPhase(parent, api.PhaseReady)
		for _, name := range names[:len(names)-1] {
			h.eventually("the children of "+name, func(ctx context.Context) error {
				if h.tenant(name).Status.Children != 1 {
					return errors.New("not counted")
				}
				return nil
			})
		}
	}
	h.run("Refuse", func(t *testing.T) {
		tree("", "keep1", "keep2", "keep3")
		err := h.as("boss", "system:masters").Delete(t.Context(), h.tenant("keep2"))
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "Cascade") {
			t.Errorf("deleting what has tenants below: %v", err)
		}
		// Where a policy does not see it, the manager holds it up: the host's own
		// components are not asked.
		if err := h.as("system:serviceaccount:kube-system:generic-garbage-collector", "system:masters").Delete(t.Context(), h.tenant("keep2")); err != nil {
			t.Fatal(err)
		}
		c := h.waitFor("keep2", api.ConditionDeletionBlocked, "HasChildren")
		if !strings.Contains(c.Message, "keep3") {
			t.Errorf("the message does not name it: %s", c.Message)
		}
		h.waitFor("keep3", api.ConditionPlaced, tenancy.BrokenDeleting)
		namespace := &corev1.Namespace{}
		if err := h.client.Get(t.Context(), client.ObjectKey{Name: "keep3"}, namespace); err != nil || namespace.DeletionTimestamp != nil {
			t.Errorf("the namespace below: %v, deleted at %v", err, namespace.DeletionTimestamp)
		}
		h.change("keep3", func(s *api.TenantSpec) { s.Parent = "keep1" })
		h.isGone("keep2")
		h.waitForPhase("keep3", api.PhaseReady)
		h.remove("keep3", "keep1")
	})
	h.run("Cascade", func(t *testing.T) {
		tree(api.DeletionCascade, "all1", "all2", "all3")
		h.create(folder("beside"))
		h.waitForPhase("beside", api.PhaseReady)
		h.remove("all1")
		for _, name := range []string{"all2", "all3"} {
			h.isGone(name)
		}
		if err := h.client.Get(t.Context(), client.ObjectKey{Name: "all3"}, &corev1.Namespace{}); !apierrors.IsNotFound(err) {
			t.Errorf("its namespace: %v", err)
		}
		if h.tenant("beside").DeletionTimestamp != nil {
			t.Error("a neighbour is deleted too")
		}
		h.remove("beside")
	})
	h.run("Cascade stops at who refuses", func(t *testing.T) {
		tree(api.DeletionCascade, "some1", "some2", "some3")
		h.change("some2", func(s *api.TenantSpec) { s.DeletionPolicy = api.DeletionRefuse })
		if err := h.client.Delete(t.Context(), h.tenant("some1")); err != nil {
			t.Fatal(err)
		}
		c := h.waitFor("some1", api.ConditionDeletionBlocked, "HasChildren")
		if !strings.Contains(c.Message, "some2") {
			t.Errorf("the message does not name it: %s", c.Message)
		}
		time.Sleep(300 * time.Millisecond)
		for _, name := range []string{"some2", "some3"} {
			if tenant := h.tenant(name); tenant.DeletionTimestamp != nil {
				t.Errorf("tenant %s is being deleted", name)
			}
		}
		h.change("some2", func(s *api.TenantSpec) { s.DeletionPolicy = api.DeletionCascade })
		h.isGone("some3")
		h.isGone("some1")
	})
	h.run("Cascade goes on after the manager was away", func(t *testing.T) {
		tree(api.DeletionCascade, "mid1", "mid2", "mid3")
		h.stop()
		if err := h.client.Delete(t.Context(), h.tenant("mid1")); err != nil {
			t.Fatal(err)
		}
		h.startManager()
		for _, name := range []string{"mid1", "mid2", "mid3"} {
			h.isGone(name)
		}
	})
	h.run("a ring is not deleted", func(t *testing.T) {
		tree(api.DeletionCascade, "ring1", "ring2")
		h.change("ring1", func(s *api.TenantSpec) { s.Parent = "ring2" })
		h.waitFor("ring2", api.ConditionPlaced, tenancy.BrokenCycle)
		if err := h.client.Delete(t.Context(), h.tenant("ring1")); err != nil {
			t.Fatal(err)
		}
		h.waitFor("ring1", api.ConditionDeletionBlocked, tenancy.BrokenCycle)
		if tenant := h.tenant("ring2"); tenant.DeletionTimestamp != nil {
			t.Error("it is deleted for being above itself")
		}
		h.change("ring2", func(s *api.TenantSpec) { s.Parent = "" })
		h.isGone("ring1")
		h.waitForPhase("ring2", api.PhaseReady)
		h.remove("ring2")
	})
	h.run("Orphan", func(t *testing.T) {
		tree(api.DeletionOrphan, "left1", "left2", "left3")
		h.remove("left1")
		h.waitFor("left2", api.ConditionPlaced, tenancy.BrokenMissing)
		h.waitFor("left3", api.ConditionPlaced, tenancy.BrokenMissing)
		if err := h.client.Get(t.Context(), client.ObjectKey{Name: "left3"}, &corev1.Namespace{}); err != nil {
			t.Errorf("the namespace below: %v", err)
		}
		h.change("left2", func(s *api.TenantSpec) { s.Parent = "" })
		h.waitForPhase("left3", api.PhaseReady)
		h.remove("left3", "left2")
	})
}

func testExpiry(h *managedHost) {
	h.run("ttl", func(t *testing.T) {
		short := namespaceTenant("short")
		short.Spec.TTL = &metav1.Duration{Duration: 4 * time.Second}
		long := namespaceTenant("long")
		at := metav1.NewTime(time.Now().Add(time.Hour).Truncate(time.Second))
		long.Spec.ExpiresAt = &at
		h.create(short)
		h.create(long)
		h.waitForPhase("long", api.PhaseReady)
		if c := h.waitFor("long", api.ConditionExpires, "Scheduled"); !strings.Contains(c.Message, at.UTC().Format(time.RFC3339)) {
			t.Errorf("the condition does not say when: %s", c.Message)
		}
		if got := h.tenant("long").Status.ExpiresAt; got == nil || !got.Equal(&at) {
			t.Errorf("expires at %v", got)
		}
		uid := h.tenant("short").UID
		h.isGone("short")
		if time.Since(h.tenant("long").CreationTimestamp.Time) < 3*time.Second {
			t.Error("it was gone before its time")
		}
		h.eventually("an event says so", func(ctx context.Context) error {
			list := &eventsv1.EventList{}
			if err := h.client.List(ctx, list); err != nil {
				return err
			}
			reasons := map[string]bool{}
			for _, e := range list.Items {
				if e.Regarding.UID == uid {
					reasons[e.Reason] = true
				}
			}
			if !reasons["Expired"] || !reasons["Expiring"] {
				return fmt.Errorf("events are %v", reasons)
			}
			return nil
		})
		h.waitForPhase("long", api.PhaseReady)
		h.remove("long")
	})
	h.run("prolonged", func(t *testing.T) {
		tenant := folder("prolonged")
		tenant.Spec.TTL = &metav1.Duration{Duration: time.Hour}
		h.create(tenant)
		h.waitFor("prolonged", api.ConditionExpires, "Scheduled")
		h.change("prolonged", func(s *api.TenantSpec) { s.TTL = nil })
		h.eventually("no end", func(ctx context.Context) error {
			tenant := h.tenant("prolonged")
			if meta.FindStatusCondition(tenant.Status.Conditions, api.ConditionExpires) != nil || tenant.Status.ExpiresAt != nil {
				return errors.New("not yet")
			}
			return nil
		})
		h.remove("prolonged")
	})
	h.run("not while the tree is broken", func(t *testing.T) {
		tenant := below("nowhere", namespaceTenant("lost"))
		tenant.Spec.TTL = &metav1.Duration{Duration: time.Second}
		h.create(tenant)
		h.waitFor("lost", api.ConditionExpires, "Expired")
		time.Sleep(300 * time.Millisecond)
		if h.tenant("lost").DeletionTimestamp != nil {
			t.Error("it is deleted")
		}
		h.change("lost", func(s *api.TenantSpec) { s.Parent = "" })
		h.isGone("lost")
	})
	h.run("what has tenants below waits", func(t *testing.T) {
		tenant := folder("full")
		tenant.Spec.TTL = &metav1.Duration{Duration: 2 * time.Second}
		h.create(tenant)
		h.create(below("full", folder("inside")))
		h.waitFor("full", api.ConditionDeletionBlocked, "HasChildren")
		h.change("inside", func(s *api.TenantSpec) { s.Parent = "" })
		h.isGone("full")
		h.remove("inside")
	})
}

// testMovesMidway stops the manager in the middle of moves, and wants that the
// end is as if it had not been.
func testMovesMidway(h *managedHost) {
	h.create(with(folder("here"), user("ann", api.RoleEdit)))
	h.create(with(folder("there"), user("bob", api.RoleEdit)))
	h.create(below("here", folder("group")))
	const many = 12
	for i := range many {
		h.create(below("group", namespaceTenant(fmt.Sprintf("part-%d", i))))
	}
	for i := range many {
		h.holds(fmt.Sprintf("part-%d", i), "edit=ann")
	}
	h.change("group", func(s *api.TenantSpec) { s.Parent = "there" })
	h.eventually("the first has moved", func(ctx context.Context) error {
		for i := range many {
			if got, err := h.subjectsOf(ctx, fmt.Sprintf("part-%d", i)); err == nil && slices.Equal(got, []string{"edit=bob"}) {
				return nil
			}
		}
		return errors.New("none yet")
	})
	h.stop()
	h.startManager()
	for i := range many {
		h.holds(fmt.Sprintf("part-%d", i), "edit=bob")
	}
	h.change("group", func(s *api.TenantSpec) { s.DeletionPolicy = api.DeletionCascade })
	h.remove("group", "here", "there")
}
