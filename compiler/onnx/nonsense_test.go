package onnx

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// nonsense makes operands and attributes that no row expects.
type nonsense struct{ *rand.Rand }

func (r nonsense) between(lo, hi int) int { return lo + r.IntN(hi-lo+1) }

func (r nonsense) tensor() *tensor.Tensor {
	types := []tensor.DType{
		tensor.F32, tensor.F32, tensor.F32, tensor.I64, tensor.I64, tensor.I32, tensor.U8, tensor.I8, tensor.Bool, tensor.String,
		tensor.F16, tensor.C64, tensor.C128, tensor.I4, tensor.F8E4M3FN, tensor.U64, tensor.F64, tensor.F4E2M1,
	}
	t := types[r.IntN(len(types))]
	shape := make([]int, r.between(0, 4))
	for i := range shape {
		shape[i] = r.between(0, 3)
	}
	x := tensor.New(t, shape...)
	for i := range x.Len() {
		if t.IsNumeric() || t == tensor.Bool {
			x.SetInt(i, int64(r.between(-3, 6)))
		}
	}
	return x
}

func (r nonsense) attrs() []ir.Attr {
	names := []string{
		"axis", "axes", "keepdims", "mode", "pads", "strides", "dilations", "group", "kernel_shape", "auto_pad", "k", "to", "perm",
		"num_outputs", "batch_dims", "reduction", "block_size", "blocksize", "hidden_size", "direction", "layout", "num_heads",
		"q_num_heads", "kv_num_heads", "p", "size", "starts", "ends", "shape", "split", "num_groups", "equation", "batch_axis",
		"output_shape", "ratio", "pooled_shape", "output_height", "sampling_ratio", "bits", "K", "N", "ignore_index", "value_ints",
	}
	var as []ir.Attr
	for _, i := range r.Perm(len(names))[:r.between(0, 4)] {
		var v any = int64(r.between(-3, 8))
		switch r.IntN(5) {
		case 0:
			list := make([]int64, r.between(0, 4))
			for j := range list {
				list[j] = int64(r.between(-2, 4))
			}
			v = list
		case 1:
			v = float32(r.NormFloat64())
		case 2:
			v = []string{"", "linear", "SAME_UPPER", "add", "ij,jk->ik"}[r.IntN(5)]
		}
		as = append(as, ir.Attr{Name: names[i], Val: v})
	}
	return as
}

func (r nonsense) node(o *Op) (*ir.Graph, []*ir.Data) {
	n := &ir.Node{Op: o.Name, Domain: o.Domain, Name: "n", Attrs: r.attrs()}
	g := &ir.Graph{Name: "g", Nodes: []*ir.Node{n}}
	var data []*ir.Data
	t := r.tensor()
	for i := range r.between(0, 6) {
		if r.IntN(8) == 0 {
			n.Inputs = append(n.Inputs, nil)
			continue
		}
		if r.IntN(3) > 0 { // else the same again: more rows get past their first check
			t = r.tensor()
		}
		v := &ir.Value{Name: fmt.Sprintf("x%d", i), Type: ir.TensorType(t.DType, t.Shape...)}
		g.Inputs, n.Inputs, data = append(g.Inputs, v), append(n.Inputs, v), append(data, ir.TensorData(t))
	}
	for i := range r.between(1, 3) {
		v := &ir.Value{Name: fmt.Sprintf("y%d", i), Def: n}
		g.Outputs, n.Outputs = append(g.Outputs, v), append(n.Outputs, v)
	}
	return g, data
}

// TestNonsense feeds every row operands and attributes that do not fit: a
// model's faults are errors, and none of them is a panic.
func TestNonsense(t *testing.T) {
	for k, o := range Table() {
		r := nonsense{rand.New(rand.NewPCG(uint64(k), 1))}
		t.Run(o.Domain+"."+o.Name, func(t *testing.T) {
			for range 60 {
				g, data := r.node(o)
				opset := o.Since[r.IntN(len(o.Since))]
				survives(t, g, data, map[string]int{"": max(opset, 1), o.Domain: opset})
			}
		})
	}
}

func survives(t *testing.T, g *ir.Graph, data []*ir.Data, opsets map[string]int) {
	defer func() {
		if p := recover(); p != nil {
			n := g.Nodes[0]
			t.Errorf("opset %v, operands %v, attributes %v: panic: %v", opsets, data, n.Attrs, p)
		}
	}()
	_, _ = Eval(g, opsets, data, nil)
	_, _ = Expand(g, Options{Opsets: opsets})
}
