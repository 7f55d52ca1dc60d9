//go:build !linux

package controlplane

import "time"

// setTimerSlack does nothing where threads have none.
func setTimerSlack(time.Duration) error { return nil }
