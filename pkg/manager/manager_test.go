package manager

import "testing"

// TestProfilingAddress: profiles are off unless somebody wants them, and never
// leave the pod's own loopback interface.
func TestProfilingAddress(t *testing.T) {
	for port, want := range map[int]string{0: "", 6060: "127.0.0.1:6060"} {
		if got := (Options{ProfilingPort: port}).withDefaults().profilingAddress(); got != want {
			t.Errorf("with port %d they are served at %q, want %q", port, got, want)
		}
	}
}
