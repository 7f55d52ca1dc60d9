package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	cases := map[string]struct {
		reason  string
		args    []string
		target  string
		whole   bool
		command string
		fails   bool
	}{
		"Defaults":  {reason: "All of conformance, in a tenant.", target: "tenant", whole: true, command: "make conformance"},
		"Host":      {reason: "No tenant is the bare host.", args: []string{"-tenant", ""}, target: "host", whole: true, command: "make conformance TENANT="},
		"Focus":     {reason: "A part is not the whole.", args: []string{"-focus", "a|b", "-skip", "it's"}, target: "tenant", command: `make conformance FOCUS='a|b' SKIP='it'\''s'`},
		"Labels":    {reason: "Other specs are not conformance.", args: []string{"-labels", ""}, target: "tenant", command: "make conformance LABELS="},
		"Failed":    {reason: "What failed is a part.", args: []string{"-failed"}, target: "tenant", command: "make conformance FAILED=1"},
		"BadFocus":  {reason: "An expression that does not parse is told before anything is built.", args: []string{"-focus", "("}, fails: true},
		"BadSkip":   {reason: "The same for the other one.", args: []string{"-skip", "["}, fails: true},
		"TwoLists":  {reason: "Both would say what to run.", args: []string{"-failed", "-specs", "x"}, fails: true},
		"Arguments": {reason: "A forgotten dash must not run everything.", args: []string{"focus"}, fails: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			o, err := parse(tc.args)
			if tc.fails {
				if err == nil {
					t.Fatalf("%s\nparse(%q) succeeded", tc.reason, tc.args)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s\nparse(%q): %v", tc.reason, tc.args, err)
			}
			if o.target() != tc.target || o.whole() != tc.whole || o.describe() != tc.command {
				t.Errorf("%s\ntarget %s, whole %v, command %s", tc.reason, o.target(), o.whole(), o.describe())
			}
		})
	}
}

func TestNames(t *testing.T) {
	dir := t.TempDir()
	o := options{root: dir, out: "out"}
	last := report{Specs: []spec{{Name: "a", State: failed}, {Name: "b", State: passed}, {Name: "c", State: failed}}}
	if err := os.MkdirAll(o.dir("host"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := last.write(o.dir("host")); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "list.txt")
	if err := os.WriteFile(list, []byte("# these\n\nd\n  e\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		reason string
		o      options
		want   []string
		fails  bool
	}{
		"Expressions": {reason: "Without a list the expressions say it all.", o: options{focus: "x"}},
		"Failed":      {reason: "What failed last.", o: options{failed: true}, want: []string{"a", "c"}},
		"FailedFocus": {reason: "Of that, what the focus matches.", o: options{failed: true, focus: "c"}, want: []string{"c"}},
		"List":        {reason: "A file, but for comments.", o: options{specs: list}, want: []string{"d", "e"}},
		"Nothing":     {reason: "Nothing chosen would mean everything to Ginkgo.", o: options{specs: list, focus: "x"}, fails: true},
		"NoReport":    {reason: "There is nothing to run again.", o: options{failed: true, tenant: "acme"}, fails: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tc.o.root, tc.o.out = o.root, o.out
			got, err := tc.o.names()
			if (err != nil) != tc.fails {
				t.Fatalf("%s\nnames() = %v", tc.reason, err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\n-want +got:\n%s", tc.reason, diff)
			}
		})
	}
}
