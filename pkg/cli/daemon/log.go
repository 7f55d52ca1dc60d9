package daemon

import (
	"context"
	"flag"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	jsonlogs "k8s.io/component-base/logs/json"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
	ctrl "sigs.k8s.io/controller-runtime"
)

// logFlags say how to log.
type logFlags struct {
	format    string
	verbosity uint32
}

func (f *logFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.format, "log-format", "text", "text or json")
	cmd.Flags().Uint32VarP(&f.verbosity, "v", "v", 0, "how much to log: 0 for everybody; from 1 on, for finding out, what the libraries say as well")
}

// apply sets the logging of the process, which all libraries share.
func (f *logFlags) apply(ctx context.Context, w io.Writer) (context.Context, error) {
	var logger logr.Logger
	switch f.format {
	case "text":
		logger = textlogger.NewLogger(textlogger.NewConfig(textlogger.Verbosity(int(f.verbosity)), textlogger.Output(w)))
	case "json":
		logger, _ = jsonlogs.NewJSONLogger(0, jsonlogs.AddNopSync(w), nil, nil)
	default:
		return nil, &usageError{err: fmt.Errorf("--log-format %q: use text or json", f.format)}
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	klog.InitFlags(flags)
	if err := flags.Set("v", strconv.Itoa(int(f.verbosity))); err != nil {
		return nil, fmt.Errorf("setting up the log: %w", err)
	}
	if f.verbosity == 0 {
		logger = logr.New(&ownLines{LogSink: logger.WithCallDepth(1).GetSink()})
	}
	klog.SetLogger(logger)
	ctrl.SetLogger(logger)
	return logr.NewContext(ctx, logger), nil
}

// ownLines lets through errors, and of all else only what our own packages say:
// the API server and its controllers alone have two hundred lines to say at
// each start, none of which anybody needs to know.
type ownLines struct{ logr.LogSink }

// Init does nothing: the sink below has been told already.
func (s *ownLines) Init(logr.RuntimeInfo) {}

func (s *ownLines) Info(level int, message string, keysAndValues ...any) {
	if ours() {
		s.LogSink.Info(level, message, keysAndValues...)
	}
}

func (s *ownLines) Error(err error, message string, keysAndValues ...any) {
	s.LogSink.Error(err, message, keysAndValues...)
}

func (s *ownLines) WithValues(keysAndValues ...any) logr.LogSink {
	return &ownLines{s.LogSink.WithValues(keysAndValues...)}
}

func (s *ownLines) WithName(name string) logr.LogSink {
	return &ownLines{s.LogSink.WithName(name)}
}

// WithCallDepth is what klog wants of a sink.
func (s *ownLines) WithCallDepth(depth int) logr.LogSink {
	if deeper, ok := s.LogSink.(logr.CallDepthLogSink); ok {
		return &ownLines{deeper.WithCallDepth(depth)}
	}
	return s
}

// ours tells whether a line comes from a package of this module.
func ours() bool {
	var callers [16]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers[:])])
	for {
		frame, more := frames.Next()
		between := slices.ContainsFunc([]string{"k8s.io/klog/v2", "github.com/go-logr/"}, func(prefix string) bool {
			return strings.HasPrefix(frame.Function, prefix)
		})
		if !between {
			return strings.HasPrefix(frame.Function, "github.com/sublet-dev/sublet/")
		}
		if !more {
			return false
		}
	}
}
