package cpu

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/backends/cpuid"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// needs skips a test on a machine without an instruction set or a C compiler.
func needs(t *testing.T, feature string) {
	t.Helper()
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	if !slices.Contains(cpuid.Here(), feature) {
		t.Skipf("this machine has no %s", feature)
	}
}

// quantized is a network of quantized convolutions and a product: 3×3 padded,
// 1×1 with weights off center, a residual sum, a product, each followed by a
// bound and a rounding to whole numbers.
func quantized(seed uint64, ic, oc, h, w int) *ir.Graph {
	r := rand.New(rand.NewPCG(seed, 8))
	b := core.NewBuilder("g")
	quantize := func(x *ir.Value, step, zero float64) *ir.Value {
		like := func(f float64) *ir.Value { return b.Like(x, f) }
		q := b.Add(b.Round(b.Div(x, like(step))), like(zero))
		q = b.Cast(b.Min(b.Max(q, like(0)), like(255)), tensor.U8)
		return b.Mul(b.Sub(b.Cast(q, tensor.F32), like(zero)), like(step))
	}
	weights := func(d tensor.DType, zero int, shape ...int) *ir.Value {
		t := tensor.New(d, shape...)
		lo, hi := d.IntRange()
		for i := range t.Len() {
			t.SetInt(i, lo+r.Int64N(int64(hi)-lo+1))
		}
		f := b.Cast(b.Const(t), tensor.F32)
		return b.Mul(b.Sub(f, b.Like(f, float64(zero))), b.Like(f, 1.0/4096))
	}
	conv := func(x, w *ir.Value, pad int) *ir.Value {
		return b.Conv(x, w, core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{pad, pad}, Hi: []int{pad, pad}, Groups: 1})
	}
	x := quantize(b.Input("x", tensor.F32, 2, ic, h, w), 1.0/64, 128)
	y := quantize(b.Relu(conv(x, weights(tensor.I8, 0, oc, ic, 3, 3), 1)), 1.0/4, 3)
	z := quantize(conv(y, weights(tensor.U8, 100, oc, oc, 1, 1), 0), 1.0/2, 77)
	s := quantize(b.Add(z, y), 1.0/2, 100)
	b.Output(s)
	flat := quantize(b.Reshape(s, 2, oc*h*w), 1.0/2, 99)
	b.Output(b.MatMul(flat, weights(tensor.I8, 0, oc*h*w, 24), tensor.F32))
	return b.G
}

// TestByteProducts holds that compiled products of bytes give, bit for bit,
// what the evaluator gives: sums of whole numbers are exact, and what follows
// them is rounded to whole numbers.
func TestByteProducts(t *testing.T) {
	needs(t, "avx512-vnni")
	byteProducts(t, "native", "u8s8 tile", 4, [][4]int{{16, 16, 9, 7}, {20, 40, 5, 6}, {8, 24, 3, 3}, {48, 33, 4, 4}})
}

// TestUnitByteProducts holds the same for a matrix unit, emulated.
func TestUnitByteProducts(t *testing.T) {
	needs(t, "avx512-vnni")
	byteProducts(t, "native+amx-int8+amx-emulated", " matrix ", 1, [][4]int{{64, 64, 14, 14}, {80, 48, 9, 11}})
}

func byteProducts(t *testing.T, name, tiles string, least int, cases [][4]int) {
	traits, err := Target(name)
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	for i, c := range cases {
		g := quantized(uint64(i), c[0], c[1], c[2], c[3])
		p, err := compiler.Program(g, traits, compiler.Options{})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, k := range p.Kernels {
			n += strings.Count(k.String(), tiles)
		}
		if n < least {
			t.Errorf("%v: %d tiles of bytes, want %d: one for each contraction and sum of pixels that has the form", c, n, least)
		}
		x := tensor.New(tensor.F32, g.Inputs[0].Static()...)
		r := rand.New(rand.NewPCG(7, uint64(i)))
		for j := range x.Len() {
			x.SetFloat(j, r.NormFloat64())
		}
		want, err := core.EvalGraph(g, []*tensor.Tensor{x})
		if err != nil {
			t.Fatal(err)
		}
		for _, threads := range []int{1, 2} {
			got, err := backendtest.Run(context.Background(), Backend(), backendtest.Options{CPU: name, CacheDir: cache, Threads: threads}, g, []*tensor.Tensor{x})
			if err != nil {
				t.Fatal(err)
			}
			for k := range want {
				for j := range want[k].Len() {
					a, b := got[k].Float(j), want[k].Float(j)
					if k == 0 && a != b || math.Abs(a-b) > 1e-5*(math.Abs(b)+10) {
						t.Fatalf("%v, %d threads, output %d, element %d: %v, the evaluator gives %v", c, threads, k, j, a, b)
					}
				}
			}
		}
	}
}

// TestBfloat16Products holds that compiled products of bfloat16 values give
// what the evaluator gives, exactly: the numbers are whole and small.
func TestBfloat16Products(t *testing.T) {
	needs(t, "avx512-bf16")
	r := rand.New(rand.NewPCG(17, 8))
	small := func(b *core.Builder, shape ...int) *ir.Value {
		w := tensor.New(tensor.F32, shape...)
		for i := range w.Len() {
			w.SetFloat(i, float64(r.IntN(5)-2))
		}
		return b.Const(w)
	}
	cache := t.TempDir()
	for i, c := range [][4]int{{16, 16, 9, 7}, {20, 40, 5, 6}, {48, 33, 4, 4}} {
		b := core.NewBuilder("g")
		whole := func(x *ir.Value) *ir.Value { return b.Min(b.Max(b.Round(x), b.Like(x, -4)), b.Like(x, 4)) }
		conv := func(x *ir.Value, oc, k, stride int) *ir.Value {
			spec := core.ConvSpec{Strides: []int{stride, stride}, Dilations: []int{1, 1}, Lo: []int{k / 2, k / 2}, Hi: []int{k / 2, k / 2}, Groups: 1}
			return b.Conv(x, small(b, oc, x.Static()[1], k, k), spec)
		}
		x := whole(b.Input("x", tensor.F32, 2, c[0], c[2], c[3]))
		y := whole(conv(x, c[1], 3, 2))
		z := whole(b.Mul(b.Relu(b.Add(conv(y, c[1], 1, 1), y)), b.Like(y, 1.0/16)))
		b.Output(conv(z, 16, 5, 2))
		flat := b.Reshape(z, 2, z.Static()[1]*z.Static()[2]*z.Static()[3])
		b.Output(b.MatMul(flat, small(b, flat.Static()[1], 24), tensor.F32))
		in := tensor.New(tensor.F32, b.G.Inputs[0].Static()...)
		for j := range in.Len() {
			in.SetFloat(j, 3*r.NormFloat64())
		}
		want, err := core.EvalGraph(b.G, []*tensor.Tensor{in})
		if err != nil {
			t.Fatal(err)
		}
		o := backendtest.Options{CacheDir: cache, Threads: 2, Lower: compiler.Options{Precision: precision.BF16}}
		got, err := backendtest.Run(context.Background(), Backend(), o, b.G, []*tensor.Tensor{in})
		if err != nil {
			t.Fatal(err)
		}
		for k := range want {
			if n := tensor.Numel(want[k].Shape); n == 0 {
				t.Fatalf("case %d, output %d has no elements", i, k)
			}
			for j := range want[k].Len() {
				if a, b := got[k].Float(j), want[k].Float(j); a != b {
					t.Fatalf("%v, output %d, element %d: %v, the evaluator gives %v", c, k, j, a, b)
				}
			}
		}
	}
}
