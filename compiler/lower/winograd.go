package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// emitWinograd makes one kernel: per chunk of tiles it transforms the input,
// multiplies for each frequency, and transforms back.
func (t *convTile) emitWinograd(l *lowerer) {
	w := t.winograd(t.wino)
	lanes := t.lanes
	th, tw := (t.Out[0]+w.h.m-1)/w.h.m, (t.Out[1]+w.w.m-1)/w.w.m
	unit, most := tw, th
	if th == 1 {
		unit, most = 1, tw
	}
	var sizes []int
	for r := 1; r <= most && r*unit <= max(unit, 4*chunkTiles); r++ {
		sizes = append(sizes, r)
	}
	heuristic, split := t.divide(w, th, tw, sizes, l.o.Threads)
	size := l.number(t.site, func(c *schedule.Choice) *int { return &c.Rows }, heuristic, sizes...)
	t.site.fit = func(c *schedule.Choice) {
		if c.TW > c.Rows*unit { // a register tile is within a chunk
			c.OB, c.TR, c.TW = 0, 0, 0
		}
	}
	c := t.chunked(w.freqs(), th, tw, size)
	tiles := c.rows * c.cols
	k := l.kernelFor(t.g.root)
	t.k = k
	t.yb, t.xb = k.param(t.y.buf, true), k.param(t.x.buf, false)
	per := t.ocb / split // output blocks of a part
	s := l.tile(t.site, per, 1, tiles, t.icb*lanes, false)
	t.prefetch = l.prefetch(t.site, 0, false)
	t.wb = k.param(t.winogradWeights(l, w, s.OB, per), false)
	t.plain = k.param(t.plainWeights(l), false)
	vb := k.local("v", tensor.F32, w.freqs()*t.icb*tiles*lanes)
	mb := k.local("m", tensor.F32, w.freqs()*per*tiles*lanes)
	v := k.fresh("t", t.y.layout.Shape[0]*c.down*c.across*split)
	whole := loop.Div(loop.V(v), split)
	block := loop.Mul(loop.Mod(loop.V(v), split), per)
	image, part := loop.Div(whole, c.down*c.across), loop.Mod(whole, c.down*c.across)
	at := tilesAt{first(loop.Div(part, c.across), c.rows, th), first(loop.Mod(part, c.across), c.cols, tw), c}
	var body []loop.Stmt
	if zero := t.zeroHalos(per, image, block); zero != nil {
		body = append(body, choice(part, 1, c.down*c.across, func() []loop.Stmt { return zero }, func() []loop.Stmt { return nil })...)
	}
	body = append(body, t.forward(w, vb, image, at)...)
	body = append(body, t.multiply(w, s, vb, mb, tiles, block, per)...)
	body = append(body, t.back(w, mb, image, at, block, per)...)
	work := 2 * int64(t.y.layout.Shape[0]) * int64(t.oc) * int64(t.Out[0]*t.Out[1]) * int64(t.Kernel[0]*t.Kernel[1]*t.ic)
	l.close(t.site, work)
	k.finish("winograd", []loop.Stmt{&loop.For{Var: v, Par: work >= 8*parallelWork && v.N > 1, Body: body}}, work)
}

// tilesAt are the tiles of a chunk, from a row and column of tiles on.
type tilesAt struct {
	row, col *loop.Expr
	chunk
}

// first is where the i-th chunk of a size begins among n tiles.
func first(i *loop.Expr, size, n int) *loop.Expr {
	e := loop.Mul(i, size)
	if n%size == 0 {
		return e
	}
	return &loop.Expr{Kind: loop.Call, Type: tensor.I64, Fn: "clamp", Args: []*loop.Expr{e, loop.Int(0), loop.Int(n - size)}}
}

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

// forward computes Bᵀ·d·B of every tile: v[frequency][block][tile][lane].
func (t *convTile) forward(w winograd, vb *loop.Buffer, image *loop.Expr, at tilesAt) []loop.Stmt {
	k, lanes, tiles := t.k, t.lanes, at.rows*at.cols
	cb, rr, cc, ci := k.fresh("c", t.icb), k.fresh("r", at.rows), k.fresh("w", at.cols), k.fresh("l", lanes)
	xl := t.x.layout
	plane := loop.Add(loop.Mul(image, xl.blocks()), loop.V(cb))
	ih := loop.Add(loop.Mul(loop.Add(at.row, loop.V(rr)), w.h.m), loop.Int(-t.Lo[0]))
	iw := loop.Add(loop.Mul(loop.Add(at.col, loop.V(cc)), w.w.m), loop.Int(-t.Lo[1]))
	d, body := k.grid("d", w.h.n, w.w.n, func(i, j int) *loop.Expr {
		return loop.At(t.xb, loop.Add(t.at(xl, plane, loop.Add(ih, loop.Int(i)), loop.Add(iw, loop.Int(j))), loop.V(ci)))
	})
	e, more := k.grid("b", w.h.n, w.w.n, func(i, j int) *loop.Expr {
		return combo(w.h.bt[i], func(x int) *loop.Expr { return loop.R(d[x][j]) })
	})
	body = append(body, more...)
	tile := loop.Add(loop.Mul(loop.V(rr), at.cols), loop.V(cc))
	for i := range w.h.n {
		for j := range w.w.n {
			to := loop.Add(loop.Mul(loop.V(cb), tiles*lanes), loop.Add(loop.Mul(tile, lanes), loop.V(ci)))
			to = loop.Add(to, loop.Int((i*w.w.n+j)*t.icb*tiles*lanes))
			body = append(body, &loop.Store{Buf: vb, Index: to, Val: combo(w.w.bt[j], func(x int) *loop.Expr { return loop.R(e[i][x]) })})
		}
	}
	return loop.Nest([]*loop.Var{cb, rr, cc, ci}, []loop.LoopKind{loop.Serial, loop.Serial, loop.Serial, loop.Vector}, body...)
}

// multiply is a product of matrices for each frequency.
func (t *convTile) multiply(w winograd, s tileShape, vb, mb *loop.Buffer, tiles int, from *loop.Expr, per int) []loop.Stmt {
	k, lanes := t.k, t.lanes
	f := k.fresh("f", w.freqs())
	one := func(ob, p int, block, first *loop.Expr) []loop.Stmt {
		x := &loop.Tile{OB: ob, P: p, L: lanes, X: vb, W: t.wb, S: mb, WO: lanes, SO: tiles * lanes, Prefetch: t.prefetch}
		x.Red = []loop.Red{{N: t.icb, XStep: tiles * lanes, WStep: lanes * ob * lanes}, {N: lanes, XStep: 1, WStep: ob * lanes}}
		x.XAt = loop.Add(loop.Mul(loop.V(f), t.icb*tiles*lanes), loop.Mul(first, lanes))
		x.WAt = loop.Mul(loop.Add(loop.Mul(loop.V(f), t.ocb), loop.Add(from, block)), t.icb*lanes*lanes)
		x.SAt = loop.Add(loop.Mul(loop.Add(loop.Mul(loop.V(f), per), block), tiles*lanes), loop.Mul(first, lanes))
		for i := range p {
			x.XP, x.SP = append(x.XP, i*lanes), append(x.SP, i*lanes)
		}
		return []loop.Stmt{x}
	}
	across := func(ob int, block *loop.Expr) []loop.Stmt {
		var body []loop.Stmt
		if full := tiles / s.TW; full > 0 {
			c := k.fresh("x", full)
			body = loop.Nest([]*loop.Var{c}, []loop.LoopKind{loop.Serial}, one(ob, s.TW, block, loop.Mul(loop.V(c), s.TW))...)
		}
		if rest := tiles % s.TW; rest > 0 {
			body = append(body, one(ob, rest, block, loop.Int(tiles-rest))...)
		}
		return body
	}
	var body []loop.Stmt
	if full := per / s.OB; full > 0 {
		o := k.fresh("o", full)
		body = loop.Nest([]*loop.Var{o}, []loop.LoopKind{loop.Serial}, across(s.OB, loop.Mul(loop.V(o), s.OB))...)
	}
	if rest := per % s.OB; rest > 0 {
		body = append(body, across(rest, loop.Int(per-rest))...)
	}
	return loop.Nest([]*loop.Var{f}, []loop.LoopKind{loop.Serial}, body...)
}

// back computes Aᵀ·m·A of every tile and stores it through the epilogue.
func (t *convTile) back(w winograd, mb *loop.Buffer, image *loop.Expr, at tilesAt, first *loop.Expr, per int) []loop.Stmt {
	k, lanes, tiles := t.k, t.lanes, at.rows*at.cols
	ob, rr, cc, ci := k.fresh("o", per), k.fresh("r", at.rows), k.fresh("w", at.cols), k.fresh("l", lanes)
	tile := loop.Add(loop.Mul(loop.V(rr), at.cols), loop.V(cc))
	s, body := k.grid("s", w.h.n, w.w.n, func(i, j int) *loop.Expr {
		from := loop.Add(loop.Mul(loop.V(ob), tiles*lanes), loop.Add(loop.Mul(tile, lanes), loop.V(ci)))
		return loop.At(mb, loop.Add(from, loop.Int((i*w.w.n+j)*per*tiles*lanes)))
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
	inner := t.guarded(w, o, body, yb, image, loop.Add(at.row, loop.V(rr)), loop.Add(at.col, loop.V(cc)), loop.Add(first, loop.V(ob)), ci)
	i, j, ln := k.fresh("i", w.h.m), k.fresh("j", w.w.m), k.fresh("l", lanes)
	oh := loop.Add(loop.Mul(loop.Add(at.row, loop.V(rr)), w.h.m), loop.V(i))
	ow := loop.Add(loop.Mul(loop.Add(at.col, loop.V(cc)), w.w.m), loop.V(j))
	ch := loop.Add(loop.Mul(loop.Add(first, loop.V(ob)), lanes), loop.V(ln))
	idx := []*loop.Expr{image, ch, oh, ow}
	a := t.g.anchor.Outputs[0]
	k.memo = map[string]*loop.Expr{}
	k.over[a] = func([]*loop.Expr) *loop.Expr {
		return loop.At(yb, loop.Add(loop.Mul(loop.Add(loop.Mul(loop.V(i), w.w.m), loop.V(j)), lanes), loop.V(ln)))
	}
	val := k.access(t.g.root, idx)
	delete(k.over, a)
	val = t.y.layout.stored(val)
	val = loop.If(loop.Less(ch, loop.Int(t.oc)), val, loop.Number(val.Type, 0, 0))
	out := loop.Nest([]*loop.Var{ln}, []loop.LoopKind{loop.Vector}, &loop.Store{Buf: t.yb, Index: t.y.layout.offset(idx), Val: val})
	if g := loop.And(loop.Less(oh, loop.Int(t.Out[0])), loop.Less(ow, loop.Int(t.Out[1]))); g.Kind != loop.Const {
		out = []loop.Stmt{&loop.Cond{If: g, Then: out}}
	}
	inner = append(inner, loop.Nest([]*loop.Var{i, j}, []loop.LoopKind{loop.Serial, loop.Serial}, out...)...)
	return loop.Nest([]*loop.Var{ob, rr, cc}, []loop.LoopKind{loop.Serial, loop.Serial, loop.Serial}, inner...)
}

// winogradWeights are G·g·Gᵀ in float64, rounded once, in the tiles' order:
// frequency, tile of output blocks, input channels, blocks of the tile, lanes.
func (t *convTile) winogradWeights(l *lowerer, w winograd, ob, per int) *buf {
	lanes, ics := t.lanes, t.icb*t.lanes
	src := t.w
	ocb, oc, ic := t.ocb, t.oc, t.ic
	return l.weightBuf(t.wName+"·winograd", w.freqs()*ocb*ics*lanes, func() []float32 {
		out := make([]float32, w.freqs()*ocb*ics*lanes)
		g := tensor.As[float32](src)
		row := make([]float64, w.w.r) // a row of G·g
		for o := range oc {
			block := o / lanes
			first := block % per / ob * ob
			width := min(ob, per-first)
			first += block / per * per
			for c := range ic {
				k := g[(o*ic+c)*w.h.r*w.w.r:]
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
						at := ((i*w.w.n+j)*ocb+first)*ics*lanes + (c*width+block-first)*lanes + o%lanes
						out[at] = float32(u)
					}
				}
			}
		}
		return out
	})
}
