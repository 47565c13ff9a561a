package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lathe-ml/lathe/cmd/internal/ui"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/internal/atomicfile"
	"github.com/lathe-ml/lathe/internal/nearest"
)

// exitInterrupted is the code after SIGINT or SIGTERM, as shells give it for
// the first.
const exitInterrupted = 130

// exitCodes is the contract of DESIGN: scripts depend on it.
var exitCodes = map[fault.Kind]int{
	fault.Internal:    1,
	fault.Usage:       2,
	fault.BadModel:    3,
	fault.Unsupported: 4,
	fault.Verify:      5,
	fault.Gate:        6,
	fault.Toolchain:   7,
	fault.Budget:      8,
	fault.Lock:        9,
}

// patience is how long a command may take to stop after an interrupt.
const patience = 3 * time.Second

// silentError carries an exit code after the command has said what is wrong.
type silentError struct{ kind fault.Kind }

func (e *silentError) Error() string { return e.kind.String() }

// Main runs one command line and returns the exit code. It does not exit, so
// that tests run it in their own process.
func Main(args []string, s *ui.Streams) int {
	out := &checkedWriter{w: s.Out}
	s.Out = out
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	done := make(chan error, 1)
	go func() {
		err := execute(ctx, args, s)
		if out.err != nil {
			err = fault.New(fault.Usage, "cannot write the results to stdout: %w", out.err)
		}
		done <- err
	}()
	select {
	case err := <-done:
		return report(ctx, s, err)
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return report(ctx, s, err)
	case <-time.After(patience):
		return report(ctx, s, ctx.Err())
	}
}

// checkedWriter remembers the first error of stdout, so that results that are
// lost on a full disk are no success.
type checkedWriter struct {
	w   io.Writer
	err error
}

func (c *checkedWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	if c.err == nil && err != nil {
		c.err = err
		var path *fs.PathError
		if errors.As(err, &path) {
			c.err = path.Err
		}
	}
	return n, err
}

// internalError is a caught panic.
type internalError struct {
	value any
	stack []byte
}

func (e *internalError) Error() string {
	text, _, _ := strings.Cut(fmt.Sprint(e.value), "\n")
	return "internal error: " + text
}

func execute(ctx context.Context, args []string, s *ui.Streams) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &internalError{value: v, stack: debug.Stack()}
		}
	}()
	root := newRootCmd(&factory{Streams: s})
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// report prints an error as one sentence, its hint on the next line, and gives
// the exit code.
func report(ctx context.Context, s *ui.Streams, err error) int {
	if err == nil {
		return 0
	}
	if ctx.Err() != nil {
		atomicfile.Cleanup()
		fmt.Fprintln(s.Err, "lathe: interrupted")
		return exitInterrupted
	}
	var silent *silentError
	if errors.As(err, &silent) {
		return exitCodes[silent.kind]
	}
	kind, hint := classify(err)
	fmt.Fprintf(s.Err, "%s %s\n", s.PaintErr(ui.Red, "lathe:"), oneLine(err.Error()))
	if hint != "" {
		fmt.Fprintf(s.Err, "  %s %s\n", s.PaintErr(ui.Cyan, "hint:"), oneLine(hint))
	}
	var ie *internalError
	if errors.As(err, &ie) {
		if os.Getenv("LATHE_DEBUG") == "1" {
			s.Err.Write(ie.stack)
		} else {
			fmt.Fprintln(s.Err, "  this is a fault of lathe, not yours; LATHE_DEBUG=1 prints where it happened")
		}
	}
	return exitCodes[kind]
}

// oneLine keeps a message on one line whatever names a model put into it.
func oneLine(text string) string {
	return ui.Clean(strings.ReplaceAll(strings.TrimSpace(text), "\n", "; "))
}

// classify gives an error's class and hint, also for errors of the system that
// nobody classed on the way up.
func classify(err error) (fault.Kind, string) {
	hint := fault.HintOf(err)
	if fault.As(err) != nil {
		return fault.KindOf(err), hint
	}
	var write *atomicfile.WriteError
	var exists *atomicfile.ExistsError
	switch {
	case errors.As(err, &exists):
		return fault.Usage, "give another -o, or --force to replace it"
	case errors.As(err, &write):
		return fault.Usage, "choose a place that can be written"
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Budget, "raise --time-budget"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return fault.BadModel, ""
	}
	return fault.Internal, hint
}

// flagError turns pflag's errors into usage errors with the nearest flag.
func flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	f := fault.New(fault.Usage, "%s", err)
	var missing *pflag.NotExistError
	if !errors.As(err, &missing) {
		return f.Hint("%s --help lists the flags", cmd.CommandPath())
	}
	var names []string
	cmd.Flags().VisitAll(func(fl *pflag.Flag) { names = append(names, fl.Name) })
	cmd.InheritedFlags().VisitAll(func(fl *pflag.Flag) { names = append(names, fl.Name) })
	if n := nearest.Find(missing.GetSpecifiedName(), names); n != "" {
		return f.Hint("did you mean --%s?", n)
	}
	return f.Hint("%s --help lists the flags", cmd.CommandPath())
}
