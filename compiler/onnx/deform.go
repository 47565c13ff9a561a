package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// expandDeformConv samples the input at shifted kernel positions (bilinear,
// zero outside), then contracts the samples with the weights.
func expandDeformConv(c *Ctx) {
	b := c.B
	x, w, offset := c.In(0), c.In(1), c.In(2)
	if x.Rank() < 3 || w.Rank() != x.Rank() || offset.Rank() != x.Rank() {
		c.Fail("operands %s, %s and %s have no common spatial axes", x.Type, w.Type, offset.Type)
	}
	xs, ws := core.Shape(x), core.Shape(w)
	groups, og := c.N.Int("group", 1), c.N.Int("offset_group", 1)
	win := windowOf(c, xs[2:], ws[2:])
	sp, taps := len(xs)-2, tensor.Numel(ws[2:])
	n, ch, m := xs[0], xs[1], ws[0]
	if groups < 1 || og < 1 || ch%og != 0 || ch != ws[1]*groups || m%groups != 0 {
		c.Fail("%d input channels, weights %s, %d groups, %d offset groups", ch, w.Type, groups, og)
	}
	if want := slices.Concat([]int{n, og * taps * sp}, win.out); !slices.Equal(core.Shape(offset), want) {
		c.Fail("offsets %s, needs %s", offset.Type, tensor.ShapeString(want))
	}
	// Rows of channels, so that one gather fetches all channels of a group.
	rows := b.Reshape(x, n, og, ch/og, tensor.Numel(xs[2:]))
	rows = b.Reshape(b.Transpose(rows, 0, 1, 3, 2), n*og*tensor.Numel(xs[2:]), ch/og)
	offset = b.Reshape(offset, slices.Concat([]int{n, og, taps, sp}, win.out)...)
	cols := deformColumns(c, rows, offset, win, xs[2:], taps)
	if mask := c.Opt(4); mask != nil {
		s := slices.Concat([]int{n, og, taps}, win.out, []int{1})
		cols = b.Mul(cols, b.Reshape(mask, s...))
	}
	// cols [n, og, taps, pixels, ch/og] becomes [n, groups, ch/groups, taps, pixels].
	pixels := tensor.Numel(win.out)
	cols = b.Transpose(b.Reshape(cols, n, og, taps, pixels, ch/og), 0, 1, 4, 2, 3)
	cols = b.Reshape(cols, n, groups, ch/groups, taps, pixels)
	w = b.Reshape(w, groups, m/groups, ch/groups, taps)
	y := b.Dot(w, cols, []int{0}, []int{1}, []int{2, 3}, []int{2, 3}, tensor.Invalid) // [groups, m/groups, n, pixels]
	y = b.Reshape(b.Transpose(y, 2, 0, 1, 3), slices.Concat([]int{n, m}, win.out)...)
	c.Out(0, addChannels(c, y, c.Opt(3)))
}

// deformColumns gives [n, og, taps, out…, ch/og]: for each corner of the cell
// around a sampling point, its row times its weight.
func deformColumns(c *Ctx, rows, offset *ir.Value, win window, xs []int, taps int) *ir.Value {
	b := c.B
	d := offset.DType()
	sp := len(xs)
	os := core.Shape(offset)
	n, og := os[0], os[1]
	rank := 3 + sp
	low, frac := make([]*ir.Value, sp), make([]*ir.Value, sp)
	for a := range sp {
		k := tensor.New(d, unitAxes(rank, 2, taps)...)
		idx := make([]int, sp)
		for i := range taps {
			unravel(i, win.kernel, idx)
			k.SetFloat(i, float64(idx[a]*win.dilations[a]-win.lo[a]))
		}
		o := tensor.New(d, unitAxes(rank, 3+a, win.out[a])...)
		for i := range win.out[a] {
			o.SetFloat(i, float64(i*win.strides[a]))
		}
		shift := b.Drop(b.SliceAxis(offset, 3, a, 1), 3)
		p := b.Add(shift, b.Add(b.Const(k), b.Const(o)))
		low[a] = b.Floor(p)
		frac[a] = b.Sub(p, low[a])
	}
	// The first row of each (image, offset group).
	base := b.Iota(tensor.I64, 0, n*og)
	base = b.Reshape(b.Mul(base, b.ScalarInt(tensor.I64, int64(tensor.Numel(xs)))), append([]int{n, og}, slices.Repeat([]int{1}, rank-2)...)...)
	zero, one := b.Scalar(d, 0), b.Scalar(d, 1)
	var sum *ir.Value
	for corner := range 1 << sp {
		at := b.ScalarInt(tensor.I64, 0)
		weight := one
		for a := range sp {
			p, f := low[a], b.Sub(one, frac[a])
			if corner>>a&1 == 1 {
				p, f = b.Add(low[a], one), frac[a]
			}
			last := b.Scalar(d, float64(xs[a]-1))
			inside := b.And(b.Le(zero, p), b.Le(p, last))
			weight = b.Where(inside, b.Mul(weight, f), zero)
			p = b.Cast(b.Where(inside, p, zero), tensor.I64)
			at = b.Add(b.Mul(at, b.ScalarInt(tensor.I64, int64(xs[a]))), p)
		}
		part := b.Gather(rows, 0, b.Add(at, base))
		part = b.Mul(part, b.Reshape(weight, append(slices.Clone(core.Shape(weight)), 1)...))
		if sum == nil {
			sum = part
		} else {
			sum = b.Add(sum, part)
		}
	}
	return sum
}

// unravel gives the index of element i of a row-major shape.
func unravel(i int, shape, idx []int) {
	for a := len(shape) - 1; a >= 0; a-- {
		idx[a] = i % shape[a]
		i /= shape[a]
	}
}

// expandCausalConv is a depthwise convolution over past_state (or zeros) and
// the input; the last columns are the next state.
func expandCausalConv(c *Ctx) {
	b := c.B
	x, w, bias, past := c.In(0), c.In(1), c.Opt(2), c.Opt(3)
	xs, ws := core.Shape(x), core.Shape(w)
	act := c.OneOf("activation", c.N.Str("activation", "none"), "none", "silu", "swish")
	if len(xs) != 3 || len(ws) != 3 || ws[0] != xs[1] || ws[1] != 1 {
		c.Fail("operands %s and %s are no depthwise convolution over one axis", x.Type, w.Type)
	}
	k := ws[2] - 1
	var padded *ir.Value
	if past != nil {
		if !slices.Equal(core.Shape(past), []int{xs[0], xs[1], k}) {
			c.Fail("past_state %s for %d positions", past.Type, k)
		}
		padded = b.Concat(2, past, x)
	} else {
		padded = b.Pad(x, []int{0, 0, k}, []int{0, 0, 0}, b.Like(x, 0))
	}
	y := b.Conv(padded, w, core.ConvSpec{Strides: []int{1}, Dilations: []int{1}, Lo: []int{0}, Hi: []int{0}, Groups: xs[1]})
	y = addChannels(c, y, bias)
	if act != "none" {
		y = widely(c, y, func(y *ir.Value) *ir.Value { return b.Mul(y, b.Sigmoid(y)) })
	}
	c.Out(0, y)
	c.Out(1, b.SliceAxis(padded, 2, core.Shape(padded)[2]-k, k))
}
