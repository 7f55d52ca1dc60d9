package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/cli/forward"
)

// reconnectMax bounds how often an idle forward looks for a pod that is away.
const reconnectMax = 15 * time.Second

// newServeForwardCommand is what connect starts in the background; nobody types
// it.
func newServeForwardCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    forward.Command + " ID",
		Short:  "Serve a port-forward that connect has made ready",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			err := a.serveForward(ctx, args[0])
			if errors.As(context.Cause(ctx), new(*interruptedError)) {
				return nil // disconnect ends it so
			}
			return err
		}),
	}
}

func (a *app) serveForward(ctx context.Context, id string) error {
	if err := a.tryServeForward(ctx, id); err != nil {
		// Nobody listens any more once it has been ready; the log keeps it.
		forward.Failed(a.Stdout, a.host.explain(err, a.name))
		return err
	}
	return nil
}

func (a *app) tryServeForward(ctx context.Context, id string) error {
	store, err := a.store()
	if err != nil {
		return err
	}
	release, ok, err := store.Claim(id)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("another process serves the port-forward %s", id)
	}
	defer release()
	state, err := store.Load(id)
	if err != nil {
		return err
	}
	clients, err := a.host.clients()
	if err != nil {
		return err
	}
	forwarder, err := forward.New(clients.config, state.Namespace, api.ControlPlanePod, api.APIServerPort)
	if err != nil {
		return err
	}
	listener, err := listen(ctx, state.Port)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	if _, err := forwarder.Connect(); err != nil {
		return err
	}
	state.PID, state.Started = os.Getpid(), time.Now().UTC().Truncate(time.Second)
	if err := store.Save(state); err != nil {
		return err
	}
	forward.Ready(a.Stdout)
	a.log("forwarding 127.0.0.1:%d to tenant %s", state.Port, state.Tenant)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- forwarder.Serve(ctx, listener, func(err error) { a.log("%v", err) }) }()
	if a.keepConnected(ctx, clients, forwarder, state) {
		a.log("tenant %s was deleted", state.Tenant)
		cancel()
		return errors.Join(<-served, a.forget(state.ID), store.Remove(id))
	}
	return <-served
}

// keepConnected holds the connection to the pod, makes it anew when it is lost,
// and returns true when the tenant is gone, false when ctx ends.
func (a *app) keepConnected(ctx context.Context, clients *hostClients, forwarder *forward.Forwarder, state forward.State) (gone bool) {
	wait := 100 * time.Millisecond
	for ctx.Err() == nil {
		lost, err := forwarder.Connect()
		if err == nil {
			wait = 100 * time.Millisecond
			select {
			case <-ctx.Done():
				return false
			case <-lost:
				a.log("the connection to the pod was lost; making it anew")
			}
		}
		if a.tenantGone(ctx, clients, state) {
			return true
		}
		pause(ctx, wait)
		wait = min(2*wait, reconnectMax)
	}
	return false
}

// tenantGone is only true when the host says so: a host that is out of reach
// says nothing.
func (a *app) tenantGone(ctx context.Context, clients *hostClients, state forward.State) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tenant, err := clients.tenants.Get(ctx, state.Tenant)
	if err != nil {
		return apierrors.IsNotFound(err) && !notInstalled(err)
	}
	return string(tenant.UID) != state.TenantUID || tenant.DeletionTimestamp != nil
}

func (a *app) log(format string, args ...any) {
	line := strings.TrimSpace(fmt.Sprintf(format, args...))
	a.warnf("%s %s\n", time.Now().UTC().Format(time.RFC3339), line)
}
