package onnx

import (
	"testing"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func TestFusedRows(t *testing.T) {
	one, none := f32(nil, 1), u8(nil, 0)
	table := f32([]int{2, 2}, 1, 2, 3, 5)
	rows := i32([]int{1, 2}, 0, 1)
	ones := f32([]int{2}, 1, 1)
	runRows(t, []rowCase{
		// (5-1)·1 + (6-1)·3 = 19, plus 1, times 0.5·2: 20 in steps of 2, plus 1.
		{name: "quantised gemm", domain: microsoft, op: "QGemm", attrs: []ir.Attr{attr("transB", 1)},
			in:   []*tensor.Tensor{u8([]int{1, 2}, 5, 6), f32(nil, 0.5), u8(nil, 1), i8([]int{1, 2}, 1, 3), f32(nil, 2), i8(nil, 0), i32([]int{1}, 1), f32(nil, 2), u8(nil, 1)},
			want: []*tensor.Tensor{u8([]int{1, 1}, 11)}},
		{name: "quantised gemm to float", domain: microsoft, op: "QGemm", attrs: []ir.Attr{attr("alpha", 0.5)},
			in:   []*tensor.Tensor{u8([]int{1, 2}, 5, 6), one, none, i8([]int{2, 1}, 1, -3), f32([]int{1}, 1), i8([]int{1}, 0)},
			want: []*tensor.Tensor{f32([]int{1, 1}, -6.5)}},
		// [1 2]·[1; -3] = -5, leaking a tenth.
		{name: "gemm and leaky relu", domain: microsoft, op: "FusedGemm", attrs: []ir.Attr{attr("activation", "LeakyRelu"), attr("activation_alpha", 0.1)},
			in: []*tensor.Tensor{f32([]int{1, 2}, 1, 2), f32([]int{2, 1}, 1, -3)}, want: []*tensor.Tensor{f32([]int{1, 1}, -0.5)}},
		// Words 1 2 and 3 5 plus positions 0 0 and 0 2: rows 1 2 and 3 7, which normalise to -1 1.
		{name: "embeddings", domain: microsoft, op: "EmbedLayerNormalization", attrs: []ir.Attr{attr("epsilon", 0.0)},
			in:   []*tensor.Tensor{rows, nil, table, f32([]int{3, 2}, 0, 0, 0, 2, 9, 9), nil, ones, f32([]int{2}, 10, 20), i32([]int{1, 2}, 1, 0)},
			want: []*tensor.Tensor{f32([]int{1, 2, 2}, 9, 21, 9, 21), i32([]int{1}, 1), f32([]int{1, 2, 2}, 1, 2, 3, 7)}},
		// Row 1 holds 9 7 | 8 15 (low half first), minus 8, in blocks of 2 with scales 1 and 10.
		{name: "packed table", domain: microsoft, op: "GatherBlockQuantized", attrs: []ir.Attr{attr("block_size", 2)},
			in:   []*tensor.Tensor{u8([]int{2, 2}, 0, 0, 0x79, 0xf8), i64([]int{1}, 1), f32([]int{2, 2}, 5, 5, 1, 10)},
			want: []*tensor.Tensor{f32([]int{1, 4}, 1, -1, 0, 70)}},
		{name: "table of bytes", domain: microsoft, op: "GatherBlockQuantized", attrs: []ir.Attr{attr("block_size", 2), attr("bits", 8)},
			in:   []*tensor.Tensor{u8([]int{1, 2}, 130, 100), i64([]int{1, 1}, 0), f32([]int{1, 1}, 0.5), u8([]int{1, 1}, 100)},
			want: []*tensor.Tensor{f32([]int{1, 1, 2}, 15, 0)}},
	})
}
