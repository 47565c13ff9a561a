package lower

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Quantized contractions run as float contractions of whole numbers: F32 holds
// every integer up to 2^24, so that sums of products of eight-bit values are
// exact where they stay below, and the scales are applied once. That is closer
// to the true value than scaling the operands first, and it is the form that
// integer kernels need.

// quantized rebuilds a convolution or product.
func (r *rebuild) quantized(n *ir.Node, in []*ir.Value) *ir.Value {
	if y := r.wholeContraction(n, in); y != nil {
		return y
	}
	if y := r.unscaled(n, in); y != nil {
		return y
	}
	return r.b.Node(n.Op, in, r.attrs(n)...)
}

// wholeContraction rewrites an integer contraction with constant weights, if
// no sum can leave the integers that F32 holds.
func (r *rebuild) wholeContraction(n *ir.Node, in []*ir.Value) *ir.Value {
	x, w := in[0], in[1]
	if !x.DType().IsInteger() || x.DType().Bits() > 8 || n.Outputs[0].DType() != tensor.I32 {
		return nil
	}
	c := constant(w)
	if c == nil || !c.DType.IsInteger() || c.DType.Bits() > 16 {
		return nil
	}
	per := 0 // weights of one sum
	switch {
	case n.Op == "conv":
		per = c.Len() / max(c.Shape[0], 1)
	case len(core.DotAxes(n).RC) == 1 && c.Len() > 0:
		per = c.Shape[core.DotAxes(n).RC[0]]
	}
	most := 0.0
	if n.Op == "conv" && per > 0 {
		for i := 0; i < c.Len(); i += per {
			sum := 0.0
			for j := range per {
				sum += math.Abs(float64(c.Int(i + j)))
			}
			most = max(most, sum)
		}
	} else {
		for i := range c.Len() {
			most = max(most, math.Abs(float64(c.Int(i))))
		}
		most *= float64(per)
	}
	lo, hi := x.DType().IntRange()
	if per == 0 || most*max(float64(hi), -float64(lo)) >= 1<<24 {
		return nil
	}
	f := r.b.NamedConst(w.Name, tensor.Convert(c, tensor.F32))
	y := r.b.Node(n.Op, []*ir.Value{r.b.Cast(x, tensor.F32), f}, flatAttrs(n, "out", "f32")...)
	return r.b.Cast(y, tensor.I32)
}

// unscaled takes constant scales out of the operands of a float contraction:
// op(x·s, w·t) = op(x, w)·(s·t).
func (r *rebuild) unscaled(n *ir.Node, in []*ir.Value) *ir.Value {
	if in[0].DType() != tensor.F32 || n.Outputs[0].DType() != tensor.F32 && !narrow(n.Outputs[0].DType()) {
		return nil
	}
	channel := 0
	if n.Op == "dot" {
		channel = -1
	}
	x, sx := wholeTimes(in[0], -1)
	w, sw := wholeTimes(in[1], channel)
	if sx == nil || sw == nil || constant(w) == nil {
		return nil
	}
	f := r.b.NamedConst(in[1].Name, constant(w))
	y := r.b.Node(n.Op, []*ir.Value{x, f}, r.attrs(n)...)
	scale := tensor.New(tensor.F32, sw.Len())
	for i := range sw.Len() {
		scale.SetFloat(i, sx.Float(0)*sw.Float(i))
	}
	shape := []int{}
	if sw.Len() > 1 {
		shape = slices.Repeat([]int{1}, y.Rank())
		shape[1] = sw.Len()
	}
	scale = scale.Reshaped(shape...)
	return r.scale(y, scale)
}

// wholeTimes splits a value into whole numbers and a constant scale, which may
// vary along one axis (-1: not at all).
func wholeTimes(v *ir.Value, axis int) (x *ir.Value, scale *tensor.Tensor) {
	if v.Def == nil || v.Def.Op != "mul" {
		return nil, nil
	}
	for i := range 2 {
		s := perChannel(v.Def.Inputs[1-i], axis)
		if s != nil && (s.Len() == 1 || axis >= 0) && whole(v.Def.Inputs[i], 12) {
			return v.Def.Inputs[i], s
		}
	}
	return nil, nil
}

// whole reports that a float value holds whole numbers only.
func whole(v *ir.Value, depth int) bool {
	if v.Const != nil {
		if v.Const.Len() > 4096 || !v.Const.DType.IsNumeric() {
			return false
		}
		return !slices.ContainsFunc(v.Const.Floats(), func(f float64) bool { return f != math.Trunc(f) })
	}
	if v.Def == nil || depth == 0 {
		return false
	}
	switch n := v.Def; n.Op {
	case "cast":
		d := n.Inputs[0].DType()
		return d.IsInteger() || d == tensor.Bool || whole(n.Inputs[0], depth-1)
	case "round", "floor", "ceil", "trunc":
		return true
	case "add", "sub", "min", "max", "concat", "pad", "window_max":
		return !slices.ContainsFunc(n.Inputs, func(x *ir.Value) bool { return !whole(x, depth-1) })
	case "reshape", "transpose", "broadcast", "slice", "neg", "gather":
		return whole(n.Inputs[0], depth-1)
	}
	return false
}
