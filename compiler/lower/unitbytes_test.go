package lower_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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

// TestUnitByteConvolutions holds that quantized convolutions are products of a
// matrix unit where that is asked for, and give what the evaluator gives: zero
// points, padding, part blocks of 64 channels, strides, dilations, groups,
// weights off center, one thread and two.
func TestUnitByteConvolutions(t *testing.T) {
	r := rand.New(rand.NewPCG(25, 8))
	for _, c := range []struct {
		name                              string
		ic, oc, h, w                      int
		kernel, stride, dilation, pad, gr int
		zero                              float64
		lo, hi                            int // of the weights
	}{
		{"3x3, padded", 64, 32, 6, 7, 3, 1, 1, 1, 1, 128, -127, 127},
		{"3x3, a block and a bit", 80, 48, 5, 5, 3, 1, 1, 1, 1, 7, -127, 127},
		{"3x3 with stride, no zero point", 20, 40, 7, 7, 3, 2, 1, 1, 1, 0, -128, 127},
		{"3x3 with dilation", 48, 16, 6, 5, 3, 1, 2, 2, 1, 77, -128, 127},
		{"1x1", 128, 33, 4, 5, 1, 1, 1, 0, 1, 255, -127, 127},
		{"1x1 with stride", 64, 32, 7, 6, 1, 2, 1, 0, 1, 3, -127, 127},
		{"groups of blocks", 32, 32, 5, 5, 3, 1, 1, 1, 2, 7, -50, 50},
		{"1x1, weights off center", 40, 32, 5, 7, 1, 1, 1, 0, 1, 100, -160, 95},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := core.NewBuilder("g")
			x := quantize(b, b.Input("x", tensor.F32, 2, c.ic, c.h, c.w), 1.0/64, c.zero)
			w := wholes(b, r, c.lo, c.hi, 1.0/4096, c.oc, c.ic/c.gr, c.kernel, c.kernel)
			y := b.Conv(x, w, core.ConvSpec{Strides: []int{c.stride, c.stride}, Dilations: []int{c.dilation, c.dilation},
				Lo: []int{c.pad, c.pad}, Hi: []int{c.pad, c.pad}, Groups: c.gr})
			y = b.Add(y, b.BroadcastTo(b.Const(values(r, tensor.F32, 1, c.oc, 1, 1)), y.Static()...))
			b.Output(quantize(b, b.Relu(y), 1.0/4, 3))
			for _, threads := range []int{1, 2} {
				p := lowered(t, b.G, byteUnit("amx-int8", threads))
				if f := chosen(p); !slices.Equal(f, []string{"amx-int8"}) {
					t.Errorf("forms %v", f)
				}
				matrix := 0
				for _, k := range p.Kernels {
					matrix += strings.Count(k.String(), " matrix ")
				}
				if matrix == 0 {
					t.Error("no tile is for the matrix unit")
				}
			}
		})
	}
}
