//go:build linux

package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	// system is the child of a sandbox's cgroup in which its own processes live:
	// version 2 allows none in a cgroup that has children with controllers.
	system = "system"
)

// hierarchy is one mounted tree of cgroups.
type hierarchy struct {
	path    string
	unified bool // version 2
}

// hierarchies lists the trees below /sys/fs/cgroup: one on a machine with version
// 2, one for each controller with version 1, and both on a mixed one.
func hierarchies(mountinfo io.Reader) ([]hierarchy, error) {
	var all []hierarchy
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		// 36 35 98:0 /root /mount/point options optional… - type source options
		before, after, found := strings.Cut(lines.Text(), " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !found || len(fields) < 5 || len(rest) < 1 {
			continue
		}
		point, kind := fields[4], rest[0]
		if (kind != "cgroup" && kind != "cgroup2") || (point != cgroupRoot && !strings.HasPrefix(point, cgroupRoot+"/")) {
			continue
		}
		h := hierarchy{path: point, unified: kind == "cgroup2"}
		if !slices.Contains(all, h) {
			all = append(all, h)
		}
	}
	return all, lines.Err()
}

func mountedHierarchies() ([]hierarchy, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list the machine's cgroups: %w", err)
	}
	defer file.Close()
	all, err := hierarchies(file)
	if err != nil {
		return nil, fmt.Errorf("list the machine's cgroups: %w", err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no cgroups are mounted below %s; a node cannot run containers without them", cgroupRoot)
	}
	return all, nil
}

// enterCgroup makes a node's cgroup in each hierarchy and moves the calling
// process, and so all that it starts, into its child "system".
func enterCgroup(name string) error {
	all, err := mountedHierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		own := filepath.Join(h.path, name, system)
		if err := os.MkdirAll(own, 0o755); err != nil {
			return fmt.Errorf("make the cgroup %s: %w", own, err)
		}
		if err := h.prepare(lineage(h.path, own)); err != nil {
			return err
		}
		// 0 is the writer itself, whatever its number outside is.
		if err := os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("enter the cgroup %s: %w", own, err)
		}
	}
	return nil
}

// lineage lists the directories from root to own, both included.
func lineage(root, own string) []string {
	all := []string{own}
	for dir := own; dir != root; {
		dir = filepath.Dir(dir)
		all = append(all, dir)
	}
	slices.Reverse(all)
	return all
}

// prepare passes on what a new cgroup does not have by itself, from the root down.
func (h hierarchy) prepare(cgroups []string) error {
	if h.unified {
		return delegate(cgroups[:len(cgroups)-1])
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(h.path, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the machine's %s: %w", file, err)
		}
		for _, dir := range cgroups[1:] {
			if err := os.WriteFile(filepath.Join(dir, file), value, 0); err != nil {
				return fmt.Errorf("set %s of the cgroup %s: %w", file, dir, err)
			}
		}
	}
	return nil
}

// delegate switches on all controllers for what is below each of the cgroups.
func delegate(cgroups []string) error {
	for _, dir := range cgroups {
		controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("read the controllers of the cgroup %s: %w", dir, err)
		}
		for _, controller := range strings.Fields(string(controllers)) {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
				return fmt.Errorf("switch on the controller %s below the cgroup %s: %w", controller, dir, err)
			}
		}
	}
	return nil
}

// removeCgroup removes the sandbox's cgroup with all below it, and waits until
// the last processes in it are gone.
func removeCgroup(name string, timeout time.Duration) error {
	all, err := mountedHierarchies()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(timeout)
	for {
		var left error
		for _, h := range all {
			left = errors.Join(left, removeTree(filepath.Join(h.path, name)))
		}
		if left == nil || time.Now().After(deadline) {
			return left
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// removeTree removes a cgroup, children first. The files in it go with it.
func removeTree(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list the cgroups below %s: %w", root, err)
	}
	slices.Reverse(dirs)
	for _, dir := range dirs {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the cgroup %s: %w", dir, err)
		}
	}
	return nil
}
