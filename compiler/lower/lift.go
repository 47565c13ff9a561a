package lower

import (
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
)

// Convolutions of one spatial axis are computed with a second one of size 1.
// What stands between them is too, so that it is fused with them and keeps their
// layout: the axis is dropped behind it, until a use needs it gone.

// dropped gives the value [N, C, 1, L] that a value of rank 3 is the reshape of,
// nil if it is none.
func dropped(v *ir.Value) *ir.Value {
	if v.Def == nil || v.Def.Op != "reshape" || v.Rank() != 3 {
		return nil
	}
	x := v.Def.Inputs[0]
	if x.Rank() != 4 || x.Const != nil {
		return nil
	}
	s, t := core.Shape(v), core.Shape(x)
	if t[0] != s[0] || t[1] != s[1] || t[2] != 1 || t[3] != s[2] {
		return nil
	}
	return x
}

// lifted rebuilds a node of rank 3 on operands of rank 4, nil if none of them
// was made from one.
func (r *rebuild) lifted(n *ir.Node, in []*ir.Value) *ir.Value {
	if len(n.Outputs) != 1 || len(in) == 0 || n.Outputs[0].Rank() != 3 {
		return nil
	}
	operands := in
	var repl []any
	switch class := core.Lookup(n.Op).Class; {
	case class == core.Pointwise:
	case n.Op == "concat":
		repl = append(repl, "axis", []int{0, 1, 3}[n.Int("axis", 0)])
	case n.Op == "pad":
		operands = in[:1]
		repl = append(repl, "lo", withAxis(n.Ints("lo"), 0), "hi", withAxis(n.Ints("hi"), 0))
	case n.Op == "slice":
		repl = append(repl, "starts", withAxis(n.Ints("starts"), 0), "sizes", withAxis(n.Ints("sizes"), 1), "steps", withAxis(n.Ints("steps"), 1))
	case class == core.Reduction && n.Op[0] == 'r' && len(n.Ints("axes")) == 1 && n.Ints("axes")[0] == 2:
		repl = append(repl, "axes", []int{2, 3})
	default:
		return nil
	}
	any := false
	for _, v := range operands {
		any = any || dropped(v) != nil
		if v.Rank() != 3 {
			return nil
		}
	}
	if !any {
		return nil
	}
	raised := append([]*ir.Value{}, in...)
	for i, v := range operands {
		raised[i] = r.lift(v)
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
	return r.b.Reshape(y, s[0], s[1], s[3])
}

// lift gives a value of rank 3 the axis of size 1, at the source of a broadcast.
func (r *rebuild) lift(v *ir.Value) *ir.Value {
	s := core.Shape(v)
	if x := dropped(v); x != nil {
		return x
	}
	if v.Def != nil && v.Def.Op == "broadcast" && v.Def.Inputs[0].Rank() == 3 {
		return r.b.BroadcastTo(r.lift(v.Def.Inputs[0]), s[0], s[1], 1, s[2])
	}
	return r.b.Reshape(v, s[0], s[1], 1, s[2])
}

// withAxis puts an entry for the axis of size 1 into a list of three.
func withAxis(v []int, of int) []int { return []int{v[0], v[1], of, v[2]} }
