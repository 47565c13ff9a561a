package onnx

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// scattered is a transposed convolution as its definition says it: every pixel
// adds the kernel, as much of it as it says, to the image that pads are cut off.
func scattered(x, w *tensor.Tensor, stride, lo, hi int) *tensor.Tensor {
	n, ic, size := x.Shape[0], x.Shape[1], x.Shape[2]
	oc, k := w.Shape[1], w.Shape[2]
	out := (size-1)*stride + k - lo - hi
	y := tensor.New(tensor.F32, n, oc, out, out)
	for i := range x.Len() {
		image, c, row, col := i/(ic*size*size), i/(size*size)%ic, i/size%size, i%size
		for j := range oc * k * k {
			r, q := row*stride-lo+j/k%k, col*stride-lo+j%k
			if r >= 0 && q >= 0 && r < out && q < out {
				at := ((image*oc+j/(k*k))*out+r)*out + q
				y.SetFloat(at, y.Float(at)+x.Float(i)*w.Float(c*oc*k*k+j))
			}
		}
	}
	return y
}

// TestTransposedSizes holds that transposed convolutions are what their
// definition says, on single pixels, on maps so small that pads take much off,
// and on others, with pads that are alike and not. All numbers are small and
// whole, so that sums are exact.
func TestTransposedSizes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	whole := func(shape ...int) *tensor.Tensor {
		x := tensor.New(tensor.F32, shape...)
		for i := range x.Len() {
			x.SetFloat(i, float64(r.IntN(9)-4))
		}
		return x
	}
	var rows []rowCase
	for _, c := range []struct{ size, k, stride, lo, hi int }{
		{1, 4, 1, 0, 0}, {1, 4, 2, 1, 1}, {1, 3, 2, 0, 1}, {2, 4, 2, 1, 1}, {3, 4, 2, 1, 1}, {4, 4, 2, 1, 1}, {4, 4, 2, 2, 0}, {4, 4, 2, 0, 2}, {3, 6, 2, 2, 2},
		{3, 6, 2, 3, 1}, {3, 6, 3, 2, 1}, {4, 4, 2, 2, 2}, {2, 4, 2, 3, 1}, {7, 4, 2, 1, 1}, {4, 5, 2, 2, 2}, {3, 8, 4, 2, 2}, {3, 2, 2, 0, 0}, {3, 4, 1, 1, 1},
		{2, 16, 8, 4, 4}, {3, 8, 8, 0, 0}, {2, 24, 8, 3, 5}, {2, 32, 16, 10, 6}, {3, 9, 8, 1, 0},
	} {
		x, w := whole(2, 3, c.size, c.size), whole(3, 2, c.k, c.k)
		rows = append(rows, rowCase{name: fmt.Sprint(c), op: "ConvTranspose", opset: 11, in: []*tensor.Tensor{x, w}, want: []*tensor.Tensor{scattered(x, w, c.stride, c.lo, c.hi)},
			attrs: []ir.Attr{attr("strides", []int{c.stride, c.stride}), attr("pads", []int{c.lo, c.lo, c.hi, c.hi})}})
	}
	runRows(t, rows)
}
