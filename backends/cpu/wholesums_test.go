package cpu

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// extremes are integers of which most are the least or the greatest that their
// type has, so that sums of few products leave what F32 holds exactly.
func extremes(r *rand.Rand, d tensor.DType, shape ...int) *tensor.Tensor {
	t := tensor.New(d, shape...)
	lo, hi := d.IntRange()
	for i := range t.Len() {
		switch r.IntN(8) {
		case 0:
			t.SetInt(i, lo+r.Int64N(int64(hi)-lo+1))
		case 1:
			t.SetInt(i, lo)
		default:
			t.SetInt(i, int64(hi))
		}
	}
	return t
}

// TestWholeSums holds that sums of products of bytes are exact where F32 does
// not hold them, on CPUs that multiply bytes and on those that do not: as
// integers that are results themselves, and behind the sum with a bias and a
// zero point.
func TestWholeSums(t *testing.T) {
	needs(t, "avx2")
	r := rand.New(rand.NewPCG(21, 8))
	square := func(pad int) core.ConvSpec {
		return core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{pad, pad}, Hi: []int{pad, pad}, Groups: 1, Out: tensor.I32}
	}
	less := func(b *core.Builder, x *ir.Value, zero int64) *ir.Value {
		return b.Sub(b.Cast(x, tensor.I16), b.ScalarInt(tensor.I16, zero))
	}
	scaled := func(b *core.Builder, y *ir.Value, bias *ir.Value) *ir.Value {
		f := b.Mul(b.Cast(b.Add(y, bias), tensor.F32), b.Scalar(tensor.F32, 1.0/(1<<17)))
		return b.Cast(b.Min(b.Max(b.Round(f), b.Like(f, -128)), b.Like(f, 127)), tensor.I8)
	}
	graphs := map[string]func(b *core.Builder){
		"product u8·s8": func(b *core.Builder) {
			b.Output(b.MatMul(b.Input("x", tensor.U8, 5, 700), b.Const(extremes(r, tensor.I8, 700, 40)), tensor.I32))
		},
		"product s8·u8": func(b *core.Builder) {
			b.Output(b.MatMul(b.Input("x", tensor.I8, 3, 600), b.Const(extremes(r, tensor.U8, 600, 33)), tensor.I32))
		},
		"scaled product": func(b *core.Builder) {
			y := b.MatMul(b.Input("x", tensor.U8, 9, 768), b.Const(extremes(r, tensor.I8, 768, 32)), tensor.I32)
			b.Output(scaled(b, y, b.Cast(b.Const(extremes(r, tensor.I16, 1, 32)), tensor.I32)))
		},
		"convolution": func(b *core.Builder) {
			b.Output(b.Conv(b.Input("x", tensor.U8, 1, 160, 6, 5), b.Const(extremes(r, tensor.I8, 24, 160, 3, 3)), square(1)))
		},
		"scaled convolution": func(b *core.Builder) {
			x := less(b, b.Input("x", tensor.U8, 2, 128, 7, 7), 113)
			y := b.Conv(x, b.Const(extremes(r, tensor.I8, 40, 128, 3, 3)), square(1))
			b.Output(scaled(b, y, b.Cast(b.Const(extremes(r, tensor.I16, 1, 40, 1, 1)), tensor.I32)))
		},
		"depthwise": func(b *core.Builder) {
			x := less(b, b.Input("x", tensor.U8, 2, 40, 7, 9), 113)
			spec := square(1)
			spec.Groups = 40
			b.Output(scaled(b, b.Conv(x, b.Const(extremes(r, tensor.I8, 40, 1, 3, 3)), spec), b.Scalar(tensor.I32, 99)))
		},
		"depthwise with stride": func(b *core.Builder) {
			x := less(b, b.Input("x", tensor.I8, 1, 32, 13, 11), -5)
			spec := square(2)
			spec.Groups, spec.Strides = 32, []int{2, 2}
			b.Output(b.Conv(x, b.Const(extremes(r, tensor.I8, 32, 1, 5, 5)), spec))
		},
		"small convolution": func(b *core.Builder) {
			x := less(b, b.Input("x", tensor.I8, 1, 16, 9, 9), -11)
			b.Output(b.Conv(x, b.Const(extremes(r, tensor.I8, 16, 16, 3, 3)), square(1)))
		},
	}
	cache := t.TempDir()
	for name, build := range graphs {
		b := core.NewBuilder("g")
		build(b)
		x := extremes(r, b.G.Inputs[0].DType(), b.G.Inputs[0].Static()...)
		want, err := core.EvalGraph(b.G, []*tensor.Tensor{x})
		if err != nil {
			t.Fatal(err)
		}
		for _, cpu := range []string{"native", "cascadelake", "x86-64-v4", "x86-64-v3"} {
			t.Run(fmt.Sprint(name, " ", cpu), func(t *testing.T) {
				switch cpu {
				case "cascadelake":
					needs(t, "avx512-vnni")
				case "x86-64-v4":
					needs(t, "avx512f")
				}
				got, err := backendtest.Run(context.Background(), Backend(), backendtest.Options{CPU: cpu, CacheDir: cache, Threads: 1}, b.G, []*tensor.Tensor{x})
				if err != nil {
					t.Fatal(err)
				}
				for j := range want[0].Len() {
					if a, b := got[0].Int(j), want[0].Int(j); a != b {
						t.Fatalf("element %d: %d, the evaluator gives %d", j, a, b)
					}
				}
			})
		}
	}
}
