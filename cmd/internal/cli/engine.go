package cli

import (
	"context"
	"os"
	"strings"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/dylib"
	"github.com/lathe-ml/lathe/backends/interp"
	"github.com/lathe-ml/lathe/backends/ort"
	"github.com/lathe-ml/lathe/backends/portable"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// engine is one way to run a model. prepare does everything that is done once
// (reading weights, compiling); the session's run is what bench times.
type engine struct {
	name, doc string
	prepare   func(ctx context.Context, f *factory, o engineOptions, m *onnxfile.Model, s *conformance.Set) (*session, error)
}

// engineOptions are the settings that engines share.
type engineOptions struct {
	codegenFlags
	threads int
	pin     string // CPUs that threads are kept on, "" for any
	peer    string // path of ONNX Runtime, "" or "auto" to look for it
}

// session is a model that is ready to run on its inputs.
type session struct {
	run     func(context.Context) error
	outputs func() ([]*ir.Data, error)
	close   func()
	bound   []string                                            // inputs that were bound to their values when it was compiled
	profile func(ctx context.Context, runs int) (*trace, error) // nil where steps cannot be timed
}

// defaultBackend is what runs a model when nothing is said: native code where
// there is a C compiler, else the best that needs none.
const defaultBackend = "auto"

// resolveBackend turns auto into an engine's name and says when that is not
// the fast one.
func (f *factory) resolveBackend(name string) string {
	if name != defaultBackend {
		return name
	}
	_, err := toolchain.Find("")
	if err == nil && dylib.Supported {
		return "cpu"
	}
	const fallback = "portable"
	why := "this build cannot load libraries"
	if err != nil {
		why = err.Error()
	}
	f.Infof("%s: running on the slower backend %s", why, fallback)
	return fallback
}

// engines is the table of ways to run a model, the definition of right first.
var engines = []engine{
	{"eval", "reference evaluator, node by node", prepareEval},
	{"core", "expanded to core ops with static shapes, then evaluated", prepareCore},
	{"interp", "compiled to kernels, whose loops are interpreted with every access checked", prepareCompiled(interp.Backend())},
	{"portable", "pure Go, without a C compiler", prepareCompiled(portable.Backend())},
	{"cpu", "native code for this CPU", prepareCompiled(cpu.Backend())},
	{"peer", "ONNX Runtime " + ort.Version, preparePeer},
}

func engineNames() []string {
	var names []string
	for _, e := range engines {
		names = append(names, e.name)
	}
	return names
}

// backendHelp lists the engines for help texts.
func backendHelp() string {
	return strings.Join(engineNames(), ", ") + " (auto: cpu if there is a C compiler)"
}

func findEngine(name string) (engine, error) {
	for _, e := range engines {
		if e.name == name {
			return e, nil
		}
	}
	return engine{}, choiceError("backend", name, engineNames())
}

// runner runs each data set once, for verification.
func (e engine) runner(f *factory, o engineOptions) conformance.Runner {
	return func(ctx context.Context, m *onnxfile.Model, s *conformance.Set) (conformance.Outputs, error) {
		q, err := e.prepare(ctx, f, o, m, s)
		if err != nil {
			return conformance.Outputs{}, err
		}
		defer q.close()
		if err := q.run(ctx); err != nil {
			return conformance.Outputs{}, err
		}
		out, err := q.outputs()
		return conformance.Outputs{Data: out, Bound: q.bound}, err
	}
}

func prepareEval(_ context.Context, _ *factory, _ engineOptions, m *onnxfile.Model, s *conformance.Set) (*session, error) {
	var out []*ir.Data
	opsets := conformance.Opsets(m)
	return &session{
		run: func(context.Context) (err error) {
			out, err = onnx.Eval(m.Graph, opsets, s.Inputs, nil)
			return err
		},
		outputs: func() ([]*ir.Data, error) { return out, nil },
		close:   func() {},
	}, nil
}

func prepareCore(_ context.Context, _ *factory, _ engineOptions, m *onnxfile.Model, s *conformance.Set) (*session, error) {
	x, in, bound, err := conformance.Ready(m, s)
	if err != nil {
		return nil, err
	}
	var out []*tensor.Tensor
	return &session{
		run: func(context.Context) (err error) {
			out, err = core.EvalGraph(x.Graph, in)
			return err
		},
		outputs: func() ([]*ir.Data, error) { return wrap(out), nil },
		close:   func() {},
		bound:   bound,
	}, nil
}

// openPeer loads ONNX Runtime.
func openPeer(f *factory, path string) (*ort.Runtime, error) {
	if path == "auto" {
		path = ""
	}
	dir, err := f.cacheDir()
	if err != nil {
		return nil, err
	}
	lib, err := ort.Find(path, dir)
	if err != nil {
		return nil, err
	}
	return ort.Open(lib)
}

func preparePeer(_ context.Context, f *factory, o engineOptions, m *onnxfile.Model, s *conformance.Set) (*session, error) {
	rt, err := openPeer(f, o.peer)
	if err != nil {
		return nil, err
	}
	in, err := tensors(m, s)
	if err != nil {
		return nil, err
	}
	opt := ort.Options{IntraThreads: o.threads, OptLevel: ort.OptAll}
	var ses *ort.Session
	if _, statErr := os.Stat(m.Path); m.Path != "" && statErr == nil {
		ses, err = rt.LoadFile(m.Path, opt)
	} else {
		var b []byte
		if b, err = m.Bytes(); err == nil {
			ses, err = rt.LoadBytes(b, opt)
		}
	}
	if err != nil {
		return nil, err
	}
	// The peer takes initializers with an input's name as inputs too.
	if len(ses.Inputs) != len(in) {
		ses.Close()
		return nil, fault.New(fault.Unsupported, "the peer wants %d inputs, the model has %d without defaults", len(ses.Inputs), len(in))
	}
	q, err := ses.Prepare(in)
	if err != nil {
		ses.Close()
		return nil, err
	}
	return &session{
		run: func(context.Context) error { return q.Run() },
		outputs: func() ([]*ir.Data, error) {
			ts, err := q.Outputs()
			return wrap(ts), err
		},
		close: func() { q.Close(); ses.Close() },
	}, nil
}

// tensors gives the inputs of a data set where all are tensors.
func tensors(m *onnxfile.Model, s *conformance.Set) ([]*tensor.Tensor, error) {
	var in []*tensor.Tensor
	for i, v := range m.FeedInputs() {
		d := s.Inputs[i].Unwrap()
		if d == nil || d.Tensor == nil {
			return nil, fault.New(fault.Unsupported, "input %q is no tensor", v.Name)
		}
		in = append(in, d.Tensor)
	}
	return in, nil
}

func wrap(ts []*tensor.Tensor) []*ir.Data {
	out := make([]*ir.Data, len(ts))
	for i, t := range ts {
		out[i] = ir.TensorData(t)
	}
	return out
}
