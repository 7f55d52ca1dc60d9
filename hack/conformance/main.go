// Command conformance runs Kubernetes' own end-to-end suite, unmodified, against
// the local host or against a tenant on it, and renders what came out as a page.
//
//	make conformance                      all of conformance, in a tenant made for it
//	make conformance TENANT=              the same on the bare local host
//	make conformance FOCUS='sig-network'  a part of it
//	make conformance FAILED=1             what failed last time, once more
//
// The results of both stand side by side, so that a failure of the tenant can be
// told from one of the host. A run of everything begins a new report; any other
// run puts what it ran into the report that is there.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil:
		return
	case errors.Is(err, errNotAllPassed):
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, "conformance:", err)
	if interrupted {
		os.Exit(130)
	}
	os.Exit(2)
}
