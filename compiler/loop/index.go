package loop

import (
	"math"
	"slices"
	"sort"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Index arithmetic is kept as sums of coefficient·atom with a constant; an atom
// is a loop variable, a quotient, a remainder, or a value that is not affine.
// The ranges of loop variables decide when quotients and remainders vanish,
// which is what makes reshapes and blocked layouts free.

type term struct {
	atom *Expr
	coef int64
}

type linear struct {
	terms []term // sorted by atom key, coefficients not 0
	c     int64
}

func decompose(e *Expr) linear {
	switch {
	case e.Kind == Const:
		return linear{c: e.I}
	case e.Kind == Call && e.Fn == "add" && e.Type == tensor.I64:
		return decompose(e.Args[0]).plus(decompose(e.Args[1]), 1)
	case e.Kind == Call && e.Fn == "mul" && e.Type == tensor.I64 && e.Args[1].Kind == Const:
		return linear{}.plus(decompose(e.Args[0]), e.Args[1].I)
	}
	return linear{terms: []term{{e, 1}}}
}

func (l linear) plus(o linear, k int64) linear {
	r := linear{terms: slices.Clone(l.terms), c: l.c + k*o.c}
	for _, t := range o.terms {
		i := sort.Search(len(r.terms), func(i int) bool { return r.terms[i].atom.Key() >= t.atom.Key() })
		if i < len(r.terms) && r.terms[i].atom.Key() == t.atom.Key() {
			r.terms[i].coef += k * t.coef
			if r.terms[i].coef == 0 {
				r.terms = slices.Delete(r.terms, i, i+1)
			}
		} else if k*t.coef != 0 {
			r.terms = slices.Insert(r.terms, i, term{t.atom, k * t.coef})
		}
	}
	return r.rejoin()
}

// rejoin turns c·k·(e/k) + c·(e mod k) back into c·e, however the quotient is
// written: that of e = x/a is x/(a·k).
func (l linear) rejoin() linear {
	for i, m := range l.terms {
		if m.atom.Kind != Call || m.atom.Fn != "imod" {
			continue
		}
		k := m.atom.Args[1].I
		quotient := ""
		for j, d := range l.terms {
			if d.coef != m.coef*k || d.atom.Kind != Call || d.atom.Fn != "idiv" {
				continue
			}
			if quotient == "" {
				quotient = Div(m.atom.Args[0], int(k)).Key()
			}
			if d.atom.Key() != quotient {
				continue
			}
			rest := linear{c: l.c}
			for x, t := range l.terms {
				if x != i && x != j {
					rest.terms = append(rest.terms, t)
				}
			}
			return rest.plus(decompose(m.atom.Args[0]), m.coef)
		}
	}
	return l
}

func (l linear) expr() *Expr {
	var e *Expr
	for _, t := range l.terms {
		x := t.atom
		if t.coef != 1 {
			x = &Expr{Kind: Call, Type: tensor.I64, Fn: "mul", Args: []*Expr{x, Int(int(t.coef))}}
		}
		if e == nil {
			e = x
		} else {
			e = &Expr{Kind: Call, Type: tensor.I64, Fn: "add", Args: []*Expr{e, x}}
		}
	}
	if e == nil {
		return Int(int(l.c))
	}
	if l.c != 0 {
		e = &Expr{Kind: Call, Type: tensor.I64, Fn: "add", Args: []*Expr{e, Int(int(l.c))}}
	}
	return e
}

// Add is a sum of index expressions.
func Add(a, b *Expr) *Expr { return decompose(a).plus(decompose(b), 1).expr() }

// Sub is a difference of index expressions.
func Sub(a, b *Expr) *Expr { return decompose(a).plus(decompose(b), -1).expr() }

// Mul is an index expression times a number.
func Mul(a *Expr, k int) *Expr { return linear{}.plus(decompose(a), int64(k)).expr() }

const unbounded = math.MaxInt64 / 4

// Range bounds an index expression, both ends included.
func Range(e *Expr) (lo, hi int64) {
	l := decompose(e)
	lo, hi = l.c, l.c
	for _, t := range l.terms {
		a, b := atomRange(t.atom)
		if a <= -unbounded || b >= unbounded {
			return -unbounded, unbounded
		}
		a, b = a*t.coef, b*t.coef
		lo += min(a, b)
		hi += max(a, b)
	}
	return lo, hi
}

func atomRange(e *Expr) (lo, hi int64) {
	switch {
	case e.Kind == VarRef:
		return 0, int64(e.Var.N - 1)
	case e.Kind == Cast && e.Args[0].Type.IsInteger() && e.Args[0].Type.Bits() <= 16:
		a, b := e.Args[0].Type.IntRange()
		return a, int64(b)
	case e.Kind == Call && e.Fn == "idiv":
		a, b := Range(e.Args[0])
		if a <= -unbounded || b >= unbounded {
			return a, b
		}
		k := e.Args[1].I
		return floorDiv(a, k), floorDiv(b, k)
	case e.Kind == Call && e.Fn == "imod":
		return 0, e.Args[1].I - 1
	case e.Kind == Call && e.Fn == "clamp":
		return e.Args[1].I, e.Args[2].I
	}
	return -unbounded, unbounded
}

func floorDiv(a, k int64) int64 {
	q := a / k
	if a%k != 0 && (a < 0) != (k < 0) {
		q--
	}
	return q
}

// split writes e as k·q + r with r holding what k does not divide.
func split(e *Expr, k int64) (q, r linear) {
	l := decompose(e)
	for _, t := range l.terms {
		if t.coef%k == 0 {
			q.terms = append(q.terms, term{t.atom, t.coef / k})
		} else {
			r.terms = append(r.terms, t)
		}
	}
	q.c = floorDiv(l.c, k)
	r.c = l.c - q.c*k
	return q, r
}

// Div is the floor of an index expression divided by a positive number.
func Div(e *Expr, k int) *Expr {
	if k == 1 {
		return e
	}
	q, r := split(e, int64(k))
	re := r.expr()
	lo, hi := Range(re)
	if lo > -unbounded && floorDiv(lo, int64(k)) == floorDiv(hi, int64(k)) {
		q.c += floorDiv(lo, int64(k))
		return q.expr()
	}
	if g := commonFactor(r, int64(k)); g > 1 {
		return Add(q.expr(), Div(scaled(r, g).expr(), k/int(g)))
	}
	if whole, _, g := inBlocks(r, int64(k)); g > 1 {
		return Add(q.expr(), Div(whole.expr(), k/int(g)))
	}
	d := &Expr{Kind: Call, Type: tensor.I64, Fn: "idiv", Args: []*Expr{re, Int(k)}}
	if re.Kind == Call && re.Fn == "idiv" { // (x/a)/k = x/(a·k)
		d = Div(re.Args[0], int(re.Args[1].I)*k)
	}
	return Add(q.expr(), d)
}

// Mod is the remainder of an index expression by a positive number, in [0,k).
func Mod(e *Expr, k int) *Expr {
	if k == 1 {
		return Int(0)
	}
	_, r := split(e, int64(k))
	re := r.expr()
	lo, hi := Range(re)
	if lo > -unbounded && floorDiv(lo, int64(k)) == floorDiv(hi, int64(k)) {
		return Sub(re, Int(int(floorDiv(lo, int64(k)))*k))
	}
	if g := commonFactor(r, int64(k)); g > 1 {
		return Mul(Mod(scaled(r, g).expr(), k/int(g)), int(g))
	}
	if whole, rest, g := inBlocks(r, int64(k)); g > 1 {
		return Add(Mul(Mod(whole.expr(), k/int(g)), int(g)), rest.expr())
	}
	return &Expr{Kind: Call, Type: tensor.I64, Fn: "imod", Args: []*Expr{re, Int(k)}}
}

// commonFactor is the largest factor of k that divides every term of r.
func commonFactor(r linear, k int64) int64 {
	g := k
	for _, t := range r.terms {
		g = gcd(g, t.coef)
	}
	return gcd(g, r.c)
}

// inBlocks writes r as g·whole + rest with rest in [0,g) and a factor g of k: an
// element of a block lies on the same side of a multiple of k as its block. g is
// 0 if there is none.
func inBlocks(r linear, k int64) (whole, rest linear, g int64) {
	for _, t := range r.terms {
		if t.coef <= g || k%t.coef != 0 {
			continue
		}
		w, in := linear{c: floorDiv(r.c, t.coef)}, linear{}
		in.c = r.c - w.c*t.coef
		for _, u := range r.terms {
			if u.coef%t.coef == 0 {
				w.terms = append(w.terms, term{u.atom, u.coef / t.coef})
			} else {
				in.terms = append(in.terms, u)
			}
		}
		if lo, hi := Range(in.expr()); t.coef > 1 && lo >= 0 && hi < t.coef {
			whole, rest, g = w, in, t.coef
		}
	}
	return whole, rest, g
}

func scaled(r linear, g int64) linear {
	out := linear{c: r.c / g}
	for _, t := range r.terms {
		out.terms = append(out.terms, term{t.atom, t.coef / g})
	}
	return out
}

func gcd(a, b int64) int64 {
	if a < 0 {
		a = -a
	}
	if b < 0 {
		b = -b
	}
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// Stride takes an index apart into stride·v + rest; ok says that rest does not
// depend on v.
func Stride(e *Expr, v *Var) (stride int, rest *Expr, ok bool) {
	l := decompose(e)
	without := linear{c: l.c}
	for _, t := range l.terms {
		if t.atom.Kind == VarRef && t.atom.Var == v {
			stride = int(t.coef)
			continue
		}
		found := false
		t.atom.Walk(func(x *Expr) { found = found || x.Kind == VarRef && x.Var == v })
		if found {
			return 0, nil, false
		}
		without.terms = append(without.terms, t)
	}
	return stride, without.expr(), true
}

// Clamp bounds an index of unknown range, so that no memory outside a buffer
// is touched whatever the data say.
func Clamp(e *Expr, lo, hi int) *Expr {
	if a, b := Range(e); a >= int64(lo) && b <= int64(hi) {
		return e
	}
	return &Expr{Kind: Call, Type: tensor.I64, Fn: "clamp", Args: []*Expr{e, Int(lo), Int(hi)}}
}

// Less is a < b on index expressions, decided where the ranges allow.
func Less(a, b *Expr) *Expr {
	d := Sub(a, b)
	lo, hi := Range(d)
	switch {
	case lo <= -unbounded || hi >= unbounded:
	case hi < 0:
		return True()
	case lo >= 0:
		return False()
	}
	if q, m, ok := coarser(d); ok {
		a, b = q, m
	}
	return &Expr{Kind: Call, Type: tensor.Bool, Fn: "lt", Args: []*Expr{a, b}}
}

// coarser drops what cannot decide whether d < 0: with d = k·q + r − k·m and r
// in [0,k), d < 0 just where q < m. A condition on channels becomes one on
// channel blocks, the same for all lanes.
func coarser(d *Expr) (q, m *Expr, ok bool) {
	l := decompose(d)
	for _, t := range l.terms {
		k := t.coef
		if k < 2 || l.c%k != 0 {
			continue
		}
		var rest linear
		whole := linear{}
		for _, u := range l.terms {
			if u.coef%k == 0 {
				whole.terms = append(whole.terms, term{u.atom, u.coef / k})
			} else {
				rest.terms = append(rest.terms, u)
			}
		}
		if lo, hi := Range(rest.expr()); len(rest.terms) > 0 && lo >= 0 && hi < k {
			return whole.expr(), Int(int(-l.c / k)), true
		}
	}
	return nil, nil, false
}

// Divides reports whether an expression has quotients or remainders of indices.
func Divides(e *Expr) bool {
	found := false
	e.Walk(func(x *Expr) { found = found || x.Kind == Call && (x.Fn == "idiv" || x.Fn == "imod") })
	return found
}

// Within is lo ≤ e < hi.
func Within(e *Expr, lo, hi int) *Expr {
	return And(Less(Int(lo-1), e), Less(e, Int(hi)))
}

// Flatten is the row-major position of an index in a shape.
func Flatten(idx []*Expr, shape []int) *Expr {
	e := Int(0)
	for i, d := range shape {
		e = Add(Mul(e, d), idx[i])
	}
	return e
}

// Unflatten is the index of a row-major position in a shape.
func Unflatten(e *Expr, shape []int) []*Expr {
	out := make([]*Expr, len(shape))
	for i := len(shape) - 1; i >= 0; i-- {
		if i == 0 {
			out[i] = e
			break
		}
		out[i] = Mod(e, max(shape[i], 1))
		e = Div(e, max(shape[i], 1))
	}
	return out
}

// Coef is the coefficient of a loop variable in an affine index; ok is false
// if the variable occurs in another way.
func Coef(e *Expr, v *Var) (k int64, ok bool) {
	for _, t := range decompose(e).terms {
		if t.atom.Kind == VarRef {
			if t.atom.Var == v {
				k = t.coef
			}
			continue
		}
		uses := false
		t.atom.Walk(func(x *Expr) { uses = uses || x.Kind == VarRef && x.Var == v })
		if uses {
			return 0, false
		}
	}
	return k, true
}
