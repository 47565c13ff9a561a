package onnxfile

import (
	"fmt"
	"strings"

	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
)

// missing explains why a name that node at reads is not there: nothing
// computes it, or a later node does, perhaps in a cycle.
func (s *scope) missing(input int, name string, at int) error {
	for e := s; e != nil; e = e.outer {
		maker, ok := e.makers[name]
		if !ok {
			continue
		}
		if e == s {
			if c := s.cycle(at); c != nil {
				return bad("the graph has a cycle: %s", strings.Join(c, " -> "))
			}
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

// cycle finds a path from a node back to itself and names its nodes in the
// order in which data flows; nil if there is none.
func (s *scope) cycle(start int) []string {
	parent := map[int]int{}
	stack := []int{start}
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, from := range s.reads(s.nodes[at]) {
			if from == start {
				names := []string{nodeLabel(s.nodes[start])}
				for n := at; n != start; n = parent[n] {
					names = append(names, nodeLabel(s.nodes[n]))
				}
				return append(names, nodeLabel(s.nodes[start]))
			}
			if _, seen := parent[from]; !seen {
				parent[from] = at
				stack = append(stack, from)
			}
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
