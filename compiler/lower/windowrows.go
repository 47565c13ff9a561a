package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
)

// apartTaps is from how many taps on a window over channel blocks combines whole
// rows before neighbours, closeTaps that where windows are one apart, so that all
// that is combined is used for several; longAxis up to how many along an axis are
// written out.
const (
	apartTaps = 12
	closeTaps = 9
	longAxis  = 16
)

// rowsApart reports that a window over channel blocks pays for a row in scratch:
// kernel rows and columns one after the other instead of each with each.
func (s *slidingWindow) rowsApart() bool {
	k, least := s.geo.Kernel, apartTaps
	if len(k) == 2 && s.geo.Strides[1] == 1 {
		least = closeTaps
	}
	for _, d := range s.geo.XDil {
		if d > 1 {
			return false
		}
	}
	return len(k) == 2 && k[0] > 1 && k[1] > 1 && k[0] <= longAxis && k[1] <= longAxis && k[0]*k[1] >= least
}

// contiguous reports that every window reads rows side by side, of which the
// operand has at least one: then a row beyond its edge may be the one at it.
func (s *slidingWindow) contiguous() bool {
	g := s.geo
	return g.Dilations[0] == 1 && g.Lo[0] < g.Kernel[0] && (g.Out[0]-1)*g.Strides[0]-g.Lo[0] < s.x.Static()[2]
}

// blockRows slides over channel blocks: the rows under a window are combined
// into one, which has room around it that changes no result, then neighbours in
// that.
func (s *slidingWindow) blockRows() {
	g, lay, width := s.geo, s.dst.layout, s.x.Static()[3]
	size := max(g.Lo[1]+width, (g.Out[1]-1)*g.Strides[1]+(g.Kernel[1]-1)*g.Dilations[1]+1)
	p, row := s.fresh("q", lay.Shape[0]*lay.blocks()), s.local("row", s.init.Type, size*lay.L)
	n, block := loop.Div(loop.V(p), lay.blocks()), loop.Mod(loop.V(p), lay.blocks())
	body := lay.zeroHalo(s.out, loop.V(p), s.fresh)
	for _, edge := range []span{{0, g.Lo[1]}, {g.Lo[1] + width, size - g.Lo[1] - width}} {
		if edge.n > 0 {
			v := s.fresh("v", edge.n*lay.L)
			body = append(body, &loop.For{Var: v, Kind: loop.Vector, Body: []loop.Stmt{
				&loop.Store{Buf: row, Index: loop.Add(loop.V(v), loop.Int(edge.from*lay.L)), Val: s.init}}})
		}
	}
	channel := func(ci *loop.Var) *loop.Expr { return loop.Add(loop.Mul(block, lay.L), loop.V(ci)) }
	known := func(ci *loop.Var, e *loop.Expr) *loop.Expr {
		return loop.If(loop.Less(channel(ci), loop.Int(lay.Shape[1])), e, loop.Number(e.Type, 0, 0))
	}
	for _, hs := range s.axis(0) {
		hv := s.fresh("h", hs.n)
		h := loop.Add(loop.V(hv), loop.Int(hs.from))
		v, ci := s.fresh("v", width), s.fresh("c", lay.L)
		down := s.fold(g.Kernel[0], 1, func(a, _ int) (t, guard *loop.Expr) {
			y := loop.Add(loop.Mul(h, g.Strides[0]), loop.Int(a*g.Dilations[0]-g.Lo[0]))
			guard = loop.Within(y, 0, s.x.Static()[2])
			if s.fn == "max" && s.contiguous() { // a row once more changes no maximum
				y, guard = loop.Clamp(y, 0, s.x.Static()[2]-1), nil
			}
			return loop.To(s.init.Type, s.padded(s.x, []*loop.Expr{n, channel(ci), y, loop.V(v)})), guard
		})
		at := loop.Add(loop.Mul(loop.Add(loop.V(v), loop.Int(g.Lo[1])), lay.L), loop.V(ci))
		once := loop.Nest([]*loop.Var{v, ci}, []loop.LoopKind{loop.Serial, loop.Vector}, &loop.Store{Buf: row, Index: at, Val: known(ci, down)})
		wv, co := s.fresh("w", g.Out[1]), s.fresh("c", lay.L)
		across := s.fold(1, g.Kernel[1], func(_, b int) (t, guard *loop.Expr) {
			col := loop.Add(loop.Mul(loop.V(wv), g.Strides[1]), loop.Int(b*g.Dilations[1]))
			return loop.At(row, loop.Add(loop.Mul(col, lay.L), loop.V(co))), nil
		})
		store := s.epilogue(s.g, s.dst, s.out, []*loop.Expr{n, channel(co), h, loop.V(wv)}, across).(*loop.Store)
		store.Val = known(co, store.Val)
		once = append(once, loop.Nest([]*loop.Var{wv, co}, []loop.LoopKind{loop.Serial, loop.Vector}, store)...)
		body = append(body, &loop.For{Var: hv, Body: once})
	}
	s.end(p, body)
}
