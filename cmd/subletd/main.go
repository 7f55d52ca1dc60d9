// Command subletd is all of Sublet that runs in a cluster: the manager, and
// the control plane of each virtual cluster.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sublet-dev/sublet/pkg/cli/daemon"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	err := daemon.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	os.Exit(daemon.Report(os.Stderr, err))
}
