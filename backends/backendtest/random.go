package backendtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Random is a core graph made from a seed, with data for its inputs.
type Random struct {
	Graph  *ir.Graph
	Inputs []*tensor.Tensor
	// Exact: all data are small integers and all ops keep them so; every
	// backend must then give the same bits, whatever order it sums in.
	Exact bool
}

// maxElements bounds the values of a random graph.
const maxElements = 6000

// exactBound is how large sums of integers may become before they are clipped;
// F32 holds integers up to 2^24.
const exactBound = 1 << 20

// RandomGraph makes a graph of up to a number of ops. Equal seeds with fewer
// ops give a prefix of the same graph, so that a failure can be cut down.
func RandomGraph(seed uint64, ops int) (r *Random, err error) {
	g := &generator{
		rng: rand.New(rand.NewPCG(seed, 17)), b: core.NewBuilder(fmt.Sprintf("random%d", seed)),
		bound: map[*ir.Value]float64{}, r: &Random{Exact: seed%2 == 0},
	}
	err = core.Catch(func() {
		for range 1 + g.rng.IntN(3) {
			g.input(g.shape())
		}
		for range ops {
			g.step()
		}
		g.outputs()
	})
	g.r.Graph = g.b.G
	return g.r, err
}

type generator struct {
	rng   *rand.Rand
	b     *core.Builder
	r     *Random
	pool  []*ir.Value
	bound map[*ir.Value]float64 // of exact graphs: no element is larger
}

func (g *generator) pick(n ...int) int { return n[g.rng.IntN(len(n))] }

func (g *generator) shape() []int {
	if g.rng.IntN(3) == 0 { // as networks have it
		return []int{g.pick(1, 1, 2), g.pick(1, 3, 4, 8, 16, 17, 19, 24), g.pick(1, 4, 5, 7, 8, 12), g.pick(1, 3, 5, 7, 8, 12)}
	}
	s := make([]int, g.rng.IntN(4)+1)
	for i := range s {
		s[i] = g.pick(1, 2, 3, 4, 5, 7, 8, 9, 16)
	}
	return s
}

func (g *generator) number() float64 {
	if g.r.Exact {
		return float64(g.rng.IntN(9) - 4)
	}
	return math.Round(g.rng.NormFloat64()*1024) / 1024
}

func (g *generator) data(d tensor.DType, shape []int) *tensor.Tensor {
	t := tensor.New(d, shape...)
	for i := range t.Len() {
		if d.IsFloat() {
			t.SetFloat(i, g.number())
		} else {
			t.SetInt(i, int64(g.rng.IntN(9)-4))
		}
	}
	return t
}

func (g *generator) input(shape []int) *ir.Value {
	v := g.b.Input(fmt.Sprintf("in%d", len(g.r.Inputs)), tensor.F32, shape...)
	g.r.Inputs = append(g.r.Inputs, g.data(tensor.F32, shape))
	g.keep(v, 4)
	return v
}

// keep adds a value to the pool, clipped if its elements may be too large.
func (g *generator) keep(v *ir.Value, bound float64) {
	if v.Const != nil || tensor.Numel(v.Static()) == 0 {
		return
	}
	if bound > exactBound || !g.r.Exact && bound > 64 {
		s := v.Static()
		lo, hi := g.b.BroadcastTo(g.b.Like(v, -8), s...), g.b.BroadcastTo(g.b.Like(v, 8), s...)
		v = g.b.Min(g.b.Max(v, lo), hi)
		bound = 8
	}
	if !slices.Contains(g.pool, v) {
		g.pool = append(g.pool, v)
	}
	g.bound[v] = bound
}

// any is a value of the pool, newer ones more often.
func (g *generator) any() *ir.Value {
	n := len(g.pool)
	i := max(g.rng.IntN(n), g.rng.IntN(n))
	return g.pool[i]
}

// weights is a constant or an input.
func (g *generator) weights(d tensor.DType, shape ...int) *ir.Value {
	if d == tensor.F32 && g.rng.IntN(4) == 0 {
		v := g.input(shape)
		g.pool = g.pool[:len(g.pool)-1]
		return v
	}
	return g.b.Const(g.data(d, shape))
}

func (g *generator) outputs() {
	used := map[*ir.Value]bool{}
	for _, n := range g.b.G.Nodes {
		for _, v := range n.Inputs {
			used[v] = true
		}
	}
	for _, v := range g.pool {
		if v.Def != nil && (!used[v] || g.rng.IntN(8) == 0) {
			g.b.Output(v)
		}
	}
	if len(g.b.G.Outputs) == 0 {
		g.b.Output(g.pool[len(g.pool)-1])
	}
	g.b.G.Sweep()
}

// step adds one op, drawn from the table.
func (g *generator) step() {
	rows := []func(x *ir.Value) (*ir.Value, float64){
		g.unary, g.binary, g.binary, g.binary, g.where, g.reshape, g.transpose, g.slice, g.pad, g.concat,
		g.reduce, g.reduce, g.dot, g.conv, g.conv, g.conv, g.window, g.gather, g.scatter, g.cumulate, g.extreme, g.cast, g.sort, g.rowwise,
	}
	f := rows[g.rng.IntN(len(rows))]
	x := g.any()
	if x.Rank() == 0 {
		f = rows[g.rng.IntN(6)] // those that need no axis
	}
	if v, bound := f(x); v != nil && v.Rank() < 6 && tensor.Numel(v.Static()) <= maxElements {
		g.keep(v, bound)
	}
}

func (g *generator) unary(x *ir.Value) (*ir.Value, float64) {
	ops := []string{"neg", "abs", "sign", "floor", "round"}
	if !g.r.Exact {
		ops = []string{"neg", "abs", "tanh", "erf", "exp", "sin"}
	}
	op := ops[g.rng.IntN(len(ops))]
	b := g.bound[x]
	if op == "exp" {
		s := x.Static()
		x = g.b.Min(x, g.b.BroadcastTo(g.b.Like(x, 3), s...))
		b = 21
	}
	return g.b.Unary(op, x), max(b, 1)
}

// other is a second operand: a pool value that broadcasts with x, or a
// constant of part of x's shape.
func (g *generator) other(x *ir.Value) (*ir.Value, float64) {
	for range 3 {
		y := g.any()
		if y.DType() != x.DType() {
			continue
		}
		var out []int
		if core.Catch(func() { out = core.BroadcastShape(x.Static(), y.Static()) }) == nil && tensor.Numel(out) <= maxElements {
			return y, g.bound[y]
		}
	}
	s := slices.Clone(x.Static())
	for i := range s {
		if g.rng.IntN(2) == 0 {
			s[i] = 1
		}
	}
	return g.weights(x.DType(), s...), 5
}

func (g *generator) binary(x *ir.Value) (*ir.Value, float64) {
	y, by := g.other(x)
	bx := g.bound[x]
	ops := []string{"add", "sub", "mul", "min", "max"}
	op := ops[g.rng.IntN(len(ops))]
	p := g.b.Broadcast(x, y)
	bound := bx + by
	if op == "mul" {
		bound = bx * by
	}
	return g.b.Binary(op, p[0], p[1]), bound
}

// where chooses by a comparison; of inexact values only by one of inputs,
// which no rounding can turn.
func (g *generator) where(x *ir.Value) (*ir.Value, float64) {
	y, by := g.other(x)
	p := g.b.Broadcast(x, y)
	c := p
	if !g.r.Exact {
		s := slices.Clone(core.Shape(p[0]))
		for i := range s {
			if g.rng.IntN(2) == 0 {
				s[i] = 1
			}
		}
		in := g.input(s)
		g.pool = g.pool[:len(g.pool)-1]
		c = []*ir.Value{in, g.b.Const(g.data(tensor.F32, s))}
	}
	cond := g.b.BroadcastTo(g.b.Lt(c[0], c[1]), core.Shape(p[0])...)
	if g.rng.IntN(3) == 0 {
		cond = g.b.Not(cond)
	}
	return g.b.Where(cond, p[0], p[1]), g.bound[x] + by
}

func (g *generator) reshape(x *ir.Value) (*ir.Value, float64) {
	n := tensor.Numel(x.Static())
	var s []int
	for n > 1 && len(s) < 4 {
		var div []int
		for d := 2; d <= n; d++ {
			if n%d == 0 {
				div = append(div, d)
			}
		}
		d := div[g.rng.IntN(len(div))]
		s = append(s, d)
		n /= d
		if g.rng.IntN(5) == 0 {
			s = append(s, 1)
		}
	}
	return g.b.Reshape(x, append(s, n)...), g.bound[x]
}

func (g *generator) transpose(x *ir.Value) (*ir.Value, float64) {
	return g.b.Transpose(x, g.rng.Perm(x.Rank())...), g.bound[x]
}

func (g *generator) slice(x *ir.Value) (*ir.Value, float64) {
	var starts, sizes, steps []int
	for _, d := range x.Static() {
		step := g.pick(1, 1, 1, 2, 3)
		size := 1 + g.rng.IntN((d+step-1)/step)
		start := g.rng.IntN(d - (size-1)*step)
		if g.rng.IntN(4) == 0 {
			start, step = start+(size-1)*step, -step
		}
		starts, sizes, steps = append(starts, start), append(sizes, size), append(steps, step)
	}
	return g.b.Slice(x, starts, sizes, steps), g.bound[x]
}

func (g *generator) pad(x *ir.Value) (*ir.Value, float64) {
	lo, hi := make([]int, x.Rank()), make([]int, x.Rank())
	for i := range lo {
		lo[i], hi[i] = g.pick(0, 0, 1, 2), g.pick(0, 0, 1, 3)
	}
	return g.b.Pad(x, lo, hi, g.b.Like(x, float64(g.pick(0, 0, 2)))), max(g.bound[x], 2)
}

func (g *generator) concat(x *ir.Value) (*ir.Value, float64) {
	axis := g.rng.IntN(x.Rank() + 0)
	parts, bound := []*ir.Value{x}, g.bound[x]
	for _, y := range g.pool {
		if len(parts) == 4 || y == x || y.DType() != x.DType() || y.Rank() != x.Rank() {
			continue
		}
		fits := true
		for i, d := range y.Static() {
			fits = fits && (i == axis || d == x.Static()[i])
		}
		if fits {
			parts, bound = append(parts, y), max(bound, g.bound[y])
		}
	}
	if len(parts) == 1 {
		s := slices.Clone(x.Static())
		s[axis] = g.pick(1, 2, 5)
		parts, bound = append(parts, g.weights(x.DType(), s...)), max(bound, 5)
	}
	return g.b.Concat(axis, parts...), bound
}

func (g *generator) axes(x *ir.Value) (axes []int, n float64) {
	n = 1
	for i, d := range x.Static() {
		if g.rng.IntN(2) == 0 || i == x.Rank()-1 && len(axes) == 0 {
			axes = append(axes, i)
			n *= float64(d)
		}
	}
	return axes, n
}

func (g *generator) reduce(x *ir.Value) (*ir.Value, float64) {
	axes, n := g.axes(x)
	op := []string{"reduce_sum", "reduce_max", "reduce_min"}[g.rng.IntN(3)]
	y := g.b.Reduce(op, x, g.rng.IntN(2) == 0, axes...)
	if op == "reduce_sum" {
		return y, n * g.bound[x]
	}
	return y, g.bound[x]
}

// rowwise is a normalisation: reductions of a row, and the row again.
func (g *generator) rowwise(x *ir.Value) (*ir.Value, float64) {
	if x.DType() != tensor.F32 {
		return nil, 0
	}
	axes, n := g.axes(x)
	m := g.b.Reduce("reduce_max", x, true, axes...)
	p := g.b.Broadcast(x, m)
	d := g.b.Sub(p[0], p[1])
	if g.r.Exact {
		s := g.b.Broadcast(d, g.b.Reduce("reduce_sum", d, true, axes...))
		return g.b.Add(s[0], s[1]), (n + 1) * 2 * g.bound[x]
	}
	e := g.b.Exp(d)
	s := g.b.Broadcast(e, g.b.Reduce("reduce_sum", e, true, axes...))
	return g.b.Div(s[0], s[1]), 1
}
