package daemon

import (
	"github.com/spf13/cobra"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/manager"
)

func newManagerCommand() *cobra.Command {
	var (
		options manager.Options
		host    hostFlags
		log     logFlags
	)
	cmd := &cobra.Command{
		Use:   "manager",
		Short: "Run the controllers that make tenants",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, err := log.apply(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if options.Config, err = host.config(); err != nil {
				return err
			}
			return manager.Run(ctx, options)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&options.Namespace, "namespace", api.SystemNamespace, "the manager's own namespace")
	flags.StringVar(&options.Image, "image", "", "image of control planes that name none (default: that of this release)")
	flags.StringSliceVar(&options.IngressNamespaces, "ingress-namespaces", nil, "where the host's ingress controllers and gateways run, which reach the pods of tenants that may have host names")
	flags.BoolVar(&options.LeaderElection, "leader-elect", false, "let several managers stand by for each other")
	flags.StringVar(&options.MetricsAddress, "metrics-address", "", "where to serve /metrics (default: nowhere)")
	flags.IntVar(&options.ProfilingPort, "profiling-port", 0, "port of the loopback interface to serve profiles of the Go runtime on, for whoever may forward to the pod (default: nowhere)")
	flags.StringVar(&options.ProbeAddress, "probe-address", "", "where to serve /healthz and /readyz (default: nowhere)")
	flags.DurationVar(&options.DeletionGrace, "deletion-grace", 0, "time that the pods of a deleted tenant get to stop (default: 1s)")
	flags.BoolVar(&options.Unguarded, "unguarded", false, "the chart's admission policies are off: give admins of tenants no right to change a Tenant")
	flags.StringVar(&options.ChartDirectory, "chart-directory", "", "folder with the charts that Templates name by a path (default: none)")
	host.add(cmd)
	log.add(cmd)
	return cmd
}
