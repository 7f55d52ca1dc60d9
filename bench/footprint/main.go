//go:build linux

// Command footprint measures what one tenant's process costs by itself: how it
// starts, and what it uses while nobody uses it. It needs no node: the host is a
// control plane in the process that measures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"github.com/sublet-dev/sublet/bench/crds"
	"github.com/sublet-dev/sublet/bench/proc"
	"github.com/sublet-dev/sublet/bench/report"
)

const mib = 1 << 20

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

type options struct {
	subletd  string
	args     string
	out      string
	runs     int
	tenants  int
	settle   time.Duration
	idle     time.Duration
	crds     int
	profiles string
	baseline string
	update   bool
}

func run(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("footprint", flag.ContinueOnError)
	flags.StringVar(&o.subletd, "subletd", "bin/subletd", "the binary to measure")
	flags.StringVar(&o.args, "args", "", "more arguments for subletd tenant, separated by spaces")
	flags.StringVar(&o.out, "out", "bench/out", "directory for the results")
	flags.IntVar(&o.runs, "runs", 5, "how often to boot")
	flags.IntVar(&o.tenants, "tenants", 3, "how many tenants to leave idle, for the spread; 0 leaves that out")
	flags.DurationVar(&o.settle, "settle", time.Minute, "how long a tenant is left alone before its idle state is measured")
	flags.DurationVar(&o.idle, "idle", time.Minute, "over how long what happens at idle is counted")
	flags.IntVar(&o.crds, "crds", 50, "how many CRDs to install at the end; 0 leaves that out")
	flags.StringVar(&o.profiles, "profiles", "", "save profiles of the Go runtime in this directory")
	flags.StringVar(&o.baseline, "baseline", "", "fail when a figure that does not depend on the machine is worse than in this file")
	flags.BoolVar(&o.update, "update", false, "write the baseline anew instead")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.runs < 1 || o.tenants < 0 {
		return errors.New("-runs must be 1 at least, and -tenants not negative")
	}
	// The host's log would hide what the measuring says.
	klog.SetLogger(logr.Discard())
	dir, err := os.MkdirTemp("", "footprint")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	results, err := measure(ctx, o, dir)
	if err != nil {
		return err
	}
	for _, r := range results {
		if err := r.Write(o.out); err != nil {
			return err
		}
	}
	if err := report.Table(os.Stdout, results); err != nil {
		return err
	}
	if o.baseline == "" {
		return nil
	}
	if o.update {
		return writeBaseline(o.baseline, results)
	}
	return check(o.baseline, results)
}

// figures collects samples by metric.
type figures struct {
	names   []string
	samples map[string][]float64
}

func (f *figures) add(name string, value float64) {
	if _, known := f.samples[name]; !known {
		f.names = append(f.names, name)
	}
	f.samples[name] = append(f.samples[name], value)
}

func (f *figures) results() []report.Result {
	var results []report.Result
	for _, name := range f.names {
		results = append(results, report.New(name, "go run ./bench/footprint", f.samples[name], nil))
	}
	return results
}

func measure(ctx context.Context, o options, dir string) (_ []report.Result, err error) {
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o755); err != nil {
			return nil, err
		}
	}
	h, err := startHost(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	f := &figures{samples: map[string][]float64{}}
	for i := range o.runs {
		if err := boots(ctx, o, h, dir, fmt.Sprintf("boot-%d", i+1), f); err != nil {
			return nil, err
		}
	}
	if o.tenants > 0 {
		if err := idles(ctx, o, h, dir, f); err != nil {
			return nil, err
		}
	}
	return f.results(), ctx.Err()
}

// boots starts a tenant twice, the second time with the data of the first.
func boots(ctx context.Context, o options, h *host, dir, name string, f *figures) error {
	s, err := newSite(ctx, o, h, dir, name)
	if err != nil {
		return err
	}
	for _, metric := range []string{"process_boot_first_s", "process_boot_again_s"} {
		p, err := s.start(ctx)
		if err != nil {
			return err
		}
		f.add(metric, p.boot.Seconds())
		if metric == "process_boot_first_s" {
			f.add("process_boot_cpu_s", p.bootCPU)
			m, err := p.memory(ctx)
			if err != nil {
				return errors.Join(err, p.stop())
			}
			f.add("process_boot_alloc_mib", m.bytes/mib)
			f.add("process_boot_objects_k", m.objects/1000)
			if o.profiles != "" {
				if err := p.profile(ctx, "allocs", filepath.Join(o.profiles, "boot-allocs.pb.gz")); err != nil {
					return errors.Join(err, p.stop())
				}
			}
		}
		fmt.Fprintf(os.Stderr, "  %s: ready after %.3f s and %.2f s of CPU\n", name, p.boot.Seconds(), p.bootCPU)
		if err := p.stop(); err != nil {
			return err
		}
	}
	return nil
}

// idles leaves some tenants alone, empty at first, and then with CRDs.
func idles(ctx context.Context, o options, h *host, dir string, f *figures) (err error) {
	var tenants []*process
	defer func() {
		for _, p := range tenants {
			err = errors.Join(err, p.stop())
		}
	}()
	for i := range o.tenants {
		s, err := newSite(ctx, o, h, dir, fmt.Sprintf("idle-%d", i+1))
		if err != nil {
			return err
		}
		p, err := s.start(ctx)
		if err != nil {
			return err
		}
		tenants = append(tenants, p)
	}
	fmt.Fprintf(os.Stderr, "  leaving %d tenants alone for %v\n", len(tenants), o.settle+o.idle)
	sleep(ctx, o.settle)
	before := make([]activity, len(tenants))
	for i, p := range tenants {
		if before[i], err = p.activity(ctx); err != nil {
			return err
		}
	}
	sleep(ctx, o.idle)
	for i, p := range tenants {
		after, err := p.activity(ctx)
		if err != nil {
			return err
		}
		seconds := after.at.Sub(before[i].at).Seconds()
		f.add("process_cpu_m", (after.cpu-before[i].cpu)/seconds*1000)
		f.add("process_switches_per_s", (after.switches-before[i].switches)/seconds)
		f.add("process_writes_per_min", (after.revision-before[i].revision)/seconds*60)
	}
	if err := memories(ctx, o, tenants, "", f); err != nil {
		return err
	}
	if o.crds == 0 {
		return nil
	}
	for _, p := range tenants {
		if err := crds.Create(ctx, p.config, o.crds); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "  leaving them alone with %d CRDs for %v\n", o.crds, o.settle)
	sleep(ctx, o.settle)
	return memories(ctx, o, tenants, "crds_", f)
}

// memories takes RssAnon before anything else, as asking makes garbage.
func memories(ctx context.Context, o options, tenants []*process, prefix string, f *figures) error {
	for _, p := range tenants {
		anon, err := proc.RssAnon(p.pid())
		if err != nil {
			return err
		}
		f.add("process_"+prefix+"rss_anon_mib", anon/mib)
	}
	for _, p := range tenants {
		m, err := p.memory(ctx)
		if err != nil {
			return err
		}
		f.add("process_"+prefix+"goroutines", m.goroutines)
		heap, err := p.liveHeap(ctx)
		if err != nil {
			return err
		}
		f.add("process_"+prefix+"heap_mib", heap/mib)
	}
	if o.profiles == "" {
		return nil
	}
	if err := tenants[0].metrics(ctx, filepath.Join(o.profiles, prefix+"metrics.txt")); err != nil {
		return err
	}
	// The last one takes as long as the idle state is watched for.
	for _, name := range []string{"heap", "goroutine", "trace", "profile"} {
		if err := tenants[0].profile(ctx, name, filepath.Join(o.profiles, prefix+name+".pb.gz")); err != nil {
			return err
		}
	}
	return nil
}

// activity is what a process has done until at.
type activity struct {
	at                      time.Time
	cpu, switches, revision float64
}

func (p *process) activity(ctx context.Context) (activity, error) {
	revision, err := p.revision(ctx)
	if err != nil {
		return activity{}, err
	}
	cpu, err := proc.CPUSeconds(p.pid())
	if err != nil {
		return activity{}, err
	}
	switches, err := proc.ContextSwitches(p.pid())
	if err != nil {
		return activity{}, err
	}
	return activity{at: time.Now(), cpu: cpu, switches: switches, revision: revision}, nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// steady are the metrics that are about the same on every machine.
func steady() []string {
	return []string{
		"process_boot_alloc_mib", "process_boot_objects_k",
		"process_rss_anon_mib", "process_heap_mib", "process_goroutines", "process_writes_per_min",
		"process_crds_rss_anon_mib", "process_crds_heap_mib", "process_crds_goroutines",
	}
}

func isSteady(r report.Result) bool { return slices.Contains(steady(), r.Name) }
