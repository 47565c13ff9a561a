package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// movementOps put elements at other places that the shapes alone decide.
var movementOps = []Op{
	{Name: "Transpose", Since: []int{1, 13, 21, 23, 24, 25}, Expand: expandTranspose},
	{Name: "Concat", Since: []int{1, 4, 11, 13}, Expand: expandConcat},
	{Name: "Split", Since: []int{1, 2, 11, 13, 18}, Expand: expandSplit},
	{Name: "Slice", Since: []int{1, 10, 11, 13}, Expand: expandSlice},
	{Name: "Tile", Since: []int{1, 6, 13}, Expand: expandTile},
	{Name: "DepthToSpace", Since: []int{1, 11, 13}, Expand: expandDepthToSpace},
	{Name: "SpaceToDepth", Since: []int{1, 13}, Expand: expandSpaceToDepth},
	{Name: "CenterCropPad", Since: []int{18}, Expand: expandCenterCropPad},
	{Name: "Trilu", Since: []int{14}, Expand: expandTrilu},
}

func expandTranspose(c *Ctx) {
	x := c.In(0)
	perm := c.N.Ints("perm")
	if perm == nil {
		for i := range x.Rank() {
			perm = append(perm, x.Rank()-1-i)
		}
	}
	c.Out(0, c.B.Transpose(x, c.Axes(perm, x.Rank())...))
}

func expandConcat(c *Ctx) {
	if _, ok := c.N.Attr("axis"); !ok && c.Version >= 4 {
		c.Fail("attribute axis is missing")
	}
	axis := c.Axis(c.N.Int("axis", 1), c.In(0).Rank())
	xs := make([]*ir.Value, c.NIn())
	for i := range xs {
		xs[i] = c.In(i)
	}
	c.Out(0, c.B.Concat(axis, xs...))
}

func expandSplit(c *Ctx) {
	x := c.In(0)
	axis := c.Axis(c.N.Int("axis", 0), x.Rank())
	size := x.Static()[axis]
	var parts []int
	switch {
	case c.Version == 2 || c.Version == 11:
		parts = c.N.Ints("split")
	default:
		parts = c.IntsOrAttr(1, "split")
	}
	if parts == nil {
		parts = c.equalParts(size)
	}
	at := 0
	for i, n := range parts {
		if n < 0 || at+n > size {
			c.Fail("parts %v of an axis of size %d", parts, size)
		}
		if i < c.NOut() {
			c.Out(i, c.B.SliceAxis(x, axis, at, n))
		}
		at += n
	}
	if at != size || len(parts) != c.NOut() {
		c.Fail("parts %v of an axis of size %d into %d outputs", parts, size, c.NOut())
	}
}

// equalParts splits a size; only since opset 18 may the last part be smaller.
func (c *Ctx) equalParts(size int) []int {
	n := c.NOut()
	if c.Version >= 18 {
		n = c.N.Int("num_outputs", n)
	}
	if n < 1 || c.Version < 18 && size%n != 0 {
		c.Fail("an axis of size %d does not split into %d equal parts", size, n)
	}
	each := (size + n - 1) / n
	if each*(n-1) > size {
		c.Fail("an axis of size %d does not split into %d parts of %d", size, n, each)
	}
	parts := make([]int, n)
	for i := range parts {
		parts[i] = min(each, size-i*each)
	}
	return parts
}

func expandSlice(c *Ctx) {
	x := c.In(0)
	var from, to, axes, steps []int
	if c.Version < 10 {
		from, to, axes = c.N.Ints("starts"), c.N.Ints("ends"), c.N.Ints("axes")
	} else {
		from, to = c.Ints(1, "starts"), c.Ints(2, "ends")
		axes, steps = c.Ints(3, "axes"), c.Ints(4, "steps")
	}
	if axes == nil {
		for i := range from {
			axes = append(axes, i)
		}
	}
	if steps == nil {
		steps = slices.Repeat([]int{1}, len(from))
	}
	if len(to) != len(from) || len(axes) != len(from) || len(steps) != len(from) {
		c.Fail("starts %v, ends %v, axes %v and steps %v differ in length", from, to, axes, steps)
	}
	axes = c.Axes(axes, x.Rank())
	s := x.Static()
	starts, strides := make([]int, len(s)), slices.Repeat([]int{1}, len(s))
	sizes := slices.Clone(s)
	for i, a := range axes {
		if steps[i] == 0 {
			c.Fail("step 0 on axis %d", a)
		}
		starts[a], sizes[a] = sliceRange(from[i], to[i], steps[i], s[a])
		strides[a] = steps[i]
	}
	c.Out(0, c.B.Slice(x, starts, sizes, strides))
}

// sliceRange clamps one axis and gives where it starts and how many elements it
// takes. Unlike numpy, ONNX clamps a backward start that lies before the axis to
// its first element.
func sliceRange(from, to, step, n int) (start, size int) {
	wrap := func(v int) int {
		if v < 0 {
			v += n
		}
		return v
	}
	if step > 0 {
		from, to = min(max(wrap(from), 0), n), min(max(wrap(to), 0), n)
		size = divUp(to-from, step)
	} else {
		from, to = min(max(wrap(from), 0), n-1), min(max(wrap(to), -1), n-1)
		size = divUp(from-to, -step)
	}
	if size <= 0 {
		return 0, 0
	}
	return from, size
}

// divUp avoids the sum a+b-1: b may be the largest integer.
func divUp(a, b int) int {
	if a <= 0 {
		return 0
	}
	return (a-1)/b + 1
}

func expandTile(c *Ctx) {
	x := c.In(0)
	var repeats []int
	if c.Version < 6 {
		n, axis := c.Ints(1, "tiles"), c.Ints(2, "axis")
		if len(n) != 1 || len(axis) != 1 {
			c.Fail("tiles and axis must be one number each")
		}
		repeats = slices.Repeat([]int{1}, x.Rank())
		repeats[c.Axis(axis[0], x.Rank())] = n[0]
	} else {
		repeats = c.Ints(1, "repeats")
	}
	if len(repeats) != x.Rank() {
		c.Fail("repeats %v for rank %d", repeats, x.Rank())
	}
	for _, r := range repeats {
		if r < 0 {
			c.Fail("repeats %v has a negative count", repeats)
		}
	}
	c.Out(0, tile(c.B, x, repeats))
}

// tile inserts an axis of size 1 before each repeated one and broadcasts it.
func tile(b *core.Builder, x *ir.Value, repeats []int) *ir.Value {
	var with, wide, out []int
	for i, d := range x.Static() {
		r := repeats[i]
		switch {
		case r == 1:
			with, wide = append(with, d), append(wide, d)
		case d == 1:
			with, wide = append(with, 1), append(wide, r)
		default:
			with, wide = append(with, 1, d), append(wide, r, d)
		}
		out = append(out, r*d)
	}
	return b.Reshape(b.BroadcastTo(b.Reshape(x, with...), wide...), out...)
}

// blockSize checks the operand of the two block ops and gives N, C, H, W, b.
func (c *Ctx) blockSize(x *ir.Value) (n, ch, h, w, b int) {
	s := x.Static()
	b = c.N.Int("blocksize", 0)
	if len(s) != 4 || b < 1 {
		c.Fail("needs an input of rank 4 and a blocksize above 0, got rank %d and %d", len(s), b)
	}
	return s[0], s[1], s[2], s[3], b
}

func expandDepthToSpace(c *Ctx) {
	x := c.In(0)
	n, ch, h, w, b := c.blockSize(x)
	if ch%(b*b) != 0 {
		c.Fail("%d channels are no multiple of the block of %d", ch, b*b)
	}
	k := ch / (b * b)
	var y *ir.Value
	if c.OneOf("mode", c.N.Str("mode", "DCR"), "DCR", "CRD") == "DCR" {
		y = c.B.Transpose(c.B.Reshape(x, n, b, b, k, h, w), 0, 3, 4, 1, 5, 2)
	} else {
		y = c.B.Transpose(c.B.Reshape(x, n, k, b, b, h, w), 0, 1, 4, 2, 5, 3)
	}
	c.Out(0, c.B.Reshape(y, n, k, h*b, w*b))
}

func expandSpaceToDepth(c *Ctx) {
	x := c.In(0)
	n, ch, h, w, b := c.blockSize(x)
	if h%b != 0 || w%b != 0 {
		c.Fail("%d×%d is no multiple of the block of %d", h, w, b)
	}
	y := c.B.Transpose(c.B.Reshape(x, n, ch, h/b, b, w/b, b), 0, 3, 5, 1, 2, 4)
	c.Out(0, c.B.Reshape(y, n, ch*b*b, h/b, w/b))
}

func expandCenterCropPad(c *Ctx) {
	x, want := c.In(0), c.Ints(1, "shape")
	axes := c.N.Ints("axes")
	if axes == nil {
		for i := range x.Rank() {
			axes = append(axes, i)
		}
	}
	axes = c.Axes(axes, x.Rank())
	if len(want) != len(axes) {
		c.Fail("shape %v for axes %v", want, axes)
	}
	lo, hi := make([]int, x.Rank()), make([]int, x.Rank())
	for i, a := range axes {
		switch d := want[i] - x.Static()[a]; {
		case want[i] < 0:
			c.Fail("shape %v has a negative size", want)
		case d < 0: // an odd crop takes one more at the end
			x = c.B.SliceAxis(x, a, -d/2, want[i])
		default:
			lo[a], hi[a] = d/2, d-d/2
		}
	}
	c.Out(0, c.B.Pad(x, lo, hi, zeroOf(c.B, x.DType())))
}

// zeroOf is the scalar zero (or empty string) of any type.
func zeroOf(b *core.Builder, d tensor.DType) *ir.Value { return b.Const(tensor.New(d)) }

// expandTrilu keeps one side of the k-th diagonal of the last two axes.
func expandTrilu(c *Ctx) {
	x := c.In(0)
	if x.Rank() < 2 {
		c.Fail("input has rank %d, needs 2", x.Rank())
	}
	s := x.Static()[x.Rank()-2:]
	k := c.scalarOpt(1)
	if k == nil {
		k = c.B.ScalarInt(tensor.I64, 0)
	}
	row, col := c.B.Iota(tensor.I64, 0, s...), c.B.Iota(tensor.I64, 1, s...)
	diag := c.B.Add(row, k)
	keep := c.B.Le(col, diag)
	if c.N.Int("upper", 1) != 0 {
		keep = c.B.Le(diag, col)
	}
	c.Out(0, c.B.Where(keep, x, zeroOf(c.B, x.DType())))
}
