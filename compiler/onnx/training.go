package onnx

import (
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

const training = "ai.onnx.preview.training"

// trainingOps are one step of an optimiser over any number of tensors: inputs
// are R (learning rate), T (step count), then all tensors, all their gradients,
// and all of each state; outputs are the new tensors, then the new states.
var trainingOps = []Op{
	{Domain: training, Name: "Adagrad", Since: []int{1}, Expand: optimiser(1, adagrad)},
	{Domain: training, Name: "Adam", Since: []int{1}, Expand: optimiser(2, adam)},
	{Domain: training, Name: "Momentum", Since: []int{1}, Expand: optimiser(1, momentum)},
	{Domain: training, Name: "Gradient", Since: []int{1}, Expand: func(c *Ctx) {
		c.Unsupported("the gradient as a node of the model")
	}},
}

// step computes a new tensor and new states from R, T (a scalar integer), the
// tensor, its gradient and its states.
type step func(c *Ctx, r, t, x, g *ir.Value, states []*ir.Value) (*ir.Value, []*ir.Value)

func optimiser(states int, f step) func(c *Ctx) {
	return func(c *Ctx) {
		n := (c.NIn() - 2) / (2 + states)
		if n < 1 || c.NIn() != 2+n*(2+states) {
			c.Fail("%d inputs", c.NIn())
		}
		r, t := c.B.Reshape(c.In(0)), c.B.Reshape(c.In(1))
		for i := range n {
			var old []*ir.Value
			for s := range states {
				old = append(old, c.In(2+(2+s)*n+i))
			}
			x := c.In(2 + i)
			y, now := f(c, c.B.Cast(r, x.DType()), t, x, c.In(2+n+i), old)
			c.Out(i, y)
			for s, v := range now {
				c.Out((1+s)*n+i, v)
			}
		}
	}
}

// regularised adds the gradient of the L2 penalty.
func regularised(c *Ctx, name string, x, g *ir.Value) *ir.Value {
	if k := c.N.Float(name, 0); k != 0 {
		return c.B.Add(g, c.B.Mul(x, c.B.Like(x, k)))
	}
	return g
}

func adagrad(c *Ctx, r, t, x, g *ir.Value, s []*ir.Value) (*ir.Value, []*ir.Value) {
	b := c.B
	decay := b.Mul(b.Cast(t, x.DType()), b.Like(x, c.N.Float("decay_factor", 0)))
	r = b.Div(r, b.Add(b.Like(x, 1), decay))
	g = regularised(c, "norm_coefficient", x, g)
	h := b.Add(s[0], b.Mul(g, g))
	adapted := b.Add(b.Sqrt(h), b.Like(x, c.N.Float("epsilon", float64(float32(1e-6)))))
	return b.Sub(x, b.Div(b.Mul(r, g), adapted)), []*ir.Value{h}
}

func adam(c *Ctx, r, t, x, g *ir.Value, s []*ir.Value) (*ir.Value, []*ir.Value) {
	b := c.B
	alpha, beta := c.N.Float("alpha", float64(float32(0.9))), c.N.Float("beta", float64(float32(0.999)))
	g = regularised(c, "norm_coefficient", x, g)
	v := b.Add(b.Mul(s[0], b.Like(x, alpha)), b.Mul(g, b.Like(x, 1-alpha)))
	h := b.Add(b.Mul(s[1], b.Like(x, beta)), b.Mul(b.Mul(g, g), b.Like(x, 1-beta)))
	root := b.Add(b.Sqrt(h), b.Like(x, c.N.Float("epsilon", float64(float32(1e-6)))))
	// The correction of the first steps' bias; there is none at step 0.
	steps := b.Cast(t, tensor.F64)
	one := b.Scalar(tensor.F64, 1)
	power := func(base float64) *ir.Value { return b.Sub(one, b.Pow(b.Scalar(tensor.F64, base), steps)) }
	corrected := b.Mul(b.Cast(r, tensor.F64), b.Div(b.Sqrt(power(beta)), power(alpha)))
	r = b.Where(b.Lt(b.Scalar(tensor.F64, 0), steps), b.Cast(corrected, x.DType()), r)
	y := b.Sub(x, b.Mul(r, b.Div(v, root)))
	if k := c.N.Float("norm_coefficient_post", 0); k != 0 {
		y = b.Mul(y, b.Like(x, 1-k))
	}
	return y, []*ir.Value{v, h}
}

func momentum(c *Ctx, r, t, x, g *ir.Value, s []*ir.Value) (*ir.Value, []*ir.Value) {
	b := c.B
	mode := c.OneOf("mode", c.N.Str("mode", "standard"), "standard", "nesterov")
	alpha, beta := b.Like(x, c.N.Float("alpha", 0)), b.Like(x, c.N.Float("beta", 0))
	g = regularised(c, "norm_coefficient", x, g)
	// The first step takes the gradient whole.
	first := b.Le(t, b.ScalarInt(t.DType(), 0))
	v := b.Add(b.Mul(alpha, s[0]), b.Mul(b.Where(first, b.Like(x, 1), beta), g))
	move := v
	if mode == "nesterov" {
		move = b.Add(g, b.Mul(alpha, v))
	}
	return b.Sub(x, b.Mul(r, move)), []*ir.Value{v}
}
