package onnx

import (
	"slices"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// matmulOps contract two operands, or work on stacks of matrices.
var matmulOps = []Op{
	{Name: "MatMul", Since: []int{1, 9, 13}, Expand: func(c *Ctx) { c.Out(0, c.B.MatMul(c.In(0), c.In(1), tensor.Invalid)) }},
	{Name: "Gemm", Since: []int{1, 6, 7, 9, 11, 13}, Expand: func(c *Ctx) { c.Out(0, gemm(c)) }},
	{Name: "Einsum", Since: []int{12}, Expand: expandEinsum},
	{Name: "Det", Since: []int{11, 22}, Expand: func(c *Ctx) { c.Out(0, det(c, c.In(0))) }},
	{Domain: microsoft, Name: "FusedMatMul", Since: []int{1}, Expand: expandFusedMatMul},
}

// scaled multiplies by a constant factor, which integers take only if it is
// whole.
func scaled(c *Ctx, x *ir.Value, name string, by float64) *ir.Value {
	switch {
	case by == 1:
		return x
	case x.DType().IsInteger() && by != float64(int64(by)):
		c.Unsupported("%s=%v on %s", name, by, x.DType().ONNX())
	}
	return c.B.Mul(x, c.B.Like(x, by))
}

func gemm(c *Ctx) *ir.Value {
	a, b := c.In(0), c.In(1)
	if a.Rank() != 2 || b.Rank() != 2 {
		c.Fail("operands %s and %s are no matrices", a.Type, b.Type)
	}
	ka, kb := 1, 0
	if c.N.Int("transA", 0) != 0 {
		ka = 0
	}
	if c.N.Int("transB", 0) != 0 {
		kb = 1
	}
	y := c.B.Dot(a, b, nil, nil, []int{ka}, []int{kb}, sumType(a))
	y = scaled(c, y, "alpha", c.N.Float("alpha", 1))
	if bias := c.Opt(2); bias != nil {
		if beta := c.N.Float("beta", 1); beta != 0 {
			want := core.Shape(y)
			y = c.B.Add(y, scaled(c, c.B.Cast(bias, y.DType()), "beta", beta))
			if !slices.Equal(core.Shape(y), want) {
				c.Fail("C of shape %s does not broadcast to %s", tensor.ShapeString(core.Shape(bias)), tensor.ShapeString(want))
			}
		}
	}
	return c.B.Cast(y, a.DType())
}

func expandFusedMatMul(c *Ctx) {
	for _, name := range []string{"transBatchA", "transBatchB"} {
		if c.N.Int(name, 0) != 0 {
			c.Unsupported("%s=1", name)
		}
	}
	a, b := c.In(0), c.In(1)
	if c.N.Int("transA", 0) != 0 && a.Rank() > 1 {
		a = swapLast(c, a)
	}
	if c.N.Int("transB", 0) != 0 && b.Rank() > 1 {
		b = swapLast(c, b)
	}
	c.Out(0, c.B.Cast(scaled(c, c.B.MatMul(a, b, sumType(a)), "alpha", c.N.Float("alpha", 1)), a.DType()))
}

// swapLast transposes the last two axes.
func swapLast(c *Ctx, x *ir.Value) *ir.Value {
	perm := count(0, x.Rank())
	n := len(perm)
	perm[n-2], perm[n-1] = n-1, n-2
	return c.B.Transpose(x, perm...)
}

// count is lo, lo+1, …, hi-1.
func count(lo, hi int) []int {
	var v []int
	for i := lo; i < hi; i++ {
		v = append(v, i)
	}
	return v
}

// det eliminates column by column with partial pivoting, unrolled: the pivot
// row is picked by a mask, so that the whole batch goes at once.
func det(c *Ctx, x *ir.Value) *ir.Value {
	b := c.B
	s := core.Shape(x)
	r := len(s)
	if r < 2 || s[r-1] != s[r-2] {
		c.Fail("operand %s is no square matrix", x.Type)
	}
	batch, n := s[:r-2], s[r-1]
	x = b.Reshape(x, tensor.Numel(batch), n, n)
	result := b.BroadcastTo(b.Like(x, 1), tensor.Numel(batch), 1, 1)
	for m := n; m > 0; m-- {
		first := b.SliceAxis(x, 2, 0, 1) // [batch,m,1]
		at := b.ArgReduce("argmax", b.Abs(first), 1, false)
		isPivot := b.Eq(b.Iota(tensor.I64, 1, 1, m, 1), at)
		pivotRow := b.Reduce("reduce_sum", b.Where(isPivot, x, b.Like(x, 0)), true, 1)
		pivot := b.SliceAxis(pivotRow, 2, 0, 1)
		sign := b.Where(b.Eq(at, b.ScalarInt(tensor.I64, 0)), b.Like(x, 1), b.Like(x, -1))
		result = b.Mul(result, b.Mul(sign, pivot))
		if m == 1 {
			break
		}
		rest := b.SliceAxis(b.Where(isPivot, b.SliceAxis(x, 1, 0, 1), x), 1, 1, m-1)
		zero := b.Eq(pivot, b.Like(x, 0))
		factor := b.Div(b.SliceAxis(rest, 2, 0, 1), b.Where(zero, b.Like(x, 1), pivot))
		x = b.Sub(b.SliceAxis(rest, 2, 1, m-1), b.Mul(factor, b.SliceAxis(pivotRow, 2, 1, m-1)))
	}
	return b.Reshape(result, batch...)
}
