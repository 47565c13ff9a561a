package core

import (
	"fmt"
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// reduceOps fold axes to size 1 (a reshape drops them). Sums and products of
// floats run in float64 and are rounded once.
var reduceOps = []*Op{
	{Name: "reduce_sum", Doc: "attribute axes: their sum, kept as size 1", Class: Reduction, Infer: inferReduce, Eval: evalReduce},
	{Name: "reduce_prod", Doc: "attribute axes: their product, kept as size 1", Class: Reduction, Infer: inferReduce, Eval: evalReduce},
	{Name: "reduce_max", Doc: "attribute axes: their maximum (of nothing: the type's least value), kept as size 1", Class: Reduction, Infer: inferReduce, Eval: evalReduce},
	{Name: "reduce_min", Doc: "attribute axes: their minimum (of nothing: the type's greatest value), kept as size 1", Class: Reduction, Infer: inferReduce, Eval: evalReduce},
	{Name: "argmax", Doc: "attributes axis, last: where the maximum is (the first, or the last of equals), int64, kept as size 1", Class: Reduction, Infer: inferArg, Eval: evalArg},
	{Name: "argmin", Doc: "attributes axis, last: where the minimum is (the first, or the last of equals), int64, kept as size 1", Class: Reduction, Infer: inferArg, Eval: evalArg},
}

func inferReduce(n *ir.Node) ([]ir.Type, error) {
	out := slices.Clone(shapeOf(n.Inputs[0]))
	for _, a := range n.Ints("axes") {
		if a < 0 || a >= len(out) {
			return nil, fmt.Errorf("axis %d of rank %d", a, len(out))
		}
		out[a] = 1
	}
	d := n.Inputs[0].DType()
	if !d.IsNumeric() && d != tensor.Bool {
		return nil, fmt.Errorf("not defined for %s", d.ONNX())
	}
	return []ir.Type{ir.TensorType(d, out...)}, nil
}

// Identity is what a reduction of nothing gives.
func Identity(op string, d tensor.DType) *tensor.Tensor {
	t := tensor.New(d)
	lo, hi := int64(0), uint64(1)
	if d.IsInteger() {
		lo, hi = d.IntRange()
	}
	switch {
	case op == "reduce_prod":
		t.SetInt(0, 1)
	case op == "reduce_max" && d.IsFloat():
		t.SetFloat(0, math.Inf(-1))
	case op == "reduce_min" && d.IsFloat():
		t.SetFloat(0, math.Inf(1))
	case op == "reduce_max":
		t.SetInt(0, lo)
	case op == "reduce_min":
		t.SetInt(0, int64(hi))
	}
	return t
}

func evalReduce(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	x := in[0]
	types, err := inferReduce(n)
	if err != nil {
		return nil, err
	}
	shape, _ := types[0].Static()
	out := tensor.New(x.DType, shape...)
	to := targets(x.Shape, shape)
	if x.DType.IsFloat() {
		acc := make([]float64, out.Len())
		init := Identity(n.Op, tensor.F64).Float(0)
		for i := range acc {
			acc[i] = init
		}
		fold := map[string]func(a, b float64) float64{
			"reduce_sum":  func(a, b float64) float64 { return a + b },
			"reduce_prod": func(a, b float64) float64 { return a * b },
			"reduce_max":  maxF, "reduce_min": minF,
		}[n.Op]
		for i, j := range to {
			acc[j] = fold(acc[j], x.Float(i))
		}
		for i, v := range acc {
			out.SetFloat(i, v)
		}
		return []*tensor.Tensor{out}, nil
	}
	acc := make([]int64, out.Len())
	init := Identity(n.Op, x.DType).Int(0)
	for i := range acc {
		acc[i] = init
	}
	less := func(a, b int64) bool { return a < b }
	if x.DType == tensor.U64 {
		less = func(a, b int64) bool { return uint64(a) < uint64(b) }
	}
	for i, j := range to {
		v := x.Int(i)
		switch n.Op {
		case "reduce_sum":
			acc[j] += v
		case "reduce_prod":
			acc[j] *= v
		case "reduce_max":
			if less(acc[j], v) {
				acc[j] = v
			}
		case "reduce_min":
			if less(v, acc[j]) {
				acc[j] = v
			}
		}
	}
	for i, v := range acc {
		out.SetInt(i, v)
	}
	return []*tensor.Tensor{out}, nil
}

// targets gives, for each element of shape x, its element of shape out, where
// axes of size 1 in out are folded.
func targets(x, out []int) []int {
	st := strides(out)
	for i := range st {
		if out[i] == 1 {
			st[i] = 0
		}
	}
	n := tensor.Numel(x)
	to := make([]int, n)
	idx := make([]int, len(x))
	at := 0
	for i := range n {
		to[i] = at
		for a := len(x) - 1; a >= 0; a-- {
			idx[a]++
			at += st[a]
			if idx[a] < x[a] {
				break
			}
			at -= idx[a] * st[a]
			idx[a] = 0
		}
	}
	return to
}

func inferArg(n *ir.Node) ([]ir.Type, error) {
	out := slices.Clone(shapeOf(n.Inputs[0]))
	a := n.Int("axis", 0)
	if a < 0 || a >= len(out) {
		return nil, fmt.Errorf("axis %d of rank %d", a, len(out))
	}
	if out[a] == 0 {
		return nil, fmt.Errorf("axis %d is empty", a)
	}
	if d := n.Inputs[0].DType(); !d.IsNumeric() && d != tensor.Bool {
		return nil, fmt.Errorf("not defined for %s", d.ONNX())
	}
	out[a] = 1
	return []ir.Type{ir.TensorType(tensor.I64, out...)}, nil
}

func evalArg(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	x := in[0]
	axis, last := n.Int("axis", 0), n.Int("last", 0) == 1
	types, err := inferArg(n)
	if err != nil {
		return nil, err
	}
	shape, _ := types[0].Static()
	out := tensor.New(tensor.I64, shape...)
	o := tensor.As[int64](out)
	best := make([]int, len(o)) // element of x that leads
	for i := range best {
		best[i] = -1
	}
	st := strides(x.Shape)[axis]
	for i, j := range targets(x.Shape, shape) {
		b := best[j]
		if b >= 0 {
			c := order(x, i, b)
			if n.Op == "argmin" {
				c = -c
			}
			if c < 0 || c == 0 && !last {
				continue
			}
		}
		best[j] = i
		o[j] = int64(i / st % x.Shape[axis])
	}
	return []*tensor.Tensor{out}, nil
}

// order compares elements i and j: -1, 0 or 1.
func order(x *tensor.Tensor, i, j int) int {
	switch {
	case x.DType.IsFloat():
		a, b := x.Float(i), x.Float(j)
		switch {
		case a < b:
			return -1
		case a > b:
			return 1
		}
		return 0
	case x.DType == tensor.U64:
		a, b := x.Uint(i), x.Uint(j)
		switch {
		case a < b:
			return -1
		case a > b:
			return 1
		}
		return 0
	}
	a, b := x.Int(i), x.Int(j)
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
