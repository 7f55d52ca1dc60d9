//go:build unix

// Command consume-cpu keeps a share of a CPU busy for a while: what the
// resource-consumer of Kubernetes' own tests starts to make load. Upstream's needs
// a module that nothing else does.
package main

import (
	"flag"
	"fmt"
	"os"
	"syscall"
	"time"
)

func main() {
	millicores := flag.Int("millicores", 0, "thousandths of a CPU to use")
	seconds := flag.Int("duration-sec", 0, "for how many seconds")
	flag.Parse()
	if err := consume(*millicores, time.Duration(*seconds)*time.Second); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// consume computes whenever it has used less than its share since it began.
func consume(millicores int, duration time.Duration) error {
	const pause = 10 * time.Millisecond
	for began := time.Now(); time.Since(began) < duration; {
		used, err := cpuTime()
		if err != nil {
			return err
		}
		if used >= time.Since(began)*time.Duration(millicores)/1000 {
			time.Sleep(pause)
			continue
		}
		for burst := time.Now(); time.Since(burst) < pause; {
		}
	}
	return nil
}

// cpuTime is what this process has used so far.
func cpuTime() (time.Duration, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("read how much CPU was used: %w", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}
