//go:build linux

package separate

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestArguments holds that nothing listens anywhere but on loopback.
func TestArguments(t *testing.T) {
	c := &ControlPlane{options: Options{Dir: "/dir"}}
	p := ports{1001, 1002, 1003, 1004, 1005, 1006, 1007}
	listening := map[string][]string{
		etcd:              {"--listen-client-urls=http://127.0.0.1:1001", "--listen-peer-urls=http://127.0.0.1:1002"},
		apiServer:         {"--bind-address=127.0.0.1", "--secure-port=1003", "--etcd-servers=http://127.0.0.1:1001"},
		controllerManager: {"--bind-address=127.0.0.1", "--secure-port=1004"},
	}
	for name, want := range listening {
		args := strings.Join(c.argumentsFor(p)[name], "\n") + "\n"
		for _, arg := range want {
			if !strings.Contains(args, arg+"\n") {
				t.Errorf("%s is not started with %s:\n%s", name, arg, args)
			}
		}
	}
	for _, line := range []string{".:1005 {", "bind 127.0.0.1", "health 127.0.0.1:1006 {", "ready 127.0.0.1:1007"} {
		if corefile := string(c.corefile(p)); !strings.Contains(corefile, line) {
			t.Errorf("the Corefile lacks %q:\n%s", line, corefile)
		}
	}
}

func TestFreePorts(t *testing.T) {
	free, err := freePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for i := range free {
		listener, err := net.Listen("tcp4", free.at(i))
		if err != nil {
			t.Fatalf("the port is not free: %v", err)
		}
		defer listener.Close()
		seen[free[i]] = true
	}
	if len(seen) != 3 {
		t.Errorf("want three different ports, got %v", free)
	}
}

func TestProcess(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	start := func(script string) *process {
		t.Helper()
		p, err := startProcess("shell", "/bin/sh", []string{"-c", script}, log)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	t.Run("is ended", func(t *testing.T) {
		p := start("exec sleep 600")
		if err := p.failure(); err != nil {
			t.Fatalf("it runs: %v", err)
		}
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if err := p.failure(); err == nil {
			t.Error("it was ended, and is said to run")
		}
	})
	t.Run("has ended by itself, with what it said", func(t *testing.T) {
		p := start("echo no such flag; exit 3")
		select {
		case <-p.ended:
		case <-time.After(time.Minute):
			t.Fatal("it did not end")
		}
		if err := p.failure(); err == nil || !strings.Contains(err.Error(), "no such flag") {
			t.Errorf("want its last words, got %v", err)
		}
		if err := p.stop(); err != nil {
			t.Errorf("to end what has ended is no error: %v", err)
		}
	})
	t.Run("is not there", func(t *testing.T) {
		if _, err := startProcess("none", "/no/such/program", nil, log); err == nil {
			t.Error("want an error")
		}
	})
}
