//go:build linux

// Command bench measures what a virtual cluster costs, on the local host, and
// writes each metric as JSON below bench/out and all of them as a table.
//
// It judges nothing: a machine that is busy with something else gives other
// figures, so the budgets stand next to them for the reader to compare.
package main

import (
	"context"
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
	runs   int
	settle time.Duration
	idle   time.Duration
	page   string
	tree   int
}

// measurement is one program of work that yields one or several metrics.
type measurement struct {
	yields  []string
	measure func(ctx context.Context, b *bench) ([]result, error)
}

func measurements() []measurement {
	return []measurement{
		{[]string{"create_usable_s", "boot_first_s", "delete_s"}, measureLife},
		{[]string{"idle_rss_anon_mib", "idle_pss_mib", "idle_working_set_mib", "idle_cpu_m", "disk_empty_mib"}, measureIdle},
		{[]string{"sync_p50_ms", "sync_p99_ms"}, measureSync},
		{[]string{"burst100_ratio"}, measureBurst},
		{[]string{"api_rate_ratio"}, measureRate},
		{[]string{"tree_converge_ms", "tree_converge_growth", "tree_member_ms", "tree_member_growth", "tree_manager_cpu_ms", "tree_manager_rss_mib"}, measureTree},
	}
}

func run(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.root, "root", ".", "the checkout")
	flags.StringVar(&o.out, "out", "bench/out", "directory for the results, below the checkout")
	flags.StringVar(&o.only, "only", "", "measure only these, by name, separated by commas")
	flags.IntVar(&o.runs, "runs", 5, "how often to measure what varies from run to run")
	flags.DurationVar(&o.settle, "settle", 3*time.Minute, "how long a tenant is left alone before its idle state is measured")
	flags.DurationVar(&o.idle, "idle", 2*time.Minute, "over how long idle CPU is measured")
	flags.IntVar(&o.tree, "tree", 2000, "how many tenants the tree has; it is measured with a fourth of them, too")
	flags.StringVar(&o.page, "page", "", "render all results that are there as this page, below the checkout")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.tree < 40 {
		return fmt.Errorf("-tree %d is too small to say anything: use 40 or more", o.tree)
	}
	var only []string
	if o.only != "" {
		only = strings.Split(o.only, ",")
	}
	for _, name := range only {
		if _, known := report.Budgets()[name]; !known {
			return fmt.Errorf("there is no metric %q", name)
		}
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	var results []result
	for _, m := range measurements() {
		wanted := func(name string) bool { return len(only) == 0 || slices.Contains(only, name) }
		if !slices.ContainsFunc(m.yields, wanted) {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s\n", strings.Join(m.yields, ", "))
		some, err := m.measure(ctx, b)
		if err != nil {
			return fmt.Errorf("measure %s: %w", strings.Join(m.yields, ", "), err)
		}
		for _, r := range some {
			if err := r.Write(filepath.Join(o.root, o.out)); err != nil {
				return err
			}
		}
		results = append(results, some...)
	}
	if o.page != "" {
		if err := writePage(filepath.Join(o.root, o.page), filepath.Join(o.root, o.out)); err != nil {
			return fmt.Errorf("write %s: %w", o.page, err)
		}
	}
	return report.Table(os.Stdout, results)
}

// newResult is a result of this command.
func newResult(name string, samples []float64, details any) result {
	return report.New(name, "go run ./bench -only "+name, samples, details)
}

type result = report.Result
