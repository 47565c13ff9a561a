package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// tiledConv is the geometry of a two-dimensional convolution that register
// tiles serve.
type tiledConv struct {
	core.ConvDims
	lo, hi     [2]int // the halo that its input needs
	ic, oc     int
	depthwise  bool
	rowwise    bool       // few output channels: lanes are pixels
	planar     bool       // few input channels: the input stays row-major
	open       bool       // the input is read where it lies, without halo
	icb, ocb   int        // channel blocks; icb is of one group
	icl        int        // channels of a block of the input
	groupWidth int        // output blocks per group
	groups     *groupPlan // of groups that do not fill blocks; nil: none
	w          *tensor.Tensor
	wName      string
	wino       int  // tile size of Winograd's form, 0 for the direct one
	parts      int  // of bfloat16 in which a matrix unit multiplies numbers, 0 without one
	tight      bool // the steps of its matrices are pixels of few channels
	mostWeight float64
	slots      []int // where the channels lie that it picks, in lanes of blocks; nil: side by side
	piece      bool  // other channels lie beside its results, in blocks of their own
	ends       bool  // its results leave the model, row-major
	mode       precision.Mode
	exact      bool // sums of whole numbers become integers: no form may round
	site       *site
	operands
}

// tiled gives the tile geometry of a convolution; nil if it needs the general
// form.
func (l *lowerer) tiled(n *ir.Node) *tiledConv {
	if c, ok := l.convs[n]; ok {
		return c
	}
	c := l.newTiled(n)
	l.convs[n] = c
	return c
}

func (l *lowerer) newTiled(n *ir.Node) *tiledConv {
	x, w := n.Inputs[0], n.Inputs[1]
	lanes := l.o.Lanes
	if lanes < 4 || x.Rank() != 4 || x.DType() != tensor.F32 || w.DType() != tensor.F32 || !tileSums(n.Outputs[0].DType()) {
		return nil
	}
	xs, ws := x.Static(), w.Static()
	geo, err := core.ConvGeometry(n, xs[2:], ws[2:])
	if err != nil || geo.XDil[0] != 1 || geo.XDil[1] != 1 || tensor.Numel(n.Outputs[0].Static()) == 0 || tensor.Numel(xs) == 0 {
		return nil
	}
	c := &tiledConv{ConvDims: geo, ic: xs[1], oc: ws[0], w: constant(w), wName: w.Name}
	if from, at := pickedBy(n); at != nil {
		lay := Layout{Shape: from.Static(), L: lanes, Parts: blockParts(from)}
		for _, ch := range at {
			c.slots = append(c.slots, lay.slot(ch))
		}
	}
	if c.w == nil {
		return nil
	}
	if !c.decide(l, n) {
		return nil
	}
	if c.open = c.planar && c.parts == 0 && x.Def == nil && c.opens(xs[2:]); c.open {
		return c
	}
	for a := range 2 {
		c.lo[a] = geo.Lo[a]
		if c.wino > 0 { // whole tiles are read
			m := minimalTile(c.wino, geo.Kernel[a])
			c.hi[a] = max(0, ((geo.Out[a]+m-1)/m*m-1)*geo.Strides[a]+geo.Kernel[a]-geo.Lo[a]-xs[2+a])
			continue
		}
		if c.parts > 0 { // whole units are read
			s := c.stage(0, geo.Out[0], geo.Out[1])
			last := 0
			for _, p := range s.phases {
				last = max(last, p[a])
			}
			if c.tight && a == 1 {
				last = geo.Strides[1] - 1
			}
			c.hi[a] = max(0, (geo.Out[a]-1+s.more[a])*geo.Strides[a]+last+1-geo.Lo[a]-xs[2+a])
			continue
		}
		taps := geo.Kernel[a]
		if a == 1 && c.acrossPixels() { // whole groups of pixels are read
			taps = c.pixelGroups() * c.kind.Group()
		}
		c.hi[a] = max(0, (geo.Out[a]-1)*geo.Strides[a]+(taps-1)*geo.Dilations[a]+1-geo.Lo[a]-xs[2+a])
	}
	return c
}

// convTile is one tiled convolution being emitted.
type convTile struct {
	*tiledConv
	staging
	k        *kb
	g        *group
	x, y     *place
	xb, yb   *loop.Buffer
	wb, bb   *loop.Buffer
	plain    *loop.Buffer // weights of the direct form, beside Winograd's
	shape    tileShape
	p        peeled
	addPlace *place
	scratch  *loop.Buffer
	rows     int // output rows and columns as tiled (flattened where that is legal)
	cols     int
	flat     bool
	band     int // tiles of a part of a flattened plane that one thread works on
	lanes    int
	prefetch int          // bytes
	sumType  tensor.DType // of what the tile stores
	begin    []int64      // whole constants that sums of bytes begin with
	sumsBuf  *buf         // of the left operand's pixels, if the weights have a center
	sums     *loop.Buffer

	// Of groups that do not fill blocks, what is being made: the unit, its period,
	// where its weights begin, and whether tiles store results themselves.
	unit        groupUnit
	period      *loop.Expr
	unitWeights int
	direct      bool

	edge  [2]taps // of rows and columns, of the tile being made
	skips bool    // whether tiles leave out taps that read padding
}

func (l *lowerer) emitTiledConv(g *group) (bool, error) {
	c := l.tiled(g.anchor)
	dst := l.target(g.root)
	if c != nil {
		l.site = c.site
	}
	if c == nil || dst.layout.Shape[1] != c.oc || c.rowwise && dst.layout.L > 1 {
		return false, nil
	}
	if c.rowwise {
		return true, l.emitRowConv(c, g, dst)
	}
	if dst.layout.L != l.o.Lanes { // an output: computed in blocks, then copied
		lay := Layout{Shape: g.root.Static(), L: l.o.Lanes}
		blocked := &place{l.newBuf(g.root.Name+"·blocks", g.root.DType(), lay.Len()), lay}
		l.places[g.root] = blocked
		if err := l.conv(c, g, blocked); err != nil {
			return true, err
		}
		err := l.copyTo(g.root, dst)
		l.places[g.root] = dst
		return true, err
	}
	return true, l.conv(c, g, dst)
}

func (l *lowerer) conv(c *tiledConv, g *group, dst *place) error {
	from, _ := pickedBy(g.anchor)
	want := c.in(Layout{Shape: from.Static(), L: c.icl, Lo: c.lo, Hi: c.hi, Parts: blockParts(from)})
	if c.planar {
		want.L = 1
	}
	x, err := l.inLayout(from, want)
	if err != nil {
		return err
	}
	var sums *buf
	if c.center != 0 {
		if x.layout.Lo != [2]int{} || x.layout.Hi != [2]int{} {
			if x, err = l.withoutHalo(g.anchor.Inputs[0], want); err != nil {
				return err
			}
		}
		sums = l.pixelSums(g.anchor.Inputs[0], x)
	}
	l.places[g.root] = nil
	defer func() { l.places[g.root] = dst }()
	t := &convTile{sumsBuf: sums, tiledConv: c, g: g, x: x, y: dst, lanes: l.o.Lanes, rows: c.Out[0], cols: c.Out[1]}
	if c.wino > 0 || c.parts > 0 {
		t.flat = c.pointwise() && x.layout.isBare() && dst.layout.isBare()
		if t.flat {
			t.rows, t.cols = 1, t.rows*t.cols
		}
		t.p.last, t.sumType = g.anchor.Outputs[0], tensor.F32
		if c.kind == loop.TileU8S8 {
			t.p, t.sumType, t.begin = l.wholePeel(g, 1, c.oc)
		}
		t.emitStaged(l)
		return nil
	}
	t.p = l.peel(g, 1, func(v *ir.Value) bool {
		p := l.places[v]
		return p != nil && p.layout.L == dst.layout.L && l.tileStores(p.layout) && tensor.Numel(v.Static()) == tensor.Numel(g.root.Static())
	})
	t.sumType = tensor.F32
	if c.kind == loop.TileU8S8 { // scales come first
		t.p, t.sumType, t.begin = l.wholePeel(g, 1, c.oc)
	}
	if t.p.add != nil {
		t.addPlace = l.places[t.p.add]
	}
	none := [2]int{}
	if c.Kernel[0]*c.Kernel[1]*c.Strides[0]*c.Strides[1] == 1 && x.layout.Lo == none && x.layout.Hi == none && dst.layout.Lo == none && dst.layout.Hi == none &&
		(t.addPlace == nil || t.addPlace.layout.Lo == none && t.addPlace.layout.Hi == none) {
		t.flat, t.rows, t.cols = true, 1, t.rows*t.cols
	}
	steps := c.Kernel[0] * c.Kernel[1]
	if c.planar {
		steps *= c.ic
	} else if !c.depthwise {
		steps *= (c.ic/c.Groups + c.kind.Group() - 1) / c.kind.Group()
	}
	if c.groups != nil {
		t.shape = l.tile(c.site, c.groups.widest(), t.rows, t.cols, steps, false)
		t.decideSkips()
		t.emitGroups(l)
		return nil
	}
	if c.acrossPixels() {
		t.shape = c.acrossShape(l)
		t.allTaps()
		t.emit(l)
		return nil
	}
	t.shape = l.tile(c.site, c.groupOr(1), t.rows, t.cols, steps, c.depthwise, func(s tileShape) float64 {
		return c.reread(s, 4*t.lanes) - t.saved(s)*float64(c.groupOr(1)*t.rows*t.cols*steps)
	})
	t.decideSkips()
	t.emit(l)
	return nil
}

// reread is what it costs a depthwise tile to read its inputs from the second
// cache, where the first does not hold the rows between one tile and the next:
// tall tiles read fewer. pixel is the size of a block of channels.
func (c *tiledConv) reread(t tileShape, pixel int) float64 {
	const row = 6 << 10 // bytes; a tile reads several rows
	if !c.depthwise || c.Out[1]*c.Strides[1]*pixel < row {
		return 0
	}
	reads := func(a, n int) int { return (n-1)*c.Strides[a] + (c.Kernel[a]-1)*c.Dilations[a] + 1 }
	tiles := ((c.Out[0] + t.TR - 1) / t.TR) * ((c.Out[1] + t.TW - 1) / t.TW)
	return 2 * float64(tiles*reads(0, t.TR)*reads(1, t.TW))
}

// groupOr is the number of output blocks that share their inputs.
func (c *tiledConv) groupOr(n int) int {
	if c.groupWidth == 0 {
		return n
	}
	return c.groupWidth
}

func (t *convTile) emit(l *lowerer) {
	k := l.kernelFor(t.g.root)
	t.k = k
	t.yb = k.param(t.y.buf, true)
	t.xb = k.param(t.x.buf, false)
	weights := 0
	if !t.depthwise && !t.planar && t.kind == loop.TileF32 {
		weights = 4 * t.w.Len()
	}
	t.prefetch = l.prefetch(t.site, weights, t.shape.points() == 1)
	ob := t.shape.OB
	width := t.groupOr(1)              // output blocks of a group
	perGroup := (width + ob - 1) / ob  // tiles of output blocks in a group
	groups := t.ocb / width * perGroup // in all
	t.wb = k.param(t.packed(l), false)
	if t.p.bias != nil {
		t.bb = k.param(l.biasBuf(t.wName, t.p.bias, t.oc, t.ocb), false)
	}
	if t.beginsWhole() {
		t.bb = k.param(t.begins(l, t.begin), false)
	}
	if t.center != 0 {
		t.sums = k.param(t.sumsBuf, false)
	}
	direct := t.p.last == t.g.root && l.tileStores(t.y.layout) && t.center == 0
	if !direct {
		t.scratch = k.local("s", t.sumType, ob*max(t.shape.points(), t.strip())*t.lanes)
	}
	n := t.y.layout.Shape[0]
	v, image, group, row := t.order(n, groups)
	inGroup := loop.Mod(group, perGroup)
	block := loop.Add(loop.Mul(loop.Div(group, perGroup), width), loop.Mul(inGroup, ob)) // first output block
	var body []loop.Stmt
	body = append(body, choice(inGroup, width/ob, perGroup,
		func() []loop.Stmt { return t.rowsOf(ob, image, block, row) },
		func() []loop.Stmt { return t.rowsOf(width%ob, image, block, row) })...)
	work := 2 * int64(n) * int64(t.oc) * int64(t.Out[0]*t.Out[1]) * int64(t.Kernel[0]*t.Kernel[1])
	if !t.depthwise {
		work *= int64(t.ic / t.Groups)
	}
	family := "conv"
	if t.depthwise {
		family = "depthwise"
	}
	l.close(t.site, work)
	k.finish(family, []loop.Stmt{&loop.For{Var: v, Par: work >= 8*parallelWork && v.N > 1, Body: body}}, work)
}

// rowsOf is the work of one group of output blocks on one block of rows.
func (t *convTile) rowsOf(ob int, image, block, row *loop.Expr) []loop.Stmt {
	var body []loop.Stmt
	if zero := t.zeroHalos(ob, image, block); zero != nil {
		body = append(body, choice(row, 1, t.strips(), func() []loop.Stmt { return zero }, func() []loop.Stmt { return nil })...)
	}
	return append(body, t.rowsByTaps(ob, image, block, row)...)
}

func (t *convTile) zeroHalos(ob int, image, block *loop.Expr) []loop.Stmt {
	if t.y.layout.Lo == [2]int{} && t.y.layout.Hi == [2]int{} {
		return nil
	}
	o := t.k.fresh("z", ob)
	plane := loop.Add(loop.Add(loop.Mul(image, t.y.layout.blocks()), block), loop.V(o))
	return loop.Nest([]*loop.Var{o}, []loop.LoopKind{loop.Serial}, t.y.layout.zeroHalo(t.yb, plane, t.k.fresh)...)
}

// at is the offset of a row and column of a plane in a layout, as tiled.
func (t *convTile) at(lay Layout, plane, row, col *loop.Expr) *loop.Expr {
	if t.flat {
		return loop.Add(loop.Mul(plane, lay.plane()), loop.Mul(col, lay.L))
	}
	e := loop.Add(loop.Mul(plane, lay.rows()), loop.Add(row, loop.Int(lay.Lo[0])))
	return loop.Mul(loop.Add(loop.Mul(e, lay.cols()), loop.Add(col, loop.Int(lay.Lo[1]))), lay.L)
}

// points gives, for each point of a tile, its offset in a layout when rows and
// columns move by the given steps.
func (t *convTile) points(lay Layout, tr, tw, rs, cs int) []int {
	var out []int
	for r := range tr {
		for c := range tw {
			if t.flat {
				out = append(out, c*cs*lay.L)
			} else {
				out = append(out, (r*rs*lay.cols()+c*cs)*lay.L)
			}
		}
	}
	return out
}

func (t *convTile) tileAt(ob, tr, tw int, image, block, oh, ow *loop.Expr) []loop.Stmt {
	if t.groups != nil {
		return t.groupTile(ob, tr, tw, image, block, oh, ow)
	}
	xl, yl, lanes := t.x.layout, t.y.layout, t.lanes
	vec := ob * lanes
	kh, kw := t.Kernel[0], t.Kernel[1]
	grp := t.kind.Group()
	tile := &loop.Tile{Kind: t.kind, OB: ob, P: tr * tw, L: lanes, X: t.xb, W: t.wb, B: t.bb, WO: lanes * grp, Lanes: t.depthwise,
		Act: t.p.act, Lo: t.p.lo, Hi: t.p.hi, Prefetch: t.prefetch,
		XP: t.points(xl, tr, tw, t.Strides[0], t.Strides[1])}
	ih := loop.Add(loop.Mul(oh, t.Strides[0]), loop.Int(-t.Lo[0]))
	iw := loop.Add(loop.Mul(ow, t.Strides[1]), loop.Int(-t.Lo[1]))
	rows := loop.Red{N: t.edge[0].to - t.edge[0].from, XStep: t.Dilations[0] * xl.cols() * xl.L}
	cols := loop.Red{N: t.edge[1].to - t.edge[1].from, XStep: t.Dilations[1] * xl.L}
	var plane *loop.Expr
	first := 0          // element of the plane
	perBlock := kh * kw // weight vectors per output block
	switch {
	case t.acrossPixels():
		plane = loop.Add(loop.Mul(image, xl.blocks()), block)
		cols = loop.Red{N: t.pixelGroups(), XStep: grp * xl.L, WStep: lanes * grp}
		rows.WStep = cols.N * cols.WStep
		tile.Red, tile.Across = []loop.Red{rows, cols}, true
		perBlock = kh * cols.N * grp
	case t.depthwise:
		plane = loop.Add(loop.Mul(image, xl.blocks()), block)
		cols.WStep, rows.WStep = lanes, kw*lanes
		tile.Red = []loop.Red{rows, cols}
	case t.planar:
		plane = loop.Mul(image, t.ic)
		cols.WStep, rows.WStep = vec, kw*vec
		tile.Red = []loop.Red{{N: t.ic, XStep: xl.plane(), WStep: kh * kw * vec}, rows, cols}
		perBlock *= t.ic
	case t.slots != nil:
		plane = loop.Mul(image, xl.blocks())
		first, tile.Red, tile.More = t.pickedChannels(xl.plane(), vec)
		perBlock *= t.ic
	default:
		plane = loop.Add(loop.Mul(image, xl.blocks()), loop.Mul(loop.Div(block, t.groupWidth), t.icb))
		cols.WStep, rows.WStep = t.icl*vec, kw*t.icl*vec
		tile.Red, tile.More = t.channels(xl.plane(), vec, []loop.Red{rows, cols})
		perBlock *= t.icb * t.icl
	}
	tile.XAt = loop.Add(t.at(xl, plane, ih, iw), loop.Int(first+t.edge[0].from*rows.XStep+t.edge[1].from*cols.XStep))
	tile.WAt = loop.Add(loop.Mul(block, perBlock*lanes), loop.Int(t.edge[0].from*rows.WStep+t.edge[1].from*cols.WStep))
	if t.bb != nil {
		tile.BAt = loop.Mul(block, lanes)
	}
	yplane := loop.Add(loop.Mul(image, yl.blocks()), block)
	if t.addPlace != nil {
		al := t.addPlace.layout
		tile.Add, tile.AO, tile.AP = t.k.param(t.addPlace.buf, false), al.plane(), t.points(al, tr, tw, 1, 1)
		tile.AddAt = t.at(al, loop.Add(loop.Mul(image, al.blocks()), block), oh, ow)
	}
	if t.scratch == nil {
		tile.S, tile.SAt, tile.SO, tile.SP = t.yb, t.at(yl, yplane, oh, ow), yl.plane(), t.points(yl, tr, tw, 1, 1)
		return []loop.Stmt{tile}
	}
	tile.S, tile.SAt, tile.SO = t.scratch, loop.Int(0), tr*tw*lanes
	for p := range tr * tw {
		tile.SP = append(tile.SP, p*lanes)
	}
	return []loop.Stmt{tile, t.epilogue(ob, tr, tw, image, block, oh, ow)}
}

// epilogue computes what a tile does not do itself, from scratch to output.
// Where the points of a tile lie side by side and nothing depends on the
// channel, they and the lanes are one long vector loop.
func (t *convTile) epilogue(ob, tr, tw int, image, block, oh, ow *loop.Expr) loop.Stmt {
	o, r := t.k.fresh("o", ob), t.k.fresh("r", tr)
	v := t.k.fresh("v", tw*t.lanes)
	s := t.element(o, r, tr, tw, loop.Div(loop.V(v), t.lanes), loop.Mod(loop.V(v), t.lanes), image, block, oh, ow)
	if !loop.Divides(s.Val) && !loop.Divides(s.Index) {
		return loop.Nest([]*loop.Var{o, r, v}, []loop.LoopKind{loop.Serial, loop.Serial, loop.Vector}, s)[0]
	}
	c, l := t.k.fresh("c", tw), t.k.fresh("l", t.lanes)
	s = t.element(o, r, tr, tw, loop.V(c), loop.V(l), image, block, oh, ow)
	return loop.Nest([]*loop.Var{o, r, c, l}, []loop.LoopKind{loop.Serial, loop.Serial, loop.Serial, loop.Vector}, s)[0]
}

// element stores one lane of one point.
func (t *convTile) element(o, r *loop.Var, tr, tw int, col, lane, image, block, oh, ow *loop.Expr) *loop.Store {
	ch := loop.Add(loop.Mul(loop.Add(block, loop.V(o)), t.lanes), lane)
	idx := []*loop.Expr{image, ch, loop.Add(oh, loop.V(r)), loop.Add(ow, col)}
	if t.flat {
		idx[2], idx[3] = loop.Div(idx[3], t.Out[1]), loop.Mod(idx[3], t.Out[1])
	}
	point := loop.Add(loop.Add(loop.Mul(loop.V(o), tr*tw), loop.Mul(loop.V(r), tw)), col)
	at := loop.Add(loop.Mul(point, t.lanes), lane)
	held := loop.At(t.scratch, at)
	if len(t.unit.groups) > 1 {
		held = t.ownGroup(at, lane, tr*tw)
	}
	return t.finished(t.p.last, t.withCenter(held, idx), idx)
}

// withCenter adds what the center of the weights leaves out of a sum.
func (t *convTile) withCenter(held *loop.Expr, idx []*loop.Expr) *loop.Expr {
	if t.sums == nil {
		return held
	}
	return t.centered(held, loop.At(t.sums, loop.Add(loop.Mul(idx[0], t.Out[0]*t.Out[1]), loop.Add(loop.Mul(idx[2], t.Out[1]), idx[3]))))
}

// beginsWhole reports that sums of bytes begin with numbers other than zero.
func (t *convTile) beginsWhole() bool {
	return t.shift != 0 || slices.ContainsFunc(t.begin, func(b int64) bool { return b != 0 })
}

// finished stores an element through the epilogue that begins with value v,
// which is held.
func (t *convTile) finished(v *ir.Value, held *loop.Expr, idx []*loop.Expr) *loop.Store {
	k, ch := t.k, idx[1]
	k.memo = map[string]*loop.Expr{}
	k.over[v] = func([]*loop.Expr) *loop.Expr { return held }
	val := k.access(t.g.root, idx)
	delete(k.over, v)
	val = t.y.layout.stored(val)
	val = loop.If(loop.Less(ch, loop.Int(t.oc)), val, loop.Number(val.Type, 0, 0))
	return &loop.Store{Buf: t.yb, Index: t.y.layout.offset(idx), Val: val}
}
