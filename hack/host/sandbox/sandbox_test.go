//go:build linux

package sandbox

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPIDTrustsTheLockAlone(t *testing.T) {
	dir := t.TempDir()
	if pid, err := PID(dir); pid != 0 || err != nil {
		t.Errorf("an empty directory has process %d, %v", pid, err)
	}
	// A number that somebody else has now.
	if err := os.WriteFile(filepath.Join(dir, pidFile), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	lock, free, err := tryLock(dir)
	if err != nil || !free {
		t.Fatalf("lock: free %v, %v", free, err)
	}
	if pid, err := PID(dir); pid != 1 || err != nil {
		t.Errorf("while it lives it is process %d, %v", pid, err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if pid, err := PID(dir); pid != 0 || err != nil {
		t.Errorf("when it is dead it is process %d, %v", pid, err)
	}
	if err := Stop(dir, 0); err != nil {
		t.Errorf("stopping a dead one: %v", err)
	}
}
