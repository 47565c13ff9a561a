package tidy

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// keptOps are never folded: random ones have another result each time, and
// quantization is the user's choice of how weights are stored.
var keptOps = []string{
	"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial",
	"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear",
}

// fold computes a node whose inputs are all constant.
func fold(s *state, n *ir.Node) (string, bool) {
	if own(n, keptOps...) || len(n.Subgraphs()) > 0 || (own(n, "Dropout") && len(n.Inputs) > 2) {
		return "", false
	}
	had := 0
	for _, v := range n.Inputs {
		if v == nil {
			continue
		}
		if v.Const == nil {
			return "", false
		}
		had += len(v.Const.Bytes())
	}
	if own(n, "ConstantOfShape", "Expand", "Tile") && s.grows(n, had) {
		return "", false
	}
	outs, err := onnx.Eval(&ir.Graph{Nodes: []*ir.Node{n}, Outputs: present(n.Outputs)}, s.o.Model.Opsets, nil, nil)
	if err != nil {
		return "", false // what cannot be computed now is left as it is
	}
	size := 0
	for _, d := range outs {
		if d == nil || d.Form != ir.FormTensor || d.Tensor == nil {
			return "", false
		}
		size += len(d.Tensor.Bytes())
	}
	if size > had+s.o.FoldLimit || !s.replaceable(n) {
		return "", false
	}
	s.remove(n)
	for i, v := range present(n.Outputs) {
		s.constant(v, outs[i].Tensor)
	}
	return "its inputs are constant", true
}

// grows looks at the static shape of what a node would make, before it is made.
func (s *state) grows(n *ir.Node, had int) bool {
	shape, ok := s.shape(n.Outputs[0])
	if !ok && n.In(0) != nil && n.Op == "ConstantOfShape" {
		var err error
		if shape, err = n.In(0).Const.Ints(); err != nil {
			return true
		}
	}
	count, err := tensor.Count(shape)
	return err != nil || 4*count > had+s.o.FoldLimit
}

// replaceable reports that no output of the node is one of the model: those
// must stay computed by a node.
func (s *state) replaceable(n *ir.Node) bool {
	for _, v := range n.Outputs {
		if v != nil && s.outputs[v] {
			return false
		}
	}
	return true
}

func present(vs []*ir.Value) []*ir.Value {
	var out []*ir.Value
	for _, v := range vs {
		if v != nil {
			out = append(out, v)
		}
	}
	return out
}

// known makes a constant of a small value that does not depend on data but on
// shapes, which are bound.
func known(s *state, n *ir.Node) (string, bool) {
	if len(n.Outputs) != 1 || n.Outputs[0] == nil || own(n, keptOps...) || !s.replaceable(n) {
		return "", false
	}
	v := n.Outputs[0]
	c := s.core[v]
	if c == nil || c.Const == nil || v.Const != nil || len(c.Const.Bytes()) > 4096 || (v.Type.Form == ir.FormTensor && v.Type.DType != c.DType()) {
		return "", false
	}
	s.remove(n)
	s.constant(v, c.Const)
	return "the bound shapes decide its value", true
}

// same finds a node that computes what an earlier one does.
func same(s *state, n *ir.Node) (string, bool) {
	if own(n, keptOps[:6]...) || len(n.Subgraphs()) > 0 || (own(n, "Dropout") && len(n.Inputs) > 2) {
		return "", false
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s|%s|%d", n.FullOp(), n.Overload, len(n.Outputs))
	for _, v := range n.Inputs {
		fmt.Fprintf(&b, "|%p", v)
	}
	for _, v := range n.Outputs {
		fmt.Fprintf(&b, "|%t", v == nil)
	}
	for _, a := range n.Attrs {
		b.WriteString("|" + a.Name + "=" + attrKey(a.Val))
	}
	key := b.String()
	first := s.seen[key]
	if first == nil || s.gone[first] {
		s.seen[key] = n
		return "", false
	}
	if first == n || !s.replaceable(n) {
		return "", false
	}
	for i, v := range n.Outputs {
		if v != nil {
			s.redirect(v, first.Outputs[i])
		}
	}
	s.remove(n)
	return fmt.Sprintf("%q computes the same", first.Label()), true
}

func attrKey(v any) string {
	t, ok := v.(*tensor.Tensor)
	if !ok {
		return fmt.Sprintf("%T%#v", v, v)
	}
	return fmt.Sprintf("%s%x%q", t, sha256.Sum256(t.Bytes()), t.Strings())
}
