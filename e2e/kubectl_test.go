//go:build linux

package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

// base64Of is how bytes look in an object.
func base64Of(content []byte) string { return base64.StdEncoding.EncodeToString(content) }

// kubectl runs kubectl in a tenant with some standard input, and returns what it
// printed.
func (tn *tenant) kubectl(t *testing.T, s *suite) func(input string, args ...string) (string, error) {
	t.Helper()
	file := tn.kubeconfigOf(t)
	return func(input string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		cmd := s.command(ctx, s.path(".cache/bin/kubectl"), append([]string{"--kubeconfig", file}, args...)...)
		cmd.Stdin = strings.NewReader(input)
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return string(out), err
	}
}
