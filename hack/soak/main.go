// Command soak lets writers create, change and delete objects in a tenant on
// the local host, at random, while an administrator of the host meddles with
// what is synced and the tenant's process is killed every now and then. At the
// end both sides have to agree, object by object, and no write that the
// tenant's API acknowledged may be gone.
//
//	writers ──► tenant's API ──► syncer ──► host ◄── administrator
//	   │            ▲ kill -9                │
//	   └► journal   └────────────────────────┤
//	         │                               │ when all is quiet
//	         └──► compare ◄── what the pure translation says of the tenant's objects
//
// It exits with 0 if all is well, 1 if not, 2 if it could not find out.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/klog/v2"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	klog.SetOutput(os.Stderr)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, errDisagree):
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(2)
	}
}
