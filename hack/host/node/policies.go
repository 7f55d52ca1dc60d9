//go:build linux

package node

import (
	"context"

	"github.com/sublet-dev/sublet/hack/host/netpol"
)

// policies enforces NetworkPolicies, which the CNI plugins do not.
func policies() component {
	return component{
		name:  "netpol",
		after: []string{ControlPlane},
		run: func(ctx context.Context, c Config) error {
			config, err := c.RESTConfig()
			if err != nil {
				return err
			}
			return netpol.Run(ctx, netpol.Options{
				Config:   config,
				NodeName: c.Name,
				Leases:   "/run/cni/pods",
				Bundles:  "/run/containerd/io.containerd.runtime.v2.task/k8s.io",
			})
		},
	}
}
