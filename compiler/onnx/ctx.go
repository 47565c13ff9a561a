package onnx

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Val is what an ONNX value is during expansion: a core tensor value, or a
// sequence or optional of them. A nil *Val is an omitted input.
type Val struct {
	T     *ir.Value // FormTensor
	Form  ir.Form
	Items []*Val   // FormSequence
	Some  *Val     // FormOptional; nil: none
	Elem  *ir.Type // element type of an empty sequence or optional, where known
}

// TensorVal wraps a core value.
func TensorVal(v *ir.Value) *Val { return &Val{T: v, Form: ir.FormTensor} }

// Ctx is one node being expanded. Its methods panic on operands that do not
// fit (core.Fail) and on what is refused (Unsupported); the graph expansion
// turns both into errors that name the node.
type Ctx struct {
	N       *ir.Node
	Version int // the row's since-version that applies
	Opset   int // of the node's domain
	B       *core.Builder

	x    *expander
	outs []*Val
}

type unsupported struct{ msg, hint string }

// Unsupported refuses the node: what is meant, in one clause.
func (c *Ctx) Unsupported(format string, args ...any) {
	panic(&unsupported{msg: fmt.Sprintf(format, args...)})
}

// Dynamic refuses the node because an operand must be constant.
func (c *Ctx) Dynamic(what string) {
	panic(&unsupported{msg: what + " is computed at run time", hint: "bind it with a constant input, or use the reference evaluator"})
}

// Fail says that the operands or attributes contradict the specification.
func (c *Ctx) Fail(format string, args ...any) { core.Fail(format, args...) }

// NIn is the number of input positions, omitted ones included.
func (c *Ctx) NIn() int { return len(c.N.Inputs) }

// NOut is the number of output positions.
func (c *Ctx) NOut() int { return len(c.N.Outputs) }

// Has reports whether input i is given.
func (c *Ctx) Has(i int) bool { return c.Val(i) != nil }

// Wants reports whether output i is used by the model.
func (c *Ctx) Wants(i int) bool { return i < len(c.N.Outputs) && c.N.Outputs[i] != nil }

// Val is input i in whatever form; nil if omitted.
func (c *Ctx) Val(i int) *Val {
	v := c.N.In(i)
	if v == nil {
		return nil
	}
	return c.x.value(v)
}

// In is tensor input i; it fails if the input is omitted or no tensor. An
// optional that holds a tensor is taken as that tensor.
func (c *Ctx) In(i int) *ir.Value {
	v := c.Val(i)
	if v != nil && v.Form == ir.FormOptional && v.Some != nil {
		v = v.Some
	}
	if v == nil {
		c.Fail("input %d is missing", i)
	}
	if v.T == nil {
		c.Fail("input %d is no tensor", i)
	}
	return v.T
}

// Opt is tensor input i, or nil if omitted.
func (c *Ctx) Opt(i int) *ir.Value {
	if !c.Has(i) {
		return nil
	}
	return c.In(i)
}

// Known is the value of input i if it is constant.
func (c *Ctx) Known(i int) (*tensor.Tensor, bool) {
	v := c.Opt(i)
	if v == nil || v.Const == nil {
		return nil, false
	}
	return v.Const, true
}

// Tensor is the value of input i, which must be constant; what names it in the
// refusal ("shape", "axes", …).
func (c *Ctx) Tensor(i int, what string) *tensor.Tensor {
	v := c.In(i)
	if v.Const == nil {
		c.Dynamic(what)
	}
	return v.Const
}

// Ints is a constant integer input as ints; nil if omitted.
func (c *Ctx) Ints(i int, what string) []int {
	if !c.Has(i) {
		return nil
	}
	v, err := c.Tensor(i, what).Ints()
	if err != nil {
		c.Fail("%s: %v", what, err)
	}
	return v
}

// IntsOrAttr reads what older opsets gave as attribute and newer ones give as
// input i; nil if neither is there.
func (c *Ctx) IntsOrAttr(i int, name string) []int {
	if c.Has(i) {
		return c.Ints(i, name)
	}
	return c.N.Ints(name)
}

// Out sets output i to a tensor.
func (c *Ctx) Out(i int, v *ir.Value) { c.OutVal(i, TensorVal(v)) }

// OutVal sets output i to any form.
func (c *Ctx) OutVal(i int, v *Val) {
	for len(c.outs) <= i {
		c.outs = append(c.outs, nil)
	}
	c.outs[i] = v
}

// Axis resolves a possibly negative axis of a rank.
func (c *Ctx) Axis(a, rank int) int {
	if a < -rank || a >= rank {
		c.Fail("axis %d is outside rank %d", a, rank)
	}
	if a < 0 {
		a += rank
	}
	return a
}

// Axes resolves axes and refuses repeated ones.
func (c *Ctx) Axes(as []int, rank int) []int {
	seen := map[int]bool{}
	out := make([]int, len(as))
	for i, a := range as {
		a = c.Axis(a, rank)
		if seen[a] {
			c.Fail("axis %d is given twice", a)
		}
		seen[a] = true
		out[i] = a
	}
	return out
}

// OneOf fails unless s is among the allowed attribute values.
func (c *Ctx) OneOf(name, s string, allowed ...string) string {
	for _, a := range allowed {
		if s == a {
			return s
		}
	}
	c.Unsupported("%s=%q", name, s)
	return ""
}

// Evaluating reports that every value is a constant: nothing is compiled.
func (c *Ctx) Evaluating() bool { return c.B.FoldLimit < 0 }

// Subgraph expands a body in place with the given values for its inputs; it
// sees the values of the enclosing graphs. The node's own opset applies.
func (c *Ctx) Subgraph(g *ir.Graph, args []*Val) []*Val { return c.x.body(g, args) }

// Expand runs another op's row on given values, as if it were a node here:
// how an op that ONNX defines by others is written.
func (c *Ctx) Expand(op string, opset int, in []*ir.Value, nout int, attrs ...ir.Attr) []*ir.Value {
	n := &ir.Node{Op: op, Name: c.N.Name, Attrs: attrs}
	sub := &expander{b: c.B, opsets: map[string]int{"": opset}, env: map[*ir.Value]*Val{}, outer: c.x}
	for _, v := range in {
		if v == nil {
			n.Inputs = append(n.Inputs, nil)
			continue
		}
		h := &ir.Value{Type: v.Type}
		sub.env[h] = TensorVal(v)
		n.Inputs = append(n.Inputs, h)
	}
	for range nout {
		n.Outputs = append(n.Outputs, &ir.Value{Def: n})
	}
	if err := sub.node(n); err != nil {
		if e := fault.As(err); e != nil && e.Kind == fault.Unsupported {
			panic(&unsupported{msg: e.Msg, hint: e.Help})
		}
		core.Fail("%v", err)
	}
	out := make([]*ir.Value, nout)
	for i, o := range n.Outputs {
		if v := sub.env[o]; v != nil {
			out[i] = v.T
		}
	}
	return out
}
