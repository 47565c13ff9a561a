package onnx

import (
	"math"
	"sort"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// geometryOps work on boxes.
var geometryOps = []Op{
	{Name: "RoiAlign", Since: []int{10, 16, 22}, Expand: expandRoiAlign},
	{Name: "NonMaxSuppression", Since: []int{10, 11}, Expand: expandNonMaxSuppression},
}

// roiAlign is one RoiAlign node.
type roiAlign struct {
	c            *Ctx
	b            *core.Builder
	pixels       *ir.Value // [batch·height·width, channels]
	height       int
	width        int
	outH, outW   int
	max          bool
	scale, shift float64
	work         tensor.DType
}

func expandRoiAlign(c *Ctx) {
	b, x, rois, images := c.B, c.In(0), c.In(1), c.In(2)
	s := core.Shape(x)
	if len(s) != 4 || rois.Rank() != 2 || core.Shape(rois)[1] != 4 || images.Rank() != 1 || core.Shape(images)[0] != core.Shape(rois)[0] {
		c.Fail("input %s, rois %s and batch indices %s do not fit", x.Type, rois.Type, images.Type)
	}
	r := &roiAlign{c: c, b: b, height: s[2], width: s[3], outH: c.N.Int("output_height", 1), outW: c.N.Int("output_width", 1), scale: c.N.Float("spatial_scale", 1), work: workType(x.DType())}
	r.max = c.OneOf("mode", c.N.Str("mode", "avg"), "avg", "max") == "max"
	if c.Version >= 16 && c.OneOf("coordinate_transformation_mode", c.N.Str("coordinate_transformation_mode", "half_pixel"), "half_pixel", "output_half_pixel") == "half_pixel" {
		r.shift = 0.5
	}
	if r.outH < 1 || r.outW < 1 {
		c.Fail("an output of %d × %d bins", r.outH, r.outW)
	}
	n := core.Shape(rois)[0]
	if n == 0 {
		c.Out(0, b.Const(tensor.New(x.DType(), 0, s[1], r.outH, r.outW)))
		return
	}
	r.pixels = b.Reshape(b.Transpose(x, 0, 2, 3, 1), s[0]*s[2]*s[3], s[1])
	rois, images = b.Cast(rois, r.work), b.Cast(images, tensor.I64)
	ratio := c.N.Int("sampling_ratio", 0)
	if ratio > 0 {
		c.Out(0, b.Cast(r.pool(rois, images, ratio, ratio), x.DType()))
		return
	}
	// Each region has its own number of samples, which must be known.
	if rois.Const == nil {
		c.Dynamic("rois (with sampling_ratio 0, which makes the number of samples depend on them)")
	}
	parts := make([]*ir.Value, n)
	for i := range parts {
		box := rois.Const
		extent := func(lo, hi int) float64 {
			d := (box.Float(4*i+hi) - box.Float(4*i+lo)) * r.scale
			if r.shift == 0 {
				d = max(d, 1)
			}
			return d
		}
		sh, sw := int(math.Ceil(extent(1, 3)/float64(r.outH))), int(math.Ceil(extent(0, 2)/float64(r.outW)))
		if sh < 1 || sw < 1 { // an empty region has no samples
			parts[i] = b.Const(tensor.New(r.work, 1, s[1], r.outH, r.outW))
			continue
		}
		parts[i] = r.pool(b.SliceAxis(rois, 0, i, 1), b.SliceAxis(images, 0, i, 1), sh, sw)
	}
	c.Out(0, b.Cast(b.Concat(0, parts...), x.DType()))
}

func (r *roiAlign) k(v float64) *ir.Value { return r.b.Scalar(r.work, v) }

// axis gives, for samples of one axis of all regions, [regions, out·per]: the
// two neighbours, the weight of the second, and whether the sample counts.
func (r *roiAlign) axis(rois *ir.Value, lo, hi, out, per, size int) (i0, i1, f, ok *ir.Value) {
	b := r.b
	edge := func(k int) *ir.Value {
		return b.Sub(b.Mul(b.SliceAxis(rois, 1, k, 1), r.k(r.scale)), r.k(r.shift))
	}
	start := edge(lo)
	length := b.Sub(edge(hi), start)
	if r.shift == 0 {
		length = b.Max(length, r.k(1))
	}
	at := tensor.New(r.work, 1, out*per) // in units of a bin
	for i := range out * per {
		at.SetFloat(i, (float64(i)+0.5)/float64(per))
	}
	p := b.Add(start, b.Mul(b.Const(at), b.Div(length, r.k(float64(out)))))
	ok = b.And(b.Le(r.k(-1), p), b.Le(p, r.k(float64(size))))
	last := r.k(float64(size - 1))
	p = b.Max(r.k(0), b.Min(p, last))
	low := b.Floor(p)
	f = b.Sub(p, low)
	i0 = b.Cast(low, tensor.I64)
	i1 = b.Cast(b.Min(b.Add(low, r.k(1)), last), tensor.I64)
	return i0, i1, f, ok
}

// pool samples every bin sh × sw times and combines the samples.
func (r *roiAlign) pool(rois, images *ir.Value, sh, sw int) *ir.Value {
	b, n := r.b, core.Shape(rois)[0]
	y0, y1, fy, oky := r.axis(rois, 1, 3, r.outH, sh, r.height)
	x0, x1, fx, okx := r.axis(rois, 0, 2, r.outW, sw, r.width)
	rows := func(v *ir.Value) *ir.Value { return b.Reshape(v, n, r.outH*sh, 1) }
	cols := func(v *ir.Value) *ir.Value { return b.Reshape(v, n, 1, r.outW*sw) }
	base := b.Mul(b.Reshape(images, n, 1, 1), b.ScalarInt(tensor.I64, int64(r.height*r.width)))
	ok := b.And(rows(oky), cols(okx))
	one := r.k(1)
	corner := func(y, x, wy, wx *ir.Value) *ir.Value {
		at := b.Add(b.Add(base, b.Mul(rows(y), b.ScalarInt(tensor.I64, int64(r.width)))), cols(x))
		w := b.Where(ok, b.Mul(rows(wy), cols(wx)), r.k(0))
		return b.Mul(b.Cast(b.Gather(r.pixels, 0, at), r.work), b.Reshape(w, n, r.outH*sh, r.outW*sw, 1))
	}
	gy, gx := b.Sub(one, fy), b.Sub(one, fx)
	v := []*ir.Value{corner(y0, x0, gy, gx), corner(y0, x1, gy, fx), corner(y1, x0, fy, gx), corner(y1, x1, fy, fx)}
	join, fold := b.Add, "reduce_sum"
	if r.max { // ONNX takes the greatest weighted corner, without adding them
		join, fold = b.Max, "reduce_max"
	}
	y := join(join(v[0], v[1]), join(v[2], v[3]))
	ch := core.Shape(r.pixels)[1]
	y = b.Reduce(fold, b.Reshape(y, n, r.outH, sh, r.outW, sw, ch), false, 2, 4)
	if !r.max {
		y = b.Mul(y, r.k(1/float64(sh*sw)))
	}
	return b.Transpose(y, 0, 3, 1, 2)
}

// box is a corner form rectangle.
type box struct{ y0, x0, y1, x1 float64 }

func (a box) overlap(b box) float64 {
	h, w := min(a.y1, b.y1)-max(a.y0, b.y0), min(a.x1, b.x1)-max(a.x0, b.x0)
	area := func(r box) float64 { return (r.y1 - r.y0) * (r.x1 - r.x0) }
	if h <= 0 || w <= 0 || area(a) <= 0 || area(b) <= 0 {
		return 0
	}
	return h * w / (area(a) + area(b) - h*w)
}

// expandNonMaxSuppression gives as many boxes as survive: its shape is data.
func expandNonMaxSuppression(c *Ctx) {
	boxes, scores := c.Tensor(0, "boxes"), c.Tensor(1, "scores")
	if len(boxes.Shape) != 3 || len(scores.Shape) != 3 || boxes.Shape[2] != 4 || boxes.Shape[0] != scores.Shape[0] || boxes.Shape[1] != scores.Shape[2] {
		c.Fail("boxes %s and scores %s do not fit", boxes, scores)
	}
	scalar := func(i int, what string, def float64) float64 {
		if v := c.given(i, what); len(v) > 0 {
			return v[0]
		}
		return def
	}
	limit := int(scalar(2, "max_output_boxes_per_class", 0))
	iou, least := scalar(3, "iou_threshold", 0), scalar(4, "score_threshold", math.Inf(-1))
	centred := c.N.Int("center_point_box", 0) == 1
	n, classes := boxes.Shape[1], scores.Shape[1]
	var out []int64
	for im := range boxes.Shape[0] {
		all := make([]box, n)
		for i := range all {
			all[i] = boxAt(boxes, (im*n+i)*4, centred)
		}
		for cl := range classes {
			base := (im*classes + cl) * n
			for _, i := range suppress(all, func(i int) float64 { return scores.Float(base + i) }, limit, iou, least) {
				out = append(out, int64(im), int64(cl), int64(i))
			}
		}
	}
	c.Out(0, c.B.Const(tensor.Of(out, len(out)/3, 3)))
}

func boxAt(t *tensor.Tensor, i int, centred bool) box {
	a, b, d, e := t.Float(i), t.Float(i+1), t.Float(i+2), t.Float(i+3)
	if centred { // x, y, width, height
		return box{b - e/2, a - d/2, b + e/2, a + d/2}
	}
	return box{min(a, d), min(b, e), max(a, d), max(b, e)}
}

// suppress picks boxes by falling score, leaving out those that overlap a
// picked one.
func suppress(boxes []box, score func(int) float64, limit int, iou, least float64) []int {
	var order, kept []int
	for i := range boxes {
		if score(i) > least {
			order = append(order, i)
		}
	}
	sort.SliceStable(order, func(a, b int) bool { return score(order[a]) > score(order[b]) })
	for _, i := range order {
		if len(kept) >= limit {
			break
		}
		free := true
		for _, k := range kept {
			if boxes[i].overlap(boxes[k]) > iou {
				free = false
				break
			}
		}
		if free {
			kept = append(kept, i)
		}
	}
	return kept
}
