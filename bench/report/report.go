// Package report holds what the benchmarks found: each metric with its samples
// and the budget that it is compared with, as JSON for machines and as a table
// for people.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Budget is what a metric is compared with. Nil means that there is no figure.
type Budget struct {
	Unit string
	// Baseline is vcluster OSS of August 2026, measured on such a machine.
	Baseline, Must, Aim *float64
	What                string
}

func figure(v float64) *float64 { return &v }

// Budgets are all metrics by name.
func Budgets() map[string]Budget {
	return map[string]Budget{
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

		"tree_converge_ms":     {"ms", nil, nil, nil, "a tree of Folders and Namespaces, four levels deep, from nothing until all are ready, per tenant"},
		"tree_converge_growth": {"ratio", nil, nil, nil, "the same per tenant, against a tree of a fourth of the size"},
		"tree_member_ms":       {"ms", nil, nil, nil, "a member added at the top of it until he has his role in all namespaces, per tenant"},
		"tree_member_growth":   {"ratio", nil, nil, nil, "the same per tenant, against a tree of a fourth of the size"},
		"tree_manager_cpu_ms":  {"ms", nil, nil, nil, "CPU of the manager until all are ready, per tenant"},
		"tree_manager_rss_mib": {"MiB", nil, nil, nil, "RssAnon of the manager with the tree"},

		"process_boot_first_s":      {"s", nil, figure(1.2), figure(0.7), "start of the process to /readyz, first boot, without a node"},
		"process_boot_cpu_s":        {"s", nil, nil, nil, "CPU time until /readyz, first boot"},
		"process_boot_again_s":      {"s", nil, nil, nil, "the same with the data of an earlier boot"},
		"process_boot_alloc_mib":    {"MiB", nil, nil, nil, "allocated on the heap until /readyz, first boot"},
		"process_boot_objects_k":    {"k", nil, nil, nil, "thousands of objects allocated until /readyz, first boot"},
		"process_rss_anon_mib":      {"MiB", nil, figure(80), figure(48), "RssAnon, idle and empty, without a node"},
		"process_heap_mib":          {"MiB", nil, nil, nil, "live heap after a collection, idle and empty"},
		"process_goroutines":        {"", nil, nil, nil, "goroutines, idle and empty"},
		"process_cpu_m":             {"m", nil, figure(8), figure(4), "CPU, idle and empty, without a node"},
		"process_switches_per_s":    {"1/s", nil, nil, nil, "context switches a second, idle and empty"},
		"process_writes_per_min":    {"1/min", nil, nil, nil, "revisions of etcd a minute, idle and empty"},
		"process_crds_rss_anon_mib": {"MiB", nil, nil, nil, "RssAnon, idle, with 50 CRDs"},
		"process_crds_heap_mib":     {"MiB", nil, nil, nil, "live heap after a collection, idle, with 50 CRDs"},
		"process_crds_goroutines":   {"", nil, nil, nil, "goroutines, idle, with 50 CRDs"},
	}
}

// Result is one metric: the median of its samples, and their spread.
type Result struct {
	Name    string    `json:"name"`
	Unit    string    `json:"unit"`
	Value   float64   `json:"value"`
	Spread  Spread    `json:"spread"`
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

// Spread is from the least to the greatest sample.
type Spread struct {
	Min float64 `json:"min"`
	Max float64 `json:"max"`
}

// New makes a result of samples, of which there must be one at least.
func New(name, command string, samples []float64, details any) Result {
	b := Budgets()[name]
	sorted := slices.Sorted(slices.Values(samples))
	return Result{
		Name:     name,
		Unit:     b.Unit,
		Value:    Quantile(sorted, 0.5),
		Spread:   Spread{Min: sorted[0], Max: sorted[len(sorted)-1]},
		Samples:  samples,
		Baseline: b.Baseline,
		Must:     b.Must,
		Aim:      b.Aim,
		What:     b.What,
		Command:  command,
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

// Quantile is that of sorted samples, between neighbours where it falls there.
func Quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	below := int(at)
	if below+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}

// Write writes NAME.json into dir.
func (r Result) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the directory for results: %w", err)
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, r.Name+".json"), append(content, '\n'), 0o644)
}

// Misses tells whether the value is on the wrong side of its must. Rates are
// better the higher they are, all else the lower.
func (r Result) Misses() bool {
	if r.Must == nil {
		return false
	}
	if r.Name == "api_rate_ratio" {
		return r.Value < *r.Must
	}
	return r.Value > *r.Must
}

// Table shows results to people.
func Table(out io.Writer, results []Result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "METRIC\tVALUE\tSPREAD\tMUST\tAIM\tVCLUSTER\tWHAT")
	for _, r := range results {
		_, _ = fmt.Fprintf(w, "%s\t%s %s\t%s-%s\t%s\t%s\t%s\t%s\n", r.Name, Number(&r.Value), r.Unit,
			Number(&r.Spread.Min), Number(&r.Spread.Max), Number(r.Must), Number(r.Aim), Number(r.Baseline), r.What)
	}
	return w.Flush()
}

// Number shows three digits, and a dash for none.
func Number(v *float64) string {
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
