//go:build windows

package cli

// inForeground is always true: a console sends Ctrl-C to all its processes.
func inForeground() bool { return true }
