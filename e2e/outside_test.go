//go:build linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// outsideVariable makes the test's program play what is outside of the cluster:
// it serves HTTP until its standard input ends.
const outsideVariable = "SUBLET_E2E_OUTSIDE"

func serveOutside() int {
	listener, err := net.Listen("tcp", ":80")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "this is %s", r.Host)
		}),
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Close()
	}()
	fmt.Println("ready")
	_ = server.Serve(listener)
	return 0
}

// outside gives addresses to a network namespace that the local host's node has a
// route to, in which port 80 answers. It plays the internet, a metadata service,
// a neighbouring network; nothing leaves the machine.
func (s *suite) outside(t *testing.T, addresses ...string) {
	t.Helper()
	s.onLocalHost(t)
	s.outer.Lock()
	t.Cleanup(s.outer.Unlock)
	const gateway, link = "100.127.0.1", "outside"
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), outsideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a network namespace: %v", err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	if _, err := io.ReadFull(stdout, make([]byte, len("ready"))); err != nil {
		t.Fatalf("the server outside did not start: %v", err)
	}
	there, node := strconv.Itoa(cmd.Process.Pid), strconv.Itoa(s.sandbox)
	commands := [][]string{
		{node, "ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", there},
		{node, "ip", "addr", "add", gateway + "/32", "dev", link},
		{node, "ip", "link", "set", link, "up"},
		{there, "ip", "link", "set", "lo", "up"},
		{there, "ip", "link", "set", "eth0", "up"},
		{there, "ip", "route", "add", gateway, "dev", "eth0"},
		{there, "ip", "route", "add", "default", "via", gateway},
	}
	for _, address := range addresses {
		commands = append(commands,
			[]string{there, "ip", "addr", "add", address + "/32", "dev", "eth0"},
			[]string{node, "ip", "route", "add", address + "/32", "dev", link})
	}
	// A run that was killed may have left it; its namespace is gone.
	_ = inNetwork(node, "ip", "link", "del", link)
	for _, command := range commands {
		if err := inNetwork(command[0], command[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = inNetwork(node, "ip", "link", "del", link) })
}

// inNetwork runs a command in the network namespace of a process.
func inNetwork(pid string, command ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nsenter", append([]string{"--net=/proc/" + pid + "/ns/net"}, command...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("in the network of process %s: %s: %w: %s", pid, strings.Join(command, " "), err, out)
	}
	return nil
}
