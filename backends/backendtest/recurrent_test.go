package backendtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/interp"
	"github.com/lathe-ml/lathe/backends/portable"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// lanes is interp on programs for vectors of n elements.
func lanes(n int) backend.Backend {
	be := interp.Backend()
	be.Name = fmt.Sprintf("lanes%d", n)
	be.Target = func(string) (backend.Traits, error) { return backend.Traits{Lanes: n, Regs: 32}, nil }
	return be
}

// TestRandomRecurrent compares the evaluator with every backend on recurrent
// nodes of all forms; natively with one thread and with two.
func TestRandomRecurrent(t *testing.T) {
	backends := []backend.Backend{interp.Backend(), backwards(), lanes(1), lanes(16), portable.Backend(), cpu.Backend()}
	_, noCC := toolchain.Find("")
	o := Options{CacheDir: t.TempDir()}
	for s := *seed; s < *seed+uint64(*graphs); s++ {
		r, err := RandomRecurrent(s)
		if err != nil {
			t.Errorf("seed %d: the generator made a wrong graph: %v", s, err)
			continue
		}
		o.Threads = 1 + int(s%2)
		for _, be := range backends {
			if *only != "" && be.Name != *only || be.Name == "cpu" && (noCC != nil || s >= *seed+uint64(*native)) {
				continue
			}
			if err := guarded(be, o, r); err != nil {
				t.Errorf("seed %d on %s: %v\n%s", s, be.Name, err, clip(ir.Print(r.Graph)))
			}
		}
	}
	if noCC != nil {
		t.Logf("the native backend was left out: %v", noCC)
	}
}

// TestRecurrentShared runs a layer that is large enough for threads to share
// its steps, on every backend; natively many times, since threads meet
// differently each time.
func TestRecurrentShared(t *testing.T) {
	g := &generator{rng: rand.New(rand.NewPCG(1, 2)), b: core.NewBuilder("shared"), bound: map[*ir.Value]float64{}, r: &Random{}}
	const steps, hidden = 3, 192
	r := core.Recurrence{Cell: "lstm", Acts: []string{"sigmoid", "tanh", "tanh"}, Reverse: []bool{false}, X: g.input([]int{steps, 1, 4 * hidden})}
	r.R = g.b.Const(g.data(tensor.F32, []int{1, 4 * hidden, hidden}))
	zero := g.b.BroadcastTo(g.b.Scalar(tensor.F32, 0), 1, 1, hidden)
	r.Initial = []*ir.Value{zero, zero}
	for _, v := range g.b.Recurrent(r) {
		g.b.Output(v)
	}
	g.r.Graph = g.b.G
	p, err := compiler.Program(g.r.Graph, backend.Traits{Lanes: 8, Regs: 16}, compiler.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if k := p.Kernels[0].String(); !strings.Contains(k, "team for") {
		t.Errorf("no loop of the kernel is shared:\n%s", k)
	}
	for _, be := range []backend.Backend{interp.Backend(), backwards(), portable.Backend()} {
		if err := guarded(be, Options{Threads: 2}, g.r); err != nil {
			t.Errorf("%s: %v", be.Name, err)
		}
	}
	if _, err := toolchain.Find(""); err != nil {
		t.Skip(err)
	}
	want, err := core.EvalGraph(g.r.Graph, g.r.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	o := Options{CacheDir: t.TempDir(), Threads: 2}
	err = with(context.Background(), cpu.Backend(), o, g.r.Graph, func(s backend.Session) error {
		for ; runs < 300; runs++ {
			out := backend.NewOutputs(s)
			if err := s.Run(g.r.Inputs, out); err != nil {
				return err
			}
			for i := range want {
				if err := differ(out[i], want[i], false); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("cpu, run %d: %v", runs, err)
	}
}
