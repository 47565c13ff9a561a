package tidy

import (
	"slices"
	"strconv"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// state is what the rules share during one round.
type state struct {
	g       *ir.Graph
	o       Options
	uses    map[*ir.Value]int
	readers map[*ir.Value][]*ir.Node // of the main graph
	outputs map[*ir.Value]bool
	core    map[*ir.Value]*ir.Value // what the bound shapes tell; nil if they are open
	gone    map[*ir.Node]bool
	seen    map[string]*ir.Node // for same
	names   map[string]bool
	// specialized: something was done that holds for the bound shapes only.
	specialized bool
}

func newState(g *ir.Graph, o Options) *state {
	s := &state{
		g: g, o: o, uses: g.Uses(), readers: map[*ir.Value][]*ir.Node{}, outputs: map[*ir.Value]bool{},
		gone: map[*ir.Node]bool{}, seen: map[string]*ir.Node{}, names: map[string]bool{},
	}
	for _, v := range g.Outputs {
		s.outputs[v] = true
	}
	for _, vs := range [][]*ir.Value{g.Inputs, g.Inits} {
		for _, v := range vs {
			s.names[v.Name] = true
		}
	}
	_ = g.Walk(func(_ *ir.Graph, n *ir.Node) error {
		for _, v := range n.Outputs {
			if v != nil {
				s.names[v.Name] = true
			}
		}
		return nil
	})
	for _, n := range g.Nodes {
		for _, v := range n.Inputs {
			if v != nil && !slices.Contains(s.readers[v], n) {
				s.readers[v] = append(s.readers[v], n)
			}
		}
	}
	if x, err := onnx.Expand(g, o.Model); err == nil {
		s.core = x.Values
	}
	return s
}

func (s *state) wants(rule string) bool { return s.o.Only == nil || slices.Contains(s.o.Only, rule) }

// single reports that one node of the main graph reads v and nothing else does.
func (s *state) single(v *ir.Value) (*ir.Node, bool) {
	if s.uses[v] != 1 || s.outputs[v] || len(s.readers[v]) != 1 {
		return nil, false
	}
	return s.readers[v][0], true
}

// shape is a value's static shape, where it is known.
func (s *state) shape(v *ir.Value) ([]int, bool) {
	if v == nil {
		return nil, false
	}
	if v.Const != nil {
		return v.Const.Shape, true
	}
	if c := s.core[v]; c != nil {
		return c.Type.Static()
	}
	return v.Type.Static()
}

// dtype is a value's element type, where it is known.
func (s *state) dtype(v *ir.Value) (tensor.DType, bool) {
	switch {
	case v == nil:
		return 0, false
	case v.Const != nil:
		return v.Const.DType, true
	case s.core[v] != nil:
		return s.core[v].DType(), true
	}
	return v.Type.DType, v.Type.Form == ir.FormTensor && v.Type.DType != tensor.Invalid
}

// redirect makes every reader of old read v instead, also in subgraphs.
func (s *state) redirect(old, v *ir.Value) {
	_ = s.g.Walk(func(_ *ir.Graph, n *ir.Node) error {
		for i, in := range n.Inputs {
			if in == old {
				n.Inputs[i] = v
			}
		}
		return nil
	})
	_ = s.g.Walk(func(_ *ir.Graph, n *ir.Node) error {
		for _, sub := range n.Subgraphs() {
			for i, out := range sub.Outputs {
				if out == old {
					sub.Outputs[i] = v
				}
			}
		}
		return nil
	})
	s.uses[v] += s.uses[old]
	s.uses[old] = 0
	for _, n := range s.readers[old] {
		if !slices.Contains(s.readers[v], n) {
			s.readers[v] = append(s.readers[v], n)
		}
	}
	s.readers[old] = nil
}

// bypass takes node n out by giving its only output's readers the value v. An
// output of the model keeps its name: then v's own node computes it under that
// name, which needs v to be an inner value that is no output itself.
func (s *state) bypass(n *ir.Node, v *ir.Value) bool {
	out := n.Outputs[0]
	if !s.outputs[out] {
		s.redirect(out, v)
		s.remove(n)
		return true
	}
	if v.Def == nil || v.Const != nil || s.outputs[v] || s.gone[v.Def] || !slices.Contains(s.g.Nodes, v.Def) {
		return false
	}
	def := v.Def
	for i, o := range def.Outputs {
		if o == v {
			def.Outputs[i] = out
		}
	}
	out.Def = def
	s.remove(n)
	s.redirect(v, out)
	return true
}

// remove takes a node out; its inputs have one reader less.
func (s *state) remove(n *ir.Node) {
	s.gone[n] = true
	for _, v := range n.Inputs {
		if v != nil {
			s.uses[v]--
			s.readers[v] = slices.DeleteFunc(s.readers[v], func(r *ir.Node) bool { return r == n })
		}
	}
}

// drop deletes the removed nodes.
func (s *state) drop() {
	s.g.Nodes = slices.DeleteFunc(s.g.Nodes, func(n *ir.Node) bool { return s.gone[n] })
}

// constant makes value v an initializer.
func (s *state) constant(v *ir.Value, t *tensor.Tensor) {
	v.Const, v.Def, v.Type = t, nil, ir.TensorType(t.DType, t.Shape...)
	s.g.Inits = append(s.g.Inits, v)
	if s.o.InitsAreInputs {
		s.g.Inputs = append(s.g.Inputs, v)
	}
}

// newConstant makes a new initializer with a name like the given one.
func (s *state) newConstant(like string, t *tensor.Tensor) *ir.Value {
	name := like
	for i := 1; s.names[name]; i++ {
		name = like + "_" + strconv.Itoa(i)
	}
	s.names[name] = true
	v := &ir.Value{Name: name}
	s.constant(v, t)
	return v
}

// bindTypes writes the bound shapes into the types of inputs and outputs: a
// graph whose constants hold for one batch size must not claim to take others.
func (s *state) bindTypes() {
	for _, vs := range [][]*ir.Value{s.g.Inputs, s.g.Outputs} {
		for _, v := range vs {
			c := s.core[v]
			if c == nil || v.Type.Form != ir.FormTensor {
				continue
			}
			if shape, ok := c.Type.Static(); ok && (!v.Type.HasRank || len(shape) == len(v.Type.Shape)) {
				t := ir.TensorType(v.Type.DType, shape...)
				for i := range v.Type.Shape {
					t.Shape[i].Denotation = v.Type.Shape[i].Denotation
				}
				t.Denotation = v.Type.Denotation
				v.Type = t
			}
		}
	}
}

// prune forgets descriptions of values that are gone, and unread initializers
// among the inputs.
func (s *state) prune() {
	live := map[*ir.Value]bool{}
	for _, n := range s.g.Nodes {
		for _, v := range n.Outputs {
			live[v] = true
		}
	}
	inits := map[*ir.Value]bool{}
	for _, v := range s.g.Inits {
		live[v], inits[v] = true, true
	}
	s.g.Inputs = slices.DeleteFunc(s.g.Inputs, func(v *ir.Value) bool { return v.Const != nil && !inits[v] })
	for _, v := range s.g.Inputs {
		live[v] = true
	}
	s.g.Infos = slices.DeleteFunc(s.g.Infos, func(v *ir.Value) bool { return !live[v] || inits[v] })
}

// own reports an op of ONNX's own domain.
func own(n *ir.Node, ops ...string) bool {
	return (n.Domain == "" || n.Domain == "ai.onnx") && slices.Contains(ops, n.Op)
}

// opset is the version of ONNX's own domain.
func (s *state) opset() int {
	if v, ok := s.o.Model.Opsets[""]; ok {
		return v
	}
	return s.o.Model.Opsets["ai.onnx"]
}
