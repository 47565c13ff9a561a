package lower

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
)

// unpadded moves what a pad puts around the planes of an image into the padding
// of the convolution or pool that reads it, where both mean the same value:
// Keras pads on one side by a node of its own before every second pixel is
// taken. It gives the node and its operands as they are where it cannot.
func (r *rebuild) unpadded(n *ir.Node, in []*ir.Value) (*ir.Node, []*ir.Value) {
	if len(in) == 0 || len(n.Outputs) != 1 || in[0].Def == nil || in[0].Def.Op != "pad" {
		return n, in
	}
	pad := in[0].Def
	lo, hi := pad.Ints("lo"), pad.Ints("hi")
	fill, ok := scalarConst(pad.Inputs[1])
	switch n.Op {
	case "conv":
		ok = ok && fill == 0 && !slices.ContainsFunc(n.Ints("xdil"), func(d int) bool { return d != 1 })
	case "window_sum":
		ok = ok && fill == 0
	case "window_max":
		ok = ok && math.IsInf(fill, -1)
	default:
		return n, in
	}
	if !ok || len(lo) < 3 || lo[0]+lo[1]+hi[0]+hi[1] != 0 {
		return n, in
	}
	sum := func(name string, more []int) []int {
		out := slices.Clone(more)
		for i, d := range n.Ints(name) {
			out[i] += d
		}
		return out
	}
	x := pad.Inputs[0]
	m := *n
	m.Inputs = slices.Clone(n.Inputs)
	// The operand of the new node has no counterpart in the old graph where the
	// pad was behind a transpose there.
	m.Inputs[0] = &ir.Value{Name: n.Inputs[0].Name, Type: ir.TensorType(n.Inputs[0].DType(), core.Shape(x)...)}
	if old := n.Inputs[0].Def; old != nil && old.Op == "pad" && slices.Equal(old.Inputs[0].Static(), core.Shape(x)) {
		m.Inputs[0] = old.Inputs[0]
	}
	m.Attrs = slices.Clone(n.Attrs)
	m.SetAttr("lo", ir.Int64s(sum("lo", lo[2:])))
	m.SetAttr("hi", ir.Int64s(sum("hi", hi[2:])))
	return &m, append([]*ir.Value{x}, in[1:]...)
}
