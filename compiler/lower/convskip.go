package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/loop"
)

// Taps that read nothing but padding are no work: where maps are small beside
// the kernel and its dilation, tiles near an edge have fewer of them.

// taps is the range of a kernel's taps along an axis.
type taps struct{ from, to int }

// tapRun is neighbouring tiles along an axis whose taps are the same.
type tapRun struct {
	n int
	taps
}

// reached are the taps along an axis that some of n points read inside the map
// with; one at least.
func (t *convTile) reached(axis, from, n int) taps {
	s, lo, d, size := t.Strides[axis], t.Lo[axis], t.Dilations[axis], t.x.layout.Shape[2+axis]
	r := taps{0, t.Kernel[axis]}
	for r.from < r.to-1 && (from+n-1)*s-lo+r.from*d < 0 {
		r.from++
	}
	for r.to > r.from+1 && from*s-lo+(r.to-1)*d >= size {
		r.to--
	}
	return r
}

// tapRuns cuts count tiles of step points into runs.
func (t *convTile) tapRuns(axis, count, step int) []tapRun {
	var out []tapRun
	for i := range count {
		r := t.reached(axis, i*step, step)
		if n := len(out); n > 0 && (!t.skips || out[n-1].taps == r) {
			out[n-1].n++
			continue
		}
		if !t.skips {
			r = taps{0, t.Kernel[axis]}
		}
		out = append(out, tapRun{1, r})
	}
	return out
}

// share is how much of the work a tile does if it leaves taps out.
func (t *convTile) share(s tileShape) float64 {
	if t.flat || t.depthwise || t.kind == loop.TileU8S8 || t.groups != nil {
		return 1
	}
	share := 1.0
	for a, step := range []int{s.TR, s.TW} {
		points, total := t.Out[a], 0
		for p := 0; p < points; p += step {
			n := min(step, points-p)
			r := t.reached(a, p, n)
			total += n * (r.to - r.from)
		}
		share *= float64(total) / float64(points*t.Kernel[a])
	}
	return share
}

// saved is the share of the work that speaks for a tile because it leaves taps
// out: little is lost again, and all on small maps, where flat tiles read weights
// more often.
func (t *convTile) saved(s tileShape) float64 {
	const small = 256 // points
	if t.Out[0]*t.Out[1] < small {
		return 0
	}
	if share := t.share(s); share < 0.8 {
		return 1 - share
	}
	return 0
}

// decideSkips leaves taps out if that is a twentieth of the work.
func (t *convTile) decideSkips() {
	t.allTaps()
	t.skips = t.share(t.shape) < 0.95
}

// allTaps leaves none out.
func (t *convTile) allTaps() { t.edge = [2]taps{{0, t.Kernel[0]}, {0, t.Kernel[1]}} }

// rowsByTaps is the work of one group of output blocks on one block of rows, by
// the taps that the rows have.
func (t *convTile) rowsByTaps(ob int, image, block, row *loop.Expr) []loop.Stmt {
	tr, full := t.shape.TR, t.rows/t.shape.TR
	total := (t.rows + tr - 1) / tr
	oh := loop.Mul(row, tr)
	runs := t.tapRuns(0, full, tr)
	var of func(i, first int) []loop.Stmt
	of = func(i, first int) []loop.Stmt {
		if i == len(runs) {
			t.edge[0] = taps{0, t.Kernel[0]}
			if t.skips {
				t.edge[0] = t.reached(0, full*tr, t.rows%tr)
			}
			return t.colsOf(ob, t.rows%tr, image, block, oh)
		}
		end := first + runs[i].n
		return choice(row, end, total, func() []loop.Stmt {
			t.edge[0] = runs[i].taps
			return t.colsOf(ob, tr, image, block, oh)
		}, func() []loop.Stmt { return of(i+1, end) })
	}
	return of(0, 0)
}

// channels are the loops over input channels, in blocks that are plane apart,
// with those of the kernel inside. The last block may be part full, and then has
// loops of its own.
func (t *convTile) channels(plane, vec int, kernel []loop.Red) ([]loop.Red, []loop.Part) {
	grp, n := t.kind.Group(), t.ic/t.Groups
	of := func(blocks, n int) []loop.Red {
		per := loop.Red{N: blocks, XStep: plane, WStep: t.Kernel[0] * t.Kernel[1] * t.icl * vec}
		return slices.Concat([]loop.Red{per}, kernel, []loop.Red{{N: (n + grp - 1) / grp, XStep: grp, WStep: vec * grp}})
	}
	rest := n % t.icl
	switch {
	case rest == 0 || (rest+grp-1)/grp*grp == t.icl:
		return of(t.icb, t.icl), nil
	case t.icb == 1:
		return of(1, rest), nil
	}
	red := of(t.icb-1, t.icl)
	return red, []loop.Part{{X: red[0].N * red[0].XStep, W: red[0].N * red[0].WStep, Red: of(1, rest)}}
}
