package onnx

import (
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
)

// Eval runs an ONNX graph on the reference evaluator: each node is expanded
// with constant operands, and the core ops fold to the result. It handles what
// compilers refuse: data-dependent shapes, strings, sequences, optionals.
// inputs are by position among the graph inputs that are no initializers.
// watch, if not nil, sees every node's outputs.
func Eval(g *ir.Graph, opsets map[string]int, inputs []*ir.Data, watch func(n *ir.Node, outs []*ir.Data)) ([]*ir.Data, error) {
	b := core.NewBuilder(g.Name)
	b.FoldLimit = -1
	x := &expander{b: b, opsets: opsets, env: map[*ir.Value]*Val{}, uses: g.Uses()}
	inits := map[*ir.Value]bool{}
	for _, v := range g.Inits {
		inits[v] = true
	}
	k := 0
	for _, v := range g.Inputs {
		if inits[v] {
			continue
		}
		if k >= len(inputs) {
			return nil, fault.New(fault.Usage, "input %q is not given", v.Name)
		}
		if t := inputs[k].Unwrap(); t != nil && t.Tensor != nil && v.Type.Form == ir.FormTensor && v.Type.DType != t.Tensor.DType {
			return nil, fault.New(fault.BadModel, "input %q is declared %s, the data is %s", v.Name, v.Type, t.Tensor)
		}
		x.env[v] = valOf(b, inputs[k])
		k++
	}
	if k < len(inputs) {
		return nil, fault.New(fault.Usage, "the model has %d inputs, %d are given", k, len(inputs))
	}
	for _, n := range g.Nodes {
		if err := x.node(n); err != nil {
			return nil, err
		}
		if watch != nil {
			outs := make([]*ir.Data, len(n.Outputs))
			for i, o := range n.Outputs {
				if o != nil {
					outs[i] = dataOf(x.env[o])
				}
			}
			watch(n, outs)
		}
	}
	outs := make([]*ir.Data, len(g.Outputs))
	for i, v := range g.Outputs {
		if err := core.Catch(func() { outs[i] = dataOf(x.value(v)) }); err != nil {
			return nil, fault.New(fault.BadModel, "%w", err)
		}
	}
	return outs, nil
}

func valOf(b *core.Builder, d *ir.Data) *Val {
	switch {
	case d == nil:
		return nil
	case d.Form == ir.FormTensor:
		return TensorVal(b.Const(d.Tensor))
	case d.Form == ir.FormOptional:
		return &Val{Form: d.Form, Some: valOf(b, d.Some), Elem: d.Elem}
	}
	v := &Val{Form: d.Form, Elem: d.Elem}
	for _, i := range d.Items {
		v.Items = append(v.Items, valOf(b, i))
	}
	return v
}

func dataOf(v *Val) *ir.Data {
	switch {
	case v == nil:
		return nil
	case v.Form == ir.FormTensor:
		return ir.TensorData(v.T.Const)
	case v.Form == ir.FormOptional:
		return &ir.Data{Form: v.Form, Some: dataOf(v.Some), Elem: v.Elem}
	}
	d := &ir.Data{Form: v.Form, Elem: v.Elem}
	for _, i := range v.Items {
		d.Items = append(d.Items, dataOf(i))
	}
	return d
}
