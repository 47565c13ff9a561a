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
		if _, ok := d.onBytes(l); !ok {
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

// bytesPay is from how many rows on a computed right operand is laid out as bytes.
const bytesPay = 8

// onBytes gives the form on bytes.
func (d *tiledDot) onBytes(l *lowerer) (operands, bool) {
	bytes, ok := l.bytes(d.x, d.y, d.k)
	return bytes, ok && d.k%loop.TileU8S8.Group() == 0 && (d.w != nil || d.m >= bytesPay)
}

// decide picks the form.
func (d *tiledDot) decide(l *lowerer, n *ir.Node) {
	heuristic, possible := formDirect, []string{formDirect}
	bytes, ok := d.onBytes(l)
	if ok {
		heuristic, possible = formInt8, append(possible, formInt8)
		if l.bytesOnUnit() && d.k%unitBytes == 0 && d.w != nil {
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
		p, err := l.inLayout(v, form.in(plain(v.Static())))
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
	c := l.newPlace(v.Name+"·rows", v.DType(), form.in(plain(shape)))
	err := l.pointwiseTo(v, c, "pack", func(k *kb, idx []*loop.Expr) *loop.Expr {
		src := make([]*loop.Expr, len(idx))
		for i, a := range order {
			src[a] = idx[i]
		}
		return k.access(v, src)
	})
	return c.buf, err
}
