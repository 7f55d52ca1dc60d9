package main

import (
	"maps"
	"slices"
	"strings"
)

// area sums up the specs of one special interest group.
type area struct {
	name                    string
	passed, failed, skipped int
	seconds                 float64
}

func (a *area) add(s spec) {
	a.seconds += s.Seconds
	switch s.State {
	case passed:
		a.passed++
	case failed:
		a.failed++
	case skipped:
		a.skipped++
	}
}

// areas are sorted by name, with the sum of all at the end.
func areas(specs []spec) []area {
	byName := map[string]*area{}
	all := area{name: "all"}
	for _, s := range specs {
		if byName[s.area()] == nil {
			byName[s.area()] = &area{name: s.area()}
		}
		byName[s.area()].add(s)
		all.add(s)
	}
	var rows []area
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		rows = append(rows, *byName[name])
	}
	return append(rows, all)
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(text, "\n", "\n"+by)
}
