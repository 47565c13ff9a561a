package simplify

import (
	"fmt"
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/rewrite"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// unfoldable ops are left even where all operands are constants: random ones
// mean something new in each run, and DequantizeLinear is how a model stores
// weights in a quarter of the space.
var unfoldable = []string{
	"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "DequantizeLinear",
}

// becomes is the patch that makes constants of all outputs; nil where an
// output of the graph would become an initializer.
func (c *operands) becomes(n *ir.Node, data []*tensor.Tensor, why string) *rewrite.Patch {
	p := &rewrite.Patch{At: n, Why: why}
	for i, o := range n.Outputs {
		if o == nil || c.Readers(o) == 0 {
			continue
		}
		if c.IsOutput(o) || data[i] == nil {
			return nil
		}
		// The old value goes, so the new one may have its name.
		v := ir.NewConst(o.Name, data[i])
		if v.Name == "" {
			v.Name = c.Fresh("constant")
		}
		p.Inits = append(p.Inits, v)
		p.Same = append(p.Same, rewrite.Swap{Old: o, New: v})
	}
	return p
}

func constantNode(c *operands, n *ir.Node) *rewrite.Patch {
	out, err := c.eval(n)
	if err != nil {
		return nil
	}
	return c.becomes(n, out, "its value is given")
}

func shapeValue(c *operands, n *ir.Node) *rewrite.Patch {
	data := make([]*tensor.Tensor, len(n.Outputs))
	for i, o := range n.Outputs {
		if o == nil {
			continue
		}
		if data[i] = c.s.facts.Values[o]; data[i] == nil {
			return nil
		}
	}
	if len(n.Outputs) == 0 || slices.Contains(unfoldable, n.Op) {
		return nil
	}
	return c.becomes(n, data, "its value follows from shapes that are known")
}

func fold(c *operands, n *ir.Node) *rewrite.Patch {
	if !official(n) || slices.Contains(unfoldable, n.Op) || len(n.Inputs) == 0 || len(n.Outputs) == 0 || len(n.Subgraphs()) > 0 || c.s.refused[n] {
		return nil
	}
	// A training Dropout is random.
	if n.Op == "Dropout" && len(n.Inputs) > 2 {
		return nil
	}
	freed := 0
	for i, v := range n.Inputs {
		if v == nil {
			continue
		}
		t := c.Const(v)
		if t == nil {
			return nil
		}
		if !slices.Contains(n.Inputs[:i], v) && c.OnlyReader(v) == n {
			freed += size(t)
		}
	}
	for _, o := range n.Outputs {
		if o != nil && c.IsOutput(o) {
			return nil
		}
	}
	if t, ok := c.typ(n.Outputs[0]); ok && !c.fits(t, freed) {
		return nil
	}
	out, err := c.eval(n)
	if err != nil {
		c.s.refused[n] = true
		return nil
	}
	total := 0
	for i, t := range out {
		if t == nil && n.Outputs[i] != nil {
			c.s.refused[n] = true
			return nil
		}
		total += size(t)
	}
	if total > c.s.maxFold() || total-freed > c.s.growth {
		c.s.refused[n] = true
		return nil
	}
	p := c.becomes(n, out, fmt.Sprintf("its operands are constants (%+d bytes)", total-freed))
	if p != nil {
		c.s.growth -= max(0, total-freed)
	}
	return p
}

// fits looks at the limits before anything is computed.
func (c *operands) fits(t ir.Type, freed int) bool {
	s, ok := t.Static()
	if !ok {
		return true
	}
	n, err := tensor.Count(s)
	if err != nil {
		return false
	}
	b := t.DType.Bytes(n)
	return b <= c.s.maxFold() && b-freed <= c.s.growth
}

func (s *simplifier) maxFold() int {
	if s.o.MaxFold > 0 {
		return s.o.MaxFold
	}
	return DefaultMaxFold
}

func size(t *tensor.Tensor) int {
	if t == nil {
		return 0
	}
	if t.DType == tensor.String {
		b := 0
		for _, s := range t.Strings() {
			b += len(s)
		}
		return b
	}
	return t.DType.Bytes(t.Len())
}

// eval runs one node of constants on the reference evaluator; outputs that are
// no tensors are nil.
func (c *operands) eval(n *ir.Node) ([]*tensor.Tensor, error) {
	m := like(n, nil, nil)
	g := &ir.Graph{Level: ir.ONNX, Nodes: []*ir.Node{m}}
	for _, v := range n.Inputs {
		if v == nil {
			m.Inputs = append(m.Inputs, nil)
			continue
		}
		m.Inputs = append(m.Inputs, ir.NewConst(v.Name, c.Const(v)))
	}
	at := make([]int, len(n.Outputs))
	for i, o := range n.Outputs {
		if o == nil {
			m.Outputs = append(m.Outputs, nil)
			continue
		}
		v := &ir.Value{Name: o.Name, Def: m}
		m.Outputs = append(m.Outputs, v)
		at[i] = len(g.Outputs)
		g.Outputs = append(g.Outputs, v)
	}
	got, err := onnx.Eval(g, c.s.subject.Opsets, nil, nil)
	if err != nil {
		return nil, err
	}
	out := make([]*tensor.Tensor, len(n.Outputs))
	for i, o := range n.Outputs {
		if o != nil && got[at[i]] != nil && got[at[i]].Form == ir.FormTensor {
			out[i] = got[at[i]].Tensor
		}
	}
	return out, nil
}

// branch takes the nodes of the branch that a constant condition picks.
func branch(c *operands, n *ir.Node) *rewrite.Patch {
	cond := c.Const(n.In(0))
	if cond == nil || cond.Len() != 1 {
		return nil
	}
	name := "else_branch"
	if cond.Int(0) != 0 {
		name = "then_branch"
	}
	g := n.GraphAttr(name)
	if g == nil || len(g.Outputs) < len(n.Outputs) || len(g.Inputs) > 0 {
		return nil
	}
	p := &rewrite.Patch{At: n, Why: "its condition is constant: " + name}
	rename := func(v *ir.Value) {
		if v != nil && v.Name != "" {
			v.Name = c.Fresh(v.Name)
		}
	}
	for _, v := range g.Inits {
		moved := ir.NewConst(c.Fresh(v.Name), v.Const)
		p.Inits = append(p.Inits, moved)
	}
	sub := map[*ir.Value]*ir.Value{}
	for i, v := range g.Inits {
		sub[v] = p.Inits[i]
	}
	replaceReads(g, sub)
	for _, m := range g.Nodes {
		for _, o := range m.Outputs {
			rename(o)
		}
		p.Nodes = append(p.Nodes, m)
	}
	for i, o := range n.Outputs {
		if o == nil {
			continue
		}
		p.Nodes = append(p.Nodes, &ir.Node{Op: "Identity", Name: n.Name, Inputs: []*ir.Value{g.Outputs[i]}, Outputs: []*ir.Value{o}})
	}
	return p
}

// replaceReads makes a graph and its subgraphs read other values.
func replaceReads(g *ir.Graph, sub map[*ir.Value]*ir.Value) {
	swap := func(vs []*ir.Value) {
		for i, v := range vs {
			if w := sub[v]; w != nil {
				vs[i] = w
			}
		}
	}
	swap(g.Outputs)
	for _, n := range g.Nodes {
		swap(n.Inputs)
		for _, s := range n.Subgraphs() {
			replaceReads(s, sub)
		}
	}
}
