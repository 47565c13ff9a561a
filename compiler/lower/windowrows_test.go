package lower_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestLargeWindowsOverBlocks holds that windows of many taps over channel blocks
// are right whatever lies at the edges: padding on one side, gaps between taps, windows
// that reach beyond both sides, strides, and a NaN that stays one.
func TestLargeWindowsOverBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, op := range []string{"window_max", "window_sum"} {
		for _, c := range []struct{ h, w, kh, kw, stride, dilation, lo, hi int }{
			{9, 7, 5, 5, 1, 1, 2, 2}, {6, 6, 13, 13, 1, 1, 6, 6}, {12, 9, 4, 3, 2, 1, 1, 2}, {11, 10, 4, 4, 1, 2, 3, 3},
			{5, 17, 3, 9, 3, 1, 2, 0}, {8, 8, 9, 2, 1, 1, 0, 8}, {7, 8, 2, 16, 1, 1, 1, 15},
		} {
			t.Run(fmt.Sprint(op, c), func(t *testing.T) {
				b := core.NewBuilder("g")
				x := b.Input("x", tensor.F32, 2, 5, c.h, c.w)
				w := values(r, tensor.F32, 20, 5, 1, 1)
				w.SetFloat(7*5, math.NaN()) // all of channel 7
				one := []int{1, 1}
				y := b.Conv(x, b.Const(w), core.ConvSpec{Strides: one, Dilations: one, Lo: []int{0, 0}, Hi: []int{0, 0}, Groups: 1})
				two := func(n int) []int { return []int{n, n} }
				z := b.Window(op, y, []int{c.kh, c.kw}, core.ConvSpec{Strides: two(c.stride), Dilations: two(c.dilation), Lo: two(c.lo), Hi: two(c.hi), Groups: 1})
				sign := b.BroadcastTo(b.Const(values(r, tensor.F32, 1, 20, 1, 1)), core.Shape(z)...)
				z = b.Mul(z, sign)
				v := b.Conv(z, b.Const(values(r, tensor.F32, 18, 20, 1, 1)), core.ConvSpec{Strides: one, Dilations: one, Lo: []int{0, 0}, Hi: []int{0, 0}, Groups: 1})
				b.G.Outputs = []*ir.Value{z, v}
				for _, o := range []lower.Options{{Lanes: 8, Regs: 16}, {Lanes: 16, Regs: 32}} {
					lowered(t, b.G, o)
				}
			})
		}
	}
}
