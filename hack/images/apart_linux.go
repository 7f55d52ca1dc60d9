package images

import (
	"os/exec"
	"syscall"
)

// apart gives a command mounts of its own, so that an interrupted one leaves none
// behind, and no network if it needs none.
func apart(command *exec.Cmd, offline bool) {
	flags := uintptr(syscall.CLONE_NEWNS)
	if offline {
		flags |= syscall.CLONE_NEWNET
	}
	command.SysProcAttr = &syscall.SysProcAttr{Unshareflags: flags}
}
