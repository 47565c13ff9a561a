package cpu

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// byteLevels are CPU levels whose code for bytes differs.
func byteLevels(t *testing.T) []string {
	t.Helper()
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	levels := []string{"native"}
	if runtime.GOARCH == "amd64" {
		levels = append(levels, "x86-64-v2", "x86-64-v3")
		if traits, err := Target("native"); err == nil && traits.Lanes == 16 {
			levels = append(levels, "x86-64-v4")
		}
	}
	return levels
}

// anyBytes are bytes of every value in a random order.
func anyBytes(r *rand.Rand, d tensor.DType, shape ...int) *tensor.Tensor {
	t := tensor.New(d, shape...)
	for i := range t.Bytes() {
		t.Bytes()[i] = byte(r.IntN(256))
	}
	return t
}

// sameEverywhere compares a graph in code for several CPU levels with the
// evaluator, bit for bit.
func sameEverywhere(t *testing.T, g *ir.Graph, in []*tensor.Tensor) {
	t.Helper()
	want, err := core.EvalGraph(g, in)
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	for _, level := range byteLevels(t) {
		for _, threads := range []int{1, 2} {
			got, err := backendtest.Run(context.Background(), Backend(), backendtest.Options{CacheDir: cache, CPU: level, Threads: threads}, g, in)
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				if !tensor.Equal(got[i], want[i]) {
					t.Errorf("%s, %d threads: output %d, %s, differs from the evaluator's", level, threads, i, want[i])
				}
			}
		}
	}
}

// TestLookups holds tables of bytes, for runs of every length that ends within
// a register, alone and among floats.
func TestLookups(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 2))
	b := core.NewBuilder("g")
	var in []*tensor.Tensor
	for _, n := range []int{1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 200, 100_000} {
		for _, d := range []tensor.DType{tensor.U8, tensor.I8} {
			x := b.Input("", d, n)
			in = append(in, anyBytes(r, d, n))
			f := b.Cast(x, tensor.F32)
			q := b.Cast(b.Min(b.Max(b.Round(b.Mul(b.Node("sin", []*ir.Value{f}), b.Like(f, 127))), b.Like(f, -128)), b.Like(f, 127)), tensor.I8)
			b.Output(q)
			y := b.Input("", tensor.U8, n)
			in = append(in, anyBytes(r, tensor.U8, n))
			sum := b.Mul(b.Add(b.Cast(q, tensor.F32), b.Cast(y, tensor.F32)), b.Like(f, 0.5))
			b.Output(sum)
			b.Output(b.Cast(b.Min(b.Max(b.Round(sum), b.Like(f, 0)), b.Like(f, 255)), tensor.U8))
		}
	}
	sameEverywhere(t, b.G, in)
}

// TestClips holds floats that end as bytes between bounds, infinities, NaN and
// what is far out of range among them.
func TestClips(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 2))
	const n = 83
	b := core.NewBuilder("g")
	x := b.Input("x", tensor.F32, 4, n)
	y := b.Input("y", tensor.U8, 4, n)
	for _, d := range []tensor.DType{tensor.U8, tensor.I8} {
		lo, hi := d.IntRange()
		for _, bounds := range [][2]float64{{float64(lo), float64(hi)}, {3, 100}} {
			for _, f := range []*ir.Value{x, b.Add(b.Mul(b.Cast(y, tensor.F32), b.Like(x, 1.37)), b.Like(x, -20))} {
				q := b.Add(b.Round(f), b.Like(x, 7))
				b.Output(b.Cast(b.Min(b.Max(q, b.Like(x, bounds[0])), b.Like(x, bounds[1])), d))
				b.Output(b.Cast(b.Max(b.Min(q, b.Like(x, bounds[1])), b.Like(x, bounds[0])), d))
			}
		}
	}
	in := []*tensor.Tensor{tensor.New(tensor.F32, 4, n), anyBytes(r, tensor.U8, 4, n)}
	special := []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e30, -1e30, 3e9, -3e9, 0.5, 1.5, -0.5, 248.5, 247.5, -7.5, 2147483648}
	for i := range in[0].Len() {
		in[0].SetFloat(i, (r.Float64()-0.5)*600)
		if i%3 == 0 {
			in[0].SetFloat(i, special[i/3%len(special)])
		}
	}
	sameEverywhere(t, b.G, in)
}

// TestByteSums holds sums of runs of bytes, and of what lies in lanes, which are
// whole numbers.
func TestByteSums(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 2))
	b := core.NewBuilder("g")
	var in []*tensor.Tensor
	for _, n := range []int{1, 15, 16, 31, 32, 33, 63, 64, 65, 127, 130, 5000} {
		for _, d := range []tensor.DType{tensor.U8, tensor.I8} {
			x := b.Cast(b.Input("", d, 3, n), tensor.I32)
			in = append(in, anyBytes(r, d, 3, n))
			b.Output(b.Reduce("reduce_sum", x, true, 1))
			b.Output(b.Reduce("reduce_sum", x, true, 0))
		}
	}
	for i := range in[1].Bytes() {
		in[1].Bytes()[i] = 0x80 // the least one
	}
	sameEverywhere(t, b.G, in)
}
