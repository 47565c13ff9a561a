package core_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func f32(v ...float32) *tensor.Tensor { return tensor.Of(v, len(v)) }
func i32(v ...int32) *tensor.Tensor   { return tensor.Of(v, len(v)) }
func i64(v ...int64) *tensor.Tensor   { return tensor.Of(v, len(v)) }

// same compares bit for bit, but for NaN, which is any NaN.
func same(a, b float64) bool {
	return a == b && math.Signbit(a) == math.Signbit(b) || math.IsNaN(a) && math.IsNaN(b)
}

// TestValues holds rows against values computed by hand. Constants fold, so
// that what the builder gives is what the evaluator computes.
func TestValues(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	type build func(b *core.Builder) *ir.Value
	binary := func(op string, x, y *tensor.Tensor) build {
		return func(b *core.Builder) *ir.Value { return b.Binary(op, b.Const(x), b.Const(y)) }
	}
	unary := func(op string, x *tensor.Tensor) build {
		return func(b *core.Builder) *ir.Value { return b.Unary(op, b.Const(x)) }
	}
	x23 := tensor.Of([]float32{1, 2, 3, 4, 5, 6}, 2, 3)
	for _, c := range []struct {
		name string
		f    build
		want []float64
	}{
		{"integer division is towards zero", binary("div", i32(7, -7, 7, -7, 5), i32(2, 2, -2, -2, 0)), []float64{3, -3, -3, 3, 0}},
		{"mod has the sign of the divisor", binary("mod", i32(7, -7, 7, -7, 5), i32(3, 3, -3, -3, 0)), []float64{1, 2, -2, -1, 0}},
		{"fmod has the sign of the dividend", binary("fmod", i32(7, -7, 7, -7, 5), i32(3, 3, -3, -3, 0)), []float64{1, -1, 1, -1, 0}},
		{"mod of floats", binary("mod", f32(5.5, -5.5), f32(2, 2)), []float64{1.5, 0.5}},
		{"sums wrap", binary("add", tensor.Of([]int8{127, -128}, 2), tensor.Of([]int8{1, -1}, 2)), []float64{-128, 127}},
		{"shifts by the width give 0", binary("shl", tensor.Of([]uint8{3, 3}, 2), tensor.Of([]uint8{7, 8}, 2)), []float64{128, 0}},
		{"ties go to even", unary("round", f32(0.5, 1.5, 2.5, -0.5)), []float64{0, 2, 2, math.Copysign(0, -1)}},
		{"NaN wins a minimum", binary("min", f32(nan, 1, 2), f32(1, nan, 1)), []float64{math.NaN(), math.NaN(), 1}},
		{"NaN wins a maximum", binary("max", f32(nan, 1, 2), f32(1, nan, 1)), []float64{math.NaN(), math.NaN(), 2}},
		{"sign", unary("sign", f32(-3, 0, 2, nan)), []float64{-1, 0, 1, math.NaN()}},
		{"NaN is not equal, nor less", binary("eq", f32(nan, 1), f32(nan, 1)), []float64{0, 1}},
		{"floats to small integers go towards zero", func(b *core.Builder) *ir.Value {
			return b.Cast(b.Const(f32(2.9, -2.9, 100)), tensor.I8)
		}, []float64{2, -2, 100}},
		{"anything but zero is true", func(b *core.Builder) *ir.Value {
			return b.Cast(b.Const(f32(0.5, 0, -1, nan)), tensor.Bool)
		}, []float64{1, 0, 1, 1}},
		{"bits", func(b *core.Builder) *ir.Value { return b.Bitcast(b.Const(f32(1)), tensor.I32) }, []float64{0x3f800000}},
		{"maximum of nothing", func(b *core.Builder) *ir.Value {
			return b.Reduce("reduce_max", b.Const(tensor.New(tensor.F32, 2, 0)), true, 1)
		}, []float64{math.Inf(-1), math.Inf(-1)}},
		{"minimum of no integers", func(b *core.Builder) *ir.Value {
			return b.Reduce("reduce_min", b.Const(tensor.New(tensor.I32, 1, 0)), true, 1)
		}, []float64{math.MaxInt32}},
		{"product of nothing", func(b *core.Builder) *ir.Value {
			return b.Reduce("reduce_prod", b.Const(tensor.New(tensor.F32, 1, 0)), true, 1)
		}, []float64{1}},
		// 2^24 + 1 + 1 is lost in float32, kept in the float64 of the reference.
		{"sums round once", func(b *core.Builder) *ir.Value {
			return b.Reduce("reduce_sum", b.Const(f32(1<<24, 1, 1)), true, 0)
		}, []float64{1<<24 + 2}},
		{"the first of equals", func(b *core.Builder) *ir.Value { return b.ArgReduce("argmax", b.Const(f32(1, 3, 3, 2)), 0, false) }, []float64{1}},
		{"the last of equals", func(b *core.Builder) *ir.Value { return b.ArgReduce("argmax", b.Const(f32(1, 3, 3, 2)), 0, true) }, []float64{2}},
		{"exclusive sums from the end", func(b *core.Builder) *ir.Value {
			return b.Cumulate("sum", b.Const(f32(1, 2, 3, 4)), 0, true, true)
		}, []float64{9, 7, 4, 0}},
		{"sorting is stable", func(b *core.Builder) *ir.Value {
			_, at := b.Sort(b.Const(f32(2, 1, 2, 1)), 0, true)
			return at
		}, []float64{0, 2, 1, 3}},
		{"negative positions count from the end", func(b *core.Builder) *ir.Value {
			return b.Gather(b.Const(x23), 1, b.Const(i64(-1, 0)))
		}, []float64{3, 1, 6, 4}},
		{"slices with steps", func(b *core.Builder) *ir.Value {
			return b.Slice(b.Const(f32(0, 1, 2, 3, 4)), []int{4}, []int{3}, []int{-2})
		}, []float64{4, 2, 0}},
		{"padding", func(b *core.Builder) *ir.Value {
			return b.Pad(b.Const(f32(1, 2)), []int{1}, []int{2}, b.Scalar(tensor.F32, 9))
		}, []float64{9, 1, 2, 9, 9}},
		{"scatter adds in order", func(b *core.Builder) *ir.Value {
			return b.Scatter("add", b.Const(f32(1, 1, 1)), b.Const(i64(2, 0, 2)), b.Const(f32(5, 6, 7)))
		}, []float64{7, 1, 13}},
		// Rows (1,2,3) and (4,5,6) times columns (1,0,2) and (0,1,-1).
		{"matrix product", func(b *core.Builder) *ir.Value {
			return b.MatMul(b.Const(x23), b.Const(tensor.Of([]float32{1, 0, 0, 1, 2, -1}, 3, 2)), tensor.F32)
		}, []float64{7, -1, 16, -1}},
		// x = 1 2 3 4 with a zero on either side, taps 2 apart: 1·x[i-1] + 10·x[i+1], every second.
		{"convolution with stride, dilation and padding", func(b *core.Builder) *ir.Value {
			x, w := tensor.Of([]float32{1, 2, 3, 4}, 1, 1, 4), tensor.Of([]float32{1, 10}, 1, 1, 2)
			return b.Conv(b.Const(x), b.Const(w), core.ConvSpec{Strides: []int{2}, Dilations: []int{2}, Lo: []int{1}, Hi: []int{1}, Groups: 1})
		}, []float64{20, 42}},
		{"groups do not mix", func(b *core.Builder) *ir.Value {
			x, w := tensor.Of([]float32{1, 2, 3, 4}, 1, 2, 2), tensor.Of([]float32{10, 100}, 2, 1, 1)
			return b.Conv(b.Const(x), b.Const(w), core.ConvSpec{Strides: []int{1}, Dilations: []int{1}, Lo: []int{0}, Hi: []int{0}, Groups: 2})
		}, []float64{10, 20, 300, 400}},
		{"windows skip the padding", func(b *core.Builder) *ir.Value {
			x := tensor.Of([]float32{-1, -2, -3}, 1, 1, 3)
			return b.Window("window_max", b.Const(x), []int{2}, core.ConvSpec{Strides: []int{2}, Dilations: []int{1}, Lo: []int{1}, Hi: []int{0}})
		}, []float64{-1, -2}},
		{"infinity times zero", binary("mul", f32(inf), f32(0)), []float64{math.NaN()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := core.NewBuilder("g")
			var v *ir.Value
			if err := core.Catch(func() { v = c.f(b) }); err != nil {
				t.Fatal(err)
			}
			if v.Const == nil {
				t.Fatal("constants do not fold")
			}
			got := make([]float64, v.Const.Len())
			for i := range got {
				if v.DType().IsFloat() {
					got[i] = v.Const.Float(i)
				} else {
					got[i] = float64(v.Const.Int(i))
				}
			}
			if !slices.EqualFunc(got, c.want, same) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestFaults holds that operands which do not fit are named, not computed.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name, want string
		f          func(b *core.Builder)
	}{
		{"a position beside the axis", "index 3 is outside an axis of size 3", func(b *core.Builder) {
			b.Gather(b.Const(f32(1, 2, 3)), 0, b.Const(i64(3)))
		}},
		{"an axis too many", "axis 2 of rank 1", func(b *core.Builder) { b.Reduce("reduce_sum", b.Const(f32(1)), true, 2) }},
		{"products that do not meet", "3 columns, 2 rows", func(b *core.Builder) {
			b.MatMul(b.Input("x", tensor.F32, 2, 3), b.Input("y", tensor.F32, 2, 3), tensor.F32)
		}},
		{"an operand that is missing", "input 0 is missing", func(b *core.Builder) { b.Node("neg", []*ir.Value{nil}) }},
		{"an op that is none", `no core op "frobnicate"`, func(b *core.Builder) { b.Node("frobnicate", []*ir.Value{b.Const(f32(1))}) }},
		{"another number of elements", "reshape", func(b *core.Builder) { b.Reshape(b.Input("x", tensor.F32, 6), 4) }},
	} {
		err := core.Catch(func() { c.f(core.NewBuilder("g")) })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.name, err, c.want)
		}
	}
}

// TestBuilderShares holds that equal nodes are one, and others are not.
func TestBuilderShares(t *testing.T) {
	b := core.NewBuilder("g")
	x, y := b.Input("x", tensor.F32, 4), b.Input("y", tensor.F32, 4)
	if first, again := b.Add(x, y), b.Add(x, y); first != again {
		t.Error("equal nodes are two")
	}
	if b.Add(x, y) == b.Add(y, x) || b.Add(x, y) == b.Sub(x, y) {
		t.Error("other nodes are one")
	}
	if b.Cumulate("sum", x, 0, false, false) == b.Cumulate("sum", x, 0, true, false) {
		t.Error("other attributes make other nodes")
	}
}

// TestFoldLimit holds that folding does not make big constants of small ones
// while building, and does while evaluating.
func TestFoldLimit(t *testing.T) {
	for limit, want := range map[int]bool{core.DefaultFoldLimit: false, -1: true} {
		b := core.NewBuilder("g")
		b.FoldLimit = limit
		big := b.Iota(tensor.I64, 0, core.DefaultFoldLimit+1)
		if folded := big.Const != nil; folded != want {
			t.Errorf("limit %d: folded %v", limit, folded)
		}
	}
}

// TestTable holds that each row says what it does and can do it.
func TestTable(t *testing.T) {
	for _, o := range core.Table() {
		if o.Doc == "" || o.Infer == nil || o.Eval == nil || core.Lookup(o.Name) != o {
			t.Errorf("row %q is not whole", o.Name)
		}
		if (o.Class == core.Pointwise) != (o.Scalar != nil) && o.Name != "iota" {
			t.Errorf("row %q: a scalar function belongs to pointwise ops", o.Name)
		}
	}
}
