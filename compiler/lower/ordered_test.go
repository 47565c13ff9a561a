package lower_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestHeadOfOrder holds that the first few of a sorted axis are found without
// sorting, equal ones in the order of position, along any axis.
func TestHeadOfOrder(t *testing.T) {
	for _, shape := range [][]int{{1, 50}, {3, 9, 4}, {33, 5}, {2, 150}, {100, 3}} {
		for axis := range shape {
			for _, descending := range []bool{false, true} {
				for _, k := range []int{1, 3, 4, 64, 99} {
					if k > shape[axis] {
						continue
					}
					t.Run(fmt.Sprint(shape, axis, descending, k), func(t *testing.T) {
						b := core.NewBuilder("g")
						x := b.Input("x", tensor.F32, shape...)
						x = b.Floor(b.Mul(x, b.Like(x, 2))) // with ties
						v, at := b.Sort(x, axis, descending)
						b.Output(b.SliceAxis(v, axis, 0, k))
						b.Output(b.SliceAxis(at, axis, 0, k))
						p := lowered(t, b.G, lower.Options{Lanes: 8, Regs: 16})
						if got := slices.Contains(families(p), "head"); got != (k < shape[axis]) {
							t.Errorf("kernels %v for %d of %d", families(p), k, shape[axis])
						}
					})
				}
			}
		}
	}
}

// TestWindows holds that windows of every geometry are right over planes and
// channel blocks: edges, gaps, strides beyond the kernel.
func TestWindows(t *testing.T) {
	for _, op := range []string{"window_max", "window_sum"} {
		for _, c := range []struct{ h, w, kernel, stride, dilation, lo, hi int }{
			{9, 20, 3, 2, 1, 1, 1}, {8, 17, 3, 1, 1, 1, 1}, {6, 18, 2, 2, 1, 0, 0}, {5, 33, 1, 3, 1, 0, 0}, {7, 7, 5, 1, 1, 2, 2}, {9, 12, 3, 2, 2, 2, 1}, {4, 4, 4, 1, 1, 0, 0}, {7, 9, 6, 1, 1, 3, 2},
			{50, 20, 3, 2, 1, 1, 1}, {39, 9, 3, 1, 1, 1, 1}, {80, 40, 4, 2, 1, 1, 2}, // in bands
		} {
			t.Run(fmt.Sprint(op, c), func(t *testing.T) {
				b := core.NewBuilder("g")
				x := b.Input("x", tensor.F32, 2, 5, c.h, c.w)
				two := func(n int) []int { return []int{n, n} }
				s := core.ConvSpec{Strides: two(c.stride), Dilations: two(c.dilation), Lo: two(c.lo), Hi: two(c.hi), Groups: 1}
				b.Output(b.Relu(b.Window(op, x, two(c.kernel), s)))
				for _, o := range widths {
					lowered(t, b.G, o)
				}
			})
		}
	}
}

// TestRowsAcross holds that what is done to rows that lie across is right: any
// axis, sizes that are no multiples of the lanes, long rows.
func TestRowsAcross(t *testing.T) {
	for _, c := range []struct {
		shape []int
		axis  int
	}{{[]int{2, 5, 37}, 1}, {[]int{3, 8}, 0}, {[]int{2, 3, 4, 150}, 1}, {[]int{2, 400, 33}, 1}, {[]int{4, 6, 9, 5}, 2}, {[]int{300, 260}, 0}} {
		t.Run(fmt.Sprint(c.shape, c.axis), func(t *testing.T) {
			b := core.NewBuilder("g")
			x := b.Input("x", tensor.F32, c.shape...)
			e := b.Exp(b.Sub(x, b.Reduce("reduce_max", x, true, c.axis)))
			sum := b.Reduce("reduce_sum", e, true, c.axis)
			b.Output(b.Div(e, sum))
			mean := b.Div(b.Reduce("reduce_sum", x, true, c.axis), b.Like(sum, float64(c.shape[c.axis])))
			d := b.Sub(x, mean)
			b.Output(b.Div(d, b.Sqrt(b.Add(b.Reduce("reduce_sum", b.Mul(d, d), true, c.axis), b.Like(sum, 1)))))
			for _, o := range widths {
				lowered(t, b.G, o)
			}
		})
	}
}

// TestCumulate holds that running sums are right along every axis.
func TestCumulate(t *testing.T) {
	for _, shape := range [][]int{{3, 7, 9}, {40}, {2, 5, 3, 17}} {
		for axis := range shape {
			for way := range 4 {
				t.Run(fmt.Sprint(shape, axis, way), func(t *testing.T) {
					b := core.NewBuilder("g")
					x := b.Input("x", tensor.F32, shape...)
					b.Output(b.Node("cumulate", []*ir.Value{x}, "op", "sum", "axis", axis, "exclusive", way&1, "reverse", way>>1))
					lowered(t, b.G, lower.Options{Lanes: 8, Regs: 16})
				})
			}
		}
	}
}

// TestOrderOfKeys holds that elements ordered by whole-number keys come out as
// from the evaluator: whole lines and heads of them, ties, both zeros and
// infinities, lines that are equal throughout, already in order or against it.
func TestOrderOfKeys(t *testing.T) {
	kinds := map[string]func(b *core.Builder, x *ir.Value) *ir.Value{
		"all different": func(_ *core.Builder, x *ir.Value) *ir.Value { return x },
		"ties":          func(b *core.Builder, x *ir.Value) *ir.Value { return b.Floor(b.Mul(x, b.Like(x, 4))) },
		"two values":    func(b *core.Builder, x *ir.Value) *ir.Value { return b.Floor(b.Mul(b.Tanh(x), b.Like(x, 0.99))) },
		"one value":     func(b *core.Builder, x *ir.Value) *ir.Value { return b.Mul(x, b.Like(x, 0)) },
		"infinities":    func(b *core.Builder, x *ir.Value) *ir.Value { return b.Mul(b.Floor(x), b.Like(x, 3e38)) },
		"falling":       func(b *core.Builder, x *ir.Value) *ir.Value { return b.Neg(rising(b, x)) },
		"rising":        rising,
	}
	for _, c := range []struct {
		shape   []int
		axis, k int
	}{
		{[]int{2, 300}, 1, 300}, {[]int{300, 2}, 0, 250}, {[]int{1, 1500}, 1, 200}, {[]int{2, 1003}, 1, 10},
		{[]int{1, 4100}, 1, 70}, {[]int{130, 3}, 0, 4}, {[]int{1, 2077}, 1, 1},
	} {
		for _, name := range slices.Sorted(maps.Keys(kinds)) {
			for _, descending := range []bool{false, true} {
				t.Run(fmt.Sprint(c.shape, c.axis, c.k, name, descending), func(t *testing.T) {
					b := core.NewBuilder("g")
					x := kinds[name](b, b.Input("x", tensor.F32, c.shape...))
					v, at := b.Sort(x, c.axis, descending)
					b.Output(b.SliceAxis(v, c.axis, 0, c.k))
					b.Output(b.SliceAxis(at, c.axis, 0, c.k))
					lowered(t, b.G, lower.Options{Lanes: 8, Regs: 16})
				})
			}
		}
	}
}

// rising is an order that is sorted already.
func rising(b *core.Builder, x *ir.Value) *ir.Value {
	shape := x.Static()
	axis := 0
	for i, n := range shape {
		if n > shape[axis] {
			axis = i
		}
	}
	return b.Node("cumulate", []*ir.Value{b.Add(b.Mul(x, b.Like(x, 0)), b.Like(x, 1))}, "op", "sum", "axis", axis, "exclusive", 0, "reverse", 0)
}
