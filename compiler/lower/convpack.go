package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// packed lays the weights out in the order in which the tiles read them:
// output blocks in tiles of OB, input channels, kernel, OB vectors of lanes.
func (t *convTile) packed(l *lowerer) (b *buf) {
	kk := t.Kernel[0] * t.Kernel[1]
	lanes, ob, w := t.lanes, t.shape.OB, t.w
	if t.acrossPixels() {
		return constBuf(l, t.wName, tensor.I8, t.ocb*t.Kernel[0]*t.pixelGroups()*t.kind.Group()*lanes, t.packAcross)
	}
	if t.depthwise {
		return l.weightBuf(t.wName, t.ocb*kk*lanes, func() []float32 {
			src, out := tensor.As[float32](w), make([]float32, t.ocb*kk*lanes)
			for c := range t.oc {
				for k := range kk {
					out[(c/lanes*kk+k)*lanes+c%lanes] = src[c*kk+k]
				}
			}
			return out
		})
	}
	if t.slots != nil {
		return t.packPicked(l)
	}
	ics := t.icb * t.icl
	if t.planar {
		ics = t.ic
	}
	n := t.ocb * ics * kk * lanes
	switch t.kind {
	case loop.TileU8S8:
		return constBuf(l, t.wName, tensor.I8, n, func() []int8 {
			return packConv(t, ics, ob, func(f float32) int8 { return int8(f - float32(t.center)) })
		})
	case loop.TileBF16:
		return constBuf(l, t.wName, tensor.BF16, n, func() []uint16 { return packConv(t, ics, ob, bfloat16) })
	}
	return l.weightBuf(t.wName, n, func() []float32 { return packConv(t, ics, ob, func(f float32) float32 { return f }) })
}

// packConv fills the tiles' weights for ics input channels; groups of a narrow
// product's elements lie side by side.
func packConv[T any](t *convTile, ics, ob int, of func(float32) T) []T {
	kk, lanes, width, g := t.Kernel[0]*t.Kernel[1], t.lanes, t.groupWidth, t.kind.Group()
	icg := t.ic / t.Groups // channels of a group
	src, out := tensor.As[float32](t.w), make([]T, t.ocb*ics*kk*lanes)
	for oc := range t.oc {
		block, lane := oc/lanes, oc%lanes
		in := block % width              // block within its group
		first := block - in + in/ob*ob   // first block of its tile
		n := min(ob, width-in/ob*ob)     // blocks of its tile
		base := first * ics * kk * lanes // where the tile's weights begin
		for ic := range icg {
			for k := range kk {
				step := ic*kk + k // planar: channel, kernel
				if !t.planar {    // blocked: channel block, kernel, channel
					step = (ic/t.icl*kk+k)*t.icl + ic%t.icl
				}
				out[base+((step/g*n+block-first)*lanes+lane)*g+step%g] = of(src[(oc*icg+ic)*kk+k])
			}
		}
	}
	return out
}
