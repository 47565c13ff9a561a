package lower_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// nearest is a quotient rounded to a whole number, the even one of two, in
// whole numbers.
func nearest(sum, n int64) int64 {
	q := sum / n
	if q*n > sum {
		q--
	}
	if rest := 2 * (sum - q*n); rest > n || rest == n && q%2 != 0 {
		q++
	}
	return q
}

// TestMeansOfBytes holds that means of quantized values whose scale stays are the
// nearest bytes, ties to even: over maps, where an even number of pixels makes
// such ties, and over windows, at edges too.
func TestMeansOfBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	const channels = 20
	for _, size := range []int{1, 2, 7, 14} {
		for _, d := range []tensor.DType{tensor.U8, tensor.I8} {
			t.Run(fmt.Sprintf("%d×%d/%s", size, size, d), func(t *testing.T) {
				low, _ := d.IntRange()
				zero := low + 121
				b := byteGraph{core.NewBuilder("g")}
				x := b.dequantize(b.Input("x", d, 1, channels, size, size), 0.02, float64(zero))
				n := size * size
				mean := b.Reduce("reduce_sum", x, true, 2, 3)
				b.Output(b.quantize(b.Div(mean, b.Like(mean, float64(n))), 0.02, float64(zero), d))
				window := b.Window("window_sum", x, []int{2, 2}, core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{1, 1}, Hi: []int{0, 0}, Groups: 1})
				b.Output(b.quantize(b.Div(window, b.Like(window, 4)), 0.02, float64(zero), d))
				in := tensor.New(d, 1, channels, size, size)
				for i := range in.Len() {
					in.SetInt(i, low+100+r.Int64N(30))
				}
				for c := range channels { // a sum that is in the middle between two, where one can be
					at := c * n
					for sum := int64(0); n%2 == 0; at++ {
						sum = 0
						for i := range n {
							sum += in.Int(c*n+i) - zero
						}
						rest := (sum - int64(n/2)) % int64(n)
						if rest == 0 || at == c*n+n {
							break
						}
						if rest < 0 {
							rest += int64(n)
						}
						in.SetInt(at, max(in.Int(at)-rest, low))
					}
				}
				got := bytesOf(t, b.G, in)
				byteAt := func(v int64) int64 { return min(max(v+zero, low), low+255) }
				for c := range channels {
					sum := int64(0)
					for i := range n {
						sum += in.Int(c*n+i) - zero
					}
					if want := byteAt(nearest(sum, int64(n))); got[0].Int(c) != want {
						t.Errorf("mean %d/%d is %d, not %d", sum, n, got[0].Int(c)-zero, want-zero)
					}
				}
				for i := range got[1].Len() {
					c, y, x := i/n, i/size%size, i%size
					sum := int64(0)
					for k := range 4 {
						if h, w := y-k/2, x-k%2; h >= 0 && w >= 0 {
							sum += in.Int(c*n+h*size+w) - zero
						}
					}
					if want := byteAt(nearest(sum, 4)); got[1].Int(i) != want {
						t.Errorf("window %d: %d/4 is %d, not %d", i, sum, got[1].Int(i)-zero, want-zero)
					}
				}
			})
		}
	}
}

// bytesOf runs a graph of one input at 16 lanes in the interpreter.
func bytesOf(t *testing.T, g *ir.Graph, in *tensor.Tensor) []*tensor.Tensor {
	t.Helper()
	p, err := lower.Lower(g, lower.Options{Lanes: 16, Regs: 32})
	if err != nil {
		t.Fatal(err)
	}
	return ran(t, p, in)
}
