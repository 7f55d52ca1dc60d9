package forward

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStore(t *testing.T) {
	store := NewStore(filepath.Join(t.TempDir(), "forwards"))
	if states, err := store.List(); err != nil || len(states) != 0 {
		t.Errorf("a store that was never used has %v, error %v", states, err)
	}
	want := State{
		ID: ID("acme", "https://host", "/home/me/.kube/config"), Tenant: "acme", TenantUID: "1", Namespace: "acme",
		HostServer: "https://host", Port: 4711, PID: 1, Started: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
	}
	if err := store.Save(want); err != nil {
		t.Fatal(err)
	}
	got, err := store.Load(want.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("loaded state (-want +got):\n%s", diff)
	}
	states, err := store.List()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]State{want}, states); diff != "" {
		t.Errorf("listed states (-want +got):\n%s", diff)
	}
	if err := store.Remove(want.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(want.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("loading what was removed: %v", err)
	}
}

func TestOnlyOneServes(t *testing.T) {
	store := NewStore(t.TempDir())
	alive := func(want bool) {
		t.Helper()
		if got, err := store.Alive("acme-1"); err != nil || got != want {
			t.Errorf("alive: %t, error %v; want %t", got, err, want)
		}
	}
	alive(false)
	release, ok, err := store.Claim("acme-1")
	if err != nil || !ok {
		t.Fatalf("claiming what is free: %t, %v", ok, err)
	}
	alive(true)
	if _, ok, err := store.Claim("acme-1"); err != nil || ok {
		t.Errorf("claiming what is taken: %t, %v", ok, err)
	}
	if store.WaitGone("acme-1", 0) {
		t.Error("it is said to be gone while it is alive")
	}
	release()
	alive(false)
}

// TestStopTrustsNoProcessID: the process id of a forward that died may be
// somebody else's by now, here that of the test itself.
func TestStopTrustsNoProcessID(t *testing.T) {
	store := NewStore(t.TempDir())
	if err := store.Save(State{ID: "acme-1", Tenant: "acme", PID: os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	if err := store.Stop("acme-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load("acme-1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the state is still there: %v", err)
	}
	if err := store.Stop("acme-1"); err != nil {
		t.Errorf("stopping what is not there: %v", err)
	}
}

func TestIDs(t *testing.T) {
	one := ID("acme", "https://host", "a")
	for name, other := range map[string]string{
		"tenant":     ID("shop", "https://host", "a"),
		"host":       ID("acme", "https://other", "a"),
		"kubeconfig": ID("acme", "https://host", "b"),
	} {
		if one == other {
			t.Errorf("another %s has the same ID %q", name, one)
		}
	}
}

func TestDefaultDir(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	for state, want := range map[string]string{
		"/state":   "/state/sublet/forwards",
		"":         filepath.Join(home, ".local/state/sublet/forwards"),
		"relative": filepath.Join(home, ".local/state/sublet/forwards"), // as the XDG specification has it
	} {
		got, err := DefaultDir(func(string) string { return state })
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("with XDG_STATE_HOME=%q: %q, want %q", state, got, want)
		}
	}
}
