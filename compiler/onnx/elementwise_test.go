package onnx

import (
	"math"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func attrs(kv ...any) []ir.Attr {
	var as []ir.Attr
	for i := 0; i < len(kv); i += 2 {
		as = append(as, attr(kv[i].(string), kv[i+1]))
	}
	return as
}

// nums makes a tensor of a shape from row-major values.
func nums(d tensor.DType, shape []int, v ...float64) *tensor.Tensor {
	t := tensor.New(d, shape...)
	if t.Len() != len(v) {
		panic("BUG: a test case has the wrong number of values")
	}
	for i, x := range v {
		t.SetFloat(i, x)
	}
	return t
}

func vec(v ...float64) *tensor.Tensor { return nums(tensor.F32, []int{len(v)}, v...) }

func ints(v ...int) *tensor.Tensor { return tensor.Of(ir.Int64s(v), len(v)) }

func texts(v ...string) *tensor.Tensor { return stringTensor([]int{len(v)}, v) }

// counting is 0, 1, 2, … in a shape.
func counting(shape ...int) *tensor.Tensor {
	t := tensor.New(tensor.F32, shape...)
	for i := range t.Len() {
		t.SetFloat(i, float64(i))
	}
	return t
}

// runExact evaluates rows on strings, whose results are equal or not.
func runExact(t *testing.T, cases []rowCase) {
	t.Helper()
	for _, c := range cases {
		got, err := c.eval()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for i, want := range c.want {
			if !tensor.Equal(got[i], want) {
				t.Errorf("%s: output %d is %s %q, want %s %q", c.name, i, got[i], got[i].Strings(), want, want.Strings())
			}
		}
	}
}

// faulty evaluates rows that must fail as broken or unsupported.
func faulty(t *testing.T, kind fault.Kind, cases []rowCase) {
	t.Helper()
	for _, c := range cases {
		if _, err := c.eval(); fault.KindOf(err) != kind {
			t.Errorf("%s: got error %v, want one of class %s", c.name, err, kind)
		}
	}
}

func TestElementwiseRows(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	two := []int{2, 3}
	x := nums(tensor.F32, two, 1, 2, 3, 4, 5, 6)
	runRows(t, []rowCase{
		{name: "add 6, equal shapes", op: "Add", opset: 6, in: []*tensor.Tensor{vec(1, 2), vec(3, 4)}, want: []*tensor.Tensor{vec(4, 6)}},
		{name: "add 6, last axes", op: "Add", opset: 6, attrs: attrs("broadcast", 1), in: []*tensor.Tensor{x, vec(10, 20, 30)}, want: []*tensor.Tensor{nums(tensor.F32, two, 11, 22, 33, 14, 25, 36)}},
		{name: "add 6, first axis", op: "Add", opset: 6, attrs: attrs("broadcast", 1, "axis", 0), in: []*tensor.Tensor{x, vec(10, 20)}, want: []*tensor.Tensor{nums(tensor.F32, two, 11, 12, 13, 24, 25, 26)}},
		{name: "less 1, first axis", op: "Less", opset: 1, attrs: attrs("broadcast", 1, "axis", 0), in: []*tensor.Tensor{x, vec(2, 6)}, want: []*tensor.Tensor{nums(tensor.Bool, two, 1, 0, 0, 1, 1, 0)}},
		{name: "pow 1, axis", op: "Pow", opset: 1, attrs: attrs("broadcast", 1, "axis", 0), in: []*tensor.Tensor{x, vec(2, 1)}, want: []*tensor.Tensor{nums(tensor.F32, two, 1, 4, 9, 4, 5, 6)}},
		{name: "pow of int by float", op: "Pow", opset: 15, in: []*tensor.Tensor{nums(tensor.I32, []int{3}, 2, 3, 9), vec(3, 2, 0.5)}, want: []*tensor.Tensor{nums(tensor.I32, []int{3}, 8, 9, 3)}},
		{name: "pow of float by int64", op: "Pow", opset: 15, in: []*tensor.Tensor{vec(2, 3), ints(-1, 4)}, want: []*tensor.Tensor{vec(0.5, 81)}},
		{name: "square of a constant exponent", op: "Pow", opset: 13, in: []*tensor.Tensor{vec(-3, 0.5), vec(2)}, bind: []int{1}, want: []*tensor.Tensor{vec(9, 0.25)}},
		{name: "square broadcast to a higher rank", op: "Pow", opset: 13, in: []*tensor.Tensor{vec(-3), nums(tensor.F32, []int{1, 1}, 2)}, bind: []int{1}, want: []*tensor.Tensor{nums(tensor.F32, []int{1, 1}, 9)}},
		// Integers divide towards zero: -7/2 = -3.5 → -3.
		{name: "div of ints", op: "Div", opset: 14, in: []*tensor.Tensor{ints(-7, 7, 7), ints(2, -2, 2)}, want: []*tensor.Tensor{ints(-3, -3, 3)}},
		{name: "mod has the sign of the divisor", op: "Mod", opset: 13, in: []*tensor.Tensor{ints(-7, 7), ints(3, -3)}, want: []*tensor.Tensor{ints(2, -2)}},
		{name: "fmod has the sign of the dividend", op: "Mod", opset: 13, attrs: attrs("fmod", 1), in: []*tensor.Tensor{vec(-7.5, 7.5), vec(2, -2)}, want: []*tensor.Tensor{vec(-1.5, 1.5)}},
		{name: "shift beyond the width", op: "BitShift", opset: 11, attrs: attrs("direction", "LEFT"), in: []*tensor.Tensor{nums(tensor.U8, []int{2}, 129, 1), nums(tensor.U8, []int{2}, 1, 9)}, want: []*tensor.Tensor{nums(tensor.U8, []int{2}, 2, 0)}},
		{name: "clip 6", op: "Clip", opset: 6, attrs: attrs("min", -1.0, "max", 1.0), in: []*tensor.Tensor{vec(-3, 0.5, 3)}, want: []*tensor.Tensor{vec(-1, 0.5, 1)}},
		{name: "clip 6, one side", op: "Clip", opset: 6, attrs: attrs("min", 0.0), in: []*tensor.Tensor{vec(-3, 3)}, want: []*tensor.Tensor{vec(0, 3)}},
		{name: "clip 11, max only", op: "Clip", opset: 11, in: []*tensor.Tensor{vec(-3, 3), nil, nums(tensor.F32, nil, 2)}, want: []*tensor.Tensor{vec(-3, 2)}},
		{name: "abs of an unsigned integer beyond int64", op: "Abs", opset: 13, in: []*tensor.Tensor{tensor.Of([]uint64{1 << 63, 0}, 2)}, want: []*tensor.Tensor{tensor.Of([]uint64{1 << 63, 0}, 2)}},
		{name: "sign of an unsigned integer beyond int64", op: "Sign", opset: 13, in: []*tensor.Tensor{tensor.Of([]uint64{1 << 63, 0}, 2)}, want: []*tensor.Tensor{tensor.Of([]uint64{1, 0}, 2)}},
		{name: "sum of one", op: "Sum", opset: 13, in: []*tensor.Tensor{vec(1, 2)}, want: []*tensor.Tensor{vec(1, 2)}},
		{name: "mean broadcasts", op: "Mean", opset: 13, in: []*tensor.Tensor{vec(1, 2), vec(3), vec(5)}, want: []*tensor.Tensor{vec(3, 10.0/3)}},
		{name: "max keeps NaN", op: "Max", opset: 13, in: []*tensor.Tensor{vec(1, nan), vec(nan, 2)}, want: []*tensor.Tensor{vec(nan, nan)}},
		{name: "isinf, negative only", op: "IsInf", opset: 20, attrs: attrs("detect_positive", 0), in: []*tensor.Tensor{vec(inf, -inf, nan, 1)}, want: []*tensor.Tensor{nums(tensor.Bool, []int{4}, 0, 1, 0, 0)}},
		{name: "isinf, neither", op: "IsInf", opset: 20, attrs: attrs("detect_positive", 0, "detect_negative", 0), in: []*tensor.Tensor{vec(inf, -inf)}, want: []*tensor.Tensor{nums(tensor.Bool, []int{2}, 0, 0)}},
		{name: "isinf of a type without infinity", op: "IsInf", opset: 20, in: []*tensor.Tensor{nums(tensor.F8E4M3FN, []int{2}, 448, 1)}, want: []*tensor.Tensor{nums(tensor.Bool, []int{2}, 0, 0)}},
	})
	runExact(t, []rowCase{
		{name: "equal strings", op: "Equal", opset: 19, in: []*tensor.Tensor{texts("a", "b"), texts("b")}, want: []*tensor.Tensor{nums(tensor.Bool, []int{2}, 0, 1)}},
		{name: "where on strings", op: "Where", opset: 16, in: []*tensor.Tensor{nums(tensor.Bool, []int{2}, 1, 0), texts("a"), texts("b", "c")}, want: []*tensor.Tensor{texts("a", "c")}},
	})
	faulty(t, fault.BadModel, []rowCase{
		{name: "add 6, shapes differ without broadcast", op: "Add", opset: 6, in: []*tensor.Tensor{x, vec(1, 2, 3)}},
		{name: "add 6, axis beyond", op: "Add", opset: 6, attrs: attrs("broadcast", 1, "axis", 2), in: []*tensor.Tensor{x, vec(10, 20)}},
	})
	faulty(t, fault.Unsupported, []rowCase{
		{name: "shift without a direction", op: "BitShift", opset: 11, in: []*tensor.Tensor{nums(tensor.U8, []int{1}, 1), nums(tensor.U8, []int{1}, 1)}},
	})
}

func TestActivationRows(t *testing.T) {
	inf := math.Inf(1)
	x := nums(tensor.F32, []int{1, 2, 2}, -1, 2, -3, -4)
	runRows(t, []rowCase{
		// One slope per channel: -1·0.5, 2, -3·0.1, -4·0.1.
		{name: "prelu 6", op: "PRelu", opset: 6, in: []*tensor.Tensor{x, vec(0.5, 0.1)}, want: []*tensor.Tensor{nums(tensor.F32, []int{1, 2, 2}, -0.5, 2, -0.3, -0.4)}},
		// numpy aligns the last axis: -1·0.5, 2, -3·0.5, -4·0.1.
		{name: "prelu 9", op: "PRelu", opset: 9, in: []*tensor.Tensor{x, vec(0.5, 0.1)}, want: []*tensor.Tensor{nums(tensor.F32, []int{1, 2, 2}, -0.5, 2, -1.5, -0.4)}},
		{name: "hardmax 11 flattens", op: "Hardmax", opset: 11, attrs: attrs("axis", 1), in: []*tensor.Tensor{x}, want: []*tensor.Tensor{nums(tensor.F32, []int{1, 2, 2}, 0, 1, 0, 0)}},
		{name: "hardmax 13 takes one axis", op: "Hardmax", opset: 13, attrs: attrs("axis", 1), in: []*tensor.Tensor{x}, want: []*tensor.Tensor{nums(tensor.F32, []int{1, 2, 2}, 1, 1, 0, 0)}},
		// log(1+e^100) = 100 in any precision, although e^100 is beyond float32.
		{name: "softplus of large values", op: "Softplus", opset: 22, in: []*tensor.Tensor{vec(100, -100)}, want: []*tensor.Tensor{vec(100, 0)}},
		// 2·(2-0.5) where |x|>1: x-bias, x+bias, 0.
		// x·tanh(log(1+e^x)): 0.8650983882673103 at 1; x beyond 20; -100·e^-100 is 0 within reach of float32.
		{name: "mish", op: "Mish", opset: 22, in: []*tensor.Tensor{vec(1, 100, -100, inf)}, want: []*tensor.Tensor{vec(0.8650983882673103, 100, 0, inf)}},
		{name: "shrink of ints", op: "Shrink", opset: 9, attrs: attrs("lambd", 1.5, "bias", 1.0), in: []*tensor.Tensor{ints(-3, -1, 0, 1, 3)}, want: []*tensor.Tensor{ints(-2, 0, 0, 0, 2)}},
		// 1.0507·1.6732·(e^-1-1) = -1.11128, with the constants of opset 1.
		{name: "selu 1", op: "Selu", opset: 1, in: []*tensor.Tensor{vec(-1, 1)}, want: []*tensor.Tensor{vec(1.0507*1.6732*(math.Exp(-1)-1), 1.0507)}},
	})
	faulty(t, fault.Unsupported, []rowCase{
		{name: "gelu with an unknown approximation", op: "Gelu", opset: 20, attrs: attrs("approximate", "sigmoid"), in: []*tensor.Tensor{vec(1)}},
	})
}

func TestCastRows(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	to := func(d tensor.DType) []ir.Attr { return attrs("to", int(d)) }
	runRows(t, []rowCase{
		{name: "cast 1 names the type", op: "Cast", opset: 1, attrs: attrs("to", "INT32"), in: []*tensor.Tensor{vec(1.9, -1.9)}, want: []*tensor.Tensor{nums(tensor.I32, []int{2}, 1, -1)}},
		// Floats near 2^60 are 2^37 apart; by way of float64 the 1 is lost, and the tie goes down.
		{name: "int64 to float in one rounding", op: "Cast", opset: 13, attrs: to(tensor.F32), in: []*tensor.Tensor{ints(1<<60 + 1<<36 + 1)}, want: []*tensor.Tensor{vec(1<<60 + 1<<37)}},
		{name: "floats beyond int32", op: "Cast", opset: 13, attrs: to(tensor.I32), in: []*tensor.Tensor{vec(3e9, nan)}, want: []*tensor.Tensor{nums(tensor.I32, []int{2}, -1<<31, -1<<31)}},
		{name: "floats to bool", op: "Cast", opset: 13, attrs: to(tensor.Bool), in: []*tensor.Tensor{vec(0, -0.5, nan)}, want: []*tensor.Tensor{nums(tensor.Bool, []int{3}, 0, 1, 1)}},
	})
	runExact(t, []rowCase{
		{name: "strings to floats", op: "Cast", opset: 13, attrs: to(tensor.F32), in: []*tensor.Tensor{texts("3.14", "1e-5", "INF", "-inf", "NaN", "7")}, want: []*tensor.Tensor{vec(float64(float32(3.14)), float64(float32(1e-5)), inf, -inf, nan, 7)}},
		{name: "strings to ints", op: "Cast", opset: 13, attrs: to(tensor.I64), in: []*tensor.Tensor{texts("-12", "9007199254740993")}, want: []*tensor.Tensor{ints(-12, 9007199254740993)}},
		{name: "floats to strings", op: "Cast", opset: 13, attrs: to(tensor.String), in: []*tensor.Tensor{vec(0.5, 314.25, inf, nan, 1e20, 3)}, want: []*tensor.Tensor{texts("0.5", "314.25", "INF", "NaN", "1e+20", "3.0")}},
		{name: "ints to strings", op: "Cast", opset: 13, attrs: to(tensor.String), in: []*tensor.Tensor{ints(-5, 7)}, want: []*tensor.Tensor{texts("-5", "7")}},
		{name: "constant of strings", op: "Constant", opset: 13, attrs: []ir.Attr{{Name: "value_strings", Val: []string{"a", "b"}}}, want: []*tensor.Tensor{texts("a", "b")}},
	})
	faulty(t, fault.BadModel, []rowCase{
		{name: "no number", op: "Cast", opset: 13, attrs: to(tensor.I64), in: []*tensor.Tensor{texts("twelve")}},
		{name: "constant without a value", op: "Constant", opset: 13},
	})
	faulty(t, fault.Unsupported, []rowCase{
		{name: "an unknown type", op: "Cast", opset: 13, attrs: attrs("to", 99), in: []*tensor.Tensor{vec(1)}},
		{name: "a complex type", op: "Cast", opset: 13, attrs: to(tensor.C64), in: []*tensor.Tensor{vec(1)}},
		{name: "bits of another width", op: "BitCast", opset: 26, attrs: to(tensor.I64), in: []*tensor.Tensor{vec(1)}},
	})
}

// TestConstantPowers compares the powers that are products, quotients and roots
// with the function, at the values where those differ from it by themselves.
func TestConstantPowers(t *testing.T) {
	x := []float64{4, 16, 1.0 / 256, -8, 0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.NaN()}
	var cases []rowCase
	for _, p := range []float64{1, 2, 3, -1, 0.5, -0.5, 0.75} {
		want := make([]float64, len(x))
		for i, v := range x {
			want[i] = math.Pow(v, p)
		}
		cases = append(cases, rowCase{name: "pow by a constant", op: "Pow", opset: 15, in: []*tensor.Tensor{vec(x...), vec(p)}, bind: []int{1}, want: []*tensor.Tensor{vec(want...)}})
	}
	runRows(t, cases)
}
