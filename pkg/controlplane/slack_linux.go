package controlplane

import (
	"errors"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// setTimerSlack lets the kernel wake the process up to slack later than its
// timers are due, so that one wake-up serves many of them: a control plane has
// some two hundred, most of which find nothing to do. What is not a timer, such
// as data from a connection, wakes it at once as before, and while it runs its
// timers are on time.
//
// The slack is a thread's own, and threads inherit it. So there are as many
// goroutines at once, each alone on its thread, as the process has threads. They
// set it before they are alone, too: the first one that is makes the runtime begin
// a thread, from which others will come. One that begins meanwhile may be left
// out, which costs wake-ups and nothing else.
func setTimerSlack(slack time.Duration) error {
	var (
		threads  = pprof.Lookup("threadcreate").Count()
		reached  sync.WaitGroup
		finished sync.WaitGroup
		errs     = make([]error, threads)
	)
	set := func() error { return unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack.Nanoseconds()), 0, 0, 0) }
	reached.Add(threads)
	for i := range threads {
		finished.Go(func() {
			err := set()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			errs[i] = errors.Join(err, set())
			reached.Done()
			reached.Wait()
		})
	}
	finished.Wait()
	return errors.Join(errs...)
}
