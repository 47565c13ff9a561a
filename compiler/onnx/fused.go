package onnx

import (
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// fusedOps are ONNX Runtime's ops that stand for a few others.
var fusedOps = []Op{
	{Domain: microsoft, Name: "FusedConv", Since: []int{1}, Expand: expandFusedConv},
	{Domain: microsoft, Name: "FusedGemm", Since: []int{1}, Expand: func(c *Ctx) {
		var p []float32
		for _, name := range []string{"activation_alpha", "activation_beta"} {
			if _, ok := c.N.Attr(name); ok {
				p = append(p, float32(c.N.Float(name, 0)))
			}
		}
		c.Out(0, activated(c, gemm(c), p))
	}},
	{Domain: microsoft, Name: "QGemm", Since: []int{1}, Expand: expandQGemm},
	{Domain: microsoft, Name: "EmbedLayerNormalization", Since: []int{1}, Expand: expandEmbedLayerNorm},
	{Domain: microsoft, Name: "GatherBlockQuantized", Since: []int{1}, Expand: expandGatherBlock},
}

// expandFusedConv is Conv, then a sum with input 3, then an activation.
func expandFusedConv(c *Ctx) {
	y := addChannels(c, conv(c, c.In(0), c.In(1)), c.Opt(2))
	if z := c.Opt(3); z != nil {
		y = c.B.Add(y, c.B.Cast(z, y.DType()))
	}
	var p []float32
	if v, ok := c.N.Attr("activation_params"); ok {
		p, _ = v.([]float32)
	}
	c.Out(0, c.B.Cast(activated(c, y, p), c.In(0).DType()))
}

// activated applies the attribute activation with its parameters.
func activated(c *Ctx, y *ir.Value, p []float32) *ir.Value {
	b := c.B
	param := func(i int) *ir.Value {
		if i >= len(p) {
			c.Fail("the activation has %d parameters", len(p))
		}
		return b.Like(y, float64(p[i]))
	}
	switch c.OneOf("activation", c.N.Str("activation", ""), "", "Relu", "Tanh", "Sigmoid", "LeakyRelu", "Clip", "HardSigmoid") {
	case "Relu":
		return b.Relu(y)
	case "Tanh":
		return b.Tanh(y)
	case "Sigmoid":
		return b.Sigmoid(y)
	case "LeakyRelu":
		return leaky(c, y, param(0))
	case "Clip":
		return b.Min(b.Max(y, param(0)), param(1))
	case "HardSigmoid":
		return b.Max(b.Like(y, 0), b.Min(b.Like(y, 1), b.Add(b.Mul(y, param(0)), param(1))))
	}
	return y
}

// leaky is x, or slope·x where x is negative.
func leaky(c *Ctx, x, slope *ir.Value) *ir.Value {
	return c.B.Where(c.B.Lt(x, c.B.Like(x, 0)), c.B.Mul(x, slope), x)
}

// expandQGemm: A, B (each with scale and zero point), C in i32 with the scale
// of the products, and the result's scale and zero point; without those the
// result is a float.
func expandQGemm(c *Ctx) {
	b := c.B
	a, w := c.In(0), c.In(3)
	if a.Rank() != 2 || w.Rank() != 2 {
		c.Fail("operands %s and %s are no matrices", a.Type, w.Type)
	}
	if c.N.Int("transA", 0) != 0 {
		a = swapLast(c, a)
	}
	if c.N.Int("transB", 0) != 0 {
		if w.Const != nil { // whose sums are then constants, whatever its size
			w = b.Const(now(c, "transpose", w.Const, "perm", []int{1, 0}))
		} else {
			w = swapLast(c, w)
		}
	}
	acc := matmulInteger(c, a, w, c.Opt(2), c.Opt(5))
	if bias := c.Opt(6); bias != nil {
		acc = b.Add(acc, bias)
	}
	sa := b.Mul(b.Reshape(c.In(1)), b.Like(c.In(1), c.N.Float("alpha", 1)))
	sw := alongAxis(c, c.In(4), 2, 1)
	if c.Has(7) {
		zero := b.ScalarInt(c.In(0).DType(), 0)
		if z := c.Opt(8); z != nil {
			zero = b.Reshape(z)
		}
		c.Out(0, requantize(c, acc, sa, sw, b.Reshape(c.In(7)), zero))
		return
	}
	c.Out(0, b.Mul(b.Cast(acc, tensor.F32), b.Mul(sa, sw)))
}

// expandEmbedLayerNorm adds word, position and segment embeddings and
// normalises over the last axis; output 1 counts each row's unmasked words.
func expandEmbedLayerNorm(c *Ctx) {
	b := c.B
	ids, words, positions := c.In(0), c.In(2), c.In(3)
	s := core.Shape(ids)
	if len(s) != 2 || words.Rank() != 2 || positions.Rank() != 2 {
		c.Fail("input_ids %s, embeddings %s and %s", ids.Type, words.Type, positions.Type)
	}
	sum := wide(c, b.Gather(words, 0, ids))
	if at := c.Opt(8); at != nil {
		sum = b.Add(sum, wide(c, b.Gather(positions, 0, at)))
	} else {
		if core.Shape(positions)[0] < s[1] {
			c.Fail("%d positions for %d words", core.Shape(positions)[0], s[1])
		}
		sum = b.Add(sum, wide(c, b.SliceAxis(positions, 0, 0, s[1])))
	}
	if c.Has(1) && c.Has(4) {
		sum = b.Add(sum, wide(c, b.Gather(c.In(4), 0, c.In(1))))
	}
	y, _, _ := normalized(c, sum, []int{2}, c.N.Float("epsilon", 1e-12))
	y = b.Add(b.Mul(y, wide(c, c.In(5))), wide(c, c.In(6)))
	c.Out(0, b.Cast(y, words.DType()))
	if mask := c.Opt(7); mask != nil {
		c.Out(1, b.Reduce("reduce_sum", b.Cast(mask, tensor.I32), false, 1))
	} else {
		c.Out(1, b.BroadcastTo(b.ScalarInt(tensor.I32, 0), s[0]))
	}
	c.Out(2, b.Cast(sum, words.DType()))
}

// expandGatherBlock gathers rows of a table that is quantised in blocks along
// its last axis, and their scales, then scales the rows.
func expandGatherBlock(c *Ctx) {
	b := c.B
	data, idx, scales := c.In(0), c.In(1), c.In(2)
	rank := data.Rank()
	bits, block := c.N.Int("bits", 4), c.N.Int("block_size", 128)
	if rank < 1 || scales.Rank() != rank || block < 1 {
		c.Fail("data %s, scales %s, block_size %d", data.Type, scales.Type, block)
	}
	last := rank - 1
	axis, along := c.Axis(c.N.Int("gather_axis", 0), rank), c.Axis(c.N.Int("quantize_axis", 1), rank)
	if along != last || axis == last {
		c.Unsupported("gather_axis=%d with quantize_axis=%d of %d axes", axis, along, rank)
	}
	zero, byteZero := c.Opt(3), 0.0
	if data.DType() == tensor.U8 {
		if bits != 4 && bits != 8 {
			c.Unsupported("bits=%d", bits)
		}
		byteZero = float64(int(1) << (bits - 1))
		data = unpackBits(c, data, bits, core.Shape(data)[last]*8/bits)
		if zero != nil {
			zero = unpackBits(c, zero, bits, core.Shape(zero)[last]*8/bits)
			zero = b.SliceAxis(zero, last, 0, core.Shape(scales)[last])
		}
	}
	rows := b.Gather(data, axis, idx)
	q := quantization{scale: spreadParam(c, b.Gather(scales, axis, idx), rows, rows.Rank()-1, block)}
	switch {
	case zero != nil:
		q.zero = spreadParam(c, b.Gather(zero, axis, idx), rows, rows.Rank()-1, block)
	case byteZero != 0:
		q.zero = b.Scalar(rows.DType(), byteZero)
	}
	c.Out(0, b.Cast(q.dequantize(c, rows), scales.DType()))
}
