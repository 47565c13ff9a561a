package onnx

import (
	"math"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// microsoft is the domain of ONNX Runtime's own ops, which exported and
// quantised models carry.
const microsoft = "com.microsoft"

// contribOps are those of them that belong to no other family.
var contribOps = []Op{
	{Domain: microsoft, Name: "Gelu", Since: []int{1}, Expand: func(c *Ctx) { c.Out(0, widely(c, c.In(0), geluErf(c))) }},
	{Domain: microsoft, Name: "BiasGelu", Since: []int{1}, Expand: func(c *Ctx) {
		c.Out(0, widely(c, c.B.Add(c.In(0), c.In(1)), geluErf(c)))
	}},
	{Domain: microsoft, Name: "FastGelu", Since: []int{1}, Expand: func(c *Ctx) {
		x := c.In(0)
		if bias := c.Opt(1); bias != nil {
			x = c.B.Add(x, bias)
		}
		c.Out(0, widely(c, x, geluTanh(c)))
	}},
	{Domain: microsoft, Name: "QuickGelu", Since: []int{1}, Expand: func(c *Ctx) {
		alpha := c.N.Float("alpha", float64(float32(1.702)))
		c.Out(0, widely(c, c.In(0), func(x *ir.Value) *ir.Value {
			return c.B.Mul(x, c.B.Sigmoid(c.B.Mul(x, c.B.Like(x, alpha))))
		}))
	}},
	{Domain: microsoft, Name: "MatMulNBits", Since: []int{1}, Expand: expandMatMulNBits},
	{Domain: microsoft, Name: "QLinearAdd", Since: []int{1}, Expand: qlinearBinary("add")},
	{Domain: microsoft, Name: "QLinearMul", Since: []int{1}, Expand: qlinearBinary("mul")},
	{Domain: microsoft, Name: "QLinearLeakyRelu", Since: []int{1}, Expand: qlinearUnary(func(c *Ctx, x *ir.Value) *ir.Value {
		return leaky(c, x, c.B.Like(x, c.N.Float("alpha", float64(float32(0.01)))))
	})},
	{Domain: microsoft, Name: "QLinearSigmoid", Since: []int{1}, Expand: qlinearUnary(func(c *Ctx, x *ir.Value) *ir.Value { return c.B.Sigmoid(x) })},
	{Domain: microsoft, Name: "QLinearSoftmax", Since: []int{1}, Expand: qlinearUnary(func(c *Ctx, x *ir.Value) *ir.Value {
		axis := c.Axis(c.N.Int("axis", -1), x.Rank())
		if c.N.Int("opset", 13) < 13 {
			return softmax(c, x, count(axis, x.Rank()))
		}
		return softmax(c, x, []int{axis})
	})},
	{Domain: microsoft, Name: "QLinearAveragePool", Since: []int{1}, Expand: qlinearUnary(func(c *Ctx, x *ir.Value) *ir.Value {
		return channelsFirst(c, x, averagePool)
	})},
	{Domain: microsoft, Name: "QLinearGlobalAveragePool", Since: []int{1}, Expand: qlinearUnary(func(c *Ctx, x *ir.Value) *ir.Value {
		return channelsFirst(c, x, func(c *Ctx, x *ir.Value) *ir.Value { return meanOver(c, x, spatial(c, x)) })
	})},
	{Domain: microsoft, Name: "NhwcMaxPool", Since: []int{1}, Expand: func(c *Ctx) {
		n := c.In(0).Rank()
		if n < 3 {
			c.Fail("operand %s has no spatial axes", c.In(0).Type)
		}
		x := c.B.Transpose(c.In(0), append([]int{0, n - 1}, count(1, n-1)...)...)
		w := poolWindow(c, x)
		y := c.B.Window("window_max", x, w.kernel, w.spec(1))
		c.Out(0, c.B.Transpose(y, append(append([]int{0}, count(2, n)...), 1)...))
	}},
	{Domain: microsoft, Name: "QLinearConcat", Since: []int{1}, Expand: expandQLinearConcat},
}

func geluErf(c *Ctx) func(x *ir.Value) *ir.Value {
	return func(x *ir.Value) *ir.Value {
		half := c.B.Mul(x, c.B.Like(x, 0.5))
		return c.B.Mul(half, c.B.Add(c.B.Like(x, 1), c.B.Erf(c.B.Mul(x, c.B.Like(x, math.Sqrt2/2)))))
	}
}

func geluTanh(c *Ctx) func(x *ir.Value) *ir.Value {
	return func(x *ir.Value) *ir.Value {
		b := c.B
		cube := b.Mul(b.Mul(x, x), b.Mul(x, b.Like(x, 0.044715)))
		t := b.Tanh(b.Mul(b.Add(x, cube), b.Like(x, math.Sqrt(2/math.Pi))))
		return b.Mul(b.Mul(x, b.Like(x, 0.5)), b.Add(b.Like(x, 1), t))
	}
}

// channelsFirst applies f with channels on axis 1, also where the attribute
// channels_last says that they are on the last.
func channelsFirst(c *Ctx, x *ir.Value, f func(c *Ctx, x *ir.Value) *ir.Value) *ir.Value {
	if c.N.Int("channels_last", 0) == 0 {
		return f(c, x)
	}
	n := x.Rank()
	y := f(c, c.B.Transpose(x, append([]int{0, n - 1}, count(1, n-1)...)...))
	return c.B.Transpose(y, append(append([]int{0}, count(2, n)...), 1)...)
}

// scalars reads scale i and zero point i+1 of a tensor that is quantised as a
// whole.
func scalars(c *Ctx, i int) quantization {
	q := quantization{scale: c.B.Reshape(c.In(i))}
	if zero := c.Opt(i + 1); zero != nil {
		q.zero = c.B.Reshape(zero)
	}
	return q
}

// qlinearBinary: A, its scale and zero point, B, its scale and zero point, then
// those of the result.
func qlinearBinary(op string) func(c *Ctx) {
	return func(c *Ctx) {
		x, y := scalars(c, 1).dequantize(c, c.In(0)), scalars(c, 4).dequantize(c, c.In(3))
		c.Out(0, scalars(c, 6).quantize(c, c.B.Binary(op, x, y), c.In(0).DType()))
	}
}

// qlinearUnary: X, its scale and zero point, then those of the result.
func qlinearUnary(f func(c *Ctx, x *ir.Value) *ir.Value) func(c *Ctx) {
	return func(c *Ctx) {
		y := f(c, scalars(c, 1).dequantize(c, c.In(0)))
		c.Out(0, scalars(c, 3).quantize(c, y, c.In(0).DType()))
	}
}

// expandQLinearConcat: scale and zero point of the result, then each operand
// with its own.
func expandQLinearConcat(c *Ctx) {
	if c.NIn() < 5 || c.NIn()%3 != 2 {
		c.Fail("%d inputs", c.NIn())
	}
	var parts []*ir.Value
	for i := 2; i < c.NIn(); i += 3 {
		parts = append(parts, scalars(c, i+1).dequantize(c, c.In(i)))
	}
	axis := c.Axis(c.N.Int("axis", 0), parts[0].Rank())
	c.Out(0, scalars(c, 0).quantize(c, c.B.Concat(axis, parts...), c.In(2).DType()))
}

// expandMatMulNBits multiplies by a matrix [N, K] of small integers, in blocks
// of consecutive k that share a scale and a zero point.
func expandMatMulNBits(c *Ctx) {
	b := c.B
	if c.Has(4) {
		c.Unsupported("g_idx")
	}
	x := c.In(0)
	k, n, bits, block := c.N.Int("K", 0), c.N.Int("N", 0), c.N.Int("bits", 4), c.N.Int("block_size", 0)
	if bits != 2 && bits != 4 && bits != 8 {
		c.Unsupported("bits=%d", bits)
	}
	if k < 1 || n < 1 || block < 1 || block*bits%8 != 0 {
		c.Fail("K=%d, N=%d, block_size=%d", k, n, block)
	}
	blocks := (k + block - 1) / block
	if got := tensor.Numel(core.Shape(c.In(1))); got != n*blocks*block*bits/8 {
		c.Fail("B has %d bytes, needs %d", got, n*blocks*block*bits/8)
	}
	w := wideCast(c, unpackBits(c, b.Reshape(c.In(1), n, blocks, block*bits/8), bits, block))
	zero := b.Like(w, math.Ldexp(1, bits-1))
	if z := c.Opt(3); z != nil {
		if z.DType().IsFloat() {
			z = wide(c, z)
		} else {
			row := (blocks*bits + 7) / 8
			if tensor.Numel(core.Shape(z)) != n*row {
				c.Fail("zero points %s, needs %d bytes", z.Type, n*row)
			}
			z = wideCast(c, b.SliceAxis(unpackBits(c, b.Reshape(z, n, row), bits, row*8/bits), 1, 0, blocks))
		}
		zero = b.Reshape(z, n, blocks, 1)
	}
	scale := b.Reshape(wide(c, c.In(2)), n, blocks, 1)
	w = b.Reshape(b.Mul(b.Sub(w, zero), scale), n, blocks*block)
	w = b.SliceAxis(w, 1, 0, k)
	y := b.Dot(wide(c, x), w, nil, nil, []int{x.Rank() - 1}, []int{1}, tensor.Invalid)
	if bias := c.Opt(5); bias != nil {
		y = b.Add(y, wide(c, bias))
	}
	c.Out(0, b.Cast(y, x.DType()))
}

func wideCast(c *Ctx, x *ir.Value) *ir.Value { return c.B.Cast(x, tensor.F32) }

// unpackBits reads bytes as unsigned numbers of 2, 4 or 8 bits, low bits first:
// the last axis gets size elements. Packed constants only change their type.
func unpackBits(c *Ctx, x *ir.Value, bits, size int) *ir.Value {
	b := c.B
	if bits == 8 {
		return x
	}
	s := core.Shape(x)
	last := len(s) - 1
	full := append(append([]int{}, s[:last]...), size)
	if x.Const != nil {
		d := tensor.U4
		if bits == 2 {
			d = tensor.U2
		}
		t, err := tensor.FromBytes(d, full, x.Const.Bytes())
		if err != nil {
			c.Fail("%v", err)
		}
		return b.Const(t)
	}
	var parts []*ir.Value
	x = b.Reshape(x, append(append([]int{}, s...), 1)...)
	for sh := 0; sh < 8; sh += bits {
		v := b.Binary("shr", x, b.ScalarInt(tensor.U8, int64(sh)))
		parts = append(parts, b.And(v, b.ScalarInt(tensor.U8, 1<<bits-1)))
	}
	return b.Reshape(b.Concat(last+1, parts...), full...)
}
