//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sublet-dev/sublet/bench/proc"
)

const (
	mib = 1 << 20
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
		if before[i], err = proc.CPUSeconds(t.pid); err != nil {
			return nil, err
		}
	}
	start := time.Now()
	sleep(ctx, b.idle)
	for i, t := range tenants {
		after, err := proc.CPUSeconds(t.pid)
		if err != nil {
			return nil, err
		}
		cpu = append(cpu, (after-before[i])/time.Since(start).Seconds()*1000)
	}
	// Memory last: reading it costs the kernel more than the process uses.
	for _, t := range tenants {
		private, err := proc.RssAnon(t.pid)
		if err != nil {
			return nil, err
		}
		anon = append(anon, private/mib)
		share, err := proc.Pss(t.pid)
		if err != nil {
			return nil, err
		}
		pss = append(pss, share/mib)
		set, err := workingSetOf(t.pid)
		if err != nil {
			return nil, err
		}
		workingSet = append(workingSet, set/mib)
		used, err := proc.DiskUsage(fmt.Sprintf("/proc/%d/root/var/lib/sublet", t.pid))
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
