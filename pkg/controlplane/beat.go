package controlplane

import (
	"time"

	"k8s.io/utils/clock"
)

// beat is how far apart the moments are at which beatClock's timers end.
const beat = time.Second

// beatClock is the clock of all watch caches. Each cache has a timer of about a
// second, spread by upstream so that many are not due at once; but here they are
// all in one process, which then wakes up for each of them. This clock has timers
// of a beat and longer end on the last beat before they are due, or if that is too
// soon on the next one, so that one wake-up serves all of them.
type beatClock struct {
	clock.RealClock
	// zero is a beat.
	zero time.Time
}

func newBeatClock() *beatClock { return &beatClock{zero: time.Now()} }

// NewTimer implements clock.WithTicker.
func (c *beatClock) NewTimer(d time.Duration) clock.Timer {
	return &beatTimer{Timer: c.RealClock.NewTimer(c.onBeat(c.Now(), d)), clock: c}
}

// onBeat is what to wait at a time for the last beat in d, or the one after it if
// that is in less than half of d.
func (c *beatClock) onBeat(now time.Time, d time.Duration) time.Duration {
	if d < beat {
		return d
	}
	rounded := d - now.Add(d).Sub(c.zero)%beat
	if rounded < d/2 {
		return rounded + beat
	}
	return rounded
}

type beatTimer struct {
	clock.Timer
	clock *beatClock
}

// Reset implements clock.Timer.
func (t *beatTimer) Reset(d time.Duration) bool {
	return t.Timer.Reset(t.clock.onBeat(t.clock.Now(), d))
}
