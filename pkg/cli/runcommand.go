package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// runCommand runs the user's command with a kubeconfig of its own, and returns
// its exit code as an error.
func (o *connectOptions) runCommand(ctx context.Context, entry *clientcmdapi.Config) error {
	dir, err := os.MkdirTemp("", "sublet-")
	if err != nil {
		return fmt.Errorf("making a place for the kubeconfig: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*entry, path); err != nil {
		return fmt.Errorf("writing the kubeconfig for the command: %w", err)
	}
	cmd := exec.Command(o.command[0], o.command[1:]...)
	cmd.Env = append(os.Environ(), clientcmd.RecommendedConfigPathEnvVar+"="+path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = o.Stdin, o.Stdout, o.Stderr
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			o.warnf("error: there is no command %q; is it installed and in PATH?\n", o.command[0])
			return &exitCodeError{code: exitNotFound}
		}
		return fmt.Errorf("starting the command: %w", err)
	}
	stop := o.forwardSignals(func(s os.Signal) {
		// From a terminal, Ctrl-C reaches the command by itself.
		if s != os.Interrupt || !inForeground() {
			_ = cmd.Process.Signal(s)
		}
	})
	defer stop()
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &exitCodeError{code: exitSignal + int(status.Signal())}
	}
	return &exitCodeError{code: exit.ExitCode()}
}
