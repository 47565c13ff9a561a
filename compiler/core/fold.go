package core

import (
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Broadcast floats are not folded by themselves: lowering wants to see that
// they are constant along axes. But what is computed from them is constant, and
// folds here.

// root is the constant that a value views through broadcasts and reshapes.
func root(v *ir.Value) *tensor.Tensor {
	for v.Const == nil {
		if v.Def == nil || v.Def.Op != "broadcast" && v.Def.Op != "reshape" {
			return nil
		}
		v = v.Def.Inputs[0]
	}
	return v.Const
}

// settled is the value of what has a root.
func settled(v *ir.Value) *tensor.Tensor {
	if v.Const != nil {
		return v.Const
	}
	out, err := Eval(v.Def, []*tensor.Tensor{settled(v.Def.Inputs[0])})
	if err != nil {
		Fail("core %s: %v", v.Def.Op, err)
	}
	return out[0]
}

// foldViews folds a pointwise node whose operands all have roots: to a
// broadcast scalar if all roots are single elements, to a constant if some
// operand is a constant of the result's shape, or if they are whole numbers:
// distances between positions, say, which tables are then read at.
func (b *Builder) foldViews(n *ir.Node, t ir.Type) ([]*ir.Value, bool) {
	shape, _ := t.Static()
	if b.FoldLimit < 0 || len(n.Inputs) == 0 || Lookup(n.Op).Class != Pointwise || tensor.Numel(shape) > b.FoldLimit {
		return nil, false
	}
	single, whole := true, false
	roots := make([]*tensor.Tensor, len(n.Inputs))
	for i, v := range n.Inputs {
		if roots[i] = root(v); roots[i] == nil {
			return nil, false
		}
		single = single && roots[i].Len() == 1
		whole = whole || v.Const != nil
	}
	switch {
	case single:
		in := make([]*ir.Value, len(roots))
		for i, r := range roots {
			in[i] = b.Const(r.Reshaped())
		}
		s := &ir.Node{Op: n.Op, Inputs: in, Attrs: n.Attrs}
		out, ok := b.fold(s, []ir.Type{ir.TensorType(t.DType)})
		if !ok {
			return nil, false
		}
		return []*ir.Value{b.BroadcastTo(out[0], shape...)}, true
	case whole, t.DType.IsInteger() && t.DType.Bits() >= 32:
		in := make([]*ir.Value, len(roots))
		for i, v := range n.Inputs {
			in[i] = b.Const(settled(v))
		}
		return b.fold(&ir.Node{Op: n.Op, Inputs: in, Attrs: n.Attrs}, []ir.Type{t})
	}
	return nil, false
}
