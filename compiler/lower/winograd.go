package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// combo is a sum of terms with constant factors; zero factors vanish.
func combo(c []float64, x func(int) *loop.Expr) *loop.Expr {
	var e *loop.Expr
	for i, f := range c {
		if f == 0 {
			continue
		}
		term := x(i)
		switch {
		case f == -1 && e != nil:
			e = loop.Fn("sub", e, term)
			continue
		case f == -1:
			term = loop.Fn("neg", term)
		case f != 1:
			term = loop.Fn("mul", term, loop.Number(tensor.F32, f, 0))
		}
		if e == nil {
			e = term
		} else {
			e = loop.Fn("add", e, term)
		}
	}
	return e
}

// grid declares a rows×cols array of registers with the given values.
func (k *kb) grid(name string, rows, cols int, val func(i, j int) *loop.Expr) (regs [][]*loop.Reg, sets []loop.Stmt) {
	for i := range rows {
		var line []*loop.Reg
		for j := range cols {
			r := k.reg(name, tensor.F32)
			line = append(line, r)
			sets = append(sets, &loop.Set{Reg: r, Val: val(i, j), Decl: true})
		}
		regs = append(regs, line)
	}
	return regs, sets
}

// forward brings a chunk of the input into scratch.
func (t *convTile) forward(vb *loop.Buffer, at *stagedAt) []loop.Stmt {
	if t.parts > 0 {
		return t.forwardParts(vb, at)
	}
	k, lanes := t.k, t.lanes
	cb, rr, cc, ci := k.fresh("c", t.icb), k.fresh("r", t.chunk.rows), k.fresh("w", t.chunk.cols), k.fresh("l", lanes)
	body := t.frequencies(at, loop.V(cb), loop.V(rr), loop.V(cc), loop.V(ci), func(f int, val *loop.Expr) loop.Stmt {
		tile := loop.Add(loop.Mul(loop.V(rr), t.chunk.cols), loop.V(cc))
		to := loop.Add(loop.Mul(loop.V(cb), t.units()*lanes), loop.Add(loop.Mul(tile, lanes), loop.V(ci)))
		return &loop.Store{Buf: vb, Index: loop.Add(to, loop.Int(f*t.icb*t.units()*lanes)), Val: val}
	})
	return loop.Nest([]*loop.Var{cb, rr, cc, ci}, []loop.LoopKind{loop.Serial, loop.Serial, loop.Serial, loop.Vector}, body...)
}

// pixel is where a lane of a pixel of the input lies, counted from a unit of the
// chunk on.
func (t *convTile) pixel(at *stagedAt, cb, row, col *loop.Expr, y, x int) *loop.Expr {
	xl := t.x.layout
	plane := loop.Add(loop.Mul(at.image, xl.blocks()), cb)
	if t.Groups > 1 {
		plane = loop.Add(plane, loop.Mul(loop.Div(at.block, t.groupWidth), t.icb))
	}
	ih := loop.Add(loop.Mul(loop.Add(at.row, row), t.step[0]), loop.Int(-t.Lo[0]))
	iw := loop.Add(loop.Mul(loop.Add(at.col, col), t.step[1]), loop.Int(-t.Lo[1]))
	return t.at(xl, plane, loop.Add(ih, loop.Int(y)), loop.Add(iw, loop.Int(x)))
}

// frequencies computes Bᵀ·d·B of one lane of a tile.
func (t *convTile) frequencies(at *stagedAt, cb, row, col, lane *loop.Expr, store func(f int, val *loop.Expr) loop.Stmt) []loop.Stmt {
	k, w := t.k, t.wg
	d, body := k.grid("d", w.h.n, w.w.n, func(i, j int) *loop.Expr {
		return loop.At(t.xb, loop.Add(t.pixel(at, cb, row, col, i, j), lane))
	})
	e, more := k.grid("b", w.h.n, w.w.n, func(i, j int) *loop.Expr {
		return combo(w.h.bt[i], func(x int) *loop.Expr { return loop.R(d[x][j]) })
	})
	body = append(body, more...)
	for i := range w.h.n {
		for j := range w.w.n {
			body = append(body, store(i*w.w.n+j, combo(w.w.bt[j], func(x int) *loop.Expr { return loop.R(e[i][x]) })))
		}
	}
	return body
}

// back computes Aᵀ·m·A of every tile and stores it through the epilogue.
func (t *convTile) back(mb *loop.Buffer, at *stagedAt) []loop.Stmt {
	k, w, lanes, tiles := t.k, t.wg, t.lanes, t.inARow()
	ob, rr, cc, ci := k.fresh("o", at.per), k.fresh("r", t.chunk.rows), k.fresh("w", t.chunk.cols), k.fresh("l", lanes)
	tile := loop.Add(loop.Mul(loop.V(rr), t.chunk.cols), loop.V(cc))
	s, body := k.grid("s", w.h.n, w.w.n, func(i, j int) *loop.Expr {
		from := loop.Add(loop.Mul(loop.V(ob), tiles*lanes), loop.Add(loop.Mul(tile, lanes), loop.V(ci)))
		return loop.At(mb, loop.Add(from, loop.Int((i*w.w.n+j)*at.per*tiles*lanes)))
	})
	e, more := k.grid("a", w.h.m, w.w.n, func(i, j int) *loop.Expr {
		return combo(w.h.at[i], func(x int) *loop.Expr { return loop.R(s[x][j]) })
	})
	body = append(body, more...)
	yb := k.local("y", tensor.F32, w.h.m*w.w.m*lanes)
	o, more := k.grid("o", w.h.m, w.w.m, func(i, j int) *loop.Expr {
		return combo(w.w.at[j], func(x int) *loop.Expr { return loop.R(e[i][x]) })
	})
	body = append(body, more...)
	for i := range w.h.m {
		for j := range w.w.m {
			body = append(body, &loop.Store{Buf: yb, Index: loop.Add(loop.V(ci), loop.Int((i*w.w.m+j)*lanes)), Val: loop.R(o[i][j])})
		}
	}
	inner := t.guarded(o, body, yb, at, loop.Add(at.row, loop.V(rr)), loop.Add(at.col, loop.V(cc)), loop.Add(at.block, loop.V(ob)), ci)
	i, j, ln := k.fresh("i", w.h.m), k.fresh("j", w.w.m), k.fresh("l", lanes)
	oh := loop.Add(loop.Mul(loop.Add(at.row, loop.V(rr)), w.h.m), loop.V(i))
	ow := loop.Add(loop.Mul(loop.Add(at.col, loop.V(cc)), w.w.m), loop.V(j))
	ch := loop.Add(loop.Mul(loop.Add(at.block, loop.V(ob)), lanes), loop.V(ln))
	held := loop.At(yb, loop.Add(loop.Mul(loop.Add(loop.Mul(loop.V(i), w.w.m), loop.V(j)), lanes), loop.V(ln)))
	store := t.finished(t.g.anchor.Outputs[0], held, []*loop.Expr{at.image, ch, oh, ow})
	out := loop.Nest([]*loop.Var{ln}, []loop.LoopKind{loop.Vector}, store)
	if g := loop.And(loop.Less(oh, loop.Int(t.Out[0])), loop.Less(ow, loop.Int(t.Out[1]))); g.Kind != loop.Const {
		out = []loop.Stmt{&loop.Cond{If: g, Then: out}}
	}
	inner = append(inner, loop.Nest([]*loop.Var{i, j}, []loop.LoopKind{loop.Serial, loop.Serial}, out...)...)
	return loop.Nest([]*loop.Var{ob, rr, cc}, []loop.LoopKind{loop.Serial, loop.Serial, loop.Serial}, inner...)
}

// winogradWeights are G·g·Gᵀ in the tiles' order: frequency, tile of output
// blocks, input channels, blocks of the tile, lanes.
func (t *convTile) winogradWeights(l *lowerer, per int) *buf {
	lanes, ics, ob := t.lanes, t.icb*t.lanes, t.shape.OB
	n := t.wg.freqs() * t.ocb * ics * lanes
	return l.weightBuf(t.wName+"·winograd", n, func() []float32 {
		out := make([]float32, n)
		t.transformed(func(f, o, c int, u float64) {
			block := o / lanes
			first := block % per / ob * ob
			width := min(ob, per-first)
			first += block / per * per
			out[(f*t.ocb+first)*ics*lanes+(c*width+block-first)*lanes+o%lanes] = float32(u)
		})
		return out
	})
}

// transformed gives the elements of G·g·Gᵀ, in float64, of which each is to be
// rounded once.
func (t *convTile) transformed(set func(f, o, c int, u float64)) {
	w := t.wg
	g := tensor.As[float32](t.w)
	row := make([]float64, w.w.r) // a row of G·g
	icg := t.ic / t.Groups
	for o := range t.oc {
		for c := range icg {
			k := g[(o*icg+c)*w.h.r*w.w.r:]
			for i := range w.h.n {
				for x := range row {
					row[x] = 0
					for y := range w.h.r {
						row[x] += w.h.g[i][y] * float64(k[y*w.w.r+x])
					}
				}
				for j := range w.w.n {
					u := 0.0
					for x, v := range row {
						u += v * w.w.g[j][x]
					}
					set(i*w.w.n+j, o, c, u)
				}
			}
		}
	}
}
