package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Depthwise convolutions of bytes: the pixels of a channel block lie side by
// side, so that a group of a tile's operand is neighbouring pixels, and a row of
// a kernel up to four wide is one product.

// maxAcross bounds the taps of such a convolution.
const maxAcross = 49

// acrossPixels reports a depthwise convolution of bytes.
func (c *tiledConv) acrossPixels() bool { return c.depthwise && c.kind == loop.TileU8S8 }

// pixelGroups is the number of products of a kernel's row.
func (c *tiledConv) pixelGroups() int {
	g := loop.TileU8S8.Group()
	return (c.Kernel[1] + g - 1) / g
}

// acrossShape is a tile of rows below each other, which share their pixels.
func (c *tiledConv) acrossShape(l *lowerer) tileShape {
	const spare, products = 4, 256
	points := min(l.o.Regs-spare, max(products/(c.Kernel[0]*c.pixelGroups()), 1))
	tr := min(c.Out[0], 4)
	for tr > 1 && tr > points {
		tr /= 2
	}
	return tileShape{1, tr, min(c.Out[1], max(points/tr, 1))}
}

// packAcross lays the weights of groups of pixels out: block, row, group,
// channel, pixel.
func (t *convTile) packAcross() []int8 {
	src := tensor.As[float32](t.w)
	kh, kw, g, groups := t.Kernel[0], t.Kernel[1], t.kind.Group(), t.pixelGroups()
	out := make([]int8, t.ocb*kh*groups*g*t.lanes)
	for c := range t.oc {
		for y := range kh {
			for x := range kw {
				group := (c/t.lanes*kh+y)*groups + x/g
				out[(group*t.lanes+c%t.lanes)*g+x%g] = int8(src[(c*kh+y)*kw+x])
			}
		}
	}
	return out
}
