package cpu

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/backends/interp"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// stack is a 3×3 convolution, with weights of every size but also zeros, and
// what may follow one.
func stack(r *rand.Rand, ic, oc, h, w int) *ir.Graph {
	b := core.NewBuilder("g")
	x := b.Input("x", tensor.F32, 1, ic, h, w)
	k := tensor.New(tensor.F32, oc, ic, 3, 3)
	for i := range k.Len() {
		if r.IntN(8) > 0 {
			k.SetFloat(i, r.NormFloat64()/8)
		}
	}
	spec := core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{1, 1}, Hi: []int{1, 1}, Groups: 1}
	y := b.Conv(x, b.Const(k), spec)
	b.Output(y)
	b.Output(b.Min(b.Max(b.Add(y, b.Like(y, 0.5)), b.Like(y, 0)), b.Like(y, 6)))
	return b.G
}

// class is what kind of number f is: 0 for a finite one.
func class(f float64) int {
	switch {
	case math.IsNaN(f):
		return 2
	case math.IsInf(float64(float32(f)), 0):
		return int(math.Copysign(1, f))
	}
	return 0
}

// TestSpecialNumbers holds that infinities, NaN, denormals and numbers near the
// largest mean in all forms of a convolution what they mean to the evaluator,
// and that they spoil no output which does not depend on them.
func TestSpecialNumbers(t *testing.T) {
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	r := rand.New(rand.NewPCG(18, 8))
	inf, nan := math.Inf(1), math.NaN()
	cache := t.TempDir()
	for _, c := range []struct {
		name    string
		special []float64
	}{
		{"infinity", []float64{inf}}, {"both infinities", []float64{inf, -inf}}, {"NaN", []float64{nan}}, {"all", []float64{inf, -inf, nan}},
		{"near the largest", []float64{3.3e38, -3.3e38}}, {"denormals", nil},
	} {
		for _, mode := range []precision.Mode{precision.IEEE, precision.F32, precision.Fast} {
			for _, size := range [][2]int{{6, 6}, {20, 23}} {
				g := stack(r, 19, 32, size[0], size[1])
				x := tensor.New(tensor.F32, g.Inputs[0].Static()...)
				scale := 1.0
				if c.special == nil {
					scale = 1e-40
				}
				for i := range x.Len() {
					x.SetFloat(i, r.NormFloat64()*scale)
				}
				for _, f := range c.special {
					x.SetFloat(r.IntN(x.Len()), f)
				}
				want, err := core.EvalGraph(g, []*tensor.Tensor{x})
				if err != nil {
					t.Fatal(err)
				}
				name := fmt.Sprintf("%s, %s, %v", c.name, mode, size)
				for _, be := range []backend.Backend{Backend(), interp.Backend()} {
					if be.Name == "interp" && size[0] > 6 {
						continue // slow
					}
					o := backendtest.Options{CacheDir: cache, Threads: 1, Lower: compiler.Options{Precision: mode}}
					got, err := backendtest.Run(context.Background(), be, o, g, []*tensor.Tensor{x})
					if err != nil {
						t.Fatal(err)
					}
					for k := range want {
						// Winograd's error is one of the largest number near by.
						alike(t, fmt.Sprintf("%s, %s, output %d", name, be.Name, k), got[k], want[k], mode == precision.IEEE || c.name != "near the largest")
					}
				}
			}
		}
	}
}

// TestMatrixSpecialNumbers holds the same of products on a matrix unit, which
// takes denormals for zero and rounds what it multiplies to bfloat16.
func TestMatrixSpecialNumbers(t *testing.T) {
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	if here, err := Target("native"); err != nil || here.Lanes != 16 || here.Arch != "amd64" {
		t.Skip("this CPU has no AVX-512, which code for a matrix unit needs beside it")
	}
	r := rand.New(rand.NewPCG(19, 8))
	inf, nan := math.Inf(1), math.NaN()
	b := core.NewBuilder("g")
	k := tensor.New(tensor.F32, 75, 24)
	for i := range k.Len() {
		k.SetFloat(i, r.NormFloat64()/8)
	}
	b.Output(b.MatMul(b.Input("x", tensor.F32, 35, 75), b.Const(k), tensor.F32))
	conv := stack(r, 35, 32, 13, 15)
	cache := t.TempDir()
	for i, form := range []string{"amx6", "amx3", "winograd4-amx6", "amx6", "amx3"} {
		g := conv
		if i > 2 {
			g = b.G
		}
		mode := precision.F32
		if form == "amx3" {
			mode = precision.Fast
		}
		used := 0
		o := backendtest.Options{CPU: "native+amx-bf16+amx-emulated", CacheDir: cache, Threads: 1, Lower: compiler.Options{Precision: mode,
			Schedules: func(string) (schedule.Choice, bool) { return schedule.Choice{Form: form}, true }}}
		p, err := compiler.Program(g, must(Target(o.CPU)), o.Lower)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range p.Sites {
			if s.Chosen.Form == form {
				used++
			}
		}
		if used == 0 {
			t.Errorf("nothing has the form %s", form)
		}
		for _, c := range []struct {
			name    string
			special []float64
			scale   float64
		}{
			{"infinities", []float64{inf, -inf}, 1}, {"NaN", []float64{nan}, 1}, {"all", []float64{inf, -inf, nan}, 1}, {"denormals", nil, 1e-40}, {"tiny", nil, 1e-33},
			{"near the largest", []float64{3.4e38, -3.4e38}, 1}, {"of every size", []float64{inf, 3.4e38, 1e-20, 1e-30, 1e-40}, 1}, {"alone", []float64{1e-40, -1e-39}, 0},
		} {
			x := tensor.New(tensor.F32, g.Inputs[0].Static()...)
			for i := range x.Len() {
				x.SetFloat(i, r.NormFloat64()*c.scale)
			}
			for _, f := range c.special {
				x.SetFloat(r.IntN(x.Len()), f)
			}
			want, err := core.EvalGraph(g, []*tensor.Tensor{x})
			if err != nil {
				t.Fatal(err)
			}
			got, err := backendtest.Run(context.Background(), Backend(), o, g, []*tensor.Tensor{x})
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				alike(t, fmt.Sprintf("%s, %s, output %d", form, c.name, i), got[i], want[i], c.special == nil || c.special[0] != 3.4e38)
			}
		}
	}
}

// must is for CPU names that exist.
func must(tr backend.Traits, err error) backend.Traits {
	if err != nil {
		panic(err)
	}
	return tr
}

// alike holds that elements are of the same class, and if asked that finite
// ones are near: within 1e-4 of their tensor's scale, that of ordinary data.
// Denormals are multiples of 1.4e-45, to which every product is rounded, and
// Winograd's transforms magnify that; sums of what a CPU flushed to zero would
// be off by their whole scale, 2e-40.
func alike(t *testing.T, what string, got, want *tensor.Tensor, near bool) {
	t.Helper()
	scale, n := 0.0, 0.0
	for i := range want.Len() {
		if f := math.Abs(want.Float(i)); f < 100 {
			scale, n = scale+f*f, n+1
		}
	}
	scale = math.Sqrt(scale / max(n, 1))
	for i := range want.Len() {
		a, b := got.Float(i), want.Float(i)
		if class(a) != class(b) {
			t.Fatalf("%s, element %d: %v, the evaluator gives %v", what, i, a, b)
		}
		if near && class(b) == 0 && math.Abs(a-b) > 1e-4*(scale+math.Abs(b))+4e-41 {
			t.Fatalf("%s, element %d: %v, the evaluator gives %v", what, i, a, b)
		}
	}
}
