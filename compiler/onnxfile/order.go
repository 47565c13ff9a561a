package onnxfile

import (
	"fmt"
	"strings"

	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
)

// missing explains why a name that the node being read wants is not there:
// nothing computes it, or a later node does, perhaps in a cycle.
func (s *scope) missing(input int, name string) error {
	for e := s; e != nil; e = e.outer {
		maker, ok := e.makers[name]
		if !ok {
			continue
		}
		if c := e.cycle(e.at); c != nil {
			return bad("the graph has a cycle: %s", strings.Join(c, " -> "))
		}
		return bad("input %d (%q) is computed by a later node, %s", input, name, nodeLabel(e.nodes[maker])).
			Hint("ONNX wants the nodes in topological order; sort them first")
	}
	return bad("input %d (%q) is computed by no node and is no graph input or initializer", input, name)
}

func nodeLabel(n *pb.NodeProto) string {
	if n.Name != "" {
		return fmt.Sprintf("%q", n.Name)
	}
	for _, o := range n.Output {
		if o != "" {
			return fmt.Sprintf("%q", o)
		}
	}
	return n.OpType
}

// cycle finds a cycle among the nodes that a node depends on and names its
// nodes in the order in which data flows; nil if there is none.
func (s *scope) cycle(start int) []string {
	type frame struct {
		node  int
		reads []int
	}
	open, done := map[int]bool{start: true}, map[int]bool{}
	stack := []frame{{start, s.reads(s.nodes[start])}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if len(top.reads) == 0 {
			delete(open, top.node)
			done[top.node] = true
			stack = stack[:len(stack)-1]
			continue
		}
		next := top.reads[0]
		top.reads = top.reads[1:]
		switch {
		case open[next]:
			// Each frame reads the one above it, and the top reads next.
			names := []string{nodeLabel(s.nodes[next])}
			for i := len(stack) - 1; stack[i].node != next; i-- {
				names = append(names, nodeLabel(s.nodes[stack[i].node]))
			}
			return append(names, names[0])
		case !done[next]:
			open[next] = true
			stack = append(stack, frame{next, s.reads(s.nodes[next])})
		}
	}
	return nil
}

// reads are the nodes of the same graph that a node's inputs, and the names
// that its subgraphs read, come from.
func (s *scope) reads(n *pb.NodeProto) []int {
	var out []int
	add := func(names []string) {
		for _, name := range names {
			if i, ok := s.makers[name]; ok {
				out = append(out, i)
			}
		}
	}
	add(n.Input)
	var sub func(a *pb.AttributeProto)
	sub = func(a *pb.AttributeProto) {
		for _, g := range append(a.Graphs, a.G) {
			if g == nil {
				continue
			}
			for _, m := range g.Node {
				add(m.Input)
				for _, b := range m.Attribute {
					sub(b)
				}
			}
		}
	}
	for _, a := range n.Attribute {
		sub(a)
	}
	return out
}
