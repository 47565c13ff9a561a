package lower

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// prepare rebuilds the core graph in the form that the generators expect:
// convolutions and windows of one spatial axis become two-dimensional,
// per-channel factors behind a convolution go into its weights. clamped are the
// floats that stand for elements of an integer type: see alreadyInteger. bytes
// says that the target multiplies bytes.
func prepare(g *ir.Graph, bytes bool) (out *ir.Graph, clamped map[*ir.Value]bool, err error) {
	b := core.NewBuilder(g.Name)
	r := &rebuild{b: b, to: map[*ir.Value]*ir.Value{}, uses: g.Uses(), scaled: map[*ir.Value]scaledSum{}, bytewise: map[*ir.Value]*bytewise{}, clamped: map[*ir.Value]bool{}, bytes: bytes}
	r.readers = map[*ir.Value][]*ir.Node{}
	for _, n := range g.Nodes {
		for _, v := range n.Inputs {
			r.readers[v] = append(r.readers[v], n)
		}
	}
	r.keepNarrow = slices.ContainsFunc(g.Nodes, func(n *ir.Node) bool {
		return n.Op == "bitcast" && (narrow(n.Inputs[0].DType()) || narrow(n.Outputs[0].DType()))
	})
	for _, v := range g.Inputs {
		r.to[v] = b.Input(v.Name, v.DType(), v.Static()...)
	}
	err = core.Catch(func() {
		for _, n := range g.Nodes {
			b.Origin = n.Origin
			r.node(n)
		}
		b.G.Outputs = outputs(b, g.Outputs, func(v *ir.Value) *ir.Value { return b.Cast(r.value(v), v.DType()) })
	})
	if err != nil {
		return nil, nil, err
	}
	b.G.Sweep()
	distinct(b.G)
	return b.G, r.clamped, nil
}

// outputs are the values that a rebuilt graph gives, each once and under its old
// name.
func outputs(b *core.Builder, old []*ir.Value, of func(*ir.Value) *ir.Value) []*ir.Value {
	taken := map[*ir.Value]bool{}
	var outs []*ir.Value
	for _, v := range old {
		o := of(v)
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
	for i, o := range outs {
		o.Name = old[i].Name
	}
	return outs
}

// distinct renames inner values that have the name of another one: outputs keep
// the model's names, which may be those that the builder gave.
func distinct(g *ir.Graph) {
	taken := map[string]bool{}
	keep := map[*ir.Value]bool{}
	for _, v := range slices.Concat(g.Inputs, g.Outputs) {
		taken[v.Name], keep[v] = true, true
	}
	rename := func(v *ir.Value) {
		if keep[v] {
			return
		}
		for taken[v.Name] {
			v.Name += "'"
		}
		taken[v.Name] = true
	}
	for _, v := range g.Inits {
		rename(v)
	}
	for _, n := range g.Nodes {
		for _, v := range n.Outputs {
			rename(v)
		}
	}
}

type rebuild struct {
	b       *core.Builder
	to      map[*ir.Value]*ir.Value
	uses    map[*ir.Value]int
	readers map[*ir.Value][]*ir.Node
	scaled  map[*ir.Value]scaledSum
	// bytewise are values of the old graph that are functions of bytes.
	bytewise map[*ir.Value]*bytewise
	// keepNarrow leaves float16 and bfloat16 as they are, where their bits are
	// looked at.
	keepNarrow bool
	clamped    map[*ir.Value]bool
	bytes      bool
}

func narrow(d tensor.DType) bool { return d == tensor.F16 || d == tensor.BF16 }

// wide is the type that values of an element type are computed in. The narrow
// floats are computed in F32 from input to output, as ONNX Runtime does on a
// CPU: more exact, and the kernels are those of F32.
func (r *rebuild) wide(d tensor.DType) tensor.DType {
	if narrow(d) && !r.keepNarrow {
		return tensor.F32
	}
	return d
}

func (r *rebuild) value(v *ir.Value) *ir.Value {
	n := r.to[v]
	if n == nil {
		n = r.b.NamedConst(v.Name, tensor.Convert(v.Const, r.wide(v.DType())))
		r.to[v] = n
	}
	if w := r.b.Cast(n, r.wide(n.DType())); w != n {
		r.to[v] = w
		return w
	}
	return n
}

// attrs gives a node's attributes with its element types widened.
func (r *rebuild) attrs(n *ir.Node) []any {
	var repl []any
	for _, a := range []string{"to", "out"} {
		if d, ok := tensor.ParseDType(n.Str(a, "")); ok && r.wide(d) != d {
			repl = append(repl, a, r.wide(d).String())
		}
	}
	return flatAttrs(n, repl...)
}

func (r *rebuild) node(n *ir.Node) {
	in := make([]*ir.Value, len(n.Inputs))
	for i, v := range n.Inputs {
		in[i] = r.value(v)
	}
	n, in = r.unpadded(n, in)
	var outs []*ir.Value
	y := r.tabled(n)
	for _, f := range []func(*ir.Node, []*ir.Value) *ir.Value{r.requantized, r.elsewhere} {
		if y == nil {
			y = f(n, in)
		}
	}
	switch {
	case y != nil:
		outs = []*ir.Value{y}
	case core.Lookup(n.Op).Class == core.Window && r.trimmedWindow(n) != nil:
		outs = []*ir.Value{r.trimmedWindow(n)}
	case n.Op == "div" && in[0].DType() == tensor.F32 && r.reciprocal(n, in) != nil:
		outs = []*ir.Value{r.reciprocal(n, in)}
	case n.Op == "conv" || n.Op == "dot":
		outs = []*ir.Value{r.quantized(n, in)}
	case n.Op == "mul" && r.scaledConv(n, in) != nil:
		outs = []*ir.Value{r.scaledConv(n, in)}
	case n.Op == "cast" && n.Int("keep", 0) == 1 && narrow(castTo(n)):
		// A cast that the model asks for rounds; who reads it widens again.
		outs = r.b.NodeN("cast", in, flatAttrs(n)...)
	case n.Op == "cast" && r.wide(castTo(n)) == in[0].DType():
		outs = in
	case n.Op == "cast" && r.wide(castTo(n)).IsFloat() && alreadyInteger(in[0]) != nil:
		x := alreadyInteger(in[0])
		r.clamped[x] = true
		outs = []*ir.Value{r.b.Cast(x, r.wide(castTo(n)))}
	default:
		outs = r.b.NodeN(n.Op, in, r.attrs(n)...)
	}
	for i, v := range n.Outputs {
		r.to[v] = outs[i]
	}
}

// elsewhere rebuilds a node with its axes in another order or in another number,
// nil if it stays as it is.
func (r *rebuild) elsewhere(n *ir.Node, in []*ir.Value) *ir.Value {
	if y := r.flattened(n, in); y != nil {
		return y
	}
	switch {
	case n.Op == "transpose":
		return r.transpose(in[0], n.Ints("perm"))
	case (n.Op == "conv" || core.Lookup(n.Op).Class == core.Window) && in[0].Rank() == 3:
		if y := r.sunk(n, in); y != nil {
			return y
		}
		return r.planar(n, in)
	}
	return r.sunk(n, in)
}

// moved rebuilds a node on other operands.
func (r *rebuild) moved(n *ir.Node, in []*ir.Value) *ir.Value {
	if y := r.elsewhere(n, in); y != nil {
		return y
	}
	return r.b.Node(n.Op, in, r.attrs(n)...)
}

// flattened rebuilds a node of one or three spatial axes as one of two, nil if
// it stays as it is.
func (r *rebuild) flattened(n *ir.Node, in []*ir.Value) *ir.Value {
	for _, f := range []func(*ir.Node, []*ir.Value) *ir.Value{r.lifted, r.ofImages, r.volume, r.phased, r.unshaped} {
		if y := f(n, in); y != nil {
			return y
		}
	}
	return nil
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

// reciprocal rewrites a division by a constant as a product: one rounding of
// the factor, at most an ulp in the result, and many times faster. Where the
// quotient is rounded to whole numbers afterwards the division stays, because
// ties decide there.
func (r *rebuild) reciprocal(n *ir.Node, in []*ir.Value) *ir.Value {
	c, ok := scalarConst(in[1])
	if !ok || c == 0 || math.IsInf(c, 0) || math.Abs(c) < 1e-30 || math.Abs(c) > 1e30 || in[0].Const != nil {
		return nil
	}
	if f, _ := math.Frexp(math.Abs(c)); f != 0.5 {
		for _, u := range r.readers[n.Outputs[0]] {
			switch u.Op {
			case "round", "floor", "ceil", "trunc", "cast", "mod", "fmod", "eq", "lt", "le":
				return nil
			}
		}
	}
	return r.b.Mul(in[0], r.b.Scalar(tensor.F32, 1/c))
}

func castTo(n *ir.Node) tensor.DType {
	d, _ := tensor.ParseDType(n.Str("to", ""))
	return d
}

// alreadyInteger looks through a cast to a small integer type whose operand is
// a float that holds whole numbers within the type's range: what quantizing and
// dequantizing again leaves. It gives that float.
func alreadyInteger(v *ir.Value) *ir.Value {
	n := v.Def
	if n == nil || n.Op != "cast" || !v.DType().IsInteger() || v.DType().Bits() > 16 || n.Inputs[0].DType() != tensor.F32 {
		return nil
	}
	lo, hi := v.DType().IntRange()
	x := n.Inputs[0]
	above, below := false, false
	for w := x; w.Def != nil && len(w.Def.Inputs) > 0; w = w.Def.Inputs[0] {
		c := 0.0
		if len(w.Def.Inputs) == 2 {
			var ok bool
			if c, ok = scalarConst(w.Def.Inputs[1]); !ok || c != math.Trunc(c) {
				return nil
			}
		}
		switch w.Def.Op {
		case "max":
			above = above || c >= float64(lo)
		case "min":
			below = below || c <= float64(hi)
		case "add", "sub":
			if !above || !below {
				return nil // bounds must come after the last sum
			}
		case "round":
			if above && below {
				return x
			}
			return nil
		default:
			return nil
		}
	}
	return nil
}

func (r *rebuild) outAttr(n *ir.Node) []any {
	if d, ok := tensor.ParseDType(n.Str("out", "")); ok {
		return []any{"out", r.wide(d).String()}
	}
	return nil
}

// planar puts a spatial axis of size 1 beside the only one, where its operand
// has dropped one.
func (r *rebuild) planar(n *ir.Node, in []*ir.Value) *ir.Value {
	_, axis := dropped(in[0])
	var repl []any
	for _, a := range []string{"strides", "dilations", "xdil", "kernel"} {
		if v := n.Ints(a); v != nil {
			repl = append(repl, a, slices.Insert(slices.Clone(v), axis-2, 1))
		}
	}
	for _, a := range []string{"lo", "hi"} {
		repl = append(repl, a, slices.Insert(slices.Clone(n.Ints(a)), axis-2, 0))
	}
	for i, v := range in {
		in[i] = r.lift(v, axis)
	}
	y := r.b.Node(n.Op, in, flatAttrs(n, append(repl, r.outAttr(n)...)...)...)
	s := core.Shape(y)
	return r.b.Reshape(y, s[0], s[1], s[5-axis])
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
