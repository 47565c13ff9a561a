package lower

import (
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// unblocked stores a value that lies in channel blocks as rows, from channel at
// of a place of owner on; false if it lies otherwise. Whole blocks are kernels of
// their own, so that a part-filled one needs no division in the others.
func (l *lowerer) unblocked(family string, owner, x *ir.Value, dst *place, at int) bool {
	p := l.places[x]
	if p == nil || p.layout.L <= 1 || len(p.layout.Shape) != 4 || len(dst.layout.Shape) != 4 || tensor.Numel(x.Static()) == 0 {
		return false
	}
	first := 0
	for _, n := range p.layout.parts() {
		whole := n / p.layout.L * p.layout.L
		for _, m := range []int{whole, n - whole} {
			if m > 0 {
				l.unblockedPart(family, owner, x, dst, first, m, at+first)
			}
			first += m
		}
	}
	return true
}

// unblockedPart stores n channels from the first on as rows from channel at on.
func (l *lowerer) unblockedPart(family string, owner, x *ir.Value, dst *place, first, n, at int) {
	k := l.kernelFor(owner)
	out := k.param(dst.buf, true)
	part := []int{x.Static()[0], n, x.Static()[2], x.Static()[3]}
	f := func(k *kb, idx []*loop.Expr) *loop.Expr {
		return k.access(x, []*loop.Expr{idx[0], loop.Add(idx[1], loop.Int(first)), idx[2], idx[3]})
	}
	shape := l.merged(x, part, f)
	vars, idx := k.space(shape)
	src := reindex(idx, shape, part)
	val := f(k, src)
	to := []*loop.Expr{src[0], loop.Add(src[1], loop.Int(at)), src[2], src[3]}
	vars = facing(vars, val)
	kinds := make([]loop.LoopKind, len(vars))
	kinds[len(kinds)-1] = loop.Vector
	work := int64(val.Cost()+1) * int64(tensor.Numel(part))
	store := &loop.Store{Buf: out, Index: loop.Flatten(to, dst.layout.Shape), Val: dst.layout.stored(val)}
	k.finish(family, parallelise(loop.Nest(vars, kinds, store), work), work)
}
