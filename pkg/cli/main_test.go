package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	main := func() {
		signals := make(chan os.Signal, 4)
		signal.Notify(signals, os.Interrupt)
		err := Run(context.Background(), Process{
			Args:    os.Args,
			Stdin:   os.Stdin,
			Stdout:  os.Stdout,
			Stderr:  os.Stderr,
			Signals: signals,
		})
		os.Exit(Report(os.Stderr, err))
	}
	testscript.Main(m, map[string]func(){"sublet": main, "kubectl-sublet": main})
}

// TestScripts runs what people would type. The scripts ask no host; those that
// do are in e2e/integration.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir+"/home")
			env.Setenv("KUBECONFIG", env.WorkDir+"/kubeconfig")
			env.Setenv("XDG_STATE_HOME", env.WorkDir+"/state")
			return os.Mkdir(env.WorkDir+"/home", 0o755)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"code": code},
	})
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
