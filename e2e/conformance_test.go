//go:build linux

package e2e

import (
	"context"
	"os"
	"testing"
	"time"
)

// TestConformanceSubset runs forty specs of Kubernetes' own conformance suite in
// a tenant, by the program that make conformance runs all of them with.
func TestConformanceSubset(t *testing.T) {
	s := shared(t)
	s.onLocalHost(t)
	const tenant = "conformance-subset"
	t.Cleanup(func() { s.cleanUp(t, tenant) })
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	defer cancel()
	cmd := s.command(ctx, s.path(".cache/bin/conformance"), "-ready", "-tenant", tenant,
		"-specs", "hack/conformance/subset.txt", "-out", "bench/out/e2e")
	// It has specs to end and a tenant to delete.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 3 * time.Minute
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("conformance: %v\n%s", err, out)
	}
}
