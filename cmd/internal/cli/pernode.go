package cli

import (
	"context"
	"strconv"

	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// nodeCheck is one value in the report of --per-node.
type nodeCheck struct {
	Node   string `json:"node"`
	Op     string `json:"op"`
	Value  string `json:"value"`
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}

// tap is a value of the model that a compiled graph gives as an extra output.
type tap struct {
	node *ir.Node
	v    *ir.Value
	at   int // among the core graph's outputs
}

// nodes compares every value of the main graph: the compiled model gives them
// all as outputs, so nothing is fused across them, and the first line that
// fails names the node whose compilation is wrong.
func (o *verifyOptions) nodes(ctx context.Context, e engine, m *onnxfile.Model) error {
	if e.name != "core" && compiledBackends[e.name] == nil {
		return fault.New(fault.Usage, "--per-node cannot look into %s", e.name).Hint("use a model with --backend core, interp or cpu")
	}
	if o.testdata != "" {
		o.inputs.files = []string{o.testdata}
	}
	set, err := o.inputs.read(o.factory, m, &o.shapes)
	if err != nil {
		return err
	}
	want := map[*ir.Value]*ir.Data{}
	_, err = onnx.Eval(m.Graph, conformance.Opsets(m), set.Inputs, func(n *ir.Node, outs []*ir.Data) {
		for i, v := range n.Outputs {
			if v != nil {
				want[v] = outs[i]
			}
		}
	})
	if err != nil {
		return inModel(err, m)
	}
	x, in, _, err := conformance.Ready(m, set)
	if err != nil {
		return inModel(err, m)
	}
	taps := addTaps(m.Graph, x)
	got, err := o.runGraph(ctx, e, x.Graph, in)
	if err != nil {
		return inModel(err, m)
	}
	return o.reportNodes(o.tol.For(m.Graph), taps, got, want)
}

// addTaps makes the core value of each node's output an output of the core
// graph, where it is computed there at all.
func addTaps(g *ir.Graph, x *onnx.Expanded) []tap {
	live, at := map[*ir.Value]bool{}, map[*ir.Value]int{}
	for _, n := range x.Graph.Nodes {
		for _, v := range n.Outputs {
			live[v] = v != nil
		}
	}
	for i, v := range x.Graph.Outputs {
		at[v] = i
	}
	var taps []tap
	for _, n := range g.Nodes {
		for _, v := range n.Outputs {
			c := x.Values[v]
			if v == nil || c == nil || !live[c] {
				continue
			}
			if _, ok := at[c]; !ok {
				at[c] = len(x.Graph.Outputs)
				if c.Name == "" {
					c.Name = "tap·" + strconv.Itoa(at[c])
				}
				x.Graph.Outputs = append(x.Graph.Outputs, c)
			}
			taps = append(taps, tap{n, v, at[c]})
		}
	}
	return taps
}

func (o *verifyOptions) runGraph(ctx context.Context, e engine, g *ir.Graph, in []*tensor.Tensor) ([]*ir.Data, error) {
	if e.name == "core" {
		ts, err := core.EvalGraph(g, in)
		return wrap(ts), err
	}
	s, err := prepareGraph(ctx, o.factory, compiledBackends[e.name](), g, in, o.engine)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	return s.outputs()
}

func (o *verifyOptions) reportNodes(tol conformance.Tolerance, taps []tap, got []*ir.Data, want map[*ir.Value]*ir.Data) error {
	checks, failed := []nodeCheck{}, 0
	for _, t := range taps {
		c := nodeCheck{Node: t.node.Label(), Op: t.node.FullOp(), Value: t.v.Name, Status: string(conformance.Pass)}
		if err := conformance.Compare([]*ir.Data{got[t.at]}, []*ir.Data{want[t.v]}, tol, false); err != nil {
			c.Status, c.Reason = string(conformance.Fail), err.Error()
			failed++
		}
		checks = append(checks, c)
	}
	if o.json {
		if err := o.JSON(checks); err != nil {
			return err
		}
	} else {
		t := o.Table("result", "op", "node", "value", "reason")
		for _, c := range checks {
			t.Row(c.Status, c.Op, c.Node, c.Value, c.Reason)
		}
		t.Print()
	}
	o.Infof("%d values compared, %d differ", len(checks), failed)
	if len(checks) == 0 {
		return fault.New(fault.Verify, "no value could be compared").Hint("the whole model folds to constants")
	}
	if failed > 0 {
		return &silentError{fault.Verify}
	}
	return nil
}
