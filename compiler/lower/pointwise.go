package lower

import (
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// target is where a group stores, made ready: buffer, layout.
func (l *lowerer) target(v *ir.Value) *place { return l.places[v] }

// emitPointwise makes the kernel of elementwise and moving ops alone.
func (l *lowerer) emitPointwise(g *group) error {
	v := g.root
	dst := l.target(v)
	l.places[v] = nil // while its own expression is built
	defer func() { l.places[v] = dst }()
	if v.Def.Op == "concat" {
		return l.emitConcat(v, dst)
	}
	return l.pointwiseTo(v, dst, "pointwise", func(k *kb, idx []*loop.Expr) *loop.Expr { return k.access(v, idx) })
}

// copyTo stores a value that is in memory, or inline, into another place.
func (l *lowerer) copyTo(v *ir.Value, dst *place) error {
	return l.pointwiseTo(v, dst, "copy", func(k *kb, idx []*loop.Expr) *loop.Expr { return k.access(v, idx) })
}

// inLayout gives a value in a layout with at least the given halo, copying it
// if it lies otherwise.
func (l *lowerer) inLayout(v *ir.Value, want Layout) (*place, error) {
	p := l.places[v]
	if v.Const == nil && p != nil && p.layout.L == want.L && p.layout.As == want.As && p.layout.Shift == want.Shift {
		ok := true
		for a := range 2 {
			ok = ok && p.layout.Lo[a] >= want.Lo[a] && p.layout.Hi[a] >= want.Hi[a]
		}
		if ok {
			return p, nil
		}
	}
	return l.moveTo(v, want)
}

// moveTo copies a value into a layout, once for all who want it there.
func (l *lowerer) moveTo(v *ir.Value, want Layout) (*place, error) {
	key := v.Name + want.key()
	if c := l.moved[key]; c != nil {
		return c, nil
	}
	c := l.newPlace(v.Name+"·copy", v.DType(), want)
	if err := l.copyTo(v, c); err != nil {
		return nil, err
	}
	l.moved[key] = c
	return c, nil
}

// withoutHalo gives a value in a layout that has no halo.
func (l *lowerer) withoutHalo(v *ir.Value, want Layout) (*place, error) {
	key := v.Name + " bare" + want.key()
	if c := l.moved[key]; c != nil {
		return c, nil
	}
	c := l.newPlace(v.Name+"·copy", v.DType(), want)
	l.moved[key] = c
	return c, l.copyTo(v, c)
}

func (l Layout) key() string {
	var b strings.Builder
	for _, n := range []int{l.L, l.Lo[0], l.Lo[1], l.Hi[0], l.Hi[1], int(l.As), l.Shift} {
		b.WriteByte(' ')
		b.WriteString(loop.Int(n).Key())
	}
	return b.String()
}

// newPlace makes memory for a value of type d.
func (l *lowerer) newPlace(name string, d tensor.DType, lay Layout) *place {
	if lay.As != tensor.Invalid {
		d = lay.As
	}
	return &place{l.newBuf(name, d, lay.Len()), lay}
}

// pointwiseTo stores an expression of the index at every element of a place.
func (l *lowerer) pointwiseTo(v *ir.Value, dst *place, family string, f func(k *kb, idx []*loop.Expr) *loop.Expr) error {
	k := l.kernelFor(v)
	out := k.param(dst.buf, true)
	if tensor.Numel(dst.layout.Shape) == 0 {
		return nil
	}
	if !dst.layout.isPlain() {
		return k.blocked(dst, out, family, f)
	}
	if p := l.places[v]; p != nil && family == "copy" && len(p.layout.Shape) == 4 && p.layout.Shape[1]%max(p.layout.L, 1) > 0 && l.unblocked(family, v, v, dst, 0) {
		return nil
	}
	shape := l.merged(v, dst.layout.Shape, f)
	vars, idx := k.space(shape)
	val := f(k, reindex(idx, shape, dst.layout.Shape))
	body := []loop.Stmt{&loop.Store{Buf: out, Index: loop.Flatten(idx, shape), Val: dst.layout.stored(val)}}
	if u := woven(vars, val); u >= 0 {
		body = nil
		for i := range vars[u].N {
			at := slices.Clone(idx)
			at[u] = loop.Int(i)
			body = append(body, &loop.Store{Buf: out, Index: loop.Flatten(at, shape), Val: dst.layout.stored(f(k, reindex(at, shape, dst.layout.Shape)))})
		}
		vars = slices.Delete(slices.Clone(vars), u, u+1)
	} else {
		vars = facing(vars, val)
	}
	kinds := make([]loop.LoopKind, len(vars))
	kinds[len(kinds)-1] = loop.Vector
	work := int64(val.Cost()+1) * int64(out.Len)
	k.finish(family, parallelise(loop.Nest(vars, kinds, body...), work), work)
	return nil
}

// woven picks a short axis that lies innermost in the result or, of a copy, in
// its source: written out, its stores or loads together are whole vectors. -1:
// there is none.
func woven(vars []*loop.Var, val *loop.Expr) int {
	const short, long = 4, 8
	last := len(vars) - 1
	if last < 1 || val.Cost() > inlineCap/short {
		return -1
	}
	if n := vars[last].N; n > 1 && n <= short && vars[last-1].N >= long {
		return last
	}
	if val.Kind != loop.Load || vars[last].N < long {
		return -1
	}
	for i, v := range vars[:last] {
		one, _, ok := loop.Stride(val.Args[0], v)
		step, _, ok2 := loop.Stride(val.Args[0], vars[last])
		if ok && ok2 && one == 1 && v.N > 1 && v.N <= short && step == v.N {
			return i
		}
	}
	return -1
}

// facing orders the loops of a copy that exchanges axes: the one that runs along
// the source's rows next to the innermost, which runs along the destination's.
// Such pairs of loops are what backends can do in blocks.
func facing(vars []*loop.Var, val *loop.Expr) []*loop.Var {
	if val.Kind != loop.Load || len(vars) < 3 {
		return vars
	}
	last := len(vars) - 1
	for i, v := range vars[:last] {
		if step, _, ok := loop.Stride(val.Args[0], v); ok && step == 1 && v.N >= 4 {
			return slices.Concat(vars[:i], vars[i+1:last], []*loop.Var{v, vars[last]})
		}
	}
	return vars
}

// parallelWork is how much work, in units of Expr.Cost, pays for waking the
// second thread.
const parallelWork = 30000

func parallelise(body []loop.Stmt, work int64) []loop.Stmt {
	if len(body) == 1 && work >= parallelWork {
		if f, ok := body[0].(*loop.For); ok {
			f.Par = true
		}
	}
	return body
}

// space makes one loop variable per axis.
func (k *kb) space(shape []int) ([]*loop.Var, []*loop.Expr) {
	if len(shape) == 0 {
		return []*loop.Var{k.fresh("i", 1)}, nil
	}
	vars := make([]*loop.Var, len(shape))
	idx := make([]*loop.Expr, len(shape))
	for i, n := range shape {
		vars[i] = k.fresh("i", n)
		idx[i] = loop.V(vars[i])
	}
	return vars, idx
}

// merged joins neighbouring axes of the iteration space as long as no index
// needs a division for it: fewer, longer loops.
func (l *lowerer) merged(v *ir.Value, shape []int, f func(k *kb, idx []*loop.Expr) *loop.Expr) []int {
	var s []int
	for _, d := range shape {
		if d != 1 {
			s = append(s, d)
		}
	}
	if len(s) == 0 {
		return []int{1}
	}
	base := l.divisions(v, s, shape, f)
	s, base = l.split(v, s, shape, base, f)
	for i := len(s) - 2; i >= 0; i-- {
		t := append(append(append([]int{}, s[:i]...), s[i]*s[i+1]), s[i+2:]...)
		if d := l.divisions(v, t, shape, f); d <= base {
			s, base = t, d
		}
	}
	return s
}

// split cuts axes that indices are divided along, such as channels in blocks or
// repeated pixels, in two where that leaves fewer divisions.
func (l *lowerer) split(v *ir.Value, s, shape []int, base int, f func(k *kb, idx []*loop.Expr) *loop.Expr) ([]int, int) {
	for i := len(s) - 1; i >= 0 && base > 0; i-- {
		for _, n := range l.divisors(v, s, shape, f) {
			if s[i] <= n || s[i]%n != 0 {
				continue
			}
			t := slices.Concat(s[:i], []int{s[i] / n, n}, s[i+1:])
			if d := l.divisions(v, t, shape, f); d < base {
				s, base = t, d
				break
			}
		}
	}
	return s, base
}

// divisors lists what indices of an expression are divided by.
func (l *lowerer) divisors(v *ir.Value, space, shape []int, f func(k *kb, idx []*loop.Expr) *loop.Expr) []int {
	k := l.kernelFor(v)
	_, idx := k.space(space)
	var out []int
	f(k, reindex(idx, space, shape)).Walk(func(e *loop.Expr) {
		if e.Kind != loop.Call || e.Fn != "idiv" && e.Fn != "imod" {
			return
		}
		if n := int(e.Args[1].I); n > 1 && !slices.Contains(out, n) && len(out) < 4 {
			out = append(out, n)
		}
	})
	return out
}

// divisions counts quotients and remainders in the indices of an expression.
func (l *lowerer) divisions(v *ir.Value, space, shape []int, f func(k *kb, idx []*loop.Expr) *loop.Expr) int {
	k := l.kernelFor(v)
	_, idx := k.space(space)
	n := 0
	f(k, reindex(idx, space, shape)).Walk(func(e *loop.Expr) {
		if e.Kind == loop.Call && (e.Fn == "idiv" || e.Fn == "imod") {
			n++
		}
	})
	return n
}

// blocked stores into a place with channel blocks or a halo.
func (k *kb) blocked(dst *place, out *loop.Buffer, family string, f func(k *kb, idx []*loop.Expr) *loop.Expr) error {
	if lay := dst.layout; lay.L > 1 && lay.L <= 4 && lay.Parts == nil {
		return k.blockedFew(dst, out, family, f)
	}
	var body []loop.Stmt
	work, first := int64(0), 0
	for _, n := range dst.layout.parts() {
		s, w := k.blockedPart(dst.layout, out, first, n, func(k *kb, idx []*loop.Expr) *loop.Expr {
			from := slices.Clone(idx)
			from[1] = loop.Add(idx[1], loop.Int(first))
			return f(k, from)
		})
		body, work, first = append(body, s), work+w, first+n
	}
	k.finish(family, body, work)
	return nil
}

// blockedPart stores n channels from a channel on that begins a block; f gives
// them by their place among these. Threads share the rows of all blocks.
func (k *kb) blockedPart(lay Layout, out *loop.Buffer, first, n int, f func(k *kb, idx []*loop.Expr) *loop.Expr) (loop.Stmt, int64) {
	slot, all := lay.slot(first), lay.blocks()
	lay.Shape, lay.Parts = slices.Clone(lay.Shape), nil
	lay.Shape[1] = all * max(lay.L, 1)
	images, blocks, height, width := lay.Shape[0], blocksOf(n, lay.L), lay.Shape[2], lay.Shape[3]
	ci := k.fresh("c", lay.L)
	var p, w *loop.Var
	var image, block, row, val *loop.Expr
	of := func(c *loop.Expr) []*loop.Expr { // the place of lane c
		h := loop.Add(row, loop.Div(loop.V(w), width))
		return []*loop.Expr{image, loop.Add(loop.Mul(block, lay.L), c), h, loop.Mod(loop.V(w), width)}
	}
	over := func(rows, cols int) {
		p, w = k.fresh("q", images*blocks*rows), k.fresh("w", cols)
		block, row = loop.Mod(loop.V(p), blocks), loop.Mod(loop.Div(loop.V(p), blocks), rows)
		image = loop.Div(loop.V(p), blocks*rows)
		val = lay.stored(f(k, of(loop.V(ci))))
	}
	const few = 16 // planes, fewer of which threads cannot share well
	size := int64(images * blocks * lay.plane())
	whole := lay.Lo == [2]int{} && lay.Hi == [2]int{} && (images*blocks >= few || size < parallelWork)
	if whole { // without a halo a plane may be one row
		over(1, height*width)
		val.Walk(func(e *loop.Expr) {
			if e.Kind == loop.Call && (e.Fn == "idiv" || e.Fn == "imod") {
				e.Walk(func(x *loop.Expr) { whole = whole && !(x.Kind == loop.VarRef && x.Var == w) })
			}
		})
	}
	if !whole {
		over(height, width)
	}
	lanes := func(v *loop.Var, at int, val *loop.Expr) []loop.Stmt {
		store := &loop.Store{Buf: out, Index: lay.offset(of(loop.Add(loop.V(v), loop.Int(at+slot)))), Val: val}
		if lay.L == 1 {
			return loop.Nest([]*loop.Var{w}, []loop.LoopKind{loop.Vector}, store)
		}
		return loop.Nest([]*loop.Var{w, v}, []loop.LoopKind{loop.Serial, loop.Vector}, store)
	}
	zero := loop.Number(val.Type, 0, 0)
	var body []loop.Stmt
	if rest := n % lay.L; rest > 0 && alone(val, w, rest) {
		c, empty := k.fresh("c", rest), k.fresh("c", lay.L-rest)
		body = choice(block, blocks-1, blocks, func() []loop.Stmt { return lanes(ci, 0, val) }, func() []loop.Stmt {
			return append(lanes(c, 0, lay.stored(f(k, of(loop.V(c))))), lanes(empty, rest, zero)...)
		})
	} else {
		c := loop.Add(loop.Mul(block, lay.L), loop.V(ci))
		body = lanes(ci, 0, loop.If(loop.Less(c, loop.Int(n)), val, zero))
	}
	plane := loop.Add(loop.Add(loop.Mul(image, all), block), loop.Int(slot/lay.L))
	if halo := lay.zeroHalo(out, plane, k.fresh); halo != nil {
		body = append(choice(row, 1, height, func() []loop.Stmt { return halo }, func() []loop.Stmt { return nil }), body...)
	}
	work := int64(val.Cost()+1) * size
	return &loop.For{Var: p, Par: work >= parallelWork, Body: body}, work
}

// alone reports whether the last block of n channels is stored by itself, so that
// no lane asks whether it is one of them: where bytes only move, and where what is
// copied lies along w, so that the copy exchanges axes.
func alone(val *loop.Expr, w *loop.Var, n int) bool {
	if val.Kind != loop.Load {
		return false
	}
	step, _, ok := loop.Stride(val.Args[0], w)
	return ok && step == 1 || val.Type.Size() == 1 && n >= 4
}

// blockedFew is blocked for blocks of few channels: written out, the stores of a
// pixel are together a part of a vector.
func (k *kb) blockedFew(dst *place, out *loop.Buffer, family string, f func(k *kb, idx []*loop.Expr) *loop.Expr) error {
	lay := dst.layout
	p, h, w := k.fresh("q", lay.Shape[0]*lay.blocks()), k.fresh("h", lay.Shape[2]), k.fresh("w", lay.Shape[3])
	var stores []loop.Stmt
	cost := 0
	for i := range lay.L {
		c := loop.Add(loop.Mul(loop.Mod(loop.V(p), lay.blocks()), lay.L), loop.Int(i))
		idx := []*loop.Expr{loop.Div(loop.V(p), lay.blocks()), c, loop.V(h), loop.V(w)}
		val := loop.Number(out.Type, 0, 0)
		if least, _ := loop.Range(c); int(least) < lay.Shape[1] {
			val = lay.stored(f(k, idx))
			val = loop.If(loop.Less(c, loop.Int(lay.Shape[1])), val, loop.Number(val.Type, 0, 0))
		}
		cost += val.Cost() + 1
		stores = append(stores, &loop.Store{Buf: out, Index: lay.offset(idx), Val: val})
	}
	body := append(lay.zeroHalo(out, loop.V(p), k.fresh), loop.Nest([]*loop.Var{h, w}, []loop.LoopKind{loop.Serial, loop.Vector}, stores...)...)
	work := int64(cost) * int64(out.Len/lay.L)
	k.finish(family, []loop.Stmt{&loop.For{Var: p, Par: work >= parallelWork, Body: body}}, work)
	return nil
}

// emitConcat copies each operand into its slice: one kernel an operand, without
// a choice per element.
func (l *lowerer) emitConcat(v *ir.Value, dst *place) error {
	axis := v.Def.Int("axis", 0)
	at := 0
	if !dst.layout.isPlain() {
		aligned := true
		for _, x := range v.Def.Inputs {
			aligned = aligned && dst.layout.slot(at)%dst.layout.L == 0
			at += x.Static()[axis]
		}
		if axis != 1 || !aligned {
			return l.pointwiseTo(v, dst, "concat", func(k *kb, idx []*loop.Expr) *loop.Expr { return k.access(v, idx) })
		}
		return l.concatBlocks(v, dst)
	}
	for i, x := range v.Def.Inputs {
		size := x.Static()[axis]
		if tensor.Numel(x.Static()) == 0 {
			continue
		}
		if l.joined[operand{v.Def, i}] {
			at += size
			continue
		}
		if axis == 1 && l.unblocked("concat", v, x, dst, at) {
			at += size
			continue
		}
		k := l.kernelFor(v)
		out := k.param(dst.buf, true)
		f := func(k *kb, idx []*loop.Expr) *loop.Expr { return k.access(x, idx) }
		shape := l.joinable(x, axis, f)
		vars, idx := k.space(shape)
		src := reindex(idx, shape, x.Static())
		to := append([]*loop.Expr{}, src...)
		to[axis] = loop.Add(src[axis], loop.Int(at))
		val := f(k, src)
		body := []loop.Stmt{&loop.Store{Buf: out, Index: loop.Flatten(to, v.Static()), Val: dst.layout.stored(val)}}
		kinds := make([]loop.LoopKind, len(vars))
		kinds[len(kinds)-1] = loop.Vector
		work := int64(val.Cost()+1) * int64(tensor.Numel(x.Static()))
		k.finish("concat", parallelise(loop.Nest(vars, kinds, body...), work), work)
		at += size
	}
	return nil
}

// joinable is the iteration space of one operand of a concat: axes before the
// joined one, and all from it on.
func (l *lowerer) joinable(x *ir.Value, axis int, f func(k *kb, idx []*loop.Expr) *loop.Expr) []int {
	s := x.Static()
	outer, inner := tensor.Numel(s[:axis]), tensor.Numel(s[axis:])
	if l.divisions(x, []int{outer, inner}, s, f) == 0 {
		return []int{outer, inner}
	}
	return l.merged(x, s, f)
}

// concatBlocks joins channel blocks; each operand begins at a whole block.
func (l *lowerer) concatBlocks(v *ir.Value, dst *place) error {
	lay := dst.layout
	at := 0
	for i, x := range v.Def.Inputs {
		if l.joined[operand{v.Def, i}] {
			at += x.Static()[1]
			continue
		}
		leaves := blockParts(x)
		if lay.Parts == nil || leaves == nil {
			leaves = x.Static()[1:2]
		}
		first := 0
		for _, n := range leaves {
			l.concatPart(v, dst, x, first, n, at)
			at += n
			first += n
		}
	}
	return nil
}

// concatPart copies n channels of an operand from first on; the result has them
// from channel at on, which begins a block.
func (l *lowerer) concatPart(v *ir.Value, dst *place, x *ir.Value, first, n, at int) {
	k := l.kernelFor(v)
	out := k.param(dst.buf, true)
	s, work := k.blockedPart(dst.layout, out, at, n, func(k *kb, idx []*loop.Expr) *loop.Expr {
		from := slices.Clone(idx)
		from[1] = loop.Add(idx[1], loop.Int(first))
		return k.access(x, from)
	})
	k.finish("concat", []loop.Stmt{s}, work)
}
