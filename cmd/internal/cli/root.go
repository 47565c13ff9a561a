package cli

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/cmd/internal/ui"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/internal/nearest"
)

// commandRow is a command's heading on the help page and its constructor.
type commandRow struct {
	group string
	new   func(*factory) *cobra.Command
}

// commands is the table of top-level commands, in the order of the help page.
var commands = []commandRow{
	{groupCompile, newCompileCmd},
	{groupCompile, newRunCmd},
	{groupCompile, newVerifyCmd},
	{groupCompile, newBenchCmd},
	{groupCompile, newTuneCmd},
	{groupCompile, newBenchWorkerCmd},
	{groupLook, newInspectCmd},
	{groupLook, newPlanCmd},
	{groupLook, newViewCmd},
	{groupLook, newDiffCmd},
	{groupChange, newSimplifyCmd},
	{groupStore, newBookCmd},
	{groupStore, newCheckpointCmd},
	{groupMachine, newDoctorCmd},
	{groupMachine, newDevicesCmd},
	{groupMachine, newVersionCmd},
}

// The headings of the help page.
const (
	groupCompile = "compile"
	groupLook    = "look"
	groupChange  = "change"
	groupStore   = "store"
	groupMachine = "machine"
)

var groups = []*cobra.Group{
	{ID: groupCompile, Title: "Compile and run:"},
	{ID: groupLook, Title: "Look inside:"},
	{ID: groupChange, Title: "Change a model:"},
	{ID: groupStore, Title: "Models and weights:"},
	{ID: groupMachine, Title: "This machine:"},
}

// factory is what every command is built with: the streams, the flags that all
// commands share, and what follows from them.
type factory struct {
	*ui.Streams
	json       bool
	jobs       int
	cacheFlag  string
	timeBudget time.Duration
	progress   string
	reader     string
	books      map[string]*scheduleBook // that were read, by path
}

const rootLong = `lathe compiles ONNX models to native artifacts for this CPU, runs them, proves
that they are right, times them, and changes them.

Exit codes: 0 done, 1 internal error, 2 usage, 3 bad input model or data,
4 unsupported op, dtype or opset, 5 verification failed, 6 gate not met,
7 toolchain or device missing, 8 budget reached, 9 lock mismatch, 130 interrupted.

Data goes to stdout, talk to stderr. No command uses the network unless it is
asked to fetch.`

func newRootCmd(f *factory) *cobra.Command {
	root := &cobra.Command{
		Use:           "lathe",
		Short:         "Compile, verify and customise ONNX models",
		Long:          rootLong,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return f.settle()
		},
	}
	root.SetIn(f.In)
	root.SetOut(f.Out)
	root.SetErr(f.Err)
	root.SetFlagErrorFunc(flagError)
	pf := root.PersistentFlags()
	pf.BoolVar(&f.json, "json", false, "print results as JSON on stdout")
	pf.BoolVarP(&f.Quiet, "quiet", "q", false, "say nothing but errors and warnings")
	pf.BoolVarP(&f.Verbose, "verbose", "v", false, "say more")
	pf.StringVar(&f.progress, "progress", "auto", "progress display: auto, bar, plain or none")
	pf.StringVar(&f.reader, "reader", "lathe", "what reads ONNX files: lathe, or onnx-go for the models that it can read")
	pf.IntVarP(&f.jobs, "jobs", "j", 0, "most threads used for lathe's own work (default all cores)")
	pf.StringVar(&f.cacheFlag, "cache-dir", "", "folder for compiled kernels (default the user's cache folder, or LATHE_CACHE)")
	pf.DurationVar(&f.timeBudget, "time-budget", 0, "stop after this time, such as 30s or 10m (exit code 8)")
	for _, g := range groups {
		if slices.ContainsFunc(commands, func(c commandRow) bool { return c.group == g.ID }) {
			root.AddGroup(g)
		}
	}
	for _, c := range commands {
		cmd := c.new(f)
		cmd.GroupID = c.group
		root.AddCommand(cmd)
	}
	root.SetHelpCommandGroupID(groupMachine)
	root.SetCompletionCommandGroupID(groupMachine)
	strict(root)
	return root
}

// settle checks the shared flags once they are parsed.
func (f *factory) settle() error {
	switch m := ui.ProgressMode(f.progress); m {
	case ui.ProgressAuto, ui.ProgressBar, ui.ProgressPlain, ui.ProgressNone:
		f.Mode = m
	default:
		return fault.New(fault.Usage, "unknown progress mode %q", f.progress).Hint("use auto, bar, plain or none")
	}
	if err := choice("reader", f.reader, sortedKeys(readers)...); err != nil {
		return err
	}
	if f.jobs < 0 {
		return fault.New(fault.Usage, "--jobs %d is negative", f.jobs)
	}
	if f.timeBudget < 0 {
		return fault.New(fault.Usage, "--time-budget %s is negative", f.timeBudget)
	}
	if f.jobs > 0 {
		runtime.GOMAXPROCS(f.jobs)
	}
	return nil
}

// cacheDir is the folder of content-addressed caches: the flag, LATHE_CACHE,
// or the user's cache folder.
func (f *factory) cacheDir() (string, error) {
	if f.cacheFlag != "" {
		return f.cacheFlag, nil
	}
	if d := os.Getenv("LATHE_CACHE"); d != "" {
		return d, nil
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fault.New(fault.Usage, "no cache folder: %w", err).Hint("give one with --cache-dir")
	}
	return filepath.Join(base, "lathe"), nil
}

// context adds the time budget to a command's context.
func (f *factory) context(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	if f.timeBudget > 0 {
		return context.WithTimeout(cmd.Context(), f.timeBudget)
	}
	return context.WithCancel(cmd.Context())
}

// strict makes every command with subcommands refuse unknown ones by name:
// cobra's own default prints the help and exits 0 for nested ones.
func strict(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		strict(c)
	}
	if !cmd.HasSubCommands() || cmd.Runnable() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		var names []string
		for _, c := range cmd.Commands() {
			if !c.Hidden {
				names = append(append(names, c.Name()), c.Aliases...)
			}
		}
		err := fault.New(fault.Usage, "unknown command %q for %q", args[0], cmd.CommandPath())
		if n := nearest.Find(args[0], names); n != "" {
			return err.Hint("did you mean %q?", cmd.CommandPath()+" "+n)
		}
		return err.Hint("%s --help lists the commands", cmd.CommandPath())
	}
}

// args wraps a cobra argument check so that its error is a usage error that
// names the command's use.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			return fault.New(fault.Usage, "%w", err).Hint("usage: %s", cmd.UseLine())
		}
		return nil
	}
}

// choiceError says that a flag's value is none of the known ones.
func choiceError(flag, value string, known []string) error {
	err := fault.New(fault.Usage, "unknown %s %q", flag, value)
	if n := nearest.Find(value, known); n != "" {
		return err.Hint("did you mean %q?", n)
	}
	return err.Hint("use one of: %s", strings.Join(known, ", "))
}

// choice checks a flag's value against a list and suggests the nearest.
func choice(flag, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return choiceError("value for --"+flag, value, allowed)
}

// parseSeed reads an optional seed.
func parseSeed(text string) (seed uint64, given bool, err error) {
	if text == "" {
		return 0, false, nil
	}
	seed, err = strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, false, fault.New(fault.Usage, "%q is not a seed", text).Hint("use a whole number from 0")
	}
	return seed, true, nil
}
