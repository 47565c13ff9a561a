package cpu

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestIEEEIsStable holds that in the mode f32-ieee neither the number of
// threads nor any decision of the generators changes a bit of the results.
func TestIEEEIsStable(t *testing.T) {
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	r := rand.New(rand.NewPCG(19, 8))
	b := core.NewBuilder("g")
	random := func(shape ...int) *tensor.Tensor {
		w := tensor.New(tensor.F32, shape...)
		for i := range w.Len() {
			w.SetFloat(i, r.NormFloat64())
		}
		return w
	}
	conv := func(x *ir.Value, oc, k, groups int) *ir.Value {
		spec := core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: []int{k / 2, k / 2}, Hi: []int{k / 2, k / 2}, Groups: groups}
		return b.Conv(x, b.Const(random(oc, x.Static()[1]/groups, k, k)), spec)
	}
	x := b.Input("x", tensor.F32, 1, 3, 40, 40)
	y := b.Relu(conv(x, 32, 3, 1))
	y = b.Add(conv(conv(y, 32, 3, 32), 32, 1, 1), y)
	y = conv(y, 48, 3, 1)
	b.Output(y)
	b.Output(b.MatMul(b.Reshape(y, 48, 1600), b.Const(random(1600, 40)), tensor.F32))
	traits, err := Target("native")
	if err != nil {
		t.Fatal(err)
	}
	p, err := compiler.Program(b.G, traits, compiler.Options{Precision: precision.IEEE, Explore: true})
	if err != nil {
		t.Fatal(err)
	}
	in := []*tensor.Tensor{random(1, 3, 40, 40)}
	cache := t.TempDir()
	run := func(threads int, records map[string]schedule.Choice) []*tensor.Tensor {
		o := compiler.Options{Precision: precision.IEEE, Threads: threads, Schedules: func(key string) (schedule.Choice, bool) {
			c, ok := records[key]
			return c, ok
		}}
		got, err := backendtest.Run(context.Background(), Backend(), backendtest.Options{CacheDir: cache, Threads: threads, Lower: o}, b.G, in)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	want := run(1, nil)
	if len(p.Sites) < 5 {
		t.Fatalf("%d decisions, want one for each of five layers", len(p.Sites))
	}
	for walk := range 6 {
		records := map[string]schedule.Choice{}
		for _, s := range p.Sites {
			if walk > 0 && len(s.Space) > 0 {
				records[s.Key] = s.Space[r.IntN(len(s.Space))]
			}
		}
		for k, got := range run(1+walk%3, records) {
			if !bytes.Equal(got.Bytes(), want[k].Bytes()) {
				t.Errorf("output %d has other bits with %d threads and %v", k, 1+walk%3, records)
			}
		}
	}
}
