package cpu_test

import (
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestSpreadOfHostileRows holds that the variance found in one pass is as exact
// as f32 states (2e-6) where the elements at the beginning of a row are like the
// others, far from them, or all there is, and that constant rows and NaN are
// what they are in two passes.
func TestSpreadOfHostileRows(t *testing.T) {
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	kinds := []struct {
		name string
		at   func(i, n int) float64
	}{
		{"alike", func(i, n int) float64 { return rng.NormFloat64() }},
		{"beside zero", func(i, n int) float64 { return 10 + rng.NormFloat64() }},
		{"one far away", func(i, n int) float64 {
			if i == 0 {
				return 300
			}
			return rng.NormFloat64()
		}},
		{"a beginning far away", func(i, n int) float64 {
			if i < 70 {
				return 100 + rng.NormFloat64()
			}
			return rng.NormFloat64()
		}},
		{"a beginning alone", func(i, n int) float64 {
			if i < 64 {
				return 1000
			}
			return 0
		}},
		{"a slope", func(i, n int) float64 { return float64(i) }},
	}
	levels := []string{"native"}
	if runtime.GOARCH == "amd64" {
		levels = append(levels, "x86-64-v3")
	}
	for _, level := range levels {
		for _, n := range []int{771, 5000} {
			rows := 3 * len(kinds)
			x := tensor.New(tensor.F32, rows, n)
			in := tensor.As[float32](x)
			for r := range rows {
				for i := range n {
					in[r*n+i] = float32(kinds[r%len(kinds)].at(i, n))
				}
			}
			out := tensor.As[float32](compiled(t, level, normalized(n, rows), x)[0])
			for r := range rows {
				if e := offNormal(in[r*n:(r+1)*n], out[r*n:(r+1)*n]); !(e <= 2e-6) {
					t.Errorf("%s, %d elements, %s: off by %.2g", level, n, kinds[r%len(kinds)].name, e)
				}
			}
		}
	}
	special(t, levels[0])
}

// special runs rows that have no spread, and rows that are no numbers.
func special(t *testing.T, level string) {
	const n, rows = 200, 3
	x := tensor.New(tensor.F32, rows, n)
	in := tensor.As[float32](x)
	for i := range n {
		in[i], in[n+i], in[2*n+i] = 3, float32(i), float32(i)
	}
	in[n+150], in[2*n+3] = float32(math.NaN()), float32(math.Inf(1))
	out := tensor.As[float32](compiled(t, level, normalized(n, rows), x)[0])
	for i := range n {
		if math.Abs(float64(out[i])) > 1e-6 || out[n+i] == out[n+i] || out[2*n+i] == out[2*n+i] {
			t.Fatalf("%s: element %d is %g, %g, %g of a constant row, one with NaN and one with Inf", level, i, out[i], out[n+i], out[2*n+i])
		}
	}
}

// normalized is layer normalization without scales.
func normalized(n, rows int) *ir.Graph {
	b := core.NewBuilder("normalized")
	x := b.Input("x", tensor.F32, rows, n)
	d := b.Sub(x, b.Div(b.Reduce("reduce_sum", x, true, 1), b.Like(x, float64(n))))
	spread := b.Div(b.Reduce("reduce_sum", b.Mul(d, d), true, 1), b.Like(x, float64(n)))
	b.Output(b.Mul(d, b.Div(b.Like(x, 1), b.Unary("sqrt", b.Add(spread, b.Like(x, 1e-5))))))
	return b.G
}

// offNormal is the root of the mean square of the differences to what float64
// gives, over that of its values.
func offNormal(in, out []float32) float64 {
	n, mean, spread := float64(len(in)), 0.0, 0.0
	for _, v := range in {
		mean += float64(v) / n
	}
	for _, v := range in {
		spread += (float64(v) - mean) * (float64(v) - mean) / n
	}
	scale := 1 / math.Sqrt(spread+1e-5)
	off, all := 0.0, 0.0
	for i, v := range in {
		want := (float64(v) - mean) * scale
		off += (float64(out[i]) - want) * (float64(out[i]) - want)
		all += want * want
	}
	return math.Sqrt(off / all)
}
