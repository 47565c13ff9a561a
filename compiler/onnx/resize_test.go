package onnx

import (
	"math"
	"testing"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestResizeRows covers old opsets and corners that ONNX's cases leave out.
func TestResizeRows(t *testing.T) {
	x := f32([]int{1, 1, 2, 2}, 1, 2, 3, 4)
	row := f32([]int{1, 1, 1, 4}, 1, 2, 3, 4)
	one := func(v ...float32) *tensor.Tensor { return f32([]int{len(v)}, v...) }
	size := func(v ...int64) *tensor.Tensor { return i64([]int{len(v)}, v...) }
	runRows(t, []rowCase{
		{name: "upsample 7 nearest", op: "Upsample", opset: 7, attrs: []ir.Attr{attr("scales", []float32{1, 1, 2, 1})},
			in: []*tensor.Tensor{x}, want: []*tensor.Tensor{f32([]int{1, 1, 4, 2}, 1, 2, 1, 2, 3, 4, 3, 4)}},
		// Asymmetric: output i samples i/2, and beyond the last element that one.
		{name: "upsample 9 linear", op: "Upsample", opset: 9, attrs: attrs("mode", "linear"), bind: []int{1},
			in: []*tensor.Tensor{row, one(1, 1, 1, 2)}, want: []*tensor.Tensor{f32([]int{1, 1, 1, 8}, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4)}},
		// Shrinking by 0.6 samples 0 and 1.67, of which opset 10 takes the ceiling.
		{name: "resize 10 nearest down", op: "Resize", opset: 10, bind: []int{1},
			in: []*tensor.Tensor{row, one(1, 1, 1, 0.6)}, want: []*tensor.Tensor{f32([]int{1, 1, 1, 2}, 1, 3)}},
		{name: "resize 10 linear down", op: "Resize", opset: 10, attrs: attrs("mode", "linear"), bind: []int{1},
			in: []*tensor.Tensor{row, one(1, 1, 1, 0.5)}, want: []*tensor.Tensor{f32([]int{1, 1, 1, 2}, 1, 3)}},
		// (i+0.5)/0.5 = 1, 3.
		{name: "resize 11 tf_half_pixel_for_nn", op: "Resize", opset: 11, attrs: attrs("coordinate_transformation_mode", "tf_half_pixel_for_nn", "nearest_mode", "floor"), bind: []int{2},
			in: []*tensor.Tensor{row, nil, one(1, 1, 1, 0.5)}, want: []*tensor.Tensor{f32([]int{1, 1, 1, 2}, 2, 4)}},
		// 10 × 0.7 is 7 in f32 and 6.999… in f64: i/0.7 rounded down.
		{name: "sizes are computed in f32", op: "Resize", opset: 13, attrs: attrs("coordinate_transformation_mode", "asymmetric", "nearest_mode", "floor"), bind: []int{2},
			in: []*tensor.Tensor{f32([]int{10}, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9), nil, one(0.7)}, want: []*tensor.Tensor{f32([]int{7}, 0, 1, 2, 4, 5, 7, 8)}},
		// The region is the right half; the last sample lies beyond the input.
		{name: "crop with fill", op: "Resize", opset: 13, attrs: attrs("mode", "linear", "coordinate_transformation_mode", "tf_crop_and_resize", "extrapolation_value", 9.0), bind: []int{1, 3},
			in: []*tensor.Tensor{f32([]int{3}, 0, 1, 2), one(0.5, 1.5), nil, size(3)}, want: []*tensor.Tensor{f32([]int{3}, 1, 2, 9)}},
		{name: "flip by a region that runs backwards", op: "Resize", opset: 13, attrs: attrs("coordinate_transformation_mode", "tf_crop_and_resize"), bind: []int{1, 3},
			in: []*tensor.Tensor{f32([]int{3}, 0, 1, 2), one(1, 0), nil, size(3)}, want: []*tensor.Tensor{f32([]int{3}, 2, 1, 0)}},
		// Halving with a triangle twice as wide: weights 1/8 3/8 3/8 1/8, at the
		// edges the edge stands for what lies outside.
		{name: "antialias", op: "Resize", opset: 18, attrs: attrs("mode", "linear", "antialias", 1), bind: []int{2},
			in: []*tensor.Tensor{f32([]int{4}, 8, 16, 32, 64), nil, one(0.5)}, want: []*tensor.Tensor{f32([]int{2}, 8./8+3*8./8+3*16./8+32./8, 16./8+3*32./8+3*64./8+64./8)}},
		{name: "integers are cut off", op: "Resize", opset: 13, attrs: attrs("mode", "linear"), bind: []int{2},
			in: []*tensor.Tensor{u8([]int{2}, 10, 13), nil, one(2)}, want: []*tensor.Tensor{u8([]int{4}, 10, 10, 12, 13)}},
		{name: "nothing", op: "Resize", opset: 13, bind: []int{2}, in: []*tensor.Tensor{tensor.New(tensor.F32, 0, 2), nil, one(1, 2)}, want: []*tensor.Tensor{tensor.New(tensor.F32, 0, 4)}},
	})
	refused(t, []rowCase{
		{name: "upsample of opset 10", op: "Upsample", opset: 10, bind: []int{1}, in: []*tensor.Tensor{row, one(1, 1, 1, 2)}, want: []*tensor.Tensor{row}},
		{name: "coordinates that opset 13 dropped", op: "Resize", opset: 13, attrs: attrs("coordinate_transformation_mode", "tf_half_pixel_for_nn"), bind: []int{2},
			in: []*tensor.Tensor{row, nil, one(1, 1, 1, 2)}, want: []*tensor.Tensor{row}},
		{name: "scales of data", op: "Resize", opset: 13, in: []*tensor.Tensor{row, nil, one(1, 1, 1, 2)}, want: []*tensor.Tensor{row}},
	})
}

func TestGridRows(t *testing.T) {
	x := f32([]int{1, 1, 1, 3}, 1, 2, 4)
	// Columns -1.5, 0.5 and 3.5 of 3, in the only row.
	grid := f32([]int{1, 1, 3, 2}, -5./3, 0, -1./3, 0, 5./3, 0)
	sampled := func(padding string, v ...float32) rowCase {
		return rowCase{name: "grid " + padding, op: "GridSample", opset: 20, attrs: attrs("padding_mode", padding), in: []*tensor.Tensor{x, grid}, want: []*tensor.Tensor{f32([]int{1, 1, 1, 3}, v...)}}
	}
	nan := float32(math.NaN())
	runRows(t, []rowCase{
		sampled("zeros", 0, 1.5, 0),
		sampled("border", 1, 1.5, 4),
		sampled("reflection", 1.5, 1.5, 3), // -1.5 folds at -0.5 to 0.5, 3.5 at 2.5 to 1.5
		{name: "no number is no position", op: "GridSample", opset: 16, attrs: attrs("mode", "nearest"), in: []*tensor.Tensor{x, f32([]int{1, 1, 1, 2}, nan, 0)}, want: []*tensor.Tensor{f32([]int{1, 1, 1, 1}, 0)}},
		// Two images, each sampled at its own last column.
		{name: "images keep apart", op: "GridSample", opset: 22, attrs: attrs("align_corners", 1), in: []*tensor.Tensor{f32([]int{2, 1, 1, 2}, 1, 2, 3, 4), f32([]int{2, 1, 1, 2}, 1, 0, 1, 0)}, want: []*tensor.Tensor{f32([]int{2, 1, 1, 1}, 2, 4)}},
		// y = 2·x + 3, x + y: for x, y in ±0.5.
		{name: "affine grid", op: "AffineGrid", opset: 20, bind: []int{1}, in: []*tensor.Tensor{f32([]int{1, 2, 3}, 2, 0, 3, 1, 1, 0), i64([]int{4}, 1, 1, 2, 2)},
			want: []*tensor.Tensor{f32([]int{1, 2, 2, 2}, 2, -1, 4, 0, 2, 0, 4, 1)}},
	})
	refused(t, []rowCase{
		{name: "aligned corners of one element", op: "AffineGrid", opset: 20, attrs: attrs("align_corners", 1), bind: []int{1}, in: []*tensor.Tensor{f32([]int{1, 2, 3}, 1, 0, 0, 0, 1, 0), i64([]int{4}, 1, 1, 1, 2)}, want: []*tensor.Tensor{f32([]int{1, 1, 2, 2}, 0, 0, 0, 0)}},
		{name: "a mode of opset 16 in 20", op: "GridSample", opset: 20, attrs: attrs("mode", "bilinear"), in: []*tensor.Tensor{x, grid}, want: []*tensor.Tensor{x}},
	})
}

func TestBoxRows(t *testing.T) {
	// Pixels 0…8 in rows of 3; the box from (0,0) to (2,2) in two samples per
	// side without the half-pixel shift: at 0.5 and 1.5, mean of 2, 3, 5, 6.
	x := counting(1, 1, 3, 3)
	box, first := f32([]int{1, 4}, 0, 0, 2, 2), i64([]int{1}, 0)
	runRows(t, []rowCase{
		{name: "roi align 10", op: "RoiAlign", opset: 10, attrs: attrs("sampling_ratio", 2), in: []*tensor.Tensor{x, box, first}, want: []*tensor.Tensor{f32([]int{1, 1, 1, 1}, 4)}},
		// Shifted by half a pixel: at 0 and 1, mean of 0, 1, 3, 4.
		{name: "roi align 16", op: "RoiAlign", opset: 16, attrs: attrs("sampling_ratio", 2), in: []*tensor.Tensor{x, box, first}, want: []*tensor.Tensor{f32([]int{1, 1, 1, 1}, 2)}},
		// As many samples as pixels: the same two.
		{name: "roi align, adaptive", op: "RoiAlign", opset: 16, bind: []int{1}, in: []*tensor.Tensor{x, box, first}, want: []*tensor.Tensor{f32([]int{1, 1, 1, 1}, 2)}},
	})
	refused(t, []rowCase{
		{name: "adaptive on data", op: "RoiAlign", opset: 16, in: []*tensor.Tensor{x, box, first}, want: []*tensor.Tensor{f32([]int{1, 1, 1, 1}, 2)}},
	})
}
