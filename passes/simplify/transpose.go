package simplify

import (
	"fmt"
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/rewrite"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func sameOrder(c *operands, n *ir.Node) *rewrite.Patch {
	p, ok := c.perm(n)
	if !ok || n.In(0) == nil {
		return nil
	}
	if slices.IsSorted(p) {
		return same(n, n.Inputs[0], "it moves no axis")
	}
	s, ok := c.shape(n.Inputs[0])
	if !ok || len(s) != len(p) || slices.Contains(s, 0) {
		return nil
	}
	var moved, shape []int
	for _, a := range p {
		shape = append(shape, s[a])
		if s[a] != 1 {
			moved = append(moved, a)
		}
	}
	if !slices.IsSorted(moved) {
		return nil
	}
	r, inits := c.reshapeNode(n, n.Inputs[0], n.Outputs[0], shape)
	return &rewrite.Patch{At: n, Nodes: []*ir.Node{r}, Inits: inits, Why: "it moves only axes of size 1: a Reshape"}
}

// compose is the permutation of first p, then q.
func compose(p, q []int) []int {
	r := make([]int, len(q))
	for i, a := range q {
		r[i] = p[a]
	}
	return r
}

// pointwise ops of one operand (further ones are scalars or absent).
var pointwise = []string{
	"Relu", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "Selu", "Celu", "Gelu", "Mish", "HardSigmoid", "HardSwish", "Softplus", "Softsign",
	"ThresholdedRelu", "Clip", "Abs", "Neg", "Exp", "Log", "Sqrt", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Erf", "Not",
	"Sin", "Cos", "Cast", "Identity",
}

// binary ops where the other operand may be a constant.
var binary = []string{"Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu", "Pow"}

// transposeMerge climbs from a Transpose over elementwise ops, each read by
// nobody else, to another Transpose; both become one, behind the ops.
func transposeMerge(c *operands, n *ir.Node) *rewrite.Patch {
	q, ok := c.perm(n)
	if !ok || n.In(0) == nil {
		return nil
	}
	var chain []*ir.Node // from the lower Transpose up
	v := n.Inputs[0]
	for {
		d := c.Producer(v)
		if d == nil || !official(d) || len(d.Outputs) != 1 {
			return nil
		}
		if d.Op == "Transpose" {
			return c.mergeTransposes(n, d, q, chain)
		}
		x := c.through(d)
		if x == nil || c.OnlyReader(v) == nil {
			return nil
		}
		chain = append(chain, d)
		v = x
	}
}

// through is the operand of an elementwise op that its result is shaped like.
func (c *operands) through(d *ir.Node) *ir.Value {
	if slices.Contains(pointwise, d.Op) {
		return d.In(0)
	}
	if !slices.Contains(binary, d.Op) || len(d.Inputs) != 2 || c.opset() < 7 {
		return nil
	}
	for _, i := range []int{1, 0} {
		if i == 0 && d.Op == "PRelu" {
			break
		}
		if k := c.Const(d.Inputs[i]); k != nil && c.keepsShape(d.Inputs[1-i], k) {
			return d.Inputs[1-i]
		}
	}
	return nil
}

func (c *operands) mergeTransposes(n, top *ir.Node, q []int, chain []*ir.Node) *rewrite.Patch {
	p, ok := c.perm(top)
	if !ok || len(p) != len(q) {
		return nil
	}
	// Where others read the upper Transpose it stays, and moving the lower one
	// would gain nothing unless they cancel.
	r := compose(p, q)
	if c.OnlyReader(top.Outputs[0]) == nil && !slices.IsSorted(r) && len(chain) > 0 {
		return nil
	}
	patch := &rewrite.Patch{At: n, Why: fmt.Sprintf("after %q it makes the permutation %v", top.Label(), r)}
	x := top.Inputs[0]
	for i := len(chain) - 1; i >= 0; i-- {
		d := chain[i]
		in := slices.Clone(d.Inputs)
		for j, v := range in {
			k := c.Const(v)
			switch {
			case v == c.through(d):
				in[j] = x
			case k != nil && slices.Contains(binary, d.Op) && len(k.Shape) > 0:
				t := transposed(padRank(k, len(p)), inverse(p))
				in[j] = c.NewConst(v.Name+"_transposed", t)
				patch.Inits = append(patch.Inits, in[j])
			}
		}
		out := c.made(d.Outputs[0].Name+"_moved", ir.Type{}, false)
		patch.Nodes = append(patch.Nodes, like(d, in, []*ir.Value{out}))
		x = out
	}
	if len(chain) > 0 || !slices.IsSorted(r) {
		t := &ir.Node{Op: "Transpose", Name: n.Name, Inputs: []*ir.Value{x}, Outputs: []*ir.Value{n.Outputs[0]}}
		t.SetAttr("perm", ir.Int64s(r))
		patch.Nodes = append(patch.Nodes, t)
		return patch
	}
	patch.Same = []rewrite.Swap{{Old: n.Outputs[0], New: x}}
	patch.Why = fmt.Sprintf("it undoes %q", top.Label())
	return patch
}

func inverse(p []int) []int {
	r := make([]int, len(p))
	for i, a := range p {
		r[a] = i
	}
	return r
}

// padRank puts axes of size 1 before a shape.
func padRank(t *tensor.Tensor, rank int) *tensor.Tensor {
	s := slices.Clone(t.Shape)
	for len(s) < rank {
		s = append([]int{1}, s...)
	}
	return t.Reshaped(s...)
}

// transposed moves a constant's axes.
func transposed(t *tensor.Tensor, perm []int) *tensor.Tensor {
	shape := make([]int, len(perm))
	strides := make([]int, len(perm))
	step := 1
	for i := len(t.Shape) - 1; i >= 0; i-- {
		strides[i] = step
		step *= t.Shape[i]
	}
	for i, a := range perm {
		shape[i] = t.Shape[a]
	}
	out := tensor.New(t.DType, shape...)
	at := make([]int, len(shape))
	for i := range out.Len() {
		from := 0
		for k, a := range perm {
			from += at[k] * strides[a]
		}
		if t.DType.IsFloat() {
			out.SetFloat(i, t.Float(from))
		} else {
			out.SetInt(i, t.Int(from))
		}
		for k := len(at) - 1; k >= 0; k-- {
			if at[k]++; at[k] < shape[k] {
				break
			}
			at[k] = 0
		}
	}
	return out
}

// transposeJoin moves equal Transposes of all operands behind an op.
func transposeJoin(c *operands, n *ir.Node) *rewrite.Patch {
	if len(n.Inputs) < 2 || len(n.Outputs) != 1 {
		return nil
	}
	var perm []int
	var in []*ir.Value
	for _, v := range n.Inputs {
		d := c.Producer(v)
		if d == nil || d.Op != "Transpose" || !official(d) || c.OnlyReader(v) == nil {
			return nil
		}
		p, ok := c.perm(d)
		if !ok || perm != nil && !slices.Equal(p, perm) {
			return nil
		}
		perm = p
		in = append(in, d.Inputs[0])
	}
	m := like(n, in, []*ir.Value{c.made(n.Outputs[0].Name+"_moved", ir.Type{}, false)})
	if n.Op == "Concat" {
		a := n.Int("axis", 1)
		if a < 0 {
			a += len(perm)
		}
		if a < 0 || a >= len(perm) {
			return nil
		}
		m.SetAttr("axis", int64(perm[a]))
	} else if c.opset() < 7 {
		return nil // legacy broadcasting names axes
	}
	t := &ir.Node{Op: "Transpose", Name: c.Producer(n.Inputs[0]).Name, Inputs: m.Outputs, Outputs: n.Outputs}
	t.SetAttr("perm", ir.Int64s(perm))
	return &rewrite.Patch{At: n, Nodes: []*ir.Node{m, t}, Why: fmt.Sprintf("its operands are transposed alike, by %v", perm)}
}
