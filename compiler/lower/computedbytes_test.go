package lower_test

import (
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestByteProductsOfComputed holds that products of two computed operands are
// those of bytes where they can be, and exact: zero points on both sides, keys
// that are transposed, parts of vectors, sums beyond what F32 holds, rows too
// few to pay. The evaluator sums integers.
func TestByteProductsOfComputed(t *testing.T) {
	for _, c := range []struct {
		name         string
		m, k, n      int
		xd, yd       tensor.DType
		zx, zy       int
		turned       bool
		want, narrow int // kernels with products of bytes, at 16 and at 8 lanes
	}{
		{"both zero points", 9, 32, 32, tensor.U8, tensor.U8, 120, 131, false, 2, 2},
		{"none", 12, 8, 17, tensor.U8, tensor.I8, 0, 0, false, 1, 1},
		{"signed left", 8, 20, 16, tensor.I8, tensor.I8, 3, -7, false, 2, 2},
		{"keys", 16, 64, 24, tensor.U8, tensor.U8, 7, 255, true, 2, 2},
		{"long sums", 10, 400, 33, tensor.U8, tensor.U8, 0, 0, false, 1, 1},
		{"long sums of odd length", 10, 403, 33, tensor.U8, tensor.U8, 128, 1, false, 0, 0},
		{"odd length", 10, 35, 33, tensor.U8, tensor.U8, 128, 1, false, 0, 0},
		{"few rows", 3, 64, 32, tensor.U8, tensor.U8, 1, 2, false, 0, 0},
		{"long sums of few rows", 3, 600, 32, tensor.U8, tensor.U8, 1, 2, false, 0, 0},
		{"long sums of few columns", 30, 600, 3, tensor.U8, tensor.U8, 0, 0, false, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			less := func(b *core.Builder, v *ir.Value, zero int) *ir.Value {
				v = b.Cast(v, tensor.I16)
				return b.Sub(v, b.Like(v, float64(zero)))
			}
			b := core.NewBuilder("g")
			x := b.Input("x", c.xd, 2, c.m, c.k)
			y := b.Input("y", c.yd, 2, c.k, c.n)
			if c.turned {
				y = b.Transpose(b.Input("keys", c.yd, 2, c.n, c.k), 0, 2, 1)
			}
			b.Output(b.MatMul(less(b, x, c.zx), less(b, y, c.zy), tensor.I32))
			for i, want := range []int{c.want, c.narrow} {
				if n := tilesOf(lowered(t, b.G, byteTargets[i]), "u8s8"); n != want {
					t.Errorf("%d kernels with products of bytes for %d lanes, want %d", n, byteTargets[i].Lanes, want)
				}
			}
			lowered(t, b.G, wide)
		})
	}
}

// TestQuantizedAttention holds that what quantized models make of attention is
// two products of bytes.
func TestQuantizedAttention(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 21))
	b := core.NewBuilder("g")
	heads := func(name string, zero float64) *ir.Value {
		return quantize(b, b.Input(name, tensor.F32, 2, 16, 32), 1.0/32, zero)
	}
	s := b.MatMul(heads("q", 120), b.Transpose(heads("k", 99), 0, 2, 1), tensor.F32)
	s = quantize(b, b.Add(s, b.BroadcastTo(b.Const(values(r, tensor.F32, 1, 1, 16)), 2, 16, 16)), 1.0/16, 128)
	e := b.Unary("exp", b.Sub(s, b.BroadcastTo(b.Reduce("reduce_max", s, true, 2), 2, 16, 16)))
	p := quantize(b, b.Div(e, b.BroadcastTo(b.Reduce("reduce_sum", e, true, 2), 2, 16, 16)), 1.0/256, 0)
	b.Output(quantize(b, b.MatMul(p, heads("v", 130), tensor.F32), 1.0/32, 100))
	for _, o := range byteTargets {
		if n := tilesOf(lowered(t, b.G, o), "u8s8"); n != 3 { // with the sums of the keys
			t.Errorf("%d kernels with products of bytes for %d lanes, want 3", n, o.Lanes)
		}
	}
	lowered(t, b.G, wide)
}
