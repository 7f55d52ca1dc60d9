package main

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// output is a piece of what Ginkgo prints, lines of specs cut out.
const output = `Running Suite: Kubernetes e2e suite - /src/sublet/.cache/bin
Will run 5 of 7579 specs
Running in parallel across 4 processes
------------------------------
[SynchronizedBeforeSuite] PASSED [0.021 seconds]
[SynchronizedBeforeSuite] 
/gopath/pkg/mod/k8s.io/kubernetes@v1.36.3/test/e2e/e2e.go:69
------------------------------
SSSSSSSS
------------------------------
• [0.047 seconds]
[sig-api-machinery] server version should find the server version [Conformance] [sig-api-machinery, Conformance]
/gopath/pkg/mod/k8s.io/kubernetes@v1.36.3/test/e2e/apimachinery/server_version.go:41

  Timeline >>
  STEP: Creating a kubernetes client @ 11/22/26 00:36:36.82
  << Timeline
------------------------------
S [SKIPPED] [0.201 seconds]
[sig-storage] PersistentVolumes [BeforeEach] need a plugin [sig-storage]
/gopath/pkg/mod/k8s.io/kubernetes@v1.36.3/test/e2e/storage/persistent_volumes.go:41
------------------------------
• [FAILED] [303.077 seconds]
[sig-api-machinery] Aggregator [It] Should be able to support the 1.17 Sample API Server using the current Aggregator [LinuxOnly] [Conformance] [sig-api-machinery, Conformance]
/gopath/pkg/mod/k8s.io/kubernetes@v1.36.3/test/e2e/apimachinery/aggregator.go:102

  Timeline >>
  [FAILED] in [It] - /gopath/pkg/mod/k8s.io/kubernetes@v1.36.3/test/e2e/apimachinery/aggregator.go:359 @ 11/22/26 00:41:39.241
  << Timeline

  [FAILED] deploying extension apiserver in namespace aggregator-7008: error waiting
  In [It] at: /gopath/pkg/mod/k8s.io/kubernetes@v1.36.3/test/e2e/apimachinery/aggregator.go:359 @ 11/22/26 00:41:39.241
------------------------------
[sig-apps] a spec of the serial phase: its name comes first [Serial] [Conformance] [sig-apps, Serial, Conformance]
/gopath/pkg/mod/k8s.io/kubernetes@v1.36.3/test/e2e/apps/cronjob.go:99
  STEP: Creating a kubernetes client @ 11/22/26 01:54:50.047
• [73.708 seconds]
------------------------------
• [INTERRUPTED] [8.1 seconds]
[sig-apps] CronJob [It] should not schedule jobs when suspended [Slow] [Conformance] [sig-apps, Slow, Conformance]
------------------------------
`

func TestWatch(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, "parallel")
	if err := watch(strings.NewReader(output), p); err != nil {
		t.Fatal(err)
	}
	if p.planned != 5 || p.passed != 2 || p.failed != 1 || p.others != 2 {
		t.Errorf("planned %d, passed %d, failed %d, others %d; want 5, 2, 1, 2", p.planned, p.passed, p.failed, p.others)
	}
	told := regexp.MustCompile(`after \d+s|, \d+s`).ReplaceAllString(out.String(), "")
	want := `parallel: 0 of 5 specs, 0 failed
✗ ` + aggregatorSpec + `
    FAILED ` + `
    deploying extension apiserver in namespace aggregator-7008: error waiting
parallel: 5 of 5 specs, 1 failed
`
	if told != want {
		t.Errorf("told:\n%s\nwant:\n%s", told, want)
	}
}

// TestPhases: every spec belongs to exactly one of the two phases.
func TestPhases(t *testing.T) {
	o := options{labels: conformanceLabel, procs: 6}
	phases := o.phases()
	if got := phases[0].labels; got != "(Conformance) && !Serial && !Slow && !Disruptive" {
		t.Errorf("parallel: %s", got)
	}
	if got := phases[1].labels; got != "(Conformance) && (Serial || Slow || Disruptive)" {
		t.Errorf("serial: %s", got)
	}
	if phases[0].procs != 6 || phases[1].procs != 1 {
		t.Errorf("%d and %d processes", phases[0].procs, phases[1].procs)
	}
	o.labels = ""
	if got := o.phases()[0].labels; got != "!Serial && !Slow && !Disruptive" {
		t.Errorf("parallel without labels: %s", got)
	}
}

func TestGinkgoArgs(t *testing.T) {
	o := options{root: "/src", focus: "Aggr", skip: "Slow", timeout: time.Hour}
	p := phase{name: "serial", labels: "Conformance", procs: 1}
	target := &target{kubeconfig: "/src/.host/kubeconfig"}
	focus := func(args []string) []string {
		return slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return !strings.HasPrefix(arg, "--focus=") })
	}
	args := o.ginkgoArgs(p, target, "/out", nil)
	for _, want := range []string{"--procs=1", "--focus=Aggr", "--skip=Slow", "--label-filter=Conformance", "--kubeconfig=/src/.host/kubeconfig", "--timeout=1h0m0s"} {
		if !slices.Contains(args, want) {
			t.Errorf("%s is not in %q", want, args)
		}
	}
	if slices.Index(args, "--skip=Slow") > slices.Index(args, "/src/.cache/bin/e2e.test") {
		t.Errorf("flags of Ginkgo stand behind the program: %q", args)
	}
	// A name is no expression, and no part of another name.
	named := focus(o.ginkgoArgs(p, target, "/out", []string{aggregatorSpec}))
	if len(named) != 1 {
		t.Fatalf("the focus is %q", named)
	}
	expression := regexp.MustCompile(strings.TrimPrefix(named[0], "--focus="))
	if !expression.MatchString(suiteName+" "+aggregatorSpec) || expression.MatchString(suiteName+" "+aggregatorSpec+" [Slow]") {
		t.Errorf("the focus is %s", expression)
	}
}
