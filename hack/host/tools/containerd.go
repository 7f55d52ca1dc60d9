package tools

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// containerdVersion is the version of containerd. Debian's is too old for this
// kubelet. It is not in go.mod, as its dependencies are newer than Kubernetes'.
const containerdVersion = "v2.4.2"

// Containerd builds containerd, its shim and its command line into dir, unless
// they are there, and says whether it had to.
func Containerd(ctx context.Context, dir string, say func(format string, args ...any)) (bool, error) {
	stamp := filepath.Join(dir, "containerd.version")
	if built, err := os.ReadFile(stamp); err == nil && string(built) == containerdVersion {
		return false, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look for containerd: %w", err)
	}
	say("building containerd %s (one to three minutes)", containerdVersion)
	const module = "github.com/containerd/containerd/v2/cmd/"
	args := []string{"install", "-ldflags", "-s -w"}
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		args = append(args, module+program+"@"+containerdVersion)
	}
	command := exec.CommandContext(ctx, "go", args...)
	// Outside of any module: what it needs is in its own go.mod.
	command.Dir = os.TempDir()
	command.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := command.CombinedOutput(); err != nil {
		return false, fmt.Errorf("build containerd: %w\n%s", err, out)
	}
	if err := os.WriteFile(stamp, []byte(containerdVersion), 0o644); err != nil {
		return false, fmt.Errorf("note containerd's version: %w", err)
	}
	return true, nil
}
