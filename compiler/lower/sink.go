package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
)

// Transposes are moved behind the ops that do not care about the order of
// axes, until they meet another one and vanish: models converted from
// channels-last frameworks have one on either side of every convolution.

// sunk rebuilds a node on the operands of the transposes in front of it, and
// transposes the result; nil if the operands are not transposed alike.
func (r *rebuild) sunk(n *ir.Node, in []*ir.Value) *ir.Value {
	if len(n.Outputs) != 1 || len(in) == 0 {
		return nil
	}
	class := core.Lookup(n.Op).Class
	pad, concat := n.Op == "pad", n.Op == "concat"
	if class != core.Pointwise && class != core.Reduction && !pad && !concat || n.Op == "argmax" || n.Op == "argmin" {
		return nil
	}
	operands := in
	if pad {
		operands = in[:1]
	}
	var perm []int
	for _, v := range operands {
		if v.Def == nil || v.Def.Op != "transpose" {
			continue
		}
		p := v.Def.Ints("perm")
		if perm != nil && !slices.Equal(p, perm) {
			return nil
		}
		perm = p
	}
	if perm == nil {
		return nil
	}
	back := make([]int, len(perm))
	for i, p := range perm {
		back[p] = i
	}
	raised := slices.Clone(in)
	for i, v := range operands {
		switch {
		case v.Def != nil && v.Def.Op == "transpose":
			raised[i] = v.Def.Inputs[0]
		case constantOnly(v) || v.Def != nil && v.Def.Op == "broadcast":
			raised[i] = r.raise(v, back)
		default:
			return nil
		}
	}
	var repl []any
	switch {
	case class == core.Reduction:
		repl = append(repl, "axes", slices.Sorted(slices.Values(sizesAt(perm, n.Ints("axes")))))
	case pad:
		repl = append(repl, "lo", sizesAt(n.Ints("lo"), back), "hi", sizesAt(n.Ints("hi"), back))
	case concat:
		repl = append(repl, "axis", perm[n.Int("axis", 0)])
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
	if y.Def != nil {
		if f := r.flattened(y.Def, y.Def.Inputs); f != nil {
			y = f
		}
	}
	return r.transpose(y, perm)
}

func sizesAt(v, at []int) []int {
	out := make([]int, len(at))
	for i, a := range at {
		out[i] = v[a]
	}
	return out
}

// raise transposes a constant, or a broadcast of a small value, at its source.
func (r *rebuild) raise(v *ir.Value, perm []int) *ir.Value {
	if v.Def != nil && v.Def.Op == "broadcast" {
		return r.b.BroadcastTo(r.raise(v.Def.Inputs[0], perm), sizesAt(core.Shape(v), perm)...)
	}
	return r.transpose(v, perm)
}

// transpose permutes axes, through another transpose where there is one.
func (r *rebuild) transpose(v *ir.Value, perm []int) *ir.Value {
	if v.Def != nil && v.Def.Op == "transpose" {
		return r.transpose(v.Def.Inputs[0], sizesAt(v.Def.Ints("perm"), perm))
	}
	return r.b.Transpose(v, perm...)
}
