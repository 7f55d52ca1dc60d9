//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/sublet-dev/sublet/bench/report"
)

// tolerance is how much worse than its baseline a figure may be.
const tolerance = 0.15

// slack is how much worse a figure may be that is too small for a part of it to
// mean anything.
func slack(name string) float64 {
	if name == "process_writes_per_min" {
		return 0.5
	}
	return 0
}

func writeBaseline(path string, results []report.Result) error {
	baseline := map[string]float64{}
	for _, r := range results {
		if isSteady(r) {
			baseline[r.Name] = r.Value
		}
	}
	content, err := json.MarshalIndent(baseline, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(content, '\n'), 0o644)
}

// check returns an error for each figure that is worse than its baseline, or
// has none.
func check(path string, results []report.Result) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the baseline: %w", err)
	}
	baseline := map[string]float64{}
	if err := json.Unmarshal(content, &baseline); err != nil {
		return fmt.Errorf("read the baseline %s: %w", path, err)
	}
	var errs []error
	measured := map[string]bool{}
	for _, r := range results {
		if !isSteady(r) {
			continue
		}
		measured[r.Name] = true
		was, ok := baseline[r.Name]
		if !ok {
			errs = append(errs, fmt.Errorf("%s has no baseline: renew it with make bench-baseline", r.Name))
			continue
		}
		if limit := was*(1+tolerance) + slack(r.Name); r.Value > limit {
			errs = append(errs, fmt.Errorf("%s is %s %s, and was %s: find out why (-profiles DIR shows where), or renew the baseline with make bench-baseline",
				r.Name, report.Number(&r.Value), r.Unit, report.Number(&was)))
		}
	}
	for name := range baseline {
		if !measured[name] {
			errs = append(errs, fmt.Errorf("%s has a baseline and was not measured", name))
		}
	}
	return errors.Join(errs...)
}
