package tools

import (
	"context"
	"fmt"
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
	programs := []string{"containerd", "containerd-shim-runc-v2", "ctr"}
	if built(stamp, dir, programs) {
		return false, nil
	}
	say("building containerd %s (one to three minutes)", containerdVersion)
	const module = "github.com/containerd/containerd/v2/cmd/"
	args := []string{"install", "-ldflags", "-s -w"}
	for _, program := range programs {
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

// built says whether the stamp, which is written last, and all programs are there.
func built(stamp, dir string, programs []string) bool {
	if version, err := os.ReadFile(stamp); err != nil || string(version) != containerdVersion {
		return false
	}
	for _, program := range programs {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			return false
		}
	}
	return true
}
