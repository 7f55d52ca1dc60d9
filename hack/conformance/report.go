package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2/reporters"
	"github.com/onsi/ginkgo/v2/types"
)

const reportFile = "report.json"

// report is what is known of one target: the last run of everything, and what was
// run again or beside it since.
type report struct {
	Target string    `json:"target"`
	Runs   []attempt `json:"runs"`
	Specs  []spec    `json:"specs"`
}

// attempt is one run.
type attempt struct {
	Command string    `json:"command"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Whole   bool      `json:"whole,omitempty"`
	// Interrupted is a run that did not come to its end.
	Interrupted bool   `json:"interrupted,omitempty"`
	Kubernetes  string `json:"kubernetes"`
	Sublet      string `json:"sublet"`
	Nodes       int    `json:"nodes"`
	CPUs        int    `json:"cpus"`
	Procs       int    `json:"procs"`
	Passed      int    `json:"passed"`
	Failed      int    `json:"failed"`
	Skipped     int    `json:"skipped"`
}

// state is how a spec ended.
type state string

const (
	passed  state = "passed"
	failed  state = "failed"
	skipped state = "skipped"
)

// spec is one that was run, as it ended last.
type spec struct {
	Name        string  `json:"name"`
	Conformance bool    `json:"conformance,omitempty"`
	State       state   `json:"state"`
	Seconds     float64 `json:"seconds"`
	Phase       string  `json:"phase"`
	// Earlier counts the runs before this one, since the last whole one, in which
	// it failed.
	Earlier  int    `json:"earlier,omitempty"`
	Message  string `json:"message,omitempty"`
	Location string `json:"location,omitempty"`
}

// area is the special interest group that a name begins with.
func (s spec) area() string {
	area, _, found := strings.Cut(strings.TrimPrefix(s.Name, "["), "]")
	if !found || !strings.HasPrefix(s.Name, "[") {
		return "other"
	}
	return area
}

func (r report) failed() []string {
	var names []string
	for _, s := range r.Specs {
		if s.State == failed {
			names = append(names, s.Name)
		}
	}
	return names
}

func (r report) find(name string) (spec, bool) {
	index, found := slices.BinarySearchFunc(r.Specs, name, func(s spec, name string) int { return cmp.Compare(s.Name, name) })
	if !found {
		return spec{}, false
	}
	return r.Specs[index], true
}

// merge puts a run into the report. A whole run is the report from then on, and so
// is one that was interrupted when it had run all that the report knows.
func (r report) merge(run attempt, specs []spec) report {
	merged := report{Target: r.Target, Runs: []attempt{run}}
	byName := map[string]spec{}
	if !run.Whole && !(run.Interrupted && covers(specs, r.Specs)) {
		merged.Runs = append(slices.Clone(r.Runs), run)
		for _, s := range r.Specs {
			byName[s.Name] = s
		}
	}
	for _, s := range specs {
		if before, known := byName[s.Name]; known {
			s.Earlier = before.Earlier
			if before.State == failed {
				s.Earlier++
			}
		}
		byName[s.Name] = s
	}
	for _, s := range byName {
		merged.Specs = append(merged.Specs, s)
	}
	slices.SortFunc(merged.Specs, func(a, b spec) int { return cmp.Compare(a.Name, b.Name) })
	return merged
}

// covers says whether all of the old specs are among the new ones.
func covers(specs, old []spec) bool {
	ran := map[string]bool{}
	for _, s := range specs {
		ran[s.Name] = true
	}
	return !slices.ContainsFunc(old, func(s spec) bool { return !ran[s.Name] })
}

// errNoReport is that of a target that was never run.
var errNoReport = errors.New("there is no report yet")

func readReport(dir string) (report, error) {
	var r report
	content, err := os.ReadFile(filepath.Join(dir, reportFile))
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("%w in %s: run make conformance", errNoReport, dir)
	}
	if err != nil {
		return r, fmt.Errorf("read the last report: %w", err)
	}
	if err := json.Unmarshal(content, &r); err != nil {
		return r, fmt.Errorf("read the last report in %s: %w", dir, err)
	}
	return r, nil
}

func (r report) write(dir string) error {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, reportFile), append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// readGinkgo reads the report of one phase, without the thousands of specs that
// the filters left out.
func readGinkgo(path string) (types.Report, error) {
	var reports []types.Report
	content, err := os.ReadFile(path)
	if err != nil {
		return types.Report{}, fmt.Errorf("read Ginkgo's report: %w", err)
	}
	if err := json.Unmarshal(content, &reports); err != nil {
		return types.Report{}, fmt.Errorf("read Ginkgo's report %s: %w", path, err)
	}
	if len(reports) != 1 {
		return types.Report{}, fmt.Errorf("Ginkgo's report %s has %d suites, not one", path, len(reports))
	}
	r := reports[0]
	r.SpecReports = slices.DeleteFunc(r.SpecReports, func(s types.SpecReport) bool { return !ran(s) })
	return r, nil
}

// ran says whether a spec was brought to an end, or the setting up of all of them
// failed.
func ran(s types.SpecReport) bool {
	if s.State.Is(types.SpecStateInterrupted | types.SpecStateAborted) {
		return false
	}
	if s.LeafNodeType != types.NodeTypeIt {
		return s.Failed()
	}
	return s.NumAttempts > 0
}

// specsOf are those that a phase ran. What is wrong with the suite as a whole
// stands among them.
func specsOf(phase string, r types.Report) []spec {
	var specs []spec
	for _, from := range r.SpecReports {
		s := spec{
			Name:        from.FullText(),
			Conformance: slices.Contains(from.Labels(), conformanceLabel),
			State:       passed,
			Seconds:     from.RunTime.Round(time.Millisecond).Seconds(),
			Phase:       phase,
		}
		if s.Name == "" {
			s.Name = "[" + from.LeafNodeType.String() + "]"
		}
		switch {
		case from.Failed():
			s.State = failed
			s.Message = excerpt(from.Failure.Message)
			s.Location = location(from.Failure.Location)
		case from.State == types.SpecStateSkipped:
			s.State = skipped
			s.Message = excerpt(from.Failure.Message)
		}
		specs = append(specs, s)
	}
	return specs
}

// excerpt is the part of a message that a reader needs: its first lines, without
// the dumps of whole objects that some specs append.
func excerpt(message string) string {
	const count, width = 12, 240
	message = escapes.ReplaceAllString(message, "")
	var kept []string
	for line := range strings.Lines(strings.TrimSpace(message)) {
		if len(kept) == count {
			kept = append(kept, "…")
			break
		}
		line = strings.TrimRight(line, " \n")
		if runes := []rune(line); len(runes) > width {
			line = string(runes[:width]) + "…"
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "\n")
}

var escapes = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// location is a file and line as the suite's own sources have it.
func location(l types.CodeLocation) string {
	file := l.FileName
	if _, inside, found := strings.Cut(file, "k8s.io/kubernetes@"); found {
		_, file, _ = strings.Cut(inside, "/")
	}
	return fmt.Sprintf("%s:%d", file, l.LineNumber)
}

// writeJUnit writes all phases of a run as one file.
func writeJUnit(path string, phases []types.Report) error {
	if len(phases) == 0 {
		return nil
	}
	all := phases[0]
	for _, p := range phases[1:] {
		all.SpecReports = append(slices.Clone(all.SpecReports), p.SpecReports...)
		all.RunTime += p.RunTime
		all.SuiteSucceeded = all.SuiteSucceeded && p.SuiteSucceeded
		all.EndTime = p.EndTime
	}
	err := reporters.GenerateJUnitReportWithConfig(all, path, reporters.JunitReportConfig{
		// The logs have them, and they are long.
		OmitTimelinesForSpecState: types.SpecStatePassed | types.SpecStateSkipped,
		OmitSpecLabels:            true,
		OmitLeafNodeType:          true,
	})
	if err != nil {
		return fmt.Errorf("write the JUnit report: %w", err)
	}
	return nil
}
