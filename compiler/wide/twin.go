package wide

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Graph is the float64 twin of a core graph: every float value, input and
// output is float64, and constants are widened as they are. What a model rounds
// on purpose, by a cast to a narrower type that it asks for, stays rounded.
// The outputs are the twins of the given values, in their order.
func Graph(g *ir.Graph, outputs []*ir.Value) (*ir.Graph, error) {
	t := newTwin(g.Name)
	err := core.Catch(func() {
		for _, v := range g.Inputs {
			t.to[v] = t.b.Input(v.Name, widened(v.DType()), v.Static()...)
		}
		for _, n := range g.Nodes {
			t.node(n)
		}
		roots := make([]*ir.Value, len(outputs))
		for i, v := range outputs {
			roots[i] = t.value(v)
		}
		t.outputs(roots)
	})
	return t.b.G, err
}

// Layers is a graph in which each layer is computed in float64 from values that
// were recorded: what differs from its outputs is the layers' own error. The
// values are its inputs, in order; output i is the root of layer i.
func Layers(name string, layers []*lower.Layer) (*ir.Graph, []*ir.Value, error) {
	t := newTwin(name)
	recorded := map[*ir.Value]*ir.Value{}
	var inputs, roots []*ir.Value
	err := core.Catch(func() {
		for _, l := range layers {
			for _, v := range l.Inputs {
				if recorded[v] == nil {
					recorded[v] = t.b.Input(v.Name, widened(v.DType()), v.Static()...)
					inputs = append(inputs, v)
				}
			}
		}
		for _, l := range layers {
			t.to = map[*ir.Value]*ir.Value{} // what another layer computes is not this one's
			for _, v := range l.Inputs {
				t.to[v] = recorded[v]
			}
			for _, n := range l.Nodes {
				t.node(n)
			}
			roots = append(roots, t.value(l.Root))
		}
		t.outputs(roots)
	})
	return t.b.G, inputs, err
}

// twin is a float64 graph being made.
type twin struct {
	b  *core.Builder
	to map[*ir.Value]*ir.Value
}

func newTwin(name string) *twin {
	return &twin{core.NewBuilder(name + "·float64"), map[*ir.Value]*ir.Value{}}
}

// widens reports whether values of a type are float64 in the twin.
func widens(d tensor.DType) bool {
	switch d {
	case tensor.F16, tensor.BF16, tensor.F32, tensor.F64:
		return true
	}
	return false
}

func widened(d tensor.DType) tensor.DType {
	if widens(d) {
		return tensor.F64
	}
	return d
}

// value is the twin of a value. Large constants stay as narrow as they are in
// memory and are widened where they are read; integers of less than a byte,
// which compiled code unpacks in kernels of its own, are unpacked here.
func (t *twin) value(v *ir.Value) *ir.Value {
	w := t.to[v]
	if w == nil {
		c := v.Const
		if d := c.DType; d.IsInteger() && d.Bits() < 8 {
			to := tensor.I8
			if lo, _ := d.IntRange(); lo == 0 {
				to = tensor.U8
			}
			c = tensor.Convert(c, to)
		}
		w = t.b.NamedConst(v.Name, c)
		if widens(v.DType()) {
			w = t.b.Cast(w, tensor.F64)
		}
		t.to[v] = w
	}
	return w
}

func (t *twin) node(n *ir.Node) {
	t.b.Origin = n.Origin
	in := make([]*ir.Value, len(n.Inputs))
	for i, v := range n.Inputs {
		in[i] = t.value(v)
	}
	var outs []*ir.Value
	switch to, _ := tensor.ParseDType(n.Str("to", "")); {
	case n.Op == "bitcast" && (n.Inputs[0].DType().IsFloat() || n.Outputs[0].DType().IsFloat()):
		core.Fail("the model looks at the bits of a float: it has no float64 twin")
	case n.Op == "cast" && widens(to) && n.Int("keep", 0) == 0:
		outs = []*ir.Value{t.b.Cast(in[0], tensor.F64)}
	case n.Op == "cast" && widens(to):
		outs = []*ir.Value{t.b.Cast(t.b.Node("cast", in, attrs(n, false)...), tensor.F64)}
	default:
		outs = t.b.NodeN(n.Op, in, attrs(n, true)...)
	}
	for i, v := range n.Outputs {
		t.to[v] = outs[i]
	}
}

// attrs are a node's attributes, with float64 as the type of a float result.
func attrs(n *ir.Node, widen bool) []any {
	var list []any
	for _, a := range n.Attrs {
		val := a.Val
		switch x := val.(type) {
		case []int64:
			s := make([]int, len(x))
			for i, y := range x {
				s[i] = int(y)
			}
			val = s
		case string:
			if d, ok := tensor.ParseDType(x); ok && widen && widens(d) && (a.Name == "to" || a.Name == "out" || a.Name == "dtype") {
				val = tensor.F64.String()
			}
		}
		list = append(list, a.Name, val)
	}
	return list
}

// outputs ends the graph. A value that is an input, a constant or an output
// already gets a node of its own.
func (t *twin) outputs(roots []*ir.Value) {
	taken := map[*ir.Value]bool{}
	for i, w := range roots {
		if taken[w] || w.Def == nil {
			c := &ir.Node{Op: "reshape", Inputs: []*ir.Value{w}, Attrs: []ir.Attr{{Name: "shape", Val: ir.Int64s(w.Static())}}}
			c.Outputs = []*ir.Value{{Name: fmt.Sprintf("%s·output%d", w.Name, i), Type: w.Type, Def: c}}
			t.b.G.Nodes = append(t.b.G.Nodes, c)
			w = c.Outputs[0]
		}
		taken[w] = true
		t.b.G.Outputs = append(t.b.G.Outputs, w)
	}
	t.b.G.Sweep()
}
