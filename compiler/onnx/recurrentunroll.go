package onnx

import (
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// direction is one direction of a layer.
type direction struct {
	c      *Ctx
	cell   cell
	hidden int
	w, r   *ir.Value // [gates·hidden, input], [gates·hidden, hidden]
	wb, rb *ir.Value // [gates·hidden] or nil
	p      *ir.Value // peepholes [3·hidden] or nil
	act    []activation
	clip   float64
	// mask is, per step, a bool [batch, 1]: the step is within the sequence.
	mask []*ir.Value
}

func (a activation) apply(b *core.Builder, x *ir.Value) *ir.Value {
	k := func(v float64) *ir.Value { return b.Like(x, v) }
	switch a.name {
	case "relu":
		return b.Relu(x)
	case "tanh":
		return b.Tanh(x)
	case "sigmoid":
		return b.Sigmoid(x)
	case "softsign":
		return b.Div(x, b.Add(k(1), b.Abs(x)))
	case "softplus": // max(x,0) + log(1+e^-|x|) does not overflow
		return b.Add(b.Relu(x), b.Log(b.Add(k(1), b.Exp(b.Neg(b.Abs(x))))))
	case "affine":
		return b.Add(b.Mul(k(a.alpha), x), k(a.beta))
	case "leakyrelu":
		return b.Where(b.Lt(x, k(0)), b.Mul(k(a.alpha), x), x)
	case "thresholdedrelu":
		return b.Where(b.Lt(x, k(a.alpha)), k(0), x)
	case "scaledtanh":
		return b.Mul(k(a.alpha), b.Tanh(b.Mul(k(a.beta), x)))
	case "hardsigmoid":
		return b.Max(k(0), b.Min(k(1), b.Add(b.Mul(k(a.alpha), x), k(a.beta))))
	case "elu":
		return b.Where(b.Lt(x, k(0)), b.Mul(k(a.alpha), b.Sub(b.Exp(x), k(1))), x)
	}
	panic("BUG: activation " + a.name)
}

// on applies activation i after the clip.
func (d *direction) on(i int, x *ir.Value) *ir.Value {
	b := d.c.B
	if d.clip > 0 {
		x = b.Max(b.Like(x, -d.clip), b.Min(b.Like(x, d.clip), x))
	}
	return d.act[i].apply(b, x)
}

// gate is gate i of n gates side by side.
func (d *direction) gate(x *ir.Value, i int) *ir.Value {
	return d.c.B.SliceAxis(x, x.Rank()-1, i*d.hidden, d.hidden)
}

// rows is gates [from, from+n) of a weight or bias.
func (d *direction) rows(x *ir.Value, from, n int) *ir.Value {
	if x == nil {
		return nil
	}
	return d.c.B.SliceAxis(x, 0, from*d.hidden, n*d.hidden)
}

// recur is h·rᵀ for gates [from, from+n).
func (d *direction) recur(h *ir.Value, from, n int) *ir.Value {
	return d.c.B.Dot(h, d.rows(d.r, from, n), nil, nil, []int{1}, []int{1}, tensor.Invalid)
}

func stepRNN(d *direction, x *ir.Value, s []*ir.Value) []*ir.Value {
	return []*ir.Value{d.on(0, d.c.B.Add(x, d.recur(s[0], 0, 1)))}
}

// stepGRU: gates are z (update), r (reset), h (candidate).
func stepGRU(d *direction, x *ir.Value, s []*ir.Value) []*ir.Value {
	b, h := d.c.B, s[0]
	var cand, z *ir.Value
	if d.c.N.Int("linear_before_reset", 0) != 0 {
		hr := d.recur(h, 0, 3)
		z = d.on(0, b.Add(d.gate(x, 0), d.gate(hr, 0)))
		r := d.on(0, b.Add(d.gate(x, 1), d.gate(hr, 1)))
		g := d.gate(hr, 2)
		if d.rb != nil {
			g = b.Add(g, d.rows(d.rb, 2, 1))
		}
		cand = d.on(1, b.Add(d.gate(x, 2), b.Mul(r, g)))
	} else {
		hr := d.recur(h, 0, 2)
		z = d.on(0, b.Add(d.gate(x, 0), d.gate(hr, 0)))
		r := d.on(0, b.Add(d.gate(x, 1), d.gate(hr, 1)))
		cand = d.on(1, b.Add(d.gate(x, 2), d.recur(b.Mul(r, h), 2, 1)))
	}
	return []*ir.Value{b.Add(b.Mul(b.Sub(b.Like(z, 1), z), cand), b.Mul(z, h))}
}

// stepLSTM: gates are i (input), o (output), f (forget), c (cell).
func stepLSTM(d *direction, x *ir.Value, s []*ir.Value) []*ir.Value {
	b, h, cs := d.c.B, s[0], s[1]
	g := b.Add(x, d.recur(h, 0, 4))
	peek := func(x *ir.Value, i int, state *ir.Value) *ir.Value {
		if d.p == nil {
			return x
		}
		return b.Add(x, b.Mul(d.rows(d.p, i, 1), state))
	}
	i := d.on(0, peek(d.gate(g, 0), 0, cs))
	var f *ir.Value
	if d.c.N.Int("input_forget", 0) != 0 {
		f = b.Sub(b.Like(i, 1), i)
	} else {
		f = d.on(0, peek(d.gate(g, 2), 2, cs))
	}
	next := b.Add(b.Mul(f, cs), b.Mul(i, d.on(1, d.gate(g, 3))))
	o := d.on(0, peek(d.gate(g, 1), 1, next))
	return []*ir.Value{b.Mul(o, d.act[2].apply(b, next)), next}
}

// projected is x·wᵀ with all biases that can be added before the steps.
func (d *direction) projected(x *ir.Value) *ir.Value {
	b := d.c.B
	y := b.Dot(x, d.w, nil, nil, []int{2}, []int{1}, tensor.Invalid)
	if d.wb == nil {
		return y
	}
	rb := d.rb
	if d.cell.name == "GRU" && d.c.N.Int("linear_before_reset", 0) != 0 {
		rb = b.Concat(0, d.rows(rb, 0, 2), b.BroadcastTo(b.Like(rb, 0), d.hidden)) // the last is behind the reset gate
	}
	return b.Add(y, b.Add(d.wb, rb))
}

// run gives the hidden state of every step, [1, batch, hidden] each, and the
// last states.
func (d *direction) run(x *ir.Value, state []*ir.Value, reverse bool) (ys, last []*ir.Value) {
	b := d.c.B
	xs := core.Shape(x)
	if xs[0] == 0 {
		return nil, state
	}
	proj := d.projected(x)
	ys = make([]*ir.Value, xs[0])
	for k := range xs[0] {
		t := k
		if reverse {
			t = xs[0] - 1 - k
		}
		next := d.cell.step(d, b.Drop(b.SliceAxis(proj, 0, t, 1), 0), state)
		y := next[0]
		if d.mask != nil && d.mask[t] != nil {
			for i := range next {
				next[i] = b.Where(d.mask[t], next[i], state[i])
			}
			y = b.Where(d.mask[t], y, b.Like(y, 0))
		}
		state = next
		ys[t] = b.Reshape(y, 1, xs[1], d.hidden)
	}
	return ys, state
}

// masks are the steps within each sequence, nil where all are.
func (c *Ctx) masks(steps, batch int) []*ir.Value {
	lens, shortest := c.lengths(steps, batch)
	if lens == nil {
		return nil
	}
	lens = c.B.Reshape(lens, batch, 1)
	out := make([]*ir.Value, steps)
	for t := shortest; t < steps; t++ {
		out[t] = c.B.Lt(c.B.ScalarInt(lens.DType(), int64(t)), lens)
	}
	return out
}

// unrolled is the layer step by step.
func (l *recurrentLayer) unrolled() (all *ir.Value, states []*ir.Value) {
	c, b, cl := l.c, l.c.B, l.cell
	steps, batch, dirs, hidden := core.Shape(l.x)[0], core.Shape(l.x)[1], core.Shape(l.r)[0], core.Shape(l.r)[2]
	c.unroll(cl.name, steps)
	work, mask := l.x.DType(), c.masks(steps, batch)
	at := func(v *ir.Value, k int) *ir.Value {
		if v == nil {
			return nil
		}
		return b.Drop(b.SliceAxis(v, 0, k, 1), 0)
	}
	var ys []*ir.Value
	last := make([][]*ir.Value, cl.states)
	for k := range dirs {
		d := &direction{c: c, cell: cl, hidden: hidden, w: at(l.w, k), r: at(l.r, k), p: at(l.peep, k), act: l.acts[k], clip: c.N.Float("clip", 0), mask: mask}
		if v := at(l.bias, k); v != nil {
			d.wb, d.rb = d.rows(v, 0, cl.gates), d.rows(v, cl.gates, cl.gates)
		}
		state := make([]*ir.Value, cl.states)
		for i := range state {
			if state[i] = at(l.initial[i], k); state[i] == nil {
				state[i] = b.BroadcastTo(b.Scalar(work, 0), batch, hidden)
			}
		}
		y, end := d.run(l.x, state, l.way == "reverse" || k == 1)
		for i := range end {
			last[i] = append(last[i], b.Reshape(end[i], 1, batch, hidden))
		}
		if len(y) > 0 {
			ys = append(ys, b.Reshape(b.Concat(0, y...), steps, 1, batch, hidden))
		}
	}
	all = b.Const(tensor.New(work, 0, dirs, batch, hidden))
	if len(ys) > 0 {
		all = b.Concat(1, ys...)
	}
	for i := range last {
		states = append(states, b.Concat(0, last[i]...))
	}
	return all, states
}
