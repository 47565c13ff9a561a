package lower_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// byteTargets multiply bytes: AVX-512 and AVX2.
var byteTargets = []lower.Options{
	{Lanes: 16, Regs: 32, Features: []string{"avx512-vnni"}},
	{Lanes: 8, Regs: 16, Features: []string{"avx-vnni"}},
}

// quantize rounds to whole numbers of a step, in the range of U8, and gives
// what such an element stands for: (q − zero)·step.
func quantize(b *core.Builder, x *ir.Value, step, zero float64) *ir.Value {
	like := func(f float64) *ir.Value { return b.Like(x, f) }
	q := b.Add(b.Round(b.Div(x, like(step))), like(zero))
	q = b.Cast(b.Min(b.Max(q, like(0)), like(255)), tensor.U8)
	return b.Mul(b.Sub(b.Cast(q, tensor.F32), like(zero)), like(step))
}

// wholes are whole numbers in [lo, hi] times a step.
func wholes(b *core.Builder, r *rand.Rand, lo, hi int, step float64, shape ...int) *ir.Value {
	d, zero := tensor.I8, 0
	switch {
	case hi-lo > 255:
		d = tensor.I16
	case lo < -128 || hi > 127:
		d, zero = tensor.U8, -lo
	}
	w := tensor.New(d, shape...)
	for i := range w.Len() {
		w.SetInt(i, int64(lo+zero+r.IntN(hi-lo+1)))
	}
	f := b.Cast(b.Const(w), tensor.F32)
	return b.Mul(b.Sub(f, b.Like(f, float64(zero))), b.Like(f, step))
}

func tilesOf(p *program.Program, kind string) int {
	n := 0
	for _, s := range p.Steps {
		if strings.Contains(s.Kernel.String(), kind+" tile") {
			n++
		}
	}
	return n
}

// TestByteConvolutions holds that quantized convolutions are products of bytes
// where they can be, and give what the evaluator gives: zero points, padding,
// part blocks, strides, groups, what follows, weights that leave the range of
// I8 by their zero point.
func TestByteConvolutions(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 8))
	for _, c := range []struct {
		name                    string
		ic, oc, h, w            int
		kernel, stride, pad, gr int
		zero                    float64
		lo, hi                  int // of the weights
		want                    int // kernels with products of bytes, at 16 lanes
	}{
		{"3x3, padded", 16, 16, 6, 7, 3, 1, 1, 1, 128, -127, 127, 1},
		{"3x3 with stride, no zero point", 20, 40, 7, 7, 3, 2, 1, 1, 0, -128, 127, 1},
		{"5x5", 8, 24, 7, 6, 5, 1, 2, 1, 3, -20, 20, 1},
		{"1x1", 32, 33, 4, 5, 1, 1, 0, 1, 255, -127, 127, 1},
		{"7x7 with stride, few channels", 3, 16, 13, 15, 7, 2, 3, 1, 113, -127, 127, 1},
		{"four channels, part block", 4, 24, 6, 5, 3, 1, 0, 1, 20, -127, 127, 1},
		{"two channels, 1x1 with stride", 2, 16, 7, 6, 1, 2, 0, 1, 5, -127, 127, 0},
		{"one channel", 1, 16, 9, 9, 5, 1, 2, 1, 255, -127, 127, 1},
		{"few channels, weights off center", 3, 16, 6, 6, 3, 1, 1, 1, 10, -160, 95, 0},
		{"groups of blocks", 32, 32, 5, 5, 3, 1, 1, 2, 7, -50, 50, 1},
		{"1x1, weights off center", 24, 32, 5, 7, 1, 1, 0, 1, 100, -160, 95, 2},
		{"1x1 of one pixel, weights off center", 48, 32, 1, 1, 1, 1, 0, 1, 100, -10, 245, 1},
		{"3x3, weights off center", 16, 16, 5, 5, 3, 1, 1, 1, 10, -160, 95, 0},
		{"weights of more than a byte", 16, 16, 5, 5, 1, 1, 0, 1, 10, -160, 160, 0},
		{"depthwise", 16, 16, 5, 5, 3, 1, 1, 16, 10, -100, 100, 1},
		{"depthwise, part block, nothing padded", 24, 24, 6, 5, 3, 1, 0, 24, 10, -128, 127, 1},
		{"depthwise 5x5 with stride", 32, 32, 9, 9, 5, 2, 2, 32, 200, -100, 100, 1},
		{"depthwise, weights off center", 16, 16, 5, 5, 3, 1, 1, 16, 10, -160, 90, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := core.NewBuilder("g")
			x := quantize(b, b.Input("x", tensor.F32, 2, c.ic, c.h, c.w), 1.0/64, c.zero)
			spec := core.ConvSpec{Strides: []int{c.stride, c.stride}, Dilations: []int{1, 1}, Lo: []int{c.pad, c.pad}, Hi: []int{c.pad, c.pad}, Groups: c.gr}
			y := b.Conv(x, wholes(b, r, c.lo, c.hi, 1.0/1024, c.oc, c.ic/c.gr, c.kernel, c.kernel), spec)
			s := y.Static()
			y = b.Add(y, b.BroadcastTo(b.Const(values(r, tensor.F32, 1, c.oc, 1, 1)), s...))
			y = quantize(b, b.Relu(y), 1.0/8, 0)
			b.Output(b.Add(y, b.Input("z", tensor.F32, s...)))
			for _, o := range byteTargets {
				p := lowered(t, b.G, o)
				if n := tilesOf(p, "u8s8"); o.Lanes == 16 && n != c.want {
					t.Errorf("%d kernels with products of bytes, want %d", n, c.want)
				}
			}
			if n := tilesOf(lowered(t, b.G, wide), "u8s8"); n != 0 {
				t.Errorf("%d kernels with products of bytes on a CPU without such", n)
			}
		})
	}
}

// TestByteNetwork holds that values between byte products stay bytes, that
// others which read them see their values, and that all is right.
func TestByteNetwork(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 8))
	b := core.NewBuilder("g")
	one := func(k int) core.ConvSpec {
		return core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{k / 2, k / 2}, Hi: []int{k / 2, k / 2}, Groups: 1}
	}
	x := quantize(b, b.Input("x", tensor.F32, 1, 16, 6, 5), 1.0/32, 9)
	y := quantize(b, b.Conv(x, wholes(b, r, -99, 99, 1.0/2048, 24, 16, 3, 3), one(3)), 1.0/16, 128)
	z := quantize(b, b.Conv(y, wholes(b, r, -99, 99, 1.0/2048, 24, 24, 1, 1), one(1)), 1.0/16, 77)
	z = quantize(b, b.Add(z, y), 1.0/8, 100)
	m := quantize(b, b.Conv(z, wholes(b, r, -99, 99, 1.0/2048, 16, 24, 3, 3), one(3)), 1.0/4, 0)
	b.Output(b.Reduce("reduce_sum", m, true, 2, 3))
	b.Output(b.SliceAxis(y, 1, 3, 9))
	for _, o := range byteTargets {
		p := lowered(t, b.G, o)
		bytes := 0
		for _, s := range p.Steps {
			if k := s.Kernel; k.Family == "conv" && k.Params[0].Type == tensor.U8 {
				bytes++
			}
		}
		if bytes != 2 {
			t.Errorf("%d lanes: %d convolutions store bytes, want those whose results only byte products and elementwise ops read: 2", o.Lanes, bytes)
		}
	}
}

// TestByteProducts: quantized products of matrices, rests of tiles, vectors,
// weights off center, and sums of an odd number of terms, which stay F32.
func TestByteProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(14, 8))
	for _, c := range []struct{ m, k, n, lo, hi, want int }{
		{1, 24, 16, -127, 127, 1}, {5, 64, 37, -127, 127, 1}, {30, 12, 16, -128, 127, 1},
		{3, 32, 20, -60, 195, 1}, {1, 640, 128, -90, 90, 1}, {4, 7, 16, -90, 90, 0}, {4, 8, 16, -200, 200, 0},
	} {
		t.Run(fmt.Sprintf("%dx%dx%d", c.m, c.k, c.n), func(t *testing.T) {
			b := core.NewBuilder("g")
			x := quantize(b, b.Input("x", tensor.F32, c.m, c.k), 1.0/64, 130)
			y := b.MatMul(x, wholes(b, r, c.lo, c.hi, 1.0/1024, c.k, c.n), tensor.F32)
			y = b.Add(y, b.BroadcastTo(b.Const(values(r, tensor.F32, 1, c.n)), c.m, c.n))
			b.Output(quantize(b, y, 1.0/4, 3))
			for _, o := range byteTargets {
				p := lowered(t, b.G, o)
				if n := tilesOf(p, "u8s8"); n != c.want {
					t.Errorf("%d lanes: %d kernels with products of bytes, want %d", o.Lanes, n, c.want)
				}
			}
		})
	}
}

// wholeConvolutions is a network whose numbers are small and whole throughout, so
// that bfloat16 holds them: of three convolutions the first two are followed by
// others. It gives what makes more of the kind, and what the first gives.
func wholeConvolutions(b *core.Builder, r *rand.Rand) (small func(...int) *tensor.Tensor, whole func(*ir.Value) *ir.Value, y *ir.Value) {
	small = func(shape ...int) *tensor.Tensor {
		w := tensor.New(tensor.F32, shape...)
		for i := range w.Len() {
			w.SetFloat(i, float64(r.IntN(5)-2))
		}
		return w
	}
	whole = func(x *ir.Value) *ir.Value { return b.Min(b.Max(b.Round(x), b.Like(x, -4)), b.Like(x, 4)) }
	conv := func(x *ir.Value, oc, k, stride int) *ir.Value {
		spec := core.ConvSpec{Strides: []int{stride, stride}, Dilations: []int{1, 1}, Lo: []int{k / 2, k / 2}, Hi: []int{k / 2, k / 2}, Groups: 1}
		return b.Conv(x, b.Const(small(oc, x.Static()[1], k, k)), spec)
	}
	x := whole(b.Input("x", tensor.F32, 1, 24, 9, 7))
	y = whole(conv(x, 40, 3, 2))
	z := b.Relu(b.Add(conv(y, 40, 1, 1), y)) // a sum with what is stored as bfloat16
	z = whole(b.Mul(z, b.Like(z, 1.0/16)))
	b.Output(conv(z, 16, 5, 2))
	return small, whole, y
}

// TestBfloat16 holds that in the mode bf16 products are of pairs of bfloat16
// values, that what lies between them is stored so, and that all is right: the
// numbers are small and whole, so that no rounding hides a mistake.
func TestBfloat16(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 8))
	o := lower.Options{Lanes: 16, Regs: 32, Features: []string{"avx512-bf16"}, Precision: precision.BF16}
	b := core.NewBuilder("g")
	small, whole, y := wholeConvolutions(b, r)
	b.Output(b.Window("window_max", y, []int{2, 2}, core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{0, 0}, Hi: []int{0, 0}}))
	for i, m := range []int{1, 5, 30} {
		u := whole(b.Input(fmt.Sprint("u", i), tensor.F32, 2, m, 34))
		v := whole(b.Input(fmt.Sprint("v", i), tensor.F32, 2, 37, 34))
		q := whole(b.MatMul(u, b.Const(small(34, 20)), tensor.F32))
		b.Output(b.Add(q, b.Like(q, 1)))
		b.Output(b.MatMul(u, b.Transpose(v, 0, 2, 1), tensor.F32))
		odd := whole(b.Input(fmt.Sprint("w", i), tensor.F32, m, 33))
		b.Output(b.MatMul(odd, b.Const(small(33, 20)), tensor.F32))
	}
	p := lowered(t, b.G, o)
	if n, want := tilesOf(p, "bf16"), 3+3+2; n != want {
		t.Errorf("%d kernels with products of bfloat16, want %d", n, want)
	}
	stored := 0
	for _, s := range p.Steps {
		if k := s.Kernel; k.Family == "conv" && k.Params[0].Type == tensor.BF16 {
			stored++
		}
	}
	if stored != 2 {
		t.Errorf("%d convolutions store bfloat16, want the two that others follow", stored)
	}
	for _, other := range []lower.Options{
		{Lanes: 16, Regs: 32, Features: o.Features},
		{Lanes: 16, Regs: 32, Features: o.Features, Precision: precision.Fast},
		{Lanes: 16, Regs: 32, Features: []string{"amx-bf16", "avx512-bf16"}, Precision: precision.IEEE},
		{Lanes: 8, Regs: 16, Precision: precision.BF16},
	} {
		if n := tilesOf(lowered(t, b.G, other), "bf16"); n != 0 {
			t.Errorf("%d kernels with products of bfloat16 for %+v", n, other)
		}
	}
}

// TestHalfWeights holds that in the mode f16 products of few rows keep their
// weights as float16, unless one of them is beyond its range.
func TestHalfWeights(t *testing.T) {
	r := rand.New(rand.NewPCG(16, 8))
	for _, c := range []struct {
		rows  int
		scale float64
		want  bool
	}{{1, 1, true}, {3, 0.25, true}, {30, 1, false}, {1, 30000, false}} {
		b := core.NewBuilder("g")
		w := tensor.New(tensor.F32, 19, 37)
		for i := range w.Len() {
			w.SetFloat(i, float64(r.IntN(9)-4)*c.scale)
		}
		b.Output(b.MatMul(b.Input("x", tensor.F32, c.rows, 19), b.Const(w), tensor.F32))
		for _, o := range []lower.Options{{Lanes: 16, Regs: 32}, {Lanes: 8, Regs: 16}} {
			o.Features, o.Precision = []string{"f16c"}, precision.F16
			p := lowered(t, b.G, o)
			found := slices.ContainsFunc(p.Consts, func(k *program.Constant) bool { return k.Buf.Type == tensor.F16 })
			if found != c.want {
				t.Errorf("%d rows, weights up to %v: float16 in memory is %v, want %v", c.rows, 4*c.scale, found, c.want)
			}
		}
	}
}

// TestByteSums: products of bytes whose sums F32 does not hold, as integers and
// behind them constants, with which the tiles begin; on a CPU without products
// of bytes such sums are made in parts.
func TestByteSums(t *testing.T) {
	r := rand.New(rand.NewPCG(16, 8))
	big := func(shape ...int) *tensor.Tensor {
		w := tensor.New(tensor.I8, shape...)
		for i := range w.Len() {
			w.SetInt(i, 127-int64(r.IntN(8)/7*200))
		}
		return w
	}
	b := core.NewBuilder("g")
	x := b.Input("x", tensor.U8, 3, 640)
	b.Output(b.MatMul(x, b.Const(big(640, 24)), tensor.I32))
	y := b.MatMul(x, b.Const(big(640, 24)), tensor.I32)
	bias := tensor.New(tensor.I32, 1, 24)
	for i := range 24 {
		bias.SetInt(i, r.Int64N(1<<28)-1<<27)
	}
	b.Output(b.Mul(b.Cast(b.Sub(y, b.Const(bias)), tensor.F32), b.Scalar(tensor.F32, 1.0/(1<<20))))
	for _, o := range byteTargets {
		p := lowered(t, b.G, o)
		if n := tilesOf(p, "u8s8"); n != 2 {
			t.Errorf("%d lanes: %d kernels with products of bytes, want 2", o.Lanes, n)
		}
	}
	if n := len(lowered(t, b.G, wide).Steps); n < 4 {
		t.Errorf("%d kernels on a CPU without products of bytes, want one for each part of each sum", n)
	}
}

// TestColumnScales: a product whose weights have a scale for each column, as
// quantizing per channel gives, is one of bytes.
func TestColumnScales(t *testing.T) {
	r := rand.New(rand.NewPCG(18, 8))
	b := core.NewBuilder("g")
	x := quantize(b, b.Input("x", tensor.F32, 2, 5, 64), 1.0/64, 130)
	w := tensor.New(tensor.I8, 64, 37)
	for i := range w.Len() {
		w.SetInt(i, r.Int64N(255)-127)
	}
	scale := tensor.New(tensor.F32, 1, 37)
	for i := range 37 {
		scale.SetFloat(i, float64(1+i)/4096)
	}
	y := b.MatMul(x, b.Mul(b.Cast(b.Const(w), tensor.F32), b.BroadcastTo(b.Const(scale), 64, 37)), tensor.F32)
	b.Output(quantize(b, y, 1.0/4, 3))
	for _, o := range byteTargets {
		if n := tilesOf(lowered(t, b.G, o), "u8s8"); n != 1 {
			t.Errorf("%d lanes: %d kernels with products of bytes, want 1", o.Lanes, n)
		}
	}
}
