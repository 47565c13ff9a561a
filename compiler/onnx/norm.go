package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// normOps bring values to a common mean, variance or norm.
var normOps = []Op{
	{Name: "BatchNormalization", Since: []int{1, 6, 7, 9, 14, 15}, Expand: expandBatchNorm},
	// ONNX Runtime had this one before opset 17, in ONNX's own domain.
	{Name: "LayerNormalization", Since: []int{1, 17}, Expand: expandLayerNorm},
	{Name: "RMSNormalization", Since: []int{23}, Expand: expandRMSNorm},
	{Name: "GroupNormalization", Since: []int{18, 21}, Expand: expandGroupNorm},
	{Name: "InstanceNormalization", Since: []int{1, 6, 22}, Expand: expandInstanceNorm},
	{Name: "LRN", Since: []int{1, 13}, Expand: expandLRN},
	{Name: "MeanVarianceNormalization", Since: []int{9, 13}, Expand: expandMVN},
	{Name: "LpNormalization", Since: []int{1, 22}, Expand: expandLpNorm},
	{Domain: microsoft, Name: "SkipLayerNormalization", Since: []int{1}, Expand: expandSkipLayerNorm},
	{Domain: microsoft, Name: "SkipSimplifiedLayerNormalization", Since: []int{1}, Expand: expandSkipLayerNorm},
	// And this one ONNX never had under the name.
	{Name: "SimplifiedLayerNormalization", Since: []int{1}, Expand: expandRMSNorm},
}

// expandBatchNorm normalises each channel. With given statistics it is one
// factor and one summand per channel, which fold to constants if those are.
func expandBatchNorm(c *Ctx) {
	b := c.B
	x := c.In(0)
	if x.Rank() < 2 {
		c.Fail("operand %s has no channels", x.Type)
	}
	perChannel := c.N.Int("spatial", 1) != 0
	shape := unitAxes(x.Rank(), 1, core.Shape(x)[1])
	axes := slices.Concat([]int{0}, count(2, x.Rank()))
	if !perChannel {
		shape = append([]int{1}, core.Shape(x)[1:]...)
		axes = []int{0}
	}
	calc := tensor.F32
	if x.DType() == tensor.F64 {
		calc = tensor.F64
	}
	param := func(i int) *ir.Value { return b.Reshape(b.Cast(c.In(i), calc), shape...) }
	scale, bias, mean, variance := param(1), param(2), param(3), param(4)
	eps := b.Scalar(calc, c.N.Float("epsilon", 1e-5))
	if batchNormTrains(c) {
		old := [2]*ir.Value{mean, variance}
		xw := b.Cast(x, calc)
		mean, variance = moments(c, xw, axes)
		y := b.Add(b.Mul(b.Div(b.Sub(xw, mean), b.Sqrt(b.Add(variance, eps))), scale), bias)
		c.Out(0, b.Cast(y, x.DType()))
		momentum := c.N.Float("momentum", 0.9)
		for i, now := range []*ir.Value{mean, variance} {
			out := c.In(3 + i)
			running := b.Add(b.Mul(old[i], b.Scalar(calc, momentum)), b.Mul(now, b.Scalar(calc, float64(float32(1)-float32(momentum)))))
			c.Out(1+i, b.Cast(b.Reshape(running, core.Shape(out)...), out.DType()))
			if c.Version < 14 {
				c.Out(3+i, b.Cast(b.Reshape(now, core.Shape(out)...), out.DType()))
			}
		}
		return
	}
	factor := b.Div(scale, b.Sqrt(b.Add(variance, eps)))
	summand := b.Sub(bias, b.Mul(mean, factor))
	c.Out(0, b.Cast(b.Add(b.Mul(b.Cast(x, calc), factor), summand), x.DType()))
}

// batchNormTrains: since opset 14 an attribute says so; before, it was said by
// asking for the statistics (opsets 1 and 6 also had is_test).
func batchNormTrains(c *Ctx) bool {
	if c.Version >= 14 {
		return c.N.Int("training_mode", 0) != 0
	}
	if c.Version < 7 && c.N.Int("is_test", 0) != 0 {
		return false
	}
	return c.Wants(1) || c.Wants(2) || c.Wants(3) || c.Wants(4)
}

// moments are the mean and the variance (of the population) over axes.
func moments(c *Ctx, x *ir.Value, axes []int) (mean, variance *ir.Value) {
	mean = meanOver(c, x, axes)
	d := c.B.Sub(x, mean)
	return mean, meanOver(c, c.B.Mul(d, d), axes)
}

// stash is the type that statistics are computed in (attribute stash_type);
// never less than the operand has.
func stash(c *Ctx, x *ir.Value) tensor.DType {
	d := tensor.DType(c.N.Int("stash_type", int(tensor.F32)))
	if !d.IsFloat() {
		c.Unsupported("stash_type=%s", d.ONNX())
	}
	if x.DType() == tensor.F64 || d.Bits() < 32 {
		return x.DType()
	}
	return d
}

// normalized is (x-mean)/sqrt(variance+eps) and the two statistics. One division
// per row is enough: elements are multiplied.
func normalized(c *Ctx, x *ir.Value, axes []int, eps float64) (y, mean, inv *ir.Value) {
	b := c.B
	mean = meanOver(c, x, axes)
	d := b.Sub(x, mean)
	variance := meanOver(c, b.Mul(d, d), axes)
	root := b.Sqrt(b.Add(variance, b.Like(x, eps)))
	inv = b.Div(b.Like(x, 1), root)
	return b.Mul(d, inv), mean, inv
}

func expandLayerNorm(c *Ctx) {
	b := c.B
	x := c.In(0)
	axes := count(c.Axis(c.N.Int("axis", -1), x.Rank()), x.Rank())
	y, mean, inv := normalized(c, b.Cast(x, stash(c, x)), axes, c.N.Float("epsilon", 1e-5))
	scale := c.In(1)
	y = b.Mul(b.Cast(y, scale.DType()), scale)
	if bias := c.Opt(2); bias != nil {
		y = b.Add(y, bias)
	}
	fits(c, y, x)
	c.Out(0, y)
	c.Out(1, mean)
	c.Out(2, inv)
}

// fits fails if parameters broadcast y beyond the shape of x.
func fits(c *Ctx, y, x *ir.Value) {
	if !slices.Equal(core.Shape(y), core.Shape(x)) {
		c.Fail("parameters broadcast %s to %s", x.Type, y.Type)
	}
}

// rms is x/sqrt(mean(x²)+eps) and the factor that x is multiplied with.
func rms(c *Ctx, x *ir.Value, axes []int, eps float64) (y, inv *ir.Value) {
	b := c.B
	root := b.Sqrt(b.Add(meanOver(c, b.Mul(x, x), axes), b.Like(x, eps)))
	inv = b.Div(b.Like(x, 1), root)
	return b.Mul(x, inv), inv
}

func expandRMSNorm(c *Ctx) {
	b := c.B
	x := c.In(0)
	axes := count(c.Axis(c.N.Int("axis", -1), x.Rank()), x.Rank())
	y, inv := rms(c, b.Cast(x, stash(c, x)), axes, c.N.Float("epsilon", 1e-5))
	scale := c.In(1)
	y = b.Mul(b.Cast(y, scale.DType()), scale)
	fits(c, y, x)
	c.Out(0, y)
	c.Out(1, inv)
}

// grouped views [N, C, …] as [N, groups, C/groups·…].
func grouped(c *Ctx, x *ir.Value, groups int) *ir.Value {
	s := core.Shape(x)
	if len(s) < 2 || groups < 1 || s[1]%groups != 0 {
		c.Fail("operand %s in %d groups of channels", x.Type, groups)
	}
	return c.B.Reshape(x, s[0], groups, s[1]/groups*tensor.Numel(s[2:]))
}

func expandGroupNorm(c *Ctx) {
	b := c.B
	x := c.In(0)
	s := core.Shape(x)
	groups := c.N.Int("num_groups", 0)
	d := stash(c, x)
	y, _, _ := normalized(c, b.Cast(grouped(c, x, groups), d), []int{2}, c.N.Float("epsilon", 1e-5))
	scale, bias := c.In(1), c.In(2)
	shape := []int{1, groups, 1} // one parameter per group in opset 18
	if c.Version >= 21 {
		y = b.Reshape(y, s...)
		shape = unitAxes(len(s), 1, s[1])
	}
	y = b.Mul(b.Cast(y, scale.DType()), b.Reshape(scale, shape...))
	y = b.Add(y, b.Reshape(bias, shape...))
	c.Out(0, b.Reshape(y, s...))
}

func expandInstanceNorm(c *Ctx) {
	b := c.B
	x := c.In(0)
	axes := spatial(c, x)
	shape := unitAxes(x.Rank(), 1, core.Shape(x)[1])
	y := widely(c, x, func(x *ir.Value) *ir.Value {
		y, _, _ := normalized(c, x, axes, c.N.Float("epsilon", 1e-5))
		y = b.Mul(y, b.Reshape(b.Cast(c.In(1), x.DType()), shape...))
		return b.Add(y, b.Reshape(b.Cast(c.In(2), x.DType()), shape...))
	})
	c.Out(0, y)
}

// expandLRN sums squares over neighbouring channels: a window along an axis
// that is made spatial for it.
func expandLRN(c *Ctx) {
	b := c.B
	x := c.In(0)
	s := core.Shape(x)
	size := c.N.Int("size", 0)
	if len(s) < 2 || size < 1 {
		c.Fail("operand %s with size %d", x.Type, size)
	}
	alpha, beta, bias := c.N.Float("alpha", 1e-4), c.N.Float("beta", 0.75), c.N.Float("bias", 1)
	c.Out(0, widely(c, x, func(x *ir.Value) *ir.Value {
		sq := b.Reshape(b.Mul(x, x), s[0], 1, s[1], tensor.Numel(s[2:]))
		one := []int{1, 1}
		sum := b.Window("window_sum", sq, []int{size, 1}, core.ConvSpec{Strides: one, Dilations: one, Lo: []int{(size - 1) / 2, 0}, Hi: []int{size / 2, 0}})
		sum = b.Reshape(sum, s...)
		base := b.Add(b.Like(x, bias), b.Mul(sum, b.Like(x, alpha/float64(size))))
		scale := power(b, base, beta)
		if scale == nil {
			scale = b.Pow(base, b.Like(x, beta))
		}
		return b.Div(x, scale)
	}))
}

func expandMVN(c *Ctx) {
	b := c.B
	x := c.In(0)
	axes := c.N.Ints("axes")
	if axes == nil {
		axes = []int{0, 2, 3}
	}
	axes = c.Axes(axes, x.Rank())
	c.Out(0, widely(c, x, func(x *ir.Value) *ir.Value {
		mean, variance := moments(c, x, axes)
		return b.Div(b.Sub(x, mean), b.Add(b.Sqrt(variance), b.Like(x, 1e-9)))
	}))
}

func expandLpNorm(c *Ctx) {
	b := c.B
	x := c.In(0)
	axis := c.Axis(c.N.Int("axis", -1), x.Rank())
	p := c.N.Int("p", 2)
	if p != 1 && p != 2 {
		c.Unsupported("p=%d", p)
	}
	c.Out(0, widely(c, x, func(x *ir.Value) *ir.Value {
		norm := lpSum(c, x, float64(p), func(x *ir.Value) *ir.Value { return b.Reduce("reduce_sum", x, true, axis) })
		// A vector of zeros stays as it is.
		return b.Div(x, b.Where(b.Eq(norm, b.Like(x, 0)), b.Like(x, 1), norm))
	}))
}

// expandSkipLayerNorm adds a residual (and a bias) and normalises over the last
// axis; output 3 is the sum.
func expandSkipLayerNorm(c *Ctx) {
	b := c.B
	x, skip, gamma := c.In(0), c.In(1), c.In(2)
	if x.Rank() == 0 {
		c.Fail("the input is a scalar")
	}
	simple := c.N.Op == "SkipSimplifiedLayerNormalization"
	var beta, bias *ir.Value
	if simple {
		bias = c.Opt(3)
	} else {
		beta, bias = c.Opt(3), c.Opt(4)
	}
	sum := b.Add(wide(c, x), wide(c, skip))
	if bias != nil {
		sum = b.Add(sum, wide(c, bias))
	}
	fits(c, sum, x)
	eps := c.N.Float("epsilon", 1e-12)
	axes := []int{x.Rank() - 1}
	var y, mean, inv *ir.Value
	if simple {
		y, inv = rms(c, sum, axes, eps)
	} else {
		y, mean, inv = normalized(c, sum, axes, eps)
	}
	y = b.Mul(y, wide(c, gamma))
	if beta != nil {
		y = b.Add(y, wide(c, beta))
	}
	c.Out(0, b.Cast(y, x.DType()))
	if mean != nil {
		c.Out(1, mean)
	}
	c.Out(2, inv)
	c.Out(3, b.Cast(sum, x.DType()))
}
