package lower

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

const (
	// oneBlock is up to how many keys a row's scores are held whole.
	oneBlock = 768
	// keyBlock is how many keys are taken at once where there are more: scores,
	// keys and values of a block stay in the second cache together.
	keyBlock = 512
	// queryRows is about how many rows of queries share a block of keys.
	queryRows = 48
)

// attentionKernel is the fused kernel in the making. A step of the parallel
// loop is a block of query rows of one batch. For each block of keys: scores by
// register tiles into scratch; a pass over each row that applies f and finds
// the maximum; a pass that exponentiates and sums; the product with the values,
// added to what earlier blocks gave. Where keys come in several blocks, sums
// and products so far are scaled down whenever the maximum rises. A row is
// divided by its sum at the end, once per result instead of once per score.
type attentionKernel struct {
	*kb
	*attention
	g                 *group
	dst               *place
	lanes             int
	tm                int // rows of a register tile
	obq, obv          int // vectors of a tile: of keys, of values
	tiles, blocks     int // row tiles of a block, blocks of a batch
	width, vw         int // of scratch rows: scores, results
	online            bool
	out               *loop.Buffer
	qb, keyb, vb      *loop.Buffer
	scores, acc       *loop.Buffer
	tops, sums        *loop.Buffer
	batch, block      *loop.Expr
	vStep, vOuter     int // steps of a key and of a vector in the values
	keyBlocks, vBatch int
}

// emitAttention makes the kernel, and those that lay out its operands.
func (l *lowerer) emitAttention(g *group) error {
	a := g.attention
	dst := l.target(g.root)
	l.clear(g.root, dst)
	q, err := l.rowMajor(a.qk.Inputs[0], slices.Concat(a.q.LB, a.q.LF, a.q.LC), operands{})
	if err != nil {
		return err
	}
	lanes := l.o.Lanes
	c := &attentionKernel{attention: a, g: g, dst: dst, lanes: lanes, keyBlocks: (a.t + lanes - 1) / lanes}
	keys := &tiledDot{DotDims: a.q, b: a.b, k: a.d, n: a.t, y: a.qk.Inputs[1], lanes: lanes}
	k, err := keys.packAtRun(l, c.keyBlocks)
	if err != nil {
		return err
	}
	v, err := c.values(l)
	if err != nil {
		return err
	}
	l.places[g.root] = nil
	defer func() { l.places[g.root] = dst }()
	c.kb = l.kernelFor(g.root)
	c.out = c.param(dst.buf, true)
	c.qb, c.keyb, c.vb = c.param(q, false), c.param(k, false), c.param(v, false)
	c.schedule(l)
	c.emit()
	return nil
}

// values gives the second product's right operand: as it is where its rows are
// whole vectors, else in vectors padded with zeros.
func (c *attentionKernel) values(l *lowerer) (*buf, error) {
	v := c.pv.Inputs[1]
	vectors := (c.dv + c.lanes - 1) / c.lanes
	c.vw = vectors * c.lanes
	if c.dv%c.lanes == 0 {
		c.vStep, c.vOuter, c.vBatch = c.dv, c.lanes, c.t*c.dv
		return l.rowMajor(v, slices.Concat(c.attention.v.RB, c.attention.v.RC, c.attention.v.RF), operands{})
	}
	c.vStep, c.vOuter, c.vBatch = c.lanes, c.t*c.lanes, vectors*c.t*c.lanes
	d := &tiledDot{DotDims: c.attention.v, b: c.b, k: c.t, n: c.dv, y: v, lanes: c.lanes}
	return d.packAtRun(l, vectors)
}

// schedule chooses tiles and blocks.
func (c *attentionKernel) schedule(l *lowerer) {
	c.online = c.t > oneBlock
	keys := c.t
	if c.online {
		keys = keyBlock
	}
	c.width = (keys+c.lanes-1)/c.lanes*c.lanes + c.lanes
	best := math.Inf(1)
	for tm := 1; tm <= min(c.m, 28); tm++ {
		for obq := 1; obq <= min(8, (keys+c.lanes-1)/c.lanes); obq++ {
			for obv := 1; obv <= min(8, c.vw/c.lanes); obv++ {
				q, v := tileShape{obq, 1, tm}, tileShape{obv, 1, tm}
				if !l.fits(q, false) || !l.fits(v, false) {
					continue
				}
				cost := l.tileCost(q, (keys+c.lanes-1)/c.lanes, 1, c.m, c.d, false) + l.tileCost(v, c.vw/c.lanes, 1, c.m, keys, false)
				if cost < best {
					best, c.tm, c.obq, c.obv = cost, tm, obq, obv
				}
			}
		}
	}
	all := (c.m + c.tm - 1) / c.tm
	c.blocks = max((all*c.tm+queryRows/2)/queryRows, 1)
	c.tiles = (all + c.blocks - 1) / c.blocks
	c.blocks = (all + c.tiles - 1) / c.tiles
}

func (c *attentionKernel) emit() {
	rows := c.tiles * c.tm
	c.scores = c.local("scores", tensor.F32, rows*c.width)
	c.acc = c.local("acc", tensor.F32, rows*c.vw)
	c.sums = c.local("sums", tensor.F32, rows)
	v := c.fresh("t", c.b*c.blocks)
	c.batch, c.block = loop.Div(loop.V(v), c.blocks), loop.Mod(loop.V(v), c.blocks)
	var body []loop.Stmt
	if !c.online {
		body = c.keys(loop.Int(0), c.t)
	} else {
		c.tops = c.local("tops", tensor.F32, rows)
		body = []loop.Stmt{
			&loop.Zero{Buf: c.acc, From: loop.Int(0), N: rows * c.vw},
			&loop.Zero{Buf: c.sums, From: loop.Int(0), N: rows},
		}
		r := c.fresh("r", rows)
		body = append(body, &loop.For{Var: r, Kind: loop.Vector, Body: []loop.Stmt{
			&loop.Store{Buf: c.tops, Index: loop.V(r), Val: loop.Number(tensor.F32, math.Inf(-1), 0)}}})
		if n := c.t / keyBlock; n > 0 {
			kv := c.fresh("k", n)
			body = append(body, &loop.For{Var: kv, Body: c.keys(loop.Mul(loop.V(kv), keyBlock), keyBlock)})
		}
		if rest := c.t % keyBlock; rest > 0 {
			body = append(body, c.keys(loop.Int(c.t-rest), rest)...)
		}
	}
	body = append(body, c.store())
	work := 2 * int64(c.b) * int64(c.m) * int64(c.t) * int64(c.d+c.dv)
	c.finish("attention", []loop.Stmt{&loop.For{Var: v, Par: work >= 8*parallelWork && v.N > 1, Body: body}}, work)
}

// keys handles a number of keys from the given one on.
func (c *attentionKernel) keys(from *loop.Expr, n int) []loop.Stmt {
	vectors := (n + c.lanes - 1) / c.lanes
	out := c.products(vectors, c.obq, c.tail(n), func(ob, tm int, o, row, local *loop.Expr) *loop.Tile {
		t := &loop.Tile{OB: ob, P: tm, L: c.lanes, X: c.qb, W: c.keyb, S: c.scores, WO: c.d * c.lanes, SO: c.lanes}
		t.Red = []loop.Red{{N: c.d, XStep: 1, WStep: c.lanes}}
		t.XAt = loop.Mul(loop.Add(loop.Mul(c.batch, c.m), row), c.d)
		first := loop.Add(loop.Mul(loop.Mul(c.batch, c.keyBlocks), c.lanes), from)
		t.WAt = loop.Mul(loop.Add(first, loop.Mul(o, c.lanes)), c.d)
		t.SAt = loop.Add(loop.Mul(local, c.width), loop.Mul(o, c.lanes))
		for i := range tm {
			t.XP = append(t.XP, i*c.d)
			t.SP = append(t.SP, i*c.width)
		}
		return t
	})
	out = append(out, c.eachRow(func(row, local *loop.Expr) []loop.Stmt { return c.softmax(row, local, from, n) }))
	return append(out, c.products(c.vw/c.lanes, c.obv, c.tail(c.dv), func(ob, tm int, o, _, local *loop.Expr) *loop.Tile {
		t := &loop.Tile{OB: ob, P: tm, L: c.lanes, X: c.scores, W: c.vb, S: c.acc, WO: c.vOuter, SO: c.lanes}
		t.Red = []loop.Red{{N: n, XStep: 1, WStep: c.vStep}}
		t.XAt = loop.Mul(local, c.width)
		t.WAt = loop.Add(loop.Add(loop.Mul(c.batch, c.vBatch), loop.Mul(from, c.vStep)), loop.Mul(o, c.vOuter))
		t.SAt = loop.Add(loop.Mul(local, c.vw), loop.Mul(o, c.lanes))
		for i := range tm {
			t.XP = append(t.XP, i*c.width)
			t.SP = append(t.SP, i*c.vw)
		}
		if c.online {
			t.Add, t.AddAt, t.AO, t.AP = c.acc, t.SAt, t.SO, t.SP
		}
		return t
	})...)
}

// tail is how many lanes of the last of n results' vectors are computed; 0: all.
func (c *attentionKernel) tail(n int) int {
	if c.lanes < 8 || c.online && c.lanes < 16 { // without masks sums are not added to a tail
		return 0
	}
	return n % c.lanes
}

// products runs register tiles over the rows of the block and some vectors of
// results; row counts in the batch, local in the block.
func (c *attentionKernel) products(vectors, ob, tail int, tileOf func(ob, tm int, o, row, local *loop.Expr) *loop.Tile) []loop.Stmt {
	groups := func(n, ob, first, tail int) []loop.Stmt {
		if n == 0 {
			return nil
		}
		tile := func(ob, tm int, o, row, local *loop.Expr) loop.Stmt {
			t := tileOf(ob, tm, o, row, local)
			t.Tail = tail
			return t
		}
		gv, mv := c.fresh("g", n), c.fresh("m", c.tiles)
		at := loop.Add(loop.Mul(c.block, c.tiles), loop.V(mv))
		o := loop.Add(loop.Mul(loop.V(gv), ob), loop.Int(first))
		row, local := loop.Mul(at, c.tm), loop.Mul(loop.V(mv), c.tm)
		full, rest, total := c.m/c.tm, c.m%c.tm, c.blocks*c.tiles
		body := choice(at, full, total,
			func() []loop.Stmt { return []loop.Stmt{tile(ob, c.tm, o, row, local)} },
			func() []loop.Stmt {
				if rest == 0 {
					return nil
				}
				return choice(at, full+1, total, func() []loop.Stmt { return []loop.Stmt{tile(ob, rest, o, row, local)} }, func() []loop.Stmt { return nil })
			})
		return loop.Nest([]*loop.Var{gv, mv}, []loop.LoopKind{loop.Serial, loop.Serial}, body...)
	}
	full := vectors / ob
	if tail > 0 {
		full = (vectors - 1) / ob
	}
	rest := vectors - full*ob
	return append(groups(full, ob, 0, 0), groups(min(rest, 1), rest, full*ob, tail)...)
}

// eachRow runs a body for the rows of the block that exist.
func (c *attentionKernel) eachRow(f func(row, local *loop.Expr) []loop.Stmt) loop.Stmt {
	r := c.fresh("r", c.tiles*c.tm)
	row := loop.Add(loop.Mul(c.block, c.tiles*c.tm), loop.V(r))
	body := f(row, loop.V(r))
	if c.tiles*c.tm*c.blocks > c.m {
		body = []loop.Stmt{&loop.Cond{If: loop.Less(row, loop.Int(c.m)), Then: body}}
	}
	return &loop.For{Var: r, Body: body}
}

// at is a value of the row at a key; the value is shaped like the scores or
// holds one element a row.
func (c *attentionKernel) at(v *ir.Value, row *loop.Expr, key *loop.Expr) *loop.Expr {
	s := v.Static()
	flat := loop.Add(loop.Mul(c.batch, c.m), row)
	return c.access(v, append(loop.Unflatten(flat, s[:len(s)-1]), key))
}

// with says what the kernel holds of a value and forgets what was built before.
func (c *attentionKernel) with(v *ir.Value, e *loop.Expr) {
	c.memo = map[string]*loop.Expr{}
	c.over[v] = func([]*loop.Expr) *loop.Expr { return e }
}

// lean reports whether a score is better computed twice than written and read
// again: it reads nothing but the product and has no dear function.
func lean(e *loop.Expr) bool {
	loads := 0
	e.Walk(func(x *loop.Expr) {
		if x.Kind == loop.Load {
			loads++
		}
	})
	return loads <= 1 && e.Cost() < 10
}

// softmax turns a row of raw scores into exponentials and accounts for them.
func (c *attentionKernel) softmax(row, local, from *loop.Expr, n int) []loop.Stmt {
	base := loop.Mul(local, c.width)
	score := func(j *loop.Expr) *loop.Expr {
		c.with(c.qk.Outputs[0], loop.At(c.scores, loop.Add(base, j)))
		return c.at(c.x, row, loop.Add(from, j))
	}
	old := loop.Number(tensor.F32, math.Inf(-1), 0)
	if c.online {
		old = loop.At(c.tops, local)
	}
	top := c.reg("top", tensor.F32)
	stmts := []loop.Stmt{&loop.Set{Reg: top, Val: old, Decl: true}}
	v := c.fresh("j", n)
	twice := lean(score(loop.V(v)))
	if twice {
		stmts = append(stmts, &loop.For{Var: v, Kind: loop.Vector, Body: []loop.Stmt{&loop.Accum{Reg: top, Fn: "max", Val: score(loop.V(v))}}})
	} else {
		x := c.reg("x", tensor.F32)
		stmts = append(stmts, &loop.For{Var: v, Kind: loop.Vector, Body: []loop.Stmt{
			&loop.Set{Reg: x, Val: score(loop.V(v)), Decl: true},
			&loop.Store{Buf: c.scores, Index: loop.Add(base, loop.V(v)), Val: loop.R(x)},
			&loop.Accum{Reg: top, Fn: "max", Val: loop.R(x)},
		}})
	}
	shift := func(e *loop.Expr) *loop.Expr {
		c.with(c.top, e)
		return c.at(c.shift, row, loop.Int(0))
	}
	s := c.reg("shift", tensor.F32)
	stmts = append(stmts, &loop.Set{Reg: s, Val: shift(loop.R(top)), Decl: true})
	start := loop.Number(tensor.F32, 0, 0)
	if c.online {
		stmts = append(stmts, c.rescale(local, top, s, shift)...)
		start = loop.At(c.sums, local)
	}
	sum, j := c.reg("sum", tensor.F32), c.fresh("j", n)
	at := loop.Add(base, loop.V(j))
	x := loop.At(c.scores, at)
	if twice {
		x = score(loop.V(j))
	}
	e, exp := c.reg("e", tensor.F32), "exp"
	if notPositive(c.exponent) {
		exp = "expneg"
	}
	return append(stmts,
		&loop.Set{Reg: sum, Val: start, Decl: true},
		&loop.For{Var: j, Kind: loop.Vector, Body: []loop.Stmt{
			&loop.Set{Reg: e, Val: loop.Fn(exp, loop.Fn("sub", x, loop.R(s))), Decl: true},
			&loop.Store{Buf: c.scores, Index: at, Val: loop.R(e)},
			&loop.Accum{Reg: sum, Fn: "add", Val: loop.R(e)},
		}},
		&loop.Store{Buf: c.sums, Index: local, Val: loop.R(sum)})
}

// rescale brings a row's sum and products down to a maximum that has risen.
func (c *attentionKernel) rescale(local *loop.Expr, top, s *loop.Reg, shift func(*loop.Expr) *loop.Expr) []loop.Stmt {
	zero := loop.Number(tensor.F32, 0, 0)
	// A row that is masked so far has no maximum to subtract.
	none := loop.Fn("eq", loop.R(s), loop.Number(tensor.F32, math.Inf(-1), 0))
	down, d := c.reg("down", tensor.F32), c.fresh("d", c.vw)
	at := loop.Add(loop.Mul(local, c.vw), loop.V(d))
	scaled := func(b *loop.Buffer, i *loop.Expr) *loop.Store {
		return &loop.Store{Buf: b, Index: i, Val: loop.Fn("mul", loop.At(b, i), loop.R(down))}
	}
	return []loop.Stmt{
		&loop.Set{Reg: s, Val: loop.If(none, zero, loop.R(s))},
		&loop.Set{Reg: down, Val: loop.Fn("exp", loop.Fn("sub", shift(loop.At(c.tops, local)), loop.R(s))), Decl: true},
		&loop.Store{Buf: c.tops, Index: local, Val: loop.R(top)},
		scaled(c.sums, local),
		&loop.For{Var: d, Kind: loop.Vector, Body: []loop.Stmt{scaled(c.acc, at)}},
	}
}

// store divides by the sums and writes the rows through the epilogue.
func (c *attentionKernel) store() loop.Stmt {
	s := c.pv.Outputs[0].Static()
	lead := len(c.attention.v.LB) + len(c.attention.v.LF)
	factor := c.reg("factor", tensor.F32)
	return c.eachRow(func(row, local *loop.Expr) []loop.Stmt {
		c.with(c.sum, loop.At(c.sums, local))
		stmts := []loop.Stmt{&loop.Set{Reg: factor, Val: c.at(c.factor, row, loop.Int(0)), Decl: true}}
		d := c.fresh("d", c.dv)
		fn := "mul"
		if c.divide {
			fn = "div"
		}
		val := loop.Fn(fn, loop.At(c.acc, loop.Add(loop.Mul(local, c.vw), loop.V(d))), loop.R(factor))
		flat := loop.Add(loop.Mul(c.batch, c.m), row)
		idx := slices.Concat(loop.Unflatten(flat, s[:lead]), loop.Unflatten(loop.V(d), s[lead:]))
		return append(stmts, &loop.For{Var: d, Kind: loop.Vector, Body: []loop.Stmt{c.epilogue(c.g, c.dst, c.out, idx, val)}})
	})
}
