package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// convOps are convolutions and their relatives over [N, C, spatial…].
var convOps = []Op{
	{Name: "Conv", Since: []int{1, 11, 22}, Expand: func(c *Ctx) {
		// The sum of narrow floats is rounded once, after the bias.
		c.Out(0, c.B.Cast(addChannels(c, conv(c, c.In(0), c.In(1)), c.Opt(2)), c.In(0).DType()))
	}},
	{Name: "ConvTranspose", Since: []int{1, 11, 22}, Expand: expandConvTranspose},
	{Name: "DeformConv", Since: []int{19, 22}, Expand: expandDeformConv},
	{Name: "Col2Im", Since: []int{18}, Expand: expandCol2Im},
	{Name: "CausalConvWithState", Since: []int{27}, Expand: expandCausalConv},
}

// window is the geometry that convolutions and pools share, one entry per
// spatial axis.
type window struct {
	kernel, strides, dilations, lo, hi []int
	// out holds the output sizes. Where the last window hangs over the padding
	// (ceil_mode), over says by how much.
	out, over []int
}

// spatialInts reads an ints attribute with one entry per spatial axis.
func spatialInts(c *Ctx, name string, n, def int) []int {
	v := c.N.Ints(name)
	if v == nil {
		return slices.Repeat([]int{def}, n)
	}
	if len(v) != n {
		c.Fail("%s has %d entries for %d spatial axes", name, len(v), n)
	}
	return v
}

// windowOf reads strides, dilations, pads, auto_pad and ceil_mode for spatial
// sizes x.
func windowOf(c *Ctx, x, kernel []int) window {
	n := len(x)
	if k := c.N.Ints("kernel_shape"); k != nil && !slices.Equal(k, kernel) {
		c.Fail("kernel_shape %v for a kernel of %v", k, kernel)
	}
	w := window{kernel: kernel, strides: spatialInts(c, "strides", n, 1), dilations: spatialInts(c, "dilations", n, 1)}
	auto := c.OneOf("auto_pad", c.N.Str("auto_pad", "NOTSET"), "NOTSET", "", "VALID", "SAME_UPPER", "SAME_LOWER")
	w.lo, w.hi = padsOf(c, n)
	ceil := c.N.Int("ceil_mode", 0) != 0
	for i := range n {
		if w.strides[i] < 1 || w.dilations[i] < 1 || kernel[i] < 1 {
			c.Fail("stride, dilation or kernel below 1 on spatial axis %d", i)
		}
		span := (kernel[i]-1)*w.dilations[i] + 1
		switch auto {
		case "VALID":
			w.lo[i], w.hi[i] = 0, 0
		case "SAME_UPPER", "SAME_LOWER":
			out := (x[i] + w.strides[i] - 1) / w.strides[i]
			total := max((out-1)*w.strides[i]+span-x[i], 0)
			w.lo[i] = total / 2
			if auto == "SAME_LOWER" {
				w.lo[i] = total - total/2
			}
			w.hi[i] = total - w.lo[i]
		}
		room := x[i] + w.lo[i] + w.hi[i] - span
		if room < 0 {
			c.Fail("the kernel spans %d, the padded input has %d on spatial axis %d", span, room+span, i)
		}
		out := room/w.strides[i] + 1
		if ceil && room%w.strides[i] != 0 && out*w.strides[i] < x[i]+w.lo[i] {
			out++ // one more window, which begins inside the input or the left padding
		}
		w.out = append(w.out, out)
		w.over = append(w.over, max((out-1)*w.strides[i]-room, 0))
	}
	return w
}

func padsOf(c *Ctx, n int) (lo, hi []int) {
	p := c.N.Ints("pads")
	if p == nil {
		return make([]int, n), make([]int, n)
	}
	if len(p) != 2*n {
		c.Fail("pads has %d entries for %d spatial axes", len(p), n)
	}
	if slices.Min(append(p, 0)) < 0 {
		c.Unsupported("negative pads %v", p)
	}
	return p[:n:n], p[n:]
}

func (w window) spec(groups int) core.ConvSpec {
	hi := slices.Clone(w.hi)
	for i := range hi {
		hi[i] += w.over[i]
	}
	return core.ConvSpec{Strides: w.strides, Dilations: w.dilations, Lo: w.lo, Hi: hi, Groups: groups}
}

// sumType is what a contraction of x gives: f32 for narrower floats, so that
// what follows it does not round twice.
func sumType(x *ir.Value) tensor.DType {
	if narrow(x.DType()) {
		return tensor.F32
	}
	return x.DType()
}

// conv gives sumType of x.
func conv(c *Ctx, x, w *ir.Value) *ir.Value {
	if x.Rank() < 3 || w.Rank() != x.Rank() {
		c.Fail("operands %s and %s have no common spatial axes", x.Type, w.Type)
	}
	spec := windowOf(c, core.Shape(x)[2:], core.Shape(w)[2:]).spec(c.N.Int("group", 1))
	spec.Out = sumType(x)
	return c.B.Conv(x, w, spec)
}

// addChannels adds one value per channel (axis 1); nil adds nothing.
func addChannels(c *Ctx, y, bias *ir.Value) *ir.Value {
	if bias == nil {
		return y
	}
	n := core.Shape(y)[1]
	if tensor.Numel(core.Shape(bias)) != n {
		c.Fail("bias %s for %d channels", bias.Type, n)
	}
	return c.B.Add(y, c.B.Reshape(c.B.Cast(bias, y.DType()), unitAxes(y.Rank(), 1, n)...))
}

// flip reverses the axes from the given one on.
func flip(c *Ctx, x *ir.Value, from int) *ir.Value {
	s := core.Shape(x)
	starts, steps := make([]int, len(s)), slices.Repeat([]int{1}, len(s))
	for i := from; i < len(s); i++ {
		starts[i], steps[i] = max(s[i]-1, 0), -1
	}
	return c.B.Slice(x, starts, s, steps)
}

// forwardWeights turns weights [C, M/groups, kernel…] of a transposed
// convolution into those of the equal convolution: [M, C/groups, kernel…],
// flipped.
func forwardWeights(c *Ctx, w *ir.Value, groups int) *ir.Value {
	s := core.Shape(w)
	if groups < 1 || s[0]%groups != 0 {
		c.Fail("%d input channels in %d groups", s[0], groups)
	}
	w = flip(c, w, 2)
	k := s[2:]
	w = c.B.Reshape(w, append([]int{groups, s[0] / groups, s[1]}, k...)...)
	w = c.B.Transpose(w, append([]int{0, 2, 1}, count(3, 3+len(k))...)...)
	return c.B.Reshape(w, append([]int{groups * s[1], s[0] / groups}, k...)...)
}

// transposed is a convolution over x with gaps of stride-1 zeros between its
// elements. lo and hi are the pads that ONNX takes off the full result;
// negative ones add to it.
func transposed(c *Ctx, x, w *ir.Value, groups int, strides, dilations, lo, hi []int) *ir.Value {
	xs, ws := core.Shape(x)[2:], core.Shape(w)[2:]
	if slices.Min(strides) < 1 || slices.Min(dilations) < 1 {
		c.Fail("strides %v, dilations %v", strides, dilations)
	}
	if core.Shape(x)[1] == core.Shape(w)[0] && groups == 1 && tensor.Numel(xs) == 1 && slices.Max(dilations) == 1 {
		return stamped(c, x, w, strides, lo, hi)
	}
	if slices.Max(strides) > 1 && slices.Max(dilations) == 1 {
		return subpixel(c, x, w, groups, strides, lo, hi)
	}
	spec := core.ConvSpec{Strides: slices.Repeat([]int{1}, len(xs)), Dilations: dilations, XDil: strides, Groups: groups, Out: sumType(x)}
	crop, size := make([]int, len(xs)), make([]int, len(xs))
	for i := range xs {
		reach := (ws[i] - 1) * dilations[i]
		l, h := reach-lo[i], reach-hi[i]
		crop[i] = max(-l, 0)
		size[i] = (xs[i]-1)*strides[i] + 1 + reach - lo[i] - hi[i]
		if size[i] < 1 {
			c.Fail("output size %d on spatial axis %d", size[i], i)
		}
		spec.Lo, spec.Hi = append(spec.Lo, max(l, 0)), append(spec.Hi, max(h, 0))
	}
	w = arranged(c, w, func(w *ir.Value) *ir.Value { return forwardWeights(c, w, groups) })
	y := c.B.Conv(x, w, spec)
	for i := range xs {
		y = c.B.SliceAxis(y, i+2, crop[i], size[i])
	}
	return y
}

func expandConvTranspose(c *Ctx) {
	x, w := c.In(0), c.In(1)
	if x.Rank() < 3 || w.Rank() != x.Rank() {
		c.Fail("operands %s and %s have no common spatial axes", x.Type, w.Type)
	}
	xs, ws := core.Shape(x)[2:], core.Shape(w)[2:]
	n := len(xs)
	if k := c.N.Ints("kernel_shape"); k != nil && !slices.Equal(k, ws) {
		c.Fail("kernel_shape %v for weights of %v", k, ws)
	}
	strides, dilations := spatialInts(c, "strides", n, 1), spatialInts(c, "dilations", n, 1)
	extra := spatialInts(c, "output_padding", n, 0)
	auto := c.OneOf("auto_pad", c.N.Str("auto_pad", "NOTSET"), "NOTSET", "", "VALID", "SAME_UPPER", "SAME_LOWER")
	lo, hi := padsOf(c, n)
	want := c.N.Ints("output_shape")
	if len(want) == n+2 {
		want = want[2:] // some exporters give batch and channels too
	}
	if want != nil && len(want) != n {
		c.Fail("output_shape has %d entries for %d spatial axes", len(want), n)
	}
	for i := range n {
		full := strides[i]*(xs[i]-1) + (ws[i]-1)*dilations[i] + 1 + extra[i]
		out := 0
		switch {
		case want != nil:
			out = want[i]
		case auto == "SAME_UPPER", auto == "SAME_LOWER":
			out = xs[i] * strides[i]
		default:
			if auto == "VALID" {
				lo[i], hi[i] = 0, 0
			}
			hi[i] -= extra[i]
			continue
		}
		total := max(full-out, 0)
		lo[i] = total - total/2
		if auto == "SAME_UPPER" {
			lo[i] = total / 2
		}
		hi[i] = full - out - lo[i] - extra[i]
	}
	y := transposed(c, x, w, c.N.Int("group", 1), strides, dilations, lo, hi)
	c.Out(0, c.B.Cast(addChannels(c, y, c.Opt(2)), x.DType()))
}

// expandCol2Im sums columns back into an image: a transposed convolution whose
// kernel puts each row of the column at its place.
func expandCol2Im(c *Ctx) {
	x := c.In(0)
	image, block := c.Ints(1, "image_shape"), c.Ints(2, "block_shape")
	n, s := len(image), core.Shape(x)
	taps := tensor.Numel(block)
	if n == 0 || len(block) != n || len(s) != 3 || slices.Min(block) < 1 || slices.Min(image) < 0 || s[1] < taps || s[1]%taps != 0 {
		c.Fail("columns %s, image %v and block %v do not fit", x.Type, image, block)
	}
	strides, dilations := spatialInts(c, "strides", n, 1), spatialInts(c, "dilations", n, 1)
	if slices.Min(strides) < 1 || slices.Min(dilations) < 1 {
		c.Fail("strides %v, dilations %v", strides, dilations)
	}
	lo, hi := padsOf(c, n)
	var at []int
	for i := range n {
		at = append(at, (image[i]+lo[i]+hi[i]-(block[i]-1)*dilations[i]-1)/strides[i]+1)
		// What the last block does not reach stays zero.
		hi[i] = (at[i]-1)*strides[i] + (block[i]-1)*dilations[i] + 1 - lo[i] - image[i]
	}
	if tensor.Numel(at) != s[2] {
		c.Fail("%d columns, the image has %d blocks", s[2], tensor.Numel(at))
	}
	channels := s[1] / taps
	w := tensor.New(x.DType(), append([]int{taps, 1}, block...)...)
	for i := range taps {
		w.SetFloat(i*taps+i, 1)
	}
	// Channels go to the batch: they share the kernel.
	y := transposed(c, c.B.Reshape(x, append([]int{s[0] * channels, taps}, at...)...), c.B.Const(w), 1, strides, dilations, lo, hi)
	c.Out(0, c.B.Reshape(y, append([]int{s[0], channels}, image...)...))
}
