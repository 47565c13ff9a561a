package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// deviation is a mean and the sum of the squares of the distances from it, found in
// one pass over a row: by the distances d from a number c near the mean,
// Σ(x−mean)² = Σd² − (Σd)²/n. What cancels there is (mean−c)² against the mean
// square: c is the mean of the first 16th of the row, at least, so that the
// squares are off by at most some 16 roundings, whatever the row, and by one or
// two where the first elements are like the others.
type deviation struct {
	*rowPass
	x, mean, sum, squares *ir.Value
}

// deviationFrom is how many elements at the beginning of a row c is the mean of.
func deviationFrom(n int) int { return max(64, (n/16+63)&^63) }

// deviationOf finds such a pair at the beginning of what is to be reduced.
func (r *rowPass) deviationOf(reds []*ir.Node) *deviation {
	if r.lane != nil || r.tiles != nil || len(reds) < 2 || len(r.temps) > 0 || r.rowLen < 128 || r.l.mode(reds[0]) == precision.IEEE {
		return nil
	}
	s := &deviation{rowPass: r, x: reds[0].Inputs[0], sum: reds[0].Outputs[0], squares: reds[1].Outputs[0]}
	sq := reds[1].Inputs[0].Def
	if reds[0].Op != "reduce_sum" || reds[1].Op != "reduce_sum" || s.x.DType() != tensor.F32 ||
		sq == nil || sq.Op != "mul" || sq.Inputs[0] != sq.Inputs[1] {
		return nil
	}
	d := sq.Inputs[0].Def
	if d == nil || d.Op != "sub" || d.Inputs[0] != s.x || d.Inputs[1].Def == nil || d.Inputs[1].Def.Op != "broadcast" {
		return nil
	}
	s.mean = d.Inputs[1].Def.Inputs[0]
	m := s.mean.Def
	if m == nil || len(m.Inputs) != 2 || m.Inputs[0] != s.sum ||
		!(m.Op == "div" && isUniform(m.Inputs[1], float64(r.rowLen)) || m.Op == "mul" && isUniform(m.Inputs[1], float64(float32(1/float64(r.rowLen))))) {
		return nil
	}
	if slices.ContainsFunc([]*ir.Value{s.mean, d.Outputs[0], sq.Outputs[0]}, func(v *ir.Value) bool { return r.l.places[v] != nil }) {
		return nil
	}
	return s
}

// isUniform reports a constant, broadcast or not, whose elements are all one
// number.
func isUniform(v *ir.Value, want float64) bool {
	for v.Def != nil && v.Def.Op == "broadcast" {
		v = v.Def.Inputs[0]
	}
	if v.Const == nil {
		return false
	}
	e := uniform(v.Const)
	return e != nil && e.F == want
}

// pass is the pass, with what comes before and after it.
func (s *deviation) pass() (body []loop.Stmt) {
	n, few := float64(s.rowLen), min(deviationFrom(s.rowLen), s.rowLen)
	number := func(x float64) *loop.Expr { return loop.Number(tensor.F32, x, 0) }
	type regs struct{ c, sum, squares *loop.Reg }
	rs := make([]regs, len(s.rows))
	zero := func(r *loop.Reg) loop.Stmt { return &loop.Set{Reg: r, Val: number(0), Decl: true} }
	s.all(func(k int) {
		rs[k] = regs{s.reg("near", tensor.F32), s.reg("sum", tensor.F32), s.reg("squares", tensor.F32)}
		body = append(body, zero(rs[k].c), zero(rs[k].sum), zero(rs[k].squares))
	})
	body = append(body, s.first(few, func(k int, idx []*loop.Expr, _ *loop.Expr) []loop.Stmt {
		return []loop.Stmt{&loop.Accum{Reg: rs[k].c, Fn: "add", Val: s.access(s.x, idx)}}
	}))
	s.all(func(k int) {
		c := rs[k].c
		body = append(body, &loop.Set{Reg: c, Val: loop.Fn("mul", loop.R(c), number(1/float64(few)))})
	})
	body = append(body, s.first(s.rowLen, func(k int, idx []*loop.Expr, _ *loop.Expr) []loop.Stmt {
		d := s.reg("d", tensor.F32)
		return []loop.Stmt{
			&loop.Set{Reg: d, Val: loop.Fn("sub", s.access(s.x, idx), loop.R(rs[k].c)), Decl: true},
			&loop.Accum{Reg: rs[k].sum, Fn: "add", Val: loop.R(d)},
			&loop.Accum{Reg: rs[k].squares, Fn: "add", Val: loop.Fn("mul", loop.R(d), loop.R(d))},
		}
	}))
	s.all(func(k int) {
		mean, sum, squares := s.result(s.mean, tensor.F32), s.result(s.sum, tensor.F32), s.result(s.squares, tensor.F32)
		off := s.reg("off", tensor.F32)
		body = append(body,
			&loop.Set{Reg: off, Val: loop.Fn("mul", loop.R(rs[k].sum), number(1/n)), Decl: true},
			mean.set(loop.Fn("add", loop.R(rs[k].c), loop.R(off))),
			sum.set(loop.Fn("mul", mean.value(), number(n))),
			squares.set(loop.Fn("max", loop.Fn("sub", loop.R(rs[k].squares), loop.Fn("mul", loop.R(rs[k].sum), loop.R(off))), number(0))))
		mean.done(s.mean)
		sum.done(s.sum)
		body = append(body, s.derived(s.sum)...)
		squares.done(s.squares)
		body = append(body, s.derived(s.squares)...)
	})
	return body
}
