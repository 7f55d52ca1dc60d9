// Package cli is the command line of Sublet: one file for each command, root.go
// with the list of them. A command parses its flags into an options struct and
// calls one function on it.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
)

// Process is what a command has of the process that it runs in.
type Process struct {
	// Args of the process, with the name of the program first.
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Signals that reach the process.
	Signals <-chan os.Signal
	// RestoreSignals gives signals back the effect that they have by default, so
	// that whoever is in a hurry can interrupt twice.
	RestoreSignals func()
}

// app is what the commands of one run share.
type app struct {
	Process
	// name is what people type: "sublet" or "kubectl sublet".
	name string
	host *host
	// started is set once the command line is understood: errors before that
	// are errors of usage.
	started bool

	mu sync.Mutex
	// forward takes the signals while a command of the user's runs; else they
	// interrupt this one.
	forward func(os.Signal)
}

// Run runs the command that the process's arguments ask for.
func Run(ctx context.Context, p Process) error {
	// Libraries write to klog what is of no use to people here: their errors are
	// returned, too.
	klog.SetLogger(logr.Discard())

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &app{Process: p, name: programName(p.Args)}
	a.host = newHost(p.Stderr)
	go a.handleSignals(ctx, cancel)

	root := newRootCommand(a)
	root.SetArgs(arguments(p.Args))
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) && !errors.As(err, new(*interruptedError)) {
		err = &interruptedError{signal: signalOf(cause), during: err}
	}
	if !a.started {
		return usage(err, command, a.name)
	}
	return a.host.explain(err, a.name)
}

func arguments(args []string) []string {
	if len(args) < 2 {
		return []string{} // nil would make cobra read os.Args
	}
	return args[1:]
}

// programName is what people typed to get here.
func programName(args []string) string {
	if len(args) > 0 {
		base := strings.TrimSuffix(filepath.Base(args[0]), ".exe")
		if base == "kubectl-sublet" {
			return "kubectl sublet"
		}
	}
	return "sublet"
}

func (a *app) handleSignals(ctx context.Context, interrupt context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-a.Signals:
			if !ok {
				return
			}
			a.mu.Lock()
			forward := a.forward
			a.mu.Unlock()
			if forward != nil {
				forward(s)
				continue
			}
			interrupt(&interruptedError{signal: s})
			if a.RestoreSignals != nil {
				a.RestoreSignals()
			}
			return
		}
	}
}

// forwardSignals gives the process's signals to another one until the returned
// function is called.
func (a *app) forwardSignals(to func(os.Signal)) (stop func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forward = to
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.forward = nil
	}
}

// printf writes output. Where that fails, as when a pipe is closed, there is
// nobody left to tell.
func (a *app) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.Stdout, format, args...)
}

// printJSON writes what is no object of an API.
func (a *app) printJSON(value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	a.printf("%s\n", content)
	return nil
}

// warnf writes what is not output.
func (a *app) warnf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.Stderr, format, args...)
}

// Groups of commands in the help.
const (
	groupUse   = "use"
	groupAdmin = "admin"
)

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:         strings.ReplaceAll(a.name, " ", "-"),
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: a.name},
		Short:       "Many tenants in one Kubernetes cluster",
		Long: `Sublet lets many tenants live in one Kubernetes cluster. A tenant gets a virtual
cluster, with an API server of its own, or a plain namespace.

The host cluster is the one of your kubeconfig's current context. While you are
connected to a tenant, these commands still find the host.`,
		Example: examples(a.name, `
# Put Sublet into the current cluster.
%[1]s install

# Make a virtual cluster, and go in.
%[1]s create acme --connect
kubectl get namespaces
%[1]s disconnect

# Run one command in it.
%[1]s connect acme -- kubectl get pods -A`),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddGroup(
		&cobra.Group{ID: groupUse, Title: "Tenants:"},
		&cobra.Group{ID: groupAdmin, Title: "Sublet itself:"},
	)
	root.SetHelpCommandGroupID(groupAdmin)
	a.host.addFlags(root.PersistentFlags())
	_ = root.RegisterFlagCompletionFunc("context", a.completeContexts)

	add := func(group string, commands ...*cobra.Command) {
		for _, command := range commands {
			command.GroupID = group
			root.AddCommand(command)
		}
	}
	add(groupUse,
		newCreateCommand(a),
		newConnectCommand(a),
		newDisconnectCommand(a),
		newListCommand(a),
		newTreeCommand(a),
		newDescribeCommand(a),
		newQuotaCommand(a),
		newCanICommand(a),
		newMembersCommand(a),
		newMoveCommand(a),
		newTemplatesCommand(a),
		newAdoptCommand(a),
		newImportCommand(a),
		newKubeconfigCommand(a),
		newDeleteCommand(a),
	)
	add(groupAdmin,
		newInstallCommand(a),
		newUninstallCommand(a),
		newDebugCommand(a),
		newVersionCommand(a),
		newCompletionCommand(a),
	)
	root.AddCommand(newServeForwardCommand(a))
	return root
}

// run wraps what a command does, so that errors after it has started are not
// taken for errors of usage.
func (a *app) run(do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.started = true
		return do(cmd.Context(), args)
	}
}

// examples writes the program's name into examples and indents them.
func examples(name, text string) string {
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(text, "%[1]s", name)), "\n")
	for i, line := range lines {
		if line != "" {
			lines[i] = "  " + line
		}
	}
	return strings.Join(lines, "\n")
}
