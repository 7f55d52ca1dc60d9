//go:build linux

// Command bench measures what a virtual cluster costs, on the local host, and
// writes each metric as JSON below bench/out and all of them as a page with plots.
// What it is compared with is measured in the same run: the bare host, and the
// parts of a control plane as separate processes.
//
// It judges nothing: a machine that is busy with something else gives other
// figures, so the budgets stand next to them for the reader to compare.
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
	"strings"
	"syscall"
	"time"

	"github.com/sublet-dev/sublet/bench/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

type options struct {
	root   string
	out    string
	only   string
	resume bool
	render bool
	runs   int
	settle time.Duration
	idle   time.Duration
	crds   int
	churn  int
	rest   time.Duration
	pods   int
	burst  int
	list   int
	page   string
	tree   int

	most                   int
	steps                  string
	crowdSettle, crowdIdle time.Duration
	crowdCPU, crowdMemory  string
}

// measurement is one program of work that yields one or several metrics.
type measurement struct {
	yields []string
	// takes is about how long, on two cores that have nothing else to do.
	takes time.Duration
	// begin is called before anything is measured, for what has to rest meanwhile;
	// nil is fine.
	begin   func(ctx context.Context, b *bench) error
	measure func(ctx context.Context, b *bench) ([]result, error)
	// extra is measured only when it is asked for.
	extra bool
}

// density stands for all metrics of measureDensity.
const density = "density"

func measurements(o options) []measurement {
	runs := time.Duration(o.runs)
	seconds := func(n int) time.Duration { return time.Duration(n) * time.Second }
	// Two rounds, the first of which is waited for at the beginning.
	churn := seconds(o.churn / 900)
	return []measurement{
		{
			yields:  []string{"create_usable_s", "boot_first_s", "boot_again_s", "first_pod_s", "pod_running_s", "delete_s"},
			takes:   runs * seconds(28),
			measure: measureLife,
		},
		{
			yields: []string{
				"idle_rss_anon_mib", "idle_pss_mib", "idle_working_set_mib", "idle_cpu_m", "disk_empty_mib",
				"crds_rss_anon_mib", "crds_pss_mib", "crds_working_set_mib",
				"manager_create_cpu_ms", "manager_idle_cpu_m", "manager_rss_anon_mib",
			},
			takes:   o.settle + o.idle + 2*runs*seconds(5) + seconds(40),
			measure: measureIdle,
		},
		{
			yields:  []string{"sync_p50_ms", "sync_p99_ms", "sync_status_p50_ms", "sync_status_p99_ms"},
			takes:   4*time.Duration(o.pods)*syncInterval + seconds(20),
			measure: measureSync,
		},
		{
			yields:  []string{"burst100_ratio", "burst100_s", "burst1000_ratio", "burst1000_s"},
			takes:   runs*seconds(8) + time.Duration(bigBursts(o.runs)*o.burst)*40*time.Millisecond + seconds(15),
			measure: measureBurst,
		},
		{
			yields: []string{
				"api_rate_ratio", "api_create_per_s", "api_create_p50_ms", "api_create_p99_ms", "api_get_p50_ms", "api_get_p99_ms",
				"api_get_per_s", "api_list5000_ms", "api_watch100_p50_ms", "api_watch100_p99_ms",
			},
			takes:   runs*seconds(17) + time.Duration(o.list)*10*time.Millisecond + seconds(20),
			measure: measureAPI,
		},
		{
			yields:  []string{"tree_converge_ms", "tree_converge_growth", "tree_member_ms", "tree_member_growth", "tree_manager_cpu_ms", "tree_manager_rss_mib"},
			takes:   time.Duration(o.tree) * 600 * time.Millisecond,
			measure: measureTree,
		},
		{
			yields:  []string{"disk_churn_mib", "disk_churn_peak_mib", "disk_churn_growth", "loaded_rss_anon_mib"},
			takes:   churn + seconds(15),
			begin:   beginChurn,
			measure: measureChurn,
		},
		{
			yields:  []string{"density_tenants", "density_rss_anon_mib", "density_pss_mib", "density_cpu_m", "density_create_s", "density_get_ns_ms"},
			takes:   seconds(o.most*8) + 5*(o.crowdSettle+o.crowdIdle),
			measure: measureDensity,
			extra:   true,
		},
	}
}

// names lists all metrics in the order of the page.
func names() []string {
	var all []string
	for _, m := range measurements(options{}) {
		all = append(all, m.yields...)
	}
	return all
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.root, err = filepath.Abs(o.root); err != nil {
		return err
	}
	if o.render {
		return writePage(o)
	}
	chosen, err := choose(o)
	if err != nil {
		return err
	}
	if len(chosen) == 0 {
		fmt.Fprintln(os.Stderr, "all is measured: leave out -resume to measure it again")
		return writePage(o)
	}
	results, err := measureAll(ctx, o, chosen)
	if len(results) > 0 {
		// What was measured counts, whatever became of the rest.
		err = errors.Join(err, report.Table(os.Stdout, results), writePage(o))
	}
	return err
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.root, "root", ".", "the checkout")
	flags.StringVar(&o.out, "out", "bench/out", "directory for the results, below the checkout")
	flags.StringVar(&o.only, "only", "", "measure only these metrics, by name, separated by commas; "+density+" for how many tenants the machine takes, which is left out otherwise")
	flags.BoolVar(&o.resume, "resume", false, "leave out what has a result in -out: to go on after an interruption")
	flags.BoolVar(&o.render, "render", false, "measure nothing, only render the page")
	flags.StringVar(&o.page, "page", "", "render all results that are there as this page, below the checkout, with those that it had before; its data and plots get its name")
	flags.IntVar(&o.runs, "runs", 5, "how often to measure what varies from run to run, and how many tenants to leave idle")
	flags.DurationVar(&o.settle, "settle", 3*time.Minute, "how long a tenant is left alone before its idle state is measured")
	flags.DurationVar(&o.idle, "idle", 2*time.Minute, "over how long idle CPU is measured")
	flags.IntVar(&o.crds, "crds", 50, "how many CRDs the tenants with CRDs have")
	flags.IntVar(&o.churn, "churn", 100_000, "how many writes a tenant's disk is watched for, twice")
	flags.DurationVar(&o.rest, "rest", 11*time.Minute, "how long that tenant rests at least between the two: old revisions are dropped after five to ten minutes")
	flags.IntVar(&o.pods, "pods", 100, "how many pods are watched on their way, one after the other")
	flags.IntVar(&o.burst, "burst", 1000, "pods of the big burst")
	flags.IntVar(&o.list, "list", 5000, "how many objects are listed")
	flags.IntVar(&o.tree, "tree", 120, "how many tenants the tree has; it is measured with a fourth of them, too")
	flags.IntVar(&o.most, "tenants", 100, "density: how many tenants to stop at")
	flags.StringVar(&o.steps, "steps", "1,10,25,50,100,150,200,250,300,400", "density: at how many tenants to measure")
	flags.DurationVar(&o.crowdSettle, "density-settle", time.Minute, "density: how long all tenants are left alone at each step")
	flags.DurationVar(&o.crowdIdle, "density-idle", time.Minute, "density: over how long their CPU is counted then")
	flags.StringVar(&o.crowdCPU, "density-cpu", "10m", "density: CPU that each control plane asks the scheduler for; its default would fill two cores with forty of them, and it is the machine that is to be filled")
	flags.StringVar(&o.crowdMemory, "density-memory", "64Mi", "density: the same for memory")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	for name, least := range map[string]struct{ is, least int }{
		"runs": {o.runs, 1}, "tree": {o.tree, 40}, "churn": {o.churn, churnObjects}, "pods": {o.pods, 1},
		"burst": {o.burst, 1}, "list": {o.list, 1}, "crds": {o.crds, 1}, "tenants": {o.most, 1},
	} {
		if least.is < least.least {
			return o, fmt.Errorf("-%s %d is too small to say anything: use %d or more", name, least.is, least.least)
		}
	}
	_, err := densitySteps(o.steps, o.most)
	return o, err
}

// choose returns the measurements that yield what is wanted.
func choose(o options) ([]measurement, error) {
	var only []string
	if o.only != "" {
		only = strings.Split(o.only, ",")
	}
	for _, name := range only {
		if name != density && !slices.Contains(names(), name) {
			return nil, fmt.Errorf("there is no metric %q; there are %s and, for all its metrics, %s", name, strings.Join(names(), ", "), density)
		}
	}
	var chosen []measurement
	for _, m := range measurements(o) {
		wanted := len(only) == 0 && !m.extra ||
			slices.ContainsFunc(m.yields, func(name string) bool { return slices.Contains(only, name) }) ||
			m.extra && slices.Contains(only, density)
		if !wanted {
			continue
		}
		missing := !o.resume
		for _, name := range m.yields {
			r, err := report.Read(filepath.Join(o.root, o.out), name)
			if err != nil {
				return nil, err
			}
			missing = missing || r == nil
		}
		if missing {
			chosen = append(chosen, m)
		}
	}
	return chosen, nil
}

// measureAll goes on after a measurement that fails, as others may not.
func measureAll(ctx context.Context, o options, chosen []measurement) (results []result, err error) {
	left := newClock(o, chosen)
	fmt.Fprintf(os.Stderr, "%d measurements, about %s on two cores that have nothing else to do\n", len(chosen), minutes(left.left(time.Now())))
	b, err := newBench(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		fmt.Fprintln(os.Stderr, "taking away what is left")
		err = errors.Join(err, b.close(ctx))
	}()
	var failed []error
	fail := func(m measurement, err error) {
		fmt.Fprintf(os.Stderr, "error: measure %s: %v\n", strings.Join(m.yields, ", "), err)
		failed = append(failed, fmt.Errorf("%s could not be measured, see above", m.yields[0]))
	}
	var begun []measurement
	for _, m := range chosen {
		if m.begin == nil {
			begun = append(begun, m)
			continue
		}
		if err := m.begin(ctx, b); err != nil {
			fail(m, err)
			continue
		}
		left.begun = time.Now()
		begun = append(begun, m)
	}
	for _, m := range begun {
		if ctx.Err() != nil {
			break
		}
		fmt.Fprintf(os.Stderr, "%s  measuring %s; about %s left\n", time.Now().Format(time.TimeOnly), strings.Join(m.yields, ", "), minutes(left.left(time.Now())))
		some, err := m.measure(ctx, b)
		left.done(m)
		// Results that came before an error are as good as others.
		for _, r := range some {
			if err := r.Write(filepath.Join(o.root, o.out)); err != nil {
				return results, err
			}
		}
		results = append(results, some...)
		if err != nil {
			fail(m, err)
		}
		if err := b.tidy(ctx); err != nil {
			fail(m, err)
		}
	}
	if ctx.Err() != nil {
		failed = append(failed, errors.New("interrupted: -resume goes on with what is missing"))
	}
	return results, errors.Join(failed...)
}

// newResult is a result of this command.
func newResult(name string, samples []float64, details any) result {
	only := name
	if strings.HasPrefix(name, density) {
		only = density
	}
	return report.New(name, "go run ./bench -only "+only, samples, details)
}

type result = report.Result
