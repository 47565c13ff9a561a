package onnx

import (
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// IntegerQDQ rewrites an ONNX graph in place: a Conv, MatMul or Gemm between
// DequantizeLinear nodes becomes a contraction of the eight-bit values
// themselves, whose sums are scaled afterwards. It reports how many nodes it
// rewrote.
//
// In exact arithmetic both are the same. The integer form rounds less, so a
// QuantizeLinear behind it may fall to the other side of a tie.
func IntegerQDQ(g *ir.Graph) int {
	var nodes []*ir.Node
	rewritten := 0
	for _, n := range g.Nodes {
		for _, s := range n.Subgraphs() {
			rewritten += IntegerQDQ(s)
		}
		q := &integerRewrite{g: g, n: n}
		if !q.rewrite() {
			nodes = append(nodes, n)
			continue
		}
		nodes = append(nodes, q.nodes...)
		rewritten++
	}
	g.Nodes = nodes
	return rewritten
}

// integerRewrite is one node becoming several.
type integerRewrite struct {
	g     *ir.Graph
	n     *ir.Node
	nodes []*ir.Node
}

// dequantized is an operand that a DequantizeLinear made.
type dequantized struct {
	q     *ir.Value // the eight-bit values
	scale []float64 // one, or one per index of axis
	zero  *ir.Value // nil: none
	axis  int
}

// rewrite does nothing and reports false where the pattern does not hold.
func (r *integerRewrite) rewrite() bool {
	n := r.n
	if canonical(n.Domain) != "" || len(n.Inputs) < 2 || len(n.Outputs) != 1 {
		return false
	}
	if n.Op != "Conv" && n.Op != "MatMul" && n.Op != "Gemm" {
		return false
	}
	x, okx := r.eightBit(n.Inputs[0])
	w, okw := r.eightBit(n.Inputs[1])
	if !okx || !okw || len(x.scale) != 1 || w.q.Const == nil {
		return false
	}
	if n.Op == "Conv" {
		return r.conv(x, w)
	}
	return r.matmul(x, w)
}

// constantOf is a value that is known when the graph is read.
func constantOf(v *ir.Value) *tensor.Tensor {
	switch {
	case v == nil:
		return nil
	case v.Const != nil:
		return v.Const
	case v.Def != nil && v.Def.Op == "Constant" && canonical(v.Def.Domain) == "":
		return v.Def.TensorAttr("value")
	}
	return nil
}

// moves are the ops that only move elements: what they make of dequantised
// values is what dequantising makes of moved ones.
var moves = map[string]bool{"Reshape": true, "Flatten": true, "Transpose": true, "Squeeze": true, "Unsqueeze": true, "Identity": true}

// eightBit looks through a DequantizeLinear with constant parameters, and
// through movements behind it, which it repeats on the eight-bit values.
func (r *integerRewrite) eightBit(v *ir.Value) (dequantized, bool) {
	var d dequantized
	if v != nil && v.Def != nil && moves[v.Def.Op] && canonical(v.Def.Domain) == "" {
		d, ok := r.eightBit(v.Def.Inputs[0])
		if !ok || len(d.scale) != 1 || d.q.Const != nil {
			return d, false
		}
		d.q = r.add(v.Def.Op, v.Def.Attrs, append([]*ir.Value{d.q}, v.Def.Inputs[1:]...)...)
		d.q.Name = r.n.Outputs[0].Name + "·" + v.Name
		return d, true
	}
	if v == nil || v.Def == nil || v.Def.Op != "DequantizeLinear" || v.Def.Int("block_size", 0) != 0 {
		return d, false
	}
	n := v.Def
	scale := constantOf(n.In(1))
	if scale == nil || len(scale.Shape) > 1 || scale.DType != tensor.F32 {
		return d, false
	}
	if out := tensor.DType(n.Int("output_dtype", int(tensor.F32))); out != tensor.F32 && out != tensor.Invalid {
		return d, false
	}
	d = dequantized{q: n.Inputs[0], scale: scale.Floats(), axis: n.Int("axis", 1)}
	if t := constantOf(d.q); t != nil && d.q.Const == nil {
		d.q = ir.NewConst("", t)
	}
	if n.In(2) == nil {
		return d, eightBits(d.q.DType())
	}
	zero := constantOf(n.In(2))
	if zero == nil || !eightBits(zero.DType) {
		return d, false
	}
	d.zero = n.In(2)
	return d, true
}

func eightBits(d tensor.DType) bool { return d == tensor.I8 || d == tensor.U8 }

// add appends a node and gives its output.
func (r *integerRewrite) add(op string, attrs []ir.Attr, in ...*ir.Value) *ir.Value {
	n := &ir.Node{Op: op, Name: r.n.Label() + "·" + op, Inputs: in, Attrs: attrs}
	out := &ir.Value{Name: r.n.Outputs[0].Name + "·" + op, Def: n, Type: ir.Type{Form: ir.FormTensor}}
	n.Outputs = []*ir.Value{out}
	r.nodes = append(r.nodes, n)
	return out
}

// constant adds an initializer.
func (r *integerRewrite) constant(name string, t *tensor.Tensor) *ir.Value {
	v := ir.NewConst(r.n.Outputs[0].Name+"·"+name, t)
	r.g.Inits = append(r.g.Inits, v)
	return v
}

// named puts a constant without a name among the initializers.
func (r *integerRewrite) named(v *ir.Value) *ir.Value {
	if v.Name != "" {
		return v
	}
	return r.constant("weights", v.Const)
}

// finish scales the sums, adds the bias and hands over the output.
func (r *integerRewrite) finish(acc *ir.Value, scale, bias *ir.Value) {
	y := r.add("Cast", []ir.Attr{{Name: "to", Val: int64(tensor.F32)}}, acc)
	y = r.add("Mul", nil, y, scale)
	if bias != nil {
		y = r.add("Add", nil, y, bias)
	}
	last := r.nodes[len(r.nodes)-1]
	last.Outputs[0] = r.n.Outputs[0]
	last.Outputs[0].Def = last
}

// products are the scales of x times those of w, in a shape that broadcasts.
func products(x, w dequantized, shape []int) *tensor.Tensor {
	if len(w.scale) == 1 {
		shape = nil
	}
	t := tensor.New(tensor.F32, shape...)
	for i := range t.Len() {
		t.SetFloat(i, x.scale[0]*w.scale[i])
	}
	return t
}

// summand is a constant bias, also where a DequantizeLinear makes it; ok is
// false where it is computed.
func summand(v *ir.Value) (t *tensor.Tensor, ok bool) {
	if v == nil {
		return nil, true
	}
	if t = constantOf(v); t != nil {
		return t, t.DType == tensor.F32
	}
	if v.Def == nil || v.Def.Op != "DequantizeLinear" || v.Def.Int("block_size", 0) != 0 {
		return nil, false
	}
	q, scale := constantOf(v.Def.In(0)), constantOf(v.Def.In(1))
	if q == nil || scale == nil || scale.DType != tensor.F32 || scale.Len() != 1 && scale.Len() != q.Len() {
		return nil, false
	}
	if z := v.Def.In(2); z != nil && (constantOf(z) == nil || !isZero(ir.NewConst("", constantOf(z)))) {
		return nil, false
	}
	t = tensor.New(tensor.F32, q.Shape...)
	for i := range t.Len() {
		t.SetFloat(i, float64(float32(q.Float(i)))*scale.Float(i%scale.Len()))
	}
	return t, true
}

func (r *integerRewrite) conv(x, w dequantized) bool {
	weights := w.q.Const
	rank := len(weights.Shape)
	bias, ok := summand(r.n.In(2))
	if bias != nil && bias.Len() != weights.Shape[0] {
		return false
	}
	if !ok || rank < 3 || len(w.scale) > 1 && (w.axis != 0 && w.axis != -rank || len(w.scale) != weights.Shape[0]) {
		return false
	}
	perChannel := unitAxes(rank, 1, weights.Shape[0])
	acc := r.add("ConvInteger", r.n.Attrs, x.q, r.named(w.q), x.zero, w.zero)
	var add *ir.Value
	if bias != nil {
		add = r.constant("bias", bias.Reshaped(perChannel...))
	}
	r.finish(acc, r.constant("scale", products(x, w, perChannel)), add)
	return true
}

func (r *integerRewrite) matmul(x, w dequantized) bool {
	weights := w.q.Const
	columns := 1 // the axis of the result's columns
	bias, ok := summand(r.n.In(2))
	alpha := 1.0
	if r.n.Op == "Gemm" {
		alpha = r.n.Float("alpha", 1)
		ok = ok && r.n.Int("transA", 0) == 0 && (bias == nil || r.n.Float("beta", 1) == 1)
		if r.n.Int("transB", 0) != 0 {
			columns = 0
		}
	}
	if !ok || len(weights.Shape) != 2 || len(w.scale) > 1 && (w.axis != columns && w.axis != columns-2 || len(w.scale) != weights.Shape[columns]) {
		return false
	}
	n, right := weights.Shape[columns], w.q
	if columns == 0 {
		t := &ir.Node{Op: "transpose", Inputs: []*ir.Value{w.q}, Attrs: []ir.Attr{{Name: "perm", Val: []int64{1, 0}}}}
		out, err := core.Eval(t, []*tensor.Tensor{weights})
		if err != nil {
			return false
		}
		right = ir.NewConst("", out[0])
	}
	acc := r.add("MatMulInteger", nil, x.q, r.named(right), x.zero, w.zero)
	scale := products(x, w, []int{n})
	for i := range scale.Len() {
		scale.SetFloat(i, scale.Float(i)*alpha)
	}
	var add *ir.Value
	if bias != nil {
		add = r.constant("bias", bias)
	}
	r.finish(acc, r.constant("scale", scale), add)
	return true
}
