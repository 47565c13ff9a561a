package lower

import (
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// unblocked stores a value that lies in channel blocks as rows, from channel at
// of a place of owner on; false if it lies otherwise. A part-filled block has
// loops of its own, so that no index needs a division.
func (l *lowerer) unblocked(family string, owner, x *ir.Value, dst *place, at int) bool {
	p := l.places[x]
	if p == nil || p.layout.L <= 1 || len(p.layout.Shape) != 4 || len(dst.layout.Shape) != 4 || tensor.Numel(x.Static()) == 0 {
		return false
	}
	first := 0
	for _, n := range p.layout.parts() {
		l.unblockedPart(family, owner, x, dst, first, n, at+first)
		first += n
	}
	return true
}

// unblockedPart stores n channels, from the first on, which begins a block, as
// rows from channel at on.
func (l *lowerer) unblockedPart(family string, owner, x *ir.Value, dst *place, first, n, at int) {
	k, lay := l.kernelFor(owner), l.places[x].layout
	out := k.param(dst.buf, true)
	s := x.Static()
	blocks, height, width := blocksOf(n, lay.L), s[2], s[3]
	if lay.Lo == [2]int{} && lay.Hi == [2]int{} { // a plane is one row
		height, width = 1, height*width
	}
	shared := 1 // rows of a plane that threads share, where planes are too few
	if size := s[0] * n * s[2] * s[3]; s[0]*blocks < 16 && size >= parallelWork {
		shared, height, width = s[2], 1, s[3]
	}
	p := k.fresh("q", s[0]*blocks*shared)
	block, top := loop.Mod(loop.V(p), blocks), loop.Mod(loop.Div(loop.V(p), blocks), shared)
	image := loop.Div(loop.V(p), blocks*shared)
	cost := 0
	lanes := func(n int) []loop.Stmt {
		h, c, w := k.fresh("h", height), k.fresh("c", n), k.fresh("w", width)
		ch := loop.Add(loop.Mul(block, lay.L), loop.V(c))
		row := loop.Add(loop.Add(top, loop.V(h)), loop.Div(loop.V(w), s[3]))
		idx := func(from int) []*loop.Expr {
			return []*loop.Expr{image, loop.Add(ch, loop.Int(from)), row, loop.Mod(loop.V(w), s[3])}
		}
		val := k.access(x, idx(first))
		cost = val.Cost() + 1
		store := &loop.Store{Buf: out, Index: loop.Flatten(idx(at), dst.layout.Shape), Val: dst.layout.stored(val)}
		return loop.Nest([]*loop.Var{h, c, w}, []loop.LoopKind{loop.Serial, loop.Serial, loop.Vector}, store)
	}
	whole, rest := func() []loop.Stmt { return lanes(lay.L) }, n%lay.L
	body := choice(block, n/lay.L, blocks, whole, func() []loop.Stmt { return lanes(rest) })
	work := int64(cost) * int64(tensor.Numel(s)/s[1]*n)
	k.finish(family, []loop.Stmt{&loop.For{Var: p, Par: work >= parallelWork, Body: body}}, work)
}
