package lower_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// byteUnit is a target with a matrix unit for bytes, on which a form is taken
// where it is possible.
func byteUnit(form string, threads int) lower.Options {
	return lower.Options{Lanes: 16, Regs: 32, Threads: threads, Features: []string{"amx-int8", "amx-tile", "avx512-vnni"},
		Schedules: func(string) (schedule.Choice, bool) { return schedule.Choice{Form: form}, form != "" }}
}

// TestUnitByteProducts holds that quantized products are products of a matrix
// unit where they have enough rows and whole blocks of 64, and give what the
// evaluator gives: runs of rows of one size, the last of which overlap, part
// vectors, batches, weights off center.
func TestUnitByteProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(24, 8))
	for _, c := range []struct {
		m, k, n, lo, hi int
		form            string
	}{
		{1, 64, 32, -127, 127, "int8"}, {8, 65, 32, -127, 127, "direct"}, {8, 68, 32, -127, 127, "int8"},
		{5, 64, 37, -127, 127, "amx-int8"}, {16, 128, 16, -128, 127, "amx-int8"}, {17, 64, 48, -127, 127, "amx-int8"}, {32, 64, 32, -127, 127, "amx-int8"},
		{33, 64, 33, -127, 127, "amx-int8"}, {49, 192, 32, -127, 127, "amx-int8"}, {70, 64, 20, -60, 195, "amx-int8"},
	} {
		t.Run(fmt.Sprintf("%dx%dx%d", c.m, c.k, c.n), func(t *testing.T) {
			b := core.NewBuilder("g")
			x := quantize(b, b.Input("x", tensor.F32, c.m, c.k), 1.0/64, 130)
			y := b.MatMul(x, wholes(b, r, c.lo, c.hi, 1.0/1024, c.k, c.n), tensor.F32)
			y = b.Add(y, b.BroadcastTo(b.Const(values(r, tensor.F32, 1, c.n)), c.m, c.n))
			b.Output(quantize(b, y, 1.0/4, 3))
			for _, threads := range []int{1, 2} {
				p := lowered(t, b.G, byteUnit("", threads))
				if f := chosen(p); !slices.Equal(f, []string{c.form}) {
					t.Errorf("forms %v, want %s", f, c.form)
				}
				if c.form == "amx-int8" {
					lowered(t, b.G, byteUnit("int8", threads))
				}
			}
		})
	}
}
