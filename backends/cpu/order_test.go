package cpu

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestOrders holds that heads of long lines and whole lines come out in order,
// equals by position, as the evaluator has them: many ties, infinities and both
// zeros, lines that are in order already. Lines with NaN, whose order is not
// defined, still give positions within them, and each number beside its own.
func TestOrders(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 44))
	const rows, size = 6, 3000
	lines := tensor.New(tensor.F32, rows, size)
	special := []float64{math.Inf(1), math.Inf(-1), 0, math.Copysign(0, -1), 1}
	for i := range size {
		lines.SetFloat(i, r.NormFloat64())
		lines.SetFloat(size+i, float64(r.IntN(5)-2))
		lines.SetFloat(2*size+i, float64(i))
		lines.SetFloat(3*size+i, float64(-i))
		lines.SetFloat(4*size+i, special[r.IntN(len(special))])
		lines.SetFloat(5*size+i, 7)
	}
	broken := tensor.New(tensor.F32, rows, size)
	for i := range rows * size {
		broken.SetFloat(i, lines.Float(i))
		if i%7 == 0 {
			broken.SetFloat(i, math.NaN())
		}
	}
	cache := t.TempDir()
	for _, k := range []int{10, 40, 80, 500, size} {
		for _, descending := range []bool{false, true} {
			b := core.NewBuilder("g")
			v, at := b.Sort(b.Input("x", tensor.F32, rows, size), 1, descending)
			b.Output(b.SliceAxis(v, 1, 0, k))
			b.Output(b.SliceAxis(at, 1, 0, k))
			want, err := core.EvalGraph(b.G, []*tensor.Tensor{lines})
			if err != nil {
				t.Fatal(err)
			}
			for _, cpu := range []string{"native", "x86-64-v3"} {
				t.Run(fmt.Sprint(k, descending, cpu), func(t *testing.T) {
					if cpu != "native" {
						needs(t, "avx2")
					}
					run := func(x *tensor.Tensor) []*tensor.Tensor {
						got, err := backendtest.Run(context.Background(), Backend(), backendtest.Options{CPU: cpu, CacheDir: cache, Threads: 1}, b.G, []*tensor.Tensor{x})
						if err != nil {
							t.Fatal(err)
						}
						return got
					}
					got := run(lines)
					for i := range rows * k {
						if got[0].Float(i) != want[0].Float(i) || got[1].Int(i) != want[1].Int(i) {
							t.Fatalf("line %d, element %d: %v from %d, the evaluator gives %v from %d", i/k, i%k, got[0].Float(i), got[1].Int(i), want[0].Float(i), want[1].Int(i))
						}
					}
					got = run(broken)
					for i := range rows * k {
						at := int(got[1].Int(i))
						if at < 0 || at >= size {
							t.Fatalf("line %d with NaN, element %d: from %d", i/k, i%k, at)
						}
						x, y := got[0].Float(i), broken.Float(i/k*size+at)
						if x != y && !(math.IsNaN(x) && math.IsNaN(y)) {
							t.Fatalf("line %d with NaN, element %d: %v from %d, where %v is", i/k, i%k, x, at, y)
						}
					}
				})
			}
		}
	}
}
