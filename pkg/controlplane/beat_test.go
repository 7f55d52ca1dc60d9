package controlplane

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// TestBeat holds that timers of caches end together, neither late nor much too
// early, and go on doing so.
func TestBeat(t *testing.T) {
	c := newBeatClock()
	for range 100 {
		now := c.zero.Add(wait.Jitter(time.Hour, 10))
		for i := range 20 {
			d := wait.Jitter(time.Second, 0.25)
			waits := c.onBeat(now, d)
			if i > 0 && waits != beat {
				t.Fatalf("on a beat a timer of %v waits %v", d, waits)
			}
			if waits < d/2 || waits > d*3/2 {
				t.Fatalf("a timer of %v waits %v", d, waits)
			}
			now = now.Add(waits)
			if off := now.Sub(c.zero) % beat; off != 0 {
				t.Fatalf("a timer of %v ends %v after a beat", d, off)
			}
		}
	}
	for _, d := range []time.Duration{0, time.Millisecond, beat - 1} {
		if got := c.onBeat(c.zero.Add(time.Millisecond), d); got != d {
			t.Errorf("a timer of %v waits %v", d, got)
		}
	}
	if got := c.onBeat(c.zero.Add(300*time.Millisecond), 15*time.Second); got != 14700*time.Millisecond {
		t.Errorf("a timer of 15 s waits %v", got)
	}
}

// TestBeatTimer holds that the timers are real.
func TestBeatTimer(t *testing.T) {
	c := newBeatClock()
	timer := c.NewTimer(beat)
	defer timer.Stop()
	<-timer.C()
	timer.Reset(time.Millisecond)
	<-timer.C()
}
