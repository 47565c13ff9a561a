package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"

	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/wide"
)

// layerError is how far a layer is from float64.
type layerError struct {
	Layer     string  `json:"layer"` // the value that it stores
	Node      string  `json:"node,omitempty"`
	Op        string  `json:"op"`
	Form      string  `json:"form,omitempty"` // of the kernel, where there are several
	Precision string  `json:"precision"`
	Bound     float64 `json:"bound"`
	// Own is what the layer's arithmetic adds, on the inputs that it had.
	Own wide.Deviation `json:"own"`
	// Condition is by how much the layer amplifies relative errors of its inputs,
	// where that is more than 1 and was measured: sums that cancel, exponentials,
	// steps. The bound counts so often.
	Condition float64 `json:"condition,omitempty"`
	// Steps is set if the layer rounds to whole numbers on purpose: values beside a
	// step fall to either side, and no bound is stated.
	Steps bool `json:"steps,omitempty"`
	// Sofar is the distance to the network in float64, with all layers before.
	Sofar wide.Deviation `json:"so_far"`

	mode precision.Mode
}

// excess is the layer's own error in units of what it may be.
func (e layerError) excess() float64 {
	if e.Steps {
		return 0
	}
	return e.Own.RMS / (e.Bound * max(1, e.Condition))
}

func (e layerError) within() bool { return e.Own.Broken == 0 && e.excess() <= 1 }

// outputError is how far an output of the model is from float64.
type outputError struct {
	Output string          `json:"output"`
	Error  wide.Deviation  `json:"error"`
	Peer   *wide.Deviation `json:"peer,omitempty"` // ONNX Runtime's
}

// errorReport are the errors of one run of a model. Output is the largest
// relative error of an output, Excess the largest own error of a layer in units
// of its bound.
type errorReport struct {
	Layers  []layerError  `json:"layers"`
	Outputs []outputError `json:"outputs"`
	Output  float64       `json:"output_error"`
	Excess  float64       `json:"excess"`
	Layer   string        `json:"worst_layer,omitempty"`
}

// errorMeter measures a model's layers against float64. The float64 programs
// are made once, since they do not depend on how the model is compiled.
type errorMeter struct {
	f     *factory
	b     backend.Backend
	o     engineOptions
	t     backend.Traits
	base  compiler.Options // beside the precision
	graph *ir.Graph
	sets  [][]*tensor.Tensor

	layers []string // those that the float64 programs are made for
	own    backend.Session
	inputs []string           // the recorded values that own takes
	twins  [][]*tensor.Tensor // per data set: roots of layers, then outputs of the model
	close  func()
}

func newErrorMeter(f *factory, b backend.Backend, g *ir.Graph, sets [][]*tensor.Tensor, o engineOptions) (*errorMeter, error) {
	t, err := b.Target(o.cpu)
	if err != nil {
		return nil, err
	}
	base, err := o.lowering(f, t, o.threads)
	if err != nil {
		return nil, err
	}
	return &errorMeter{f: f, b: b, o: o, t: t, base: base, graph: g, sets: sets, twins: make([][]*tensor.Tensor, len(sets)), close: func() {}}, nil
}

// with are the options of the model's compilation in other precisions.
func (e *errorMeter) with(p precision.Mode, at func(layer string) precision.Mode) compiler.Options {
	o := e.base
	o.Precision, o.PrecisionAt = p, at
	return o
}

// measure compiles the model with its layers laid open and compares them on a
// data set.
func (e *errorMeter) measure(ctx context.Context, set int, o compiler.Options) (*errorReport, error) {
	w, err := compiler.Watch(e.graph, e.t, o)
	if err != nil {
		return nil, err
	}
	got, err := e.run(ctx, w.Program, e.sets[set], e.o.threads)
	if err != nil {
		return nil, err
	}
	if err := e.twin(ctx, w, set); err != nil {
		return nil, err
	}
	value := map[string]*tensor.Tensor{}
	for v, at := range w.Output {
		value[v.Name] = got[at]
	}
	for i, v := range w.Graph.Inputs {
		value[v.Name] = e.sets[set][i]
	}
	in := make([]*tensor.Tensor, len(e.inputs))
	for i, name := range e.inputs {
		in[i] = tensor.Convert(value[name], e.own.Inputs()[i].Type)
	}
	ref := backend.NewOutputs(e.own)
	if err := e.own.Run(in, ref); err != nil {
		return nil, err
	}
	r := e.compare(w, o, set, value, ref)
	if err := e.conditions(r, in, ref); err != nil {
		return nil, err
	}
	for _, x := range r.Layers {
		if v := x.excess(); v > r.Excess {
			r.Excess, r.Layer = v, x.Layer
		}
	}
	return r, nil
}

// unit is the relative rounding error of f32.
const unit = 1.0 / (1 << 24)

// conditions measures how much the layers amplify the rounding of their inputs
// to f32, each by itself and all alike, if one of them is over its bound: a
// layer cannot be better than what its inputs are good for.
func (e *errorMeter) conditions(r *errorReport, in, ref []*tensor.Tensor) error {
	if !slices.ContainsFunc(r.Layers, func(x layerError) bool { return x.excess() > 1 }) {
		return nil
	}
	out := backend.NewOutputs(e.own)
	for _, alike := range []bool{false, true} {
		draw := rand.New(rand.NewPCG(1, 2))
		moved := make([]*tensor.Tensor, len(in))
		for i, t := range in {
			if moved[i] = t; t.DType != tensor.F64 {
				continue
			}
			moved[i] = t.Clone()
			v := tensor.As[float64](moved[i])
			for k := range v {
				if alike || draw.Uint64()&1 == 0 {
					v[k] *= 1 + unit
				} else {
					v[k] *= 1 - unit
				}
			}
		}
		if err := e.own.Run(moved, out); err != nil {
			return err
		}
		for i := range r.Layers {
			if c := wide.Of(out[i], ref[i]).RMS / unit; c > 1 {
				r.Layers[i].Condition = max(r.Layers[i].Condition, c)
			}
		}
	}
	return nil
}

// steps reports whether an op maps neighbouring floats to values apart.
func steps(n *ir.Node) bool {
	switch n.Op {
	case "round", "floor", "ceil", "trunc", "mod", "fmod", "lt", "le", "eq", "sign":
		return n.Inputs[0].DType().IsFloat()
	case "cast":
		return n.Inputs[0].DType().IsFloat() && !n.Outputs[0].DType().IsFloat()
	}
	return false
}

// roundoff is the relative error of storing a value in a type.
func roundoff(d tensor.DType) float64 {
	switch d {
	case tensor.F16:
		return 1.0 / (1 << 11)
	case tensor.BF16:
		return 1.0 / (1 << 8)
	}
	return 0
}

// output is an output of the float64 network on a data set.
func (e *errorMeter) output(set int, name string) *tensor.Tensor {
	for i, v := range e.graph.Outputs {
		if v.Name == name {
			return e.twins[set][len(e.layers)+i]
		}
	}
	return nil
}

// deviation is that of an output of the model. One that is finite where the
// float64 network is not, or the other way round, has no error that counts as
// small.
func (e *errorMeter) deviation(got *tensor.Tensor, set, output int) wide.Deviation {
	d := wide.Of(got, e.twins[set][len(e.layers)+output])
	if d.Broken > 0 {
		d.RMS = max(d.RMS, 1)
	}
	return d
}

// compare makes the report; own are the float64 values of the layers on their
// recorded inputs.
func (e *errorMeter) compare(w *lower.Watched, o compiler.Options, set int, value map[string]*tensor.Tensor, own []*tensor.Tensor) *errorReport {
	r := &errorReport{Layers: []layerError{}, Outputs: []outputError{}}
	forms := formsOf(w.Program)
	for i, l := range w.Layers {
		name := l.Root.Name
		mode := o.Precision
		if o.PrecisionAt != nil {
			mode = o.PrecisionAt(name)
		}
		x := layerError{
			Layer: name, Node: l.Origin(), Op: l.Op(), Form: forms[name], Precision: mode.String(), Bound: max(mode.Bound(), roundoff(l.Root.DType())), mode: mode, Steps: slices.ContainsFunc(l.Nodes, steps),
			Own: wide.Of(value[name], own[i]), Sofar: wide.Of(value[name], e.twins[set][i]),
		}
		r.Layers = append(r.Layers, x)
	}
	for i, v := range w.Graph.Outputs {
		if !v.DType().IsFloat() {
			continue
		}
		d := e.deviation(value[v.Name], set, i)
		r.Outputs = append(r.Outputs, outputError{Output: v.Name, Error: d})
		r.Output = max(r.Output, d.RMS)
	}
	return r
}

// formsOf gives the form of each layer that has a choice.
func formsOf(p *program.Program) map[string]string {
	chosen := map[string]string{}
	for _, s := range p.Sites {
		chosen[s.Key] = s.Chosen.Form
	}
	forms := map[string]string{}
	for _, s := range p.Steps {
		if f := chosen[s.Site]; f != "" && s.Layer != "" {
			forms[s.Layer] = f
		}
	}
	return forms
}

// twin computes the float64 network on a data set, and makes the program for
// the layers' own errors.
func (e *errorMeter) twin(ctx context.Context, w *lower.Watched, set int) error {
	var names []string
	for _, l := range w.Layers {
		names = append(names, l.Root.Name)
	}
	if !slices.Equal(names, e.layers) { // the first time, or a precision fuses otherwise
		e.close()
		e.inputs, e.layers, e.close = nil, nil, func() {}
		clear(e.twins)
		g, inputs, err := wide.Layers(e.graph.Name, w.Layers)
		if err != nil {
			return fault.New(fault.Unsupported, "no errors can be measured: %w", err)
		}
		for _, v := range inputs {
			e.inputs = append(e.inputs, v.Name)
		}
		p, err := compiler.Program(g, e.t, compiler.Options{Threads: runtime.NumCPU()})
		if err != nil {
			return fmt.Errorf("lowering the layers in float64: %w", err)
		}
		if e.own, e.close, err = e.open(ctx, p, runtime.NumCPU()); err != nil {
			return err
		}
		e.layers = names
	}
	if e.twins[set] != nil {
		return nil
	}
	var roots []*ir.Value
	for _, l := range w.Layers {
		roots = append(roots, l.Root)
	}
	g, err := wide.Graph(w.Graph, append(roots, w.Graph.Outputs...))
	if err != nil {
		return fault.New(fault.Unsupported, "no errors can be measured: %w", err)
	}
	p, err := compiler.Program(g, e.t, compiler.Options{Threads: runtime.NumCPU()})
	if err != nil {
		return fmt.Errorf("lowering the model in float64: %w", err)
	}
	in := slices.Clone(e.sets[set])
	for i, v := range g.Inputs {
		in[i] = tensor.Convert(in[i], v.DType())
	}
	e.twins[set], err = e.run(ctx, p, in, runtime.NumCPU())
	return err
}

func (e *errorMeter) open(ctx context.Context, p *program.Program, threads int) (backend.Session, func(), error) {
	o := e.o
	o.threads = threads
	s, done, err := openProgram(ctx, e.f, e.b, p, e.t, o)
	if err != nil {
		return nil, nil, err
	}
	return s, func() {
		s.Close()
		if done != nil {
			done()
		}
	}, nil
}

// run runs a program once.
func (e *errorMeter) run(ctx context.Context, p *program.Program, in []*tensor.Tensor, threads int) ([]*tensor.Tensor, error) {
	s, done, err := e.open(ctx, p, threads)
	if err != nil {
		return nil, err
	}
	defer done()
	out := backend.NewOutputs(s)
	if err := s.Run(in, out); err != nil {
		return nil, err
	}
	return out, ctx.Err()
}
