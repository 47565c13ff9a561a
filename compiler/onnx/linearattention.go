package onnx

import (
	"math"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// linearAttentionOps keep a matrix per head instead of all past keys.
var linearAttentionOps = []Op{
	{Name: "LinearAttention", Since: []int{27}, Expand: expandLinearAttention},
}

// linearAttention holds the operands, [b, heads, t, …] each, in the work type.
type linearAttention struct {
	q, k, v            *ir.Value
	decay, beta, erase *ir.Value // nil where the update rule has none
	scale              float64
}

func expandLinearAttention(c *Ctx) {
	b := c.B
	rule := c.OneOf("update_rule", c.N.Str("update_rule", "gated_delta"), "linear", "gated", "delta", "gated_delta")
	qh, kvh := c.N.Int("q_num_heads", 0), c.N.Int("kv_num_heads", 0)
	if qh < 1 || kvh < 1 || qh%kvh != 0 {
		c.Fail("%d query heads for %d key heads", qh, kvh)
	}
	for i, name := range []string{"query", "key", "value"} {
		if r := c.In(i).Rank(); r != 3 {
			c.Fail("%s of rank %d", name, r)
		}
	}
	gated, delta := rule == "gated" || rule == "gated_delta", rule == "delta" || rule == "gated_delta"
	if gated != c.Has(4) || delta != c.Has(5) || c.Has(6) && !delta {
		c.Fail("update_rule %q does not fit the given inputs", rule)
	}
	out := c.In(0).DType()
	work := workType(out)
	var a linearAttention
	split := func(i, n int, what string) *ir.Value { return b.Cast(c.heads(c.In(i), n, what), work) }
	a.q, a.k, a.v = split(0, qh, "query"), split(1, kvh, "key"), split(2, kvh, "value")
	if gated {
		a.decay = b.Exp(split(4, kvh, "decay"))
	}
	if delta {
		if c.In(5).Rank() == 0 {
			c.Fail("beta is a scalar")
		}
		n := kvh
		if s := core.Shape(c.In(5)); s[len(s)-1] == 1 {
			n = 1
		}
		a.beta = split(5, n, "beta")
	}
	if c.Has(6) {
		a.erase = b.Mul(split(6, kvh, "erase_gate"), a.k)
	}
	qs, vs := core.Shape(a.q), core.Shape(a.v)
	dk, dv := qs[3], vs[3]
	if a.scale = c.N.Float("scale", 0); a.scale == 0 {
		a.scale = 1 / math.Sqrt(float64(dk))
	}
	want := []int{qs[0], kvh, dk, dv}
	state := b.BroadcastTo(b.Scalar(work, 0), want...)
	stateType := out
	if p := c.Opt(3); p != nil {
		stateType = p.DType()
		state = b.Reshape(b.Cast(p, work), want...)
	}
	c.unroll("LinearAttention", qs[2])
	y, state := a.run(c, state)
	c.Out(0, b.Cast(y, out))
	c.Out(1, b.Cast(state, stateType))
}

// run walks the sequence: it decays the state, replaces what the key retrieves
// by the value, and reads the state with the query.
func (a *linearAttention) run(c *Ctx, state *ir.Value) (y, last *ir.Value) {
	b := c.B
	s := core.Shape(state)
	batch, kvh, dk, dv := s[0], s[1], s[2], s[3]
	qs := core.Shape(a.q)
	steps, group := qs[2], qs[1]/kvh
	at := func(x *ir.Value, t int) *ir.Value { return b.SliceAxis(x, 2, t, 1) }
	column := func(x *ir.Value) *ir.Value { return b.Transpose(x, 0, 1, 3, 2) }
	var rows []*ir.Value
	bh := []int{0, 1}
	for t := range steps {
		k, v := at(a.k, t), at(a.v, t) // [b, kvh, 1, d]
		if a.decay != nil {
			state = b.Mul(state, column(at(a.decay, t)))
		}
		if a.beta != nil {
			e := k
			if a.erase != nil {
				e = at(a.erase, t)
			}
			old := b.Dot(e, state, bh, bh, []int{3}, []int{2}, tensor.Invalid)
			v = b.Mul(at(a.beta, t), b.Sub(v, old))
		}
		state = b.Add(state, b.Mul(column(k), v))
		q := b.Reshape(at(a.q, t), batch, kvh, group, dk)
		o := b.Dot(q, state, bh, bh, []int{3}, []int{2}, tensor.Invalid)
		rows = append(rows, b.Reshape(o, batch, 1, kvh*group*dv))
	}
	if len(rows) == 0 {
		return b.Const(tensor.New(a.q.DType(), batch, 0, kvh*group*dv)), state
	}
	return b.Mul(b.Concat(1, rows...), b.Scalar(a.q.DType(), a.scale)), state
}
