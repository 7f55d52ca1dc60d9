//go:build linux

package main

import (
	"fmt"
	"slices"
	"time"
)

// clock says how long is left.
type clock struct {
	todo []measurement
	// rest is how long what some measurement begins with has to rest before it is
	// measured, and begun when the rest began; zero before.
	rest  time.Duration
	begun time.Time
}

func newClock(o options, chosen []measurement) *clock {
	return &clock{todo: slices.Clone(chosen), rest: o.rest}
}

// left is how long all that is to do takes.
func (c *clock) left(now time.Time) time.Duration {
	var sum time.Duration
	for _, m := range c.todo {
		if m.begin == nil {
			sum += m.takes
			continue
		}
		if c.begun.IsZero() {
			// It begins with as much work as it ends with.
			sum = m.takes + max(sum, c.rest) + m.takes
			continue
		}
		sum = max(sum, c.begun.Add(c.rest).Sub(now)) + m.takes
	}
	return sum
}

func (c *clock) done(m measurement) {
	c.todo = slices.DeleteFunc(c.todo, func(other measurement) bool { return other.yields[0] == m.yields[0] })
}

func minutes(d time.Duration) string {
	if d < 90*time.Second {
		return fmt.Sprintf("%d s", int(d.Seconds()))
	}
	return fmt.Sprintf("%d min", int(d.Round(time.Minute).Minutes()))
}
