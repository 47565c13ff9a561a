package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Winograd's minimal filtering F(m×m, 3×3): a tile of m×m outputs costs
// (m+2)² products instead of 9·m² (Lavin and Gray, arXiv 1509.09308). The
// matrices come from the Cook-Toom construction over the points below; ½ and −2
// instead of ±2 keep the error near that of the direct sum.

// winogradPoints are those of F(m×m), beside infinity.
var winogradPoints = map[int][]float64{
	2: {0, 1, -1},
	4: {0, 1, -1, 0.5, -2},
	6: {0, 1, -1, 0.5, -0.5, 2, -2},
}

// winograd are the matrices of y = Aᵀ[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]·A.
type winograd struct {
	m, n      int
	at, g, bt [][]float64 // m×n, n×3, n×n
}

func newWinograd(m int) winograd {
	p := winogradPoints[m]
	n := m + 2
	w := winograd{m: m, n: n}
	for i := range m {
		row := make([]float64, n)
		for j, a := range p {
			row[j] = power(a, i)
		}
		if i == m-1 {
			row[n-1] = 1
		}
		w.at = append(w.at, row)
	}
	for j, a := range p {
		norm := 1.0
		for l, b := range p {
			if l != j {
				norm *= a - b
			}
		}
		w.g = append(w.g, []float64{1 / norm, a / norm, a * a / norm})
		w.bt = append(w.bt, product(p, j, n))
	}
	w.g = append(w.g, []float64{0, 0, 1})
	w.bt = append(w.bt, product(p, -1, n))
	return w
}

func power(a float64, k int) float64 {
	r := 1.0
	for range k {
		r *= a
	}
	return r
}

// product gives the coefficients of the product of (x − p_l), without p[skip].
func product(p []float64, skip, n int) []float64 {
	c := make([]float64, n)
	c[0] = 1
	deg := 0
	for l, a := range p {
		if l == skip {
			continue
		}
		deg++
		for i := deg; i >= 0; i-- {
			c[i] *= -a
			if i > 0 {
				c[i] += c[i-1]
			}
		}
	}
	return c
}

// winograds lists the sizes of tiles that the form and the precision allow.
func (c *tiledConv) winograds(l *lowerer) []int {
	if c.Groups != 1 || c.ic < l.o.Lanes || c.oc < l.o.Lanes ||
		c.Kernel[0] != 3 || c.Kernel[1] != 3 || c.Strides[0]*c.Strides[1]*c.Dilations[0]*c.Dilations[1] != 1 {
		return nil
	}
	switch p := c.mode; {
	case p.Allows(precision.Fast):
		return []int{2, 4, 6}
	case p.Allows(precision.F32):
		return []int{2, 4}
	}
	return nil
}

// chooseWinograd gives the tile size that costs least, 0 for the direct form,
// in estimated vector operations.
func (c *tiledConv) chooseWinograd(l *lowerer) int {
	icp := float64(c.icb * l.o.Lanes)
	ocb := float64(c.ocb)
	best, cost := 0, 0.85*ocb*float64(c.Out[0]*c.Out[1])*icp*9
	for _, m := range c.winograds(l) {
		n := float64((m + 2) * (m + 2))
		tiles := float64(((c.Out[0] + m - 1) / m) * ((c.Out[1] + m - 1) / m))
		gemm := n * max(tiles, 4) * icp * ocb
		transforms := tiles * 7 * n * (float64(c.icb) + ocb)
		stream := n * icp * ocb * 0.75 // the transformed weights are read once per chunk
		if t := gemm + transforms + stream; t < cost {
			best, cost = m, t
		}
	}
	return best
}

// chunkTiles is about how many tiles are transformed at once: few enough for
// the second cache, enough to use the weights well.
const chunkTiles = 28

// chunkRows is how many rows of tiles make a chunk: about chunkTiles tiles, or
// eight where their transforms then stay in the first cache, and such that the
// last chunk repeats as little as can be.
func (t *convTile) chunkRows(n, th, tw int) int {
	target := chunkTiles
	if perTile := n * n * (t.icb + t.ocb) * t.lanes * 4; 8*perTile <= 48<<10 {
		target = 8
	}
	best, cost := 1, th*(tw+4)
	for r := 1; r <= th && r*tw <= max(tw, target*3/2); r++ {
		chunks := (th + r - 1) / r
		if c := chunks * (r*tw + 4); c < cost || c == cost && r*tw <= target {
			best, cost = r, c
		}
	}
	return best
}

// emitWinograd makes one kernel: per chunk of tile rows it transforms the
// input, multiplies for each frequency, and transforms back.
func (t *convTile) emitWinograd(l *lowerer) {
	w := newWinograd(t.wino)
	m, n, lanes := w.m, w.n, t.lanes
	th, tw := (t.Out[0]+m-1)/m, (t.Out[1]+m-1)/m
	var rows []int
	for r := 1; r <= th && r*tw <= max(tw, 4*chunkTiles); r++ {
		rows = append(rows, r)
	}
	r := l.number(t.site, func(c *schedule.Choice) *int { return &c.Rows }, t.chunkRows(n, th, tw), rows...)
	t.site.fit = func(c *schedule.Choice) {
		if c.TW > c.Rows*tw { // a register tile is within a chunk
			c.OB, c.TR, c.TW = 0, 0, 0
		}
	}
	tiles := r * tw
	chunks := (th + r - 1) / r
	k := l.kernelFor(t.g.root)
	t.k = k
	t.yb, t.xb = k.param(t.y.buf, true), k.param(t.x.buf, false)
	s := l.tile(t.site, t.ocb, 1, tiles, t.icb*lanes, false)
	t.prefetch = l.number(t.site, func(c *schedule.Choice) *int { return &c.Prefetch }, 0, prefetches...)
	t.wb = k.param(t.winogradWeights(l, w, s.OB), false)
	vb := k.local("v", tensor.F32, n*n*t.icb*tiles*lanes)
	mb := k.local("m", tensor.F32, n*n*t.ocb*tiles*lanes)
	v := k.fresh("t", t.y.layout.Shape[0]*chunks)
	image, chunk := loop.Div(loop.V(v), chunks), loop.Mod(loop.V(v), chunks)
	row0 := loop.Mul(chunk, r) // the first tile row; the last chunk ends with the map
	if th%r != 0 {
		row0 = &loop.Expr{Kind: loop.Call, Type: tensor.I64, Fn: "clamp", Args: []*loop.Expr{row0, loop.Int(0), loop.Int(th - r)}}
	}
	var body []loop.Stmt
	if zero := t.zeroHalos(t.ocb, image, loop.Int(0)); zero != nil {
		body = append(body, choice(chunk, 1, chunks, func() []loop.Stmt { return zero }, func() []loop.Stmt { return nil })...)
	}
	body = append(body, t.forward(w, vb, image, row0, r, tw)...)
	body = append(body, t.multiply(w, s, vb, mb, tiles)...)
	body = append(body, t.back(w, mb, image, row0, r, tw)...)
	work := 2 * int64(t.y.layout.Shape[0]) * int64(t.oc) * int64(t.Out[0]*t.Out[1]) * int64(9*t.ic)
	l.close(t.site, work)
	k.finish("winograd", []loop.Stmt{&loop.For{Var: v, Par: work >= 8*parallelWork && v.N > 1, Body: body}}, work)
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
func (t *convTile) forward(w winograd, vb *loop.Buffer, image, row0 *loop.Expr, r, tw int) []loop.Stmt {
	k, lanes, n := t.k, t.lanes, w.n
	cb, rr, cc, ci := k.fresh("c", t.icb), k.fresh("r", r), k.fresh("w", tw), k.fresh("l", lanes)
	xl := t.x.layout
	plane := loop.Add(loop.Mul(image, xl.blocks()), loop.V(cb))
	ih := loop.Add(loop.Mul(loop.Add(row0, loop.V(rr)), w.m), loop.Int(-t.Lo[0]))
	iw := loop.Add(loop.Mul(loop.V(cc), w.m), loop.Int(-t.Lo[1]))
	d, body := k.grid("d", n, n, func(i, j int) *loop.Expr {
		return loop.At(t.xb, loop.Add(t.at(xl, plane, loop.Add(ih, loop.Int(i)), loop.Add(iw, loop.Int(j))), loop.V(ci)))
	})
	e, more := k.grid("b", n, n, func(i, j int) *loop.Expr {
		return combo(w.bt[i], func(x int) *loop.Expr { return loop.R(d[x][j]) })
	})
	body = append(body, more...)
	tile := loop.Add(loop.Mul(loop.V(rr), tw), loop.V(cc))
	for i := range n {
		for j := range n {
			at := loop.Add(loop.Mul(loop.V(cb), r*tw*lanes), loop.Add(loop.Mul(tile, lanes), loop.V(ci)))
			at = loop.Add(at, loop.Int((i*n+j)*t.icb*r*tw*lanes))
			body = append(body, &loop.Store{Buf: vb, Index: at, Val: combo(w.bt[j], func(x int) *loop.Expr { return loop.R(e[i][x]) })})
		}
	}
	return loop.Nest([]*loop.Var{cb, rr, cc, ci}, []loop.LoopKind{loop.Serial, loop.Serial, loop.Serial, loop.Vector}, body...)
}

// multiply is a product of matrices for each frequency.
func (t *convTile) multiply(w winograd, s tileShape, vb, mb *loop.Buffer, tiles int) []loop.Stmt {
	k, lanes := t.k, t.lanes
	f := k.fresh("f", w.n*w.n)
	one := func(ob, p int, block, first *loop.Expr) []loop.Stmt {
		x := &loop.Tile{OB: ob, P: p, L: lanes, X: vb, W: t.wb, S: mb, WO: lanes, SO: tiles * lanes, Prefetch: t.prefetch}
		x.Red = []loop.Red{{N: t.icb, XStep: tiles * lanes, WStep: lanes * ob * lanes}, {N: lanes, XStep: 1, WStep: ob * lanes}}
		x.XAt = loop.Add(loop.Mul(loop.V(f), t.icb*tiles*lanes), loop.Mul(first, lanes))
		x.WAt = loop.Mul(loop.Add(loop.Mul(loop.V(f), t.ocb), block), t.icb*lanes*lanes)
		x.SAt = loop.Add(loop.Mul(loop.Add(loop.Mul(loop.V(f), t.ocb), block), tiles*lanes), loop.Mul(first, lanes))
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
	if full := t.ocb / s.OB; full > 0 {
		o := k.fresh("o", full)
		body = loop.Nest([]*loop.Var{o}, []loop.LoopKind{loop.Serial}, across(s.OB, loop.Mul(loop.V(o), s.OB))...)
	}
	if rest := t.ocb % s.OB; rest > 0 {
		body = append(body, across(rest, loop.Int(t.ocb-rest))...)
	}
	return loop.Nest([]*loop.Var{f}, []loop.LoopKind{loop.Serial}, body...)
}

// back computes Aᵀ·m·A of every tile and stores it through the epilogue.
func (t *convTile) back(w winograd, mb *loop.Buffer, image, row0 *loop.Expr, r, tw int) []loop.Stmt {
	k, lanes, n, m := t.k, t.lanes, w.n, w.m
	ob, rr, cc, ci := k.fresh("o", t.ocb), k.fresh("r", r), k.fresh("w", tw), k.fresh("l", lanes)
	tile := loop.Add(loop.Mul(loop.V(rr), tw), loop.V(cc))
	s, body := k.grid("s", n, n, func(i, j int) *loop.Expr {
		at := loop.Add(loop.Mul(loop.V(ob), r*tw*lanes), loop.Add(loop.Mul(tile, lanes), loop.V(ci)))
		return loop.At(mb, loop.Add(at, loop.Int((i*n+j)*t.ocb*r*tw*lanes)))
	})
	e, more := k.grid("a", m, n, func(i, j int) *loop.Expr {
		return combo(w.at[i], func(x int) *loop.Expr { return loop.R(s[x][j]) })
	})
	body = append(body, more...)
	yb := k.local("y", tensor.F32, m*m*lanes)
	for i := range m {
		for j := range m {
			body = append(body, &loop.Store{Buf: yb, Index: loop.Add(loop.V(ci), loop.Int((i*m+j)*lanes)),
				Val: combo(w.at[j], func(x int) *loop.Expr { return loop.R(e[i][x]) })})
		}
	}
	inner := loop.Nest([]*loop.Var{ci}, []loop.LoopKind{loop.Vector}, body...)
	i, j, ln := k.fresh("i", m), k.fresh("j", m), k.fresh("l", lanes)
	oh := loop.Add(loop.Mul(loop.Add(row0, loop.V(rr)), m), loop.V(i))
	ow := loop.Add(loop.Mul(loop.V(cc), m), loop.V(j))
	ch := loop.Add(loop.Mul(loop.V(ob), lanes), loop.V(ln))
	idx := []*loop.Expr{image, ch, oh, ow}
	a := t.g.anchor.Outputs[0]
	k.memo = map[string]*loop.Expr{}
	k.over[a] = func([]*loop.Expr) *loop.Expr {
		return loop.At(yb, loop.Add(loop.Mul(loop.Add(loop.Mul(loop.V(i), m), loop.V(j)), lanes), loop.V(ln)))
	}
	val := k.access(t.g.root, idx)
	delete(k.over, a)
	val = loop.If(loop.Less(ch, loop.Int(t.oc)), val, loop.Number(tensor.F32, 0, 0))
	out := loop.Nest([]*loop.Var{ln}, []loop.LoopKind{loop.Vector}, &loop.Store{Buf: t.yb, Index: t.y.layout.offset(idx), Val: val})
	if g := loop.And(loop.Less(oh, loop.Int(t.Out[0])), loop.Less(ow, loop.Int(t.Out[1]))); g.Kind != loop.Const {
		out = []loop.Stmt{&loop.Cond{If: g, Then: out}}
	}
	inner = append(inner, loop.Nest([]*loop.Var{i, j}, []loop.LoopKind{loop.Serial, loop.Serial}, out...)...)
	return loop.Nest([]*loop.Var{ob, rr, cc}, []loop.LoopKind{loop.Serial, loop.Serial, loop.Serial}, inner...)
}

// winogradWeights are G·g·Gᵀ in float64, rounded once, in the tiles' order:
// frequency, tile of output blocks, input channels, blocks of the tile, lanes.
func (t *convTile) winogradWeights(l *lowerer, w winograd, ob int) *buf {
	lanes, ics, n := t.lanes, t.icb*t.lanes, w.n
	src := t.w
	ocb, oc, ic := t.ocb, t.oc, t.ic
	return l.weightBuf(t.wName+"·winograd", n*n*ocb*ics*lanes, func() []float32 {
		out := make([]float32, n*n*ocb*ics*lanes)
		g := tensor.As[float32](src)
		for o := range oc {
			block := o / lanes
			first := block / ob * ob
			width := min(ob, ocb-first)
			for c := range ic {
				k := g[(o*ic+c)*9:]
				for i := range n {
					var row [3]float64 // row i of G·g
					for x := range 3 {
						row[x] = w.g[i][0]*float64(k[x]) + w.g[i][1]*float64(k[3+x]) + w.g[i][2]*float64(k[6+x])
					}
					for j := range n {
						u := row[0]*w.g[j][0] + row[1]*w.g[j][1] + row[2]*w.g[j][2]
						at := ((i*n+j)*ocb+first)*ics*lanes + (c*width+block-first)*lanes + o%lanes
						out[at] = float32(u)
					}
				}
			}
		}
		return out
	})
}
