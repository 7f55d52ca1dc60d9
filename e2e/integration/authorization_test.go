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

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// testAuthorization holds the whole table of who may create, move, delete tenants
// and edit what of them, where:
//
//	root             pat      platform admin
//	└─ firm          cora     admin
//	   ├─ red        lead     admin    gina  admin, by a group
//	   │  │          dev      edit     vera  view    bot  admin, a service account
//	   │  ├─ web     a Namespace; wes is admin of it alone
//	   │  ├─ lab     a VirtualCluster
//	   │  └─ sub     a Folder with one below
//	   │     └─ deep a Namespace
//	   └─ blue       olga     admin    max   admin of red, too
//	      └─ db      a Namespace
//	lone             solo     admin, directly below the root
//
// Whoever may not do something is refused by RBAC or by the policy; for each
// action there is somebody who may.
func testAuthorization(h *managedHost) {
	t := h.t
	h.create(&rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "platform"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "sublet-platform-admin"},
		Subjects:   []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "pat"}},
	})
	limits := &api.Limits{Quota: corev1.ResourceList{"pods": resource.MustParse("5")}}
	h.create(with(folder("firm"), user("cora", api.RoleAdmin)))
	h.create(with(below("firm", folder("red")),
		user("lead", api.RoleAdmin), user("max", api.RoleAdmin), user("dev", api.RoleEdit), user("vera", api.RoleView),
		api.Member{Kind: "Group", Name: "red-admins", Role: api.RoleAdmin},
		api.Member{Kind: "ServiceAccount", Namespace: "ci", Name: "bot", Role: api.RoleAdmin}))
	h.create(with(below("red", namespaceTenant("web")), user("wes", api.RoleAdmin)))
	h.create(below("red", virtualCluster("lab")))
	h.create(below("red", folder("sub")))
	h.create(below("sub", namespaceTenant("deep")))
	h.create(with(below("firm", folder("blue")), user("olga", api.RoleAdmin), user("max", api.RoleAdmin)))
	h.create(below("blue", namespaceTenant("db")))
	h.create(with(namespaceTenant("lone"), user("solo", api.RoleAdmin)))
	everywhere := []string{"firm", "red", "web", "lab", "sub", "deep", "blue", "db", "lone"}
	for _, name := range everywhere {
		h.waitFor(name, api.ConditionFenceReady, "Applied")
	}
	h.eventually("sub has one below", func(ctx context.Context) error {
		if h.tenant("sub").Status.Children != 1 {
			return errors.New("not counted")
		}
		return nil
	})

	people := map[string]client.Client{
		"pat": h.as("pat"), "cora": h.as("cora"), "lead": h.as("lead"), "gina": h.as("gina", "red-admins"),
		"bot": h.as("system:serviceaccount:ci:bot", "system:serviceaccounts", "system:serviceaccounts:ci"),
		"dev": h.as("dev"), "vera": h.as("vera"), "wes": h.as("wes"), "olga": h.as("olga"), "max": h.as("max"),
		"solo": h.as("solo"), "nobody": h.as("nobody"),
	}
	type action func(c client.Client) error
	create := func(tenant *api.Tenant) action {
		return func(c client.Client) error { return c.Create(t.Context(), tenant.DeepCopy(), client.DryRunAll) }
	}
	edit := func(name string, change func(*api.Tenant)) action {
		return func(c client.Client) error {
			tenant := h.tenant(name)
			before := tenant.DeepCopy()
			change(tenant)
			return c.Patch(t.Context(), tenant, client.MergeFrom(before), client.DryRunAll)
		}
	}
	remove := func(name string) action {
		return func(c client.Client) error { return c.Delete(t.Context(), h.tenant(name), client.DryRunAll) }
	}
	move := func(name, parent string) action {
		return edit(name, func(t *api.Tenant) { t.Spec.Parent = parent })
	}
	limited := func(parent string) *api.Tenant {
		tenant := below(parent, namespaceTenant("new"))
		tenant.Spec.Limits = limits
		return tenant
	}
	member := func(t *api.Tenant) { t.Spec.Members = append(t.Spec.Members, user("new", api.RoleView)) }
	bound := func(t *api.Tenant) { t.Spec.Limits = limits }
	ttl := func(t *api.Tenant) { t.Spec.TTL = &metav1.Duration{Duration: time.Hour} }
	template := func(t *api.Tenant) { t.Spec.Templates = []api.TemplateRef{{Name: "x"}} }
	heavy := below("red", virtualCluster("new"))
	heavy.Spec.VirtualCluster.Image = otherImage
	large := below("red", virtualCluster("new"))
	large.Spec.VirtualCluster.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("64")}}
	volume := below("red", virtualCluster("new"))
	size := resource.MustParse("1Ti")
	volume.Spec.VirtualCluster.Storage.Size = &size
	templated := below("red", namespaceTenant("new"))
	templated.Spec.Templates = []api.TemplateRef{{Name: "x"}}
	admins := func(more ...string) []string {
		return append([]string{"pat", "cora", "lead", "gina", "bot", "max"}, more...)
	}

	cases := map[string]struct {
		do  action
		may []string
	}{
		"see red":      {func(c client.Client) error { return c.Get(t.Context(), key("red"), &api.Tenant{}) }, admins("dev", "vera")},
		"see web":      {func(c client.Client) error { return c.Get(t.Context(), key("web"), &api.Tenant{}) }, admins("dev", "vera", "wes")},
		"see deep":     {func(c client.Client) error { return c.Get(t.Context(), key("deep"), &api.Tenant{}) }, admins("dev", "vera")},
		"see blue":     {func(c client.Client) error { return c.Get(t.Context(), key("blue"), &api.Tenant{}) }, []string{"pat", "cora", "olga", "max"}},
		"see firm":     {func(c client.Client) error { return c.Get(t.Context(), key("firm"), &api.Tenant{}) }, []string{"pat", "cora"}},
		"see the root": {func(c client.Client) error { return c.Get(t.Context(), key("root"), &api.Tenant{}) }, []string{"pat"}},
		"list all":     {func(c client.Client) error { return c.List(t.Context(), &api.TenantList{}) }, []string{"pat"}},
		"watch the one": {func(c client.Client) error {
			return c.List(t.Context(), &api.TenantList{}, client.MatchingFields{"metadata.name": "web"})
		}, admins("dev", "vera", "wes")},
		"create in red":                     {create(below("red", namespaceTenant("new"))), admins()},
		"create a folder in red":            {create(below("red", folder("new"))), admins()},
		"create a cluster in red":           {create(below("red", virtualCluster("new"))), admins()},
		"create in red, limited":            {create(limited("red")), admins()},
		"create from a template":            {create(templated), admins()},
		"create in web":                     {create(below("web", namespaceTenant("new"))), admins("wes")},
		"create in lab":                     {create(below("lab", namespaceTenant("new"))), admins()},
		"create in deep":                    {create(below("deep", namespaceTenant("new"))), admins()},
		"create in blue":                    {create(below("blue", namespaceTenant("new"))), []string{"pat", "cora", "olga", "max"}},
		"create in firm":                    {create(below("firm", namespaceTenant("new"))), []string{"pat", "cora"}},
		"create at the root":                {create(namespaceTenant("new")), []string{"pat"}},
		"create below the root by its name": {create(below("root", namespaceTenant("new"))), []string{"pat"}},
		"create at the root, limited":       {create(limited("")), []string{"pat"}},
		"create below what is not there":    {create(below("nowhere", namespaceTenant("new"))), []string{"pat"}},
		"create with an image of one's own": {create(heavy), []string{"pat"}},
		"create a large control plane":      {create(large), []string{"pat"}},
		"create a large volume":             {create(volume), []string{"pat"}},
		"members of red":                    {edit("red", member), admins()},
		"members of web":                    {edit("web", member), admins("wes")},
		"members of deep":                   {edit("deep", member), admins()},
		"members of blue":                   {edit("blue", member), []string{"pat", "cora", "olga", "max"}},
		"members of firm":                   {edit("firm", member), []string{"pat", "cora"}},
		"members of the root":               {edit("root", member), []string{"pat"}},
		"members of lone":                   {edit("lone", member), []string{"pat", "solo"}},
		"limits of red":                     {edit("red", bound), []string{"pat", "cora"}},
		"limits of web":                     {edit("web", bound), admins()},
		"limits of deep":                    {edit("deep", bound), admins()},
		"limits of db":                      {edit("db", bound), []string{"pat", "cora", "olga", "max"}},
		"limits of firm":                    {edit("firm", bound), []string{"pat"}},
		"limits of the root":                {edit("root", bound), []string{"pat"}},
		"limits of lone":                    {edit("lone", bound), []string{"pat"}},
		"templates of red":                  {edit("red", template), []string{"pat", "cora"}},
		"templates of web":                  {edit("web", template), admins()},
		"life of red":                       {edit("red", ttl), []string{"pat", "cora"}},
		"life of web":                       {edit("web", ttl), admins()},
		"end of web":                        {edit("web", func(t *api.Tenant) { now := metav1.Now(); t.Spec.ExpiresAt = &now }), admins()},
		"policy of web":                     {edit("web", func(t *api.Tenant) { t.Spec.DeletionPolicy = api.DeletionCascade }), admins()},
		"policy of red":                     {edit("red", func(t *api.Tenant) { t.Spec.DeletionPolicy = api.DeletionCascade }), []string{"pat", "cora"}},
		"finalizers of web":                 {edit("web", func(t *api.Tenant) { t.Finalizers = nil }), admins()},
		"owners of web": {edit("web", func(t *api.Tenant) {
			t.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: "default", UID: "x"}}
		}), admins()},
		"labels of web":                     {edit("web", func(t *api.Tenant) { t.Labels = map[string]string{"example.com/cost": "1"} }), admins("wes")},
		"version of lab":                    {edit("lab", func(t *api.Tenant) { t.Spec.VirtualCluster.Version = "1.35" }), admins()},
		"image of lab":                      {edit("lab", func(t *api.Tenant) { t.Spec.VirtualCluster.Image = otherImage }), []string{"pat"}},
		"limits and members of web at once": {edit("web", func(t *api.Tenant) { member(t); bound(t) }), admins()},
		"status of web": {func(c client.Client) error {
			tenant := h.tenant("web")
			before := tenant.DeepCopy()
			tenant.Status.Children = 7
			return c.Status().Patch(t.Context(), tenant, client.MergeFrom(before), client.DryRunAll)
		}, nil},
		"move within red":                {move("web", "sub"), admins()},
		"move web to lab":                {move("web", "lab"), admins()},
		"move from red to blue":          {move("web", "blue"), []string{"pat", "cora", "max"}},
		"move from blue to red":          {move("db", "red"), []string{"pat", "cora", "max"}},
		"move up to firm":                {move("web", "firm"), []string{"pat", "cora"}},
		"move up to the root":            {move("web", ""), []string{"pat"}},
		"move red below blue":            {move("red", "blue"), []string{"pat", "cora"}},
		"move lone into red":             {move("lone", "red"), []string{"pat"}},
		"move web below itself":          {move("web", "web"), nil},
		"move to where nothing is":       {move("web", "nowhere"), []string{"pat"}},
		"move and widen at once":         {edit("web", func(t *api.Tenant) { t.Spec.Parent = "blue"; bound(t) }), []string{"pat", "cora", "max"}},
		"delete web":                     {remove("web"), admins()},
		"delete lab":                     {remove("lab"), admins()},
		"delete deep":                    {remove("deep"), admins()},
		"delete db":                      {remove("db"), []string{"pat", "cora", "olga", "max"}},
		"delete lone":                    {remove("lone"), []string{"pat"}},
		"delete sub, which is not empty": {remove("sub"), nil},
		"delete the root":                {remove("root"), nil},
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		c := cases[name]
		t.Run(name, func(t *testing.T) {
			for _, who := range slices.Sorted(maps.Keys(people)) {
				err := c.do(people[who])
				may := slices.Contains(c.may, who)
				switch {
				case may && err != nil:
					t.Errorf("%s may not: %v", who, err)
				case !may && err == nil:
					t.Errorf("%s may", who)
				case !may && !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err):
					t.Errorf("%s: %v", who, err)
				}
			}
		})
	}
	t.Run("a refusal says which right is missing, and where", func(t *testing.T) {
		for _, c := range []struct {
			who  string
			do   action
			says []string
		}{
			{"lead", cases["limits of red"].do, []string{`"manage"`, `"firm"`, "limits"}},
			{"lead", cases["create in blue"].do, []string{`"nest"`, `"blue"`}},
			{"lead", cases["move from red to blue"].do, []string{`"nest"`, `"blue"`}},
			{"lead", cases["create at the root"].do, []string{`"nest"`, `"root"`}},
			{"lead", cases["image of lab"].do, []string{"image", `"manage"`}},
			{"cora", cases["delete sub, which is not empty"].do, []string{"Cascade"}},
		} {
			err := c.do(people[c.who])
			for _, text := range c.says {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("%q is missing in: %v", text, err)
				}
			}
		}
	})
	t.Run("can-i says the same", func(t *testing.T) {
		asked := map[string]struct {
			action     tenancy.Action
			tenant, to string
		}{
			"see red": {tenancy.ActionSee, "red", ""}, "see deep": {tenancy.ActionSee, "deep", ""}, "see the root": {tenancy.ActionSee, "root", ""},
			"create in red": {tenancy.ActionCreate, "red", ""}, "create in lab": {tenancy.ActionCreate, "lab", ""}, "create at the root": {tenancy.ActionCreate, "root", ""},
			"members of red": {tenancy.ActionMembers, "red", ""}, "members of web": {tenancy.ActionMembers, "web", ""}, "members of the root": {tenancy.ActionMembers, "root", ""},
			"limits of red": {tenancy.ActionLimits, "red", ""}, "limits of web": {tenancy.ActionLimits, "web", ""}, "limits of lone": {tenancy.ActionLimits, "lone", ""},
			"limits of the root": {tenancy.ActionLimits, "root", ""}, "templates of red": {tenancy.ActionTemplates, "red", ""}, "templates of web": {tenancy.ActionTemplates, "web", ""},
			"life of red": {tenancy.ActionLife, "red", ""}, "policy of web": {tenancy.ActionLife, "web", ""}, "image of lab": {tenancy.ActionHeavy, "lab", ""},
			"move within red": {tenancy.ActionMove, "web", "sub"}, "move from red to blue": {tenancy.ActionMove, "web", "blue"}, "move from blue to red": {tenancy.ActionMove, "db", "red"},
			"move up to firm": {tenancy.ActionMove, "web", "firm"}, "move up to the root": {tenancy.ActionMove, "web", "root"}, "move red below blue": {tenancy.ActionMove, "red", "blue"},
			"move lone into red": {tenancy.ActionMove, "lone", "red"}, "move web below itself": {tenancy.ActionMove, "web", "web"},
			"delete web": {tenancy.ActionDelete, "web", ""}, "delete deep": {tenancy.ActionDelete, "deep", ""}, "delete lone": {tenancy.ActionDelete, "lone", ""},
			"delete sub, which is not empty": {tenancy.ActionDelete, "sub", ""}, "delete the root": {tenancy.ActionDelete, "root", ""},
		}
		for _, name := range slices.Sorted(maps.Keys(asked)) {
			a, tenant := asked[name], h.tenant(asked[name].tenant)
			for _, who := range slices.Sorted(maps.Keys(people)) {
				can := tenancy.Obstacle(a.action, tenant, a.to) == ""
				for _, right := range tenancy.Rights(a.action, tenant, a.to) {
					review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
						Group: api.GroupName, Resource: "tenants", Verb: right.Verb, Name: right.Tenant,
					}}}
					if err := people[who].Create(t.Context(), review); err != nil {
						t.Fatal(err)
					}
					can = can && review.Status.Allowed
				}
				if may := slices.Contains(cases[name].may, who); can != may {
					t.Errorf("%s: can-i says %v of %s, and it is %v", name, can, who, may)
				}
			}
		}
	})
	h.run("whoever has the verbs by a role of one's own", func(t *testing.T) {
		// A right to nest alone: to create, not to decide.
		h.create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "previews"}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{api.GroupName}, Resources: []string{"tenants"}, Verbs: []string{"create"}},
			{APIGroups: []string{api.GroupName}, Resources: []string{"tenants"}, ResourceNames: []string{"sub"}, Verbs: []string{"nest"}},
		}})
		h.create(&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "previews"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "previews"},
			Subjects:   []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "robot"}},
		})
		robot := h.as("robot")
		expiring := below("sub", namespaceTenant("preview"))
		ttl(expiring)
		h.eventually("it may create below sub", func(context.Context) error { return create(expiring)(robot) })
		for name, attempt := range map[string]error{
			"with limits":     create(limited("sub"))(robot),
			"below another":   create(below("red", namespaceTenant("new")))(robot),
			"and delete":      remove("deep")(robot),
			"and edit limits": edit("deep", bound)(robot),
		} {
			if !apierrors.IsForbidden(attempt) {
				t.Errorf("%s: %v", name, attempt)
			}
		}
	})
	t.Run("the manager writes no spec", func(t *testing.T) {
		self := h.as("system:serviceaccount:"+api.SystemNamespace+":"+api.ManagerName, "system:serviceaccounts")
		for name, attempt := range map[string]error{
			"another's limits":   edit("web", bound)(self),
			"another's parent":   move("web", "sub")(self),
			"a tenant":           create(namespaceTenant("new"))(self),
			"(control) its mark": nil,
		} {
			if name != "(control) its mark" && !apierrors.IsForbidden(attempt) {
				t.Errorf("%s: %v", name, attempt)
			}
		}
		if err := edit("web", func(t *api.Tenant) { t.Finalizers = append(t.Finalizers, "example.com/x") })(self); err != nil {
			t.Errorf("a finalizer: %v", err)
		}
	})
	h.run("a new admin may at once, a former one no more", func(t *testing.T) {
		if err := edit("red", member)(people["dev"]); !apierrors.IsForbidden(err) {
			t.Fatalf("dev may already: %v", err)
		}
		h.change("firm", func(s *api.TenantSpec) { s.Members = append(s.Members, user("dev", api.RoleAdmin)) })
		h.eventually("dev may create in deep", func(context.Context) error {
			return create(below("deep", namespaceTenant("new")))(people["dev"])
		})
		h.change("firm", func(s *api.TenantSpec) { s.Members = s.Members[:1] })
		for _, name := range []string{"firm", "red", "deep"} {
			h.eventually("dev may no more create in "+name, func(context.Context) error {
				if err := create(below(name, namespaceTenant("new")))(people["dev"]); !apierrors.IsForbidden(err) {
					return fmt.Errorf("it may: %v", err)
				}
				return nil
			})
		}
	})
	h.run("really, not only dry", func(t *testing.T) {
		lead := people["lead"]
		mine := with(below("red", namespaceTenant("mine")), user("friend", api.RoleEdit))
		mine.Spec.Limits = limits
		if err := lead.Create(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
		h.waitForPhase("mine", api.PhaseReady)
		h.eventually("it is lead's to change", func(ctx context.Context) error {
			tenant := h.tenant("mine")
			before := tenant.DeepCopy()
			tenant.Spec.Parent = "sub"
			return lead.Patch(ctx, tenant, client.MergeFrom(before))
		})
		h.eventually("it has moved", func(context.Context) error {
			if path := h.tenant("mine").Status.Path; path != "root/firm/red/sub/mine" {
				return errors.New(path)
			}
			return nil
		})
		if err := lead.Delete(t.Context(), h.tenant("mine")); err != nil {
			t.Fatal(err)
		}
		h.isGone("mine")
	})
	h.change("firm", func(s *api.TenantSpec) { s.DeletionPolicy = api.DeletionCascade })
	h.remove("firm", "lone")
}

func key(name string) client.ObjectKey { return client.ObjectKey{Name: name} }
