package onnx

import (
	"math"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// groupQueryOps is the attention of decoders that ONNX Runtime's generator
// runs: fewer heads of keys and values, rotary positions and a cache in one op.
var groupQueryOps = []Op{
	{Domain: microsoft, Name: "GroupQueryAttention", Since: []int{1}, Expand: expandGroupQuery},
}

// groupQuery is one such node. Sequence i of the batch holds lens[i] tokens, the
// last steps of which are new; a prompt begins at 0.
type groupQuery struct {
	q, k, v      *ir.Value // [b, heads, s, d]
	steps, total int
	first        *ir.Value // position of the first new token, [b, 1]
	lens         *ir.Value // [b, 1]
	even         bool      // the new tokens follow a whole cache in every sequence
}

func expandGroupQuery(c *Ctx) {
	b := c.B
	for _, i := range []int{11, 12, 13} {
		if c.Has(i) {
			c.Unsupported("head sinks or a quantized cache")
		}
	}
	if c.N.Int("smooth_softmax", 0) == 1 || c.Wants(3) {
		c.Unsupported("smooth_softmax or an output of scores")
	}
	heads, groups := c.N.Int("num_heads", 0), c.N.Int("kv_num_heads", 0)
	out := c.In(0).DType()
	var g groupQuery
	q := c.In(0)
	if q.Rank() != 3 || heads < 1 || groups < 1 || heads%groups != 0 {
		c.Fail("queries %s for %d heads in %d groups", q.Type, heads, groups)
	}
	if c.Has(1) != c.Has(2) {
		c.Fail("keys without values, or values without keys")
	}
	k, v := c.Opt(1), c.Opt(2)
	if k == nil { // queries, keys and values side by side
		w := core.Shape(q)[2]
		if w%(heads+2*groups) != 0 {
			c.Fail("packed operands %s for %d heads in %d groups", q.Type, heads, groups)
		}
		d := w / (heads + 2*groups)
		q, k, v = b.SliceAxis(q, 2, 0, heads*d), b.SliceAxis(q, 2, heads*d, groups*d), b.SliceAxis(q, 2, (heads+groups)*d, groups*d)
	}
	g.q, g.k, g.v = c.heads(q, heads, "query"), c.heads(k, groups, "key"), c.heads(v, groups, "value")
	g.positions(c)
	if c.N.Int("do_rotary", 0) == 1 {
		g.turn(c)
	}
	g.k, g.v = g.present(c, c.Opt(3), g.k), g.present(c, c.Opt(4), g.v)
	c.Out(1, g.k)
	c.Out(2, g.v)
	work := workType(out)
	p := c.softmaxLast(g.seen(c, g.scaled(c, work)), false)
	c.Out(0, c.merge(b.Cast(c.mixValues(p, g.v, work), out)))
}

// positions reads where each sequence of the batch stands.
func (g *groupQuery) positions(c *Ctx) {
	b := c.B
	s := core.Shape(g.q)
	g.steps = s[2]
	total := c.Ints(6, "total_sequence_length")
	past := 0
	if p := c.Opt(3); p != nil {
		past = core.Shape(c.rank4(p, "past_key"))[2]
	}
	if len(total) != 1 || total[0] < g.steps || tensor.Numel(core.Shape(c.In(5))) != s[0] {
		c.Fail("total_sequence_length %v and seqlens_k %s for %d tokens of %d sequences", total, c.In(5).Type, g.steps, s[0])
	}
	g.total = max(past, total[0])
	one := b.ScalarInt(tensor.I64, 1)
	g.lens = b.Add(b.Reshape(b.Cast(c.In(5), tensor.I64), s[0], 1), one)
	if total[0] == g.steps {
		g.first = b.BroadcastTo(b.ScalarInt(tensor.I64, 0), s[0], 1)
		g.even = past == 0
		return
	}
	g.first = b.Sub(g.lens, b.ScalarInt(tensor.I64, int64(g.steps)))
	if f := g.first.Const; f != nil {
		g.even = past+g.steps == g.total
		for i := range f.Len() {
			g.even = g.even && f.Int(i) == int64(past)
		}
	}
}

// turn rotates queries and keys by their positions.
func (g *groupQuery) turn(c *Ctx) {
	b := c.B
	cos, sin := c.In(7), c.In(8)
	pos := c.Opt(9)
	if pos == nil {
		n := core.Shape(g.q)[0]
		pos = b.Add(b.BroadcastTo(g.first, n, g.steps), b.Iota(tensor.I64, 1, n, g.steps))
	}
	dim := 2 * core.Shape(cos)[1]
	interleaved := c.N.Int("rotary_interleaved", 0) == 1
	g.q = c.rotate(g.q, cos, sin, pos, interleaved, 0, dim)
	g.k = c.rotate(g.k, cos, sin, pos, interleaved, 0, dim)
}

// present is the cache with the new tokens in their place, and zero where a
// sequence has none.
func (g *groupQuery) present(c *Ctx, past, x *ir.Value) *ir.Value {
	b := c.B
	if past == nil {
		s := core.Shape(x)
		past = b.BroadcastTo(b.Like(x, 0), s[0], s[1], 0, s[3])
	}
	s, ps := core.Shape(x), core.Shape(c.rank4(past, "past"))
	if ps[0] != s[0] || ps[1] != s[1] || ps[3] != s[3] {
		c.Fail("past %s and new %s do not fit", past.Type, x.Type)
	}
	both := x
	if ps[2] > 0 {
		both = b.Concat(2, past, x)
	}
	if g.even {
		return both
	}
	// Place t holds token t of the past, or new token t − first.
	has := ps[2] + g.steps
	num := func(v int) *ir.Value { return b.ScalarInt(tensor.I64, int64(v)) }
	t := b.Iota(tensor.I64, 1, s[0], g.total)
	from := b.BroadcastTo(g.first, s[0], g.total)
	at := b.Where(b.Lt(t, from), b.Min(t, num(max(ps[2]-1, 0))), b.Min(b.Add(b.Sub(t, from), num(ps[2])), num(has-1)))
	head := b.Mul(b.Iota(tensor.I64, 0, s[0]*s[1], 1, 1), num(has))
	at = b.Reshape(b.BroadcastTo(b.Reshape(at, s[0], 1, g.total), s[0], s[1], g.total), s[0]*s[1], g.total, 1)
	y := b.Gather(b.Reshape(both, s[0]*s[1]*has, s[3]), 0, b.Reshape(b.Add(at, b.BroadcastTo(head, s[0]*s[1], g.total, 1)), s[0], s[1], g.total))
	kept := b.Lt(t, b.BroadcastTo(b.Add(g.first, num(g.steps)), s[0], g.total))
	return b.Where(b.Reshape(kept, s[0], 1, g.total, 1), y, b.Like(y, 0))
}

// scaled is the scores with their scale, bound and bias.
func (g *groupQuery) scaled(c *Ctx, work tensor.DType) *ir.Value {
	b := c.B
	scale := c.N.Float("scale", 0)
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(core.Shape(g.q)[3]))
	}
	x := b.Mul(c.scores(g.q, g.k, work), b.Scalar(work, scale))
	if cap := c.N.Float("softcap", 0); cap > 0 {
		x = b.Mul(b.Tanh(b.Div(x, b.Scalar(work, cap))), b.Scalar(work, cap))
	}
	if bias := c.Opt(10); bias != nil {
		x = b.Add(x, b.Cast(bias, work))
	}
	return x
}

// seen hides what lies behind each query, and before its window.
func (g *groupQuery) seen(c *Ctx, x *ir.Value) *ir.Value {
	b := c.B
	n := core.Shape(x)[0]
	row := b.Add(b.Reshape(g.first, n, 1, 1, 1), b.Iota(tensor.I64, 2, 1, 1, g.steps, 1))
	col := b.Iota(tensor.I64, 3, 1, 1, 1, g.total)
	keep := b.Le(col, row)
	if w := c.N.Int("local_window_size", -1); w > 0 {
		keep = b.And(keep, b.Lt(b.Sub(row, b.ScalarInt(tensor.I64, int64(w))), col))
	}
	return b.Where(keep, x, b.Scalar(x.DType(), math.Inf(-1)))
}
