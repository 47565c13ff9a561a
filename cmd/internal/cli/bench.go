package cli

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/internal/atomicfile"
)

type benchOptions struct {
	*factory
	backend  string
	shapes   shapeFlags
	inputs   inputFlags
	engine   engineOptions
	peer     string
	model    string
	warmup   int
	minTime  time.Duration
	minRuns  int
	baseline string
	failIf   []string
	keepOn   bool
	threads  []int
	profile  bool
	errors   bool
	table    string
	page     string
	kernels  string
	foot     bool
	suite    string
	only     string
	variants []string
	date     string
	force    bool
	roofs    map[string]*cpu.Roofline
}

func newBenchCmd(f *factory) *cobra.Command {
	o := &benchOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "bench MODEL|ARTIFACT…",
		Short: "Time a model or an artifact, also against ONNX Runtime",
		Long: `bench times runs of a model on recorded or random inputs and prints latencies.
A folder stands for every model below it; recorded inputs beside a model
(test_data_set_0) are used if no others are given.

With --peer it times ONNX Runtime on the same inputs with the same number of
threads. Each side has a process of its own and they take turns, so that neither
competes with the other's threads and both see the same machine. The ratio is
the peer's median latency divided by ours: above 1 lathe is faster.

--profile tells where the time goes: for each kernel call, the shortest time of
20 runs, its rates, and its share of what this machine can do at most (its
roofline), which is measured with loops that the same C compiler makes for the
same CPU level. The least time of a call is that of its multiply-adds at the
peak, or that of reading its bytes once from the smallest working set that holds
them, whichever is longer. Kernels that need fewer multiplications than the
operation has (winograd) can be above it. --report writes the profile as a page with a plot.

--footprint measures processes that only open the compiled model and run it: the
time from opening to the first result, beside the peer's time for making a
session (start ratio), and the peak of resident memory over what the process had
when its inputs lay ready, beside the peer's over what it had with its library
loaded (memory ratio). Both ratios are ours to the peer's: less is better.

--errors compares with float64: for each layer, what its own arithmetic adds on
the inputs that it had, against the bound of its precision, and how far its
values are from those of the whole network in float64; for each output the
latter. Errors are the root of the mean square of the differences over that of
the values. The bound of a layer that amplifies relative errors of its inputs
(sums that cancel) counts as often as it does.

--suite FILE DIR times every model that a file lists, by groups and in several
variants (a precision, and the CPU that code is made for), in turn with the peer,
and compares the results of the variants. --kernels times layers of well-known
networks beside the multiply-adds and the memcpy that this machine is capable of.

--fail-if turns a figure into a gate (exit code 6): "ratio<0.5", "p99>20ms",
"start_ratio>0.1", or, with --baseline, "median>5%" for more than 5 % over the
baseline.`,
		Example: `  lathe bench model.onnx --dim N=1
  lathe bench model.onnx --peer auto --threads 2 --json
  lathe bench models/ --peer libonnxruntime.so --keep-going
  lathe bench model.onnx --errors --precision f32-fast --fail-if 'excess>1'
  lathe bench model.onnx --profile --report profile.html
  lathe bench artifact/ --profile --json
  lathe bench model.onnx --cpu x86-64-v3 --threads 1,2
  lathe bench model.onnx --peer auto --footprint --fail-if 'memory_ratio>0.6'
  lathe bench models/ --peer auto --threads 1,2 --keep-going --table benchmarks.md
  lathe bench --kernels all --variants f32@x86-64-v3,f32-ieee@x86-64-v4 --table kernels.md
  lathe bench model.onnx --baseline before.json --fail-if 'median>5%'`,
		Args: args(func(cmd *cobra.Command, a []string) error {
			if o.kernels != "" {
				return cobra.NoArgs(cmd, a)
			}
			if o.suite != "" {
				return cobra.ExactArgs(1)(cmd, a)
			}
			return cobra.MinimumNArgs(1)(cmd, a)
		}),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx, stop := f.context(cmd)
			defer stop()
			switch {
			case o.kernels != "":
				return o.runKernels(ctx)
			case o.suite != "":
				o.backend = o.resolveBackend(o.backend)
				return o.runSuite(ctx, a[0])
			}
			return o.run(ctx, a)
		},
	}
	o.flags(cmd)
	fl := cmd.Flags()
	fl.StringVar(&o.peer, "peer", "", "also time ONNX Runtime: the path of its library, or auto to look for it")
	fl.StringVar(&o.model, "model", "", "the model that the peer runs when an artifact is timed")
	fl.StringVar(&o.baseline, "baseline", "", "an earlier --json of the same models, to compare with")
	fl.StringArrayVar(&o.failIf, "fail-if", nil, "exit with code 6 if this holds, such as ratio<0.5; repeat it")
	fl.IntSliceVar(&o.threads, "threads", []int{1}, "threads per run; several, such as 1,2, are timed one after the other")
	fl.BoolVar(&o.foot, "footprint", false, "also measure the start, from opening to the first result, and the peak of memory, in processes that only open and run")
	fl.BoolVar(&o.profile, "profile", false, "also time each kernel call of native code, and compare it with the machine's roofline")
	fl.StringVar(&o.kernels, "kernels", "", "time no model but layers of well-known networks, against this machine's peak: all, conv, matmul, memory, other or a part of a name")
	fl.StringVar(&o.suite, "suite", "", "file that lists models, groups and variants to time against ONNX Runtime; the argument is the folder that they lie in")
	fl.StringVar(&o.only, "only", "", "only models of --suite whose path matches this regular expression")
	fl.StringSliceVar(&o.variants, "variants", nil, "precisions and CPUs that --kernels times, or --suite instead of what it says, such as f32,bf16,f32@x86-64-v3")
	fl.BoolVar(&o.errors, "errors", false, "also measure each layer and output against float64")
	fl.StringVar(&o.page, "report", "", "HTML page that the profile is written to")
	fl.StringVar(&o.table, "table", "", "Markdown file that the results are written to, with the machine and the versions")
	fl.StringVar(&o.date, "date", "", "date in the Markdown file (default: today)")
	fl.BoolVar(&o.force, "force", false, "replace files of --table and --report that exist")
	fl.BoolVar(&o.keepOn, "keep-going", false, "with several models: report those that cannot run and go on")
	return cmd
}

// flags are those that a worker process gets handed on.
func (o *benchOptions) flags(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&o.backend, "backend", defaultBackend, "what is timed, for a model: "+backendHelp())
	o.engine.register(fl)
	registerPin(fl, &o.engine.pin)
	fl.IntVar(&o.warmup, "warmup", 3, "runs before timing begins")
	fl.DurationVar(&o.minTime, "min-time", time.Second, "time at least so long")
	fl.IntVar(&o.minRuns, "min-runs", 10, "time at least so many runs")
	o.shapes.register(cmd)
	o.inputs.register(cmd)
}

func (o *benchOptions) run(ctx context.Context, paths []string) error {
	o.backend = o.resolveBackend(o.backend)
	e, err := findEngine(o.backend)
	if err != nil {
		return err
	}
	if err := o.check(e, paths); err != nil {
		return err
	}
	gates, err := parseGates(o.failIf, o.offers())
	if err != nil {
		return err
	}
	base, err := readBaseline(o.baseline)
	if err != nil {
		return err
	}
	rep := benchReport{Models: []benchResult{}}
	if o.peer != "" {
		rt, err := openPeer(o.factory, o.peer)
		if err != nil {
			return err
		}
		o.engine.peer, rep.peerVersion = rt.Path, rt.Version
	}
	models, err := findModels(paths)
	if err != nil {
		return err
	}
	if err := o.all(ctx, e, models, base, &rep); err != nil {
		return err
	}
	rep.sum(o.threads)
	if err := o.write(rep); err != nil {
		return err
	}
	if err := o.report(rep); err != nil {
		return err
	}
	return checkGates(gates, rep.Models)
}

// check refuses what could only fail after the timing.
func (o *benchOptions) check(e engine, paths []string) error {
	if err := o.checkTiming(); err != nil {
		return err
	}
	if o.page != "" && !o.profile {
		return fault.New(fault.Usage, "--report is the page of a profile").Hint("add --profile")
	}
	if o.profile && e.name != "cpu" && !slices.ContainsFunc(paths, isArtifact) {
		return fault.New(fault.Usage, "only native code can be profiled, not the backend %s", e.name).Hint("use --backend cpu")
	}
	return o.checkFiles()
}

func (o *benchOptions) checkTiming() error {
	if o.minRuns < 1 || o.warmup < 0 || len(o.threads) == 0 || slices.Min(o.threads) < 1 {
		return fault.New(fault.Usage, "--threads and --min-runs must be at least 1, --warmup at least 0")
	}
	return nil
}

// checkFiles refuses to replace files that nobody said may be replaced.
func (o *benchOptions) checkFiles() error {
	for _, path := range []string{o.table, o.page} {
		if _, err := os.Lstat(path); path != "" && err == nil && !o.force {
			return &atomicfile.ExistsError{Path: path}
		}
	}
	return nil
}

// all times every model with every number of threads.
func (o *benchOptions) all(ctx context.Context, e engine, models []string, base map[baseKey]benchResult, rep *benchReport) error {
	bar := o.Progress("timing", len(models)*len(o.threads))
	defer bar.Done()
	for _, path := range models {
		for _, o.engine.threads = range o.threads {
			bar.Describe(filepath.Base(filepath.Dir(path)))
			r, err := o.full(ctx, e, path)
			bar.Add(1)
			if err != nil {
				if len(models) == 1 || !o.keepOn || ctx.Err() != nil {
					return err
				}
				r.Error = err.Error()
			}
			if b, ok := base[baseKey{path, r.Threads}]; ok && r.Latency != nil {
				r.Baseline, r.before = &b.Latency.Median, &b
			}
			rep.Models = append(rep.Models, r)
		}
	}
	return nil
}

// full times one model, and measures what else is asked for.
func (o *benchOptions) full(ctx context.Context, e engine, path string) (benchResult, error) {
	var picked *toleranceReport
	if o.engine.tolerance != "" {
		r, done, err := o.tolerances(ctx, e, path)
		defer done()
		if err != nil {
			return benchResult{Model: path, Backend: e.name, Threads: o.engine.threads}, err
		}
		picked = r
	}
	r, err := o.one(ctx, e, path)
	if r.Tolerance = picked; picked != nil {
		r.Errors = picked.Errors
	}
	if err == nil && o.errors {
		r.Errors, err = o.errorsOf(ctx, e, path)
	}
	return r, err
}

// one times one model.
func (o *benchOptions) one(ctx context.Context, e engine, path string) (benchResult, error) {
	r := benchResult{Model: path, Backend: e.name, Threads: o.engine.threads}
	if isArtifact(path) {
		r.Backend = "artifact"
	}
	if o.peer != "" {
		if err := o.against(ctx, &r, e, path); err != nil {
			return r, err
		}
	}
	if o.foot {
		if err := o.footprints(ctx, path, &r); err != nil {
			return r, fmt.Errorf("start and memory: %w", err)
		}
	}
	if o.peer != "" && !o.profile {
		return r, nil
	}
	own, err := o.local(ctx, path)
	if err != nil {
		return r, err
	}
	defer own.close()
	if o.peer == "" {
		if r.Latency, err = o.measure(ctx, own); err != nil {
			return r, err
		}
	}
	if o.profile {
		r.Profile, err = o.profileOf(ctx, own, path)
	}
	return r, err
}

// against times both sides in processes of their own.
func (o *benchOptions) against(ctx context.Context, r *benchResult, e engine, path string) error {
	peerPath := path
	if isArtifact(path) {
		if peerPath = o.model; peerPath == "" {
			return fault.New(fault.Usage, "the peer cannot run an artifact").InFile(path).Hint("give its model with --model")
		}
	}
	own, err := o.worker(ctx, e.name, path)
	if err != nil {
		return err
	}
	defer own.close()
	peer, err := o.worker(ctx, "peer", peerPath)
	if err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	defer peer.close()
	r.PeerName = "ONNX Runtime"
	times, err := o.inTurn(ctx, []timed{own, peer})
	if err != nil {
		return err
	}
	r.Latency, r.Peer = times[0], times[1]
	ratio := r.Peer.Median / r.Latency.Median
	r.Ratio = &ratio
	return nil
}

// findModels resolves the arguments: a file is itself, a folder its model.onnx
// or every *.onnx below it.
func findModels(paths []string) ([]string, error) {
	var all []string
	for _, p := range paths {
		if !isDir(p) || isArtifact(p) {
			all = append(all, p)
			continue
		}
		n := len(all)
		err := filepath.WalkDir(p, func(q string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.HasSuffix(q, ".onnx") {
				all = append(all, q)
			}
			return err
		})
		if err != nil {
			return nil, fault.New(fault.BadModel, "%w", err)
		}
		if len(all) == n {
			return nil, fault.New(fault.BadModel, "no model below this folder").InFile(p)
		}
	}
	return all, nil
}
