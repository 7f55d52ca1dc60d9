package cli

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
	"k8s.io/client-go/rest"
)

// profileServer answers as an API server does.
func profileServer(t *testing.T, code int, body []byte) (rest.Interface, *http.Request) {
	t.Helper()
	asked := &http.Request{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = *r
		w.WriteHeader(code)
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	client, err := rest.UnversionedRESTClientFor(unversioned(&rest.Config{Host: server.URL}))
	if err != nil {
		t.Fatal(err)
	}
	return client, asked
}

func TestFetchProfile(t *testing.T) {
	var heap bytes.Buffer
	if err := pprof.Lookup("heap").WriteTo(&heap, 0); err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{
		"heap":      "/debug/pprof/heap?gc=1",
		"cpu":       "/debug/pprof/profile?seconds=30",
		"goroutine": "/debug/pprof/goroutine",
		"allocs":    "/debug/pprof/allocs",
		"trace":     "/debug/pprof/trace?seconds=5",
	}
	for _, kind := range profileKinds() {
		t.Run(kind.name, func(t *testing.T) {
			client, asked := profileServer(t, http.StatusOK, heap.Bytes())
			content, err := fetchProfile(t.Context(), client, kind)
			if err != nil {
				t.Fatal(err)
			}
			if asked.RequestURI != paths[kind.name] {
				t.Errorf("it asked for %s, want %s", asked.RequestURI, paths[kind.name])
			}
			if _, err := profile.ParseData(content); err != nil {
				t.Errorf("what came is not what was sent: %v", err)
			}
			if _, err := gzip.NewReader(bytes.NewReader(content)); err != nil {
				t.Errorf("it was unpacked on the way: %v", err)
			}
		})
	}
}

func TestRefusedProfile(t *testing.T) {
	cases := map[string]struct {
		code    int
		manager bool
		want    []string
	}{
		"off": {
			code: http.StatusNotFound,
			want: []string{`tenant "acme" serves no profiles: they are off`, `kubectl patch tenant acme --type merge -p '{"spec":{"virtualCluster":{"profiling":true}}}'`, "restarts"},
		},
		"not an admin": {
			code: http.StatusForbidden,
			want: []string{`profiles of tenant "acme" are for its admins`, "Ask an admin"},
		},
		"broken": {
			code: http.StatusInternalServerError,
			want: []string{`getting a profile of tenant "acme"`, "sublet describe acme"},
		},
		"manager off": {
			code: http.StatusNotFound, manager: true,
			want: []string{"the manager serves no profiles", "--set manager.profiling=true"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			client, _ := profileServer(t, c.code, nil)
			_, err := fetchProfile(t.Context(), client, profileKinds()[0])
			o := &profileOptions{app: &app{name: "sublet"}, name: "acme", manager: c.manager}
			var said bytes.Buffer
			Report(&said, o.refused(err))
			for _, want := range c.want {
				if !strings.Contains(said.String(), want) {
					t.Errorf("it says\n%s\nwithout %q", said.String(), want)
				}
			}
		})
	}
	// Nobody listens: the manager was started without.
	o := &profileOptions{app: &app{name: "sublet"}, manager: true}
	client, err := rest.UnversionedRESTClientFor(unversioned(&rest.Config{Host: "http://127.0.0.1:1"}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = fetchProfile(t.Context(), client, profileKinds()[0])
	if err := o.refused(err); err == nil || !strings.Contains(err.Error(), "they are off, or it cannot be reached") {
		t.Errorf("it says %v", err)
	}
	if err := o.refused(nil); err != nil {
		t.Errorf("it refuses nothing: %v", err)
	}
}

func TestChooseProfile(t *testing.T) {
	cases := map[string]struct {
		options profileOptions
		file    string
		seconds int
		wrong   string
	}{
		"heap":            {options: profileOptions{kind: "heap"}, file: "acme-heap.pb.gz"},
		"cpu":             {options: profileOptions{kind: "cpu"}, file: "acme-cpu.pb.gz", seconds: 30},
		"longer":          {options: profileOptions{kind: "cpu", seconds: 90}, file: "acme-cpu.pb.gz", seconds: 90},
		"trace":           {options: profileOptions{kind: "trace"}, file: "acme-trace.trace", seconds: 5},
		"file":            {options: profileOptions{kind: "heap", file: "x"}, file: "x"},
		"manager":         {options: profileOptions{kind: "allocs", manager: true}, file: "manager-allocs.pb.gz"},
		"unknown":         {options: profileOptions{kind: "mutex"}, wrong: "unknown --type"},
		"too long":        {options: profileOptions{kind: "cpu", seconds: 601}, wrong: "use 1 to 600"},
		"negative":        {options: profileOptions{kind: "cpu", seconds: -1}, wrong: "use 1 to 600"},
		"not in a moment": {options: profileOptions{kind: "heap", seconds: 5}, wrong: "leave out --seconds"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := c.options
			o.name = "acme"
			kind, err := o.choose()
			if c.wrong != "" {
				if !errors.As(err, new(*usageError)) || !strings.Contains(err.Error(), c.wrong) {
					t.Errorf("error %v, want %q", err, c.wrong)
				}
				return
			}
			if err != nil || o.file != c.file || kind.seconds != c.seconds {
				t.Errorf("%q in %d s, %v; want %q in %d s", o.file, kind.seconds, err, c.file, c.seconds)
			}
		})
	}
}

// TestWriteWhole: a file that cannot be written leaves nothing, and what was
// there before.
func TestWriteWhole(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x.pb.gz")
	for _, content := range []string{"one", "two"} {
		if err := writeWhole(file, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != content {
			t.Errorf("%q, %v; want %q", got, err, content)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(filepath.Join(dir, "folder"), nil); err == nil {
		t.Error("a folder was written over")
	}
	if err := writeWhole(filepath.Join(dir, "missing", "x"), nil); err == nil {
		t.Error("a file was written where there is no folder")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestLeads(t *testing.T) {
	for holder, want := range map[string]bool{"sublet-manager-a_uuid": true, "sublet-manager-ab_uuid": false, "sublet-manager-a": false, "": false} {
		if got := leads(holder, "sublet-manager-a"); got != want {
			t.Errorf("the holder %q: %v", holder, got)
		}
	}
}

// TestInterruptedProfile: Ctrl-C ends the waiting.
func TestInterruptedProfile(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	begun := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	client, err := rest.UnversionedRESTClientFor(unversioned(&rest.Config{Host: server.URL}))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-begun
		cancel()
	}()
	if _, err := fetchProfile(ctx, client, profileKinds()[1]); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}
