package lower

import (
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// arrange gives every stored value a buffer and a layout. Tiled convolutions
// want channel blocks and a halo; values between them follow, so that a whole
// network keeps one layout and conversions stand only at its ends.
func (l *lowerer) arrange() {
	halo := l.halos()
	for _, n := range l.g.Nodes {
		g := l.group[n.Outputs[0]]
		if g == nil {
			continue
		}
		values := []*ir.Value{g.root}
		if g.anchor != nil && len(g.anchor.Outputs) > 1 {
			values = g.anchor.Outputs
		}
		for _, v := range values {
			if p := l.aliased(v); p != nil {
				l.places[v], l.aliases[v] = p, true
				continue
			}
			lay := plain(v.Static())
			if len(values) > 1 { // sorting stores by position, row-major
				l.places[v] = l.newPlace(v.Name, v.DType(), lay)
				continue
			}
			if !l.isOut[v] && l.wantsBlocks(g, v) {
				lay.L, lay.Parts = l.o.Lanes, blockParts(v)
			}
			if h, ok := halo[v]; ok && !l.isOut[v] && v.Rank() == 4 {
				lay.Lo, lay.Hi = h[0], h[1]
			}
			if !l.isOut[v] {
				l.narrowed(g, v, &lay)
			}
			l.places[v] = l.newPlace(v.Name, v.DType(), lay)
		}
	}
	l.joinInPlace()
}

// halos is, for each value that tiled convolutions read directly, the padding
// that they need around it.
func (l *lowerer) halos() map[*ir.Value][2][2]int {
	out := map[*ir.Value][2][2]int{}
	for _, n := range l.g.Nodes {
		if n.Op != "conv" {
			continue
		}
		c := l.tiled(n)
		if c == nil || c.icl < l.o.Lanes { // brings its input into groups
			continue
		}
		v, _ := pickedBy(n)
		if l.group[v] == nil {
			continue
		}
		h := out[v]
		for a := range 2 {
			h[0][a] = max(h[0][a], c.lo[a])
			h[1][a] = max(h[1][a], c.hi[a])
		}
		out[v] = h
	}
	l.sharedHalos(out)
	return out
}

// wantsBlocks decides whether a value lies in channel blocks.
func (l *lowerer) wantsBlocks(g *group, v *ir.Value) bool {
	if v.Rank() != 4 || v.DType() != tensor.F32 && v.DType() != tensor.U8 && v.DType() != tensor.I8 || l.o.Lanes < 2 {
		return false
	}
	if len(g.rows) > 0 {
		return l.rowsInBlocks(g, v) && !l.readByPixels(v)
	}
	if g.anchor != nil {
		switch g.anchor.Op {
		case "conv":
			c := l.tiled(g.anchor)
			return c != nil && !c.rowwise
		case "window_max", "window_sum":
			p := l.source(g.anchor.Inputs[0])
			return p != nil && p.layout.L > 1
		}
		return false
	}
	if v.Def.Op == "concat" {
		if v.Def.Int("axis", 0) != 1 {
			return false
		}
		for i, x := range v.Def.Inputs {
			p := l.places[x]
			if p == nil || p.layout.L == 1 || i < len(v.Def.Inputs)-1 && x.Static()[1]%p.layout.L != 0 && blockParts(v) == nil {
				return false
			}
		}
		return true
	}
	return l.movedInBlocks(v) || l.readsBlocks(v)
}

// readByPixels reports whether all that read a value are convolutions with
// pixels in the lanes.
func (l *lowerer) readByPixels(v *ir.Value) bool {
	for _, n := range l.uses[v] {
		if c := l.convs[n]; c == nil || !c.rowwise || n.Inputs[0] != v {
			return false
		}
	}
	return len(l.uses[v]) > 0
}

// readsBlocks reports whether a value is computed from one that lies in blocks
// of the same channels.
func (l *lowerer) readsBlocks(v *ir.Value) bool {
	blocked := false
	seen := map[*ir.Value]bool{}
	var visit func(x *ir.Value)
	visit = func(x *ir.Value) {
		if seen[x] {
			return
		}
		seen[x] = true
		if p := l.places[x]; p != nil {
			blocked = blocked || p.layout.L > 1 && x.Static()[1] == v.Static()[1]
			return
		}
		if x.Def == nil || x.Rank() < 4 {
			return
		}
		switch x.Def.Op {
		case "reshape":
			if !hasAxis(x.Def.Inputs[0].Static(), v.Static()) || !hasAxis(x.Static(), v.Static()) {
				return // channels may be elsewhere; where pixels are repeated they stay
			}
		case "transpose", "concat":
			return // channels may be elsewhere
		case "slice":
			if x.Static()[1] != x.Def.Inputs[0].Static()[1] {
				return
			}
		}
		for _, y := range x.Def.Inputs {
			visit(y)
		}
	}
	visit(v)
	return blocked
}

// hasAxis reports whether a shape has an axis of channels where an image has it.
func hasAxis(shape, image []int) bool {
	n := 1
	for _, d := range shape {
		if n == image[0] && d == image[1] {
			return true
		}
		n *= d
	}
	return false
}
