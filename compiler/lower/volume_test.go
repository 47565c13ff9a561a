package lower_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestVolumes holds that convolutions of three spatial axes are computed by the
// forms of planes, whatever their groups, strides and batch, and that what
// stands between them gives what the evaluator gives: a bias and a bound, a
// window, a factor per channel that is computed, a concatenation, a sum with
// something that was never convolved.
func TestVolumes(t *testing.T) {
	for _, c := range []struct{ batch, ic, oc, groups, stride, dilation, size, lo, hi int }{
		{1, 16, 16, 1, 1, 1, 3, 1, 1},
		{2, 16, 20, 1, 2, 1, 3, 1, 1},
		{2, 16, 16, 2, 1, 2, 3, 2, 0},
		{1, 18, 18, 18, 1, 1, 3, 1, 1},
		{1, 18, 18, 18, 1, 2, 3, 2, 0},
		{1, 18, 18, 18, 2, 1, 3, 1, 1},
		{2, 18, 18, 18, 1, 1, 3, 1, 1},
		{3, 16, 32, 1, 1, 1, 1, 0, 0},
		{1, 32, 16, 1, 2, 1, 2, 0, 0},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			r := rand.New(rand.NewPCG(4, uint64(c.oc)))
			b := core.NewBuilder("volume")
			x := b.Input("x", tensor.F32, c.batch, c.ic, 6, 6, 7)
			three := func(v int) []int { return []int{v, v, v} }
			w := values(r, tensor.F32, c.oc, c.ic/c.groups, c.size, c.size, c.size)
			for i := range w.Len() {
				w.SetFloat(i, w.Float(i)/16)
			}
			y := b.Conv(x, b.Const(w), core.ConvSpec{Strides: three(c.stride), Dilations: three(c.dilation), Lo: three(c.lo), Hi: three(c.hi), Groups: c.groups})
			y = b.Relu(b.Add(y, b.BroadcastTo(b.Const(values(r, tensor.F32, 1, c.oc, 1, 1, 1)), core.Shape(y)...)))
			s := core.Shape(y)
			mean := b.Mul(b.Node("reduce_sum", []*ir.Value{y}, "axes", []int{2, 3, 4}), b.Scalar(tensor.F32, 0.02))
			y = b.Concat(1, b.Mul(y, b.BroadcastTo(mean, s...)), b.Add(y, b.Input("z", tensor.F32, s...)))
			if s[2] > 1 {
				y = b.Node("window_max", []*ir.Value{y}, "kernel", three(2), "strides", []int{1, 2, 2}, "dilations", three(1), "lo", []int{0, 1, 1}, "hi", three(0))
			}
			b.Output(y)
			for _, s := range lowered(t, b.G, wide).Steps {
				if s.Kernel.Family == "conv" && !strings.Contains(s.Kernel.String(), "tile ") {
					t.Errorf("%s has no register tiles", s.Label)
				}
			}
		})
	}
}

// TestDepthwiseVolumesMoveResults holds that the taps in depth of a depthwise
// convolution read their operand where it lies: no slice of it is moved, and one
// kernel sums what the taps give.
func TestDepthwiseVolumesMoveResults(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 1))
	b := core.NewBuilder("depthwise")
	one := []int{1, 1, 1}
	conv := func(x *ir.Value, oc, groups, size int) *ir.Value {
		pad := []int{size / 2, size / 2, size / 2}
		w := values(r, tensor.F32, oc, core.Shape(x)[1]/groups, size, size, size)
		for i := range w.Len() {
			w.SetFloat(i, w.Float(i)/16)
		}
		return b.Conv(x, b.Const(w), core.ConvSpec{Strides: one, Dilations: one, Lo: pad, Hi: pad, Groups: groups})
	}
	y := conv(b.Input("x", tensor.F32, 1, 16, 5, 6, 7), 24, 1, 1)
	b.Output(conv(conv(y, 24, 24, 3), 16, 1, 1))
	count := map[string]int{}
	for _, f := range families(lowered(t, b.G, wide)) {
		count[f]++
	}
	if count["depthwise"] != 3 || count["pointwise"] > 3 || count["copy"] > 1 { // the slices apart, the sum, the slices together
		t.Errorf("kernels are %v", count)
	}
}
