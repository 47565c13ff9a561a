package onnx

import (
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// activationOps are the elementwise functions of neural networks.
var activationOps = []Op{
	{Name: "Relu", Since: []int{1, 6, 13, 14}, Expand: func(c *Ctx) { c.Out(0, c.B.Relu(c.In(0))) }},
	activationRow("Sigmoid", (*core.Builder).Sigmoid, 1, 6, 13),
	activationRow("Softplus", softplus, 1, 22),
	activationRow("Softsign", func(b *core.Builder, x *ir.Value) *ir.Value {
		return b.Div(x, b.Add(b.Like(x, 1), b.Abs(x)))
	}, 1, 22),
	activationRow("Mish", mish, 18, 22),
	activationRow("HardSwish", func(b *core.Builder, x *ir.Value) *ir.Value {
		return b.Mul(x, hardSigmoid(b, x, 1.0/6, 0.5))
	}, 14, 22),
	{Name: "HardSigmoid", Since: []int{1, 6, 22}, Expand: func(c *Ctx) {
		a, o := c.N.Float("alpha", 0.2), c.N.Float("beta", 0.5)
		c.widened(func(b *core.Builder, x *ir.Value) *ir.Value { return hardSigmoid(b, x, a, o) })
	}},
	{Name: "LeakyRelu", Since: []int{1, 6, 16}, Expand: func(c *Ctx) {
		a := c.N.Float("alpha", 0.01)
		c.widened(func(b *core.Builder, x *ir.Value) *ir.Value {
			return b.Where(b.Lt(x, b.Like(x, 0)), b.Mul(x, b.Like(x, a)), x)
		})
	}},
	{Name: "PRelu", Since: []int{1, 6, 7, 9, 16}, Expand: expandPRelu},
	{Name: "Elu", Since: []int{1, 6, 22}, Expand: func(c *Ctx) {
		a := c.N.Float("alpha", 1)
		c.widened(func(b *core.Builder, x *ir.Value) *ir.Value { return elu(b, x, a, 1) })
	}},
	{Name: "Selu", Since: []int{1, 6, 22}, Expand: func(c *Ctx) {
		alpha, gamma := 1.67326319217681884765625, 1.05070102214813232421875
		if c.Version < 6 {
			alpha, gamma = 1.6732, 1.0507
		}
		alpha, gamma = c.N.Float("alpha", alpha), c.N.Float("gamma", gamma)
		c.widened(func(b *core.Builder, x *ir.Value) *ir.Value { return elu(b, x, alpha, gamma) })
	}},
	{Name: "Celu", Since: []int{12, 28}, Expand: func(c *Ctx) {
		a := c.N.Float("alpha", 1)
		c.widened(func(b *core.Builder, x *ir.Value) *ir.Value {
			zero := b.Like(x, 0)
			low := b.Mul(b.Like(x, a), b.Sub(b.Exp(b.Div(b.Min(x, zero), b.Like(x, a))), b.Like(x, 1)))
			return b.Where(b.Lt(zero, x), x, low)
		})
	}},
	{Name: "Gelu", Since: []int{20}, Expand: func(c *Ctx) {
		f := geluErf(c)
		if c.OneOf("approximate", c.N.Str("approximate", "none"), "none", "tanh") == "tanh" {
			f = geluTanh(c)
		}
		c.Out(0, widely(c, c.In(0), f))
	}},
	{Name: "ThresholdedRelu", Since: []int{1, 10, 22}, Expand: func(c *Ctx) {
		a := c.N.Float("alpha", 1)
		c.widened(func(b *core.Builder, x *ir.Value) *ir.Value {
			return b.Where(b.Lt(b.Like(x, a), x), x, b.Like(x, 0))
		})
	}},
	{Name: "Shrink", Since: []int{9}, Expand: expandShrink},
	{Name: "Swish", Since: []int{24}, Expand: func(c *Ctx) {
		a := c.N.Float("alpha", 1)
		c.widened(func(b *core.Builder, x *ir.Value) *ir.Value { return swish(b, x, a) })
	}},
	{Name: "SwiGLU", Since: []int{28}, Expand: func(c *Ctx) {
		x, y := c.In(0), c.In(1)
		t := wideType(x.DType())
		g := swish(c.B, c.B.Cast(x, t), c.N.Float("alpha", 1))
		c.Out(0, c.B.Cast(c.B.Mul(g, c.B.Cast(y, t)), x.DType()))
	}},
	{Name: "Hardmax", Since: []int{1, 11, 13}, Expand: expandHardmax},
}

// wideType is the type that a chain of operations is computed in, so that narrow
// floats are rounded once at its end.
func wideType(d tensor.DType) tensor.DType {
	if d.IsFloat() && d.Bits() < 32 {
		return tensor.F32
	}
	return d
}

// widened sets output 0 to f of input 0, computed in a wide type.
func (c *Ctx) widened(f func(b *core.Builder, x *ir.Value) *ir.Value) {
	x := c.In(0)
	c.Out(0, c.B.Cast(f(c.B, c.B.Cast(x, wideType(x.DType()))), x.DType()))
}

func activationRow(name string, f func(b *core.Builder, x *ir.Value) *ir.Value, since ...int) Op {
	return Op{Name: name, Since: since, Expand: func(c *Ctx) { c.widened(f) }}
}

// softplus is log(1+e^x), written so that e^x cannot overflow.
func softplus(b *core.Builder, x *ir.Value) *ir.Value {
	tail := b.Log(b.Add(b.Like(x, 1), b.Exp(b.Neg(b.Abs(x)))))
	return b.Add(b.Relu(x), tail)
}

// mish is x·tanh(softplus(x)), where tanh(log(1+e)) = n/(n+2) for n = e·(e+2):
// one exponential instead of three functions. Beyond 20 the quotient is 1.
func mish(b *core.Builder, x *ir.Value) *ir.Value {
	two := b.Like(x, 2)
	e := b.Exp(b.Min(x, b.Like(x, 20)))
	n := b.Mul(e, b.Add(e, two))
	return b.Mul(x, b.Div(n, b.Add(n, two)))
}

func hardSigmoid(b *core.Builder, x *ir.Value, alpha, beta float64) *ir.Value {
	y := b.Add(b.Mul(x, b.Like(x, alpha)), b.Like(x, beta))
	return b.Min(b.Max(y, b.Like(x, 0)), b.Like(x, 1))
}

// elu is gamma·x above zero, gamma·alpha·(e^x-1) else.
func elu(b *core.Builder, x *ir.Value, alpha, gamma float64) *ir.Value {
	zero := b.Like(x, 0)
	low := b.Sub(b.Exp(b.Min(x, zero)), b.Like(x, 1))
	high := x
	if gamma != 1 {
		high = b.Mul(x, b.Like(x, gamma))
	}
	if alpha*gamma != 1 {
		low = b.Mul(low, b.Like(x, alpha*gamma))
	}
	return b.Where(b.Lt(zero, x), high, low)
}

func swish(b *core.Builder, x *ir.Value, alpha float64) *ir.Value {
	y := x
	if alpha != 1 {
		y = b.Mul(x, b.Like(x, alpha))
	}
	return b.Mul(x, b.Sigmoid(y))
}

// expandPRelu multiplies negative elements by a slope: one per channel before
// opset 7, numpy broadcasting towards x since.
func expandPRelu(c *Ctx) {
	x, slope := c.In(0), c.In(1)
	if c.Version < 7 && slope.Rank() == 1 && x.Rank() > 1 {
		s := []int{slope.Static()[0]}
		for range x.Rank() - 2 {
			s = append(s, 1)
		}
		slope = c.B.Reshape(slope, s...)
	}
	slope = c.B.BroadcastTo(slope, x.Static()...)
	c.Out(0, c.B.Where(c.B.Lt(x, c.B.Like(x, 0)), c.B.Mul(x, slope), x))
}

// expandShrink moves elements beyond ±lambd towards zero by bias; integers are
// compared and moved as floats.
func expandShrink(c *Ctx) {
	x := c.In(0)
	lambd, bias := c.N.Float("lambd", 0.5), c.N.Float("bias", 0)
	t := wideType(x.DType())
	if x.DType().IsInteger() {
		t = tensor.F64
	}
	b, v := c.B, c.B.Cast(x, t)
	off := b.Like(v, bias)
	inner := b.Where(b.Lt(b.Like(v, lambd), v), b.Sub(v, off), b.Like(v, 0))
	c.Out(0, b.Cast(b.Where(b.Lt(v, b.Like(v, -lambd)), b.Add(v, off), inner), x.DType()))
}

// expandHardmax is 1 at the first maximum along the axis, 0 elsewhere; before
// opset 13 the axes from axis on count as one.
func expandHardmax(c *Ctx) {
	x := c.In(0)
	s := x.Static()
	if c.Version >= 13 {
		c.Out(0, hardmax(c.B, x, c.Axis(c.N.Int("axis", -1), len(s))))
		return
	}
	a := c.Axis(c.N.Int("axis", 1), len(s))
	flat := c.B.Reshape(x, tensor.Numel(s[:a]), tensor.Numel(s[a:]))
	c.Out(0, c.B.Reshape(hardmax(c.B, flat, 1), s...))
}

func hardmax(b *core.Builder, x *ir.Value, axis int) *ir.Value {
	at := b.ArgReduce("argmax", x, axis, false)
	return b.Cast(b.Eq(b.Iota(tensor.I64, axis, x.Static()...), at), x.DType())
}
