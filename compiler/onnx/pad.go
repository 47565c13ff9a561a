package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// padOps surround tensors with constants or with parts of themselves.
var padOps = []Op{
	{Name: "Pad", Since: since(1, 2, 11, 13, 18), Expand: expandPad},
}

func expandPad(c *Ctx) {
	x := c.In(0)
	lo, hi := c.padOperands(x)
	modes := []string{"constant", "reflect", "edge"}
	if c.Version >= 19 {
		modes = append(modes, "wrap")
	}
	mode := c.OneOf("mode", c.N.Str("mode", "constant"), modes...)
	x = c.crop(x, lo, hi)
	if mode == "constant" {
		c.Out(0, c.B.Pad(x, lo, hi, c.padValue(x)))
		return
	}
	for a := range lo {
		if lo[a] == 0 && hi[a] == 0 {
			continue
		}
		src, ok := padSources(mode, x.Static()[a], lo[a], hi[a])
		if !ok {
			c.Fail("axis %d of size %d has nothing to pad with", a, x.Static()[a])
		}
		x = pickAxis(c.B, x, a, src)
	}
	c.Out(0, x)
}

// padOperands reads how much to add before and after each axis.
func (c *Ctx) padOperands(x *ir.Value) (lo, hi []int) {
	r := x.Rank()
	var pads, axes []int
	switch {
	case c.Version == 1:
		pads = c.N.Ints("paddings")
	case c.Version == 2:
		pads = c.N.Ints("pads")
	default:
		pads, axes = c.Ints(1, "pads"), c.Ints(3, "axes")
	}
	if axes == nil {
		for i := range r {
			axes = append(axes, i)
		}
	}
	axes = c.Axes(axes, r)
	if len(pads) != 2*len(axes) {
		c.Fail("%d pads for %d axes", len(pads), len(axes))
	}
	lo, hi = make([]int, r), make([]int, r)
	for i, a := range axes {
		lo[a], hi[a] = pads[i], pads[len(axes)+i]
	}
	return lo, hi
}

// crop takes the negative pads off and sets them to 0.
func (c *Ctx) crop(x *ir.Value, lo, hi []int) *ir.Value {
	for a := range lo {
		n := x.Static()[a]
		from, to := max(-lo[a], 0), n-max(-hi[a], 0)
		if from == 0 && to == n {
			continue
		}
		if from > to {
			c.Fail("axis %d of size %d is padded by %d and %d", a, n, lo[a], hi[a])
		}
		x = c.B.SliceAxis(x, a, from, to-from)
		lo[a], hi[a] = max(lo[a], 0), max(hi[a], 0)
	}
	return x
}

func (c *Ctx) padValue(x *ir.Value) *ir.Value {
	if c.Version < 11 {
		return c.B.Like(x, c.N.Float("value", 0))
	}
	if v := c.scalarOpt(2); v != nil {
		if v.DType() != x.DType() {
			c.Fail("the constant is %s, the input %s", v.DType().ONNX(), x.DType().ONNX())
		}
		return v
	}
	return c.B.Const(tensor.New(x.DType()))
}

// padSources lists the element that each position of a padded axis repeats.
func padSources(mode string, n, lo, hi int) (src []int, ok bool) {
	if n == 0 {
		return nil, false
	}
	for i := -lo; i < n+hi; i++ {
		p := i
		switch mode {
		case "edge":
			p = min(max(i, 0), n-1)
		case "wrap":
			p = ((i % n) + n) % n
		case "reflect":
			p = 0
			if n > 1 {
				period := 2 * (n - 1)
				p = ((i % period) + period) % period
				if p >= n {
					p = period - p
				}
			}
		}
		src = append(src, p)
	}
	return src, true
}

// maxRuns is how many slices are joined before a gather is the smaller graph.
const maxRuns = 8

// pickAxis selects elements of an axis by position: as few slices as possible,
// joined, or a gather where they would be many.
func pickAxis(b *core.Builder, x *ir.Value, axis int, src []int) *ir.Value {
	var parts []*ir.Value
	for i := 0; i < len(src); {
		j, step := i+1, 1
		if j < len(src) {
			step = src[j] - src[i]
		}
		for j < len(src) && src[j]-src[j-1] == step {
			j++
		}
		if len(parts) == maxRuns {
			t := tensor.Of(ir.Int64s(src), len(src))
			return b.Gather(x, axis, b.Const(t))
		}
		parts = append(parts, run(b, x, axis, src[i], j-i, step))
		i = j
	}
	if len(parts) == 0 {
		return b.SliceAxis(x, axis, 0, 0)
	}
	return b.Concat(axis, parts...)
}

// run reads n elements of an axis from start in steps of step, which may be 0.
func run(b *core.Builder, x *ir.Value, axis, start, n, step int) *ir.Value {
	s := slices.Clone(x.Static())
	if step == 0 {
		s[axis] = n
		return b.BroadcastTo(b.SliceAxis(x, axis, start, 1), s...)
	}
	starts, steps := make([]int, len(s)), slices.Repeat([]int{1}, len(s))
	starts[axis], s[axis], steps[axis] = start, n, step
	return b.Slice(x, starts, s, steps)
}
