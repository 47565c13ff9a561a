package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// sequenceOps move values in and out of sequences and optionals. Both exist
// during expansion only: which tensor is at which place is always known, so a
// compiled model may use them inside.
var sequenceOps = []Op{
	{Name: "SequenceEmpty", Since: []int{11}, Expand: expandSequenceEmpty},
	{Name: "SequenceConstruct", Since: []int{11}, Expand: expandSequenceConstruct},
	{Name: "SequenceAt", Since: []int{11}, Expand: expandSequenceAt},
	{Name: "SequenceInsert", Since: []int{11}, Expand: expandSequenceInsert},
	{Name: "SequenceErase", Since: []int{11}, Expand: expandSequenceErase},
	{Name: "SequenceLength", Since: []int{11}, Expand: func(c *Ctx) {
		c.Out(0, c.B.Const(tensor.Scalar(int64(len(c.seq(0).Items)))))
	}},
	{Name: "SequenceMap", Since: []int{17}, Expand: expandSequenceMap},
	{Name: "SplitToSequence", Since: []int{11, 24}, Expand: expandSplitToSequence},
	{Name: "ConcatFromSequence", Since: []int{11}, Expand: expandConcatFromSequence},
	{Name: "Optional", Since: []int{15}, Expand: expandOptional},
	{Name: "OptionalHasElement", Since: []int{15, 18}, Expand: expandOptionalHasElement},
	{Name: "OptionalGetElement", Since: []int{15, 18}, Expand: expandOptionalGetElement},
}

// seq is input i, which must be a sequence (or an optional that holds one).
func (c *Ctx) seq(i int) *Val {
	v := c.Val(i)
	if v != nil && v.Form == ir.FormOptional && v.Some != nil {
		v = v.Some
	}
	if v == nil || v.Form != ir.FormSequence {
		c.Fail("input %d is no sequence", i)
	}
	return v
}

// place is the position that input i names in a sequence of n.
func (c *Ctx) place(i, n, end int) int {
	p := c.Ints(i, "the position")
	if len(p) != 1 {
		c.Fail("the position has %d elements", len(p))
	}
	at := p[0]
	if at < 0 {
		at += n
	}
	if at < 0 || at > end {
		c.Fail("position %d is outside a sequence of %d", p[0], n)
	}
	return at
}

func typeOf(v *Val) *ir.Type {
	if v == nil {
		return nil
	}
	switch v.Form {
	case ir.FormTensor:
		return &ir.Type{Form: ir.FormTensor, DType: v.T.DType()}
	case ir.FormSequence, ir.FormOptional:
		t := &ir.Type{Form: v.Form, Elem: v.Elem}
		switch {
		case t.Elem != nil:
		case len(v.Items) > 0:
			t.Elem = typeOf(v.Items[0])
		case v.Some != nil:
			t.Elem = typeOf(v.Some)
		}
		return t
	}
	return nil
}

func newSeq(like *Val, items []*Val) *Val {
	v := &Val{Form: ir.FormSequence, Items: items}
	switch {
	case like != nil && like.Elem != nil:
		v.Elem = like.Elem
	case len(items) > 0:
		v.Elem = typeOf(items[0])
	}
	return v
}

func expandSequenceEmpty(c *Ctx) {
	d := tensor.DType(c.N.Int("dtype", int(tensor.F32)))
	if !d.Valid() {
		c.Fail("dtype %d is no element type", d)
	}
	c.OutVal(0, &Val{Form: ir.FormSequence, Elem: &ir.Type{Form: ir.FormTensor, DType: d}})
}

func expandSequenceConstruct(c *Ctx) {
	items := make([]*Val, c.NIn())
	for i := range items {
		items[i] = TensorVal(c.In(i))
		if items[i].T.DType() != items[0].T.DType() {
			c.Fail("elements of types %s and %s", items[0].T.DType().ONNX(), items[i].T.DType().ONNX())
		}
	}
	c.OutVal(0, newSeq(nil, items))
}

func expandSequenceAt(c *Ctx) {
	s := c.seq(0)
	c.OutVal(0, s.Items[c.place(1, len(s.Items), len(s.Items)-1)])
}

func expandSequenceInsert(c *Ctx) {
	s := c.seq(0)
	at := len(s.Items)
	if c.Has(2) {
		at = c.place(2, at, at)
	}
	x := TensorVal(c.In(1))
	if e := typeOf(s).Elem; e != nil && e.Form == ir.FormTensor && e.DType != tensor.Invalid && e.DType != x.T.DType() {
		c.Fail("a %s element for a sequence of %s", x.T.DType().ONNX(), e.DType.ONNX())
	}
	c.OutVal(0, newSeq(s, slices.Insert(slices.Clone(s.Items), at, x)))
}

func expandSequenceErase(c *Ctx) {
	s := c.seq(0)
	at := len(s.Items) - 1
	if c.Has(1) {
		at = c.place(1, len(s.Items), len(s.Items)-1)
	}
	if at < 0 {
		c.Fail("nothing to erase from an empty sequence")
	}
	c.OutVal(0, newSeq(s, slices.Delete(slices.Clone(s.Items), at, at+1)))
}

func expandSequenceMap(c *Ctx) {
	body := c.bodyAttr("body")
	n := len(c.seq(0).Items)
	c.unroll("SequenceMap", n)
	outs := make([][]*Val, len(body.Outputs))
	for k := range n {
		args := make([]*Val, c.NIn())
		for i := range args {
			v := c.Val(i)
			if v == nil {
				c.Fail("input %d is missing", i)
			}
			if v.Form == ir.FormSequence {
				if len(v.Items) != n {
					c.Fail("sequences of %d and %d elements", n, len(v.Items))
				}
				v = v.Items[k]
			}
			args[i] = v
		}
		for i, v := range c.Subgraph(body, args) {
			outs[i] = append(outs[i], v)
		}
	}
	for i, items := range outs {
		t := body.Outputs[i].Type
		c.OutVal(i, newSeq(&Val{Elem: &t}, items))
	}
}

func expandSplitToSequence(c *Ctx) {
	x := c.In(0)
	axis := c.Axis(c.N.Int("axis", 0), x.Rank())
	size := core.Shape(x)[axis]
	parts := slices.Repeat([]int{1}, size)
	drop := false
	if c.Has(1) {
		split := c.Ints(1, "split")
		switch s := c.Tensor(1, "split"); {
		case len(s.Shape) > 0:
			parts = split
		case split[0] < 1:
			c.Fail("split is %d", split[0])
		default:
			parts = nil
			for at := 0; at < size; at += split[0] {
				parts = append(parts, min(split[0], size-at))
			}
		}
	} else {
		drop = c.N.Int("keepdims", 1) == 0
	}
	var items []*Val
	at := 0
	for _, p := range parts {
		if p < 0 || at+p > size {
			c.Fail("split %v of an axis of size %d", parts, size)
		}
		y := c.B.SliceAxis(x, axis, at, p)
		if drop {
			y = c.B.Drop(y, axis)
		}
		items = append(items, TensorVal(y))
		at += p
	}
	if at != size {
		c.Fail("split %v covers %d of %d elements", parts, at, size)
	}
	c.OutVal(0, newSeq(&Val{Elem: &ir.Type{Form: ir.FormTensor, DType: x.DType()}}, items))
}

func expandConcatFromSequence(c *Ctx) {
	items := c.seq(0).Items
	if len(items) == 0 {
		c.Fail("nothing to concatenate: the sequence is empty")
	}
	xs := make([]*ir.Value, len(items))
	for i, v := range items {
		xs[i] = c.tensorOf(v)
	}
	if _, ok := c.N.Attr("axis"); !ok {
		c.Fail("attribute axis is missing")
	}
	axis := c.N.Int("axis", 0)
	if c.N.Int("new_axis", 0) == 1 {
		c.Out(0, c.stack(xs, axis, nil))
		return
	}
	c.Out(0, c.B.Concat(c.Axis(axis, xs[0].Rank()), xs...))
}

func expandOptional(c *Ctx) {
	v := &Val{Form: ir.FormOptional, Some: c.Val(0)}
	if t, ok := c.N.Attr("type"); ok {
		if t, ok := t.(ir.Type); ok {
			v.Elem = &t
		}
	}
	if v.Some == nil && v.Elem == nil {
		c.Fail("neither an input nor a type is given")
	}
	if v.Elem == nil {
		v.Elem = typeOf(v.Some)
	}
	c.OutVal(0, v)
}

func expandOptionalHasElement(c *Ctx) {
	v := c.Val(0)
	has := v != nil && (v.Form != ir.FormOptional || v.Some != nil)
	c.Out(0, c.B.Const(tensor.Scalar(has)))
}

func expandOptionalGetElement(c *Ctx) {
	v := c.Val(0)
	if v != nil && v.Form == ir.FormOptional {
		v = v.Some
	}
	if v == nil {
		c.Fail("the optional is empty")
	}
	c.OutVal(0, v)
}
