package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress tells how a phase goes: failures as they come, and between them how
// far it is.
type progress struct {
	out io.Writer
	// terminal says that the last line can be written over.
	terminal bool
	phase    string
	began    time.Time
	done     chan struct{}

	mu                     sync.Mutex
	planned                int
	passed, failed, others int
}

func newProgress(out io.Writer, phase string) *progress {
	file, isFile := out.(*os.File)
	p := &progress{
		out:      out,
		terminal: isFile && term.IsTerminal(int(file.Fd())),
		phase:    phase,
		began:    time.Now(),
		done:     make(chan struct{}),
	}
	interval := 30 * time.Second
	if p.terminal {
		interval = time.Second
	}
	go p.tick(interval)
	return p
}

func (p *progress) tick(interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-ticker.C:
			p.mu.Lock()
			p.status()
			p.mu.Unlock()
		}
	}
}

// status is called with the lock held.
func (p *progress) status() {
	line := fmt.Sprintf("%s: %d of %d specs, %d failed, %s", p.phase, p.passed+p.failed+p.others, p.planned, p.failed,
		time.Since(p.began).Round(time.Second))
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", line)
		return
	}
	fmt.Fprintln(p.out, line)
}

func (p *progress) say(format string, args ...any) {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	fmt.Fprintf(p.out, format+"\n", args...)
}

// plan is how many specs the phase has; of each process, the same.
func (p *progress) plan(count string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The expression that found it admits digits only.
	p.planned, _ = strconv.Atoi(count)
	p.status()
}

// isFailure says so of a state in Ginkgo's words. What was interrupted is not one:
// it did not come to an end.
func isFailure(state string) bool {
	return !slices.Contains([]string{"PASSED", "SKIPPED", "PENDING", "INTERRUPTED", "ABORTED"}, state)
}

func (p *progress) spec(state, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case state == "PASSED":
		p.passed++
	case isFailure(state):
		p.failed++
		p.say("✗ %s\n    %s after %s", name, state, time.Since(p.began).Round(time.Second))
	default:
		p.others++
	}
}

func (p *progress) reason(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.say("    %s", text)
}

func (p *progress) end() {
	close(p.done)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status()
	if p.terminal {
		fmt.Fprintln(p.out)
	}
}
