package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestJournal(t *testing.T) {
	k := key{"ConfigMap", "a", "x"}
	now := time.Unix(1000, 0)
	cases := map[string]struct {
		do      func(*journal)
		found   map[key]string
		excused bool
		want    []string
	}{
		"as acknowledged":              {do: func(j *journal) { j.acknowledge(k, "1") }, found: map[key]string{k: "1"}},
		"an acknowledged write gone":   {do: func(j *journal) { j.acknowledge(k, "1"); j.acknowledge(k, "2") }, found: map[key]string{k: "1"}, want: []string{"ConfigMap a/x: acknowledged was revision 2, and now it is revision 1"}},
		"an acknowledged object gone":  {do: func(j *journal) { j.acknowledge(k, "1") }, want: []string{"ConfigMap a/x: acknowledged was revision 1, and now it is absent"}},
		"gone for a reason":            {do: func(j *journal) { j.acknowledge(k, "1") }, excused: true},
		"back from the dead":           {do: func(j *journal) { j.acknowledge(k, "1"); j.acknowledge(k, absent) }, found: map[key]string{k: "1"}, want: []string{"ConfigMap a/x: acknowledged was absent, and now it is revision 1"}},
		"a lost write came":            {do: func(j *journal) { j.acknowledge(k, "1"); j.lose(k, "2", now) }, found: map[key]string{k: "2"}},
		"a lost write did not":         {do: func(j *journal) { j.acknowledge(k, "1"); j.lose(k, "2", now) }, found: map[key]string{k: "1"}},
		"a lost delete came":           {do: func(j *journal) { j.acknowledge(k, "1"); j.lose(k, absent, now) }},
		"something else came":          {do: func(j *journal) { j.acknowledge(k, "1"); j.lose(k, "2", now) }, found: map[key]string{k: "3"}, want: []string{"ConfigMap a/x: acknowledged was revision 1, and now it is revision 3"}},
		"what was possible is settled": {do: func(j *journal) { j.acknowledge(k, "1"); j.lose(k, "2", now); j.learn(k, "2") }, found: map[key]string{k: "1"}, want: []string{"ConfigMap a/x: acknowledged was revision 2, and now it is revision 1"}},
		"what nobody wrote":            {do: func(*journal) {}, found: map[key]string{k: "1"}, want: []string{"ConfigMap a/x: nobody wrote it, and it is there with revision 1"}},
	}
	for reason, tc := range cases {
		t.Run(reason, func(t *testing.T) {
			j := newJournal()
			tc.do(j)
			if diff := cmp.Diff(tc.want, j.check(tc.found, func(key) bool { return tc.excused })); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestJournalWaits: an object whose last write was not answered is left alone.
func TestJournalWaits(t *testing.T) {
	j, k, now := newJournal(), key{"ConfigMap", "a", "x"}, time.Unix(1000, 0)
	if _, free, unsure := j.state(k, now); !free || unsure {
		t.Error("a new object is not free")
	}
	j.lose(k, "1", now)
	if _, free, _ := j.state(k, now.Add(patience-time.Second)); free {
		t.Error("free before the write must have ended")
	}
	if _, free, unsure := j.state(k, now.Add(patience)); !free || !unsure {
		t.Error("never free again, or taken for sure")
	}
	j.learn(k, "1")
	if revision, free, unsure := j.state(k, now.Add(patience)); revision != "1" || !free || unsure {
		t.Errorf("after a look it is %q, free %v, unsure %v", revision, free, unsure)
	}
}
