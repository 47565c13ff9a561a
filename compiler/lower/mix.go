package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// mix is an image resized by weighted sums of rows, and then of the columns of
// these. One kernel does both, with the mixed rows in scratch: neither is a
// plane of mixed rows stored, nor is a row mixed once for each of its columns.
type mix struct {
	last *ir.Value // what the sums over columns give
	x    *ir.Value // the image
	rows *ir.Value // the mixed rows
	taps []lookup  // of the columns
}

// lookup is one term of a mix: the position that each output reads, and its weight.
type lookup struct {
	from   *ir.Node // the look-up
	at     *tensor.Tensor
	weight *tensor.Tensor
}

// mixes finds images that are resized along rows and columns.
func (l *lowerer) mixes(pos map[*ir.Node]int) {
	if l.o.Lanes < 4 {
		return
	}
	for _, n := range l.g.Nodes {
		v := n.Outputs[0]
		if n.Op != "add" || v.Rank() != 4 || v.DType() != tensor.F32 || l.member[v] != nil || l.mode(n) == precision.IEEE {
			continue
		}
		m, inner := l.mixOf(v)
		if m == nil || m.window(l.o.Lanes) > 2*l.o.Lanes+2 {
			continue
		}
		more, root := l.extend(v, pos)
		l.add(&group{root: root, mix: m}, append(append(inner, v, m.rows), more...)...)
	}
}

// mixOf takes a value apart that is a mix of columns of a mix of rows; nil if it
// is not one, or if anything else reads a part of it.
func (l *lowerer) mixOf(v *ir.Value) (*mix, []*ir.Value) {
	columns, inner := l.sumOfTaps(v, v, 3)
	if len(columns) < 2 {
		return nil, nil
	}
	m := &mix{last: v, rows: columns[0].from.Inputs[0], taps: columns}
	rows, _ := l.sumOfTaps(m.rows, m.rows, 2)
	if len(rows) < 2 || l.isOut[m.rows] || l.member[m.rows] != nil {
		return nil, nil
	}
	for _, t := range columns {
		if t.from.Inputs[0] != m.rows {
			return nil, nil
		}
	}
	for _, t := range rows {
		if t.from.Inputs[0] != rows[0].from.Inputs[0] {
			return nil, nil
		}
	}
	for _, n := range l.uses[m.rows] {
		if !slices.Contains(inner, n.Outputs[0]) {
			return nil, nil
		}
	}
	m.x = rows[0].from.Inputs[0]
	return m, inner
}

// sumOfTaps lists the terms of a sum of look-ups along an axis with weights, and
// what lies between them and the whole sum.
func (l *lowerer) sumOfTaps(v, whole *ir.Value, axis int) (taps []lookup, inner []*ir.Value) {
	if v.Def == nil || l.member[v] != nil || v != whole && (len(l.uses[v]) != 1 || l.isOut[v]) {
		return nil, nil
	}
	if v != whole {
		inner = append(inner, v)
	}
	switch n := v.Def; n.Op {
	case "add":
		for _, x := range n.Inputs {
			t, in := l.sumOfTaps(x, whole, axis)
			if t == nil {
				return nil, nil
			}
			taps, inner = append(taps, t...), append(inner, in...)
		}
		return taps, inner
	case "mul":
		for i, x := range n.Inputs {
			w := perChannel(n.Inputs[1-i], axis)
			if w == nil || x.Def == nil || x.Def.Op != "gather" || x.Def.Int("axis", 0) != axis || len(l.uses[x]) != 1 || l.isOut[x] {
				continue
			}
			if at := x.Def.Inputs[1].Const; at != nil && len(at.Shape) == 1 && fromStart(at) && x.Rank() == 4 {
				return []lookup{{x.Def, at, w}}, append(inner, x)
			}
		}
	}
	return nil, nil
}

// reads gives the first and last column that n outputs from first on read.
func (m *mix) reads(first, n int) (lo, hi int) {
	lo = m.rows.Static()[3]
	for i := first; i < first+n; i++ {
		for _, t := range m.taps {
			lo, hi = min(lo, int(t.at.Int(i))), max(hi, int(t.at.Int(i)))
		}
	}
	return lo, hi
}

// window is how many columns the outputs of a vector read at most.
func (m *mix) window(lanes int) int {
	size, widest := m.last.Static()[3], 0
	lanes = min(lanes, size)
	for _, first := range starts(size, lanes) {
		lo, hi := m.reads(first, lanes)
		widest = max(widest, hi-lo+1)
	}
	return widest
}

// starts is where vectors along an axis begin; the last ends with the axis, and
// repeats some elements of the one before.
func starts(size, lanes int) []int {
	var out []int
	for at := 0; at < size; at += lanes {
		out = append(out, max(min(at, size-lanes), 0))
	}
	return out
}
