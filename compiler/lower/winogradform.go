package lower

import (
	"math"

	"github.com/lathe-ml/lathe/compiler/schedule"
)

// winograds lists the sizes of tiles that the form and the precision allow.
func (c *tiledConv) winograds(l *lowerer) []int {
	icg, ocg := c.ic/c.Groups, c.oc/c.Groups
	whole := c.Groups == 1 || icg%l.o.Lanes == 0 && ocg%l.o.Lanes == 0
	if c.exact || !whole || icg*4 < l.o.Lanes*3 || ocg < l.o.Lanes || c.Dilations[0]*c.Dilations[1] != 1 {
		return nil
	}
	long := 0 // the axis with more taps
	if c.Kernel[1] > c.Kernel[0] {
		long = 1
	}
	line := c.Kernel[1-long] == 1
	if !line && (c.Kernel[0] != c.Kernel[1] || c.Strides[0] != c.Strides[1]) {
		return nil
	}
	var out []int
	for _, t := range winogradTiles[[2]int{c.Kernel[long], c.Strides[long]}] {
		need := t.plane
		if line {
			need = t.line
		}
		if c.mode.Allows(need) {
			out = append(out, t.m)
		}
	}
	return out
}

// How many estimated vector operations there are in a cycle of a wide core: of the
// direct form, and of Winograd's.
const (
	vectorsPerCycle     = 1.65
	transformedPerCycle = 1.4
)

// chooseWinograd gives the tile size that costs least, 0 for the direct form,
// and its cost in estimated vector operations. relative is the cost of a direct product in
// its best form, compared with F32.
func (c *tiledConv) chooseWinograd(l *lowerer, relative float64) (best int, cost float64) {
	channels := float64(c.ic / c.Groups)
	icb := float64(blocksOf(c.ic/c.Groups, l.o.Lanes) * c.Groups)
	ocb := float64(c.ocb)
	kh, kw := c.Kernel[0], c.Kernel[1]
	const prefer = 0.85 // what a transform must save
	cost = prefer * relative * ocb * float64(c.Out[0]*c.Out[1]) * channels * float64(kh*kw)
	for _, m := range c.winograds(l) {
		w := c.winograd(m)
		mh, mw, n := w.h.m, w.w.m, float64(w.freqs())
		tiles := float64(((c.Out[0] + mh - 1) / mh) * ((c.Out[1] + mw - 1) / mw))
		gemm := n * max(tiles, 4) * channels * ocb
		adds := 7.0
		switch {
		case kh != kw:
			adds = 4
		case c.Strides[0] > 1: // half of an axis' inputs are only moved
			adds = 5
		}
		transforms := tiles * adds * n * (icb + ocb)
		vectors := n * channels * ocb // of the transformed weights, read once per chunk
		far := max(0, vectors-farWeights/float64(4*l.o.Lanes))
		stream := 0.75*vectors + 6*far
		if t := gemm + transforms + stream; t < cost {
			best, cost = m, t
		}
	}
	if best == 0 {
		cost /= prefer
	}
	return best, cost
}

// farWeights is how many bytes of a layer's weights the caches may keep from one
// run to the next; the others come from memory, each vector at the price of about
// seven multiply-adds.
const farWeights = 2 << 20

// chunkTiles is how many tiles are transformed at once at most: few enough for
// the second cache.
const chunkTiles = 28

// chunk is a part of the tiles of a map: rows and columns of tiles, and how
// many there are each way. Where it does not divide the map the last chunk ends
// with it, and repeats some tiles.
type chunk struct{ rows, cols, down, across int }

// chunked cuts a map of th×tw tiles. rows 0 asks for about as many tiles as
// chunkOf has, and such that the last chunk repeats as little as can be. A map
// of one row is cut along it.
func (t *convTile) chunked(freqs, th, tw, rows int) chunk {
	target := t.chunkOf(freqs, th)
	best := func(n, unit int) int {
		size, cost := 1, n*(unit+4)
		for r := 1; r <= n && r*unit <= max(unit, target*3/2); r++ {
			chunks := (n + r - 1) / r
			if c := chunks * (r*unit + 4); c < cost || c == cost && r*unit <= target {
				size, cost = r, c
			}
		}
		return size
	}
	c := chunk{rows, tw, 1, 1}
	switch {
	case th == 1 && rows == 0:
		c.rows, c.cols = 1, best(tw, 1)
	case th == 1:
		c.rows, c.cols = 1, min(rows, tw)
	case rows == 0:
		c.rows = best(th, tw)
	}
	c.down, c.across = (th+c.rows-1)/c.rows, (tw+c.cols-1)/c.cols
	return c
}

// chunkOf is about how many tiles a chunk has: 8, or fewer such that their
// transforms stay in the first cache, as long as each weight is used several
// times: 4 times while the weights are in the second cache. Chunks of a single
// row have few frequencies and are long.
func (t *convTile) chunkOf(freqs, th int) int {
	const first, second = 48 << 10, 3 << 19
	width := t.ocb / t.Groups
	perTile := freqs * (t.icb + width) * t.lanes * 4
	switch {
	case 8*perTile <= first:
		return 8
	case th == 1:
		return chunkTiles
	case freqs*t.icb*width*t.lanes*t.lanes*4 > second:
		return 8
	}
	return max(first/perTile, 4)
}

// size is what a schedule names: rows, or columns where there is one row.
func (c chunk) size(th int) int {
	if th == 1 {
		return c.cols
	}
	return c.rows
}

// divideTiles picks the size of the chunks and into how many parts the output
// channels are cut, such that threads have equal work: with parts the input is
// transformed by each, which costs little where a map is small.
func (t *convTile) divideTiles(l *lowerer) (size, split int) {
	unit, most := t.tw, t.th
	if t.th == 1 {
		unit, most = 1, t.tw
	}
	var sizes []int
	for r := 1; r <= most && r*unit <= max(unit, 4*chunkTiles); r++ {
		sizes = append(sizes, r)
	}
	size, split = t.balanced(sizes, l.o.Threads)
	size = l.number(t.site, func(c *schedule.Choice) *int { return &c.Rows }, size, sizes...)
	t.site.fit = func(c *schedule.Choice) {
		if c.TW > c.Rows*unit { // a register tile is within a chunk
			c.OB, c.TR, c.TW = 0, 0, 0
		}
	}
	return size, split
}

func (t *convTile) balanced(sizes []int, threads int) (size, split int) {
	w, th, tw := t.wg, t.th, t.tw
	size, split = t.chunked(w.freqs(), th, tw, 0).size(th), 1
	if threads < 2 {
		return size, split
	}
	best := math.Inf(1)
	width := t.ocb / t.Groups
	n, icb := float64(w.freqs()), float64(t.icb)
	for _, s := range append([]int{size}, sizes...) {
		c := t.chunked(w.freqs(), th, tw, s)
		if s > size { // more than fits the caches
			continue
		}
		for _, p := range []int{1, 2, threads, 2 * threads} {
			if width%p != 0 {
				continue
			}
			tiles := float64(c.rows * c.cols)
			outs := float64(width / p)
			cost := n * (5*tiles*(icb+outs) + (tiles+0.75)*icb*outs*float64(t.lanes))
			units := t.y.layout.Shape[0] * c.down * c.across * p * t.Groups
			if cost *= float64((units + threads - 1) / threads); cost < best {
				best, size, split = cost, s, p
			}
		}
	}
	return size, split
}
