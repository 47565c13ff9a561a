package onnx

import (
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Widen rewrites an ONNX graph in place so that float16 and bfloat16 values are
// computed in float32 and rounded only where the model says so: at its inputs,
// weights and outputs, and at its own Cast nodes. ONNX Runtime does the same on
// CPUs without such arithmetic. It reports whether there was anything to do.
//
// What is rounded less often is closer to the exact result, but not equal to
// what a device that rounds every operation gives.
func Widen(g *ir.Graph) bool {
	w := &widener{was: map[*ir.Value]tensor.DType{}}
	w.graph(g, true)
	return len(w.was) > 0
}

// smallConst is how many elements a constant may have to be converted at once;
// larger ones keep their narrow storage and are cast when the model runs.
const smallConst = 1 << 12

// widener remembers what narrow type a value had: a value keeps its identity,
// so that subgraphs read the wide one without being told.
type widener struct {
	was map[*ir.Value]tensor.DType
}

func halfFloat(d tensor.DType) bool { return d == tensor.F16 || d == tensor.BF16 }

// retype makes a value wide and reports whether it was narrow.
func (w *widener) retype(v *ir.Value) bool {
	if v == nil || !halfFloat(v.Type.DType) && v.Type.Elem == nil {
		return false
	}
	if v.Type.Form == ir.FormTensor {
		w.was[v] = v.Type.DType
	}
	v.Type = widened(v.Type)
	return v.Type.Form == ir.FormTensor
}

// widened is a type with float32 in place of narrower floats, also inside
// sequences and optionals.
func widened(t ir.Type) ir.Type {
	if halfFloat(t.DType) {
		t.DType = tensor.F32
	}
	if t.Elem != nil {
		e := widened(*t.Elem)
		t.Elem = &e
	}
	return t
}

// outer makes the narrow value that takes a wide one's name and place.
func (w *widener) outer(v *ir.Value) *ir.Value {
	o := &ir.Value{Name: v.Name, Type: v.Type, Doc: v.Doc}
	o.Type.DType = w.was[v]
	if v.Name != "" {
		v.Name += "·f32"
	}
	return o
}

func castNode(from, to *ir.Value) *ir.Node {
	n := &ir.Node{Op: "Cast", Name: to.Name + "·cast", Inputs: []*ir.Value{from}, Outputs: []*ir.Value{to}}
	n.SetAttr("to", int64(to.Type.DType))
	to.Def = n
	return n
}

func (w *widener) graph(g *ir.Graph, top bool) {
	input := map[*ir.Value]bool{}
	for _, v := range g.Inputs {
		input[v] = true
	}
	var nodes []*ir.Node
	for i, v := range g.Inits {
		if !w.retype(v) {
			continue
		}
		if v.Const.Len() <= smallConst || input[v] {
			v.Const = tensor.Convert(v.Const, tensor.F32)
			continue
		}
		o := w.outer(v)
		o.Const, v.Const = v.Const, nil
		g.Inits[i] = o
		nodes = append(nodes, castNode(o, v))
	}
	for i, v := range g.Inputs {
		if w.retype(v) && top {
			o := w.outer(v)
			g.Inputs[i] = o
			nodes = append(nodes, castNode(o, v))
		}
	}
	for _, n := range g.Nodes {
		nodes = append(nodes, w.node(n)...)
	}
	for i, v := range g.Outputs {
		if _, narrow := w.was[v]; narrow && top {
			o := w.outer(v)
			g.Outputs[i] = o
			nodes = append(nodes, castNode(v, o))
		}
	}
	g.Nodes = nodes
}

// node widens what a node makes and what its attributes name. A cast to a
// narrow type still rounds, and a bit cast still sees narrow bits.
func (w *widener) node(n *ir.Node) []*ir.Node {
	out := []*ir.Node{n}
	explicit := n.Op == "Cast" || n.Op == "BitCast"
	if n.Op == "BitCast" && len(n.Inputs) > 0 {
		if v := n.Inputs[0]; halfFloat(w.was[v]) {
			o := &ir.Value{Type: v.Type, Name: v.Name + "·bits"}
			o.Type.DType = w.was[v]
			out = []*ir.Node{castNode(v, o), n}
			n.Inputs[0] = o
		}
	}
	for i := range n.Attrs {
		a := &n.Attrs[i]
		switch v := a.Val.(type) {
		case int64:
			if !explicit && typeAttrs[a.Name] && halfFloat(tensor.DType(v)) {
				a.Val = int64(tensor.F32)
			}
		case *tensor.Tensor:
			if v != nil && halfFloat(v.DType) {
				a.Val = tensor.Convert(v, tensor.F32)
			}
		case ir.Type:
			a.Val = widened(v)
		}
	}
	for i, v := range n.Outputs {
		// The reader does not always know the type of a cast's result.
		to := tensor.DType(n.Int("to", 0))
		if explicit && v != nil && halfFloat(to) {
			v.Type.Form, v.Type.DType = ir.FormTensor, to
		}
		if w.retype(v) && explicit {
			o := &ir.Value{Name: v.Name + "·narrow", Type: v.Type, Def: n}
			o.Type.DType = w.was[v]
			n.Outputs[i] = o
			out = append(out, castNode(o, v))
		}
	}
	for _, s := range n.Subgraphs() {
		w.graph(s, false)
	}
	return out
}

// typeAttrs are the attributes that hold an element type's number.
var typeAttrs = map[string]bool{
	"dtype": true, "output_dtype": true, "output_datatype": true, "precision": true, "softmax_precision": true,
}
