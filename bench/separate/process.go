//go:build linux

package separate

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// grace is how long a process may take to end.
const grace = 20 * time.Second

// process is one program that runs.
type process struct {
	name, log string
	pid       int
	ended     chan struct{}
	err       error
}

// startProcess runs a program in the directory of its log.
func startProcess(name, program string, arguments []string, log string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd := exec.Command(program, arguments...)
	cmd.Dir = filepath.Dir(log)
	cmd.Stdout, cmd.Stderr = file, file
	// Whatever becomes of the benchmark, this ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &process{name: name, log: log, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(p.ended)
		// The signal comes when the thread ends that has started the process, so
		// that this one must not.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// failure is nil as long as the process runs.
func (p *process) failure() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended (%v): %s", p.name, p.err, p.tail())
	default:
		return nil
	}
}

func (p *process) stop() error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		select {
		case <-p.ended:
			return nil
		default:
		}
		if err := syscall.Kill(p.pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end %s: %w", p.name, err)
		}
		select {
		case <-p.ended:
			return nil
		case <-time.After(grace):
		}
	}
	return fmt.Errorf("%s, process %d, does not end", p.name, p.pid)
}

// tail is the end of the log.
func (p *process) tail() string {
	const most = 2000
	content, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(content[max(0, len(content)-most):]))
}
