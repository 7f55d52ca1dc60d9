//go:build linux

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// temporary is where components put temporary files: in the sandbox's own memory.
const temporary = "/run/tmp"

// enterMounts gives a node its own view of the machine's files. Nothing it mounts
// is seen outside.
func enterMounts(s Spec, node int) error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC); err != nil {
		return err
	}
	if err := enterSys(); err != nil {
		return err
	}
	keep, err := openAll(s.Dir, s.Checkout)
	if err != nil {
		return err
	}
	defer closeAll(keep)
	if node > 0 {
		if err := leaveDirectories(); err != nil {
			return err
		}
	}
	if err := enterDirectories(s.NodeDir(node)); err != nil {
		return err
	}
	// The checkout may stand below what is covered now.
	for _, kept := range keep {
		if err := kept.restore(); err != nil {
			return err
		}
	}
	if err := enterNames(s, node); err != nil {
		return err
	}
	if err := pretendTunables(s.NodeDir(node)); err != nil {
		return err
	}
	// Volumes that one container mounts must be seen by others that ask for it.
	return mount("", "/", "", unix.MS_REC|unix.MS_SHARED)
}

// enterSys shows the interfaces of the sandbox's network in /sys, and keeps the
// cgroups, which a fresh sysfs does not have.
func enterSys() error {
	cgroups, err := open(cgroupRoot)
	if err != nil {
		return err
	}
	defer cgroups.file.Close()
	if err := mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC); err != nil {
		return err
	}
	return mount(cgroups.source(), cgroupRoot, "", unix.MS_BIND|unix.MS_REC)
}

// ownDirectories are those in which node components keep their state.
func ownDirectories() []string { return []string{"/var/lib", "/var/log"} }

// leaveDirectories lets go of what the first node has mounted for itself, its
// pods' volumes above all: what a further node sees of it is a copy that would keep
// it from being unmounted.
func leaveDirectories() error {
	for _, dir := range append([]string{"/run"}, ownDirectories()...) {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("leave the first node's %s: %w", dir, err)
		}
	}
	return nil
}

// enterDirectories covers the directories in which node components keep their
// state, so that they need no unusual settings and leave nothing on the machine.
func enterDirectories(state string) error {
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV); err != nil {
		return err
	}
	if err := os.Chmod("/run", 0o755); err != nil {
		return fmt.Errorf("make the sandbox's /run: %w", err)
	}
	for _, dir := range ownDirectories() {
		own := filepath.Join(state, dir)
		if err := os.MkdirAll(own, 0o755); err != nil {
			return fmt.Errorf("make the sandbox's %s: %w", dir, err)
		}
		if err := mount(own, dir, "", unix.MS_BIND); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/run/lock", temporary} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the sandbox's %s: %w", dir, err)
		}
	}
	return nil
}

// enterNames makes the nodes' names resolve, and nothing else.
func enterNames(s Spec, node int) error {
	own := s.Nodes[node].Name
	if err := unix.Sethostname([]byte(own)); err != nil {
		return fmt.Errorf("set the sandbox's host name: %w", err)
	}
	files := map[string]string{
		"/etc/hosts":       s.hosts(),
		"/etc/hostname":    own + "\n",
		"/etc/resolv.conf": "# Nothing leaves the local host, so there is no server to ask.\n",
	}
	for path, content := range files {
		if err := cover(path, content, s.NodeDir(node)); err != nil {
			return err
		}
	}
	return nil
}

// hosts is the content of /etc/hosts.
func (s Spec) hosts() string {
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	for i, n := range s.Nodes {
		fmt.Fprintf(&hosts, "%s %s\n", s.Link.Address(i), n.Name)
	}
	return hosts.String()
}

// pretendTunables shows the kubelet the kernel settings that it wants. It would
// otherwise write them, and change the machine for good.
func pretendTunables(dir string) error {
	for path, value := range map[string]string{
		"/proc/sys/vm/overcommit_memory":      "1",
		"/proc/sys/vm/panic_on_oom":           "0",
		"/proc/sys/kernel/panic":              "10",
		"/proc/sys/kernel/panic_on_oops":      "1",
		"/proc/sys/kernel/keys/root_maxkeys":  "1000000",
		"/proc/sys/kernel/keys/root_maxbytes": "25000000",
	} {
		if err := cover(path, value+"\n", dir); err != nil {
			return err
		}
	}
	return nil
}

// cover shows content in place of a file of the machine. A file that the machine
// does not have stays missing.
func cover(path, content, dir string) error {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for %s: %w", path, err)
	}
	own := filepath.Join(dir, path)
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		return fmt.Errorf("make the sandbox's %s: %w", path, err)
	}
	if err := os.WriteFile(own, []byte(content), 0o644); err != nil {
		return fmt.Errorf("write the sandbox's %s: %w", path, err)
	}
	return mount(own, target, "", unix.MS_BIND)
}

// kept is a directory that stays reachable while others are mounted over it.
type kept struct {
	path string
	file *os.File
}

func open(path string) (kept, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return kept{}, fmt.Errorf("open %s: %w", path, err)
	}
	return kept{path: path, file: os.NewFile(uintptr(fd), path)}, nil
}

func openAll(paths ...string) ([]kept, error) {
	var all []kept
	for _, path := range paths {
		k, err := open(path)
		if err != nil {
			closeAll(all)
			return nil, err
		}
		all = append(all, k)
	}
	return all, nil
}

func closeAll(all []kept) {
	for _, k := range all {
		k.file.Close()
	}
}

func (k kept) source() string { return fmt.Sprintf("/proc/self/fd/%d", k.file.Fd()) }

// restore mounts the directory at its path again, unless it can still be seen.
func (k kept) restore() error {
	before, err := k.file.Stat()
	if err != nil {
		return fmt.Errorf("look at %s: %w", k.path, err)
	}
	if now, err := os.Stat(k.path); err == nil && os.SameFile(before, now) {
		return nil
	}
	if err := os.MkdirAll(k.path, 0o755); err != nil {
		return fmt.Errorf("make %s in the sandbox: %w", k.path, err)
	}
	return mount(k.source(), k.path, "", unix.MS_BIND|unix.MS_REC)
}

func mount(source, target, kind string, flags uintptr) error {
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		return fmt.Errorf("mount %s %s on %s: %w", kind, source, target, err)
	}
	return nil
}
