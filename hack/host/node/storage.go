//go:build linux

package node

import (
	"context"

	"github.com/sublet-dev/sublet/hack/host/localpath"
)

// storage makes volumes as directories of the node.
func storage() component {
	return component{
		name:  "local-path",
		after: []string{ControlPlane},
		run: func(ctx context.Context, c Config) error {
			config, err := c.RESTConfig()
			if err != nil {
				return err
			}
			return localpath.Run(ctx, localpath.Options{Config: config, NodeName: c.Name, Dir: "/var/lib/local-path"})
		},
	}
}
