package lower

import (
	"fmt"
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
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

// wholeContraction rewrites an integer contraction with constant weights as one
// of floats. Where sums may leave the integers that F32 holds they stay I32, if
// the target multiplies bytes; else the contraction is cut in parts.
func (r *rebuild) wholeContraction(n *ir.Node, in []*ir.Value) *ir.Value {
	x, w := in[0], in[1]
	lo, hi, ok := smallRange(x)
	if !ok || n.Outputs[0].DType() != tensor.I32 {
		return nil
	}
	c := constant(w)
	if c == nil && n.Op == "dot" {
		return r.wholeProduct(n, x, w, max(hi, -lo))
	}
	if c == nil || !c.DType.IsInteger() || c.DType.Bits() > 16 || c.Len() == 0 {
		return nil
	}
	per := c.Len() / max(c.Shape[0], 1) // weights of one sum
	if n.Op == "dot" {
		if len(core.DotAxes(n).RC) != 1 {
			return nil
		}
		per = c.Shape[core.DotAxes(n).RC[0]]
	}
	most := mostSum(n, c, per) * max(float64(hi), -float64(lo))
	f := tensor.Convert(c, tensor.F32)
	switch {
	case per == 0:
		return nil
	case most < 1<<24:
		y := r.b.Node(n.Op, []*ir.Value{r.float(x), r.b.NamedConst(w.Name, f)}, flatAttrs(n, "out", "f32")...)
		return r.b.Cast(y, tensor.I32)
	case r.bytes && most < 1<<31 && multiplied(n, c):
		return r.b.Node(n.Op, []*ir.Value{r.float(x), r.b.NamedConst(w.Name, f)}, flatAttrs(n)...)
	}
	return r.inParts(n, r.float(x), f, w.Name, max(float64(hi), -float64(lo)))
}

// wholeProduct rewrites an integer product of two computed operands, of which
// the left one is at most so large, in the same ways.
func (r *rebuild) wholeProduct(n *ir.Node, x, w *ir.Value, most int64) *ir.Value {
	d := core.DotAxes(n)
	lo, hi, ok := smallRange(w)
	if !ok || len(d.RC) != 1 {
		return nil
	}
	k := w.Static()[d.RC[0]]
	fx, fw := r.float(x), r.float(w)
	product := func(at, size int) *ir.Value {
		y := r.b.Node("dot", []*ir.Value{r.b.SliceAxis(fx, d.LC[0], at, size), r.b.SliceAxis(fw, d.RC[0], at, size)}, flatAttrs(n, "out", "f32")...)
		return r.b.Cast(y, tensor.I32)
	}
	size := int(min(int64(k), (1<<24-1)/max(most*max(hi, -lo), 1)))
	switch {
	case size == k:
		return product(0, k)
	case r.bytes && k%loop.TileU8S8.Group() == 0 && hi-lo <= 255 && rowsOf(n, d) >= bytesPay && lastAxis(n.Outputs[0]) >= bytesPay:
		return r.b.Node("dot", []*ir.Value{fx, fw}, flatAttrs(n)...)
	}
	sum := product(0, size)
	for at := size; at < k; at += size {
		sum = r.b.Add(sum, product(at, min(size, k-at)))
	}
	return sum
}

// multiplied reports whether products of bytes serve an integer contraction.
func multiplied(n *ir.Node, w *tensor.Tensor) bool {
	least, most := int64(0), int64(0)
	for i := range w.Len() {
		least, most = min(least, w.Int(i)), max(most, w.Int(i))
	}
	signed := least >= -128 && most <= 127
	if n.Op == "conv" {
		one := tensor.Numel(w.Shape[2:]) == 1 && !slices.ContainsFunc(slices.Concat(n.Ints("lo"), n.Ints("hi")), func(p int) bool { return p != 0 })
		return len(w.Shape) == 4 && n.Int("groups", 1) == 1 && tensor.Numel(w.Shape[1:]) >= 4 && (signed || one && most-least <= 255)
	}
	k := w.Shape[core.DotAxes(n).RC[0]]
	return most-least <= 255 && k%loop.TileU8S8.Group() == 0 && w.Len() >= 8*k*tensor.Numel(sizesAt(w.Shape, core.DotAxes(n).RB))
}

// mostSum is the greatest sum of magnitudes that a sum of a contraction has.
func mostSum(n *ir.Node, c *tensor.Tensor, per int) float64 {
	most := 0.0
	if n.Op == "conv" && per > 0 {
		for i := 0; i < c.Len(); i += per {
			sum := 0.0
			for j := range per {
				sum += math.Abs(c.Float(i + j))
			}
			most = max(most, sum)
		}
		return most
	}
	sums := make([]float64, c.Len()/max(per, 1))
	axis := core.DotAxes(n).RC[0]
	inner := tensor.Numel(c.Shape[axis+1:])
	for i := range c.Len() {
		at := i/(inner*per)*inner + i%inner
		sums[at] += math.Abs(c.Float(i))
		most = max(most, sums[at])
	}
	return most
}

// inParts sums a contraction of whole numbers up to most over parts of its
// channels, each of which F32 holds; nil if those would be too small.
func (r *rebuild) inParts(n *ir.Node, x *ir.Value, w *tensor.Tensor, name string, most float64) *ir.Value {
	xa, wa := 1, 1
	if n.Op == "dot" {
		d := core.DotAxes(n)
		xa, wa = d.LC[0], d.RC[0]
	} else if n.Int("groups", 1) != 1 {
		return nil
	}
	parts := partsBelow(n, w, wa, most)
	var sum *ir.Value
	at := 0
	for _, part := range parts {
		end := at + part.Shape[wa]
		y := r.b.Node(n.Op, []*ir.Value{r.b.SliceAxis(x, xa, at, end-at), r.b.NamedConst(fmt.Sprintf("%s·%d", name, at), part)}, flatAttrs(n, "out", "f32")...)
		at = end
		if y = r.b.Cast(y, tensor.I32); sum != nil {
			y = r.b.Add(sum, y)
		}
		sum = y
	}
	return sum
}

// partsBelow cuts the weights of a contraction along an axis so that no sum with
// values up to most leaves the integers that F32 holds; nil if parts would be
// less than half a vector.
func partsBelow(n *ir.Node, w *tensor.Tensor, axis int, most float64) []*tensor.Tensor {
	channels := w.Shape[axis]
	for size := (channels/2 + 15) / 16 * 16; size >= 16; size = (size/2 + 15) / 16 * 16 {
		var parts []*tensor.Tensor
		fits := true
		for at := 0; at < channels && fits; at += size {
			part := slicedConst(w, axis, at, min(at+size, channels))
			per := part.Shape[axis]
			if n.Op == "conv" {
				per = part.Len() / part.Shape[0]
			}
			fits = mostSum(n, part, per)*most < 1<<24
			parts = append(parts, part)
		}
		if fits {
			return parts
		}
		if size == 16 {
			return nil
		}
	}
	return nil
}

// slicedConst is a part of a constant along an axis.
func slicedConst(t *tensor.Tensor, axis, from, to int) *tensor.Tensor {
	shape := slices.Clone(t.Shape)
	shape[axis] = to - from
	out := tensor.New(t.DType, shape...)
	inner := tensor.Numel(t.Shape[axis+1:])
	src, dst := tensor.As[float32](t), tensor.As[float32](out)
	for o := range tensor.Numel(t.Shape[:axis]) {
		copy(dst[o*(to-from)*inner:][:(to-from)*inner], src[(o*t.Shape[axis]+from)*inner:])
	}
	return out
}

// smallRange bounds the elements of an integer value of up to eight bits, or of
// one less its zero point.
func smallRange(v *ir.Value) (lo, hi int64, ok bool) {
	d := v.DType()
	switch n := v.Def; {
	case !d.IsInteger():
		return 0, 0, false
	case d.Bits() <= 8:
		least, most := d.IntRange()
		return least, int64(most), true
	case d != tensor.I16 || n == nil:
		return 0, 0, false
	case n.Op == "cast" || turned(n):
		return smallRange(n.Inputs[0])
	case n.Op == "sub":
		z, isConst := wholeScalar(n.Inputs[1])
		lo, hi, ok = smallRange(n.Inputs[0])
		return lo - z, hi - z, ok && isConst
	}
	return 0, 0, false
}

// wholeScalar is the one value of an integer constant.
func wholeScalar(v *ir.Value) (int64, bool) {
	for v.Def != nil && v.Def.Op == "broadcast" {
		v = v.Def.Inputs[0]
	}
	if v.Const == nil || v.Const.Len() != 1 || !v.Const.DType.IsInteger() {
		return 0, false
	}
	return v.Const.Int(0), true
}

// float is a value that smallRange knows, as F32.
func (r *rebuild) float(v *ir.Value) *ir.Value {
	if x := alreadyInteger(v); x != nil {
		r.clamped[x] = true
		return x
	}
	if n := v.Def; n != nil && v.DType() == tensor.I16 {
		switch {
		case turned(n):
			return r.b.Node(n.Op, []*ir.Value{r.float(n.Inputs[0])}, flatAttrs(n)...)
		case n.Op == "cast":
			return r.float(n.Inputs[0])
		case n.Op == "sub":
			z, _ := wholeScalar(n.Inputs[1])
			return r.b.Sub(r.float(n.Inputs[0]), r.b.Scalar(tensor.F32, float64(z)))
		}
	}
	return r.b.Cast(v, tensor.F32)
}

// unscaled takes constant scales out of the operands of a float contraction:
// op(x·s, w·t) = op(x, w)·(s·t).
func (r *rebuild) unscaled(n *ir.Node, in []*ir.Value) *ir.Value {
	if in[0].DType() != tensor.F32 || n.Outputs[0].DType() != tensor.F32 && !narrow(n.Outputs[0].DType()) {
		return nil
	}
	channel, last := 0, 1 // the axes of output channels in the weights and in the result
	if n.Op == "dot" {
		channel, last = -1, n.Outputs[0].Rank()-1
		if rf := core.DotAxes(n).RF; len(rf) == 1 {
			channel = rf[0]
		}
	}
	x, sx := r.wholeTimes(in[0], -1)
	w, sw := r.wholeTimes(in[1], channel)
	if sx == nil || sw == nil {
		return nil
	}
	f := w
	if c := constant(w); c != nil {
		f = r.b.NamedConst(in[1].Name, c)
	} else if n.Op != "dot" || sw.Len() != 1 {
		return nil
	}
	y := r.b.Node(n.Op, []*ir.Value{x, f}, r.attrs(n)...)
	scale := tensor.New(tensor.F32, sw.Len())
	for i := range sw.Len() {
		scale.SetFloat(i, sx.Float(0)*sw.Float(i))
	}
	shape := []int{}
	if sw.Len() > 1 {
		shape = slices.Repeat([]int{1}, y.Rank())
		shape[last] = sw.Len()
	}
	scale = scale.Reshaped(shape...)
	return r.scale(y, scale)
}

// wholeTimes splits a value into whole numbers and a constant scale, which may
// vary along one axis (-1: not at all).
func (r *rebuild) wholeTimes(v *ir.Value, axis int) (x *ir.Value, scale *tensor.Tensor) {
	if v.Def == nil {
		return nil, nil
	}
	if turned(v.Def) { // scales of one number move on
		if x, scale = r.wholeTimes(v.Def.Inputs[0], -1); x != nil {
			x = r.b.Node(v.Def.Op, []*ir.Value{x}, flatAttrs(v.Def)...)
		}
		return x, scale
	}
	if v.Def.Op != "mul" {
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

// turned reports ops that give the elements of their operand in another order.
func turned(n *ir.Node) bool { return n.Op == "transpose" || n.Op == "reshape" }

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
