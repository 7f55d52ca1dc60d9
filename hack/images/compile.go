package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// compiled is a program made of the upstream sources that Debian's archive keeps,
// without Debian's changes to them.
type compiled struct {
	// source is the name of Debian's source package.
	source string
	// tools are the packages that it is made with.
	tools []string
	// script are shell commands, run among the sources.
	script string
	// program is where they leave it, path where it belongs.
	program, path string
}

// upstreamBusybox has what Debian takes back: its shell keeps environment
// variables whose names a shell cannot have, such as data-1, which tests give to
// containers.
func upstreamBusybox() compiled {
	return compiled{
		source: "busybox",
		tools:  []string{"gcc", "make", "libc6-dev", "linux-libc-dev", "bzip2"},
		// tc does not compile with headers of newer kernels.
		script: `make defconfig
			sed -i 's/^CONFIG_TC=y$/# CONFIG_TC is not set/' .config
			make oldconfig </dev/null
			make --jobs="$(nproc)" busybox`,
		program: "busybox",
		path:    "usr/bin/busybox",
	}
}

// compile makes the program in a Debian of its own, so that it fits the C library
// of the suite and the machine needs no compiler, and lays it into root.
func (b Builder) compile(ctx context.Context, c compiled, suite, dir, root string) error {
	b.say("building %s of its sources in Debian's archive (two to four minutes)", c.source)
	workshop := filepath.Join(dir, "workshop")
	bootstrap := exec.CommandContext(ctx, "mmdebstrap", "--mode=root", "--variant=minbase",
		"--include="+strings.Join(c.tools, ","),
		// Its lists come with the packages', and are as well signed.
		`--customize-hook=mkdir "$1/sources" && cd "$1/sources" && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get source --download-only -o APT::Sandbox::User=root `+c.source,
		suite, workshop,
		"deb http://deb.debian.org/debian "+suite+" main", "deb-src http://deb.debian.org/debian "+suite+" main")
	bootstrap.Env = append(os.Environ(), "TMPDIR="+dir)
	apart(bootstrap, false)
	if err := b.quietly(bootstrap); err != nil {
		return fmt.Errorf("get the sources of %s: %w", c.source, err)
	}
	build := exec.CommandContext(ctx, "sh", "-euc", `
		mount --rbind /dev "$1/dev"
		mount -t proc proc "$1/proc"
		chroot "$1" sh -euc "$2"
		cp "$1/sources/$3" "$4"`,
		"sh", workshop, "cd /sources; tar --extract --file *.orig.tar.* --strip-components 1; "+c.script,
		c.program, filepath.Join(root, c.path))
	apart(build, true)
	if err := b.quietly(build); err != nil {
		return fmt.Errorf("build %s: %w", c.source, err)
	}
	return nil
}
