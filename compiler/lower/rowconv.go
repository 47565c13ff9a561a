package lower

import (
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Convolutions with few output channels would leave most lanes of a channel
// block empty: there the lanes are neighbouring pixels of a row, and the tile's
// broadcast operand is the weights.

// rowwise reports whether the pixel form serves.
func (c *tiledConv) rowwiseFits(lanes int) bool {
	return c.Strides[1] == 1 && c.Out[1] >= lanes || c.pointwise() && c.Out[0]*c.Out[1] >= lanes
}

// pointwise reports a 1×1 kernel without stride or padding: all pixels of a
// plane are one row.
func (c *tiledConv) pointwise() bool {
	one := c.Kernel[0]*c.Kernel[1]*c.Strides[0]*c.Strides[1] == 1
	return one && c.Lo[0]+c.Lo[1]+c.Hi[0]+c.Hi[1] == 0
}

// flattened is the convolution with its planes as single rows.
func (c *tiledConv) flattened() *tiledConv {
	f := *c
	f.Out = []int{1, c.Out[0] * c.Out[1]}
	return &f
}

func (l *lowerer) emitRowConv(c *tiledConv, g *group, dst *place) error {
	x, err := l.inLayout(g.anchor.Inputs[0], Layout{Shape: g.anchor.Inputs[0].Static(), L: 1, Lo: c.lo, Hi: c.hi})
	if err == nil && c.Out[1] < l.o.Lanes {
		// Rows shorter than a vector: only whole planes serve, which have no halo.
		if !x.layout.isPlain() {
			x, err = l.moveTo(g.anchor.Inputs[0], plain(x.layout.Shape))
		}
		if err == nil && !dst.layout.isPlain() {
			return l.rowConvAside(c, g, dst)
		}
	}
	if err != nil {
		return err
	}
	l.places[g.root] = nil
	defer func() { l.places[g.root] = dst }()
	k := l.kernelFor(g.root)
	lanes := l.o.Lanes
	t := &convTile{tiledConv: c, k: k, g: g, x: x, y: dst, lanes: lanes, cols: c.Out[1]}
	if c.pointwise() && x.layout.isPlain() && dst.layout.isPlain() {
		t.flat = true
		c = c.flattened()
	}
	t.yb, t.xb = k.param(dst.buf, true), k.param(x.buf, false)
	icg, ocg := c.ic/c.Groups, c.oc/c.Groups
	kk := c.Kernel[0] * c.Kernel[1]
	w := tensor.As[float32](c.w)
	t.wb = k.param(l.weightBuf(c.wName, len(w), func() []float32 { return w }), false)
	vectors := c.Out[1] / lanes
	s := l.tile(c.site, vectors, 1, ocg, icg*kk, false)
	t.scratch = k.local("s", tensor.F32, s.OB*s.TW*lanes)
	n := dst.layout.Shape[0]
	pb := (ocg + s.TW - 1) / s.TW // tiles of output channels in a group
	v := k.fresh("t", n*c.Groups*c.Out[0])
	oh := loop.Mod(loop.V(v), c.Out[0])
	ng := loop.Div(loop.V(v), c.Out[0])
	image, group := loop.Div(ng, c.Groups), loop.Mod(ng, c.Groups)
	tile := func(ob, p int, first, ow *loop.Expr) []loop.Stmt {
		xl := x.layout
		oc := loop.Add(loop.Mul(group, ocg), first)
		ih := loop.Add(loop.Mul(oh, c.Strides[0]), loop.Int(-c.Lo[0]))
		plane := loop.Add(loop.Mul(image, c.ic), loop.Mul(group, icg))
		q := &loop.Tile{OB: ob, P: p, L: lanes, W: t.xb, X: t.wb, S: t.scratch, WO: lanes, SO: p * lanes,
			WAt: t.at(xl, plane, ih, loop.Add(ow, loop.Int(-c.Lo[1]))), XAt: loop.Mul(oc, icg*kk), SAt: loop.Int(0),
			Red: []loop.Red{{N: icg, XStep: kk, WStep: xl.plane()}, {N: c.Kernel[0], XStep: c.Kernel[1], WStep: c.Dilations[0] * xl.cols()},
				{N: c.Kernel[1], XStep: 1, WStep: c.Dilations[1]}}}
		for i := range p {
			q.XP, q.SP = append(q.XP, i*icg*kk), append(q.SP, i*lanes)
		}
		return []loop.Stmt{q, t.rowEpilogue(ob, p, image, oc, oh, ow)}
	}
	across := func(p int, first *loop.Expr) []loop.Stmt {
		var body []loop.Stmt
		step := s.OB * lanes
		if full := vectors / s.OB; full > 0 {
			b := k.fresh("x", full)
			body = loop.Nest([]*loop.Var{b}, []loop.LoopKind{loop.Serial}, tile(s.OB, p, first, loop.Mul(loop.V(b), step))...)
		}
		// The rest ends with the row: its vectors may repeat some pixels.
		if rest := c.Out[1] - vectors/s.OB*step; rest > 0 {
			ob := (rest + lanes - 1) / lanes
			if ob > s.OB || ob*lanes > c.Out[1] {
				ob = vectors
			}
			body = append(body, tile(ob, p, first, loop.Int(c.Out[1]-ob*lanes))...)
		}
		return body
	}
	var body []loop.Stmt
	lay := dst.layout
	if lay.Lo != [2]int{} || lay.Hi != [2]int{} {
		o := k.fresh("z", ocg)
		p := loop.Add(loop.Add(loop.Mul(image, c.oc), loop.Mul(group, ocg)), loop.V(o))
		zero := loop.Nest([]*loop.Var{o}, []loop.LoopKind{loop.Serial}, lay.zeroHalo(t.yb, p, k.fresh)...)
		body = append(body, choice(oh, 1, c.Out[0], func() []loop.Stmt { return zero }, func() []loop.Stmt { return nil })...)
	}
	b := k.fresh("o", pb)
	body = append(body, loop.Nest([]*loop.Var{b}, []loop.LoopKind{loop.Serial}, choice(loop.V(b), ocg/s.TW, pb,
		func() []loop.Stmt { return across(s.TW, loop.Mul(loop.V(b), s.TW)) },
		func() []loop.Stmt { return across(ocg%s.TW, loop.Mul(loop.V(b), s.TW)) })...)...)
	work := 2 * int64(n) * int64(c.oc) * int64(c.Out[0]*c.Out[1]) * int64(kk*icg)
	l.close(c.site, work)
	k.finish("rowconv", []loop.Stmt{&loop.For{Var: v, Par: work >= 8*parallelWork && v.N > 1, Body: body}}, work)
	return nil
}

// rowConvAside computes into whole planes, and copies them to where they belong.
func (l *lowerer) rowConvAside(c *tiledConv, g *group, dst *place) error {
	lay := plain(g.root.Static())
	aside := &place{l.newBuf(g.root.Name+"·planes", g.root.DType(), lay.Len()), lay}
	l.places[g.root] = aside
	defer func() { l.places[g.root] = dst }()
	if err := l.emitRowConv(c, g, aside); err != nil {
		return err
	}
	return l.copyTo(g.root, dst)
}

// rowEpilogue stores a tile of pixels through the elementwise ops behind it.
func (t *convTile) rowEpilogue(ob, p int, image, oc, oh, ow *loop.Expr) loop.Stmt {
	k := t.k
	o, q, l := k.fresh("o", ob), k.fresh("q", p), k.fresh("l", t.lanes)
	idx := []*loop.Expr{image, loop.Add(oc, loop.V(q)), oh, loop.Add(loop.Add(ow, loop.Mul(loop.V(o), t.lanes)), loop.V(l))}
	if t.flat {
		idx[2], idx[3] = loop.Div(idx[3], t.cols), loop.Mod(idx[3], t.cols)
	}
	a := t.g.anchor.Outputs[0]
	k.memo = map[string]*loop.Expr{}
	k.over[a] = func([]*loop.Expr) *loop.Expr {
		return loop.At(t.scratch, loop.Add(loop.Mul(loop.Add(loop.Mul(loop.V(o), p), loop.V(q)), t.lanes), loop.V(l)))
	}
	val := k.access(t.g.root, idx)
	delete(k.over, a)
	store := &loop.Store{Buf: t.yb, Index: t.y.layout.offset(idx), Val: t.y.layout.stored(val)}
	return loop.Nest([]*loop.Var{o, q, l}, []loop.LoopKind{loop.Serial, loop.Serial, loop.Vector}, store)[0]
}

// fewInputs is up to how many input channels a layer takes less time for its sums
// than for moving its results out of channel blocks.
const fewInputs = 4

// rowsPay reports that results are better computed in rows, although they fill
// channel blocks: they leave the model as rows, and to move a number takes about as
// long as the given sums, which vectors that are part full may take more.
func (c *tiledConv) rowsPay(lanes int) bool {
	const move = 1
	pixels := blocksOf(c.Out[1], lanes) * lanes * c.oc
	channels := c.Out[1] * c.ocb * lanes
	sums := c.ic * c.Kernel[0] * c.Kernel[1]
	return c.ends && c.ic <= fewInputs && !c.piece && (pixels-channels)*sums <= move*c.oc*c.Out[1]
}

// ends reports that a value leaves the model and is not used in it, as it is or
// after elementwise ops of its own.
func (l *lowerer) ends(v *ir.Value) bool {
	for {
		u := l.uses[v]
		switch {
		case l.isOut[v]:
			return len(u) == 0
		case len(u) != 1 || core.Lookup(u[0].Op).Class != core.Pointwise || len(u[0].Outputs) != 1:
			return false
		}
		v = u[0].Outputs[0]
	}
}
