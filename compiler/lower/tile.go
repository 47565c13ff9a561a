package lower

import (
	"cmp"
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// tileShape is the schedule of a tiled contraction: OB vectors of outputs for
// TR rows of TW points.
type tileShape struct{ OB, TR, TW int }

func (t tileShape) points() int { return t.TR * t.TW }

// tiles lists the register tiles for cb vectors of outputs over rows×cols
// points with a reduction of steps, the best first by a model of the inner loop:
// multiply-adds and loads per step, the latency of a chain of sums, and a cost
// per stored vector. lanes marks depthwise tiles, whose second operand is a
// vector too; more is what a tile costs beyond that.
func (l *lowerer) tiles(cb, rows, cols, steps int, lanes bool, more ...func(tileShape) float64) []tileShape {
	type scored struct {
		tileShape
		cost float64
	}
	var all []scored
	maxOB := min(cb, 8)
	if lanes {
		maxOB = 1
	}
	for ob := 1; ob <= maxOB; ob++ {
		for tr := 1; tr <= min(rows, 4); tr++ {
			for tw := 1; tw <= min(cols, 28); tw++ {
				t := tileShape{ob, tr, tw}
				if !l.fits(t, lanes) {
					continue
				}
				cost := l.tileCost(t, cb, rows, cols, steps, lanes)
				for _, f := range more {
					cost += f(t)
				}
				all = append(all, scored{t, cost})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b scored) int { return cmp.Compare(a.cost, b.cost) })
	out := make([]tileShape, len(all))
	for i, s := range all {
		out[i] = s.tileShape
	}
	return out
}

// fits reports whether a tile's accumulators and operands have registers.
func (l *lowerer) fits(t tileShape, lanes bool) bool {
	acc := t.OB * t.points()
	extra := t.OB + 1 // weights, one broadcast
	if lanes {
		extra = 2
	} else if t.points() == 1 {
		extra = 2
	}
	return acc+extra <= max(l.o.Regs, 16) && acc+2 <= max(l.o.Regs, 16)
}

// tileCost estimates a tiled contraction, in multiply-adds of a vector. Units
// for half-wide vectors come in pairs, and then a multiply-add costs as much as
// a load; a whole wide vector takes both units, and broadcasts half of that.
func (l *lowerer) tileCost(t tileShape, cb, rows, cols, steps int, lanes bool) float64 {
	one := func(ob, tr, tw int) float64 {
		p := float64(tr * tw)
		o := float64(ob)
		broadcast := 1.0
		if l.o.Lanes >= 16 {
			broadcast = 0.5
		}
		inner := max(o*p, 8, o+p*broadcast) // a chain of sums has a latency of 4 at 2 a cycle
		if lanes {
			inner = max(p, 8, 1+p)
		}
		return float64(steps)*inner + 2*o*p + 24
	}
	across := func(ob, tr int) float64 {
		c := float64(cols/t.TW) * one(ob, tr, t.TW)
		if r := cols % t.TW; r > 0 {
			c += one(ob, tr, r)
		}
		return c
	}
	down := func(ob int) float64 {
		c := float64(rows/t.TR) * across(ob, t.TR)
		if r := rows % t.TR; r > 0 {
			c += across(ob, r)
		}
		return c
	}
	c := float64(cb/t.OB) * down(t.OB)
	if r := cb % t.OB; r > 0 {
		c += down(r)
	}
	// A product with a vector waits for its weights: 4 vectors of outputs are
	// enough, and more are more streams.
	if rows*cols == 1 && steps*cb*l.o.Lanes*4 >= 2<<20 && t.OB > 4 {
		c *= 1.5
	}
	return c
}

// peeled is what of an epilogue a tile does itself.
type peeled struct {
	bias   *tensor.Tensor // per output channel, or one value
	add    *ir.Value
	act    string
	lo, hi float32
	last   *ir.Value // the value that the tile then holds
}

// peel walks from the anchor's result towards the root as long as each op is
// one that tiles do: a bias, one sum with a stored value, a bound.
func (l *lowerer) peel(g *group, axis int, canAdd func(*ir.Value) bool) peeled {
	p := peeled{last: g.anchor.Outputs[0]}
	for p.last != g.root && len(l.uses[p.last]) == 1 {
		n := l.uses[p.last][0]
		if len(n.Inputs) != 2 || l.member[n.Outputs[0]] != g || n.Outputs[0].DType() != tensor.F32 {
			break
		}
		other := n.Inputs[1]
		if other == p.last {
			other = n.Inputs[0]
		}
		c, uniform := scalarConst(other)
		switch {
		case n.Op == "add" && p.bias == nil && p.add == nil && p.act == "" && perChannel(other, axis) != nil:
			p.bias = perChannel(other, axis)
		case n.Op == "add" && p.add == nil && p.act == "" && canAdd(other):
			p.add = other
		case n.Op == "max" && uniform && c == 0 && p.act == "":
			p.act, p.lo, p.hi = "relu", 0, float32(math.Inf(1))
		case n.Op == "max" && uniform && p.act == "":
			p.act, p.lo, p.hi = "clip", float32(c), float32(math.Inf(1))
		case n.Op == "min" && uniform && p.act == "":
			p.act, p.lo, p.hi = "clip", float32(math.Inf(-1)), float32(c)
		case n.Op == "min" && uniform && math.IsInf(float64(p.hi), 1):
			p.act, p.hi = "clip", float32(c)
		default:
			return p
		}
		p.last = n.Outputs[0]
	}
	return p
}

// scalarConst is the one value of a constant that is the same everywhere.
func scalarConst(v *ir.Value) (float64, bool) {
	for v.Def != nil && v.Def.Op == "broadcast" {
		v = v.Def.Inputs[0]
	}
	if v.Const == nil || !v.Const.DType.IsFloat() {
		return 0, false
	}
	e := uniform(v.Const)
	if e == nil || math.IsNaN(e.F) {
		return 0, false
	}
	return e.F, true
}

// weightBuf registers constant data that is made when the weights are written.
func (l *lowerer) weightBuf(name string, n int, fill func() []float32) *program.Buf {
	b := &program.Buf{Name: name, Where: program.Const, Type: tensor.F32, Len: n}
	l.p.Consts = append(l.p.Consts, &program.Constant{Buf: b, Fill: func() ([]byte, error) {
		v := fill()
		return tensor.Wrap(v, len(v)).Bytes(), nil
	}})
	return b
}

// constBuf is weightBuf for elements of another type.
func constBuf[T tensor.Native](l *lowerer, name string, d tensor.DType, n int, fill func() []T) *program.Buf {
	b := &program.Buf{Name: name, Where: program.Const, Type: d, Len: n}
	l.p.Consts = append(l.p.Consts, &program.Constant{Buf: b, Fill: func() ([]byte, error) {
		v := fill()
		return tensor.Wrap(v, len(v)).Bytes(), nil
	}})
	return b
}

// biasBuf lays a bias out in whole vectors.
func (l *lowerer) biasBuf(name string, t *tensor.Tensor, channels, vectors int) *program.Buf {
	return l.weightBuf(name+"·bias", vectors*l.o.Lanes, func() []float32 {
		out := make([]float32, vectors*l.o.Lanes)
		for i := range channels {
			out[i] = float32(t.Float(i % t.Len()))
		}
		return out
	})
}

// choice runs one of two bodies by whether an index is below a limit; total is
// the number of values that the index has.
func choice(e *loop.Expr, limit, total int, yes, no func() []loop.Stmt) []loop.Stmt {
	switch {
	case limit >= total:
		return yes()
	case limit == 0:
		return no()
	}
	return []loop.Stmt{&loop.Cond{If: loop.Less(e, loop.Int(limit)), Then: yes(), Else: no()}}
}

// longestSum is how many products of f32 are summed into one register: the
// rounding errors of a sum grow with the root of its length, and with its
// length where all terms have one sign.
const longestSum = 4096

// inParts cuts the sums of a tile of f32 where they are longer than that, and
// adds up the parts in the memory that the tile stores to.
func (k *kb) inParts(t *loop.Tile) []loop.Stmt {
	n := t.Red[0].N
	if t.Kind != loop.TileF32 || len(t.Red) != 1 || n <= longestSum || t.S.Type != tensor.F32 {
		return []loop.Stmt{t}
	}
	parts := (n + longestSum - 1) / longestSum
	size := (n + parts - 1) / parts
	part := func(at *loop.Expr, n int) *loop.Tile {
		p := *t
		p.Red = []loop.Red{{N: n, XStep: t.Red[0].XStep, WStep: t.Red[0].WStep}}
		p.XAt = loop.Add(t.XAt, loop.Mul(at, t.Red[0].XStep))
		p.WAt = loop.Add(t.WAt, loop.Mul(at, t.Red[0].WStep))
		return &p
	}
	onTop := func(p *loop.Tile) *loop.Tile {
		p.B, p.BAt = nil, nil
		p.Add, p.AddAt, p.AO, p.AP = t.S, t.SAt, t.SO, t.SP
		return p
	}
	first := part(loop.Int(0), size)
	first.Act = ""
	body := []loop.Stmt{first}
	if parts > 2 {
		v := k.fresh("part", parts-2)
		middle := onTop(part(loop.Mul(loop.Add(loop.V(v), loop.Int(1)), size), size))
		middle.Act = ""
		body = append(body, &loop.For{Var: v, Body: []loop.Stmt{middle}})
	}
	last := (parts - 1) * size
	return append(body, onTop(part(loop.Int(last), n-last)))
}
