package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/portable"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/atomicfile"
)

type compileOptions struct {
	*factory
	model      string
	out        string
	target     string
	code       codegenFlags
	threads    int
	pin        string
	name       string
	keepSource bool
	force      bool
	dryRun     bool
	tune       time.Duration
	shapes     shapeFlags
	inputs     inputFlags
	errors     bool
}

// targets are the backends that make artifacts, by the name that --target takes.
var targets = map[string]func() backend.Backend{
	"cpu":      cpu.Backend,
	"portable": portable.Backend,
}

func newCompileCmd(f *factory) *cobra.Command {
	o := &compileOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "compile MODEL -o DIR",
		Short: "Compile a model to an artifact that runs without lathe",
		Long: `compile reads an ONNX model and writes a folder: libmodel.so with a C interface
(model.h), its weights (weights.bin), and manifest.json. The artifact needs
neither lathe nor ONNX; it links from C, C++, Rust, Go and Python's ctypes.

With several names in --cpu the artifact has code for each, and takes the best
that a machine can run when it is loaded.

Shapes are fixed when code is made: dimensions with names are bound by --dim,
--input-shapes or --shapes-from. The same command gives the same bytes.

--schedules takes the choices of a record book that lathe tune wrote; --tune
measures first and then compiles. The records that were used are shipped in the
artifact (schedules.jsonl).

--tolerance 1e-4 gives each layer the fastest precision with which the outputs
stay so near to those of float64, measured on --input or random inputs and
checked on others like them; report.json and report.html tell what was picked,
and precisions.json can be given to --precisions without measuring again.`,
		Example: `  lathe compile mobilenet.onnx -o mobilenet --dim N=1
  lathe compile model.onnx -o out --input-shapes x:1x3x224x224 --threads 2
  lathe compile model.onnx -o out --cpu x86-64-v3 --keep-source
  lathe compile model.onnx -o out --cpu x86-64-v3,x86-64-v4,sapphirerapids
  lathe compile model.onnx -o out --schedules auto
  lathe compile model.onnx -o out --tune 5m
  lathe compile model.onnx -o out --tolerance 1e-4 --input image.npy
  lathe compile model.onnx -o out --precision f32-fast --errors
  lathe compile model.onnx -o out --target portable
  lathe compile model.onnx --dry-run --json`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			o.model = a[0]
			ctx, stop := f.context(cmd)
			defer stop()
			return o.run(ctx)
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&o.out, "output", "o", "", "folder that is written")
	fl.StringVar(&o.target, "target", "cpu", "what is made: cpu, native code; portable, a program that lathe itself runs, without a C compiler")
	o.code.register(fl)
	fl.IntVar(&o.threads, "threads", 1, "threads that the artifact starts with")
	registerPin(fl, &o.pin)
	fl.StringVar(&o.name, "name", "", "prefix of the C functions (default: the file's name)")
	fl.BoolVar(&o.keepSource, "keep-source", false, "keep the C sources in the artifact")
	fl.BoolVar(&o.force, "force", false, "replace an artifact that exists")
	fl.DurationVar(&o.tune, "tune", 0, "first tune for this long, such as 5m; the records go into the default book, too")
	fl.BoolVar(&o.dryRun, "dry-run", false, "stop before the C compiler; write nothing")
	fl.BoolVar(&o.errors, "errors", false, "measure each layer and output against float64, for report.json and report.html")
	o.shapes.register(cmd)
	o.inputs.register(cmd)
	return cmd
}

// compileResult is what `lathe compile --json` prints.
type compileResult struct {
	Model     string           `json:"model"`
	Artifact  string           `json:"artifact,omitempty"`
	Target    string           `json:"target"`
	CPU       string           `json:"cpu"`
	Variants  []string         `json:"variants,omitempty"`
	Threads   int              `json:"threads"`
	Inputs    []artifact.Port  `json:"inputs"`
	Outputs   []artifact.Port  `json:"outputs"`
	Kernels   int              `json:"kernels"`
	Steps     int              `json:"steps"`
	Workspace int              `json:"workspace_bytes"`
	Weights   int              `json:"weights_bytes"`
	Schedules *schedulesMade   `json:"schedules,omitempty"`
	Tolerance *toleranceReport `json:"tolerance,omitempty"`
	Errors    *errorReport     `json:"errors,omitempty"`
	Seconds   float64          `json:"seconds"`
	PeakMiB   float64          `json:"peak_mib"`
}

func (o *compileOptions) run(ctx context.Context) error {
	start := time.Now()
	make, ok := targets[o.target]
	switch {
	case !ok:
		return unknownTarget(o.target)
	case o.out == "" && !o.dryRun:
		return fault.New(fault.Usage, "no output folder").Hint("give one with -o DIR, or --dry-run")
	case o.threads < 1:
		return fault.New(fault.Usage, "--threads %d is less than 1", o.threads)
	case o.tune != 0:
		if err := o.checkTune(); err != nil {
			return err
		}
	}
	if o.out != "" {
		if err := checkOutput(o.out, o.force || o.dryRun, o.model); err != nil {
			return err
		}
		if err := replaceableFolder(o.out, isArtifact); err != nil {
			return err
		}
	}
	m, opt, err := o.loadShaped(o.model, &o.shapes)
	if err != nil {
		return err
	}
	defer m.Close()
	b := make()
	var picked *toleranceReport
	var errs *errorReport
	if o.errors || o.code.tolerance != "" {
		if picked, errs, err = o.accuracy(ctx, m, opt, b); err != nil {
			return err
		}
	}
	l, err := lowerModel(o.factory, m, opt, b, o.code, o.threads)
	if err != nil {
		return err
	}
	if o.tune > 0 {
		if l, err = o.tuned(ctx, m, opt, b); err != nil {
			return err
		}
	}
	l.picked, l.errors = picked, errs
	if o.name == "" {
		o.name = symbolName(m.Path)
	}
	if !o.dryRun {
		if err := o.build(ctx, m, opt, b, l); err != nil {
			return err
		}
	}
	return o.print(l, time.Since(start))
}

func unknownTarget(name string) error {
	return choiceError("target", name, sortedKeys(targets))
}

func (o *compileOptions) build(ctx context.Context, m *onnxfile.Model, opt onnx.Options, b backend.Backend, l *lowered) error {
	sum, err := fileSHA256(m.Path)
	if err != nil {
		return err
	}
	build, err := o.code.build(o.factory, l.traits, o.name, o.threads)
	if err != nil {
		return err
	}
	made := map[string]any{
		"lathe":        readVersion().Version,
		"model_sha256": sum,
		"opset":        summarize(m).Opsets,
	}
	if len(opt.Dims) > 0 {
		made["dims"] = opt.Dims
	}
	if l.schedules != nil {
		made["schedules"] = l.schedules
	}
	if mode, err := o.code.loosest(); err != nil {
		return err
	} else if mode != precision.F32 {
		made["precision"] = mode.String()
	}
	if l.picked != nil {
		made["tolerance"] = l.picked.Tolerance
		made["output_error"] = l.picked.Error
		made["layers"] = l.picked.counts()
	}
	bar := o.Progress("compiling "+filepath.Base(o.model), 0)
	defer bar.Done()
	build.KeepSource, build.Manifest = o.keepSource, made
	build.Variants, build.Pin = l.more, o.pin
	build.Progress = func(done, total int, what string) { bar.Describe(what); bar.Add(1) }
	// The C compiler runs in a folder of its own.
	out, err := filepath.Abs(o.out)
	if err != nil {
		return fault.New(fault.Usage, "no such place as %s: %w", o.out, err)
	}
	return atomicfile.WriteDir(out, o.force, func(tmp string) error {
		err := b.Build(ctx, l.program, tmp, build)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if l.schedules != nil && l.schedules.Recorded > 0 {
			if err := atomicfile.WriteBytes(filepath.Join(tmp, schedulesFile), l.schedules.used.Bytes()); err != nil {
				return err
			}
		}
		if l.picked != nil {
			if err := writeJSON(filepath.Join(tmp, precisionsFile), l.picked.Precisions); err != nil {
				return err
			}
		}
		return writeReport(tmp, m, l)
	})
}

func fileSHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fault.New(fault.BadModel, "cannot read: %w", errors.Unwrap(err)).InFile(path)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fault.New(fault.BadModel, "cannot read: %w", err).InFile(path)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (o *compileOptions) print(l *lowered, took time.Duration) error {
	p := l.program
	r := compileResult{
		Model: o.model, Target: o.target, CPU: l.traits.CPU, Threads: o.threads, Inputs: programPorts(p.Inputs), Outputs: programPorts(p.Outputs),
		Kernels: len(p.Kernels), Steps: len(p.Steps), Workspace: p.Workspace, Weights: p.Weights, Seconds: took.Seconds(), PeakMiB: peakMiB(),
		Schedules: l.schedules,
		Tolerance: l.picked, Errors: l.errors,
	}
	if !o.dryRun {
		r.Artifact = o.out
	}
	for i, v := range l.more {
		if i == 0 {
			r.Variants = append(r.Variants, r.CPU)
		}
		r.Variants = append(r.Variants, v.Traits.CPU)
	}
	if o.json {
		return o.JSON(r)
	}
	t := o.Table("what", "value")
	if r.Artifact != "" {
		t.Row("artifact", r.Artifact)
	}
	t.Row("target", r.Target+" "+strings.Join(append([]string{r.CPU}, r.Variants[min(1, len(r.Variants)):]...), ", "))
	for _, x := range r.Inputs {
		t.Row("input", x.Name+" "+x.Type+tensor.ShapeString(x.Shape))
	}
	for _, x := range r.Outputs {
		t.Row("output", x.Name+" "+x.Type+tensor.ShapeString(x.Shape))
	}
	t.Row("kernels", itoa(r.Kernels)+", called "+itoa(r.Steps)+" times")
	if s := r.Schedules; s != nil {
		t.Row("decisions", fmt.Sprintf("%d recorded, %d by heuristic", s.Recorded, s.Heuristic))
	}
	t.Row("workspace", bytesText(int64(r.Workspace)))
	t.Row("weights", bytesText(int64(r.Weights)))
	t.Print()
	if r.Errors != nil {
		r.Errors.print(o.factory, o.model)
	}
	o.Infof("%.2f s", r.Seconds)
	return nil
}
