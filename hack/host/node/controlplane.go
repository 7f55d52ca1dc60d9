//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/rest"

	"github.com/sublet-dev/sublet/pkg/controlplane"
)

// ControlPlane is the component that serves the API.
const ControlPlane = "controlplane"

// controlPlane is that of Sublet itself, with all controllers: each start of the
// local host tests it.
func controlPlane() component {
	return component{
		name: ControlPlane,
		run:  runControlPlane,
		ready: func(c Config) func(context.Context) error {
			return func(ctx context.Context) error { return apiReady(ctx, c) }
		},
	}
}

func runControlPlane(ctx context.Context, c Config) error {
	bundle, err := c.authorities(time.Now())
	if err != nil {
		return err
	}
	plane, err := controlplane.Start(ctx, controlplane.Options{
		Name:             "host",
		DataDir:          "/var/lib/sublet-host",
		Profile:          controlplane.ProfileHost,
		PKI:              bundle,
		BindAddress:      "0.0.0.0",
		BindPort:         apiPort,
		AdvertiseAddress: c.Address.String(),
		ServerIPs:        []net.IP{c.Address.AsSlice()},
		ServiceCIDRs:     []string{ServiceCIDR().String()},
		ClusterDomain:    ClusterDomain,
		Profiling:        true, // as a kube-apiserver that is told nothing
	})
	if err != nil {
		return fmt.Errorf("start the control plane: %w", err)
	}
	// Wait also returns when a part of it fails before the context ends.
	if err := plane.Wait(); err != nil {
		return fmt.Errorf("the control plane ended: %w", err)
	}
	if ctx.Err() == nil {
		return errors.New("the control plane ended unasked")
	}
	return nil
}

// apiReady reads the kubeconfig anew each time, as it is only asked for a second.
func apiReady(ctx context.Context, c Config) error {
	config, err := c.RESTConfig()
	if err != nil {
		return err
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		return fmt.Errorf("speak to the API: %w", err)
	}
	client := &http.Client{Transport: transport, Timeout: 2 * time.Second}
	return get(ctx, client, c.Server()+"/readyz")
}
