package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// prepare rebuilds the core graph in the form that the generators expect:
// convolutions and windows of one spatial axis become two-dimensional,
// per-channel factors behind a convolution go into its weights.
func prepare(g *ir.Graph) (*ir.Graph, error) {
	b := core.NewBuilder(g.Name)
	r := &rebuild{b: b, to: map[*ir.Value]*ir.Value{}, uses: g.Uses(), from: map[*ir.Value]*ir.Value{}}
	for _, v := range g.Inputs {
		r.to[v] = b.Input(v.Name, v.DType(), v.Static()...)
	}
	var outs []*ir.Value
	err := core.Catch(func() {
		for _, n := range g.Nodes {
			b.Origin = n.Origin
			r.node(n)
		}
		taken := map[*ir.Value]bool{}
		for _, v := range g.Outputs {
			o := r.value(v)
			if taken[o] || o.Def == nil {
				c := &ir.Node{Op: "reshape", Inputs: []*ir.Value{o}, Attrs: []ir.Attr{{Name: "shape", Val: ir.Int64s(o.Static())}}}
				d := &ir.Value{Type: o.Type, Def: c}
				c.Outputs = []*ir.Value{d}
				b.G.Nodes = append(b.G.Nodes, c)
				o = d
			}
			taken[o] = true
			outs = append(outs, o)
		}
	})
	if err != nil {
		return nil, err
	}
	for i, o := range outs {
		o.Name = g.Outputs[i].Name
	}
	b.G.Outputs = outs
	b.G.Sweep()
	return b.G, nil
}

type rebuild struct {
	b    *core.Builder
	to   map[*ir.Value]*ir.Value
	from map[*ir.Value]*ir.Value // new value → the old one that it stands for
	uses map[*ir.Value]int
}

func (r *rebuild) value(v *ir.Value) *ir.Value {
	if n := r.to[v]; n != nil {
		return n
	}
	n := r.b.NamedConst(v.Name, v.Const)
	r.to[v] = n
	return n
}

func (r *rebuild) node(n *ir.Node) {
	in := make([]*ir.Value, len(n.Inputs))
	for i, v := range n.Inputs {
		in[i] = r.value(v)
	}
	var outs []*ir.Value
	switch {
	case (n.Op == "conv" || core.Lookup(n.Op).Class == core.Window) && in[0].Rank() == 3:
		outs = []*ir.Value{r.planar(n, in)}
	case n.Op == "mul" && r.scaledConv(n, in) != nil:
		outs = []*ir.Value{r.scaledConv(n, in)}
	default:
		outs = r.b.NodeN(n.Op, in, flatAttrs(n)...)
	}
	for i, v := range n.Outputs {
		r.to[v] = outs[i]
		r.from[outs[i]] = v
	}
}

func flatAttrs(n *ir.Node, replace ...any) []any {
	var out []any
	for _, a := range n.Attrs {
		val := a.Val
		if x, ok := val.([]int64); ok {
			s := make([]int, len(x))
			for i, y := range x {
				s[i] = int(y)
			}
			val = s
		}
		for i := 0; i < len(replace); i += 2 {
			if replace[i] == a.Name {
				val = replace[i+1]
			}
		}
		out = append(out, a.Name, val)
	}
	return out
}

// planar puts a spatial axis of size 1 in front of the only one.
func (r *rebuild) planar(n *ir.Node, in []*ir.Value) *ir.Value {
	lift := func(v *ir.Value) *ir.Value {
		s := core.Shape(v)
		return r.b.Reshape(v, s[0], s[1], 1, s[2])
	}
	var repl []any
	for _, a := range []string{"strides", "dilations", "xdil", "kernel"} {
		if v := n.Ints(a); v != nil {
			repl = append(repl, a, append([]int{1}, v...))
		}
	}
	for _, a := range []string{"lo", "hi"} {
		repl = append(repl, a, append([]int{0}, n.Ints(a)...))
	}
	for i, v := range in {
		in[i] = lift(v)
	}
	y := r.b.Node(n.Op, in, flatAttrs(n, repl...)...)
	s := core.Shape(y)
	return r.b.Reshape(y, s[0], s[1], s[3])
}

// scaledConv rewrites conv(x,w)·s with a constant s per output channel as
// conv(x, w·s), in float64 rounded once.
func (r *rebuild) scaledConv(n *ir.Node, in []*ir.Value) *ir.Value {
	for i := range 2 {
		c, s := in[i].Def, perChannel(in[1-i], 1)
		if c == nil || c.Op != "conv" || s == nil || r.uses[n.Inputs[i]] != 1 || in[i].DType() != tensor.F32 {
			continue
		}
		w := constant(c.Inputs[1])
		if w == nil || w.DType != tensor.F32 {
			continue
		}
		scaled := w.Clone()
		per := w.Len() / w.Shape[0]
		v := tensor.As[float32](scaled)
		for j := range v {
			v[j] = float32(float64(v[j]) * s.Float(j/per%s.Len()))
		}
		return r.b.Node("conv", []*ir.Value{c.Inputs[0], r.b.NamedConst(c.Inputs[1].Name, scaled)}, flatAttrs(c)...)
	}
	return nil
}

// constant evaluates a value that depends on constants alone; nil if it does
// not. Big broadcasts stay unevaluated until somebody needs them.
func constant(v *ir.Value) *tensor.Tensor {
	if v.Const != nil || v.Def == nil {
		return v.Const
	}
	if len(v.Def.Inputs) == 0 {
		return nil
	}
	in := make([]*tensor.Tensor, len(v.Def.Inputs))
	for i, x := range v.Def.Inputs {
		if in[i] = constant(x); in[i] == nil {
			return nil
		}
	}
	out, err := core.Eval(v.Def, in)
	if err != nil {
		return nil
	}
	return out[slices.Index(v.Def.Outputs, v)]
}

// perChannel gives the constant values along an axis of a value that is
// constant over all others: a tensor of that axis's size, or of one element.
func perChannel(v *ir.Value, axis int) *tensor.Tensor {
	rank := v.Rank()
	for v.Def != nil && v.Def.Op == "broadcast" {
		v = v.Def.Inputs[0]
	}
	if v.Const == nil || v.Rank() != rank {
		return nil
	}
	for i, d := range v.Const.Shape {
		if d != 1 && i != axis {
			return nil
		}
	}
	return v.Const
}
