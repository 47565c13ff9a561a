package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
)

// A pool whose windows do not reach the end of its operand leaves rows and
// columns unread; the convolution in front of it need not compute them.

// trimmedWindow rebuilds a window on an operand without what it does not read;
// nil if there is nothing to leave out.
func (r *rebuild) trimmedWindow(n *ir.Node) *ir.Value {
	x := n.Inputs[0]
	if x.Rank() != 4 || n.Op == "window_argmax" {
		return nil
	}
	s := x.Static()
	g, err := core.ConvGeometry(n, s[2:], n.Ints("kernel"))
	if err != nil {
		return nil
	}
	size := slices.Clone(s)
	for i := range 2 {
		if need := (g.Out[i]-1)*g.Strides[i] - g.Lo[i] + (g.Kernel[i]-1)*g.Dilations[i] + 1; g.Hi[i] == 0 && need < s[2+i] {
			size[2+i] = need
		}
	}
	if slices.Equal(size, s) {
		return nil
	}
	if t := r.trimmed(x, size); t != nil {
		return r.b.Node(n.Op, []*ir.Value{t}, flatAttrs(n)...)
	}
	return nil
}

// trimmed computes a value of the old graph in a smaller size: elementwise ops
// on smaller operands, down to a convolution with less padding behind.
func (r *rebuild) trimmed(v *ir.Value, size []int) *ir.Value {
	if constantOnly(v) {
		c := r.value(v)
		for c.Def != nil && c.Def.Op == "broadcast" {
			c = c.Def.Inputs[0]
		}
		for i, d := range core.Shape(c) {
			if d != 1 && d != size[i] {
				return nil
			}
		}
		return r.b.BroadcastTo(c, size...)
	}
	n := v.Def
	if n == nil || r.uses[v] != 1 {
		return nil
	}
	if n.Op == "conv" {
		return r.trimmedConv(n, size)
	}
	if core.Lookup(n.Op).Class != core.Pointwise || n.Op == "iota" || n.Op == "cast" || n.Op == "bitcast" {
		return nil
	}
	in := make([]*ir.Value, len(n.Inputs))
	for i, x := range n.Inputs {
		if in[i] = r.trimmed(x, size); in[i] == nil {
			return nil
		}
	}
	if n.Op == "mul" {
		if y := r.scaledConv(n, in); y != nil {
			return y
		}
	}
	return r.b.Node(n.Op, in, r.attrs(n)...)
}

func (r *rebuild) trimmedConv(n *ir.Node, size []int) *ir.Value {
	n, in := r.unpadded(n, []*ir.Value{r.value(n.Inputs[0]), r.value(n.Inputs[1])})
	x, w := core.Shape(in[0]), core.Shape(in[1])
	g, err := core.ConvGeometry(n, x[2:], w[2:])
	if err != nil || g.XDil[0]*g.XDil[1] != 1 {
		return nil
	}
	hi := slices.Clone(g.Hi)
	for i := range 2 {
		span := (g.Kernel[i]-1)*g.Dilations[i] + 1
		hi[i] = (size[2+i]-1)*g.Strides[i] + span - g.Lo[i] - x[2+i]
		if hi[i] < 0 || hi[i] > g.Hi[i] {
			return nil
		}
	}
	return r.b.Node("conv", in, flatAttrs(n, append(r.outAttr(n), "hi", hi)...)...)
}
