package simplify

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/rewrite"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// operands is an editor with what is known about values.
type operands struct {
	*rewrite.Editor
	s *simplifier
}

// version is the since-version of an op that applies in the model; 0 if the
// op is unknown.
func (c *operands) version(n *ir.Node) int {
	d := n.Domain
	if d == "ai.onnx" {
		d = ""
	}
	_, v := onnx.Lookup(n.Domain, n.Op, c.s.subject.Opsets[d])
	return v
}

// opset is the model's version of ONNX's own ops.
func (c *operands) opset() int { return c.s.subject.Opsets[""] }

// typ is the type of a value if something sure is known: what the file says of
// values inside the graph is not.
func (c *operands) typ(v *ir.Value) (ir.Type, bool) {
	if v == nil {
		return ir.Type{}, false
	}
	if t := c.Const(v); t != nil {
		return ir.TensorType(t.DType, t.Shape...), true
	}
	if t, ok := c.s.types[v]; ok {
		return t, true
	}
	t, ok := c.s.facts.Types[v]
	return t, ok
}

// shape is a value's static shape.
func (c *operands) shape(v *ir.Value) ([]int, bool) {
	t, ok := c.typ(v)
	if !ok {
		return nil, false
	}
	return t.Static()
}

func (c *operands) rank(v *ir.Value) (int, bool) {
	t, ok := c.typ(v)
	return len(t.Shape), ok && t.HasRank
}

// ints reads a constant vector of integers.
func (c *operands) ints(v *ir.Value) ([]int, bool) {
	t := c.Const(v)
	if t == nil {
		return nil, false
	}
	s, err := t.Ints()
	return s, err == nil
}

// intsOrAttr reads what older opsets gave as attribute and newer ones give as
// input i.
func (c *operands) intsOrAttr(n *ir.Node, i int, name string) (v []int, known bool) {
	if n.In(i) != nil {
		return c.ints(n.In(i))
	}
	v = n.Ints(name)
	return v, v != nil
}

// perm is a Transpose's permutation.
func (c *operands) perm(n *ir.Node) ([]int, bool) {
	if p := n.Ints("perm"); p != nil {
		return p, isPerm(p)
	}
	r, ok := c.rank(n.In(0))
	if !ok {
		return nil, false
	}
	p := make([]int, r)
	for i := range p {
		p[i] = r - 1 - i
	}
	return p, true
}

func isPerm(p []int) bool {
	s := slices.Sorted(slices.Values(p))
	for i, v := range s {
		if v != i {
			return false
		}
	}
	return true
}

// like copies a node's identity: name, doc, metadata and attributes, with other
// operands.
func like(n *ir.Node, in, out []*ir.Value) *ir.Node {
	m := &ir.Node{Op: n.Op, Domain: n.Domain, Overload: n.Overload, Name: n.Name, Doc: n.Doc, Inputs: in, Outputs: out,
		Attrs: slices.Clone(n.Attrs), Meta: n.Meta, Extra: n.Extra}
	return m
}

// made gives a new intermediate value the type that is known of it.
func (c *operands) made(base string, t ir.Type, known bool) *ir.Value {
	v := c.NewValue(base, ir.Type{})
	if known {
		c.s.types[v] = t
	}
	return v
}

// reshapeNode makes out of x by a Reshape to a shape that may hold one -1.
func (c *operands) reshapeNode(n *ir.Node, x, out *ir.Value, shape []int) (*ir.Node, []*ir.Value) {
	r := &ir.Node{Op: "Reshape", Name: n.Name, Inputs: []*ir.Value{x}, Outputs: []*ir.Value{out}}
	if c.opset() < 5 {
		r.SetAttr("shape", ir.Int64s(shape))
		return r, nil
	}
	s := c.NewConst(out.Name+"_shape", tensor.Of(ir.Int64s(shape), len(shape)))
	r.Inputs = append(r.Inputs, s)
	return r, []*ir.Value{s}
}

// same is the patch that replaces a node's first output by a value.
func same(n *ir.Node, v *ir.Value, why string) *rewrite.Patch {
	return &rewrite.Patch{At: n, Same: []rewrite.Swap{{Old: n.Outputs[0], New: v}}, Why: why}
}

// single reports that a node has exactly one output that counts.
func (c *operands) single(n *ir.Node) bool {
	for i, o := range n.Outputs {
		if o != nil && i > 0 && c.Readers(o) > 0 {
			return false
		}
	}
	return len(n.Outputs) > 0 && n.Outputs[0] != nil
}
