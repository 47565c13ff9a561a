package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// line is the loop over all lines along an axis: idx places a position on the
// line into a full index.
func (k *kb) line(shape []int, axis int) (o *loop.Var, idx func(at *loop.Expr) []*loop.Expr) {
	rest := slices.Clone(shape)
	rest[axis] = 1
	o = k.fresh("o", tensor.Numel(rest))
	outer := loop.Unflatten(loop.V(o), rest)
	return o, func(at *loop.Expr) []*loop.Expr {
		i := slices.Clone(outer)
		i[axis] = at
		return i
	}
}

// start begins a kernel that stores a group's root; the caller defers end.
func (l *lowerer) start(g *group) (k *kb, dst *place, out *loop.Buffer, end func()) {
	dst = l.target(g.root)
	l.clear(g.root, dst)
	l.places[g.root] = nil
	k = l.kernelFor(g.root)
	return k, dst, k.param(dst.buf, true), func() { l.places[g.root] = dst }
}

// emitArg finds where an extreme is.
func (l *lowerer) emitArg(g *group) error {
	n := g.anchor
	x := n.Inputs[0]
	shape := x.Static()
	axis := n.Int("axis", 0)
	if tensor.Numel(shape) == 0 {
		return nil
	}
	if axis < len(shape)-1 && shape[len(shape)-1] >= argLanes {
		l.argAcross(g, axis)
		return nil
	}
	k, dst, out, end := l.start(g)
	defer end()
	o, at := k.line(shape, axis)
	c := loop.Compute(x.DType())
	best, pos := k.reg("best", c), k.reg("pos", tensor.I64)
	j := k.fresh("j", shape[axis])
	val := loop.To(c, k.access(x, at(loop.V(j))))
	body := []loop.Stmt{
		&loop.Set{Reg: best, Val: loop.To(c, k.access(x, at(loop.Int(0)))), Decl: true},
		&loop.Set{Reg: pos, Val: loop.Int(0), Decl: true},
		&loop.For{Var: j, Body: []loop.Stmt{&loop.Cond{If: better(n, loop.R(best), val), Then: []loop.Stmt{
			&loop.Set{Reg: best, Val: val}, &loop.Set{Reg: pos, Val: loop.V(j)}}}}},
		k.epilogue(g, dst, out, at(loop.Int(0)), loop.R(pos)),
	}
	work := int64(tensor.Numel(shape)) * 3
	k.finish("arg", []loop.Stmt{&loop.For{Var: o, Par: work >= parallelWork && o.N > 1, Body: body}}, work)
	return nil
}

// better reports whether a value takes the place of the best so far.
func better(n *ir.Node, best, val *loop.Expr) *loop.Expr {
	if n.Op == "argmin" {
		best, val = val, best
	}
	if n.Int("last", 0) == 1 {
		return loop.Fn("le", best, val)
	}
	return loop.Fn("lt", best, val)
}

// emitWindowArg finds where the maximum under a window is.
func (l *lowerer) emitWindowArg(g *group) error {
	n := g.anchor
	x := n.Inputs[0]
	xs, os := x.Static(), n.Outputs[0].Static()
	geo, err := core.ConvGeometry(n, xs[2:], n.Ints("kernel"))
	if err != nil {
		return err
	}
	k, dst, out, end := l.start(g)
	defer end()
	o := k.fresh("o", tensor.Numel(os))
	idx := loop.Unflatten(loop.V(o), os)
	c := loop.Compute(x.DType())
	best, pos, any := k.reg("best", c), k.reg("pos", tensor.I64), k.reg("any", tensor.Bool)
	kv, kidx := k.space(geo.Kernel)
	xi, guard := geometry{geo}.sources(idx[2:], kidx, xs[2:])
	val := loop.To(c, k.access(x, append([]*loop.Expr{idx[0], idx[1]}, xi...)))
	better := loop.Fn("or", loop.Fn("not", loop.R(any)), loop.Fn("lt", loop.R(best), val))
	inner := []loop.Stmt{&loop.Cond{If: loop.And(guard, better), Then: []loop.Stmt{
		&loop.Set{Reg: best, Val: val},
		&loop.Set{Reg: pos, Val: loop.Flatten(xi, xs[2:])},
		&loop.Set{Reg: any, Val: loop.True()},
	}}}
	body := []loop.Stmt{
		&loop.Set{Reg: best, Val: loop.Number(c, 0, 0), Decl: true},
		&loop.Set{Reg: pos, Val: loop.Int(0), Decl: true},
		&loop.Set{Reg: any, Val: loop.False(), Decl: true},
	}
	body = append(body, loop.Nest(kv, make([]loop.LoopKind, len(kv)), inner...)...)
	body = append(body, k.epilogue(g, dst, out, idx, loop.R(pos)))
	work := int64(tensor.Numel(os)) * int64(tensor.Numel(geo.Kernel)) * 3
	k.finish("windowarg", []loop.Stmt{&loop.For{Var: o, Par: work >= parallelWork && o.N > 1, Body: body}}, work)
	return nil
}

// emitCumulate runs a sum or product along an axis.
func (l *lowerer) emitCumulate(g *group) error {
	n := g.anchor
	x := n.Inputs[0]
	shape := x.Static()
	if tensor.Numel(shape) == 0 {
		return nil
	}
	axis := n.Int("axis", 0)
	k, dst, out, end := l.start(g)
	defer end()
	d := accumulator(x.DType())
	fn, init := "add", 0.0
	if n.Str("op", "sum") == "prod" {
		fn, init = "mul", 1
	}
	j := k.fresh("j", shape[axis])
	pos := loop.V(j)
	if n.Int("reverse", 0) == 1 {
		pos = loop.Sub(loop.Int(shape[axis]-1), pos)
	}
	if last := len(shape) - 1; axis < last && shape[last] >= 8 && shape[axis] > 1 {
		k.cumulateRows(n, dst, out, j, pos, fn, loop.Number(d, init, int64(init)))
		return nil
	}
	o, at := k.line(shape, axis)
	acc := k.reg("acc", d)
	idx := at(pos)
	step := &loop.Set{Reg: acc, Val: loop.Fn(fn, loop.R(acc), loop.To(d, k.access(x, idx)))}
	store := &loop.Store{Buf: out, Index: dst.layout.offset(idx), Val: loop.To(x.DType(), loop.R(acc))}
	inner := []loop.Stmt{step, store}
	if n.Int("exclusive", 0) == 1 {
		inner = []loop.Stmt{store, step}
	}
	body := []loop.Stmt{&loop.Set{Reg: acc, Val: loop.Number(d, init, int64(init)), Decl: true}, &loop.For{Var: j, Body: inner}}
	work := int64(tensor.Numel(shape)) * 4
	k.finish("cumulate", []loop.Stmt{&loop.For{Var: o, Par: work >= parallelWork && o.N > 1, Body: body}}, work)
	return nil
}

// cumulateRows runs along an axis that is not the last: neighbouring lines side
// by side, which are the lanes.
func (k *kb) cumulateRows(n *ir.Node, dst *place, out *loop.Buffer, j *loop.Var, pos *loop.Expr, fn string, init *loop.Expr) {
	x, axis := n.Inputs[0], n.Int("axis", 0)
	shape := x.Static()
	last := len(shape) - 1
	rest := slices.Clone(shape)
	rest[axis], rest[last] = 1, 1
	o := k.fresh("o", tensor.Numel(rest))
	sums := k.local("acc", init.Type, shape[last])
	lanes := func(body func(at *loop.Expr) []loop.Stmt) loop.Stmt {
		v := k.fresh("l", shape[last])
		return &loop.For{Var: v, Kind: loop.Vector, Body: body(loop.V(v))}
	}
	body := []loop.Stmt{
		lanes(func(at *loop.Expr) []loop.Stmt { return []loop.Stmt{&loop.Store{Buf: sums, Index: at, Val: init}} }),
		&loop.For{Var: j, Body: []loop.Stmt{lanes(func(at *loop.Expr) []loop.Stmt {
			idx := loop.Unflatten(loop.V(o), rest)
			idx[axis], idx[last] = pos, at
			step := &loop.Store{Buf: sums, Index: at, Val: loop.Fn(fn, loop.At(sums, at), loop.To(init.Type, k.access(x, idx)))}
			store := &loop.Store{Buf: out, Index: dst.layout.offset(idx), Val: loop.To(x.DType(), loop.At(sums, at))}
			if n.Int("exclusive", 0) == 1 {
				return []loop.Stmt{store, step}
			}
			return []loop.Stmt{step, store}
		})}},
	}
	work := int64(tensor.Numel(shape)) * 4
	k.finish("cumulate", []loop.Stmt{&loop.For{Var: o, Par: work >= parallelWork && o.N > 1, Body: body}}, work)
}

// emitScatter copies the operand, then combines rows in order.
func (l *lowerer) emitScatter(g *group) error {
	n := g.anchor
	x, pos, up := n.Inputs[0], n.Inputs[1], n.Inputs[2]
	shape := x.Static()
	dst := l.target(g.root)
	if tensor.Numel(shape) == 0 {
		return nil
	}
	if err := l.pointwiseTo(g.root, dst, "copy", func(k *kb, idx []*loop.Expr) *loop.Expr { return k.access(x, idx) }); err != nil {
		return err
	}
	if tensor.Numel(up.Static()) == 0 {
		return nil
	}
	k := l.kernelFor(g.root)
	out := k.param(dst.buf, true)
	i := k.fresh("i", pos.Static()[0])
	inner, ridx := k.space(shape[1:])
	p := k.reg("at", tensor.I64)
	to := append([]*loop.Expr{loop.R(p)}, ridx...)
	if len(shape) == 1 {
		to = to[:1]
	}
	from := slices.Clone(to)
	from[0] = loop.V(i)
	val := k.access(up, from)
	if op := n.Str("op", "set"); op != "set" {
		c := loop.Compute(x.DType())
		old := loop.At(out, dst.layout.offset(to))
		val = loop.To(x.DType(), loop.Fn(op, loop.To(c, old), loop.To(c, val)))
	}
	kinds := make([]loop.LoopKind, len(inner))
	kinds[len(kinds)-1] = loop.Vector
	body := []loop.Stmt{&loop.Set{Reg: p, Val: k.position(k.access(pos, []*loop.Expr{loop.V(i)}), shape[0]), Decl: true}}
	body = append(body, loop.Nest(inner, kinds, &loop.Store{Buf: out, Index: dst.layout.offset(to), Val: val})...)
	k.finish("scatter", []loop.Stmt{&loop.For{Var: i, Body: body}}, int64(2*tensor.Numel(up.Static())))
	return nil
}

// emitSort places each element by its rank: how many come before it. That is
// quadratic, but it needs no memory, runs in lanes, and is stable.
func (l *lowerer) emitSort(g *group) error {
	n := g.anchor
	x := n.Inputs[0]
	shape := x.Static()
	if tensor.Numel(shape) == 0 {
		return nil
	}
	axis := n.Int("axis", 0)
	keyed := x.DType() == tensor.F32 && shape[axis] < 1<<30
	switch head := l.head(n, axis); {
	case keyed && (head >= radixHead || head < shape[axis] && (head >= selectHead || sieveBlock(shape[axis], head) > 0)):
		return l.emitSelect(g, head)
	case head < shape[axis]:
		return l.emitHead(g, head)
	}
	k := l.kernelFor(g.root)
	vals := k.param(l.places[n.Outputs[0]].buf, true)
	poss := k.param(l.places[n.Outputs[1]].buf, true)
	o, at := k.line(shape, axis)
	c := loop.Compute(x.DType())
	i, j := k.fresh("i", shape[axis]), k.fresh("j", shape[axis])
	mine, rank := k.reg("mine", c), k.reg("rank", tensor.I64)
	other := loop.To(c, k.access(x, at(loop.V(j))))
	before := loop.Fn("lt", other, loop.R(mine))
	if n.Int("descending", 0) == 1 {
		before = loop.Fn("lt", loop.R(mine), other)
	}
	before = loop.Fn("or", before, loop.Fn("and", loop.Fn("eq", other, loop.R(mine)), loop.Less(loop.V(j), loop.V(i))))
	to := loop.Flatten(at(loop.Clamp(loop.R(rank), 0, shape[axis]-1)), shape)
	body := []loop.Stmt{&loop.For{Var: i, Body: []loop.Stmt{
		&loop.Set{Reg: mine, Val: loop.To(c, k.access(x, at(loop.V(i)))), Decl: true},
		&loop.Set{Reg: rank, Val: loop.Int(0), Decl: true},
		&loop.For{Var: j, Kind: loop.Vector, Body: []loop.Stmt{&loop.Accum{Reg: rank, Fn: "add", Val: loop.To(tensor.I64, before)}}},
		&loop.Store{Buf: vals, Index: to, Val: loop.To(x.DType(), loop.R(mine))},
		&loop.Store{Buf: poss, Index: to, Val: loop.V(i)},
	}}}
	work := int64(tensor.Numel(shape)) * int64(shape[axis])
	k.finish("sort", []loop.Stmt{&loop.For{Var: o, Par: work >= parallelWork && o.N > 1, Body: body}}, work)
	return nil
}

// head is how many elements from the beginning of a sorted axis are read at
// all: those that slices take.
func (l *lowerer) head(n *ir.Node, axis int) int {
	size := n.Inputs[0].Static()[axis]
	head := 0
	for _, v := range n.Outputs {
		if l.isOut[v] {
			return size
		}
		for _, u := range l.uses[v] {
			if u.Op != "slice" || u.Ints("starts")[axis] != 0 || u.Ints("steps")[axis] != 1 {
				return size
			}
			head = max(head, u.Outputs[0].Static()[axis])
		}
	}
	return max(head, 1)
}

// emitHead keeps the first elements of the order while it walks along a line:
// most elements are behind the last of those, which one comparison tells. One
// that is not goes behind its equals, and what follows moves on.
func (l *lowerer) emitHead(g *group, head int) error {
	n := g.anchor
	x := n.Inputs[0]
	shape, axis := x.Static(), n.Int("axis", 0)
	k := l.kernelFor(g.root)
	vals, poss := k.param(l.places[n.Outputs[0]].buf, true), k.param(l.places[n.Outputs[1]].buf, true)
	o, at := k.line(shape, axis)
	c := loop.Compute(x.DType())
	kept, moved := k.local("kept", c, head), k.local("moved", c, head)
	where, from := k.local("where", tensor.I64, head), k.local("from", tensor.I64, head)
	i := k.fresh("i", shape[axis])
	mine, rank, count := k.reg("mine", c), k.reg("rank", tensor.I64), k.reg("count", tensor.I64)
	before := func(a, b *loop.Expr) *loop.Expr {
		if n.Int("descending", 0) == 1 {
			a, b = b, a
		}
		return loop.Fn("lt", a, b)
	}
	each := func(n int, f func(j *loop.Expr) []loop.Stmt) loop.Stmt {
		j := k.fresh("j", n)
		return &loop.For{Var: j, Kind: loop.Vector, Body: f(loop.V(j))}
	}
	zero, one := loop.Int(0), loop.Int(1)
	insert := []loop.Stmt{
		&loop.Set{Reg: rank, Val: zero, Decl: true},
		each(head, func(j *loop.Expr) []loop.Stmt {
			stays := loop.And(loop.Fn("lt", j, loop.R(count)), loop.Fn("not", before(loop.R(mine), loop.At(kept, j))))
			return []loop.Stmt{&loop.Accum{Reg: rank, Fn: "add", Val: loop.If(stays, one, zero)}}
		}),
	}
	if head > 1 {
		insert = append(insert, each(head-1, func(j *loop.Expr) []loop.Stmt {
			next := loop.Add(j, one)
			return []loop.Stmt{
				&loop.Store{Buf: moved, Index: next, Val: loop.At(kept, j)},
				&loop.Store{Buf: from, Index: next, Val: loop.At(where, j)},
			}
		}))
	}
	insert = append(insert, each(head, func(j *loop.Expr) []loop.Stmt {
		put := func(old, in, shifted *loop.Expr) *loop.Expr {
			return loop.If(loop.Fn("lt", j, loop.R(rank)), old, loop.If(loop.Fn("eq", j, loop.R(rank)), in, shifted))
		}
		return []loop.Stmt{
			&loop.Store{Buf: kept, Index: j, Val: put(loop.At(kept, j), loop.R(mine), loop.At(moved, j))},
			&loop.Store{Buf: where, Index: j, Val: put(loop.At(where, j), loop.V(i), loop.At(from, j))},
		}
	}), &loop.Set{Reg: count, Val: loop.Fn("min", loop.Fn("add", loop.R(count), one), loop.Int(head))})
	room := loop.Fn("lt", loop.R(count), loop.Int(head))
	enters := loop.Fn("or", room, before(loop.R(mine), loop.At(kept, loop.Int(head-1))))
	body := []loop.Stmt{&loop.Set{Reg: count, Val: zero, Decl: true}}
	for _, b := range []*loop.Buffer{kept, moved, where, from} {
		body = append(body, &loop.Zero{Buf: b, From: zero, N: head})
	}
	body = append(body,
		&loop.For{Var: i, Body: []loop.Stmt{
			&loop.Set{Reg: mine, Val: loop.To(c, k.access(x, at(loop.V(i)))), Decl: true},
			&loop.Cond{If: enters, Then: insert},
		}},
		each(head, func(j *loop.Expr) []loop.Stmt {
			to := loop.Flatten(at(j), shape)
			return []loop.Stmt{
				&loop.Store{Buf: vals, Index: to, Val: loop.To(x.DType(), loop.At(kept, j))},
				&loop.Store{Buf: poss, Index: to, Val: loop.At(where, j)},
			}
		}))
	work := int64(tensor.Numel(shape)) * 4
	k.finish("head", []loop.Stmt{&loop.For{Var: o, Par: work >= parallelWork && o.N > 1, Body: body}}, work)
	return nil
}
