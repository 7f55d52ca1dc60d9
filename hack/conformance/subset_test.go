package main

import (
	"os"
	"slices"
	"testing"
)

// TestSubset: the subset is of conformance specs that there
// are in this Kubernetes, and leaves out no area.
func TestSubset(t *testing.T) {
	content, err := os.ReadFile("subset.txt")
	if err != nil {
		t.Fatal(err)
	}
	all, err := catalog()
	if err != nil {
		t.Fatal(err)
	}
	names := lines(string(content))
	if len(names) != 40 {
		t.Errorf("the subset has %d specs, want 40", len(names))
	}
	covered := map[string]bool{}
	for i, name := range names {
		if !slices.Contains(all, name) {
			t.Errorf("there is no conformance spec %q", name)
		}
		if slices.Contains(names[:i], name) {
			t.Errorf("twice: %q", name)
		}
		covered[spec{Name: name}.area()] = true
	}
	for _, name := range all {
		if area := (spec{Name: name}).area(); !covered[area] {
			t.Errorf("no spec of %s is in the subset", area)
			covered[area] = true
		}
	}
}

// TestBeyond: what goes beyond conformance is listed once, and leaves conformance out.
func TestBeyond(t *testing.T) {
	content, err := os.ReadFile("beyond.txt")
	if err != nil {
		t.Fatal(err)
	}
	conformance, err := catalog()
	if err != nil {
		t.Fatal(err)
	}
	names := lines(string(content))
	if len(names) == 0 {
		t.Fatal("no spec is listed")
	}
	for i, name := range names {
		if slices.Contains(conformance, name) {
			t.Errorf("is conformance: %q", name)
		}
		if slices.Contains(names[:i], name) {
			t.Errorf("twice: %q", name)
		}
		if area := (spec{Name: name}).area(); area == "other" {
			t.Errorf("of no area: %q", name)
		}
	}
}
