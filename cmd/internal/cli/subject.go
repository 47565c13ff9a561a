package cli

import (
	"context"
	"os"
	"path/filepath"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// isArtifact reports whether a path is a folder that lathe compile made.
func isArtifact(path string) bool {
	_, err := os.Stat(filepath.Join(path, "manifest.json"))
	return err == nil
}

// openSubject resolves the argument of run, verify and bench: an artifact runs
// itself, a model runs on the named engine. An artifact is given as a model
// that has its inputs and outputs and no nodes.
func (f *factory) openSubject(path, backendName string, o engineOptions) (engine, *onnxfile.Model, error) {
	if !isArtifact(path) {
		e, err := findEngine(backendName)
		if err == nil {
			err = o.check(e)
		}
		if err != nil {
			return engine{}, nil, err
		}
		m, err := f.loadModel(path)
		return e, m, err
	}
	if err := o.none(path); err != nil {
		return engine{}, nil, err
	}
	man, err := artifact.Read(path)
	if err != nil {
		return engine{}, nil, err
	}
	make, ok := targets[man.Target]
	if !ok {
		return engine{}, nil, fault.New(fault.BadModel, "an artifact for %q cannot be run here", man.Target).InFile(path)
	}
	g := &ir.Graph{Name: man.Name}
	for _, side := range []struct {
		from []artifact.Port
		to   *[]*ir.Value
	}{{man.Inputs, &g.Inputs}, {man.Outputs, &g.Outputs}} {
		list, err := artifact.Ports(side.from)
		if err != nil {
			return engine{}, nil, fault.New(fault.BadModel, "%w", err).InFile(path)
		}
		for _, p := range list {
			*side.to = append(*side.to, &ir.Value{Name: p.Name, Type: ir.TensorType(p.Type, p.Shape...)})
		}
	}
	m := onnxfile.New(g, 1)
	m.Path = path
	return engine{name: "artifact", doc: "compiled for " + man.CPU, prepare: prepareArtifact(make())}, m, nil
}

func prepareArtifact(b backend.Backend) func(context.Context, *factory, engineOptions, *onnxfile.Model, *conformance.Set) (*session, error) {
	return func(_ context.Context, _ *factory, o engineOptions, m *onnxfile.Model, s *conformance.Set) (*session, error) {
		in, err := tensors(m, s)
		if err != nil {
			return nil, err
		}
		ses, err := b.Open(m.Path, o.threads)
		if err != nil {
			return nil, err
		}
		if err := pinned(ses, o.pin); err != nil {
			ses.Close()
			return nil, err
		}
		return compiledSession(ses, in, nil), nil
	}
}

// compiledSession wraps a backend's session; done is called at the end.
func compiledSession(ses backend.Session, in []*tensor.Tensor, done func()) *session {
	out := backend.NewOutputs(ses)
	q := &session{
		run:     func(context.Context) error { return ses.Run(in, out) },
		outputs: func() ([]*ir.Data, error) { return wrap(out), nil },
		close: func() {
			ses.Close()
			if done != nil {
				done()
			}
		},
	}
	if t, ok := ses.(cpu.Traced); ok {
		q.profile = func(ctx context.Context, runs int) (*trace, error) { return traceSteps(ctx, t, in, out, runs) }
	}
	return q
}
