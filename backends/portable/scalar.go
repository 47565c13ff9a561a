package portable

import (
	"math"

	"github.com/lathe-ml/lathe/backends/scalar"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// val computes one element: f of a float type, i of any other.
type val struct {
	f func(f *frame) float64
	i func(f *frame) int64
}

// term is a multiple of an index that is no sum.
type term struct {
	atom *loop.Expr
	k    int
}

// linear splits an index into multiples and a constant.
func linear(e *loop.Expr) (terms []term, c int) {
	switch {
	case e.Kind == loop.Const:
		return nil, int(e.I)
	case e.Kind == loop.Call && e.Type == tensor.I64 && e.Fn == "add":
		terms, c = linear(e.Args[0])
		t, d := linear(e.Args[1])
		for _, x := range t {
			terms = addTerm(terms, x)
		}
		return terms, c + d
	case e.Kind == loop.Call && e.Type == tensor.I64 && e.Fn == "mul" && e.Args[1].Kind == loop.Const:
		k := int(e.Args[1].I)
		t, d := linear(e.Args[0])
		for _, x := range t {
			terms = addTerm(terms, term{x.atom, x.k * k})
		}
		return terms, d * k
	}
	return []term{{e, 1}}, 0
}

func addTerm(terms []term, x term) []term {
	for i := range terms {
		if terms[i].atom.Key() == x.atom.Key() {
			terms[i].k += x.k
			return terms
		}
	}
	return append(terms, x)
}

// index computes an index.
func (b *builder) index(e *loop.Expr) func(f *frame) int {
	terms, c := linear(e)
	return b.sum(terms, c)
}

func (b *builder) sum(terms []term, c int) func(f *frame) int {
	var vars []struct{ slot, k int }
	type other struct {
		i func(f *frame) int64
		k int
	}
	var rest []other
	for _, t := range terms {
		switch {
		case t.k == 0:
		case t.atom.Kind == loop.VarRef:
			vars = append(vars, struct{ slot, k int }{b.variable(t.atom.Var), t.k})
		default:
			rest = append(rest, other{b.value(t.atom).i, t.k})
		}
	}
	if len(rest) > 0 {
		return func(f *frame) int {
			n := c
			for _, v := range vars {
				n += f.vars[v.slot] * v.k
			}
			for _, o := range rest {
				n += int(o.i(f)) * o.k
			}
			return n
		}
	}
	switch len(vars) {
	case 0:
		return func(*frame) int { return c }
	case 1:
		s, k := vars[0].slot, vars[0].k
		return func(f *frame) int { return c + f.vars[s]*k }
	case 2:
		s, k, t, l := vars[0].slot, vars[0].k, vars[1].slot, vars[1].k
		return func(f *frame) int { return c + f.vars[s]*k + f.vars[t]*l }
	}
	return func(f *frame) int {
		n := c
		for _, v := range vars {
			n += f.vars[v.slot] * v.k
		}
		return n
	}
}

// value makes an expression; what occurs several times in the statement and is
// some work is computed once.
func (b *builder) value(e *loop.Expr) val {
	k := e.Key()
	if v, ok := b.done[k]; ok {
		return v
	}
	v := b.make(e)
	if b.uses[k] > 1 && e.Kind != loop.Const && e.Kind != loop.VarRef && e.Kind != loop.RegRef && e.Cost() > 3 {
		v = b.once(v)
	}
	b.done[k] = v
	return v
}

func (b *builder) newMemo() int {
	b.c.sizes.memo++
	return b.c.sizes.memo - 1
}

func (b *builder) once(v val) val {
	m := b.newMemo()
	if v.f != nil {
		inner := v.f
		return val{f: func(f *frame) float64 {
			if p := &f.memo[m]; p.stamp == f.stamp {
				return p.f
			}
			x := inner(f)
			f.memo[m].f, f.memo[m].stamp = x, f.stamp
			return x
		}}
	}
	inner := v.i
	return val{i: func(f *frame) int64 {
		if p := &f.memo[m]; p.stamp == f.stamp {
			return p.i
		}
		x := inner(f)
		f.memo[m].i, f.memo[m].stamp = x, f.stamp
		return x
	}}
}

func (b *builder) make(e *loop.Expr) val {
	switch e.Kind {
	case loop.Const:
		if e.Type.IsFloat() {
			x := scalar.Round(e.Type, e.F)
			return val{f: func(*frame) float64 { return x }}
		}
		x := scalar.Wrap(e.Type, e.I)
		return val{i: func(*frame) int64 { return x }}
	case loop.VarRef:
		s := b.variable(e.Var)
		return val{i: func(f *frame) int64 { return int64(f.vars[s]) }}
	case loop.RegRef:
		s := b.register(e.Reg)
		if e.Type.IsFloat() {
			return val{f: func(f *frame) float64 { return f.fl[s] }}
		}
		return val{i: func(f *frame) int64 { return f.in[s] }}
	case loop.Load:
		return b.load(e)
	case loop.Select:
		c, x, y := b.value(e.Args[0]).i, b.value(e.Args[1]), b.value(e.Args[2])
		if e.Type.IsFloat() {
			return val{f: func(f *frame) float64 {
				if c(f) != 0 {
					return x.f(f)
				}
				return y.f(f)
			}}
		}
		return val{i: func(f *frame) int64 {
			if c(f) != 0 {
				return x.i(f)
			}
			return y.i(f)
		}}
	case loop.Cast:
		return b.cast(e)
	case loop.Bits:
		return b.bits(e)
	case loop.Call:
		return b.call(e)
	}
	reject("an expression of kind %d is not known", e.Kind)
	return val{}
}

func (b *builder) load(e *loop.Expr) val {
	at, q := b.index(e.Args[0]), b.buffer(e.Buf)
	switch d := e.Buf.Type; d {
	case tensor.F32:
		return val{f: func(f *frame) float64 { return float64(f.bufs[q].f32[at(f)]) }}
	case tensor.F64:
		return val{f: func(f *frame) float64 { return f.bufs[q].f64[at(f)] }}
	case tensor.F16, tensor.BF16:
		return val{f: func(f *frame) float64 { return scalar.FromBits(d, uint64(f.bufs[q].u16[at(f)])) }}
	case tensor.I8:
		return val{i: func(f *frame) int64 { return int64(f.bufs[q].i8[at(f)]) }}
	case tensor.I16:
		return val{i: func(f *frame) int64 { return int64(f.bufs[q].i16[at(f)]) }}
	case tensor.I32:
		return val{i: func(f *frame) int64 { return int64(f.bufs[q].i32[at(f)]) }}
	case tensor.I64, tensor.U64:
		return val{i: func(f *frame) int64 { return f.bufs[q].i64[at(f)] }}
	case tensor.U8, tensor.Bool:
		return val{i: func(f *frame) int64 { return int64(f.bufs[q].u8[at(f)]) }}
	case tensor.U16:
		return val{i: func(f *frame) int64 { return int64(f.bufs[q].u16[at(f)]) }}
	case tensor.U32:
		return val{i: func(f *frame) int64 { return int64(f.bufs[q].u32[at(f)]) }}
	}
	reject("a load of %s", e.Buf.Type)
	return val{}
}

func (b *builder) cast(e *loop.Expr) val {
	from, to := e.Args[0].Type, e.Type
	x := b.value(e.Args[0])
	switch {
	case from.IsFloat() && to.IsFloat():
		if to.Bits() > from.Bits() {
			return x
		}
		return val{f: func(f *frame) float64 { return scalar.Round(to, x.f(f)) }}
	case from.IsFloat():
		return val{i: func(f *frame) int64 { return scalar.FloatToInt(to, x.f(f)) }}
	case to.IsFloat():
		return val{f: func(f *frame) float64 { return scalar.IntToFloat(from, to, x.i(f)) }}
	}
	return val{i: func(f *frame) int64 { return scalar.IntToInt(to, x.i(f)) }}
}

func (b *builder) bits(e *loop.Expr) val {
	g := rebits(e.Args[0].Type, e.Type)
	x := b.value(e.Args[0])
	get := x.i
	if x.f != nil {
		get = func(f *frame) int64 { return int64(math.Float64bits(x.f(f))) }
	}
	if e.Type.IsFloat() {
		return val{f: func(f *frame) float64 { return math.Float64frombits(uint64(g(get(f)))) }}
	}
	return val{i: func(f *frame) int64 { return g(get(f)) }}
}

// rebits reads the bits of one type as another; floats come and go as the bits
// of float64 values.
func rebits(from, to tensor.DType) func(v int64) int64 {
	return func(v int64) int64 {
		if from.IsFloat() {
			v = int64(scalar.ToBits(from, math.Float64frombits(uint64(v))))
		}
		switch {
		case to.IsFloat():
			return int64(math.Float64bits(scalar.FromBits(to, uint64(v))))
		case to == tensor.Bool:
			return v & 0xff
		}
		return scalar.Wrap(to, v)
	}
}

func (b *builder) call(e *loop.Expr) val {
	x := b.value(e.Args[0])
	in := e.Args[0].Type
	switch {
	case e.Fn == "and" && e.Type == tensor.Bool:
		y := b.value(e.Args[1]).i
		return val{i: func(f *frame) int64 {
			if x.i(f) == 0 || y(f) == 0 {
				return 0
			}
			return 1
		}}
	case e.Fn == "clamp":
		lo, hi := b.value(e.Args[1]).i, b.value(e.Args[2]).i
		return val{i: func(f *frame) int64 { return min(max(x.i(f), lo(f)), hi(f)) }}
	case in == tensor.I64 && (e.Fn == "add" || e.Fn == "mul" && e.Args[1].Kind == loop.Const):
		i := b.index(e)
		return val{i: func(f *frame) int64 { return int64(i(f)) }}
	case len(e.Args) == 1 && in.IsFloat():
		if e.Type == tensor.Bool {
			t := lookup(e.Fn).T1
			return val{i: func(f *frame) int64 { return truth(t(x.f(f))) }}
		}
		g := unaryFloat(e.Fn, in)
		return val{f: func(f *frame) float64 { return g(x.f(f)) }}
	case len(e.Args) == 1:
		g := unaryInt(e.Fn, in)
		return val{i: func(f *frame) int64 { return g(x.i(f)) }}
	}
	y := b.value(e.Args[1])
	switch {
	case in.IsFloat() && e.Type == tensor.Bool:
		g := testFloat(e.Fn)
		return val{i: func(f *frame) int64 { return truth(g(x.f(f), y.f(f))) }}
	case in.IsFloat():
		g := binaryFloat(e.Fn, in)
		return val{f: func(f *frame) float64 { return g(x.f(f), y.f(f)) }}
	}
	g := binaryInt(e.Fn, in, e.Type)
	return val{i: func(f *frame) int64 { return g(x.i(f), y.i(f)) }}
}
