package lower_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
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
	{"3x3, odd blocks, no padding", 48, 24, 5, 6, 3, 1, 1, 0, 1},
	{"3x3 with stride", 16, 48, 7, 8, 3, 2, 1, 1, 1},
	{"3x3 with dilation", 16, 16, 6, 5, 3, 1, 2, 2, 1},
	{"3x3 with dilation and stride", 16, 16, 9, 9, 3, 2, 2, 2, 1},
	{"1x1, flattened", 64, 40, 5, 7, 1, 1, 1, 0, 1},
	{"1x1 with stride", 20, 32, 7, 6, 1, 2, 1, 0, 1},
	{"1x1 of few points", 32, 80, 2, 2, 1, 1, 1, 0, 1},
	{"5x5", 17, 16, 4, 4, 5, 1, 1, 2, 1},
	{"one row", 16, 32, 1, 45, 3, 1, 1, 1, 1},
	{"few channels, 7x7 with stride", 3, 32, 9, 12, 7, 2, 1, 3, 1},
	{"few channels, 3x3", 3, 24, 7, 6, 3, 1, 1, 1, 1},
	{"one channel, 5x5", 1, 16, 8, 9, 5, 3, 1, 2, 1},
	{"groups", 32, 32, 5, 6, 3, 1, 1, 1, 2},
}

func (c convCase) graph(r *rand.Rand) *ir.Graph {
	b := core.NewBuilder("g")
	x := b.Input("x", tensor.F32, 1, c.ic, c.h, c.w)
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
			form    string
			mode    precision.Mode
			threads []int
		}{{"amx6", precision.F32, []int{1}}, {"amx3", precision.Fast, []int{1, 2}}, {"winograd4-amx3", precision.F16, []int{1}}, {"winograd4-amx6", precision.F32, []int{2}}} {
			t.Run(c.name+", "+f.form, func(t *testing.T) {
				r := rand.New(rand.NewPCG(31, 8))
				g := c.graph(r)
				if f.form[0] == 'w' && (c.kernel != 3 || c.stride*c.dil*c.gr != 1 || c.ic < 16) {
					return
				}
				if testing.Short() && f.form != "amx3" {
					t.Skip("one number of parts stands for all in short tests")
				}
				for _, threads := range f.threads {
					p := lowered(t, g, amx(f.mode, f.form, threads))
					if n := tilesOf(p, "bf16"); n != 1 {
						t.Errorf("%d kernels with matrix tiles, forms %v", n, chosen(p))
					}
				}
			})
		}
	}
}

// TestMatrixBfloat16 holds that in the mode bf16 a matrix unit multiplies
// bfloat16 values, which lie in memory between such products, and that all is
// right: the numbers are small and whole, so that no rounding hides a mistake.
func TestMatrixBfloat16(t *testing.T) {
	r := rand.New(rand.NewPCG(32, 8))
	b := core.NewBuilder("g")
	wholeConvolutions(b, r)
	p := lowered(t, b.G, amx(precision.BF16, "amx", 1))
	if n := tilesOf(p, "bf16"); n != 3 {
		t.Errorf("%d kernels with products of bfloat16, want 3; forms %v", n, chosen(p))
	}
	stored := 0
	for _, s := range p.Steps {
		if k := s.Kernel; k.Family == "staged" && k.Params[0].Type == tensor.BF16 {
			stored++
		}
	}
	if stored != 2 {
		t.Errorf("%d convolutions store bfloat16, want the two that others follow", stored)
	}
}

// TestMatrixPrecisions holds which forms each precision may choose from.
func TestMatrixPrecisions(t *testing.T) {
	r := rand.New(rand.NewPCG(33, 8))
	b := core.NewBuilder("g")
	x := b.Input("x", tensor.F32, 1, 32, 8, 8)
	w := short(r, 1.0/16, 32, 32, 3, 3)
	b.Output(b.Conv(x, b.Const(w), core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{1, 1}, Hi: []int{1, 1}, Groups: 1}))
	for m, want := range map[precision.Mode][]string{
		precision.IEEE: {},
		precision.F32:  {"amx6", "winograd4-amx6"},
		precision.Fast: {"amx3", "amx6", "winograd4-amx6"},
		precision.F16:  {"amx3", "amx6", "winograd4-amx3", "winograd4-amx6"},
		precision.BF16: {"amx", "amx3", "amx6", "winograd4-amx3", "winograd4-amx6"},
	} {
		for _, weight := range []float32{0, 1e-31, 1e19, float32(math.Inf(1))} {
			tensor.As[float32](w)[7] = weight
			o := amx(m, "", 1)
			o.Explore = true
			p, err := lower.Lower(b.G, o)
			if err != nil {
				t.Fatal(err)
			}
			forms := map[string]bool{}
			for _, c := range append(p.Sites[0].Space, p.Sites[0].Chosen) {
				if strings.Contains(c.Form, "amx") {
					forms[c.Form] = true
				}
			}
			got := slices.Sorted(maps.Keys(forms))
			if weight != 0 { // such cannot be split
				want = slices.DeleteFunc(slices.Clone(want), func(f string) bool { return f != "amx" })
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s with a weight %g: forms %v, want %v", m, weight, got, want)
			}
		}
	}
}

// TestMatrixSpecialNumbers holds that infinities, NaN, numbers that bfloat16
// rounds to infinity and denormals mean to products of parts what they mean to
// the evaluator, and spoil nothing that does not depend on them.
func TestMatrixSpecialNumbers(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		name    string
		special []float64
		scale   float64
	}{
		{"infinity", []float64{inf}, 1}, {"both, and NaN", []float64{inf, -inf, math.NaN()}, 1},
		{"near the largest", []float64{3.4e38, -3.4e38}, 1}, {"denormals", nil, 1e-40}, {"tiny", nil, 1e-30},
		{"tiny among others", []float64{1e-40, 1e-35, 1e-20}, 1}, {"nothing else", []float64{1e-40}, 0},
	} {
		for _, f := range []struct {
			form string
			mode precision.Mode
			ic   int
		}{{"amx6", precision.F32, 32}, {"amx3", precision.Fast, 32}, {"winograd4-amx6", precision.F32, 32}, {"amx3", precision.Fast, 3}} {
			t.Run(fmt.Sprintf("%s, %s of %d", c.name, f.form, f.ic), func(t *testing.T) {
				r := rand.New(rand.NewPCG(34, 8))
				b := core.NewBuilder("g")
				x := b.Input("x", tensor.F32, 1, f.ic, 6, 6)
				w := short(r, 1.0/16, 16, f.ic, 3, 3)
				for i := range w.Len() {
					if r.IntN(8) == 0 {
						w.SetFloat(i, 0)
					}
				}
				y := b.Conv(x, b.Const(w), core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{1, 1}, Hi: []int{1, 1}, Groups: 1})
				b.Output(y)
				b.Output(b.Min(b.Max(y, b.Like(y, 0)), b.Like(y, 6)))
				in := short(r, c.scale, x.Static()...)
				for _, v := range c.special {
					in.SetFloat(r.IntN(in.Len()), v)
				}
				p, err := lower.Lower(b.G, amx(f.mode, f.form, 1))
				if err != nil {
					t.Fatal(err)
				}
				if forms := chosen(p); !slices.Contains(forms, f.form) {
					t.Fatalf("forms %v", forms)
				}
				same(t, b.G, p, in, c.scale)
			})
		}
	}
}

// same holds that a program gives what the evaluator gives: numbers of the same
// kind, finite ones within 1e-5 of the scale, and of the denormals' distance.
func same(t *testing.T, g *ir.Graph, p *program.Program, in *tensor.Tensor, scale float64) {
	t.Helper()
	got, want := both(t, g, p, []*tensor.Tensor{in})
	for k := range want {
		for i := range want[k].Len() {
			x, y := got[k].Float(i), want[k].Float(i)
			near := math.Abs(x-y) <= 1e-5*(scale+math.Abs(y))+64*0x1p-149
			if x != y && !near && !(math.IsNaN(x) && math.IsNaN(y)) {
				t.Fatalf("output %d, element %d: kernels give %v, the evaluator %v", k, i, x, y)
			}
		}
	}
}

// TestMatrixProducts holds the same of products of matrices: rests of rows, of
// channels and of vectors, one and two threads, special numbers.
func TestMatrixProducts(t *testing.T) {
	for _, c := range []struct{ m, k, n, threads int }{{5, 16, 16, 1}, {20, 33, 37, 1}, {33, 64, 48, 2}, {70, 100, 64, 2}, {40, 96, 16, 1}} {
		for _, f := range []struct {
			form string
			mode precision.Mode
		}{{"amx6", precision.F32}, {"amx3", precision.Fast}} {
			r := rand.New(rand.NewPCG(35, 8))
			b := core.NewBuilder("g")
			x := b.Input("x", tensor.F32, c.m, c.k)
			y := b.MatMul(x, b.Const(short(r, 1.0/16, c.k, c.n)), tensor.F32)
			b.Output(b.Relu(b.Add(y, b.Const(short(r, 1, c.n)))))
			p := lowered(t, b.G, amx(f.mode, f.form, c.threads))
			if n := tilesOf(p, "bf16"); n != 1 {
				t.Errorf("%+v: %d kernels with matrix tiles, forms %v", c, n, chosen(p))
			}
			for _, special := range []float64{math.Inf(-1), math.NaN(), 3.4e38, 1e-40} {
				in := short(r, 1, c.m, c.k)
				for range 3 {
					in.SetFloat(r.IntN(in.Len()), special)
				}
				same(t, b.G, p, in, 1)
			}
		}
		r := rand.New(rand.NewPCG(36, 8))
		b := core.NewBuilder("g")
		w := tensor.New(tensor.F32, c.k, c.n)
		for i := range w.Len() {
			w.SetFloat(i, float64(r.IntN(5)-2))
		}
		x := b.Input("x", tensor.F32, c.m, c.k)
		x = b.Min(b.Max(b.Round(x), b.Like(x, -4)), b.Like(x, 4))
		b.Output(b.MatMul(x, b.Const(w), tensor.F32))
		if p := lowered(t, b.G, amx(precision.BF16, "amx", c.threads)); tilesOf(p, "bf16") != 1 {
			t.Errorf("%+v: forms %v", c, chosen(p))
		}
	}
}
