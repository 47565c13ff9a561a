package lower_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestPadsBecomePadding holds that a pad in front of a convolution or a pool is
// its padding: also behind a transpose, also where a pool leaves the last row of
// the convolution unread, and for a maximum only if it pads with −∞.
func TestPadsBecomePadding(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 3))
	pad := func(b *core.Builder, x *ir.Value, axis int, fill float64) *ir.Value {
		lo, hi := []int{0, 0, 0, 0}, []int{0, 0, 0, 0}
		lo[axis], hi[axis], hi[axis+1] = 1, 2, 1
		return b.Pad(x, lo, hi, b.Scalar(tensor.F32, fill))
	}
	conv := func(b *core.Builder, x *ir.Value) *ir.Value {
		w := b.Const(values(r, tensor.F32, 32, core.Shape(x)[1], 3, 3))
		return b.Conv(x, w, core.ConvSpec{Strides: []int{2, 2}, Dilations: []int{1, 1}, Lo: []int{0, 1}, Hi: []int{0, 0}, Groups: 1})
	}
	pool := func(b *core.Builder, op string, x *ir.Value, k, s int) *ir.Value {
		none := []int{0, 0}
		return b.Window(op, x, []int{k, k}, core.ConvSpec{Strides: []int{s, s}, Dilations: []int{1, 1}, Lo: none, Hi: none})
	}
	for _, c := range []struct {
		name  string
		build func(b *core.Builder, x *ir.Value) *ir.Value
		stays bool
	}{
		{"convolution", func(b *core.Builder, x *ir.Value) *ir.Value { return conv(b, pad(b, x, 2, 0)) }, false},
		{"pixels last", func(b *core.Builder, x *ir.Value) *ir.Value {
			return conv(b, b.Transpose(pad(b, b.Transpose(x, 0, 2, 3, 1), 1, 0), 0, 3, 1, 2))
		}, false},
		{"unread rows", func(b *core.Builder, x *ir.Value) *ir.Value {
			return pool(b, "window_max", conv(b, pad(b, x, 2, 0)), 3, 3)
		}, false},
		{"mean", func(b *core.Builder, x *ir.Value) *ir.Value { return pool(b, "window_sum", pad(b, x, 2, 0), 2, 2) }, false},
		{"maximum", func(b *core.Builder, x *ir.Value) *ir.Value {
			return pool(b, "window_max", pad(b, x, 2, math.Inf(-1)), 2, 2)
		}, false},
		{"maximum with zeros", func(b *core.Builder, x *ir.Value) *ir.Value {
			return pool(b, "window_max", pad(b, x, 2, 0), 2, 2)
		}, true},
		{"ones", func(b *core.Builder, x *ir.Value) *ir.Value { return conv(b, pad(b, x, 2, 1)) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := core.NewBuilder("pads")
			b.Output(c.build(b, b.Input("x", tensor.F32, 1, 16, 9, 13)))
			if p := lowered(t, b.G, wide); slices.Contains(families(p), "pointwise") != c.stays {
				t.Errorf("kernels are %v", families(p))
			}
		})
	}
}
