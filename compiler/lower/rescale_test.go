package lower_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestSumsOfBytes holds that the quantized sum or difference of two quantized
// tensors is, for all pairs of bytes, that of real numbers: with the scales that
// the model states, rounded to the nearest byte, where it is not within
// 1/5000 of the middle of two.
func TestSumsOfBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 1))
	for round := range 12 {
		d := []tensor.DType{tensor.U8, tensor.I8}[round%2]
		low, _ := d.IntRange()
		draw := func() (scale float64, zero int64) {
			return float64(float32(math.Exp(r.Float64()*3 - 5))), low + r.Int64N(256)
		}
		sa, za := draw()
		sb, zb := draw()
		_, zy := draw()
		sy := float64(float32((sa + sb) * (0.3 + r.Float64())))
		b := byteGraph{core.NewBuilder("g")}
		x := b.dequantize(b.Input("x", d, 256, 256), sa, float64(za))
		y := b.dequantize(b.Input("y", d, 256, 256), sb, float64(zb))
		bound := math.Inf(-1)
		sum := b.Add(x, y)
		switch round % 3 {
		case 1:
			sum, sb = b.Sub(x, y), -sb
		case 2:
			sum, bound = b.Relu(sum), 0
		}
		b.Output(b.quantize(sum, sy, float64(zy), d))
		in := []*tensor.Tensor{tensor.New(d, 256, 256), tensor.New(d, 256, 256)}
		for i := range 1 << 16 {
			in[0].Bytes()[i], in[1].Bytes()[i] = byte(i), byte(i>>8)
		}
		p, err := lower.Lower(b.G, lower.Options{Lanes: 16, Regs: 32})
		if err != nil {
			t.Fatal(err)
		}
		out := ran(t, p, in...)
		near := 0
		for i := range 1 << 16 {
			v := max(float64(in[0].Int(i)-za)*sa+float64(in[1].Int(i)-zb)*sb, bound) / sy
			want := min(max(int64(math.RoundToEven(v))+zy, low), low+255)
			got := out[0].Int(i)
			if got == want {
				continue
			}
			if near++; got-want > 1 || want-got > 1 || math.Abs(v-math.Floor(v)-0.5) > 2e-4 {
				t.Fatalf("round %d: %d of scale %g and %d of scale %g over %g, %g, gave %d, not %d", round, in[0].Int(i)-za, sa, in[1].Int(i)-zb, sb, sy, v, got, want)
			}
		}
		if near > 1<<16/100 {
			t.Errorf("round %d: %d results fell to the other side of a middle", round, near)
		}
	}
}
