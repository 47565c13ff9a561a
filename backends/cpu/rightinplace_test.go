package cpu

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// cached is a step of attention on a cache of keys and values with four heads
// of queries and two of keys, without what lies between the products: its
// numbers are whole. More rows than one read the cache in place too, up to a
// number; seven more are laid out.
func cached(rows int) *ir.Graph {
	const heads, kept, old, width = 4, 2, 40, 32
	b := core.NewBuilder("g")
	q := b.Input("q", tensor.F32, 1, heads, rows, width)
	past := func(name string) *ir.Value {
		all := b.Concat(2, b.Input(name, tensor.F32, 1, kept, old, width), b.Input(name+"new", tensor.F32, 1, kept, rows, width))
		b.Output(all)
		each := b.BroadcastTo(b.Reshape(all, 1, kept, 1, old+rows, width), 1, kept, heads/kept, old+rows, width)
		return b.Reshape(each, 1, heads, old+rows, width)
	}
	keys, values := past("k"), past("v")
	scores := b.MatMul(q, b.Transpose(keys, 0, 1, 3, 2), tensor.F32)
	b.Output(b.MatMul(b.Relu(scores), values, tensor.F32))
	return b.G
}

// TestCacheInPlace compares with the evaluator, bit for bit, and holds that one
// row copies nothing but the cache itself.
func TestCacheInPlace(t *testing.T) {
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	traits, err := Target("native")
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	for _, rows := range []int{1, 3, 5, 12} {
		g := cached(rows)
		r := rand.New(rand.NewPCG(uint64(rows), 8))
		var in []*tensor.Tensor
		for _, v := range g.Inputs {
			in = append(in, wholeNumbers(r, v.Static()...))
		}
		want, err := core.EvalGraph(g, in)
		if err != nil {
			t.Fatal(err)
		}
		p, err := compiler.Program(g, traits, compiler.Options{})
		if err != nil {
			t.Fatal(err)
		}
		families := map[string]int{}
		for _, s := range p.Steps {
			families[s.Kernel.Family]++
		}
		if rows == 1 && traits.Lanes >= 8 && (families["pack"] > 0 || families["pointwise"] > 0 || families["dot"] != 2) {
			t.Errorf("one row: kernels %v, want two products and the concatenations", families)
		}
		got, err := backendtest.Run(context.Background(), Backend(), backendtest.Options{CacheDir: cache}, g, in)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if !tensor.Equal(got[i], want[i]) {
				t.Errorf("%d rows: output %d differs from the evaluator's", rows, i)
			}
		}
	}
}
