package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// emitMix makes the kernel of a resized image.
func (l *lowerer) emitMix(g *group) error {
	dst, x := l.target(g.root), g.mix.x
	if lay := dst.layout; lay.Parts != nil || lay.L != 1 && lay.L != l.o.Lanes {
		return l.emitPointwise(g)
	}
	if p := l.places[x]; dst.layout.L == 1 && p != nil && p.layout.L > 1 {
		moved, err := l.moveTo(x, plain(x.Static()))
		if err != nil {
			return err
		}
		l.places[x] = moved
		defer func() { l.places[x] = p }()
	}
	if dst.layout.L == 1 {
		l.clear(g.root, dst)
	}
	l.places[g.root] = nil
	defer func() { l.places[g.root] = dst }()
	k := l.kernelFor(g.root)
	if out := k.param(dst.buf, true); dst.layout.L == 1 {
		k.mixAlong(g, dst, out)
	} else {
		k.mixBlocks(g, dst, out)
	}
	return nil
}

// held is a value of the group while the kernel has another one in scratch.
func (k *kb) held(v, other *ir.Value, has func(idx []*loop.Expr) *loop.Expr, idx []*loop.Expr) *loop.Expr {
	k.memo = map[string]*loop.Expr{}
	k.over[other] = has
	defer delete(k.over, other)
	return k.access(v, idx)
}

// mixBlocks resizes channel blocks: the channels of a block are the lanes.
func (k *kb) mixBlocks(g *group, dst *place, out *loop.Buffer) {
	m, lay := g.mix, dst.layout
	shape, n := lay.Shape, g.mix.rows.Static()[3]
	q := k.fresh("q", shape[0]*lay.blocks()*shape[2])
	plane, row := loop.Div(loop.V(q), shape[2]), loop.Mod(loop.V(q), shape[2])
	line := k.local("row", tensor.F32, n*lay.L)
	lanes := func(size int, val func(idx []*loop.Expr, c *loop.Expr) (*loop.Buffer, *loop.Expr, *loop.Expr)) []loop.Stmt {
		w, c := k.fresh("w", size), k.fresh("c", lay.L)
		idx := []*loop.Expr{loop.Div(plane, lay.blocks()), loop.Add(loop.Mul(loop.Mod(plane, lay.blocks()), lay.L), loop.V(c)), row, loop.V(w)}
		b, at, v := val(idx, loop.V(c))
		if shape[1]%lay.L != 0 {
			v = loop.If(loop.Less(idx[1], loop.Int(shape[1])), v, loop.Number(v.Type, 0, 0))
		}
		return loop.Nest([]*loop.Var{w, c}, []loop.LoopKind{loop.Serial, loop.Vector}, &loop.Store{Buf: b, Index: at, Val: v})
	}
	at := func(w, c *loop.Expr) *loop.Expr { return loop.Add(loop.Mul(w, lay.L), c) }
	body := lanes(n, func(idx []*loop.Expr, c *loop.Expr) (*loop.Buffer, *loop.Expr, *loop.Expr) {
		return line, at(idx[3], c), k.access(m.rows, idx)
	})
	cost := 0
	body = append(body, lanes(shape[3], func(idx []*loop.Expr, c *loop.Expr) (*loop.Buffer, *loop.Expr, *loop.Expr) {
		val := k.held(g.root, m.rows, func(from []*loop.Expr) *loop.Expr { return loop.At(line, at(from[3], c)) }, idx)
		cost = val.Cost()
		return out, lay.offset(idx), lay.stored(val)
	})...)
	if halo := lay.zeroHalo(out, plane, k.fresh); halo != nil {
		body = append(choice(row, 1, shape[2], func() []loop.Stmt { return halo }, func() []loop.Stmt { return nil }), body...)
	}
	work := int64(cost+1) * int64(lay.Len())
	k.finish("resize", []loop.Stmt{&loop.For{Var: q, Par: work >= parallelWork, Body: body}}, work)
}

// mixAlong resizes rows: neighbouring columns are the lanes. What a vector of
// them reads lies in a window of a few columns, so that the sum over the window,
// each column times a vector of weights, takes the place of look-ups. Weights that
// are zero would spread an infinity or a NaN over the window: rows that have one
// are looked up.
func (k *kb) mixAlong(g *group, dst *place, out *loop.Buffer) {
	m, lay := g.mix, dst.layout
	shape, n := lay.Shape, g.mix.rows.Static()[3]
	size := min(k.l.o.Lanes, shape[3])
	first, begin, weights, window := m.tables(size)
	firsts := k.param(constBuf(k.l, m.last.Name+"·first", tensor.I32, len(first), func() []int32 { return first }), false)
	begins := k.param(constBuf(k.l, m.last.Name+"·begin", tensor.I32, len(begin), func() []int32 { return begin }), false)
	factors := k.param(k.l.weightBuf(m.last.Name+"·weights", len(weights), func() []float32 { return weights }), false)
	together := 1 // rows that share what is loaded of the weights
	for _, t := range []int{4, 3, 2} {
		if tensor.Numel(shape[:3])%t == 0 && t*n <= 1<<14 {
			together = t
			break
		}
	}
	o, j := k.fresh("o", tensor.Numel(shape[:3])/together), k.fresh("j", n)
	b, lane := k.fresh("b", len(first)), k.fresh("l", size)
	line := k.local("row", tensor.F32, together*n)
	from := clamped(loop.At(begins, loop.V(b)), n-window)
	column := loop.Add(clamped(loop.At(firsts, loop.V(b)), shape[3]-size), loop.V(lane))
	var body, stores, exact []loop.Stmt
	cost := 0
	for r := range together {
		lead := loop.Unflatten(loop.Add(loop.Mul(loop.V(o), together), loop.Int(r)), shape[:3])
		body = append(body, &loop.For{Var: j, Kind: loop.Vector, Body: []loop.Stmt{
			&loop.Store{Buf: line, Index: loop.Add(loop.V(j), loop.Int(r*n)), Val: k.access(m.rows, append(slices.Clone(lead), loop.V(j)))}}})
		var sum *loop.Expr
		for i := range window {
			weight := loop.At(factors, loop.Add(loop.Add(loop.Mul(loop.V(b), window*size), loop.Int(i*size)), loop.V(lane)))
			term := loop.Fn("mul", loop.At(line, loop.Add(from, loop.Int(r*n+i))), weight)
			if sum == nil {
				sum = term
			} else {
				sum = loop.Fn("add", sum, term)
			}
		}
		idx := append(slices.Clone(lead), column)
		val := k.held(g.root, m.last, func([]*loop.Expr) *loop.Expr { return sum }, idx)
		cost += val.Cost() + 1
		stores = append(stores, &loop.Store{Buf: out, Index: lay.offset(idx), Val: lay.stored(val)})
		w := k.fresh("w", shape[3])
		idx = append(slices.Clone(lead), loop.V(w))
		val = k.held(g.root, m.rows, func(from []*loop.Expr) *loop.Expr { return loop.At(line, loop.Add(from[3], loop.Int(r*n))) }, idx)
		exact = append(exact, &loop.For{Var: w, Kind: loop.Vector, Body: []loop.Stmt{&loop.Store{Buf: out, Index: lay.offset(idx), Val: lay.stored(val)}}})
	}
	bad, i := k.reg("bad", tensor.F32), k.fresh("i", together*n)
	zero := loop.Number(tensor.F32, 0, 0)
	body = append(body, &loop.Set{Reg: bad, Val: zero, Decl: true},
		&loop.For{Var: i, Kind: loop.Vector, Body: []loop.Stmt{&loop.Accum{Reg: bad, Fn: "add", Val: loop.Fn("mul", loop.At(line, loop.V(i)), zero)}}},
		&loop.Cond{If: loop.Fn("isnan", loop.R(bad)), Then: exact,
			Else: []loop.Stmt{&loop.For{Var: b, Body: []loop.Stmt{&loop.For{Var: lane, Kind: loop.Vector, Body: stores}}}}})
	work := int64(cost) * int64(o.N*shape[3])
	k.finish("resize", []loop.Stmt{&loop.For{Var: o, Par: work >= parallelWork && o.N > 1, Body: body}}, work)
}

// clamped is a number of a table that is known to be in bounds, said so that a
// kernel's accesses can be proved.
func clamped(e *loop.Expr, most int) *loop.Expr { return loop.Clamp(loop.To(tensor.I64, e), 0, most) }

// tables are, for each vector of columns, its first one, the first one that it
// reads and the weights of its window.
func (m *mix) tables(lanes int) (first, begin []int32, weights []float32, window int) {
	size, n := m.last.Static()[3], m.rows.Static()[3]
	window = m.window(lanes)
	for _, at := range starts(size, lanes) {
		lo, _ := m.reads(at, lanes)
		lo = min(lo, n-window)
		first, begin = append(first, int32(at)), append(begin, int32(lo))
		w := make([]float32, window*lanes)
		for c := range lanes {
			for _, t := range m.taps {
				i := 0 // one weight for all
				if t.weight.Len() > 1 {
					i = at + c
				}
				w[(int(t.at.Int(at+c))-lo)*lanes+c] += float32(t.weight.Float(i))
			}
		}
		weights = append(weights, w...)
	}
	return first, begin, weights, window
}
