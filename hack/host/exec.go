//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sublet-dev/sublet/hack/host/node"
)

// execInside replaces this program by a command in the sandbox.
func execInside(_ context.Context, h host, args []string, _ io.Writer) error {
	if len(args) == 0 {
		return errors.New("exec wants a command: host exec -- ip address")
	}
	directory, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find the working directory: %w", err)
	}
	// Entering a mount namespace leads to its root directory.
	config, err := h.findNode(h.node)
	if err != nil {
		return err
	}
	argv, err := h.enter(config, append([]string{"sh", "-c", `cd "$0" && exec "$@"`, directory}, args...))
	if err != nil {
		return err
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	environment := append(os.Environ(), "PATH="+h.tools()+":"+os.Getenv("PATH"))
	if os.Getenv("KUBECONFIG") == "" {
		environment = append(environment, "KUBECONFIG="+config.Kubeconfig())
	}
	return syscall.Exec(program, argv, environment)
}

// logs prints the log of a component.
func logs(_ context.Context, h host, args []string, out io.Writer) error {
	follow := len(args) > 0 && args[0] == "-f"
	if follow {
		args = args[1:]
	}
	nodes, err := node.LoadAll(h.dir)
	if err != nil {
		return fmt.Errorf("there are no logs: %w", err)
	}
	paths := map[string]string{}
	var components []string
	for _, config := range nodes {
		names := node.Names(config)
		if config.First() {
			names = append([]string{"init"}, names...)
		}
		for _, name := range names {
			components = append(components, config.Label(name))
			paths[config.Label(name)] = filepath.Join(config.LogDir(), name+".log")
		}
	}
	if len(args) != 1 || paths[args[0]] == "" {
		return fmt.Errorf("logs wants one of %s", strings.Join(components, ", "))
	}
	path := paths[args[0]]
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("there is no log of %s yet: %w", args[0], err)
	}
	if follow {
		program, err := exec.LookPath("tail")
		if err != nil {
			return err
		}
		return syscall.Exec(program, []string{"tail", "-n", "50", "-F", path}, os.Environ())
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(out, file)
	return err
}
