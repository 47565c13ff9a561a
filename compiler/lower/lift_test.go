package lower_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// line adds a convolution of one spatial axis with a bias.
func line(b *core.Builder, r *rand.Rand, x *ir.Value, oc, taps, dilation, lo, hi int) *ir.Value {
	v := values(r, tensor.F32, oc, core.Shape(x)[1], taps)
	for i := range v.Len() {
		v.SetFloat(i, v.Float(i)/16)
	}
	w := b.Const(v)
	y := b.Conv(x, w, core.ConvSpec{Strides: []int{1}, Dilations: []int{dilation}, Lo: []int{lo}, Hi: []int{hi}, Groups: 1})
	return b.Add(y, b.BroadcastTo(b.Const(values(r, tensor.F32, 1, oc, 1)), core.Shape(y)...))
}

// TestLinesStayInBlocks holds that what stands between convolutions of one axis
// is fused with them and that nothing is copied in between, through sums,
// activations, slices and means: a kernel for each convolution, two for the
// gate and its mean, beside moving the input into blocks and the output out.
func TestLinesStayInBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 1))
	b := core.NewBuilder("lines")
	x := b.Input("x", tensor.F32, 1, 16, 40)
	y := line(b, r, x, 32, 3, 1, 1, 1)
	y = b.Max(y, b.Like(y, 0))
	z := b.Add(y, line(b, r, y, 32, 3, 2, 4, 0)) // causal
	gate := b.Mul(b.Node("tanh", []*ir.Value{b.SliceAxis(z, 1, 0, 16)}), b.SliceAxis(z, 1, 16, 16))
	mean := b.Node("reduce_sum", []*ir.Value{gate}, "axes", []int{2})
	gate = b.Mul(gate, b.BroadcastTo(mean, core.Shape(gate)...))
	gate = b.Mul(gate, b.Like(gate, 0.05))
	b.Output(line(b, r, gate, 4, 1, 1, 0, 0))
	p := lowered(t, b.G, wide)
	convs := 0
	for _, s := range p.Steps {
		switch s.Kernel.Family {
		case "conv", "winograd", "rowconv":
			convs++
		}
	}
	if convs != 3 || len(p.Steps) > 8 {
		for _, s := range p.Steps {
			t.Logf("%s: %s", s.Kernel.Family, s.Label)
		}
		t.Errorf("%d convolutions in %d steps", convs, len(p.Steps))
	}
}

// TestGatesJoinTheirConvolution holds that what is computed from several values
// that stem from a convolution, as GELU is, joins that convolution, though the
// model has made its pixels a sequence before.
func TestGatesJoinTheirConvolution(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 2))
	b := core.NewBuilder("mixed feed-forward")
	one := []int{1, 1}
	y := b.Conv(b.Input("x", tensor.F32, 1, 32, 6, 7), b.Const(values(r, tensor.F32, 32, 1, 3, 3)), core.ConvSpec{Strides: one, Dilations: one, Lo: one, Hi: one, Groups: 32})
	y = b.Transpose(b.Reshape(y, 1, 32, 42), 0, 2, 1)
	half := b.Mul(b.Add(b.Unary("erf", b.Mul(y, b.Like(y, 0.7))), b.Like(y, 1)), b.Like(y, 0.5))
	b.Output(b.Mul(y, half))
	for _, s := range lowered(t, b.G, wide).Steps {
		if has := strings.Contains(s.Kernel.String(), "erf"); has != (s.Kernel.Family == "depthwise") {
			t.Errorf("%s: %s, erf: %v", s.Kernel.Family, s.Label, has)
		}
	}
}
