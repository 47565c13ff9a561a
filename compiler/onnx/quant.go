package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// quantOps convert between floats and scaled integers.
var quantOps = []Op{
	{Name: "QuantizeLinear", Since: []int{10, 13, 19, 21, 23, 24, 25}, Expand: expandQuantize},
	{Name: "DequantizeLinear", Since: []int{10, 13, 19, 21, 23, 24, 25}, Expand: expandDequantize},
	{Name: "DynamicQuantizeLinear", Since: []int{11}, Expand: expandDynamicQuantize},
	{Domain: microsoft, Name: "QuantizeLinear", Since: []int{1}, Expand: expandQuantize},
	{Domain: microsoft, Name: "DequantizeLinear", Since: []int{1}, Expand: expandDequantize},
}

// spreadParam brings a scale or zero point to a shape that broadcasts to x: a
// scalar, one value per index of axis, or one per block of block consecutive
// indices of axis.
func spreadParam(c *Ctx, p, x *ir.Value, axis, block int) *ir.Value {
	b := c.B
	s, xs := core.Shape(p), core.Shape(x)
	switch {
	case block == 0 && len(s) <= 1 && tensor.Numel(s) == 1:
		return b.Reshape(p)
	case block == 0 && len(s) == 1:
		axis = c.Axis(axis, len(xs))
		if s[0] != xs[axis] {
			c.Fail("%d scales or zero points for axis %d of %s", s[0], axis, x.Type)
		}
		return b.Reshape(p, unitAxes(len(xs), axis, s[0])...)
	}
	axis = c.Axis(axis, len(xs))
	if block == 0 && slices.Equal(s, xs) {
		return p
	}
	if block < 1 || len(s) != len(xs) || s[axis] != (xs[axis]+block-1)/block {
		c.Fail("scales or zero points %s for %s, axis %d, block_size %d", p.Type, x.Type, axis, block)
	}
	split := slices.Insert(slices.Clone(s), axis+1, 1)
	wide := slices.Clone(split)
	wide[axis+1] = block
	p = b.BroadcastTo(b.Reshape(p, split...), wide...)
	s = slices.Clone(s)
	s[axis] *= block
	p = b.Reshape(p, s...)
	return b.SliceAxis(p, axis, 0, xs[axis])
}

// isZero reports a constant of zeros.
func isZero(v *ir.Value) bool {
	if v == nil {
		return true
	}
	if v.Const == nil || v.Const.Len() > 1<<16 {
		return false
	}
	for i := range v.Const.Len() {
		if v.Const.Float(i) != 0 {
			return false
		}
	}
	return true
}

// quantization are the operands of a linear quantization, ready to broadcast.
type quantization struct {
	scale *ir.Value
	zero  *ir.Value // nil: none
}

// dequantize is (x-zero)·scale, computed in f32 (f64 for such a scale).
func (q quantization) dequantize(c *Ctx, x *ir.Value) *ir.Value {
	b := c.B
	scale := wide(c, q.scale)
	y := b.Cast(x, scale.DType())
	if q.zero != nil && !isZero(q.zero) {
		y = b.Sub(y, b.Cast(q.zero, scale.DType()))
	}
	return b.Mul(y, scale)
}

// quantize is x/scale rounded to nearest even, plus zero, saturated to an
// integer type; x and the scale have one float type.
func (q quantization) quantize(c *Ctx, x *ir.Value, d tensor.DType) *ir.Value {
	b := c.B
	r := b.Round(b.Div(x, q.scale))
	return saturated(c, wide(c, r), q.zero, d)
}

// saturated adds a zero point to whole numbers and clamps them to a type.
func saturated(c *Ctx, r, zero *ir.Value, d tensor.DType) *ir.Value {
	b := c.B
	if zero != nil && !isZero(zero) {
		r = b.Add(r, b.Cast(zero, r.DType()))
	}
	lo, hi := d.IntRange()
	r = b.Min(b.Max(r, b.Like(r, float64(lo))), b.Like(r, float64(hi)))
	return b.Cast(r, d)
}

func expandQuantize(c *Ctx) {
	b := c.B
	x, scale, zero := c.In(0), c.In(1), c.Opt(2)
	axis, block := c.N.Int("axis", 1), c.N.Int("block_size", 0)
	out := tensor.U8
	if d := tensor.DType(c.N.Int("output_dtype", 0)); d != tensor.Invalid {
		out = d
		if zero != nil && zero.DType() != d {
			c.Fail("output_dtype is %s, the zero point %s", d.ONNX(), zero.DType().ONNX())
		}
	} else if zero != nil {
		out = zero.DType()
	}
	calc := scale.DType()
	if p := tensor.DType(c.N.Int("precision", 0)); p != tensor.Invalid {
		calc = p
	}
	if !calc.IsFloat() {
		c.Fail("scale of type %s", calc.ONNX())
	}
	if calc == tensor.F8E8M0 {
		calc = tensor.F32
	}
	q := quantization{scale: b.Cast(spreadParam(c, scale, x, axis, block), calc)}
	if zero != nil {
		q.zero = spreadParam(c, zero, x, axis, block)
	}
	x = b.Cast(x, calc)
	switch {
	case out.IsInteger() && out.Bits() <= 16:
		c.Out(0, q.quantize(c, x, out))
	case out.IsFloat() && out.Bits() <= 8:
		y := wide(c, b.Div(x, q.scale))
		if !isZero(q.zero) {
			y = b.Add(y, b.Cast(q.zero, y.DType()))
		}
		c.Out(0, b.Node("cast", []*ir.Value{y}, "to", out, "saturate", c.N.Int("saturate", 1)))
	default:
		c.Unsupported("quantizing to %s", out.ONNX())
	}
}

func expandDequantize(c *Ctx) {
	x, scale, zero := c.In(0), c.In(1), c.Opt(2)
	axis, block := c.N.Int("axis", 1), c.N.Int("block_size", 0)
	out := scale.DType()
	if d := tensor.DType(c.N.Int("output_dtype", 0)); d != tensor.Invalid {
		out = d
	}
	if zero != nil && zero.DType() != x.DType() {
		c.Fail("zero point of type %s for %s", zero.DType().ONNX(), x.DType().ONNX())
	}
	q := quantization{scale: spreadParam(c, scale, x, axis, block)}
	if zero != nil {
		q.zero = spreadParam(c, zero, x, axis, block)
	}
	c.Out(0, c.B.Cast(q.dequantize(c, x), out))
}

// expandDynamicQuantize takes the range of x, extended to hold zero, to the
// range of u8.
func expandDynamicQuantize(c *Ctx) {
	y, scale, zero := dynamicQuantize(c, c.In(0))
	c.Out(0, y)
	c.Out(1, scale)
	c.Out(2, zero)
}

func dynamicQuantize(c *Ctx, x *ir.Value) (y, scale, zero *ir.Value) {
	b := c.B
	axes := count(0, x.Rank())
	none := b.Like(x, 0)
	lo := b.Min(b.Reduce("reduce_min", x, false, axes...), none)
	hi := b.Max(b.Reduce("reduce_max", x, false, axes...), none)
	scale = b.Div(b.Sub(hi, lo), b.Like(x, 255))
	// A tensor of zeros has any scale.
	scale = b.Where(b.Eq(scale, none), b.Like(x, 1), scale)
	z := b.Round(b.Min(b.Max(b.Sub(none, b.Div(lo, scale)), none), b.Like(x, 255)))
	zero = b.Cast(z, tensor.U8)
	r := b.Add(b.Round(b.Div(x, scale)), z)
	y = b.Cast(b.Min(b.Max(r, none), b.Like(x, 255)), tensor.U8)
	return y, scale, zero
}
