package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const debianSuite = "bookworm"

// debianPackages are those that upstream's image has beside its own binary, as
// far as tests use them.
func debianPackages() []string { return []string{"curl", "dnsutils", "iproute2", "netcat-openbsd"} }

func debianKey() string { return debianSuite + " " + strings.Join(debianPackages(), " ") }

// debian returns a layer with a small Debian.
func (b Builder) debian(ctx context.Context) (string, error) {
	layer := Archive{Path: filepath.Join(b.dir(), "debian.layer.tar"), Key: debianKey()}
	if fresh(layer) {
		return layer.Path, nil
	}
	b.say("making a root file system of Debian's packages (a minute)")
	err := b.inScratch(func(dir string) error {
		root := filepath.Join(dir, "root")
		bootstrap := exec.CommandContext(ctx, "debootstrap", "--variant=minbase",
			"--include="+strings.Join(debianPackages(), ","), debianSuite, root)
		// It mounts /proc for the packages' scripts. Nobody else needs to see that.
		apart(bootstrap, false)
		if err := b.quietly(bootstrap); err != nil {
			return err
		}
		return b.quietly(exec.CommandContext(ctx, "tar", append([]string{
			"--create", "--file", layer.Path, "--directory", root, "--numeric-owner", "--sort=name", "--mtime=@0",
		}, append(leftOut(), ".")...)...))
	})
	if err != nil {
		return "", errors.Join(fmt.Errorf("a root file system of Debian's packages: %w", err), os.RemoveAll(layer.Path))
	}
	if err := os.WriteFile(layer.keyPath(), []byte(layer.Key), 0o644); err != nil {
		return "", fmt.Errorf("keep the root file system: %w", err)
	}
	return layer.Path, nil
}

// leftOut are arguments of tar: what no container needs.
func leftOut() []string {
	var args []string
	for _, path := range []string{
		"dev/*", "proc/*", "sys/*", "run/*", "tmp/*",
		"usr/share/doc/*", "usr/share/info/*", "usr/share/locale/*", "usr/share/man/*",
		"var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*",
	} {
		args = append(args, "--exclude=./"+path)
	}
	return args
}
