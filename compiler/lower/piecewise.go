package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// pieceRun is neighbouring channels of a value, and where they stand in a list.
type pieceRun struct {
	of    *ir.Value
	first int
	pos   []int
}

// runs sorts a list by values; nil if the channels of a value have gaps, do not
// begin at a block, or there are more than most values.
func (p *pieces) runs(list []channel, most int) []pieceRun {
	at := map[*ir.Value]map[int]int{}
	var order []*ir.Value
	for i, c := range list {
		if at[c.of] == nil {
			at[c.of] = map[int]int{}
			order = append(order, c.of)
		}
		if _, twice := at[c.of][c.at]; twice {
			return nil
		}
		at[c.of][c.at] = i
	}
	if len(order) > most {
		return nil
	}
	var out []pieceRun
	for _, v := range order {
		r := pieceRun{of: v, first: v.Static()[1]}
		for c := range at[v] {
			r.first = min(r.first, c)
		}
		if r.first%p.lanes != 0 {
			return nil
		}
		for c := r.first; c < r.first+len(at[v]); c++ {
			i, ok := at[v][c]
			if !ok {
				return nil
			}
			r.pos = append(r.pos, i)
		}
		out = append(out, r)
	}
	return out
}

// manyPieces is up to how many pieces a node is done one by one, fewPieces up to
// how many if it might be done to all in one kernel, where they are joined.
const (
	manyPieces = 12
	fewPieces  = 4
)

// byPiece is the result of a node that works channel by channel on pieces.
func (p *pieces) byPiece(n *ir.Node) []channel {
	most, class := manyPieces, core.Lookup(n.Op).Class
	switch {
	case n.Op == "conv":
		if g := n.Int("groups", 1); g == 1 || g != n.Inputs[0].Static()[1] || g != n.Outputs[0].Static()[1] || constant(n.Inputs[1]) == nil {
			return nil
		}
	case n.Op == "window_max", n.Op == "window_sum":
	case class == core.Reduction && n.Op[0] == 'r':
		if !slices.Equal(n.Ints("axes"), []int{2, 3}) {
			return nil
		}
	case class == core.Pointwise && n.Op != "iota":
		most = fewPieces
	default:
		return nil
	}
	var lead []channel
	for _, x := range n.Inputs {
		if lead = p.list(x); lead != nil {
			if p.fresh[x] && p.uses[x] == 1 { // one kernel with what made the pieces
				most = manyPieces
			}
			break
		}
	}
	if lead == nil {
		return nil
	}
	out := make([]channel, len(lead))
	for _, r := range p.runs(lead, most) {
		in := make([]*ir.Value, len(n.Inputs))
		for i, x := range n.Inputs {
			if n.Op == "conv" && i == 1 {
				in[i] = p.rowsOf(constant(x), x.Name, r.pos)
			} else {
				in[i] = p.part(x, r.pos)
			}
			if in[i] == nil {
				return nil
			}
		}
		y := p.b.Node(n.Op, in, flatAttrs(n, "groups", len(r.pos))...)
		for i, at := range r.pos {
			out[at] = channel{y, i}
		}
	}
	if out[0].of == nil {
		return nil
	}
	p.fresh[n.Outputs[0]] = true
	return out
}

// rowsOf picks along the first axis of a constant.
func (p *pieces) rowsOf(t *tensor.Tensor, name string, pos []int) *ir.Value {
	per := t.Len() / t.Shape[0] * t.DType.Size()
	b := t.Bytes()
	out := tensor.New(t.DType, append([]int{len(pos)}, t.Shape[1:]...)...)
	to := out.Bytes()
	for i, at := range pos {
		copy(to[i*per:(i+1)*per], b[at*per:(at+1)*per])
	}
	return p.b.NamedConst(name, out)
}

// part is what an operand has at places of its list of channels; nil if that is
// not one run of a value.
func (p *pieces) part(x *ir.Value, pos []int) *ir.Value {
	shape := slices.Clone(x.Static())
	if len(shape) != 4 || shape[1] == 1 {
		return nil
	}
	shape[1] = len(pos)
	if x.Def != nil && x.Def.Op == "broadcast" {
		y := x.Def.Inputs[0]
		if y.Rank() != 4 || y.Static()[1] == 1 {
			return p.b.BroadcastTo(p.value(y), shape...)
		}
		if y = p.part(y, pos); y == nil {
			return nil
		}
		return p.b.BroadcastTo(y, shape...)
	}
	if x.Const != nil {
		if x.Const.Shape[0] != 1 {
			return nil
		}
		t := p.rowsOf(x.Const.Reshaped(x.Const.Shape[1:]...), x.Name, pos)
		return p.b.NamedConst(x.Name, t.Const.Reshaped(shape...))
	}
	if l := p.list(x); l != nil {
		for i, at := range pos {
			if l[at].of != l[pos[0]].of || l[at].at != l[pos[0]].at+i {
				return nil
			}
		}
		return p.slice(l[pos[0]].of, l[pos[0]].at, len(pos))
	}
	for i, at := range pos {
		if at != pos[0]+i {
			return nil
		}
	}
	if shape[2]*shape[3] == 1 {
		return p.b.SliceAxis(p.value(x), 1, pos[0], len(pos))
	}
	p.wishCuts(x, pos[0], len(pos))
	return nil
}

// slice is a run of channels of a value that lies in blocks, nil if it does not
// begin at one.
func (p *pieces) slice(x *ir.Value, from, n int) *ir.Value {
	s := slices.Clone(x.Static())
	if n == s[1] {
		return x
	}
	if from%p.lanes != 0 {
		return nil
	}
	s[1] = n
	return p.b.Node("slice", []*ir.Value{x}, "starts", []int{0, from, 0, 0}, "sizes", s, "steps", []int{1, 1, 1, 1}, inPieces, 1)
}

// wishCuts asks for a value of the old graph to be computed in parts, so that n
// channels from one on are a part; false if that cannot or need not be.
func (p *pieces) wishCuts(x *ir.Value, from, n int) bool {
	all := x.Static()[1]
	if p.isOut[x] || p.in[x] != nil || !cuttable(x, 0) || len(p.cuts[x]) >= 3 {
		return false
	}
	cuts, had := slices.Clone(p.cuts[x]), len(p.cuts[x])
	for _, c := range []int{from, from + n} {
		if c > 0 && c < all && !slices.Contains(cuts, c) {
			cuts = append(cuts, c)
		}
	}
	if len(cuts) == had || had > 0 {
		return false
	}
	slices.Sort(cuts)
	blocks, at := 0, 0
	for _, c := range append(slices.Clone(cuts), all) {
		if c-at < p.lanes/2 {
			return false
		}
		blocks += blocksOf(c-at, p.lanes)
		at = c
	}
	if 3*blocks > 4*blocksOf(all, p.lanes) {
		return false
	}
	p.cuts[x], p.again = cuts, true
	return true
}

// cuttable reports that some of a value's channels can be computed alone, at no
// more cost.
func cuttable(v *ir.Value, depth int) bool {
	n := v.Def
	if n == nil || depth > 16 || !image(v) {
		return false
	}
	switch {
	case n.Op == "conv":
		w := constant(n.Inputs[1])
		return n.Int("groups", 1) == 1 && w != nil && n.Inputs[0].DType() == tensor.F32 && w.Len()/w.Shape[0] == w.Shape[1]
	case core.Lookup(n.Op).Class == core.Pointwise && n.Op != "iota":
		for _, x := range n.Inputs {
			if !constantOnly(x) && !cuttable(x, depth+1) {
				return false
			}
		}
		return true
	}
	return false
}

// cut is a value that is to be computed in parts.
func (p *pieces) cut(n *ir.Node) []channel {
	cuts := p.cuts[n.Outputs[0]]
	if cuts == nil {
		return nil
	}
	var out []channel
	for _, to := range append(slices.Clone(cuts), n.Outputs[0].Static()[1]) {
		pos := make([]int, to-len(out))
		for i := range pos {
			pos[i] = len(out) + i
		}
		y := p.some(n.Outputs[0], pos)
		if y == nil {
			return nil
		}
		for i := range pos {
			out = append(out, channel{y, i})
		}
	}
	return out
}

// some computes channels of a value.
func (p *pieces) some(v *ir.Value, pos []int) *ir.Value {
	n := v.Def
	if constantOnly(v) {
		return p.part(v, pos)
	}
	in := make([]*ir.Value, len(n.Inputs))
	if n.Op == "conv" {
		if in[0] = p.picked(n); in[0] == nil {
			in[0] = p.value(n.Inputs[0])
		}
		in[1] = p.rowsOf(constant(n.Inputs[1]), n.Inputs[1].Name, pos)
		return p.b.Node(n.Op, in, flatAttrs(n)...)
	}
	for i, x := range n.Inputs {
		if in[i] = p.some(x, pos); in[i] == nil {
			return nil
		}
	}
	return p.b.Node(n.Op, in, flatAttrs(n)...)
}

// pool is values that lie in one buffer, in the order in which they were first
// read together. Its beginnings are values, too.
type pool struct {
	of []*ir.Value
	at map[*ir.Value]int // the first channel of each
	to []*ir.Value       // the beginning that ends with each; nil: none does
}

// picked is the operand of a pointwise convolution that reads channels of
// pieces; nil if it reads whole values.
func (p *pieces) picked(n *ir.Node) *ir.Value {
	list := p.list(n.Inputs[0])
	if list == nil || n.Int("groups", 1) != 1 || !unpadded(n) {
		return nil
	}
	return p.pick(list)
}

// pick reads channels of values that lie in one buffer; nil if it cannot.
func (p *pieces) pick(list []channel) *ir.Value {
	all, at := p.pooledFor(list)
	if all == nil {
		return nil
	}
	idx := make([]int64, len(list))
	taken := map[channel]bool{}
	for i, c := range list {
		if taken[c] {
			return nil
		}
		taken[c] = true
		idx[i] = int64(at[c.of] + c.at)
	}
	p.gain = true
	return p.b.Node("gather", []*ir.Value{all, p.b.Const(tensor.Of(idx, len(idx)))}, "axis", 1, inPieces, 1)
}

// pooledFor lays what a list is of in one buffer; nil if it cannot.
func (p *pieces) pooledFor(list []channel) (all *ir.Value, at map[*ir.Value]int) {
	var values []*ir.Value
	for _, c := range list {
		if !slices.Contains(values, c.of) {
			values = append(values, c.of)
		}
		if !p.blocked(c.of, 0) {
			return nil, nil
		}
	}
	return p.pooled(values)
}

// pooled gives a value that begins with others, or is the only one; nil if they
// lie apart.
func (p *pieces) pooled(values []*ir.Value) (all *ir.Value, at map[*ir.Value]int) {
	if len(values) == 1 {
		return values[0], map[*ir.Value]int{values[0]: 0}
	}
	var q *pool
	for _, v := range values {
		if o := p.pools[v]; o != nil && q != nil && o != q {
			return nil, nil
		} else if o != nil {
			q = o
		}
	}
	if q == nil {
		q = &pool{at: map[*ir.Value]int{}}
	}
	from, channels := len(q.of), 0
	if from > 0 {
		last := q.of[from-1]
		channels = q.at[last] + last.Static()[1]
	}
	for _, v := range values {
		if p.pools[v] == nil {
			p.pools[v] = q
			q.of, q.at[v], q.to = append(q.of, v), channels, append(q.to, nil)
			channels += v.Static()[1]
		}
	}
	if n := len(q.of); n > from {
		in := q.of[from:]
		if from > 0 {
			in = slices.Concat([]*ir.Value{q.to[from-1]}, in)
		}
		q.to[n-1] = p.b.Node("concat", in, "axis", 1, inPieces, 1)
	}
	last := 0
	for _, v := range values {
		last = max(last, slices.Index(q.of, v))
	}
	for q.to[last] == nil {
		last++
	}
	return q.to[last], q.at
}
