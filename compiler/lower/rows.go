package lower

import (
	"maps"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// combine is the scalar function of a reduction.
var combine = map[string]string{"reduce_sum": "add", "reduce_prod": "mul", "reduce_max": "max", "reduce_min": "min"}

// accumulator is the type that a reduction over an element type runs in.
func accumulator(d tensor.DType) tensor.DType { return loop.Compute(d) }

func identity(op string, d tensor.DType) *loop.Expr { return loop.Of(core.Identity(op, d), 0) }

// emitRows makes one kernel of reductions over the same axes and of what they
// scale. Per row: a pass for each reduction, which keeps its result in a
// register, then a pass that stores. Values that several passes need and that
// are dear to compute are kept in a row of scratch, and dear functions of the
// results are computed once. Where rows lie across, several are done side by
// side: the lanes are neighbouring rows and results are kept in arrays.
func (l *lowerer) emitRows(g *group) error {
	full := g.rows[0].Inputs[0].Static()
	dst := l.target(g.root)
	l.places[g.root] = nil
	defer func() { l.places[g.root] = dst }()
	if tensor.Numel(full) == 0 {
		return nil
	}
	r := l.rowsOf(g, dst)
	switch {
	case r.planes:
	case r.tiles != nil && dst.layout.L == r.tiles.channel.N:
		l.clearHalo(g.root, dst)
	default:
		l.clear(g.root, dst)
	}
	r.out = r.param(dst.buf, true)
	var body []loop.Stmt
	if r.planes {
		body = dst.layout.zeroHalo(r.out, loop.V(r.outer), r.fresh)
	}
	work := int64(0)
	each := int64(tensor.Numel(full) / len(r.rows))
	for i := 0; i < len(g.rows); i++ {
		red := g.rows[i]
		if s := r.deviationOf(g.rows[i:]); s != nil {
			body = append(body, s.pass()...)
			work += 4 * int64(tensor.Numel(full))
			i++
			continue
		}
		x := red.Inputs[0]
		totals := make([]*rowResult, len(r.rows))
		r.all(func(k int) {
			totals[k] = r.result(red.Outputs[0], accumulator(x.DType()))
			body = append(body, r.each(totals[k].set(identity(red.Op, totals[k].kind)))...)
		})
		body = append(body, r.fold(totals, red.Op, func(k int, idx []*loop.Expr, flat *loop.Expr) ([]loop.Stmt, *loop.Expr) {
			stmts := r.keep(x, idx, flat)
			val := loop.To(totals[k].kind, r.access(x, idx))
			work += int64(val.Cost()+1) * each
			return stmts, val
		})...)
		r.all(func(k int) {
			totals[k].done(red.Outputs[0])
			body = append(body, r.derived(red.Outputs[0])...)
		})
	}
	body = append(body, r.inner(func(_ int, idx []*loop.Expr, flat *loop.Expr) []loop.Stmt {
		stmts := r.keep(g.root, idx, flat)
		val := r.access(g.root, idx)
		work += int64(val.Cost()+1) * each
		return append(stmts, &loop.Store{Buf: r.out, Index: dst.layout.offset(idx), Val: dst.layout.stored(val)})
	})...)
	r.finish("rows", []loop.Stmt{&loop.For{Var: r.outer, Par: work >= parallelWork && r.outer.N > 1, Body: body}}, work)
	return nil
}

// rowPass builds the kernel of a row group.
type rowPass struct {
	*kb
	g          *group
	out        *loop.Buffer
	axes       []int
	full       []int
	innerShape []int
	rowLen     int
	outer      *loop.Var
	lane       *loop.Var // among the rows that are done side by side; nil: lanes run along the rows
	planes     bool      // each step of outer writes one whole plane of a channel block
	tiles      *rowTiles // how rows of channels in blocks are gone through; nil: they are none
	temps      []*ir.Value
	rows       []*rowState // rows that each pass goes through together
	*rowState              // the one that is described
}

// rowState is what is known of a row while its passes are described.
type rowState struct {
	at    func(in []*loop.Expr) []*loop.Expr
	kept  map[*ir.Value]bool
	known []*ir.Value // reductions that are done
	over  map[*ir.Value]func(idx []*loop.Expr) *loop.Expr
	memo  map[string]*loop.Expr
}

// all describes something of each row.
func (r *rowPass) all(do func(k int)) {
	for k, s := range r.rows {
		r.rowState, r.kb.over, r.kb.memo = s, s.over, s.memo
		do(k)
		s.memo = r.kb.memo
	}
}

// together has each pass go through two rows: what they have in common (scales
// of columns) is loaded once, and the steps of one hide the latency of the
// other's. Two rows of scratch must fit the first cache.
func (r *rowPass) together(rows int, outer []int, places func([]*loop.Expr) func([]*loop.Expr) []*loop.Expr) {
	n := 1
	if rows >= fewestRows && r.rowLen*4%4096 != 0 && 2*r.rowLen*4*max(len(r.temps), 1) <= 16<<10 && r.rowLen >= r.l.o.Lanes {
		n = 2
	}
	r.outer = r.fresh("r", (rows+n-1)/n)
	first := loop.Mul(loop.V(r.outer), n)
	if rows%n != 0 {
		first = loop.Clamp(first, 0, rows-n)
	}
	for k := range n {
		r.rows = append(r.rows, r.state(places(loop.Unflatten(loop.Add(first, loop.Int(k)), outer))))
	}
}

// fewestRows is how many rows leave enough pairs of them for threads.
const fewestRows = 16

func (r *rowPass) state(at func(in []*loop.Expr) []*loop.Expr) *rowState {
	return &rowState{at: at, kept: map[*ir.Value]bool{}, over: maps.Clone(r.kb.over), memo: map[string]*loop.Expr{}}
}

// rowsOf decides how rows are gone through.
func (l *lowerer) rowsOf(g *group, dst *place) *rowPass {
	red := g.rows[0]
	r := &rowPass{kb: l.kernelFor(g.root), g: g, full: red.Inputs[0].Static(), axes: red.Ints("axes")}
	var outerShape []int
	for i, d := range r.full {
		if slices.Contains(r.axes, i) {
			r.innerShape = append(r.innerShape, d)
		} else {
			outerShape = append(outerShape, d)
		}
	}
	r.rowLen = tensor.Numel(r.innerShape)
	r.temps = l.rowTemps(g, r.full, r.rowLen)
	places := func(oidx []*loop.Expr) func(in []*loop.Expr) []*loop.Expr {
		return func(in []*loop.Expr) []*loop.Expr {
			idx := make([]*loop.Expr, len(r.full))
			o, i := 0, 0
			for a := range r.full {
				if slices.Contains(r.axes, a) {
					idx[a] = in[i]
					i++
				} else {
					idx[a] = oidx[o]
					o++
				}
			}
			return idx
		}
	}
	if lanes := l.tiledRows(g); lanes > 0 && len(outerShape) > 0 {
		l.inTiles(r, outerShape, lanes, places)
		return r
	}
	if a := l.blocked(r, dst, outerShape, places); a >= 0 {
		l.inBlocks(r, outerShape, a, places)
		r.planes = dst.layout.L > 1
		return r
	}
	if n := l.across(g, dst, r.full, r.axes); n > 0 {
		l.sideBySide(r, outerShape, n, places)
		return r
	}
	r.together(tensor.Numel(outerShape), outerShape, places)
	return r
}

// across is how many axes at the end are not reduced, so that the elements of a
// row lie apart and those of neighbouring rows together; 0: the lanes run along
// the rows.
func (l *lowerer) across(g *group, dst *place, full, axes []int) int {
	n, size := 0, 1
	for a := len(full) - 1; a >= 0 && !slices.Contains(axes, a); a-- {
		n++
		size *= full[a]
	}
	if size < 8 || !dst.layout.isPlain() {
		return 0
	}
	return n
}

// sideBySide goes through rows that lie across, some neighbours at a time. The
// last ones overlap those before them if they are fewer.
func (l *lowerer) sideBySide(r *rowPass, outerShape []int, n int, places func([]*loop.Expr) func([]*loop.Expr) []*loop.Expr) {
	const most, scratch = 128, 32 << 10
	lead, last := outerShape[:len(outerShape)-n], outerShape[len(outerShape)-n:]
	size := tensor.Numel(last)
	chunk := min(size, most)
	if len(r.temps) > 0 {
		for chunk > 16 && chunk*r.rowLen*4 > scratch {
			chunk /= 2
		}
	}
	if chunk < size && chunk > 8 {
		chunk &^= 7
		for c := chunk; c >= chunk/2; c -= 8 {
			if size%c == 0 {
				chunk = c
				break
			}
		}
	}
	r.lane = r.fresh("l", chunk)
	parts := (size + chunk - 1) / chunk
	r.outer = r.fresh("r", tensor.Numel(lead)*parts)
	start := loop.Mul(loop.Mod(loop.V(r.outer), parts), chunk)
	if size%chunk != 0 {
		start = loop.Clamp(start, 0, size-chunk)
	}
	oidx := loop.Unflatten(loop.Div(loop.V(r.outer), parts), lead)
	oidx = append(oidx, loop.Unflatten(loop.Add(start, loop.V(r.lane)), last)...)
	r.rows = []*rowState{r.state(places(oidx))}
}

// inner is a pass over the rows' elements.
func (r *rowPass) inner(build func(k int, idx []*loop.Expr, flat *loop.Expr) []loop.Stmt) []loop.Stmt {
	if r.tiles != nil {
		return r.tiles.pass(r, func(idx []*loop.Expr, flat *loop.Expr) []loop.Stmt { return build(0, idx, flat) })
	}
	return []loop.Stmt{r.first(r.rowLen, build)}
}

// fold is a pass that reduces the rows.
func (r *rowPass) fold(ts []*rowResult, op string, build func(k int, idx []*loop.Expr, flat *loop.Expr) (pre []loop.Stmt, val *loop.Expr)) []loop.Stmt {
	if r.tiles != nil {
		return r.tiles.fold(r, ts[0], combine[op], identity(op, ts[0].kind), func(idx []*loop.Expr, flat *loop.Expr) ([]loop.Stmt, *loop.Expr) {
			return build(0, idx, flat)
		})
	}
	return r.inner(func(k int, idx []*loop.Expr, flat *loop.Expr) []loop.Stmt {
		pre, val := build(k, idx, flat)
		return append(pre, ts[k].add(combine[op], val))
	})
}

// first is a pass over so many of the rows' elements.
func (r *rowPass) first(n int, build func(k int, idx []*loop.Expr, flat *loop.Expr) []loop.Stmt) loop.Stmt {
	v := r.fresh("j", n)
	flat := loop.V(v)
	if r.lane != nil {
		flat = loop.Add(loop.Mul(flat, r.lane.N), loop.V(r.lane))
	}
	var body []loop.Stmt
	r.all(func(k int) {
		body = append(body, build(k, r.at(loop.Unflatten(loop.V(v), r.innerShape)), flat)...)
	})
	if r.lane == nil {
		return &loop.For{Var: v, Kind: loop.Vector, Body: body}
	}
	return &loop.For{Var: v, Body: []loop.Stmt{&loop.For{Var: r.lane, Kind: loop.Vector, Body: body}}}
}

// each does something once a row.
func (r *rowPass) each(s loop.Stmt) []loop.Stmt {
	if r.lane == nil {
		return []loop.Stmt{s}
	}
	return []loop.Stmt{&loop.For{Var: r.lane, Kind: loop.Vector, Body: []loop.Stmt{s}}}
}

// rowResult is what a row has one of.
type rowResult struct {
	r    *rowPass
	kind tensor.DType
	reg  *loop.Reg    // of one row
	buf  *loop.Buffer // of rows side by side
}

func (r *rowPass) result(v *ir.Value, kind tensor.DType) *rowResult {
	t := &rowResult{r: r, kind: kind}
	if r.lane == nil {
		t.reg = r.reg("acc", kind)
	} else {
		t.buf = r.local("acc", kind, r.lane.N)
	}
	return t
}

func (t *rowResult) value() *loop.Expr {
	if t.reg != nil {
		return loop.R(t.reg)
	}
	return loop.At(t.buf, loop.V(t.r.lane))
}

func (t *rowResult) set(val *loop.Expr) loop.Stmt {
	if t.reg != nil {
		return &loop.Set{Reg: t.reg, Val: val, Decl: true}
	}
	return &loop.Store{Buf: t.buf, Index: loop.V(t.r.lane), Val: val}
}

func (t *rowResult) add(fn string, val *loop.Expr) loop.Stmt {
	if t.reg != nil {
		return &loop.Accum{Reg: t.reg, Fn: fn, Val: val}
	}
	return t.set(loop.Fn(fn, t.value(), val))
}

// done makes a result what the kernel holds of a value.
func (t *rowResult) done(v *ir.Value) {
	t.r.kb.memo = map[string]*loop.Expr{}
	t.r.known = append(t.r.known, v)
	d := v.DType()
	t.r.kb.over[v] = func([]*loop.Expr) *loop.Expr { return loop.To(d, t.value()) }
}

// derived computes the dear functions of a result that the passes to come read.
func (r *rowPass) derived(of *ir.Value) (body []loop.Stmt) {
	for _, n := range r.l.dear {
		v := n.Outputs[0]
		if m := r.l.member[v]; m != nil && m != r.g || !slices.Equal(v.Static(), of.Static()) || slices.Contains(r.known, v) {
			continue
		}
		if !dependsOn(v, of, r.l) || slices.ContainsFunc(r.g.rows, func(o *ir.Node) bool {
			return !slices.Contains(r.known, o.Outputs[0]) && dependsOn(v, o.Outputs[0], r.l)
		}) {
			continue
		}
		idx := r.at(loop.Unflatten(loop.Int(0), r.innerShape))
		t := r.result(v, v.DType())
		body = append(body, r.each(t.set(r.access(v, idx)))...)
		t.done(v)
	}
	return body
}

// keep finds the dear values that an expression needs and that no pass has
// kept yet; they are stored in this pass.
func (r *rowPass) keep(v *ir.Value, idx []*loop.Expr, flat *loop.Expr) (pre []loop.Stmt) {
	for _, t := range r.temps {
		if r.kept[t] || !dependsOn(v, t, r.l) {
			continue
		}
		r.kept[t] = true
		side := 1
		if r.lane != nil {
			side = r.lane.N
		}
		buf := r.local("row", t.DType(), r.rowLen*side)
		pre = append(pre, &loop.Store{Buf: buf, Index: flat, Val: r.access(t, idx)})
		r.kb.memo = map[string]*loop.Expr{}
		r.kb.over[t] = func(i []*loop.Expr) *loop.Expr {
			var in []*loop.Expr
			for a := range r.full {
				if slices.Contains(r.axes, a) {
					in = append(in, i[a])
				}
			}
			at := loop.Flatten(in, r.innerShape)
			switch {
			case r.tiles != nil:
				at = r.tiles.at(loop.Div(at, r.tiles.channel.N))
			case r.lane != nil:
				at = loop.Add(loop.Mul(at, side), loop.V(r.lane))
			}
			return loop.At(buf, at)
		}
	}
	return pre
}

// rowTemps are the members of a row group that more than one pass reads and
// that cost more than a load; none if a row does not fit the cache.
func (l *lowerer) rowTemps(g *group, full []int, rowLen int) []*ir.Value {
	if rowLen > 65536 {
		return nil
	}
	roots := []*ir.Value{g.root}
	for _, r := range g.rows {
		roots = append(roots, r.Inputs[0])
	}
	var out []*ir.Value
	if l.dear == nil {
		l.dear = []*ir.Node{}
		for _, n := range l.g.Nodes {
			if core.Lookup(n.Op).Class == core.Pointwise && opCost(n) >= 4 && l.group[n.Outputs[0]] == nil {
				l.dear = append(l.dear, n)
			}
		}
	}
	for _, n := range l.dear {
		v := n.Outputs[0]
		if m := l.member[v]; m != nil && m != g || v == g.root || !slices.Equal(v.Static(), full) {
			continue
		}
		passes := 0
		for _, r := range roots {
			if dependsOn(r, v, l) {
				passes++
			}
		}
		if passes > 1 {
			out = append(out, v)
		}
	}
	return out
}

// dependsOn reports whether computing v where it is read computes t, looking
// through values that are not in memory and not past reductions.
func dependsOn(v, t *ir.Value, l *lowerer) bool {
	seen := map[*ir.Value]bool{}
	var visit func(x *ir.Value) bool
	visit = func(x *ir.Value) bool {
		if x == t {
			return true
		}
		if seen[x] || x.Def == nil || l.places[x] != nil || core.Lookup(x.Def.Op).Class == core.Reduction {
			return false
		}
		seen[x] = true
		return slices.ContainsFunc(x.Def.Inputs, visit)
	}
	return visit(v)
}
