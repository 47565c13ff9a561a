package cpu

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// wholeNumbers fills a tensor with small ones, whose products and sums are
// exact in any order.
func wholeNumbers(r *rand.Rand, shape ...int) *tensor.Tensor {
	t := tensor.New(tensor.F32, shape...)
	for i := range t.Len() {
		t.SetFloat(i, float64(r.IntN(9)-4))
	}
	return t
}

// raggedWidths leave each number of lanes up to eight, and some more, in the
// last vector of 8 or 16.
var raggedWidths = []int{1, 2, 3, 4, 6, 13, 15, 24, 37}

// ragged holds products whose rows end within a vector: with weights and a
// bias, with a sum and bounds behind them, with what a tile does not do, of two
// inputs, and of sums that are cut in parts.
func ragged(r *rand.Rand) *ir.Graph {
	const m = 9
	b := core.NewBuilder("g")
	constant := func(shape ...int) *ir.Value { return b.Const(wholeNumbers(r, shape...)) }
	x := b.Input("x", tensor.F32, m, 5)
	long := b.Input("long", tensor.F32, m, 4100)
	for _, n := range raggedWidths {
		p := b.MatMul(x, constant(5, n), tensor.F32)
		b.Output(b.Relu(b.Add(p, b.BroadcastTo(constant(1, n), m, n))))
		q := b.Add(b.MatMul(x, constant(5, n), tensor.F32), b.Input(fmt.Sprint("y", n), tensor.F32, m, n))
		b.Output(b.Min(b.Max(q, b.Like(q, -3)), b.Like(q, 7)))
		s := b.MatMul(x, b.Input(fmt.Sprint("z", n), tensor.F32, 5, n), tensor.F32)
		b.Output(b.Mul(s, b.Abs(s)))
		if n == 6 || n == 37 {
			b.Output(b.MatMul(long, constant(4100, n), tensor.F32))
		}
	}
	return b.G
}

// TestTails compares products with many numbers of lanes in the last vector
// with the evaluator, bit for bit, in code for masks and in code without them.
func TestTails(t *testing.T) {
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	levels := []string{"native"}
	if runtime.GOARCH == "amd64" {
		levels = append(levels, "x86-64-v3")
	}
	r := rand.New(rand.NewPCG(1, 8))
	g := ragged(r)
	var in []*tensor.Tensor
	for _, v := range g.Inputs {
		in = append(in, wholeNumbers(r, v.Static()...))
	}
	want, err := core.EvalGraph(g, in)
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	for _, level := range levels {
		traits, err := Target(level)
		if err != nil {
			t.Fatal(err)
		}
		p, err := compiler.Program(g, traits, compiler.Options{})
		if err != nil {
			t.Fatal(err)
		}
		tails := 0
		for _, k := range p.Kernels {
			tails += strings.Count(k.String(), " tail ")
		}
		if traits.Lanes >= 8 && tails < 2*len(raggedWidths) {
			t.Errorf("%s: %d tiles have a tail", level, tails)
		}
		got, err := backendtest.Run(context.Background(), Backend(), backendtest.Options{CacheDir: cache, CPU: level}, g, in)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if !tensor.Equal(got[i], want[i]) {
				t.Errorf("%s: output %d, %s, differs from the evaluator's", level, i, want[i])
			}
		}
	}
}
