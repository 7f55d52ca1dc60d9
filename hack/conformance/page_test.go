package main

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files anew")

// TestPage renders two small reports: every case of a failure is among them.
func TestPage(t *testing.T) {
	p := page{catalog: []string{
		"[sig-apps] both fail [Conformance]", "[sig-apps] no reason | and `marks` [Conformance]", "[sig-apps] passes [Conformance]",
		"[sig-node] again [Conformance]", "[sig-node] leaves itself out [Conformance]", "[sig-node] never run [Conformance]",
	}}
	for _, side := range []struct {
		dir  string
		into **report
	}{{"testdata/host", &p.host}, {"testdata/tenant", &p.tenant}} {
		r, err := readReport(side.dir)
		if err != nil {
			t.Fatal(err)
		}
		*side.into = &r
	}
	content, err := os.ReadFile("testdata/reasons.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if p.reasons, err = parseReasons(content); err != nil {
		t.Fatal(err)
	}
	got := p.render()
	if *update {
		if err := os.WriteFile("testdata/page.md", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/page.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got (go test -update, if it should be so):\n%s", diff)
	}
}

// TestPageWithoutReports must not read as if nothing failed.
func TestPageWithoutReports(t *testing.T) {
	got := page{catalog: []string{"a"}}.render()
	if !strings.Contains(got, "There is no report yet.") || strings.Contains(got, "## Failures") {
		t.Errorf("the page says:\n%s", got)
	}
}

func TestReasons(t *testing.T) {
	cases := map[string]struct {
		content string
		fails   bool
	}{
		"Good":      {"reasons: [{spec: a, why: b, takes: c}, {spec: d, target: host, why: b, takes: c}, {spec: d, target: tenant, why: b, takes: c}]", false},
		"NoWhy":     {"reasons: [{spec: a, takes: c}]", true},
		"NoTakes":   {"reasons: [{spec: a, why: c}]", true},
		"BadTarget": {"reasons: [{spec: a, why: b, takes: c, target: moon}]", true},
		"Twice":     {"reasons: [{spec: a, why: b, takes: c}, {spec: a, why: b, takes: c}]", true},
		"Typo":      {"reasons: [{spec: a, why: b, take: c}]", true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := parseReasons([]byte(tc.content)); (err != nil) != tc.fails {
				t.Errorf("parseReasons() = %v", err)
			}
		})
	}
}

// TestPublishedPage holds docs/conformance.md against the reasons: each failure on
// it has the reason that is known, and no reason explains what is not on it.
func TestPublishedPage(t *testing.T) {
	content, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	reasons, err := parseReasons(reasonsFile)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	blocks := regexp.MustCompile("(?m)^\\*\\*(`.+`)\\*\\*, (tenant|bare local host)[^\n]*\n\n((?:- .+\n)+)").FindAllStringSubmatch(string(content), -1)
	for _, block := range blocks {
		target := strings.TrimPrefix(block[2], "bare local ")
		index := slices.IndexFunc(reasons, func(r reason) bool { return code(r.Spec) == block[1] && (r.Target == "" || r.Target == target) })
		if index < 0 {
			if !strings.HasPrefix(block[3], "- Not explained.") {
				t.Errorf("the page explains %s, and reasons.yaml does not: make conformance-page", block[1])
			}
			continue
		}
		used[reasons[index].Target+"/"+reasons[index].Spec] = true
		if want := reasons[index].text(); block[3] != want {
			t.Errorf("of %s the page says\n%sand reasons.yaml\n%s: make conformance-page", block[1], block[3], want)
		}
	}
	if listed := strings.Count(string(content), "\n**`"); listed != len(blocks) {
		t.Errorf("the page has %d failures, of which %d can be read", listed, len(blocks))
	}
	for _, r := range reasons {
		if !used[r.Target+"/"+r.Spec] {
			t.Errorf("reasons.yaml explains %s, which does not fail on the page", r.Spec)
		}
	}
}
