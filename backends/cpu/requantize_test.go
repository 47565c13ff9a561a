package cpu

import (
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestRequantize holds what is stored of sums of bytes to the evaluator's
// rounding: halves, factors that leave every range, zero points at the ends,
// bounds before and behind the rounding, of rows that fill no register, too.
func TestRequantize(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 2))
	b := core.NewBuilder("g")
	var in []*tensor.Tensor
	factors := []float32{0.5, 0.25, 1, 1.0 / 3, 1e-3, 1e-30, 1e20, -0.5, 3.5, 0.1, -1e12}
	for _, n := range []int{16, 33} {
		w := tensor.New(tensor.I8, 8, n)
		scale := tensor.New(tensor.F32, 1, n)
		for i := range w.Len() {
			w.SetInt(i, int64(r.IntN(7)-3))
		}
		for i := range n {
			scale.SetFloat(i, float64(factors[i%len(factors)]))
		}
		x := b.Input("", tensor.U8, 40, 8)
		in = append(in, anyBytes(r, tensor.U8, 40, 8))
		sums := b.MatMul(b.Cast(x, tensor.F32), b.Cast(b.Const(w), tensor.F32), tensor.F32)
		y := b.Mul(sums, b.BroadcastTo(b.Const(scale), 40, n))
		clip := func(v *ir.Value, lo, hi float64) *ir.Value { return b.Min(b.Max(v, b.Like(v, lo)), b.Like(v, hi)) }
		for _, c := range []struct {
			d            tensor.DType
			zero, lo, hi float64
		}{{tensor.U8, 0, 0, 255}, {tensor.U8, 255, 0, 255}, {tensor.U8, 121, 0, 255}, {tensor.I8, 0, -128, 127}, {tensor.I8, -128, -128, 127}, {tensor.I8, 7, -20, 90}} {
			z := b.Round(y)
			b.Output(b.Cast(clip(b.Add(z, b.Like(z, c.zero)), c.lo, c.hi), c.d))
			z = b.Round(clip(y, 0, 6.5))
			b.Output(b.Cast(clip(b.Add(z, b.Like(z, c.zero)), c.lo, c.hi), c.d))
		}
	}
	sameEverywhere(t, b.G, in)
}

// TestBytesIntoBlocks holds convolutions of bytes whose channels fill blocks in
// part, of both signs, for every number of channels that is moved in another way:
// their sums are whole numbers.
func TestBytesIntoBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 2))
	b := core.NewBuilder("g")
	var in []*tensor.Tensor
	for _, c := range []int{1, 3, 4, 5, 7, 16, 20, 24, 31, 33} {
		for i, d := range []tensor.DType{tensor.U8, tensor.I8} {
			x := b.Input("", d, 2, c, 6, 9)
			in = append(in, anyBytes(r, d, 2, c, 6, 9))
			f := b.Cast(x, tensor.F32)
			f = b.Sub(f, b.Like(f, float64(11-40*i)))
			for k := 1; k <= 3; k += 2 {
				for _, groups := range []int{1, c} {
					if groups > 1 && c < 16 {
						continue
					}
					spec := core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{k / 2, k / 2}, Hi: []int{k / 2, k / 2}, Groups: groups}
					outputs := 20
					if groups > 1 {
						outputs = c
					}
					w := tensor.New(tensor.I8, outputs, c/groups, k, k)
					for j := range w.Len() {
						w.SetInt(j, int64(r.IntN(255)-127))
					}
					b.Output(b.Cast(b.Conv(f, b.Cast(b.Const(w), tensor.F32), spec), tensor.I32))
				}
			}
		}
	}
	sameEverywhere(t, b.G, in)
}
