package main

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/onsi/ginkgo/v2/reporters"
	"github.com/onsi/ginkgo/v2/types"
)

const (
	schemaSpec     = "[sig-api-machinery] FieldValidation should create/apply an invalid CR with extra properties for CRD with validation schema [Conformance]"
	aggregatorSpec = "[sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator [LinuxOnly] [Conformance]"
)

// TestSpecsOf reads a report that Ginkgo wrote, cut down to two specs that
// passed, one that failed and one that the filters left out.
func TestSpecsOf(t *testing.T) {
	r, err := readGinkgo("testdata/ginkgo.json")
	if err != nil {
		t.Fatal(err)
	}
	specs := specsOf("parallel", r)
	var got []string
	for _, s := range specs {
		if !s.Conformance || s.Phase != "parallel" || s.Seconds <= 0 || s.area() != "sig-api-machinery" {
			t.Errorf("got %+v", s)
		}
		got = append(got, string(s.State)+" "+s.Name)
	}
	want := []string{
		"passed " + r.SpecReports[0].FullText(),
		"passed " + r.SpecReports[1].FullText(),
		"failed " + aggregatorSpec,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	failure := specs[2]
	if failure.Location != "test/e2e/apimachinery/aggregator.go:359" {
		t.Errorf("it failed at %s", failure.Location)
	}
	if !strings.HasPrefix(failure.Message, "deploying extension apiserver in namespace aggregator-7008: error waiting") || len(failure.Message) > 260 {
		t.Errorf("it says %q", failure.Message)
	}
}

// TestSuiteFailure: when the setting up of the suite fails no spec runs, and the
// report must not look as if all were well.
func TestSuiteFailure(t *testing.T) {
	r := types.Report{SpecReports: types.SpecReports{
		{LeafNodeType: types.NodeTypeSynchronizedBeforeSuite, State: types.SpecStateFailed, NumAttempts: 1, Failure: types.Failure{Message: "no node is ready"}},
		{LeafNodeType: types.NodeTypeSynchronizedAfterSuite, State: types.SpecStatePassed, NumAttempts: 1},
		{LeafNodeType: types.NodeTypeIt, State: types.SpecStateSkipped, LeafNodeText: "never ran"},
		{LeafNodeType: types.NodeTypeIt, State: types.SpecStateSkipped, NumAttempts: 1, LeafNodeText: "left itself out"},
		{LeafNodeType: types.NodeTypeIt, State: types.SpecStateInterrupted, NumAttempts: 1, LeafNodeText: "was interrupted"},
		{LeafNodeType: types.NodeTypeIt, State: types.SpecStatePanicked, NumAttempts: 1, LeafNodeText: "panicked"},
	}}
	var kept types.SpecReports
	for _, s := range r.SpecReports {
		if ran(s) {
			kept = append(kept, s)
		}
	}
	var got []string
	for _, s := range specsOf("serial", types.Report{SpecReports: kept}) {
		got = append(got, string(s.State)+" "+s.Name+": "+s.Message)
	}
	want := []string{"failed [SynchronizedBeforeSuite]: no node is ready", "skipped left itself out: ", "failed panicked: "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestExcerpt(t *testing.T) {
	cases := map[string]struct{ message, want string }{
		"Short":   {"one\ntwo\n", "one\ntwo"},
		"Colours": {"\x1b[1m\x1b[38;5;9mfailed\x1b[0m here", "failed here"},
		"Wide":    {strings.Repeat("é", 300), strings.Repeat("é", 240) + "…"},
		"Long":    {strings.Repeat("line\n", 40), strings.Repeat("line\n", 12) + "…"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, excerpt(tc.message)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestMerge(t *testing.T) {
	before := report{
		Target: "tenant",
		Runs:   []attempt{{Command: "make conformance", Whole: true}},
		Specs: []spec{
			{Name: "a", State: failed}, {Name: "b", State: passed}, {Name: "c", State: failed, Earlier: 1},
		},
	}
	again := []spec{{Name: "a", State: passed}, {Name: "c", State: failed}, {Name: "d", State: passed}}
	cases := map[string]struct {
		reason string
		run    attempt
		want   report
	}{
		"Part": {
			reason: "What ran takes its earlier result's place, which is counted if it failed.",
			run:    attempt{Command: "make conformance FAILED=1"},
			want: report{
				Target: "tenant",
				Runs:   []attempt{{Command: "make conformance", Whole: true}, {Command: "make conformance FAILED=1"}},
				Specs: []spec{
					{Name: "a", State: passed, Earlier: 1}, {Name: "b", State: passed},
					{Name: "c", State: failed, Earlier: 2}, {Name: "d", State: passed},
				},
			},
		},
		"Whole": {
			reason: "A whole run owes nothing to earlier ones.",
			run:    attempt{Command: "make conformance", Whole: true},
			want:   report{Target: "tenant", Runs: []attempt{{Command: "make conformance", Whole: true}}, Specs: again},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, before.merge(tc.run, again)); diff != "" {
				t.Errorf("%s\n-want +got:\n%s", tc.reason, diff)
			}
		})
	}
	interrupted := attempt{Command: "make conformance", Interrupted: true}
	if merged := before.merge(interrupted, again); len(merged.Runs) != 2 || len(merged.Specs) <= len(again) {
		t.Errorf("what an interrupted run did not come to is forgotten: %+v", merged)
	}
	all := []spec{{Name: "0", State: passed}}
	for _, s := range before.Specs {
		all = append(all, spec{Name: s.Name, State: passed})
	}
	if diff := cmp.Diff(report{Target: "tenant", Runs: []attempt{interrupted}, Specs: all}, before.merge(interrupted, all)); diff != "" {
		t.Errorf("an interrupted run that came to all of them owes nothing to earlier ones\n-want +got:\n%s", diff)
	}
	if before.Specs[0].Earlier != 0 || len(before.Runs) != 1 {
		t.Errorf("the earlier report was changed: %+v", before)
	}
}

func TestReportFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := readReport(dir); err == nil {
		t.Error("a report was read that is not there")
	}
	want := report{
		Target: "host",
		Runs:   []attempt{{Command: "make conformance TENANT=", Started: time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC), Nodes: 2}},
		Specs:  []spec{{Name: "a", State: failed, Message: "no"}, {Name: "b", State: passed}},
	}
	if err := want.write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := readReport(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a"}, got.failed()); diff != "" {
		t.Errorf("failed, -want +got:\n%s", diff)
	}
}

// TestJUnit wants both phases in one file, and a failure to be one.
func TestJUnit(t *testing.T) {
	r, err := readGinkgo("testdata/ginkgo.json")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "junit.xml")
	if err := writeJUnit(path, []types.Report{r, r}); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var suites reporters.JUnitTestSuites
	if err := xml.Unmarshal(content, &suites); err != nil {
		t.Fatal(err)
	}
	if suites.Tests != 6 || suites.Failures != 2 {
		t.Errorf("%d tests, %d failures; want 6 and 2", suites.Tests, suites.Failures)
	}
	if cases := suites.TestSuites[0].TestCases; cases[2].Name != aggregatorSpec || cases[2].Failure == nil {
		t.Errorf("the third case is %q with failure %v", cases[2].Name, cases[2].Failure)
	}
}
