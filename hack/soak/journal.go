package main

import (
	"fmt"
	"sync"
	"time"
)

// key is one object in the tenant.
type key struct {
	form, namespace, name string
}

func (k key) String() string { return k.form + " " + k.namespace + "/" + k.name }

// absent is the revision of what is not there.
const absent = ""

// entry is what is known of an object: the revision that was acknowledged last,
// and those that writes would have made of which nobody knows what became.
type entry struct {
	acknowledged string
	possible     map[string]bool
	// until is how long the object is left alone: a write that was not answered
	// may still be on its way.
	until time.Time
}

// journal records what writers were told. Each object has one writer.
type journal struct {
	mu      sync.Mutex
	entries map[key]*entry
	// Totals.
	writes, refused, unknown int
}

func newJournal() *journal { return &journal{entries: map[key]*entry{}} }

// patience is longer than any request can take on the server.
const patience = time.Minute

// state returns the revision that was acknowledged last, whether the object may
// be written now, and whether one has to look first what became of a write.
func (j *journal) state(k key, now time.Time) (revision string, free, unsure bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := j.entries[k]
	if e == nil {
		return absent, true, false
	}
	return e.acknowledged, !now.Before(e.until), len(e.possible) > 0
}

// acknowledge records a write that was answered with yes.
func (j *journal) acknowledge(k key, revision string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writes++
	j.entries[k] = &entry{acknowledged: revision}
}

// refuse records a write that was answered with no, and changed nothing.
func (j *journal) refuse() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.refused++
}

// lose records a write that was not answered.
func (j *journal) lose(k key, revision string, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.unknown++
	e := j.entries[k]
	if e == nil {
		e = &entry{}
		j.entries[k] = e
	}
	if e.possible == nil {
		e.possible = map[string]bool{}
	}
	e.possible[revision] = true
	e.until = now.Add(patience)
}

// learn replaces what is possible by what was read, long after the last write.
// What is neither acknowledged nor possible stays for check to find.
func (j *journal) learn(k key, revision string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := j.entries[k]
	if e.possible[revision] || e.acknowledged == revision {
		e.acknowledged, e.possible = revision, nil
	}
}

// check compares the journal with what is there: revision of each object found.
// excused tells which objects may be gone for another reason.
func (j *journal) check(found map[key]string, excused func(key) bool) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var problems []string
	for k, e := range j.entries {
		got := found[k]
		if got == e.acknowledged || e.possible[got] || got == absent && excused(k) {
			continue
		}
		problems = append(problems, fmt.Sprintf("%s: acknowledged was %s, and now it is %s", k, say(e.acknowledged), say(got)))
	}
	for k, got := range found {
		if j.entries[k] == nil {
			problems = append(problems, fmt.Sprintf("%s: nobody wrote it, and it is there with %s", k, say(got)))
		}
	}
	return problems
}

func say(revision string) string {
	if revision == absent {
		return "absent"
	}
	return "revision " + revision
}

// count is how many writes were acknowledged so far.
func (j *journal) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.writes
}
