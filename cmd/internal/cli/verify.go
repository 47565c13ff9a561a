package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/precision"
)

type verifyOptions struct {
	*factory
	model     string
	testdata  string
	backend   string
	against   string
	shapes    shapeFlags
	inputs    inputFlags
	engine    engineOptions
	tol       conformance.Tolerance
	filter    string
	timeout   time.Duration
	peers     string
	summary   bool
	allowSkip bool
	perNode   bool
	toLayer   bool // --bisect
	exact     bool // the tolerance was given
}

func newVerifyCmd(f *factory) *cobra.Command {
	o := &verifyOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "verify [MODEL|ARTIFACT] [--testdata DIR]",
		Short: "Compare results with recorded ones, the reference evaluator or a peer",
		Long: `verify proves that a backend gives the right numbers.

With --testdata DIR it walks a tree of ONNX test cases (a model beside folders
test_data_set_N with input_K.pb and output_K.pb) and says for each case whether
it passes, fails or is refused as unsupported, and why. A case counts as
specialized where a compiled backend needed inputs that act as shapes, axes,
pads, scales or k bound to their recorded values.

With MODEL it runs the model on given, recorded or random inputs, once on the
backend and once on the reference (--against), and compares. --per-node compares
every node's value, with nothing fused. --bisect leaves the kernels as they are
and names the first layer whose value differs, and the first that is not what the
evaluator makes of that layer's own inputs.

Without --rtol and --atol a case of one op has the tolerance of ONNX's own runner,
1e-3 relative and 1e-7 absolute. In a model of several nodes, where the errors of
layers add up as squares, a float may also be off by the bound of the precision
(see lathe bench --errors; 2e-6 for f32) times the square root of the number of
nodes, of its tensor's largest magnitude; and one that is dequantized at the end by
one quantization step, or by what the reference of a quantized model differs from
itself, if a meta.json beside the model records that
(ort_opt_disabled_vs_all_max_abs_diff). --rtol or --atol turns all that off.

Exit codes: 5 if any case fails, 0 if none does.`,
		Example: `  lathe verify --testdata cases/node --backend eval
  lathe verify --testdata cases/node --backend core --json
  lathe verify model.onnx --backend core --against peer --dim N=1
  lathe verify model.onnx --testdata test_data_set_0
  lathe verify model.onnx --backend cpu --per-node --input test_data_set_0
  lathe verify model.onnx --backend cpu --bisect --precision f32-fast --rtol 1e-5
  lathe verify model.onnx --cpu x86-64-v3`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if len(a) == 1 {
				o.model = a[0]
			}
			o.exact = cmd.Flags().Changed("rtol") || cmd.Flags().Changed("atol")
			ctx, stop := f.context(cmd)
			defer stop()
			return o.run(ctx)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&o.testdata, "testdata", "", "folder of ONNX test cases, or of one model's recorded data")
	fl.StringVar(&o.backend, "backend", defaultBackend, "what is verified, for a model: "+backendHelp())
	fl.StringVar(&o.against, "against", "eval", "the reference without recorded outputs: a backend, a model or an artifact")
	fl.Float64Var(&o.tol.RTol, "rtol", conformance.Standard.RTol, "relative tolerance of floats")
	fl.Float64Var(&o.tol.ATol, "atol", conformance.Standard.ATol, "absolute tolerance of floats")
	fl.BoolVar(&o.tol.Lenient, "lenient", false, "also accept one quantization step, one unit in the last place of 16-bit floats")
	fl.StringVar(&o.filter, "run", "", "only cases whose name matches this regular expression")
	fl.DurationVar(&o.timeout, "timeout", time.Minute, "most time per case")
	fl.StringVar(&o.peers, "peers", "", "table of other implementations' results, for --summary")
	fl.BoolVar(&o.summary, "summary", false, "print counts by operator family and by reason of refusal instead of cases")
	fl.BoolVar(&o.allowSkip, "allow-skip", false, "a model check that could not be made is no failure")
	fl.BoolVar(&o.perNode, "per-node", false, "compare every node's outputs with the reference evaluator")
	fl.BoolVar(&o.toLayer, "bisect", false, "find the first layer, and its kernels, that differs from the reference")
	fl.StringVar(&o.engine.peer, "peer", "", "path of ONNX Runtime's library (default: looked for)")
	o.engine.registerThreads(fl)
	o.engine.register(fl)
	o.shapes.register(cmd)
	o.inputs.register(cmd)
	return cmd
}

func (o *verifyOptions) run(ctx context.Context) error {
	if err := o.engine.settle(o.model); err != nil {
		return err
	}
	if !o.exact {
		mode, err := o.precision()
		if err != nil {
			return err
		}
		o.tol.Bound = mode.Bound()
	}
	if o.model != "" {
		return o.verifyModel(ctx)
	}
	if o.perNode || o.toLayer {
		return fault.New(fault.Usage, "--per-node and --bisect look into one model").Hint("lathe verify MODEL --bisect --testdata DIR")
	}
	e, err := findEngine(o.resolveBackend(o.backend))
	if err == nil {
		err = o.engine.check(e)
	}
	if err != nil {
		return err
	}
	if e.name == "peer" {
		if _, err := openPeer(o.factory, o.engine.peer); err != nil {
			return err
		}
	}
	if o.testdata == "" {
		return fault.New(fault.Usage, "nothing to verify").Hint("give a model, or --testdata DIR")
	}
	cases, err := conformance.Discover(o.testdata)
	if err != nil {
		return err
	}
	return o.cases(ctx, e, cases)
}

// precision is the one of what is verified.
func (o *verifyOptions) precision() (precision.Mode, error) {
	if o.model == "" || !isArtifact(o.model) {
		return o.engine.loosest()
	}
	man, err := artifact.Read(o.model)
	if err != nil {
		return "", err
	}
	name, _ := man.Made["precision"].(string)
	return precision.Parse(cmp.Or(name, precision.F32.String()))
}

// cases runs a list of cases and reports them.
func (o *verifyOptions) cases(ctx context.Context, e engine, cases []conformance.Case) error {
	if o.filter != "" {
		re, err := regexp.Compile(o.filter)
		if err != nil {
			return fault.New(fault.Usage, "--run: %w", err)
		}
		kept := cases[:0:0]
		for _, c := range cases {
			if re.MatchString(c.Name) {
				kept = append(kept, c)
			}
		}
		cases = kept
	}
	if len(cases) == 0 {
		return fault.New(fault.BadModel, "no test case here").InFile(o.testdata).Hint("a case is a model beside test_data_set_0/input_0.pb and output_0.pb")
	}
	bar := o.Progress("verifying", len(cases))
	rep := conformance.Run(ctx, cases, e.runner(o.factory, o.engine), conformance.Options{
		Backend: e.name, Tolerance: o.tol, Timeout: o.timeout,
		Done: func(conformance.Result) { bar.Add(1) },
	})
	bar.Done()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("verification was cut off: %w", err)
	}
	return o.report(rep)
}

func (o *verifyOptions) report(rep *conformance.Report) error {
	switch {
	case o.json:
		if err := o.JSON(rep); err != nil {
			return err
		}
	case o.summary || o.peers != "":
		var peers map[string]conformance.Peer
		if o.peers != "" {
			var err error
			if peers, err = conformance.ReadPeers(o.peers); err != nil {
				return err
			}
		}
		if err := rep.WriteTable(o.Out, peers); err != nil {
			return err
		}
	default:
		t := o.Table("result", "case", "reason")
		for _, r := range rep.Cases {
			reason := r.Reason
			if r.Op != "" {
				reason = r.Op + ": " + reason
			}
			if r.Status == conformance.Pass && len(r.Bound) > 0 {
				reason = fmt.Sprintf("specialized to %q", r.Bound)
			}
			t.Row(string(r.Status), r.Name, reason)
		}
		t.Print()
	}
	o.Infof("%s: %d passed (%d specialized), %d failed, %d unsupported", rep.Backend, rep.Pass, rep.Specialized, rep.Fail, rep.Unsupported)
	if rep.Fail > 0 {
		return &silentError{fault.Verify}
	}
	return nil
}

// verifyModel compares one model with recorded outputs, or with a second
// engine on the same inputs.
func (o *verifyOptions) verifyModel(ctx context.Context) error {
	e, m, err := o.openSubject(o.model, o.resolveBackend(o.backend), o.engine)
	if err != nil {
		return err
	}
	defer m.Close()
	switch {
	case o.toLayer && o.perNode:
		return fault.New(fault.Usage, "--per-node and --bisect are two ways to look into a model").Hint("give one of them")
	case o.toLayer:
		return o.bisect(ctx, e, m)
	}
	if o.perNode {
		return o.nodes(ctx, e, m)
	}
	if o.testdata != "" {
		return o.recorded(ctx, e, m)
	}
	ref, refModel, err := o.reference(e, m)
	if err != nil {
		return err
	}
	if refModel != m {
		defer refModel.Close()
	}
	set, err := o.inputs.read(o.factory, m, &o.shapes)
	if err != nil {
		return err
	}
	opt := o.engine
	opt.codegenFlags = codegenFlags{} // they are about what is verified
	want, err := ref.runner(o.factory, opt)(ctx, refModel, set)
	if err != nil {
		return o.skipped(fmt.Errorf("the reference %s: %w", ref.name, err))
	}
	got, err := e.runner(o.factory, o.engine)(ctx, m, set)
	if err != nil {
		return o.skipped(err)
	}
	return o.report(o.compared(e, o.model, o.tol.For(refModel.Graph), got, want.Data, conformance.Quantizes(refModel.Graph)))
}

// compared is the report on one comparison.
func (o *verifyOptions) compared(e engine, name string, tol conformance.Tolerance, got conformance.Outputs, want []*ir.Data, quantized bool) *conformance.Report {
	rep := &conformance.Report{Backend: e.name, Tolerance: o.tol}
	r := conformance.Result{Name: name, Status: conformance.Pass, Bound: got.Bound}
	if err := conformance.Compare(got.Data, want, tol, quantized); err != nil {
		r.Status, r.Reason = conformance.Fail, err.Error()
		rep.Fail++
	} else {
		rep.Pass++
		if len(r.Bound) > 0 {
			rep.Specialized++
		}
	}
	rep.Cases = []conformance.Result{r}
	return rep
}

// recordedArtifact runs an artifact on data sets that were recorded with its
// model.
func (o *verifyOptions) recordedArtifact(ctx context.Context, e engine, m *onnxfile.Model, sets []string) error {
	man, err := artifact.Read(m.Path)
	if err != nil {
		return err
	}
	tol := o.tol.OfLayers(len(man.Steps))
	all := &conformance.Report{Backend: e.name, Tolerance: o.tol}
	for _, dir := range sets {
		set, err := conformance.ReadSet(m, dir)
		if err != nil {
			return err
		}
		got, err := e.runner(o.factory, o.engine)(ctx, m, set)
		if err != nil {
			return err
		}
		rep := o.compared(e, dir, tol, got, set.Outputs, false)
		all.Pass, all.Fail, all.Cases = all.Pass+rep.Pass, all.Fail+rep.Fail, append(all.Cases, rep.Cases...)
	}
	return o.report(all)
}

// reference resolves --against: an engine for the same model, or another
// model or artifact.
func (o *verifyOptions) reference(e engine, m *onnxfile.Model) (engine, *onnxfile.Model, error) {
	if _, err := os.Stat(o.against); err == nil {
		ref, other, err := o.openSubject(o.against, "eval", engineOptions{})
		return ref, other, err
	}
	ref, err := findEngine(o.against)
	switch {
	case err != nil:
		return ref, nil, fmt.Errorf("--against: %w", err)
	case e.name == "artifact":
		return ref, nil, fault.New(fault.Usage, "an artifact is verified against a model").Hint("give it with --against model.onnx, or recorded data with --testdata")
	case ref.name == e.name:
		return ref, nil, fault.New(fault.Usage, "%s cannot be verified against itself", e.name).Hint("give another --backend or --against")
	}
	return ref, m, nil
}

// skipped turns a refusal into a warning if --allow-skip asks for that.
func (o *verifyOptions) skipped(err error) error {
	if o.allowSkip && fault.Is(err, fault.Unsupported) {
		o.Warnf("not verified: %v", err)
		return nil
	}
	return err
}

// recorded runs the model on a folder of data sets, or on one of them.
func (o *verifyOptions) recorded(ctx context.Context, e engine, m *onnxfile.Model) error {
	if !isDir(o.testdata) {
		return fault.New(fault.BadModel, "there is no such folder of recorded data").InFile(o.testdata)
	}
	sets, err := filepath.Glob(filepath.Join(o.testdata, "test_data_set_*"))
	if err != nil {
		return fault.New(fault.Usage, "--testdata: %w", err)
	}
	if len(sets) == 0 {
		sets = []string{o.testdata}
	}
	if e.name == "artifact" {
		return o.recordedArtifact(ctx, e, m, sets)
	}
	return o.cases(ctx, e, []conformance.Case{{Name: o.model, Model: m.Path, Sets: sets}})
}
