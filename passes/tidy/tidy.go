package tidy

import (
	"context"
	"fmt"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
)

// Options of a run.
type Options struct {
	// Model says how the graph's shapes are bound; shapes that stay open only
	// keep some rules from finding anything.
	Model onnx.Options
	// FoldLimit is the most bytes that folding may add to the model per value;
	// 0 means 1 MiB. A fold that shrinks the model is always done.
	FoldLimit int
	// InitsAreInputs also lists new initializers among the graph's inputs, as
	// IR versions before 4 demand.
	InitsAreInputs bool
	// Only names the rules to apply; nil means all.
	Only []string
}

// Edit is one change and its reason.
type Edit struct {
	Rule string `json:"rule"`
	Node string `json:"node"`
	Op   string `json:"op"`
	Why  string `json:"why"`
}

// Report says what was done.
type Report struct {
	Before int    `json:"nodes_before"`
	After  int    `json:"nodes_after"`
	Edits  []Edit `json:"edits"`
}

// Rule looks at one node and changes the graph around it, or leaves it.
type Rule struct {
	Name  string
	Doc   string
	Apply func(s *state, n *ir.Node) (why string, ok bool)
}

// Rules is the table, in the order in which a node is offered to them: cheap
// ones that remove nodes come first.
var Rules = []Rule{
	{"fold", "a node whose inputs are constant is computed now", fold},
	{"known", "a value that the bound shapes decide is a constant", known},
	{"identity", "a node that gives its input is left out", identity},
	{"same", "a node that repeats another is left out", same},
	{"conv-norm", "a BatchNormalization after a convolution goes into its weights", convNorm},
	{"conv-affine", "a factor or summand per channel after a convolution goes into its weights", convAffine},
	{"transpose-merge", "two transposes in a row are one", transposeMerge},
	{"transpose-sink", "a transpose moves below an elementwise op, towards one that undoes it", transposeSink},
	{"reshape-merge", "of two reshapes in a row the second is enough", reshapeMerge},
}

// maxRounds bounds the loop; every rule removes a node or moves a transpose
// down, so a graph never needs as many.
const maxRounds = 50

// Graph simplifies a graph in place.
func Graph(ctx context.Context, g *ir.Graph, o Options) (*Report, error) {
	if o.FoldLimit == 0 {
		o.FoldLimit = 1 << 20
	}
	rep := &Report{Before: len(g.Nodes), Edits: []Edit{}}
	for round := 0; ; round++ {
		s := newState(g, o)
		n, err := s.round(ctx, rep)
		if err != nil {
			return nil, err
		}
		g.Sweep()
		s.prune()
		if err := ir.Verify(g); err != nil {
			return nil, fmt.Errorf("internal error after tidy, last edit %v: %w", last(rep.Edits), err)
		}
		if n == 0 {
			break
		}
		if round == maxRounds {
			return nil, fmt.Errorf("internal error: tidy does not end, last edit %v", last(rep.Edits))
		}
	}
	rep.After = len(g.Nodes)
	return rep, nil
}

func last(edits []Edit) Edit {
	if len(edits) == 0 {
		return Edit{}
	}
	return edits[len(edits)-1]
}

// round offers every node to every rule once.
func (s *state) round(ctx context.Context, rep *Report) (int, error) {
	edits := 0
	for _, n := range append([]*ir.Node{}, s.g.Nodes...) {
		if err := ctx.Err(); err != nil {
			return edits, err
		}
		for _, r := range Rules {
			if s.gone[n] || !s.wants(r.Name) {
				continue
			}
			label, op := n.Label(), n.FullOp()
			if why, ok := r.Apply(s, n); ok {
				rep.Edits = append(rep.Edits, Edit{r.Name, label, op, why})
				edits++
				if r.Name == "known" || r.Name == "identity" {
					s.specialized = true
				}
			}
		}
	}
	if s.specialized {
		s.bindTypes()
	}
	s.drop()
	return edits, nil
}
