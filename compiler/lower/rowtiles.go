package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Rows of channels that lie in blocks, as layer normalization of an image has
// them: some neighbouring pixels of one block are one run of memory, a tile. A
// pass goes from block to block of a few pixels and folds each pixel in as many
// parts as a block has channels.
type rowTiles struct {
	pixel, channel *loop.Var // within a tile
	parts          *loop.Buffer
}

// tilePixels bounds the pixels of a tile: enough of them that one's sum is done
// before its turn comes again.
const tilePixels = 8

// tiledRows reports the lanes of the blocks that the rows of a group are folded
// along; 0: they lie otherwise, or their blocks are not whole.
func (l *lowerer) tiledRows(g *group) int {
	x, axes := g.rows[0].Inputs[0], g.rows[0].Ints("axes")
	if axis, lanes := l.blockAxis(x, map[*ir.Value]bool{}); lanes > 0 && x.DType() == tensor.F32 && slices.Equal(axes, []int{axis}) && x.Static()[axis]%lanes == 0 {
		return lanes
	}
	return 0
}

// inTiles goes through rows by tiles along the last of the axes that are not
// reduced.
func (l *lowerer) inTiles(r *rowPass, outerShape []int, lanes int, places func([]*loop.Expr) func([]*loop.Expr) []*loop.Expr) {
	tiles := slices.Clone(outerShape)
	last := len(tiles) - 1
	n := min(tiles[last], tilePixels)
	for tiles[last]%n != 0 {
		n--
	}
	tiles[last] /= n
	t := &rowTiles{pixel: r.fresh("p", n), channel: r.fresh("c", lanes)}
	t.parts = r.local("part", tensor.F32, n*lanes)
	r.tiles, r.lane = t, t.pixel
	r.outer = r.fresh("r", tensor.Numel(tiles))
	idx := loop.Unflatten(loop.V(r.outer), tiles)
	idx[last] = loop.Add(loop.Mul(idx[last], n), loop.V(t.pixel))
	r.rows = []*rowState{r.state(places(idx))}
}

// at is an element of the tile of a block.
func (t *rowTiles) at(block *loop.Expr) *loop.Expr {
	in := loop.Add(loop.Mul(loop.V(t.pixel), t.channel.N), loop.V(t.channel))
	return loop.Add(loop.Mul(block, t.pixel.N*t.channel.N), in)
}

// each goes through the elements of a tile.
func (t *rowTiles) each(body ...loop.Stmt) []loop.Stmt {
	return loop.Nest([]*loop.Var{t.pixel, t.channel}, []loop.LoopKind{loop.Serial, loop.Vector}, body...)
}

// pass goes through the tiles of all blocks.
func (t *rowTiles) pass(r *rowPass, build func(idx []*loop.Expr, flat *loop.Expr) []loop.Stmt) []loop.Stmt {
	b := r.fresh("b", r.rowLen/t.channel.N)
	c := loop.Add(loop.Mul(loop.V(b), t.channel.N), loop.V(t.channel))
	body := t.each(build(r.at([]*loop.Expr{c}), t.at(loop.V(b)))...)
	return loop.Nest([]*loop.Var{b}, []loop.LoopKind{loop.Serial}, body...)
}

// fold reduces the rows into a result that holds the identity.
func (t *rowTiles) fold(r *rowPass, of *rowResult, fn string, start *loop.Expr, build func(idx []*loop.Expr, flat *loop.Expr) (pre []loop.Stmt, val *loop.Expr)) []loop.Stmt {
	at := t.at(loop.Int(0))
	part := loop.At(t.parts, at)
	body := t.each(&loop.Store{Buf: t.parts, Index: at, Val: start})
	body = append(body, t.pass(r, func(idx []*loop.Expr, flat *loop.Expr) []loop.Stmt {
		pre, val := build(idx, flat)
		return append(pre, &loop.Store{Buf: t.parts, Index: at, Val: loop.Fn(fn, part, val)})
	})...)
	row := r.reg("row", of.kind)
	sum := []loop.Stmt{&loop.Set{Reg: row, Val: start, Decl: true}}
	sum = append(sum, loop.Nest([]*loop.Var{t.channel}, []loop.LoopKind{loop.Vector}, &loop.Accum{Reg: row, Fn: fn, Val: part})...)
	sum = append(sum, of.set(loop.R(row)))
	return append(body, loop.Nest([]*loop.Var{t.pixel}, []loop.LoopKind{loop.Serial}, sum...)...)
}

// clearHalo zeroes what lies around the planes of whole channel blocks, for a
// kernel that stores elements alone.
func (l *lowerer) clearHalo(v *ir.Value, dst *place) {
	if dst.layout.isBare() {
		return
	}
	k := l.kernelFor(v)
	out := k.param(dst.buf, true)
	p := k.fresh("q", dst.layout.Shape[0]*dst.layout.blocks())
	k.finish("zero", []loop.Stmt{&loop.For{Var: p, Body: dst.layout.zeroHalo(out, loop.V(p), k.fresh)}}, 0)
}
