package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// listOptions are the flags of list.
type listOptions struct {
	*app
	output    output
	noHeaders bool
}

func newListCommand(a *app) *cobra.Command {
	o := &listOptions{app: a}
	cmd := &cobra.Command{
		Use:               "list",
		Aliases:           []string{"ls"},
		Short:             "List the tenants",
		Long:              "List the tenants of the host cluster that you may see. A star marks those that your kubeconfig has a context for, a greater-than sign the current one.",
		Example:           examples(a.name, "%[1]s list\n%[1]s list -o wide\n%[1]s list -o json"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			return o.run(ctx)
		}),
	}
	o.output.addFlag(cmd, cmd.Flags(), "table", "wide", "json", "yaml", "name")
	cmd.Flags().BoolVar(&o.noHeaders, "no-headers", false, "leave out the headings of the table")
	return cmd
}

func (o *listOptions) run(ctx context.Context) error {
	if err := o.output.validate(); err != nil {
		return err
	}
	clients, err := o.host.clients()
	if err != nil {
		return err
	}
	tenants, err := o.visible(ctx, clients)
	if apierrors.IsForbidden(err) {
		return hint(fmt.Errorf("you may not list tenants on the host (%s): %w", o.host.where(), err), "Those that you are a member of you can use all the same, by name: %s connect NAME.", o.name)
	}
	if err != nil {
		return err
	}
	switch o.output.format {
	case "json", "yaml", "name":
		return o.output.object(o.Stdout, tenants)
	}
	if len(tenants.Items) == 0 {
		o.warnf("There are no tenants. Make one with: %s create NAME\n", o.name)
		return nil
	}
	headings, rows := o.table(tenants.Items, time.Now())
	if o.noHeaders {
		return tableWithoutHeadings(o.Stdout, headings, rows)
	}
	return table(o.Stdout, headings, rows)
}

func (o *listOptions) table(tenants []api.Tenant, now time.Time) (headings []string, rows [][]string) {
	wide := o.output.format == "wide"
	headings = []string{" ", "NAME", "TYPE", "PHASE", "VERSION", "NAMESPACE", "AGE"}
	if wide {
		headings = append(headings, "PARENT", "ENDPOINT", "MESSAGE")
	}
	marks := o.marks()
	for _, tenant := range tenants {
		row := []string{
			orElse(marks[tenant.Name], " "),
			tenant.Name,
			string(tenant.Spec.Type),
			phase(&tenant),
			versionOf(&tenant),
			orElse(tenant.Status.Namespace, "-"),
			age(tenant.CreationTimestamp, now),
		}
		if wide {
			row = append(row, orElse(tenant.Spec.Parent, api.RootTenant), endpointOf(&tenant), readyMessage(&tenant))
		}
		rows = append(rows, row)
	}
	return headings, rows
}

// marks says of each tenant of this host whether the kubeconfig leads into it.
func (o *listOptions) marks() map[string]string {
	config, _, err := o.host.raw()
	if err != nil {
		return nil
	}
	marks := map[string]string{}
	for _, c := range connections(&config) {
		switch {
		case c.HostContext != o.host.context:
		case c.context == config.CurrentContext:
			marks[c.Tenant] = ">"
		default:
			marks[c.Tenant] = "*"
		}
	}
	return marks
}

func phase(tenant *api.Tenant) string {
	if tenant.DeletionTimestamp != nil {
		return string(api.PhaseDeleting)
	}
	return orElse(string(tenant.Status.Phase), "New")
}

func versionOf(tenant *api.Tenant) string {
	if tenant.Status.VirtualCluster == nil {
		return "-"
	}
	return orElse(tenant.Status.VirtualCluster.Version, "-")
}

func endpointOf(tenant *api.Tenant) string {
	if tenant.Status.VirtualCluster == nil {
		return "-"
	}
	return orElse(tenant.Status.VirtualCluster.Endpoint, "-")
}

func readyMessage(tenant *api.Tenant) string {
	condition := meta.FindStatusCondition(tenant.Status.Conditions, api.ConditionReady)
	if condition == nil {
		return "-"
	}
	return orElse(condition.Message, condition.Reason)
}

func age(since metav1.Time, now time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return duration.HumanDuration(now.Sub(since.Time))
}
