package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// gatherOps read elements at positions that are data.
var gatherOps = []Op{
	{Name: "Gather", Since: []int{1, 11, 13}, Expand: expandGather},
	{Name: "GatherElements", Since: []int{11, 13}, Expand: expandGatherElements},
	{Name: "GatherND", Since: []int{11, 12, 13}, Expand: expandGatherND},
	{Name: "ReverseSequence", Since: []int{10}, Expand: expandReverseSequence},
	{Name: "Compress", Since: []int{9, 11}, Expand: expandCompress},
}

func expandGather(c *Ctx) {
	x, idx := c.In(0), c.In(1)
	axis := c.Axis(c.N.Int("axis", 0), x.Rank())
	n := x.Static()[axis]
	c.checkIndices(idx, n)
	if t := idx.Const; t != nil && x.Const == nil {
		if src, ok := progression(t, n); ok {
			// A slice fuses with its neighbours; a gather does not.
			y := run(c.B, x, axis, src[0], len(src), stepOf(src))
			c.Out(0, c.B.Reshape(y, slices.Concat(x.Static()[:axis], t.Shape, x.Static()[axis+1:])...))
			return
		}
	}
	c.Out(0, c.B.Gather(x, axis, idx))
}

// checkIndices fails if constant indices lie outside an axis.
func (c *Ctx) checkIndices(idx *ir.Value, n int) {
	if !idx.DType().IsInteger() {
		c.Fail("indices are %s", idx.DType().ONNX())
	}
	if idx.Const == nil {
		return
	}
	for i := range idx.Const.Len() {
		if v := idx.Const.Int(i); v < int64(-n) || v >= int64(n) {
			c.Fail("index %d is outside an axis of size %d", v, n)
		}
	}
}

// progression gives constant indices that are an arithmetic progression.
func progression(t *tensor.Tensor, n int) ([]int, bool) {
	src := make([]int, t.Len())
	for i := range src {
		src[i] = int(t.Int(i))
		if src[i] < 0 {
			src[i] += n
		}
		if i > 1 && src[i]-src[i-1] != src[1]-src[0] {
			return nil, false
		}
	}
	return src, len(src) > 0
}

func stepOf(src []int) int {
	if len(src) < 2 {
		return 1
	}
	return src[1] - src[0]
}

// rowStrides is how far apart neighbours on each axis are in row-major order.
func rowStrides(shape []int) []int {
	s := make([]int, len(shape))
	k := 1
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = k
		k *= shape[i]
	}
	return s
}

// elementIndices turns positions along an axis into positions in the flattened
// data of shape s; the other coordinates are the element's own.
func (c *Ctx) elementIndices(idx *ir.Value, s []int, axis int) *ir.Value {
	is := idx.Static()
	if len(is) != len(s) {
		c.Fail("indices have rank %d, the data %d", len(is), len(s))
	}
	st := rowStrides(s)
	scaled := func(v *ir.Value, by int) *ir.Value {
		if by == 1 {
			return v
		}
		return c.B.Mul(v, c.B.ScalarInt(tensor.I64, int64(by)))
	}
	at := scaled(c.wrapIndex(c.B.Cast(idx, tensor.I64), s[axis]), st[axis])
	for a := range s {
		if a == axis || is[a] == 1 {
			continue
		}
		if is[a] > s[a] {
			c.Fail("indices %s reach beyond the data %s", tensor.ShapeString(is), tensor.ShapeString(s))
		}
		own := slices.Repeat([]int{1}, len(is))
		own[a] = is[a]
		at = c.B.Add(at, scaled(c.B.Iota(tensor.I64, a, own...), st[a]))
	}
	return at
}

func expandGatherElements(c *Ctx) {
	x, idx := c.In(0), c.In(1)
	axis := c.Axis(c.N.Int("axis", 0), x.Rank())
	c.checkIndices(idx, x.Static()[axis])
	at := c.elementIndices(idx, x.Static(), axis)
	c.Out(0, c.B.Gather(c.B.Reshape(x, tensor.Numel(x.Static())), 0, at))
}

// tupleIndices turns index tuples (the last axis of idx) into row numbers of
// data whose leading axes are batch and then indexed by the tuple.
func (c *Ctx) tupleIndices(idx *ir.Value, s []int, batch int) *ir.Value {
	is := idx.Static()
	k := is[len(is)-1]
	lead := is[:len(is)-1]
	st := rowStrides(s[:batch+k])
	idx = c.B.Cast(idx, tensor.I64)
	at := c.B.BroadcastTo(c.B.ScalarInt(tensor.I64, 0), lead...)
	scaled := func(v *ir.Value, by int) *ir.Value {
		if by == 1 {
			return v
		}
		return c.B.Mul(v, c.B.ScalarInt(tensor.I64, int64(by)))
	}
	for j := range k {
		p := c.B.Reshape(c.B.SliceAxis(idx, len(is)-1, j, 1), lead...)
		c.checkIndices(p, s[batch+j])
		p = scaled(c.wrapIndex(p, s[batch+j]), st[batch+j])
		if j == 0 {
			at = p
		} else {
			at = c.B.Add(at, p)
		}
	}
	for a := range batch {
		own := slices.Repeat([]int{1}, len(lead))
		own[a] = s[a]
		at = c.B.Add(at, scaled(c.B.Iota(tensor.I64, a, own...), st[a]))
	}
	return at
}

func expandGatherND(c *Ctx) {
	x, idx := c.In(0), c.In(1)
	s, is := x.Static(), idx.Static()
	batch := c.N.Int("batch_dims", 0)
	if len(is) == 0 || batch < 0 || batch >= len(is) || batch+is[len(is)-1] > len(s) {
		c.Fail("indices %s into %s with %d batch axes", tensor.ShapeString(is), tensor.ShapeString(s), batch)
	}
	if !slices.Equal(s[:batch], is[:batch]) {
		c.Fail("indices %s and data %s differ on the batch axes", tensor.ShapeString(is), tensor.ShapeString(s))
	}
	k := batch + is[len(is)-1]
	rows := append([]int{tensor.Numel(s[:k])}, s[k:]...)
	c.Out(0, c.B.Gather(c.B.Reshape(x, rows...), 0, c.tupleIndices(idx, s, batch)))
}

// expandReverseSequence reads row (b, len-1-t) where t < len, row (b, t) else.
func expandReverseSequence(c *Ctx) {
	x := c.In(0)
	s := x.Static()
	batch, time := c.N.Int("batch_axis", 1), c.N.Int("time_axis", 0)
	if len(s) < 2 || batch+time != 1 || batch*time != 0 {
		c.Fail("batch_axis %d and time_axis %d of rank %d", batch, time, len(s))
	}
	lens := []int{1, 1}
	lens[batch] = s[batch]
	n := c.B.Reshape(c.B.Cast(c.In(1), tensor.I64), lens...)
	grid := func(axis int) *ir.Value { return c.B.Iota(tensor.I64, axis, s[0], s[1]) }
	t := grid(time)
	last := c.B.Sub(c.B.Sub(n, c.B.ScalarInt(tensor.I64, 1)), t)
	t = c.B.Where(c.B.Lt(t, n), last, t)
	coord := [2]*ir.Value{}
	coord[batch], coord[time] = grid(batch), t
	at := c.B.Add(c.B.Mul(coord[0], c.B.ScalarInt(tensor.I64, int64(s[1]))), coord[1])
	rows := c.B.Reshape(x, append([]int{s[0] * s[1]}, s[2:]...)...)
	c.Out(0, c.B.Gather(rows, 0, at))
}

// expandCompress keeps what a condition holds for; missing conditions are
// false.
func expandCompress(c *Ctx) {
	x, cond := c.In(0), c.Tensor(1, "condition")
	axis := 0
	if _, ok := c.N.Attr("axis"); ok {
		axis = c.Axis(c.N.Int("axis", 0), x.Rank())
	} else {
		x = c.B.Reshape(x, tensor.Numel(x.Static()))
	}
	var src []int
	for i := range cond.Len() {
		if cond.Int(i) == 0 {
			continue
		}
		if i >= x.Static()[axis] {
			c.Fail("condition %d is beyond an axis of size %d", i, x.Static()[axis])
		}
		src = append(src, i)
	}
	c.Out(0, pickAxis(c.B, x, axis, src))
}

// scatterOps write elements at positions that are data.
var scatterOps = []Op{
	{Name: "Scatter", Since: []int{9, 11}, Expand: expandScatterElements},
	{Name: "ScatterElements", Since: []int{11, 13, 16, 18}, Expand: expandScatterElements},
	{Name: "ScatterND", Since: []int{11, 13, 16, 18}, Expand: expandScatterND},
	{Name: "TensorScatter", Since: []int{24}, Expand: expandTensorScatter},
}

// reduction is the core name of the reduction attribute.
func (c *Ctx) reduction() string {
	allowed := []string{"none"}
	if c.Version >= 16 {
		allowed = append(allowed, "add", "mul")
	}
	if c.Version >= 18 {
		allowed = append(allowed, "max", "min")
	}
	r := c.OneOf("reduction", c.N.Str("reduction", "none"), allowed...)
	if r == "none" {
		return "set"
	}
	return r
}

func flat(b *core.Builder, x *ir.Value) *ir.Value { return b.Reshape(x, tensor.Numel(x.Static())) }

func expandScatterElements(c *Ctx) {
	x, idx, up := c.In(0), c.In(1), c.In(2)
	if !slices.Equal(idx.Static(), up.Static()) {
		c.Fail("indices %s and updates %s differ", tensor.ShapeString(idx.Static()), tensor.ShapeString(up.Static()))
	}
	axis := c.Axis(c.N.Int("axis", 0), x.Rank())
	c.checkIndices(idx, x.Static()[axis])
	at := c.elementIndices(idx, x.Static(), axis)
	y := c.B.Scatter(c.reduction(), flat(c.B, x), flat(c.B, at), flat(c.B, up))
	c.Out(0, c.B.Reshape(y, x.Static()...))
}

func expandScatterND(c *Ctx) {
	x, idx, up := c.In(0), c.In(1), c.In(2)
	s, is := x.Static(), idx.Static()
	if len(is) == 0 || is[len(is)-1] > len(s) {
		c.Fail("indices %s into %s", tensor.ShapeString(is), tensor.ShapeString(s))
	}
	k, lead := is[len(is)-1], is[:len(is)-1]
	if !slices.Equal(up.Static(), slices.Concat(lead, s[k:])) {
		c.Fail("updates %s for indices %s into %s", tensor.ShapeString(up.Static()), tensor.ShapeString(is), tensor.ShapeString(s))
	}
	at := c.tupleIndices(idx, s, 0)
	rows := append([]int{tensor.Numel(s[:k])}, s[k:]...)
	ups := append([]int{tensor.Numel(lead)}, s[k:]...)
	y := c.B.Scatter(c.reduction(), c.B.Reshape(x, rows...), flat(c.B, at), c.B.Reshape(up, ups...))
	c.Out(0, c.B.Reshape(y, s...))
}

// expandTensorScatter writes the update into each sample's rows from its write
// index on.
func expandTensorScatter(c *Ctx) {
	x, up := c.In(0), c.In(1)
	s, us := x.Static(), up.Static()
	axis := c.Axis(c.N.Int("axis", -2), len(s))
	mode := c.OneOf("mode", c.N.Str("mode", "linear"), "linear", "circular")
	fits := len(us) == len(s) && axis > 0
	for i := range s {
		fits = fits && (us[i] == s[i] || i == axis && us[i] <= s[i])
	}
	if !fits {
		c.Fail("an update %s of %s along axis %d", tensor.ShapeString(us), tensor.ShapeString(s), axis)
	}
	lead := us[:axis+1]
	pos := c.B.Iota(tensor.I64, axis, lead...)
	if w := c.Opt(2); w != nil {
		if mode == "linear" {
			c.checkWrite(w, s[axis]-us[axis])
		}
		shape := slices.Repeat([]int{1}, axis+1)
		shape[0] = us[0]
		pos = c.B.Add(pos, c.B.Reshape(c.B.Cast(w, tensor.I64), shape...))
	}
	if mode == "circular" {
		pos = c.B.Binary("mod", pos, c.B.ScalarInt(tensor.I64, int64(s[axis])))
	}
	st := rowStrides(s[:axis+1])
	for a := range axis {
		pos = c.B.Add(pos, c.B.Mul(c.B.Iota(tensor.I64, a, lead...), c.B.ScalarInt(tensor.I64, int64(st[a]))))
	}
	rows := append([]int{tensor.Numel(s[:axis+1])}, s[axis+1:]...)
	ups := append([]int{tensor.Numel(lead)}, s[axis+1:]...)
	y := c.B.Scatter("set", c.B.Reshape(x, rows...), flat(c.B, pos), c.B.Reshape(up, ups...))
	c.Out(0, c.B.Reshape(y, s...))
}

func (c *Ctx) checkWrite(w *ir.Value, last int) {
	if w.Const == nil {
		return
	}
	for i := range w.Const.Len() {
		if v := w.Const.Int(i); v < 0 || v > int64(last) {
			c.Fail("write index %d leaves the cache", v)
		}
	}
}
