package ir

import "fmt"

// Fault is what is wrong in a graph: where, what, and what to do.
type Fault struct {
	Node, Op  string
	Msg, Hint string
}

func (f *Fault) Error() string {
	s := f.Msg
	if f.Op != "" {
		s = fmt.Sprintf("node %q (%s): %s", f.Node, f.Op, f.Msg)
	}
	if f.Hint != "" {
		s += "; " + f.Hint
	}
	return s
}

// FaultAt makes a Fault at a node.
func FaultAt(n *Node, format string, args ...any) *Fault {
	return &Fault{Node: n.Label(), Op: n.FullOp(), Msg: fmt.Sprintf(format, args...)}
}

// Verify checks what must hold at every level: each value is defined once and
// before it is read, names are unique, outputs exist; at core level all types
// are static tensors and no node has a subgraph.
func Verify(g *Graph) error {
	v := &verifier{defined: map[*Value]bool{}, names: map[string]*Value{}}
	return v.graph(g)
}

type verifier struct {
	defined map[*Value]bool
	names   map[string]*Value
}

func (v *verifier) define(x *Value, n *Node) error {
	where := func(msg string) error {
		if n != nil {
			return FaultAt(n, "%s", msg)
		}
		return &Fault{Msg: msg}
	}
	if v.defined[x] {
		return where(fmt.Sprintf("value %q is defined twice", x.Name))
	}
	if x.Def != n {
		return where(fmt.Sprintf("value %q does not point to its producer", x.Name))
	}
	if x.Name != "" {
		if o, ok := v.names[x.Name]; ok && o != x {
			return where(fmt.Sprintf("name %q is used for two values", x.Name))
		}
		v.names[x.Name] = x
	}
	v.defined[x] = true
	return nil
}

func (v *verifier) graph(g *Graph) error {
	var scope []*Value
	def := func(x *Value, n *Node) error {
		scope = append(scope, x)
		return v.define(x, n)
	}
	for _, x := range g.Inputs {
		if err := def(x, nil); err != nil {
			return err
		}
	}
	for _, x := range g.Inits {
		if x.Const == nil {
			return &Fault{Msg: fmt.Sprintf("initializer %q has no data", x.Name)}
		}
		if !v.defined[x] {
			if err := def(x, nil); err != nil {
				return err
			}
		}
	}
	for _, n := range g.Nodes {
		for i, x := range n.Inputs {
			if x != nil && !v.defined[x] {
				return FaultAt(n, "input %d (%q) is read before it is defined", i, x.Name)
			}
		}
		for _, s := range n.Subgraphs() {
			if g.Level == Core {
				return FaultAt(n, "core nodes have no subgraphs")
			}
			if err := v.graph(s); err != nil {
				return err
			}
		}
		for _, x := range n.Outputs {
			if x == nil {
				continue
			}
			if err := def(x, n); err != nil {
				return err
			}
			if _, ok := x.Type.Static(); g.Level == Core && !ok {
				return FaultAt(n, "output %q has no static shape", x.Name)
			}
		}
	}
	for _, x := range g.Outputs {
		if !v.defined[x] {
			return &Fault{Msg: fmt.Sprintf("graph output %q is never computed", x.Name)}
		}
	}
	// A subgraph's names end with it; siblings may use them again.
	for _, x := range scope {
		delete(v.names, x.Name)
	}
	return nil
}
