package onnxgo

import (
	"fmt"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/owulveryck/onnx-go/backend"
)

// Program runs a compiled model: one tensor per graph input, in order, gives
// one per graph output.
type Program func(inputs []*tensor.Tensor) ([]*tensor.Tensor, error)

// Compiler makes a program of a model whose inputs have static shapes.
type Compiler func(m *onnxfile.Model) (Program, error)

// Backend is a computation backend for onnx-go: pass it to onnx.NewModel, set
// the inputs, call Run, get the outputs.
type Backend struct {
	*recorder
	compile Compiler
	opset   int64
	built   map[string]*plan // by the fed inputs and their types
}

var _ backend.ComputationBackend = (*Backend)(nil)

// plan is the program for one choice of inputs.
type plan struct {
	feeds   []*node
	types   []ir.Type // of the feeds
	outputs []*node
	run     Program
}

// NewBackend makes a backend. onnx-go does not hand over which opset a model
// imports, so the caller states it; models that onnx-go was made for use 7 to
// 10.
func NewBackend(opset int64, c Compiler) *Backend {
	return &Backend{recorder: newRecorder(), compile: c, opset: opset, built: map[string]*plan{}}
}

// Run computes what the operations give from the tensors that were set. The
// first run for a choice of inputs and shapes compiles. Tensors that the
// file set are constants; those set after it was decoded are inputs.
func (b *Backend) Run() error {
	p, err := b.plan()
	if err != nil {
		return err
	}
	in := make([]*tensor.Tensor, len(p.feeds))
	for i, n := range p.feeds {
		if in[i], err = n.feed(); err != nil {
			return err
		}
	}
	out, err := p.run(in)
	if err != nil {
		return err
	}
	if len(out) != len(p.outputs) {
		return fault.New(fault.Internal, "the program gives %d outputs, the graph has %d", len(out), len(p.outputs))
	}
	for i, n := range p.outputs {
		if n.t, err = toGorgonia(out[i]); err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) plan() (*plan, error) {
	computed := b.computed()
	p := &plan{}
	var key strings.Builder
	for _, n := range b.data {
		if n.fed && !computed[n.name] {
			t, err := n.feed()
			if err != nil {
				return nil, err
			}
			p.feeds = append(p.feeds, n)
			p.types = append(p.types, ir.TensorType(t.DType, t.Shape...))
			fmt.Fprintf(&key, "%d %s\n", n.id, t)
		}
	}
	if q := b.built[key.String()]; q != nil {
		return q, nil
	}
	m, err := b.model(p)
	if err != nil {
		return nil, err
	}
	if p.run, err = b.compile(m); err != nil {
		return nil, err
	}
	b.built[key.String()] = p
	return p, nil
}

// model is the graph from the fed nodes to every value that no operation
// reads and every value that onnx-go was told to be an output.
func (b *Backend) model(p *plan) (*onnxfile.Model, error) {
	bld := newBuilder(b.recorder)
	g := &ir.Graph{Name: "onnx-go"}
	for i, n := range p.feeds {
		v := bld.value(n)
		v.Type = p.types[i]
		g.Inputs = append(g.Inputs, v)
	}
	if err := b.constants(g, bld); err != nil {
		return nil, err
	}
	var err error
	if g.Nodes, err = bld.nodes(); err != nil {
		return nil, err
	}
	p.outputs = b.outputs()
	for _, n := range p.outputs {
		g.Outputs = append(g.Outputs, bld.value(n))
	}
	if err := ir.Verify(g); err != nil {
		return nil, fault.New(fault.BadModel, "%w", err)
	}
	g.Sweep()
	return onnxfile.New(g, b.opset), nil
}

// constants adds what operations read and nobody feeds or computes. Of several
// nodes of one name, operations read the last.
func (b *Backend) constants(g *ir.Graph, bld *builder) error {
	read := b.read()
	for _, v := range g.Inputs {
		delete(read, v.Name)
	}
	last := map[string]*node{}
	for _, n := range b.nodes {
		last[n.name] = n
	}
	for _, n := range b.data {
		if !read[n.name] || bld.computed[n.name] || n.name == "" || last[n.name] != n {
			continue
		}
		t, err := fromGorgonia(n.t)
		if err != nil {
			return err
		}
		v := bld.value(n)
		v.Const, v.Type = t, ir.TensorType(t.DType, t.Shape...)
		g.Inits = append(g.Inits, v)
	}
	return nil
}

// outputs are the computed nodes that the file describes with a type, and
// those that no operation reads.
func (b *Backend) outputs() []*node {
	read := b.read()
	given := map[*node]bool{}
	for _, o := range b.ops {
		for _, n := range o.outputs {
			given[n] = true
		}
	}
	var out []*node
	for _, n := range b.nodes {
		if given[n] && n.name != "" && (n.t != nil || !read[n.name]) {
			out = append(out, n)
		}
	}
	return out
}

// feed is the tensor that the caller set. One that differs from the declared
// element type is converted if no value changes: onnx-go's own recordings hold
// every tensor of one element as float32[1].
func (n *node) feed() (*tensor.Tensor, error) {
	t, err := fromGorgonia(n.t)
	if err != nil || n.declared == nil {
		return t, err
	}
	want := typeOf(n.declared)
	if want.Form == ir.FormNone || want.DType == t.DType {
		return t, nil
	}
	shape, _ := want.Static()
	if want.DType.IsNumeric() && t.DType.IsNumeric() {
		c := tensor.Convert(t, want.DType)
		if tensor.Equal(tensor.Convert(c, t.DType), t) {
			if t.Len() == 1 && tensor.Numel(shape) == 1 {
				c = c.Reshaped(shape...)
			}
			return c, nil
		}
	}
	return nil, fault.New(fault.BadModel, "input %q is declared %s, the data is %s", n.name, want, t)
}
