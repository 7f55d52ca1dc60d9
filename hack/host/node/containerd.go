//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// ContainerRuntime is the component that images are given to.
	ContainerRuntime = "containerd"
	containerdConfig = "containerd.toml"
	cniDir           = "cni"
	registryDir      = "registry"
)

func containerRuntime() component {
	return component{
		name:    ContainerRuntime,
		program: func(c Config) []string { return []string{"containerd", "--config", c.path(containerdConfig)} },
		ready:   func(Config) func(context.Context) error { return listening(containerd) },
	}
}

// ChooseSnapshotter returns overlayfs if the file system of dir can hold its
// layers, and native, which copies them, otherwise.
func ChooseSnapshotter(dir string) (string, error) {
	root, err := os.MkdirTemp(dir, "overlay-")
	if err != nil {
		return "", fmt.Errorf("try overlayfs: %w", err)
	}
	defer os.RemoveAll(root)
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			return "", fmt.Errorf("try overlayfs: %w", err)
		}
	}
	merged := filepath.Join(root, "merged")
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", root)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return "native", nil
	}
	if err := unix.Unmount(merged, 0); err != nil {
		return "", fmt.Errorf("try overlayfs: unmount %s: %w", merged, err)
	}
	return "overlayfs", nil
}

// MustRestrictOOMScore says whether this machine forbids to lower the OOM score
// of a process even to root, as some virtual machines and containers do.
func MustRestrictOOMScore() (bool, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, fmt.Errorf("read the capabilities of this process: %w", err)
	}
	capabilities, err := effectiveCapabilities(string(status))
	return capabilities&(1<<unix.CAP_SYS_RESOURCE) == 0, err
}

// effectiveCapabilities reads them from the text of /proc/<pid>/status.
func effectiveCapabilities(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if value, found := strings.CutPrefix(line, "CapEff:"); found {
			capabilities, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				return 0, fmt.Errorf("read the capabilities of this process: %w", err)
			}
			return capabilities, nil
		}
	}
	return 0, errors.New("the kernel does not tell the capabilities of this process")
}
