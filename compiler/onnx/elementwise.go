package onnx

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// elementwiseOps compute each output element from the input elements at its
// place, with numpy broadcasting.
var elementwiseOps = []Op{
	{Name: "Abs", Since: []int{1, 6, 13}, Expand: func(c *Ctx) {
		x := c.In(0)
		if x.DType().Kind() != tensor.KindUint { // those are their own
			x = c.B.Abs(x)
		}
		c.Out(0, x)
	}},
	{Name: "Sign", Since: []int{9, 13}, Expand: func(c *Ctx) {
		x := c.In(0)
		if x.DType().Kind() == tensor.KindUint {
			c.Out(0, c.B.Min(x, c.B.Like(x, 1)))
			return
		}
		c.Out(0, c.B.Unary("sign", x))
	}},
	unary("Neg", "neg", 1, 6, 13),
	unary("Exp", "exp", 1, 6, 13),
	unary("Log", "log", 1, 6, 13),
	unary("Sqrt", "sqrt", 1, 6, 13),
	unary("Floor", "floor", 1, 6, 13),
	unary("Ceil", "ceil", 1, 6, 13),
	unary("Round", "round", 11, 22),
	unary("Erf", "erf", 9, 13),
	unary("Sin", "sin", 7, 22),
	unary("Cos", "cos", 7, 22),
	unary("Tan", "tan", 7, 22),
	unary("Asin", "asin", 7, 22),
	unary("Acos", "acos", 7, 22),
	unary("Atan", "atan", 7, 22),
	unary("Sinh", "sinh", 9, 22),
	unary("Cosh", "cosh", 9, 22),
	unary("Tanh", "tanh", 1, 6, 13),
	unary("Asinh", "asinh", 9, 22),
	unary("Acosh", "acosh", 9, 22),
	unary("Atanh", "atanh", 9, 22),
	unary("IsNaN", "isnan", 9, 13, 20),
	unary("Not", "not", 1),
	unary("BitwiseNot", "not", 18),
	{Name: "Reciprocal", Since: []int{1, 6, 13}, Expand: func(c *Ctx) {
		x := c.In(0)
		c.Out(0, c.B.Div(c.B.Like(x, 1), x))
	}},
	{Name: "IsInf", Since: []int{10, 20}, Expand: expandIsInf},

	binary("Add", "add", 1, 6, 7, 13, 14),
	binary("Sub", "sub", 1, 6, 7, 13, 14),
	binary("Mul", "mul", 1, 6, 7, 13, 14),
	binary("Div", "div", 1, 6, 7, 13, 14),
	binary("And", "and", 1, 7),
	binary("Or", "or", 1, 7),
	binary("Xor", "xor", 1, 7),
	binary("BitwiseAnd", "and", 18),
	binary("BitwiseOr", "or", 18),
	binary("BitwiseXor", "xor", 18),
	{Name: "BitShift", Since: []int{11}, Expand: func(c *Ctx) {
		op := map[string]string{"LEFT": "shl", "RIGHT": "shr"}[c.OneOf("direction", c.N.Str("direction", ""), "LEFT", "RIGHT")]
		c.Out(0, c.B.Binary(op, c.In(0), c.In(1)))
	}},
	{Name: "Mod", Since: []int{10, 13}, Expand: func(c *Ctx) {
		op := "mod"
		if c.N.Int("fmod", 0) == 1 {
			op = "fmod"
		}
		c.Out(0, c.B.Binary(op, c.In(0), c.In(1)))
	}},
	{Name: "Pow", Since: []int{1, 7, 12, 13, 15}, Expand: expandPow},

	variadic("Max", (*core.Builder).Max, 1, 6, 8, 12, 13),
	variadic("Min", (*core.Builder).Min, 1, 6, 8, 12, 13),
	variadic("Sum", (*core.Builder).Add, 1, 6, 8, 13),
	{Name: "Mean", Since: []int{1, 6, 8, 13}, Expand: func(c *Ctx) {
		s := c.fold((*core.Builder).Add)
		c.Out(0, c.B.Div(s, c.B.Like(s, float64(c.NIn()))))
	}},
	{Name: "Clip", Since: []int{1, 6, 11, 12, 13}, Expand: expandClip},
}

// unary is the row of an op that is a core op of one operand.
func unary(name, op string, since ...int) Op {
	return Op{Name: name, Since: since, Expand: func(c *Ctx) { c.Out(0, c.B.Unary(op, c.In(0))) }}
}

// binary is the row of an op that is a core op of two operands.
func binary(name, op string, since ...int) Op {
	return Op{Name: name, Since: since, Expand: func(c *Ctx) {
		x, y := c.operands()
		c.Out(0, c.B.Binary(op, x, y))
	}}
}

// operands are inputs 0 and 1, made ready for numpy broadcasting.
func (c *Ctx) operands() (x, y *ir.Value) {
	x, y = c.In(0), c.In(1)
	if c.Version < 7 {
		y = c.legacyBroadcast(x, y)
	}
	return x, y
}

// legacyBroadcast brings y to numpy's rules from those of opsets before 7: only
// with broadcast=1, and then y's axes match those of x from the axis attribute
// on, or the last ones.
func (c *Ctx) legacyBroadcast(x, y *ir.Value) *ir.Value {
	xs, ys := x.Static(), y.Static()
	if c.N.Int("broadcast", 0) == 0 {
		if !slices.Equal(xs, ys) && tensor.Numel(ys) != 1 {
			c.Fail("shapes %s and %s differ and broadcast is not set", tensor.ShapeString(xs), tensor.ShapeString(ys))
		}
		return y
	}
	if _, ok := c.N.Attr("axis"); !ok {
		return y
	}
	a := c.N.Int("axis", 0)
	if a < 0 {
		a += len(xs)
	}
	if a < 0 || a+len(ys) > len(xs) {
		c.Fail("axis %d: %s does not fit into %s", a, tensor.ShapeString(ys), tensor.ShapeString(xs))
	}
	return c.B.Reshape(y, append(slices.Clone(ys), slices.Repeat([]int{1}, len(xs)-a-len(ys))...)...)
}

// broadcastShape is core.BroadcastShape for a node's operands.
func broadcastShape(_ *Ctx, shapes ...[]int) []int { return core.BroadcastShape(shapes...) }

// fold combines all inputs from left to right.
func (c *Ctx) fold(f func(b *core.Builder, x, y *ir.Value) *ir.Value) *ir.Value {
	v := c.In(0)
	for i := 1; i < c.NIn(); i++ {
		v = f(c.B, v, c.In(i))
	}
	return v
}

func variadic(name string, f func(b *core.Builder, x, y *ir.Value) *ir.Value, since ...int) Op {
	return Op{Name: name, Since: since, Expand: func(c *Ctx) { c.Out(0, c.fold(f)) }}
}

func expandIsInf(c *Ctx) {
	x := c.In(0)
	if x.DType().Bits() <= 8 { // types without infinities cannot hold the constant
		x = c.B.Cast(x, tensor.F32)
	}
	pos, neg := c.N.Int("detect_positive", 1) == 1, c.N.Int("detect_negative", 1) == 1
	switch {
	case pos && neg:
		c.Out(0, c.B.Eq(c.B.Abs(x), c.B.Like(x, math.Inf(1))))
	case pos:
		c.Out(0, c.B.Eq(x, c.B.Like(x, math.Inf(1))))
	case neg:
		c.Out(0, c.B.Eq(x, c.B.Like(x, math.Inf(-1))))
	default:
		c.Out(0, c.B.BroadcastTo(c.B.ScalarInt(tensor.Bool, 0), x.Static()...))
	}
}

// expandPow gives the type of the base; the exponent may have another one.
func expandPow(c *Ctx) {
	x, y := c.operands()
	d := x.DType()
	if t := y.Const; t != nil && t.Len() == 1 && t.DType.IsNumeric() && y.Rank() <= x.Rank() && d.IsFloat() {
		if p := power(c.B, x, t.Float(0)); p != nil {
			c.Out(0, p)
			return
		}
	}
	if y.DType() == d {
		c.Out(0, c.B.Pow(x, y))
		return
	}
	// In float64 every exponent is exact, save integers beyond 2^53.
	t := tensor.F64
	if d.IsInteger() && y.DType().IsInteger() {
		t = tensor.I64
	} else if d == tensor.F32 && (y.DType().IsFloat() || y.DType().Bits() <= 16) && y.DType() != tensor.F64 {
		t = tensor.F32
	}
	c.Out(0, c.B.Cast(c.B.Pow(c.B.Cast(x, t), c.B.Cast(y, t)), d))
}

// power is x to a constant power as products, quotients and roots, which cost
// a tenth of what the function does; nil for most powers.
func power(b *core.Builder, x *ir.Value, p float64) *ir.Value {
	root := func() *ir.Value { // unlike the square root it is without a sign for −0 and −∞
		signed := b.Or(b.Eq(x, b.Like(x, 0)), b.Eq(x, b.Like(x, math.Inf(-1))))
		return b.Where(signed, b.Abs(x), b.Sqrt(x))
	}
	one := b.Like(x, 1)
	switch p {
	case 1:
		return x
	case 2:
		return b.Mul(x, x)
	case 3:
		return b.Mul(b.Mul(x, x), x)
	case -1:
		return b.Div(one, x)
	case 0.5:
		return root()
	case -0.5:
		return b.Div(one, root())
	case 0.75:
		r := root()
		return b.Mul(r, b.Sqrt(r))
	}
	return nil
}

// expandClip is min(max(x, lo), hi): where lo > hi, hi wins.
func expandClip(c *Ctx) {
	x := c.In(0)
	var lo, hi *ir.Value
	if c.Version < 11 {
		if _, ok := c.N.Attr("min"); ok {
			lo = c.B.Like(x, c.N.Float("min", 0))
		}
		if _, ok := c.N.Attr("max"); ok {
			hi = c.B.Like(x, c.N.Float("max", 0))
		}
	} else {
		lo, hi = c.scalarOpt(1), c.scalarOpt(2)
	}
	if lo != nil {
		x = c.B.Max(x, lo)
	}
	if hi != nil {
		x = c.B.Min(x, hi)
	}
	c.Out(0, x)
}

// scalarOpt is an optional operand of one element, as rank 0.
func (c *Ctx) scalarOpt(i int) *ir.Value {
	v := c.Opt(i)
	if v == nil {
		return nil
	}
	if n := tensor.Numel(v.Static()); n != 1 {
		c.Fail("input %d has %d elements, needs one", i, n)
	}
	return c.B.Reshape(v)
}
