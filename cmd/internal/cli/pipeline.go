package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/interp"
	"github.com/lathe-ml/lathe/backends/portable"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// lowered is a model on its way to an artifact.
type lowered struct {
	program *program.Program
	traits  backend.Traits
	x       *onnx.Expanded
	more    []backend.Variant // for the other CPUs that --cpu names

	schedules *schedulesMade   // nil without a record book
	picked    *toleranceReport // nil without --tolerance
	errors    *errorReport     // nil if none were measured
}

// lowerModel takes a model to a program for a backend's CPU, or for each of
// several.
func lowerModel(f *factory, m *onnxfile.Model, o onnx.Options, b backend.Backend, c codegenFlags, threads int) (*lowered, error) {
	cpus := c.each()
	for _, one := range cpus {
		if _, err := b.Target(one.cpu); err != nil {
			return nil, err
		}
	}
	l := &lowered{}
	book, err := c.records(f)
	if err != nil {
		return nil, err
	}
	if book != nil {
		l.schedules = &schedulesMade{SHA256: book.sum, used: &schedule.Book{}}
	}
	for i, one := range cpus {
		x, err := onnx.Expand(m.Graph, o)
		if err != nil {
			return nil, inModel(err, m)
		}
		p, t, err := one.program(f, b, x.Graph, threads)
		if err != nil {
			return nil, inModel(err, m)
		}
		if book != nil {
			mode, _ := one.options() // program has read them
			l.schedules.add(p, book.Ranked(scheduleTarget(t, mode.Precision, threads)))
		}
		if i == 0 {
			l.program, l.traits, l.x = p, t, x
			continue
		}
		l.more = append(l.more, backend.Variant{Program: p, Traits: t})
	}
	return l, nil
}

// inModel names the file in a classed error that does not.
func inModel(err error, m *onnxfile.Model) error {
	if e := fault.As(err); e != nil && e.File == "" && m.Path != "" {
		return fmt.Errorf("%s: %w", m.Path, err)
	}
	return err
}

// objectCache is the folder of compiled kernels.
func (f *factory) objectCache() (string, error) {
	dir, err := f.cacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "objects"), nil
}

// compiledBackends are the backends that run core graphs, by engine name.
var compiledBackends = map[string]func() backend.Backend{
	"interp":   interp.Backend,
	"portable": portable.Backend,
	"cpu":      cpu.Backend,
}

// prepareCompiled makes an engine of a backend: the model is compiled for the
// shapes of its inputs and opened from a temporary folder.
func prepareCompiled(b backend.Backend) func(context.Context, *factory, engineOptions, *onnxfile.Model, *conformance.Set) (*session, error) {
	return func(ctx context.Context, f *factory, o engineOptions, m *onnxfile.Model, s *conformance.Set) (*session, error) {
		x, in, bound, err := conformance.Ready(m, s)
		if err != nil {
			return nil, err
		}
		q, err := prepareGraph(ctx, f, b, x.Graph, in, o)
		if err != nil {
			return nil, err
		}
		q.bound = bound
		return q, nil
	}
}

// prepareGraph compiles a core graph and opens it on its inputs.
func prepareGraph(ctx context.Context, f *factory, b backend.Backend, g *ir.Graph, in []*tensor.Tensor, o engineOptions) (*session, error) {
	if o.tolerance != "" {
		if _, err := o.meet(ctx, f, b, g, in, 1); err != nil {
			return nil, err
		}
	}
	p, t, err := o.program(f, b, g, o.threads)
	if err != nil {
		return nil, err
	}
	ses, done, err := openProgram(ctx, f, b, p, t, o)
	if err != nil {
		return nil, err
	}
	if err := pinned(ses, o.pin); err != nil {
		q := compiledSession(ses, in, done)
		q.close()
		return nil, err
	}
	return compiledSession(ses, in, done), nil
}

// openProgram opens a program directly where the backend can, else by building
// an artifact in a temporary folder.
func openProgram(ctx context.Context, f *factory, b backend.Backend, p *program.Program, t backend.Traits, o engineOptions) (backend.Session, func(), error) {
	if b.Direct != nil {
		ses, err := b.Direct(p, o.threads)
		return ses, nil, err
	}
	opt, err := o.build(f, t, "model", o.threads)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "lathe-run-")
	if err != nil {
		return nil, nil, fault.New(fault.Usage, "cannot make a temporary folder: %w", err).Hint("set TMPDIR to a folder with space")
	}
	done := func() { os.RemoveAll(dir) }
	if err := b.Build(ctx, p, dir, opt); err != nil {
		done()
		return nil, nil, err
	}
	ses, err := b.Open(dir, o.threads)
	if err != nil {
		done()
		return nil, nil, err
	}
	return ses, done, nil
}

// symbolName is the default name of an artifact: the model file's, without
// its extension. It does not depend on the folder, so that neither does the
// artifact.
func symbolName(path string) string {
	base := filepath.Base(path)
	return strings.TrimSuffix(base, filepath.Ext(base))
}
