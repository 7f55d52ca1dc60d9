package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// Exit codes of the command line.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 127 // as a shell says of a command that is not there
	exitSignal      = 128 // plus the number of the signal
	exitInterrupted = exitSignal + int(syscall.SIGINT)
)

// hintedError is an error with what to do about it.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

// hint adds what to do to an error. The hint nearest to the cause wins.
func hint(err error, format string, args ...any) error {
	if err == nil || errors.As(err, new(*hintedError)) {
		return err
	}
	return &hintedError{err: err, hint: fmt.Sprintf(format, args...)}
}

// usageError is an error in what was typed.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(err error, command *cobra.Command, name string) error {
	path := name
	if command != nil {
		path = command.CommandPath()
	}
	// Cobra's suggestions come in the middle of its message.
	message, suggestions, _ := strings.Cut(err.Error(), "\n\nDid you mean this?\n")
	advice := fmt.Sprintf("See %q.", path+" --help")
	if fields := strings.Fields(suggestions); len(fields) > 0 {
		advice = fmt.Sprintf("Did you mean %q? %s", fields[0], advice)
	}
	return &usageError{err: hint(errors.New(message), "%s", advice)}
}

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// interruptedError says that a signal ended the command.
type interruptedError struct {
	signal os.Signal
	during error
	// advice says what became of the work and how to go on with it.
	advice string
}

func (e *interruptedError) Error() string {
	if e.advice != "" {
		return "interrupted: " + e.advice
	}
	return "interrupted"
}

func (e *interruptedError) Unwrap() error { return e.during }

func signalOf(cause error) os.Signal {
	var interrupted *interruptedError
	if errors.As(cause, &interrupted) {
		return interrupted.signal
	}
	return os.Interrupt
}

// interrupted tells how to go on, if ctx ended by a signal; else it returns err.
func interrupted(ctx context.Context, err error, format string, args ...any) error {
	var cause *interruptedError
	if err == nil || !errors.As(context.Cause(ctx), &cause) {
		return err
	}
	return &interruptedError{signal: cause.signal, during: err, advice: fmt.Sprintf(format, args...)}
}

// exitCodeError carries the exit code of a command that the user asked to run.
// Nothing is printed about it: the command has said what there was to say.
type exitCodeError struct{ code int }

func (e *exitCodeError) Error() string {
	return fmt.Sprintf("the command ended with exit code %d", e.code)
}

// Report prints an error of Run, if there is one, and returns the exit code of
// the process.
func Report(w io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	var code *exitCodeError
	if errors.As(err, &code) {
		return code.code
	}
	_, _ = fmt.Fprintln(w, "error:", err)
	var hinted *hintedError
	if errors.As(err, &hinted) {
		_, _ = fmt.Fprintln(w, hinted.hint)
	}
	var stopped *interruptedError
	if errors.As(err, &stopped) {
		if number, ok := stopped.signal.(syscall.Signal); ok {
			return exitSignal + int(number)
		}
		return exitInterrupted
	}
	if errors.As(err, new(*usageError)) {
		return exitUsage
	}
	return exitError
}

// explain turns what the libraries say about the host into something that
// tells a person what to do.
func (h *host) explain(err error, name string) error {
	var stopped *interruptedError
	if errors.As(err, new(*hintedError)) || errors.As(err, &stopped) || errors.As(err, new(*exitCodeError)) {
		return err
	}
	switch {
	case notInstalled(err):
		return hint(fmt.Errorf("there is no Sublet in the host cluster (%s)", h.where()), "Run %q, or choose another cluster with --context.", name+" install")
	case apierrors.IsForbidden(err):
		return hint(fmt.Errorf("too few rights on the host (%s): %w", h.where(), err), "%s", missingRight(err, name))
	case apierrors.IsUnauthorized(err):
		return hint(fmt.Errorf("the host does not accept your credentials (%s): %w", h.where(), err), "Log in to the host again, or choose another context with --context.")
	case unreachable(err):
		return hint(fmt.Errorf("the host cluster cannot be reached (%s): %w", h.where(), rootOfURLError(err)),
			"Is it running, and is this the right one? Choose another with --context or --kubeconfig; \"kubectl config get-contexts\" lists what there is.")
	}
	return err
}

// notInstalled tells a missing kind from a missing object.
func notInstalled(err error) bool {
	if !apierrors.IsNotFound(err) {
		return false
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	details := status.Status().Details
	return details.Group == api.GroupName && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// missingRight says in a rule's words what a Forbidden error is about.
func missingRight(err error, name string) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		if details := status.Status().Details; details.Group == api.GroupName && details.Kind == tenantResource && details.Name != "" {
			return fmt.Sprintf("What you may do with it, and who can give you more: %s can-i --list %s", name, details.Name)
		}
		if details := status.Status().Details; details.Kind != "" {
			resource := details.Kind
			if details.Group != "" {
				resource += "." + details.Group
			}
			return fmt.Sprintf("You need a right on %s that you do not have; ask whoever manages the host.", resource)
		}
	}
	return "Ask whoever manages the host for that right."
}

func unreachable(err error) bool {
	var netError net.Error
	var urlError *url.Error
	if errors.As(err, &urlError) {
		return !errors.Is(err, context.Canceled)
	}
	return errors.As(err, &netError) && !errors.Is(err, context.DeadlineExceeded)
}

// rootOfURLError leaves out the method and the path, which say nothing about
// why the host is out of reach.
func rootOfURLError(err error) error {
	var urlError *url.Error
	if errors.As(err, &urlError) {
		return urlError.Err
	}
	return err
}
