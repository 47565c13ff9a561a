package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// maxPieceGroups bounds the convolutions that a grouped one becomes.
const maxPieceGroups = 8

// oddGroups reports a pointwise convolution of few groups that do not fill
// blocks, and that is faster in blocks nevertheless: in vector multiply-adds for
// each point, where moving a number into another layout costs a third of one.
func (p *pieces) oddGroups(n *ir.Node) bool {
	if n.Op != "conv" || !image(n.Outputs[0]) || !unpadded(n) {
		return false
	}
	g, ic, oc := n.Int("groups", 1), n.Inputs[0].Static()[1], n.Outputs[0].Static()[1]
	if g == 1 || g > maxPieceGroups || ic/g%p.lanes == 0 && oc/g%p.lanes == 0 {
		return false
	}
	blocks, pixels := blocksOf(oc/g, p.lanes)*ic, oc*ic/g/p.lanes
	return 3*blocks < 3*pixels+ic+oc
}

// unpadded reports a pointwise convolution by constants without padding.
func unpadded(n *ir.Node) bool {
	k, pads := n.Inputs[1].Static(), append(n.Ints("lo"), n.Ints("hi")...)
	return len(k) == 4 && k[2]*k[3] == 1 && constant(n.Inputs[1]) != nil && n.Inputs[0].DType() == tensor.F32 &&
		slices.Max(pads) <= 0 && slices.Min(pads) >= 0 && slices.Max(n.Ints("xdil")) <= 1
}

// byGroup is the result of a grouped pointwise convolution: every group is a
// convolution of its own, which picks its channels and whose results begin a
// block.
func (p *pieces) byGroup(n *ir.Node) []channel {
	if p.whole[n.Outputs[0]] || !p.oddGroups(n) {
		return nil
	}
	list := p.channels(n.Inputs[0])
	if list == nil {
		return nil
	}
	if all, _ := p.pooledFor(list); all == nil { // each would lie apart
		return nil
	}
	g, oc := n.Int("groups", 1), n.Outputs[0].Static()[1]
	each := len(list) / g
	var out []channel
	for i := range g {
		in := slices.Clone(n.Inputs)
		if in[0] = p.pick(list[i*each : (i+1)*each]); in[0] == nil {
			return nil
		}
		pos := make([]int, oc/g)
		for j := range pos {
			pos[j] = i*oc/g + j
		}
		in[1] = p.rowsOf(constant(n.Inputs[1]), n.Inputs[1].Name, pos)
		y := p.b.Node(n.Op, in, flatAttrs(n, "groups", 1)...)
		for j := range pos {
			out = append(out, channel{y, j})
		}
	}
	p.fresh[n.Outputs[0]] = true
	return out
}
