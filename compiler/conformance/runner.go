package conformance

import (
	"context"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Opsets is the import table of a model as the op table wants it.
func Opsets(m *onnxfile.Model) map[string]int { return m.OpsetTable() }

// Eval runs a model on the reference evaluator.
func Eval(_ context.Context, m *onnxfile.Model, s *Set) (Outputs, error) {
	out, err := onnx.Eval(m.Graph, Opsets(m), s.Inputs, nil)
	return Outputs{Data: out}, err
}

// Expand runs a model as a compiler sees it: expanded to a core graph of
// static shapes, whose nodes are then evaluated.
func Expand(_ context.Context, m *onnxfile.Model, s *Set) (Outputs, error) {
	x, in, bound, err := Ready(m, s)
	if err != nil {
		return Outputs{}, err
	}
	ts, err := core.EvalGraph(x.Graph, in)
	if err != nil {
		return Outputs{}, err
	}
	out := make([]*ir.Data, len(ts))
	for i, t := range ts {
		out[i] = ir.TensorData(t)
	}
	return Outputs{Data: out, Bound: bound}, nil
}

// Ready expands a model for the shapes of a data set (see ExpandFor), and picks
// the tensors of the set that its core graph takes.
func Ready(m *onnxfile.Model, s *Set) (x *onnx.Expanded, in []*tensor.Tensor, bound []string, err error) {
	if x, bound, err = ExpandFor(m, s); err == nil {
		in, err = Feed(m, s, x.Graph)
	}
	return x, in, bound, err
}

// Feed picks the tensors of a data set that a core graph takes, in its order.
func Feed(m *onnxfile.Model, s *Set, g *ir.Graph) ([]*tensor.Tensor, error) {
	given := map[string]*tensor.Tensor{}
	for i, v := range m.FeedInputs() {
		if d := s.Inputs[i].Unwrap(); d != nil {
			given[v.Name] = d.Tensor
		}
	}
	in := make([]*tensor.Tensor, len(g.Inputs))
	for i, v := range g.Inputs {
		if in[i] = given[v.Name]; in[i] == nil {
			return nil, fault.New(fault.Usage, "input %q has no recorded tensor", v.Name)
		}
		if in[i].DType != v.DType() {
			return nil, fault.New(fault.BadModel, "input %q is declared %s, the data is %s", v.Name, v.Type, in[i])
		}
	}
	return in, nil
}

// ExpandFor expands a model for the shapes of a data set. Where an operand
// must be constant, inputs that act as shapes, axes, pads, scales or k are
// bound to their recorded values: as few as are needed.
func ExpandFor(m *onnxfile.Model, s *Set) (x *onnx.Expanded, bound []string, err error) {
	o := onnx.Options{Opsets: Opsets(m), Shapes: map[string][]int{}, Bind: map[string]*tensor.Tensor{}}
	feeds := m.FeedInputs()
	if len(feeds) != len(s.Inputs) {
		return nil, nil, fault.New(fault.Usage, "the model has %d inputs, %d are recorded", len(feeds), len(s.Inputs))
	}
	var names []string
	candidates := map[string]*tensor.Tensor{}
	for i, v := range feeds {
		d := s.Inputs[i].Unwrap()
		if d == nil || d.Tensor == nil {
			continue
		}
		o.Shapes[v.Name] = d.Tensor.Shape
		if shapeLike(m.Graph, v, d.Tensor) {
			names = append(names, v.Name)
			candidates[v.Name] = d.Tensor
		}
	}
	x, err = onnx.Expand(m.Graph, o)
	if err == nil || !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "computed at run time") {
		return x, nil, err
	}
	for _, n := range names {
		o.Bind[n] = candidates[n]
	}
	if _, all := onnx.Expand(m.Graph, o); all != nil {
		return nil, nil, err
	}
	for _, n := range names { // give back what is not needed
		delete(o.Bind, n)
		if _, e := onnx.Expand(m.Graph, o); e != nil {
			o.Bind[n] = candidates[n]
		}
	}
	for n := range o.Bind {
		bound = append(bound, n)
	}
	slices.Sort(bound)
	x, err = onnx.Expand(m.Graph, o)
	return x, bound, err
}

// generators are ops whose first operand is no data but says what to make.
var generators = []string{
	"Range", "ConstantOfShape", "Loop", "If", "BlackmanWindow", "HannWindow", "HammingWindow", "MelWeightMatrix",
	"Shape", "Size", "Cast", "Add", "Sub", "Mul", "Div", "Concat", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Gather",
}

// shapeLike reports whether an input may be bound: a scalar, a vector of
// integers, or the scales and regions of a resize; and not the data operand
// (the first) of an op.
func shapeLike(g *ir.Graph, v *ir.Value, t *tensor.Tensor) bool {
	if t.DType == tensor.String || len(t.Shape) > 1 || t.Len() > 64 {
		return false
	}
	vector := len(t.Shape) == 1 && t.Len() != 1
	ok, resize := true, false
	for _, n := range g.Nodes {
		if n.In(0) == v && !slices.Contains(generators, n.Op) {
			ok = false
		}
		if slices.Contains(n.Inputs, v) {
			resize = resize || n.Op == "Resize" || n.Op == "Upsample"
		}
	}
	return ok && (!vector || t.DType.IsInteger() || resize)
}
