package lower

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Layer is what one group of kernels computes: a float value that is stored,
// from values that are stored.
type Layer struct {
	Root   *ir.Value
	Anchor *ir.Node    // what the ops around are fused with; nil: elementwise ops alone
	Inputs []*ir.Value // the stored values that it reads
	Nodes  []*ir.Node  // from the inputs to the root, in order
	Rows   bool        // reductions of a row with all between them
}

// Op is the op that gives the layer its name.
func (l *Layer) Op() string {
	switch {
	case l.Anchor != nil:
		return l.Anchor.Op
	case l.Rows:
		return "rows"
	}
	return l.Root.Def.Op
}

// Origin is the ONNX node that the layer stems from.
func (l *Layer) Origin() string {
	if l.Anchor != nil {
		return l.Anchor.Origin
	}
	return l.Root.Def.Origin
}

// Watched is a program that also gives what its layers store.
type Watched struct {
	Program *program.Program
	// Graph is the core graph as the generators see it; the layers' nodes and
	// values are its own.
	Graph  *ir.Graph
	Layers []*Layer
	// Output is the position of a stored value among the program's outputs.
	Output map[*ir.Value]int
}

// Watch lowers a graph as Lower does, and makes every value that a layer stores
// or reads an output beside the model's own. The kernels are those of Lower:
// values are copied out after they were stored, so that neither fusion nor
// layouts nor forms know that somebody looks.
func Watch(g *ir.Graph, o Options) (*Watched, error) {
	l, err := newLowerer(g, o)
	if err != nil {
		return nil, err
	}
	l.taps = &Watched{Program: l.p, Graph: l.g, Output: map[*ir.Value]int{}}
	for i, v := range l.g.Outputs {
		l.taps.Output[v] = i
	}
	if err := l.run(); err != nil {
		return nil, err
	}
	return l.taps, nil
}

// watch notes the layer of a group that was just emitted.
func (l *lowerer) watch(g *group) error {
	l.site, l.layer = nil, ""
	v := g.root
	if !v.DType().IsFloat() || len(v.Def.Outputs) > 1 || g.anchor != nil && len(g.anchor.Outputs) > 1 || tensor.Numel(v.Static()) == 0 {
		return nil
	}
	la := &Layer{Root: v, Anchor: g.anchor, Rows: len(g.rows) > 0}
	l.span(la, v, map[*ir.Value]bool{})
	if g.anchor == nil && !la.Rows && slices.IndexFunc(la.Nodes, computes) < 0 {
		return nil // it only moves
	}
	for _, x := range append(slices.Clone(la.Inputs), v) {
		if err := l.tap(x); err != nil {
			return err
		}
	}
	l.taps.Layers = append(l.taps.Layers, la)
	return nil
}

// computes reports whether an op makes values that were not there before.
func computes(n *ir.Node) bool {
	switch core.Lookup(n.Op).Class {
	case core.Movement, core.Indexed:
		return false
	}
	return n.Op != "cast" && n.Op != "where"
}

// span collects the nodes between stored values and v.
func (l *lowerer) span(la *Layer, v *ir.Value, seen map[*ir.Value]bool) {
	if seen[v] || v.Const != nil {
		return
	}
	seen[v] = true
	if v != la.Root && (v.Def == nil || l.places[v] != nil) {
		la.Inputs = append(la.Inputs, v)
		return
	}
	for _, x := range v.Def.Inputs {
		l.span(la, x, seen)
	}
	if !slices.Contains(la.Nodes, v.Def) {
		la.Nodes = append(la.Nodes, v.Def)
	}
}

// tap gives a stored value an output of its own.
func (l *lowerer) tap(v *ir.Value) error {
	if _, ok := l.taps.Output[v]; ok || v.Def == nil {
		return nil
	}
	at, s := len(l.p.Outputs), v.Static()
	b := &program.Buf{Name: v.Name, Where: program.Output, Type: v.DType(), Len: tensor.Numel(s), Index: at}
	l.p.Outputs = append(l.p.Outputs, program.Port{Name: v.Name, Type: v.DType(), Shape: s, Buf: b})
	l.taps.Output[v] = at
	return l.copyTo(v, &place{b, plain(s)})
}
