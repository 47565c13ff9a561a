package lower

import (
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// windowTaps is up to how many elements a window may have to be written out.
const windowTaps = 32

// span is a range of output positions along an axis.
type span struct{ from, n int }

// spans cuts an output axis into what reaches beyond the operand at its
// beginning, what does not, and what does at its end.
func spans(out, size, kernel, stride, dilation, pad int) []span {
	lo := min((pad+stride-1)/stride, out)
	hi := lo
	if room := size - 1 + pad - (kernel-1)*dilation; room >= 0 {
		hi = max(min(room/stride+1, out), lo)
	}
	var s []span
	for _, p := range []span{{0, lo}, {lo, hi - lo}, {hi, out - hi}} {
		if p.n > 0 {
			s = append(s, p)
		}
	}
	return s
}

// slidingWindow is a window of few taps over two axes, written out: what lies
// inside the operand needs no guards.
type slidingWindow struct {
	*kb
	g    *group
	geo  core.ConvDims
	x    *ir.Value
	fn   string
	init *loop.Expr
	dst  *place
	out  *loop.Buffer
}

// writtenOut reports whether a window can be.
func writtenOut(geo core.ConvDims) bool {
	if len(geo.Kernel) != 2 || tensor.Numel(geo.Kernel) > windowTaps {
		return false
	}
	for _, d := range geo.XDil {
		if d > 1 {
			return false
		}
	}
	return true
}

// fold combines the taps at kernel positions from 0 to kh and kw; tap gives the
// element and its guard.
func (s *slidingWindow) fold(kh, kw int, tap func(a, b int) (t, guard *loop.Expr)) *loop.Expr {
	var acc *loop.Expr
	for a := range kh {
		for b := range kw {
			t, guard := tap(a, b)
			if !always(guard) {
				t = loop.If(guard, t, s.init)
			}
			if acc == nil {
				acc = t
				continue
			}
			acc = loop.Fn(s.fn, acc, t)
		}
	}
	return acc
}

// value is the result at a position.
func (s *slidingWindow) value(n, c, h, w *loop.Expr) *loop.Expr {
	return s.fold(s.geo.Kernel[0], s.geo.Kernel[1], func(a, b int) (t, guard *loop.Expr) {
		xi, guard := geometry{s.geo}.sources([]*loop.Expr{h, w}, []*loop.Expr{loop.Int(a), loop.Int(b)}, s.x.Static()[2:])
		return loop.To(s.init.Type, s.padded(s.x, []*loop.Expr{n, c, xi[0], xi[1]})), guard
	})
}

// axis gives the parts of an axis of the result.
func (s *slidingWindow) axis(a int) []span {
	g := s.geo
	return spans(g.Out[a], s.x.Static()[2+a], g.Kernel[a], g.Strides[a], g.Dilations[a], g.Lo[a])
}

// plain slides over planes: the lanes are positions along a row. The rows under
// a window are combined first, whole and side by side, then the neighbours in
// what that gives: fewer steps, and fewer loads with gaps where the stride is
// not 1. That row has room around it which changes no result.
func (s *slidingWindow) plain() {
	g, lay, width := s.geo, s.dst.layout, s.x.Static()[3]
	p := s.fresh("p", lay.Shape[0]*lay.Shape[1])
	n, c := loop.Div(loop.V(p), lay.Shape[1]), loop.Mod(loop.V(p), lay.Shape[1])
	before := g.Lo[1]
	all := max(before+width, (g.Out[1]-1)*g.Strides[1]+(g.Kernel[1]-1)*g.Dilations[1]+1)
	row := s.local("row", s.init.Type, all)
	var body []loop.Stmt
	for _, pad := range []span{{0, before}, {before + width, all - before - width}} {
		if pad.n > 0 {
			v := s.fresh("v", pad.n)
			body = append(body, &loop.For{Var: v, Body: []loop.Stmt{&loop.Store{Buf: row, Index: loop.Add(loop.V(v), loop.Int(pad.from)), Val: s.init}}})
		}
	}
	for _, hs := range s.axis(0) {
		hv, v, wv := s.fresh("h", hs.n), s.fresh("v", width), s.fresh("w", g.Out[1])
		h := loop.Add(loop.V(hv), loop.Int(hs.from))
		down := s.fold(g.Kernel[0], 1, func(a, _ int) (t, guard *loop.Expr) {
			at := loop.Add(loop.Mul(h, g.Strides[0]), loop.Int(a*g.Dilations[0]-g.Lo[0]))
			t = loop.To(s.init.Type, s.access(s.x, []*loop.Expr{n, c, at, loop.V(v)}))
			return t, loop.Within(at, 0, s.x.Static()[2])
		})
		across := s.fold(1, g.Kernel[1], func(_, b int) (t, guard *loop.Expr) {
			return loop.At(row, loop.Add(loop.Mul(loop.V(wv), g.Strides[1]), loop.Int(b*g.Dilations[1]))), nil
		})
		store := s.epilogue(s.g, s.dst, s.out, []*loop.Expr{n, c, h, loop.V(wv)}, across)
		body = append(body, &loop.For{Var: hv, Body: []loop.Stmt{
			&loop.For{Var: v, Kind: loop.Vector, Body: []loop.Stmt{&loop.Store{Buf: row, Index: loop.Add(loop.V(v), loop.Int(before)), Val: down}}},
			&loop.For{Var: wv, Kind: loop.Vector, Body: []loop.Stmt{store}},
		}})
	}
	s.end(p, body)
}

// blocks slides over channel blocks: the lanes are channels.
func (s *slidingWindow) blocks() {
	lay := s.dst.layout
	p := s.fresh("q", lay.Shape[0]*lay.blocks())
	body := lay.zeroHalo(s.out, loop.V(p), s.fresh)
	for _, hs := range s.axis(0) {
		hv := s.fresh("h", hs.n)
		h := loop.Add(loop.V(hv), loop.Int(hs.from))
		var row []loop.Stmt
		for _, ws := range s.axis(1) {
			wv, ci := s.fresh("w", ws.n), s.fresh("c", lay.L)
			w := loop.Add(loop.V(wv), loop.Int(ws.from))
			n := loop.Div(loop.V(p), lay.blocks())
			c := loop.Add(loop.Mul(loop.Mod(loop.V(p), lay.blocks()), lay.L), loop.V(ci))
			store := s.epilogue(s.g, s.dst, s.out, []*loop.Expr{n, c, h, w}, s.value(n, c, h, w)).(*loop.Store)
			store.Val = loop.If(loop.Less(c, loop.Int(s.x.Static()[1])), store.Val, loop.Number(store.Val.Type, 0, 0))
			row = append(row, loop.Nest([]*loop.Var{wv, ci}, []loop.LoopKind{loop.Serial, loop.Vector}, store)...)
		}
		body = append(body, &loop.For{Var: hv, Body: row})
	}
	s.end(p, body)
}

func (s *slidingWindow) end(p *loop.Var, body []loop.Stmt) {
	work := int64(s.dst.layout.Len()) * int64(tensor.Numel(s.geo.Kernel))
	s.finish("window", []loop.Stmt{&loop.For{Var: p, Par: work >= parallelWork && p.N > 1, Body: body}}, work)
}

// emitWindow is a sliding maximum or sum.
func (l *lowerer) emitWindow(g *group) error {
	n := g.anchor
	x := n.Inputs[0]
	xs := x.Static()
	geo, err := core.ConvGeometry(n, xs[2:], n.Ints("kernel"))
	if err != nil {
		return err
	}
	fn, op := "max", "reduce_max"
	if n.Op == "window_sum" {
		fn, op = "add", "reduce_sum"
	}
	acc := accumulator(x.DType())
	dst := l.target(g.root)
	if blocks := dst.layout.L > 1; (blocks || dst.layout.isPlain()) && writtenOut(geo) && tensor.Numel(g.root.Static()) > 0 {
		l.places[g.root] = nil
		defer func() { l.places[g.root] = dst }()
		s := &slidingWindow{kb: l.kernelFor(g.root), g: g, geo: geo, x: x, fn: fn, init: identity(op, acc), dst: dst}
		s.out = s.param(dst.buf, true)
		if blocks {
			s.blocks()
		} else {
			s.plain()
		}
		return nil
	}
	if dst.layout.L > 1 {
		return l.emitWindowBlocks(g, geo, fn, identity(op, acc))
	}
	return l.emitNest(g, "window", nest{fn: fn, init: identity(op, acc), acc: acc, red: geo.Kernel, lane: len(xs) - 1,
		steps: func(k *kb, out, red []*loop.Expr) (*loop.Expr, *loop.Expr) {
			xi, guard := geometry{geo}.sources(out[2:], red, xs[2:])
			return guard, loop.To(acc, k.access(x, append([]*loop.Expr{out[0], out[1]}, xi...)))
		}})
}
