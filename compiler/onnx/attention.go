package onnx

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// attentionOps are softmax attention and its rotary positions.
var attentionOps = []Op{
	{Name: "Attention", Since: []int{23, 24}, Expand: expandAttention},
	{Domain: "ai.onnx.preview", Name: "FlexAttention", Since: []int{1}, Expand: expandFlexAttention},
	{Name: "RotaryEmbedding", Since: []int{23}, Expand: func(c *Ctx) {
		c.Out(0, c.rotate(c.In(0), c.In(1), c.In(2), c.Opt(3), c.N.Int("interleaved", 0) == 1, c.N.Int("num_heads", 0), c.N.Int("rotary_embedding_dim", 0)))
	}},
}

// workType is the type that composite ops compute a type in.
func workType(d tensor.DType) tensor.DType {
	if d == tensor.F64 {
		return d
	}
	return tensor.F32
}

// heads turns [batch, sequence, heads·size] into [batch, heads, sequence, size].
func (c *Ctx) heads(x *ir.Value, n int, what string) *ir.Value {
	s := core.Shape(x)
	if len(s) != 3 {
		c.Fail("%s is %s, not of rank 3", what, x.Type)
	}
	if n < 1 || s[2]%n != 0 {
		c.Fail("%s of width %d does not split into %d heads", what, s[2], n)
	}
	return c.B.Transpose(c.B.Reshape(x, s[0], s[1], n, s[2]/n), 0, 2, 1, 3)
}

// rank4 fails unless a value has four axes.
func (c *Ctx) rank4(x *ir.Value, what string) *ir.Value {
	if x.Rank() != 4 {
		c.Fail("%s is %s, not of rank 4", what, x.Type)
	}
	return x
}

// merge is the inverse of heads.
func (c *Ctx) merge(x *ir.Value) *ir.Value {
	s := core.Shape(x)
	return c.B.Reshape(c.B.Transpose(x, 0, 2, 1, 3), s[0], s[2], s[1]*s[3])
}

// scores is q·kᵀ over heads: q [b, h, s, d], k [b, g, t, d] with h a multiple
// of g; each of the g key heads serves h/g query heads in a row.
func (c *Ctx) scores(q, k *ir.Value, d tensor.DType) *ir.Value {
	qs, ks := core.Shape(q), core.Shape(k)
	if qs[0] != ks[0] || ks[1] == 0 || qs[1]%ks[1] != 0 || qs[3] != ks[3] {
		c.Fail("queries %s and keys %s do not fit", tensor.ShapeString(qs), tensor.ShapeString(ks))
	}
	q = c.B.Reshape(q, qs[0], ks[1], qs[1]/ks[1]*qs[2], qs[3])
	y := c.B.Dot(q, k, []int{0, 1}, []int{0, 1}, []int{3}, []int{3}, d)
	return c.B.Reshape(y, qs[0], qs[1], qs[2], ks[2])
}

// mixValues is p·v over heads, shaped as in scores.
func (c *Ctx) mixValues(p, v *ir.Value, d tensor.DType) *ir.Value {
	ps, vs := core.Shape(p), core.Shape(v)
	if ps[0] != vs[0] || vs[1] == 0 || ps[1]%vs[1] != 0 || ps[3] != vs[2] {
		c.Fail("scores %s and values %s do not fit", tensor.ShapeString(ps), tensor.ShapeString(vs))
	}
	p = c.B.Reshape(p, ps[0], vs[1], ps[1]/vs[1]*ps[2], ps[3])
	y := c.B.Dot(p, v, []int{0, 1}, []int{0, 1}, []int{3}, []int{2}, d)
	return c.B.Reshape(y, ps[0], ps[1], ps[2], vs[3])
}

// softmaxLast is the softmax of the last axis. Where rows can be masked as a
// whole (all -Inf), their probabilities are 0.
func (c *Ctx) softmaxLast(x *ir.Value, masked bool) *ir.Value {
	b, last := c.B, x.Rank()-1
	top := b.Reduce("reduce_max", x, true, last)
	if masked {
		top = b.Max(top, b.Like(x, lowest(x.DType())))
	}
	e := b.Exp(b.Sub(x, top))
	sum := b.Reduce("reduce_sum", e, true, last)
	if masked {
		sum = b.Max(sum, b.Like(x, 1e-7)) // a row that is not masked sums to 1 or more
	}
	return b.Div(e, sum)
}

// lowest is the most negative finite value of a float type.
func lowest(d tensor.DType) float64 {
	switch d {
	case tensor.F64:
		return -math.MaxFloat64
	case tensor.F16:
		return -65504
	case tensor.BF16:
		return -0x1.fep127
	}
	return -math.MaxFloat32
}

// attention holds the operands of one Attention node in [b, h, s, d] form.
type attention struct {
	q, k, v *ir.Value
	past    int       // length of the past keys
	hasPast bool      // past keys are given
	lens    *ir.Value // valid keys per batch, or nil
	mask    *ir.Value // bool or float, or nil
	work    tensor.DType
	masked  bool
}

func expandAttention(c *Ctx) {
	b := c.B
	a := attention{q: c.In(0), k: c.In(1), v: c.In(2), mask: c.Opt(3), lens: c.Opt(6)}
	out := a.q.DType()
	a.work = workType(out)
	flat := a.q.Rank() == 3
	if a.k.Rank() != a.q.Rank() || a.v.Rank() != a.q.Rank() || !flat && a.q.Rank() != 4 {
		c.Fail("operands of ranks %d, %d and %d", a.q.Rank(), a.k.Rank(), a.v.Rank())
	}
	if flat {
		qh, kvh := c.N.Int("q_num_heads", 0), c.N.Int("kv_num_heads", 0)
		a.q, a.k, a.v = c.heads(a.q, qh, "query"), c.heads(a.k, kvh, "key"), c.heads(a.v, kvh, "value")
	}
	if p := c.Opt(4); p != nil {
		a.past, a.hasPast = core.Shape(c.rank4(p, "past_key"))[2], true
		a.k = b.Concat(2, p, a.k)
	}
	if p := c.Opt(5); p != nil {
		a.v = b.Concat(2, p, a.v)
	}
	c.Out(1, a.k)
	c.Out(2, a.v)

	scale := c.N.Float("scale", 1/math.Sqrt(float64(core.Shape(a.q)[3])))
	raw := b.Mul(c.scores(a.q, a.k, a.work), b.Scalar(a.work, scale))
	capped := raw
	if cp := c.N.Float("softcap", 0); cp > 0 {
		s := b.Scalar(a.work, cp)
		capped = b.Mul(b.Tanh(b.Div(raw, s)), s)
	}
	biased := a.bias(c, capped)
	prob := a.softmax(c, biased)
	switch mode := c.N.Int("qk_matmul_output_mode", 0); mode {
	case 0:
		c.Out(3, b.Cast(raw, out))
	case 1:
		c.Out(3, b.Cast(capped, out))
	case 2:
		c.Out(3, b.Cast(biased, out))
	case 3:
		c.Out(3, b.Cast(prob, out))
	default:
		c.Unsupported("qk_matmul_output_mode=%d", mode)
	}
	y := b.Cast(c.mixValues(prob, a.v, a.work), out)
	if flat {
		y = c.merge(y)
	}
	c.Out(0, y)
}

// softmax honours softmax_precision.
func (a *attention) softmax(c *Ctx, x *ir.Value) *ir.Value {
	d := tensor.DType(c.N.Int("softmax_precision", int(a.work)))
	if !d.IsFloat() || d.Bits() < 16 {
		c.Unsupported("softmax_precision=%d", d)
	}
	if d.Bits() < a.work.Bits() {
		d = a.work // never less than what the scores are computed in
	}
	return c.B.Cast(c.softmaxLast(c.B.Cast(x, d), a.masked), a.work)
}

// bias adds the mask and hides what causality and the key lengths forbid.
func (a *attention) bias(c *Ctx, x *ir.Value) *ir.Value {
	b := c.B
	s := core.Shape(x)
	keys, none := s[3], b.Scalar(a.work, math.Inf(-1))
	if m := a.mask; m != nil {
		ms := core.Shape(m)
		if len(ms) < 1 || len(ms) > 4 {
			c.Fail("attn_mask of rank %d", len(ms))
		}
		if gap := keys - ms[len(ms)-1]; gap > 0 && ms[len(ms)-1] != 1 {
			hi := make([]int, len(ms))
			hi[len(ms)-1] = gap
			fill := b.Const(tensor.Scalar(false))
			if m.DType() != tensor.Bool {
				fill = b.Like(m, math.Inf(-1))
			}
			m = b.Pad(m, make([]int, len(ms)), hi, fill)
		}
		a.masked = true
		if m.DType() == tensor.Bool {
			x = b.Where(m, x, none)
		} else {
			x = b.Add(x, b.Cast(m, a.work))
		}
	}
	if keep := a.visible(c, s[2], keys); keep != nil {
		a.masked = true
		x = b.Where(keep, x, none)
	}
	return x
}

// visible is a bool that broadcasts to the scores: the keys that a query may
// see. Query i sees key j if j ≤ i + offset, where offset counts the valid keys
// before this block of queries. nil: all.
func (a *attention) visible(c *Ctx, queries, keys int) *ir.Value {
	b := c.B
	var lens, keep *ir.Value
	if a.lens != nil {
		lens = b.Reshape(b.Cast(a.lens, tensor.I64), tensor.Numel(core.Shape(a.lens)), 1, 1, 1)
		keep = b.Lt(b.Iota(tensor.I64, 3, 1, 1, 1, keys), lens)
	}
	if c.N.Int("is_causal", 0) != 1 {
		return keep
	}
	row, col := b.Iota(tensor.I64, 2, 1, 1, queries, 1), b.Iota(tensor.I64, 3, 1, 1, 1, keys)
	offset := b.ScalarInt(tensor.I64, int64(a.past))
	if !a.hasPast && lens != nil {
		offset = b.Sub(lens, b.ScalarInt(tensor.I64, int64(queries)))
	}
	causal := b.Le(col, b.Add(row, offset))
	if keep == nil {
		return causal
	}
	return b.And(keep, causal)
}

func expandFlexAttention(c *Ctx) {
	b := c.B
	q, k, v := c.In(0), c.In(1), c.In(2)
	if q.Rank() != 4 || k.Rank() != 4 || v.Rank() != 4 {
		c.Fail("operands of ranks %d, %d and %d", q.Rank(), k.Rank(), v.Rank())
	}
	out := q.DType()
	work := tensor.DType(c.N.Int("softmax_precision", int(workType(out))))
	if work != tensor.F64 {
		work = workType(out)
	}
	scale := c.N.Float("scale", 1/math.Sqrt(float64(core.Shape(q)[3])))
	x := b.Mul(c.scores(q, k, work), b.Scalar(work, scale))
	mod := func(name string, x *ir.Value) *ir.Value {
		g := c.N.GraphAttr(name)
		if g == nil {
			return x
		}
		// The body is written for the type that its input declares.
		d := work
		if len(g.Inputs) > 0 && g.Inputs[0].Type.DType.IsFloat() {
			d = g.Inputs[0].Type.DType
		}
		y := c.tensorOf(c.Subgraph(g, []*Val{TensorVal(b.Cast(x, d))})[0])
		if !slices.Equal(core.Shape(y), core.Shape(x)) {
			c.Fail("%s turns %s into %s", name, x.Type, y.Type)
		}
		return b.Cast(y, work)
	}
	x = mod("score_mod", x)
	x = mod("mask_mod", x)
	p := mod("prob_mod", c.softmaxLast(x, c.N.GraphAttr("score_mod") != nil || c.N.GraphAttr("mask_mod") != nil))
	c.Out(0, b.Cast(c.mixValues(p, v, work), out))
}

// rotate turns pairs of elements of every head by angles whose cosines and
// sines are cached by position: x is [b, h, s, d] or [b, s, h·d].
func (c *Ctx) rotate(x, cos, sin, pos *ir.Value, interleaved bool, heads, dim int) *ir.Value {
	b := c.B
	in := x
	if x.Rank() == 3 {
		if heads < 1 {
			c.Fail("num_heads is %d for an input of rank 3", heads)
		}
		x = c.heads(x, heads, "input")
	}
	if x.Rank() != 4 {
		c.Fail("input of rank %d", x.Rank())
	}
	s := core.Shape(x)
	if dim == 0 {
		dim = s[3]
	}
	if dim%2 != 0 || dim > s[3] {
		c.Fail("rotary_embedding_dim %d of a head of %d", dim, s[3])
	}
	if pos != nil {
		cos, sin = b.Gather(cos, 0, pos), b.Gather(sin, 0, pos)
	}
	angles := func(t *ir.Value) *ir.Value { // [b, s, dim/2] → [b, 1, s, dim/2]
		ts := core.Shape(t)
		if len(ts) != 3 || ts[2] != dim/2 {
			c.Fail("caches give %s for %d rotated elements", tensor.ShapeString(ts), dim)
		}
		return b.Reshape(t, ts[0], 1, ts[1], ts[2])
	}
	cos, sin = angles(cos), angles(sin)
	one := []int{1, 1, 1, 1}
	sizes := []int{s[0], s[1], s[2], dim / 2}
	lo, hi, steps := []int{0, 0, 0, 0}, []int{0, 0, 0, dim / 2}, one
	if interleaved {
		hi, steps = []int{0, 0, 0, 1}, []int{1, 1, 1, 2}
	}
	x1, x2 := b.Slice(x, lo, sizes, steps), b.Slice(x, hi, sizes, steps)
	re := b.Sub(b.Mul(cos, x1), b.Mul(sin, x2))
	im := b.Add(b.Mul(sin, x1), b.Mul(cos, x2))
	var y *ir.Value
	if interleaved {
		pair := append(slices.Clone(sizes), 1)
		y = b.Reshape(b.Concat(4, b.Reshape(re, pair...), b.Reshape(im, pair...)), s[0], s[1], s[2], dim)
	} else {
		y = b.Concat(3, re, im)
	}
	if dim < s[3] {
		y = b.Concat(3, y, b.SliceAxis(x, 3, dim, s[3]-dim))
	}
	if in.Rank() == 3 {
		y = c.merge(y)
	}
	return y
}
