package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
)

// Convolutions of three spatial axes are computed as those of two: slices in
// depth are images of the batch, and the slices that a kernel reads in depth are
// channels of one image. So all forms of planes serve them, and values between
// them stay images.

// depthFirst exchanges channels and depth.
var depthFirst = []int{0, 2, 1, 3, 4}

// images gives the value [N·D, C, H, W] whose slices a value [N, C, D, H, W] was
// made from, nil if it was not.
func images(v *ir.Value) *ir.Value {
	if v.Rank() != 5 || v.Def == nil || v.Def.Op != "transpose" || !slices.Equal(v.Def.Ints("perm"), depthFirst) {
		return nil
	}
	r := v.Def.Inputs[0].Def
	if r == nil || r.Op != "reshape" || r.Inputs[0].Rank() != 4 || r.Inputs[0].Const != nil {
		return nil
	}
	if s, t := core.Shape(r.Inputs[0]), core.Shape(v); s[0] != t[0]*t[2] || !slices.Equal(s[1:], []int{t[1], t[3], t[4]}) {
		return nil
	}
	return r.Inputs[0]
}

// stacked puts images together to [N, C, D, H, W].
func (r *rebuild) stacked(v *ir.Value, n int) *ir.Value {
	s := core.Shape(v)
	return r.transpose(r.b.Reshape(v, n, s[0]/n, s[1], s[2], s[3]), depthFirst)
}

// apart gives a value [N, C, D, H, W] as images, a broadcast at its source.
func (r *rebuild) apart(v *ir.Value) *ir.Value {
	if x := images(v); x != nil {
		return x
	}
	s := core.Shape(v)
	shape := []int{s[0] * s[2], s[1], s[3], s[4]}
	if v.Def != nil && v.Def.Op == "broadcast" && v.Def.Inputs[0].Rank() == 5 {
		x := v.Def.Inputs[0]
		if t := core.Shape(x); t[0]*t[2] == 1 {
			return r.b.BroadcastTo(r.b.Reshape(x, 1, t[1], t[3], t[4]), shape...)
		} else if t[0] == s[0] {
			x = r.b.BroadcastTo(r.transpose(x, depthFirst), s[0], s[2], t[1], t[3], t[4])
			return r.b.BroadcastTo(r.b.Reshape(x, shape[0], t[1], t[3], t[4]), shape...)
		}
	}
	return r.b.Reshape(r.transpose(v, depthFirst), shape...)
}

// ofImages rebuilds an elementwise op, or a concatenation of channels, on images
// where one of its operands is made of them; nil where none is.
func (r *rebuild) ofImages(n *ir.Node, in []*ir.Value) *ir.Value {
	if len(n.Outputs) != 1 || n.Outputs[0].Rank() != 5 || core.Lookup(n.Op).Class != core.Pointwise && (n.Op != "concat" || n.Int("axis", 0) != 1) {
		return nil
	}
	if !slices.ContainsFunc(in, func(v *ir.Value) bool { return images(v) != nil }) {
		return nil
	}
	flat := make([]*ir.Value, len(in))
	for i, v := range in {
		if v.Rank() != 5 {
			return nil
		}
		flat[i] = r.apart(v)
	}
	return r.stacked(r.b.Node(n.Op, flat, r.attrs(n)...), n.Outputs[0].Static()[0])
}

// volume rebuilds a convolution or window of three spatial axes, nil if it is
// none or has to stay.
func (r *rebuild) volume(n *ir.Node, in []*ir.Value) *ir.Value {
	window := n.Op == "window_max" || n.Op == "window_sum"
	if n.Op != "conv" && !window || in[0].Rank() != 5 || len(n.Outputs) != 1 {
		return nil
	}
	s := core.Shape(in[0])
	kernel := n.Ints("kernel")
	if n.Op == "conv" {
		kernel = core.Shape(in[1])[2:]
	}
	g, err := core.ConvGeometry(n, s[2:], kernel)
	if err != nil || slices.Max(append(g.XDil, 1)) > 1 || slices.Contains(s, 0) || slices.Min(g.Out) < 1 {
		return nil
	}
	if window && (g.Lo[0]+g.Hi[0] > 0 || kernel[0] > 8) {
		return nil
	}
	var repl []any
	for _, a := range []string{"strides", "dilations", "xdil", "lo", "hi", "kernel"} {
		if v := n.Ints(a); len(v) == 3 {
			repl = append(repl, a, v[1:])
		}
	}
	d := &depth{r: r, g: &g, n: s[0], attrs: flatAttrs(n, append(repl, r.outAttr(n)...)...)}
	x := r.apart(in[0])
	switch {
	case window:
		return d.window(n, x)
	case g.Groups > 1 && g.Groups == s[1] && kernel[0] <= 8:
		return d.depthwise(x, in[1])
	}
	return d.conv(x, in[1])
}

// depth is a convolution or window being rebuilt.
type depth struct {
	r     *rebuild
	g     *core.ConvDims
	n     int // images of the batch as it was
	attrs []any
}

// slice gives, for each slice of the result, the one that tap k reads, of images
// with their depth apart: [N, D, …].
func (d *depth) slice(x *ir.Value, k int) *ir.Value {
	s := core.Shape(x)
	starts, steps, sizes := make([]int, len(s)), slices.Repeat([]int{1}, len(s)), slices.Clone(s)
	starts[1], steps[1], sizes[1] = k*d.g.Dilations[0], d.g.Strides[0], d.g.Out[0]
	return d.r.b.Slice(x, starts, sizes, steps)
}

// padded gives images with their depth apart and its padding.
func (d *depth) padded(x *ir.Value, groups int) *ir.Value {
	s, b := core.Shape(x), d.r.b
	x = b.Reshape(x, d.n, s[0]/d.n, groups, s[1]/groups, s[2], s[3])
	lo, hi := make([]int, 6), make([]int, 6)
	lo[1], hi[1] = d.g.Lo[0], d.g.Hi[0]
	return b.Pad(x, lo, hi, b.Like(x, 0))
}

// conv makes the slices that a kernel reads channels of one image.
func (d *depth) conv(x, w *ir.Value) *ir.Value {
	b, g := d.r.b, d.g
	p := d.padded(x, g.Groups)
	s, ws := core.Shape(x), core.Shape(w)
	images, taps := d.n*g.Out[0], make([]*ir.Value, g.Kernel[0])
	for k := range taps {
		taps[k] = d.slice(p, k)
		if g.Groups == 1 {
			taps[k] = b.Reshape(taps[k], images, s[1], s[2], s[3])
		}
	}
	if g.Groups == 1 {
		x = b.Concat(1, taps...)
	} else {
		x = b.Reshape(b.Concat(3, taps...), images, s[1]*g.Kernel[0], s[2], s[3])
	}
	w = b.Reshape(d.r.transpose(w, depthFirst), ws[0], ws[1]*ws[2], ws[3], ws[4])
	return d.r.stacked(b.Node("conv", []*ir.Value{x, w}, d.attrs...), d.n)
}

// depthwise sums a convolution of planes for each tap in depth. Where all slices
// are read, and are the images of one volume, it is the results that are moved
// in depth: the operand lies ready for all taps.
func (d *depth) depthwise(x, w *ir.Value) *ir.Value {
	if d.n == 1 && d.g.Strides[0] == 1 {
		return d.moved(x, w)
	}
	b := d.r.b
	p, s, ws := d.padded(x, 1), core.Shape(x), core.Shape(w)
	var sum *ir.Value
	for k := range d.g.Kernel[0] {
		tap := b.Reshape(d.slice(p, k), d.n*d.g.Out[0], s[1], s[2], s[3])
		y := b.Node("conv", []*ir.Value{tap, b.Reshape(b.SliceAxis(w, 2, k, 1), ws[0], ws[1], ws[3], ws[4])}, d.attrs...)
		if sum != nil {
			y = b.Add(sum, y)
		}
		sum = y
	}
	return d.r.stacked(sum, d.n)
}

// moved sums the convolutions of all slices, each tap's moved to where it counts.
func (d *depth) moved(x, w *ir.Value) *ir.Value {
	b, ws := d.r.b, core.Shape(w)
	var sum *ir.Value
	for k := range d.g.Kernel[0] {
		y := b.Node("conv", []*ir.Value{x, b.Reshape(b.SliceAxis(w, 2, k, 1), ws[0], ws[1], ws[3], ws[4])}, d.attrs...)
		y = b.Pad(y, []int{d.g.Lo[0], 0, 0, 0}, []int{d.g.Hi[0], 0, 0, 0}, b.Like(y, 0))
		y = b.SliceAxis(y, 0, k*d.g.Dilations[0], d.g.Out[0])
		if sum != nil {
			y = b.Add(sum, y)
		}
		sum = y
	}
	return d.r.stacked(sum, d.n)
}

// window combines planes first, then slices.
func (d *depth) window(n *ir.Node, x *ir.Value) *ir.Value {
	b := d.r.b
	y := b.Node(n.Op, []*ir.Value{x}, d.attrs...)
	s := core.Shape(y)
	p := b.Reshape(y, d.n, s[0]/d.n, s[1], s[2], s[3])
	var all *ir.Value
	for k := range d.g.Kernel[0] {
		t := b.Reshape(d.slice(p, k), d.n*d.g.Out[0], s[1], s[2], s[3])
		switch {
		case all == nil:
			all = t
		case n.Op == "window_max":
			all = b.Max(all, t)
		default:
			all = b.Add(all, t)
		}
	}
	return d.r.stacked(all, d.n)
}
