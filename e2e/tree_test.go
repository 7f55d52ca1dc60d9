//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// TestTree has several people work in a tree of tenants: what they may, what is
// left alone while the tree is broken, and a quota that two of them share.
func TestTree(t *testing.T) {
	s := shared(t)
	for name, test := range map[string]func(*suite, *testing.T){
		"Authorization": (*suite).testTreeAuthorization,
		"BrokenTree":    (*suite).testBrokenTree,
		"SharedQuota":   (*suite).testSharedQuota,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(s, t)
		})
	}
}

// grow makes tenants, and when the test ends deletes the topmost of them with all
// that is below by then.
func (s *suite) grow(t *testing.T, tenants ...*api.Tenant) {
	t.Helper()
	made := map[string]bool{}
	for _, tenant := range tenants {
		if made[tenant.Name] = true; !made[tenant.Spec.Parent] {
			tenant.Spec.DeletionPolicy = api.DeletionCascade
			t.Cleanup(func() { s.fell(t, tenant.Name) })
		}
		if err := s.objects.Create(t.Context(), tenant); err != nil {
			t.Fatalf("create tenant %s: %v", tenant.Name, err)
		}
	}
}

// fell deletes a tenant that grow made, and those below.
func (s *suite) fell(t *testing.T, name string) {
	t.Helper()
	s.remove(t, name, func(t *testing.T, ctx context.Context, name string) {
		t.Helper()
		out, _ := s.command(ctx, s.path("bin/sublet"), "describe", name).CombinedOutput()
		t.Logf("sublet describe %s\n%s", name, out)
	}, "--cascade")
}

func folderTenant(name, parent string, members ...api.Member) *api.Tenant {
	return &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: api.TenantSpec{Type: api.Folder, Parent: parent, Members: members}}
}

func namespaceTenant(name, parent string, members ...api.Member) *api.Tenant {
	tenant := folderTenant(name, parent, members...)
	tenant.Spec.Type = api.Namespace
	return tenant
}

// person is a user of the host, by that name and without groups.
func person(name string, role api.Role) api.Member {
	return api.Member{Kind: "User", Name: name, Role: role}
}

func quotaOf(name corev1.ResourceName, figure string) *api.Limits {
	return &api.Limits{Quota: corev1.ResourceList{name: resource.MustParse(figure)}}
}

// actingAs is the host's API for a person whom it knows by name only.
func (s *suite) actingAs(t *testing.T, name string) client.Client {
	t.Helper()
	config := rest.CopyConfig(s.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: []string{"system:authenticated"}}
	return s.clientOf(t, config)
}

func (s *suite) clientOf(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(api.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme, Mapper: s.objects.RESTMapper()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// respec merges fields into a tenant's spec, as somebody.
func respec(ctx context.Context, c client.Client, tenant string, fields map[string]any, options ...client.PatchOption) error {
	patch, err := json.Marshal(map[string]any{"spec": fields})
	if err != nil {
		return err
	}
	object := &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: tenant}}
	return c.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch), options...)
}

func (s *suite) mustRespec(t *testing.T, tenant string, fields map[string]any) {
	t.Helper()
	if err := respec(t.Context(), s.objects, tenant, fields); err != nil {
		t.Fatalf("patch tenant %s: %v", tenant, err)
	}
}

// settled waits until a tenant, as it is now specified, is as it should be.
func (s *suite) settled(t *testing.T, name, what string, is func(*api.Tenant) bool) *api.Tenant {
	t.Helper()
	var tenant *api.Tenant
	eventually(t, time.Minute, fmt.Sprintf("tenant %s is %s", name, what), func() error {
		tenant = &api.Tenant{}
		if err := s.objects.Get(t.Context(), namespacedName("", name), tenant); err != nil {
			return err
		}
		if !is(tenant) {
			return fmt.Errorf("generation %d: %+v", tenant.Generation, tenant.Status)
		}
		return nil
	})
	return tenant
}

func (s *suite) treeReady(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		s.settled(t, name, "ready", func(tenant *api.Tenant) bool {
			return tenant.Status.Phase == api.PhaseReady && tenant.Status.ObservedGeneration == tenant.Generation
		})
	}
}

// testTreeAuthorization: who may do what in two teams. That of refusals which are
// a policy's affair says the right that is missing.
//
//	root
//	├─ red          lead  admin   vera  view   both  admin
//	│  └─ red-web   a Namespace
//	└─ blue         olga  admin                both  admin
//	   └─ blue-db   a Namespace
func (s *suite) testTreeAuthorization(t *testing.T) {
	const (
		red, web, mine = "e2e-tree-red", "e2e-tree-red-web", "e2e-tree-red-mine"
		blue, db       = "e2e-tree-blue", "e2e-tree-blue-db"
		lead, vera     = "e2e-tree-lead", "e2e-tree-vera"
		olga, both     = "e2e-tree-olga", "e2e-tree-both"
		friend, nobody = "e2e-tree-friend", "e2e-tree-nobody"
		// operator is whoever installed Sublet, not a person in the tree.
		operator = "the operator"
	)
	team := folderTenant(red, "", person(lead, api.RoleAdmin), person(vera, api.RoleView), person(both, api.RoleAdmin))
	team.Spec.Limits = quotaOf("pods", "10")
	s.grow(t, team, namespaceTenant(web, red),
		folderTenant(blue, "", person(olga, api.RoleAdmin), person(both, api.RoleAdmin)), namespaceTenant(db, blue))
	s.treeReady(t, red, web, blue, db)
	people := map[string]client.Client{operator: s.clientOf(t, s.config)}
	for _, name := range []string{lead, vera, olga, both, friend, nobody} {
		people[name] = s.actingAs(t, name)
	}
	settings := func(namespace string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "settings"}}
	}
	secret := func(namespace string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "key"}}
	}
	for _, namespace := range []string{web, db} {
		for _, object := range []client.Object{settings(namespace), secret(namespace)} {
			if err := people[operator].Create(t.Context(), object); err != nil {
				t.Fatal(err)
			}
		}
	}

	type action func(ctx context.Context, c client.Client) error
	get := func(object client.Object) action {
		return func(ctx context.Context, c client.Client) error {
			found, _ := object.DeepCopyObject().(client.Object)
			return c.Get(ctx, client.ObjectKeyFromObject(object), found)
		}
	}
	see := func(tenant string) action { return get(folderTenant(tenant, "")) }
	create := func(object client.Object) action {
		return func(ctx context.Context, c client.Client) error {
			fresh, _ := object.DeepCopyObject().(client.Object)
			return c.Create(ctx, fresh, client.DryRunAll)
		}
	}
	edit := func(tenant string, fields map[string]any) action {
		return func(ctx context.Context, c client.Client) error {
			return respec(ctx, c, tenant, fields, client.DryRunAll)
		}
	}
	members := map[string]any{"members": []api.Member{person(friend, api.RoleEdit)}}
	limits := map[string]any{"limits": quotaOf("pods", "50")}
	limited := namespaceTenant("e2e-tree-new", red)
	limited.Spec.Limits = quotaOf("pods", "4")
	configure := func(namespace string) action {
		configMap := settings(namespace)
		configMap.Name = "new"
		return create(configMap)
	}
	inRed, inBlue := []string{operator, lead, both}, []string{operator, olga, both}
	cases := map[string]struct {
		do  action
		may []string
		// says is what lead is told when it is refused.
		says []string
	}{
		"see red":                     {do: see(red), may: append([]string{vera}, inRed...)},
		"see what is below red":       {do: see(web), may: append([]string{vera}, inRed...)},
		"see blue":                    {do: see(blue), may: inBlue},
		"see what is below blue":      {do: see(db), may: inBlue},
		"list all tenants":            {do: func(ctx context.Context, c client.Client) error { return c.List(ctx, &api.TenantList{}) }, may: []string{operator}},
		"create below red":            {do: create(namespaceTenant("e2e-tree-new", red)), may: inRed},
		"create below red, limited":   {do: create(limited), may: inRed},
		"create below blue":           {do: create(namespaceTenant("e2e-tree-new", blue)), may: inBlue, says: []string{`"nest"`, `"` + blue + `"`}},
		"create below the root":       {do: create(namespaceTenant("e2e-tree-new", "")), may: []string{operator}, says: []string{`"nest"`, `"root"`}},
		"members of red":              {do: edit(red, members), may: inRed},
		"members of what is below":    {do: edit(web, members), may: inRed},
		"members of blue":             {do: edit(blue, members), may: inBlue},
		"limits of what is below red": {do: edit(web, limits), may: inRed},
		// Nobody decides on the limits that hold for himself.
		"limits of red":                {do: edit(red, limits), may: []string{operator}, says: []string{`"manage"`, `"root"`, "limits"}},
		"limits of what is below blue": {do: edit(db, limits), may: inBlue},
		"move to the other team":       {do: edit(web, map[string]any{"parent": blue}), may: []string{operator, both}, says: []string{`"nest"`, `"` + blue + `"`}},
		"move from the other team":     {do: edit(db, map[string]any{"parent": red}), may: []string{operator, both}},
		"move up to the root":          {do: edit(web, map[string]any{"parent": nil}), may: []string{operator}, says: []string{`"nest"`, `"root"`}},
		"delete what is below red": {do: func(ctx context.Context, c client.Client) error {
			return c.Delete(ctx, namespaceTenant(web, red), client.DryRunAll)
		}, may: inRed},
		"read in the namespace of red":           {do: get(settings(web)), may: append([]string{vera}, inRed...)},
		"read a secret in the namespace of red":  {do: get(secret(web)), may: inRed},
		"write in the namespace of red":          {do: configure(web), may: inRed},
		"read in the namespace of blue":          {do: get(settings(db)), may: inBlue},
		"read a secret in the namespace of blue": {do: get(secret(db)), may: inBlue},
		"write in the namespace of blue":         {do: configure(db), may: inBlue},
		"list what is in the namespace of blue": {do: func(ctx context.Context, c client.Client) error {
			return c.List(ctx, &corev1.PodList{}, client.InNamespace(db))
		}, may: inBlue},
		"read in a namespace that is of no tenant": {do: get(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-root-ca.crt"}}), may: []string{operator}},
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		c := cases[name]
		t.Run(name, func(t *testing.T) {
			// Who may comes first: authorizers learn of new roles by and by.
			for _, who := range c.may {
				eventually(t, 30*time.Second, who+" may", func() error { return c.do(t.Context(), people[who]) })
			}
			for _, who := range slices.Sorted(maps.Keys(people)) {
				if slices.Contains(c.may, who) {
					continue
				}
				err := c.do(t.Context(), people[who])
				if !apierrors.IsForbidden(err) {
					t.Errorf("%s: got %v, want it to be forbidden", who, err)
					continue
				}
				for _, text := range c.says {
					if who == lead && !strings.Contains(err.Error(), text) {
						t.Errorf("%q is missing in: %v", text, err)
					}
				}
			}
		})
	}
	t.Run("really, not only dry", func(t *testing.T) {
		if err := people[lead].Create(t.Context(), namespaceTenant(mine, red)); err != nil {
			t.Fatal(err)
		}
		s.treeReady(t, mine)
		effective := func(value, from string) {
			t.Helper()
			s.settled(t, mine, "limited to "+value+" pods by "+from, func(tenant *api.Tenant) bool {
				return tenant.Status.Effective != nil && slices.ContainsFunc(tenant.Status.Effective.Limits, func(l api.EffectiveLimit) bool {
					return l.Name == "quota.pods" && l.Value == value && slices.Equal(l.From, []string{from})
				})
			})
		}
		change := func(fields map[string]any) {
			t.Helper()
			eventually(t, 30*time.Second, "it is lead's to change", func() error { return respec(t.Context(), people[lead], mine, fields) })
		}
		effective("10", red)
		change(map[string]any{"limits": quotaOf("pods", "4")})
		effective("4", mine)
		// More than the team has comes to no more than that.
		change(limits)
		effective("10", red)
		write := func() error { return configure(mine)(t.Context(), people[friend]) }
		if err := write(); !apierrors.IsForbidden(err) {
			t.Errorf("who is no member yet writes: got %v, want it to be forbidden", err)
		}
		change(members)
		eventually(t, 30*time.Second, "a new member writes", write)
		if err := configure(web)(t.Context(), people[friend]); !apierrors.IsForbidden(err) {
			t.Errorf("and beside it: got %v, want it to be forbidden", err)
		}
		// Whoever is admin of both teams moves it, and the people change.
		if err := see(mine)(t.Context(), people[olga]); !apierrors.IsForbidden(err) {
			t.Errorf("the other team's admin sees it: %v", err)
		}
		if err := respec(t.Context(), people[both], mine, map[string]any{"parent": blue}); err != nil {
			t.Fatal(err)
		}
		s.settled(t, mine, "below "+blue, func(tenant *api.Tenant) bool { return tenant.Status.Path == "root/"+blue+"/"+mine })
		eventually(t, 30*time.Second, "the other team's admin writes", func() error { return configure(mine)(t.Context(), people[olga]) })
		eventually(t, 30*time.Second, "the former team's admin is out", func() error {
			for _, do := range []action{see(mine), configure(mine), edit(mine, members)} {
				if err := do(t.Context(), people[lead]); !apierrors.IsForbidden(err) {
					return fmt.Errorf("got %w, want it to be forbidden", err)
				}
			}
			return nil
		})
	})
}

// halted waits until a tenant, as it is now specified, has no place in the tree,
// and says so with these words.
func (s *suite) halted(t *testing.T, name, reason string, says ...string) {
	t.Helper()
	tenant := s.settled(t, name, "halted", func(tenant *api.Tenant) bool {
		c := meta.FindStatusCondition(tenant.Status.Conditions, api.ConditionPlaced)
		return c != nil && c.Status == metav1.ConditionFalse && c.Reason == reason && c.ObservedGeneration == tenant.Generation
	})
	c := meta.FindStatusCondition(tenant.Status.Conditions, api.ConditionPlaced)
	for _, text := range says {
		if !strings.Contains(c.Message, text) {
			t.Errorf("tenant %s: %q is missing in: %s", name, text, c.Message)
		}
	}
	if tenant.Status.Phase == api.PhaseReady || meta.IsStatusConditionTrue(tenant.Status.Conditions, api.ConditionReady) {
		t.Errorf("tenant %s is ready all the same: %+v", name, tenant.Status)
	}
}

func (s *suite) testBrokenTree(t *testing.T) {
	t.Run("a parent that never was", func(t *testing.T) {
		const lost, nowhere = "e2e-tree-lost", "e2e-tree-nowhere"
		s.grow(t, namespaceTenant(lost, nowhere))
		s.halted(t, lost, "ParentMissing", `"`+nowhere+`"`, "sublet move "+lost)
		if _, err := s.host.CoreV1().Namespaces().Get(t.Context(), lost, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the namespace of a tenant without a parent: got %v, want none", err)
		}
		// The control: with the parent there is one.
		s.grow(t, folderTenant(nowhere, ""))
		s.treeReady(t, nowhere, lost)
		if _, err := s.host.CoreV1().Namespaces().Get(t.Context(), lost, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("a ring", func(t *testing.T) {
		const upper, lower = "e2e-tree-upper", "e2e-tree-lower"
		const ann, late = "e2e-tree-ann", "e2e-tree-late"
		// Cleanups run last to first: mended, it can be deleted.
		s.grow(t, namespaceTenant(upper, "", person(ann, api.RoleEdit)), namespaceTenant(lower, upper))
		t.Cleanup(func() {
			if err := respec(context.Background(), s.objects, upper, map[string]any{"parent": nil}); err != nil {
				t.Errorf("mend the ring: %v", err)
			}
		})
		s.treeReady(t, upper, lower)
		names := []string{upper, lower}
		as := map[string]client.Client{ann: s.actingAs(t, ann), late: s.actingAs(t, late)}
		keep := func(namespace string) *corev1.ConfigMap {
			return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "keep"}}
		}
		reads := func(who, namespace string) error {
			return as[who].Get(t.Context(), client.ObjectKeyFromObject(keep(namespace)), &corev1.ConfigMap{})
		}
		for _, name := range names {
			eventually(t, 30*time.Second, "ann writes in "+name, func() error { return as[ann].Create(t.Context(), keep(name)) })
		}
		// belongings are the namespaces, what is in them, and their fences in the
		// version that they have.
		belongings := func() map[string]string {
			t.Helper()
			found := map[string]string{}
			for _, name := range names {
				namespace, err := s.host.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if namespace.DeletionTimestamp != nil {
					t.Errorf("namespace %s is being deleted", name)
				}
				found["namespace "+name] = string(namespace.UID)
				configMap, err := s.host.CoreV1().ConfigMaps(name).Get(t.Context(), "keep", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				found["config map "+name+"/keep"] = string(configMap.UID)
				bindings, err := s.host.RbacV1().RoleBindings(name).List(t.Context(), metav1.ListOptions{})
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range bindings.Items {
					found["role binding "+name+"/"+o.Name] = o.ResourceVersion
				}
				policies, err := s.host.NetworkingV1().NetworkPolicies(name).List(t.Context(), metav1.ListOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if len(bindings.Items) == 0 || len(policies.Items) == 0 {
					t.Errorf("namespace %s has %d role bindings and %d network policies", name, len(bindings.Items), len(policies.Items))
				}
				for _, o := range policies.Items {
					found["network policy "+name+"/"+o.Name] = o.ResourceVersion
				}
			}
			return found
		}
		before := belongings()
		s.mustRespec(t, upper, map[string]any{"parent": lower})
		for _, name := range names {
			s.halted(t, name, "Cycle", lower+" below "+upper+" below "+lower, "sublet move "+lower)
		}
		// What is said meanwhile takes effect only when it is mended.
		s.mustRespec(t, upper, map[string]any{"members": []api.Member{person(late, api.RoleEdit)}})
		for _, name := range names {
			s.halted(t, name, "Cycle")
		}
		if diff := cmp.Diff(before, belongings()); diff != "" {
			t.Errorf("something changed (-before +after):\n%s", diff)
		}
		for _, name := range names {
			if err := reads(ann, name); err != nil {
				t.Errorf("a member of before in %s: %v", name, err)
			}
			if err := reads(late, name); !apierrors.IsForbidden(err) {
				t.Errorf("a member of since in %s: got %v, want it to be forbidden", name, err)
			}
		}
		s.mustRespec(t, upper, map[string]any{"parent": nil})
		s.treeReady(t, names...)
		for _, name := range names {
			eventually(t, 30*time.Second, "the members in "+name+" have changed", func() error {
				if err := reads(ann, name); !apierrors.IsForbidden(err) {
					return fmt.Errorf("the former one: got %w, want it to be forbidden", err)
				}
				return reads(late, name)
			})
		}
		after := belongings()
		for _, name := range names {
			for _, kept := range []string{"namespace " + name, "config map " + name + "/keep"} {
				if before[kept] != after[kept] {
					t.Errorf("%s was made anew", kept)
				}
			}
		}
	})
}

// testSharedQuota has ten Services created at the same time in two namespaces of
// a subtree that may have five.
func (s *suite) testSharedQuota(t *testing.T) {
	const five, a, b, ann = "e2e-tree-five", "e2e-tree-five-a", "e2e-tree-five-b", "e2e-tree-five-ann"
	top := folderTenant(five, "", person(ann, api.RoleEdit))
	top.Spec.Limits = quotaOf("services", "5")
	s.grow(t, top, namespaceTenant(a, five), namespaceTenant(b, five))
	s.treeReady(t, five, a, b)
	namespaces := []string{a, b}
	// share is what the API server enforces.
	share := func(namespace string) (int64, error) {
		quota, err := s.host.CoreV1().ResourceQuotas(namespace).Get(t.Context(), "sublet-objects", metav1.GetOptions{})
		if err != nil {
			return 0, err
		}
		hard, limited := quota.Status.Hard["services"]
		if !limited {
			return 0, fmt.Errorf("namespace %s has no quota of Services yet", namespace)
		}
		return hard.Value(), nil
	}
	// quotas describes them for whoever has to find out why.
	quotas := func() string {
		var text strings.Builder
		for _, namespace := range namespaces {
			quota, err := s.host.CoreV1().ResourceQuotas(namespace).Get(t.Context(), "sublet-objects", metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			spec, hard, used := quota.Spec.Hard["services"], quota.Status.Hard["services"], quota.Status.Used["services"]
			fmt.Fprintf(&text, "; %s: its share is %s, enforced is %s, used %s", namespace, spec.String(), hard.String(), used.String())
		}
		return text.String()
	}
	shares := func(want int64) {
		t.Helper()
		eventually(t, time.Minute, fmt.Sprintf("%d are shared out", want), func() error {
			var sum int64
			for _, namespace := range namespaces {
				n, err := share(namespace)
				if err != nil {
					return err
				}
				sum += n
			}
			if sum != want {
				return fmt.Errorf("it is %d", sum)
			}
			return nil
		})
	}
	shares(5)
	in := func(namespace string) []corev1.Service {
		t.Helper()
		list, err := s.host.CoreV1().Services(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return list.Items
	}
	count := func() int {
		t.Helper()
		return len(in(a)) + len(in(b))
	}

	// Everybody goes on trying, as controllers do.
	c := s.actingAs(t, ann)
	create := func(ctx context.Context, namespace, name string) error {
		service := newService(name)
		service.Namespace = namespace
		err := c.Create(ctx, service)
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	}
	again := func(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsConflict(err) }
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	stop := func() { cancel(); group.Wait() }
	defer stop()
	start := make(chan struct{})
	refused := make([]atomic.Int64, 10)
	for i := range refused {
		group.Go(func() {
			<-start
			for ctx.Err() == nil {
				err := create(ctx, namespaces[i%2], fmt.Sprintf("s%d", i))
				switch {
				case err == nil || ctx.Err() != nil:
					return
				case !again(err):
					t.Errorf("create Service s%d: %v", i, err)
					return
				}
				refused[i].Add(1)
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	close(start)
	eventually(t, time.Minute, "five of ten Services are there", func() error {
		n := count()
		if n > 5 {
			t.Fatalf("there are %d Services, of which there may be 5%s", n, quotas())
		}
		if n != 5 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	eventually(t, time.Minute, "the other five were refused", func() error {
		var waiting, there []string
		for i := range refused {
			name := fmt.Sprintf("s%d", i)
			if slices.ContainsFunc(in(namespaces[i%2]), func(o corev1.Service) bool { return o.Name == name }) {
				there = append(there, name)
			} else if refused[i].Load() > 0 {
				waiting = append(waiting, name)
			}
		}
		if len(there) > 5 {
			t.Fatalf("there are %v, of which there may be 5%s", there, quotas())
		}
		if len(waiting) != 5 {
			return fmt.Errorf("%v were, %v are there%s", waiting, there, quotas())
		}
		return nil
	})
	for begin := time.Now(); time.Since(begin) < 3*time.Second; time.Sleep(100 * time.Millisecond) {
		if n := count(); n != 5 {
			t.Fatalf("there are %d Services, want 5%s", n, quotas())
		}
	}
	stop()
	t.Logf("%d Services in %s, %d in %s", len(in(a)), a, len(in(b)), b)
	s.settled(t, five, "known to use five", func(tenant *api.Tenant) bool {
		used := tenant.Status.Usage["services"]
		return used.Value() == 5
	})

	// One goes; one can come where it was not.
	from, to := a, b
	if len(in(from)) == 0 {
		from, to = b, a
	}
	if err := c.Delete(t.Context(), &in(from)[0]); err != nil {
		t.Fatal(err)
	}
	another := func(namespace, name string) {
		t.Helper()
		eventually(t, time.Minute, "another Service comes in "+namespace, func() error {
			err := create(t.Context(), namespace, name)
			if err != nil && !again(err) {
				t.Fatalf("create Service %s: %v", name, err)
			}
			return err
		})
	}
	another(to, "another")
	if n := count(); n != 5 {
		t.Errorf("there are %d Services, want 5", n)
	}
	// The control: it was the limit further up that held them.
	for _, namespace := range namespaces {
		if err := create(t.Context(), namespace, "sixth"); !again(err) {
			t.Errorf("a sixth Service in %s: got %v, want it to be refused", namespace, err)
		}
	}
	s.mustRespec(t, five, map[string]any{"limits": quotaOf("services", "6")})
	another(from, "sixth")
	if n := count(); n != 6 {
		t.Errorf("there are %d Services, want 6", n)
	}
}
