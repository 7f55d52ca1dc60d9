//go:build linux

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sublet-dev/sublet/bench/report"
)

func TestBaseline(t *testing.T) {
	was := map[string]float64{"process_heap_mib": 40, "process_goroutines": 1000, "process_writes_per_min": 0, "process_cpu_m": 5}
	cases := map[string]struct {
		now    map[string]float64
		says   []string
		reason string
	}{
		"the same":           {now: was},
		"a little worse":     {now: with(was, "process_heap_mib", 45.9), reason: "within 15 %"},
		"worse":              {now: with(was, "process_heap_mib", 46.1), says: []string{"process_heap_mib is 46.1 MiB, and was 40.0"}},
		"better":             {now: with(was, "process_heap_mib", 20)},
		"slower":             {now: with(was, "process_cpu_m", 50), reason: "depends on the machine"},
		"writes":             {now: with(was, "process_writes_per_min", 1), says: []string{"process_writes_per_min"}},
		"two worse":          {now: with(with(was, "process_heap_mib", 80), "process_goroutines", 2000), says: []string{"process_heap_mib", "process_goroutines"}},
		"without a baseline": {now: with(was, "process_boot_alloc_mib", 1), says: []string{"process_boot_alloc_mib has no baseline"}},
		"not measured":       {now: map[string]float64{"process_heap_mib": 40, "process_goroutines": 1000}, says: []string{"process_writes_per_min has a baseline and was not measured"}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "baseline.json")
			if err := writeBaseline(path, resultsOf(was)); err != nil {
				t.Fatal(err)
			}
			err := check(path, resultsOf(test.now))
			if err == nil {
				if len(test.says) > 0 {
					t.Errorf("no error, want one that says %q", test.says)
				}
				return
			}
			if len(test.says) == 0 {
				t.Errorf("error %q (%s)", err, test.reason)
			}
			for _, text := range test.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error %q does not say %q", err, text)
				}
			}
		})
	}
}

func with(figures map[string]float64, name string, value float64) map[string]float64 {
	changed := map[string]float64{name: value}
	for other, was := range figures {
		if other != name {
			changed[other] = was
		}
	}
	return changed
}

func resultsOf(values map[string]float64) []report.Result {
	var results []report.Result
	for name, value := range values {
		results = append(results, report.New(name, "", []float64{value}, nil))
	}
	return results
}
