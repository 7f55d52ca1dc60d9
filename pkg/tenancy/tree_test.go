package tenancy_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// forest is tenants by their names.
type forest map[string]*api.Tenant

func (f forest) lookup(name string) (*api.Tenant, error) { return f[name], nil }

// TestTree folds the trees of the golden files: each has tenants.yaml, and in
// effective.yaml what counts for each of them or why nothing does.
func TestTree(t *testing.T) {
	files, err := filepath.Glob("testdata/tree/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(archive.Files) == 0 || archive.Files[0].Name != "tenants.yaml" {
				t.Fatal("it does not begin with tenants.yaml")
			}
			names, tenants := readTenants(t, archive.Files[0].Data)
			var out bytes.Buffer
			for _, name := range names {
				fmt.Fprintf(&out, "# %s\n%s", name, folded(t, tenants, name))
			}
			if *update {
				archive.Files = []txtar.File{archive.Files[0], {Name: "effective.yaml", Data: out.Bytes()}}
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if len(archive.Files) != 2 {
				t.Fatal("it has no effective.yaml: run with -update")
			}
			if diff := cmp.Diff(string(archive.Files[1].Data), out.String()); diff != "" {
				t.Errorf("(-want +got); run with -update if that is meant:\n%s", diff)
			}
		})
	}
}

func readTenants(t *testing.T, content []byte) ([]string, forest) {
	t.Helper()
	var names []string
	tenants := forest{}
	for reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content))); ; {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return names, tenants
		}
		if err != nil {
			t.Fatal(err)
		}
		tenant := &api.Tenant{}
		if err := yaml.UnmarshalStrict(document, tenant); err != nil {
			t.Fatal(err)
		}
		if tenant.UID == "" {
			tenant.UID = types.UID("uid-of-" + tenant.Name)
		}
		names = append(names, tenant.Name)
		tenants[tenant.Name] = tenant
	}
}

func folded(t *testing.T, tenants forest, name string) string {
	t.Helper()
	path, err := tenancy.PathTo(tenants[name], tenants.lookup)
	var broken *tenancy.Broken
	if errors.As(err, &broken) {
		return fmt.Sprintf("broken: %s at %s\nmessage: %s\n", broken.Reason, broken.Tenant, broken.Message)
	}
	if err != nil {
		t.Fatal(err)
	}
	e := tenancy.Fold(path)
	content, err := yaml.Marshal(map[string]any{"path": tenancy.PathText(e.Path), "effective": e.Status()})
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestEmptyIsNotAll holds that what two lists have in common is nothing, not
// everything, when they have nothing in common.
func TestEmptyIsNotAll(t *testing.T) {
	above := &api.Limits{
		StorageClasses: []string{"fast"}, IngressClasses: []string{"public"}, Services: []corev1.ServiceType{"LoadBalancer"},
		Hosts: []string{"a.example.com"}, Network: &api.NetworkLimits{AllowedCIDRs: []string{"10.0.0.0/8"}},
	}
	own := &api.Limits{
		StorageClasses: []string{"slow"}, IngressClasses: []string{"private"}, Services: []corev1.ServiceType{"ClusterIP"},
		Hosts: []string{"b.example.com"}, Network: &api.NetworkLimits{AllowedCIDRs: []string{"192.168.0.0/16"}},
	}
	limits := tenancy.Fold([]*api.Tenant{node("root", nil), node("above", above), node("own", own)}).Limits
	want := []string{api.Nothing}
	if !slices.Equal(limits.StorageClasses, want) || !slices.Equal(limits.IngressClasses, want) {
		t.Errorf("classes are %q and %q: an empty list would mean all", limits.StorageClasses, limits.IngressClasses)
	}
	if len(limits.Services)+len(limits.Hosts)+len(limits.AllowedCIDRs) > 0 {
		t.Errorf("something is left: %+v", limits)
	}
	// The control: where they have something in common, that is what is left.
	own.StorageClasses = []string{"slow", "fast"}
	limits = tenancy.Fold([]*api.Tenant{node("root", nil), node("above", above), node("own", own)}).Limits
	if !slices.Equal(limits.StorageClasses, []string{"fast"}) {
		t.Errorf("classes are %q", limits.StorageClasses)
	}
}

func node(name string, limits *api.Limits) *api.Tenant {
	return &api.Tenant{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-of-" + name)},
		Spec:       api.TenantSpec{Type: api.Folder, Limits: limits},
	}
}

// allowed is everything of a small world that limits allow, in words. It knows
// nothing of how they were folded.
func allowed(l tenancy.Limits) map[string]bool {
	all := map[string]bool{}
	say := func(yes bool, format string, args ...any) {
		if yes {
			all[fmt.Sprintf(format, args...)] = true
		}
	}
	for _, name := range quotaWorld {
		for amount := range 6 {
			hard, bounded := l.Quota[name]
			say(!bounded || hard.Value() >= int64(amount), "%d of %s", amount, name)
		}
		_, bounded := l.Quota[name]
		say(!bounded, "any number of %s", name)
	}
	for i, level := range []api.PodSecurityLevel{"restricted", "baseline", "privileged"} {
		own := slices.Index([]api.PodSecurityLevel{"restricted", "baseline", "privileged"}, l.PodSecurity)
		say(i <= own, "pods of level %s", level)
	}
	for _, service := range serviceWorld {
		say(slices.Contains(l.Services, service), "services of type %s", service)
	}
	for _, name := range nameWorld {
		say(len(l.StorageClasses) == 0 || slices.Contains(l.StorageClasses, name), "storage class %s", name)
		say(len(l.IngressClasses) == 0 || slices.Contains(l.IngressClasses, name), "ingress class %s", name)
		say(slices.Contains(l.RuntimeClasses, name), "runtime class %s", name)
		say(slices.Contains(l.PriorityClasses, name), "priority class %s", name)
		say(slices.Contains(l.Gateways, name), "gateway %s", name)
		say(slices.Contains(l.ServiceAccountAnnotations, name), "annotation %s", name)
		_, bound := l.NodeSelector[name]
		say(!bound, "nodes without label %s", name)
		say(slices.ContainsFunc(l.CustomResources, func(r api.CustomResource) bool { return r.Resource == name }), "custom resource %s", name)
	}
	say(l.RuntimeClass == "", "pods without a runtime class")
	for _, host := range []string{"example.com", "a.example.com", "b.example.com", "x.a.example.com", "example.org", "notexample.com"} {
		say(slices.ContainsFunc(l.Hosts, func(pattern string) bool {
			suffix, wildcard := strings.CutPrefix(pattern, "*.")
			return pattern == "*" || pattern == host || wildcard && strings.HasSuffix(host, "."+suffix)
		}), "host %s", host)
	}
	for _, ip := range []string{"10.0.0.1", "10.1.0.1", "10.1.2.3", "192.168.0.1", "2001:db8::1"} {
		say(slices.ContainsFunc(l.AllowedCIDRs, func(cidr string) bool {
			return netip.MustParsePrefix(cidr).Contains(netip.MustParseAddr(ip))
		}), "address %s", ip)
	}
	say(l.Internet, "the internet")
	for _, key := range []string{"a", "b"} {
		for _, value := range []string{"", "v", "w"} {
			for _, effect := range []corev1.TaintEffect{"NoSchedule", "NoExecute"} {
				for _, seconds := range []int64{0, 10, 100, 1 << 40} {
					say(slices.ContainsFunc(l.Tolerations, func(x corev1.Toleration) bool {
						key := x.Key == "" && x.Operator == "Exists" || x.Key == key && (x.Operator == "Exists" || x.Value == value)
						return key && (x.Effect == "" || x.Effect == effect) && (x.TolerationSeconds == nil || *x.TolerationSeconds >= seconds)
					}), "taint %s=%s:%s for %d", key, value, effect, seconds)
				}
			}
		}
	}
	return all
}

var (
	quotaWorld   = []corev1.ResourceName{"pods", "requests.cpu"}
	serviceWorld = []corev1.ServiceType{"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"}
	nameWorld    = []string{"x", "y", "z"}
)

// more is what one has and the other has not.
func more(a, b tenancy.Limits) []string {
	var extra []string
	others := allowed(b)
	for what := range allowed(a) {
		if !others[what] {
			extra = append(extra, what)
		}
	}
	slices.Sort(extra)
	return extra
}

// randomLimits sets each limit now and then.
func randomLimits(r *rand.Rand) *api.Limits {
	l := &api.Limits{}
	now := func() bool { return r.IntN(3) == 0 }
	names := func() []string { return some(r, nameWorld) }
	if now() {
		l.Quota = corev1.ResourceList{}
		for _, name := range some(r, quotaWorld) {
			l.Quota[name] = *resource.NewQuantity(int64(r.IntN(6)), resource.DecimalSI)
		}
	}
	if now() {
		l.PodSecurity = []api.PodSecurityLevel{"restricted", "baseline", "privileged"}[r.IntN(3)]
	}
	if now() {
		l.Services = some(r, serviceWorld)
	}
	for _, field := range []*[]string{
		&l.StorageClasses, &l.IngressClasses, &l.RuntimeClasses, &l.PriorityClasses, &l.Gateways, &l.ServiceAccountAnnotations,
	} {
		if now() {
			*field = names()
		}
	}
	if now() {
		l.Hosts = some(r, []string{"*", "*.example.com", "*.a.example.com", "a.example.com", "b.example.com", "x.a.example.com", "example.com", "example.org"})
	}
	if now() {
		l.RuntimeClass = nameWorld[r.IntN(3)]
	}
	if now() {
		l.NodeSelector = map[string]string{}
		for _, name := range names() {
			l.NodeSelector[name] = nameWorld[r.IntN(3)]
		}
	}
	if now() {
		l.Network = &api.NetworkLimits{Internet: []string{"", "Allow", "Deny"}[r.IntN(3)]}
		if now() {
			l.Network.AllowedCIDRs = some(r, []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.168.0.0/16", "0.0.0.0/0", "::/0", "2001:db8::/32"})
		}
	}
	if now() {
		ten, hundred := int64(10), int64(100)
		l.Tolerations = some(r, []corev1.Toleration{
			{Operator: "Exists"}, {Operator: "Exists", Effect: "NoSchedule"}, {Key: "a", Operator: "Exists"}, {Key: "a", Value: "v"},
			{Key: "a", Operator: "Equal", Value: "w", Effect: "NoExecute", TolerationSeconds: &ten},
			{Key: "b", Operator: "Exists", Effect: "NoExecute", TolerationSeconds: &hundred}, {Key: "b", Value: "v", Effect: "NoSchedule"},
		})
	}
	if now() {
		for _, name := range names() {
			l.CustomResources = append(l.CustomResources, api.CustomResource{Group: "g", Version: "v1", Kind: "K", Resource: name})
		}
	}
	return l
}

// some picks a part of a list, in any order.
func some[T any](r *rand.Rand, values []T) []T {
	picked := []T{}
	for _, i := range r.Perm(len(values)) {
		if r.IntN(2) == 0 {
			picked = append(picked, values[i])
		}
	}
	return picked
}

// randomPath is a path of some depth, from the root.
func randomPath(r *rand.Rand) []*api.Tenant {
	path := []*api.Tenant{node(api.RootTenant, randomLimits(r))}
	for i := range 1 + r.IntN(4) {
		path = append(path, node(fmt.Sprintf("t%d", i), randomLimits(r)))
	}
	return path
}

const rounds = 1000

// TestNoChildHasMoreThanItsParent, below the root's own children, who may have
// more than the defaults, but not more than what the root says.
func TestNoChildHasMoreThanItsParent(t *testing.T) {
	for seed := range uint64(rounds) {
		path := randomPath(rand.New(rand.NewPCG(seed, 1)))
		for depth := 2; depth < len(path); depth++ {
			parent, child := tenancy.Fold(path[:depth]), tenancy.Fold(path[:depth+1])
			if extra := more(child.Limits, parent.Limits); len(extra) > 0 {
				t.Fatalf("seed %d: %s may have what its parent may not: %v\nparent %+v\nchild %+v", seed, child.Name, extra, parent.Limits, child.Limits)
			}
		}
	}
}

// TestNothingExceedsWhatTheRootSays, limit for limit.
func TestNothingExceedsWhatTheRootSays(t *testing.T) {
	for seed := range uint64(rounds) {
		path := randomPath(rand.New(rand.NewPCG(seed, 2)))
		root, low := tenancy.Fold(path[:1]), tenancy.Fold(path)
		for name := range root.LimitOrigins {
			if !slices.Contains(low.LimitOrigins[name], api.RootTenant) && len(low.LimitOrigins[name]) == 0 {
				t.Fatalf("seed %d: %s is a default below a root that sets it", seed, name)
			}
		}
		// What the root leaves open is closed here by the tenant itself, so that
		// only what the root says is compared.
		open := tenancy.Fold([]*api.Tenant{node(api.RootTenant, nil), node("t", path[0].Spec.Limits)})
		if extra := more(onlySet(low, root), onlySet(open, root)); len(extra) > 0 {
			t.Fatalf("seed %d: %v is more than the root allows", seed, extra)
		}
	}
}

// onlySet are the limits of one for which another has an origin; the rest is as
// in an empty value.
func onlySet(e, by tenancy.Effective) tenancy.Limits {
	l, has := e.Limits, func(name string) bool { return len(by.LimitOrigins[name]) > 0 }
	kept := tenancy.Limits{Quota: corev1.ResourceList{}, NodeSelector: map[string]string{}, PodSecurity: api.PodSecurityRestricted}
	for name, amount := range l.Quota {
		if has("quota." + string(name)) {
			kept.Quota[name] = amount
		}
	}
	for key, value := range l.NodeSelector {
		if has("nodeSelector." + key) {
			kept.NodeSelector[key] = value
		}
	}
	if has("podSecurity") {
		kept.PodSecurity = l.PodSecurity
	}
	if has("services") {
		kept.Services = l.Services
	}
	for name, fields := range map[string][2]*[]string{
		"storageClasses": {&kept.StorageClasses, &l.StorageClasses}, "ingressClasses": {&kept.IngressClasses, &l.IngressClasses},
		"runtimeClasses": {&kept.RuntimeClasses, &l.RuntimeClasses}, "priorityClasses": {&kept.PriorityClasses, &l.PriorityClasses},
		"gateways": {&kept.Gateways, &l.Gateways}, "hosts": {&kept.Hosts, &l.Hosts},
		"serviceAccountAnnotations": {&kept.ServiceAccountAnnotations, &l.ServiceAccountAnnotations},
		"network.allowedCIDRs":      {&kept.AllowedCIDRs, &l.AllowedCIDRs},
	} {
		if has(name) {
			*fields[0] = *fields[1]
		}
	}
	if has("tolerations") {
		kept.Tolerations = l.Tolerations
	}
	if has("customResources") {
		kept.CustomResources = l.CustomResources
	}
	kept.Internet = has("network.internet") && l.Internet
	return kept
}

// TestAddingALimitNeverWidens adds limits to a tenant below the root's own
// children and looks at it and all below.
func TestAddingALimitNeverWidens(t *testing.T) {
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 3))
		path := randomPath(r)
		if len(path) < 3 {
			continue
		}
		where := 2 + r.IntN(len(path)-2)
		before := tenancy.Fold(path)
		// Both what it had and what is new: the tenant as a path of two.
		longer := slices.Insert(slices.Clone(path), where, node("added", randomLimits(r)))
		if extra := more(tenancy.Fold(longer).Limits, before.Limits); len(extra) > 0 {
			t.Fatalf("seed %d: %v came with another limit", seed, extra)
		}
		// And a limit where there was none.
		path[where].Spec.Limits = nil
		before = tenancy.Fold(path)
		path[where].Spec.Limits = randomLimits(r)
		if extra := more(tenancy.Fold(path).Limits, before.Limits); len(extra) > 0 {
			t.Fatalf("seed %d: %v came with the first limits", seed, extra)
		}
	}
}

// TestOrderDoesNotMatter shuffles siblings and the entries of lists.
func TestOrderDoesNotMatter(t *testing.T) {
	for seed := range uint64(rounds / 10) {
		r := rand.New(rand.NewPCG(seed, 4))
		path := randomPath(r)
		tenants := forest{}
		for i, tenant := range path {
			if i > 1 {
				tenant.Spec.Parent = path[i-1].Name
			}
			tenants[tenant.Name] = tenant
		}
		last := path[len(path)-1]
		want := fold(t, tenants, last.Name)
		// Siblings at every level, with limits of their own.
		for i := range 10 {
			sibling := node(fmt.Sprintf("s%d", i), randomLimits(r))
			sibling.Spec.Parent = path[r.IntN(len(path)-1)].Name
			tenants[sibling.Name] = sibling
		}
		for _, tenant := range path {
			l := tenant.Spec.Limits
			for _, values := range [][]string{l.StorageClasses, l.Hosts, l.Gateways, l.RuntimeClasses} {
				r.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
			}
			r.Shuffle(len(l.Tolerations), func(i, j int) { l.Tolerations[i], l.Tolerations[j] = l.Tolerations[j], l.Tolerations[i] })
		}
		if diff := cmp.Diff(want, fold(t, tenants, last.Name)); diff != "" {
			t.Fatalf("seed %d (-before +after):\n%s", seed, diff)
		}
	}
}

func fold(t *testing.T, tenants forest, name string) tenancy.Effective {
	t.Helper()
	path, err := tenancy.PathTo(tenants[name], tenants.lookup)
	if err != nil {
		t.Fatal(err)
	}
	return tenancy.Fold(path)
}

// TestPathDepth holds the bound from both sides.
func TestPathDepth(t *testing.T) {
	tenants := forest{api.RootTenant: node(api.RootTenant, nil)}
	parent := ""
	for i := range tenancy.MaxDepth + 2 {
		tenant := node(fmt.Sprintf("t%d", i+1), nil)
		tenant.Spec.Parent = parent
		tenants[tenant.Name], parent = tenant, tenant.Name
	}
	if _, err := tenancy.PathTo(tenants[fmt.Sprintf("t%d", tenancy.MaxDepth)], tenants.lookup); err != nil {
		t.Errorf("the deepest that may be: %v", err)
	}
	var broken *tenancy.Broken
	for _, depth := range []int{tenancy.MaxDepth + 1, tenancy.MaxDepth + 2} {
		if _, err := tenancy.PathTo(tenants[fmt.Sprintf("t%d", depth)], tenants.lookup); !errors.As(err, &broken) || broken.Reason != tenancy.BrokenTooDeep {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
}

// TestFoldLeavesItsArgumentAlone holds that what is folded comes from a cache.
func TestFoldLeavesItsArgumentAlone(t *testing.T) {
	for seed := range uint64(100) {
		path := randomPath(rand.New(rand.NewPCG(seed, 5)))
		var before []*api.Tenant
		for _, tenant := range path {
			before = append(before, tenant.DeepCopy())
		}
		tenancy.Fold(path)
		if diff := cmp.Diff(before, path); diff != "" {
			t.Fatalf("seed %d:\n%s", seed, diff)
		}
	}
}
