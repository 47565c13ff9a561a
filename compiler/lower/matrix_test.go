package lower_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// amx is a target with a matrix unit, on which all that have a form take it.
func amx(m precision.Mode, form string, threads int) lower.Options {
	return lower.Options{Lanes: 16, Regs: 32, Threads: threads, Precision: m, Features: []string{"amx-bf16", "amx-tile", "avx512-bf16"},
		Schedules: func(string) (schedule.Choice, bool) { return schedule.Choice{Form: form}, form != "" }}
}

// chosen lists the forms of a program's sites.
func chosen(p *program.Program) (forms []string) {
	for _, s := range p.Sites {
		forms = append(forms, s.Chosen.Form)
	}
	return forms
}

// short are numbers of 11 bits, which two parts hold, about as large as scale.
func short(r *rand.Rand, scale float64, shape ...int) *tensor.Tensor {
	t := tensor.New(tensor.F32, shape...)
	for i := range t.Len() {
		t.SetFloat(i, math.Round(r.NormFloat64()*256)/256*scale)
	}
	return t
}

// convCase is the geometry of a convolution.
type convCase struct {
	name                         string
	ic, oc, h, w                 int
	kernel, stride, dil, pad, gr int
}

var matrixCases = []convCase{
	{"3x3", 32, 32, 7, 7, 3, 1, 1, 1, 1},
	{"3x3, odd blocks, no padding", 48, 24, 6, 9, 3, 1, 1, 0, 1},
	{"3x3 with stride", 32, 48, 9, 10, 3, 2, 1, 1, 1},
	{"3x3 with dilation", 16, 16, 8, 7, 3, 1, 2, 2, 1},
	{"3x3 with dilation and stride", 16, 16, 9, 9, 3, 2, 2, 2, 1},
	{"1x1, flattened", 64, 40, 5, 7, 1, 1, 1, 0, 1},
	{"1x1 with stride", 20, 32, 7, 6, 1, 2, 1, 0, 1},
	{"1x1 of few points", 32, 80, 2, 2, 1, 1, 1, 0, 1},
	{"5x5", 17, 16, 6, 6, 5, 1, 1, 2, 1},
	{"one row", 16, 32, 1, 75, 3, 1, 1, 1, 1},
	{"groups", 64, 32, 5, 6, 3, 1, 1, 1, 2},
}

func (c convCase) graph(r *rand.Rand) *ir.Graph {
	b := core.NewBuilder("g")
	x := b.Input("x", tensor.F32, 2, c.ic, c.h, c.w)
	kh := min(c.kernel, c.h)
	w := short(r, math.Pow(2, -math.Round(math.Log2(float64(kh*c.kernel*c.ic/c.gr)))), c.oc, c.ic/c.gr, kh, c.kernel)
	y := b.Conv(x, b.Const(w), core.ConvSpec{Strides: []int{c.stride, c.stride}, Dilations: []int{c.dil, c.dil},
		Lo: []int{min(c.pad, c.h-1), c.pad}, Hi: []int{min(c.pad, c.h-1), c.pad}, Groups: c.gr})
	s := y.Static()
	y = b.Add(y, b.BroadcastTo(b.Const(short(r, 1, 1, c.oc, 1, 1)), s...))
	y = b.Add(y, b.Input("z", tensor.F32, s...))
	b.Output(b.Min(b.Max(y, b.Like(y, 0)), b.Like(y, 6)))
	return b.G
}

// TestMatrixForms holds that convolutions are products of a matrix unit where
// that is asked for, in each number of parts, with Winograd's transforms too, and
// right: with bias, sum and bound behind them, for one thread and for two.
func TestMatrixForms(t *testing.T) {
	for _, c := range matrixCases {
		for _, f := range []struct {
			form string
			mode precision.Mode
		}{{"amx6", precision.F32}, {"amx3", precision.Fast}, {"winograd4-amx3", precision.Fast}, {"winograd4-amx6", precision.F32}} {
			t.Run(c.name+", "+f.form, func(t *testing.T) {
				r := rand.New(rand.NewPCG(31, 8))
				g := c.graph(r)
				for threads := 1; threads <= 2; threads++ {
					p := lowered(t, g, amx(f.mode, f.form, threads))
					transforms := c.kernel == 3 && c.stride*c.dil*c.gr == 1
					if n := tilesOf(p, "bf16"); n != 1 && (transforms || f.form[0] == 'a') {
						t.Errorf("%d kernels with matrix tiles, forms %v", n, chosen(p))
					}
					if f.form[0] == 'w' && !transforms {
						return
					}
				}
			})
		}
	}
}
