package onnx

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// attentionContribOps are ONNX Runtime's own attention ops, into which its
// optimizer fuses transformers.
var attentionContribOps = []Op{
	{Domain: microsoft, Name: "MultiHeadAttention", Since: []int{1}, Expand: expandMultiHeadAttention},
	{Domain: microsoft, Name: "Attention", Since: []int{1}, Expand: expandPackedAttention},
	{Domain: microsoft, Name: "RotaryEmbedding", Since: []int{1}, Expand: expandContribRotary},
}

// fusedAttention is what both ops come down to, with heads apart.
type fusedAttention struct {
	q, k, v *ir.Value // [b, heads, s, d]
	past    int       // keys before these
	mask    *ir.Value // nil, or integers: [b] lengths, [b, t] or [b, s, t] flags
	bias    *ir.Value // nil, or what is added to the scores
}

func (a *fusedAttention) run(c *Ctx, out tensor.DType) (y, probs *ir.Value) {
	b, work := c.B, workType(out)
	scale := c.N.Float("scale", 0)
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(core.Shape(a.q)[3]))
	}
	x := b.Mul(c.scores(a.q, a.k, work), b.Scalar(work, scale))
	s := core.Shape(x)
	if a.mask != nil {
		low := b.Scalar(work, c.N.Float("mask_filter_value", -10000))
		x = b.Add(x, b.Where(a.keep(c, s), b.Scalar(work, 0), low))
	}
	if a.bias != nil {
		x = b.Add(x, b.Cast(a.bias, work))
	}
	causal := c.N.Int("unidirectional", 0) == 1
	if causal {
		row, col := b.Iota(tensor.I64, 2, 1, 1, s[2], 1), b.Iota(tensor.I64, 3, 1, 1, 1, s[3])
		seen := b.Le(col, b.Add(row, b.ScalarInt(tensor.I64, int64(a.past))))
		x = b.Where(seen, x, b.Scalar(work, math.Inf(-1)))
	}
	probs = c.softmaxLast(x, causal)
	return c.merge(b.Cast(c.mixValues(probs, a.v, work), out)), b.Cast(x, out)
}

// keep is a bool that broadcasts to scores of shape s: the keys that the mask
// leaves.
func (a *fusedAttention) keep(c *Ctx, s []int) *ir.Value {
	b := c.B
	m := b.Cast(a.mask, tensor.I64)
	zero := b.ScalarInt(tensor.I64, 0)
	switch ms := core.Shape(m); {
	case len(ms) == 1 && ms[0] == s[0]:
		return b.Lt(b.Iota(tensor.I64, 3, 1, 1, 1, s[3]), b.Reshape(m, s[0], 1, 1, 1))
	case len(ms) == 2 && ms[0] == s[0] && ms[1] == s[3]:
		return b.Lt(zero, b.Reshape(m, s[0], 1, 1, s[3]))
	case len(ms) == 3 && slices.Equal(ms, []int{s[0], s[2], s[3]}):
		return b.Lt(zero, b.Reshape(m, s[0], 1, s[2], s[3]))
	default:
		c.Unsupported("a mask of shape %s for scores of %s", tensor.ShapeString(ms), tensor.ShapeString(s))
	}
	return nil
}

func expandMultiHeadAttention(c *Ctx) {
	b := c.B
	n := c.N.Int("num_heads", 0)
	out := c.In(0).DType()
	if c.In(0).Rank() != 3 || !c.Has(1) || !c.Has(2) {
		c.Unsupported("packed queries, keys and values")
	}
	if c.Has(8) || c.Has(9) {
		c.Unsupported("a past that shares its buffer")
	}
	var a fusedAttention
	from := 0
	part := func(i int, what string) *ir.Value {
		x := c.In(i)
		if x.Rank() == 4 { // keys and values of another sequence, heads apart
			return x
		}
		if x.Rank() != 3 {
			c.Fail("%s is %s", what, x.Type)
		}
		if bias := c.Opt(3); bias != nil {
			if bias.Rank() != 1 {
				c.Fail("bias is %s, not a vector", bias.Type)
			}
			w := core.Shape(x)[2]
			if from+w > tensor.Numel(core.Shape(bias)) {
				c.Fail("bias %s is too short", bias.Type)
			}
			x = b.Add(x, b.SliceAxis(bias, 0, from, w))
			from += w
		}
		return c.heads(x, n, what)
	}
	a.q, a.k, a.v = part(0, "query"), part(1, "key"), part(2, "value")
	a.mask, a.bias = c.Opt(4), c.Opt(5)
	if p := c.Opt(6); p != nil {
		a.past = core.Shape(c.rank4(p, "past_key"))[2]
		a.k = b.Concat(2, p, a.k)
	}
	if p := c.Opt(7); p != nil {
		a.v = b.Concat(2, p, a.v)
	}
	c.rank4(a.k, "key")
	c.rank4(a.v, "value")
	y, scores := a.run(c, out)
	c.Out(0, y)
	c.Out(1, a.k)
	c.Out(2, a.v)
	c.Out(3, scores)
}

// expandPackedAttention projects its input to queries, keys and values first.
func expandPackedAttention(c *Ctx) {
	b := c.B
	n := c.N.Int("num_heads", 0)
	if c.N.Int("do_rotary", 0) != 0 || c.N.Int("past_present_share_buffer", 0) != 0 {
		c.Unsupported("rotary positions or a shared past")
	}
	x, w := c.In(0), c.In(1)
	if x.Rank() != 3 || w.Rank() != 2 || core.Shape(w)[0] != core.Shape(x)[2] {
		c.Fail("input %s and weights %s do not fit", x.Type, w.Type)
	}
	all := core.Shape(w)[1]
	sizes := c.N.Ints("qkv_hidden_sizes")
	if sizes == nil {
		sizes = []int{all / 3, all / 3, all / 3}
	}
	if len(sizes) != 3 || sizes[0]+sizes[1]+sizes[2] != all {
		c.Fail("qkv_hidden_sizes %v for weights of %d columns", sizes, all)
	}
	y := b.Dot(x, w, nil, nil, []int{2}, []int{0}, tensor.Invalid)
	if bias := c.Opt(2); bias != nil {
		y = b.Add(y, bias)
	}
	var a fusedAttention
	a.q = c.heads(b.SliceAxis(y, 2, 0, sizes[0]), n, "query")
	a.k = c.heads(b.SliceAxis(y, 2, sizes[0], sizes[1]), n, "key")
	a.v = c.heads(b.SliceAxis(y, 2, sizes[0]+sizes[1], sizes[2]), n, "value")
	a.mask, a.bias = c.Opt(3), c.Opt(5)
	if p := c.Opt(4); p != nil { // [2, b, heads, past, d]
		if p.Rank() != 5 {
			c.Fail("past is %s, not of rank 5", p.Type)
		}
		a.past = core.Shape(p)[3]
		a.k = b.Concat(2, b.Drop(b.SliceAxis(p, 0, 0, 1), 0), a.k)
		a.v = b.Concat(2, b.Drop(b.SliceAxis(p, 0, 1, 1), 0), a.v)
	}
	z, _ := a.run(c, x.DType())
	c.Out(0, z)
	if c.Wants(1) {
		s := core.Shape(a.k)
		if !slices.Equal(s, core.Shape(a.v)) {
			c.Unsupported("a present of keys %s and values %s", a.k.Type, a.v.Type)
		}
		s = slices.Insert(slices.Clone(s), 0, 1)
		c.Out(1, b.Concat(0, b.Reshape(a.k, s...), b.Reshape(a.v, s...)))
	}
}

// expandContribRotary differs from ONNX's op in the order of its inputs, and
// its positions may be one offset.
func expandContribRotary(c *Ctx) {
	b, x, pos := c.B, c.In(0), c.In(1)
	if c.N.Int("is_packed_batching", 0) != 0 || c.N.Float("scale", 1) != 1 {
		c.Unsupported("packed batches or scaled positions")
	}
	s := core.Shape(x)
	if len(s) != 3 && len(s) != 4 || c.In(2).Rank() != 2 || core.Shape(c.In(2))[1] == 0 {
		c.Fail("input %s and caches %s do not fit", x.Type, c.In(2).Type)
	}
	batch, steps := s[0], s[1]
	if x.Rank() == 4 {
		steps = s[2]
	}
	if ps := core.Shape(pos); len(ps) == 1 && ps[0] == 1 {
		pos = b.BroadcastTo(b.Add(b.Iota(tensor.I64, 1, 1, steps), b.Cast(pos, tensor.I64)), batch, steps)
	}
	heads, dim := c.N.Int("num_heads", 0), c.N.Int("rotary_embedding_dim", 0)
	half := core.Shape(c.In(2))[1]
	if heads == 0 && x.Rank() == 3 {
		if dim != 0 || s[2]%(2*half) != 0 {
			c.Fail("num_heads is not given")
		}
		heads = s[2] / (2 * half)
	}
	c.Out(0, c.rotate(x, c.In(2), c.In(3), pos, c.N.Int("interleaved", 0) == 1, heads, dim))
}
