//go:build linux

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/sublet-dev/sublet/hack/host/node"
	"github.com/sublet-dev/sublet/hack/host/sandbox"
	"github.com/sublet-dev/sublet/hack/host/supervise"
)

// runInit is process 1 of a sandbox.
func runInit(ctx context.Context) error {
	spec, err := sandbox.Enter()
	if err != nil {
		return fmt.Errorf("set up the sandbox: %w", err)
	}
	config, err := node.Load(spec.Dir)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	return supervise.Run(ctx, supervise.Options{
		Components: node.Components(config, self),
		LogDir:     config.LogDir(),
		StateFile:  config.StateFile(),
	})
}

// runComponent runs a part of the node: `host run NAME DIR`.
func runComponent(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("run wants the name of a component and a state directory; this is for the host itself, see `host logs`")
	}
	config, err := node.Load(args[1])
	if err != nil {
		return err
	}
	return node.Run(ctx, config, args[0])
}
