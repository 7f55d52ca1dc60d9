//go:build linux

package node

import (
	"context"

	"github.com/sublet-dev/sublet/hack/host/registry"
)

// pulls answers what containerd would ask registries.
func pulls() component {
	return component{
		name:  "registry",
		after: []string{ContainerRuntime},
		run: func(ctx context.Context, _ Config) error {
			return registry.Run(ctx, registry.Options{Containerd: containerd, Address: registryAddress})
		},
	}
}
