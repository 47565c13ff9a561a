package onnx

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// poolOps slide a reduction over the spatial axes, or fold them.
var poolOps = []Op{
	{Name: "MaxPool", Since: []int{1, 8, 10, 11, 12, 22}, Expand: expandMaxPool},
	{Name: "AveragePool", Since: []int{1, 7, 10, 11, 19, 22}, Expand: func(c *Ctx) { c.Out(0, averagePool(c, c.In(0))) }},
	{Name: "LpPool", Since: []int{1, 2, 11, 18, 22}, Expand: expandLpPool},
	{Name: "GlobalMaxPool", Since: []int{1, 22}, Expand: func(c *Ctx) {
		x := c.In(0)
		c.Out(0, c.B.Reduce("reduce_max", x, true, spatial(c, x)...))
	}},
	{Name: "GlobalAveragePool", Since: []int{1, 22}, Expand: func(c *Ctx) {
		x := c.In(0)
		c.Out(0, meanOver(c, x, spatial(c, x)))
	}},
	{Name: "GlobalLpPool", Since: []int{1, 2, 22}, Expand: func(c *Ctx) {
		c.Out(0, lpSum(c, c.In(0), lpOrder(c), func(x *ir.Value) *ir.Value {
			return c.B.Reduce("reduce_sum", x, true, spatial(c, x)...)
		}))
	}},
	{Name: "MaxUnpool", Since: []int{9, 11, 22}, Expand: expandMaxUnpool},
	{Name: "MaxRoiPool", Since: []int{1, 22}, Expand: expandMaxRoiPool},
}

// spatial lists the axes after batch and channels.
func spatial(c *Ctx, x *ir.Value) []int {
	if x.Rank() < 3 {
		c.Fail("operand %s has no spatial axes", x.Type)
	}
	return count(2, x.Rank())
}

func poolWindow(c *Ctx, x *ir.Value) window {
	n := len(spatial(c, x))
	k := c.N.Ints("kernel_shape")
	if len(k) != n {
		c.Fail("kernel_shape %v for %d spatial axes", k, n)
	}
	return windowOf(c, core.Shape(x)[2:], k)
}

func expandMaxPool(c *Ctx) {
	b := c.B
	x := c.In(0)
	w := poolWindow(c, x)
	c.Out(0, b.Window("window_max", x, w.kernel, w.spec(1)))
	if !c.Wants(1) {
		return
	}
	s := core.Shape(x)
	at := b.Window("window_argmax", x, w.kernel, w.spec(1))
	if c.N.Int("storage_order", 0) != 0 {
		at = columnMajor(c, at, s[2:])
	}
	plane := b.Iota(tensor.I64, 0, s[0]*s[1])
	plane = b.Mul(plane, b.ScalarInt(tensor.I64, int64(tensor.Numel(s[2:]))))
	c.Out(1, b.Add(at, b.Reshape(plane, append([]int{s[0], s[1]}, slices.Repeat([]int{1}, len(s)-2)...)...)))
}

// columnMajor turns row-major positions in a shape into column-major ones.
func columnMajor(c *Ctx, at *ir.Value, shape []int) *ir.Value {
	b := c.B
	num := func(n int) *ir.Value { return b.ScalarInt(tensor.I64, int64(n)) }
	var out *ir.Value
	for a := len(shape) - 1; a >= 0; a-- {
		idx := b.Binary("mod", at, num(shape[a]))
		at = b.Div(at, num(shape[a]))
		idx = b.Mul(idx, num(tensor.Numel(shape[:a])))
		if out == nil {
			out = idx
		} else {
			out = b.Add(out, idx)
		}
	}
	return out
}

// averagePool divides window sums by how many elements each window covers:
// those inside the input, or (count_include_pad) inside the padded input.
func averagePool(c *Ctx, x *ir.Value) *ir.Value {
	w := poolWindow(c, x)
	xs := core.Shape(x)[2:]
	include := c.N.Int("count_include_pad", 0) != 0
	counts := tensor.New(tensor.F32, append([]int{1, 1}, w.out...)...)
	perAxis := make([][]int, len(xs))
	for a := range xs {
		lo, hi := 0, xs[a]
		if include {
			lo, hi = -w.lo[a], xs[a]+w.hi[a]
		}
		for o := range w.out[a] {
			n := 0
			for k := range w.kernel[a] {
				if p := o*w.strides[a] + k*w.dilations[a] - w.lo[a]; p >= lo && p < hi {
					n++
				}
			}
			perAxis[a] = append(perAxis[a], n)
		}
	}
	same := true
	idx := make([]int, len(xs))
	for i := range counts.Len() {
		unravel(i, w.out, idx)
		n := 1
		for a, o := range idx {
			n *= perAxis[a][o]
		}
		counts.SetFloat(i, float64(max(n, 1)))
		same = same && counts.Float(i) == counts.Float(0)
	}
	return widely(c, x, func(x *ir.Value) *ir.Value {
		sum := c.B.Window("window_sum", x, w.kernel, w.spec(1))
		if same && counts.Len() > 0 {
			return c.B.Div(sum, c.B.Like(x, counts.Float(0)))
		}
		return c.B.Div(sum, c.B.Cast(c.B.Const(counts), x.DType()))
	})
}

// lpOrder is the attribute p: a float in opset 1, an integer later.
func lpOrder(c *Ctx) float64 {
	p := float64(c.N.Int("p", 2))
	if v, ok := c.N.Attr("p"); ok {
		if f, ok := v.(float32); ok {
			p = float64(f)
		}
	}
	if p <= 0 {
		c.Fail("p is %v", p)
	}
	return p
}

// lpSum is the p-norm, where sum adds what belongs together.
func lpSum(c *Ctx, x *ir.Value, p float64, sum func(x *ir.Value) *ir.Value) *ir.Value {
	b := c.B
	return widely(c, x, func(x *ir.Value) *ir.Value {
		switch p {
		case 1:
			return sum(b.Abs(x))
		case 2:
			return b.Sqrt(sum(b.Mul(x, x)))
		}
		return b.Pow(sum(b.Pow(b.Abs(x), b.Like(x, p))), b.Like(x, 1/p))
	})
}

func expandLpPool(c *Ctx) {
	x := c.In(0)
	w := poolWindow(c, x)
	c.Out(0, lpSum(c, x, lpOrder(c), func(x *ir.Value) *ir.Value {
		return c.B.Window("window_sum", x, w.kernel, w.spec(1))
	}))
}

// expandMaxUnpool puts the values at their indices in a tensor of zeros, of the
// size that the pooled input had; a larger output_shape adds zeros at the ends.
func expandMaxUnpool(c *Ctx) {
	b := c.B
	x, at := c.In(0), c.In(1)
	s := core.Shape(x)
	n := len(spatial(c, x))
	k := c.N.Ints("kernel_shape")
	if len(k) != n || !slices.Equal(core.Shape(at), s) {
		c.Fail("kernel_shape %v, indices %s for %s", k, at.Type, x.Type)
	}
	strides := spatialInts(c, "strides", n, 1)
	lo, hi := padsOf(c, n)
	full := slices.Clone(s)
	for i := range n {
		full[i+2] = (s[i+2]-1)*strides[i] + k[i] - lo[i] - hi[i]
	}
	total, err := tensor.Count(full)
	if err != nil {
		c.Fail("output: %v", err)
	}
	y := b.BroadcastTo(b.Like(x, 0), total)
	y = b.Scatter("set", y, b.Reshape(at, tensor.Numel(s)), b.Reshape(x, tensor.Numel(s)))
	y = b.Reshape(y, full...)
	if c.Has(2) {
		want := c.Ints(2, "output_shape")
		if len(want) != len(full) {
			c.Fail("output_shape %v for rank %d", want, len(full))
		}
		more := make([]int, len(full))
		for i := range full {
			if more[i] = want[i] - full[i]; more[i] < 0 {
				c.Fail("output_shape %v is smaller than the pooled shape %v", want, full)
			}
		}
		y = b.Pad(y, make([]int, len(full)), more, b.Like(x, 0))
	}
	c.Out(0, y)
}

// expandMaxRoiPool takes regions as data: which elements a cell covers is
// computed from them, so they must be constant.
func expandMaxRoiPool(c *Ctx) {
	x, rois := c.Tensor(0, "X"), c.Tensor(1, "rois")
	size := c.N.Ints("pooled_shape")
	if len(x.Shape) != 4 || len(rois.Shape) != 2 || rois.Shape[1] != 5 || len(size) != 2 || slices.Min(size) < 1 || slices.Max(size) > 1<<15 {
		c.Fail("X %s, rois %s, pooled_shape %v", x, rois, size)
	}
	scale := float32(c.N.Float("spatial_scale", 1))
	y := tensor.New(x.DType, rois.Shape[0], x.Shape[1], size[0], size[1])
	to := 0
	for r := range rois.Shape[0] {
		image := int(rois.Float(r * 5))
		if image < 0 || image >= x.Shape[0] {
			c.Fail("region %d names image %d of %d", r, image, x.Shape[0])
		}
		// Columns are batch index, x1, y1, x2, y2, ends included.
		corner := func(i int) int { return int(math.Round(float64(float32(rois.Float(r*5+i)) * scale))) }
		for ch := range x.Shape[1] {
			for i := range size[0] {
				for j := range size[1] {
					h0, h1 := roiCell(corner(2), corner(4), i, size[0], x.Shape[2])
					w0, w1 := roiCell(corner(1), corner(3), j, size[1], x.Shape[3])
					best := math.Inf(-1)
					for h := h0; h < h1; h++ {
						for w := w0; w < w1; w++ {
							best = max(best, x.Float(((image*x.Shape[1]+ch)*x.Shape[2]+h)*x.Shape[3]+w))
						}
					}
					if h0 >= h1 || w0 >= w1 {
						best = 0
					}
					y.SetFloat(to, best)
					to++
				}
			}
		}
	}
	c.Out(0, c.B.Const(y))
}

// roiCell is the half-open range of input rows that output row i of n covers.
func roiCell(first, last, i, n, size int) (lo, hi int) {
	step := float32(max(last-first+1, 1)) / float32(n)
	lo = int(math.Floor(float64(float32(i)*step))) + first
	hi = int(math.Ceil(float64(float32(i+1)*step))) + first
	return min(max(lo, 0), size), min(max(hi, 0), size)
}
