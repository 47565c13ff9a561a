package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// nest is a reduction written as loops: for every element of the anchor's
// result, combine term(idx, red) over the reduction space. It is the general
// form behind which the tiled generators stand.
type nest struct {
	fn    string
	init  *loop.Expr
	acc   tensor.DType
	red   []int
	lane  int // the output axis that runs in vector lanes; -1: the reduction does
	chunk int // how many lanes; 0: as many as is good
	steps func(k *kb, out, red []*loop.Expr) (guard, term *loop.Expr)
}

// laneChunk is how many accumulators a lane loop keeps: 2 KB of F32, which
// stay in the first cache and hide the latency of each combination.
const laneChunk = 512

// emitNest makes the kernel of a group around an anchor in general form.
func (l *lowerer) emitNest(g *group, family string, n nest) error {
	a := g.anchor.Outputs[0]
	shape := a.Static()
	dst := l.target(g.root)
	l.places[g.root] = nil
	defer func() { l.places[g.root] = dst }()
	if tensor.Numel(shape) == 0 {
		return nil
	}
	l.clear(g.root, dst)
	k := l.kernelFor(g.root)
	out := k.param(dst.buf, true)
	work := int64(tensor.Numel(shape)) * int64(max(tensor.Numel(n.red), 1)) * 2
	if n.lane < 0 || len(shape) == 0 || shape[max(n.lane, 0)] == 1 {
		return k.nestScalar(g, n, dst, out, shape, family, work)
	}
	return k.nestLanes(g, n, dst, out, shape, family, work)
}

// value stores the accumulated result through the epilogue.
func (k *kb) epilogue(g *group, dst *place, out *loop.Buffer, idx []*loop.Expr, acc *loop.Expr) loop.Stmt {
	a := g.anchor.Outputs[0]
	d := a.DType()
	k.memo = map[string]*loop.Expr{}
	k.over[a] = func([]*loop.Expr) *loop.Expr { return loop.To(d, acc) }
	val := k.access(g.root, idx)
	delete(k.over, a)
	return &loop.Store{Buf: out, Index: dst.layout.offset(idx), Val: dst.layout.stored(val)}
}

// clear zero-fills a place that has a halo or padded channels, before a kernel
// that stores elements alone.
func (l *lowerer) clear(v *ir.Value, dst *place) {
	if dst.layout.isPlain() {
		return
	}
	k := l.kernelFor(v)
	out := k.param(dst.buf, true)
	k.finish("zero", []loop.Stmt{&loop.Zero{Buf: out, From: loop.Int(0), N: dst.layout.Len(), Fill: byte(-dst.layout.Shift)}}, 0)
}

func (k *kb) nestScalar(g *group, n nest, dst *place, out *loop.Buffer, shape []int, family string, work int64) error {
	o := k.fresh("o", max(tensor.Numel(shape), 1))
	idx := loop.Unflatten(loop.V(o), shape)
	acc := k.reg("acc", n.acc)
	sum := acc
	if n.inParts() {
		sum = k.reg("part", n.acc)
	}
	rvars, ridx := k.space(n.red)
	guard, term := n.steps(k, idx, ridx)
	var step loop.Stmt = &loop.Accum{Reg: sum, Fn: n.fn, Val: loop.To(n.acc, term)}
	if !always(guard) {
		step = &loop.Cond{If: guard, Then: []loop.Stmt{step}}
	}
	kinds := make([]loop.LoopKind, len(rvars))
	if always(guard) {
		kinds[len(kinds)-1] = loop.Vector
	}
	body := []loop.Stmt{&loop.Set{Reg: acc, Val: n.init, Decl: true}}
	if last := len(rvars) - 1; sum != acc {
		part := append([]loop.Stmt{&loop.Set{Reg: sum, Val: n.init, Decl: true}}, loop.Nest(rvars[last:], kinds[last:], step)...)
		part = append(part, &loop.Accum{Reg: acc, Fn: n.fn, Val: loop.R(sum)})
		body = append(body, loop.Nest(rvars[:last], kinds[:last], part...)...)
	} else {
		body = append(body, loop.Nest(rvars, kinds, step)...)
	}
	body = append(body, k.epilogue(g, dst, out, idx, loop.R(acc)))
	k.finish(family, []loop.Stmt{&loop.For{Var: o, Par: work >= parallelWork && o.N > 1, Body: body}}, work)
	return nil
}

func (k *kb) nestLanes(g *group, n nest, dst *place, out *loop.Buffer, shape []int, family string, work int64) error {
	size := shape[n.lane]
	chunk := min(size, laneChunk)
	if size%chunk != 0 { // equal chunks where a divisor is near
		for c := chunk; c >= laneChunk/4; c-- {
			if size%c == 0 {
				chunk = c
				break
			}
		}
	}
	if n.chunk > 0 {
		chunk = n.chunk
	}
	rest := slices.Clone(shape)
	rest[n.lane] = (size + chunk - 1) / chunk
	o := k.fresh("o", tensor.Numel(rest))
	ridxOuter := loop.Unflatten(loop.V(o), rest)
	accs := k.local("acc", n.acc, chunk)
	first := loop.Mul(ridxOuter[n.lane], chunk)
	ragged := size%chunk != 0
	if ragged && n.chunk == 0 { // the last chunk ends with the axis, and repeats some elements
		first, ragged = loop.Clamp(first, 0, size-chunk), false
	}
	lanes := func(build func(idx []*loop.Expr, at *loop.Expr) loop.Stmt) loop.Stmt {
		v := k.fresh("l", chunk)
		idx := slices.Clone(ridxOuter)
		idx[n.lane] = loop.Add(first, loop.V(v))
		s := build(idx, loop.V(v))
		if ragged {
			s = &loop.Cond{If: loop.Less(idx[n.lane], loop.Int(size)), Then: []loop.Stmt{s}}
		}
		return &loop.For{Var: v, Kind: loop.Vector, Body: []loop.Stmt{s}}
	}
	body := []loop.Stmt{lanes(func(_ []*loop.Expr, at *loop.Expr) loop.Stmt {
		return &loop.Store{Buf: accs, Index: at, Val: n.init}
	})}
	rvars, ridx := k.space(n.red)
	sums := accs
	if n.inParts() {
		sums = k.local("part", n.acc, chunk)
	}
	step := lanes(func(idx []*loop.Expr, at *loop.Expr) loop.Stmt {
		guard, term := n.steps(k, idx, ridx)
		old := loop.At(sums, at)
		val := loop.Fn(n.fn, old, loop.To(n.acc, term))
		if guard != nil {
			val = loop.If(guard, val, old)
		}
		return &loop.Store{Buf: sums, Index: at, Val: val}
	})
	kinds := make([]loop.LoopKind, len(rvars))
	if last := len(rvars) - 1; sums != accs {
		part := []loop.Stmt{lanes(func(_ []*loop.Expr, at *loop.Expr) loop.Stmt {
			return &loop.Store{Buf: sums, Index: at, Val: n.init}
		})}
		part = append(part, loop.Nest(rvars[last:], kinds[last:], step)...)
		part = append(part, lanes(func(_ []*loop.Expr, at *loop.Expr) loop.Stmt {
			return &loop.Store{Buf: accs, Index: at, Val: loop.Fn(n.fn, loop.At(accs, at), loop.At(sums, at))}
		}))
		body = append(body, loop.Nest(rvars[:last], kinds[:last], part...)...)
	} else {
		body = append(body, loop.Nest(rvars, kinds, step)...)
	}
	body = append(body, lanes(func(idx []*loop.Expr, at *loop.Expr) loop.Stmt {
		return k.epilogue(g, dst, out, idx, loop.At(accs, at))
	}))
	k.finish(family, []loop.Stmt{&loop.For{Var: o, Par: work >= parallelWork && o.N > 1, Body: body}}, work)
	return nil
}

// inParts reports whether a sum of f32 is long enough that its rows are to be
// summed by themselves: the roundings of one chain add up with its length where
// all terms have one sign, as the pixels of a map behind an activation have.
func (n nest) inParts() bool {
	const long = 256
	rank := len(n.red)
	return n.fn == "add" && n.acc == tensor.F32 && rank > 1 && tensor.Numel(n.red) >= long && n.red[rank-1] >= 8 && tensor.Numel(n.red[:rank-1]) > 1
}

// partOf is the length of equal parts that a long axis is summed in; 0 if it is
// short or has no such divisor.
func partOf(n int) int {
	for size := 512; n >= 1024 && size >= 64; size-- {
		if n%size == 0 {
			return size
		}
	}
	return 0
}

// blockAxis gives the axis along which a value's elements lie side by side
// because channel blocks hold them, and how many do: those of its place, or of
// what it is computed from while it is read. No lanes: there is none.
func (l *lowerer) blockAxis(v *ir.Value, seen map[*ir.Value]bool) (axis, lanes int) {
	if p := l.places[v]; p != nil || v.Def == nil || seen[v] {
		if p != nil && p.layout.L > 1 {
			return 1, p.layout.L
		}
		return 0, 0
	}
	seen[v] = true
	shape := v.Static()
	switch n := v.Def; {
	case n.Op == "transpose":
		axis, lanes = l.blockAxis(n.Inputs[0], seen)
		return max(slices.Index(n.Ints("perm"), axis), 0), lanes
	case n.Op == "reshape":
		in := n.Inputs[0].Static()
		if axis, lanes = l.blockAxis(n.Inputs[0], seen); lanes == 0 {
			return 0, 0
		}
		for a := range shape { // the same axis with others of size 1 around it
			if shape[a] == in[axis] && tensor.Numel(shape[:a]) == tensor.Numel(in[:axis]) {
				return a, lanes
			}
		}
	case n.Op == "slice":
		axis, lanes = l.blockAxis(n.Inputs[0], seen)
		if lanes > 0 && n.Ints("starts")[axis]%lanes == 0 && n.Ints("steps")[axis] == 1 {
			return axis, lanes
		}
		return 0, 0
	case core.Lookup(n.Op).Class == core.Pointwise:
		for _, x := range n.Inputs {
			if axis, lanes = l.blockAxis(x, seen); lanes > 0 && slices.Equal(x.Static(), shape) {
				return axis, lanes
			}
		}
	}
	return 0, 0
}

// emitReduce folds axes.
func (l *lowerer) emitReduce(g *group) error {
	r := g.anchor
	x := r.Inputs[0]
	full, axes := x.Static(), r.Ints("axes")
	var red []int
	for _, a := range axes {
		red = append(red, full[a])
	}
	acc := accumulator(x.DType())
	lane := -1
	for a := len(full) - 1; a >= 0; a-- { // the last axis that is not of size 1
		if full[a] != 1 {
			if !slices.Contains(axes, a) {
				lane = a
			}
			break
		}
	}
	chunk, along := 0, laneWalk{}
	if a, n := l.blockAxis(x, map[*ir.Value]bool{}); n > 0 && !slices.Contains(axes, a) && !slices.Contains(axes, 0) {
		lane, chunk = a, n // channels lie side by side
	} else if n > 0 && lane < 0 {
		along = walkLanes(axes, full, a, n)
	}
	// Neighbouring axes are one long loop where the lanes run along them.
	var runs [][]int
	if p := l.source(x); lane < 0 && p != nil && p.layout.isPlain() && slices.IsSorted(axes) {
		for i, a := range axes {
			if i > 0 && a == axes[i-1]+1 {
				runs[len(runs)-1] = append(runs[len(runs)-1], full[a])
			} else {
				runs = append(runs, []int{full[a]})
			}
		}
		red = nil
		for _, r := range runs {
			red = append(red, tensor.Numel(r))
		}
	} else {
		for i, n := range red {
			red[i] = along.size(i, n)
			runs = append(runs, []int{red[i]})
		}
	}
	part := 0
	if len(red) == 1 && r.Op == "reduce_sum" && acc == tensor.F32 {
		if part = partOf(red[0]); part > 0 {
			red = []int{red[0] / part, part}
		}
	}
	fn := combine[r.Op]
	if x.DType() == tensor.Bool {
		fn = map[string]string{"reduce_max": "or", "reduce_sum": "or", "reduce_min": "and", "reduce_prod": "and"}[r.Op]
	}
	return l.emitNest(g, "reduce", nest{fn: fn, init: identity(r.Op, acc), acc: acc, red: red, lane: lane, chunk: chunk,
		steps: func(k *kb, out, rd []*loop.Expr) (*loop.Expr, *loop.Expr) {
			idx := slices.Clone(out)
			if part > 0 {
				rd = []*loop.Expr{loop.Add(loop.Mul(rd[0], part), rd[1])}
			}
			at := 0
			for i, sizes := range runs {
				for _, e := range loop.Unflatten(rd[i], sizes) {
					idx[axes[at]] = e
					at++
				}
			}
			along.places(axes, idx)
			return nil, k.access(x, idx)
		}})
}

// contractAcc is the accumulator of a contraction: wide integers exact in
// int64 or int32, floats in their own width, narrow floats in F32.
func contractAcc(n *ir.Node) tensor.DType {
	d := n.Outputs[0].DType()
	if d.IsFloat() {
		for _, x := range n.Inputs {
			if x.DType() == tensor.F64 {
				return tensor.F64
			}
		}
		return loop.Compute(d)
	}
	if d.Bits() < 32 {
		return tensor.I32
	}
	return d
}

// emitConv is the general convolution: any type, group, gap and rank.
func (l *lowerer) emitConv(g *group) error {
	n := g.anchor
	x, w := n.Inputs[0], n.Inputs[1]
	xs, ws := x.Static(), w.Static()
	geo, err := core.ConvGeometry(n, xs[2:], ws[2:])
	if err != nil {
		return err
	}
	perGroup := ws[0] / geo.Groups
	acc := contractAcc(n)
	lane := len(xs) - 1
	for lane > 2 && geo.Out[lane-2] < 8 && geo.Out[lane-3] > geo.Out[lane-2] {
		lane--
	}
	return l.emitNest(g, "conv", nest{fn: "add", init: loop.Number(acc, 0, 0), acc: acc, red: ws[1:], lane: lane,
		steps: func(k *kb, out, red []*loop.Expr) (*loop.Expr, *loop.Expr) {
			c := loop.Add(loop.Mul(loop.Div(out[1], perGroup), ws[1]), red[0])
			xi, guard := geometry{geo}.sources(out[2:], red[1:], xs[2:])
			wi := append([]*loop.Expr{out[1]}, red...)
			a := loop.To(acc, k.access(x, append([]*loop.Expr{out[0], c}, xi...)))
			b := loop.To(acc, k.access(w, wi))
			return guard, loop.Fn("mul", a, b)
		}})
}

// geometry is core's, with index expressions.
type geometry struct{ core.ConvDims }

// emitDot is the general contraction.
func (l *lowerer) emitDot(g *group) error {
	n := g.anchor
	x, y := n.Inputs[0], n.Inputs[1]
	d := core.DotAxes(n)
	var red []int
	for _, a := range d.LC {
		red = append(red, x.Static()[a])
	}
	acc := contractAcc(n)
	rank := n.Outputs[0].Rank()
	lane := rank - 1
	if rank == 0 || len(d.RF) == 0 || n.Outputs[0].Static()[lane] < 4 || l.alongRight(n, d) {
		lane = -1
	}
	nb, nl := len(d.LB), len(d.LF)
	return l.emitNest(g, "dot", nest{fn: "add", init: loop.Number(acc, 0, 0), acc: acc, red: red, lane: lane,
		steps: func(k *kb, out, rd []*loop.Expr) (*loop.Expr, *loop.Expr) {
			xi, yi := make([]*loop.Expr, x.Rank()), make([]*loop.Expr, y.Rank())
			for i := range d.LB {
				xi[d.LB[i]], yi[d.RB[i]] = out[i], out[i]
			}
			for i := range d.LC {
				xi[d.LC[i]], yi[d.RC[i]] = rd[i], rd[i]
			}
			for i, a := range d.LF {
				xi[a] = out[nb+i]
			}
			for i, a := range d.RF {
				yi[a] = out[nb+nl+i]
			}
			return nil, loop.Fn("mul", loop.To(acc, k.access(x, xi)), loop.To(acc, k.access(y, yi)))
		}})
}

// emitWindowBlocks slides over channel blocks: the lanes are channels, so the
// edge is a matter of whole vectors.
func (l *lowerer) emitWindowBlocks(g *group, geo core.ConvDims, fn string, init *loop.Expr) error {
	x := g.anchor.Inputs[0]
	xs := x.Static()
	dst := l.target(g.root)
	l.places[g.root] = nil
	defer func() { l.places[g.root] = dst }()
	lay := dst.layout
	k := l.kernelFor(g.root)
	out := k.param(dst.buf, true)
	p, h, w := k.fresh("q", lay.Shape[0]*lay.blocks()), k.fresh("h", lay.Shape[2]), k.fresh("w", lay.Shape[3])
	accs := k.local("acc", init.Type, lay.L)
	at := func(ci *loop.Expr) []*loop.Expr {
		c := loop.Add(loop.Mul(loop.Mod(loop.V(p), lay.blocks()), lay.L), ci)
		return []*loop.Expr{loop.Div(loop.V(p), lay.blocks()), c, loop.V(h), loop.V(w)}
	}
	lanes := func(f func(ci *loop.Expr) loop.Stmt) loop.Stmt {
		v := k.fresh("c", lay.L)
		return &loop.For{Var: v, Kind: loop.Vector, Body: []loop.Stmt{f(loop.V(v))}}
	}
	kv, kidx := k.space(geo.Kernel)
	xi, guard := geometry{geo}.sources([]*loop.Expr{loop.V(h), loop.V(w)}, kidx, xs[2:])
	step := lanes(func(ci *loop.Expr) loop.Stmt {
		i := at(ci)
		return &loop.Store{Buf: accs, Index: ci, Val: loop.Fn(fn, loop.At(accs, ci), k.padded(x, []*loop.Expr{i[0], i[1], xi[0], xi[1]}))}
	})
	if !always(guard) {
		step = &loop.Cond{If: guard, Then: []loop.Stmt{step}}
	}
	inner := []loop.Stmt{lanes(func(ci *loop.Expr) loop.Stmt { return &loop.Store{Buf: accs, Index: ci, Val: init} })}
	inner = append(inner, loop.Nest(kv, make([]loop.LoopKind, len(kv)), step)...)
	inner = append(inner, lanes(func(ci *loop.Expr) loop.Stmt {
		i := at(ci)
		s := k.epilogue(g, dst, out, i, loop.At(accs, ci)).(*loop.Store)
		s.Val = loop.If(loop.Less(i[1], loop.Int(xs[1])), s.Val, loop.Number(s.Val.Type, 0, 0))
		return s
	}))
	body := append(lay.zeroHalo(out, loop.V(p), k.fresh), loop.Nest([]*loop.Var{h, w}, []loop.LoopKind{loop.Serial, loop.Serial}, inner...)...)
	work := int64(lay.Len()) * int64(tensor.Numel(geo.Kernel))
	k.finish("window", []loop.Stmt{&loop.For{Var: p, Par: work >= parallelWork, Body: body}}, work)
	return nil
}

// padded reads a value whose channel index may lie in the padding of the last
// block: there a blocked value holds zeros, and any other must not be read.
func (k *kb) padded(x *ir.Value, idx []*loop.Expr) *loop.Expr {
	if p := k.l.places[x]; p != nil && p.layout.L > 1 {
		return k.access(x, idx)
	}
	v := k.access(x, idx)
	return loop.If(loop.Less(idx[1], loop.Int(x.Static()[1])), v, loop.Number(v.Type, 0, 0))
}

// sources gives, for output and kernel positions, where the operand is read
// and whether that is inside it.
func (g geometry) sources(out, kern []*loop.Expr, size []int) (src []*loop.Expr, guard *loop.Expr) {
	guard = loop.True()
	for i := range size {
		p := loop.Add(loop.Add(loop.Mul(out[i], g.Strides[i]), loop.Mul(kern[i], g.Dilations[i])), loop.Int(-g.Lo[i]))
		if d := g.XDil[i]; d > 1 {
			guard = loop.And(guard, loop.And(loop.Within(p, 0, (size[i]-1)*d+1), multiple(p, d)))
			p = loop.Div(p, d)
		} else {
			guard = loop.And(guard, loop.Within(p, 0, size[i]))
		}
		src = append(src, p)
	}
	return src, guard
}

// always reports a guard that holds for every index: nil or true. One that is
// false for every index stays a condition, since what it guards lies outside.
func always(guard *loop.Expr) bool { return guard == nil || guard.Kind == loop.Const && guard.I != 0 }

// multiple holds where d divides an index.
func multiple(e *loop.Expr, d int) *loop.Expr {
	return loop.And(loop.Less(loop.Int(-1), loop.Sub(loop.Int(0), loop.Mod(e, d))), loop.True())
}
