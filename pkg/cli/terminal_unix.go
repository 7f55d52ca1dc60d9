//go:build !windows

package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// inForeground tells whether this process's group is the one that gets what is
// typed at its terminal, Ctrl-C included.
func inForeground() bool {
	terminal, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer func() { _ = terminal.Close() }()
	group, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
