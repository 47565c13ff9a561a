package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Staged convolutions bring a chunk of their input into scratch, in the form in
// which it is multiplied, and multiply it from there. A chunk consists of units:
// Winograd's tiles, of which each becomes a number for every frequency, or
// pixels as they are, for the products of a matrix unit. In scratch, numbers are
// F32 or planes of their parts in bfloat16.

// staging is the geometry of a staged convolution.
type staging struct {
	wg      winograd // F(1, 1) both ways where units are pixels
	th, tw  int      // the outputs in units
	step    [2]int   // pixels of the input from one unit to the next
	more    [2]int   // units that a chunk reads beyond those of its outputs
	unitLen int      // elements of a unit in a plane of parts
	phases  [][2]int // the pixels of a step that are read, each as a grid of units
	taps    []tap    // of the kernel, where units are pixels
	chunk
}

// tap is one element of the kernel: the phase it reads, and how many units on.
type tap struct{ phase, row, col int }

// stage gives the geometry for outputs in so many rows and columns.
func (c *tiledConv) stage(wino, rows, cols int) staging {
	s := staging{wg: c.winograd(wino), th: rows, tw: cols, step: [2]int(c.Strides), phases: [][2]int{{}}, unitLen: c.unitK()}
	if wino > 0 {
		s.step = [2]int{s.wg.h.m * c.Strides[0], s.wg.w.m * c.Strides[1]}
		s.th, s.tw = (rows+s.wg.h.m-1)/s.wg.h.m, (cols+s.wg.w.m-1)/s.wg.w.m
		return s
	}
	s.more, s.phases, s.taps = c.reach()
	if c.tight {
		s.unitLen = c.Strides[1] * packedChannels
		s.more[1] = (packedPixels+c.Strides[1]-1)/c.Strides[1] - 1
	}
	return s
}

// A convolution of few channels is packed: the steps of a matrix are neighbouring
// pixels of a row, which is all that a row of the kernel reads, with few channels
// each. Neighbouring outputs read matrices that overlap in memory.
const (
	packedChannels = 4
	packedPixels   = unitSteps / packedChannels
)

// reach lists the kernel's taps in units of a stride: with strides the pixels
// of one phase are a grid of their own, in which neighbouring outputs read
// neighbouring units.
func (c *tiledConv) reach() (more [2]int, phases [][2]int, taps []tap) {
	number := map[[2]int]int{}
	across := c.Kernel[1]
	if c.tight {
		across = 1
	}
	for i := range c.Kernel[0] {
		for j := range across {
			y, x := i*c.Dilations[0], j*c.Dilations[1]
			p := [2]int{y % c.Strides[0], x % c.Strides[1]}
			if _, ok := number[p]; !ok {
				number[p] = len(phases)
				phases = append(phases, p)
			}
			taps = append(taps, tap{number[p], y / c.Strides[0], x / c.Strides[1]})
			more = [2]int{max(more[0], y/c.Strides[0]), max(more[1], x/c.Strides[1])}
		}
	}
	return more, phases, taps
}

// grid is the size of a phase in units.
func (s *staging) grid() (rows, cols int) { return s.rows + s.more[0], s.cols + s.more[1] }

func (s *staging) units() int {
	rows, cols := s.grid()
	return len(s.phases) * rows * cols
}

// inARow is how many products a chunk has in a row, with those between the end
// of a row and the begin of the next, which nobody reads.
func (s *staging) inARow() int {
	_, cols := s.grid()
	return (s.rows-1)*cols + s.cols
}

// steps is how many blocks of a sum a product has for each block of channels.
func (s *staging) steps() int { return max(len(s.taps), 1) }

// stagedAt is where a chunk is: the first units, and the blocks of outputs that
// are computed from it.
type stagedAt struct {
	image, row, col, block *loop.Expr
	per                    int
	least                  *loop.Reg // the least sum of parts that is trusted
}

// emitStaged makes one kernel: per chunk it brings the input into scratch,
// multiplies for each frequency, and transforms back.
func (t *convTile) emitStaged(l *lowerer) {
	t.staging = t.stage(t.wino, t.rows, t.cols)
	var size, split int
	if t.parts > 0 {
		size, split = t.divideParts(l)
	} else {
		size, split = t.divideTiles(l)
	}
	t.chunk = t.chunked(t.wg.freqs(), t.th, t.tw, size)
	k := l.kernelFor(t.g.root)
	t.k = k
	t.yb, t.xb = k.param(t.y.buf, true), k.param(t.x.buf, false)
	split *= t.Groups
	per := t.ocb / split // output blocks of a part
	if t.parts > 0 {
		t.shape = tileShape{min(per, 2), 1, runs(t.inARow())}
	} else {
		t.shape = l.tile(t.site, per, 1, t.inARow(), t.icb*t.lanes, false)
	}
	t.prefetch = l.prefetch(t.site, 0, false)
	t.wb = k.param(t.stagedWeights(l, per), false)
	if t.wino > 0 || t.parts > 1 || t.tight {
		t.plain = k.param(t.plainWeights(l), false)
	}
	if t.beginsWhole() {
		t.bb = k.param(t.begins(l, t.begin), false)
	}
	if t.center != 0 {
		t.sums = k.param(t.sumsBuf, false)
	}
	vb, mb := t.stagedScratch(per)
	v := k.fresh("t", t.y.layout.Shape[0]*t.down*t.across*split)
	whole := loop.Div(loop.V(v), split)
	block := loop.Mul(loop.Mod(loop.V(v), split), per)
	image, part := loop.Div(whole, t.down*t.across), loop.Mod(whole, t.down*t.across)
	at := &stagedAt{image, first(loop.Div(part, t.across), t.chunk.rows, t.th), first(loop.Mod(part, t.across), t.chunk.cols, t.tw), block, per, nil}
	var body []loop.Stmt
	if zero := t.zeroHalos(per, image, block); zero != nil {
		body = append(body, choice(part, 1, t.down*t.across, func() []loop.Stmt { return zero }, func() []loop.Stmt { return nil })...)
	}
	body = append(body, t.forward(vb, at)...)
	body = append(body, t.multiply(vb, mb, at)...)
	if t.wino > 0 {
		body = append(body, t.back(mb, at)...)
	}
	work := 2 * int64(t.y.layout.Shape[0]) * int64(t.oc) * int64(t.Out[0]*t.Out[1]) * int64(t.Kernel[0]*t.Kernel[1]*t.ic/t.Groups)
	l.close(t.site, work)
	family := "winograd"
	if t.wino == 0 {
		family = "staged"
	}
	k.finish(family, []loop.Stmt{&loop.For{Var: v, Par: work >= 8*parallelWork && v.N > 1, Body: body}}, work)
}

// stagedScratch is memory for the input of a chunk as it is multiplied, and for
// products: of Winograd's form all of a chunk, else those of a tile.
func (t *convTile) stagedScratch(per int) (vb, mb *loop.Buffer) {
	k, freqs, lanes := t.k, t.wg.freqs(), t.lanes
	if t.parts > 0 {
		kind, _ := t.unitKind().Operands()
		vb = k.local("v", kind, freqs*t.parts*t.unitBlocks(t.icb)*t.units()*t.unitLen)
	} else {
		vb = k.local("v", tensor.F32, freqs*t.icb*t.units()*lanes)
	}
	if t.wino > 0 {
		return vb, k.local("m", tensor.F32, freqs*per*t.inARow()*lanes)
	}
	return vb, k.local("m", t.sumType, t.shape.OB*2*t.shape.TW*lanes)
}

// first is where the i-th chunk of a size begins among n tiles.
func first(i *loop.Expr, size, n int) *loop.Expr {
	e := loop.Mul(i, size)
	if n%size == 0 {
		return e
	}
	return &loop.Expr{Kind: loop.Call, Type: tensor.I64, Fn: "clamp", Args: []*loop.Expr{e, loop.Int(0), loop.Int(n - size)}}
}

// multiply is a product of matrices for each frequency.
func (t *convTile) multiply(vb, mb *loop.Buffer, at *stagedAt) []loop.Stmt {
	k := t.k
	f := k.fresh("f", t.wg.freqs())
	across := t.vectorTiles
	if t.parts > 0 {
		across = t.matrixTiles
	}
	var body []loop.Stmt
	if full := at.per / t.shape.OB; full > 0 {
		o := k.fresh("o", full)
		body = loop.Nest([]*loop.Var{o}, []loop.LoopKind{loop.Serial}, across(vb, mb, f, at, t.shape.OB, loop.Mul(loop.V(o), t.shape.OB))...)
	}
	if rest := at.per % t.shape.OB; rest > 0 {
		body = append(body, across(vb, mb, f, at, rest, loop.Int(at.per-rest))...)
	}
	return loop.Nest([]*loop.Var{f}, []loop.LoopKind{loop.Serial}, body...)
}

// vectorTiles multiply some blocks of outputs with the points of a frequency, by
// tiles of vector registers.
func (t *convTile) vectorTiles(vb, mb *loop.Buffer, f *loop.Var, at *stagedAt, ob int, block *loop.Expr) []loop.Stmt {
	k, lanes, points := t.k, t.lanes, t.inARow()
	one := func(p int, first *loop.Expr) []loop.Stmt {
		x := &loop.Tile{OB: ob, P: p, L: lanes, X: vb, W: t.wb, S: mb, WO: lanes, SO: points * lanes, Prefetch: t.prefetch}
		x.Red, x.More = t.blocks(points*lanes, ob*lanes)
		x.XAt = loop.Add(loop.Mul(loop.V(f), t.icb*points*lanes), loop.Mul(first, lanes))
		x.WAt = loop.Mul(loop.Add(loop.Mul(loop.V(f), t.ocb), loop.Add(at.block, block)), t.icb*lanes*lanes)
		x.SAt = loop.Add(loop.Mul(loop.Add(loop.Mul(loop.V(f), at.per), block), points*lanes), loop.Mul(first, lanes))
		for i := range p {
			x.XP, x.SP = append(x.XP, i*lanes), append(x.SP, i*lanes)
		}
		return []loop.Stmt{x}
	}
	var body []loop.Stmt
	if full := points / t.shape.TW; full > 0 {
		c := k.fresh("x", full)
		body = loop.Nest([]*loop.Var{c}, []loop.LoopKind{loop.Serial}, one(t.shape.TW, loop.Mul(loop.V(c), t.shape.TW))...)
	}
	if rest := points % t.shape.TW; rest > 0 {
		body = append(body, one(rest, loop.Int(points-rest))...)
	}
	return body
}

// blocks are the loops over the input channels of a point, whose blocks are plane
// apart, each step of vec weights. A last block that is part full has a loop of
// its own.
func (t *convTile) blocks(plane, vec int) ([]loop.Red, []loop.Part) {
	n := t.ic / t.Groups
	of := func(blocks, n int) []loop.Red {
		return []loop.Red{{N: blocks, XStep: plane, WStep: t.lanes * vec}, {N: n, XStep: 1, WStep: vec}}
	}
	full, rest := n/t.lanes, n%t.lanes
	switch {
	case rest == 0:
		return of(full, t.lanes), nil
	case full == 0:
		return of(1, rest), nil
	}
	return of(full, t.lanes), []loop.Part{{X: full * plane, W: full * t.lanes * vec, Red: of(1, rest)}}
}

// matrixTiles do the same by tiles of a matrix unit. Where units are pixels the
// sums of a tile are finished at once.
func (t *convTile) matrixTiles(vb, mb *loop.Buffer, f *loop.Var, at *stagedAt, ob int, block *loop.Expr) []loop.Stmt {
	k, lanes, rows := t.k, t.lanes, t.shape.TW
	plane := t.unitBlocks(t.icb) * t.units() * t.unitLen
	perBlock := t.unitBlocks(t.icb) * t.steps() * t.parts * t.unitTile()
	return k.overRuns(t.inARow(), rows, func(r run) []loop.Stmt {
		x := &loop.Tile{Kind: t.unitKind(), Matrix: true, Rows: rows, OB: ob, P: r.runs * rows, L: lanes, X: vb, W: t.wb, S: mb, WO: t.unitTile(),
			SAt: loop.Int(0), SO: r.runs * rows * lanes, XP: r.offsets(rows, t.unitLen), Prefetch: t.prefetch}
		x.Red, x.Terms = t.matrixSum(ob, plane)
		if t.bb != nil {
			x.B, x.BAt = t.bb, loop.Mul(loop.Add(at.block, block), lanes)
		}
		x.XAt = loop.Add(loop.Mul(loop.V(f), t.parts*plane), loop.Mul(r.at, t.unitLen))
		x.WAt = loop.Mul(loop.Add(loop.Mul(loop.V(f), t.ocb), loop.Add(at.block, block)), perBlock)
		if t.wino > 0 {
			x.SO, x.SP = t.inARow()*lanes, r.offsets(rows, lanes)
			x.SAt = loop.Add(loop.Mul(loop.Add(loop.Mul(loop.V(f), at.per), block), t.inARow()*lanes), loop.Mul(r.at, lanes))
			return []loop.Stmt{x}
		}
		for i := range x.P {
			x.SP = append(x.SP, i*lanes)
		}
		return append([]loop.Stmt{x}, t.finishTile(x, r, at, block)...)
	})
}

// matrixSum is what a tile sums: blocks of channels, the kernel's taps and the
// products of parts. Taps that no two steps reach are terms, as parts are.
func (t *convTile) matrixSum(ob, plane int) (sum []loop.Red, terms [][2]int) {
	w := ob * t.unitTile()
	sum = []loop.Red{{N: t.unitBlocks(t.icb), XStep: t.units() * t.unitLen, WStep: t.steps() * t.parts * w}}
	rows, cols := t.grid()
	taps := []tap{{}}
	switch {
	case len(t.phases) > 1:
		taps = t.taps
	case len(t.taps) > 1:
		across := len(t.taps) / t.Kernel[0]
		sum = append(sum, loop.Red{N: t.Kernel[0], XStep: t.Dilations[0] / t.step[0] * cols * t.unitLen, WStep: across * t.parts * w},
			loop.Red{N: across, XStep: t.Dilations[1] / t.step[1] * t.unitLen, WStep: t.parts * w})
	}
	for i, p := range taps {
		at := (p.phase*rows+p.row)*cols + p.col
		for _, pair := range partTerms[t.parts] {
			terms = append(terms, [2]int{pair[0]*plane + at*t.unitLen, (i*t.parts + pair[1]) * w})
		}
	}
	g := t.unitKind().Group()
	return append(sum, loop.Red{N: loop.MatrixLanes, XStep: g, WStep: g * loop.MatrixLanes}), terms
}
