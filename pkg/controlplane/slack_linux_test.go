package controlplane

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTimerSlack checks that threads which run goroutines have the slack. Not all
// do: the runtime may begin one meanwhile that nobody reaches.
func TestTimerSlack(t *testing.T) {
	const slack = 3 * time.Millisecond
	before := timerSlack(t)
	if before == slack {
		t.Fatalf("the slack is %s to begin with", before)
	}
	if err := setTimerSlack(slack); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := setTimerSlack(before); err != nil {
			t.Error(err)
		}
	})
	var (
		running sync.WaitGroup
		reached atomic.Int32
	)
	for range 64 {
		running.Go(func() {
			for range 100 {
				if timerSlack(t) == slack {
					reached.Add(1)
				}
				runtime.Gosched() // maybe to another thread
			}
		})
	}
	running.Wait()
	if reached.Load() == 0 {
		t.Errorf("no goroutine found itself on a thread with a slack of %s", slack)
	}
}

// timerSlack is that of the thread that this goroutine runs on.
func timerSlack(t *testing.T) time.Duration {
	got, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		t.Error(err)
	}
	return time.Duration(got)
}
