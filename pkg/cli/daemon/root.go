// Package daemon has the commands of subletd: what runs in the cluster. It joins
// control plane, syncer, DNS and kubelet shim, which do not know each other.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// usageError is an error in how the process was started.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Report prints an error of Run, if there is one, and returns the exit code of
// the process. It is the last line that the process writes, since that is what
// shows as the message of a container that ended.
func Report(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(w, "error:", err)
	if errors.As(err, new(*usageError)) {
		return 2
	}
	return 1
}

// Run runs the command that the arguments ask for, until ctx ends.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	started := false
	root := newRootCommand(&started)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && !started {
		return &usageError{err: err}
	}
	return err
}

func newRootCommand(started *bool) *cobra.Command {
	root := &cobra.Command{
		Use:   "subletd",
		Short: "What of Sublet runs in a cluster",
		Long: `What of Sublet runs in a cluster. The chart starts the manager, and the manager a
control plane for each virtual cluster; people use "sublet" instead.`,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(newManagerCommand(), newTenantCommand(), newVersionCommand())
	for _, cmd := range root.Commands() {
		run := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*started = true // what fails from here on was typed right
			return run(cmd, args)
		}
	}
	return root
}

// hostFlags lead to the host's API.
type hostFlags struct{ kubeconfig string }

func (f *hostFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig of the host (default: the ServiceAccount of the pod)")
}

func (f *hostFlags) config() (*rest.Config, error) {
	if f.kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("reaching the host: %w; outside of a pod, give --kubeconfig", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig of the host: %w", err)
	}
	return config, nil
}
