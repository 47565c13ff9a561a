package lower_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// qlayer is a quantized convolution, 1x1, with eight-bit values, and its answer
// in whole numbers.
type qlayer struct {
	ic, oc, pixels int
	x, w           []int // around their zero points
	bias           []int
	sx, sy         float32
	sw             []float32 // one, or one for each output channel
	lo, hi         float64   // clips in real numbers
	zero           int       // of the output
}

// drawLayer draws a layer whose scales make a half of nearly every odd sum, so
// that the last bit decides where it is rounded to.
func drawLayer(r *rand.Rand, perChannel bool) qlayer {
	q := qlayer{ic: 24, oc: 16, pixels: 20, sx: float32(r.Float64()/64 + 0.001), zero: r.IntN(20)}
	n, sw := 1, r.Float64()/64+0.001
	if perChannel {
		n = q.oc
	}
	for range n {
		q.sw = append(q.sw, float32(sw*(1+float64(r.IntN(5)-2)*0x1p-23)))
	}
	q.sy = float32(float64(q.sx) * sw * 2)
	q.hi = 200 * float64(q.sy)
	for range q.ic * q.pixels {
		q.x = append(q.x, r.IntN(9)-4)
	}
	for range q.ic * q.oc {
		q.w = append(q.w, r.IntN(9)-4)
	}
	for range q.oc {
		q.bias = append(q.bias, r.IntN(401)-100)
	}
	return q
}

// graph states the layer as QDQ models do: operands and bias scaled first.
func (q qlayer) graph() *ir.Graph {
	b := core.NewBuilder("q")
	in := b.Input("x", tensor.I16, 1, q.ic, 1, q.pixels)
	x := b.Cast(in, tensor.F32)
	x = b.Mul(x, b.Scalar(tensor.F32, float64(q.sx)))
	w, ws := tensor.New(tensor.I8, q.oc, q.ic, 1, 1), tensor.New(tensor.F32, len(q.sw), 1, 1, 1)
	for i, v := range q.w {
		w.SetInt(i, int64(v))
	}
	for i, v := range q.sw {
		ws.SetFloat(i, float64(v))
	}
	wf := b.Mul(b.Cast(b.Const(w), tensor.F32), b.BroadcastTo(b.Const(ws), w.Shape...))
	bias := tensor.New(tensor.F32, 1, q.oc, 1, 1)
	for i, v := range q.bias {
		bias.SetFloat(i, float64(float32(v)*(q.sx*q.sw[i%len(q.sw)])))
	}
	y := b.Conv(x, wf, core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{0, 0}, Hi: []int{0, 0}, Groups: 1})
	y = b.Add(y, b.BroadcastTo(b.Const(bias), y.Static()...))
	y = b.Min(b.Max(y, b.Like(y, q.lo)), b.Like(y, q.hi))
	y = b.Round(b.Div(y, b.Like(y, float64(q.sy))))
	y = b.Add(y, b.Like(y, float64(q.zero)))
	b.Output(b.Cast(b.Min(b.Max(y, b.Like(y, 0)), b.Like(y, 255)), tensor.U8))
	return b.G
}

// answer computes an output as integer kernels do: a whole sum, one product.
func (q qlayer) answer(channel, pixel int) int {
	sum := q.bias[channel]
	for i := range q.ic {
		sum += q.x[i*q.pixels+pixel] * q.w[channel*q.ic+i]
	}
	s := float64(q.sx * q.sw[channel%len(q.sw)])
	v := float64(float32(sum) * float32(s/float64(q.sy)))
	v = min(max(v, q.lo), float64(float32(q.hi/float64(q.sy))))
	return int(min(max(math.RoundToEven(v)+float64(q.zero), 0), 255))
}

// TestRequantization holds that quantized layers give the integers of integer
// kernels, with one scale or one for each channel, at every width.
func TestRequantization(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 5))
	for round := range 20 {
		q := drawLayer(r, round%2 == 1)
		in := tensor.New(tensor.I16, 1, q.ic, 1, q.pixels)
		for i, v := range q.x {
			in.SetInt(i, int64(v))
		}
		for _, o := range widths {
			p, err := lower.Lower(q.graph(), o)
			if err != nil {
				t.Fatal(err)
			}
			out := ran(t, p, in)
			for i := range out[0].Len() {
				if got, want := out[0].Int(i), q.answer(i/q.pixels, i%q.pixels); int(got) != want {
					t.Fatalf("round %d, %d lanes: element %d is %d, not %d", round, o.Lanes, i, got, want)
				}
			}
		}
	}
}
