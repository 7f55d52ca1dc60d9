package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress shows what is going on: on a terminal in one line that moves, with
// the time that has passed; in a pipe as one plain line for each step. It is
// for standard error, so that it never mixes with output.
type progress struct {
	out      io.Writer
	terminal bool
	width    func() int
	start    time.Time

	mu     sync.Mutex
	step   string
	frame  int
	drawn  bool
	ticker *time.Ticker
	stop   chan struct{}
}

func newProgress(out io.Writer) *progress {
	p := &progress{out: out, start: time.Now(), width: func() int { return 80 }}
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || os.Getenv("TERM") == "dumb" {
		return p
	}
	p.terminal = true
	p.width = func() int {
		width, _, err := term.GetSize(int(file.Fd()))
		if err != nil || width < 20 {
			return 80
		}
		return width
	}
	p.ticker = time.NewTicker(100 * time.Millisecond)
	p.stop = make(chan struct{})
	go p.animate()
	return p
}

func (p *progress) animate() {
	for {
		select {
		case <-p.stop:
			return
		case <-p.ticker.C:
			p.mu.Lock()
			p.frame++
			p.draw()
			p.mu.Unlock()
		}
	}
}

// Step says what is being done now.
func (p *progress) Step(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	step := fmt.Sprintf(format, args...)
	if step == p.step {
		return
	}
	p.step = step
	if p.terminal {
		p.draw()
		return
	}
	_, _ = fmt.Fprintf(p.out, "%s (%s)\n", step, p.elapsed())
}

// Note says something that should stay on the screen.
func (p *progress) Note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	_, _ = fmt.Fprintf(p.out, format+"\n", args...)
	if p.terminal {
		p.draw()
	}
}

// clearFor takes the moving line away while something else is written.
func (p *progress) clearFor(write func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	write()
}

// End takes the moving line away.
func (p *progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ticker != nil {
		p.ticker.Stop()
		close(p.stop)
		p.ticker = nil
	}
	p.clear()
	p.step = ""
}

func (p *progress) draw() {
	if p.step == "" || p.ticker == nil {
		return
	}
	p.clear()
	frames := [...]string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}
	line := fmt.Sprintf("%s %s (%s)", frames[p.frame%len(frames)], p.step, p.elapsed())
	if runes := []rune(line); len(runes) >= p.width() {
		line = string(runes[:p.width()-2]) + "…"
	}
	_, _ = fmt.Fprint(p.out, line)
	p.drawn = true
}

func (p *progress) clear() {
	if p.terminal && p.drawn {
		_, _ = fmt.Fprint(p.out, "\r\x1b[K")
		p.drawn = false
	}
}

func (p *progress) elapsed() string {
	return roughly(time.Since(p.start))
}

// roughly writes a duration with the precision that people care about.
func roughly(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	d = d.Round(time.Second)
	return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
}
