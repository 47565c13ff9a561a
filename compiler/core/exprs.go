package core

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// The methods below are how expansions are written: y := b.Mul(x, b.Sigmoid(x)).
// Binary ones broadcast as numpy does (ONNX "Multidirectional Broadcasting").

// Shape is the static shape of a value.
func Shape(v *ir.Value) []int { return v.Static() }

// BroadcastShape is the numpy broadcast of shapes; it fails if they do not fit.
func BroadcastShape(shapes ...[]int) []int {
	rank := 0
	for _, s := range shapes {
		rank = max(rank, len(s))
	}
	out := slices.Repeat([]int{1}, rank)
	for _, s := range shapes {
		for i, d := range s {
			o := &out[rank-len(s)+i]
			switch {
			case *o == 1:
				*o = d
			case d != 1 && d != *o:
				all := ""
				for _, s := range shapes {
					all += " " + tensor.ShapeString(s)
				}
				Fail("shapes%s do not broadcast", all)
			}
		}
	}
	return out
}

// BroadcastTo broadcasts x to a shape of the same or a higher rank.
func (b *Builder) BroadcastTo(x *ir.Value, shape ...int) *ir.Value {
	s := Shape(x)
	if slices.Equal(s, shape) {
		return x
	}
	if len(s) < len(shape) {
		s = append(slices.Repeat([]int{1}, len(shape)-len(s)), s...)
		x = b.Reshape(x, s...)
	}
	if slices.Equal(s, shape) {
		return x
	}
	return b.Node("broadcast", []*ir.Value{x}, "shape", shape)
}

// Broadcast brings values to their common shape.
func (b *Builder) Broadcast(vs ...*ir.Value) []*ir.Value {
	shapes := make([][]int, len(vs))
	for i, v := range vs {
		shapes[i] = Shape(v)
	}
	s := BroadcastShape(shapes...)
	out := make([]*ir.Value, len(vs))
	for i, v := range vs {
		out[i] = b.BroadcastTo(v, s...)
	}
	return out
}

// Unary applies a one-operand elementwise op by name.
func (b *Builder) Unary(op string, x *ir.Value) *ir.Value { return b.Node(op, []*ir.Value{x}) }

// Binary applies a two-operand elementwise op by name, broadcasting.
func (b *Builder) Binary(op string, x, y *ir.Value) *ir.Value {
	return b.Node(op, b.Broadcast(x, y))
}

// Neg is -x.
func (b *Builder) Neg(x *ir.Value) *ir.Value { return b.Unary("neg", x) }

// Abs is |x|.
func (b *Builder) Abs(x *ir.Value) *ir.Value { return b.Unary("abs", x) }

// Exp is e^x.
func (b *Builder) Exp(x *ir.Value) *ir.Value { return b.Unary("exp", x) }

// Log is the natural logarithm.
func (b *Builder) Log(x *ir.Value) *ir.Value { return b.Unary("log", x) }

// Sqrt is the square root.
func (b *Builder) Sqrt(x *ir.Value) *ir.Value { return b.Unary("sqrt", x) }

// Tanh is the hyperbolic tangent.
func (b *Builder) Tanh(x *ir.Value) *ir.Value { return b.Unary("tanh", x) }

// Erf is the error function.
func (b *Builder) Erf(x *ir.Value) *ir.Value { return b.Unary("erf", x) }

// Floor is the largest integer not above x.
func (b *Builder) Floor(x *ir.Value) *ir.Value { return b.Unary("floor", x) }

// Round is the nearest integer, ties to even.
func (b *Builder) Round(x *ir.Value) *ir.Value { return b.Unary("round", x) }

// Not negates a bool, or every bit of an integer.
func (b *Builder) Not(x *ir.Value) *ir.Value { return b.Unary("not", x) }

// Add is x+y.
func (b *Builder) Add(x, y *ir.Value) *ir.Value { return b.Binary("add", x, y) }

// Sub is x-y.
func (b *Builder) Sub(x, y *ir.Value) *ir.Value { return b.Binary("sub", x, y) }

// Mul is x·y.
func (b *Builder) Mul(x, y *ir.Value) *ir.Value { return b.Binary("mul", x, y) }

// Div is x/y.
func (b *Builder) Div(x, y *ir.Value) *ir.Value { return b.Binary("div", x, y) }

// Pow is x to the power y.
func (b *Builder) Pow(x, y *ir.Value) *ir.Value { return b.Binary("pow", x, y) }

// Min is the smaller value.
func (b *Builder) Min(x, y *ir.Value) *ir.Value { return b.Binary("min", x, y) }

// Max is the larger value.
func (b *Builder) Max(x, y *ir.Value) *ir.Value { return b.Binary("max", x, y) }

// And is the conjunction of bools or bits.
func (b *Builder) And(x, y *ir.Value) *ir.Value { return b.Binary("and", x, y) }

// Or is the disjunction of bools or bits.
func (b *Builder) Or(x, y *ir.Value) *ir.Value { return b.Binary("or", x, y) }

// Eq is x = y.
func (b *Builder) Eq(x, y *ir.Value) *ir.Value { return b.Binary("eq", x, y) }

// Lt is x < y.
func (b *Builder) Lt(x, y *ir.Value) *ir.Value { return b.Binary("lt", x, y) }

// Le is x ≤ y.
func (b *Builder) Le(x, y *ir.Value) *ir.Value { return b.Binary("le", x, y) }

// Where is x where c holds, else y.
func (b *Builder) Where(c, x, y *ir.Value) *ir.Value {
	return b.Node("where", b.Broadcast(c, x, y))
}

// Like makes a scalar constant of x's element type.
func (b *Builder) Like(x *ir.Value, v float64) *ir.Value { return b.Scalar(x.DType(), v) }

// Sigmoid is 1/(1+e^-x).
func (b *Builder) Sigmoid(x *ir.Value) *ir.Value {
	one := b.Like(x, 1)
	return b.Div(one, b.Add(one, b.Exp(b.Neg(x))))
}

// Relu is max(x, 0).
func (b *Builder) Relu(x *ir.Value) *ir.Value { return b.Max(x, b.Like(x, 0)) }

// Cast converts to an element type.
func (b *Builder) Cast(x *ir.Value, d tensor.DType) *ir.Value {
	if x.DType() == d {
		return x
	}
	return b.Node("cast", []*ir.Value{x}, "to", d)
}

// Bitcast reads the bits as another type of the same width.
func (b *Builder) Bitcast(x *ir.Value, d tensor.DType) *ir.Value {
	if x.DType() == d {
		return x
	}
	return b.Node("bitcast", []*ir.Value{x}, "to", d)
}

// Reshape changes the shape, keeping row-major order.
func (b *Builder) Reshape(x *ir.Value, shape ...int) *ir.Value {
	if slices.Equal(Shape(x), shape) {
		return x
	}
	if x.Def != nil && x.Def.Op == "reshape" {
		return b.Reshape(x.Def.Inputs[0], shape...)
	}
	return b.Node("reshape", []*ir.Value{x}, "shape", shape)
}

// Transpose permutes axes: output axis i is input axis perm[i].
func (b *Builder) Transpose(x *ir.Value, perm ...int) *ir.Value {
	if len(perm) == x.Rank() && slices.IsSorted(perm) {
		return x
	}
	return b.Node("transpose", []*ir.Value{x}, "perm", perm)
}

// Slice reads sizes elements per axis from starts in steps of steps.
func (b *Builder) Slice(x *ir.Value, starts, sizes, steps []int) *ir.Value {
	if slices.Equal(sizes, Shape(x)) && slices.Max(append(slices.Clone(starts), 0)) == 0 && slices.Min(append(slices.Clone(steps), 1)) == 1 {
		return x
	}
	return b.Node("slice", []*ir.Value{x}, "starts", starts, "sizes", sizes, "steps", steps)
}

// SliceAxis reads [start, start+size) of one axis.
func (b *Builder) SliceAxis(x *ir.Value, axis, start, size int) *ir.Value {
	s := Shape(x)
	starts, steps := make([]int, len(s)), slices.Repeat([]int{1}, len(s))
	sizes := slices.Clone(s)
	starts[axis], sizes[axis] = start, size
	return b.Slice(x, starts, sizes, steps)
}

// Pad surrounds x with a scalar of its type.
func (b *Builder) Pad(x *ir.Value, lo, hi []int, value *ir.Value) *ir.Value {
	if slices.Max(append(slices.Concat(lo, hi), 0)) == 0 {
		return x
	}
	return b.Node("pad", []*ir.Value{x, value}, "lo", lo, "hi", hi)
}

// Concat joins values along an axis.
func (b *Builder) Concat(axis int, xs ...*ir.Value) *ir.Value {
	if len(xs) == 1 {
		return xs[0]
	}
	return b.Node("concat", xs, "axis", axis)
}

// Gather replaces an axis of x by the axes of the indices.
func (b *Builder) Gather(x *ir.Value, axis int, idx *ir.Value) *ir.Value {
	return b.Node("gather", []*ir.Value{x, idx}, "axis", axis)
}

// Scatter combines rows of updates into rows of x; op is set, add, mul, max or min.
func (b *Builder) Scatter(op string, x, idx, updates *ir.Value) *ir.Value {
	return b.Node("scatter", []*ir.Value{x, idx, updates}, "op", op)
}

// Iota is each element's index along an axis.
func (b *Builder) Iota(d tensor.DType, axis int, shape ...int) *ir.Value {
	return b.Node("iota", nil, "shape", shape, "axis", axis, "to", d)
}

// Reduce folds axes by reduce_sum, reduce_prod, reduce_max or reduce_min; keep
// leaves them as size 1.
func (b *Builder) Reduce(op string, x *ir.Value, keep bool, axes ...int) *ir.Value {
	y := x
	if len(axes) > 0 {
		axes = slices.Sorted(slices.Values(axes))
		y = b.Node(op, []*ir.Value{x}, "axes", axes)
	}
	if keep {
		return y
	}
	return b.Drop(y, axes...)
}

// Drop removes axes of size 1.
func (b *Builder) Drop(x *ir.Value, axes ...int) *ir.Value {
	var s []int
	for i, d := range Shape(x) {
		if !slices.Contains(axes, i) {
			s = append(s, d)
		} else if d != 1 {
			Fail("cannot drop axis %d of size %d", i, d)
		}
	}
	return b.Reshape(x, s...)
}

// ArgReduce is argmax or argmin along an axis, kept as size 1.
func (b *Builder) ArgReduce(op string, x *ir.Value, axis int, last bool) *ir.Value {
	return b.Node(op, []*ir.Value{x}, "axis", axis, "last", last)
}

// Cumulate is a running sum or prod.
func (b *Builder) Cumulate(op string, x *ir.Value, axis int, exclusive, reverse bool) *ir.Value {
	return b.Node("cumulate", []*ir.Value{x}, "op", op, "axis", axis, "exclusive", exclusive, "reverse", reverse)
}

// Sort gives sorted values and their positions.
func (b *Builder) Sort(x *ir.Value, axis int, descending bool) (values, positions *ir.Value) {
	o := b.NodeN("sort", []*ir.Value{x}, "axis", axis, "descending", descending)
	return o[0], o[1]
}

// Dot contracts axes lc of x with rc of y, pairing batch axes lb and rb; out is
// the element type of the result (Invalid: that of x).
func (b *Builder) Dot(x, y *ir.Value, lb, rb, lc, rc []int, out tensor.DType) *ir.Value {
	if out == tensor.Invalid {
		out = x.DType()
	}
	return b.Node("dot", []*ir.Value{x, y}, "lb", lb, "rb", rb, "lc", lc, "rc", rc, "out", out)
}

// MatMul is numpy.matmul, with out as in Dot.
func (b *Builder) MatMul(x, y *ir.Value, out tensor.DType) *ir.Value {
	xs, ys := Shape(x), Shape(y)
	if len(xs) == 0 || len(ys) == 0 {
		Fail("matmul of a scalar")
	}
	vx, vy := len(xs) == 1, len(ys) == 1
	if vx {
		x = b.Reshape(x, 1, xs[0])
	}
	if vy {
		y = b.Reshape(y, ys[0], 1)
	}
	xs, ys = Shape(x), Shape(y)
	n, m := len(xs), len(ys)
	if xs[n-1] != ys[m-2] {
		Fail("matmul of %s and %s: %d columns, %d rows", tensor.ShapeString(xs), tensor.ShapeString(ys), xs[n-1], ys[m-2])
	}
	var r *ir.Value
	if m == 2 { // one right matrix for all: rows of every batch are rows
		r = b.Dot(x, y, nil, nil, []int{n - 1}, []int{0}, out)
	} else {
		bs := BroadcastShape(xs[:n-2], ys[:m-2])
		x = b.BroadcastTo(x, append(slices.Clone(bs), xs[n-2:]...)...)
		y = b.BroadcastTo(y, append(slices.Clone(bs), ys[m-2:]...)...)
		k := len(bs)
		axes := make([]int, k)
		for i := range axes {
			axes[i] = i
		}
		r = b.Dot(x, y, axes, axes, []int{k + 1}, []int{k}, out)
	}
	k := r.Rank()
	switch {
	case vx && vy:
		return b.Drop(r, k-2, k-1)
	case vx:
		return b.Drop(r, k-2)
	case vy:
		return b.Drop(r, k-1)
	}
	return r
}

// ConvSpec is the geometry of Conv, one entry per spatial axis.
type ConvSpec struct {
	Strides, Dilations, Lo, Hi []int
	XDil                       []int // nil: no gaps
	Groups                     int
	Out                        tensor.DType
}

// Conv is the core convolution (cross-correlation, as in ONNX Conv).
func (b *Builder) Conv(x, w *ir.Value, s ConvSpec) *ir.Value {
	if s.XDil == nil {
		s.XDil = slices.Repeat([]int{1}, x.Rank()-2)
	}
	if s.Out == tensor.Invalid {
		s.Out = x.DType()
	}
	return b.Node("conv", []*ir.Value{x, w}, "strides", s.Strides, "dilations", s.Dilations,
		"lo", s.Lo, "hi", s.Hi, "xdil", s.XDil, "groups", s.Groups, "out", s.Out)
}

// Window is window_max, window_sum or window_argmax.
func (b *Builder) Window(op string, x *ir.Value, kernel []int, s ConvSpec) *ir.Value {
	return b.Node(op, []*ir.Value{x}, "kernel", kernel, "strides", s.Strides, "dilations", s.Dilations, "lo", s.Lo, "hi", s.Hi)
}
