//go:build linux

// Command bench measures what a virtual cluster costs, on the local host, and
// writes each metric as JSON below bench/out and all of them as a table.
//
// It judges nothing: a machine that is busy with something else gives other
// figures, so the budgets stand next to them for the reader to compare.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
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
	flags.StringVar(&o.page, "page", "", "render all results that are there as this page, below the checkout")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var only []string
	if o.only != "" {
		only = strings.Split(o.only, ",")
	}
	for _, name := range only {
		if _, known := budgets()[name]; !known {
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
			if err := r.write(filepath.Join(o.root, o.out)); err != nil {
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
	return table(results)
}

// budget is what a metric is compared with. Nil means that there is no figure.
type budget struct {
	unit string
	// baseline is vcluster OSS of August 2026, measured on such a machine.
	baseline, must, aim *float64
	what                string
}

func figure(v float64) *float64 { return &v }

func budgets() map[string]budget {
	return map[string]budget{
		"boot_first_s":         {"s", nil, figure(1.2), figure(0.7), "control plane, start of the process to /readyz, first boot"},
		"create_usable_s":      {"s", figure(15.1), figure(5), figure(3), "sublet create, then kubectl get ns in the tenant"},
		"idle_rss_anon_mib":    {"MiB", figure(290), figure(80), figure(48), "RssAnon of the tenant's process, idle"},
		"idle_pss_mib":         {"MiB", figure(530), nil, nil, "PSS of the tenant's process, idle"},
		"idle_working_set_mib": {"MiB", nil, nil, nil, "working set of the control plane's pod (cgroup usage without inactive files), idle"},
		"idle_cpu_m":           {"m", figure(43.5), figure(8), figure(4), "CPU of the tenant's process, idle"},
		"disk_empty_mib":       {"MiB", figure(457), figure(16), figure(10), "disk of an empty tenant"},
		"sync_p50_ms":          {"ms", figure(30), figure(12), figure(7), "pod create called in the tenant to pod seen on the host, three a second"},
		"sync_p99_ms":          {"ms", figure(85), figure(40), figure(20), "the same, the slowest of a hundred"},
		"burst100_ratio":       {"ratio", figure(10.4), figure(2), figure(1.3), "100 pods, 10 workers, until all are on the host; against the same straight on the host"},
		"api_rate_ratio":       {"ratio", figure(0.36), figure(0.9), figure(1), "500 config map creates, 10 workers, rate against the host's API"},
		"delete_s":             {"s", figure(11.2), figure(5), figure(2.5), "sublet delete until the host namespace is gone"},
	}
}

// result is one metric: the median of its samples, and their spread.
type result struct {
	Name    string    `json:"name"`
	Unit    string    `json:"unit"`
	Value   float64   `json:"value"`
	Spread  spread    `json:"spread"`
	Samples []float64 `json:"samples"`
	// Baseline, Must and Aim are missing where there is none.
	Baseline *float64 `json:"baseline,omitempty"`
	Must     *float64 `json:"must,omitempty"`
	Aim      *float64 `json:"aim,omitempty"`
	What     string   `json:"what"`
	Command  string   `json:"command"`
	Details  any      `json:"details,omitempty"`
	// Load is the machine's load average of the last five minutes: on an idle
	// machine about that of the measuring itself.
	Load string `json:"load"`
	CPUs int    `json:"cpus"`
	Time string `json:"time"`
}

type spread struct {
	Min float64 `json:"min"`
	Max float64 `json:"max"`
}

func newResult(name string, samples []float64, details any) result {
	b := budgets()[name]
	sorted := slices.Sorted(slices.Values(samples))
	return result{
		Name:     name,
		Unit:     b.unit,
		Value:    quantile(sorted, 0.5),
		Spread:   spread{Min: sorted[0], Max: sorted[len(sorted)-1]},
		Samples:  samples,
		Baseline: b.baseline,
		Must:     b.must,
		Aim:      b.aim,
		What:     b.what,
		Command:  "go run ./bench -only " + name,
		Details:  details,
		Load:     loadAverage(),
		CPUs:     runtime.NumCPU(),
		Time:     time.Now().UTC().Format(time.RFC3339),
	}
}

func loadAverage() string {
	content, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(content))
	if err != nil || len(fields) < 2 {
		return "unknown"
	}
	return fields[1]
}

// quantile is that of sorted samples, between neighbours where it falls there.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	below := int(at)
	if below+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}

func (r result) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the directory for results: %w", err)
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, r.Name+".json"), append(content, '\n'), 0o644)
}

func table(results []result) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "METRIC\tVALUE\tSPREAD\tMUST\tAIM\tVCLUSTER\tWHAT")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%s %s\t%s-%s\t%s\t%s\t%s\t%s\n", r.Name, number(&r.Value), r.Unit,
			number(&r.Spread.Min), number(&r.Spread.Max), number(r.Must), number(r.Aim), number(r.Baseline), r.What)
	}
	return w.Flush()
}

func number(v *float64) string {
	switch {
	case v == nil:
		return "-"
	case *v >= 100:
		return fmt.Sprintf("%.0f", *v)
	case *v >= 10:
		return fmt.Sprintf("%.1f", *v)
	}
	return fmt.Sprintf("%.2f", *v)
}
