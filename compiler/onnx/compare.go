package onnx

import (
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// compareOps give truth values, or choose by them.
var compareOps = []Op{
	{Name: "Equal", Since: []int{1, 7, 11, 13, 19}, Expand: expandEqual},
	comparison("Less", (*core.Builder).Lt, false, 1, 7, 9, 13),
	comparison("Greater", (*core.Builder).Lt, true, 1, 7, 9, 13),
	comparison("LessOrEqual", (*core.Builder).Le, false, 12, 16),
	comparison("GreaterOrEqual", (*core.Builder).Le, true, 12, 16),
	{Name: "Where", Since: []int{9, 16}, Expand: func(c *Ctx) { c.Out(0, c.B.Where(c.In(0), c.In(1), c.In(2))) }},
}

// comparison is the row of an order relation; swap exchanges the operands.
func comparison(name string, f func(b *core.Builder, x, y *ir.Value) *ir.Value, swap bool, since ...int) Op {
	return Op{Name: name, Since: since, Expand: func(c *Ctx) {
		x, y := c.operands()
		if swap {
			x, y = y, x
		}
		c.Out(0, f(c.B, x, y))
	}}
}

func expandEqual(c *Ctx) {
	x, y := c.operands()
	if x.DType() != tensor.String || y.DType() != tensor.String {
		c.Out(0, c.B.Eq(x, y))
		return
	}
	c.Tensor(0, "a string input")
	c.Tensor(1, "a string input")
	v := c.B.Broadcast(x, y)
	out := tensor.New(tensor.Bool, v[0].Static()...)
	for i, s := range v[0].Const.Strings() {
		if s == v[1].Const.Strings()[i] {
			out.SetInt(i, 1)
		}
	}
	c.Out(0, c.B.Const(out))
}
