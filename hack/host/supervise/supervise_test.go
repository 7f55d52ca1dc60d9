//go:build linux

package supervise

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// eventually waits for a state, and fails with the last one.
func eventually(t *testing.T, path string, want func(State) bool) State {
	t.Helper()
	var state State
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		var err error
		if state, err = ReadState(path); err == nil && want(state) {
			return state
		}
	}
	t.Fatalf("the state never came; the last one was %+v", state)
	return state
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state.json")
	gate, need, order := filepath.Join(dir, "gate"), filepath.Join(dir, "need"), filepath.Join(dir, "order")
	record := func(name string) []string {
		return []string{"sh", "-c", "trap 'echo end " + name + " >> " + order + "; exit' TERM; echo start " + name + " >> " + order + "; while :; do sleep 0.02; done"}
	}
	ctx, cancel := context.WithCancel(t.Context())
	more := make(chan Component)
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{
			More:      more,
			LogDir:    dir,
			StateFile: state,
			Components: []Component{
				{Name: "first", Argv: record("first"), Ready: func(context.Context) error {
					if _, err := os.Stat(gate); err != nil {
						return errors.New("the gate is shut")
					}
					return nil
				}},
				{Name: "second", Argv: record("second"), After: []string{"first"}},
				{Name: "needy", Argv: []string{"sleep", "1000"}, Needs: func(context.Context) error {
					if _, err := os.Stat(need); err != nil {
						return errors.New("what it needs is not there")
					}
					return nil
				}},
				{Name: "broken", Argv: []string{"sh", "-c", "echo out of luck; exit 3"}},
				{Name: "missing", Argv: []string{"/no/such/program"}},
			},
		})
	}()

	eventually(t, state, func(s State) bool {
		return s.Component("first").Phase == Starting && s.Component("second").Phase == Waiting
	})
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, state, func(s State) bool {
		return s.Component("first").Phase == Ready && s.Component("second").Phase == Ready
	})
	if phase := eventually(t, state, func(State) bool { return true }).Component("needy").Phase; phase != Waiting {
		t.Errorf("one that needs something that is not there is %s", phase)
	}
	if err := os.WriteFile(need, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, state, func(s State) bool { return s.Component("needy").Phase == Ready })
	got := eventually(t, state, func(s State) bool { return s.Component("broken").Failures >= 2 })
	if exit := got.Component("broken").LastExit; !strings.Contains(exit, "3") {
		t.Errorf("the exit of the broken one is told as %q, without its code", exit)
	}
	if exit := eventually(t, state, func(s State) bool { return s.Component("missing").Failures > 0 }).Component("missing").LastExit; !strings.Contains(exit, "/no/such/program") {
		t.Errorf("the missing program is told as %q, without its name", exit)
	}
	if log, err := os.ReadFile(filepath.Join(dir, "broken.log")); err != nil || !strings.Contains(string(log), "out of luck") {
		t.Errorf("log of the broken one: %q, %v", log, err)
	}

	more <- Component{Name: "later", Argv: []string{"sleep", "1000"}}
	eventually(t, state, func(s State) bool { return s.Component("later").Phase == Ready })

	// Ready means started; wait until both have said so.
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if content, err := os.ReadFile(order); err == nil && strings.Contains(string(content), "start second") {
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(order)
	if err != nil {
		t.Fatal(err)
	}
	if want := "start first\nstart second\nend second\nend first\n"; string(content) != want {
		t.Errorf("order was %q, want %q", content, want)
	}
}

func TestRunRefuses(t *testing.T) {
	cases := map[string]struct {
		components []Component
		reason     string
	}{
		"one that waits for a later one": {
			components: []Component{{Name: "a", After: []string{"b"}}, {Name: "b"}},
			reason:     "it could wait for ever in a circle",
		},
		"a name twice": {
			components: []Component{{Name: "a"}, {Name: "a"}},
			reason:     "they would share a log",
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			if err := Run(t.Context(), Options{Components: test.components, StateFile: filepath.Join(t.TempDir(), "state")}); err == nil {
				t.Errorf("accepted, but %s", test.reason)
			}
		})
	}
}
