package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// suiteName stands before every name that Ginkgo compares with an expression.
const suiteName = "Kubernetes e2e suite"

// phase is one run of Ginkgo over the specs that its label filter admits.
type phase struct {
	name   string
	labels string
	procs  int
}

// phases are two: what bears neighbours, and what does not or takes long.
func (o options) phases() []phase {
	and := func(filter string) string {
		if o.labels == "" {
			return filter
		}
		return "(" + o.labels + ") && " + filter
	}
	return []phase{
		{name: "parallel", labels: and("!Serial && !Slow && !Disruptive"), procs: o.procs},
		{name: "serial", labels: and("(Serial || Slow || Disruptive)"), procs: 1},
	}
}

// ginkgoArgs are those of the ginkgo command. names are specs to focus on.
func (o options) ginkgoArgs(p phase, t *target, dir string, names []string) []string {
	args := []string{
		"run", "-v", "--no-color",
		fmt.Sprintf("--procs=%d", p.procs),
		"--timeout=" + o.timeout.String(),
		"--label-filter=" + p.labels,
		"--output-dir=" + dir,
		"--json-report=" + p.name + ".json",
	}
	// Several expressions are alternatives to each other, so that names were
	// already chosen by -focus.
	for _, name := range names {
		args = append(args, "--focus=^"+regexp.QuoteMeta(suiteName+" "+name)+"$")
	}
	if o.focus != "" && len(names) == 0 {
		args = append(args, "--focus="+o.focus)
	}
	if o.skip != "" {
		args = append(args, "--skip="+o.skip)
	}
	return append(args, o.path(".cache/bin/e2e.test"), "--", "--provider=skeleton", "--kubeconfig="+t.kubeconfig,
		fmt.Sprintf("--num-nodes=%d", nodeCount))
}

// runPhase runs it and tells how it goes. That specs failed is no error: the
// report has it.
func (o options) runPhase(ctx context.Context, out io.Writer, p phase, t *target, names []string) error {
	dir := o.dir(o.target())
	// What an earlier run left must not be taken for this one's.
	if err := os.Remove(filepath.Join(dir, p.name+".json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the last report: %w", err)
	}
	log, err := os.Create(filepath.Join(dir, p.name+".log"))
	if err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	defer log.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reader.Close()
	// Interrupted below, not by the context's kill: Ginkgo cleans up after the specs.
	cmd := o.inNode(context.WithoutCancel(ctx), t, o.path(".cache/bin/ginkgo"), o.ginkgoArgs(p, t, dir, names)...)
	cmd.Stdout, cmd.Stderr = writer, writer
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	writer.Close()
	if err != nil {
		return fmt.Errorf("start ginkgo: %w", err)
	}
	finished := make(chan struct{})
	go interrupt(ctx, cmd.Process.Pid, finished)
	watched := watch(io.TeeReader(reader, log), newProgress(out, p.name))
	err = cmd.Wait()
	close(finished)
	if watched != nil {
		return fmt.Errorf("follow the output of ginkgo: %w", watched)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", ctx.Err())
	}
	if _, statErr := os.Stat(filepath.Join(dir, p.name+".json")); statErr != nil {
		return fmt.Errorf("ginkgo wrote no report (%w); its output is in %s", errors.Join(err, statErr), log.Name())
	}
	return nil
}

// interrupt passes an interrupt on to Ginkgo and all its processes, which end
// their specs and clean up; and ends those that do not come to it.
func interrupt(ctx context.Context, group int, finished <-chan struct{}) {
	select {
	case <-finished:
		return
	case <-ctx.Done():
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		// There is nobody to tell of an error, and nothing but the next signal to do.
		_ = syscall.Kill(-group, signal)
		select {
		case <-finished:
			return
		case <-time.After(30 * time.Second):
		}
	}
}

// watch follows Ginkgo's output:
//
//	Will run 89 of 7579 specs
//	------------------------------
//	• [FAILED] [300.1 seconds]
//	[sig-api-machinery] Namespaces should … [Conformance] [sig-api-machinery, Conformance]
//	…
//	  [FAILED] Told to stop trying after 13.601s.
func watch(output io.Reader, p *progress) error {
	reader := bufio.NewReader(output)
	var state, name string
	told := true
	for {
		line, err := reader.ReadString('\n')
		line = strings.TrimRight(line, "\n")
		header := specHeader.FindStringSubmatch(line)
		planned := willRun.FindStringSubmatch(line)
		switch {
		case planned != nil:
			p.plan(planned[1])
		case header != nil:
			state, name, told = header[1], "", false
			if state == "" {
				state = "PASSED"
			}
		case !told && name == "":
			name = withoutLabels(line)
			p.spec(state, name)
			told = !isFailure(state)
		case !told && strings.HasPrefix(line, "  ["+state+"] ") && !strings.Contains(line, " in ["):
			p.reason(excerpt(strings.TrimPrefix(line, "  ["+state+"] ")))
			told = true
		}
		if errors.Is(err, io.EOF) {
			p.end()
			return nil
		}
		if err != nil {
			return err
		}
	}
}

var (
	specHeader = regexp.MustCompile(`^[•S] (?:\[([A-Z ]+)\] )?\[[0-9.]+ seconds\]$`)
	willRun    = regexp.MustCompile(`^Will run (\d+) of \d+ specs$`)
	labelList  = regexp.MustCompile(` \[[^\[\]]*\]$`)
)

// withoutLabels cuts off what Ginkgo adds to a name: its labels, and the node that
// failed.
func withoutLabels(line string) string {
	return strings.Replace(labelList.ReplaceAllString(line, ""), " [It] ", " ", 1)
}
