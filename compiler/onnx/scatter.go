package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

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
