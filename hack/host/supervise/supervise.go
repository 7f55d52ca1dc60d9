//go:build linux

package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Component is one process to keep running.
type Component struct {
	Name string
	Argv []string
	// After names components that must be ready before this one starts.
	After []string
	// Needs is asked every few milliseconds until it returns nil; only then does
	// the component start for the first time. Nil means that it needs nothing.
	Needs func(ctx context.Context) error
	// Namespaces are clone flags of those that it gets of its own.
	Namespaces uintptr
	// Ready is asked every few milliseconds until it returns nil. Nil means ready
	// as soon as started.
	Ready func(ctx context.Context) error
}

// Options of a supervisor.
type Options struct {
	Components []Component
	// More are components that are added later. They start after no others, and
	// may be added only as long as the context has not ended.
	More <-chan Component
	// LogDir gets one <component>.log for each.
	LogDir string
	// StateFile is rewritten whenever something changes, see ReadState.
	StateFile string
	// Grace is how long components may take to end; 5 s when 0.
	Grace time.Duration
}

const (
	defaultGrace = 5 * time.Second
	readyPoll    = 20 * time.Millisecond
	firstPause   = 250 * time.Millisecond
	longestPause = 10 * time.Second
	// steady is how long a component must run for its failures to be forgotten.
	steady = time.Minute
)

// Run keeps the components running until the context ends, and then ends them in
// the reverse of the order they were given in. It reaps every child of the
// calling process, orphans too, so there may be only one in a process, and
// nothing else there may wait for children.
func Run(ctx context.Context, o Options) error {
	if o.Grace == 0 {
		o.Grace = defaultGrace
	}
	if err := validate(o.Components); err != nil {
		return err
	}
	s := &supervisor{options: o, running: map[int]chan<- syscall.WaitStatus{}, ready: map[string]chan struct{}{}}
	for _, component := range o.Components {
		s.ready[component.Name] = make(chan struct{})
		s.state.Components = append(s.state.Components, ComponentState{Name: component.Name, Phase: Waiting})
	}
	if err := s.update(func(*State) {}); err != nil {
		return err
	}
	stopReaping := make(chan struct{})
	var reaping, keeping sync.WaitGroup
	reaping.Go(func() { s.reap(stopReaping) })
	// Each has a context of its own, so that they can be ended in order.
	var stops []func()
	start := func(index int, component Component) {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		keeping.Go(func() {
			defer close(done)
			s.keep(own, index, component)
		})
		stops = append(stops, func() {
			cancel()
			<-done
		})
	}
	for index, component := range o.Components {
		start(index, component)
	}
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case component := <-o.More:
			if err := s.update(func(state *State) {
				state.Components = append(state.Components, ComponentState{Name: component.Name, Phase: Waiting})
			}); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			start(len(stops), component)
		}
	}
	for _, stop := range slices.Backward(stops) {
		stop()
	}
	keeping.Wait()
	close(stopReaping)
	reaping.Wait()
	return nil
}

func validate(components []Component) error {
	var names []string
	for _, component := range components {
		for _, other := range component.After {
			if !slices.Contains(names, other) {
				return fmt.Errorf("component %q is to start after %q, which is not before it in the list", component.Name, other)
			}
		}
		if slices.Contains(names, component.Name) {
			return fmt.Errorf("there are two components %q", component.Name)
		}
		names = append(names, component.Name)
	}
	return nil
}

type supervisor struct {
	options Options

	stateLock sync.Mutex
	state     State

	// runningLock is held while a process is started, so that its end cannot be
	// reaped before it is known.
	runningLock sync.Mutex
	running     map[int]chan<- syscall.WaitStatus

	ready map[string]chan struct{}
}

// keep starts one component again and again until the context ends.
func (s *supervisor) keep(ctx context.Context, index int, component Component) {
	for _, other := range component.After {
		select {
		case <-ctx.Done():
			return
		case <-s.ready[other]:
		}
	}
	for component.Needs != nil && component.Needs(ctx) != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(readyPoll):
		}
	}
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		outcome := s.once(ctx, index, component)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > steady {
			pause = firstPause
		}
		s.note(index, func(c *ComponentState) {
			c.Phase, c.PID, c.LastExit = Failed, 0, outcome.Error()
			c.Failures++
		})
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// once runs a component and says why it ended.
func (s *supervisor) once(ctx context.Context, index int, component Component) error {
	began := time.Now()
	pid, ended, err := s.start(component)
	if err != nil {
		return err
	}
	s.note(index, func(c *ComponentState) { c.Phase, c.PID, c.Started = Starting, pid, began })
	if component.Ready == nil {
		s.becameReady(index, component, began)
	}
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	waiting := component.Ready != nil
	for {
		ticks := poll.C
		if !waiting {
			ticks = nil
		}
		select {
		case status := <-ended:
			return errors.New(describe(status))
		case <-ctx.Done():
			return s.end(pid, ended)
		case <-ticks:
			if component.Ready(ctx) == nil {
				waiting = false
				s.becameReady(index, component, began)
			}
		}
	}
}

func (s *supervisor) becameReady(index int, component Component, began time.Time) {
	s.note(index, func(c *ComponentState) { c.Phase, c.ReadyAfter = Ready, time.Since(began) })
	ready, awaited := s.ready[component.Name]
	if !awaited {
		return
	}
	select {
	case <-ready: // a restart
	default:
		close(ready)
	}
}

func (s *supervisor) start(component Component) (int, <-chan syscall.WaitStatus, error) {
	log, err := os.OpenFile(filepath.Join(s.options.LogDir, component.Name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, nil, fmt.Errorf("open its log: %w", err)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	path, err := lookPath(component.Argv[0])
	if err != nil {
		return 0, nil, err
	}
	s.runningLock.Lock()
	defer s.runningLock.Unlock()
	// Not os/exec: it waits for its child itself, and so would race with reap.
	pid, err := syscall.ForkExec(path, component.Argv, &syscall.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Cloneflags: component.Namespaces},
	})
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", path, err)
	}
	ended := make(chan syscall.WaitStatus, 1)
	s.running[pid] = ended
	return pid, ended, nil
}

// end asks a process to end, and makes it when it takes too long.
func (s *supervisor) end(pid int, ended <-chan syscall.WaitStatus) error {
	// An error means that it has ended by itself.
	_ = syscall.Kill(pid, syscall.SIGTERM)
	select {
	case status := <-ended:
		return errors.New(describe(status))
	case <-time.After(s.options.Grace):
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	return errors.New(describe(<-ended))
}

// reap collects children that have ended: components, and orphans that the
// kernel handed to process 1.
func (s *supervisor) reap(stop <-chan struct{}) {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	defer signal.Stop(children)
	// A signal may come before Notify; a slow tick makes up for it.
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		s.reapAll()
		select {
		case <-children:
		case <-tick.C:
		case <-stop:
			return
		}
	}
}

func (s *supervisor) reapAll() {
	for {
		var status syscall.WaitStatus
		s.runningLock.Lock()
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			s.runningLock.Unlock()
			continue
		}
		if err != nil || pid <= 0 {
			s.runningLock.Unlock()
			return
		}
		ended, ours := s.running[pid]
		delete(s.running, pid)
		s.runningLock.Unlock()
		if ours {
			ended <- status
		}
	}
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return fmt.Sprintf("ended by signal %q", status.Signal())
	}
	return fmt.Sprintf("ended with exit code %d", status.ExitStatus())
}
