package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// operand is a position among the inputs of a node.
type operand struct {
	node *ir.Node
	i    int
}

// joinInPlace lets the operands of concatenations be computed where they end
// up, so that nothing is copied. It walks backwards, because a concatenation
// may itself be an operand of a later one.
func (l *lowerer) joinInPlace() {
	for _, n := range slices.Backward(l.g.Nodes) {
		v := n.Outputs[0]
		if g := l.group[v]; n.Op != "concat" || g == nil || g.anchor != nil || len(g.rows) > 0 {
			continue
		}
		whole := l.places[v]
		axis := n.Int("axis", 0)
		if l.isOut[v] || tensor.Numel(v.Static()[:axis]) != 1 || !whole.layout.isPlain() && axis != 1 {
			continue
		}
		at := 0
		for i, x := range n.Inputs {
			if from, ok := l.slot(whole, x, axis, at); ok {
				p := l.places[x]
				p.buf.Of, p.buf.From = whole.buf, from
				l.joined[operand{n, i}] = true
			}
			at += x.Static()[axis]
		}
	}
}

// slot gives where in a whole, in bytes, an operand at a position of the joined
// axis begins, if it can be computed there: it has a buffer of its own, lies as
// the whole does, and begins at a cache line.
func (l *lowerer) slot(whole *place, x *ir.Value, axis, at int) (from int, ok bool) {
	p := l.places[x]
	if l.group[x] == nil || l.isOut[x] || p == nil || p.buf.Of != nil || p.buf.Type != whole.buf.Type || p.buf.Len == 0 {
		return 0, false
	}
	w := whole.layout
	if p.layout.L != w.L || p.layout.Lo != w.Lo || p.layout.Hi != w.Hi || p.layout.Shift != w.Shift {
		return 0, false
	}
	if w.isPlain() {
		from = at * tensor.Numel(w.Shape[axis+1:])
	} else {
		slot := w.slot(at)
		if slot%w.L != 0 {
			return 0, false
		}
		from = slot / w.L * w.plane()
	}
	from *= whole.buf.Type.Size()
	return from, from%program.Align == 0
}
