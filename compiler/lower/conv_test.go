package lower_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestConvolutions holds that convolutions whose channels do not fill blocks, or
// whose groups do not, are computed by register tiles and give what the evaluator
// gives, between others and with a sum and a bound behind them.
func TestConvolutions(t *testing.T) {
	for _, c := range []struct{ ic, oc, size, stride, dilation, groups, h, w int }{
		{20, 24, 3, 2, 1, 1, 7, 9}, // a last block of 4 channels
		{40, 7, 1, 1, 1, 1, 5, 5},
		{33, 16, 2, 2, 1, 1, 6, 6},
		{48, 48, 3, 1, 1, 2, 5, 7}, // groups of one and a half blocks
		{40, 40, 3, 2, 1, 5, 9, 6}, // two groups a block
		{34, 68, 1, 1, 1, 2, 5, 5},
		{24, 48, 3, 1, 2, 24, 6, 6}, // filters of one channel
		{60, 60, 3, 1, 1, 3, 6, 6},
		{32, 32, 3, 1, 5, 1, 7, 12}, // taps that read padding alone
		{16, 32, 7, 1, 1, 1, 4, 5},
		{32, 16, 3, 1, 2, 1, 9, 11}, // images of remainders
		{32, 6, 3, 1, 1, 1, 6, 6},   // few outputs on a small map
	} {
		for _, o := range []lower.Options{wide, {Lanes: 8, Regs: 16}, {Lanes: 4, Regs: 32}} {
			t.Run(fmt.Sprintf("%+v lanes %d", c, o.Lanes), func(t *testing.T) {
				r := rand.New(rand.NewPCG(3, uint64(c.ic)))
				b := core.NewBuilder("conv")
				x := b.Input("x", tensor.F32, 2, 16, c.h, c.w)
				weights := func(shape ...int) *tensor.Tensor {
					v := values(r, tensor.F32, shape...)
					for i := range v.Len() {
						v.SetFloat(i, v.Float(i)/8)
					}
					return v
				}
				one := core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{0, 0}, Hi: []int{0, 0}, Groups: 1}
				y := b.Conv(x, b.Const(weights(c.ic, 16, 1, 1)), one)
				pad := (c.size - 1) * c.dilation / 2
				y = b.Conv(y, b.Const(weights(c.oc, c.ic/c.groups, c.size, c.size)), core.ConvSpec{Strides: []int{c.stride, c.stride}, Dilations: []int{c.dilation, c.dilation},
					Lo: []int{pad, pad}, Hi: []int{pad, pad}, Groups: c.groups})
				y = b.Relu(b.Add(y, b.BroadcastTo(b.Const(weights(1, c.oc, 1, 1)), core.Shape(y)...)))
				b.Output(b.Conv(y, b.Const(weights(16, c.oc, 1, 1)), one))
				for _, s := range lowered(t, b.G, o).Steps {
					if s.Kernel.Family == "conv" && !strings.Contains(s.Kernel.String(), "tile ") {
						t.Errorf("%s has no register tiles", s.Label)
					}
				}
			})
		}
	}
}
