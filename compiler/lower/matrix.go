package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// forwardParts brings a chunk of the input into scratch as parts:
// v[frequency][part][block][unit][channel].
func (t *convTile) forwardParts(vb *loop.Buffer, at *stagedAt) []loop.Stmt {
	s := &splitter{kb: t.k, parts: t.parts, to: vb, plane: t.unitBlocks(t.icb) * t.units() * t.unitLen}
	body := s.begin()
	cb := t.k.fresh("c", t.icb)
	if t.tight {
		for i, phase := range t.phases {
			body = append(body, t.packPixels(s, at, i, phase)...)
		}
	} else if t.wino > 0 {
		body = append(body, loop.Nest([]*loop.Var{cb}, []loop.LoopKind{loop.Serial}, t.splitTiles(s, at, loop.V(cb))...)...)
	} else {
		var inner []loop.Stmt
		for i, phase := range t.phases {
			inner = append(inner, t.splitPixels(s, at, loop.V(cb), i, phase)...)
		}
		body = append(body, loop.Nest([]*loop.Var{cb}, []loop.LoopKind{loop.Serial}, inner...)...)
	}
	if t.icb%t.unitWidth() > 0 && !t.tight {
		body = append(body, t.fillBlock(vb)...)
	}
	least, more := s.limit(t.leastSum())
	if at.least = least; t.tight && least == nil {
		// Pixels beyond the kernel's have weights of 0, which infinities spoil.
		at.least = t.k.reg("least", tensor.F32)
		more = []loop.Stmt{&loop.Set{Reg: at.least, Val: loop.Number(tensor.F32, 0, 0), Decl: true}}
	}
	return append(body, more...)
}

// packPixels splits the pixels of rows of one phase, all channels of a pixel side
// by side.
func (t *convTile) packPixels(s *splitter, at *stagedAt, i int, phase [2]int) []loop.Stmt {
	k := t.k
	rows, cols := t.grid()
	width := cols * t.step[1]
	rr := k.fresh("r", rows)
	row := func(c int) *loop.Expr {
		return t.pixel(at, loop.Int(c), loop.V(rr), loop.Int(0), phase[0], 0)
	}
	var body []loop.Stmt
	for c := range t.ic {
		body = append(body, s.note(width, func(v *loop.Expr) *loop.Expr { return loop.At(t.xb, loop.Add(row(c), v)) })...)
	}
	to := loop.Mul(loop.Add(loop.V(rr), loop.Int(i*rows)), width*packedChannels)
	for part := range t.parts {
		v := k.fresh("v", width)
		var stores []loop.Stmt
		for c := range packedChannels {
			val := loop.Number(tensor.BF16, 0, 0)
			if c < t.ic {
				val = partOfValue(loop.At(t.xb, loop.Add(row(c), loop.V(v))), part)
			}
			stores = append(stores, &loop.Store{Buf: s.to, Index: loop.Add(loop.Add(to, loop.Mul(loop.V(v), packedChannels)), loop.Int(part*s.plane+c)), Val: val})
		}
		body = append(body, loop.Nest([]*loop.Var{v}, []loop.LoopKind{loop.Vector}, stores...)...)
	}
	return loop.Nest([]*loop.Var{rr}, []loop.LoopKind{loop.Serial}, body...)
}

// unitAt is where the channels of a block of a unit lie in a plane.
func (t *convTile) unitAt(cb, unit *loop.Expr) *loop.Expr {
	e := loop.Add(loop.Mul(loop.Div(cb, t.unitWidth()), t.units()), unit)
	return loop.Add(loop.Mul(e, t.unitK()), loop.Mul(loop.Mod(cb, t.unitWidth()), t.lanes))
}

// splitPixels splits a block of the pixels of one phase.
func (t *convTile) splitPixels(s *splitter, at *stagedAt, cb *loop.Expr, i int, phase [2]int) []loop.Stmt {
	k := t.k
	rows, cols := t.grid()
	rr, cc := k.fresh("r", rows), k.fresh("w", cols)
	unit := loop.Add(loop.Mul(loop.Add(loop.V(rr), loop.Int(i*rows)), cols), loop.V(cc))
	from := t.pixel(at, cb, loop.V(rr), loop.V(cc), phase[0], phase[1])
	body := loop.Nest([]*loop.Var{cc}, []loop.LoopKind{loop.Serial}, s.store(t.unitAt(cb, unit), t.lanes, func(l *loop.Expr) *loop.Expr {
		return loop.At(t.xb, loop.Add(from, l))
	})...)
	// The pixels between those of a phase may be looked at too.
	row := t.pixel(at, cb, loop.V(rr), loop.Int(0), phase[0], phase[1])
	body = append(s.note(((cols-1)*t.step[1]+1)*t.lanes, func(v *loop.Expr) *loop.Expr { return loop.At(t.xb, loop.Add(row, v)) }), body...)
	return loop.Nest([]*loop.Var{rr}, []loop.LoopKind{loop.Serial}, body...)
}

// splitTiles transforms a block of the tiles and splits the frequencies.
func (t *convTile) splitTiles(s *splitter, at *stagedAt, cb *loop.Expr) []loop.Stmt {
	k, lanes, freqs := t.k, t.lanes, t.wg.freqs()
	ub := k.local("u", tensor.F32, freqs*lanes)
	rr, cc, ci, f := k.fresh("r", t.chunk.rows), k.fresh("w", t.chunk.cols), k.fresh("l", lanes), k.fresh("f", freqs)
	body := loop.Nest([]*loop.Var{ci}, []loop.LoopKind{loop.Vector}, t.frequencies(at, cb, loop.V(rr), loop.V(cc), loop.V(ci), func(f int, val *loop.Expr) loop.Stmt {
		return &loop.Store{Buf: ub, Index: loop.Add(loop.V(ci), loop.Int(f*lanes)), Val: val}
	})...)
	body = append(body, s.note(freqs*lanes, func(v *loop.Expr) *loop.Expr { return loop.At(ub, v) })...)
	tile := loop.Add(loop.Mul(loop.V(rr), t.chunk.cols), loop.V(cc))
	to := loop.Add(loop.Mul(loop.V(f), t.parts*s.plane), t.unitAt(cb, tile))
	body = append(body, loop.Nest([]*loop.Var{f}, []loop.LoopKind{loop.Serial}, s.store(to, lanes, func(l *loop.Expr) *loop.Expr {
		return loop.At(ub, loop.Add(loop.Mul(loop.V(f), lanes), l))
	})...)...)
	return loop.Nest([]*loop.Var{rr, cc}, []loop.LoopKind{loop.Serial, loop.Serial}, body...)
}

// fillBlock clears what is left of the last block of channels.
func (t *convTile) fillBlock(vb *loop.Buffer) []loop.Stmt {
	k, n := t.k, t.unitBlocks(t.icb)*t.units()*t.unitK()
	p, u := k.fresh("p", t.wg.freqs()*t.parts), k.fresh("u", t.units())
	at := loop.Add(loop.Mul(loop.V(p), n), t.unitAt(loop.Int(t.icb), loop.V(u)))
	return loop.Nest([]*loop.Var{p, u}, []loop.LoopKind{loop.Serial, loop.Serial}, &loop.Zero{Buf: vb, From: at, N: (t.unitWidth() - t.icb%t.unitWidth()) * t.lanes})
}

// leastSum is the least sum that is trusted where an element is small.
func (t *convTile) leastSum() float64 {
	terms := t.ic / t.Groups * t.Kernel[0] * t.Kernel[1]
	if t.wino > 0 {
		// The products of a frequency have weights up to the sum of a filter's, and
		// as many of them as there are frequencies go into an output, by factors
		// that are below 64.
		return 64 * float64(t.wg.freqs()) * smallest(terms, t.mostWeight*float64(t.Kernel[0]*t.Kernel[1]))
	}
	return smallest(terms, t.mostWeight)
}

// finishTile stores the sums of a tile through the epilogue, after those that
// are not to be trusted were computed once more.
func (t *convTile) finishTile(x *loop.Tile, r run, at *stagedAt, block *loop.Expr) []loop.Stmt {
	k := t.k
	var body []loop.Stmt
	parts := r.stretches(t.shape.TW)
	if at.least != nil {
		stmts, cond := k.distrusts(x.OB*x.P*t.lanes, at.least, func(v *loop.Expr) *loop.Expr { return loop.At(x.S, v) })
		var again []loop.Stmt
		for _, s := range parts {
			again = append(again, t.again(x, s, at, block)...)
		}
		body = append(stmts, &loop.Cond{If: cond, Then: again})
	}
	for _, s := range parts {
		body = append(body, t.storePoints(x, s, at, block)...)
	}
	return body
}

// outputs gives the row and column in the chunk of a point, and whether it is
// one of those between rows.
func (t *convTile) outputs(q *loop.Expr) (row, col, exists *loop.Expr) {
	if t.chunk.rows == 1 {
		return loop.Int(0), q, loop.True()
	}
	_, cols := t.grid()
	row, col = loop.Div(q, cols), loop.Mod(q, cols)
	return row, col, loop.Less(col, loop.Int(t.chunk.cols))
}

// again computes points of a tile in the direct form.
func (t *convTile) again(x *loop.Tile, s stretch, at *stagedAt, block *loop.Expr) []loop.Stmt {
	k := t.k
	p, o := k.fresh("p", s.n), k.fresh("o", x.OB)
	row, col, exists := t.outputs(loop.Add(s.at, loop.V(p)))
	to := loop.Mul(loop.Add(loop.Mul(loop.V(o), x.P), loop.Add(loop.V(p), loop.Int(s.first))), t.lanes)
	ih := loop.Add(loop.Mul(loop.Add(at.row, row), t.Strides[0]), loop.Int(-t.Lo[0]))
	iw := loop.Add(loop.Mul(loop.Add(at.col, col), t.Strides[1]), loop.Int(-t.Lo[1]))
	body := loop.Nest([]*loop.Var{o}, []loop.LoopKind{loop.Serial}, t.plainTile(x.S, to, 1, at.image, ih, iw, loop.Add(at.block, loop.Add(block, loop.V(o)))))
	if exists.Kind != loop.Const {
		body = []loop.Stmt{&loop.Cond{If: exists, Then: body}}
	}
	return loop.Nest([]*loop.Var{p}, []loop.LoopKind{loop.Serial}, body...)
}

// storePoints runs the epilogue on points of a tile. Where they lie side by side
// in the output too, they and the lanes are one long vector loop.
func (t *convTile) storePoints(x *loop.Tile, s stretch, at *stagedAt, block *loop.Expr) []loop.Stmt {
	k := t.k
	o := k.fresh("o", x.OB)
	element := func(p, lane *loop.Expr) (st *loop.Store, exists *loop.Expr) {
		row, col, exists := t.outputs(loop.Add(s.at, p))
		ch := loop.Add(loop.Mul(loop.Add(loop.Add(at.block, block), loop.V(o)), t.lanes), lane)
		idx := []*loop.Expr{at.image, ch, loop.Add(at.row, row), loop.Add(at.col, col)}
		if t.flat {
			idx[2], idx[3] = loop.Div(idx[3], t.Out[1]), loop.Mod(idx[3], t.Out[1])
		}
		point := loop.Add(loop.Mul(loop.V(o), x.P), loop.Add(p, loop.Int(s.first)))
		return t.finished(t.p.last, t.withCenter(loop.At(x.S, loop.Add(loop.Mul(point, t.lanes), lane)), idx), idx), exists
	}
	v := k.fresh("v", s.n*t.lanes)
	long, exists := element(loop.Div(loop.V(v), t.lanes), loop.Mod(loop.V(v), t.lanes))
	if exists.Kind == loop.Const && !loop.Divides(long.Val) && !loop.Divides(long.Index) {
		return loop.Nest([]*loop.Var{o, v}, []loop.LoopKind{loop.Serial, loop.Vector}, long)
	}
	p, l := k.fresh("p", s.n), k.fresh("l", t.lanes)
	store, exists := element(loop.V(p), loop.V(l))
	body := loop.Nest([]*loop.Var{o, l}, []loop.LoopKind{loop.Serial, loop.Vector}, store)
	if exists.Kind != loop.Const {
		body = []loop.Stmt{&loop.Cond{If: exists, Then: body}}
	}
	return loop.Nest([]*loop.Var{p}, []loop.LoopKind{loop.Serial}, body...)
}

// weightAt is where the weight of an output and an input channel lies: for a
// frequency or a tap of the kernel, in a part.
func (t *convTile) weightAt(f, tap, part, o, c, per int) int {
	ob, taps, g := t.shape.OB, t.steps(), t.unitKind().Group()
	block := o / t.lanes
	first := block % per / ob * ob
	width := min(ob, per-first)
	first += block / per * per
	step := ((c/t.unitK())*taps+tap)*t.parts + part
	vector := (f*t.ocb+first)*t.unitBlocks(t.icb)*taps*t.parts + block - first + step*width
	return vector*t.unitTile() + c%t.unitK()/g*g*t.lanes + o%t.lanes*g + c%g
}

// unitBytes are stagedWeights as bytes.
func (t *convTile) unitBytes(l *lowerer, per int) *buf {
	taps, icg := t.steps(), t.ic/t.Groups
	n := t.ocb * t.unitBlocks(t.icb) * taps * t.unitTile()
	return constBuf(l, t.wName, tensor.I8, n, func() []int8 {
		out := make([]int8, n)
		for i, w := range tensor.As[float32](t.w) {
			out[t.weightAt(0, i%taps, 0, i/taps/icg, i/taps%icg, per)] = int8(w - float32(t.center))
		}
		return out
	})
}

// stagedWeights are the weights in the order in which tiles read them.
func (t *convTile) stagedWeights(l *lowerer, per int) *buf {
	if t.parts == 0 {
		return t.winogradWeights(l, per)
	}
	if t.kind == loop.TileU8S8 {
		return t.unitBytes(l, per)
	}
	blocks, taps, parts := t.unitBlocks(t.icb), t.steps(), t.parts
	n := t.wg.freqs() * t.ocb * blocks * taps * parts * t.unitTile()
	return constBuf(l, t.wName+"·parts", tensor.BF16, n, func() []uint16 {
		out := make([]uint16, n)
		set := func(f, tap, o, c int, u float64) {
			of := partsOf(u, parts)
			for i, p := range of[:parts] {
				out[t.weightAt(f, tap, i, o, c, per)] = p
			}
		}
		if t.wino > 0 {
			t.transformed(func(f, o, c int, u float64) { set(f, 0, o, c, u) })
			return out
		}
		icg := t.ic / t.Groups
		if t.tight {
			kw := t.Kernel[1]
			for i, u := range tensor.As[float32](t.w) {
				set(0, i/kw%taps, i/kw/taps/icg, i%kw*packedChannels+i/kw/taps%icg, float64(u))
			}
			return out
		}
		for i, u := range tensor.As[float32](t.w) {
			set(0, i%taps, i/taps/icg, i/taps%icg, float64(u))
		}
		return out
	})
}
