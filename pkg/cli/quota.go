package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// quotaOptions are the flags of quota.
type quotaOptions struct {
	*app
	name   string
	output output
}

func newQuotaCommand(a *app) *cobra.Command {
	o := &quotaOptions{app: a}
	cmd := &cobra.Command{
		Use:   "quota [NAME]",
		Short: "Show what tenants use of their quotas, what is free, and which quota is in the way",
		Long: `Show what a tenant uses, with all below it, of each quota that it is under; what is
still free for it; and of all quotas above it the one that leaves the least. Without
NAME, of all tenants that you may see.

A request that is refused for want of quota is refused because of the one that is
named: more of it is given by whoever manages the tenant above that one.`,
		Example:           examples(a.name, "%[1]s quota\n%[1]s quota team1\n%[1]s quota team1 -o json"),
		Args:              atMostOneName,
		ValidArgsFunction: a.completeTenants(false),
		RunE: a.run(func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				o.name = args[0]
			}
			return o.run(ctx)
		}),
	}
	o.output.addFlag(cmd, cmd.Flags(), "table", "json")
	return cmd
}

func (o *quotaOptions) run(ctx context.Context) error {
	if err := o.output.validate(); err != nil {
		return err
	}
	clients, err := o.host.clients()
	if err != nil {
		return err
	}
	known := map[string]*api.Tenant{}
	var shown []string
	if o.name != "" {
		tenant, err := o.get(ctx, clients, o.name)
		if err != nil {
			return err
		}
		known[o.name], shown = tenant, []string{o.name}
		for _, above := range pathNames(tenant) {
			one, err := clients.tenants.Get(ctx, above)
			if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
				continue // not seen
			}
			if err != nil {
				return err
			}
			known[above] = one
		}
	} else {
		list, err := o.visible(ctx, clients)
		if err != nil {
			return err
		}
		f := newForest(list.Items)
		known, shown = f.tenants, f.below(f.tops())
	}
	var all []quotaUse
	for _, name := range shown {
		all = append(all, quotaUses(known[name], known)...)
	}
	return o.print(all)
}

// pathNames are the tenants above one, from the root.
func pathNames(tenant *api.Tenant) []string {
	names := strings.Split(tenant.Status.Path, "/")
	return names[:max(0, len(names)-1)]
}

// quotaUse is how a tenant stands to one quota.
type quotaUse struct {
	Tenant   string              `json:"tenant"`
	Resource corev1.ResourceName `json:"resource"`
	// Used is nil before it was counted.
	Used *resource.Quantity `json:"used,omitempty"`
	// Limit is the smallest of all quotas from the root to the tenant.
	Limit resource.Quantity `json:"limit"`
	// Free is what the tenant could have beside that; nil when it is not known.
	Free *resource.Quantity `json:"free,omitempty"`
	// Bound is the tenant whose quota leaves so little, with what is used of it.
	Bound string `json:"boundBy,omitempty"`
	// Hidden are tenants above with a quota of the resource that one may not see.
	Hidden []string `json:"hidden,omitempty"`

	boundUsed, boundLimit resource.Quantity
}

// quotaUses looks at a tenant and at those above it that are known.
func quotaUses(tenant *api.Tenant, known map[string]*api.Tenant) []quotaUse {
	if tenant.Status.Effective == nil {
		return nil
	}
	var all []quotaUse
	for _, limit := range tenant.Status.Effective.Limits {
		name, ok := strings.CutPrefix(limit.Name, tenancy.QuotaLimit)
		amount, err := resource.ParseQuantity(limit.Value)
		if !ok || err != nil {
			continue
		}
		use := quotaUse{Tenant: tenant.Name, Resource: corev1.ResourceName(name), Limit: amount}
		if used, counted := tenant.Status.Usage[use.Resource]; counted {
			use.Used = &used
		}
		for _, above := range append(pathNames(tenant), tenant.Name) {
			use.consider(known[above])
		}
		for _, from := range limit.From {
			if known[from] == nil {
				use.Hidden = append(use.Hidden, from)
			}
		}
		all = append(all, use)
	}
	return all
}

// consider looks at one of the tenants on the way from the root.
func (u *quotaUse) consider(tenant *api.Tenant) {
	if tenant == nil || tenant.Spec.Limits == nil {
		return
	}
	limit, limited := tenant.Spec.Limits.Quota[u.Resource]
	used, counted := tenant.Status.Usage[u.Resource]
	if !limited || !counted {
		return
	}
	free := limit.DeepCopy()
	free.Sub(used)
	if free.Sign() < 0 {
		free = resource.Quantity{Format: limit.Format}
	}
	if u.Free == nil || free.Cmp(*u.Free) < 0 {
		u.Free, u.Bound, u.boundUsed, u.boundLimit = &free, tenant.Name, used, limit
	}
}

func (o *quotaOptions) print(all []quotaUse) error {
	if o.output.format == "json" {
		if all == nil {
			all = []quotaUse{}
		}
		return o.printJSON(all)
	}
	if len(all) == 0 {
		if o.name != "" {
			o.warnf("Tenant %s is under no quota.\n", o.name)
		} else {
			o.warnf("No tenant that you see is under a quota.\n")
		}
		return nil
	}
	var rows [][]string
	for _, u := range all {
		row := []string{u.Tenant, string(u.Resource), "-", u.Limit.String(), "-", "-"}
		if u.Used != nil {
			row[2] = u.Used.String()
		}
		if u.Free != nil {
			row[4] = u.Free.String()
			row[5] = fmt.Sprintf("%s (%s of %s)", u.Bound, u.boundUsed.String(), u.boundLimit.String())
		}
		if len(u.Hidden) > 0 {
			row[5] = strings.TrimPrefix(row[5]+"; not seen: "+strings.Join(u.Hidden, ", "), "-; ")
		}
		rows = append(rows, row)
	}
	return table(o.Stdout, []string{"TENANT", "RESOURCE", "USED", "LIMIT", "FREE", "BOUND BY"}, rows)
}
