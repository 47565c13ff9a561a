package lower

import (
	"fmt"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

type buf = program.Buf

// tiledDot is a contraction as batches of row-major [M,K]·[K,N].
type tiledDot struct {
	core.DotDims
	b, m, k, n int
	x, y       *ir.Value
	w          *tensor.Tensor // the right operand, if constant
	shape      tileShape
	lanes      int
	site       *site
	operands
	kept       bool // the right operand is read where it lies
	parts      int  // of bfloat16 in which a matrix unit multiplies numbers, 0 without one
	halved     bool // the weights are F16, widened where they are multiplied
	matrix     bool // products are those of a matrix unit
	mostWeight float64
	sumsBuf    *buf // of the left operand's rows, if the weights have a center
	sums       *loop.Buffer
}

// dot gives the tile geometry of a product; nil if it needs the general form.
func (l *lowerer) dot(n *ir.Node) *tiledDot {
	if d, ok := l.dots[n]; ok {
		return d
	}
	d := l.newDot(n)
	l.dots[n] = d
	return d
}

func (l *lowerer) newDot(n *ir.Node) *tiledDot {
	x, y := n.Inputs[0], n.Inputs[1]
	if l.o.Lanes < 4 || x.DType() != tensor.F32 || y.DType() != tensor.F32 || !tileSums(n.Outputs[0].DType()) {
		return nil
	}
	d := &tiledDot{DotDims: core.DotAxes(n), x: x, y: y, lanes: l.o.Lanes}
	size := func(v *ir.Value, axes []int) int {
		s := 1
		for _, a := range axes {
			s *= v.Static()[a]
		}
		return s
	}
	d.b, d.m, d.k, d.n = size(x, d.LB), size(x, d.LF), size(x, d.LC), size(y, d.RF)
	if d.b*d.m*d.k*d.n == 0 {
		return nil
	}
	few := d.n < d.lanes/2
	if few && (!d.fewPay() || n.Outputs[0].DType() != tensor.F32) {
		return nil
	}
	d.w = constant(y)
	if d.w == nil && (d.m < 4 || d.k < 4) && !l.inPlace(n, d.DotDims) {
		return nil // packing the right operand would cost as much as the product
	}
	right := "computed"
	if d.w != nil {
		right = "constant"
	}
	if n.Outputs[0].DType() == tensor.I32 {
		if _, ok := l.bytes(d.x, d.w, d.k); !ok || d.k%loop.TileU8S8.Group() != 0 {
			return nil
		}
	}
	d.site = l.siteOf(n, fmt.Sprintf("dot batch%d m%d k%d n%d %s", d.b, d.m, d.k, d.n, right))
	if few {
		d.site.form(formDirect, formDirect)
	} else {
		d.decide(l, n)
	}
	return d
}

// decide picks the form.
func (d *tiledDot) decide(l *lowerer, n *ir.Node) {
	heuristic, possible := formDirect, []string{formDirect}
	bytes, ok := l.bytes(d.x, d.w, d.k)
	if ok = ok && d.k%loop.TileU8S8.Group() == 0; ok {
		heuristic, possible = formInt8, append(possible, formInt8)
		if l.bytesOnUnit() && d.k%unitBytes == 0 {
			possible = append(possible, formAMXInt8)
			if d.m >= fewUnitRows {
				heuristic = formAMXInt8
			}
		}
	}
	if n.Outputs[0].DType() == tensor.I32 {
		possible = possible[1:] // sums of bytes
	}
	mode := l.mode(n)
	switch short := l.halves(mode) && d.k%loop.TileBF16.Group() == 0; {
	case n.Outputs[0].DType() == tensor.I32:
	case short:
		possible = append(possible, formBF16)
		if !ok {
			heuristic = formBF16
		}
	case mode.Allows(precision.F16) && l.has("f16c") && d.w != nil && !ok && fitsHalf(d.w):
		possible = append(possible, formHalf)
		if d.m <= 4 { // reading the weights takes longer than the products
			heuristic = formHalf
		}
	}
	units := d.matrixForms(l, n)
	cycles := float64(d.b*d.m*d.k*((d.n+d.lanes-1)/d.lanes)) / vectorsPerCycle / float64(max(l.o.Threads, 1))
	for _, f := range units {
		possible = append(possible, f.name)
		if f.cycles < cycles && !ok {
			heuristic, cycles = f.name, f.cycles
		}
	}
	form := d.site.form(heuristic, possible...)
	if i := slices.IndexFunc(units, func(f matrixForm) bool { return f.name == form }); i >= 0 {
		d.parts = units[i].parts
	}
	switch form {
	case formAMX:
		d.operands = operands{kind: loop.TileBF16}
	case formInt8:
		d.operands = bytes
	case formAMXInt8:
		d.operands, d.matrix = bytes, true
	case formBF16:
		d.operands = operands{kind: loop.TileBF16}
	case formHalf:
		d.halved = true
	}
}

func (l *lowerer) emitTiledDot(g *group) (bool, error) {
	d := l.dot(g.anchor)
	dst := l.target(g.root)
	if d == nil || !dst.layout.isPlain() {
		return false, nil
	}
	l.site = d.site
	lhs, err := l.rowMajor(d.x, slices.Concat(d.LB, d.LF, d.LC), d.operands)
	if err != nil {
		return true, err
	}
	if d.parts > 0 {
		l.places[g.root] = nil
		defer func() { l.places[g.root] = dst }()
		d.emitMatrix(l, g, dst, lhs)
		return true, nil
	}
	blocks := (d.n + d.lanes - 1) / d.lanes
	if d.matrix {
		d.shape = d.unitShape(blocks)
	} else {
		d.shape = l.tile(d.site, blocks, 1, min(d.m, apart(d.k/d.kind.Group())), d.k/d.kind.Group(), false)
	}
	var w *buf
	d.kept = d.kind == loop.TileF32 && d.w == nil && l.inPlace(g.anchor, d.DotDims) && d.keptInPlace(l)
	switch {
	case d.w != nil:
		w = d.packConst(l, blocks)
	case !d.kept:
		if w, err = d.packAtRun(l, blocks); err != nil {
			return true, err
		}
	}
	if d.center != 0 {
		d.sumsBuf = l.rowSums(d.x, lhs, d.b*d.m, d.k)
	}
	l.places[g.root] = nil
	defer func() { l.places[g.root] = dst }()
	d.emit(l, g, dst, lhs, w, blocks)
	return true, nil
}

// apart is how many rows of k numbers a tile may read side by side. Rows that
// lie a multiple of 2 KB apart fall into few sets of the first cache: more of
// them than a set has ways evict each other before a line is used up.
func apart(k int) int {
	switch {
	case k%1024 == 0:
		return 6
	case k%512 == 0:
		return 12
	}
	return 28
}

// rowMajor gives a value's buffer with its axes in the given order, in the
// type that a form reads.
func (l *lowerer) rowMajor(v *ir.Value, order []int, form operands) (*buf, error) {
	if slices.IsSorted(order) {
		if v.Const != nil && form.kind == loop.TileF32 {
			return l.constPlace(v, v.Const).buf, nil
		}
		p, err := l.inLayout(v, Layout{Shape: v.Static(), L: 1, As: form.as(), Shift: form.shift})
		if err != nil {
			return nil, err
		}
		if p.layout.isPlain() {
			return p.buf, nil
		}
	}
	shape := make([]int, len(order))
	for i, a := range order {
		shape[i] = v.Static()[a]
	}
	c := l.newPlace(v.Name+"·rows", v.DType(), Layout{Shape: shape, L: 1, As: form.as(), Shift: form.shift})
	err := l.pointwiseTo(v, c, "pack", func(k *kb, idx []*loop.Expr) *loop.Expr {
		src := make([]*loop.Expr, len(idx))
		for i, a := range order {
			src[a] = idx[i]
		}
		return k.access(v, src)
	})
	return c.buf, err
}

// packConst lays a constant right operand out as [batch][tile][K][OB][lanes].
func (d *tiledDot) packConst(l *lowerer, blocks int) *buf {
	n := d.b * blocks * d.k * d.lanes
	switch d.kind {
	case loop.TileU8S8:
		return constBuf(l, d.y.Name, tensor.I8, n, func() []int8 {
			return packDot(d, blocks, func(f float32) int8 { return int8(f - float32(d.center)) })
		})
	case loop.TileBF16:
		return constBuf(l, d.y.Name, tensor.BF16, n, func() []uint16 { return packDot(d, blocks, bfloat16) })
	}
	if d.halved {
		return constBuf(l, d.y.Name, tensor.F16, n, func() []uint16 { return packDot(d, blocks, float16) })
	}
	return l.weightBuf(d.y.Name, n, func() []float32 { return packDot(d, blocks, func(f float32) float32 { return f }) })
}

// packDot fills the tiles' weights; groups of a narrow product's elements lie
// side by side.
func packDot[T any](d *tiledDot, blocks int, of func(float32) T) []T {
	ob, lanes, g := d.shape.OB, d.lanes, d.kind.Group()
	out := make([]T, d.b*blocks*d.k*lanes)
	src := tensor.As[float32](d.w)
	bo, ko, no := d.weightOffsets()
	for b := range d.b {
		for n := range d.n {
			block := n / lanes
			first := block / ob * ob
			in := min(ob, blocks-first)
			base := (b*blocks+first)*d.k*lanes + ((block-first)*lanes+n%lanes)*g
			for k := range d.k {
				out[base+k/g*in*lanes*g+k%g] = of(src[bo[b]+ko[k]+no[n]])
			}
		}
	}
	return out
}

// weightOffsets are the offsets of batches, steps and columns in the weights.
func (d *tiledDot) weightOffsets() (batch, k, n []int) {
	of := func(axes []int) []int {
		var sizes, steps []int
		for _, a := range axes {
			sizes = append(sizes, d.w.Shape[a])
			steps = append(steps, tensor.Numel(d.w.Shape[a+1:]))
		}
		return offsets(sizes, steps)
	}
	return of(d.RB), of(d.RC), of(d.RF)
}

// begins are the first values of the sums: what the shift of the left operand
// adds to each, and whole constants.
func (d *tiledDot) begins(l *lowerer, blocks int, bias []int64) *buf {
	return constBuf(l, d.y.Name+"·begin", tensor.I32, d.b*blocks*d.lanes, func() []int32 {
		src, out := tensor.As[float32](d.w), make([]int32, d.b*blocks*d.lanes)
		bo, ko, no := d.weightOffsets()
		for b := range d.b {
			for n := range d.n {
				if bias != nil {
					out[b*blocks*d.lanes+n] = int32(bias[n])
				}
				for _, k := range ko {
					out[b*blocks*d.lanes+n] += int32(d.shift) * int32(src[bo[b]+k+no[n]])
				}
			}
		}
		return out
	})
}

// offsets lists the offset of every combination of indices.
func offsets(sizes, steps []int) []int {
	out := []int{0}
	for i := range sizes {
		var next []int
		for _, o := range out {
			for j := range sizes[i] {
				next = append(next, o+j*steps[i])
			}
		}
		out = next
	}
	return out
}

// packAtRun does the same for an operand that is computed, with the blocks of
// a tile apart: [batch][block][K][lanes], groups of K side by side.
func (d *tiledDot) packAtRun(l *lowerer, blocks int) (*buf, error) {
	g := d.kind.Group()
	shape := []int{d.b, blocks, d.k / g, d.lanes, g}
	c := l.newPlace(d.y.Name+"·packed", tensor.F32, Layout{Shape: shape, L: 1, As: d.as()})
	ys := d.y.Static()
	pick := func(axes []int) []int {
		var s []int
		for _, a := range axes {
			s = append(s, ys[a])
		}
		return s
	}
	err := l.pointwiseTo(d.y, c, "pack", func(k *kb, idx []*loop.Expr) *loop.Expr {
		n := loop.Add(loop.Mul(idx[1], d.lanes), idx[3])
		at := make([]*loop.Expr, len(ys))
		put := func(axes []int, e *loop.Expr) {
			for i, x := range loop.Unflatten(e, pick(axes)) {
				at[axes[i]] = x
			}
		}
		put(d.RB, idx[0])
		put(d.RC, loop.Add(loop.Mul(idx[2], g), idx[4]))
		put(d.RF, n)
		return loop.If(loop.Less(n, loop.Int(d.n)), k.access(d.y, at), loop.Number(tensor.F32, 0, 0))
	})
	return c.buf, err
}

func (d *tiledDot) emit(l *lowerer, g *group, dst *place, lhs, w *buf, blocks int) {
	k := l.kernelFor(g.root)
	weights := 0
	if d.kind == loop.TileF32 {
		weights = 4 * d.k * d.n
	}
	prefetch := l.prefetch(d.site, weights, d.shape.points() == 1)
	yb, xb := k.param(dst.buf, true), k.param(lhs, false)
	var wb *loop.Buffer
	if !d.kept {
		wb = k.param(w, false)
	}
	ob, tm := d.shape.OB, d.shape.TW
	tail := d.tail(dst)
	p := l.peel(g, g.root.Rank()-1, func(v *ir.Value) bool {
		q := l.places[v]
		if q == nil || !q.layout.isPlain() {
			return false
		}
		if tail > 0 {
			return q.layout.As == tensor.Invalid && d.addsTail(tail)
		}
		return l.tileStores(q.layout) && d.n%d.lanes == 0
	})
	if p.bias != nil && len(d.RF) != 1 && p.bias.Len() > 1 {
		p = peeled{last: g.anchor.Outputs[0]}
	}
	sumType := tensor.F32
	var begin []int64
	if d.kind == loop.TileU8S8 { // scales come first
		p = peeled{last: g.anchor.Outputs[0]}
		sumType = p.last.DType()
		if len(d.RF) == 1 {
			p, sumType, begin = l.wholePeel(g, g.root.Rank()-1, d.n)
		}
	}
	var bb *loop.Buffer
	whole := d.shift != 0 || slices.ContainsFunc(begin, func(b int64) bool { return b != 0 })
	if whole {
		bb = k.param(d.begins(l, blocks, begin), false)
	} else if p.bias != nil {
		bb = k.param(l.biasBuf(d.y.Name, p.bias, d.n, blocks), false)
	}
	direct := p.last == g.root && (d.n%d.lanes == 0 || tail > 0) && l.tileStores(dst.layout)
	grp := d.kind.Group()
	if d.center != 0 {
		direct, d.sums = false, k.param(d.sumsBuf, false)
	}
	var scratch *loop.Buffer
	if !direct {
		scratch = k.local("s", sumType, ob*tm*d.lanes)
	}
	tile := func(ob int, at stripes, last bool, b, block, m *loop.Expr) []loop.Stmt {
		tm := at.points()
		t := &loop.Tile{Kind: d.kind, OB: ob, P: tm, L: d.lanes, X: xb, W: wb, B: bb, Act: p.act, Lo: p.lo, Hi: p.hi, WO: d.lanes * grp, Prefetch: prefetch}
		t.Red = []loop.Red{{N: d.k / grp, XStep: grp, WStep: ob * d.lanes * grp}}
		if d.w == nil {
			t.WO, t.Red[0].WStep = d.k*d.lanes, d.lanes*grp
		}
		if d.matrix {
			t.Matrix, t.Rows = true, at.rows
			t.Red = d.unitSum(ob)
		}
		row := loop.Add(loop.Mul(b, d.m), m)
		if tail > 0 && last {
			t.Tail = tail
		}
		t.XAt = loop.Mul(row, d.k)
		t.WAt = loop.Mul(loop.Add(loop.Mul(b, blocks), block), d.k*d.lanes)
		if d.kept {
			e := d.right(k, b, loop.Mul(block, d.lanes))
			t.W, t.WAt, t.WO, t.Red[0].WStep = e.Buf, e.Args[0], d.lanes, d.n
		}
		if bb != nil {
			t.BAt = loop.Mul(block, d.lanes)
			if whole {
				t.BAt = loop.Mul(loop.Add(loop.Mul(b, blocks), block), d.lanes)
			}
		}
		for i := range tm {
			t.XP = append(t.XP, at.row(i)*d.k)
		}
		to := loop.Add(loop.Mul(row, d.n), loop.Mul(block, d.lanes))
		if p.add != nil {
			t.Add, t.AddAt, t.AO = k.param(l.places[p.add].buf, false), to, d.lanes
			for i := range tm {
				t.AP = append(t.AP, at.row(i)*d.n)
			}
		}
		if direct {
			t.S, t.SAt, t.SO = yb, to, d.lanes
			for i := range tm {
				t.SP = append(t.SP, at.row(i)*d.n)
			}
			return k.inParts(t)
		}
		t.S, t.SAt, t.SO = scratch, loop.Int(0), tm*d.lanes
		for i := range tm {
			t.SP = append(t.SP, i*d.lanes)
		}
		body := k.inParts(t)
		for _, s := range at.stretches() {
			body = append(body, d.epilogue(k, g, dst, yb, p, scratch, held{ob, tm, s[0], s[2]}, b, block, loop.Add(m, loop.Int(s[1]))))
		}
		return body
	}
	perRow := (blocks + ob - 1) / ob
	mb := (d.m + tm - 1) / tm
	tall, rest, before := tallStripes(tm), tallStripes(d.m%tm), 0
	if d.matrix {
		tall, rest, before = d.unitStripes()
	}
	v := k.fresh("t", d.b*perRow*mb)
	mi := loop.Mod(loop.V(v), mb)
	bg := loop.Div(loop.V(v), mb)
	b, gi := loop.Div(bg, perRow), loop.Mod(bg, perRow)
	block, m := loop.Mul(gi, ob), loop.Mul(mi, tm)
	rows := func(ob int, last bool) []loop.Stmt {
		return choice(mi, d.m/tm, mb,
			func() []loop.Stmt { return tile(ob, tall, last, b, block, m) },
			func() []loop.Stmt { return tile(ob, rest, last, b, block, loop.Sub(m, loop.Int(before))) })
	}
	full := blocks / ob
	if tail > 0 {
		full = (blocks - 1) / ob
	}
	body := choice(gi, full, perRow, func() []loop.Stmt { return rows(ob, false) }, func() []loop.Stmt { return rows(blocks-full*ob, true) })
	work := 2 * int64(d.b) * int64(d.m) * int64(d.k) * int64(d.n)
	l.close(d.site, work)
	k.finish("dot", []loop.Stmt{&loop.For{Var: v, Par: work >= 8*parallelWork && v.N > 1, Body: body}}, work)
}

// held is what scratch holds of a tile of OB vectors of so many rows: n rows from
// first on are meant.
type held struct{ ob, rows, first, n int }

// epilogue computes what a tile does not do itself, from scratch to output.
func (d *tiledDot) epilogue(k *kb, g *group, dst *place, yb *loop.Buffer, p peeled, scratch *loop.Buffer, h held, b, block, m *loop.Expr) loop.Stmt {
	a := g.anchor.Outputs[0].Static()
	nb, nl := len(d.LB), len(d.LF)
	o, r, ln := k.fresh("o", h.ob), k.fresh("r", h.n), k.fresh("l", d.lanes)
	n := loop.Add(loop.Mul(loop.Add(block, loop.V(o)), d.lanes), loop.V(ln))
	idx := slices.Concat(loop.Unflatten(b, a[:nb]), loop.Unflatten(loop.Add(m, loop.V(r)), a[nb:nb+nl]), loop.Unflatten(n, a[nb+nl:]))
	row := loop.Add(loop.Add(loop.Mul(loop.V(o), h.rows), loop.V(r)), loop.Int(h.first))
	held := loop.At(scratch, loop.Add(loop.Mul(row, d.lanes), loop.V(ln)))
	if d.sums != nil {
		held = d.centered(held, loop.At(d.sums, loop.Add(loop.Mul(b, d.m), loop.Add(m, loop.V(r)))))
	}
	k.memo = map[string]*loop.Expr{}
	k.over[p.last] = func([]*loop.Expr) *loop.Expr { return held }
	val := k.access(g.root, idx)
	delete(k.over, p.last)
	var s loop.Stmt = &loop.Store{Buf: yb, Index: dst.layout.offset(idx), Val: dst.layout.stored(val)}
	if c := loop.Less(n, loop.Int(d.n)); c.Kind != loop.Const {
		s = &loop.Cond{If: c, Then: []loop.Stmt{s}}
	}
	return loop.Nest([]*loop.Var{o, r, ln}, []loop.LoopKind{loop.Serial, loop.Serial, loop.Vector}, s)[0]
}
