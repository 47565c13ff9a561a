package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// argLanes is how many elements behind the axis of an extreme make lanes of it
// worth their while.
const argLanes = 8

// argAcross finds where extremes are along an axis with others behind it, as
// the classes of an image's pixels: neighbouring lines are the lanes, which keep
// their best value and its place side by side. The last chunk of lines ends with
// the axis, and repeats some.
func (l *lowerer) argAcross(g *group, axis int) {
	n := g.anchor
	x := n.Inputs[0]
	shape := x.Static()
	behind := axis + 1 // the axes from here on are one
	if p := l.places[x]; p == nil || !p.layout.isPlain() {
		behind = len(shape) - 1
	}
	size := tensor.Numel(shape[behind:])
	chunk := min(size, laneChunk)
	k, dst, out, end := l.start(g)
	defer end()
	parts := (size + chunk - 1) / chunk
	rest := append([]int{}, shape[:behind]...)
	rest[axis] = 1
	o := k.fresh("o", tensor.Numel(rest)*parts)
	first := loop.Clamp(loop.Mul(loop.Mod(loop.V(o), parts), chunk), 0, size-chunk)
	lead := loop.Unflatten(loop.Div(loop.V(o), parts), rest)
	c := loop.Compute(x.DType())
	best, pos := k.local("best", c, chunk), k.local("pos", tensor.I32, chunk)
	lanes := func(body func(at *loop.Expr, idx func(place *loop.Expr) []*loop.Expr) []loop.Stmt) loop.Stmt {
		v := k.fresh("l", chunk)
		tail := loop.Unflatten(loop.Add(first, loop.V(v)), shape[behind:])
		return &loop.For{Var: v, Kind: loop.Vector, Body: body(loop.V(v), func(place *loop.Expr) []*loop.Expr {
			idx := append(append([]*loop.Expr{}, lead...), tail...)
			idx[axis] = place
			return idx
		})}
	}
	start := lanes(func(at *loop.Expr, idx func(*loop.Expr) []*loop.Expr) []loop.Stmt {
		return []loop.Stmt{
			&loop.Store{Buf: best, Index: at, Val: loop.To(c, k.access(x, idx(loop.Int(0))))},
			&loop.Store{Buf: pos, Index: at, Val: loop.Number(tensor.I32, 0, 0)},
		}
	})
	j := k.fresh("j", shape[axis])
	step := lanes(func(at *loop.Expr, idx func(*loop.Expr) []*loop.Expr) []loop.Stmt {
		val, old := loop.To(c, k.access(x, idx(loop.V(j)))), loop.At(best, at)
		here := better(n, old, val)
		return []loop.Stmt{
			&loop.Store{Buf: pos, Index: at, Val: loop.If(here, loop.To(tensor.I32, loop.V(j)), loop.At(pos, at))},
			&loop.Store{Buf: best, Index: at, Val: loop.If(here, val, old)},
		}
	})
	store := lanes(func(at *loop.Expr, idx func(*loop.Expr) []*loop.Expr) []loop.Stmt {
		return []loop.Stmt{k.epilogue(g, dst, out, idx(loop.Int(0)), loop.To(tensor.I64, loop.At(pos, at)))}
	})
	work := int64(tensor.Numel(shape)) * 3
	body := []loop.Stmt{start, &loop.For{Var: j, Body: []loop.Stmt{step}}, store}
	k.finish("arg", []loop.Stmt{&loop.For{Var: o, Par: work >= parallelWork && o.N > 1, Body: body}}, work)
}
