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
	argv, err := h.enter(append([]string{"sh", "-c", `cd "$0" && exec "$@"`, directory}, args...))
	if err != nil {
		return err
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	config, err := node.Load(h.dir)
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
	components := append([]string{"init"}, node.Names()...)
	if len(args) != 1 {
		return fmt.Errorf("logs wants one of %s", strings.Join(components, ", "))
	}
	path := filepath.Join(node.Config{Dir: h.dir}.LogDir(), args[0]+".log")
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("there is no log of %q; there may be of %s: %w", args[0], strings.Join(components, ", "), err)
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
