//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sublet-dev/sublet/hack/host/addons"
)

// command is one verb. Its work is done with the host that the flags name.
type command struct {
	name, args, summary string
	root                bool
	// flags of its own are written to the host.
	flags func(*flag.FlagSet, *host)
	run   func(ctx context.Context, h host, args []string, out io.Writer) error
}

func commands() []command {
	return []command{
		{name: "up", summary: "start the local host, or heal it; quick when there is nothing to do", root: true, flags: nodesFlag, run: up},
		{name: "down", summary: "end it and remove everything but the caches", root: true, run: down},
		{name: "status", summary: "tell what runs; exit code 1 when it is not up", root: true, run: status},
		{name: "kubeconfig", summary: "print the path of its kubeconfig", run: kubeconfigPath},
		{name: "load", args: "IMAGE|FILE.tar…", summary: "import images, by name (see images) or from archives", root: true, run: load},
		{name: "images", args: "[NAME…]", summary: "make the archives of images, all of them by default", root: true, run: makeImages},
		{name: "addon", args: addons.Metrics, summary: "put metrics-server on a running host, for kubectl top and autoscaling", root: true, run: addAddon},
		{name: "exec", args: "-- COMMAND…", summary: "run a command in its namespaces, or with --node in those of a further node", root: true, flags: nodeFlag, run: execInside},
		{name: "node", args: "stop|start NODE", summary: "stop the kubelet of a node, or start it again", root: true, run: changeNode},
		{name: "logs", args: "[-f] [NODE/]COMPONENT", summary: "print the log of a component", run: logs},
	}
}

func nodesFlag(flags *flag.FlagSet, h *host) {
	flags.IntVar(&h.nodes, "nodes", 0, fmt.Sprintf("how many nodes it has (default: as many as it had, %d if it is new)", defaultNodes))
}

func nodeFlag(flags *flag.FlagSet, h *host) {
	flags.StringVar(&h.node, "node", "", "the node (default: the first)")
}

// exitCode ends the program without a message.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func dispatch(ctx context.Context, args []string, out, errOut io.Writer) error {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		usage(out)
		return nil
	}
	// These two are how the program calls itself inside the sandbox.
	switch args[0] {
	case "init":
		return runInit(ctx, args[1:])
	case "run":
		return runComponent(ctx, args[1:])
	}
	index := slices.IndexFunc(commands(), func(c command) bool { return c.name == args[0] })
	if index < 0 {
		usage(errOut)
		return fmt.Errorf("there is no command %q", args[0])
	}
	chosen := commands()[index]
	flags := flag.NewFlagSet(chosen.name, flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.Usage = func() {
		fmt.Fprintf(errOut, "host %s [flags] %s\n\n%s\n\n", chosen.name, chosen.args, chosen.summary)
		flags.PrintDefaults()
	}
	name := flags.String("name", "", "name of a further local host of this checkout")
	dir := flags.String("dir", "", "state directory (default: .host in the checkout, .host-NAME with --name)")
	var own host
	if chosen.flags != nil {
		chosen.flags(flags, &own)
	}
	if err := flags.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return exitCode(2)
	}
	h, err := findHost(*name, *dir)
	if err != nil {
		return err
	}
	h.nodes, h.node = own.nodes, own.node
	if chosen.root {
		if err := needRoot(); err != nil {
			return err
		}
	}
	return chosen.run(ctx, h, flags.Args(), out)
}

func usage(out io.Writer) {
	var text strings.Builder
	text.WriteString("The local host: a real Kubernetes on this machine.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(&text, "  host %-26s %s\n", strings.TrimSpace(c.name+" "+c.args), c.summary)
	}
	text.WriteString("\nFlags of all commands: --name NAME, --dir DIRECTORY\n")
	fmt.Fprint(out, text.String())
}
