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

// TestNormalizationsStayInBlocks holds that normalizations between convolutions keep the
// layout that those have, whatever they normalize over: nothing is copied but
// what comes in and goes out, and the kernels give what the evaluator gives.
func TestNormalizationsStayInBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 9))
	last := func(b *core.Builder, x *ir.Value) *ir.Value { return b.Transpose(x, 0, 2, 3, 1) }
	first := func(b *core.Builder, x *ir.Value) *ir.Value { return b.Transpose(x, 0, 3, 1, 2) }
	for _, c := range []struct {
		name string
		h, w int
		norm func(b *core.Builder, x *ir.Value) *ir.Value
	}{
		{"layer", 5, 12, func(b *core.Builder, x *ir.Value) *ir.Value { return normalized(b, x, 1) }},
		{"layer of odd lines", 3, 7, func(b *core.Builder, x *ir.Value) *ir.Value { return normalized(b, x, 1) }},
		{"instance", 6, 12, func(b *core.Builder, x *ir.Value) *ir.Value { return normalized(b, x, 2, 3) }},
		{"instance of one line", 1, 11, func(b *core.Builder, x *ir.Value) *ir.Value { return normalized(b, x, 2, 3) }},
		{"softmax of channels", 4, 6, func(b *core.Builder, x *ir.Value) *ir.Value { return softmaxOver(b, x, 1) }},
		{"gate of halves", 4, 6, func(b *core.Builder, x *ir.Value) *ir.Value {
			return b.Mul(b.SliceAxis(x, 1, 0, 16), b.SliceAxis(x, 1, 16, 16))
		}},
		{"layer of channels last", 4, 6, func(b *core.Builder, x *ir.Value) *ir.Value {
			return first(b, b.Unary("tanh", normalized(b, last(b, x), 3)))
		}},
	} {
		for _, o := range []lower.Options{wide, {Lanes: 8, Regs: 16}} {
			t.Run(fmt.Sprint(c.name, " ", o.Lanes), func(t *testing.T) {
				b := core.NewBuilder("rows")
				conv := func(x *ir.Value, oc, k int) *ir.Value {
					w := values(r, tensor.F32, oc, core.Shape(x)[1], k, k)
					for i := range w.Len() {
						w.SetFloat(i, w.Float(i)/12)
					}
					return b.Conv(x, b.Const(w), core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{k / 2, k / 2}, Hi: []int{k / 2, k / 2}, Groups: 1})
				}
				x := conv(b.Input("x", tensor.F32, 1, 16, c.h, c.w), 32, 1)
				b.Output(conv(c.norm(b, x), 32, 3))
				p := lowered(t, b.G, o)
				copies := 0
				for _, s := range p.Steps {
					if s.Kernel.Family == "copy" && s.Label != "x" && s.Label != p.Outputs[0].Name {
						copies++
					}
				}
				if copies > 0 {
					for _, s := range p.Steps {
						t.Logf("%s: %s", s.Kernel.Family, s.Label)
					}
					t.Errorf("%d copies", copies)
				}
			})
		}
	}
}
