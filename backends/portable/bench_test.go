package portable_test

import (
	"testing"

	"github.com/lathe-ml/lathe/backends/portable"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// BenchmarkConv is a layer of VGG and one of ResNet, in multiply-adds of the
// plain form.
func BenchmarkConv(b *testing.B) {
	for _, c := range []struct {
		name            string
		size, ic, oc, k int
		pad, macs       int
	}{
		{"3x3-56-128", 56, 128, 128, 3, 1, 56 * 56 * 128 * 128 * 9},
		{"1x1-28-256", 28, 256, 256, 1, 0, 28 * 28 * 256 * 256},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := core.NewBuilder("bench")
			x := g.Input("x", tensor.F32, 1, c.ic, c.size, c.size)
			w := tensor.New(tensor.F32, c.oc, c.ic, c.k, c.k)
			for i := range w.Len() {
				w.SetFloat(i, float64(i%7)-3)
			}
			one, pad := []int{1, 1}, []int{c.pad, c.pad}
			g.Output(g.Conv(x, g.Const(w), core.ConvSpec{Strides: one, Dilations: one, Lo: pad, Hi: pad, Groups: 1}))
			tr, _ := portable.Target("")
			p, err := compiler.Program(g.G, tr, compiler.Options{})
			if err != nil {
				b.Fatal(err)
			}
			s, err := portable.Direct(p, 1)
			if err != nil {
				b.Fatal(err)
			}
			in, out := []*tensor.Tensor{tensor.New(tensor.F32, 1, c.ic, c.size, c.size)}, backend.NewOutputs(s)
			for b.Loop() {
				if err := s.Run(in, out); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(c.macs)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GMAC/s")
		})
	}
}
