package onnx

import (
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func TestGatherRows(t *testing.T) {
	x := counting(2, 3)
	runRows(t, []rowCase{
		{name: "scalar index", op: "Gather", opset: 13, attrs: attrs("axis", 1), in: []*tensor.Tensor{x, nums(tensor.I64, nil, -1)}, bind: []int{1}, want: []*tensor.Tensor{vec(2, 5)}},
		{name: "a progression is a slice", op: "Gather", opset: 13, attrs: attrs("axis", 1), in: []*tensor.Tensor{x, ints(-1, 0).Reshaped(1, 2)}, bind: []int{1}, want: []*tensor.Tensor{nums(tensor.F32, []int{2, 1, 2}, 2, 0, 5, 3)}},
		{name: "one index again and again", op: "Gather", opset: 13, in: []*tensor.Tensor{x, ints(1, 1, 1)}, bind: []int{1}, want: []*tensor.Tensor{nums(tensor.F32, []int{3, 3}, 3, 4, 5, 3, 4, 5, 3, 4, 5)}},
		{name: "no index", op: "Gather", opset: 13, in: []*tensor.Tensor{x, ints()}, bind: []int{1}, want: []*tensor.Tensor{tensor.New(tensor.F32, 0, 3)}},
		{name: "indices at run time", op: "Gather", opset: 13, in: []*tensor.Tensor{x, nums(tensor.I32, []int{2}, -1, 0)}, want: []*tensor.Tensor{nums(tensor.F32, []int{2, 3}, 3, 4, 5, 0, 1, 2)}},
		{name: "fewer index rows than data rows", op: "GatherElements", opset: 13, attrs: attrs("axis", 1), in: []*tensor.Tensor{x, ints(-1, 0).Reshaped(1, 2)}, want: []*tensor.Tensor{nums(tensor.F32, []int{1, 2}, 2, 0)}},
		{name: "tuples with a batch axis", op: "GatherND", opset: 12, attrs: attrs("batch_dims", 1), in: []*tensor.Tensor{x, ints(2, 0).Reshaped(2, 1)}, want: []*tensor.Tensor{vec(2, 3)}},
		{name: "negative tuples", op: "GatherND", opset: 13, in: []*tensor.Tensor{x, ints(-1, -1, 0, -2).Reshaped(2, 2)}, want: []*tensor.Tensor{vec(5, 1)}},
		{name: "reverse, batch first", op: "ReverseSequence", opset: 10, attrs: attrs("batch_axis", 0, "time_axis", 1), in: []*tensor.Tensor{x, ints(2, 3)}, want: []*tensor.Tensor{nums(tensor.F32, []int{2, 3}, 1, 0, 2, 5, 4, 3)}},
		{name: "a short condition", op: "Compress", opset: 11, in: []*tensor.Tensor{x, nums(tensor.Bool, []int{3}, 0, 1, 1)}, bind: []int{1}, want: []*tensor.Tensor{vec(1, 2)}},
		{name: "nothing kept", op: "Compress", opset: 11, attrs: attrs("axis", -1), in: []*tensor.Tensor{x, nums(tensor.Bool, []int{1}, 0)}, bind: []int{1}, want: []*tensor.Tensor{tensor.New(tensor.F32, 2, 0)}},
	})
	faulty(t, fault.BadModel, []rowCase{
		{name: "index beyond", op: "Gather", opset: 13, in: []*tensor.Tensor{x, ints(2)}},
		{name: "element index beyond", op: "GatherElements", opset: 13, attrs: attrs("axis", 1), in: []*tensor.Tensor{x, ints(3).Reshaped(1, 1)}},
		{name: "tuple beyond", op: "GatherND", opset: 13, in: []*tensor.Tensor{x, ints(0, 3).Reshaped(1, 2)}},
		{name: "condition beyond", op: "Compress", opset: 11, in: []*tensor.Tensor{vec(1), nums(tensor.Bool, []int{2}, 0, 1)}},
	})
}

func TestScatterRows(t *testing.T) {
	x := vec(1, 2, 3)
	scatter := func(name, how string, want *tensor.Tensor, idx ...int) rowCase {
		return rowCase{name: name, op: "ScatterElements", opset: 18, attrs: attrs("reduction", how), in: []*tensor.Tensor{x, ints(idx...), vec(10, 20)}, want: []*tensor.Tensor{want}}
	}
	runRows(t, []rowCase{
		scatter("the last one stays", "none", vec(1, 2, 20), 2, -1),
		scatter("add", "add", vec(31, 2, 3), 0, 0),
		scatter("mul", "mul", vec(200, 2, 3), 0, 0),
		scatter("min", "min", vec(1, 2, 3), 0, 1),
		scatter("max", "max", vec(1, 20, 3), 1, 1),
		{name: "scatter 9 on axis 1", op: "Scatter", opset: 9, attrs: attrs("axis", 1), in: []*tensor.Tensor{counting(2, 2), ints(1, 0).Reshaped(2, 1), nums(tensor.F32, []int{2, 1}, 7, 8)}, want: []*tensor.Tensor{nums(tensor.F32, []int{2, 2}, 0, 7, 8, 3)}},
		{name: "no tuples", op: "ScatterND", opset: 18, in: []*tensor.Tensor{x, tensor.New(tensor.I64, 0, 1), vec()}, want: []*tensor.Tensor{x}},
		{name: "whole rows", op: "ScatterND", opset: 18, attrs: attrs("reduction", "add"), in: []*tensor.Tensor{counting(2, 2), ints(1, 1).Reshaped(2, 1), nums(tensor.F32, []int{2, 2}, 1, 1, 2, 2)}, want: []*tensor.Tensor{nums(tensor.F32, []int{2, 2}, 0, 1, 5, 6)}},
		// Three steps from position 2 of a ring of 3: 2, 0, 1.
		{name: "circular", op: "TensorScatter", opset: 24, attrs: attrs("mode", "circular"), in: []*tensor.Tensor{tensor.New(tensor.F32, 1, 3, 1), nums(tensor.F32, []int{1, 3, 1}, 1, 2, 3), ints(2)}, want: []*tensor.Tensor{nums(tensor.F32, []int{1, 3, 1}, 2, 3, 1)}},
	})
	faulty(t, fault.Unsupported, []rowCase{
		{name: "max before 18", op: "ScatterElements", opset: 16, attrs: attrs("reduction", "max"), in: []*tensor.Tensor{x, ints(0), vec(1)}},
	})
	faulty(t, fault.BadModel, []rowCase{
		{name: "write beyond the cache", op: "TensorScatter", opset: 24, in: []*tensor.Tensor{tensor.New(tensor.F32, 1, 3, 1), tensor.New(tensor.F32, 1, 2, 1), ints(2)}},
		{name: "updates of another shape", op: "ScatterND", opset: 18, in: []*tensor.Tensor{x, ints(0).Reshaped(1, 1), vec(1, 2)}},
	})
}

func TestOrderRows(t *testing.T) {
	x := nums(tensor.F32, []int{2, 3}, 3, 1, 2, 5, 5, 4)
	runRows(t, []rowCase{
		{name: "topk 1", op: "TopK", opset: 1, attrs: attrs("k", 2), in: []*tensor.Tensor{x}, want: []*tensor.Tensor{nums(tensor.F32, []int{2, 2}, 3, 2, 5, 5), nums(tensor.I64, []int{2, 2}, 0, 2, 0, 1)}},
		{name: "the smallest along axis 0", op: "TopK", opset: 11, attrs: attrs("axis", 0, "largest", 0), in: []*tensor.Tensor{x, ints(1)}, bind: []int{1}, want: []*tensor.Tensor{nums(tensor.F32, []int{1, 3}, 3, 1, 2), nums(tensor.I64, []int{1, 3}, 0, 0, 0)}},
		{name: "none", op: "TopK", opset: 11, in: []*tensor.Tensor{x, ints(0)}, bind: []int{1}, want: []*tensor.Tensor{tensor.New(tensor.F32, 2, 0), tensor.New(tensor.I64, 2, 0)}},
	})
	runExact(t, []rowCase{
		{name: "unique strings", op: "Unique", opset: 11, in: []*tensor.Tensor{texts("b", "a", "b")}, want: []*tensor.Tensor{texts("a", "b"), ints(1, 0), ints(1, 0, 1), ints(1, 2)}},
		{name: "in order of occurrence", op: "Unique", opset: 11, attrs: attrs("sorted", 0), in: []*tensor.Tensor{texts("b", "a", "b")}, want: []*tensor.Tensor{texts("b", "a"), ints(0, 1), ints(0, 1, 0), ints(2, 1)}},
		{name: "nonzero", op: "NonZero", opset: 13, in: []*tensor.Tensor{nums(tensor.F32, []int{2, 2}, 0, -1, 2, 0)}, want: []*tensor.Tensor{ints(0, 1, 1, 0).Reshaped(2, 2)}},
		{name: "nonzero of a scalar", op: "NonZero", opset: 13, in: []*tensor.Tensor{nums(tensor.F32, nil, 4)}, want: []*tensor.Tensor{tensor.New(tensor.I64, 0, 1)}},
		{name: "nonzero strings", op: "NonZero", opset: 13, in: []*tensor.Tensor{texts("", "a")}, want: []*tensor.Tensor{ints(1).Reshaped(1, 1)}},
		{name: "transposed complex numbers", op: "Transpose", opset: 13, in: []*tensor.Tensor{complexes(1, 2)}, want: []*tensor.Tensor{complexes(2, 1)}},
		{name: "nothing is nonzero", op: "NonZero", opset: 13, in: []*tensor.Tensor{vec(0)}, want: []*tensor.Tensor{tensor.New(tensor.I64, 1, 0)}},
	})
	refused(t, []rowCase{
		{name: "nonzero at run time", op: "NonZero", opset: 13, in: []*tensor.Tensor{vec(1)}, want: []*tensor.Tensor{ints(0).Reshaped(1, 1)}},
	})
	faulty(t, fault.BadModel, []rowCase{
		{name: "k beyond the axis", op: "TopK", opset: 11, in: []*tensor.Tensor{x, ints(4)}},
	})
}

// complexes are the complex128 values 0x01…, 0x02… of a shape, as bytes.
func complexes(shape ...int) *tensor.Tensor {
	t := tensor.New(tensor.C128, shape...)
	for i := range t.Len() {
		t.Bytes()[16*i] = byte(i + 1)
	}
	return t
}
