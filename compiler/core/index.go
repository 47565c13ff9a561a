package core

import (
	"fmt"
	"slices"
	"sort"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// indexOps read positions from data, or depend on the order of elements.
var indexOps = []*Op{
	{Name: "iota", Doc: "attributes shape, axis, to (element type): each element is its index along the axis", Class: Pointwise, Infer: inferIota, Eval: evalIota},
	{Name: "gather", Doc: "operands x and integer indices of any shape; attribute axis: that axis of x is replaced by the axes of the indices; a negative index counts from the end", Class: Indexed, Infer: inferGather, Eval: evalGather},
	{Name: "scatter", Doc: "operands x[N,…], integer indices [M], updates [M,…]; attribute op (set, add, mul, max, min): row i of updates is combined into row indices[i] of x, in order; a negative index counts from the end", Class: Ordered, Infer: inferScatter, Eval: evalScatter},
	{Name: "cumulate", Doc: "attributes op (sum, prod), axis, exclusive, reverse: running sums or products", Class: Ordered, Infer: inferSame, Eval: evalCumulate},
	{Name: "sort", Doc: "attributes axis, descending: values and int64 positions, equal ones in order of position", Class: Ordered, Infer: inferSort, Eval: evalSort},
}

func inferIota(n *ir.Node) ([]ir.Type, error) {
	d, err := castTarget(n)
	if err != nil {
		return nil, err
	}
	if !d.IsNumeric() && d != tensor.Bool {
		return nil, fmt.Errorf("not defined for %s", d.ONNX())
	}
	s := n.Ints("shape")
	if _, err := tensor.Count(s); err != nil {
		return nil, err
	}
	if a := n.Int("axis", 0); a < 0 || a >= len(s) {
		return nil, fmt.Errorf("axis %d of rank %d", a, len(s))
	}
	return []ir.Type{ir.TensorType(d, s...)}, nil
}

func evalIota(n *ir.Node, _ []*tensor.Tensor) ([]*tensor.Tensor, error) {
	types, err := inferIota(n)
	if err != nil {
		return nil, err
	}
	shape, _ := types[0].Static()
	out := tensor.New(types[0].DType, shape...)
	axis := n.Int("axis", 0)
	st := strides(shape)[axis]
	for i := range out.Len() {
		out.SetInt(i, int64(i/st%shape[axis]))
	}
	return []*tensor.Tensor{out}, nil
}

func inferGather(n *ir.Node) ([]ir.Type, error) {
	if len(n.Inputs) != 2 || !n.Inputs[1].DType().IsInteger() {
		return nil, fmt.Errorf("needs a tensor and integer indices")
	}
	x, idx := shapeOf(n.Inputs[0]), shapeOf(n.Inputs[1])
	a := n.Int("axis", 0)
	if a < 0 || a >= len(x) {
		return nil, fmt.Errorf("axis %d of rank %d", a, len(x))
	}
	s := slices.Concat(x[:a], idx, x[a+1:])
	if _, err := tensor.Count(s); err != nil {
		return nil, err
	}
	return []ir.Type{ir.TensorType(n.Inputs[0].DType(), s...)}, nil
}

// position resolves a possibly negative index.
func position(t *tensor.Tensor, i, size int) (int, error) {
	p := int(t.Int(i))
	if p < 0 {
		p += size
	}
	if p < 0 || p >= size {
		return 0, fmt.Errorf("index %d is outside an axis of size %d", t.Int(i), size)
	}
	return p, nil
}

func evalGather(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	x, idx := in[0], in[1]
	types, err := inferGather(n)
	if err != nil {
		return nil, err
	}
	shape, _ := types[0].Static()
	out := tensor.New(x.DType, shape...)
	a := n.Int("axis", 0)
	outer, size, inner := tensor.Numel(x.Shape[:a]), x.Shape[a], tensor.Numel(x.Shape[a+1:])
	m := idx.Len()
	if inner == 0 || outer == 0 {
		return []*tensor.Tensor{out}, nil
	}
	for j := range m {
		p, err := position(idx, j, size)
		if err != nil {
			return nil, err
		}
		for o := range outer {
			copyRun(out, (o*m+j)*inner, x, (o*size+p)*inner, inner)
		}
	}
	return []*tensor.Tensor{out}, nil
}

func inferScatter(n *ir.Node) ([]ir.Type, error) {
	if len(n.Inputs) != 3 || !n.Inputs[1].DType().IsInteger() || n.Inputs[0].DType() != n.Inputs[2].DType() {
		return nil, fmt.Errorf("needs a tensor, integer indices and updates of the tensor's type")
	}
	x, idx, up := shapeOf(n.Inputs[0]), shapeOf(n.Inputs[1]), shapeOf(n.Inputs[2])
	if len(x) < 1 || len(idx) != 1 || len(up) != len(x) || up[0] != idx[0] || !slices.Equal(up[1:], x[1:]) {
		return nil, fmt.Errorf("operands %s, %s, %s do not fit", n.Inputs[0].Type, n.Inputs[1].Type, n.Inputs[2].Type)
	}
	if d := n.Inputs[0].DType(); n.Str("op", "set") != "set" && !d.IsNumeric() {
		return nil, fmt.Errorf("combining is not defined for %s", d.ONNX())
	}
	switch n.Str("op", "set") {
	case "set", "add", "mul", "max", "min":
	default:
		return nil, fmt.Errorf("unknown combination %q", n.Str("op", ""))
	}
	return []ir.Type{n.Inputs[0].Type}, nil
}

func evalScatter(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	out, idx, up := in[0].Clone(), in[1], in[2]
	if up.Len() == 0 {
		return []*tensor.Tensor{out}, nil
	}
	row := tensor.Numel(out.Shape[1:])
	op := n.Str("op", "set")
	var s *Scalar
	if op != "set" {
		s = Lookup(op).Scalar
	}
	for j := range idx.Len() {
		p, err := position(idx, j, out.Shape[0])
		if err != nil {
			return nil, err
		}
		if s == nil {
			copyRun(out, p*row, up, j*row, row)
			continue
		}
		for i := range row {
			to, from := p*row+i, j*row+i
			switch {
			case out.DType.IsFloat():
				out.SetFloat(to, s.F2(out.Float(to), up.Float(from)))
			case out.DType == tensor.U64 && s.U2 != nil:
				out.SetInt(to, int64(s.U2(out.Uint(to), up.Uint(from))))
			default:
				out.SetInt(to, s.I2(out.Int(to), up.Int(from)))
			}
		}
	}
	return []*tensor.Tensor{out}, nil
}

func inferSame(n *ir.Node) ([]ir.Type, error) {
	if a := n.Int("axis", 0); a < 0 || a >= n.Inputs[0].Rank() {
		return nil, fmt.Errorf("axis %d of rank %d", a, n.Inputs[0].Rank())
	}
	if !n.Inputs[0].DType().IsNumeric() {
		return nil, fmt.Errorf("not defined for %s", n.Inputs[0].DType().ONNX())
	}
	return []ir.Type{n.Inputs[0].Type}, nil
}

func evalCumulate(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	x := in[0]
	out := tensor.New(x.DType, x.Shape...)
	axis := n.Int("axis", 0)
	prod, excl, rev := n.Str("op", "sum") == "prod", n.Int("exclusive", 0) == 1, n.Int("reverse", 0) == 1
	size, st := x.Shape[axis], strides(x.Shape)[axis]
	if x.Len() == 0 {
		return []*tensor.Tensor{out}, nil
	}
	for line := range x.Len() / size {
		base := line/st*st*size + line%st
		fa, ia := 0.0, int64(0)
		if prod {
			fa, ia = 1, 1
		}
		for k := range size {
			if rev {
				k = size - 1 - k
			}
			i := base + k*st
			if excl {
				store(out, i, fa, ia)
			}
			switch {
			case x.DType.IsFloat() && prod:
				fa *= x.Float(i)
			case x.DType.IsFloat():
				fa += x.Float(i)
			case prod:
				ia *= x.Int(i)
			default:
				ia += x.Int(i)
			}
			if !excl {
				store(out, i, fa, ia)
			}
		}
	}
	return []*tensor.Tensor{out}, nil
}

func store(t *tensor.Tensor, i int, f float64, n int64) {
	if t.DType.IsFloat() {
		t.SetFloat(i, f)
		return
	}
	t.SetInt(i, n)
}

func inferSort(n *ir.Node) ([]ir.Type, error) {
	t, err := inferSame(n)
	if err != nil {
		return nil, err
	}
	return []ir.Type{t[0], ir.TensorType(tensor.I64, shapeOf(n.Inputs[0])...)}, nil
}

func evalSort(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	x := in[0]
	axis, desc := n.Int("axis", 0), n.Int("descending", 0) == 1
	vals, pos := tensor.New(x.DType, x.Shape...), tensor.New(tensor.I64, x.Shape...)
	if x.Len() == 0 {
		return []*tensor.Tensor{vals, pos}, nil
	}
	size, st := x.Shape[axis], strides(x.Shape)[axis]
	src := make([]int, x.Len())
	perm := make([]int, size)
	for line := range x.Len() / size {
		base := line/st*st*size + line%st
		for k := range perm {
			perm[k] = k
		}
		sort.SliceStable(perm, func(a, b int) bool {
			c := order(x, base+perm[a]*st, base+perm[b]*st)
			return c < 0 && !desc || c > 0 && desc
		})
		for k, p := range perm {
			src[base+k*st] = base + p*st
			pos.SetInt(base+k*st, int64(p))
		}
	}
	pick(x, vals, src)
	return []*tensor.Tensor{vals, pos}, nil
}
