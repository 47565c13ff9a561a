package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
)

// Convolutions of one spatial axis are computed with a second one of size 1.
// What stands between them is too, so that it is fused with them and keeps their
// layout: the axis is dropped behind it, until a use needs it gone.

// dropped gives the value [N, C, 1, L] or [N, C, L, 1] that a value of rank 3 is
// the reshape of, and the axis that is missing; nil if it is none.
func dropped(v *ir.Value) (x *ir.Value, axis int) {
	if v.Def == nil || v.Def.Op != "reshape" || v.Rank() != 3 {
		return nil, 2
	}
	x = v.Def.Inputs[0]
	if x.Rank() != 4 || x.Const != nil {
		return nil, 2
	}
	s, t := core.Shape(v), core.Shape(x)
	for axis = 2; axis < 4; axis++ {
		if slices.Equal(t, withAxis(s, axis, 1)) {
			return x, axis
		}
	}
	return nil, 2
}

// lifted rebuilds a node of rank 3 on operands of rank 4, nil if none of them
// was made from one.
func (r *rebuild) lifted(n *ir.Node, in []*ir.Value) *ir.Value {
	if len(n.Outputs) != 1 || len(in) == 0 || n.Outputs[0].Rank() != 3 {
		return nil
	}
	operands, axis, found := in, 2, false
	if n.Op == "pad" {
		operands = in[:1]
	}
	for _, v := range operands {
		if v.Rank() != 3 {
			return nil
		}
		if x, a := dropped(v); x != nil && !found {
			found, axis = true, a
		}
	}
	if !found {
		return nil
	}
	var repl []any
	switch class := core.Lookup(n.Op).Class; {
	case class == core.Pointwise:
	case n.Op == "concat":
		repl = append(repl, "axis", []int{0, 1, 5 - axis}[n.Int("axis", 0)])
	case n.Op == "pad":
		repl = append(repl, "lo", withAxis(n.Ints("lo"), axis, 0), "hi", withAxis(n.Ints("hi"), axis, 0))
	case n.Op == "slice":
		repl = append(repl, "starts", withAxis(n.Ints("starts"), axis, 0), "sizes", withAxis(n.Ints("sizes"), axis, 1), "steps", withAxis(n.Ints("steps"), axis, 1))
	case class == core.Reduction && n.Op[0] == 'r' && len(n.Ints("axes")) == 1 && n.Ints("axes")[0] == 2:
		repl = append(repl, "axes", []int{2, 3})
	default:
		return nil
	}
	raised := append([]*ir.Value{}, in...)
	for i, v := range operands {
		raised[i] = r.lift(v, axis)
	}
	attrs := r.attrs(n)
	for i := 0; i < len(attrs); i += 2 {
		for j := 0; j < len(repl); j += 2 {
			if attrs[i] == repl[j] {
				attrs[i+1] = repl[j+1]
			}
		}
	}
	y := r.b.Node(n.Op, raised, attrs...)
	s := core.Shape(y)
	return r.b.Reshape(y, s[0], s[1], s[5-axis])
}

// lift gives a value of rank 3 the axis of size 1, at the source of a broadcast.
func (r *rebuild) lift(v *ir.Value, axis int) *ir.Value {
	s := core.Shape(v)
	if x, a := dropped(v); x != nil && a == axis {
		return x
	}
	if v.Def != nil && v.Def.Op == "broadcast" && v.Def.Inputs[0].Rank() == 3 {
		return r.b.BroadcastTo(r.lift(v.Def.Inputs[0], axis), withAxis(s, axis, 1)...)
	}
	return r.b.Reshape(v, withAxis(s, axis, 1)...)
}

// withAxis puts an entry for the axis of size 1 into a list of three.
func withAxis(v []int, axis, of int) []int { return slices.Insert(slices.Clone(v), axis, of) }

// unshaped computes an elementwise op of values of one shape and numbers on what
// those values are reshapes of, where that comes from convolutions, so that it is
// done where they store; nil if there is no such operand.
func (r *rebuild) unshaped(n *ir.Node, in []*ir.Value) *ir.Value {
	if core.Lookup(n.Op).Class != core.Pointwise || len(n.Outputs) != 1 || n.Op == "iota" {
		return nil
	}
	var image []int
	flat := make([]*ir.Value, len(in))
	for i, v := range in {
		if _, number := scalarConst(v); number {
			continue
		}
		if v.Def == nil || v.Def.Op != "reshape" {
			return nil
		}
		x := v.Def.Inputs[0]
		if s := core.Shape(x); len(s) != 4 || image != nil && !slices.Equal(s, image) || !convolved(x, map[*ir.Value]bool{}) {
			return nil
		}
		flat[i], image = x, core.Shape(x)
	}
	if image == nil {
		return nil
	}
	for i, v := range in {
		if flat[i] != nil {
			continue
		}
		for v.Def != nil && v.Def.Op == "broadcast" {
			v = v.Def.Inputs[0]
		}
		if !slices.Equal(core.Shape(v), slices.Repeat([]int{1}, v.Rank())) {
			return nil
		}
		flat[i] = r.b.BroadcastTo(r.b.Reshape(v, 1, 1, 1, 1), image...)
	}
	return r.b.Reshape(r.b.Node(n.Op, flat, r.attrs(n)...), n.Outputs[0].Static()...)
}

// convolved reports whether a value is a convolution's result, or computed from
// such by elementwise ops with constants.
func convolved(v *ir.Value, seen map[*ir.Value]bool) bool {
	if v.Def == nil || v.Def.Op == "conv" {
		return v.Def != nil
	}
	if core.Lookup(v.Def.Op).Class != core.Pointwise {
		return false
	}
	if seen[v] {
		return true
	}
	seen[v] = true
	found := false
	for _, x := range v.Def.Inputs {
		if constantOnly(x) {
			continue
		}
		if !convolved(x, seen) {
			return false
		}
		found = true
	}
	return found
}
