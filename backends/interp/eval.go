package interp

import (
	"github.com/lathe-ml/lathe/backends/scalar"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func (x *exec) eval(e *loop.Expr) value {
	if !x.shared[e] {
		return x.compute(e)
	}
	if v, ok := x.memo[e]; ok {
		return v
	}
	v := x.compute(e)
	if x.memo == nil {
		x.memo = map[*loop.Expr]value{}
	}
	x.memo[e] = v
	return v
}

func (x *exec) compute(e *loop.Expr) value {
	switch e.Kind {
	case loop.Const:
		if e.Type.IsFloat() {
			return value{F: scalar.Round(e.Type, e.F)}
		}
		return value{I: scalar.Wrap(e.Type, e.I)}
	case loop.VarRef:
		i, ok := x.vars[e.Var]
		if !ok {
			fail("loop variable %s is read outside its loop", e.Var.Name)
		}
		return value{I: i}
	case loop.RegRef:
		v, ok := x.regs[e.Reg]
		if !ok {
			fail("register %s is read before it is set", e.Reg.Name)
		}
		return v
	case loop.Load:
		return x.load(e.Buf, x.eval(e.Args[0]).I)
	case loop.Select:
		if x.eval(e.Args[0]).I != 0 {
			return x.eval(e.Args[1])
		}
		return x.eval(e.Args[2])
	case loop.Cast:
		return convert(e.Args[0].Type, e.Type, x.eval(e.Args[0]))
	case loop.Bits:
		return reinterpret(e.Args[0].Type, e.Type, x.eval(e.Args[0]))
	case loop.Call:
		return x.call(e)
	}
	fail("an expression of kind %d is not known", e.Kind)
	return value{}
}

func (x *exec) call(e *loop.Expr) value {
	a := x.eval(e.Args[0])
	switch {
	case e.Fn == "and" && e.Type == tensor.Bool:
		if a.I == 0 {
			return value{}
		}
		return truth(x.eval(e.Args[1]).I != 0)
	case e.Fn == "clamp":
		v := max(a.I, x.eval(e.Args[1]).I)
		return value{I: min(v, x.eval(e.Args[2]).I)}
	case len(e.Args) == 1:
		return apply(e.Fn, e.Args[0].Type, e.Type, a)
	}
	return apply(e.Fn, e.Args[0].Type, e.Type, a, x.eval(e.Args[1]))
}

func truth(b bool) value {
	if b {
		return value{I: 1}
	}
	return value{}
}

// apply computes a scalar function of one or two operands of type d, as a
// result of type to.
func apply(name string, d, to tensor.DType, v ...value) value {
	f := scalar.Lookup(name)
	if f == nil {
		fail("scalar function %s is not known", name)
	}
	float, unsigned := d.IsFloat(), d.Kind() == tensor.KindUint
	one := len(v) == 1
	switch {
	case f.Test && one:
		return truth(f.T1(v[0].F))
	case f.Test && float:
		return truth(f.FT(v[0].F, v[1].F))
	case f.Test && unsigned && f.UT != nil:
		return truth(f.UT(uint64(v[0].I), uint64(v[1].I)))
	case f.Test:
		return truth(f.IT(v[0].I, v[1].I))
	case float && one && f.F1 != nil:
		return value{F: scalar.Round(to, f.F1(v[0].F))}
	case float && !one && f.F2 != nil:
		return value{F: scalar.Round(to, f.F2(v[0].F, v[1].F))}
	case !float && one && f.I1 != nil:
		return value{I: scalar.Wrap(to, f.I1(v[0].I))}
	case !float && f.Shift:
		return value{I: shift(name, d, f, v[0].I, v[1].I)}
	case unsigned && !one && f.U2 != nil:
		return value{I: scalar.Wrap(to, int64(f.U2(uint64(v[0].I), uint64(v[1].I))))}
	case !float && !one && f.I2 != nil:
		return value{I: scalar.Wrap(to, f.I2(v[0].I, v[1].I))}
	}
	fail("scalar function %s has no meaning for %d operands of %s", name, len(v), d)
	return value{}
}

// shift moves bits; a count of the width or more moves all of them out.
func shift(name string, d tensor.DType, f *scalar.Func, a, n int64) int64 {
	if uint64(n) >= uint64(d.Bits()) {
		if name == "shr" && a < 0 && d.Kind() == tensor.KindInt {
			return -1
		}
		return 0
	}
	if d.Kind() == tensor.KindUint && f.U2 != nil {
		return scalar.Wrap(d, int64(f.U2(uint64(a), uint64(n))))
	}
	return scalar.Wrap(d, f.I2(a, n))
}

func convert(from, to tensor.DType, v value) value {
	switch {
	case from.IsFloat() && to.IsFloat():
		return value{F: scalar.Round(to, v.F)}
	case from.IsFloat():
		return value{I: scalar.FloatToInt(to, v.F)}
	case to.IsFloat():
		return value{F: scalar.IntToFloat(from, to, v.I)}
	}
	return value{I: scalar.IntToInt(to, v.I)}
}

func reinterpret(from, to tensor.DType, v value) value {
	bits := uint64(v.I)
	if from.IsFloat() {
		bits = scalar.ToBits(from, v.F)
	}
	if to.IsFloat() {
		return value{F: scalar.FromBits(to, bits)}
	}
	if to == tensor.Bool {
		return value{I: int64(bits & 0xff)}
	}
	return value{I: scalar.Wrap(to, int64(bits))}
}
