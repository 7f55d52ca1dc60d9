//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/bench/proc"
)

const (
	// treeTop is the Folder above all that is measured.
	treeTop = "bench-tree"
	// Of each division there are so many teams, of each team so many services.
	treeTeams, treeServices = 5, 10
)

// treeRun is what one size of tree took.
type treeRun struct {
	Tenants    int     `json:"tenants"`
	ConvergeS  float64 `json:"convergeSeconds"`
	MemberS    float64 `json:"memberSeconds"`
	ManagerCPU float64 `json:"managerCPUSeconds"`
	ManagerMiB float64 `json:"managerRssAnonMiB"`
}

// measureTree makes a tree of Folders and Namespaces, four levels deep, changes a
// member at its top, and deletes it: a fourth of the size first, then all of it, so
// that one can see how it grows.
func measureTree(ctx context.Context, b *bench) ([]result, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), api.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	c, err := client.NewWithWatch(b.config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	var runs []treeRun
	for _, size := range []int{b.tree / 4, b.tree} {
		run, err := b.measureTree(ctx, c, size)
		if deleted := b.deleteTree(ctx, c); err == nil {
			err = deleted
		}
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(os.Stderr, "  %d tenants: converged after %.1f s, a member at the top everywhere after %.1f s, manager %.1f s of CPU, %.0f MiB\n",
			run.Tenants, run.ConvergeS, run.MemberS, run.ManagerCPU, run.ManagerMiB)
		runs = append(runs, run)
	}
	few, many := runs[0], runs[1]
	per := func(r treeRun, amount float64) float64 { return amount / float64(r.Tenants) * 1000 }
	one := func(name string, value float64) result { return newResult(name, []float64{value}, runs) }
	return []result{
		one("tree_converge_ms", per(many, many.ConvergeS)),
		one("tree_converge_growth", per(many, many.ConvergeS)/per(few, few.ConvergeS)),
		one("tree_member_ms", per(many, many.MemberS)),
		one("tree_member_growth", per(many, many.MemberS)/per(few, few.MemberS)),
		one("tree_manager_cpu_ms", per(many, many.ManagerCPU)),
		one("tree_manager_rss_mib", many.ManagerMiB),
	}, nil
}

func (b *bench) measureTree(ctx context.Context, c client.WithWatch, size int) (treeRun, error) {
	levels := treeOf(size)
	run := treeRun{}
	manager, err := b.managerProcess(ctx)
	if err != nil {
		return run, err
	}
	before, err := proc.CPUSeconds(manager)
	if err != nil {
		return run, err
	}
	var leaves int
	for _, level := range levels {
		run.Tenants += len(level)
	}
	leaves = len(levels[len(levels)-1])
	progress := fmt.Sprintf("%d tenants, %d of them with a namespace", run.Tenants, leaves)
	fmt.Fprintf(os.Stderr, "  making %s\n", progress)

	start := time.Now()
	done := make(chan error, 1)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go func() { done <- untilReady(watching, c, run.Tenants) }()
	for _, level := range levels {
		if err := inParallel(workers, level, func(tenant *api.Tenant) error { return c.Create(ctx, tenant) }); err != nil {
			return run, fmt.Errorf("create the tree: %w", err)
		}
	}
	if err := <-done; err != nil {
		return run, err
	}
	run.ConvergeS = time.Since(start).Seconds()
	after, err := proc.CPUSeconds(manager)
	if err != nil {
		return run, err
	}
	run.ManagerCPU = after - before

	const who = "bench-member"
	go func() { done <- untilMember(watching, c, who, leaves) }()
	// The watch must stand before the clock runs.
	time.Sleep(time.Second)
	top := &api.Tenant{}
	if err := c.Get(ctx, client.ObjectKey{Name: treeTop}, top); err != nil {
		return run, err
	}
	base := top.DeepCopy()
	top.Spec.Members = []api.Member{{Kind: "User", Name: who, Role: api.RoleView}}
	start = time.Now()
	if err := c.Patch(ctx, top, client.MergeFrom(base)); err != nil {
		return run, err
	}
	if err := <-done; err != nil {
		return run, err
	}
	run.MemberS = time.Since(start).Seconds()
	bytes, err := proc.RssAnon(manager)
	run.ManagerMiB = bytes / mib
	return run, err
}

// treeOf are the tenants of a tree of about this size, level by level.
func treeOf(size int) [][]*api.Tenant {
	tenant := func(name, parent string, kind api.TenantType) *api.Tenant {
		return &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: api.TenantSpec{Type: kind, Parent: parent}}
	}
	levels := make([][]*api.Tenant, 4)
	levels[0] = []*api.Tenant{tenant(treeTop, "", api.Folder)}
	made := 1
	for d := 0; made < size; d++ {
		division := fmt.Sprintf("%s-%d", treeTop, d)
		levels[1] = append(levels[1], tenant(division, treeTop, api.Folder))
		made++
		for t := 0; t < treeTeams && made < size; t++ {
			team := fmt.Sprintf("%s-%d", division, t)
			levels[2] = append(levels[2], tenant(team, division, api.Folder))
			made++
			for s := 0; s < treeServices && made < size; s++ {
				levels[3] = append(levels[3], tenant(fmt.Sprintf("%s-%d", team, s), team, api.Namespace))
				made++
			}
		}
	}
	return levels
}

// untilReady watches until so many tenants of the tree are ready.
func untilReady(ctx context.Context, c client.WithWatch, want int) error {
	return untilSeen(ctx, c, &api.TenantList{}, want, func(object client.Object) bool {
		tenant, ok := object.(*api.Tenant)
		return ok && strings.HasPrefix(tenant.Name, treeTop) && meta.IsStatusConditionTrue(tenant.Status.Conditions, api.ConditionReady)
	})
}

// untilMember watches until a user has a role in so many namespaces.
func untilMember(ctx context.Context, c client.WithWatch, user string, want int) error {
	return untilSeen(ctx, c, &rbacv1.RoleBindingList{}, want, func(object client.Object) bool {
		binding, ok := object.(*rbacv1.RoleBinding)
		if !ok {
			return false
		}
		for _, subject := range binding.Subjects {
			if subject.Name == user {
				return true
			}
		}
		return false
	})
}

// untilSeen watches a kind until as many objects as wanted are as they should be.
func untilSeen(ctx context.Context, c client.WithWatch, list client.ObjectList, want int, is func(client.Object) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	seen := map[string]bool{}
	for {
		w, err := c.Watch(ctx, list)
		if err != nil {
			return err
		}
		for event := range w.ResultChan() {
			object, ok := event.Object.(client.Object)
			if !ok || event.Type == watch.Deleted || !is(object) {
				continue
			}
			seen[object.GetNamespace()+"/"+object.GetName()] = true
			if len(seen) >= want {
				w.Stop()
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d were seen: %w", len(seen), want, ctx.Err())
		}
	}
}

// deleteTree deletes what measureTree made, and waits until it is gone.
func (b *bench) deleteTree(ctx context.Context, c client.Client) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Minute)
	defer cancel()
	if out, err := b.sublet(ctx, "delete", treeTop, "--cascade", "--yes", "--ignore-not-found", "--timeout", "30m").CombinedOutput(); err != nil {
		return fmt.Errorf("delete the tree: %w\n%s", err, out)
	}
	return nil
}

// managerProcess is the manager's process.
func (b *bench) managerProcess(ctx context.Context) (int, error) {
	pods, err := b.host.CoreV1().Pods(api.SystemNamespace).List(ctx, metav1.ListOptions{FieldSelector: "status.phase=" + string(corev1.PodRunning)})
	if err != nil {
		return 0, err
	}
	for i := range pods.Items {
		if pid := processOf(string(pods.Items[i].UID), 0); pid != 0 {
			return pid, nil
		}
	}
	return 0, errors.New("the manager's process is not on this machine")
}
