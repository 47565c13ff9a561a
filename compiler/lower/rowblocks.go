package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Rows of what lies in channel blocks: the elements of one row are a block
// apart and those of neighbouring channels together, so that the channels of a
// block are the lanes.

// blocked finds the axis of the rows along which what is reduced lies in
// blocks; -1: none, or its blocks are not whole, or they lie one behind the
// other, so that more rows than those of a block can be done side by side.
func (l *lowerer) blocked(r *rowPass, dst *place, outerShape []int, places func([]*loop.Expr) func([]*loop.Expr) []*loop.Expr) int {
	x := r.g.rows[0].Inputs[0]
	for a, n := range outerShape {
		if l.o.Lanes < 2 || n%l.o.Lanes != 0 {
			continue
		}
		k := l.kernelFor(r.g.root)
		lane, row := k.fresh("l", l.o.Lanes), k.fresh("j", r.rowLen)
		oidx := make([]*loop.Expr, len(outerShape))
		for i, d := range outerShape {
			oidx[i] = loop.V(k.fresh("o", d))
		}
		block := k.fresh("b", n/l.o.Lanes)
		oidx[a] = loop.Add(loop.Mul(loop.V(block), l.o.Lanes), loop.V(lane))
		loads, together, behind := 0, 0, 0
		k.access(x, places(oidx)(loop.Unflatten(loop.V(row), r.innerShape))).Walk(func(e *loop.Expr) {
			if e.Kind != loop.Load || e.Buf.Len < tensor.Numel(r.full) {
				return
			}
			loads++
			along, ok := loop.Coef(e.Args[0], lane)
			apart, affine := loop.Coef(e.Args[0], row)
			if ok && along == 1 && !(affine && apart == 1) {
				together++
			}
			if next, ok := loop.Coef(e.Args[0], block); ok && next == int64(l.o.Lanes) {
				behind++
			}
		})
		switch {
		case loads == 0 || together < loads:
		case behind < loads || l.across(r.g, dst, r.full, r.axes) == 0:
			return a
		}
	}
	return -1
}

// inBlocks goes through the rows of one block of axis a at a time.
func (l *lowerer) inBlocks(r *rowPass, outerShape []int, a int, places func([]*loop.Expr) func([]*loop.Expr) []*loop.Expr) {
	const scratch = 65536
	if r.rowLen*l.o.Lanes > scratch {
		r.temps = nil
	}
	blocks := slices.Clone(outerShape)
	blocks[a] /= l.o.Lanes
	r.lane = r.fresh("l", l.o.Lanes)
	r.outer = r.fresh("r", tensor.Numel(blocks))
	idx := loop.Unflatten(loop.V(r.outer), blocks)
	idx[a] = loop.Add(loop.Mul(idx[a], l.o.Lanes), loop.V(r.lane))
	r.rows = []*rowState{r.state(places(idx))}
}

// rowsInBlocks reports whether the result of reductions over planes or channels
// lies in channel blocks: what they read does, and the blocks are whole.
func (l *lowerer) rowsInBlocks(g *group, v *ir.Value) bool {
	full := g.rows[0].Inputs[0].Static()
	if slices.Equal(g.rows[0].Ints("axes"), []int{1}) {
		return l.tiledRows(g) == l.o.Lanes
	}
	return v.Rank() == 4 && v.DType() == tensor.F32 && full[1]%l.o.Lanes == 0 && slices.Equal(full, v.Static()) && slices.Equal(g.rows[0].Ints("axes"), []int{2, 3}) && l.readsBlocks(v)
}

// laneWalk is a reduction of channels and pixels together that goes through
// channel blocks as they lie: the pixels of the last axis with their lanes are
// one loop. No lanes: there is none.
type laneWalk struct{ channel, pixel, lanes int } // positions among the axes

func walkLanes(axes, full []int, channel, lanes int) laneWalk {
	c := slices.Index(axes, channel)
	last := len(axes) - 1
	if c < 0 || c >= last || full[channel]%lanes != 0 || axes[last] != len(full)-1 || full[axes[last]] == 1 {
		return laneWalk{}
	}
	return laneWalk{c, last, lanes}
}

// size is how long the loop over axis i is, which has n elements.
func (w laneWalk) size(i, n int) int {
	switch {
	case w.lanes > 0 && i == w.channel:
		return n / w.lanes
	case w.lanes > 0 && i == w.pixel:
		return n * w.lanes
	}
	return n
}

// places turns positions in those loops into an index.
func (w laneWalk) places(axes []int, idx []*loop.Expr) {
	if w.lanes > 0 {
		c, p := axes[w.channel], axes[w.pixel]
		idx[c] = loop.Add(loop.Mul(idx[c], w.lanes), loop.Mod(idx[p], w.lanes))
		idx[p] = loop.Div(idx[p], w.lanes)
	}
}
