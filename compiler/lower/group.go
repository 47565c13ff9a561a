package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// group is what one kernel computes: an anchor with the elementwise ops behind
// it, or the reductions of a row with all between them, or elementwise ops
// alone. Values read by a group are in memory or are cheap enough to compute
// where they are read.
type group struct {
	root   *ir.Value // what is stored
	anchor *ir.Node
	rows   []*ir.Node // reductions over the same axes, in order
	// attention is what lies before the anchor where that is the second product
	// of a fused attention.
	attention *attention
	mix       *mix // the image that is resized; nil: none is
}

// closureLimit bounds how many nodes a fused group may have: kernels beyond
// that spill registers, and the search for the exit stays cheap.
const closureLimit = 48

// fuse decides the groups.
func (l *lowerer) fuse() {
	pos := map[*ir.Node]int{}
	for i, n := range l.g.Nodes {
		pos[n] = i
	}
	l.attentions(pos)
	l.mixes(pos)
	for _, n := range l.g.Nodes {
		v := n.Outputs[0]
		if l.member[v] != nil {
			continue
		}
		class := core.Lookup(n.Op).Class
		switch {
		case class == core.Reduction && n.Op[0] == 'r':
			if !l.rowGroup(n, pos) {
				l.anchorGroup(n, pos)
			}
		case class == core.Reduction, class == core.Contraction, class == core.Window, class == core.Ordered:
			l.anchorGroup(n, pos)
		}
	}
	cost := map[*ir.Value]int{}
	for _, n := range l.g.Nodes {
		v := n.Outputs[0]
		if g := l.member[v]; g != nil && g.root != v {
			continue
		}
		if l.group[v] != nil {
			continue
		}
		c := opCost(n)
		for _, x := range n.Inputs {
			if l.group[x] == nil {
				c += cost[x]
			}
		}
		cost[v] = c
		if l.stored(n, v, c) {
			l.add(&group{root: v}, v)
			delete(cost, v)
		}
	}
}

func (l *lowerer) add(g *group, members ...*ir.Value) {
	l.group[g.root] = g
	for _, v := range members {
		l.member[v] = g
	}
}

// opCost is the work of one element of a pointwise op; movements are free.
func opCost(n *ir.Node) int {
	switch n.Op {
	case "exp", "log", "tanh", "erf", "pow", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh":
		return 16
	case "div", "sqrt", "mod", "fmod":
		return 4
	case "gather", "concat", "pad":
		return 2
	}
	if core.Lookup(n.Op).Class == core.Pointwise {
		return 1
	}
	return 0
}

const (
	cheap     = 3  // recomputing this much costs less than a trip through memory
	inlineCap = 96 // a kernel's expression stays below this
)

// stored decides whether a pointwise or moving value gets memory.
func (l *lowerer) stored(n *ir.Node, v *ir.Value, cost int) bool {
	if l.isOut[v] || cost > inlineCap || n.Op == "concat" {
		return true
	}
	if n.Op == "gather" && n.Int(inPieces, 0) == 1 {
		return false // convolutions pick the channels themselves
	}
	uses := l.uses[v]
	if len(uses) > 1 && cost > cheap {
		return true
	}
	for _, c := range uses {
		switch core.Lookup(c.Op).Class {
		case core.Contraction:
			if constantOnly(v) && c.Inputs[0] != v || cost == 0 && l.readThrough(c, v) {
				continue
			}
			return true
		case core.Window:
			if !widenedBytes(v) {
				return true
			}
		case core.Ordered:
			if c.Op != "cumulate" && !readOnce(c, v) {
				return true
			}
		case core.Indexed:
			if c.Inputs[0] == v && cost > cheap || l.readAgain(c, v, cost) {
				return true
			}
		case core.Movement:
			if c.Op == "broadcast" && cost > cheap && tensor.Numel(c.Outputs[0].Static()) > tensor.Numel(v.Static()) {
				return true
			}
		}
		if c.Int(inPieces, 0) == 1 {
			return true
		}
		if g := l.member[c.Outputs[0]]; g != nil && len(g.rows) > 0 && (cost > cheap || cost > 0 && l.crossed(v)) {
			return true // a row is read in several passes
		}
	}
	return false
}

// crossed reports whether a value is computed, where it is read, from elements
// that a transpose has moved.
func (l *lowerer) crossed(v *ir.Value) bool {
	if v.Def == nil || l.group[v] != nil || l.member[v] != nil {
		return false
	}
	return v.Def.Op == "transpose" || slices.ContainsFunc(v.Def.Inputs, l.crossed)
}

// readAgain reports a look-up that would compute positions once for each of
// the elements that they find together, or go through a transpose more often
// than there are elements.
func (l *lowerer) readAgain(c *ir.Node, v *ir.Value, cost int) bool {
	if c.Op != "gather" || l.o.Lanes < 2 {
		return false
	}
	reads, has := tensor.Numel(c.Outputs[0].Static()), tensor.Numel(v.Static())
	if c.Inputs[0] != v {
		return cost > cheap && reads > has
	}
	for v.Def != nil && v.Def.Op == "reshape" {
		v = v.Def.Inputs[0]
	}
	return reads > 2*has && v.Def != nil && v.Def.Op == "transpose"
}

// widenedBytes reports a value that is bytes in another type: what they are read
// as is no reason to store them again.
func widenedBytes(v *ir.Value) bool {
	return v.Def != nil && v.Def.Op == "cast" && isByte(v.Def.Inputs[0].DType()) && v.DType() != tensor.Bool
}

// source is the place of a value, or of the bytes that it widens; nil: none.
func (l *lowerer) source(v *ir.Value) *place {
	if p := l.places[v]; p != nil || !widenedBytes(v) {
		return p
	}
	return l.places[v.Def.Inputs[0]]
}

func constantOnly(v *ir.Value) bool {
	if v.Const != nil {
		return true
	}
	if v.Def == nil || len(v.Def.Inputs) == 0 {
		return false
	}
	for _, x := range v.Def.Inputs {
		if !constantOnly(x) {
			return false
		}
	}
	return true
}

// closure grows a set of values from start through compatible nodes until
// exactly one value of it is read outside and done accepts that value.
func (l *lowerer) closure(start *ir.Value, at int, compatible func(*ir.Node) bool, done func(set []*ir.Value, exit *ir.Value) bool) (set []*ir.Value, exit *ir.Value) {
	in := map[*ir.Value]bool{start: true}
	set = []*ir.Value{start}
	open := map[*ir.Value]int{start: len(l.uses[start])} // uses outside the set
	if l.isOut[start] {
		open[start]++
	}
	for i := at + 1; i < len(l.g.Nodes) && len(set) < closureLimit && i < at+600; i++ {
		n := l.g.Nodes[i]
		reads := 0
		for _, x := range n.Inputs {
			if in[x] {
				reads++
			}
		}
		if reads == 0 || len(n.Outputs) != 1 || l.member[n.Outputs[0]] != nil || !compatible(n) {
			continue
		}
		for _, x := range n.Inputs {
			if in[x] {
				if open[x]--; open[x] == 0 {
					delete(open, x)
				}
			}
		}
		v := n.Outputs[0]
		in[v] = true
		set = append(set, v)
		open[v] = len(l.uses[v])
		if l.isOut[v] {
			open[v]++
		}
		if len(open) == 1 && open[v] > 0 && done(set, v) {
			return set, v
		}
	}
	return nil, nil
}

// extend moves the exit of a group forward through elementwise ops.
func (l *lowerer) extend(exit *ir.Value, pos map[*ir.Node]int) (members []*ir.Value, last *ir.Value) {
	shape := exit.Static()
	last = exit
	budget := inlineCap
	for {
		set, e := l.closure(last, pos[last.Def], func(n *ir.Node) bool {
			return core.Lookup(n.Op).Class == core.Pointwise && slices.Equal(n.Outputs[0].Static(), shape)
		}, func([]*ir.Value, *ir.Value) bool { return true })
		if e == nil {
			return members, last
		}
		for _, v := range set[1:] {
			budget -= opCost(v.Def)
		}
		if budget < 0 {
			return members, last
		}
		members = append(members, set[1:]...)
		last = e
	}
}

func (l *lowerer) anchorGroup(n *ir.Node, pos map[*ir.Node]int) {
	g := &group{anchor: n, root: n.Outputs[0]}
	members := slices.Clone(n.Outputs)
	if len(n.Outputs) == 1 && n.Op != "scatter" && n.Op != "cumulate" {
		more, last := l.extend(n.Outputs[0], pos)
		members = append(members, more...)
		g.root = last
	}
	l.add(g, members...)
}

// rowGroup tries to make one kernel of a reduction and what uses it to scale
// the very row that was reduced: softmax, layer normalization and the like.
func (l *lowerer) rowGroup(r *ir.Node, pos map[*ir.Node]int) bool {
	full := r.Inputs[0].Static()
	axes := r.Ints("axes")
	reduced := r.Outputs[0].Static()
	if len(axes) == 0 || slices.Equal(full, reduced) {
		return false
	}
	compatible := func(n *ir.Node) bool {
		out := n.Outputs[0].Static()
		switch o := core.Lookup(n.Op); {
		case n.Op == "broadcast":
			return slices.Equal(out, full) && slices.Equal(n.Inputs[0].Static(), reduced)
		case o.Class == core.Pointwise:
			return slices.Equal(out, full) || slices.Equal(out, reduced)
		case o.Class == core.Reduction && n.Op[0] == 'r':
			return slices.Equal(n.Inputs[0].Static(), full) && slices.Equal(n.Ints("axes"), axes)
		}
		return false
	}
	// The furthest exit is wanted: softmax can be left before its sum already,
	// layer normalization before its variance.
	var set []*ir.Value
	var exit *ir.Value
	l.closure(r.Outputs[0], pos[r], compatible, func(s []*ir.Value, v *ir.Value) bool {
		if slices.Equal(v.Static(), full) {
			set, exit = slices.Clone(s), v
		}
		return false
	})
	if exit == nil {
		return false
	}
	g := &group{}
	for _, v := range set {
		if core.Lookup(v.Def.Op).Class == core.Reduction {
			g.rows = append(g.rows, v.Def)
		}
	}
	more, last := l.extend(exit, pos)
	g.root = last
	l.add(g, append(set, more...)...)
	return true
}
