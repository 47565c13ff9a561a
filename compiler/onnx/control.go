package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// controlOps run subgraphs. Compiled graphs have no jumps: loops are unrolled,
// and a branch on data computes both sides and selects.
var controlOps = []Op{
	{Name: "If", Since: []int{1, 11, 13, 16, 19, 21, 23, 24, 25}, Expand: expandIf},
	{Name: "Loop", Since: []int{1, 11, 13, 16, 19, 21, 23, 24, 25}, Expand: expandLoop},
	{Name: "Scan", Since: []int{8, 9, 11, 16, 19, 21, 23, 24, 25}, Expand: expandScan},
}

const (
	// maxUnroll bounds the iterations that a compiled loop or recurrent layer
	// is unrolled into.
	maxUnroll = 4096
	// maxRounds bounds evaluation, where a loop may never end.
	maxRounds = 1 << 18
)

// unroll refuses an iteration count that would make a graph of absurd size.
func (c *Ctx) unroll(what string, n int) {
	limit := maxUnroll
	if c.Evaluating() {
		limit = maxRounds
	}
	if n > limit {
		c.Unsupported("unrolling %d iterations of %s (the limit is %d)", n, what, limit)
	}
}

// body is a subgraph attribute that must be there.
func (c *Ctx) bodyAttr(name string) *ir.Graph {
	g := c.N.GraphAttr(name)
	if g == nil {
		c.Fail("attribute %s is missing", name)
	}
	return g
}

func expandIf(c *Ctx) {
	cond := c.In(0)
	if n := tensor.Numel(core.Shape(cond)); n != 1 {
		c.Fail("the condition has %d elements", n)
	}
	yes, no := c.bodyAttr("then_branch"), c.bodyAttr("else_branch")
	if cond.Const != nil {
		g := no
		if cond.Const.Int(0) != 0 {
			g = yes
		}
		for i, v := range c.Subgraph(g, nil) {
			c.OutVal(i, v)
		}
		return
	}
	a, b := c.Subgraph(yes, nil), c.Subgraph(no, nil)
	if len(a) != len(b) {
		c.Fail("the branches have %d and %d outputs", len(a), len(b))
	}
	pick := c.B.Reshape(cond)
	for i := range a {
		if !c.Wants(i) {
			continue
		}
		c.OutVal(i, c.choose(pick, a[i], b[i]))
	}
}

// choose selects between the results of two branches by a run-time condition.
func (c *Ctx) choose(cond *ir.Value, a, b *Val) *Val {
	if a == nil || b == nil || a.T == nil || b.T == nil {
		c.Unsupported("a branch on a condition that is computed at run time, with sequence or optional results,")
	}
	if a.T.DType() != b.T.DType() || !slices.Equal(core.Shape(a.T), core.Shape(b.T)) {
		c.Unsupported("a branch on a condition that is computed at run time, with results of types %s and %s,", a.T.Type, b.T.Type)
	}
	if a.T == b.T {
		return a
	}
	return TensorVal(c.B.Where(cond, a.T, b.T))
}

// truth reads a condition that must be constant.
func (c *Ctx) truth(v *Val, what string) bool {
	if v == nil {
		return true
	}
	if v.T == nil || tensor.Numel(core.Shape(v.T)) != 1 {
		c.Fail("%s is no single truth value", what)
	}
	if v.T.Const == nil {
		c.Dynamic(what)
	}
	return v.T.Const.Int(0) != 0
}

// tick refuses the iteration after the last that is allowed.
func (c *Ctx) tick(i int, what string) {
	limit := maxUnroll
	if c.Evaluating() {
		limit = maxRounds
	}
	if i >= limit {
		c.Unsupported("a %s of more than %d iterations", what, limit)
	}
}

func expandLoop(c *Ctx) {
	body := c.bodyAttr("body")
	trips := -1
	if c.Has(0) {
		m := c.Ints(0, "the trip count")
		if len(m) != 1 {
			c.Fail("the trip count has %d elements", len(m))
		}
		trips = max(m[0], 0)
	}
	cond := c.Val(1)
	if trips < 0 && cond == nil {
		c.Unsupported("a Loop with neither trip count nor condition, which never ends,")
	}
	carried := make([]*Val, max(c.NIn()-2, 0))
	for i := range carried {
		carried[i] = c.Val(i + 2)
	}
	scans := len(body.Outputs) - 1 - len(carried)
	if scans < 0 {
		c.Fail("the body has %d outputs, at least %d are needed", len(body.Outputs), 1+len(carried))
	}
	if trips >= 0 && cond == nil {
		c.unroll("Loop", trips)
	}
	parts := make([][]*ir.Value, scans)
	for i := 0; (trips < 0 || i < trips) && c.truth(cond, "the loop condition"); i++ {
		c.tick(i, "Loop")
		now := cond
		if now == nil {
			now = TensorVal(c.B.Const(tensor.Scalar(true)))
		}
		args := append([]*Val{TensorVal(c.B.Const(tensor.Scalar(int64(i)))), now}, carried...)
		outs := c.Subgraph(body, args)
		if trips < 0 || cond != nil { // with a trip count alone, ONNX ignores the body's condition
			cond = outs[0]
		}
		copy(carried, outs[1:])
		for k := range parts {
			parts[k] = append(parts[k], c.tensorOf(outs[1+len(carried)+k]))
		}
	}
	for i, v := range carried {
		c.OutVal(i, v)
	}
	for k, p := range parts {
		c.Out(len(carried)+k, c.stack(p, 0, body.Outputs[1+len(carried)+k]))
	}
}

// tensorOf is a body's result that must be a tensor.
func (c *Ctx) tensorOf(v *Val) *ir.Value {
	if v == nil || v.T == nil {
		c.Fail("a scan output of the body is no tensor")
	}
	return v.T
}

// stack joins the results of all iterations along a new axis; of none, the
// shape is what the body declares.
func (c *Ctx) stack(parts []*ir.Value, axis int, declared *ir.Value) *ir.Value {
	if len(parts) == 0 {
		if !declared.Type.DType.Valid() {
			c.Unsupported("no iterations, with a scan output %q of undeclared type,", declared.Name)
		}
		shape := make([]int, len(declared.Type.Shape))
		for i, d := range declared.Type.Shape {
			shape[i] = max(d.N, 0)
		}
		shape = slices.Insert(shape, min(axis, len(shape)), 0)
		return c.B.Const(tensor.New(declared.Type.DType, shape...))
	}
	wide := make([]*ir.Value, len(parts))
	for i, p := range parts {
		a := axis
		if a < 0 {
			a += p.Rank() + 1
		}
		if a < 0 || a > p.Rank() {
			c.Fail("axis %d is outside rank %d", axis, p.Rank()+1)
		}
		wide[i] = c.B.Reshape(p, slices.Insert(slices.Clone(core.Shape(p)), a, 1)...)
		axis = a
	}
	return c.B.Concat(axis, wide...)
}

// scanSpec is how one Scan walks its inputs and outputs.
type scanSpec struct {
	body            *ir.Graph
	states, ins     int
	inAxes, outAxes []int
	inRev, outRev   []bool
}

func flags(v []int, n int) []bool {
	out := make([]bool, n)
	for i := range out {
		out[i] = i < len(v) && v[i] == 1
	}
	return out
}

func padded(v []int, n int) []int {
	out := make([]int, n)
	copy(out, v)
	return out
}

func expandScan(c *Ctx) {
	body := c.bodyAttr("body")
	first := 0
	if c.Version < 9 {
		first = 1 // sequence_lens
	}
	s := scanSpec{body: body, ins: c.N.Int("num_scan_inputs", 0)}
	s.states = c.NIn() - first - s.ins
	outs := len(body.Outputs) - s.states
	if s.states < 0 || outs < 0 || s.ins < 1 {
		c.Fail("%d scan inputs of %d inputs, a body with %d outputs", s.ins, c.NIn()-first, len(body.Outputs))
	}
	if c.Version < 9 {
		s.inAxes, s.outAxes = make([]int, s.ins), make([]int, outs)
		s.inRev, s.outRev = flags(c.N.Ints("directions"), s.ins), make([]bool, outs)
		c.scanBatched(s)
		return
	}
	s.inAxes, s.outAxes = padded(c.N.Ints("scan_input_axes"), s.ins), padded(c.N.Ints("scan_output_axes"), outs)
	s.inRev, s.outRev = flags(c.N.Ints("scan_input_directions"), s.ins), flags(c.N.Ints("scan_output_directions"), outs)
	states, ins := make([]*Val, s.states), make([]*ir.Value, s.ins)
	for i := range states {
		states[i] = c.Val(i)
	}
	for i := range ins {
		ins[i] = c.In(s.states + i)
	}
	for i, v := range c.scan(s, states, ins, -1) {
		c.OutVal(i, v)
	}
}

// scan runs a body over the slices of its inputs; length -1 takes all.
func (c *Ctx) scan(s scanSpec, states []*Val, ins []*ir.Value, length int) []*Val {
	for i, v := range ins {
		s.inAxes[i] = c.Axis(s.inAxes[i], v.Rank())
		n := core.Shape(v)[s.inAxes[i]]
		if length < 0 {
			length = n
		}
		if n < length || s.ins > 1 && n != core.Shape(ins[0])[s.inAxes[0]] {
			c.Fail("the scan inputs have %d and %d steps", n, length)
		}
	}
	c.unroll("Scan", length)
	parts := make([][]*ir.Value, len(s.outAxes))
	for t := range length {
		args := slices.Clone(states)
		for i, v := range ins {
			at := t
			if s.inRev[i] {
				at = length - 1 - t
			}
			args = append(args, TensorVal(c.B.Drop(c.B.SliceAxis(v, s.inAxes[i], at, 1), s.inAxes[i])))
		}
		outs := c.Subgraph(s.body, args)
		states = outs[:s.states]
		for k := range parts {
			parts[k] = append(parts[k], c.tensorOf(outs[s.states+k]))
		}
	}
	res := slices.Clone(states)
	for k, p := range parts {
		if s.outRev[k] {
			slices.Reverse(p)
		}
		res = append(res, TensorVal(c.stack(p, s.outAxes[k], s.body.Outputs[s.states+k])))
	}
	return res
}

// scanBatched is Scan of opset 8: axis 0 is a batch, each with a length of its
// own; axis 1 is walked.
func (c *Ctx) scanBatched(s scanSpec) {
	in := c.In(1 + s.states)
	if in.Rank() < 2 {
		c.Fail("scan input of rank %d has no batch and sequence axes", in.Rank())
	}
	batch, steps := core.Shape(in)[0], core.Shape(in)[1]
	lens := slices.Repeat([]int{steps}, batch)
	if c.Has(0) {
		lens = c.Ints(0, "sequence_lens")
	}
	if len(lens) != batch {
		c.Fail("%d sequence lengths for a batch of %d", len(lens), batch)
	}
	cols := make([][]*ir.Value, len(s.body.Outputs))
	for n := range batch {
		if lens[n] < 0 || lens[n] > steps {
			c.Fail("sequence length %d of %d steps", lens[n], steps)
		}
		row := func(i int) *ir.Value { return c.B.Drop(c.B.SliceAxis(c.In(i), 0, n, 1), 0) }
		states, ins := make([]*Val, s.states), make([]*ir.Value, s.ins)
		for i := range states {
			states[i] = TensorVal(row(1 + i))
		}
		for i := range ins {
			ins[i] = row(1 + s.states + i)
		}
		for i, v := range c.scan(s, states, ins, lens[n]) {
			t := c.tensorOf(v)
			if i >= s.states && lens[n] < steps {
				hi := make([]int, t.Rank())
				hi[0] = steps - lens[n]
				t = c.B.Pad(t, make([]int, t.Rank()), hi, c.B.Const(tensor.New(t.DType())))
			}
			cols[i] = append(cols[i], t)
		}
	}
	for i, p := range cols {
		c.Out(i, c.stack(p, 0, s.body.Outputs[i]))
	}
}
