//go:build linux

// Package proc reads what a process uses from Linux' /proc.
package proc

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ticks a second in which the kernel counts the CPU time of processes; the
// same on every architecture that Go runs on.
const ticks = 100

// Start is when a process started, to a hundredth of a second.
func Start(pid int) time.Time {
	fields, err := statFields(pid)
	if err != nil {
		return time.Time{}
	}
	sinceBoot, err := strconv.ParseFloat(fields[19], 64)
	if err != nil {
		return time.Time{}
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Time{}
	}
	age := float64(now.Nano())/1e9 - sinceBoot/ticks
	return time.Now().Add(-time.Duration(age * float64(time.Second)))
}

// CPUSeconds is the CPU time that a process has used, in user and kernel.
func CPUSeconds(pid int) (float64, error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, field := range fields[11:13] {
		value, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return 0, err
		}
		sum += value / ticks
	}
	return sum, nil
}

// statFields are those of /proc/PID/stat that come after the name, with the
// state as number 0.
func statFields(pid int) ([]string, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	_, after, found := strings.Cut(string(content), ") ")
	fields := strings.Fields(after)
	if !found || len(fields) < 20 {
		return nil, fmt.Errorf("/proc/%d/stat is not as expected", pid)
	}
	return fields, nil
}

// RssAnon is the anonymous memory of a process, in bytes.
func RssAnon(pid int) (float64, error) {
	return kibs(fmt.Sprintf("/proc/%d/status", pid), "RssAnon")
}

// Pss is the memory of a process, in bytes, with its part of what it shares.
func Pss(pid int) (float64, error) {
	return kibs(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss")
}

// ContextSwitches is how often the threads of a process have left the processor.
func ContextSwitches(pid int) (float64, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("process %d has no threads", pid)
	}
	var sum float64
	for _, thread := range threads {
		for _, key := range []string{"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"} {
			count, err := number(thread, key)
			if errors.Is(err, fs.ErrNotExist) {
				continue // the thread has ended
			}
			if err != nil {
				return 0, err
			}
			sum += count
		}
	}
	return sum, nil
}

// kibs reads a line "Key:  123 kB", in bytes.
func kibs(path, key string) (float64, error) {
	value, err := number(path, key)
	return value * 1024, err
}

// number reads a line "Key:  123", with a unit or without.
func number(path, key string) (float64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), key+":"); ok {
			return strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, key)
}

// DiskUsage is what the files below a directory occupy, as du counts.
func DiskUsage(root string) (float64, error) {
	var sum float64
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // gone since the directory was read
			}
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return nil
		}
		sum += float64(stat.Blocks) * 512
		return nil
	})
	return sum, err
}

// MemAvailable is how much memory the machine could give to somebody, in bytes.
func MemAvailable() (float64, error) { return kibs("/proc/meminfo", "MemAvailable") }

// CgroupCPUSeconds is the CPU time that was used in the parent of a process's
// control group, and in all that are below.
func CgroupCPUSeconds(pid int) (float64, error) {
	dir, second, err := parentCgroup(pid, "cpuacct", "cpu.stat")
	if err != nil {
		return 0, err
	}
	if second {
		microseconds, err := field(filepath.Join(dir, "cpu.stat"), "usage_usec")
		return microseconds / 1e6, err
	}
	nanoseconds, err := soleNumber(filepath.Join(dir, "cpuacct.usage"))
	return nanoseconds / 1e9, err
}

// WorkingSet is what the kubelet calls the working set of a process's pod, in
// bytes: the memory of the parent of its control group without inactive files.
func WorkingSet(pid int) (float64, error) {
	dir, second, err := parentCgroup(pid, "memory", "memory.current")
	if err != nil {
		return 0, err
	}
	usageFile, inactiveKey := "memory.usage_in_bytes", "total_inactive_file"
	if second {
		usageFile, inactiveKey = "memory.current", "inactive_file"
	}
	usage, err := soleNumber(filepath.Join(dir, usageFile))
	if err != nil {
		return 0, err
	}
	inactive, err := field(filepath.Join(dir, "memory.stat"), inactiveKey)
	return max(0, usage-inactive), err
}

// parentCgroup is the directory of the parent of a process's control group, by the
// name of a controller of version 1, or a file that version 2 has where it counts
// the same; and whether it is of version 2.
func parentCgroup(pid int, controller, file string) (dir string, second bool, err error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", false, err
	}
	for line := range strings.Lines(string(content)) {
		// 4:cpuacct:/parent/child, or 0::/parent/child with version 2.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		parent := filepath.Dir(parts[2])
		if slices.Contains(strings.Split(parts[1], ","), controller) {
			return filepath.Join("/sys/fs/cgroup", controller, parent), false, nil
		}
		if dir := filepath.Join("/sys/fs/cgroup", parent); parts[1] == "" {
			if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
				return dir, true, nil
			}
		}
	}
	return "", false, fmt.Errorf("process %d is in no control group that counts %s", pid, controller)
}

// soleNumber reads a file that is one number.
func soleNumber(path string) (float64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
}

// field reads a line "key 123".
func field(path, key string) (float64, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		if rest, ok := strings.CutPrefix(line, key+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, key)
}
