package ir

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Level says which op table a graph's nodes belong to.
type Level uint8

// The levels of a graph.
const (
	ONNX Level = iota // ops of compiler/onnx and unknown domains; what files hold
	Core              // primitive ops of compiler/core; static shapes everywhere
)

func (l Level) String() string {
	if l == Core {
		return "core"
	}
	return "onnx"
}

// KV is one metadata entry; order is kept as in the file.
type KV struct{ Key, Value string }

// Graph is a list of nodes in topological order between inputs and outputs.
type Graph struct {
	Level   Level
	Name    string
	Doc     string
	Inputs  []*Value
	Outputs []*Value
	Nodes   []*Node
	// Inits are the constants, in file order. At ONNX level an initializer may
	// also stand among the Inputs (a default value; usual before IR version 4).
	Inits []*Value
	// Infos are the values that the file describes in value_info, in order.
	Infos []*Value
	Meta  []KV
	// Extra holds wire fields that lathe does not interpret (quantization
	// annotations, sparse initializers, fields of a later ONNX), for writing back.
	Extra []byte
}

// Value is an edge: defined once, read any number of times. Subgraphs read
// values of the enclosing graphs directly.
type Value struct {
	Name  string
	Type  Type
	Def   *Node          // producing node; nil for inputs and constants
	Const *tensor.Tensor // not nil: a constant
	Doc   string
	Meta  []KV
	Extra []byte
}

// Node is one operation. A nil input or output is an omitted optional one.
type Node struct {
	Op       string
	Domain   string // "" is ai.onnx; core nodes leave it empty
	Overload string
	Name     string
	Doc      string
	Inputs   []*Value
	Outputs  []*Value
	Attrs    []Attr
	Meta     []KV
	Extra    []byte
	// Origin names the ONNX nodes that a core node stems from, for reports.
	Origin string
}

// Static gives the value's shape; it panics if the shape is not static, which
// cannot happen at core level.
func (v *Value) Static() []int {
	s, ok := v.Type.Static()
	if !ok {
		panic(fmt.Sprintf("BUG: value %q of type %s has no static shape", v.Name, v.Type))
	}
	return s
}

// DType is the element type of a tensor value.
func (v *Value) DType() tensor.DType { return v.Type.DType }

// Rank is the number of dimensions.
func (v *Value) Rank() int { return len(v.Type.Shape) }

// NewConst makes a constant value.
func NewConst(name string, t *tensor.Tensor) *Value {
	return &Value{Name: name, Type: TensorType(t.DType, t.Shape...), Const: t}
}

// In is input i, or nil if it is omitted or beyond the list.
func (n *Node) In(i int) *Value {
	if i < len(n.Inputs) {
		return n.Inputs[i]
	}
	return nil
}

// Label names a node in messages: its name, else its first output.
func (n *Node) Label() string {
	if n.Name != "" {
		return n.Name
	}
	for _, o := range n.Outputs {
		if o != nil && o.Name != "" {
			return o.Name
		}
	}
	return "(unnamed)"
}

// FullOp is the op with its domain, where that is not ONNX's own.
func (n *Node) FullOp() string {
	if n.Domain == "" || n.Domain == "ai.onnx" {
		return n.Op
	}
	return n.Domain + "." + n.Op
}

// Subgraphs lists the graphs among the node's attributes, in order.
func (n *Node) Subgraphs() []*Graph {
	var gs []*Graph
	for _, a := range n.Attrs {
		switch v := a.Val.(type) {
		case *Graph:
			gs = append(gs, v)
		case []*Graph:
			gs = append(gs, v...)
		}
	}
	return gs
}

// Walk calls f for every node, subgraphs after their node, until f fails.
func (g *Graph) Walk(f func(g *Graph, n *Node) error) error {
	for _, n := range g.Nodes {
		if err := f(g, n); err != nil {
			return err
		}
		for _, s := range n.Subgraphs() {
			if err := s.Walk(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// Uses counts the readers of each value in this graph and its subgraphs;
// graph outputs count as readers.
func (g *Graph) Uses() map[*Value]int {
	u := map[*Value]int{}
	g.countUses(u)
	return u
}

func (g *Graph) countUses(u map[*Value]int) {
	for _, o := range g.Outputs {
		u[o]++
	}
	for _, n := range g.Nodes {
		for _, v := range n.Inputs {
			if v != nil {
				u[v]++
			}
		}
		for _, s := range n.Subgraphs() {
			s.countUses(u)
		}
	}
}

// Sweep drops nodes and initializers that nothing reads. Core nodes have no
// effects beside their outputs; at ONNX level the same holds.
func (g *Graph) Sweep() (dropped int) {
	live := map[*Value]bool{}
	var mark func(gr *Graph)
	mark = func(gr *Graph) {
		for _, o := range gr.Outputs {
			live[o] = true
		}
		for i := len(gr.Nodes) - 1; i >= 0; i-- {
			n := gr.Nodes[i]
			if gr == g && !n.anyLive(live) {
				continue
			}
			for _, v := range n.Inputs {
				live[v] = true
			}
			for _, s := range n.Subgraphs() {
				mark(s)
			}
		}
	}
	mark(g)
	keep := g.Nodes[:0:0]
	for _, n := range g.Nodes {
		if n.anyLive(live) {
			keep = append(keep, n)
		}
	}
	dropped = len(g.Nodes) - len(keep)
	g.Nodes = keep
	inits := g.Inits[:0:0]
	for _, v := range g.Inits {
		if live[v] {
			inits = append(inits, v)
		}
	}
	g.Inits = inits
	return dropped
}

func (n *Node) anyLive(live map[*Value]bool) bool {
	for _, o := range n.Outputs {
		if o != nil && live[o] {
			return true
		}
	}
	return false
}
