package pass

import (
	"context"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/rewrite"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Subject is what a pass changes: a graph and what must be known to read it.
type Subject struct {
	Graph *ir.Graph
	// Opsets is the model's opset_import: version by domain ("" is ai.onnx).
	Opsets map[string]int
	// IRVersion is that of the file; before 4 every initializer is an input
	// too, and none may be overridden.
	IRVersion int64
}

// Variable are the initializers that a caller may override.
func (s *Subject) Variable() map[*ir.Value]bool {
	m := map[*ir.Value]bool{}
	if s.IRVersion > 0 && s.IRVersion < 4 {
		return m
	}
	for _, v := range s.Graph.Inputs {
		if v.Const != nil {
			m[v] = true
		}
	}
	return m
}

// Pass is one row of the table of passes.
type Pass struct {
	Name string
	Doc  string
	// From and To are the levels of the graph before and after.
	From, To ir.Level
	// After names passes that must come earlier where both run.
	After []string
	// Always marks a pass that cannot be skipped.
	Always bool
	// Run changes the subject, by rewrite patches where it edits nodes, and
	// stops when the log is full. What it says about itself goes into Notes.
	Run func(ctx context.Context, s *Subject, log *rewrite.Log) (Notes, error)
}

// Notes are what a pass reports beside its edits: named numbers in order.
type Notes []Note

// Note is one named number.
type Note struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

// Step is what one pass did.
type Step struct {
	Pass    string  `json:"pass"`
	Before  Counts  `json:"before"`
	After   Counts  `json:"after"`
	Edits   int     `json:"edits"`
	Notes   Notes   `json:"notes,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Counts size a graph, subgraphs included.
type Counts struct {
	Nodes      int   `json:"nodes"`
	Constants  int   `json:"constants"`
	Bytes      int64 `json:"bytes"`      // of the constants
	Parameters int64 `json:"parameters"` // their elements
}

// Count sizes a graph.
func Count(g *ir.Graph) Counts {
	var c Counts
	seen := map[*tensor.Tensor]bool{}
	c.add(g, seen)
	return c
}

func (c *Counts) add(g *ir.Graph, seen map[*tensor.Tensor]bool) {
	for _, v := range g.Inits {
		if v.Const == nil || seen[v.Const] {
			continue
		}
		seen[v.Const] = true
		c.Constants++
		c.Bytes += int64(v.Const.DType.Bytes(v.Const.Len()))
		c.Parameters += int64(v.Const.Len())
	}
	for _, n := range g.Nodes {
		c.Nodes++
		for _, s := range n.Subgraphs() {
			c.add(s, seen)
		}
	}
}

// Report is what a run of passes did.
type Report struct {
	Steps []Step         `json:"steps"`
	Edits []rewrite.Edit `json:"edits"`
	// Stopped reports that the limit of edits was reached.
	Stopped bool `json:"stopped,omitempty"`
}

// Of gives the edits about a node, by its name, for an explanation.
func (r *Report) Of(node string) []rewrite.Edit {
	var list []rewrite.Edit
	for _, e := range r.Edits {
		if e.Node == node {
			list = append(list, e)
		}
	}
	return list
}

// ByRule counts the edits of each rule.
func (r *Report) ByRule() map[string]int {
	m := map[string]int{}
	for _, e := range r.Edits {
		m[e.Rule]++
	}
	return m
}
