package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	specs, reports, err := o.runPhases(ctx, out, t, names)
	// What was interrupted is no result; what had ended before is one.
	run.Whole, run.Interrupted = run.Whole && err == nil, ctx.Err() != nil
	run.finish(specs)
	if len(specs) == 0 && err == nil {
		err = errors.New("no spec ran: the focus, the labels or the names match none")
	}
	if len(specs) == 0 {
		return err
	}
	merged := last.merge(run, specs)
	err = errors.Join(err, merged.write(dir), writeJUnit(filepath.Join(dir, "junit.xml"), reports), writeTable(out, specs))
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped in %s; %s has the reports and logs\n",
		run.Passed, run.Failed, run.Skipped, (time.Duration(run.Seconds) * time.Second).String(), dir)
	if err == nil && run.Failed > 0 {
		err = errNotAllPassed
	}
	return err
}

// runPhases runs one after the other. With an error comes what ran before it.
func (o options) runPhases(ctx context.Context, out io.Writer, t *target, names []string) ([]spec, []types.Report, error) {
	var specs []spec
	var reports []types.Report
	for _, p := range o.phases() {
		phaseErr := o.runPhase(ctx, out, p, t, names)
		path := filepath.Join(o.dir(o.target()), p.name+".json")
		r, err := readGinkgo(path)
		if errors.Is(err, fs.ErrNotExist) && phaseErr != nil {
			return specs, reports, phaseErr
		}
		// It is long, with all specs that did not run; our report has the others.
		if err := errors.Join(phaseErr, err, os.Remove(path)); err != nil && ctx.Err() == nil {
			return specs, reports, err
		}
		reports = append(reports, r)
		specs = append(specs, specsOf(p.name, r)...)
		if ctx.Err() != nil {
			return specs, reports, phaseErr
		}
	}
	return specs, reports, nil
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
