package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/loop"
)

// Taps that read nothing but padding are no work: where maps are small beside
// the kernel and its dilation, tiles near an edge have fewer of them.

// taps is the range of a kernel's taps along an axis.
type taps struct{ from, to int }

// tileRun is n neighbouring tiles along an axis, of size points each, whose taps are
// the same.
type tileRun struct {
	first, n, size int
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

// spans cuts an axis, as tiled, into tiles of step points.
func (t *convTile) spans(axis, step int) []tileRun {
	if t.open {
		return t.openSpans(axis, step)
	}
	points := []int{t.rows, t.cols}[axis]
	of := func(first, n int) taps {
		if t.skips {
			return t.reached(axis, first, n)
		}
		return taps{0, t.Kernel[axis]}
	}
	var out []tileRun
	for i := range points / step {
		r := of(i*step, step)
		if n := len(out); n > 0 && out[n-1].taps == r {
			out[n-1].n++
			continue
		}
		out = append(out, tileRun{i * step, 1, step, r})
	}
	if rest := points % step; rest > 0 {
		out = append(out, tileRun{points - rest, 1, rest, of(points-rest, rest)})
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

// strip is how many rows of points a unit of work has. Where there is no halo,
// points at its edges are tiles of their own, which have to be tall enough.
func (t *convTile) strip() int {
	tr := t.shape.TR
	if !t.open {
		return tr
	}
	return (max(8/t.shape.OB, 1) + tr - 1) / tr * tr
}

// strips is the number of such units.
func (t *convTile) strips() int {
	n := 0
	for _, s := range t.spans(0, t.strip()) {
		n += s.n
	}
	return n
}

// rowsByTaps is the work of one group of output blocks on one strip of rows, by
// the taps that the rows have.
func (t *convTile) rowsByTaps(ob int, image, block, strip *loop.Expr) []loop.Stmt {
	spans, total := t.spans(0, t.strip()), t.strips()
	var of func(i, first int) []loop.Stmt
	of = func(i, first int) []loop.Stmt {
		s := spans[i]
		return choice(strip, first+s.n, total, func() []loop.Stmt {
			t.edge[0] = s.taps
			row := loop.Add(loop.Mul(loop.Sub(strip, loop.Int(first)), s.size), loop.Int(s.first))
			return t.colsOf(ob, s.size, image, block, row)
		}, func() []loop.Stmt { return of(i+1, first+s.n) })
	}
	return of(0, 0)
}

// colsOf is the work on tr rows: those of one tile, or, where there is no halo,
// more. Then points at the edges are tall tiles, and the others are computed row
// by row.
func (t *convTile) colsOf(ob, tr int, image, block, oh *loop.Expr) []loop.Stmt {
	if t.flat {
		return t.bandOf(ob, image, block, oh)
	}
	spans, step := t.spans(1, t.shape.TW), t.shape.TR
	if tr <= step {
		return t.sideBySide(spans, ob, tr, image, block, oh)
	}
	atEdge := func(s tileRun) bool { return s.size == 1 }
	var edges []tileRun
	for _, s := range spans {
		if atEdge(s) {
			edges = append(edges, s)
		}
	}
	body := t.sideBySide(edges, ob, tr, image, block, oh)
	spans = slices.DeleteFunc(spans, atEdge)
	r := t.k.fresh("r", tr/step)
	row := loop.Add(oh, loop.Mul(loop.V(r), step))
	body = append(body, loop.Nest([]*loop.Var{r}, []loop.LoopKind{loop.Serial}, t.sideBySide(spans, ob, step, image, block, row)...)...)
	if rest := tr % step; rest > 0 {
		body = append(body, t.sideBySide(spans, ob, rest, image, block, loop.Add(oh, loop.Int(tr-rest)))...)
	}
	return body
}

// sideBySide is tiles of tr rows side by side.
func (t *convTile) sideBySide(spans []tileRun, ob, tr int, image, block, oh *loop.Expr) (body []loop.Stmt) {
	for _, s := range spans {
		t.edge[1] = s.taps
		c := t.k.fresh("x", s.n)
		at := loop.Add(loop.Mul(loop.V(c), s.size), loop.Int(s.first))
		body = append(body, loop.Nest([]*loop.Var{c}, []loop.LoopKind{loop.Serial}, t.tileAt(ob, tr, s.size, image, block, oh, at)...)...)
	}
	return body
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
