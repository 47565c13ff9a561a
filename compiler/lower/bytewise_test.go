package lower_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// byteGraph builds graphs as QDQ models have them.
type byteGraph struct {
	*core.Builder
}

func (b byteGraph) dequantize(x *ir.Value, scale, zero float64) *ir.Value {
	f := b.Cast(x, tensor.F32)
	return b.Mul(b.Sub(f, b.Like(f, zero)), b.Like(f, scale))
}

func (b byteGraph) quantize(x *ir.Value, scale, zero float64, d tensor.DType) *ir.Value {
	lo, hi := d.IntRange()
	q := b.Add(b.Round(b.Div(x, b.Like(x, scale))), b.Like(x, zero))
	return b.Cast(b.Min(b.Max(q, b.Like(q, float64(lo))), b.Like(q, float64(hi))), d)
}

func everyByte(d tensor.DType, shape ...int) *tensor.Tensor {
	t := tensor.New(d, shape...)
	for i := range t.Bytes() {
		t.Bytes()[i] = byte(i * 7)
	}
	return t
}

// byteCases are what stands between dequantizing and quantizing; s is a scale
// of the result, which for those that only move is that of the operand.
var byteCases = []struct {
	name  string
	s     float64
	build func(b byteGraph, x *ir.Value) *ir.Value
}{
	{"nothing", 0.02, func(_ byteGraph, x *ir.Value) *ir.Value { return x }},
	{"silu", 0.01, func(b byteGraph, x *ir.Value) *ir.Value {
		one := b.Like(x, 1)
		return b.Mul(x, b.Div(one, b.Add(one, b.Node("exp", []*ir.Value{b.Neg(x)}))))
	}},
	{"silu that is rounded between", 0.01, func(b byteGraph, x *ir.Value) *ir.Value {
		s := b.quantize(b.Node("tanh", []*ir.Value{x}), 1.0/128, 3, tensor.I8)
		return b.Mul(x, b.dequantize(s, 1.0/128, 3))
	}},
	{"transpose", 0.02, func(b byteGraph, x *ir.Value) *ir.Value { return b.Transpose(x, 0, 2, 3, 1) }},
	{"slice and reshape", 0.02, func(b byteGraph, x *ir.Value) *ir.Value {
		return b.Reshape(b.SliceAxis(x, 1, 3, 10), 20, 27)
	}},
	{"relu behind a transpose", 0.03, func(b byteGraph, x *ir.Value) *ir.Value {
		return b.Relu(b.Transpose(x, 0, 3, 1, 2))
	}},
	{"pad", 0.02, func(b byteGraph, x *ir.Value) *ir.Value {
		return b.Pad(x, []int{0, 1, 2, 0}, []int{0, 0, 1, 3}, b.Scalar(tensor.F32, 0))
	}},
	{"concat of two functions", 0.05, func(b byteGraph, x *ir.Value) *ir.Value {
		return b.Concat(1, b.Relu(x), b.Mul(x, b.Like(x, -1.7)))
	}},
	{"pool", 0.02, func(b byteGraph, x *ir.Value) *ir.Value {
		return b.Window("window_max", x, []int{3, 3}, core.ConvSpec{Strides: []int{2, 2}, Dilations: []int{1, 1}, Lo: []int{1, 1}, Hi: []int{1, 1}, Groups: 1})
	}},
	{"pool of what falls", 0.02, func(b byteGraph, x *ir.Value) *ir.Value {
		return b.Window("window_max", b.Neg(x), []int{2, 2}, core.ConvSpec{Strides: []int{2, 2}, Dilations: []int{1, 1}, Lo: []int{0, 0}, Hi: []int{0, 0}, Groups: 1})
	}},
	{"greatest", 0.02, func(b byteGraph, x *ir.Value) *ir.Value { return b.Reduce("reduce_max", x, true, 2, 3) }},
	{"picked", 0.02, func(b byteGraph, x *ir.Value) *ir.Value {
		return b.Gather(x, 1, b.Ints(0, 0, 5, 19, 3))
	}},
}

// TestFunctionsOfBytes holds that what stands between dequantizing and
// quantizing again gives what the evaluator gives, without floats.
func TestFunctionsOfBytes(t *testing.T) {
	for _, c := range byteCases {
		for _, d := range []tensor.DType{tensor.U8, tensor.I8} {
			t.Run(fmt.Sprintf("%s/%s", c.name, d), func(t *testing.T) {
				b := byteGraph{core.NewBuilder("g")}
				zero := map[tensor.DType]float64{tensor.U8: 121, tensor.I8: -7}[d]
				x := b.Input("x", d, 1, 20, 9, 6)
				b.Output(b.quantize(c.build(b, b.dequantize(x, 0.02, zero)), c.s, zero, d))
				in := []*tensor.Tensor{everyByte(d, 1, 20, 9, 6)}
				want, err := core.EvalGraph(b.G, in)
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range widths {
					p, err := lower.Lower(b.G, o)
					if err != nil {
						t.Fatal(err)
					}
					floats := slices.ContainsFunc(p.Kernels, func(k *loop.Kernel) bool { return strings.Contains(k.String(), "f32") })
					if falls := c.name == "pool of what falls"; floats != falls {
						t.Errorf("%d lanes: floats in the kernels: %v", o.Lanes, floats)
					}
					out := ran(t, p, in...)
					if !tensor.Equal(out[0], want[0]) {
						t.Errorf("%d lanes: %v, not %v", o.Lanes, out[0], want[0])
					}
				}
			})
		}
	}
}

// TestFunctionsOfBytesStayFloats holds that operands which are no functions of
// the same bytes are left alone: two inputs, and one less a transpose of itself.
func TestFunctionsOfBytesStayFloats(t *testing.T) {
	b := byteGraph{core.NewBuilder("g")}
	x := b.dequantize(b.Input("x", tensor.U8, 6, 6), 0.02, 3)
	y := b.dequantize(b.Input("y", tensor.U8, 6, 6), 0.04, 9)
	b.Output(b.quantize(b.Add(x, y), 0.05, 0, tensor.U8))
	b.Output(b.quantize(b.Sub(x, b.Transpose(x, 1, 0)), 0.05, 100, tensor.U8))
	in := []*tensor.Tensor{everyByte(tensor.U8, 6, 6), everyByte(tensor.U8, 6, 6)}
	in[1].Bytes()[4] = 200
	p, err := lower.Lower(b.G, lower.Options{Lanes: 16, Regs: 32})
	if err != nil {
		t.Fatal(err)
	}
	out, want := both(t, b.G, p, in)
	for i := range want {
		if !tensor.Equal(out[i], want[i]) {
			t.Errorf("output %d: %v, not %v", i, out[i], want[i])
		}
	}
}
