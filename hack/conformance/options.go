package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// conformanceLabel is what the suite labels its conformance specs with.
const conformanceLabel = "Conformance"

// errNotAllPassed is told by the exit code only: the table has said it already.
var errNotAllPassed = errors.New("not all specs passed")

// options are those of the command line.
type options struct {
	root   string
	out    string
	tenant string
	keep   bool
	ready  bool

	focus, skip, labels string
	specs               string
	failed              bool

	procs   int
	timeout time.Duration
	page    string
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if o.page != "" {
		return o.writePage()
	}
	return o.test(ctx, out)
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	flags.StringVar(&o.root, "root", ".", "the checkout")
	flags.StringVar(&o.out, "out", "bench/out/conformance", "directory for the results, below the checkout")
	flags.StringVar(&o.tenant, "tenant", "conformance", "tenant to test: made for the run and deleted, unless it is there already; empty for the bare local host")
	flags.BoolVar(&o.keep, "keep", false, "do not delete the tenant, to look around in it")
	flags.BoolVar(&o.ready, "ready", false, "the local host is up with Sublet on it: leave it as it is")
	flags.StringVar(&o.focus, "focus", "", "only specs whose name this regular expression matches")
	flags.StringVar(&o.skip, "skip", "", "no specs whose name this regular expression matches")
	flags.StringVar(&o.labels, "labels", conformanceLabel, "only specs that this Ginkgo label filter matches; empty for all")
	flags.StringVar(&o.specs, "specs", "", "only the specs named in this file, a name a line")
	flags.BoolVar(&o.failed, "failed", false, "only what failed in the last report")
	flags.IntVar(&o.procs, "procs", 4, "specs to run side by side")
	flags.DurationVar(&o.timeout, "timeout", 3*time.Hour, "time for each of the two phases")
	flags.StringVar(&o.page, "page", "", "run nothing, but render the last reports of host and tenant as this page, below the checkout")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("there are flags only, and %q is none", flags.Arg(0))
	}
	for name, expression := range map[string]string{"focus": o.focus, "skip": o.skip} {
		if _, err := regexp.Compile(expression); err != nil {
			return o, fmt.Errorf("-%s is no regular expression: %w", name, err)
		}
	}
	if o.failed && o.specs != "" {
		return o, errors.New("-failed and -specs both say which specs to run: give one of them")
	}
	var err error
	if o.root, err = filepath.Abs(o.root); err != nil {
		return o, fmt.Errorf("find the checkout: %w", err)
	}
	return o, nil
}

// whole says whether the options leave out nothing of conformance.
func (o options) whole() bool {
	return o.labels == conformanceLabel && o.focus == "" && o.skip == "" && o.specs == "" && !o.failed
}

// target is the side that is tested, and the directory of its results.
func (o options) target() string {
	if o.tenant == "" {
		return "host"
	}
	return "tenant"
}

func (o options) path(relative string) string { return filepath.Join(o.root, relative) }

func (o options) dir(target string) string { return filepath.Join(o.root, o.out, target) }

// describe is the run as somebody would start it again.
func (o options) describe() string {
	words := []string{"make conformance"}
	add := func(name, value string, given bool) {
		if given {
			words = append(words, name+"="+quoteShell(value))
		}
	}
	add("TENANT", "", o.tenant == "")
	add("FOCUS", o.focus, o.focus != "")
	add("SKIP", o.skip, o.skip != "")
	add("LABELS", o.labels, o.labels != conformanceLabel)
	add("SPECS", o.specs, o.specs != "")
	add("FAILED", "1", o.failed)
	return strings.Join(words, " ")
}

func quoteShell(value string) string {
	if regexp.MustCompile(`^[\w./:-]*$`).MatchString(value) {
		return value
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// names returns the specs that are to be run, or nothing if that is not said by
// name.
func (o options) names() ([]string, error) {
	switch {
	case o.failed:
		last, err := readReport(o.dir(o.target()))
		if err != nil {
			return nil, err
		}
		return o.choose(last.failed(), "failed in the last report of the "+o.target())
	case o.specs != "":
		content, err := os.ReadFile(o.specs)
		if err != nil {
			return nil, fmt.Errorf("read which specs to run: %w", err)
		}
		return o.choose(lines(string(content)), "is named in "+o.specs)
	}
	return nil, nil
}

// choose keeps the names that the focus matches.
func (o options) choose(names []string, how string) ([]string, error) {
	focus, err := regexp.Compile(o.focus)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !focus.MatchString(name) })
	if len(names) == 0 {
		return nil, fmt.Errorf("there is nothing to run: no spec that the focus %q matches %s", o.focus, how)
	}
	return names, nil
}

// lines are those of a file that are neither empty nor comments.
func lines(content string) []string {
	var found []string
	for line := range strings.Lines(content) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			found = append(found, line)
		}
	}
	return found
}
