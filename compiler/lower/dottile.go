package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// dotOut is where the sums of a product go.
type dotOut struct {
	*tiledDot
	k       *kb
	g       *group
	y       *place
	yb      *loop.Buffer
	p       peeled
	scratch *loop.Buffer // holds the sums of a tile; nil: tiles store what they compute
}

// dotTile is one tiled product being emitted.
type dotTile struct {
	dotOut
	blocks     int  // vectors of a row
	tail       int  // lanes of a row's last vector, 0: all
	perBatch   bool // each batch has first values of its own
	xb, wb, bb *loop.Buffer
	prefetch   int // bytes
}

// emit makes the kernel of a product; w are the packed weights, unless the
// right operand is read where it lies.
func (d *tiledDot) emit(l *lowerer, g *group, dst *place, lhs, w *buf, blocks int) {
	t := &dotTile{dotOut: dotOut{tiledDot: d, k: l.kernelFor(g.root), g: g, y: dst}, blocks: blocks, tail: d.tail(dst)}
	weights := 0
	if d.kind == loop.TileF32 {
		weights = 4 * d.k * d.n
	}
	t.prefetch = l.prefetch(d.site, weights, d.shape.points() == 1)
	t.yb, t.xb = t.k.param(dst.buf, true), t.k.param(lhs, false)
	if !d.kept {
		t.wb = t.k.param(w, false)
	}
	sums := t.firsts(l, w)
	direct := t.p.last == g.root && (d.n%d.lanes == 0 || t.tail > 0) && l.tileStores(dst.layout)
	if d.center != 0 {
		direct, d.sums = false, t.k.param(d.sumsBuf, false)
	}
	if !direct {
		t.scratch = t.k.local("s", sums, d.shape.OB*d.shape.TW*d.lanes)
	}
	work := 2 * int64(d.b) * int64(d.m) * int64(d.k) * int64(d.n)
	body := t.all()
	l.close(d.site, work)
	body.Par = work >= 8*parallelWork && body.Var.N > 1
	t.k.finish("dot", []loop.Stmt{body}, work)
}

// firsts decides what tiles begin their sums with and what of the epilogue they
// do, and gives the type of the sums; w are the weights as packed.
func (t *dotTile) firsts(l *lowerer, w *buf) tensor.DType {
	d, axis := t.tiledDot, t.g.root.Rank()-1
	t.p = l.peel(t.g, axis, func(v *ir.Value) bool {
		q := l.places[v]
		if q == nil || !q.layout.isPlain() {
			return false
		}
		if t.tail > 0 {
			return q.layout.As == tensor.Invalid && d.addsTail(t.tail)
		}
		return l.tileStores(q.layout) && d.n%d.lanes == 0
	})
	if t.p.bias != nil && len(d.RF) != 1 && t.p.bias.Len() > 1 {
		t.p = peeled{last: t.g.anchor.Outputs[0]}
	}
	sums := tensor.F32
	var begin []int64
	if d.kind == loop.TileU8S8 { // scales come first
		t.p = peeled{last: t.g.anchor.Outputs[0]}
		sums = t.p.last.DType()
		if len(d.RF) == 1 && d.w != nil {
			t.p, sums, begin = l.wholePeel(t.g, axis, d.n)
		}
	}
	t.perBatch = d.shift != 0 || slices.ContainsFunc(begin, func(b int64) bool { return b != 0 })
	switch {
	case t.perBatch:
		t.bb = t.k.param(d.begins(l, w, t.blocks, begin), false)
	case t.p.bias != nil:
		t.bb = t.k.param(l.biasBuf(d.y.Name, t.p.bias, d.n, t.blocks), false)
	}
	return sums
}

// all is the loop over tiles: batches, vectors of outputs, rows.
func (t *dotTile) all() *loop.For {
	d, ob, tm := t.tiledDot, t.shape.OB, t.shape.TW
	perRow := (t.blocks + ob - 1) / ob
	mb := (d.m + tm - 1) / tm
	tall, rest, before := tallStripes(tm), tallStripes(d.m%tm), 0
	if d.matrix {
		tall, rest, before = d.unitStripes()
	}
	v := t.k.fresh("t", d.b*perRow*mb)
	mi := loop.Mod(loop.V(v), mb)
	bg := loop.Div(loop.V(v), mb)
	b, gi := loop.Div(bg, perRow), loop.Mod(bg, perRow)
	block, m := loop.Mul(gi, ob), loop.Mul(mi, tm)
	rows := func(ob int, last bool) []loop.Stmt {
		return choice(mi, d.m/tm, mb,
			func() []loop.Stmt { return t.tile(ob, tall, last, b, block, m) },
			func() []loop.Stmt { return t.tile(ob, rest, last, b, block, loop.Sub(m, loop.Int(before))) })
	}
	full := t.blocks / ob
	if t.tail > 0 {
		full = (t.blocks - 1) / ob
	}
	return &loop.For{Var: v, Body: choice(gi, full, perRow, func() []loop.Stmt { return rows(ob, false) }, func() []loop.Stmt { return rows(t.blocks-full*ob, true) })}
}

// tile is one tile of ob vectors of outputs from block on, of rows from m on;
// last says that a row ends with it.
func (t *dotTile) tile(ob int, at stripes, last bool, b, block, m *loop.Expr) []loop.Stmt {
	d, tm, grp := t.tiledDot, at.points(), t.kind.Group()
	x := &loop.Tile{Kind: d.kind, OB: ob, P: tm, L: d.lanes, X: t.xb, W: t.wb, B: t.bb, Act: t.p.act, Lo: t.p.lo, Hi: t.p.hi, WO: d.lanes * grp, Prefetch: t.prefetch}
	x.Red = []loop.Red{{N: d.k / grp, XStep: grp, WStep: ob * d.lanes * grp}}
	if d.w == nil {
		x.WO, x.Red[0].WStep = d.k*d.lanes, d.lanes*grp
	}
	if d.matrix {
		x.Matrix, x.Rows = true, at.rows
		x.Red = d.unitSum(ob)
	}
	if t.tail > 0 && last {
		x.Tail = t.tail
	}
	row := loop.Add(loop.Mul(b, d.m), m)
	x.XAt = loop.Mul(row, d.k)
	x.WAt = loop.Mul(loop.Add(loop.Mul(b, t.blocks), block), d.k*d.lanes)
	if d.kept {
		e := d.right(t.k, b, loop.Mul(block, d.lanes))
		x.W, x.WAt, x.WO, x.Red[0].WStep = e.Buf, e.Args[0], d.lanes, d.n
	}
	switch {
	case t.perBatch:
		x.BAt = loop.Mul(loop.Add(loop.Mul(b, t.blocks), block), d.lanes)
	case t.bb != nil:
		x.BAt = loop.Mul(block, d.lanes)
	}
	to := loop.Add(loop.Mul(row, d.n), loop.Mul(block, d.lanes))
	if t.p.add != nil {
		x.Add, x.AddAt, x.AO = t.k.param(t.k.l.places[t.p.add].buf, false), to, d.lanes
	}
	for i := range tm {
		x.XP = append(x.XP, at.row(i)*d.k)
		if x.Add != nil {
			x.AP = append(x.AP, at.row(i)*d.n)
		}
		if t.scratch == nil {
			x.SP = append(x.SP, at.row(i)*d.n)
		} else {
			x.SP = append(x.SP, i*d.lanes)
		}
	}
	if t.scratch == nil {
		x.S, x.SAt, x.SO = t.yb, to, d.lanes
		return t.k.inParts(x)
	}
	x.S, x.SAt, x.SO = t.scratch, loop.Int(0), tm*d.lanes
	body := t.k.inParts(x)
	for _, s := range at.stretches() {
		body = append(body, t.epilogue(held{ob, tm, s[0], s[2]}, b, block, loop.Add(m, loop.Int(s[1]))))
	}
	return body
}

// held is what scratch holds of a tile of OB vectors of so many rows: n rows from
// first on are meant.
type held struct{ ob, rows, first, n int }

// epilogue computes what a tile does not do itself, from scratch to output.
func (t *dotOut) epilogue(h held, b, block, m *loop.Expr) loop.Stmt {
	d, k := t.tiledDot, t.k
	a := t.g.anchor.Outputs[0].Static()
	nb, nl := len(d.LB), len(d.LF)
	o, r, ln := k.fresh("o", h.ob), k.fresh("r", h.n), k.fresh("l", d.lanes)
	n := loop.Add(loop.Mul(loop.Add(block, loop.V(o)), d.lanes), loop.V(ln))
	idx := slices.Concat(loop.Unflatten(b, a[:nb]), loop.Unflatten(loop.Add(m, loop.V(r)), a[nb:nb+nl]), loop.Unflatten(n, a[nb+nl:]))
	row := loop.Add(loop.Add(loop.Mul(loop.V(o), h.rows), loop.V(r)), loop.Int(h.first))
	held := loop.At(t.scratch, loop.Add(loop.Mul(row, d.lanes), loop.V(ln)))
	if d.sums != nil {
		held = d.centered(held, loop.At(d.sums, loop.Add(loop.Mul(b, d.m), loop.Add(m, loop.V(r)))))
	}
	k.memo = map[string]*loop.Expr{}
	k.over[t.p.last] = func([]*loop.Expr) *loop.Expr { return held }
	val := k.access(t.g.root, idx)
	delete(k.over, t.p.last)
	var s loop.Stmt = &loop.Store{Buf: t.yb, Index: t.y.layout.offset(idx), Val: t.y.layout.stored(val)}
	if c := loop.Less(n, loop.Int(d.n)); c.Kind != loop.Const {
		s = &loop.Cond{If: c, Then: []loop.Stmt{s}}
	}
	return loop.Nest([]*loop.Var{o, r, ln}, []loop.LoopKind{loop.Serial, loop.Serial, loop.Vector}, s)[0]
}
