package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// qlinearOps contract scaled integers: the products are summed exactly in i32,
// zero points are taken out of the sums, then the result is scaled.
var qlinearOps = []Op{
	{Name: "MatMulInteger", Since: []int{10}, Expand: func(c *Ctx) {
		c.Out(0, matmulInteger(c, c.In(0), c.In(1), c.Opt(2), c.Opt(3)))
	}},
	{Name: "ConvInteger", Since: []int{10}, Expand: func(c *Ctx) {
		c.Out(0, convInteger(c, c.In(0), c.In(1), c.Opt(2), c.Opt(3)))
	}},
	{Name: "QLinearMatMul", Since: []int{10, 21}, Expand: expandQLinearMatMul},
	{Name: "QLinearConv", Since: []int{10}, Expand: expandQLinearConv},
	{Domain: microsoft, Name: "QLinearConv", Since: []int{1}, Expand: expandQLinearConv},
	{Domain: microsoft, Name: "MatMulIntegerToFloat", Since: []int{1}, Expand: expandMatMulIntegerToFloat},
	{Domain: microsoft, Name: "DynamicQuantizeMatMul", Since: []int{1}, Expand: expandDynamicQuantizeMatMul},
}

// centred is w minus its zero point (of a shape that broadcasts), in the
// narrowest type that a constant allows: i8 for most weights, so that the
// contraction has eight-bit operands.
func centred(c *Ctx, w, zero *ir.Value) *ir.Value {
	b := c.B
	if isZero(zero) {
		return w
	}
	if w.Const == nil || zero.Const == nil {
		return b.Sub(b.Cast(w, tensor.I16), b.Cast(zero, tensor.I16))
	}
	full := now(c, "broadcast", zero.Const.Reshaped(leftUnits(zero.Const.Shape, w.Rank())...), "shape", core.Shape(w))
	fits := true
	t := tensor.New(tensor.I16, w.Const.Shape...)
	for i := range t.Len() {
		v := w.Const.Int(i) - full.Int(i)
		fits = fits && v >= -128 && v <= 127
		t.SetInt(i, v)
	}
	if fits {
		t = tensor.Convert(t, tensor.I8)
	}
	return b.Const(t)
}

// shifted writes constant weights minus their zero point as w-rest with w in i8,
// so that the operands of the contraction stay bytes: u8 weights move by 128.
// rest is nil if there is none left; ok is false where this cannot be done.
func shifted(c *Ctx, w, zero *ir.Value) (moved, rest *ir.Value, ok bool) {
	if w.Const == nil || zero == nil || zero.Const == nil {
		return nil, nil, false
	}
	by := int64(0)
	if w.DType() == tensor.U8 {
		by = 128
	}
	t := tensor.New(tensor.I8, w.Const.Shape...)
	for i := range t.Len() {
		t.SetInt(i, w.Const.Int(i)-by)
	}
	z := tensor.New(tensor.I32, zero.Const.Shape...)
	for i := range z.Len() {
		z.SetInt(i, zero.Const.Int(i)-by)
	}
	return c.B.Const(t), c.B.Const(z), true
}

// sumI32 sums axes (kept as size 1) in i32; of a constant it is a constant.
func sumI32(c *Ctx, w *ir.Value, axes ...int) *ir.Value {
	if w.Const == nil {
		return c.B.Reduce("reduce_sum", c.B.Cast(w, tensor.I32), true, axes...)
	}
	return c.B.Const(now(c, "reduce_sum", tensor.Convert(w.Const, tensor.I32), "axes", axes))
}

// now runs a core op on a constant of any size, where the builder would leave
// large results to run time.
func now(c *Ctx, op string, x *tensor.Tensor, attr string, val []int) *tensor.Tensor {
	n := &ir.Node{Op: op, Inputs: []*ir.Value{ir.NewConst("", x)}, Attrs: []ir.Attr{{Name: attr, Val: ir.Int64s(val)}}}
	_, err := core.Infer(n)
	if err != nil {
		c.Fail("core %s: %v", op, err)
	}
	out, err := core.Eval(n, []*tensor.Tensor{x})
	if err != nil {
		c.Fail("%v", err)
	}
	return out[0]
}

// leftUnits pads a shape with 1 on the left up to a rank.
func leftUnits(shape []int, rank int) []int {
	return append(slices.Repeat([]int{1}, max(rank-len(shape), 0)), shape...)
}

// alongAxis views a vector (or a scalar) so that it broadcasts along an axis
// of a tensor of the given rank.
func alongAxis(c *Ctx, v *ir.Value, rank, axis int) *ir.Value {
	if n := tensor.Numel(core.Shape(v)); v.Rank() <= 1 && n > 1 {
		return c.B.Reshape(v, unitAxes(rank, axis, n)...)
	}
	if v.Rank() <= 1 {
		return c.B.Reshape(v)
	}
	return v
}

// matmulInteger is Σ (a-za)·(w-zw) = Σ a·(w-zw) - za·Σ (w-zw).
func matmulInteger(c *Ctx, a, w, za, zw *ir.Value) *ir.Value {
	b := c.B
	if a.Rank() == 0 || w.Rank() == 0 {
		c.Fail("operands %s and %s are no matrices", a.Type, w.Type)
	}
	if zw != nil {
		zw = alongAxis(c, zw, w.Rank(), w.Rank()-1)
	}
	if !isZero(zw) && zw.Const == nil && a.Rank() > 1 && w.Rank() > 1 {
		return centredLater(c, a, w, za, zw)
	}
	full := centred(c, w, zw)
	y := b.MatMul(a, full, tensor.I32)
	if full.DType() == tensor.I16 && a.Rank() > 1 && w.Rank() == 2 {
		if moved, rest, ok := shifted(c, w, zw); ok {
			rows := b.Reduce("reduce_sum", b.Cast(a, tensor.I32), true, a.Rank()-1)
			y = b.Sub(b.MatMul(a, moved, tensor.I32), b.Mul(rows, rest))
		}
	}
	w = full
	if isZero(za) {
		return y
	}
	za = b.Cast(alongAxis(c, za, a.Rank(), max(a.Rank()-2, 0)), tensor.I32)
	sum := sumI32(c, w, max(w.Rank()-2, 0))
	if w.Rank() == 1 {
		return b.Sub(y, b.Mul(dropLast(c, za), b.Reshape(sum)))
	}
	if a.Rank() == 1 {
		sum = b.Drop(sum, w.Rank()-2)
		za = b.Reshape(za)
	}
	return b.Sub(y, b.Mul(za, sum))
}

// centredLater is matmulInteger with a zero point of w that is computed: the
// products are those of the operands as they are,
// Σ (a-za)·(w-zw) = Σ a·w - zw·Σ a - za·Σ (w-zw).
func centredLater(c *Ctx, a, w, za, zw *ir.Value) *ir.Value {
	b := c.B
	zw = b.Cast(zw, tensor.I32)
	y := b.Sub(b.MatMul(a, w, tensor.I32), b.Mul(sumI32(c, a, a.Rank()-1), zw))
	if isZero(za) {
		return y
	}
	za = b.Cast(alongAxis(c, za, a.Rank(), a.Rank()-2), tensor.I32)
	k := b.Scalar(tensor.I32, float64(core.Shape(w)[w.Rank()-2]))
	return b.Sub(y, b.Mul(za, b.Sub(sumI32(c, w, w.Rank()-2), b.Mul(zw, k))))
}

// dropLast removes the last axis, of size 1, of what is no scalar.
func dropLast(c *Ctx, v *ir.Value) *ir.Value {
	if v.Rank() == 0 {
		return v
	}
	return c.B.Drop(v, v.Rank()-1)
}

// fewChannels is below how many output channels the sums of the input cost more
// than wider weights.
const fewChannels = 8

// convInteger is as matmulInteger. Where zero points are constants the input
// minus its own is padded with zeros; else it is padded with its zero point, so
// that every window has all its taps.
func convInteger(c *Ctx, x, w, zx, zw *ir.Value) *ir.Value {
	b := c.B
	if x.Rank() < 3 || w.Rank() != x.Rank() {
		c.Fail("operands %s and %s have no common spatial axes", x.Type, w.Type)
	}
	if zw != nil {
		zw = alongAxis(c, zw, w.Rank(), 0)
	}
	full := centred(c, w, zw)
	spec := windowOf(c, core.Shape(x)[2:], core.Shape(w)[2:]).spec(c.N.Int("group", 1))
	spec.Out = tensor.I32
	products := func(x *ir.Value) *ir.Value {
		if full.DType() != tensor.I16 || spec.Groups != 1 || core.Shape(w)[0] < fewChannels {
			return b.Conv(x, full, spec)
		}
		moved, rest, ok := shifted(c, w, zw)
		if !ok {
			return b.Conv(x, full, spec)
		}
		sum := b.Reduce("reduce_sum", b.Cast(x, tensor.I32), true, 1)
		if tensor.Numel(core.Shape(w)[2:]) > 1 || slices.Max(spec.Strides) > 1 || slices.Max(slices.Concat(spec.Lo, spec.Hi)) > 0 {
			sum = b.Window("window_sum", sum, core.Shape(w)[2:], spec)
		}
		if rest.Rank() > 0 {
			rest = b.Reshape(rest, unitAxes(x.Rank(), 1, core.Shape(w)[0])...)
		}
		return b.Sub(b.Conv(x, moved, spec), b.Mul(sum, rest))
	}
	if isZero(zx) {
		return products(x)
	}
	zx = b.Reshape(zx)
	if zx.Const != nil && w.Const != nil {
		return products(b.Sub(b.Cast(x, tensor.I16), b.Cast(zx, tensor.I16)))
	}
	x = b.Pad(x, slices.Concat([]int{0, 0}, spec.Lo), slices.Concat([]int{0, 0}, spec.Hi), zx)
	spec.Lo, spec.Hi = make([]int, len(spec.Lo)), make([]int, len(spec.Hi))
	sum := sumI32(c, full, count(1, w.Rank())...)
	return addChannels(c, products(x), b.Neg(b.Mul(b.Cast(zx, tensor.I32), b.Reshape(sum, core.Shape(w)[0]))))
}

// requantize scales sums of products of integers with scales sa and sw to the
// integer type of zy.
func requantize(c *Ctx, acc, sa, sw, sy, zy *ir.Value) *ir.Value {
	b := c.B
	factor := b.Div(b.Mul(wide(c, sa), wide(c, sw)), wide(c, sy))
	r := b.Round(b.Mul(b.Cast(acc, tensor.F32), factor))
	return saturated(c, r, zy, zy.DType())
}

func expandQLinearMatMul(c *Ctx) {
	a, w := c.In(0), c.In(3)
	acc := matmulInteger(c, a, w, c.In(2), c.In(5))
	sa := alongAxis(c, c.In(1), a.Rank(), max(a.Rank()-2, 0))
	sw := alongAxis(c, c.In(4), w.Rank(), w.Rank()-1)
	if a.Rank() == 1 {
		sa = c.B.Reshape(sa)
	}
	sy := alongAxis(c, c.In(6), a.Rank(), max(a.Rank()-2, 0))
	zy := alongAxis(c, c.In(7), a.Rank(), max(a.Rank()-2, 0))
	c.Out(0, requantize(c, acc, sa, sw, sy, zy))
}

func expandQLinearConv(c *Ctx) {
	c.Out(0, channelsFirst(c, c.In(0), func(c *Ctx, x *ir.Value) *ir.Value {
		acc := convInteger(c, x, c.In(3), c.In(2), c.In(5))
		acc = addChannels(c, acc, c.Opt(8))
		sw := alongAxis(c, c.In(4), x.Rank(), 1)
		return requantize(c, acc, c.B.Reshape(c.In(1)), sw, c.B.Reshape(c.In(6)), c.B.Reshape(c.In(7)))
	}))
}

// expandMatMulIntegerToFloat: A, B, scales of A and B, zero points, bias.
func expandMatMulIntegerToFloat(c *Ctx) {
	b := c.B
	a, w := c.In(0), c.In(1)
	acc := matmulInteger(c, a, w, c.Opt(4), c.Opt(5))
	sa := alongAxis(c, c.In(2), a.Rank(), max(a.Rank()-2, 0))
	sw := alongAxis(c, c.In(3), w.Rank(), w.Rank()-1)
	y := b.Mul(b.Cast(acc, tensor.F32), b.Mul(wide(c, sa), wide(c, sw)))
	if bias := c.Opt(6); bias != nil {
		y = b.Add(y, wide(c, bias))
	}
	c.Out(0, b.Cast(y, c.In(2).DType()))
}

// expandDynamicQuantizeMatMul: A in floats, B, scale of B, zero point, bias.
func expandDynamicQuantizeMatMul(c *Ctx) {
	b := c.B
	w := c.In(1)
	a, sa, za := dynamicQuantize(c, c.In(0))
	acc := matmulInteger(c, a, w, za, c.Opt(3))
	sw := alongAxis(c, c.In(2), w.Rank(), w.Rank()-1)
	y := b.Mul(b.Cast(acc, tensor.F32), b.Mul(sa, sw))
	if bias := c.Opt(4); bias != nil {
		y = b.Add(y, bias)
	}
	c.Out(0, y)
}
