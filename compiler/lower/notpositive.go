package lower

import "github.com/lathe-ml/lathe/compiler/ir"

// notPositive reports that a value is nowhere above 0: it is what is left of
// another after the maximum of its own row, or more, was subtracted.
func notPositive(v *ir.Value) bool {
	if v == nil || v.Def == nil || v.Def.Op != "sub" {
		return false
	}
	x, top := v.Def.Inputs[0], v.Def.Inputs[1]
	for top.Def != nil {
		n := top.Def
		switch {
		case n.Op == "reduce_max":
			return n.Inputs[0] == x
		case n.Op == "broadcast", n.Op == "max" && constantOnly(n.Inputs[1]):
			top = n.Inputs[0]
		case n.Op == "max" && constantOnly(n.Inputs[0]):
			top = n.Inputs[1]
		default:
			return false
		}
	}
	return false
}
