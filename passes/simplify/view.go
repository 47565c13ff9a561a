package simplify

import (
	"fmt"
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/rewrite"
)

// target is a constant shape operand that makes a value of a known type: at
// most one dimension is open, and becomes -1.
func target(t ir.Type) ([]int, bool) {
	if !t.HasRank {
		return nil, false
	}
	open := 0
	var s []int
	for _, d := range t.Shape {
		switch {
		case d.N > 0:
			s = append(s, d.N)
		case d.N == 0:
			return nil, false // 0 copies a dimension, and -1 beside it is open
		default:
			open++
			s = append(s, -1)
		}
	}
	return s, open <= 1
}

// reshaped is the type of a node's output, and the operand of a Reshape that
// makes it.
func (c *operands) reshaped(n *ir.Node) (t ir.Type, shape []int, ok bool) {
	if t, ok = c.typ(n.Outputs[0]); ok {
		shape, ok = target(t)
	}
	return t, shape, ok
}

func viewMerge(c *operands, n *ir.Node) *rewrite.Patch {
	if n.In(0) == nil || len(n.Outputs) != 1 {
		return nil
	}
	d := c.Producer(n.Inputs[0])
	if d == nil || !official(d) || !slices.Contains(views, d.Op) || d.In(0) == nil {
		return nil
	}
	t, shape, ok := c.reshaped(n)
	if !ok {
		return nil
	}
	if in, known := c.typ(d.Inputs[0]); known && equalShapes(in, t, true) {
		return same(n, d.Inputs[0], fmt.Sprintf("it undoes %q", d.Label()))
	}
	r, inits := c.reshapeNode(n, d.Inputs[0], n.Outputs[0], shape)
	return &rewrite.Patch{At: n, Nodes: []*ir.Node{r}, Inits: inits, Why: fmt.Sprintf("with %q it is one Reshape to %v", d.Label(), shape)}
}

// staticReshape replaces a shape operand that the model computes.
func staticReshape(c *operands, n *ir.Node) *rewrite.Patch {
	if n.In(1) == nil || n.In(0) == nil || n.Inputs[1].Const != nil || len(n.Outputs) != 1 {
		return nil
	}
	_, shape, ok := c.reshaped(n)
	if !ok {
		return nil
	}
	r, inits := c.reshapeNode(n, n.Inputs[0], n.Outputs[0], shape)
	r.Doc, r.Meta = n.Doc, n.Meta
	return &rewrite.Patch{At: n, Nodes: []*ir.Node{r}, Inits: inits, Why: fmt.Sprintf("its shape is always %v", shape)}
}
