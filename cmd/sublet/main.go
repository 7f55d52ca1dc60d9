// Command sublet makes tenants in a Kubernetes cluster and leads people into
// them. It also works as a plugin of kubectl, under the name kubectl-sublet.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sublet-dev/sublet/pkg/cli"
)

func main() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := cli.Run(context.Background(), cli.Process{
		Args:           os.Args,
		Stdin:          os.Stdin,
		Stdout:         os.Stdout,
		Stderr:         os.Stderr,
		Signals:        signals,
		RestoreSignals: func() { signal.Stop(signals) },
	})
	os.Exit(cli.Report(os.Stderr, err))
}
