package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Channels that are joined, cut and shuffled between convolutions stay where
// they were computed. A value is then a list of channels of other values, its
// pieces: what works channel by channel is done to each piece, a pointwise
// convolution reads the channels that it needs from all of them, which lie in
// one buffer, each from a block of its own on. Nothing is moved, and an odd number of
// channels costs lanes but no copy.

// inPieces is the attribute of nodes that no kernel is made of where layouts
// allow it: concatenations whose operands each begin a block, gathers of
// channels before a convolution, slices that begin at a block.
const inPieces = "pieces"

// channel is a channel of a value that is stored.
type channel struct {
	of *ir.Value
	at int
}

// pieces rebuilds a graph. What it learns on the way (values that are wanted
// whole, values that had better been computed in parts) makes it begin again.
type pieces struct {
	g     *ir.Graph
	lanes int
	isOut map[*ir.Value]bool
	lazy  map[*ir.Value]bool  // made when they are wanted: the inner steps of shuffles
	whole map[*ir.Value]bool  // wanted in one piece
	cuts  map[*ir.Value][]int // where values are to be cut
	again bool
	gain  bool // something is read in pieces
	had   int  // cuts when the round began

	b     *core.Builder
	to    map[*ir.Value]*ir.Value
	in    map[*ir.Value][]channel
	pools map[*ir.Value]*pool
	fresh map[*ir.Value]bool // done by pieces
	uses  map[*ir.Value]int
}

// maxRounds bounds how often a graph is begun again.
const maxRounds = 100

// inPiecesOf gives the graph with values in pieces, or as it is if none gain.
func inPiecesOf(g *ir.Graph, lanes int) (*ir.Graph, error) {
	p := &pieces{g: g, lanes: lanes, isOut: map[*ir.Value]bool{}, lazy: map[*ir.Value]bool{}, whole: map[*ir.Value]bool{}, cuts: map[*ir.Value][]int{}, uses: g.Uses()}
	if !p.worth() {
		return g, nil
	}
	for _, v := range g.Outputs {
		p.isOut[v] = true
	}
	for range maxRounds {
		p.again, p.gain = false, false
		if err := core.Catch(p.round); err != nil {
			return nil, err
		}
		if !p.again {
			break
		}
	}
	if p.again || !p.gain {
		return g, nil
	}
	p.b.G.Sweep()
	distinct(p.b.G)
	return p.b.G, nil
}

// worth finds out whether channels are joined beside blocks, or shuffled, and
// which nodes are inner steps of a shuffle.
func (p *pieces) worth() bool {
	uses, found := p.uses, false
	for _, n := range p.g.Nodes {
		if a, _ := shuffled(n); a > 0 {
			found = true
			t := n.Inputs[0]
			r := t.Def.Inputs[0]
			p.lazy[t] = uses[t] == 1
			p.lazy[r] = p.lazy[t] && uses[r] == 1
		}
		found = found || p.oddGroups(n)
		if n.Op != "concat" || n.Int("axis", 0) != 1 || !image(n.Outputs[0]) {
			continue
		}
		at := 0
		for _, x := range n.Inputs {
			found = found || at%p.lanes != 0 || x.Def != nil && x.Def.Op == "slice"
			at += x.Static()[1]
		}
	}
	return found
}

// image reports a value that may be in pieces: one image of F32.
func image(v *ir.Value) bool {
	return v.Rank() == 4 && v.DType() == tensor.F32 && v.Static()[0] == 1 && tensor.Numel(v.Static()) > 0
}

// shuffled gives the groups that a node takes channels in turn from, and the
// value; 0 if it does something else.
func shuffled(n *ir.Node) (groups int, x *ir.Value) {
	v := n.Outputs[0]
	if n.Op != "reshape" || !image(v) {
		return 0, nil
	}
	t := n.Inputs[0].Def
	if t == nil || t.Op != "transpose" || t.Inputs[0].Def == nil || t.Inputs[0].Def.Op != "reshape" {
		return 0, nil
	}
	x, s, perm := t.Inputs[0].Def.Inputs[0], t.Inputs[0].Static(), t.Ints("perm")
	if !slices.Equal(x.Static(), v.Static()) || len(s) < 4 || s[0] != 1 || s[1]*s[2] != v.Static()[1] || !slices.Equal(perm[:3], []int{0, 2, 1}) {
		return 0, nil
	}
	for i, a := range perm[3:] {
		if a != i+3 {
			return 0, nil
		}
	}
	return s[1], x
}

// round rebuilds the graph as far as it is known to be good.
func (p *pieces) round() {
	p.b = core.NewBuilder(p.g.Name)
	p.had = len(p.cuts)
	p.to, p.in, p.pools = map[*ir.Value]*ir.Value{}, map[*ir.Value][]channel{}, map[*ir.Value]*pool{}
	p.fresh = map[*ir.Value]bool{}
	for _, v := range p.g.Inputs {
		p.to[v] = p.b.Input(v.Name, v.DType(), v.Static()...)
	}
	for _, n := range p.g.Nodes {
		p.b.Origin = n.Origin
		if !p.lazy[n.Outputs[0]] {
			p.node(n)
		}
		if len(p.cuts) != p.had {
			return
		}
	}
	p.b.G.Outputs = outputs(p.b, p.g.Outputs, p.value)
}

func (p *pieces) node(n *ir.Node) {
	v := n.Outputs[0]
	if len(n.Outputs) == 1 && image(v) && !p.isOut[v] {
		for _, f := range []func(*ir.Node) []channel{p.moved, p.byPiece, p.byGroup, p.cut} {
			list := f(n)
			if list == nil && len(p.cuts) == p.had {
				continue
			}
			if list == nil { // it will be done by pieces the next time
				return
			}
			if x := allOf(list); x != nil {
				p.to[v] = x
				return
			}
			p.in[v] = list
			return
		}
	}
	p.make(n)
}

// make rebuilds a node on whole values, or on channels that it picks.
func (p *pieces) make(n *ir.Node) {
	in := make([]*ir.Value, len(n.Inputs))
	for i, v := range n.Inputs {
		if i == 0 && n.Op == "conv" {
			if in[i] = p.picked(n); in[i] != nil {
				continue
			}
		}
		in[i] = p.value(v)
	}
	for i, v := range p.b.NodeN(n.Op, in, flatAttrs(n)...) {
		p.to[n.Outputs[i]] = v
		if v.Def != nil && v.Def.Op == n.Op {
			v.Name = n.Outputs[i].Name
		}
	}
}

// list is the pieces of a value, nil if it is one.
func (p *pieces) list(v *ir.Value) []channel {
	if p.whole[v] {
		return nil
	}
	return p.in[v]
}

// value is a value in one piece.
func (p *pieces) value(v *ir.Value) *ir.Value {
	if w := p.to[v]; w != nil {
		return w
	}
	if v.Const != nil {
		p.to[v] = p.b.NamedConst(v.Name, v.Const)
		return p.to[v]
	}
	list := p.in[v]
	if list != nil && !p.whole[v] && v.Static()[2]*v.Static()[3] > 1 {
		p.again = true
		if n := v.Def; n.Op != "slice" || !p.wishCuts(n.Inputs[0], n.Ints("starts")[1], v.Static()[1]) {
			p.whole[v] = true
		}
	}
	if list == nil || v.Def.Op == "concat" || v.Def.Op == "slice" || v.Def.Op == "reshape" {
		p.make(v.Def)
		return p.to[v]
	}
	var runs []*ir.Value
	for i := 0; i < len(list); {
		j := i + 1
		for j < len(list) && list[j].of == list[i].of && list[j].at == list[j-1].at+1 {
			j++
		}
		runs = append(runs, p.b.SliceAxis(list[i].of, 1, list[i].at, j-i))
		i = j
	}
	p.to[v] = p.b.Concat(1, runs...)
	return p.to[v]
}

// allOf is the value that a list is all channels of, in order.
func allOf(list []channel) *ir.Value {
	x := list[0].of
	if x.Static()[1] != len(list) {
		return nil
	}
	for i, c := range list {
		if c.of != x || c.at != i {
			return nil
		}
	}
	return x
}

// channels are those of a value, in pieces or not; nil if it is better not
// read by channels.
func (p *pieces) channels(v *ir.Value) []channel {
	if l := p.list(v); l != nil {
		return l
	}
	if constantOnly(v) || p.lazy[v] {
		return nil
	}
	x := p.value(v)
	if !p.blocked(x, 0) {
		return nil
	}
	l := make([]channel, x.Static()[1])
	for i := range l {
		l[i] = channel{x, i}
	}
	return l
}

// moved is the result of a node that moves channels.
func (p *pieces) moved(n *ir.Node) []channel {
	switch n.Op {
	case "concat":
		return p.joined(n)
	case "slice":
		x, v := n.Inputs[0], n.Outputs[0]
		starts := n.Ints("starts")
		if !image(x) || x.Static()[2] != v.Static()[2] || x.Static()[3] != v.Static()[3] || v.Static()[1] < 2 || n.Ints("steps")[1] != 1 || n.Ints("steps")[2] != 1 || n.Ints("steps")[3] != 1 {
			return nil
		}
		if l := p.channels(x); l != nil {
			return l[starts[1] : starts[1]+v.Static()[1]]
		}
	case "reshape":
		groups, x := shuffled(n)
		if groups == 0 {
			return nil
		}
		if l := p.channels(x); l != nil {
			out, each := make([]channel, len(l)), len(l)/groups
			for i := range out {
				out[i] = l[i%groups*each+i/groups]
			}
			return out
		}
	}
	return nil
}

// joined is the result of a concatenation; nil if its operands are whole and
// begin at blocks.
func (p *pieces) joined(n *ir.Node) []channel {
	if n.Int("axis", 0) != 1 {
		return nil
	}
	odd := false
	var out []channel
	for _, x := range n.Inputs {
		odd = odd || len(out)%p.lanes != 0 || p.list(x) != nil
		l := p.channels(x)
		if l == nil {
			return nil
		}
		out = append(out, l...)
	}
	if !odd {
		return nil
	}
	return out
}

// blocked reports that a value of the new graph will lie in channel blocks: it
// comes from a convolution with enough channels.
func (p *pieces) blocked(v *ir.Value, depth int) bool {
	n := v.Def
	if n == nil || !image(v) || depth > 24 || v.Static()[2]*v.Static()[3] == 1 {
		return false
	}
	deeper := func(x *ir.Value) bool { return p.blocked(x, depth+1) }
	switch {
	case n.Op == "conv":
		oc := v.Static()[1]
		if constant(n.Inputs[1]) == nil || n.Inputs[0].DType() != tensor.F32 || n.Inputs[0].Rank() != 4 {
			return false
		}
		g := n.Int("groups", 1)
		return g == 1 && oc*4 >= p.lanes*3 || g == oc && deeper(n.Inputs[0])
	case n.Op == "window_max", n.Op == "window_sum":
		return deeper(n.Inputs[0])
	case n.Int(inPieces, 0) == 1:
		return true
	case core.Lookup(n.Op).Class == core.Pointwise:
		return slices.ContainsFunc(n.Inputs, deeper)
	}
	return false
}
