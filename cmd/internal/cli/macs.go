package cli

import (
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// countMACs counts the multiply-accumulates of the contractions of a core
// graph: matrix products, convolutions and recurrent layers.
func countMACs(g *ir.Graph) int64 {
	var total int64
	for _, n := range g.Nodes {
		total += nodeMACs(n)
	}
	return total
}

func nodeMACs(n *ir.Node) int64 {
	switch n.Op {
	case "dot":
		a := core.DotAxes(n)
		shape := core.Shape(n.Inputs[0])
		macs := int64(tensor.Numel(core.Shape(n.Outputs[0])))
		for _, ax := range a.LC {
			macs *= int64(shape[ax])
		}
		return macs
	case "conv":
		w := core.Shape(n.Inputs[1])
		return int64(tensor.Numel(core.Shape(n.Outputs[0]))) * int64(tensor.Numel(w[1:]))
	case "recurrent": // its inputs' product is a dot of its own
		return int64(tensor.Numel(core.Shape(n.Inputs[0]))) * int64(core.Shape(n.Inputs[1])[2])
	}
	return 0
}
