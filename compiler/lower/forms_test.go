package lower_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// widths are the targets that kernels are made for: none, SSE or NEON, AVX2,
// AVX-512.
var widths = []lower.Options{{Lanes: 1}, {Lanes: 4, Regs: 16}, {Lanes: 4, Regs: 32}, {Lanes: 8, Regs: 16}, {Lanes: 16, Regs: 32}, {Lanes: 16, Regs: 32, Threads: 2}}

// TestConvolutionForms holds that each form of a convolution is chosen where it
// is meant, and right at every width, with bias, sum and bound behind it.
func TestConvolutionForms(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 8))
	for _, c := range []struct {
		name                         string
		ic, oc, h, w                 int
		kernel, stride, dil, pad, gr int
		want                         string // the family at 16 lanes
	}{
		{"Winograd F(4x4)", 16, 16, 8, 8, 3, 1, 1, 1, 1, "winograd"},
		{"Winograd F(4x4), odd sizes without padding", 17, 20, 9, 11, 3, 1, 1, 0, 1, "winograd"},
		{"Winograd F(2x2)", 32, 32, 4, 4, 3, 1, 1, 1, 1, "winograd"},
		{"Winograd of 5x5", 16, 16, 5, 6, 5, 1, 1, 2, 1, "winograd"},
		{"Winograd of part of a block", 13, 32, 9, 8, 3, 1, 1, 1, 1, "winograd"},
		{"1x1, flattened", 32, 48, 5, 7, 1, 1, 1, 0, 1, "conv"},
		{"1x1 with stride", 32, 16, 6, 6, 1, 2, 1, 0, 1, "conv"},
		{"3x3 with stride", 16, 32, 9, 9, 3, 2, 1, 1, 1, "conv"},
		{"5x5 with dilation", 16, 16, 6, 7, 5, 1, 2, 4, 1, "conv"},
		{"few input channels", 3, 24, 11, 11, 3, 2, 1, 1, 1, "conv"},
		{"few input channels, edges of two points", 3, 30, 21, 23, 5, 1, 1, 2, 1, "conv"},
		{"few input channels, results in rows", 3, 20, 21, 23, 5, 1, 1, 2, 1, "rowconv"},
		{"one input channel, edges with stride", 1, 36, 26, 31, 7, 2, 1, 3, 1, "conv"},
		{"few input channels, edge at the begin only", 2, 16, 18, 22, 3, 2, 1, 1, 1, "conv"},
		{"part of a block", 20, 19, 6, 6, 3, 2, 1, 1, 1, "conv"},
		{"depthwise", 24, 24, 8, 8, 3, 1, 1, 1, 24, "depthwise"},
		{"depthwise with stride", 32, 32, 9, 7, 3, 2, 1, 1, 32, "depthwise"},
		{"groups of whole blocks", 32, 32, 3, 3, 3, 1, 1, 1, 2, "conv"},
		{"Winograd of groups", 32, 32, 8, 9, 3, 1, 1, 1, 2, "winograd"},
		{"groups of a block and a half, one over", 72, 72, 5, 4, 3, 1, 1, 1, 3, "conv"},
		{"groups of a quarter, more outputs, three over", 28, 56, 5, 6, 3, 2, 1, 1, 7, "conv"},
		{"few output channels", 8, 2, 6, 40, 3, 1, 1, 1, 1, "rowconv"},
		{"groups of part blocks", 6, 4, 4, 40, 3, 1, 1, 1, 2, "rowconv"},
		{"none of these", 6, 4, 7, 7, 3, 2, 1, 1, 2, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := core.NewBuilder("g")
			x := b.Input("x", tensor.F32, 2, c.ic, c.h, c.w)
			w := values(r, tensor.F32, c.oc, c.ic/c.gr, c.kernel, c.kernel)
			for i := range w.Len() {
				w.SetFloat(i, w.Float(i)/float64(c.kernel*c.ic/c.gr)) // results of the order of 1
			}
			y := b.Conv(x, b.Const(w), core.ConvSpec{Strides: []int{c.stride, c.stride}, Dilations: []int{c.dil, c.dil},
				Lo: []int{c.pad, c.pad}, Hi: []int{c.pad, c.pad}, Groups: c.gr})
			s := y.Static()
			y = b.Add(y, b.BroadcastTo(b.Const(values(r, tensor.F32, 1, c.oc, 1, 1)), s...))
			y = b.Add(y, b.Input("z", tensor.F32, s...))
			b.Output(b.Min(b.Max(y, b.Like(y, 0)), b.Like(y, 6)))
			for _, o := range widths {
				p := lowered(t, b.G, o)
				if f := families(p); o.Lanes == 16 && c.want != "" && !slices.Contains(f, c.want) {
					t.Errorf("kernels %v, want %s among them", f, c.want)
				}
			}
		})
	}
}

// TestWinogradForms holds that Winograd's form is right in every size that the
// taps and the stride allow, for maps that are no whole tiles, parts of blocks
// and groups.
func TestWinogradForms(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 8))
	for _, c := range []struct {
		ic, oc, h, w, kernel, stride, pad, gr int
		sizes                                 []int
	}{
		{19, 16, 4, 5, 2, 1, 1, 1, []int{3, 4}},
		{16, 17, 9, 12, 3, 2, 1, 1, []int{2, 3, 4}},
		{16, 16, 9, 8, 4, 2, 1, 1, []int{3}},
		{13, 16, 6, 9, 5, 2, 2, 1, []int{2}},
		{32, 32, 5, 4, 3, 1, 1, 2, []int{2, 4}},
		{32, 32, 6, 5, 3, 2, 0, 2, []int{2, 3, 4}},
	} {
		b := core.NewBuilder("g")
		x := b.Input("x", tensor.F32, 1, c.ic, c.h, c.w)
		w := values(r, tensor.F32, c.oc, c.ic/c.gr, c.kernel, c.kernel)
		for i := range w.Len() {
			w.SetFloat(i, w.Float(i)/float64(c.kernel*c.ic/c.gr)) // results of the order of 1
		}
		both := func(n int) []int { return []int{n, n} }
		y := b.Conv(x, b.Const(w), core.ConvSpec{Strides: both(c.stride), Dilations: both(1), Lo: both(c.pad), Hi: both(c.pad), Groups: c.gr})
		b.Output(b.Max(y, b.Like(y, 0)))
		for _, size := range c.sizes {
			t.Run(fmt.Sprintf("%dx%d stride %d groups %d size %d", c.kernel, c.kernel, c.stride, c.gr, size), func(t *testing.T) {
				for _, o := range []lower.Options{{Lanes: 8, Regs: 16}, {Lanes: 16, Regs: 32}, {Lanes: 16, Regs: 32, Threads: 2}} {
					o.Schedules = func(string) (schedule.Choice, bool) {
						return schedule.Choice{Form: fmt.Sprintf("winograd%d", size)}, true
					}
					if f := families(lowered(t, b.G, o)); !slices.Contains(f, "winograd") {
						t.Errorf("%d lanes: kernels %v, want winograd among them", o.Lanes, f)
					}
				}
			})
		}
	}
}

// TestLines holds that kernels along one axis take Winograd's form, whole maps
// of one row too, and are right at every width.
func TestLines(t *testing.T) {
	r := rand.New(rand.NewPCG(19, 8))
	for _, c := range []struct{ h, w, kh, kw int }{{1, 61, 1, 5}, {1, 90, 1, 7}, {9, 4, 3, 1}, {3, 14, 1, 3}, {30, 1, 5, 1}} {
		t.Run(fmt.Sprintf("%dx%d of %dx%d", c.kh, c.kw, c.h, c.w), func(t *testing.T) {
			b := core.NewBuilder("g")
			x := b.Input("x", tensor.F32, 1, 32, c.h, c.w)
			w := values(r, tensor.F32, 32, 32, c.kh, c.kw)
			for i := range w.Len() {
				w.SetFloat(i, w.Float(i)/24)
			}
			y := b.Conv(x, b.Const(w), core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1},
				Lo: []int{c.kh / 2, c.kw / 2}, Hi: []int{c.kh / 2, 0}, Groups: 1})
			b.Output(b.Max(y, b.Like(y, 0.1)))
			for _, o := range widths {
				if f := families(lowered(t, b.G, o)); o.Lanes == 16 && !slices.Contains(f, "winograd") {
					t.Errorf("kernels %v, want winograd among them", f)
				}
			}
		})
	}
}

// TestProducts holds that products of every shape are right at every width:
// less than a vector, rests of tiles, batches, vectors, transposed operands.
func TestProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(10, 8))
	for _, m := range []int{1, 2, 7, 30} {
		for _, k := range []int{1, 5, 33} {
			for _, n := range []int{1, 3, 16, 37} {
				t.Run(fmt.Sprintf("%dx%dx%d", m, k, n), func(t *testing.T) {
					b := core.NewBuilder("g")
					x := b.Input("x", tensor.F32, m, k)
					y := b.MatMul(x, b.Const(values(r, tensor.F32, k, n)), tensor.F32)
					b.Output(b.Relu(b.Add(y, b.Const(values(r, tensor.F32, n)))))
					u, v := b.Input("u", tensor.F32, 2, m, k), b.Input("v", tensor.F32, 2, n, k)
					b.Output(b.MatMul(u, b.Transpose(v, 0, 2, 1), tensor.F32))
					for _, o := range widths {
						lowered(t, b.G, o)
					}
				})
			}
		}
	}
}

// TestLayoutsMeet holds that values in channel blocks are read rightly by ops
// that know nothing of blocks: concatenation, slices, transposes, reductions.
func TestLayoutsMeet(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 8))
	for _, oc := range []int{16, 24, 19} {
		b := core.NewBuilder("g")
		conv := func(x *ir.Value, oc, kernel int) *ir.Value {
			w := values(r, tensor.F32, oc, x.Static()[1], kernel, kernel)
			for i := range w.Len() {
				w.SetFloat(i, w.Float(i)/8)
			}
			p := kernel / 2
			return b.Conv(x, b.Const(w), core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{p, p}, Hi: []int{p, p}, Groups: 1})
		}
		x := conv(b.Input("x", tensor.F32, 1, 16, 6, 5), oc, 1)
		left, right := conv(x, 16, 3), conv(b.Relu(x), 16, 1)
		c := b.Concat(1, left, right, x)
		s := b.SliceAxis(c, 1, 5, 16)
		pool := b.Window("window_max", c, []int{2, 2}, core.ConvSpec{Strides: []int{2, 2}, Dilations: []int{1, 1}, Lo: []int{0, 0}, Hi: []int{0, 1}})
		b.Output(conv(s, 8, 3))
		b.Output(b.Reshape(b.Transpose(pool, 0, 2, 3, 1), 9, 32+oc))
		b.Output(b.Reduce("reduce_sum", c, true, 2, 3))
		for _, o := range widths {
			lowered(t, b.G, o)
		}
	}
}

// TestDepthwiseFollows holds that a depthwise convolution leaves its input in
// the layout that it is in: rows of pixels behind groups of part blocks, channel
// blocks behind a convolution that makes them.
func TestDepthwiseFollows(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 8))
	for _, c := range []struct {
		groups int
		want   []string
	}{{4, []string{"rowconv", "rowconv"}}, {1, []string{"copy", "conv", "depthwise", "copy"}}} {
		b := core.NewBuilder("g")
		conv := func(x *ir.Value, kernel, groups int) *ir.Value {
			w := values(r, tensor.F32, 24, x.Static()[1]/groups, kernel, kernel)
			for i := range w.Len() {
				w.SetFloat(i, w.Float(i)/8)
			}
			pad := []int{kernel / 2, kernel / 2}
			return b.Conv(x, b.Const(w), core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: pad, Hi: pad, Groups: groups})
		}
		b.Output(conv(conv(b.Input("x", tensor.F32, 1, 24, 20, 20), 1, c.groups), 3, 24))
		for _, o := range widths {
			p := lowered(t, b.G, o)
			if f := families(p); o.Lanes == 16 && !slices.Equal(f, c.want) {
				t.Errorf("%d groups: kernels %v, want %v", c.groups, f, c.want)
			}
		}
	}
}
