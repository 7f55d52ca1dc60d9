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
	// Peer is vcluster OSS, measured in August 2026 on a machine like the one that
	// the budgets are for, not in the same run.
	Peer, Must, Aim *float64
	What            string
}

func figure(v float64) *float64 { return &v }

// Budgets are all metrics by name.
func Budgets() map[string]Budget {
	return map[string]Budget{
		"create_usable_s": {"s", figure(15.1), figure(5), figure(3), "sublet create, then kubectl get ns in the tenant"},
		"boot_first_s":    {"s", nil, figure(1.2), figure(0.7), "control plane, start of the process to /readyz, first boot, on the node"},
		"boot_again_s":    {"s", nil, nil, nil, "the same after its process was ended, with its data"},
		"first_pod_s":     {"s", figure(15.8), nil, nil, "sublet create until the tenant's first pod runs"},
		"pod_running_s":   {"s", nil, nil, nil, "a further pod, from the call until it is seen running"},
		"delete_s":        {"s", figure(11.2), figure(5), figure(2.5), "sublet delete until the host namespace is gone"},

		"idle_rss_anon_mib":     {"MiB", figure(290), figure(80), figure(48), "RssAnon of all the tenant's processes, idle"},
		"idle_pss_mib":          {"MiB", figure(530), nil, nil, "PSS of the same"},
		"idle_working_set_mib":  {"MiB", figure(311), nil, nil, "working set of the control plane's pod (cgroup usage without inactive files), idle"},
		"idle_cpu_m":            {"m", figure(43.5), figure(8), figure(4), "CPU of all the tenant's processes, idle"},
		"disk_empty_mib":        {"MiB", figure(457), figure(16), figure(10), "disk of an empty tenant"},
		"crds_rss_anon_mib":     {"MiB", nil, nil, nil, "RssAnon of all the tenant's processes, idle, with 50 CRDs"},
		"crds_pss_mib":          {"MiB", nil, nil, nil, "PSS of the same"},
		"crds_working_set_mib":  {"MiB", nil, nil, nil, "working set of the control plane's pod, idle, with 50 CRDs"},
		"manager_create_cpu_ms": {"ms", nil, nil, nil, "CPU of the manager to make a tenant"},
		"manager_idle_cpu_m":    {"m", nil, nil, nil, "CPU of the manager, idle, for each tenant"},
		"manager_rss_anon_mib":  {"MiB", nil, nil, nil, "RssAnon of the manager with these tenants"},
		"disk_churn_mib":        {"MiB", nil, nil, nil, "disk of a tenant after 100,000 writes and a rest in which old revisions go"},
		"disk_churn_peak_mib":   {"MiB", nil, nil, nil, "the most that it was meanwhile"},
		"disk_churn_growth":     {"ratio", nil, nil, nil, "the most during 100,000 writes more, against the first ones: 1 is no growth"},
		"loaded_rss_anon_mib":   {"MiB", figure(436), nil, nil, "RssAnon of the tenant's processes after these writes and the rest"},
		"sync_p50_ms":           {"ms", figure(30), figure(12), figure(7), "pod create called in the tenant to pod seen on the host, three a second"},
		"sync_p99_ms":           {"ms", figure(85), figure(40), figure(20), "the same, the slowest of a hundred"},
		"sync_status_p50_ms":    {"ms", nil, nil, nil, "change of a pod's status called on the host to change seen in the tenant, three a second"},
		"sync_status_p99_ms":    {"ms", nil, nil, nil, "the same, the slowest of a hundred"},
		"burst100_ratio":        {"ratio", figure(10.4), figure(2), figure(1.3), "100 pods, 10 workers, until all are on the host; against the same straight on the host"},
		"burst100_s":            {"s", nil, nil, nil, "the same in seconds"},
		"burst1000_ratio":       {"ratio", nil, nil, nil, "1,000 pods, 10 workers, until all are on the host; against the same straight on the host"},
		"burst1000_s":           {"s", nil, nil, nil, "the same in seconds"},
		"api_rate_ratio":        {"ratio", figure(0.36), figure(0.9), figure(1), "500 config map creates, 10 workers, rate against the host's API"},
		"api_create_per_s":      {"1/s", nil, nil, nil, "the same as a rate"},
		"api_create_p50_ms":     {"ms", nil, nil, nil, "create of a config map, one after the other"},
		"api_create_p99_ms":     {"ms", nil, nil, nil, "the same, the slowest of a hundred"},
		"api_get_p50_ms":        {"ms", nil, nil, nil, "get of a config map, one after the other"},
		"api_get_p99_ms":        {"ms", nil, nil, nil, "the same, the slowest of a hundred"},
		"api_get_per_s":         {"1/s", nil, nil, nil, "get of a config map, 10 workers"},
		"api_list5000_ms":       {"ms", nil, nil, nil, "list of 5,000 config maps"},
		"api_watch100_p50_ms":   {"ms", nil, nil, nil, "change of a config map called until the last of 100 watchers has seen it"},
		"api_watch100_p99_ms":   {"ms", nil, nil, nil, "the same, the slowest of a hundred"},

		"density_tenants":      {"", nil, figure(100), nil, "awake tenants on one machine, each with a Deployment and a Service, until something broke or the bound was reached"},
		"density_rss_anon_mib": {"MiB", nil, nil, nil, "RssAnon of each of them"},
		"density_pss_mib":      {"MiB", nil, nil, nil, "PSS of each of them"},
		"density_cpu_m":        {"m", nil, figure(1000), nil, "CPU of all of them together, idle"},
		"density_create_s":     {"s", nil, nil, nil, "sublet create of the last ones, until they can be used"},
		"density_get_ns_ms":    {"ms", nil, figure(300), nil, "kubectl get ns in the slowest of them"},

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

// Measured is the median of samples, and their spread.
type Measured struct {
	Value   float64   `json:"value"`
	Spread  Spread    `json:"spread"`
	Samples []float64 `json:"samples,omitempty"`
}

// Result is one metric.
type Result struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	Measured
	// Host is the same on the bare host, Separate with the parts of a control plane
	// as separate processes, both in the same run. They are missing where they say
	// nothing.
	Host     *Measured `json:"host,omitempty"`
	Separate *Measured `json:"separate,omitempty"`
	// Peer, Must and Aim are missing where there is none.
	Peer    *float64 `json:"peer,omitempty"`
	Must    *float64 `json:"must,omitempty"`
	Aim     *float64 `json:"aim,omitempty"`
	What    string   `json:"what"`
	Command string   `json:"command"`
	Details any      `json:"details,omitempty"`
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

// Measure sums up samples, of which there must be one at least.
func Measure(samples []float64) Measured {
	sorted := slices.Sorted(slices.Values(samples))
	return Measured{
		Value:   Quantile(sorted, 0.5),
		Spread:  Spread{Min: sorted[0], Max: sorted[len(sorted)-1]},
		Samples: samples,
	}
}

// Baseline is what to compare a metric with; nil when it was not measured.
func Baseline(samples []float64) *Measured {
	if len(samples) == 0 {
		return nil
	}
	m := Measure(samples)
	return &m
}

// New makes a result of samples, of which there must be one at least.
func New(name, command string, samples []float64, details any) Result {
	r := Result{
		Name:     name,
		Measured: Measure(samples),
		Command:  command,
		Details:  details,
		Load:     loadAverage(),
		CPUs:     runtime.NumCPU(),
		Time:     time.Now().UTC().Format(time.RFC3339),
	}
	r.compare()
	return r
}

// compare puts the budget of today beside what was measured, maybe long ago.
func (r *Result) compare() {
	b := Budgets()[r.Name]
	r.Unit, r.Peer, r.Must, r.Aim, r.What = b.Unit, b.Peer, b.Must, b.Aim, b.What
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

// Misses tells whether the value is on the wrong side of its must.
func (r Result) Misses() bool { return r.Must != nil && r.isWorse(*r.Must) }

// Reaches tells whether the value is as good as its aim.
func (r Result) Reaches() bool { return r.Aim != nil && !r.isWorse(*r.Aim) }

// isWorse compares: rates are better the higher they are, all else the lower.
func (r Result) isWorse(than float64) bool {
	if slices.Contains([]string{"api_rate_ratio", "api_create_per_s", "api_get_per_s", "density_tenants"}, r.Name) {
		return r.Value < than
	}
	return r.Value > than
}

// Table shows results to people, and says at the end which musts they miss.
func Table(out io.Writer, results []Result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "METRIC\tMUST\tAIM\tVALUE\tSPREAD\tHOST\tSEPARATE\tVCLUSTER\tWHAT")
	var missed []string
	judged := 0
	for _, r := range results {
		value := Number(&r.Value) + " " + r.Unit
		switch {
		case r.Misses():
			value += " MISSED"
			missed = append(missed, r.Name)
		case r.Reaches():
			value += " (aim)"
		}
		if r.Must != nil {
			judged++
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s-%s\t%s\t%s\t%s\t%s\n", r.Name, Number(r.Must), Number(r.Aim), value,
			Number(&r.Spread.Min), Number(&r.Spread.Max), r.Host.number(), r.Separate.number(), Number(r.Peer), r.What)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if judged == 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "%d of %d musts are held", judged-len(missed), judged)
	if err == nil && len(missed) > 0 {
		_, err = fmt.Fprintf(out, "; missed: %s", strings.Join(missed, ", "))
	}
	if err == nil {
		_, err = fmt.Fprintln(out)
	}
	return err
}

func (m *Measured) number() string {
	if m == nil {
		return "-"
	}
	return Number(&m.Value)
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
