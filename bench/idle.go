//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"k8s.io/client-go/rest"

	"github.com/sublet-dev/sublet/bench/crds"
	"github.com/sublet-dev/sublet/bench/proc"
	"github.com/sublet-dev/sublet/bench/report"
	"github.com/sublet-dev/sublet/bench/separate"
)

const mib = 1 << 20

// idlers are processes that are left alone, of a tenant or separate ones.
type idlers interface {
	// cpu is in seconds.
	cpu() (float64, error)
	// memory is in MiB; what is not known is missing.
	memory() (memory, error)
	disk() (float64, error)
}

type memory struct{ anon, pss, workingSet float64 }

// measureIdle leaves tenants alone, some of them with CRDs, and beside them separate
// processes, and looks at what they use.
func measureIdle(ctx context.Context, b *bench) ([]result, error) {
	manager, err := b.managerProcess(ctx)
	if err != nil {
		return nil, err
	}
	created, err := proc.CPUSeconds(manager)
	if err != nil {
		return nil, err
	}
	var empty, full []idlers
	for i := range b.runs {
		t, err := b.make(ctx, fmt.Sprintf("bench-idle-%d", i+1))
		if err != nil {
			return nil, err
		}
		empty = append(empty, t)
	}
	var configs []*rest.Config
	for i := range b.runs {
		t, err := b.make(ctx, fmt.Sprintf("bench-crds-%d", i+1))
		if err != nil {
			return nil, err
		}
		full = append(full, t)
		configs = append(configs, t.config)
	}
	managed, err := proc.CPUSeconds(manager)
	if err != nil {
		return nil, err
	}
	made := float64(len(empty) + len(full))
	managerCreate := (managed - created) / made * 1000
	separateEmpty, err := b.idleSeparate(ctx, "idle")
	if err != nil {
		return nil, err
	}
	separateFull, err := b.idleSeparate(ctx, "crds")
	if err != nil {
		return nil, err
	}
	for _, config := range append(configs, separateFull.plane.Config()) {
		if err := crds.Create(ctx, config, b.crds); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(os.Stderr, "  leaving %d tenants, %d with %d CRDs and the separate processes alone for %v\n", len(empty), len(full), b.crds, b.settle+b.idle)
	sleep(ctx, b.settle)

	cpu := cpuOver(ctx, b.idle, slices.Concat(empty, []idlers{separateEmpty, process(manager)}))
	if cpu.err != nil {
		return nil, cpu.err
	}
	// Memory last: reading it costs the kernel more than the processes use.
	e, err := footprintsOf(empty)
	if err != nil {
		return nil, err
	}
	f, err := footprintsOf(full)
	if err != nil {
		return nil, err
	}
	se, err := footprintsOf([]idlers{separateEmpty})
	if err != nil {
		return nil, err
	}
	sf, err := footprintsOf([]idlers{separateFull})
	if err != nil {
		return nil, err
	}
	parts, err := separateEmpty.plane.RssAnon()
	if err != nil {
		return nil, err
	}
	for name := range parts {
		parts[name] /= mib
	}
	managerMemory, err := process(manager).memory()
	if err != nil {
		return nil, err
	}
	of := func(name string, tenants, separate []float64, details any) result {
		r := newResult(name, tenants, details)
		r.Separate = report.Baseline(separate)
		return r
	}
	n := len(empty)
	return []result{
		of("idle_rss_anon_mib", e.anon, se.anon, map[string]any{"separate_mib": parts}),
		of("idle_pss_mib", e.pss, se.pss, nil),
		of("idle_working_set_mib", e.workingSet, nil, nil),
		of("idle_cpu_m", cpu.millicores[:n], cpu.millicores[n:n+1], map[string]any{"seconds": b.idle.Seconds()}),
		of("disk_empty_mib", e.disk, se.disk, nil),
		of("crds_rss_anon_mib", f.anon, sf.anon, map[string]any{"crds": b.crds}),
		of("crds_pss_mib", f.pss, sf.pss, map[string]any{"crds": b.crds}),
		of("crds_working_set_mib", f.workingSet, nil, map[string]any{"crds": b.crds}),
		of("manager_create_cpu_ms", []float64{managerCreate}, nil, map[string]any{"tenants": made}),
		of("manager_idle_cpu_m", []float64{cpu.millicores[n+1] / made}, nil, map[string]any{"tenants": made}),
		of("manager_rss_anon_mib", []float64{managerMemory.anon}, nil, map[string]any{"tenants": made}),
	}, ctx.Err()
}

func (t *tenant) cpu() (float64, error) { return proc.CPUSeconds(t.pid) }

func (t *tenant) memory() (memory, error) {
	m, err := process(t.pid).memory()
	if err != nil {
		return m, err
	}
	set, err := proc.WorkingSet(t.pid)
	m.workingSet = set / mib
	return m, err
}

// disk is the whole data directory, in MiB.
func (t *tenant) disk() (float64, error) {
	used, err := proc.DiskUsage(fmt.Sprintf("/proc/%d/root/var/lib/sublet", t.pid))
	return used / mib, err
}

// process is one by its number.
type process int

func (p process) cpu() (float64, error) { return proc.CPUSeconds(int(p)) }

func (p process) memory() (memory, error) {
	anon, err := proc.RssAnon(int(p))
	if err != nil {
		return memory{}, err
	}
	pss, err := proc.Pss(int(p))
	return memory{anon: anon / mib, pss: pss / mib}, err
}

func (p process) disk() (float64, error) { return 0, errors.New("a process alone has no disk") }

// separatePlane is a control plane of separate processes.
type separatePlane struct{ plane *separate.ControlPlane }

func (b *bench) idleSeparate(ctx context.Context, name string) (separatePlane, error) {
	plane, err := b.separate(name)
	if err != nil {
		return separatePlane{}, err
	}
	return separatePlane{plane}, plane.Start(ctx)
}

func (s separatePlane) cpu() (float64, error) { return s.plane.Sum(proc.CPUSeconds) }

func (s separatePlane) memory() (memory, error) {
	anon, err := s.plane.Sum(proc.RssAnon)
	if err != nil {
		return memory{}, err
	}
	pss, err := s.plane.Sum(proc.Pss)
	return memory{anon: anon / mib, pss: pss / mib}, err
}

func (s separatePlane) disk() (float64, error) {
	used, err := proc.DiskUsage(s.plane.DataDir())
	return used / mib, err
}

// busy is what each of some idlers has used.
type busy struct {
	millicores []float64
	err        error
}

// cpuOver counts CPU time while nobody does anything.
func cpuOver(ctx context.Context, d time.Duration, all []idlers) busy {
	before := make([]float64, len(all))
	for i, one := range all {
		var err error
		if before[i], err = one.cpu(); err != nil {
			return busy{err: err}
		}
	}
	start := time.Now()
	sleep(ctx, d)
	var used busy
	for i, one := range all {
		after, err := one.cpu()
		if err != nil {
			return busy{err: err}
		}
		used.millicores = append(used.millicores, (after-before[i])/time.Since(start).Seconds()*1000)
	}
	used.err = ctx.Err()
	return used
}

// footprints are memory and disk of several, in MiB.
type footprints struct{ anon, pss, workingSet, disk []float64 }

func footprintsOf(all []idlers) (footprints, error) {
	var f footprints
	for _, one := range all {
		m, err := one.memory()
		if err != nil {
			return f, err
		}
		f.anon, f.pss, f.workingSet = append(f.anon, m.anon), append(f.pss, m.pss), append(f.workingSet, m.workingSet)
		used, err := one.disk()
		if err != nil {
			return f, err
		}
		f.disk = append(f.disk, used)
	}
	return f, nil
}
