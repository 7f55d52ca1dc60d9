//go:build linux

package supervise

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Phase of a component.
type Phase string

const (
	// Waiting for those that it starts after.
	Waiting Phase = "waiting"
	// Starting means that its process runs, and is not ready.
	Starting Phase = "starting"
	// Ready to serve.
	Ready Phase = "ready"
	// Failed means that its process ended; it will be started again.
	Failed Phase = "failed"
)

// ComponentState tells how one component does.
type ComponentState struct {
	Name  string `json:"name"`
	Phase Phase  `json:"phase"`
	// PID is the number of its process inside the sandbox.
	PID        int           `json:"pid,omitempty"`
	Started    time.Time     `json:"started,omitzero"`
	ReadyAfter time.Duration `json:"readyAfter,omitempty"`
	// Failures counts how often it ended unasked, LastExit says how the last time.
	Failures int    `json:"failures,omitempty"`
	LastExit string `json:"lastExit,omitempty"`
}

// State tells how all components do, in their order.
type State struct {
	Components []ComponentState `json:"components"`
}

// Component returns the state of one of them; a zero one if there is none.
func (s State) Component(name string) ComponentState {
	for _, component := range s.Components {
		if component.Name == name {
			return component
		}
	}
	return ComponentState{Name: name}
}

// ReadState reads what the supervisor wrote last.
func ReadState(path string) (State, error) {
	var state State
	content, err := os.ReadFile(path)
	if err != nil {
		return state, fmt.Errorf("read the state of the components: %w", err)
	}
	if err := json.Unmarshal(content, &state); err != nil {
		return state, fmt.Errorf("read the state of the components in %s: %w", path, err)
	}
	return state, nil
}

// note changes the state of one component and publishes it.
func (s *supervisor) note(index int, change func(*ComponentState)) {
	if err := s.update(func(state *State) { change(&state.Components[index]) }); err != nil {
		// Goes to the log of process 1. The components matter more than telling of
		// them.
		fmt.Fprintln(os.Stderr, err)
	}
}

// update publishes a changed state. The file is replaced as a whole, so that
// nobody reads half of it.
func (s *supervisor) update(change func(*State)) error {
	s.stateLock.Lock()
	defer s.stateLock.Unlock()
	change(&s.state)
	content, err := json.MarshalIndent(s.state, "", "  ")
	if err != nil {
		return fmt.Errorf("write the state of the components: %w", err)
	}
	next := s.options.StateFile + ".next"
	if err := os.WriteFile(next, append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the state of the components: %w", err)
	}
	if err := os.Rename(next, s.options.StateFile); err != nil {
		return fmt.Errorf("write the state of the components: %w", err)
	}
	return nil
}

func lookPath(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
