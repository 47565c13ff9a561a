package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// newTypes are the versions that only added element types to the ops of this
// family.
var newTypes = []int{19, 21, 23, 24, 25}

func since(vs ...int) []int { return append(vs, newTypes...) }

// shapeOps read shapes or change them; no element moves.
var shapeOps = []Op{
	{Name: "Identity", Since: since(1, 13, 14, 16), Expand: func(c *Ctx) { c.OutVal(0, c.Val(0)) }},
	{Name: "Shape", Since: since(1, 13, 15), Expand: expandShape},
	{Name: "Size", Since: since(1, 13), Expand: func(c *Ctx) {
		c.Out(0, c.B.ScalarInt(tensor.I64, int64(tensor.Numel(c.In(0).Static()))))
	}},
	{Name: "Reshape", Since: since(1, 5, 13, 14), Expand: expandReshape},
	{Name: "Flatten", Since: []int{1, 9, 11, 13, 21, 23, 24, 25}, Expand: expandFlatten},
	{Name: "Squeeze", Since: []int{1, 11, 13, 21, 23, 24, 25}, Expand: expandSqueeze},
	{Name: "Unsqueeze", Since: []int{1, 11, 13, 21, 23, 24, 25}, Expand: expandUnsqueeze},
	{Name: "Expand", Since: []int{8, 13}, Expand: expandExpand},
}

func expandShape(c *Ctx) {
	s := c.In(0).Static()
	bound := func(name string, def int) int {
		v := c.N.Int(name, def)
		if v < 0 {
			v += len(s)
		}
		return min(max(v, 0), len(s))
	}
	from, to := bound("start", 0), bound("end", len(s))
	c.Out(0, c.B.Ints(s[from:max(from, to)]...))
}

func expandReshape(c *Ctx) {
	x := c.In(0)
	var want []int
	if c.Version < 5 {
		want = c.N.Ints("shape")
	} else {
		want = c.Ints(1, "shape")
	}
	c.Out(0, c.B.Reshape(x, c.resolveShape(x, want)...))
}

// resolveShape replaces 0 (the input's size, unless allowzero) and -1 (what is
// left).
func (c *Ctx) resolveShape(x *ir.Value, want []int) []int {
	s, out := x.Static(), slices.Clone(want)
	allowZero := c.N.Int("allowzero", 0) == 1
	open, known := -1, 1
	for i, d := range out {
		switch {
		case d == 0 && !allowZero:
			if i >= len(s) {
				c.Fail("shape %v copies axis %d of an input of rank %d", want, i, len(s))
			}
			out[i] = s[i]
		case d == -1:
			if open >= 0 {
				c.Fail("shape %v has two open sizes", want)
			}
			open = i
			continue
		case d < 0:
			c.Fail("shape %v has a negative size", want)
		}
		known *= out[i]
	}
	n := tensor.Numel(s)
	if open >= 0 {
		if known == 0 || n%known != 0 {
			c.Fail("%s cannot take the shape %v", tensor.ShapeString(s), want)
		}
		out[open] = n / known
	}
	return out
}

func expandFlatten(c *Ctx) {
	x := c.In(0)
	s := x.Static()
	a := c.N.Int("axis", 1)
	if a < -len(s) || a > len(s) {
		c.Fail("axis %d is outside rank %d", a, len(s))
	}
	if a < 0 {
		a += len(s)
	}
	c.Out(0, c.B.Reshape(x, tensor.Numel(s[:a]), tensor.Numel(s[a:])))
}

// axesOperand reads axes: an attribute before a version, then input i. given is
// false if there are none.
func (c *Ctx) axesOperand(inputSince, i int) (axes []int, given bool) {
	if c.Version >= inputSince {
		return c.Ints(i, "axes"), c.Has(i)
	}
	axes = c.N.Ints("axes")
	return axes, axes != nil
}

func expandSqueeze(c *Ctx) {
	x := c.In(0)
	axes, given := c.axesOperand(13, 1)
	if !given {
		for i, d := range x.Static() {
			if d == 1 {
				axes = append(axes, i)
			}
		}
	}
	c.Out(0, c.B.Drop(x, c.Axes(axes, x.Rank())...))
}

func expandUnsqueeze(c *Ctx) {
	x := c.In(0)
	axes, _ := c.axesOperand(13, 1)
	axes = c.Axes(axes, x.Rank()+len(axes))
	var out []int
	rest := x.Static()
	for i := range len(rest) + len(axes) {
		if slices.Contains(axes, i) {
			out = append(out, 1)
			continue
		}
		out = append(out, rest[0])
		rest = rest[1:]
	}
	c.Out(0, c.B.Reshape(x, out...))
}

func expandExpand(c *Ctx) {
	x, want := c.In(0), c.Ints(1, "shape")
	c.Out(0, c.B.BroadcastTo(x, broadcastShape(c, x.Static(), want)...))
}
