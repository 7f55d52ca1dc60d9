package controlplane

import (
	"errors"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// spareThreads are those beside the ones that run goroutines at a time: they are in
// system calls, or wait for the network and for timers.
const spareThreads = 3

// setTimerSlack lets the kernel wake the process up to slack later than its
// timers are due, so that one wake-up serves many of them: a control plane has
// some two hundred, most of which find nothing to do. What is not a timer, such
// as data from a connection, wakes it at once as before, and while it runs its
// timers are on time.
//
// The slack is a thread's own, and threads inherit it. So there are some goroutines
// at once, each alone on its thread, a few more than run at once: the runtime
// takes the threads that worked last, which are those that an idle process needs.
// They set it before they are alone, too: the first one that is makes the runtime
// begin a thread, from which others will come.
func setTimerSlack(slack time.Duration) error {
	var (
		threads  = runtime.GOMAXPROCS(0) + spareThreads
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
