package lower

import (
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
)

// movedInBlocks reports whether what a value is computed from lies in channel
// blocks and, whatever moved it (phases woven together, slices put apart), a
// block of the value reads neighbouring lanes of one block: stored in blocks it
// is moved by vectors.
func (l *lowerer) movedInBlocks(v *ir.Value) bool {
	if v.Rank() != 4 || !l.moves(v, map[*ir.Value]bool{}) {
		return false
	}
	lay := Layout{Shape: v.Static(), L: l.o.Lanes}
	if lay.Shape[1]%lay.L != 0 {
		return false
	}
	k := l.kernelFor(v)
	cb, lane := k.fresh("b", lay.blocks()), k.fresh("l", lay.L)
	idx := []*loop.Expr{loop.V(k.fresh("n", lay.Shape[0])), loop.Add(loop.Mul(loop.V(cb), lay.L), loop.V(lane)),
		loop.V(k.fresh("h", lay.Shape[2])), loop.V(k.fresh("w", lay.Shape[3]))}
	blocked, plain := 0, 0
	k.access(v, idx).Walk(func(e *loop.Expr) {
		if e.Kind != loop.Load {
			return
		}
		switch step, _, ok := loop.Stride(e.Args[0], lane); {
		case !ok || step > 1 || step < 0:
			plain++
		case step == 1:
			blocked++
		}
	})
	return blocked > 0 && plain == 0
}

// moves reports whether a value that is computed where it is read comes from
// channel blocks through a change of shape.
func (l *lowerer) moves(v *ir.Value, seen map[*ir.Value]bool) bool {
	if seen[v] {
		return false
	}
	seen[v] = true
	if l.places[v] != nil || v.Def == nil || v.Const != nil {
		return false
	}
	class := core.Lookup(v.Def.Op).Class
	if class != core.Pointwise && class != core.Movement {
		return false
	}
	for _, x := range v.Def.Inputs {
		if p := l.places[x]; p != nil && p.layout.L > 1 && (v.Def.Op == "reshape" || v.Def.Op == "transpose" || x.Rank() != v.Rank() || x.Static()[1] != v.Static()[1]) || l.moves(x, seen) {
			return true
		}
	}
	return false
}
