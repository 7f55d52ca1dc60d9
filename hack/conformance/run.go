package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/onsi/ginkgo/v2/types"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sublet-dev/sublet/pkg/version"
)

// test runs the phases and reports on them.
func (o options) test(ctx context.Context, out io.Writer) (err error) {
	names, err := o.names()
	if err != nil {
		return err
	}
	dir := o.dir(o.target())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the directory for results: %w", err)
	}
	last, err := readReport(dir)
	if err != nil && !errors.Is(err, errNoReport) {
		return err
	}
	last.Target = o.target()
	t, err := o.prepare(ctx, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()

	run, err := o.attempt(ctx, t)
	if err != nil {
		return err
	}
	var specs []spec
	var reports []types.Report
	for _, p := range o.phases() {
		if err := o.runPhase(ctx, out, p, t, names); err != nil {
			return err
		}
		r, err := readGinkgo(filepath.Join(dir, p.name+".json"))
		if err != nil {
			return err
		}
		// It is long, with all specs that did not run; the report has the others.
		if err := os.Remove(filepath.Join(dir, p.name+".json")); err != nil {
			return fmt.Errorf("remove Ginkgo's report: %w", err)
		}
		reports = append(reports, r)
		specs = append(specs, specsOf(p.name, r)...)
	}
	run.finish(specs)
	if len(specs) == 0 {
		return errors.New("no spec ran: the focus, the labels or the names match none")
	}
	merged := last.merge(run, specs)
	if err := errors.Join(merged.write(dir), writeJUnit(filepath.Join(dir, "junit.xml"), reports)); err != nil {
		return err
	}
	if err := writeTable(out, specs); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped in %s; %s has the reports and logs\n",
		run.Passed, run.Failed, run.Skipped, (time.Duration(run.Seconds) * time.Second).String(), dir)
	if run.Failed > 0 {
		return errNotAllPassed
	}
	return nil
}

// attempt describes the run that begins.
func (o options) attempt(ctx context.Context, t *target) (attempt, error) {
	nodes, err := t.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return attempt{}, fmt.Errorf("list the host's nodes: %w", err)
	}
	kubernetes, err := t.client.Discovery().ServerVersion()
	if err != nil {
		return attempt{}, fmt.Errorf("ask the host for its version: %w", err)
	}
	sublet := version.Get()
	run := attempt{
		Command:    o.describe(),
		Started:    time.Now().UTC().Truncate(time.Second),
		Whole:      o.whole(),
		Kubernetes: kubernetes.GitVersion,
		Sublet:     sublet.Version,
		Nodes:      len(nodes.Items),
		CPUs:       runtime.NumCPU(),
		Procs:      o.procs,
	}
	if len(sublet.Commit) >= 12 {
		run.Sublet += " (" + sublet.Commit[:12] + ")"
	}
	return run, nil
}

func (a *attempt) finish(specs []spec) {
	a.Seconds = time.Since(a.Started).Round(time.Second).Seconds()
	for _, s := range specs {
		switch s.State {
		case passed:
			a.Passed++
		case failed:
			a.Failed++
		case skipped:
			a.Skipped++
		}
	}
}

// writeTable lists the areas, and each failure with what it said.
func writeTable(out io.Writer, specs []spec) error {
	for _, s := range specs {
		if s.State == failed {
			fmt.Fprintf(out, "\n✗ %s\n  %s\n%s\n", s.Name, s.Location, indent(s.Message, "    "))
		}
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "AREA\tPASSED\tFAILED\tSKIPPED\tMINUTES")
	for _, row := range areas(specs) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%.1f\n", row.name, row.passed, row.failed, row.skipped, row.seconds/60)
	}
	return w.Flush()
}
