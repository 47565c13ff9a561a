package onnx

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// signalOps are Fourier transforms, as products with a constant matrix, and
// the tables that go with them.
var signalOps = []Op{
	{Name: "DFT", Since: []int{17, 20}, Expand: expandDFT},
	{Name: "STFT", Since: []int{17}, Expand: expandSTFT},
	{Name: "HannWindow", Since: []int{17}, Expand: windowOp(0.5, 0.5, 0)},
	{Name: "HammingWindow", Since: []int{17}, Expand: windowOp(25./46, 21./46, 0)},
	{Name: "BlackmanWindow", Since: []int{17}, Expand: windowOp(0.42, 0.5, 0.08)},
	{Name: "MelWeightMatrix", Since: []int{17}, Expand: expandMelWeightMatrix},
}

// fourier is the shape of a transform of n samples.
type fourier struct {
	n                 int
	rows              int // samples or bins that are given
	in, out           int // 1: real numbers, 2: complex ones
	bins              int // results
	inverse, onesided bool
}

// matrix is [rows, in, bins, out]: what each part of each sample gives to each
// part of each bin.
func (f fourier) matrix(d tensor.DType) *tensor.Tensor {
	t := tensor.New(d, f.rows, f.in, f.bins, f.out)
	cos, sin := make([]float64, f.n), make([]float64, f.n)
	for i := range f.n {
		sin[i], cos[i] = math.Sincos(2 * math.Pi * float64(i) / float64(f.n))
	}
	at := func(r, i, b, o int) int { return ((r*f.in+i)*f.bins+b)*f.out + o }
	for r := range f.rows {
		weight := 1.0
		if f.inverse {
			weight = 1 / float64(f.n)
		}
		if f.inverse && f.onesided && r > 0 && 2*r != f.n {
			weight *= 2 // the other half of the spectrum mirrors this one
		}
		for b := range f.bins {
			c, s := weight*cos[r*b%f.n], -weight*sin[r*b%f.n]
			if f.inverse {
				s = -s
			}
			t.SetFloat(at(r, 0, b, 0), c)
			if f.out == 2 {
				t.SetFloat(at(r, 0, b, 1), s)
			}
			if f.in == 2 {
				t.SetFloat(at(r, 1, b, 0), -s)
			}
			if f.in == 2 && f.out == 2 {
				t.SetFloat(at(r, 1, b, 1), c)
			}
		}
	}
	return t
}

// spectral is the type that a transform is computed in: evaluation has room for
// bins that cancel to nearly nothing.
func spectral(x *ir.Value) tensor.DType {
	if x.Const != nil {
		return tensor.F64
	}
	return workType(x.DType())
}

func expandDFT(c *Ctx) {
	b, x := c.B, c.In(0)
	s := core.Shape(x)
	rank := len(s)
	if rank < 2 || s[rank-1] != 1 && s[rank-1] != 2 {
		c.Fail("input %s: the last axis holds a real number or its real and imaginary part", x.Type)
	}
	axis := c.N.Int("axis", 1)
	if c.Version >= 20 {
		axis = -2
		if a := c.Ints(2, "axis"); len(a) == 1 {
			axis = a[0]
		}
	}
	if axis = c.Axis(axis, rank); axis == rank-1 {
		c.Fail("axis %d is that of real and imaginary parts", axis)
	}
	f := fourier{in: s[rank-1], out: 2, inverse: c.N.Int("inverse", 0) == 1, onesided: c.N.Int("onesided", 0) == 1}
	back := f.inverse && f.onesided
	f.n = s[axis]
	if back {
		f.n = 2 * (s[axis] - 1)
	}
	if l := c.Ints(1, "dft_length"); len(l) == 1 {
		f.n = l[0]
	}
	if f.n < 1 {
		c.Fail("a transform of %d samples", f.n)
	}
	f.bins, f.rows = f.n, min(s[axis], f.n) // fewer samples than n are followed by zeros
	switch {
	case back:
		f.out = 1
		f.rows = min(s[axis], f.n/2+1)
	case f.onesided:
		f.bins = f.n/2 + 1
	}
	d := spectral(x)
	y := b.Dot(b.SliceAxis(b.Cast(x, d), axis, 0, f.rows), b.Const(f.matrix(d)), nil, nil, []int{axis, rank - 1}, []int{0, 1}, tensor.Invalid)
	// The bins are last but one: put them back where the samples were.
	perm := allAxes(nil, rank)
	copy(perm[axis+1:rank-1], perm[axis:rank-2])
	perm[axis] = rank - 2
	c.Out(0, b.Cast(b.Transpose(y, perm...), x.DType()))
}

// expandSTFT is a convolution: each kernel is a windowed row of the transform.
func expandSTFT(c *Ctx) {
	b, x, window := c.B, c.In(0), c.Opt(2)
	s := core.Shape(x)
	if len(s) == 2 {
		s = []int{s[0], s[1], 1}
		x = b.Reshape(x, s...)
	}
	if len(s) != 3 || s[2] != 1 && s[2] != 2 {
		c.Fail("signal %s", x.Type)
	}
	step := c.Ints(1, "frame_step")
	length := s[1]
	if window != nil {
		length = tensor.Numel(core.Shape(window))
	}
	if l := c.Ints(3, "frame_length"); len(l) == 1 {
		length = l[0]
	}
	if len(step) != 1 || step[0] < 1 || length < 1 || length > s[1] {
		c.Fail("frames of %d samples in steps of %v, of a signal of %d", length, step, s[1])
	}
	if window != nil && tensor.Numel(core.Shape(window)) != length {
		c.Fail("a window of %d for frames of %d", tensor.Numel(core.Shape(window)), length)
	}
	f := fourier{n: length, rows: length, in: s[2], out: 2, bins: length, onesided: c.N.Int("onesided", 1) == 1}
	if f.onesided {
		f.bins = length/2 + 1
	}
	d := spectral(x)
	w := b.Const(f.matrix(d))
	if window != nil {
		w = b.Mul(w, b.Reshape(b.Cast(window, d), length, 1, 1, 1))
	}
	w = b.Reshape(b.Transpose(w, 2, 3, 1, 0), f.bins*2, f.in, length)
	one, zero := []int{1}, []int{0}
	y := b.Conv(b.Transpose(b.Cast(x, d), 0, 2, 1), w, core.ConvSpec{Strides: step, Dilations: one, Lo: zero, Hi: zero, Groups: 1})
	frames := core.Shape(y)[2]
	c.Out(0, b.Cast(b.Reshape(b.Transpose(y, 0, 2, 1), s[0], frames, f.bins, 2), x.DType()))
}

// number is a constant operand of one element.
func (c *Ctx) number(i int, what string) float64 {
	t := c.Tensor(i, what)
	if t.Len() != 1 {
		c.Fail("%s has %d elements", what, t.Len())
	}
	return t.Float(0)
}

// tableType is the output_datatype of an op that makes a table.
func (c *Ctx) tableType() tensor.DType {
	d := tensor.DType(c.N.Int("output_datatype", int(tensor.F32)))
	if !d.IsNumeric() {
		c.Unsupported("output_datatype=%d", d)
	}
	return d
}

// windowOp makes a window of a sum of cosines: a0 - a1·cos + a2·cos of twice
// the angle.
func windowOp(a0, a1, a2 float64) func(*Ctx) {
	return func(c *Ctx) {
		n := int(c.number(0, "size"))
		if n < 0 || n > tensor.MaxElements>>10 {
			c.Fail("a window of size %d", n)
		}
		period := float64(n)
		if c.N.Int("periodic", 1) == 0 {
			period--
		}
		if n > 0 && period == 0 {
			c.Unsupported("a symmetric window of size 1")
		}
		t := tensor.New(c.tableType(), n)
		for i := range n {
			w := 2 * math.Pi * float64(i) / period
			t.SetFloat(i, a0-a1*math.Cos(w)+a2*math.Cos(2*w))
		}
		c.Out(0, c.B.Const(t))
	}
}

func expandMelWeightMatrix(c *Ctx) {
	bins, length := int(c.number(0, "num_mel_bins")), int(c.number(1, "dft_length"))
	rate, lo, hi := c.number(2, "sample_rate"), c.number(3, "lower_edge_hertz"), c.number(4, "upper_edge_hertz")
	if bins < 1 || length < 1 || rate <= 0 || lo < 0 || hi < lo {
		c.Fail("%d mel bins of %d samples at %g Hz from %g to %g Hz", bins, length, rate, lo, hi)
	}
	mel := func(f float64) float64 { return 2595 * math.Log10(1+f/700) }
	step := (mel(hi) - mel(lo)) / float64(bins+2)
	edge := make([]int, bins+2)
	rows := length/2 + 1
	for i := range edge {
		hz := 700 * (math.Pow(10, (float64(i)*step+mel(lo))/2595) - 1)
		edge[i] = int(math.Floor(float64(length+1) * hz / rate))
	}
	if slices.Max(edge) > rows {
		c.Fail("upper_edge_hertz %g is beyond what %d samples at %g Hz tell apart", hi, length, rate)
	}
	t := tensor.New(c.tableType(), rows, bins)
	set := func(j, i int, v float64) {
		if j < rows {
			t.SetFloat(j*bins+i, v)
		}
	}
	for i := range bins {
		left, mid, right := edge[i], edge[i+1], edge[i+2]
		if left == mid {
			set(mid, i, 1)
		}
		for j := left; j <= mid && left < mid; j++ {
			set(j, i, float64(j-left)/float64(mid-left))
		}
		for j := mid; j < right; j++ {
			set(j, i, float64(right-j)/float64(right-mid))
		}
	}
	c.Out(0, c.B.Const(t))
}
