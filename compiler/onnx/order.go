package onnx

import (
	"slices"
	"sort"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// orderOps depend on the order of elements.
var orderOps = []Op{
	{Name: "TopK", Since: []int{1, 10, 11, 24}, Expand: expandTopK},
	{Name: "NonZero", Since: []int{9, 13}, Expand: expandNonZero},
	{Name: "Unique", Since: []int{11}, Expand: expandUnique},
}

// expandTopK sorts and keeps the head. Without sorted=1 the order is free, so
// the sorted one is right as well.
func expandTopK(c *Ctx) {
	x := c.In(0)
	k := c.N.Int("k", -1)
	if c.Version >= 10 {
		ks := c.Ints(1, "k")
		if len(ks) != 1 {
			c.Fail("k has %d elements", len(ks))
		}
		k = ks[0]
	}
	axis := c.Axis(c.N.Int("axis", -1), x.Rank())
	if n := x.Static()[axis]; k < 0 || k > n {
		c.Fail("k is %d, the axis has %d elements", k, n)
	}
	v, at := c.B.Sort(x, axis, c.N.Int("largest", 1) == 1)
	c.Out(0, c.B.SliceAxis(v, axis, 0, k))
	c.Out(1, c.B.SliceAxis(at, axis, 0, k))
}

func expandNonZero(c *Ctx) {
	x := c.Tensor(0, "the input, which decides the output shape,")
	if x.DType.Kind() == tensor.KindComplex {
		c.Unsupported("an input of %s", x.DType.ONNX())
	}
	var hits []int
	for i := range x.Len() {
		if isNonZero(x, i) {
			hits = append(hits, i)
		}
	}
	// A scalar has no coordinates: the result is [0, N], unlike numpy's.
	out := tensor.New(tensor.I64, len(x.Shape), len(hits))
	st := rowStrides(x.Shape)
	for j, h := range hits {
		for a := range x.Shape {
			out.SetInt(a*len(hits)+j, int64(h/st[a]%x.Shape[a]))
		}
	}
	c.Out(0, c.B.Const(out))
}

func isNonZero(x *tensor.Tensor, i int) bool {
	switch {
	case x.DType == tensor.String:
		return x.Strings()[i] != ""
	case x.DType.IsFloat():
		return x.Float(i) != 0
	}
	return x.Int(i) != 0
}

// expandUnique works on the slices along an axis, or on the single elements.
func expandUnique(c *Ctx) {
	x := c.Tensor(0, "the input, which decides the output shape,")
	if x.DType.Kind() == tensor.KindComplex {
		c.Unsupported("an input of %s", x.DType.ONNX())
	}
	axis := 0
	if _, ok := c.N.Attr("axis"); ok {
		axis = c.Axis(c.N.Int("axis", 0), len(x.Shape))
	} else {
		x = x.Reshaped(x.Len())
	}
	u := newUnique(x, axis)
	first, group := u.groups(c.N.Int("sorted", 1) == 1)
	inverse := tensor.New(tensor.I64, x.Shape[axis])
	count := tensor.New(tensor.I64, len(first))
	for i, g := range group {
		inverse.SetInt(i, int64(g))
		count.SetInt(g, count.Int(g)+1)
	}
	at := tensor.Of(ir.Int64s(first), len(first))
	c.Out(0, c.B.Gather(c.B.Const(x), axis, c.B.Const(at)))
	c.Out(1, c.B.Const(at))
	c.Out(2, c.B.Const(inverse))
	c.Out(3, c.B.Const(count))
}

// uniqueSlices compares the slices of a tensor along an axis.
type uniqueSlices struct {
	x                  *tensor.Tensor
	outer, size, inner int
}

func newUnique(x *tensor.Tensor, axis int) uniqueSlices {
	return uniqueSlices{x, tensor.Numel(x.Shape[:axis]), x.Shape[axis], tensor.Numel(x.Shape[axis+1:])}
}

// compare orders slices i and j by their elements in row-major order.
func (u uniqueSlices) compare(i, j int) int {
	for o := range u.outer {
		for k := range u.inner {
			if r := compareElements(u.x, (o*u.size+i)*u.inner+k, (o*u.size+j)*u.inner+k); r != 0 {
				return r
			}
		}
	}
	return 0
}

// groups gives the first slice of each group of equal ones, and each slice's
// group; groups are in order of value or of first occurrence.
func (u uniqueSlices) groups(sorted bool) (first, group []int) {
	order := make([]int, u.size)
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return u.compare(order[a], order[b]) < 0 })
	group = make([]int, u.size)
	for k, i := range order {
		if k == 0 || u.compare(order[k-1], i) != 0 {
			first = append(first, i)
		}
		group[i] = len(first) - 1
	}
	if sorted {
		return first, group
	}
	rank := make([]int, len(first))
	byFirst := slices.Clone(first)
	slices.Sort(byFirst)
	for g, i := range first {
		rank[g], _ = slices.BinarySearch(byFirst, i)
	}
	for i := range group {
		group[i] = rank[group[i]]
	}
	return byFirst, group
}

// compareElements orders two elements; NaN comes last, each by itself.
func compareElements(x *tensor.Tensor, i, j int) int {
	switch {
	case x.DType == tensor.String:
		return cmp3(x.Strings()[i], x.Strings()[j])
	case x.DType == tensor.U64:
		return cmp3(x.Uint(i), x.Uint(j))
	case x.DType.IsFloat():
		a, b := x.Float(i), x.Float(j)
		if a != a || b != b {
			if i == j {
				return 0
			}
			if a != a && b == b || a != a && i > j {
				return 1
			}
			return -1
		}
		return cmp3(a, b)
	}
	return cmp3(x.Int(i), x.Int(j))
}

func cmp3[T string | uint64 | float64 | int64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
