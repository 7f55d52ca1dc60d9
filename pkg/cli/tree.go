package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// treeOptions are the flags of tree.
type treeOptions struct {
	*app
	name   string
	output output
}

func newTreeCommand(a *app) *cobra.Command {
	o := &treeOptions{app: a}
	cmd := &cobra.Command{
		Use:   "tree [NAME]",
		Short: "Show the tree of tenants, how they fare and what they use",
		Long: `Show the tree of tenants, how they fare and what they use of what they may: all
that you may see, or one with what is below it.

The usage of a tenant is that of itself and all below it. It is shown for what the
tenant has a quota of.`,
		Example:           examples(a.name, "%[1]s tree\n%[1]s tree team1\n%[1]s tree -o json"),
		Args:              atMostOneName,
		ValidArgsFunction: a.completeTenants(false),
		RunE: a.run(func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				o.name = args[0]
			}
			return o.run(ctx)
		}),
	}
	o.output.addFlag(cmd, cmd.Flags(), "table", "json", "yaml", "name")
	return cmd
}

func (o *treeOptions) run(ctx context.Context) error {
	if err := o.output.validate(); err != nil {
		return err
	}
	clients, err := o.host.clients()
	if err != nil {
		return err
	}
	list, err := o.visible(ctx, clients)
	if err != nil {
		return err
	}
	f := newForest(list.Items)
	tops := f.tops()
	if o.name != "" {
		tenant, err := o.get(ctx, clients, o.name)
		if err != nil {
			return err
		}
		f.tenants[tenant.Name] = tenant
		tops = []string{tenant.Name}
	}
	shown := f.below(tops)
	switch o.output.format {
	case "json", "yaml", "name":
		out := &api.TenantList{TypeMeta: list.TypeMeta}
		for _, name := range shown {
			out.Items = append(out.Items, *f.tenants[name])
		}
		return o.output.object(o.Stdout, out)
	}
	if len(tops) == 0 {
		o.warnf("There are no tenants. Make one with: %s create NAME\n", o.app.name)
		return nil
	}
	return table(o.Stdout, []string{"TENANT", "TYPE", "HEALTH", "USED", "AGE"}, f.rows(tops, time.Now()))
}

// forest is the tenants that one may see, by name, and the names of those below
// each.
type forest struct {
	tenants  map[string]*api.Tenant
	children map[string][]string
}

func newForest(tenants []api.Tenant) *forest {
	f := &forest{tenants: map[string]*api.Tenant{}, children: map[string][]string{}}
	for i := range tenants {
		f.tenants[tenants[i].Name] = &tenants[i]
	}
	for _, name := range slices.Sorted(maps.Keys(f.tenants)) {
		if parent := tenancy.Parent(f.tenants[name]); parent != "" {
			f.children[parent] = append(f.children[parent], name)
		}
	}
	return f
}

func (f *forest) lookup(name string) (*api.Tenant, error) { return f.tenants[name], nil }

// tops are those above whom one sees nothing: the root first; last those of a
// ring, of whom one stands for all.
func (f *forest) tops() []string {
	var tops []string
	if f.tenants[api.RootTenant] != nil {
		tops = append(tops, api.RootTenant)
	}
	names := slices.Sorted(maps.Keys(f.tenants))
	for _, name := range names {
		if name != api.RootTenant && f.tenants[tenancy.Parent(f.tenants[name])] == nil {
			tops = append(tops, name)
		}
	}
	for _, name := range names {
		var broken *tenancy.Broken
		_, err := tenancy.PathTo(f.tenants[name], f.lookup)
		ring := errors.As(err, &broken) && broken.Reason == tenancy.BrokenCycle
		if ring && !slices.Contains(f.below(tops), name) {
			tops = append(tops, name)
		}
	}
	return tops
}

// below are some tenants and all below them, each once, in the order of the tree.
func (f *forest) below(tops []string) []string {
	var names []string
	seen := map[string]bool{}
	var walk func(name string)
	walk = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		names = append(names, name)
		for _, child := range f.children[name] {
			walk(child)
		}
	}
	for _, top := range tops {
		walk(top)
	}
	return names
}

func (f *forest) rows(tops []string, now time.Time) [][]string {
	var rows [][]string
	seen := map[string]bool{}
	var walk func(name, lead, next string)
	walk = func(name, lead, next string) {
		if seen[name] {
			return
		}
		seen[name] = true
		tenant := f.tenants[name]
		rows = append(rows, []string{
			lead + name, string(tenant.Spec.Type), health(tenant), usedText(tenant), age(tenant.CreationTimestamp, now),
		})
		children := f.children[name]
		for i, child := range children {
			if i == len(children)-1 {
				walk(child, next+"└─ ", next+"   ")
				continue
			}
			walk(child, next+"├─ ", next+"│  ")
		}
	}
	for _, top := range tops {
		walk(top, "", "")
	}
	return rows
}

// health is how a tenant fares, in a word or, if it does not fare well, in the
// reason of the manager.
func health(tenant *api.Tenant) string {
	text := phase(tenant)
	condition := meta.FindStatusCondition(tenant.Status.Conditions, api.ConditionReady)
	if blocked := meta.FindStatusCondition(tenant.Status.Conditions, api.ConditionDeletionBlocked); tenant.DeletionTimestamp != nil && blocked != nil {
		condition = blocked
	} else if tenant.DeletionTimestamp != nil {
		return text
	}
	if condition == nil || condition.Type == api.ConditionReady && condition.Status == metav1.ConditionTrue {
		return text
	}
	return text + " (" + condition.Reason + ")"
}

// usedText is what a tenant uses, with all below it, of its quota: "pods 3/10"; a
// dash for what has not been counted yet.
func usedText(tenant *api.Tenant) string {
	if tenant.Status.Effective == nil {
		return "-"
	}
	var parts []string
	for _, limit := range tenant.Status.Effective.Limits {
		resource, ok := strings.CutPrefix(limit.Name, "quota.")
		if !ok {
			continue
		}
		used := "-"
		if amount, known := tenant.Status.Usage[corev1.ResourceName(resource)]; known {
			used = amount.String()
		}
		parts = append(parts, fmt.Sprintf("%s %s/%s", resource, used, limit.Value))
	}
	return orElse(strings.Join(parts, ", "), "-")
}
