package forward

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Command is the hidden command of sublet that serves a forward in the
// background; its argument is the forward's ID.
const Command = "serve-forward"

// Words that the process in the background says on its standard output.
const (
	wordReady = "ready"
	wordError = "error: "
)

// startPatience bounds how long a process may take until it forwards.
const startPatience = 30 * time.Second

// Start starts a process in the background that serves the forward of a saved
// state, and waits until it does. The process outlives this one.
// Its arguments are those that lead to the host.
func (s *Store) Start(ctx context.Context, id string, arguments, env []string) error {
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the program to start in the background: %w", err)
	}
	log, err := os.OpenFile(s.LogPath(id), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("making the log of the port-forward: %w", err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	cmd := exec.Command(executable, append([]string{Command, id}, arguments...)...)
	cmd.Env = env
	cmd.Dir = s.dir
	cmd.Stderr = log
	detach(cmd)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the port-forward: %w", err)
	}
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(stdout).ReadString('\n')
		said <- strings.TrimSpace(line)
	}()
	select {
	case line := <-said:
		if line == wordReady {
			return cmd.Process.Release()
		}
		_ = cmd.Wait()
		if problem, ok := strings.CutPrefix(line, wordError); ok {
			return errors.New(problem)
		}
		return fmt.Errorf("the port-forward ended at once; its log is %s", s.LogPath(id))
	case <-time.After(startPatience):
		err = fmt.Errorf("the port-forward did not start within %s; its log is %s", startPatience, s.LogPath(id))
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return err
}

// Ready tells the process that waits in Start that the forward is served.
func Ready(w io.Writer) {
	_, _ = fmt.Fprintln(w, wordReady)
}

// Failed tells the process that waits in Start why the forward is not served.
func Failed(w io.Writer, err error) {
	_, _ = fmt.Fprintln(w, wordError+strings.ReplaceAll(err.Error(), "\n", " "))
}
