package csource

import (
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// scaling multiplies n numbers with a factor, in a loop that threads share or
// in one that they do not.
func scaling(n int, factor float64, par bool) *loop.Kernel {
	x, y := &loop.Buffer{Name: "x", Type: tensor.F32, Len: n}, &loop.Buffer{Name: "y", Type: tensor.F32, Len: n, Out: true}
	i := &loop.Var{Name: "i", N: n}
	body := &loop.Store{Buf: y, Index: loop.V(i), Val: loop.Fn("mul", loop.At(x, loop.V(i)), loop.Number(tensor.F32, factor, 0))}
	return &loop.Kernel{Family: "pointwise", Params: []*loop.Buffer{y, x}, Body: []loop.Stmt{&loop.For{Var: i, Par: par, Body: []loop.Stmt{body}}}}
}

// TestUnits holds that kernels that differ in the bound of the parallel loop
// alone share a function, that no other ones do, and that many small kernels
// lie in few files.
func TestUnits(t *testing.T) {
	a, b := scaling(100, 2, true), scaling(200, 2, true)
	others := []*loop.Kernel{scaling(100, 3, true), scaling(100, 2, false), scaling(200, 2, false)}
	u := printKernels(append([]*loop.Kernel{a, b}, others...), backend.Traits{}, false)
	if u.same[b] != a || len(u.same) != 1 || len(u.own) != 4 {
		t.Errorf("%d kernels have functions, %d share one", len(u.own), len(u.same))
	}
	var many []*loop.Kernel
	for i := range 1000 {
		many = append(many, scaling(100, float64(i), true))
	}
	u = printKernels(many, backend.Traits{}, false)
	total := 0
	for i, f := range u.files {
		n := strings.Count(f.text, "\nvoid k_")
		total += n
		if i < len(u.files)-1 && (n < kernelsPerFile || len(f.text) < bytesPerFile) {
			t.Errorf("file %d has %d kernels, %d bytes", i, n, len(f.text))
		}
	}
	if total != 1000 || len(u.files) > 20 {
		t.Errorf("%d kernels in %d files", total, len(u.files))
	}
}
