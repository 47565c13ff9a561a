package backendtest

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func (g *generator) dot(x *ir.Value) (*ir.Value, float64) {
	if x.DType() != tensor.F32 || x.Rank() < 1 {
		return nil, 0
	}
	xs := x.Static()
	c := g.rng.IntN(len(xs))
	if g.rng.IntN(2) == 0 {
		c = len(xs) - 1
	}
	free := g.pick(1, 2, 5, 8, 16, 17, 33)
	bound := float64(xs[c]) * g.bound[x] * 5
	switch {
	case len(xs) > 1 && g.rng.IntN(3) == 0: // a batch axis
		batch := (c + 1 + g.rng.IntN(len(xs)-1)) % len(xs)
		w := g.weights(x.DType(), xs[batch], xs[c], free)
		return g.b.Dot(x, w, []int{batch}, []int{0}, []int{c}, []int{1}, 0), bound
	case g.rng.IntN(2) == 0:
		return g.b.Dot(x, g.weights(x.DType(), free, xs[c]), nil, nil, []int{c}, []int{1}, 0), bound
	}
	return g.b.Dot(x, g.weights(x.DType(), xs[c], free), nil, nil, []int{c}, []int{0}, 0), bound
}

// spatial makes x an image: rank 4 (or 3), of at most 16 channels or so.
func (g *generator) spatial(x *ir.Value) *ir.Value {
	s := x.Static()
	switch {
	case x.Rank() == 4:
		return x
	case x.Rank() == 3 && g.rng.IntN(2) == 0:
		return x
	case x.Rank() == 3:
		return g.b.Reshape(x, 1, s[0], s[1], s[2])
	case x.Rank() == 2:
		return g.b.Reshape(x, 1, 1, s[0], s[1])
	}
	return nil
}

func (g *generator) geometry(x *ir.Value, kernel []int) (core.ConvSpec, bool) {
	var s core.ConvSpec
	for i, k := range kernel {
		s.Strides = append(s.Strides, g.pick(1, 1, 1, 2, 3))
		s.Dilations = append(s.Dilations, g.pick(1, 1, 1, 2))
		pad := (k - 1) / 2 * s.Dilations[i]
		s.Lo = append(s.Lo, g.pick(pad, pad, 0, 1, 2))
		s.Hi = append(s.Hi, g.pick(pad, pad, 0, 1))
		if x.Static()[2+i]+s.Lo[i]+s.Hi[i] < (k-1)*s.Dilations[i]+1 {
			return s, false
		}
	}
	s.Groups = 1
	return s, true
}

func (g *generator) conv(x *ir.Value) (*ir.Value, float64) {
	bx := g.bound[x]
	if x.DType() != tensor.F32 {
		return nil, 0
	}
	if x = g.spatial(x); x == nil {
		return nil, 0
	}
	c := x.Static()[1]
	var kernel []int
	side := g.pick(1, 1, 2, 3, 3, 3, 5)
	for range x.Rank() - 2 {
		kernel = append(kernel, side)
		if g.rng.IntN(5) == 0 {
			side = g.pick(1, 2, 3)
		}
	}
	s, ok := g.geometry(x, kernel)
	if !ok {
		return nil, 0
	}
	if g.rng.IntN(8) == 0 {
		for range kernel {
			s.XDil = append(s.XDil, g.pick(1, 2))
		}
	}
	out := g.pick(1, 3, 8, 16, 17, 32)
	switch g.rng.IntN(4) {
	case 0: // depthwise, sometimes with several outputs a channel
		s.Groups = c
		out = c * g.pick(1, 1, 1, 2)
	case 1:
		if c%2 == 0 {
			s.Groups = 2
			out += out % 2
		}
	}
	w := g.weights(tensor.F32, append([]int{out, c / s.Groups}, kernel...)...)
	y := g.b.Conv(x, w, s)
	k := float64(c / s.Groups * tensor.Numel(kernel))
	if g.rng.IntN(2) == 0 { // bias, and often what follows in networks
		b := g.b.Const(g.data(tensor.F32, append([]int{1, out}, slices.Repeat([]int{1}, len(kernel))...)))
		p := g.b.Broadcast(y, b)
		y = g.b.Add(p[0], p[1])
		k++
		switch g.rng.IntN(3) {
		case 0:
			y = g.b.Max(y, g.b.BroadcastTo(g.b.Like(y, 0), core.Shape(y)...))
		case 1:
			y = g.b.Min(g.b.Max(y, g.b.BroadcastTo(g.b.Like(y, 0), core.Shape(y)...)), g.b.BroadcastTo(g.b.Like(y, 6), core.Shape(y)...))
		}
	}
	return y, k * (bx + 1) * 5
}

func (g *generator) window(x *ir.Value) (*ir.Value, float64) {
	bx := g.bound[x]
	if x.DType() != tensor.F32 {
		return nil, 0
	}
	if x = g.spatial(x); x == nil {
		return nil, 0
	}
	kernel := make([]int, x.Rank()-2)
	for i := range kernel {
		kernel[i] = g.pick(1, 2, 3, 3)
	}
	s, ok := g.geometry(x, kernel)
	if !ok {
		return nil, 0
	}
	op := []string{"window_max", "window_max", "window_sum"}[g.rng.IntN(3)]
	for i, k := range kernel { // padding alone under a maximum is the type's least value
		if s.Lo[i] >= k || s.Hi[i] >= k || s.Dilations[i] > 1 {
			op = "window_sum"
		}
	}
	return g.b.Window(op, x, kernel, s), bx * float64(tensor.Numel(kernel))
}

func (g *generator) gather(x *ir.Value) (*ir.Value, float64) {
	axis := g.rng.IntN(x.Rank())
	return g.b.Gather(x, axis, g.positions(x.Static()[axis], g.pick(1, 2, 5, 9))), g.bound[x]
}

// positions are indices in an axis, negative ones too.
func (g *generator) positions(size, n int) *ir.Value {
	t := tensor.New(tensor.I64, n)
	for i := range n {
		t.SetInt(i, int64(g.rng.IntN(2*size)-size))
	}
	if g.rng.IntN(2) == 0 {
		return g.b.Const(t)
	}
	v := g.b.Input(g.nameOf(len(g.r.Inputs)), tensor.I64, n)
	g.r.Inputs = append(g.r.Inputs, t)
	return v
}

func (g *generator) nameOf(i int) string {
	return "pos" + string(rune('a'+i%26)) + string(rune('a'+i/26))
}

func (g *generator) scatter(x *ir.Value) (*ir.Value, float64) {
	s := slices.Clone(x.Static())
	n := g.pick(1, 2, 3)
	idx := g.positions(s[0], n)
	s[0] = n
	op := []string{"set", "add", "max", "min"}[g.rng.IntN(4)]
	return g.b.Scatter(op, x, idx, g.weights(x.DType(), s...)), g.bound[x] + 15
}

func (g *generator) cumulate(x *ir.Value) (*ir.Value, float64) {
	axis := g.rng.IntN(x.Rank())
	return g.b.Cumulate("sum", x, axis, g.rng.IntN(2) == 0, g.rng.IntN(2) == 0), g.bound[x] * float64(x.Static()[axis])
}

// extreme is where an extreme is, as numbers; only exact values keep their
// places.
func (g *generator) extreme(x *ir.Value) (*ir.Value, float64) {
	if !g.r.Exact {
		return nil, 0
	}
	op := []string{"argmax", "argmin"}[g.rng.IntN(2)]
	axis := g.rng.IntN(x.Rank())
	return g.b.Cast(g.b.ArgReduce(op, x, axis, g.rng.IntN(2) == 0), x.DType()), float64(x.Static()[axis])
}

func (g *generator) sort(x *ir.Value) (*ir.Value, float64) {
	axis := g.rng.IntN(x.Rank())
	v, p := g.b.Sort(x, axis, g.rng.IntN(2) == 0)
	if g.r.Exact && g.rng.IntN(2) == 0 {
		return g.b.Cast(p, x.DType()), float64(x.Static()[axis])
	}
	return v, g.bound[x]
}

// cast goes to another type, mostly back again, so that most values stay F32.
func (g *generator) cast(x *ir.Value) (*ir.Value, float64) {
	if !g.r.Exact {
		return nil, 0
	}
	types := []tensor.DType{tensor.I32, tensor.I64, tensor.F64, tensor.F32, tensor.U8, tensor.I8, tensor.Bool}
	d := types[g.rng.IntN(len(types))]
	y := g.b.Cast(x, d)
	back := tensor.F32
	if d != tensor.Bool && g.rng.IntN(2) == 0 {
		return y, g.bound[x]
	}
	return g.b.Cast(y, back), max(g.bound[x], 256)
}
