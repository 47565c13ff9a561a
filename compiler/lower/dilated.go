package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
)

// A dilated convolution reads each pixel together with those a dilation apart:
// the pixels of one remainder are an image of their own, and on those images the
// convolution is a dense one. As such it has Winograd's form, and taps that fall
// into the padding of a small map are no work.

// phased rebuilds a dilated convolution of many channels on the images of the
// remainders; nil if it stays as it is.
func (r *rebuild) phased(n *ir.Node, in []*ir.Value) *ir.Value {
	const (
		few   = 16 // channels, below which the form of the convolution costs less than moving
		least = 4  // rows and columns of an image's result: Winograd's tiles have so many
	)
	if n.Op != "conv" || in[0].Rank() != 4 || core.Shape(in[1])[0] < few || core.Shape(in[0])[1] < few {
		return nil
	}
	s := core.Shape(in[0])
	k := core.Shape(in[1])[2:]
	g, err := core.ConvGeometry(n, s[2:], k)
	if err != nil || g.Groups != 1 || slices.Max(g.Strides) > 1 || slices.Max(g.XDil) > 1 {
		return nil
	}
	d := slices.Clone(g.Dilations)
	for a := range d {
		if k[a] == 1 {
			d[a] = 1
		}
		if len(winogradTiles[[2]int{k[a], 1}]) == 0 && k[a] > 1 {
			return nil
		}
	}
	if d[0]*d[1] == 1 || slices.Max(k) == 1 {
		return nil
	}
	// Each image has the padding of the whole, and is filled up to the same size.
	lo, hi, of := make([]int, 4), make([]int, 4), make([]int, 2)
	for a := range 2 {
		lo[a+2] = g.Lo[a]
		size := s[2+a] + g.Lo[a] + g.Hi[a]
		of[a] = (size + d[a] - 1) / d[a]
		hi[a+2] = of[a]*d[a] - s[2+a] - g.Lo[a]
		if k[a] > 1 && of[a]-k[a]+1 < least {
			return nil
		}
	}
	b := r.b
	x := b.Pad(in[0], lo, hi, b.Like(in[0], 0))
	x = b.Reshape(x, s[0], s[1], of[0], d[0], of[1], d[1])
	x = b.Reshape(b.Transpose(x, 0, 3, 5, 1, 2, 4), s[0]*d[0]*d[1], s[1], of[0], of[1])
	none := []int{0, 0}
	y := b.Node("conv", []*ir.Value{x, in[1]}, flatAttrs(n, append([]any{"dilations", []int{1, 1}, "lo", none, "hi", none}, r.outAttr(n)...)...)...)
	t := core.Shape(y)
	y = b.Reshape(y, s[0], d[0], d[1], t[1], t[2], t[3])
	y = b.Reshape(b.Transpose(y, 0, 3, 4, 1, 5, 2), s[0], t[1], t[2]*d[0], t[3]*d[1])
	for a := range 2 {
		y = b.SliceAxis(y, 2+a, 0, g.Out[a])
	}
	return y
}
