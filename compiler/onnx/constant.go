package onnx

import (
	"math"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// constantOps make tensors from attributes and shape-like operands.
var constantOps = []Op{
	{Name: "Constant", Since: []int{1, 9, 11, 12, 13, 19, 21, 23, 24, 25}, Expand: expandConstant},
	{Name: "ConstantOfShape", Since: []int{9, 20, 21, 23, 24, 25}, Expand: expandConstantOfShape},
	{Name: "EyeLike", Since: []int{9, 22}, Expand: expandEyeLike},
	{Name: "Range", Since: []int{11, 27}, Expand: expandRange},
	{Name: "OneHot", Since: []int{9, 11}, Expand: expandOneHot},
}

func expandConstant(c *Ctx) {
	var t *tensor.Tensor
	for _, a := range c.N.Attrs {
		switch v := a.Val.(type) {
		case *tensor.Tensor:
			t = v
		case float32:
			t = tensor.Of([]float32{v})
		case int64:
			t = tensor.Of([]int64{v})
		case []float32:
			t = tensor.Of(v, len(v))
		case []int64:
			t = tensor.Of(v, len(v))
		case string:
			t = stringTensor(nil, []string{v})
		case []string:
			t = stringTensor([]int{len(v)}, v)
		default:
			c.Unsupported("attribute %s", a.Name)
		}
	}
	if t == nil {
		c.Fail("no value is given")
	}
	c.Out(0, c.B.Const(t))
}

func stringTensor(shape []int, s []string) *tensor.Tensor {
	t := tensor.New(tensor.String, shape...)
	copy(t.Strings(), s)
	return t
}

func expandConstantOfShape(c *Ctx) {
	shape := c.Ints(0, "input")
	v := c.N.TensorAttr("value")
	if v == nil {
		v = tensor.New(tensor.F32)
	}
	if v.Len() != 1 {
		c.Fail("value has %d elements, needs one", v.Len())
	}
	c.Out(0, c.B.BroadcastTo(c.B.Const(v.Reshaped()), shape...))
}

// dtypeAttr reads an element type attribute: a number, or in opsets before 6 a
// name.
func (c *Ctx) dtypeAttr(name string, def tensor.DType) tensor.DType {
	v, ok := c.N.Attr(name)
	if !ok {
		return def
	}
	switch v := v.(type) {
	case int64:
		if d := tensor.DType(v); v > 0 && v < 256 && d.Valid() {
			return d
		}
	case string:
		if d, ok := tensor.ParseDType(lower(v)); ok {
			return d
		}
	}
	c.Unsupported("%s=%v", name, v)
	return 0
}

func lower(s string) string {
	b := []byte(s)
	for i, ch := range b {
		if 'A' <= ch && ch <= 'Z' {
			b[i] = ch + 'a' - 'A'
		}
	}
	return string(b)
}

func expandEyeLike(c *Ctx) {
	x := c.In(0)
	if x.Rank() != 2 {
		c.Fail("input has rank %d, needs 2", x.Rank())
	}
	s := x.Static()
	d := c.dtypeAttr("dtype", x.DType())
	k := c.N.Int("k", 0)
	diag := c.B.Add(c.B.Iota(tensor.I64, 0, s...), c.B.ScalarInt(tensor.I64, int64(k)))
	c.Out(0, c.B.Cast(c.B.Eq(diag, c.B.Iota(tensor.I64, 1, s...)), d))
}

// expandRange computes start + i·delta in the element type, one rounding per
// element, as numpy.arange and ONNX Runtime do.
func expandRange(c *Ctx) {
	start, limit, delta := c.Tensor(0, "start"), c.Tensor(1, "limit"), c.Tensor(2, "delta")
	for _, t := range []*tensor.Tensor{start, limit, delta} {
		if t.Len() != 1 || t.DType != start.DType || !t.DType.IsNumeric() {
			c.Fail("start, limit and delta must be numbers of one type")
		}
	}
	if start.DType.IsInteger() {
		s, l, d := start.Int(0), limit.Int(0), delta.Int(0)
		if d == 0 {
			c.Fail("delta is 0")
		}
		size := c.rangeLen(steps(s, l, d))
		if c.lazy(size) {
			i := c.B.Mul(c.B.Iota(start.DType, 0, size), c.B.ScalarInt(start.DType, d))
			c.Out(0, c.B.Add(i, c.B.ScalarInt(start.DType, s)))
			return
		}
		out := tensor.New(start.DType, size)
		for i := range out.Len() {
			out.SetInt(i, s+int64(i)*d)
		}
		c.Out(0, c.B.Const(out))
		return
	}
	s, l, d := start.Float(0), limit.Float(0), delta.Float(0)
	if d == 0 {
		c.Fail("delta is 0")
	}
	size := c.rangeLen(math.Ceil((l - s) / d))
	if c.lazy(size) {
		i := c.B.Mul(c.B.Iota(tensor.F64, 0, size), c.B.Scalar(tensor.F64, d))
		c.Out(0, c.B.Cast(c.B.Add(i, c.B.Scalar(tensor.F64, s)), start.DType))
		return
	}
	out := tensor.New(start.DType, size)
	for i := range out.Len() {
		out.SetFloat(i, s+float64(i)*d)
	}
	c.Out(0, c.B.Const(out))
}

// steps is the number of elements of an integer range, exact as far as it is
// not absurd. The distance may be beyond int64.
func steps(start, limit, delta int64) float64 {
	far, by := uint64(limit)-uint64(start), uint64(delta)
	if delta < 0 {
		far, by, start, limit = -far, -by, limit, start
	}
	if limit <= start {
		return 0
	}
	n := far / by
	if far%by != 0 {
		n++
	}
	return float64(n)
}

// lazy reports whether a constant of n elements is better computed when the
// compiled model runs than kept: three numbers in a file may ask for gigabytes.
func (c *Ctx) lazy(n int) bool { return !c.Evaluating() && n > c.B.FoldLimit }

func (c *Ctx) rangeLen(n float64) int {
	if n != n || n > core.MaxEvaluated {
		c.Fail("a range of %v elements is beyond what is evaluated", n)
	}
	return int(max(n, 0))
}

// expandOneHot compares each index with the positions of the new axis; an
// index out of range gives only off values.
func expandOneHot(c *Ctx) {
	idx, values := c.In(0), c.In(2)
	dt := c.Tensor(1, "depth")
	if dt.Len() != 1 || !dt.DType.IsNumeric() || !idx.DType().IsNumeric() || values.Rank() != 1 || values.Static()[0] != 2 {
		c.Fail("depth must be one number and values two")
	}
	depth := int(dt.Int(0))
	if depth < 0 {
		c.Fail("depth is %d", depth)
	}
	axis := c.Axis(c.N.Int("axis", -1), idx.Rank()+1)
	idx = c.B.Cast(idx, tensor.I64)
	if c.Version >= 11 { // version 9 knows no negative indices
		idx = c.wrapIndex(idx, depth)
	}
	s := idx.Static()
	with := append(append(append([]int{}, s[:axis]...), 1), s[axis:]...)
	out := append([]int{}, with...)
	out[axis] = depth
	hit := c.B.Eq(c.B.Reshape(idx, with...), c.B.Iota(tensor.I64, axis, out...))
	off, on := c.scalarAt(values, 0), c.scalarAt(values, 1)
	c.Out(0, c.B.Where(hit, on, off))
}

// scalarAt is element i of a vector.
func (c *Ctx) scalarAt(v *ir.Value, i int) *ir.Value {
	return c.B.Reshape(c.B.SliceAxis(v, 0, i, 1))
}

// wrapIndex counts negative indices from the end of an axis.
func (c *Ctx) wrapIndex(idx *ir.Value, size int) *ir.Value {
	if t := idx.Const; t != nil {
		neg := false
		for i := range t.Len() {
			neg = neg || t.Int(i) < 0
		}
		if !neg {
			return idx
		}
	}
	return c.B.Where(c.B.Lt(idx, c.B.Like(idx, 0)), c.B.Add(idx, c.B.ScalarInt(idx.DType(), int64(size))), idx)
}
