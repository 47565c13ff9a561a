package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// The right operand of a product may be computed, as keys and values of
// attention are. To lay it out for tiles pays if many rows use it. Where few
// do, as when a model makes one token after the other, it is read where it
// lies, through transposes and repetitions of heads.

// inPlaceRows is up to how many rows a computed right operand is read in place.
const inPlaceRows = 7

// readThrough reports that a product reads its right operand through what v,
// that operand, is a view by.
func (l *lowerer) readThrough(n *ir.Node, v *ir.Value) bool {
	if n.Op != "dot" || n.Inputs[1] != v || n.Inputs[0] == v || v.DType() != tensor.F32 || n.Inputs[0].DType() != tensor.F32 {
		return false
	}
	d := core.DotAxes(n)
	return l.inPlace(n, d) || l.alongRight(n, d)
}

// inPlace reports products of few rows whose right operand has whole vectors of
// columns side by side.
func (l *lowerer) inPlace(n *ir.Node, d core.DotDims) bool {
	y := n.Inputs[1]
	rank, s := y.Rank(), y.Static()
	if l.o.Lanes < 8 || constantOnly(y) || len(d.RC) != 1 || len(d.RF) != 1 || d.RC[0] != rank-2 || !slices.IsSorted(slices.Concat(d.RB, d.RC, d.RF)) {
		return false
	}
	return rowsOf(n, d) <= inPlaceRows && s[rank-2] >= 4 && s[rank-1]%l.o.Lanes == 0
}

// alongRight reports products of so few rows that no tile pays, whose right
// operand is a view of a value that has the terms of a sum side by side.
func (l *lowerer) alongRight(n *ir.Node, d core.DotDims) bool {
	y := n.Inputs[1]
	if constantOnly(y) || len(d.RC) != 1 || rowsOf(n, d) > 3 || y.Static()[d.RC[0]] < 2*l.o.Lanes {
		return false
	}
	axis, v := d.RC[0], y
	for v.Def != nil && core.Lookup(v.Def.Op).Class == core.Movement && v.Def.Op != "concat" {
		in := v.Def.Inputs[0]
		switch v.Def.Op {
		case "slice":
			if v.Def.Ints("steps")[axis] != 1 {
				return false
			}
		case "transpose":
			axis = v.Def.Ints("perm")[axis]
		case "broadcast":
			if in.Static()[axis] != v.Static()[axis] {
				return false
			}
		case "reshape":
			if axis != v.Rank()-1 || lastAxis(in) != lastAxis(v) {
				return false
			}
			axis = in.Rank() - 1
		default:
			return false
		}
		v = in
	}
	return v != y && axis == v.Rank()-1
}

func rowsOf(n *ir.Node, d core.DotDims) int {
	rows := 1
	for _, a := range d.LF {
		rows *= n.Inputs[0].Static()[a]
	}
	return rows
}

// right gives the place of a matrix of the right operand where it is read in
// place: the value in memory has rows of d.n columns one behind the other.
func (d *tiledDot) right(k *kb, batch, column *loop.Expr) *loop.Expr {
	s := d.y.Static()
	return k.access(d.y, append(loop.Unflatten(batch, s[:len(s)-2]), loop.Int(0), column))
}

// keptInPlace reports that the right operand is a view of a value in plain
// memory that keeps its last two axes.
func (d *tiledDot) keptInPlace(l *lowerer) bool {
	v := d.y
	for l.places[v] == nil {
		if v.Def == nil || core.Lookup(v.Def.Op).Class != core.Movement {
			return false
		}
		in := v.Def.Inputs[0]
		r, q := v.Rank(), in.Rank()
		switch v.Def.Op {
		case "transpose":
			if p := v.Def.Ints("perm"); p[r-1] != r-1 || p[r-2] != r-2 {
				return false
			}
		case "broadcast", "reshape":
			if q < 2 || !slices.Equal(v.Static()[r-2:], in.Static()[q-2:]) {
				return false
			}
		default:
			return false
		}
		v = in
	}
	p := l.places[v]
	return p.layout.isPlain() && p.layout.As == tensor.Invalid && p.buf.Type == tensor.F32
}
