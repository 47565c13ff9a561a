package rewrite

import "github.com/lathe-ml/lathe/compiler/ir"

// Patch is one proposed edit around the node At, which goes.
//
// Each output of At that anything reads must be accounted for: a new node may
// define the same *ir.Value again (the usual way: the value keeps its name,
// its type and its place among the graph's outputs), or Same names a value
// that its readers take instead.
type Patch struct {
	At *ir.Node
	// Nodes stand where At stood, in topological order. They read only values
	// that are defined before At.
	Nodes []*ir.Node
	// Inits are new constants; NewConst of the Editor gives them free names.
	Inits []*ir.Value
	Same  []Swap
	// Why is one lower-case clause for the record.
	Why string
}

// Swap makes the readers of Old read New, which holds the same data.
type Swap struct{ Old, New *ir.Value }

// Rule is one local rewrite.
type Rule struct {
	Name string
	Doc  string
	// Match is the cheap structural test; Build looks closer and gives nil
	// where the details do not fit.
	Match func(e *Editor, n *ir.Node) bool
	Build func(e *Editor, n *ir.Node) *Patch
}

// Edit is the record of an applied patch.
type Edit struct {
	Pass string `json:"pass"`
	Rule string `json:"rule"`
	// Node and Op are of the node that the patch was about.
	Node string `json:"node"`
	Op   string `json:"op"`
	// Graph names the subgraph, "" for the main graph.
	Graph string `json:"graph,omitempty"`
	Why   string `json:"why"`
	// Removed are all nodes that went, those that became dead included; Added
	// are those that came, both as "name (op)".
	Removed []string `json:"removed,omitempty"`
	Added   []string `json:"added,omitempty"`
}

// Log collects edits and stops a pass after a number of them.
type Log struct {
	Edits []Edit
	// Limit is how many edits may be made; 0 means any number.
	Limit int
	// Pass names the running pass in new edits.
	Pass string
}

// Full reports that no further edit may be made.
func (l *Log) Full() bool { return l.Limit > 0 && len(l.Edits) >= l.Limit }

func describe(n *ir.Node) string { return n.Label() + " (" + n.FullOp() + ")" }
