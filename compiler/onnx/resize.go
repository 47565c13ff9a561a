package onnx

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// resizeOps sample a regular grid, one axis after the other. Where samples
// fall is known once the shapes are: the expansion holds no arithmetic on
// positions.
var resizeOps = []Op{
	{Name: "Resize", Since: []int{10, 11, 13, 18, 19}, Expand: expandResize},
	{Name: "Upsample", Since: []int{7, 9, 10}, Expand: expandUpsample},
}

// resize is what the attributes and operands of all versions come down to.
type resize struct {
	mode      string // nearest, linear, cubic
	coords    string // coordinate_transformation_mode
	nearest   string // nearest_mode; "simple" is opset 10: ceil where an axis shrinks, else floor
	cubicA    float64
	exclude   bool
	antialias bool
	fill      float64   // extrapolation_value
	out       []int     // output shape
	scale     []float64 // per axis
	roi       []float64 // starts, then ends; nil: none
}

func expandUpsample(c *Ctx) {
	if c.Version >= 10 {
		c.Unsupported("Upsample, which opset 10 replaced by Resize,")
	}
	x := c.In(0)
	r := resize{coords: "asymmetric", nearest: "floor"}
	r.mode = c.OneOf("mode", c.N.Str("mode", "nearest"), "nearest", "linear", "bilinear")
	if r.mode == "bilinear" {
		r.mode = "linear"
	}
	var scales []float64
	if c.Version >= 9 {
		scales = c.Tensor(1, "scales").Floats()
	} else {
		for _, f := range c.floats("scales") {
			scales = append(scales, float64(f))
		}
	}
	r.byScales(c, core.Shape(x), nil, scales)
	c.Out(0, r.run(c, x))
}

func expandResize(c *Ctx) {
	x := c.In(0)
	s := core.Shape(x)
	r := resize{}
	r.mode = c.OneOf("mode", c.N.Str("mode", "nearest"), "nearest", "linear", "cubic")
	if c.Version < 11 {
		r.coords, r.nearest = "asymmetric", "simple"
		r.byScales(c, s, nil, c.Tensor(1, "scales").Floats())
		c.Out(0, r.run(c, x))
		return
	}
	coords := []string{"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize"}
	if c.Version < 13 {
		coords = append(coords, "tf_half_pixel_for_nn")
	}
	if c.Version >= 19 {
		coords = append(coords, "half_pixel_symmetric")
	}
	r.coords = c.OneOf("coordinate_transformation_mode", c.N.Str("coordinate_transformation_mode", "half_pixel"), coords...)
	r.nearest = c.OneOf("nearest_mode", c.N.Str("nearest_mode", "round_prefer_floor"), "round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
	r.cubicA = c.N.Float("cubic_coeff_a", -0.75)
	r.exclude = c.N.Int("exclude_outside", 0) == 1
	r.antialias = c.N.Int("antialias", 0) == 1
	r.fill = c.N.Float("extrapolation_value", 0)
	axes := c.N.Ints("axes")
	if axes != nil {
		axes = c.Axes(axes, len(s))
	}
	if r.coords == "tf_crop_and_resize" {
		r.region(c, len(s), axes)
	}
	scales := c.given(2, "scales")
	if sizes := c.given(3, "sizes"); sizes != nil {
		if scales != nil {
			c.Fail("both scales and sizes are given")
		}
		r.bySizes(c, s, axes, sizes)
	} else {
		r.byScales(c, s, axes, scales)
	}
	c.Out(0, r.run(c, x))
}

// given is a constant operand as numbers; nil if it is omitted or empty, which
// older opsets use to say omitted.
func (c *Ctx) given(i int, what string) []float64 {
	if !c.Has(i) || tensor.Numel(core.Shape(c.In(i))) == 0 {
		return nil
	}
	return c.Tensor(i, what).Floats()
}

func allAxes(axes []int, rank int) []int {
	if axes != nil {
		return axes
	}
	all := make([]int, rank)
	for i := range all {
		all[i] = i
	}
	return all
}

// region reads roi into starts and ends of all axes.
func (r *resize) region(c *Ctx, rank int, axes []int) {
	axes = allAxes(axes, rank)
	roi := c.given(1, "roi")
	if len(roi) != 2*len(axes) {
		c.Fail("roi has %d elements for %d axes", len(roi), len(axes))
	}
	r.roi = append(make([]float64, rank), slices.Repeat([]float64{1}, rank)...)
	for i, a := range axes {
		r.roi[a], r.roi[rank+a] = roi[i], roi[len(axes)+i]
	}
}

func (r *resize) byScales(c *Ctx, s, axes []int, scales []float64) {
	axes = allAxes(axes, len(s))
	if len(scales) != len(axes) {
		c.Fail("%d scales for %d axes", len(scales), len(axes))
	}
	r.out, r.scale = slices.Clone(s), slices.Repeat([]float64{1}, len(s))
	for i, a := range axes {
		if !(scales[i] > 0) || math.IsInf(scales[i], 0) {
			c.Fail("scale %g", scales[i])
		}
		r.scale[a] = scales[i]
		// Scales are f32: 10 × 0.7 is 7 there, and below 7 in wider arithmetic.
		r.out[a] = int(math.Floor(float64(float32(s[a]) * float32(scales[i]))))
	}
}

func (r *resize) bySizes(c *Ctx, s, axes []int, sizes []float64) {
	axes = allAxes(axes, len(s))
	if len(sizes) != len(axes) {
		c.Fail("%d sizes for %d axes", len(sizes), len(axes))
	}
	r.out, r.scale = slices.Clone(s), slices.Repeat([]float64{1}, len(s))
	policy := c.OneOf("keep_aspect_ratio_policy", c.N.Str("keep_aspect_ratio_policy", "stretch"), "stretch", "not_larger", "not_smaller")
	common := math.NaN()
	for i, a := range axes {
		if sizes[i] < 0 || s[a] == 0 && sizes[i] > 0 {
			c.Fail("size %g for an axis of size %d", sizes[i], s[a])
		}
		r.out[a] = int(sizes[i])
		if s[a] > 0 {
			r.scale[a] = sizes[i] / float64(s[a])
		}
		switch {
		case math.IsNaN(common):
			common = r.scale[a]
		case policy == "not_larger":
			common = min(common, r.scale[a])
		case policy == "not_smaller":
			common = max(common, r.scale[a])
		}
	}
	if policy == "stretch" {
		return
	}
	for _, a := range axes {
		r.scale[a] = common
		r.out[a] = int(math.Floor(common*float64(s[a]) + 0.5))
	}
}

// run resizes the axes that change.
func (r *resize) run(c *Ctx, x *ir.Value) *ir.Value {
	b, s, d := c.B, core.Shape(x), x.DType()
	if tensor.Numel(r.out) == 0 || tensor.Numel(s) == 0 {
		if tensor.Numel(r.out) > 0 {
			c.Fail("nothing to sample: the input is %s", tensor.ShapeString(s))
		}
		return b.Const(tensor.New(d, r.out...))
	}
	if r.mode == "nearest" {
		return r.runNearest(c, x)
	}
	y := b.Cast(x, workType(d))
	// Axes that shrink most go first, so that later ones have less to do.
	order := allAxes(nil, len(s))
	slices.SortStableFunc(order, func(i, j int) int {
		return int(math.Copysign(1, float64(r.out[i])/float64(s[i])-float64(r.out[j])/float64(s[j])))
	})
	for _, a := range order {
		if !r.identity(a, s[a]) {
			y = r.interpolate(c, y, a)
		}
	}
	return b.Cast(y, d)
}

// identity reports that an axis stays as it is.
func (r *resize) identity(a, n int) bool {
	if r.out[a] != n || r.scale[a] != 1 {
		return false
	}
	return r.coords != "tf_crop_and_resize" || r.roi[a] == 0 && r.roi[len(r.out)+a] == 1
}

// source is the input position that output i of an axis samples. It is computed
// in f32, as runtimes do: where a sample falls half-way between two elements,
// the last bit decides which of them is nearest.
func (r *resize) source(a, i, n int) float64 {
	x, in, out, scale := float32(i), float32(n), float32(r.out[a]), float32(r.scale[a])
	switch r.coords {
	case "align_corners":
		return r.aligned(a, i, n)
	case "asymmetric":
		return float64(x / scale)
	case "tf_half_pixel_for_nn":
		return float64((x + 0.5) / scale)
	case "pytorch_half_pixel":
		if r.out[a] <= 1 {
			return 0
		}
	case "tf_crop_and_resize":
		lo, hi := float32(r.roi[a]), float32(r.roi[len(r.out)+a])
		if r.out[a] <= 1 {
			return float64(0.5 * (lo + hi) * (in - 1))
		}
		return float64(lo*(in-1) + x*(hi-lo)*(in-1)/(out-1))
	case "half_pixel_symmetric":
		return float64(in/2*(1-out/(scale*in)) + (x+0.5)/scale - 0.5)
	}
	return float64((x+0.5)/scale - 0.5)
}

// aligned maps the first element to the first and the last to the last of a
// length that need not be whole: scale times the input.
func (r *resize) aligned(a, i, n int) float64 {
	out := r.scale[a] * float64(n)
	if out == 1 {
		return 0
	}
	return float64(i) * float64(n-1) / (out - 1)
}

// outside marks the outputs of an axis that sample beyond the input; nil: none.
func (r *resize) outside(a, n int) *tensor.Tensor {
	if r.coords != "tf_crop_and_resize" {
		return nil
	}
	t, any := tensor.New(tensor.Bool, r.out[a]), false
	for i := range r.out[a] {
		if x := r.source(a, i, n); x < 0 || x > float64(n-1) {
			t.SetInt(i, 1)
			any = true
		}
	}
	if !any {
		return nil
	}
	return t
}

// along gives a vector the rank that broadcasts it along an axis.
func along(b *core.Builder, v *ir.Value, axis, rank int) *ir.Value {
	s := slices.Repeat([]int{1}, rank)
	s[axis] = core.Shape(v)[0]
	return b.Reshape(v, s...)
}

// extrapolate replaces what lies outside.
func (r *resize) extrapolate(c *Ctx, y *ir.Value, a, n int) *ir.Value {
	out := r.outside(a, n)
	if out == nil {
		return y
	}
	return c.B.Where(along(c.B, c.B.Const(out), a, y.Rank()), c.B.Like(y, r.fill), y)
}

func (r *resize) runNearest(c *Ctx, x *ir.Value) *ir.Value {
	b, s := c.B, core.Shape(x)
	// Whole factors are copies side by side: one broadcast for all axes.
	var wide, full, done []int
	factors := false
	for a, n := range s {
		k := r.out[a] / n
		if r.out[a] == k*n && k > 1 && r.repeats(a, n, k) {
			factors = true
		} else {
			k = 1
		}
		wide, full, done = append(wide, n, 1), append(full, n, k), append(done, n*k)
	}
	if factors {
		x = b.Reshape(b.BroadcastTo(b.Reshape(x, wide...), full...), done...)
	}
	for a, n := range s {
		if done[a] != n || r.identity(a, n) {
			continue
		}
		if r.out[a] < 0 || r.out[a] > core.MaxEvaluated {
			c.Fail("an output size of %d", r.out[a])
		}
		idx := make([]int, r.out[a])
		for i := range idx {
			idx[i] = r.pick(a, i, n)
		}
		x = r.extrapolate(c, take(c, x, a, idx), a, n)
	}
	return x
}

// repeats reports that output i of an axis is input i/k.
func (r *resize) repeats(a, n, k int) bool {
	for i := range r.out[a] {
		if r.pick(a, i, n) != i/k {
			return false
		}
	}
	return r.outside(a, n) == nil
}

// pick is the input element that is nearest to where output i samples.
func (r *resize) pick(a, i, n int) int {
	x := r.source(a, i, n)
	f := math.Floor(x)
	switch {
	case r.nearest == "ceil", r.nearest == "simple" && r.scale[a] < 1, r.nearest == "round_prefer_ceil" && x-f >= 0.5, r.nearest == "round_prefer_floor" && x-f > 0.5:
		f = math.Ceil(x)
	}
	return min(max(int(f), 0), n-1)
}

// take reads constant positions of an axis: as a slice where they are evenly
// spaced.
func take(c *Ctx, x *ir.Value, a int, idx []int) *ir.Value {
	s := core.Shape(x)
	step := 1
	if len(idx) > 1 {
		step = idx[1] - idx[0]
	}
	even := step != 0
	for i := 2; i < len(idx) && even; i++ {
		even = idx[i]-idx[i-1] == step
	}
	if !even {
		return c.B.Gather(x, a, c.B.Ints(idx...))
	}
	starts, steps, sizes := make([]int, len(s)), slices.Repeat([]int{1}, len(s)), slices.Clone(s)
	starts[a], steps[a], sizes[a] = idx[0], step, len(idx)
	return c.B.Slice(x, starts, sizes, steps)
}
