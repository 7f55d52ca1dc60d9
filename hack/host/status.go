//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/sublet-dev/sublet/hack/host/addons"
	"github.com/sublet-dev/sublet/hack/host/node"
	"github.com/sublet-dev/sublet/hack/host/sandbox"
	"github.com/sublet-dev/sublet/hack/host/supervise"
)

// status tells how the host does.
func status(ctx context.Context, h host, _ []string, out io.Writer) error {
	pid, err := sandbox.PID(h.dir)
	if err != nil {
		return err
	}
	if pid == 0 {
		fmt.Fprintln(out, "The local host is down: make up starts it.")
		return exitCode(1)
	}
	nodes, err := node.LoadAll(h.dir)
	if err != nil {
		return err
	}
	first := nodes[0]
	fmt.Fprintf(out, "sandbox     process %d, %s, cgroup %s\n", pid, h.dir, first.Cgroup)
	fmt.Fprintf(out, "kubeconfig  %s\nserver      %s\n\n", first.Kubeconfig(), first.Server())
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "COMPONENT\tPHASE\tSINCE\tFAILURES\tLAST EXIT")
	for _, config := range nodes {
		state, err := supervise.ReadState(config.StateFile())
		if err != nil {
			return err
		}
		for _, c := range state.Components {
			since := ""
			if !c.Started.IsZero() {
				since = time.Since(c.Started).Round(time.Second).String()
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\n", config.Label(c.Name), c.Phase, since, c.Failures, c.LastExit)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	client, err := first.RESTConfig()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var missing []error
	for _, config := range nodes {
		missing = append(missing, addons.NodeReady(ctx, client, config.Name))
	}
	if err := errors.Join(append(missing, addons.Ready(ctx, client, addons.DNS))...); err != nil {
		fmt.Fprintf(out, "\nNot ready: %v\n", err)
		return exitCode(1)
	}
	fmt.Fprintln(out, "\nReady.")
	return nil
}

// kubeconfigPath prints where the kubeconfig is, or will be.
func kubeconfigPath(_ context.Context, h host, _ []string, out io.Writer) error {
	_, err := fmt.Fprintln(out, node.Config{Root: h.dir}.Kubeconfig())
	return err
}
