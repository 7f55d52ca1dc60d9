package controlplane

import (
	"testing"
	"time"
)

// TestPace checks that the heap of an idle process may grow less.
func TestPace(t *testing.T) {
	begin := time.Now()
	p := &pace{growth: busyGrowth, at: begin, allocated: 1000}
	type step struct {
		after     time.Duration
		allocated uint64
		want      int
		set       bool
	}
	for i, step := range []step{
		{time.Second, 100 << 20, busyGrowth, false},       // it starts
		{2 * time.Minute, 110 << 20, idleGrowth, true},    // idle
		{4 * time.Minute, 120 << 20, idleGrowth, false},   // still
		{250 * time.Second, 200 << 20, busyGrowth, true},  // under load
		{252 * time.Second, 220 << 20, busyGrowth, false}, // still
		{372 * time.Second, 221 << 20, idleGrowth, true},  // idle again
	} {
		set := 0
		p.collected(begin.Add(step.after), step.allocated, func(percent int) int { set = percent; return 0 })
		if p.growth != step.want || step.set != (set != 0) || set != 0 && set != step.want {
			t.Errorf("step %d: growth is %d, and was set to %d", i, p.growth, set)
		}
	}
}
