package onnx

import (
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// softmaxOps normalise exponentials, and the losses that build on them.
var softmaxOps = []Op{
	{Name: "Softmax", Since: []int{1, 11, 13}, Expand: func(c *Ctx) { c.Out(0, softmax(c, c.In(0), softmaxAxes(c))) }},
	{Name: "LogSoftmax", Since: []int{1, 11, 13}, Expand: func(c *Ctx) { c.Out(0, logSoftmax(c, c.In(0), softmaxAxes(c))) }},
	{Name: "NegativeLogLikelihoodLoss", Since: []int{12, 13, 22}, Expand: func(c *Ctx) {
		c.Out(0, pickedLoss(c, c.In(0), c.In(1), c.Opt(2)))
	}},
	{Name: "SoftmaxCrossEntropyLoss", Since: []int{12, 13}, Expand: func(c *Ctx) {
		logProb := logSoftmax(c, c.In(0), []int{1})
		c.Out(0, pickedLoss(c, logProb, c.In(1), c.Opt(2)))
		c.Out(1, logProb)
	}},
}

// softmaxAxes: one axis since opset 13; before, the axis and all after it are
// one (ONNX flattened the operand to two dimensions).
func softmaxAxes(c *Ctx) []int {
	rank := c.In(0).Rank()
	if c.Version >= 13 {
		return []int{c.Axis(c.N.Int("axis", -1), rank)}
	}
	a := c.N.Int("axis", 1)
	if a != rank { // flattening at the rank leaves columns of one element
		a = c.Axis(a, rank)
	}
	return count(a, rank)
}

func softmax(c *Ctx, x *ir.Value, axes []int) *ir.Value {
	return widely(c, x, func(x *ir.Value) *ir.Value {
		e := c.B.Exp(c.B.Sub(x, c.B.Reduce("reduce_max", x, true, axes...)))
		sum := c.B.Reduce("reduce_sum", e, true, axes...)
		return c.B.Mul(e, c.B.Div(c.B.Like(x, 1), sum)) // one division per row
	})
}

func logSoftmax(c *Ctx, x *ir.Value, axes []int) *ir.Value {
	return widely(c, x, func(x *ir.Value) *ir.Value {
		d := c.B.Sub(x, c.B.Reduce("reduce_max", x, true, axes...))
		return c.B.Sub(d, c.B.Log(c.B.Reduce("reduce_sum", c.B.Exp(d), true, axes...)))
	})
}

// pickedLoss is the weighted negative of x[n,target[n,…],…]. A target is picked
// by a mask over the classes, so that an ignored one may be any number.
func pickedLoss(c *Ctx, x, target, weight *ir.Value) *ir.Value {
	b := c.B
	s := core.Shape(x)
	if len(s) < 2 || target.Rank() != len(s)-1 {
		c.Fail("scores %s and targets %s do not fit", x.Type, target.Type)
	}
	reduction := c.OneOf("reduction", c.N.Str("reduction", "mean"), "none", "sum", "mean")
	ts := core.Shape(target)
	t := b.Reshape(target, append([]int{ts[0], 1}, ts[1:]...)...)
	class := b.Iota(t.DType(), 1, unitAxes(len(s), 1, s[1])...)
	hit := b.Eq(class, t)
	calc := tensor.F32
	if x.DType() == tensor.F64 {
		calc = tensor.F64
	}
	zero := b.Scalar(calc, 0)
	loss := b.Neg(b.Reduce("reduce_sum", b.Where(hit, b.Cast(x, calc), zero), true, 1))
	// w is each element's weight; nil where all are 1.
	var w *ir.Value
	if weight != nil {
		each := b.Reshape(b.Cast(weight, calc), unitAxes(len(s), 1, s[1])...)
		w = b.Reduce("reduce_sum", b.Where(hit, each, zero), true, 1)
		loss = b.Mul(loss, w)
	}
	if _, ok := c.N.Attr("ignore_index"); ok {
		ignored := b.Eq(t, b.ScalarInt(t.DType(), int64(c.N.Int("ignore_index", 0))))
		if w == nil {
			w = b.Scalar(calc, 1)
		}
		w = b.Where(ignored, zero, w)
		loss = b.Where(ignored, zero, loss)
	}
	loss = b.Drop(loss, 1)
	all := count(0, loss.Rank())
	switch reduction {
	case "sum":
		loss = b.Reduce("reduce_sum", loss, false, all...)
	case "mean":
		n := b.Scalar(calc, float64(extent(loss, all)))
		if w != nil {
			n = b.Reduce("reduce_sum", b.Drop(w, 1), false, all...)
		}
		loss = b.Div(b.Reduce("reduce_sum", loss, false, all...), n)
	}
	return b.Cast(loss, x.DType())
}
