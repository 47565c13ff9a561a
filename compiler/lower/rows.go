package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// combine is the scalar function of a reduction.
var combine = map[string]string{"reduce_sum": "add", "reduce_prod": "mul", "reduce_max": "max", "reduce_min": "min"}

// accumulator is the type that a reduction over an element type runs in.
func accumulator(d tensor.DType) tensor.DType { return loop.Compute(d) }

func identity(op string, d tensor.DType) *loop.Expr { return loop.Of(core.Identity(op, d), 0) }

// emitRows makes one kernel of reductions over the same axes and of what they
// scale. Per row: a pass for each reduction, which keeps its result in a
// register, then a pass that stores. Values that several passes need and that
// are dear to compute are kept in a row of scratch.
func (l *lowerer) emitRows(g *group) error {
	full := g.rows[0].Inputs[0].Static()
	axes := g.rows[0].Ints("axes")
	dst := l.target(g.root)
	l.places[g.root] = nil
	defer func() { l.places[g.root] = dst }()
	k := l.kernelFor(g.root)
	out := k.param(dst.buf, true)
	var outerShape, innerShape []int
	for i, d := range full {
		if slices.Contains(axes, i) {
			innerShape = append(innerShape, d)
		} else {
			outerShape = append(outerShape, d)
		}
	}
	if tensor.Numel(full) == 0 {
		return nil
	}
	l.clear(g.root, dst)
	outer := k.fresh("r", tensor.Numel(outerShape))
	oidx := loop.Unflatten(loop.V(outer), outerShape)
	at := func(in []*loop.Expr) []*loop.Expr {
		idx := make([]*loop.Expr, len(full))
		o, i := 0, 0
		for a := range full {
			if slices.Contains(axes, a) {
				idx[a] = in[i]
				i++
			} else {
				idx[a] = oidx[o]
				o++
			}
		}
		return idx
	}
	rowLen := tensor.Numel(innerShape)
	keep := l.rowTemps(g, full, rowLen)
	var body []loop.Stmt
	inner := func(build func(idx []*loop.Expr, flat *loop.Expr) []loop.Stmt) loop.Stmt {
		v := k.fresh("j", rowLen)
		return &loop.For{Var: v, Kind: loop.Vector, Body: build(at(loop.Unflatten(loop.V(v), innerShape)), loop.V(v))}
	}
	// reach finds the dear values that an expression needs and that no pass has
	// kept yet; they are stored in this pass.
	kept := map[*ir.Value]bool{}
	pass := func(v *ir.Value, idx []*loop.Expr, flat *loop.Expr) (pre []loop.Stmt) {
		for _, t := range keep {
			if kept[t] || !dependsOn(v, t, l) {
				continue
			}
			kept[t] = true
			buf := k.local("row", t.DType(), rowLen)
			pre = append(pre, &loop.Store{Buf: buf, Index: flat, Val: k.access(t, idx)})
			k.memo = map[string]*loop.Expr{}
			k.over[t] = func(i []*loop.Expr) *loop.Expr {
				var in []*loop.Expr
				for a := range full {
					if slices.Contains(axes, a) {
						in = append(in, i[a])
					}
				}
				return loop.At(buf, loop.Flatten(in, innerShape))
			}
		}
		return pre
	}
	work := int64(0)
	for _, r := range g.rows {
		x := r.Inputs[0]
		acc := k.reg("acc", accumulator(x.DType()))
		body = append(body, &loop.Set{Reg: acc, Val: identity(r.Op, acc.Type), Decl: true})
		body = append(body, inner(func(idx []*loop.Expr, flat *loop.Expr) []loop.Stmt {
			stmts := pass(x, idx, flat)
			val := loop.To(acc.Type, k.access(x, idx))
			work += int64(val.Cost()+1) * int64(tensor.Numel(full))
			return append(stmts, &loop.Accum{Reg: acc, Fn: combine[r.Op], Val: val})
		}))
		k.memo = map[string]*loop.Expr{}
		d := r.Outputs[0].DType()
		k.over[r.Outputs[0]] = func([]*loop.Expr) *loop.Expr { return loop.To(d, loop.R(acc)) }
	}
	body = append(body, inner(func(idx []*loop.Expr, flat *loop.Expr) []loop.Stmt {
		stmts := pass(g.root, idx, flat)
		val := k.access(g.root, idx)
		work += int64(val.Cost()+1) * int64(tensor.Numel(full))
		return append(stmts, &loop.Store{Buf: out, Index: dst.layout.offset(idx), Val: dst.layout.stored(val)})
	}))
	k.finish("rows", []loop.Stmt{&loop.For{Var: outer, Par: work >= parallelWork && outer.N > 1, Body: body}}, work)
	return nil
}

// rowTemps are the members of a row group that more than one pass reads and
// that cost more than a load; none if a row does not fit the cache.
func (l *lowerer) rowTemps(g *group, full []int, rowLen int) []*ir.Value {
	if rowLen > 8192 {
		return nil
	}
	roots := []*ir.Value{g.root}
	for _, r := range g.rows {
		roots = append(roots, r.Inputs[0])
	}
	var out []*ir.Value
	if l.dear == nil {
		l.dear = []*ir.Node{}
		for _, n := range l.g.Nodes {
			if core.Lookup(n.Op).Class == core.Pointwise && opCost(n) >= 4 && l.group[n.Outputs[0]] == nil {
				l.dear = append(l.dear, n)
			}
		}
	}
	for _, n := range l.dear {
		v := n.Outputs[0]
		if m := l.member[v]; m != nil && m != g || v == g.root || !slices.Equal(v.Static(), full) {
			continue
		}
		passes := 0
		for _, r := range roots {
			if dependsOn(r, v, l) {
				passes++
			}
		}
		if passes > 1 {
			out = append(out, v)
		}
	}
	return out
}

// dependsOn reports whether computing v where it is read computes t, looking
// through values that are not in memory and not past reductions.
func dependsOn(v, t *ir.Value, l *lowerer) bool {
	seen := map[*ir.Value]bool{}
	var visit func(x *ir.Value) bool
	visit = func(x *ir.Value) bool {
		if x == t {
			return true
		}
		if seen[x] || x.Def == nil || l.places[x] != nil || core.Lookup(x.Def.Op).Class == core.Reduction {
			return false
		}
		seen[x] = true
		return slices.ContainsFunc(x.Def.Inputs, visit)
	}
	return visit(v)
}
