package core

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Class says how fusion and lowering treat an op.
type Class uint8

// The classes of core ops.
const (
	Pointwise   Class = iota // output element i from input elements i
	Movement                 // output element i is one input element (or a constant)
	Indexed                  // a movement whose source is read from data (gather)
	Reduction                // folds axes away
	Contraction              // products summed: dot, conv
	Window                   // sliding reductions
	Ordered                  // sorts, cumulative sums, scatters: no parallel form in general
)

// Op is one row of the table.
type Op struct {
	Name  string
	Doc   string
	Class Class
	// Scalar is set for pointwise ops.
	Scalar *Scalar
	// Infer gives the output types from input types and attributes, or says
	// what does not fit.
	Infer func(n *ir.Node) ([]ir.Type, error)
	// Eval is the reference: it defines the op's values.
	Eval func(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error)
}

// families lists the rows; each family's file holds its slice. It is filled in
// init because rows refer to the builder, which looks rows up: as a plain
// variable that is an initialization cycle.
var (
	families [][]*Op
	byName   = map[string]*Op{}
)

func init() {
	families = [][]*Op{elementwiseOps, movementOps, reduceOps, contractOps, indexOps, recurrentOps}
	for _, o := range Table() {
		if byName[o.Name] != nil {
			panic("BUG: core op " + o.Name + " has two rows")
		}
		byName[o.Name] = o
	}
}

// Lookup finds a row by name; nil if there is none.
func Lookup(name string) *Op { return byName[name] }

// Table lists all rows, family by family.
func Table() []*Op {
	var all []*Op
	for _, f := range families {
		all = append(all, f...)
	}
	return all
}

// Infer checks a node against its row and gives its output types.
func Infer(n *ir.Node) ([]ir.Type, error) {
	o := Lookup(n.Op)
	if o == nil {
		return nil, fmt.Errorf("no core op %q", n.Op)
	}
	return o.Infer(n)
}

// Eval runs one node.
func Eval(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	o := Lookup(n.Op)
	if o == nil {
		return nil, fmt.Errorf("no core op %q", n.Op)
	}
	return o.Eval(n, in)
}

// EvalGraph runs a whole core graph on the reference evaluator.
func EvalGraph(g *ir.Graph, inputs []*tensor.Tensor) ([]*tensor.Tensor, error) {
	if len(inputs) != len(g.Inputs) {
		return nil, fmt.Errorf("graph has %d inputs, got %d", len(g.Inputs), len(inputs))
	}
	left := g.Uses()
	env := map[*ir.Value]*tensor.Tensor{}
	for i, v := range g.Inputs {
		env[v] = inputs[i]
	}
	get := func(v *ir.Value) *tensor.Tensor {
		if v.Const != nil {
			return v.Const
		}
		return env[v]
	}
	for _, n := range g.Nodes {
		in := make([]*tensor.Tensor, len(n.Inputs))
		for i, v := range n.Inputs {
			in[i] = get(v)
		}
		out, err := Eval(n, in)
		if err != nil {
			return nil, fmt.Errorf("node %q (core %s, from %s): %w", n.Label(), n.Op, n.Origin, err)
		}
		for i, v := range n.Outputs {
			env[v] = out[i]
		}
		for _, v := range n.Inputs {
			if left[v]--; left[v] == 0 {
				delete(env, v) // memory of a run is the live set, not the sum
			}
		}
	}
	outs := make([]*tensor.Tensor, len(g.Outputs))
	for i, v := range g.Outputs {
		outs[i] = get(v)
	}
	return outs, nil
}
