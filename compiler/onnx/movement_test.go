package onnx

import (
	"math"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func TestShapeRows(t *testing.T) {
	x := counting(2, 3, 4)
	runRows(t, []rowCase{
		{name: "reshape 1", op: "Reshape", opset: 1, attrs: attrs("shape", []int{0, -1}), in: []*tensor.Tensor{x}, want: []*tensor.Tensor{counting(2, 12)}},
		{name: "allowzero", op: "Reshape", opset: 14, attrs: attrs("allowzero", 1), in: []*tensor.Tensor{tensor.New(tensor.F32, 0, 3), ints(3, 0)}, bind: []int{1}, want: []*tensor.Tensor{tensor.New(tensor.F32, 3, 0)}},
		{name: "zero copies a zero", op: "Reshape", opset: 14, in: []*tensor.Tensor{tensor.New(tensor.F32, 0, 3), ints(0, 1, 3)}, bind: []int{1}, want: []*tensor.Tensor{tensor.New(tensor.F32, 0, 1, 3)}},
		{name: "flatten at the rank", op: "Flatten", opset: 13, attrs: attrs("axis", 3), in: []*tensor.Tensor{x}, want: []*tensor.Tensor{counting(24, 1)}},
		{name: "flatten from behind", op: "Flatten", opset: 13, attrs: attrs("axis", -1), in: []*tensor.Tensor{x}, want: []*tensor.Tensor{counting(6, 4)}},
		{name: "squeeze 1", op: "Squeeze", opset: 1, attrs: attrs("axes", []int{0}), in: []*tensor.Tensor{counting(1, 2, 1)}, want: []*tensor.Tensor{counting(2, 1)}},
		{name: "squeeze all", op: "Squeeze", opset: 13, in: []*tensor.Tensor{counting(1, 2, 1)}, want: []*tensor.Tensor{counting(2)}},
		{name: "unsqueeze 11", op: "Unsqueeze", opset: 11, attrs: attrs("axes", []int{-1, 0}), in: []*tensor.Tensor{counting(2)}, want: []*tensor.Tensor{counting(1, 2, 1)}},
		{name: "shape, clamped", op: "Shape", opset: 15, attrs: attrs("start", -9, "end", -1), in: []*tensor.Tensor{x}, want: []*tensor.Tensor{ints(2, 3)}},
		{name: "shape, empty", op: "Shape", opset: 15, attrs: attrs("start", 2, "end", 1), in: []*tensor.Tensor{x}, want: []*tensor.Tensor{ints()}},
		{name: "expand keeps what is larger", op: "Expand", opset: 13, in: []*tensor.Tensor{vec(1, 2), ints(2, 1)}, bind: []int{1}, want: []*tensor.Tensor{nums(tensor.F32, []int{2, 2}, 1, 2, 1, 2)}},
		{name: "range down", op: "Range", opset: 11, in: []*tensor.Tensor{nums(tensor.I64, nil, 5), nums(tensor.I64, nil, 0), nums(tensor.I64, nil, -2)}, bind: []int{0, 1, 2}, want: []*tensor.Tensor{ints(5, 3, 1)}},
		{name: "range of nothing", op: "Range", opset: 11, in: []*tensor.Tensor{nums(tensor.I64, nil, 5), nums(tensor.I64, nil, 0), nums(tensor.I64, nil, 2)}, bind: []int{0, 1, 2}, want: []*tensor.Tensor{ints()}},
		{name: "eye off the diagonal", op: "EyeLike", opset: 22, attrs: attrs("k", -1, "dtype", 7), in: []*tensor.Tensor{counting(2, 3)}, want: []*tensor.Tensor{nums(tensor.I64, []int{2, 3}, 0, 0, 0, 1, 0, 0)}},
		{name: "one-hot of -1 and of an index beyond", op: "OneHot", opset: 11, in: []*tensor.Tensor{ints(-1, 3), nums(tensor.I64, nil, 3), vec(5, 7)}, bind: []int{1}, want: []*tensor.Tensor{nums(tensor.F32, []int{2, 3}, 5, 5, 7, 5, 5, 5)}},
		{name: "one-hot 9 knows no negative index", op: "OneHot", opset: 9, in: []*tensor.Tensor{ints(-1), nums(tensor.I64, nil, 2), vec(5, 7)}, bind: []int{1}, want: []*tensor.Tensor{nums(tensor.F32, []int{1, 2}, 5, 5)}},
	})
	faulty(t, fault.BadModel, []rowCase{
		{name: "two open sizes", op: "Reshape", opset: 13, in: []*tensor.Tensor{x, ints(-1, -1)}},
		{name: "sizes that do not fit", op: "Reshape", opset: 13, in: []*tensor.Tensor{x, ints(5, -1)}},
		{name: "squeeze of a larger axis", op: "Squeeze", opset: 13, in: []*tensor.Tensor{x, ints(0)}},
		{name: "axis twice", op: "Unsqueeze", opset: 13, in: []*tensor.Tensor{x, ints(0, 0)}},
		{name: "a range beyond all memory", op: "Range", opset: 11, in: []*tensor.Tensor{nums(tensor.I64, nil, 0), nums(tensor.I64, nil, 1<<50), nums(tensor.I64, nil, 1)}},
		{name: "a constant beyond all memory", op: "ConstantOfShape", opset: 9, in: []*tensor.Tensor{ints(1<<20, 1<<15)}},
		{name: "delta 0", op: "Range", opset: 11, in: []*tensor.Tensor{vec(0).Reshaped(), vec(1).Reshaped(), vec(0).Reshaped()}},
	})
}

func TestMovementRows(t *testing.T) {
	v := counting(6)
	const most = math.MaxInt64
	slice := func(name string, want *tensor.Tensor, from, to, step int) rowCase {
		return rowCase{name: name, op: "Slice", opset: 13, in: []*tensor.Tensor{v, ints(from), ints(to), ints(0), ints(step)}, bind: []int{1, 2, 3, 4}, want: []*tensor.Tensor{want}}
	}
	runRows(t, []rowCase{
		{name: "slice 1", op: "Slice", opset: 1, attrs: attrs("starts", []int{1, -2}, "ends", []int{most, most}, "axes", []int{0, 1}), in: []*tensor.Tensor{counting(2, 3)}, want: []*tensor.Tensor{nums(tensor.F32, []int{1, 2}, 4, 5)}},
		slice("backwards to the start", vec(5, 3, 1), most, math.MinInt64, -2),
		slice("backwards, clamped", vec(5, 4, 3), 10, 2, -1),
		slice("backwards from before the start", vec(0), -9, math.MinInt64, -1),
		slice("backwards to beyond the end", vec(), most, most, -1),
		slice("a step beyond the end", vec(1), 1, most, most),
		slice("nothing", vec(), 4, 2, 1),
		{name: "split 1", op: "Split", opset: 1, attrs: attrs("split", []int{1, 5}), in: []*tensor.Tensor{v}, want: []*tensor.Tensor{vec(0), vec(1, 2, 3, 4, 5)}},
		{name: "split 2", op: "Split", opset: 2, in: []*tensor.Tensor{v}, want: []*tensor.Tensor{vec(0, 1, 2), vec(3, 4, 5)}},
		{name: "split 18, uneven", op: "Split", opset: 18, attrs: attrs("num_outputs", 4), in: []*tensor.Tensor{counting(7)}, want: []*tensor.Tensor{vec(0, 1), vec(2, 3), vec(4, 5), vec(6)}},
		{name: "concat 1 takes axis 1", op: "Concat", opset: 1, in: []*tensor.Tensor{counting(2, 1), counting(2, 2)}, want: []*tensor.Tensor{nums(tensor.F32, []int{2, 3}, 0, 0, 1, 1, 2, 3)}},
		{name: "tile 1", op: "Tile", opset: 1, in: []*tensor.Tensor{counting(2, 2), ints(2), ints(1)}, bind: []int{1, 2}, want: []*tensor.Tensor{nums(tensor.F32, []int{2, 4}, 0, 1, 0, 1, 2, 3, 2, 3)}},
		{name: "tile by 0", op: "Tile", opset: 13, in: []*tensor.Tensor{vec(1, 2), ints(0)}, bind: []int{1}, want: []*tensor.Tensor{vec()}},
		// Blocks of 2 over 4 channels: channel 2·dy+dx goes to pixel (dy, dx).
		{name: "depth to space 1", op: "DepthToSpace", opset: 1, attrs: attrs("blocksize", 2), in: []*tensor.Tensor{counting(1, 4, 1, 2)}, want: []*tensor.Tensor{nums(tensor.F32, []int{1, 1, 2, 4}, 0, 2, 1, 3, 4, 6, 5, 7)}},
		{name: "trilu of bools", op: "Trilu", opset: 14, attrs: attrs("upper", 0), in: []*tensor.Tensor{nums(tensor.Bool, []int{2, 2}, 1, 1, 1, 1), nums(tensor.I64, nil, -1)}, want: []*tensor.Tensor{nums(tensor.Bool, []int{2, 2}, 0, 0, 1, 0)}},
		// An odd crop takes the extra element off the end; an odd pad adds it there.
		{name: "centre crop and pad", op: "CenterCropPad", opset: 18, in: []*tensor.Tensor{counting(1, 4), ints(2, 1)}, bind: []int{1}, want: []*tensor.Tensor{nums(tensor.F32, []int{2, 1}, 1, 0)}},
	})
	faulty(t, fault.BadModel, []rowCase{
		{name: "split 13 into unequal parts", op: "Split", opset: 13, in: []*tensor.Tensor{counting(7)}, want: []*tensor.Tensor{vec(), vec()}},
		{name: "split that leaves a rest", op: "Split", opset: 13, in: []*tensor.Tensor{v, ints(1, 2)}, want: []*tensor.Tensor{vec(), vec()}},
		{name: "step 0", op: "Slice", opset: 13, in: []*tensor.Tensor{v, ints(0), ints(1), ints(0), ints(0)}},
		{name: "concat 4 without an axis", op: "Concat", opset: 4, in: []*tensor.Tensor{v, v}},
	})
}

func TestPadRows(t *testing.T) {
	v := vec(1, 2, 3)
	pad := func(name, mode string, want *tensor.Tensor, lo, hi int) rowCase {
		return rowCase{name: name, op: "Pad", opset: 19, attrs: attrs("mode", mode), in: []*tensor.Tensor{v, ints(lo, hi)}, bind: []int{1}, want: []*tensor.Tensor{want}}
	}
	runRows(t, []rowCase{
		{name: "pad 1", op: "Pad", opset: 1, attrs: attrs("paddings", []int{1, 0}, "value", 9.0), in: []*tensor.Tensor{v}, want: []*tensor.Tensor{vec(9, 1, 2, 3)}},
		{name: "pad 2", op: "Pad", opset: 2, attrs: attrs("pads", []int{0, 1}), in: []*tensor.Tensor{v}, want: []*tensor.Tensor{vec(1, 2, 3, 0)}},
		{name: "value at run time", op: "Pad", opset: 13, in: []*tensor.Tensor{v, ints(0, 2), vec(7).Reshaped()}, bind: []int{1}, want: []*tensor.Tensor{vec(1, 2, 3, 7, 7)}},
		pad("negative", "constant", vec(2, 3, 0), -1, 1),
		pad("negative with edge", "edge", vec(2, 3, 3), -1, 1),
		pad("edge", "edge", vec(1, 1, 1, 2, 3, 3), 2, 1),
		pad("reflect", "reflect", vec(3, 2, 1, 2, 3, 2), 2, 1),
		// Beyond one period numpy reflects again: 1 2 3 2 1 2 3 ….
		pad("reflect twice", "reflect", vec(1, 2, 3, 2, 1, 2, 3), 4, 0),
		pad("wrap", "wrap", vec(2, 3, 1, 2, 3, 1), 2, 1),
		pad("wrap twice", "wrap", vec(3, 1, 2, 3, 1, 2, 3, 1), 1, 4),
		{name: "edge by many, joined by a gather", op: "Pad", opset: 19, attrs: attrs("mode", "wrap"), in: []*tensor.Tensor{vec(1, 2), ints(0, 30)}, bind: []int{1}, want: []*tensor.Tensor{tile32()}},
		{name: "axes", op: "Pad", opset: 18, in: []*tensor.Tensor{counting(1, 2), ints(1, 0), nil, ints(-1)}, bind: []int{1, 3}, want: []*tensor.Tensor{nums(tensor.F32, []int{1, 3}, 0, 0, 1)}},
	})
	faulty(t, fault.Unsupported, []rowCase{
		{name: "wrap before 19", op: "Pad", opset: 18, attrs: attrs("mode", "wrap"), in: []*tensor.Tensor{v, ints(1, 1)}},
	})
	faulty(t, fault.BadModel, []rowCase{
		{name: "pads for another rank", op: "Pad", opset: 13, in: []*tensor.Tensor{v, ints(1, 1, 1, 1)}},
		{name: "edge of nothing", op: "Pad", opset: 13, attrs: attrs("mode", "edge"), in: []*tensor.Tensor{vec(), ints(1, 1)}},
		{name: "more taken off than there is", op: "Pad", opset: 13, in: []*tensor.Tensor{v, ints(-2, -2)}},
	})
}

func tile32() *tensor.Tensor {
	t := tensor.New(tensor.F32, 32)
	for i := range 32 {
		t.SetFloat(i, float64(i%2+1))
	}
	return t
}
