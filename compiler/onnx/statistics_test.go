package onnx

import (
	"math"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func TestPoolRows(t *testing.T) {
	x := f32([]int{1, 1, 2}, 2, 4)
	k2 := attr("kernel_shape", []int{2})
	pool := func(op string, opset int, want *tensor.Tensor, attrs ...ir.Attr) rowCase {
		return rowCase{name: op, op: op, opset: opset, attrs: append(attrs, k2), in: []*tensor.Tensor{x}, want: []*tensor.Tensor{want}}
	}
	count16 := make([]float32, 16)
	for i := range count16 {
		count16[i] = float32(i)
	}
	image := f32([]int{1, 1, 4, 4}, count16...)
	runRows(t, []rowCase{
		pool("AveragePool", 1, f32([]int{1, 1, 2}, 2, 3), attr("pads", []int{1, 0})),
		pool("AveragePool", 7, f32([]int{1, 1, 2}, 1, 3), attr("pads", []int{1, 0}), attr("count_include_pad", 1)),
		pool("AveragePool", 11, f32([]int{1, 1, 2}, 3, 4), attr("auto_pad", "SAME_UPPER")),
		// Windows begin at 0 and 3 (beyond the input: dropped).
		pool("AveragePool", 10, f32([]int{1, 1, 1}, 3), attr("strides", []int{3}), attr("ceil_mode", 1)),
		pool("LpPool", 1, f32([]int{1, 1, 1}, 6), attr("p", 1.0)),
		pool("LpPool", 2, f32([]int{1, 1, 1}, float32(math.Sqrt(20)))),
		pool("LpPool", 11, f32([]int{1, 1, 1}, float32(math.Cbrt(72))), attr("p", 3)),
		{name: "global 3-norm", op: "GlobalLpPool", opset: 2, attrs: []ir.Attr{attr("p", 3)}, in: []*tensor.Tensor{x}, want: []*tensor.Tensor{f32([]int{1, 1, 1}, float32(math.Cbrt(72)))}},
		{name: "max of integers", op: "MaxPool", opset: 12, attrs: []ir.Attr{k2, attr("pads", []int{1, 1})},
			in: []*tensor.Tensor{i8([]int{1, 1, 2}, -3, -7)}, want: []*tensor.Tensor{i8([]int{1, 1, 3}, -3, -3, -7), i64([]int{1, 1, 3}, 0, 0, 1)}},
		// Maxima 5 7 13 15; by columns, row r and column c are at c·4+r; the second channel begins at 16.
		{name: "indices by columns", op: "MaxPool", opset: 8, attrs: []ir.Attr{attr("kernel_shape", []int{2, 2}), attr("strides", []int{2, 2}), attr("storage_order", 1)},
			in:   []*tensor.Tensor{f32([]int{1, 2, 4, 4}, append(count16, count16...)...)},
			want: []*tensor.Tensor{f32([]int{1, 2, 2, 2}, 5, 7, 13, 15, 5, 7, 13, 15), i64([]int{1, 2, 2, 2}, 5, 13, 7, 15, 21, 29, 23, 31)}},
		{name: "channels last", domain: microsoft, op: "NhwcMaxPool", attrs: []ir.Attr{k2},
			in: []*tensor.Tensor{u8([]int{1, 3, 2}, 1, 9, 5, 8, 2, 7)}, want: []*tensor.Tensor{u8([]int{1, 2, 2}, 5, 9, 5, 8)}},
		{name: "whole image", op: "MaxRoiPool", opset: 1, noExp: true, attrs: []ir.Attr{attr("pooled_shape", []int{2, 2})},
			in: []*tensor.Tensor{image, f32([]int{1, 5}, 0, 0, 0, 3, 3)}, want: []*tensor.Tensor{f32([]int{1, 1, 2, 2}, 5, 7, 13, 15)}},
		// 7·0.5 rounds to 4: five columns in cells [0,3) and [2,5), cut at 4.
		{name: "scaled region", op: "MaxRoiPool", opset: 22, noExp: true, attrs: []ir.Attr{attr("pooled_shape", []int{2, 2}), attr("spatial_scale", 0.5)},
			in: []*tensor.Tensor{image, f32([]int{1, 5}, 0, 0, 0, 7, 7)}, want: []*tensor.Tensor{f32([]int{1, 1, 2, 2}, 10, 11, 14, 15)}},
	})
}

func TestNormRows(t *testing.T) {
	one := func(v ...float32) *tensor.Tensor { return f32([]int{len(v)}, v...) }
	runRows(t, []rowCase{
		// (x-mean)/sqrt(var)·scale + B with parameters for each position.
		{name: "batch norm by position", op: "BatchNormalization", opset: 7, attrs: []ir.Attr{attr("spatial", 0), attr("epsilon", 0.0)},
			in:   []*tensor.Tensor{f32([]int{2, 1, 2}, 1, 2, 3, 4), f32([]int{1, 2}, 2, 3), f32([]int{1, 2}, 1, 1), f32([]int{1, 2}, 1, 2), f32([]int{1, 2}, 4, 1)},
			want: []*tensor.Tensor{f32([]int{2, 1, 2}, 1, 1, 3, 7)}},
		{name: "batch norm 6, testing", op: "BatchNormalization", opset: 6, attrs: []ir.Attr{attr("is_test", 1), attr("epsilon", 0.0)},
			in:   []*tensor.Tensor{f32([]int{1, 2, 1}, 3, 4), one(2, 1), one(0, 1), one(1, 2), one(4, 1)},
			want: []*tensor.Tensor{f32([]int{1, 2, 1}, 2, 3)}},
		// Batch mean 2 and variance 1; running 0·0.9+2·0.1 and 1·0.9+1·0.1.
		{name: "batch norm 9, training", op: "BatchNormalization", opset: 9, attrs: []ir.Attr{attr("epsilon", 0.0)},
			in:   []*tensor.Tensor{f32([]int{2, 1}, 1, 3), one(1), one(0), one(0), one(1)},
			want: []*tensor.Tensor{f32([]int{2, 1}, -1, 1), one(0.2), one(1), one(2), one(1)}},
		// Windows of size 2 look ahead: 1/(1+4), 2/(4+9), 3/9, with alpha/size = 1.
		{name: "lrn of even size", op: "LRN", opset: 1, attrs: []ir.Attr{attr("size", 2), attr("alpha", 2.0), attr("beta", 1.0), attr("bias", 0.0)},
			in: []*tensor.Tensor{f32([]int{1, 3, 1}, 1, 2, 3)}, want: []*tensor.Tensor{f32([]int{1, 3, 1}, 1.0/5, 2.0/13, 3.0/9)}},
		{name: "zero vector", op: "LpNormalization", opset: 1, attrs: []ir.Attr{attr("axis", 1)},
			in: []*tensor.Tensor{f32([]int{2, 2}, 0, 0, 3, 4)}, want: []*tensor.Tensor{f32([]int{2, 2}, 0, 0, 0.6, 0.8)}},
		// Sum 2 4: mean 3, deviation 1.
		{name: "skip layer norm", domain: microsoft, op: "SkipLayerNormalization", attrs: []ir.Attr{attr("epsilon", 0.0)},
			in:   []*tensor.Tensor{f32([]int{1, 1, 2}, 1, 2), f32([]int{1, 1, 2}, 1, 1), one(2, 2), one(1, 1), one(0, 1)},
			want: []*tensor.Tensor{f32([]int{1, 1, 2}, -1, 3), f32([]int{1, 1, 1}, 3), f32([]int{1, 1, 1}, 1), f32([]int{1, 1, 2}, 2, 4)}},
		// Sum 6 8: root mean square sqrt(50).
		{name: "skip rms norm", domain: microsoft, op: "SkipSimplifiedLayerNormalization", attrs: []ir.Attr{attr("epsilon", 0.0)},
			in:   []*tensor.Tensor{f32([]int{1, 1, 2}, 6, 7), f32([]int{1, 1, 2}, 0, 1), one(1, 2)},
			want: []*tensor.Tensor{f32([]int{1, 1, 2}, float32(6/math.Sqrt(50)), float32(16/math.Sqrt(50)))}},
	})
}

func TestSoftmaxBeforeOpset13(t *testing.T) {
	x := f32([]int{1, 2, 2}, 0, 0, 0, 0)
	runRows(t, []rowCase{
		{name: "flattened", op: "Softmax", opset: 11, in: []*tensor.Tensor{x}, want: []*tensor.Tensor{f32([]int{1, 2, 2}, 0.25, 0.25, 0.25, 0.25)}},
		{name: "last axis", op: "Softmax", opset: 13, in: []*tensor.Tensor{x}, want: []*tensor.Tensor{f32([]int{1, 2, 2}, 0.5, 0.5, 0.5, 0.5)}},
		{name: "log, flattened at 2", op: "LogSoftmax", opset: 1, attrs: []ir.Attr{attr("axis", 2)}, in: []*tensor.Tensor{x},
			want: []*tensor.Tensor{f32([]int{1, 2, 2}, -math.Ln2, -math.Ln2, -math.Ln2, -math.Ln2)}},
	})
}

func TestReduceRows(t *testing.T) {
	m := f32([]int{2, 2}, 1, 2, 3, 4)
	inf := float32(math.Inf(1))
	runRows(t, []rowCase{
		{name: "axes as attribute", op: "ReduceSum", opset: 11, attrs: []ir.Attr{attr("axes", []int{-1}), attr("keepdims", 0)},
			in: []*tensor.Tensor{m}, want: []*tensor.Tensor{f32([]int{2}, 3, 7)}},
		{name: "axes as attribute until 17", op: "ReduceMean", opset: 17, attrs: []ir.Attr{attr("axes", []int{0})},
			in: []*tensor.Tensor{m}, want: []*tensor.Tensor{f32([]int{1, 2}, 2, 3)}},
		{name: "no axes, no-op: squares remain", op: "ReduceSumSquare", opset: 18, attrs: []ir.Attr{attr("noop_with_empty_axes", 1)},
			in: []*tensor.Tensor{m}, want: []*tensor.Tensor{f32([]int{2, 2}, 1, 4, 9, 16)}},
		{name: "norm of integers", op: "ReduceL2", opset: 13, attrs: []ir.Attr{attr("keepdims", 0)},
			in: []*tensor.Tensor{i32([]int{2}, 3, 4)}, want: []*tensor.Tensor{i32(nil, 5)}},
		{name: "infinite terms", op: "ReduceLogSumExp", opset: 13, attrs: []ir.Attr{attr("axes", []int{1}), attr("keepdims", 0)},
			in: []*tensor.Tensor{f32([]int{3, 2}, -inf, -inf, inf, 0, 1000, 1000)}, want: []*tensor.Tensor{f32([]int{3}, -inf, inf, 1000+math.Ln2)}},
		{name: "mean of integers", op: "ReduceMean", opset: 13, attrs: []ir.Attr{attr("keepdims", 0)},
			in: []*tensor.Tensor{i32([]int{2}, -3, -4)}, want: []*tensor.Tensor{i32(nil, -3)}},
	})
}

func TestQuantRows(t *testing.T) {
	one := func(op string, want *tensor.Tensor, in ...*tensor.Tensor) rowCase {
		return rowCase{name: op, domain: microsoft, op: op, in: in, want: []*tensor.Tensor{want}}
	}
	half, one1 := f32(nil, 0.5), f32(nil, 1)
	concat := one("QLinearConcat", u8([]int{3}, 3, 8, 4), one1, u8(nil, 3), u8([]int{2}, 10, 20), half, u8(nil, 10), u8([]int{1}, 8), f32(nil, 0.25), u8(nil, 4))
	concat.attrs = []ir.Attr{attr("axis", 0)}
	last := one("QLinearGlobalAveragePool", u8([]int{1, 1, 2}, 2, 4), u8([]int{1, 2, 2}, 1, 3, 3, 5), one1, u8(nil, 0), one1, u8(nil, 0))
	last.attrs = []ir.Attr{attr("channels_last", 1)}
	runRows(t, []rowCase{
		// 0.5 and 1.5 tie to even; 300 saturates.
		{name: "opset 10", op: "QuantizeLinear", opset: 10, in: []*tensor.Tensor{f32([]int{4}, 1, 3, -300, 300), f32(nil, 2), i8(nil, 1)},
			want: []*tensor.Tensor{i8([]int{4}, 1, 3, -128, 127)}},
		{name: "i32 has no zero point", op: "DequantizeLinear", opset: 10, in: []*tensor.Tensor{i32([]int{2}, 3, -5), f32(nil, 0.5)},
			want: []*tensor.Tensor{f32([]int{2}, 1.5, -2.5)}},
		{name: "last block is short", op: "DequantizeLinear", opset: 21, attrs: []ir.Attr{attr("axis", 0), attr("block_size", 2)},
			in: []*tensor.Tensor{i8([]int{3}, 1, 2, 3), f32([]int{2}, 1, 10)}, want: []*tensor.Tensor{f32([]int{3}, 1, 2, 30)}},
		{name: "output_dtype without zero point", op: "QuantizeLinear", opset: 21, attrs: []ir.Attr{attr("output_dtype", int(tensor.I16))},
			in: []*tensor.Tensor{f32([]int{2}, 100000, -7), f32(nil, 1)}, want: []*tensor.Tensor{tensor.Of([]int16{32767, -7}, 2)}},
		{name: "zeros", op: "DynamicQuantizeLinear", opset: 11, in: []*tensor.Tensor{f32([]int{2}, 0, 0)},
			want: []*tensor.Tensor{u8([]int{2}, 0, 0), f32(nil, 1), u8(nil, 0)}},
		// 0 and 5 with 0 and 1: sums 0 6, products 0 5, plus 3.
		one("QLinearAdd", u8([]int{2}, 3, 9), u8([]int{2}, 10, 20), half, u8(nil, 10), u8([]int{2}, 4, 8), f32(nil, 0.25), u8(nil, 4), one1, u8(nil, 3)),
		one("QLinearMul", u8([]int{2}, 3, 8), u8([]int{2}, 10, 20), half, u8(nil, 10), u8([]int{2}, 4, 8), f32(nil, 0.25), u8(nil, 4), one1, u8(nil, 3)),
		// -100·0.01 = -1; 5 stays
		one("QLinearLeakyRelu", i8([]int{2}, -1, 5), i8([]int{2}, -100, 5), one1, i8(nil, 0), one1, i8(nil, 0)),
		// sigmoid(0) = 0.5 in steps of 1/256
		one("QLinearSigmoid", u8([]int{1}, 128), u8([]int{1}, 7), one1, u8(nil, 7), f32(nil, 1.0/256), u8(nil, 0)),
		one("QLinearSoftmax", u8([]int{2}, 128, 128), u8([]int{2}, 9, 9), one1, u8(nil, 7), f32(nil, 1.0/256), u8(nil, 0)),
		concat,
		last,
	})
}

func TestGelus(t *testing.T) {
	x, b := f32([]int{1}, 0.5), f32([]int{1}, 0.5)
	one := f32([]int{1}, 1)
	phi := float32(0.5 * (1 + math.Erf(1/math.Sqrt2)))
	runRows(t, []rowCase{
		{name: "erf", domain: microsoft, op: "Gelu", in: []*tensor.Tensor{one}, want: []*tensor.Tensor{f32([]int{1}, phi)}},
		{name: "bias", domain: microsoft, op: "BiasGelu", in: []*tensor.Tensor{x, b}, want: []*tensor.Tensor{f32([]int{1}, phi)}},
		{name: "tanh", domain: microsoft, op: "FastGelu", in: []*tensor.Tensor{x, b},
			want: []*tensor.Tensor{f32([]int{1}, float32(0.5*(1+math.Tanh(math.Sqrt(2/math.Pi)*1.044715))))}},
		{name: "sigmoid", domain: microsoft, op: "QuickGelu", in: []*tensor.Tensor{one}, want: []*tensor.Tensor{f32([]int{1}, float32(1/(1+math.Exp(-1.702))))}},
	})
}

// TestRandom compares with the first numbers of numpy.random.RandomState(0):
// uniform(size=3) and standard_normal(3), as its documentation and countless
// transcripts show them.
func TestRandom(t *testing.T) {
	shape := attr("shape", []int{3})
	cases := []rowCase{
		{name: "uniform", op: "RandomUniform", opset: 22, attrs: []ir.Attr{shape, attr("seed", 0.0)}, want: []*tensor.Tensor{f32([]int{3}, 0.5488135, 0.71518937, 0.60276338)}},
		{name: "normal", op: "RandomNormal", opset: 1, attrs: []ir.Attr{shape, attr("seed", 0.0)}, want: []*tensor.Tensor{f32([]int{3}, 1.76405235, 0.40015721, 0.97873798)}},
	}
	for i := range cases {
		cases[i].noExp = true
	}
	runRows(t, cases)
	refused(t, cases)
	drop := rowCase{name: "opset 7 infers", op: "Dropout", opset: 7, in: []*tensor.Tensor{f32([]int{2}, 1, 2)}, want: []*tensor.Tensor{f32([]int{2}, 1, 2), f32([]int{2}, 1, 1)}}
	test := rowCase{name: "opset 6 tests", op: "Dropout", opset: 6, attrs: []ir.Attr{attr("is_test", 1)}, in: drop.in, want: drop.want}
	runRows(t, []rowCase{drop, test})
	test.attrs = nil
	refused(t, []rowCase{test})
}

func TestGradientIsRefused(t *testing.T) {
	x := f32([]int{1}, 1)
	c := rowCase{name: "gradient", domain: training, op: "Gradient", in: []*tensor.Tensor{x}, want: []*tensor.Tensor{x}}
	if _, err := c.eval(); !fault.Is(err, fault.Unsupported) {
		t.Errorf("got %v, want it refused", err)
	}
}
