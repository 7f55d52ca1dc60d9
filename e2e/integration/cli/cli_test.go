// Package cli tests the command line against a real host API in this process,
// with the manager running. There is no node, so no pod ever starts: what needs
// one is in package e2e.
package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/rogpeppe/go-internal/testscript"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/cli"
	"github.com/sublet-dev/sublet/pkg/controlplane"
	"github.com/sublet-dev/sublet/pkg/manager"
	"github.com/sublet-dev/sublet/pkg/migrate"
	"github.com/sublet-dev/sublet/pkg/pki"
)

func TestMain(m *testing.M) {
	if os.Getenv("SUBLET_TEST_LOG") == "" {
		klog.SetLogger(logr.Discard()) // a control plane has a lot to say
	}
	testscript.Main(m, map[string]func(){"sublet": func() {
		signals := make(chan os.Signal, 4)
		signal.Notify(signals, os.Interrupt)
		err := cli.Run(context.Background(), cli.Process{
			Args: os.Args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Signals: signals,
		})
		os.Exit(cli.Report(os.Stderr, err))
	}})
}

// TestTenants runs the scripts about tenants side by side on one host.
func TestTenants(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real control plane")
	}
	host := startHost(t)
	host.install(t)
	host.startManager(t)
	host.scripts(t, "testdata/tenants")
}

// TestInstall runs those about the installation, each on a host of its own.
func TestInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real control plane")
	}
	startHost(t).scripts(t, "testdata/install")
}

type host struct {
	config     *rest.Config
	kubeconfig []byte
}

func startHost(t *testing.T) *host {
	t.Helper()
	bundle, err := pki.NewBundle("host", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	plane, err := controlplane.Start(ctx, controlplane.Options{
		Name:         "host",
		DataDir:      filepath.Join(t.TempDir(), "data"),
		Profile:      controlplane.ProfileHost,
		PKI:          bundle,
		ServiceCIDRs: []string{"10.96.0.0/16"},
	})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := plane.Wait(); err != nil {
			t.Errorf("stopping the host: %v", err)
		}
	})
	h := &host{config: plane.Config()}
	if h.kubeconfig, err = plane.Kubeconfig(""); err != nil {
		t.Fatal(err)
	}
	return h
}

// install installs the chart as people do, and does not wait for a pod.
func (h *host) install(t *testing.T) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, h.kubeconfig, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sublet", "install", "--wait=false", "--kubeconfig", file).CombinedOutput()
	if err != nil {
		t.Fatalf("sublet install: %v\n%s", err, out)
	}
}

// startManager runs the manager here, with the rights that the chart gives it.
func (h *host) startManager(t *testing.T) {
	t.Helper()
	config := rest.CopyConfig(h.config)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + api.SystemNamespace + ":" + api.ManagerName,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + api.SystemNamespace, "system:authenticated"},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- manager.Run(ctx, manager.Options{Config: config, Image: "example.com/subletd:test"}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the manager: %v", err)
		}
	})
}

func (h *host) scripts(t *testing.T, dir string) {
	t.Helper()
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_STATE_HOME", env.WorkDir+"/state")
			env.Setenv("KUBECONFIG", env.WorkDir+"/kubeconfig")
			return os.WriteFile(env.WorkDir+"/kubeconfig", h.kubeconfig, 0o600)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"code":      code,
			"retry":     retry,
			"interrupt": interrupt,
			"apply":     h.apply,
		},
	})
}

// apply makes the objects of a file, whatever they are, kinds before what is of
// them: apply FILE.
func (h *host) apply(ts *testscript.TestScript, _ bool, args []string) {
	objects, err := migrate.Read([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	c, err := client.New(h.config, client.Options{})
	ts.Check(err)
	for _, object := range objects {
		// A kind that has just been made is served a moment later.
		err := wait.PollUntilContextTimeout(context.Background(), 100*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
			err := c.Create(ctx, object.DeepCopy())
			// And a share of a quota comes a moment later, too.
			short := apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota")
			if short || meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
				return false, nil
			}
			return true, client.IgnoreAlreadyExists(err)
		})
		if err != nil {
			ts.Fatalf("%s %s: %v", object.GetKind(), object.GetName(), err)
		}
	}
}

// retry runs a command until its output matches: retry PATTERN COMMAND ARGS...
func retry(ts *testscript.TestScript, _ bool, args []string) {
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(100 * time.Millisecond) {
		if ts.Exec(args[1], args[2:]...) == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("it never says %s", args[0])
}

// code runs a command and wants an exit code: code CODE COMMAND ARGS...
func code(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// interrupt runs sublet, presses Ctrl-C once it says something, and wants it to
// end as it should: interrupt TEXT ARGS...
func interrupt(ts *testscript.TestScript, _ bool, args []string) {
	cmd := exec.Command("sublet", args[1:]...)
	cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("HOME"), "XDG_STATE_HOME="+ts.Getenv("XDG_STATE_HOME"), "KUBECONFIG="+ts.Getenv("KUBECONFIG"))
	stderr := &watched{text: args[0], seen: make(chan struct{})}
	cmd.Stderr = stderr
	ts.Check(cmd.Start())
	select {
	case <-stderr.seen:
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		ts.Fatalf("it never said %q, only %s", args[0], stderr.all.String())
	}
	ts.Check(cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		ts.Fatalf("exit code %d after Ctrl-C, want 130: %s", code, stderr.all.String())
	}
	if !strings.Contains(stderr.all.String(), "interrupted: ") {
		ts.Fatalf("it does not say how to go on: %s", stderr.all.String())
	}
}

// watched is a writer that tells when it has seen a text.
type watched struct {
	text string
	all  strings.Builder
	seen chan struct{}
	done bool
}

func (w *watched) Write(p []byte) (int, error) {
	w.all.Write(p)
	if !w.done && strings.Contains(w.all.String(), w.text) {
		w.done = true
		close(w.seen)
	}
	return len(p), nil
}
