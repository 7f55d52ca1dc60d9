package forward

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// State is what is known about one forward in the background. The process that
// serves it reads it to know what to do; others read it to find the process.
type State struct {
	// ID names the state's files.
	ID string `json:"id"`

	// Tenant, its UID and namespace on the host: where to forward to. Another
	// UID means that the tenant was deleted, whatever its name.
	Tenant    string `json:"tenant"`
	TenantUID string `json:"tenantUID"`
	Namespace string `json:"namespace"`

	// HostServer is the API of the host, for people who read the file.
	HostServer string `json:"hostServer"`

	// Port on the loopback interface; it stays the same when the forward is
	// started anew, so that contexts go on working.
	Port int `json:"port"`
	// PID of the process, written by itself.
	PID int `json:"pid,omitempty"`
	// Started is when the process was.
	Started time.Time `json:"started,omitzero"`
}

// Store keeps the states of forwards in a directory. A process that serves one
// holds a lock for as long as it lives, so that a process id is never trusted
// alone.
type Store struct {
	dir string
}

// NewStore opens the store in dir, which need not exist.
func NewStore(dir string) *Store {
	return &Store{dir: dir}
}

// DefaultDir is where a user's forwards are kept, by the XDG base directories.
func DefaultDir(getenv func(string) string) (string, error) {
	if state := getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "sublet", "forwards"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding a place for the state of port-forwards: %w; set XDG_STATE_HOME", err)
	}
	return filepath.Join(home, ".local", "state", "sublet", "forwards"), nil
}

// ID names the forward of a tenant on a host for one kubeconfig file.
func ID(tenant, hostServer, kubeconfig string) string {
	sum := sha256.Sum256([]byte(hostServer + "\n" + kubeconfig))
	return tenant + "-" + hex.EncodeToString(sum[:])[:10]
}

func (s *Store) path(id, suffix string) string {
	return filepath.Join(s.dir, id+suffix)
}

// LogPath is where the process of a forward writes what happens to it.
func (s *Store) LogPath(id string) string {
	return s.path(id, ".log")
}

// Load reads a state; the error is fs.ErrNotExist when there is none.
func (s *Store) Load(id string) (State, error) {
	content, err := os.ReadFile(s.path(id, ".json"))
	if err != nil {
		return State{}, err
	}
	var state State
	if err := json.Unmarshal(content, &state); err != nil {
		return State{}, fmt.Errorf("reading %s: %w; remove the file and connect again", s.path(id, ".json"), err)
	}
	return state, nil
}

// Save writes a state in one step.
func (s *Store) Save(state State) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("making the directory for the state of port-forwards: %w", err)
	}
	content, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(s.dir, state.ID+".*.tmp")
	if err != nil {
		return fmt.Errorf("saving the state of a port-forward: %w", err)
	}
	defer func() { _ = os.Remove(temporary.Name()) }()
	if _, err := temporary.Write(append(content, '\n')); err != nil {
		_ = temporary.Close()
		return fmt.Errorf("saving the state of a port-forward: %w", err)
	}
	if err := temporary.Close(); err != nil {
		return fmt.Errorf("saving the state of a port-forward: %w", err)
	}
	if err := os.Rename(temporary.Name(), s.path(state.ID, ".json")); err != nil {
		return fmt.Errorf("saving the state of a port-forward: %w", err)
	}
	return nil
}

// List reads all states; what cannot be read is left out.
func (s *Store) List() ([]State, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing port-forwards: %w", err)
	}
	var states []State
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok {
			continue
		}
		if state, err := s.Load(id); err == nil {
			states = append(states, state)
		}
	}
	return states, nil
}

// Claim takes the lock of a forward; false means that a process serves it
// already.
func (s *Store) Claim(id string) (release func(), ok bool, err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, false, fmt.Errorf("making the directory for the state of port-forwards: %w", err)
	}
	lock := flock.New(s.path(id, ".lock"), flock.SetPermissions(0o600))
	ok, err = lock.TryLock()
	if err != nil {
		return nil, false, fmt.Errorf("locking %s: %w", lock.Path(), err)
	}
	return func() { _ = lock.Close() }, ok, nil
}

// Alive tells whether a process serves the forward now.
func (s *Store) Alive(id string) (bool, error) {
	if _, err := os.Stat(s.path(id, ".lock")); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	release, ok, err := s.Claim(id)
	if err != nil {
		return false, err
	}
	if ok {
		release()
	}
	return !ok, nil
}

// Remove forgets a forward.
func (s *Store) Remove(id string) error {
	var problems []error
	for _, suffix := range []string{".json", ".log", ".lock"} {
		if err := os.Remove(s.path(id, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// Stop ends the process of a forward, if there is one, and forgets it.
func (s *Store) Stop(id string) error {
	state, err := s.Load(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	alive, err := s.Alive(id)
	if err != nil {
		return err
	}
	if alive && state.PID > 0 {
		process, err := os.FindProcess(state.PID)
		if err == nil {
			err = terminate(process)
		}
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("ending the port-forward of tenant %q, process %d: %w", state.Tenant, state.PID, err)
		}
		if !s.WaitGone(id, 5*time.Second) {
			return fmt.Errorf("the port-forward of tenant %q, process %d, does not end; kill it", state.Tenant, state.PID)
		}
	}
	return s.Remove(id)
}

// WaitGone waits until no process serves the forward; false when one still does
// after that time.
func (s *Store) WaitGone(id string, patience time.Duration) bool {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		alive, err := s.Alive(id)
		if err == nil && !alive {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}
