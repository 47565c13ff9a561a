package onnx

import (
	"testing"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func TestMatmulRows(t *testing.T) {
	m := f32([]int{2, 2}, 1, 2, 3, 4)
	eye := f32([]int{2, 2}, 1, 0, 0, 1)
	runRows(t, []rowCase{
		// 2·[1 2; 3 4] + 0.5·[10 20]
		{name: "gemm-6", op: "Gemm", opset: 6, attrs: []ir.Attr{attr("alpha", 2.0), attr("beta", 0.5), attr("broadcast", 1)},
			in: []*tensor.Tensor{m, eye, f32([]int{2}, 10, 20)}, want: []*tensor.Tensor{f32([]int{2, 2}, 7, 14, 11, 18)}},
		{name: "gemm-13 transposed, no C", op: "Gemm", opset: 13, attrs: []ir.Attr{attr("transA", 1)},
			in: []*tensor.Tensor{m, eye}, want: []*tensor.Tensor{f32([]int{2, 2}, 1, 3, 2, 4)}},
		{name: "gemm of integers", op: "Gemm", opset: 13,
			in: []*tensor.Tensor{i32([]int{1, 2}, 2, 3), i32([]int{2, 1}, 5, 7), i32(nil, 1)}, want: []*tensor.Tensor{i32([]int{1, 1}, 32)}},
		// 3·mᵀ
		{name: "fused matmul", domain: microsoft, op: "FusedMatMul", attrs: []ir.Attr{attr("transA", 1), attr("alpha", 3.0)},
			in: []*tensor.Tensor{m, eye}, want: []*tensor.Tensor{f32([]int{2, 2}, 3, 9, 6, 12)}},
		// The first pivot is 0: -2·(1·4-0·3) + 1·(1·1-0·3) = -7
		{name: "det with a swap", op: "Det", opset: 11, in: []*tensor.Tensor{f32([]int{3, 3}, 0, 2, 1, 1, 0, 0, 3, 1, 4)}, want: []*tensor.Tensor{f32(nil, -7)}},
		{name: "det of singular", op: "Det", opset: 22, in: []*tensor.Tensor{f32([]int{2, 2, 2}, 1, 2, 2, 4, 0, 0, 0, 0)}, want: []*tensor.Tensor{f32([]int{2}, 0, 0)}},
	})
	refused(t, []rowCase{
		{name: "batch transposition", domain: microsoft, op: "FusedMatMul", attrs: []ir.Attr{attr("transBatchA", 1)}, in: []*tensor.Tensor{m, eye}, want: []*tensor.Tensor{m}},
	})
}

func TestEinsum(t *testing.T) {
	m := f32([]int{2, 2}, 1, 2, 3, 4)
	v := f32([]int{2}, 5, 6)
	eq := func(s string, want *tensor.Tensor, in ...*tensor.Tensor) rowCase {
		return rowCase{name: s, op: "Einsum", opset: 12, attrs: []ir.Attr{attr("equation", s)}, in: in, want: []*tensor.Tensor{want}}
	}
	runRows(t, []rowCase{
		eq("ij,j->i", f32([]int{2}, 17, 39), m, v),                                         // 5+12, 15+24
		eq("ij,jk,k->i", f32([]int{2}, 1*17+2*39, 3*17+4*39), m, m, v),                     // m·(m·v)
		eq("ij , jk", f32([]int{2, 2}, 7, 10, 15, 22), m, m),                               // implicit output ik
		eq("ba", f32([]int{2, 2}, 1, 3, 2, 4), m),                                          // implicit output ab
		eq("ii", f32(nil, 5), m),                                                           // trace
		eq("ii->i", f32([]int{2}, 1, 4), m),                                                // diagonal
		eq("iji->j", f32([]int{2}, 1+6, 3+8), f32([]int{2, 2, 2}, 1, 2, 3, 4, 5, 6, 7, 8)), // x[0,j,0]+x[1,j,1]
		eq("i,j->ij", f32([]int{2, 2}, 25, 30, 30, 36), v, v),
		eq("i,i->i", f32([]int{2}, 25, 36), v, v),
		eq("i,i", f32(nil, 61), v, v),
		eq("ij,ij->ij", f32([]int{2, 2}, 5, 12, 15, 24), m, f32([]int{1, 2}, 5, 6)), // size 1 broadcasts
		eq("...j,j->...", f32([]int{2}, 17, 39), m, v),
		eq("...ij,...jk->...ik", f32([]int{2, 1, 1}, 11, 39), f32([]int{2, 1, 2}, 1, 2, 3, 4), f32([]int{2, 2, 1}, 1, 5, 5, 6)),
		eq("i...->...", f32([]int{2}, 4, 6), m),
	})
}

func TestConvRows(t *testing.T) {
	x := f32([]int{1, 1, 3}, 1, 2, 3)
	w := f32([]int{1, 1, 2}, 1, 1)
	conv := func(name string, want *tensor.Tensor, in []*tensor.Tensor, attrs ...ir.Attr) rowCase {
		return rowCase{name: name, op: "Conv", opset: 11, attrs: attrs, in: in, want: []*tensor.Tensor{want}}
	}
	up := func(name string, want *tensor.Tensor, in []*tensor.Tensor, attrs ...ir.Attr) rowCase {
		return rowCase{name: name, op: "ConvTranspose", opset: 11, attrs: attrs, in: in, want: []*tensor.Tensor{want}}
	}
	two := f32([]int{1, 1, 2}, 1, 2)
	runRows(t, []rowCase{
		conv("lower", f32([]int{1, 1, 3}, 1, 3, 5), []*tensor.Tensor{x, w}, attr("auto_pad", "SAME_LOWER")),
		conv("upper", f32([]int{1, 1, 3}, 3, 5, 3), []*tensor.Tensor{x, w}, attr("auto_pad", "SAME_UPPER")),
		// An even kernel spread over 3 positions: total padding 2.
		conv("upper, dilated", f32([]int{1, 1, 3}, 2, 4, 2), []*tensor.Tensor{x, w}, attr("auto_pad", "SAME_UPPER"), attr("dilations", []int{2})),
		conv("bias, valid", f32([]int{1, 1, 2}, 13, 15), []*tensor.Tensor{x, w, f32([]int{1}, 10)}, attr("auto_pad", "VALID")),
		// Two groups, strides 2: each channel's elements keep apart.
		up("groups", f32([]int{1, 2, 4}, 1, 10, 2, 20, 300, 3000, 400, 4000),
			[]*tensor.Tensor{f32([]int{1, 2, 2}, 1, 2, 3, 4), f32([]int{2, 1, 2}, 1, 10, 100, 1000)}, attr("group", 2), attr("strides", []int{2})),
		up("dilated", f32([]int{1, 1, 4}, 1, 2, 10, 20), []*tensor.Tensor{two, f32([]int{1, 1, 2}, 1, 10)}, attr("dilations", []int{2})),
		// Full result 1 0 0 2, more cut off than the kernel reaches.
		up("cut", f32([]int{1, 1, 3}, 0, 0, 2), []*tensor.Tensor{two, f32([]int{1, 1, 1}, 1)}, attr("strides", []int{3}), attr("pads", []int{1, 0})),
		// Full result 1 1 2 2; one of each pair of extra columns goes.
		up("output_padding", f32([]int{1, 1, 5}, 1, 1, 2, 2, 0), []*tensor.Tensor{two, w}, attr("strides", []int{2}), attr("output_padding", []int{1})),
		// Kernel 3, stride 2: full result 1 1 3 2 2, wanted 4, the one to cut is at the end.
		up("same upper", f32([]int{1, 1, 4}, 1, 1, 3, 2), []*tensor.Tensor{two, f32([]int{1, 1, 3}, 1, 1, 1)}, attr("strides", []int{2}), attr("auto_pad", "SAME_UPPER")),
		up("same lower", f32([]int{1, 1, 4}, 1, 3, 2, 2), []*tensor.Tensor{two, f32([]int{1, 1, 3}, 1, 1, 1)}, attr("strides", []int{2}), attr("auto_pad", "SAME_LOWER")),
		// Two axes, stride 2 on the first, two input channels: 1·w + 2·v at rows 0 1, 3·w + 4·v at rows 2 3.
		up("one strided axis", f32([]int{1, 1, 4, 1}, 1+20, 2+40, 3+40, 6+80), []*tensor.Tensor{f32([]int{1, 2, 2, 1}, 1, 3, 2, 4), f32([]int{2, 1, 2, 1}, 1, 2, 10, 20)}, attr("strides", []int{2, 1})),
		// Kernel 3, stride 2, two output channels: 1 10 100+2 20 200 and 3 0 6 0 0.
		up("odd kernel", f32([]int{1, 2, 5}, 1, 10, 102, 20, 200, 3, 0, 6, 0, 0), []*tensor.Tensor{two, f32([]int{1, 2, 3}, 1, 10, 100, 3, 0, 0)}, attr("strides", []int{2})),
		// Dilated and strided: weights 1 and 10 three apart, elements two apart.
		up("dilated and strided", f32([]int{1, 1, 6}, 1, 0, 2, 10, 0, 20), []*tensor.Tensor{two, f32([]int{1, 1, 2}, 1, 10)}, attr("strides", []int{2}), attr("dilations", []int{3})),
		// relu(conv + bias + z): 1+2-10, 2+3-10 plus z
		{name: "fused conv", domain: microsoft, op: "FusedConv", attrs: []ir.Attr{attr("activation", "Relu")},
			in: []*tensor.Tensor{x, w, f32([]int{1}, -10), f32([]int{1, 1, 2}, 8, 4)}, want: []*tensor.Tensor{f32([]int{1, 1, 2}, 1, 0)}},
	})
	refused(t, []rowCase{
		conv("negative pads", x, []*tensor.Tensor{x, w}, attr("pads", []int{-1, 0})),
		conv("unknown auto_pad", x, []*tensor.Tensor{x, w}, attr("auto_pad", "SAME")),
	})
}

func TestIntegerContractions(t *testing.T) {
	runRows(t, []rowCase{
		// x-1 = 1 2 3 between zeros; w-zw = 1 2 and 1 3 by channel.
		{name: "zero points by channel, padded", op: "ConvInteger", opset: 10, attrs: []ir.Attr{attr("pads", []int{1, 1})},
			in:   []*tensor.Tensor{u8([]int{1, 1, 3}, 2, 3, 4), u8([]int{2, 1, 2}, 2, 3, 5, 7), u8(nil, 1), u8([]int{2}, 1, 4)},
			want: []*tensor.Tensor{i32([]int{1, 2, 4}, 2, 5, 8, 3, 3, 7, 11, 3)}},
		// Constant weights: 200-100 and 7-100 fit i8, 255-100 does not.
		{name: "constant weights in i8", op: "ConvInteger", opset: 10, bind: []int{1, 2, 3},
			in:   []*tensor.Tensor{u8([]int{1, 1, 2}, 3, 5), u8([]int{1, 1, 2}, 200, 7), u8(nil, 2), u8(nil, 100)},
			want: []*tensor.Tensor{i32([]int{1, 1, 1}, 1*100+3*-93)}},
		{name: "constant weights in i16", op: "ConvInteger", opset: 10, bind: []int{1, 2, 3},
			in:   []*tensor.Tensor{u8([]int{1, 1, 2}, 3, 5), u8([]int{1, 1, 2}, 255, 7), u8(nil, 2), u8(nil, 100)},
			want: []*tensor.Tensor{i32([]int{1, 1, 1}, 1*155+3*-93)}},
		// [4 5; 5 6]·[0 0; 2 2]
		{name: "zero points by row and column", op: "MatMulInteger", opset: 10,
			in:   []*tensor.Tensor{u8([]int{2, 2}, 5, 6, 7, 8), i8([]int{2, 2}, 1, 2, 3, 4), u8([]int{2}, 1, 2), i8([]int{2}, 1, 2)},
			want: []*tensor.Tensor{i32([]int{2, 2}, 10, 10, 12, 12)}},
		{name: "vectors", op: "MatMulInteger", opset: 10,
			in:   []*tensor.Tensor{u8([]int{2}, 5, 6), i8([]int{2}, 1, -3), u8(nil, 1), i8(nil, 2)},
			want: []*tensor.Tensor{i32(nil, 4*-1+5*-5)}},
		{name: "row times matrix", op: "MatMulInteger", opset: 10,
			in:   []*tensor.Tensor{u8([]int{2}, 5, 6), i8([]int{2, 2}, 1, 2, 3, 4), u8(nil, 1)},
			want: []*tensor.Tensor{i32([]int{2}, 4*1+5*3, 4*2+5*4)}},
		{name: "matrix times column", op: "MatMulInteger", opset: 10,
			in:   []*tensor.Tensor{u8([]int{2, 2}, 5, 6, 7, 8), i8([]int{2}, 1, 3), u8([]int{2}, 1, 2)},
			want: []*tensor.Tensor{i32([]int{2}, 4*1+5*3, 5*1+6*3)}},
		// Sums 3 5 and 2 6 (with bias), times 0.5·sw/0.5: 3 5 and 0.5 1.5, ties to even, plus 10.
		{name: "scales by channel", op: "QLinearConv", opset: 10,
			in: []*tensor.Tensor{u8([]int{1, 1, 2}, 2, 3), f32(nil, 0.5), u8(nil, 1), i8([]int{2, 1, 1}, 2, 4), f32([]int{2}, 1, 0.25),
				i8([]int{2}, 0, 0), f32(nil, 0.5), u8(nil, 10), i32([]int{2}, 1, -2)},
			want: []*tensor.Tensor{u8([]int{1, 2, 2}, 13, 15, 10, 12)}},
		// The same with channels last, two pixels of one channel to two of two.
		{name: "channels last", domain: microsoft, op: "QLinearConv", attrs: []ir.Attr{attr("channels_last", 1)},
			in: []*tensor.Tensor{u8([]int{1, 2, 1}, 2, 3), f32(nil, 0.5), u8(nil, 1), i8([]int{2, 1, 1}, 2, 4), f32([]int{2}, 1, 0.25),
				i8([]int{2}, 0, 0), f32(nil, 0.5), u8(nil, 10), i32([]int{2}, 1, -2)},
			want: []*tensor.Tensor{u8([]int{1, 2, 2}, 13, 10, 15, 12)}},
		{name: "saturation", op: "QLinearMatMul", opset: 10,
			in: []*tensor.Tensor{i8([]int{1, 1}, 100), f32(nil, 1), i8(nil, 0), i8([]int{1, 2}, 100, -100), f32([]int{2}, 1, 1),
				i8([]int{2}, 0, 0), f32(nil, 1), i8(nil, 5)},
			want: []*tensor.Tensor{i8([]int{1, 2}, 127, -128)}},
		// Range 0…255: scale 1, zero point 0. (0·1+255·2)·0.5 + 1
		{name: "dynamic", domain: microsoft, op: "DynamicQuantizeMatMul",
			in:   []*tensor.Tensor{f32([]int{1, 2}, 0, 255), i8([]int{2, 1}, 2, 3), f32([]int{1}, 0.5), i8([]int{1}, 1), f32([]int{1}, 1)},
			want: []*tensor.Tensor{f32([]int{1, 1}, 256)}},
		// (4·1+5·3)·0.5·2 + 1
		{name: "to float", domain: microsoft, op: "MatMulIntegerToFloat",
			in:   []*tensor.Tensor{u8([]int{1, 2}, 5, 6), i8([]int{2, 1}, 1, 3), f32(nil, 0.5), f32(nil, 2), u8(nil, 1), nil, f32([]int{1}, 1)},
			want: []*tensor.Tensor{f32([]int{1, 1}, 20)}},
	})
}

func TestMatMulNBits(t *testing.T) {
	var x, ones []float32
	for i := range 16 {
		x, ones = append(x, float32(i+1)), append(ones, 1)
	}
	bytes := func(n int, v uint8) *tensor.Tensor {
		t := tensor.New(tensor.U8, 1, 1, n)
		for i := range n {
			t.SetInt(i, int64(v))
		}
		return t
	}
	row := func(name string, bits, k, block int, want float32, bind []int, in ...*tensor.Tensor) rowCase {
		return rowCase{name: name, domain: microsoft, op: "MatMulNBits", bind: bind, in: in, want: []*tensor.Tensor{f32([]int{1, 1}, want)},
			attrs: []ir.Attr{attr("K", k), attr("N", 1), attr("bits", bits), attr("block_size", block)}}
	}
	a := f32([]int{1, 16}, x...)
	two := f32([]int{1}, 2)
	cases := []rowCase{
		// Elements 8 and 9 in turn, minus 8: 2·Σ of the even x = 2·72
		row("four bits", 4, 16, 16, 144, nil, a, bytes(8, 0x98), two),
		// Minus 7: 2·(1·64 + 2·72)
		row("zero point", 4, 16, 16, 416, nil, a, bytes(8, 0x98), two, u8([]int{1}, 7)),
		// Elements 0 1 2 3 in turn, minus 2, times 16 ones: 4·(-2-1+0+1)·2
		row("two bits", 2, 16, 16, -16, nil, f32([]int{1, 16}, ones...), bytes(4, 0xe4), two),
		row("eight bits", 8, 16, 16, 2*(130-128)*136, nil, a, bytes(16, 130), two),
		// Two blocks of 16 for K=18: the rest of the second is not read.
		{name: "part of a block", domain: microsoft, op: "MatMulNBits",
			attrs: []ir.Attr{attr("K", 18), attr("N", 1), attr("bits", 4), attr("block_size", 16)},
			in:    []*tensor.Tensor{f32([]int{1, 18}, append(ones[:16:16], 1, 1)...), u8([]int{1, 2, 8}, 0x99, 0x99, 0x99, 0x99, 0x99, 0x99, 0x99, 0x99, 0x99, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), f32([]int{1, 2}, 1, 10), u8([]int{1, 1}, 0x78)},
			// (9-8)·16 + 10·(9-7)·2
			want: []*tensor.Tensor{f32([]int{1, 1}, 56)}},
	}
	runRows(t, cases)
	for i := range cases { // and with constant weights, which are only retyped
		for k := 1; k < len(cases[i].in); k++ {
			cases[i].bind = append(cases[i].bind, k)
		}
	}
	runRows(t, cases)
	refused(t, []rowCase{row("g_idx", 4, 16, 16, 0, nil, a, bytes(8, 0), two, nil, i32([]int{16}, make([]int32, 16)...))})
}

// TestIntegerWeightsOfAnyZeroPoint takes weights that leave eight bits when
// their zero point is subtracted, against the sums themselves.
func TestIntegerWeightsOfAnyZeroPoint(t *testing.T) {
	const c, m, n, k = 2, 9, 5, 2
	x, w := tensor.New(tensor.U8, 1, c, n), tensor.New(tensor.U8, m, c, k)
	for i := range x.Len() {
		x.SetInt(i, int64(i*37%256))
	}
	for i := range w.Len() {
		w.SetInt(i, int64(i*91%256))
	}
	each := tensor.New(tensor.U8, m)
	for i := range m {
		each.SetInt(i, int64(i*31))
	}
	for _, zw := range []*tensor.Tensor{u8(nil, 100), each} {
		for _, zx := range []uint8{0, 3} {
			want := tensor.New(tensor.I32, 1, m, n+1)
			for o := range m {
				z := zw.Int(o % zw.Len())
				for p := range n + 1 {
					sum := int64(0)
					for i := range c {
						for j := range k {
							if at := p + j - 1; at >= 0 && at < n {
								sum += (x.Int(i*n+at) - int64(zx)) * (w.Int((o*c+i)*k+j) - z)
							}
						}
					}
					want.SetInt(o*(n+1)+p, sum)
				}
			}
			conv := rowCase{name: "conv", op: "ConvInteger", opset: 10, attrs: []ir.Attr{attr("pads", []int{1, 1})},
				in: []*tensor.Tensor{x, w, u8(nil, zx), zw}, want: []*tensor.Tensor{want}}
			bound := conv
			bound.name, bound.bind = "conv, constant weights", []int{1, 2, 3}

			right := w.Reshaped(c*k, m)
			left := x.Reshaped(2, 5)
			left = tensor.Of(left.Bytes()[:2*c*k], 2, c*k)
			prod := tensor.New(tensor.I32, 2, m)
			for i := range prod.Len() {
				r, o := i/m, i%m
				sum := int64(0)
				for j := range c * k {
					sum += (left.Int(r*c*k+j) - int64(zx)) * (right.Int(j*m+o) - zw.Int(o%zw.Len()))
				}
				prod.SetInt(i, sum)
			}
			matmul := rowCase{name: "matmul", op: "MatMulInteger", opset: 10, in: []*tensor.Tensor{left, right, u8(nil, zx), zw}, want: []*tensor.Tensor{prod}}
			boundMatmul := matmul
			boundMatmul.name, boundMatmul.bind = "matmul, constant weights", []int{1, 2, 3}
			runRows(t, []rowCase{conv, bound, matmul, boundMatmul})
		}
	}
}
