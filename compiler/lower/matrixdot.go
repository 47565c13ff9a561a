package lower

import (
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Products of a computed and a constant operand on a matrix unit are staged as
// convolutions are: rows of the left operand are the points, a chunk of them is
// brought into scratch in blocks of channels, and multiplied from there.

// fewRows is below how many rows a product waits for its weights.
const fewRows = 5

// matrixDot is such a product being emitted.
type matrixDot struct {
	*tiledDot
	kb                 *kb
	g                  *group
	dst                *place
	lanes, unitBlocks  int
	blocks, per, chunk int // vectors of outputs, those of a part; rows at once
	rows               int // of a matrix
	yb, xb, wb, plain  *loop.Buffer
	vb, mb             *loop.Buffer
	least              *loop.Reg
}

// geometry is a product as a convolution of one row of pixels.
func (d *tiledDot) geometry() (*tiledConv, staging) {
	c := &tiledConv{ocb: (d.n + d.lanes - 1) / d.lanes, icb: (d.k + d.lanes - 1) / d.lanes}
	c.Groups, c.Strides, c.Dilations, c.Kernel = 1, []int{1, 1}, []int{1, 1}, []int{1, 1}
	return c, c.stage(0, 1, d.m)
}

// matrixForms lists the forms on a matrix unit that the mode and the weights
// allow.
func (d *tiledDot) matrixForms(l *lowerer, n *ir.Node) (list []matrixForm) {
	if d.w == nil || n.Outputs[0].DType() != tensor.F32 || d.m < fewRows || d.k < d.lanes || d.n < d.lanes {
		return nil
	}
	most, trusted := trusts(d.w, leastWeight, mostWeight)
	d.mostWeight = most
	for _, p := range l.partsIn(l.mode(n)) {
		if p > 1 && !trusted {
			continue
		}
		c, s := d.geometry()
		_, _, cycles := c.bestParts(s, p, c.icb, d.b, max(l.o.Threads, 1))
		list = append(list, matrixForm{partForms[p].name, 0, p, cycles})
	}
	return list
}

// emitMatrix makes the kernel.
func (d *tiledDot) emitMatrix(l *lowerer, g *group, dst *place, lhs *buf) {
	c, s := d.geometry()
	size, split, _ := c.bestParts(s, d.parts, c.icb, d.b, max(l.o.Threads, 1))
	size = l.number(d.site, func(c *schedule.Choice) *int { return &c.Rows }, size, s.sizes()...)
	k := l.kernelFor(g.root)
	m := &matrixDot{tiledDot: d, kb: k, g: g, dst: dst, lanes: d.lanes, unitBlocks: c.unitBlocks(c.icb), blocks: c.ocb, per: c.ocb / split, chunk: size, rows: runs(size)}
	prefetch := l.prefetch(d.site, 0, false)
	m.yb, m.xb = k.param(dst.buf, true), k.param(lhs, false)
	m.wb = k.param(m.weights(l), false)
	if d.parts > 1 {
		m.plain = k.param(m.plainWeights(l), false)
	}
	m.vb = k.local("v", tensor.BF16, d.parts*m.unitBlocks*m.chunk*unitSteps)
	m.mb = k.local("m", tensor.F32, min(m.per, 2)*2*m.rows*d.lanes)
	chunks := (d.m + size - 1) / size
	v := k.fresh("t", d.b*chunks*split)
	whole := loop.Div(loop.V(v), split)
	block := loop.Mul(loop.Mod(loop.V(v), split), m.per)
	batch, row := loop.Div(whole, chunks), first(loop.Mod(whole, chunks), size, d.m)
	body := m.forward(batch, row)
	groups := func(ob int, from *loop.Expr) []loop.Stmt {
		return k.overRuns(m.chunk, m.rows, func(r run) []loop.Stmt {
			return m.tile(ob, r, batch, row, loop.Add(block, from), prefetch)
		})
	}
	if full := m.per / 2; full > 0 {
		o := k.fresh("o", full)
		body = append(body, loop.Nest([]*loop.Var{o}, []loop.LoopKind{loop.Serial}, groups(2, loop.Mul(loop.V(o), 2))...)...)
	}
	if m.per%2 > 0 {
		body = append(body, groups(1, loop.Int(m.per-1))...)
	}
	work := 2 * int64(d.b) * int64(d.m) * int64(d.k) * int64(d.n)
	l.close(d.site, work)
	k.finish("dot", []loop.Stmt{&loop.For{Var: v, Par: work >= 8*parallelWork && v.N > 1, Body: body}}, work)
}

// forward brings rows into scratch as parts: v[part][block][row][channel].
func (m *matrixDot) forward(batch, row *loop.Expr) []loop.Stmt {
	k := m.kb
	s := &splitter{kb: k, parts: m.parts, to: m.vb, plane: m.unitBlocks * m.chunk * unitSteps}
	body := s.begin()
	r, full, rest := k.fresh("r", m.chunk), m.k/unitSteps, m.k%unitSteps
	from := loop.Mul(loop.Add(loop.Mul(batch, m.m), loop.Add(row, loop.V(r))), m.k)
	at := func(block *loop.Expr) *loop.Expr {
		return loop.Mul(loop.Add(loop.Mul(block, m.chunk), loop.V(r)), unitSteps)
	}
	load := func(from *loop.Expr) func(*loop.Expr) *loop.Expr {
		return func(i *loop.Expr) *loop.Expr { return loop.At(m.xb, loop.Add(from, i)) }
	}
	inner := s.note(m.k, load(from))
	if full > 0 {
		c := k.fresh("c", full)
		inner = append(inner, loop.Nest([]*loop.Var{c}, []loop.LoopKind{loop.Serial},
			s.store(at(loop.V(c)), unitSteps, load(loop.Add(from, loop.Mul(loop.V(c), unitSteps))))...)...)
	}
	if rest > 0 {
		inner = append(inner, s.store(at(loop.Int(full)), rest, load(loop.Add(from, loop.Int(full*unitSteps))))...)
		for p := range m.parts {
			inner = append(inner, &loop.Zero{Buf: m.vb, From: loop.Add(at(loop.Int(full)), loop.Int(p*s.plane+rest)), N: unitSteps - rest})
		}
	}
	body = append(body, loop.Nest([]*loop.Var{r}, []loop.LoopKind{loop.Serial}, inner...)...)
	least, more := s.limit(smallest(m.k, m.mostWeight))
	m.least = least
	return append(body, more...)
}

// tile multiplies some rows of the chunk with a block or two of outputs and
// finishes them.
func (m *matrixDot) tile(ob int, r run, batch, row, block *loop.Expr, prefetch int) []loop.Stmt {
	k, plane := m.kb, m.unitBlocks*m.chunk*unitSteps
	x := &loop.Tile{Kind: loop.TileBF16, Matrix: true, Rows: m.rows, OB: ob, P: r.runs * m.rows, L: m.lanes, X: m.vb, W: m.wb, S: m.mb, WO: unitW,
		XAt: loop.Mul(r.at, unitSteps), XP: r.offsets(m.rows, unitSteps), SAt: loop.Int(0), SO: r.runs * m.rows * m.lanes, Prefetch: prefetch,
		WAt: loop.Mul(loop.Add(loop.Mul(batch, m.blocks), block), m.unitBlocks*m.parts*unitW),
		Red: []loop.Red{{N: m.unitBlocks, XStep: m.chunk * unitSteps, WStep: m.parts * ob * unitW}, {N: loop.MatrixLanes, XStep: 2, WStep: 2 * loop.MatrixLanes}}}
	for _, t := range partTerms[m.parts] {
		x.Terms = append(x.Terms, [2]int{t[0] * plane, t[1] * ob * unitW})
	}
	for i := range x.P {
		x.SP = append(x.SP, i*m.lanes)
	}
	body := []loop.Stmt{x}
	parts := r.stretches(m.rows)
	if m.least != nil {
		stmts, cond := k.distrusts(ob*x.P*m.lanes, m.least, func(v *loop.Expr) *loop.Expr { return loop.At(m.mb, v) })
		var again []loop.Stmt
		for _, s := range parts {
			again = append(again, m.again(x, s, batch, row, block)...)
		}
		body = append(body, append(stmts, &loop.Cond{If: cond, Then: again})...)
	}
	out := dotOut{m.tiledDot, k, m.g, m.dst, m.yb, peeled{last: m.g.anchor.Outputs[0]}, m.mb}
	for _, s := range parts {
		body = append(body, out.epilogue(held{ob, x.P, s.first, s.n}, batch, block, loop.Add(row, s.at)))
	}
	return body
}

// again computes rows of a tile in the direct form.
func (m *matrixDot) again(x *loop.Tile, s stretch, batch, row, block *loop.Expr) []loop.Stmt {
	o, p := m.kb.fresh("o", x.OB), m.kb.fresh("p", s.n)
	at := loop.Add(loop.Mul(batch, m.m), loop.Add(row, loop.Add(s.at, loop.V(p))))
	to := loop.Add(loop.Mul(loop.V(o), x.P), loop.Add(loop.V(p), loop.Int(s.first)))
	t := &loop.Tile{OB: 1, P: 1, L: m.lanes, X: m.xb, W: m.plain, S: m.mb, WO: m.lanes, SO: m.lanes, XP: []int{0}, SP: []int{0},
		XAt: loop.Mul(at, m.k), WAt: loop.Mul(loop.Add(loop.Mul(batch, m.blocks), loop.Add(block, loop.V(o))), m.k*m.lanes), SAt: loop.Mul(to, m.lanes),
		Red: []loop.Red{{N: m.k, XStep: 1, WStep: m.lanes}}}
	return loop.Nest([]*loop.Var{o, p}, []loop.LoopKind{loop.Serial, loop.Serial}, t)
}

// weights are those of the matrix unit in the order in which tiles read them.
func (m *matrixDot) weights(l *lowerer) *buf {
	n := m.b * m.blocks * m.unitBlocks * m.parts * unitW
	return constBuf(l, m.y.Name+"·parts", tensor.BF16, n, func() []uint16 {
		out := make([]uint16, n)
		src := tensor.As[float32](m.w)
		bo, ko, no := m.weightOffsets()
		for b := range m.b {
			for j := range m.n {
				block := j / m.lanes
				in := block % m.per
				width := min(2, m.per-in/2*2)
				base := (b*m.blocks+block-in%2)*m.unitBlocks*m.parts*unitW + in%2*unitW
				for k := range m.k {
					lane := k%unitSteps/2*unitSteps + j%m.lanes*2 + k%2
					of := partsOf(float64(src[bo[b]+ko[k]+no[j]]), m.parts)
					for i, p := range of[:m.parts] {
						out[base+(k/unitSteps*m.parts+i)*width*unitW+lane] = p
					}
				}
			}
		}
		return out
	})
}

// plainWeights are those of the direct form, one vector of outputs at a time.
func (m *matrixDot) plainWeights(l *lowerer) *buf {
	one := *m.tiledDot
	one.shape = tileShape{1, 1, 1}
	return l.weightBuf(m.y.Name, m.b*m.blocks*m.k*m.lanes, func() []float32 {
		return packDot(&one, m.blocks, func(f float32) float32 { return f })
	})
}
