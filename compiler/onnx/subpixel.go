package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// arranged applies f, which only moves elements, to weights. Constants of any
// size are moved at once: the builder would leave large ones to run time.
func arranged(c *Ctx, w *ir.Value, f func(w *ir.Value) *ir.Value) *ir.Value {
	if w.Const == nil || c.Evaluating() {
		return f(w)
	}
	limit := c.B.FoldLimit
	c.B.FoldLimit = -1
	defer func() { c.B.FoldLimit = limit }()
	t := f(w).Const
	c.B.FoldLimit = limit
	return c.B.Const(t)
}

// subpixel is a transposed convolution with strides and without dilations as a
// plain one: of the outputs that a stride apart, each phase is a convolution
// with every stride-th weight. All phases are computed as output channels, then
// woven together, so that no product is with a gap.
func subpixel(c *Ctx, x, w *ir.Value, groups int, strides, lo, hi []int) *ir.Value {
	b := c.B
	s, ws := core.Shape(x), core.Shape(w)
	xs, k := s[2:], ws[2:]
	n := len(xs)
	ones := slices.Repeat([]int{1}, n)
	reach := make([]int, n) // weights per phase
	q := make([]int, n)     // outputs per phase
	phases, less := 1, make([]int, n)
	for i := range n {
		reach[i] = (k[i] + strides[i] - 1) / strides[i]
		q[i] = xs[i] + reach[i] - 1
		phases *= strides[i]
		less[i] = reach[i] - 1
	}
	perGroup := ws[1]
	// Long phases are neighbouring channels: the outputs of a row are such, then.
	long := strides[n-1] >= longPhases && (groups > 1 || tensor.Numel(reach)*phases == tensor.Numel(k))
	w = arranged(c, w, func(w *ir.Value) *ir.Value { return phaseWeights(c, w, groups, strides, reach, long) })
	spec := core.ConvSpec{Strides: ones, Dilations: ones, Lo: less, Hi: less, Groups: groups, Out: sumType(x)}
	var y *ir.Value
	switch whole := tensor.Numel(reach) * phases; {
	case groups == 1 && !long && cutShort(xs, k, strides, lo, hi, q):
		for i := range n {
			q[i] = ((xs[i]-1)*strides[i] + k[i] - lo[i] - hi[i]) / strides[i]
		}
		y = phaseByPhase(c, x, w, spec, k, strides, reach, lo, q)
		lo, hi = nil, nil
	case groups == 1 && whole > tensor.Numel(k):
		y = phaseByPhase(c, x, w, spec, k, strides, reach, make([]int, n), q)
	default:
		y = b.Conv(x, w, spec)
	}
	// [N, groups·phases·M/groups, q…] to [N, M, q1·stride1, …]
	split := slices.Concat([]int{s[0], groups}, strides, []int{perGroup}, q)
	perm, phaseAxis := []int{0, 1, 2 + n}, 2
	if long {
		split = slices.Concat([]int{s[0], groups, perGroup}, strides, q)
		perm[2], phaseAxis = 2, 3
	}
	shape := []int{s[0], groups * perGroup}
	for i := range n {
		perm = append(perm, 3+n+i, phaseAxis+i)
		shape = append(shape, q[i]*strides[i])
	}
	y = b.Reshape(b.Transpose(b.Reshape(y, split...), perm...), shape...)
	if lo == nil {
		return y
	}
	return cropped(c, y, xs, k, strides, lo, hi)
}

// stamped is a transposed convolution of images of one pixel: the kernel, as much
// of it as each channel says, which is a product of matrices.
func stamped(c *Ctx, x, w *ir.Value, strides, lo, hi []int) *ir.Value {
	b := c.B
	s, ws := core.Shape(x), core.Shape(w)
	w = arranged(c, w, func(w *ir.Value) *ir.Value { return b.Reshape(w, ws[0], tensor.Numel(ws[1:])) })
	y := b.MatMul(b.Reshape(x, s[0], s[1]), w, sumType(x))
	return cropped(c, b.Reshape(y, append([]int{s[0]}, ws[1:]...)...), s[2:], ws[2:], strides, lo, hi)
}

// cutShort reports whether the pads take so much off the q outputs of each phase
// that phases are better computed without what is taken off: where maps are
// small. All phases have then as many outputs.
func cutShort(xs, k, strides, lo, hi, q []int) bool {
	kept, all := 1, 1
	for a, s := range strides {
		size := (xs[a]-1)*s + k[a] - lo[a] - hi[a]
		// Neither a phase nor a map may end before the other.
		if size < s || size%s != 0 || lo[a] < 0 || hi[a] < 0 || k[a] < s || k[a]%s != 0 || lo[a] > k[a]-s || hi[a] > k[a]-s {
			return false
		}
		kept, all = kept*(size/s), all*q[a]
	}
	return 4*kept < 3*all
}

// phaseByPhase computes each phase with the taps that it has, where some have
// fewer than others, or where pads take much off: the first of q outputs is that
// at lo.
func phaseByPhase(c *Ctx, x, w *ir.Value, spec core.ConvSpec, k, strides, reach, lo, q []int) *ir.Value {
	b := c.B
	phases := tensor.Numel(strides)
	per := core.Shape(w)[0] / phases
	xs := core.Shape(x)[2:]
	var all []*ir.Value
	for i := range phases {
		taps, number := make([]int, len(k)), 0
		spec.Lo, spec.Hi = make([]int, len(k)), make([]int, len(k))
		for a, rest, unit := len(k)-1, i, 1; a >= 0; a, rest, unit = a-1, rest/strides[a], unit*strides[a] {
			at := rest%strides[a] + lo[a]
			phase := at % strides[a]
			number += phase * unit
			// A phase that no weight reaches keeps one, a zero that was added.
			taps[a] = max((k[a]-phase+strides[a]-1)/strides[a], 1)
			spec.Lo[a] = taps[a] - 1 - at/strides[a]
			spec.Hi[a] = q[a] - xs[a] - spec.Lo[a] + taps[a] - 1
		}
		of := arranged(c, w, func(w *ir.Value) *ir.Value {
			w = b.SliceAxis(w, 0, number*per, per)
			for a, n := range taps {
				w = b.SliceAxis(w, a+2, reach[a]-n, n)
			}
			return w
		})
		all = append(all, b.Conv(x, of, spec))
	}
	return b.Concat(1, all...)
}

// longPhases is the stride from which on phases are neighbouring channels: they
// fill vectors.
const longPhases = 8

// phaseWeights turns weights [C, M/groups, kernel…] into
// [groups·phases·M/groups, C/groups, reach…], flipped; long phases come behind
// the outputs.
func phaseWeights(c *Ctx, w *ir.Value, groups int, strides, reach []int, long bool) *ir.Value {
	b := c.B
	ws := core.Shape(w)
	n := len(strides)
	if groups < 1 || ws[0]%groups != 0 {
		c.Fail("%d input channels in %d groups", ws[0], groups)
	}
	more := make([]int, n+2)
	for i := range n {
		more[i+2] = reach[i]*strides[i] - ws[i+2]
	}
	w = b.Pad(w, make([]int, n+2), more, b.Like(w, 0))
	split := []int{groups, ws[0] / groups, ws[1]}
	var phaseAxes, tapAxes []int
	phases := 1
	for i := range n {
		tapAxes, phaseAxes = append(tapAxes, len(split)), append(phaseAxes, len(split)+1)
		split = append(split, reach[i], strides[i])
		phases *= strides[i]
	}
	order := slices.Concat([]int{0}, phaseAxes, []int{2, 1}, tapAxes)
	if long {
		order = slices.Concat([]int{0, 2}, phaseAxes, []int{1}, tapAxes)
	}
	w = b.Transpose(b.Reshape(w, split...), order...)
	w = b.Reshape(w, slices.Concat([]int{groups * phases * ws[1], ws[0] / groups}, reach)...)
	return flip(c, w, 2)
}

// cropped takes the pads off the full result of a transposed convolution;
// negative ones, and what no window reaches, are zeros.
func cropped(c *Ctx, y *ir.Value, xs, k, strides, lo, hi []int) *ir.Value {
	b := c.B
	full := core.Shape(y)
	before, after := make([]int, len(full)), make([]int, len(full))
	start, size := make([]int, len(xs)), make([]int, len(xs))
	for i := range xs {
		size[i] = (xs[i]-1)*strides[i] + k[i] - lo[i] - hi[i]
		if size[i] < 1 {
			c.Fail("output size %d on spatial axis %d", size[i], i)
		}
		before[i+2] = max(-lo[i], 0)
		start[i] = max(lo[i], 0)
		after[i+2] = max(start[i]+size[i]-before[i+2]-full[i+2], 0)
	}
	y = b.Pad(y, before, after, b.Like(y, 0))
	for i := range xs {
		y = b.SliceAxis(y, i+2, start[i], size[i])
	}
	return y
}
