package onnx

import (
	"math"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// taps are the input elements that one output of an axis is a weighted sum of,
// from base on.
type taps struct {
	base   int
	weight []float64
}

// interpolate resizes one axis by weighted sums: few taps are read one by one,
// many (antialiasing) are a product with a matrix of weights.
func (r *resize) interpolate(c *Ctx, x *ir.Value, a int) *ir.Value {
	n := core.Shape(x)[a]
	rows := make([]taps, r.out[a])
	width := 0
	for i := range rows {
		rows[i] = r.taps(a, i, n)
		width = max(width, len(rows[i].weight))
	}
	var y *ir.Value
	if width <= 4 {
		y = sumTaps(c, x, a, rows, width)
	} else {
		y = mixTaps(c, x, a, rows)
	}
	return r.extrapolate(c, y, a, n)
}

func sumTaps(c *Ctx, x *ir.Value, a int, rows []taps, width int) *ir.Value {
	b, n := c.B, core.Shape(x)[a]
	var y *ir.Value
	for k := range width {
		idx, w := make([]int, len(rows)), tensor.New(x.DType(), len(rows))
		used := false
		for i, t := range rows {
			idx[i] = min(max(t.base+k, 0), n-1)
			w.SetFloat(i, t.weight[k])
			used = used || t.weight[k] != 0
		}
		if !used {
			continue
		}
		term := b.Mul(take(c, x, a, idx), along(b, b.Const(w), a, x.Rank()))
		if y == nil {
			y = term
		} else {
			y = b.Add(y, term)
		}
	}
	return y
}

func mixTaps(c *Ctx, x *ir.Value, a int, rows []taps) *ir.Value {
	b, n := c.B, core.Shape(x)[a]
	m := tensor.New(x.DType(), len(rows), n)
	for i, t := range rows {
		for k, w := range t.weight {
			at := i*n + min(max(t.base+k, 0), n-1)
			m.SetFloat(at, m.Float(at)+w)
		}
	}
	y := b.Dot(x, b.Const(m), nil, nil, []int{a}, []int{1}, tensor.Invalid)
	perm := allAxes(nil, x.Rank()) // the resized axis is last: put it back
	copy(perm[a+1:], perm[a:])
	perm[a] = x.Rank() - 1
	return b.Transpose(y, perm...)
}

// taps gives the weights of output i of an axis of n.
func (r *resize) taps(a, i, n int) taps {
	x := r.source(a, i, n)
	base := math.Ceil(x) - 1 // a whole position is its right neighbour: ratio is in (0, 1]
	ratio := x - base
	scale := 1.0
	if r.antialias {
		scale = min(r.scale[a], 1)
	}
	kernel, reach := linearKernel, 1.0
	if r.mode == "cubic" {
		kernel, reach = func(v float64) float64 { return cubicKernel(v, r.cubicA) }, 2
	}
	lo := int(math.Floor(-reach/scale)) + 1
	hi := 1 - lo // the mirror image of lo around the half-way point
	t := taps{base: int(base) + lo}
	sum := 0.0
	for k := lo; k <= hi; k++ {
		w := kernel((float64(k) - ratio) * scale)
		if at := int(base) + k; r.exclude && (at < 0 || at >= n) {
			w = 0
		}
		t.weight = append(t.weight, w)
		sum += w
	}
	if (r.exclude || scale < 1) && sum != 0 {
		for k := range t.weight {
			t.weight[k] /= sum
		}
	}
	return t
}

func linearKernel(x float64) float64 { return max(0, 1-math.Abs(x)) }

// cubicKernel is the cubic convolution of Keys.
func cubicKernel(x, a float64) float64 {
	x = math.Abs(x)
	switch {
	case x <= 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return ((a*x-5*a)*x+8*a)*x - 4*a
	}
	return 0
}
