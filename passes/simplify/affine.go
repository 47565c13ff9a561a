package simplify

import (
	"fmt"
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/rewrite"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// anchor is a node with weights, whose result may be scaled and shifted per
// output channel by changing them.
type anchor struct {
	n        *ir.Node
	w, b     *tensor.Tensor // b is nil for none
	channels int
	rank     int // of the result
}

// sharedWeights is the size in bytes up to which weights that others read too
// may be copied.
const sharedWeights = 4096

// anchorOf is the anchor that alone feeds the only reader of v.
func (c *operands) anchorOf(v *ir.Value) *anchor {
	n := c.Producer(v)
	if n == nil || !official(n) || c.OnlyReader(v) == nil || len(n.Inputs) < 2 {
		return nil
	}
	a := &anchor{n: n, w: c.Const(n.Inputs[1]), b: c.Const(n.In(2))}
	if a.w == nil || a.w.DType != tensor.F32 && a.w.DType != tensor.F64 || a.b == nil && n.In(2) != nil {
		return nil
	}
	if a.b != nil && a.b.DType != a.w.DType {
		return nil
	}
	a.rank = len(a.w.Shape)
	switch {
	case n.Op == "Conv" && a.rank > 2:
		a.channels = a.w.Shape[0]
	case n.Op == "ConvTranspose" && a.rank > 2:
		a.channels = a.w.Shape[1] * n.Int("group", 1)
	case n.Op == "Gemm" && a.rank == 2 && c.opset() >= 7:
		a.channels = a.w.Shape[1]
		if n.Int("transB", 0) != 0 {
			a.channels = a.w.Shape[0]
		}
	default:
		return nil
	}
	if a.b != nil && a.biasVector() == nil {
		return nil
	}
	return a
}

// biasVector is what is added per channel; nil if it depends on more.
func (a *anchor) biasVector() []float64 {
	v := make([]float64, a.channels)
	if a.b == nil {
		return v
	}
	if a.b.Len() != 1 && (a.b.Len() != a.channels || a.b.Shape[len(a.b.Shape)-1] != a.channels) {
		return nil
	}
	if a.n.Op != "Gemm" && (a.b.Len() != a.channels || len(a.b.Shape) != 1) {
		return nil
	}
	beta := 1.0
	if a.n.Op == "Gemm" {
		beta = a.n.Float("beta", 1)
	}
	for i := range v {
		v[i] = beta * a.b.Float(i%a.b.Len())
	}
	return v
}

// channel is the output channel that weight i belongs to.
func (a *anchor) channel(i int) int {
	s := a.w.Shape
	switch {
	case a.n.Op == "Conv":
		return i / tensor.Numel(s[1:])
	case a.n.Op == "ConvTranspose":
		per := tensor.Numel(s[1:])
		group := i / per / (s[0] / a.n.Int("group", 1))
		return group*s[1] + i%per/tensor.Numel(s[2:])
	case a.n.Int("transB", 0) != 0:
		return i / s[1]
	}
	return i % s[1]
}

// absorb is the patch at node n, the anchor's only reader: the anchor's result
// times scale (nil: 1) plus shift, per channel.
func (c *operands) absorb(n *ir.Node, a *anchor, scale, shift []float64, why string) *rewrite.Patch {
	bias := a.biasVector()
	p := &rewrite.Patch{At: n, Why: fmt.Sprintf("%s %q", why, a.n.Label())}
	in := slices.Clone(a.n.Inputs[:2])
	if scale != nil {
		if c.OnlyReader(in[1]) != a.n && size(a.w) > sharedWeights {
			return nil
		}
		w := tensor.New(a.w.DType, a.w.Shape...)
		for i := range w.Len() {
			w.SetFloat(i, a.w.Float(i)*scale[a.channel(i)])
		}
		for i := range bias {
			bias[i] *= scale[i]
		}
		if !finite(w) {
			return nil
		}
		in[1] = c.NewConst(in[1].Name+"_scaled", w)
		p.Inits = append(p.Inits, in[1])
	}
	b := tensor.New(a.w.DType, a.channels)
	zero := true
	for i := range bias {
		if shift != nil {
			bias[i] += shift[i]
		}
		b.SetFloat(i, bias[i])
		zero = zero && bias[i] == 0
	}
	if !finite(b) {
		return nil
	}
	m := like(a.n, in, n.Outputs[:1])
	if !zero || a.b != nil || a.n.Op == "Gemm" && c.opset() < 11 {
		base := a.n.Outputs[0].Name + "_bias"
		if a.b != nil {
			base = a.n.Inputs[2].Name + "_shifted"
		}
		v := c.NewConst(base, b)
		p.Inits = append(p.Inits, v)
		m.Inputs = append(m.Inputs, v)
		if _, ok := m.Attr("beta"); ok {
			m.SetAttr("beta", float32(1))
		}
	}
	p.Nodes = []*ir.Node{m}
	return p
}

func finite(t *tensor.Tensor) bool {
	for i := range t.Len() {
		if f := t.Float(i); math.IsNaN(f) || math.IsInf(f, 0) {
			return false
		}
	}
	return true
}

func batchNorm(c *operands, n *ir.Node) *rewrite.Patch {
	v := c.version(n)
	if len(n.Inputs) != 5 || !c.single(n) || n.Int("spatial", 1) == 0 || n.Int("training_mode", 0) != 0 || v == 0 {
		return nil
	}
	a := c.anchorOf(n.Inputs[0])
	if a == nil {
		return nil
	}
	var p [4]*tensor.Tensor // scale, bias, mean, variance
	for i := range p {
		p[i] = c.Const(n.Inputs[1+i])
		if p[i] == nil || p[i].Len() != a.channels || !p[i].DType.IsFloat() {
			return nil
		}
	}
	eps := n.Float("epsilon", float64(float32(1e-5)))
	scale, shift := make([]float64, a.channels), make([]float64, a.channels)
	for i := range scale {
		scale[i] = p[0].Float(i) / math.Sqrt(p[3].Float(i)+eps)
		shift[i] = p[1].Float(i) - p[2].Float(i)*scale[i]
	}
	return c.absorb(n, a, scale, shift, "its factors and summands go into the weights of")
}

// perChannel finds, of a node's two operands, the one that an anchor makes and
// the other as constants per channel.
func (c *operands) perChannel(n *ir.Node) (a *anchor, k []float64, swapped bool) {
	if len(n.Inputs) != 2 || len(n.Outputs) != 1 {
		return nil, nil, false
	}
	for i := range 2 {
		t := c.Const(n.Inputs[1-i])
		if t == nil || !t.DType.IsFloat() {
			continue
		}
		if a := c.anchorOf(n.Inputs[i]); a != nil && t.DType == a.w.DType {
			return a, c.channelVector(n, a, t), i == 1
		}
	}
	return nil, nil, false
}

// channelVector reads a constant that differs along the channels only.
func (c *operands) channelVector(n *ir.Node, a *anchor, t *tensor.Tensor) []float64 {
	shape := t.Shape
	if c.opset() < 7 && t.Len() != 1 {
		// Legacy broadcasting says at which axis the second operand begins.
		if n.Int("broadcast", 0) == 0 || n.Int("axis", -1) != 1 || len(shape) > a.rank-1 {
			return nil
		}
		shape = slices.Clone(shape)
		for len(shape) < a.rank-1 {
			shape = append(shape, 1)
		}
	}
	if len(shape) > a.rank {
		return nil
	}
	for i, d := range shape {
		axis := a.rank - len(shape) + i
		if d != 1 && (axis != 1 || d != a.channels) {
			return nil
		}
	}
	k := make([]float64, a.channels)
	for i := range k {
		k[i] = t.Float(i % t.Len())
	}
	return k
}

func scaleInto(c *operands, n *ir.Node) *rewrite.Patch {
	a, k, swapped := c.perChannel(n)
	if a == nil || k == nil || swapped && n.Op == "Div" {
		return nil
	}
	if n.Op == "Div" {
		for i := range k {
			k[i] = 1 / k[i]
		}
	}
	return c.absorb(n, a, k, nil, "its factors go into the weights of")
}

func biasInto(c *operands, n *ir.Node) *rewrite.Patch {
	a, k, swapped := c.perChannel(n)
	if a == nil || k == nil {
		return nil
	}
	var scale []float64
	if n.Op == "Sub" {
		sign := -1.0
		if swapped {
			scale, sign = make([]float64, a.channels), 1
		}
		for i := range k {
			k[i] *= sign
			if swapped {
				scale[i] = -1
			}
		}
	}
	return c.absorb(n, a, scale, k, "its summands are the bias of")
}
