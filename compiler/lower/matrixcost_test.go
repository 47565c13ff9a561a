package lower_test

import (
	"fmt"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// unitWork counts what a program asks of a matrix unit: products and loads of
// matrices, as the printer makes them, and vectors that are read around them.
type unitWork struct{ products, loads, stores, vectors float64 }

func (w *unitWork) count(body []loop.Stmt, times float64) {
	for _, s := range body {
		switch s := s.(type) {
		case *loop.For:
			n := float64(s.Var.N)
			if s.Kind == loop.Vector {
				w.vectors += times * n / 16
			}
			w.count(s.Body, times*n)
		case *loop.Cond:
			w.count(s.Else, times) // what a guard computes once more is not meant
			if len(s.Else) == 0 && !plainTiles(s.Then) {
				w.count(s.Then, times)
			}
		case *loop.Tile:
			if !s.Matrix {
				continue
			}
			runs := float64(s.P / s.Rows)
			steps := times
			for _, r := range s.Red[:len(s.Red)-1] {
				steps *= float64(r.N)
			}
			terms := s.Products()
			for i, d := range terms {
				w.products += steps * runs * float64(s.OB)
				if i == 0 || d[0] != terms[i-1][0] {
					w.loads += steps * runs
				}
				if i == 0 || d[1] != terms[i-1][1] {
					w.loads += steps * float64(s.OB)
				}
			}
			w.stores += times * runs * float64(s.OB)
		}
	}
}

// plainTiles reports tiles of vectors of F32, with which a guard computes.
func plainTiles(body []loop.Stmt) bool {
	for _, s := range body {
		switch s := s.(type) {
		case *loop.For:
			if plainTiles(s.Body) {
				return true
			}
		case *loop.Cond:
			if plainTiles(s.Then) {
				return true
			}
		case *loop.Tile:
			return !s.Matrix
		}
	}
	return false
}

func workOf(p *program.Program) (w unitWork) {
	for _, s := range p.Steps {
		if f := s.Kernel.Family; f == "staged" || f == "winograd" || f == "dot" {
			w.count(s.Kernel.Body, 1)
		}
	}
	return w
}

// TestMatrixWork holds that schedules waste little of a matrix unit: what they
// multiply is near what the layer has, in products of 16 rows, 32 steps and 16
// outputs, and no more matrices are loaded than two runs of two vectors need.
func TestMatrixWork(t *testing.T) {
	for _, c := range []struct {
		ic, size, oc, kernel, stride int
		most                         float64 // products over those of the layer
	}{
		{64, 56, 64, 3, 1, 1.06}, {128, 28, 128, 3, 1, 1.1}, {256, 14, 256, 3, 1, 1.16}, {512, 7, 512, 3, 1, 1.35},
		{128, 56, 128, 3, 2, 1.1}, {512, 14, 512, 3, 2, 1.35}, {64, 56, 256, 1, 1, 1.01}, {1024, 14, 256, 1, 1, 1.15}, {2048, 7, 512, 1, 1, 1.32},
		{256, 56, 512, 1, 2, 1.02}, {32, 28, 192, 1, 1, 1.01}, {160, 7, 960, 1, 1, 1.32}, {3, 224, 64, 7, 2, 0.16}, // 7 pixels a step
		{3, 224, 64, 3, 1, 0.35},
	} {
		b := core.NewBuilder("g")
		x := b.Input("x", tensor.F32, 1, c.ic, c.size, c.size)
		w := tensor.New(tensor.F32, c.oc, c.ic, c.kernel, c.kernel)
		pad := []int{c.kernel / 2, c.kernel / 2}
		y := b.Conv(x, b.Const(w), core.ConvSpec{Strides: []int{c.stride, c.stride}, Dilations: []int{1, 1}, Lo: pad, Hi: pad, Groups: 1})
		b.Output(y)
		for parts, form := range []string{"amx", "amx3", "amx6"} {
			p, err := lower.Lower(b.G, amx([]precision.Mode{precision.BF16, precision.Fast, precision.F32}[parts], form, 1))
			if err != nil {
				t.Fatal(err)
			}
			got := workOf(p)
			out := y.Static()[2]
			ideal := float64(out*out*((c.ic+31)/32)*((c.oc+15)/16)*c.kernel*c.kernel) / 16 * []float64{1, 3, 6}[parts]
			name := fmt.Sprintf("%dx%d %d→%d of %d, stride %d, %s", c.kernel, c.kernel, c.ic, c.oc, c.size, c.stride, form)
			if r := got.products / ideal; r > c.most {
				t.Errorf("%s: %.3f times the products of the layer, want at most %g", name, r, c.most)
			}
			if r := got.loads / got.products; r > []float64{1.15, 0.77, 0.77}[parts] {
				t.Errorf("%s: %.3f loads for a product", name, r)
			}
			cycles := 18*got.products + 6.5*got.loads + 17*got.stores
			t.Logf("%s: %.0f products (%.2f), %.0f loads: about %.0f us of the unit, %.0f of vectors", name, got.products, got.products/ideal, got.loads, cycles/3500, 2*got.vectors/3500)
		}
	}
}
