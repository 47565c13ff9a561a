package backendtest

import (
	"context"
	"fmt"
	"os"

	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Options say how a backend is to run cases.
type Options struct {
	CPU      string // as --cpu takes it; "" is the backend's default
	Threads  int
	CacheDir string // for backends that build; "" for none
	Compiler string // a C compiler; "" finds one
	TempDir  string // where artifacts are built; "" is the system's
	Lower    compiler.Options
	// Error is what outputs may deviate by, beyond the tolerance of the cases: the
	// bound of a precision. 0 for none.
	Error float64
	// Ran, if not nil, gets each session after its run, to time it again.
	Ran func(m *onnxfile.Model, s backend.Session, in, out []*tensor.Tensor)
}

// Runner expands, lowers and runs each case on a backend: directly where it
// can, else as an artifact in a temporary folder.
func Runner(be backend.Backend, o Options) conformance.Runner {
	return func(ctx context.Context, m *onnxfile.Model, s *conformance.Set) (conformance.Outputs, error) {
		x, in, bound, err := conformance.Ready(m, s)
		if err != nil {
			return conformance.Outputs{}, err
		}
		res := conformance.Outputs{Bound: bound, Error: o.Error}
		err = with(ctx, be, o, x.Graph, func(ses backend.Session) error {
			out := backend.NewOutputs(ses)
			if err := ses.Run(in, out); err != nil {
				return err
			}
			for _, t := range out {
				res.Data = append(res.Data, ir.TensorData(t))
			}
			if o.Ran != nil {
				o.Ran(m, ses, in, out)
			}
			return nil
		})
		return res, err
	}
}

// Run computes a core graph's outputs on a backend.
func Run(ctx context.Context, be backend.Backend, o Options, g *ir.Graph, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	var out []*tensor.Tensor
	err := with(ctx, be, o, g, func(s backend.Session) error {
		out = backend.NewOutputs(s)
		return s.Run(in, out)
	})
	return out, err
}

// with opens a session of a core graph for as long as f runs.
func with(ctx context.Context, be backend.Backend, o Options, g *ir.Graph, f func(backend.Session) error) error {
	tr, err := be.Target(o.CPU)
	if err != nil {
		return err
	}
	p, err := compiler.Program(g, tr, o.Lower)
	if err != nil {
		return err
	}
	ses, done, err := open(ctx, be, o, p, tr)
	if err != nil {
		return err
	}
	defer done()
	defer ses.Close()
	return f(ses)
}

func open(ctx context.Context, be backend.Backend, o Options, p *program.Program, tr backend.Traits) (backend.Session, func(), error) {
	if be.Direct != nil {
		s, err := be.Direct(p, o.Threads)
		return s, func() {}, err
	}
	if be.Build == nil || be.Open == nil {
		return nil, nil, fmt.Errorf("backend %s runs nothing on this machine", be.Name)
	}
	dir, err := os.MkdirTemp(o.TempDir, "lathe-"+be.Name+"-")
	if err != nil {
		return nil, nil, err
	}
	remove := func() { os.RemoveAll(dir) }
	opts := backend.Options{Name: "model", Traits: tr, Threads: max(o.Threads, 1), CacheDir: o.CacheDir, Compiler: o.Compiler}
	if err := be.Build(ctx, p, dir, opts); err != nil {
		remove()
		return nil, nil, err
	}
	s, err := be.Open(dir, o.Threads)
	if err != nil {
		remove()
		return nil, nil, err
	}
	return s, remove, nil
}
