package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/cmd/internal/ui"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/internal/atomicfile"
)

// exitCode is the exit code in an error of os/exec, in words for other errors.
func exitCode(err error) string {
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		return strconv.Itoa(ee.ExitCode())
	}
	return err.Error()
}

func TestReportCodesAndSentences(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		want string
	}{
		{nil, 0, ""},
		{errors.New("odd"), 1, "lathe: odd\n"},
		{fault.New(fault.Usage, "bad flag"), 2, "lathe: bad flag\n"},
		{fmt.Errorf("outer: %w", fault.New(fault.BadModel, "truncated").InFile("m.onnx")), 3, "lathe: outer: m.onnx: truncated\n"},
		{fmt.Errorf("open x: %w", fs.ErrNotExist), 3, "lathe: open x: file does not exist\n"},
		{fault.New(fault.Unsupported, "no kernel").AtNode("n", "Conv").Hint("try eval"), 4, "lathe: node \"n\" (Conv): no kernel\n  hint: try eval\n"},
		{fault.New(fault.Verify, "differs"), 5, "lathe: differs\n"},
		{&silentError{fault.Verify}, 5, ""},
		{fault.New(fault.Gate, "too slow"), 6, "lathe: too slow\n"},
		{fault.New(fault.Toolchain, "no cc"), 7, "lathe: no cc\n"},
		{fmt.Errorf("work: %w", context.DeadlineExceeded), 8, "lathe: work: context deadline exceeded\n  hint: raise --time-budget\n"},
		{fault.New(fault.Lock, "changed"), 9, "lathe: changed\n"},
		{&atomicfile.ExistsError{Path: "out"}, 2, "lathe: out exists already\n  hint: give another -o, or --force to replace it\n"},
		{errors.New("name \x1b[31m\nevil"), 1, "lathe: name \\x1b[31m; evil\n"},
	} {
		var out, err bytes.Buffer
		if got := report(t.Context(), ui.Piped(nil, &out, &err), c.err); got != c.code || err.String() != c.want || out.Len() > 0 {
			t.Errorf("%v: code %d, want %d; stderr %q, want %q; stdout %q", c.err, got, c.code, err.String(), c.want, out.String())
		}
	}
}

func TestReportInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var err bytes.Buffer
	if got := report(ctx, ui.Piped(nil, &err, &err), ctx.Err()); got != 130 || err.String() != "lathe: interrupted\n" {
		t.Errorf("code %d, %q", got, err.String())
	}
}

func TestPanicBecomesInternalError(t *testing.T) {
	defer func(old []commandRow) { commands = old }(commands)
	commands = append(commands[:len(commands):len(commands)], commandRow{groupMachine, func(*factory) *cobra.Command {
		return &cobra.Command{Use: "boom", RunE: func(*cobra.Command, []string) error { panic("BUG: two\nlines") }}
	}})
	for debug, want := range map[string]string{"": "LATHE_DEBUG=1", "1": "errors_test.go"} {
		t.Setenv("LATHE_DEBUG", debug)
		var out, err bytes.Buffer
		if got := Main([]string{"boom"}, ui.Piped(nil, &out, &err)); got != 1 {
			t.Errorf("code %d", got)
		}
		if !strings.HasPrefix(err.String(), "lathe: internal error: BUG: two\n") || !strings.Contains(err.String(), want) {
			t.Errorf("stderr %q", err.String())
		}
	}
}

// TestEveryCommandHasHelp holds each command to a sentence and, where it does
// something by itself, an example.
func TestEveryCommandHasHelp(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" {
			return
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		if !c.HasSubCommands() && !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: no example in its help", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCmd(&factory{Streams: ui.Piped(nil, nil, nil)}))
}
