package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// precisionsFile is the precision of each layer, in an artifact whose layers
// have several.
const precisionsFile = "precisions.json"

// meet picks the precisions that --tolerance asks for, on the inputs of a
// core graph and on others like them.
func (o *engineOptions) meet(ctx context.Context, f *factory, b backend.Backend, g *ir.Graph, in []*tensor.Tensor, seed uint64) (*toleranceReport, error) {
	if o.layers != "" {
		return nil, fault.New(fault.Usage, "--tolerance finds precisions, --precisions gives them").Hint("use one of them")
	}
	sets := [][]*tensor.Tensor{in, otherInputs(in, seed)}
	r, err := pickPrecisions(ctx, f, b, g, sets, *o)
	if err != nil {
		return nil, err
	}
	o.picked, o.tolerance = &r.Precisions, ""
	f.Infof("%s", r.Summary())
	return r, nil
}

// counts tells how many layers have each precision that there is a choice of.
func (r *toleranceReport) counts() map[string]int {
	n := map[string]int{}
	for _, x := range r.Errors.Layers {
		if x.Form != "" {
			n[x.Precision]++
		}
	}
	return n
}

// Summary tells in one line what was picked.
func (r *toleranceReport) Summary() string {
	n := r.counts()
	var parts []string
	for _, m := range precision.Names() {
		if n[m] > 0 {
			parts = append(parts, fmt.Sprintf("%d in %s", n[m], m))
		}
	}
	return fmt.Sprintf("--tolerance %.2g: layers %s; the outputs' error is %.2g, %.2g on other inputs, %.2g with the fastest everywhere",
		r.Tolerance, strings.Join(parts, ", "), r.Error, r.Check, r.Fastest)
}

// tolerances picks precisions for a model that is timed. They go through a
// file, which the processes that time it read; done removes it.
func (o *benchOptions) tolerances(ctx context.Context, e engine, path string) (r *toleranceReport, done func(), err error) {
	asked := o.engine
	done = func() { o.engine = asked }
	make := compiledBackends[e.name]
	if isArtifact(path) || make == nil {
		return nil, done, o.engine.none(path)
	}
	m, x, in, _, err := o.expanded(path)
	if err != nil {
		return nil, done, err
	}
	defer m.Close()
	if r, err = o.engine.meet(ctx, o.factory, make(), x.Graph, in, o.inputs.seed); err != nil {
		return nil, done, inModel(err, m)
	}
	file, err := os.CreateTemp("", "lathe-precisions-*.json")
	if err != nil {
		return nil, done, fault.New(fault.Usage, "cannot make a temporary file: %w", err).Hint("set TMPDIR to a folder with space")
	}
	done = func() {
		o.engine = asked
		os.Remove(file.Name())
	}
	err = json.NewEncoder(file).Encode(r.Precisions)
	if closing := file.Close(); err == nil {
		err = closing
	}
	o.engine.picked, o.engine.layers = nil, file.Name()
	return r, done, err
}

// expanded is a model's core graph with its inputs; the caller closes the model.
func (o *benchOptions) expanded(path string) (*onnxfile.Model, *onnx.Expanded, []*tensor.Tensor, *conformance.Set, error) {
	m, err := o.loadModel(path)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	set, err := o.set(m)
	if err == nil {
		x, in, _, readyErr := conformance.Ready(m, set)
		if err = readyErr; err == nil {
			return m, x, in, set, nil
		}
	}
	m.Close()
	return nil, nil, nil, nil, inModel(err, m)
}

// accuracy measures a model that is compiled: the errors of its layers, and
// before that, if it is asked for, the precisions that keep a tolerance.
func (o *compileOptions) accuracy(ctx context.Context, m *onnxfile.Model, opt onnx.Options, b backend.Backend) (*toleranceReport, *errorReport, error) {
	if o.tune > 0 {
		return nil, nil, fault.New(fault.Usage, "--tolerance and --errors measure the kernels as they are, --tune makes others").Hint("tune first, then compile with --schedules")
	}
	if o.target != "cpu" {
		return nil, nil, fault.New(fault.Usage, "--tolerance and --errors measure native code, not the target %s", o.target)
	}
	if err := o.code.check(engine{name: "cpu"}); err != nil {
		return nil, nil, err
	}
	set, err := o.inputs.read(o.factory, m, &o.shapes)
	if err != nil {
		return nil, nil, err
	}
	x, err := onnx.Expand(m.Graph, opt)
	if err != nil {
		return nil, nil, inModel(err, m)
	}
	in, err := conformance.Feed(m, set, x.Graph)
	if err != nil {
		return nil, nil, err
	}
	e := engineOptions{codegenFlags: o.code, threads: o.threads}
	if o.code.tolerance != "" {
		r, err := e.meet(ctx, o.factory, b, x.Graph, in, o.inputs.seed)
		if err != nil {
			return nil, nil, inModel(err, m)
		}
		o.code = e.codegenFlags
		return r, r.Errors, nil
	}
	meter, err := newErrorMeter(o.factory, b, x.Graph, [][]*tensor.Tensor{in}, e)
	if err != nil {
		return nil, nil, err
	}
	defer func() { meter.close() }()
	r, err := meter.measure(ctx, 0, meter.base)
	return nil, r, err
}
