package cli

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/search/tune"
)

// tuneSubject builds and times the programs of one model.
type tuneSubject struct {
	graph  *ir.Graph
	in     []*tensor.Tensor
	traits backend.Traits
	lower  compiler.Options
	be     backend.Backend
	opt    backend.Options
	pin    string
	dir    string           // of objects and artifacts, gone at the end
	want   []*tensor.Tensor // what the heuristic's program gives
}

func (o *tuneOptions) subject(ctx context.Context, m *onnxfile.Model) (*tuneSubject, error) {
	set, err := o.inputs.readBeside(o.factory, m, &o.shapes)
	if err != nil {
		return nil, err
	}
	x, in, _, err := conformance.Ready(m, set)
	if err != nil {
		return nil, err
	}
	s := &tuneSubject{graph: x.Graph, in: in, be: cpu.Backend(), pin: o.engine.pin}
	if s.traits, err = s.be.Target(o.engine.cpu); err != nil {
		return nil, err
	}
	if s.lower, err = o.engine.options(); err != nil {
		return nil, err
	}
	s.lower.Threads = o.engine.threads
	if s.opt, err = o.engine.build(o.factory, s.traits, "model", o.engine.threads); err != nil {
		return nil, err
	}
	for i, v := range x.Graph.Inputs {
		o.Detailf("tuned for input %q %s", v.Name, s.in[i])
	}
	// Thousands of kernels that lost are not for the user's cache.
	if s.dir, err = os.MkdirTemp("", "lathe-tune-"); err != nil {
		return nil, fault.New(fault.Usage, "cannot make a temporary folder: %w", err).Hint("set TMPDIR to a folder with space")
	}
	s.opt.CacheDir, s.opt.Separate = filepath.Join(s.dir, "objects"), true
	return s, ctx.Err()
}

func (s *tuneSubject) close() { os.RemoveAll(s.dir) }

func (s *tuneSubject) program(look schedule.Lookup) (*program.Program, error) {
	o := s.lower
	o.Schedules, o.Explore = look, true
	return compiler.Program(s.graph, s.traits, o)
}

// build compiles a program and runs it. The first one is the heuristic's, with
// whose results all others are compared.
func (s *tuneSubject) build(ctx context.Context, p *program.Program) (tune.Runner, error) {
	dir, err := os.MkdirTemp(s.dir, "artifact-")
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot make a temporary folder: %w", err).Hint("set TMPDIR to a folder with space")
	}
	// What is opened stays in memory.
	defer os.RemoveAll(dir)
	if err := s.be.Build(ctx, p, dir, s.opt); err != nil {
		if ctx.Err() == nil && fault.As(err) == nil && s.want != nil {
			return nil, &tune.Wrong{Err: err}
		}
		return nil, err
	}
	ses, err := s.be.Open(dir, s.opt.Threads)
	if err != nil {
		return nil, err
	}
	r := &tuneRunner{ses: ses, in: s.in, out: backend.NewOutputs(ses)}
	var ok bool
	if r.traced, ok = ses.(cpu.Traced); !ok {
		r.Close()
		return nil, fault.New(fault.Toolchain, "this build of lathe cannot time native code")
	}
	if err := s.check(r); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// check runs a program once and compares what it gives.
func (s *tuneSubject) check(r *tuneRunner) error {
	if err := pinned(r.ses, s.pin); err != nil {
		return err
	}
	if _, err := r.Run(); err != nil {
		return err
	}
	if s.want == nil {
		for _, t := range r.out {
			s.want = append(s.want, t.Clone())
		}
		return nil
	}
	bound := s.lower.Precision.Bound()
	if s.lower.PrecisionAt != nil { // any layer may have the loosest
		bound = precision.BF16.Bound()
	}
	for i, t := range r.out {
		if err := alike(t, s.want[i], bound); err != nil {
			return &tune.Wrong{Err: fmt.Errorf("output %d: %w", i, err)}
		}
	}
	return nil
}

// alike holds that floats are those of another schedule: the bound is that of a
// layer, of which a network has many. Whole numbers may be the result of a close
// decision and are not compared.
func alike(got, want *tensor.Tensor, bound float64) error {
	if !want.DType.IsFloat() {
		return nil
	}
	var diff, sum float64
	for i := range want.Len() {
		a, b := got.Float(i), want.Float(i)
		switch {
		case math.IsNaN(b) || math.IsInf(b, 0):
			if math.IsNaN(a) != math.IsNaN(b) || math.IsInf(b, 0) && a != b {
				return fmt.Errorf("element %d is %v, the heuristic's kernels give %v", i, a, b)
			}
		case math.IsNaN(a) || math.IsInf(a, 0):
			return fmt.Errorf("element %d is %v, the heuristic's kernels give %v", i, a, b)
		default:
			diff, sum = diff+(a-b)*(a-b), sum+b*b
		}
	}
	if limit := max(1e-3, 30*bound); math.Sqrt(diff) > limit*math.Sqrt(sum)+1e-6*math.Sqrt(float64(want.Len())) {
		return fmt.Errorf("it differs from that of the heuristic's kernels by %.2g", math.Sqrt(diff/max(sum, 1e-30)))
	}
	return nil
}

// tuneRunner is a program that is timed.
type tuneRunner struct {
	ses     backend.Session
	traced  cpu.Traced
	in, out []*tensor.Tensor
}

func (r *tuneRunner) Run() (time.Duration, error) {
	start := time.Now()
	err := r.ses.Run(r.in, r.out)
	return time.Since(start), err
}

func (r *tuneRunner) Trace(best []time.Duration) error { return r.traced.Trace(r.in, r.out, best) }
func (r *tuneRunner) Close()                           { r.ses.Close() }
