package backendtest

import (
	"fmt"
	"math/rand/v2"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// RandomRecurrent makes a graph of one or two recurrent nodes from a seed: all
// cells, sizes that fill vectors and that do not, both directions, lengths,
// peepholes, weights that are constant and that are not, of F32 and F64.
func RandomRecurrent(seed uint64) (r *Random, err error) {
	g := &generator{rng: rand.New(rand.NewPCG(seed, 23)), b: core.NewBuilder(fmt.Sprintf("recurrent%d", seed)), bound: map[*ir.Value]float64{}, r: &Random{}}
	err = core.Catch(func() {
		x := g.input([]int{g.pick(1, 1, 2, 5, 9), g.pick(1, 1, 2, 3, 4, 8, 12, 13), g.pick(1, 3, 8)})
		for range 1 + g.rng.IntN(2) {
			y := g.recurrent(x)
			s := y.Static()
			x = g.b.Reshape(g.b.Transpose(y, 0, 2, 1, 3), s[0], s[2], s[1]*s[3])
		}
		g.b.Output(g.b.Relu(x))
	})
	g.b.G.Sweep()
	g.r.Graph = g.b.G
	return g.r, err
}

func (g *generator) recurrent(x *ir.Value) *ir.Value {
	s, dirs, hidden := x.Static(), g.pick(1, 1, 2), g.pick(1, 3, 4, 8, 16, 19, 32, 40)
	r := core.Recurrence{Cell: []string{"rnn", "gru", "lstm"}[g.rng.IntN(3)]}
	gates := map[string]int{"rnn": 1, "gru": 3, "lstm": 4}[r.Cell]
	maybe := func(n int) bool { return g.rng.IntN(n) == 0 }
	other := maybe(2)
	for i := range map[string]int{"rnn": 1, "gru": 2, "lstm": 3}[r.Cell] {
		act := []string{"sigmoid", "tanh", "tanh"}[i]
		if other { // no unbounded gates: what overflows differs from the reference
			all := []string{"sigmoid", "tanh", "relu"}
			if i == 0 && r.Cell != "rnn" {
				all = all[:2]
			}
			act = all[g.rng.IntN(len(all))]
		}
		r.Acts = append(r.Acts, act)
	}
	w := g.scaled(1/float64(s[2]), s[2], dirs*gates*hidden)
	r.X = g.b.Dot(x, w, nil, nil, []int{2}, []int{0}, 0)
	r.R = g.scaled(1/float64(hidden), dirs, gates*hidden, hidden)
	typ := tensor.F32
	if maybe(6) {
		typ = tensor.F64
		r.X, r.R = g.b.Cast(r.X, typ), g.b.Cast(r.R, typ)
	}
	state := func() *ir.Value {
		if maybe(2) {
			return g.b.BroadcastTo(g.b.Scalar(typ, 0), dirs, s[1], hidden)
		}
		return g.b.Cast(g.weights(tensor.F32, dirs, s[1], hidden), typ)
	}
	r.Initial = []*ir.Value{state()}
	switch r.Cell {
	case "lstm":
		r.Initial = append(r.Initial, state())
		if r.Coupled = maybe(4); maybe(3) {
			r.Peep = g.b.Cast(g.weights(tensor.F32, dirs, 3*hidden), typ)
		}
	case "gru":
		if r.After = maybe(2); r.After && maybe(2) {
			r.Bias = g.b.Cast(g.weights(tensor.F32, dirs, hidden), typ)
		}
	}
	first := maybe(2)
	for d := range dirs {
		r.Reverse = append(r.Reverse, first != (d == 1))
	}
	if maybe(3) {
		r.Clip = 0.75
	}
	if maybe(3) {
		r.Lens = g.lengths(s[1], s[0])
	}
	out := g.b.Recurrent(r)
	for _, v := range out[1:] {
		if maybe(2) {
			g.b.Output(v)
		}
	}
	return g.b.Cast(out[0], tensor.F32)
}

// scaled is a constant or an input of small numbers, so that states neither
// vanish nor explode.
func (g *generator) scaled(by float64, shape ...int) *ir.Value {
	w := g.weights(tensor.F32, shape...)
	return g.b.Mul(w, g.b.Like(w, 2*by))
}

// lengths are those of the sequences of a batch.
func (g *generator) lengths(batch, steps int) *ir.Value {
	t := tensor.New(tensor.I32, batch)
	for i := range batch {
		t.SetInt(i, int64(g.rng.IntN(steps+1)))
	}
	if g.rng.IntN(2) == 0 {
		return g.b.Const(t)
	}
	v := g.b.Input(g.nameOf(len(g.r.Inputs)), tensor.I32, batch)
	g.r.Inputs = append(g.r.Inputs, t)
	return v
}
