package lower

import (
	"math"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// An infinity or a NaN in a tile, or a number near the largest, spoils all
// outputs of Winograd's form: infinities cancel to NaN in sums that the direct
// form does not have. But it spoils them visibly. Every output that depends on
// such an element has a path to it with coefficients that are not zero, on
// which it stays infinite or NaN. So a tile whose outputs are all finite is
// right, and any other is computed once more in the direct form. Of products of
// parts that goes for outputs too that are less than is trusted, see parts.go.

// guarded is the transform of one tile and one block of outputs into yb, and
// the direct form where the outputs o are not all finite. row, col and block
// say which tile and block it is, ci is the lane of the transform.
func (t *convTile) guarded(o [][]*loop.Reg, transform []loop.Stmt, yb *loop.Buffer, at *stagedAt, row, col, block *loop.Expr, ci *loop.Var) []loop.Stmt {
	k := t.k
	bad := k.local("bad", tensor.F32, t.lanes)
	zero := loop.Number(tensor.F32, 0, 0)
	var sum *loop.Expr // 0 if all are finite, else NaN
	for _, line := range o {
		for _, r := range line {
			term := loop.Fn("mul", loop.R(r), zero)
			if at.least != nil {
				small := loop.Fn("lt", loop.Fn("abs", loop.R(r)), loop.R(at.least))
				term = loop.If(small, loop.Number(tensor.F32, math.NaN(), 0), term)
			}
			if sum == nil {
				sum = term
			} else {
				sum = loop.Fn("add", sum, term)
			}
		}
	}
	transform = append(transform, &loop.Store{Buf: bad, Index: loop.V(ci), Val: sum})
	body := loop.Nest([]*loop.Var{ci}, []loop.LoopKind{loop.Vector}, transform...)
	l, all := k.fresh("l", t.lanes), k.reg("bad", tensor.F32)
	body = append(body, &loop.Set{Reg: all, Val: zero, Decl: true})
	body = append(body, loop.Nest([]*loop.Var{l}, []loop.LoopKind{loop.Vector}, &loop.Accum{Reg: all, Fn: "add", Val: loop.At(bad, loop.V(l))})...)
	return append(body, &loop.Cond{If: loop.Fn("isnan", loop.R(all)), Then: t.directTile(yb, at.image, row, col, block)})
}

// directTile computes a tile of a block of outputs in the direct form, row by
// row.
func (t *convTile) directTile(yb *loop.Buffer, image, row, col, block *loop.Expr) []loop.Stmt {
	w := t.wg
	i := t.k.fresh("d", w.h.m)
	ih := loop.Add(loop.Mul(loop.Add(loop.Mul(row, w.h.m), loop.V(i)), t.Strides[0]), loop.Int(-t.Lo[0]))
	iw := loop.Add(loop.Mul(col, t.step[1]), loop.Int(-t.Lo[1]))
	return loop.Nest([]*loop.Var{i}, []loop.LoopKind{loop.Serial}, t.plainTile(yb, loop.Mul(loop.V(i), w.w.m*t.lanes), w.w.m, image, ih, iw, block))
}

// plainTile computes neighbouring points of a block of outputs in the direct
// form, the first from the given row and column of the input on.
func (t *convTile) plainTile(s *loop.Buffer, at *loop.Expr, points int, image, row, col, block *loop.Expr) loop.Stmt {
	lanes, xl := t.lanes, t.x.layout
	kh, kw := t.Kernel[0], t.Kernel[1]
	plane := loop.Add(loop.Mul(image, xl.blocks()), loop.Mul(loop.Div(block, t.groupWidth), t.icb))
	tile := &loop.Tile{OB: 1, P: points, L: lanes, X: t.xb, W: t.plain, S: s, WO: lanes, SO: points * lanes,
		XAt: t.at(xl, plane, row, col), WAt: loop.Mul(block, t.icb*lanes*kh*kw*lanes), SAt: at,
		Red: []loop.Red{
			{N: t.icb, XStep: xl.plane(), WStep: kh * kw * lanes * lanes},
			{N: kh, XStep: t.Dilations[0] * xl.cols() * xl.L, WStep: kw * lanes * lanes},
			{N: kw, XStep: t.Dilations[1] * xl.L, WStep: lanes * lanes},
			{N: min(lanes, t.ic/t.Groups), XStep: 1, WStep: lanes},
		}}
	if t.planar {
		tile.XAt, tile.WAt = t.at(xl, loop.Mul(image, t.ic), row, col), loop.Mul(block, t.ic*kh*kw*lanes)
		tile.Red = []loop.Red{
			{N: t.ic, XStep: xl.plane(), WStep: kh * kw * lanes},
			{N: kh, XStep: t.Dilations[0] * xl.cols(), WStep: kw * lanes},
			{N: kw, XStep: t.Dilations[1], WStep: lanes},
		}
	}
	for p := range points {
		tile.XP, tile.SP = append(tile.XP, p*t.Strides[1]*xl.L), append(tile.SP, p*lanes)
	}
	return tile
}

// plainWeights are those of the direct form, one block of outputs at a time.
func (t *convTile) plainWeights(l *lowerer) *buf {
	ics := t.icb * t.lanes
	if t.planar {
		ics = t.ic
	}
	return l.weightBuf(t.wName, t.ocb*ics*t.Kernel[0]*t.Kernel[1]*t.lanes, func() []float32 {
		return packConv(t, ics, 1, func(f float32) float32 { return f })
	})
}
