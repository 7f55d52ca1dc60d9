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

// rootfs is a root file system, or a part of one, of Debian's packages.
type rootfs struct {
	// name is that of its file.
	name  string
	suite string
	// whole means a small but complete Debian; otherwise it is the files of the
	// packages and of those that they depend on, and nothing is configured.
	whole    bool
	packages []string
	// compiled, if it is one, is laid over the packages.
	compiled compiled
	// complete are shell commands. $1 is the directory.
	complete []string
}

// debian is what upstream's agnhost has beside its own binary, as far as tests
// use it, and upstream's image for tests of DNS with glibc.
func debian() rootfs {
	return rootfs{
		name:  "debian",
		suite: "bookworm",
		whole: true,
		// Without usr-is-merged all of perl comes, to do what is done already.
		packages: []string{"usr-is-merged", "curl", "dnsutils", "iproute2", "netcat-openbsd", "wget"},
		complete: []string{
			// Upstream's sh knows [[, which tests use; Debian's dash does not.
			`ln -sf bash "$1/bin/sh"`,
			// Tests of supplementary groups look for these.
			`chroot "$1" useradd --uid 1000 --no-create-home user-defined-in-image`,
			`chroot "$1" groupadd --gid 50000 group-defined-in-image`,
			`chroot "$1" usermod --append --groups group-defined-in-image user-defined-in-image`,
		},
	}
}

// busybox is a system of busybox alone, of the first suite in which it is as new
// as tests expect. It is linked dynamically, as a static one crashes when it looks
// up names.
func busybox() rootfs {
	return rootfs{
		name:     "busybox",
		suite:    "trixie",
		packages: []string{"base-files", "libc6"},
		compiled: upstreamBusybox(),
		complete: []string{
			// Upstream's image has all of its commands in /bin, and tests call
			// /bin/sysctl; who looks for them in the usual places finds them there too.
			`chroot "$1" /usr/bin/busybox --install -s`,
			`chroot "$1" /usr/bin/busybox --install -s /bin`,
			`printf 'root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\nnobody:x:65534:65534::/nonexistent:/bin/false\n' >"$1/etc/passwd"`,
			`printf 'root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n' >"$1/etc/group"`,
			// The kubelet's /etc/hosts comes first.
			`printf 'hosts: files dns\n' >"$1/etc/nsswitch.conf"`,
		},
	}
}

func (r rootfs) key() string { return fmt.Sprintf("%+v %s", r, leftOut()) }

// layer returns the layer of a root file system, which it makes first unless it
// is there and fresh.
func (b Builder) layer(ctx context.Context, r rootfs) (string, error) {
	layer := Archive{Path: filepath.Join(b.dir(), r.name+".layer.tar"), Key: r.key()}
	if fresh(layer) {
		return layer.Path, nil
	}
	b.say("making a root file system of Debian's packages: %s", strings.Join(r.packages, ", "))
	if err := os.RemoveAll(layer.keyPath()); err != nil {
		return "", fmt.Errorf("root file system %s: %w", r.name, err)
	}
	err := b.inScratch(func(dir string) error {
		root := filepath.Join(dir, "root")
		args := []string{"--mode=root", "--variant=extract", "--include=" + strings.Join(r.packages, ",")}
		if r.whole {
			args[1] = "--variant=minbase"
			args = append(args, "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr")
		}
		bootstrap := exec.CommandContext(ctx, "mmdebstrap", append(args, r.suite, root)...)
		bootstrap.Env = append(os.Environ(), "TMPDIR="+dir)
		// It mounts /proc for the packages' scripts. Nobody else needs to see that.
		apart(bootstrap, false)
		if err := b.quietly(bootstrap); err != nil {
			return err
		}
		if r.compiled.source != "" {
			if err := b.compile(ctx, r.compiled, r.suite, dir, root); err != nil {
				return err
			}
		}
		for _, script := range r.complete {
			shell := exec.CommandContext(ctx, "sh", "-euc", script, "sh", root)
			apart(shell, true)
			if err := b.quietly(shell); err != nil {
				return err
			}
		}
		return b.quietly(exec.CommandContext(ctx, "tar", append([]string{
			"--create", "--file", layer.Path, "--directory", root, "--numeric-owner", "--sort=name", "--mtime=@0",
		}, append(leftOut(), ".")...)...))
	})
	if err != nil {
		return "", errors.Join(fmt.Errorf("root file system %s: %w", r.name, err), os.RemoveAll(layer.Path))
	}
	if err := os.WriteFile(layer.keyPath(), []byte(layer.Key), 0o644); err != nil {
		return "", fmt.Errorf("keep the root file system %s: %w", r.name, err)
	}
	return layer.Path, nil
}

// leftOut are arguments of tar: what no container needs, and what the runtime or
// the kubelet provides.
func leftOut() []string {
	var args []string
	for _, path := range []string{
		"dev/*", "proc/*", "sys/*", "run/*", "tmp/*",
		"etc/apt", "etc/hostname", "etc/resolv.conf",
		"usr/lib/*/gconv/*",
		"usr/share/doc/*", "usr/share/info/*", "usr/share/locale/*", "usr/share/man/*",
		"var/cache/*", "var/lib/apt/*", "var/lib/dpkg/*", "var/log/*",
	} {
		args = append(args, "--exclude=./"+path)
	}
	return args
}
