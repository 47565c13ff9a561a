package rewrite

import (
	"github.com/lathe-ml/lathe/compiler/ir"
)

// Sweep offers each node of the graph to the rules, in order, and reports how
// many patches were applied. Nodes that a patch brought are offered in the
// next sweep.
func (e *Editor) Sweep(rules []Rule) int {
	before := len(e.log.Edits)
	for _, n := range e.Graph.Nodes {
		for i := range rules {
			if !e.live[n] || e.log.Full() {
				break
			}
			if r := &rules[i]; r.Match(e, n) {
				if p := r.Build(e, n); p != nil {
					e.Apply(r.Name, p)
				}
			}
		}
	}
	e.settle()
	return len(e.log.Edits) - before
}

// Dead removes the nodes whose outputs nobody reads.
func (e *Editor) Dead() int {
	before := len(e.log.Edits)
	for i := len(e.Graph.Nodes) - 1; i >= 0 && !e.log.Full(); i-- {
		if n := e.Graph.Nodes[i]; e.live[n] && e.unread(n) {
			e.Apply("dead", &Patch{At: n, Why: "nothing reads its outputs"})
		}
	}
	e.settle()
	return len(e.log.Edits) - before
}

// settle brings the graph's lists up to date with what was applied.
func (e *Editor) settle() {
	g := e.Graph
	var nodes []*ir.Node
	var place func(n *ir.Node)
	place = func(n *ir.Node) {
		if e.live[n] {
			nodes = append(nodes, n)
		}
		for _, m := range e.instead[n] {
			place(m)
		}
	}
	for _, n := range g.Nodes {
		place(n)
	}
	g.Nodes = nodes
	e.instead = map[*ir.Node][]*ir.Node{}
	dead := func(v *ir.Value) bool { return v.Const != nil && !e.Variable[v] && e.Readers(v) == 0 }
	g.Inputs = without(g.Inputs, dead)
	g.Inits = without(g.Inits, dead)
	// A description of a value that is gone describes nothing.
	g.Infos = without(g.Infos, func(v *ir.Value) bool { return e.gone[v] })
	e.gone = map[*ir.Value]bool{}
}

func without(vs []*ir.Value, drop func(*ir.Value) bool) []*ir.Value {
	var out []*ir.Value
	for _, v := range vs {
		if !drop(v) {
			out = append(out, v)
		}
	}
	return out
}

// Each opens an editor for every subgraph, innermost first, and for the graph
// itself, and gives it to f with the graph's label ("" for the main graph).
func Each(g *ir.Graph, log *Log, variable map[*ir.Value]bool, f func(e *Editor)) {
	each(g, "", log, variable, Names(g), f)
}

func each(g *ir.Graph, label string, log *Log, variable map[*ir.Value]bool, names map[string]bool, f func(e *Editor)) {
	for _, n := range g.Nodes {
		for _, s := range n.Subgraphs() {
			inner := n.Label() + "/" + s.Name
			if label != "" {
				inner = label + "/" + inner
			}
			each(s, inner, log, variable, names, f)
		}
	}
	e := Open(g, log, names)
	e.label, e.Variable = label, variable
	f(e)
}

// Nested reports whether the editor's graph is a subgraph.
func (e *Editor) Nested() bool { return e.label != "" }
