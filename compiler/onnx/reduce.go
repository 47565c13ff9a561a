package onnx

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// reduceOps fold axes, or run along one.
var reduceOps = []Op{
	reduceRow("ReduceSum", []int{1, 11, 13, 28}, 13, func(c *Ctx, x *ir.Value, axes []int) *ir.Value {
		return c.B.Reduce("reduce_sum", x, true, axes...)
	}),
	reduceRow("ReduceProd", []int{1, 11, 13, 18, 28}, 18, func(c *Ctx, x *ir.Value, axes []int) *ir.Value {
		return c.B.Reduce("reduce_prod", x, true, axes...)
	}),
	reduceRow("ReduceMax", []int{1, 11, 12, 13, 18, 20, 28}, 18, func(c *Ctx, x *ir.Value, axes []int) *ir.Value {
		return c.B.Reduce("reduce_max", x, true, axes...)
	}),
	reduceRow("ReduceMin", []int{1, 11, 12, 13, 18, 20, 28}, 18, func(c *Ctx, x *ir.Value, axes []int) *ir.Value {
		return c.B.Reduce("reduce_min", x, true, axes...)
	}),
	reduceRow("ReduceMean", []int{1, 11, 13, 18, 28}, 18, meanOver),
	reduceRow("ReduceL1", []int{1, 11, 13, 18, 28}, 18, func(c *Ctx, x *ir.Value, axes []int) *ir.Value {
		return c.B.Reduce("reduce_sum", magnitude(c, x), true, axes...)
	}),
	reduceRow("ReduceL2", []int{1, 11, 13, 18, 28}, 18, reduceL2),
	reduceRow("ReduceSumSquare", []int{1, 11, 13, 18, 28}, 18, func(c *Ctx, x *ir.Value, axes []int) *ir.Value {
		return c.B.Reduce("reduce_sum", c.B.Mul(x, x), true, axes...)
	}),
	reduceRow("ReduceLogSum", []int{1, 11, 13, 18, 28}, 18, func(c *Ctx, x *ir.Value, axes []int) *ir.Value {
		return viaFloat(c, x, func(x *ir.Value) *ir.Value { return c.B.Log(c.B.Reduce("reduce_sum", x, true, axes...)) })
	}),
	reduceRow("ReduceLogSumExp", []int{1, 11, 13, 18, 28}, 18, reduceLogSumExp),
	argRow("ArgMax", "argmax"),
	argRow("ArgMin", "argmin"),
	cumulateRow("CumSum", "sum", 11, 14),
	cumulateRow("CumProd", "prod", 26),
}

// reduceRow is an op that folds axes, given as attribute before the version
// input and as an input from it on. f keeps the folded axes as size 1.
func reduceRow(name string, since []int, input int, f func(c *Ctx, x *ir.Value, axes []int) *ir.Value) Op {
	return Op{Name: name, Since: since, Expand: func(c *Ctx) {
		x := c.In(0)
		var axes []int
		if c.Version >= input {
			axes = c.Ints(1, "axes")
		} else {
			axes = c.N.Ints("axes")
		}
		switch {
		case len(axes) > 0:
			axes = c.Axes(axes, x.Rank())
		case c.N.Int("noop_with_empty_axes", 0) == 0:
			axes = count(0, x.Rank())
		}
		y := f(c, x, axes)
		if c.N.Int("keepdims", 1) == 0 {
			y = c.B.Drop(y, axes...)
		}
		c.Out(0, y)
	}}
}

// magnitude is |x|, which is x itself where the type has no sign.
func magnitude(c *Ctx, x *ir.Value) *ir.Value {
	if x.DType().Kind() == tensor.KindUint {
		return x
	}
	return c.B.Abs(x)
}

// narrow reports a float type that composite ops compute in f32.
func narrow(d tensor.DType) bool { return d.IsFloat() && d.Bits() < 32 }

// wide is x in the type that composite ops compute in: f32 for narrower floats.
func wide(c *Ctx, x *ir.Value) *ir.Value {
	if narrow(x.DType()) {
		return c.B.Cast(x, tensor.F32)
	}
	return x
}

// widely applies f in f32 to narrower floats, and as it is to other types.
func widely(c *Ctx, x *ir.Value, f func(x *ir.Value) *ir.Value) *ir.Value {
	return c.B.Cast(f(wide(c, x)), x.DType())
}

// viaFloat applies f to x, through f64 where x is of an integer type and f
// (roots, logarithms) is not defined for those.
func viaFloat(c *Ctx, x *ir.Value, f func(x *ir.Value) *ir.Value) *ir.Value {
	if x.DType().IsInteger() {
		return c.B.Cast(f(c.B.Cast(x, tensor.F64)), x.DType())
	}
	return widely(c, x, f)
}

// extent is the number of elements that folding axes brings together.
func extent(x *ir.Value, axes []int) int {
	n := 1
	for _, a := range axes {
		n *= core.Shape(x)[a]
	}
	return n
}

// meanOver is the mean over axes, which stay as size 1.
func meanOver(c *Ctx, x *ir.Value, axes []int) *ir.Value {
	n := extent(x, axes)
	if x.DType().IsInteger() && n == 0 {
		c.Fail("the mean of no integers")
	}
	return widely(c, x, func(x *ir.Value) *ir.Value {
		s := c.B.Reduce("reduce_sum", x, true, axes...)
		if x.DType().IsInteger() {
			return c.B.Div(s, c.B.ScalarInt(x.DType(), int64(n)))
		}
		return c.B.Div(s, c.B.Like(x, float64(n)))
	})
}

func reduceL2(c *Ctx, x *ir.Value, axes []int) *ir.Value {
	return viaFloat(c, x, func(x *ir.Value) *ir.Value {
		return c.B.Sqrt(c.B.Reduce("reduce_sum", c.B.Mul(x, x), true, axes...))
	})
}

// reduceLogSumExp shifts by the maximum, so that exp does not overflow; an
// infinite maximum is no shift.
func reduceLogSumExp(c *Ctx, x *ir.Value, axes []int) *ir.Value {
	b := c.B
	return viaFloat(c, x, func(x *ir.Value) *ir.Value {
		m := b.Reduce("reduce_max", x, true, axes...)
		m = b.Where(b.Lt(b.Abs(m), b.Like(m, math.Inf(1))), m, b.Like(m, 0))
		return b.Add(m, b.Log(b.Reduce("reduce_sum", b.Exp(b.Sub(x, m)), true, axes...)))
	})
}

func argRow(name, op string) Op {
	return Op{Name: name, Since: []int{1, 11, 12, 13}, Expand: func(c *Ctx) {
		x := c.In(0)
		axis := c.Axis(c.N.Int("axis", 0), x.Rank())
		y := c.B.ArgReduce(op, x, axis, c.N.Int("select_last_index", 0) != 0)
		if c.N.Int("keepdims", 1) == 0 {
			y = c.B.Drop(y, axis)
		}
		c.Out(0, y)
	}}
}

func cumulateRow(name, op string, since ...int) Op {
	return Op{Name: name, Since: since, Expand: func(c *Ctx) {
		x := c.In(0)
		axes := c.Ints(1, "axis")
		if len(axes) != 1 {
			c.Fail("axis has %d elements", len(axes))
		}
		axis := c.Axis(axes[0], x.Rank())
		c.Out(0, c.B.Cumulate(op, x, axis, c.N.Int("exclusive", 0) != 0, c.N.Int("reverse", 0) != 0))
	}}
}

// unitAxes is a shape of the given rank that has size n at axis and 1 elsewhere:
// how a per-channel vector meets a tensor.
func unitAxes(rank, axis, n int) []int {
	s := slices.Repeat([]int{1}, rank)
	s[axis] = n
	return s
}
