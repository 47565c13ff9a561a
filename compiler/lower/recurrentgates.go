package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// quotient is a value that is not yet divided: products and sums of gates are
// formed first, so that one division serves several. Divisions are half the
// time of gate math otherwise.
type quotient struct {
	num, den *loop.Expr // den nil: 1
}

func (q quotient) value() *loop.Expr {
	if q.den == nil {
		return q.num
	}
	return loop.Fn("div", q.num, q.den)
}

func (q quotient) scaled(by *loop.Expr) quotient { return quotient{loop.Fn("mul", q.num, by), q.den} }

func (q quotient) times(o quotient) quotient {
	return quotient{loop.Fn("mul", q.num, o.num), timesDen(q.den, o.den)}
}

// between is (1−q)·a + q·b. The denominators must be finite: see part.
func (q quotient) between(a quotient, b, one *loop.Expr) quotient {
	whole := q.den
	if whole == nil {
		whole = one
	}
	left := loop.Fn("mul", loop.Fn("sub", whole, q.num), a.num)
	right := loop.Fn("mul", q.num, b)
	if a.den != nil {
		right = loop.Fn("mul", right, a.den)
	}
	return quotient{loop.Fn("add", left, right), timesDen(q.den, a.den)}
}

func timesDen(a, b *loop.Expr) *loop.Expr {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return loop.Fn("mul", a, b)
}

func (r *recurrent) number(v float64) *loop.Expr { return loop.Number(r.typ, v, 0) }

func (r *recurrent) bounded(x *loop.Expr, lo, hi float64) *loop.Expr {
	return loop.Fn("max", loop.Fn("min", x, r.number(hi)), r.number(lo))
}

// on is activation i after the clip.
func (r *recurrent) on(i int, x *loop.Expr) quotient {
	if r.Clip > 0 {
		x = r.bounded(x, -r.Clip, r.Clip)
	}
	return r.act(i, x)
}

// usual reports the activations that ONNX has by default. Numerators and
// denominators of others may be so large that their products overflow where
// the result does not: they are divided at once.
func (r *recurrent) usual() bool {
	for i, a := range r.Acts {
		if i == 0 && a != "sigmoid" || i > 0 && a != "tanh" {
			return false
		}
	}
	return true
}

// part is activation 0 of a gate that divides a unit between two values. e^80
// leaves room for what a denominator is multiplied with, and 1/(1+e^80) of a
// value is nothing beside the rest of the other.
func (r *recurrent) part(x *loop.Expr) quotient {
	if r.usual() {
		x = loop.Fn("max", x, r.number(-80))
	}
	return r.on(0, x)
}

func (r *recurrent) act(i int, x *loop.Expr) quotient {
	q := r.undivided(i, x)
	if !r.usual() {
		q = quotient{num: q.value()}
	}
	return q
}

func (r *recurrent) undivided(i int, x *loop.Expr) quotient {
	switch r.Acts[i] {
	case "sigmoid": // an infinite denominator gives the right 0
		one := r.number(1)
		return quotient{one, loop.Fn("add", one, loop.Fn("exp", loop.Fn("neg", x)))}
	case "tanh":
		if r.typ == tensor.F32 {
			return r.tanh(x)
		}
		return quotient{num: loop.Fn("tanh", x)}
	}
	return quotient{num: loop.Fn("max", x, r.number(0))}
}

// tanh is a rational function: at most 2.8e-7 from the true value, relatively
// (rms 2e-8); ±1 from ±8.2 on.
func (r *recurrent) tanh(x *loop.Expr) quotient {
	x = r.bounded(x, -8.2, 8.2)
	z := loop.Fn("mul", x, x)
	poly := func(c ...float64) *loop.Expr {
		p := r.number(float64(float32(c[0])))
		for _, v := range c[1:] {
			p = loop.Fn("add", loop.Fn("mul", p, z), r.number(float64(float32(v))))
		}
		return p
	}
	num := poly(1.394553628e-8, 2.102733560e-5, 3.520756727e-3, 1.340216100e-1, 1)
	return quotient{loop.Fn("mul", num, x), poly(8.015776984e-7, 3.326951409e-4, 2.597254514e-2, 4.673548340e-1, 1)}
}

// cell is the gate math of one unit: what it stores beside the new hidden
// state, and that.
func (r *recurrent) cell(d int, base, t, n, u *loop.Expr) ([]loop.Stmt, *loop.Expr) {
	switch r.Cell {
	case "gru":
		return nil, r.gru(d, base, t, n, u)
	case "lstm":
		return r.lstm(n, u)
	}
	return nil, r.on(0, r.sum(r.first, n, 0, u)).value()
}

func (r *recurrent) gru(d int, base, t, n, u *loop.Expr) *loop.Expr {
	sum := r.sum(r.extra, n, 2, u)
	if r.After {
		if r.bias != nil {
			sum = loop.Fn("add", sum, loop.At(r.bias, u))
		}
		b, i, _ := r.input(d, base, t, n, u, 2)
		sum = loop.Fn("add", loop.At(b, i), r.on(0, r.sum(r.first, n, 1, u)).scaled(sum).value())
	}
	return r.part(r.sum(r.first, n, 0, u)).between(r.on(1, sum), loop.At(r.h, r.at(n, 1, 0, u)), r.number(1)).value()
}

func (r *recurrent) lstm(n, u *loop.Expr) ([]loop.Stmt, *loop.Expr) {
	at := r.at(n, 1, 0, u)
	old := loop.At(r.c, at)
	gate := func(i int, c *loop.Expr) *loop.Expr { // the cell state looks at three of the gates
		s := r.sum(r.first, n, i, u)
		if r.peep == nil || c == nil {
			return s
		}
		return loop.Fn("add", s, loop.Fn("mul", loop.At(r.peep, loop.Add(loop.Int(i*r.hp), u)), c))
	}
	cand := r.on(1, gate(3, nil))
	var next *loop.Expr
	if r.Coupled { // f = 1−i
		next = r.part(gate(0, old)).between(quotient{num: old}, cand.value(), r.number(1)).value()
	} else {
		in, kept := r.on(0, gate(0, old)), r.on(0, gate(2, old)).scaled(old)
		next = loop.Fn("add", kept.value(), in.times(cand).value())
	}
	c := r.k.reg("c", r.typ)
	body := []loop.Stmt{&loop.Set{Reg: c, Val: next, Decl: true}, &loop.Store{Buf: r.c, Index: at, Val: loop.R(c)}}
	return body, r.on(0, gate(1, loop.R(c))).times(r.act(2, loop.R(c))).value()
}
