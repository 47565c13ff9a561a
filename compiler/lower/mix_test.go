package lower_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// mixed resizes an axis to size by sums of n neighbours, whose weights differ
// for each output.
func mixed(b *core.Builder, x *ir.Value, axis, size, n int) *ir.Value {
	var y *ir.Value
	has := core.Shape(x)[axis]
	for k := range n {
		at, shape := make([]int, size), slices.Repeat([]int{1}, x.Rank())
		shape[axis] = size
		w := tensor.New(tensor.F32, shape...)
		for i := range size {
			at[i] = min(max(i*has/size+k-n/2, 0), has-1)
			w.SetFloat(i, float64((3*i+5*k)%7+1)/8)
		}
		term := b.Mul(b.Gather(x, axis, b.Ints(at...)), b.Const(w))
		if y == nil {
			y = term
		} else {
			y = b.Add(y, term)
		}
	}
	return y
}

// TestMixes holds that images that are resized give what the evaluator gives:
// rows and channel blocks, with whole and part vectors, halos and what follows.
func TestMixes(t *testing.T) {
	conv := func(b *core.Builder, x *ir.Value, out, kernel, pad int) *ir.Value {
		w := tensor.New(tensor.F32, out, core.Shape(x)[1], kernel, kernel)
		for i := range w.Len() {
			w.SetFloat(i, float64(i%13-6)/64)
		}
		return b.Conv(x, b.Const(w), core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{pad, pad}, Hi: []int{pad, pad}, Groups: 1})
	}
	for _, c := range []struct {
		channels, h, w, toH, toW, taps int
	}{{3, 5, 20, 4, 27, 2}, {21, 3, 5, 9, 33, 2}, {16, 4, 6, 8, 12, 4}, {1, 3, 3, 4, 5, 2}, {24, 5, 4, 7, 9, 2}} {
		for _, between := range []string{"alone", "followed", "blocks", "halo", "joined", "read twice"} {
			t.Run(fmt.Sprint(c, between), func(t *testing.T) {
				b := core.NewBuilder("g")
				x := b.Input("x", tensor.F32, 2, c.channels, c.h, c.w)
				if between == "blocks" || between == "halo" || between == "joined" {
					x = conv(b, x, c.channels, 1, 0)
				}
				rows := mixed(b, x, 2, c.toH, c.taps)
				y := mixed(b, rows, 3, c.toW, c.taps)
				switch between {
				case "followed":
					y = b.Max(b.Add(y, b.Input("z", tensor.F32, 2, c.channels, c.toH, c.toW)), b.Like(y, 0))
				case "halo":
					y = conv(b, y, 16, 3, 1)
				case "joined":
					y = conv(b, b.Concat(1, y, conv(b, b.Input("z", tensor.F32, 2, 16, c.toH, c.toW), 32, 1, 0)), 16, 1, 0)
				case "read twice":
					b.Output(rows)
				}
				b.Output(y)
				for _, o := range []lower.Options{wide, {Lanes: 8, Regs: 16}, {Lanes: 8, Regs: 16, Precision: precision.IEEE}} {
					p := lowered(t, b.G, o)
					if has := slices.Contains(families(p), "resize"); has != (between != "read twice" && o.Precision != precision.IEEE) {
						t.Errorf("kernels are %v", families(p))
					}
				}
			})
		}
	}
}

// TestMixesKeepInfinities holds that an infinity or a NaN reaches the elements
// that the evaluator says, and no others that a vector of columns reads with it.
func TestMixesKeepInfinities(t *testing.T) {
	b := core.NewBuilder("g")
	x := b.Input("x", tensor.F32, 1, 3, 5, 20)
	b.Output(mixed(b, mixed(b, x, 2, 4, 2), 3, 27, 2))
	for _, o := range []lower.Options{wide, {Lanes: 8, Regs: 16}} {
		p, err := lower.Lower(b.G, o)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(families(p), "resize") {
			t.Fatalf("kernels are %v", families(p))
		}
		for _, v := range []float64{math.Inf(1), math.Inf(-1), math.NaN()} {
			in := tensor.New(tensor.F32, 1, 3, 5, 20)
			for i := range in.Len() {
				in.SetFloat(i, float64(i%7))
			}
			in.SetFloat(20+9, v) // row 1 of the first channel
			got, want := both(t, b.G, p, []*tensor.Tensor{in})
			spoiled := 0
			for i := range want[0].Len() {
				g, w := got[0].Float(i), want[0].Float(i)
				if math.IsInf(w, 0) || math.IsNaN(w) {
					spoiled++
				}
				if math.IsNaN(g) != math.IsNaN(w) || math.IsInf(w, 0) && g != w || !math.IsInf(w, 0) && math.Abs(g-w) > 1e-5 {
					t.Errorf("%d lanes, %v: element %d is %v, not %v", o.Lanes, v, i, g, w)
				}
			}
			if spoiled == 0 || spoiled > 12 {
				t.Errorf("%d elements are not finite", spoiled)
			}
		}
	}
}
