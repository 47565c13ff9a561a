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
	for i := range kh * kw {
		t, guard := tap(i/kw, i%kw)
		if !always(guard) {
			t = loop.If(guard, t, s.init)
		}
		switch i {
		case 0:
			acc = t
		case 1:
			acc = loop.Fn(s.fn, acc, t)
		default: // whether t is a number is found out beside; whether acc is would be waited for
			acc = loop.Fn(s.fn, t, acc)
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

// windowRows is up to how many elements of combined rows are kept.
const windowRows = 512

// plain slides over planes: the lanes are positions along a row. The rows under
// a window are combined first, whole and side by side, then the neighbours in
// what that gives: fewer steps, and fewer loads with gaps where the stride is
// not 1. Those rows have room around them which changes no result. Many are
// combined before the first is read: a load that spans what two stores wrote
// just before waits for both.
func (s *slidingWindow) plain() {
	g, lay, width := s.geo, s.dst.layout, s.x.Static()[3]
	p := s.fresh("p", lay.Shape[0]*lay.Shape[1])
	r := &windowBands{slidingWindow: s, before: g.Lo[1], plane: p}
	r.all = max(r.before+width, (g.Out[1]-1)*g.Strides[1]+(g.Kernel[1]-1)*g.Dilations[1]+1)
	r.split = g.Strides[1] == 2 && g.Kernel[1] > 2 && g.Dilations[1] == 1
	if r.split {
		r.all += r.all % 2
	}
	lanes := s.l.o.Lanes
	up := func(n int) int { return (n + lanes - 1) / lanes * lanes }
	r.base = up(r.before) - r.before
	r.pitch = up(r.base + r.all)
	band := max(windowRows/r.pitch, 1)
	if g.Kernel[1] <= g.Strides[1] { // no load spans two stores
		band = 1
	}
	var bands, parts []span // parts of several rows; those that are done at once
	rows := 0
	for _, hs := range s.axis(0) {
		if hs.n > band {
			whole := hs.n - hs.n%band
			bands = append(bands, span{hs.from, whole})
			hs = span{hs.from + whole, hs.n - whole}
		}
		if hs.n > 0 {
			parts = append(parts, hs)
			rows += hs.n
		}
	}
	most := rows
	if len(bands) > 0 {
		most = max(rows, band)
	}
	r.buf = s.local("row", s.init.Type, r.pitch*most)
	if r.split {
		r.half = up(r.all / 2)
		r.even, r.odd = s.local("even", s.init.Type, r.half*most), s.local("odd", s.init.Type, r.half*most)
	}
	body := r.room(most, r.all-r.before-width)
	for _, hs := range bands {
		bv := s.fresh("b", hs.n/band)
		from := loop.Add(loop.Mul(loop.V(bv), band), loop.Int(hs.from))
		once := append(r.down(from, band, 0), r.apart(band)...)
		body = append(body, loop.Nest([]*loop.Var{bv}, []loop.LoopKind{loop.Serial}, append(once, r.across(from, band, 0)...)...)...)
	}
	at := 0
	for _, hs := range parts {
		body = append(body, r.down(loop.Int(hs.from), hs.n, at)...)
		at += hs.n
	}
	body = append(body, r.apart(rows)...)
	at = 0
	for _, hs := range parts {
		body = append(body, r.across(loop.Int(hs.from), hs.n, at)...)
		at += hs.n
	}
	s.end(p, body)
}

// windowBands are combined rows, and what is made of them. The operand's first
// element is where a vector begins.
type windowBands struct {
	*slidingWindow
	buf         *loop.Buffer
	all, before int // elements of a row, and those before the first of the operand
	base, pitch int // where a row begins, and the next one
	plane       *loop.Var
	// split says that rows are taken apart before neighbours are combined, into
	// elements at even and odd places: then all loads are of whole vectors.
	split     bool
	even, odd *loop.Buffer
	half      int
}

func (r *windowBands) image() (n, c *loop.Expr) {
	channels := r.dst.layout.Shape[1]
	return loop.Div(loop.V(r.plane), channels), loop.Mod(loop.V(r.plane), channels)
}

// room sets what lies around the rows.
func (r *windowBands) room(rows, after int) (body []loop.Stmt) {
	for _, pad := range []span{{0, r.before}, {r.all - after, after}} {
		if pad.n > 0 {
			h, v := r.fresh("h", rows), r.fresh("v", pad.n)
			at := loop.Add(loop.Mul(loop.V(h), r.pitch), loop.Add(loop.V(v), loop.Int(r.base+pad.from)))
			body = append(body, loop.Nest([]*loop.Var{h, v}, make([]loop.LoopKind, 2), &loop.Store{Buf: r.buf, Index: at, Val: r.init})...)
		}
	}
	return body
}

// down combines what lies one above the other, for n rows of the result, into
// the rows from at on.
func (r *windowBands) down(from *loop.Expr, n, at int) []loop.Stmt {
	g := r.geo
	img, c := r.image()
	hv, v := r.fresh("h", n), r.fresh("v", r.x.Static()[3])
	h := loop.Add(loop.V(hv), from)
	val := r.fold(g.Kernel[0], 1, func(a, _ int) (t, guard *loop.Expr) {
		y := loop.Add(loop.Mul(h, g.Strides[0]), loop.Int(a*g.Dilations[0]-g.Lo[0]))
		t = loop.To(r.init.Type, r.access(r.x, []*loop.Expr{img, c, y, loop.V(v)}))
		return t, loop.Within(y, 0, r.x.Static()[2])
	})
	index := loop.Add(loop.Mul(loop.Add(loop.V(hv), loop.Int(at)), r.pitch), loop.Add(loop.V(v), loop.Int(r.base+r.before)))
	return loop.Nest([]*loop.Var{hv, v}, []loop.LoopKind{loop.Serial, loop.Vector}, &loop.Store{Buf: r.buf, Index: index, Val: val})
}

// apart takes rows apart.
func (r *windowBands) apart(rows int) []loop.Stmt {
	if !r.split || rows == 0 {
		return nil
	}
	h, v := r.fresh("h", rows), r.fresh("v", r.all/2)
	to := loop.Add(loop.Mul(loop.V(h), r.half), loop.V(v))
	from := loop.Add(loop.Mul(loop.V(h), r.pitch), loop.Add(loop.Mul(loop.V(v), 2), loop.Int(r.base)))
	return loop.Nest([]*loop.Var{h, v}, []loop.LoopKind{loop.Serial, loop.Vector},
		&loop.Store{Buf: r.even, Index: to, Val: loop.At(r.buf, from)},
		&loop.Store{Buf: r.odd, Index: to, Val: loop.At(r.buf, loop.Add(from, loop.Int(1)))})
}

// across combines neighbours, and stores.
func (r *windowBands) across(from *loop.Expr, n, at int) []loop.Stmt {
	g := r.geo
	img, c := r.image()
	hv, wv := r.fresh("h", n), r.fresh("w", g.Out[1])
	row := loop.Add(loop.V(hv), loop.Int(at))
	val := r.fold(1, g.Kernel[1], func(_, b int) (t, guard *loop.Expr) {
		if r.split {
			half := []*loop.Buffer{r.even, r.odd}[b%2]
			return loop.At(half, loop.Add(loop.Mul(row, r.half), loop.Add(loop.V(wv), loop.Int(b/2)))), nil
		}
		at := loop.Add(loop.Mul(loop.V(wv), g.Strides[1]), loop.Int(r.base+b*g.Dilations[1]))
		return loop.At(r.buf, loop.Add(loop.Mul(row, r.pitch), at)), nil
	})
	store := r.epilogue(r.g, r.dst, r.out, []*loop.Expr{img, c, loop.Add(loop.V(hv), from), loop.V(wv)}, val)
	return loop.Nest([]*loop.Var{hv, wv}, []loop.LoopKind{loop.Serial, loop.Vector}, store)
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
	blocks := dst.layout.L > 1
	s := &slidingWindow{kb: l.kernelFor(g.root), g: g, geo: geo, x: x, fn: fn, init: identity(op, acc), dst: dst}
	if apart := blocks && s.rowsApart(); (apart || (blocks || dst.layout.isPlain()) && writtenOut(geo)) && tensor.Numel(g.root.Static()) > 0 {
		l.places[g.root] = nil
		defer func() { l.places[g.root] = dst }()
		s.out = s.param(dst.buf, true)
		switch {
		case apart:
			s.blockRows()
		case blocks:
			s.blocks()
		default:
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
