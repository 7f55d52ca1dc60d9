//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	mib = 1 << 20
	// ticks a second in which the kernel counts the CPU time of processes; the
	// same on every architecture that Go runs on.
	ticks = 100
	// idleTenants are measured at once, for the spread.
	idleTenants = 3
)

// measureIdle leaves tenants alone and looks at what they use.
func measureIdle(ctx context.Context, b *bench) ([]result, error) {
	var tenants []*tenant
	for i := range idleTenants {
		name := fmt.Sprintf("bench-idle-%d", i+1)
		if err := b.create(ctx, name); err != nil {
			return nil, err
		}
		t, err := b.open(ctx, name)
		if err != nil {
			return nil, err
		}
		tenants = append(tenants, t)
	}
	fmt.Fprintf(os.Stderr, "  leaving %d tenants alone for %v\n", idleTenants, b.settle)
	sleep(ctx, b.settle)
	var anon, pss, workingSet, cpu, disk []float64
	before := make([]float64, len(tenants))
	for i, t := range tenants {
		var err error
		if before[i], err = cpuSeconds(t.pid); err != nil {
			return nil, err
		}
	}
	start := time.Now()
	sleep(ctx, b.idle)
	for i, t := range tenants {
		after, err := cpuSeconds(t.pid)
		if err != nil {
			return nil, err
		}
		cpu = append(cpu, (after-before[i])/time.Since(start).Seconds()*1000)
	}
	// Memory last: reading it costs the kernel more than the process uses.
	for _, t := range tenants {
		status, err := kibs(fmt.Sprintf("/proc/%d/status", t.pid), "RssAnon")
		if err != nil {
			return nil, err
		}
		anon = append(anon, status/1024)
		rollup, err := kibs(fmt.Sprintf("/proc/%d/smaps_rollup", t.pid), "Pss")
		if err != nil {
			return nil, err
		}
		pss = append(pss, rollup/1024)
		set, err := workingSetOf(t.pid)
		if err != nil {
			return nil, err
		}
		workingSet = append(workingSet, set/mib)
		used, err := diskUsage(fmt.Sprintf("/proc/%d/root/var/lib/sublet", t.pid))
		if err != nil {
			return nil, err
		}
		disk = append(disk, used/mib)
	}
	return []result{
		newResult("idle_rss_anon_mib", anon, nil),
		newResult("idle_pss_mib", pss, nil),
		newResult("idle_working_set_mib", workingSet, nil),
		newResult("idle_cpu_m", cpu, nil),
		newResult("disk_empty_mib", disk, nil),
	}, ctx.Err()
}

// startOf is when a process started, to a hundredth of a second.
func startOf(pid int) time.Time {
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

// cpuSeconds is the CPU time that a process has used, in user and kernel.
func cpuSeconds(pid int) (float64, error) {
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

// kibs reads a line "Key:  123 kB".
func kibs(path, key string) (float64, error) {
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

// workingSetOf is what the kubelet calls the working set of the process's pod:
// the cgroup's memory without inactive files.
func workingSetOf(pid int) (float64, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[1] == "memory":
			pod := filepath.Join("/sys/fs/cgroup/memory", filepath.Dir(parts[2]))
			return workingSetIn(pod, "memory.usage_in_bytes", "total_inactive_file")
		case parts[1] == "":
			pod := filepath.Join("/sys/fs/cgroup", filepath.Dir(parts[2]))
			if _, err := os.Stat(filepath.Join(pod, "memory.current")); err == nil {
				return workingSetIn(pod, "memory.current", "inactive_file")
			}
		}
	}
	return 0, fmt.Errorf("process %d is in no cgroup that counts memory", pid)
}

func workingSetIn(dir, usageFile, inactiveKey string) (float64, error) {
	content, err := os.ReadFile(filepath.Join(dir, usageFile))
	if err != nil {
		return 0, err
	}
	usage, err := strconv.ParseFloat(strings.TrimSpace(string(content)), 64)
	if err != nil {
		return 0, err
	}
	stat, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(stat)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), inactiveKey+" "); ok {
			inactive, err := strconv.ParseFloat(rest, 64)
			return max(0, usage-inactive), err
		}
	}
	return 0, fmt.Errorf("%s has no %s", dir, inactiveKey)
}

// diskUsage is what the files below a directory occupy, as du counts.
func diskUsage(root string) (float64, error) {
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
