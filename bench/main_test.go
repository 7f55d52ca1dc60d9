//go:build linux

package main

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sublet-dev/sublet/bench/report"
)

// update is for `go test ./bench -update`.
var update = flag.Bool("update", false, "rewrite the golden files")

// TestMetrics holds that what is measured has a budget, and once.
func TestMetrics(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range names() {
		if seen[name] {
			t.Errorf("%s is measured twice", name)
		}
		seen[name] = true
		if report.Budgets()[name].What == "" {
			t.Errorf("nothing says what %s is", name)
		}
	}
	for name := range report.Budgets() {
		// Those are of bench/footprint.
		if !seen[name] && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is never measured", name)
		}
	}
}

func TestChoose(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"sync_p50_ms", "sync_p99_ms", "sync_status_p50_ms", "sync_status_p99_ms", "burst100_ratio"} {
		if err := report.New(name, "test", []float64{1}, nil).Write(filepath.Join(root, "bench/out")); err != nil {
			t.Fatal(err)
		}
	}
	const life, idle, sync, burst, api, tree, churn, crowd = "create_usable_s", "idle_rss_anon_mib", "sync_p50_ms", "burst100_ratio", "api_rate_ratio", "tree_converge_ms", "disk_churn_mib", "density_tenants"
	cases := map[string]struct {
		args  []string
		want  []string
		fails string
	}{
		"all but density":        {nil, []string{life, idle, sync, burst, api, tree, churn}, ""},
		"one":                    {[]string{"-only", "delete_s"}, []string{life}, ""},
		"two":                    {[]string{"-only", "api_get_p50_ms,sync_p99_ms"}, []string{sync, api}, ""},
		"density":                {[]string{"-only", "density"}, []string{crowd}, ""},
		"one of density":         {[]string{"-only", "density_cpu_m"}, []string{crowd}, ""},
		"what is missing":        {[]string{"-resume"}, []string{life, idle, burst, api, tree, churn}, ""},
		"nothing is missing":     {[]string{"-resume", "-only", "sync_p50_ms"}, nil, ""},
		"no such metric":         {[]string{"-only", "speed"}, nil, `no metric "speed"`},
		"too few writes":         {[]string{"-churn", "5"}, nil, "too small"},
		"steps that do not grow": {[]string{"-steps", "10,5"}, nil, "grow"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			o, err := parse(append([]string{"-root", root}, test.args...))
			var chosen []measurement
			if err == nil {
				chosen, err = choose(o)
			}
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Fatalf("want an error about %q, got %v", test.fails, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range chosen {
				got = append(got, m.yields[0])
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDensitySteps(t *testing.T) {
	cases := map[string]struct {
		bound int
		want  []int
	}{
		"beyond the last":   {500, []int{1, 10, 100, 500}},
		"between":           {50, []int{1, 10, 50}},
		"one of them":       {100, []int{1, 10, 100}},
		"before the first":  {1, []int{1}},
		"just above a step": {11, []int{1, 10, 11}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := densitySteps("1, 10,100", test.bound)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestClock looks at what is left of two measurements and one that begins early.
func TestClock(t *testing.T) {
	begins := measurement{yields: []string{"rests"}, takes: time.Minute, begin: beginChurn}
	first := measurement{yields: []string{"first"}, takes: 4 * time.Minute}
	second := measurement{yields: []string{"second"}, takes: 2 * time.Minute}
	c := newClock(options{rest: 5 * time.Minute}, []measurement{first, second, begins})
	now := time.Now()
	left := func(after, want time.Duration) {
		t.Helper()
		if got := c.left(now.Add(after)); got != want {
			t.Errorf("%v left, want %v", got, want)
		}
	}
	left(0, 8*time.Minute) // 1 + (4+2, longer than the rest) + 1
	c.begun = now.Add(time.Minute)
	left(time.Minute, 7*time.Minute)
	c.done(first)
	left(3*time.Minute, 4*time.Minute) // what rests has three minutes to go
	c.done(second)
	left(4*time.Minute, 3*time.Minute)
	left(6*time.Minute, time.Minute)
	c.done(begins)
	left(7*time.Minute, 0)
}

// TestPage renders results that are made up.
func TestPage(t *testing.T) {
	root := t.TempDir()
	write := func(name string, samples []float64, change func(*result)) {
		t.Helper()
		r := report.New(name, "test", samples, nil)
		r.Load, r.CPUs, r.Time = "0.10", 2, "2026-01-01T00:00:00Z"
		if change != nil {
			change(&r)
		}
		if err := r.Write(filepath.Join(root, "bench/out")); err != nil {
			t.Fatal(err)
		}
	}
	write("create_usable_s", []float64{2, 3, 4}, nil)
	write("delete_s", []float64{9}, func(r *result) { r.Host = report.Baseline([]float64{5}) })
	write("api_rate_ratio", []float64{0.5}, nil)
	write("idle_rss_anon_mib", []float64{60}, func(r *result) { r.Separate = report.Baseline([]float64{240}) })
	points := []densityPoint{}
	for _, n := range []int{1, 10, 50} {
		m := report.Measure([]float64{float64(n)})
		points = append(points, densityPoint{Tenants: n, RssAnon: m, Pss: m, CPU: 4 * float64(n), NodeCPU: 100, Create: m, Pod: m, GetNamespaces: m, GetNamespacesFirst: m, Manager: 30, Available: 20000})
	}
	write("density_tenants", []float64{57}, func(r *result) {
		r.Details = densityReport{Points: points, Reached: 57, Broke: "with 58 tenants: no\nroom", Requests: "10m CPU"}
	})

	o := options{root: root, out: "bench/out", page: "page.md"}
	if err := writePage(o); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"page.md", "page.svg", "page-density.svg"} {
		got, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", file)
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s; renew it with -update: %s", file, diff)
		}
	}
	text, err := os.ReadFile(filepath.Join(root, "page.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := func(text string) []string {
		var rows []string
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "| `") {
				rows = append(rows, strings.Fields(line)[1])
			}
		}
		return rows
	}
	// In another checkout, where only one metric is measured, the others stay.
	if err := os.RemoveAll(filepath.Join(root, "bench/out")); err != nil {
		t.Fatal(err)
	}
	write("delete_s", []float64{1}, func(r *result) { r.Time = "2026-01-02T00:00:00Z" })
	if err := writePage(o); err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(filepath.Join(root, "page.md"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rows(string(text)), rows(string(again))); diff != "" {
		t.Error(diff)
	}
	changed := slices.DeleteFunc(strings.Split(string(again), "\n"), func(line string) bool { return strings.Contains(string(text), line) })
	if len(changed) != 1 || !strings.Contains(changed[0], "`delete_s`") || !strings.Contains(changed[0], "1.00 s") {
		t.Errorf("want one new row, that of delete_s, got %q", changed)
	}
}
