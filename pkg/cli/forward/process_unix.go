//go:build !windows

package forward

import (
	"os"
	"os/exec"
	"syscall"
)

// detach lets a process outlive the terminal that started it.
func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
}

func terminate(process *os.Process) error {
	return process.Signal(syscall.SIGTERM)
}
