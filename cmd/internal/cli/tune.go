package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/internal/atomicfile"
	"github.com/lathe-ml/lathe/search/tune"
)

type tuneOptions struct {
	*factory
	model  string
	out    string
	engine engineOptions
	shapes shapeFlags
	inputs inputFlags
	rounds int
	budget time.Duration
}

// tuneBudget is how long lathe tune searches when nothing is said.
const tuneBudget = 10 * time.Minute

func newTuneCmd(f *factory) *cobra.Command {
	o := &tuneOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "tune MODEL",
		Short: "Measure other ways to make a model's kernels, and record the fastest",
		Long: `tune measures on this machine what the heuristics decide otherwise: the form of
each kernel (direct, Winograd, …), its register tile, how much is done at once, how
far ahead it fetches. Each round changes something at every site, builds one program
and times it in turns with the best one so far; a change is taken if it is faster
in a second measurement, too, and the whole program with it.

The records go into a book, JSON lines that can be shown, merged and shipped (see
lathe book); compile, run, bench, verify and plan take it with --schedules. The
default book is schedules.jsonl in lathe's cache folder. A search begins with what
the book knows, and may be interrupted: the best so far is kept.

Results do not change beyond what the precision allows: every program is run and
compared with the heuristic's before it is timed.`,
		Example: `  lathe tune model.onnx --time-budget 5m
  lathe tune model.onnx --dim N=1 --threads 2 -o book.jsonl
  lathe tune model.onnx --cpu x86-64-v3 --rounds 20 --json
  lathe compile model.onnx -o out --schedules auto`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			o.model = a[0]
			return o.run(cmd.Context())
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&o.out, "output", "o", defaultBook, "record book that is read and added to; auto is schedules.jsonl in the cache folder")
	fl.IntVar(&o.rounds, "rounds", 0, "stop after so many rounds (default: when the time is up)")
	fl.IntVar(&o.engine.threads, "threads", 1, "threads that the model runs with")
	registerPin(fl, &o.engine.pin)
	o.engine.register(fl)
	o.shapes.register(cmd)
	o.inputs.register(cmd)
	return cmd
}

// tuneResult is what `lathe tune --json` prints.
type tuneResult struct {
	Model  string          `json:"model"`
	Book   string          `json:"book"`
	Target schedule.Target `json:"target"`
	*tune.Result
}

func (o *tuneOptions) run(ctx context.Context) error {
	if o.engine.threads < 1 {
		return fault.New(fault.Usage, "--threads %d: at least 1 is needed", o.engine.threads)
	}
	if o.rounds < 0 {
		return fault.New(fault.Usage, "--rounds %d is negative", o.rounds)
	}
	if o.engine.tolerance != "" {
		return fault.New(fault.Usage, "--tolerance picks precisions, lathe tune schedules").Hint("tune with --precision or --precisions")
	}
	if o.budget = o.timeBudget; o.budget == 0 {
		o.budget = tuneBudget
	}
	book, path, err := o.book()
	if err != nil {
		return err
	}
	m, err := o.loadModel(o.model)
	if err != nil {
		return err
	}
	defer m.Close()
	r, target, err := o.tune(ctx, m, book, path)
	if r == nil {
		return err
	}
	if printErr := o.print(tuneResult{o.model, path, target, r}); printErr != nil {
		return printErr
	}
	return err
}

// book is what is known before the search: the book that is added to, and the
// one of --schedules.
func (o *tuneOptions) book() (*schedule.Book, string, error) {
	path, err := o.bookPath(o.out)
	if err != nil {
		return nil, "", err
	}
	if o.out == defaultBook {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return nil, "", fault.New(fault.Usage, "cannot make the folder of the record book: %w", err)
		}
	}
	if err := atomicfile.Writable(path); err != nil {
		return nil, "", err
	}
	all := &schedule.Book{}
	b, bad, err := schedule.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, "", err
	default:
		o.warnDamage(path, bad)
		all.Merge(b)
	}
	if o.engine.schedules != "" {
		b, err := o.openBook(o.engine.schedules)
		if err != nil {
			return nil, "", err
		}
		all.Merge(b.Book)
	}
	return all, path, nil
}

// tune searches; an interrupted search gives a result and an error.
func (o *tuneOptions) tune(ctx context.Context, m *onnxfile.Model, book *schedule.Book, path string) (*tune.Result, schedule.Target, error) {
	var none schedule.Target
	e, err := findEngine("cpu")
	if err == nil {
		err = o.engine.check(e)
	}
	if err != nil {
		return nil, none, err
	}
	s, err := o.subject(ctx, m)
	if err != nil {
		return nil, none, err
	}
	defer s.close()
	target := scheduleTarget(s.traits, s.lower.Precision, o.engine.threads)
	opt := tune.Options{
		Target: target, Lathe: readVersion().Version, Book: book, Seed: o.inputs.seed, Rounds: o.rounds,
		Until: time.Now().Add(o.budget - min(o.budget/10, 3*time.Second)),
		Save:  func(b *schedule.Book) error { return b.Save(path) },
	}
	if o.engine.threads > 1 {
		opt.Rest = rest
	}
	// The display moves with the time, which is what ends most searches.
	start, shown := time.Now(), 0
	bar := o.Progress("tuning "+filepath.Base(o.model), max(1, int(o.budget.Seconds())))
	defer bar.Done()
	opt.Round = func(st tune.Status) {
		bar.Describe(fmt.Sprintf("tuning %s: round %d, %s, %.1f %% less time", filepath.Base(o.model), st.Round, plural(st.Trials, "trial"), 100*(1-st.Ratio)))
		now := min(int(time.Since(start).Seconds()), int(o.budget.Seconds()))
		bar.Add(now - shown)
		shown = now
	}
	r, err := tune.Run(ctx, tune.Subject{Program: s.program, Build: s.build}, opt)
	return r, target, err
}

func (o *tuneOptions) print(r tuneResult) error {
	for _, w := range r.Wrong {
		o.Warnf("a program was refused: %s", w)
	}
	if o.json {
		return o.JSON(r)
	}
	t := o.Table(">calls", ">before µs", ">after µs", ">gain %", "schedule", "site")
	us := func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }
	for _, s := range r.Sites {
		gain, text := "", s.Schedule
		if s.Schedule != s.Heuristic {
			if s.Before > 0 {
				gain = us(100 * (1 - s.After/s.Before))
			}
			text = s.Heuristic + " → " + s.Schedule
		}
		t.Row(itoa(s.Calls), us(s.Before), us(s.After), gain, text, s.Key)
	}
	t.Print()
	where := "the records are in " + r.Book
	switch {
	case len(r.Sites) == 0:
		where = "no kernel of this model has a form or a size to choose"
	case r.Trials == 0:
		where = "nothing was recorded"
	}
	o.Infof("%s and %s, stopped by %s; %s", plural(r.Rounds, "round"), plural(r.Trials, "trial"), stopText(r.Stopped), where)
	if r.Before.Shortest > 0 {
		o.Infof("%.1f µs before, %.1f after, %.1f %% less (all steps at their shortest, taking turns; whole runs: shortest %.1f and %.1f, median %.1f and %.1f)",
			r.Before.Steps, r.After.Steps, 100*(1-r.Ratio), r.Before.Shortest, r.After.Shortest, r.Before.Median, r.After.Median)
	}
	return nil
}

func stopText(why string) string {
	switch why {
	case "time":
		return "the time budget"
	case "rounds":
		return "the number of rounds"
	case "nothing left":
		return "nothing left to try"
	}
	return "an interrupt"
}

// checkTune holds that --tune can measure what is compiled.
func (o *compileOptions) checkTune() error {
	switch {
	case o.tune < 0:
		return fault.New(fault.Usage, "--tune %s is negative", o.tune)
	case o.target != "cpu":
		return fault.New(fault.Usage, "--tune measures native code, not the target %s", o.target).Hint("use it with --target cpu")
	case o.dryRun:
		return fault.New(fault.Usage, "--tune has no meaning with --dry-run")
	case strings.Contains(o.code.cpu, ","):
		return fault.New(fault.Usage, "--tune is for one CPU, --cpu names several").Hint("tune each with lathe tune --cpu, then compile with --schedules auto")
	}
	return nil
}

// tuned searches before it lowers. The book is the default one, with that of
// --schedules.
func (o *compileOptions) tuned(ctx context.Context, m *onnxfile.Model, opt onnx.Options, b backend.Backend) (*lowered, error) {
	t := &tuneOptions{factory: o.factory, model: o.model, out: defaultBook, shapes: o.shapes, budget: o.tune}
	t.inputs.seed = 1
	t.engine = engineOptions{codegenFlags: o.code, threads: o.threads, pin: o.pin}
	book, path, err := t.book()
	if err != nil {
		return nil, err
	}
	r, _, err := t.tune(ctx, m, book, path)
	if err != nil {
		return nil, err
	}
	if r.Before.Shortest > 0 {
		o.Infof("tuned in %s: %.1f %% less time; the records are in %s", plural(r.Rounds, "round"), 100*(1-r.Ratio), path)
	}
	o.code.tuned = newScheduleBook(book)
	return lowerModel(o.factory, m, opt, b, o.code, o.threads)
}
