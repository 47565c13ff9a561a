package lower

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// otherForms reports that pointwise convolutions had better have forms that do
// not pick channels: products of bfloat16, matrices.
func (o Options) otherForms() bool {
	l := lowerer{o: o}
	return l.hasMatrix() || o.Precision.Allows(precision.BF16)
}

// blockParts are the channels of a concatenation's operands that begin a block
// each; nil if it is none of that kind.
func blockParts(v *ir.Value) []int {
	if v.Def == nil || v.Def.Op != "concat" || v.Def.Int(inPieces, 0) == 0 {
		return nil
	}
	var out []int
	for _, x := range v.Def.Inputs {
		if p := blockParts(x); p != nil {
			out = append(out, p...)
		} else {
			out = append(out, x.Static()[1])
		}
	}
	return out
}

// pickedBy gives what a convolution picks channels from, and which: nil if it
// reads its operand as it is.
func pickedBy(n *ir.Node) (x *ir.Value, at []int) {
	x = n.Inputs[0]
	if d := x.Def; d != nil && d.Op == "gather" && d.Int(inPieces, 0) == 1 {
		idx := d.Inputs[1].Const
		for i := range idx.Len() {
			at = append(at, int(idx.Int(i)))
		}
		return d.Inputs[0], at
	}
	return x, nil
}

// aliased gives a slice that begins at a block of what it is of its place
// there; nil if it needs a place of its own.
func (l *lowerer) aliased(v *ir.Value) *place {
	if v.Def.Op != "slice" || v.Def.Int(inPieces, 0) == 0 || l.isOut[v] {
		return nil
	}
	from := v.Def.Ints("starts")[1]
	p := l.places[v.Def.Inputs[0]]
	if p == nil || p.layout.L == 1 || p.layout.Parts != nil || p.buf.Where != program.Arena || p.layout.As != tensor.Invalid || from%p.layout.L != 0 {
		return nil
	}
	lay := p.layout
	lay.Shape = v.Static()
	b := l.newBuf(v.Name, v.DType(), lay.Len())
	b.Of, b.From = p.buf, from/lay.L*lay.plane()*b.Type.Size()
	return &place{b, lay}
}

// sharedHalos gives values that lie in one another the same halo.
func (l *lowerer) sharedHalos(halo map[*ir.Value][2][2]int) {
	for changed := true; changed; {
		changed = false
		for _, n := range l.g.Nodes {
			if n.Int(inPieces, 0) == 0 || n.Op == "gather" {
				continue
			}
			all := []*ir.Value{n.Outputs[0]}
			if n.Op == "slice" {
				all = append(all, n.Inputs[0])
			} else {
				all = append(all, n.Inputs...)
			}
			var most [2][2]int
			for _, v := range all {
				for s, sides := range halo[v] {
					for a, h := range sides {
						most[s][a] = max(most[s][a], h)
					}
				}
			}
			for _, v := range all {
				if most != [2][2]int{} && halo[v] != most {
					halo[v], changed = most, true
				}
			}
		}
	}
}

// pickedRun is neighbouring blocks, or channels of one, that a convolution
// reads: n channels of each, from a lane on.
type pickedRun struct{ slot, blocks, n int }

// pickedRuns sorts the picked channels by where they lie; order gives for each
// in turn its place among the picked ones.
func (c *tiledConv) pickedRuns(lanes int) (runs []pickedRun, order []int) {
	end := 0
	for _, s := range c.slots {
		end = max(end, s+1)
	}
	of := make([]int, end)
	for i, s := range c.slots {
		of[s] = i + 1
	}
	for s := 0; s < end; {
		if of[s] == 0 {
			s++
			continue
		}
		n := 0
		for s+n < end && of[s+n] > 0 && (n == 0 || (s+n)%lanes != 0) {
			order = append(order, of[s+n]-1)
			n++
		}
		if k := len(runs); k > 0 && n == lanes && runs[k-1].n == lanes && runs[k-1].slot+runs[k-1].blocks*lanes == s {
			runs[k-1].blocks++
		} else {
			runs = append(runs, pickedRun{s, 1, n})
		}
		s += n
	}
	return runs, order
}

// pickedChannels are the loops over picked channels, with the offset in X of
// the first.
func (t *convTile) pickedChannels(plane, vec int) (at int, red []loop.Red, more []loop.Part) {
	runs, _ := t.pickedRuns(t.lanes)
	w := 0
	for i, r := range runs {
		x := r.slot/t.lanes*plane + r.slot%t.lanes
		nest := []loop.Red{{N: r.blocks, XStep: plane, WStep: r.n * vec}, {N: r.n, XStep: 1, WStep: vec}}
		if i == 0 {
			at, red = x, nest
		} else {
			more = append(more, loop.Part{X: x - at, W: w, Red: nest})
		}
		w += r.blocks * r.n * vec
	}
	return at, red, more
}

// packPicked lays weights out in the order in which picked channels are read.
func (t *convTile) packPicked(l *lowerer) *program.Buf {
	lanes, ob, width := t.lanes, t.shape.OB, t.groupWidth
	_, order := t.pickedRuns(lanes)
	return l.weightBuf(t.wName, t.ocb*t.ic*lanes, func() []float32 {
		src, out := tensor.As[float32](t.w), make([]float32, t.ocb*t.ic*lanes)
		for oc := range t.oc {
			block := oc / lanes
			first := block / ob * ob
			n := min(ob, width-first)
			for step, ic := range order {
				out[(first*t.ic+step*n+block-first)*lanes+oc%lanes] = src[oc*t.ic+ic]
			}
		}
		return out
	})
}

// pickedName tells one set of picked channels from another, in names of sites.
func (c *tiledConv) pickedName(lanes int) string {
	runs, _ := c.pickedRuns(lanes)
	var b strings.Builder
	for _, r := range runs {
		fmt.Fprintf(&b, " %d+%dx%d", r.slot, r.blocks, r.n)
	}
	return b.String()
}

// pieceOf reports that a value, or what is computed from it element by element,
// is read in pieces.
func (l *lowerer) pieceOf(v *ir.Value, depth int) bool {
	return depth < 8 && slices.ContainsFunc(l.uses[v], func(n *ir.Node) bool {
		return n.Int(inPieces, 0) == 1 || core.Lookup(n.Op).Class == core.Pointwise && l.pieceOf(n.Outputs[0], depth+1)
	})
}
