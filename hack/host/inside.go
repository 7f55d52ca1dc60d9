//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sublet-dev/sublet/hack/host/node"
	"github.com/sublet-dev/sublet/hack/host/sandbox"
	"github.com/sublet-dev/sublet/hack/host/supervise"
)

// runInit is process 1 of a node: of the first, which is the sandbox, without
// arguments, of another one with its name and the sandbox's state directory.
func runInit(ctx context.Context, args []string) error {
	dir, err := enterNode(args)
	if err != nil {
		return fmt.Errorf("set up the sandbox: %w", err)
	}
	config, err := node.Load(dir)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	components := node.Components(config, self)
	more := make(chan supervise.Component)
	go addComponents(ctx, dir, self, len(components), more)
	return supervise.Run(ctx, supervise.Options{
		Components: components,
		More:       more,
		LogDir:     config.LogDir(),
		StateFile:  config.StateFile(),
	})
}

// addComponents adds those that were appended to the configuration, nodes that is,
// whenever the process is told to look for them.
func addComponents(ctx context.Context, dir, self string, known int, more chan<- supervise.Component) {
	look := make(chan os.Signal, 1)
	signal.Notify(look, addNodes)
	defer signal.Stop(look)
	for {
		select {
		case <-ctx.Done():
			return
		case <-look:
		}
		config, err := node.Load(dir)
		if err != nil {
			// Goes to the log of process 1; who told it to look sees no new node.
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		for _, component := range node.Components(config, self)[known:] {
			select {
			case <-ctx.Done():
				return
			case more <- component:
				known++
			}
		}
	}
}

// addNodes tells process 1 to look for further nodes in its configuration.
const addNodes = syscall.SIGHUP

// enterNode returns the state directory of the node.
func enterNode(args []string) (string, error) {
	if len(args) == 0 {
		spec, err := sandbox.Enter()
		return spec.Dir, err
	}
	if len(args) != 2 {
		return "", fmt.Errorf("init wants a node and a state directory; this is for the host itself")
	}
	spec, index, err := sandbox.EnterNode(args[1], args[0])
	if err != nil {
		return "", err
	}
	return spec.NodeDir(index), nil
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
