package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// attention is softmax(f(q·kᵀ))·v: two contractions over the same batch with
// the softmax of a row of scores between them. As one kernel it needs scratch
// for some rows of scores and none for the whole matrix.
//
// What f is does not matter, as long as each score depends on the score at its
// own place: scales, sums with a mask, choices, a soft cap. Values shaped like
// the scores may be reshaped on the way if their last axis stays, so that
// "row r, key t" means the same everywhere.
type attention struct {
	qk, pv     *ir.Node
	x          *ir.Value // f(q·kᵀ), what softmax is taken of
	top, sum   *ir.Value // the row's maximum and the sum of its exponentials
	shift      *ir.Value // what is subtracted before the exponential: a function of top
	exponent   *ir.Value // the scores less that
	factor     *ir.Value // what exponentials are multiplied with, or divided by: of sum
	divide     bool
	q, v       core.DotDims
	b, m, d, t int // batches, query rows, query width, keys
	dv         int // value width
}

// attentions finds what can be one kernel and makes groups of it, before any
// other group is made.
func (l *lowerer) attentions(pos map[*ir.Node]int) {
	if l.o.Lanes < 4 {
		return
	}
	for _, n := range l.g.Nodes {
		if n.Op != "dot" || l.member[n.Outputs[0]] != nil {
			continue
		}
		a := l.matchAttention(n)
		if a == nil || a.t < l.o.Lanes { // scores of few keys fill no vector
			continue
		}
		members := l.between(a, pos)
		if members == nil {
			continue
		}
		more, last := l.extend(n.Outputs[0], pos)
		l.add(&group{root: last, anchor: n, attention: a}, append(members, more...)...)
	}
}

// matchAttention walks from the second product to the first.
func (l *lowerer) matchAttention(pv *ir.Node) *attention {
	a := &attention{pv: pv, v: core.DotAxes(pv)}
	p := pv.Inputs[0]
	if rank := p.Rank(); len(a.v.LC) != 1 || a.v.LC[0] != rank-1 || !slices.IsSorted(slices.Concat(a.v.LB, a.v.LF)) {
		return nil
	}
	a.t = p.Static()[p.Rank()-1]
	p = unshaped(p)
	e, w := rowScaled(p)
	if e == nil || e.Def == nil || e.Def.Op != "exp" {
		return nil
	}
	a.factor, a.divide = w, p.Def.Op == "div"
	s := e.Def.Inputs[0].Def
	if s == nil || s.Op != "sub" {
		return nil
	}
	a.x, a.shift, a.exponent = s.Inputs[0], rowOnly(s.Inputs[1]), e.Def.Inputs[0]
	if a.shift == nil {
		return nil
	}
	a.top = l.reduction(a.shift, "reduce_max", a.x)
	a.sum = l.reduction(a.factor, "reduce_sum", e)
	if a.top == nil || a.sum == nil {
		return nil
	}
	for _, n := range l.scoreDots(a.x, a.t) {
		if a.qk = n; a.fits() {
			return a
		}
	}
	return nil
}

// unshaped looks through reshapes that keep the last axis.
func unshaped(v *ir.Value) *ir.Value {
	for v.Def != nil && v.Def.Op == "reshape" && lastAxis(v) == lastAxis(v.Def.Inputs[0]) {
		v = v.Def.Inputs[0]
	}
	return v
}

func lastAxis(v *ir.Value) int {
	if v.Rank() == 0 {
		return -1
	}
	return v.Static()[v.Rank()-1]
}

// rowOnly gives the value of a row that is broadcast along it.
func rowOnly(v *ir.Value) *ir.Value {
	if v.Def == nil || v.Def.Op != "broadcast" {
		return nil
	}
	x := v.Def.Inputs[0]
	if lastAxis(x) != 1 || !slices.Equal(x.Static()[:x.Rank()-1], v.Static()[:v.Rank()-1]) {
		return nil
	}
	return x
}

// rowScaled takes a product or quotient apart into a value and a row's factor.
func rowScaled(p *ir.Value) (e, w *ir.Value) {
	if p.Def == nil || p.DType() != tensor.F32 {
		return nil, nil
	}
	switch in := p.Def.Inputs; p.Def.Op {
	case "div":
		return in[0], rowOnly(in[1])
	case "mul":
		if w := rowOnly(in[1]); w != nil {
			return in[0], w
		}
		return in[1], rowOnly(in[0])
	}
	return nil, nil
}

// reduction finds the reduction of x along its last axis that a row's value is
// a function of.
func (l *lowerer) reduction(v *ir.Value, op string, x *ir.Value) *ir.Value {
	if v == nil {
		return nil
	}
	for range 8 {
		n := v.Def
		switch {
		case n == nil:
			return nil
		case n.Op == op:
			if n.Inputs[0] == x && slices.Equal(n.Ints("axes"), []int{x.Rank() - 1}) {
				return v
			}
			return nil
		case core.Lookup(n.Op).Class != core.Pointwise || len(n.Inputs) == 0:
			return nil
		}
		next := n.Inputs[0]
		for _, in := range n.Inputs {
			if !constantOnly(in) {
				next = in
			}
		}
		v = next
	}
	return nil
}

// scoreDots lists the products that a score may be a function of.
func (l *lowerer) scoreDots(x *ir.Value, keys int) []*ir.Node {
	var out []*ir.Node
	seen := map[*ir.Value]bool{}
	var visit func(v *ir.Value)
	visit = func(v *ir.Value) {
		if seen[v] || v.Def == nil || len(seen) > closureLimit || lastAxis(v) != keys || tensor.Numel(v.Static()) != tensor.Numel(x.Static()) {
			return
		}
		seen[v] = true
		switch n := v.Def; {
		case n.Op == "dot":
			out = append(out, n)
		case n.Op == "reshape", core.Lookup(n.Op).Class == core.Pointwise:
			for _, in := range n.Inputs {
				visit(in)
			}
		}
	}
	visit(x)
	return out
}

// fits reports whether both products have the form that the kernel computes,
// with enough rows to pay for laying the keys out.
func (a *attention) fits() bool {
	q, k, v := a.qk.Inputs[0], a.qk.Inputs[1], a.pv.Inputs[1]
	for _, x := range []*ir.Value{q, k, v, a.x, a.qk.Outputs[0], a.pv.Outputs[0]} {
		if x.DType() != tensor.F32 {
			return false
		}
	}
	if constantOnly(k) || constantOnly(v) {
		return false
	}
	a.q = core.DotAxes(a.qk)
	size := func(v *ir.Value, axes []int) int {
		s := 1
		for _, x := range axes {
			s *= v.Static()[x]
		}
		return s
	}
	p := a.pv.Inputs[0]
	a.b, a.m, a.d, a.dv = size(q, a.q.LB), size(q, a.q.LF), size(q, a.q.LC), size(v, a.v.RF)
	if len(a.q.RF) != 1 || size(k, a.q.RF) != a.t || size(p, a.v.LB) != a.b || size(p, a.v.LF) != a.m {
		return false
	}
	return a.b > 0 && a.m >= 4 && a.d >= 4 && a.dv >= 4 && a.t >= 8
}

// between lists the values from the first product to the second; nil if one of
// them is read elsewhere, or is none that belongs between them.
func (l *lowerer) between(a *attention, pos map[*ir.Node]int) []*ir.Value {
	from := pos[a.qk]
	depends := map[*ir.Value]bool{a.qk.Outputs[0]: true}
	seen := map[*ir.Value]bool{a.qk.Outputs[0]: true}
	var members []*ir.Value
	var visit func(v *ir.Value) bool
	visit = func(v *ir.Value) bool {
		if seen[v] {
			return depends[v]
		}
		seen[v] = true
		if v.Def == nil || pos[v.Def] < from {
			return false
		}
		for _, in := range v.Def.Inputs {
			if visit(in) {
				depends[v] = true
			}
		}
		if depends[v] {
			members = append(members, v)
		}
		return depends[v]
	}
	if !visit(a.pv.Inputs[0]) {
		return nil
	}
	if a.pv.Inputs[1] != a.pv.Inputs[0] && visit(a.pv.Inputs[1]) {
		return nil
	}
	members = append([]*ir.Value{a.qk.Outputs[0]}, members...)
	for _, v := range members {
		if l.isOut[v] || l.member[v] != nil || !a.belongs(v) {
			return nil
		}
		for _, u := range l.uses[v] {
			if u != a.pv && (len(u.Outputs) != 1 || !depends[u.Outputs[0]]) {
				return nil
			}
		}
	}
	if !a.apart(depends) {
		return nil
	}
	return append(members, a.pv.Outputs[0])
}

// belongs reports whether the value is one of a row's scores, or of its row, in
// the order of the scores.
func (a *attention) belongs(v *ir.Value) bool {
	rows := a.b * a.m
	n, last := tensor.Numel(v.Static()), lastAxis(v)
	full, row := last == a.t && n == rows*a.t, last == 1 && n == rows
	switch op := v.Def.Op; {
	case v == a.qk.Outputs[0], v == a.top, v == a.sum:
		return true
	case op == "broadcast":
		in := v.Def.Inputs[0]
		return rowOnly(v) != nil || slices.Equal(in.Static(), v.Static())
	case op == "reshape":
		return (full || row) && lastAxis(v.Def.Inputs[0]) == last
	}
	return core.Lookup(v.Def.Op).Class == core.Pointwise && (full || row)
}

// apart reports whether the scores depend on no reduction and the values of a
// row on nothing but reductions: each is computed in a pass of its own.
func (a *attention) apart(depends map[*ir.Value]bool) bool {
	reaches := func(from *ir.Value, stop []*ir.Value, never ...*ir.Value) bool {
		found := false
		seen := map[*ir.Value]bool{}
		var visit func(v *ir.Value)
		visit = func(v *ir.Value) {
			if seen[v] || !depends[v] || slices.Contains(stop, v) {
				return
			}
			seen[v] = true
			found = found || slices.Contains(never, v)
			for _, in := range v.Def.Inputs {
				visit(in)
			}
		}
		visit(from)
		return found
	}
	scores := a.qk.Outputs[0]
	return !reaches(a.x, []*ir.Value{scores}, a.top, a.sum) &&
		!reaches(a.shift, []*ir.Value{a.top}, scores, a.sum) &&
		!reaches(a.factor, []*ir.Value{a.top, a.sum}, scores)
}
