package lower_test

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// normalized is x without its mean over axes and divided by its deviation.
func normalized(b *core.Builder, x *ir.Value, axes ...int) *ir.Value {
	s := core.Shape(x)
	n := 1
	for _, a := range axes {
		n *= s[a]
	}
	mean := func(v *ir.Value) *ir.Value {
		m := b.Reduce("reduce_sum", v, true, axes...)
		return b.Mul(m, b.Like(m, 1/float64(n)))
	}
	d := b.Sub(x, b.BroadcastTo(mean(x), s...))
	v := mean(b.Mul(d, d))
	return b.Mul(d, b.BroadcastTo(b.Div(b.Like(v, 1), b.Sqrt(b.Add(v, b.Like(v, 1e-5)))), s...))
}

func softmaxOver(b *core.Builder, x *ir.Value, axis int) *ir.Value {
	s := core.Shape(x)
	e := b.Exp(b.Sub(x, b.BroadcastTo(b.Reduce("reduce_max", x, true, axis), s...)))
	return b.Div(e, b.BroadcastTo(b.Reduce("reduce_sum", e, true, axis), s...))
}

func kernels(p *program.Program, family string) (texts []string) {
	for _, s := range p.Steps {
		if s.Kernel.Family == family {
			texts = append(texts, s.Kernel.String())
		}
	}
	return texts
}

// TestRowsInBlocks holds that reductions over pixels have the channels of a
// block in their lanes, and that what they scale goes on in blocks, with the
// halo that the next convolution reads: nothing is moved in between.
func TestRowsInBlocks(t *testing.T) {
	lanes := regexp.MustCompile(`vector \w+ < 16 \{`)
	r := rand.New(rand.NewPCG(9, 4))
	spec := core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{1, 1}, Hi: []int{1, 1}, Groups: 1}
	b := core.NewBuilder("instance norm")
	y := b.Conv(b.Input("x", tensor.F32, 2, 3, 6, 7), b.Const(values(r, tensor.F32, 32, 3, 3, 3)), spec)
	y = normalized(b, y, 2, 3)
	y = b.Max(y, b.Like(y, 0))
	b.Output(b.Conv(y, b.Const(values(r, tensor.F32, 4, 32, 3, 3)), spec))
	p := lowered(t, b.G, wide)
	rows := kernels(p, "rows")
	if len(rows) != 1 || !lanes.MatchString(rows[0]) || len(p.Steps) > 5 {
		for _, s := range p.Steps {
			t.Log(s.Kernel)
		}
		t.Errorf("%d kernels of rows in %d steps", len(rows), len(p.Steps))
	}

	b = core.NewBuilder("softmax over time")
	y = line(b, r, b.Input("x", tensor.F32, 1, 16, 21), 32, 3, 1, 1, 1)
	b.Output(b.Reduce("reduce_sum", b.Mul(y, softmaxOver(b, y, 2)), false, 2))
	if rows := kernels(lowered(t, b.G, wide), "rows"); len(rows) != 1 || !lanes.MatchString(rows[0]) || strings.Contains(rows[0], "imod") {
		t.Errorf("kernels of rows: %v", rows)
	}

	b = core.NewBuilder("masks of two speakers")
	y = line(b, r, b.Input("x", tensor.F32, 1, 16, 21), 64, 1, 1, 0, 0)
	b.Output(softmaxOver(b, b.Reshape(y, 1, 2, 32, 21), 1))
	if rows := kernels(lowered(t, b.G, wide), "rows"); len(rows) != 1 || !lanes.MatchString(rows[0]) {
		t.Errorf("kernels of rows: %v", rows)
	}

	// 8 channels fill no block, and are gone through as they lie.
	b = core.NewBuilder("half a block")
	y = b.Conv(b.Input("x", tensor.F32, 1, 3, 6, 7), b.Const(values(r, tensor.F32, 8, 3, 3, 3)), spec)
	b.Output(b.Conv(normalized(b, y, 2, 3), b.Const(values(r, tensor.F32, 4, 8, 3, 3)), spec))
	lowered(t, b.G, wide)
}

// TestReductionsOfChannelsToo holds that a reduction of channels and pixels
// together reads blocks from one end to the other.
func TestReductionsOfChannelsToo(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 5))
	for _, axes := range [][]int{{1, 2, 3}, {1, 3}} {
		b := core.NewBuilder("mean of a map")
		spec := core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{1, 1}, Hi: []int{1, 1}, Groups: 1}
		y := b.Conv(b.Input("x", tensor.F32, 2, 3, 5, 9), b.Const(values(r, tensor.F32, 32, 3, 3, 3)), spec)
		y = b.Tanh(y)
		b.Output(b.Reduce("reduce_sum", y, false, axes...))
		spec.Lo, spec.Hi = []int{0, 0}, []int{0, 0}
		b.Output(b.Conv(y, b.Const(values(r, tensor.F32, 4, 32, 1, 1)), spec))
		red := kernels(lowered(t, b.G, wide), "reduce")
		if len(red) != 1 || !regexp.MustCompile(`vector \w+ < 144 \{`).MatchString(red[0]) || regexp.MustCompile(`i(div|mod)\((add|i)`).MatchString(red[0]) {
			t.Errorf("reductions: %v", red)
		}
	}
}
