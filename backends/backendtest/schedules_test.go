package backendtest

import (
	"context"
	"flag"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/interp"
	"github.com/lathe-ml/lathe/backends/portable"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

var (
	walks = flag.Int("walks", 30, "how many graphs to run with random schedules")
	step  = flag.String("cpu", "", "the CPU that random schedules are compiled for")
)

// contractions is a small network in which every form of a contraction has a
// place, of sizes that leave rests everywhere.
func contractions(seed uint64) *Random {
	r := rand.New(rand.NewPCG(seed, 5))
	g := &generator{rng: r, b: core.NewBuilder("contractions"), bound: map[*ir.Value]float64{}, r: &Random{}}
	pick := func(n ...int) int { return n[r.IntN(len(n))] }
	ch := pick(3, 6, 16, 20, 33)
	x := g.input([]int{pick(1, 2), ch, 6 + r.IntN(9), 6 + r.IntN(15)})
	for range 3 {
		c := x.Static()[1]
		k, groups, out := pick(1, 3, 3, 3, 5), 1, pick(2, 9, 16, 24, 40)
		switch r.IntN(6) {
		case 0:
			groups, out = c, c
		case 1:
			if c%2 == 0 {
				groups, out = 2, out+out%2
			}
		}
		stride, pad := pick(1, 1, 1, 2), (k-1)/2
		w := g.data(tensor.F32, []int{out, c / groups, k, k})
		for i := range w.Len() {
			w.SetFloat(i, w.Float(i)/float64(k*c/groups)) // results of the order of 1
		}
		y := g.b.Conv(x, g.b.Const(w), core.ConvSpec{Strides: []int{stride, stride}, Dilations: []int{1, 1},
			Lo: []int{pad, pad}, Hi: []int{pad, pad}, Groups: groups})
		if r.IntN(2) == 0 {
			y = g.b.Relu(g.b.Add(y, g.b.BroadcastTo(g.b.Const(g.data(tensor.F32, []int{1, out, 1, 1})), y.Static()...)))
		}
		if r.IntN(3) == 0 && slices.Equal(x.Static(), y.Static()) {
			y = g.b.Add(y, x)
		}
		if r.IntN(3) == 0 {
			g.b.Output(g.b.Reduce("reduce_max", y, false, 2, 3))
		}
		x = y
	}
	s := x.Static()
	m := g.b.Reshape(x, s[0]*s[1], s[2]*s[3])
	y := g.b.MatMul(m, g.b.Const(g.data(tensor.F32, []int{s[2] * s[3], pick(1, 7, 16, 50)})), tensor.F32)
	g.b.Output(y)
	g.b.Output(g.b.MatMul(m, g.b.Transpose(m, 1, 0), tensor.F32))
	rows, hidden := s[0]*s[1], pick(3, 8, 20)
	for _, y := range g.b.Recurrent(core.Recurrence{Cell: "gru", Steps: 3, Batch: rows, Dirs: 1, Hidden: hidden, Gates: 3,
		Reverse: []bool{r.IntN(2) == 0}, Acts: []string{"sigmoid", "tanh"},
		X:       g.b.Const(g.data(tensor.F32, []int{3, rows, 3 * hidden})),
		R:       g.b.Const(g.data(tensor.F32, []int{1, 3 * hidden, hidden})),
		Initial: []*ir.Value{g.input([]int{1, rows, hidden})}}) {
		g.b.Output(y)
	}
	g.r.Graph = g.b.G
	return g.r
}

// TestRandomSchedules holds that whatever a generator proposes is taken as it
// stands and changes no result: a record book can make a model slow and never
// wrong.
func TestRandomSchedules(t *testing.T) {
	_, noCC := toolchain.Find("")
	cache := t.TempDir()
	moved := map[string]int{}
	n := uint64(*walks)
	if testing.Short() {
		n = min(n, 9)
	}
	for i := range n {
		s := *seed + 499 + i // where 30 walks come to all forms
		r := contractions(s)
		mode := []precision.Mode{precision.Fast, precision.F32, precision.IEEE, precision.Fast}[i%4]
		if i%5 == 4 {
			var err error
			if r, err = RandomGraph(s, *ops); err != nil {
				t.Fatal(err)
			}
			if mode = precision.F32; r.Exact {
				mode = precision.IEEE // Winograd's sums are not exact
			}
		}
		for _, be := range []backend.Backend{interp.Backend(), portable.Backend(), cpu.Backend()} {
			if *only != "" && be.Name != *only || be.Name == "cpu" && (noCC != nil || i >= uint64(*native)) {
				continue
			}
			o := Options{CacheDir: cache, Lower: compiler.Options{Precision: mode, Threads: []int{1, 2, 4}[i%3]}}
			if be.Name == "cpu" {
				if o.CPU = *step; o.CPU == "" && i%2 == 1 && runs("x86-64-v3") {
					o.CPU = "x86-64-v3"
				}
				if unit := "x86-64-v4+amx-bf16+amx-emulated"; *step == "" && i%4 == 2 && runs("x86-64-v4") {
					o.CPU = unit
				}
			}
			tr, err := be.Target(o.CPU)
			if err != nil {
				t.Fatal(err)
			}
			picks, err := Wander(r.Graph, tr, o.Lower, rand.New(rand.NewPCG(s, 23)), 1+int(i%4))
			if err != nil {
				t.Errorf("seed %d on %s: %v", s, be.Name, err)
				continue
			}
			for _, c := range picks {
				moved[c.Form]++
			}
			o.Lower.Schedules = picks.Lookup
			if err := guarded(be, o, r); err != nil {
				t.Errorf("seed %d on %s, %s: %v\n%s", s, be.Name, mode, err, culprits(context.Background(), be, o, r, picks))
			}
		}
	}
	t.Logf("forms: %v", moved)
	for _, f := range []string{"direct", "planar", "depthwise", "pixels", "winograd2", "winograd4", "winograd6"} {
		if moved[f] == 0 && *only == "" && !testing.Short() {
			t.Errorf("no walk came to the form %s", f)
		}
	}
}

// culprits lists the picks that give wrong results alone.
func culprits(_ context.Context, be backend.Backend, o Options, r *Random, picks Picks) (out []string) {
	for key, c := range picks {
		o.Lower.Schedules = Picks{key: c}.Lookup
		if err := guarded(be, o, r); err != nil {
			out = append(out, key+": "+c.String())
		}
	}
	slices.Sort(out)
	return out
}
