//go:build linux

package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress tells what is done, a line for each step with its duration.
type progress struct {
	lock  sync.Mutex
	out   io.Writer
	began time.Time
}

func newProgress(out io.Writer) *progress { return &progress{out: out, began: time.Now()} }

// say tells what is being done, before something that takes long.
func (p *progress) say(format string, args ...any) {
	p.lock.Lock()
	defer p.lock.Unlock()
	fmt.Fprintf(p.out, "  … "+format+"\n", args...)
}

// done tells that a step is finished, and how long it took.
func (p *progress) done(since time.Time, format string, args ...any) {
	p.took(time.Since(since), format, args...)
}

func (p *progress) took(duration time.Duration, format string, args ...any) {
	p.lock.Lock()
	defer p.lock.Unlock()
	fmt.Fprintf(p.out, "  ✓ %-52s %6.1f s\n", fmt.Sprintf(format, args...), duration.Seconds())
}

func (p *progress) end(format string, args ...any) {
	p.lock.Lock()
	defer p.lock.Unlock()
	fmt.Fprintf(p.out, format+" (%.1f s)\n", append(args, time.Since(p.began).Seconds())...)
}
