//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sublet-dev/sublet/hack/host/node"
	"github.com/sublet-dev/sublet/hack/host/sandbox"
	"github.com/sublet-dev/sublet/hack/host/supervise"
)

// errNotRunning says that a process is to be reached that does not run.
var errNotRunning = errors.New("it does not run just now; see host status")

// running returns the nodes of the host, which must be up.
func (h host) running() ([]node.Config, error) {
	pid, err := sandbox.PID(h.dir)
	if err != nil {
		return nil, err
	}
	if pid == 0 {
		return nil, errors.New("the local host is not up: run make up")
	}
	return node.LoadAll(h.dir)
}

// node returns a node by its name; the empty one is the first.
func (h host) findNode(name string) (node.Config, error) {
	nodes, err := h.running()
	if err != nil {
		return node.Config{}, err
	}
	if name == "" {
		return nodes[0], nil
	}
	index := slices.IndexFunc(nodes, func(config node.Config) bool { return config.Name == name })
	if index < 0 {
		return node.Config{}, fmt.Errorf("there is no node %q; there are %s", name, strings.Join(nodeNames(nodes), ", "))
	}
	return nodes[index], nil
}

func nodeNames(nodes []node.Config) []string {
	var names []string
	for _, config := range nodes {
		names = append(names, config.Name)
	}
	return names
}

// enter returns a command line that runs argv in a node's namespaces.
func (h host) enter(config node.Config, argv []string) ([]string, error) {
	pid, err := sandbox.PID(h.dir)
	if err != nil {
		return nil, err
	}
	if pid == 0 {
		return nil, errors.New("the local host is not up: run make up")
	}
	if config.First() {
		return append(nsenter(pid), argv...), nil
	}
	// Its first process is a component of the first node, which alone knows it by
	// this number.
	inner, err := componentPID(node.Config{Root: config.Root, Dir: config.Root}, config.Name)
	if err != nil {
		return nil, err
	}
	return slices.Concat(nsenter(pid), nsenter(inner), argv), nil
}

func nsenter(pid int) []string {
	return []string{"nsenter", "--target", strconv.Itoa(pid), "--mount", "--root", "--net", "--pid", "--uts", "--ipc", "--"}
}

// componentPID is the number of a component's process in its node.
func componentPID(config node.Config, name string) (int, error) {
	state, err := supervise.ReadState(config.StateFile())
	if err != nil {
		return 0, err
	}
	if pid := state.Component(name).PID; pid != 0 {
		return pid, nil
	}
	return 0, fmt.Errorf("%s: %w", config.Label(name), errNotRunning)
}

// changeNode stops or starts the kubelet of a node: `host node stop node-2`. A
// stopped one hangs, as that of a machine that is gone; the node's pods run on.
func changeNode(ctx context.Context, h host, args []string, out io.Writer) error {
	signals := map[string]unix.Signal{"stop": unix.SIGSTOP, "start": unix.SIGCONT}
	if len(args) != 2 || signals[args[0]] == 0 {
		return errors.New("node wants stop or start, and the name of a node: host node stop node-2")
	}
	config, err := h.findNode(args[1])
	if err != nil {
		return err
	}
	if err := h.signalKubelet(ctx, config, signals[args[0]]); err != nil {
		return err
	}
	if args[0] == "start" {
		fmt.Fprintf(out, "The kubelet of %s goes on.\n", config.Name)
		return nil
	}
	fmt.Fprintf(out, "The kubelet of %s is stopped: the node will be NotReady within a minute. host node start %s ends that.\n", config.Name, config.Name)
	return nil
}

// signalKubelet sends a signal to the kubelet of a node.
func (h host) signalKubelet(ctx context.Context, config node.Config, signal unix.Signal) error {
	pid, err := componentPID(config, node.Kubelet)
	if err != nil {
		return err
	}
	argv, err := h.enter(config, []string{"kill", fmt.Sprintf("-%d", int(signal)), strconv.Itoa(pid)})
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("signal the kubelet of %s: %w\n%s", config.Name, err, out)
	}
	return nil
}
