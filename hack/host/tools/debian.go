package tools

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// need is a program and the Debian package that has it.
type need struct{ program, pack string }

// needs are all of them. Programs are looked for, not packages, so that a
// machine that has them from elsewhere does as well.
func needs() []need {
	return []need{
		{"runc", "runc"},
		{"/usr/lib/cni/ptp", "containernetworking-plugins"},
		{"iptables", "iptables"},
		{"nft", "nftables"},
		{"conntrack", "conntrack"},
		{"socat", "socat"},
		{"ethtool", "ethtool"},
		{"ip", "iproute2"},
		{"nsenter", "util-linux"},
		{"mount", "mount"},
		{"mmdebstrap", "mmdebstrap"},
		{"buildah", "buildah"},
	}
}

// Debian installs the packages whose programs are missing, and returns which.
func Debian(ctx context.Context, say func(format string, args ...any)) ([]string, error) {
	var missing []string
	for _, n := range needs() {
		if _, err := exec.LookPath(n.program); err != nil {
			missing = append(missing, n.pack)
		}
	}
	if len(missing) == 0 {
		return nil, nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, fmt.Errorf("these Debian packages or their like are missing, and there is no apt-get to install them: %s", strings.Join(missing, " "))
	}
	say("installing Debian packages: %s", strings.Join(missing, " "))
	// A fresh machine has no lists, an old one stale ones.
	for _, args := range [][]string{
		{"update"},
		append([]string{"install", "--yes", "--no-install-recommends"}, missing...),
	} {
		command := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "DPkg::Lock::Timeout=120"}, args...)...)
		command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := command.CombinedOutput(); err != nil {
			err = fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
			// Lists of one broken source do not matter if the packages come.
			if args[0] != "update" {
				return nil, err
			}
			say("%v", err)
		}
	}
	for _, n := range needs() {
		if _, err := exec.LookPath(n.program); err != nil {
			return nil, errors.Join(fmt.Errorf("package %s is installed and %s still not there", n.pack, n.program), err)
		}
	}
	return missing, nil
}
