package onnx

import (
	"slices"

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
	if cond.DType != tensor.Bool || len(cond.Shape) != 1 {
		c.Fail("the condition is %s, needs a vector of bool", cond)
	}
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
