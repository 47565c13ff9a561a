package core

import (
	"fmt"
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// movementOps copy elements to other places; none computes.
var movementOps = []*Op{
	{Name: "reshape", Doc: "attribute shape: the same elements, row-major, in another shape", Class: Movement, Infer: inferReshape, Eval: evalReshape},
	{Name: "transpose", Doc: "attribute perm: output axis i is input axis perm[i]", Class: Movement, Infer: inferTranspose, Eval: evalMove},
	{Name: "broadcast", Doc: "attribute shape, of the same rank: axes of size 1 repeat", Class: Movement, Infer: inferBroadcast, Eval: evalMove},
	{Name: "slice", Doc: "attributes starts, sizes, steps: output index i reads starts+i·steps; steps may be negative", Class: Movement, Infer: inferSlice, Eval: evalMove},
	{Name: "pad", Doc: "operands x and a scalar; attributes lo, hi: the scalar around x", Class: Movement, Infer: inferPad, Eval: evalPad},
	{Name: "concat", Doc: "attribute axis", Class: Movement, Infer: inferConcat, Eval: evalConcat},
}

func inferReshape(n *ir.Node) ([]ir.Type, error) {
	s := n.Ints("shape")
	if _, err := tensor.Count(s); err != nil {
		return nil, err
	}
	x := shapeOf(n.Inputs[0])
	if tensor.Numel(s) != tensor.Numel(x) {
		return nil, fmt.Errorf("%s has %d elements, %s has %d", tensor.ShapeString(x), tensor.Numel(x), tensor.ShapeString(s), tensor.Numel(s))
	}
	return []ir.Type{ir.TensorType(n.Inputs[0].DType(), s...)}, nil
}

func evalReshape(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	return []*tensor.Tensor{in[0].Reshaped(n.Ints("shape")...)}, nil
}

func inferTranspose(n *ir.Node) ([]ir.Type, error) {
	x, perm := shapeOf(n.Inputs[0]), n.Ints("perm")
	seen := make([]bool, len(x))
	out := make([]int, len(x))
	if len(perm) != len(x) {
		return nil, fmt.Errorf("perm %v for rank %d", perm, len(x))
	}
	for i, p := range perm {
		if p < 0 || p >= len(x) || seen[p] {
			return nil, fmt.Errorf("perm %v is no permutation of %d axes", perm, len(x))
		}
		seen[p] = true
		out[i] = x[p]
	}
	return []ir.Type{ir.TensorType(n.Inputs[0].DType(), out...)}, nil
}

func inferBroadcast(n *ir.Node) ([]ir.Type, error) {
	x, s := shapeOf(n.Inputs[0]), n.Ints("shape")
	bad := len(s) != len(x)
	for i := 0; !bad && i < len(s); i++ {
		bad = x[i] != s[i] && x[i] != 1
	}
	if bad {
		return nil, fmt.Errorf("%s does not broadcast to %s", tensor.ShapeString(x), tensor.ShapeString(s))
	}
	if _, err := tensor.Count(s); err != nil {
		return nil, err
	}
	return []ir.Type{ir.TensorType(n.Inputs[0].DType(), s...)}, nil
}

func inferSlice(n *ir.Node) ([]ir.Type, error) {
	x := shapeOf(n.Inputs[0])
	st, sz, sp := n.Ints("starts"), n.Ints("sizes"), n.Ints("steps")
	if len(st) != len(x) || len(sz) != len(x) || len(sp) != len(x) {
		return nil, fmt.Errorf("starts %v, sizes %v, steps %v for rank %d", st, sz, sp, len(x))
	}
	for i := range x {
		last := st[i] + (sz[i]-1)*sp[i]
		if sz[i] < 0 || sz[i] > 0 && (st[i] < 0 || st[i] >= x[i] || last < 0 || last >= x[i]) {
			return nil, fmt.Errorf("axis %d of size %d has no elements %d, %d, … %d", i, x[i], st[i], st[i]+sp[i], last)
		}
	}
	return []ir.Type{ir.TensorType(n.Inputs[0].DType(), sz...)}, nil
}

func strides(shape []int) []int {
	s := make([]int, len(shape))
	k := 1
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = k
		k *= shape[i]
	}
	return s
}

// evalMove runs the ops that are a change of strides: a base offset and one
// stride per output axis.
func evalMove(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	x := in[0]
	st := strides(x.Shape)
	base := 0
	var shape, step []int
	switch n.Op {
	case "transpose":
		for _, p := range n.Ints("perm") {
			shape = append(shape, x.Shape[p])
			step = append(step, st[p])
		}
	case "broadcast":
		shape = n.Ints("shape")
		for i, d := range x.Shape {
			if d == 1 {
				st[i] = 0
			}
		}
		step = st
	case "slice":
		shape = n.Ints("sizes")
		starts, steps := n.Ints("starts"), n.Ints("steps")
		for i := range shape {
			base += starts[i] * st[i]
			step = append(step, steps[i]*st[i])
		}
	}
	return []*tensor.Tensor{strided(x, shape, step, base)}, nil
}

// strided gathers the elements at base + Σ index·step.
func strided(x *tensor.Tensor, shape, step []int, base int) *tensor.Tensor {
	out := tensor.New(x.DType, shape...)
	n := out.Len()
	if n == 0 {
		return out
	}
	src := make([]int, 0, n)
	idx := make([]int, len(shape))
	at := base
	for range n {
		src = append(src, at)
		for a := len(shape) - 1; a >= 0; a-- {
			idx[a]++
			at += step[a]
			if idx[a] < shape[a] {
				break
			}
			at -= idx[a] * step[a]
			idx[a] = 0
		}
	}
	pick(x, out, src)
	return out
}

// pick sets out[i] = x[src[i]].
func pick(x, out *tensor.Tensor, src []int) {
	switch s := x.DType.Size(); {
	case x.DType == tensor.String:
		for i, j := range src {
			out.Strings()[i] = x.Strings()[j]
		}
	case s == 4:
		pickAs[uint32](x, out, src)
	case s == 8:
		pickAs[uint64](x, out, src)
	case s == 2:
		pickAs[uint16](x, out, src)
	case s == 1:
		pickAs[uint8](x, out, src)
	case s == 16: // complex128
		for i, j := range src {
			copy(out.Bytes()[i*s:(i+1)*s], x.Bytes()[j*s:(j+1)*s])
		}
	case s == 0 && x.DType.IsInteger():
		for i, j := range src {
			out.SetInt(i, x.Int(j))
		}
	default:
		for i, j := range src {
			out.SetFloat(i, x.Float(j))
		}
	}
}

func pickAs[T tensor.Native](x, out *tensor.Tensor, src []int) {
	a, o := tensor.As[T](x), tensor.As[T](out)
	for i, j := range src {
		o[i] = a[j]
	}
}

func inferPad(n *ir.Node) ([]ir.Type, error) {
	x, lo, hi := shapeOf(n.Inputs[0]), n.Ints("lo"), n.Ints("hi")
	if len(n.Inputs) != 2 || n.Inputs[1].Rank() != 0 || n.Inputs[1].DType() != n.Inputs[0].DType() {
		return nil, fmt.Errorf("needs a tensor and a scalar of its type")
	}
	if len(lo) != len(x) || len(hi) != len(x) {
		return nil, fmt.Errorf("pads %v, %v for rank %d", lo, hi, len(x))
	}
	out := slices.Clone(x)
	for i := range out {
		if lo[i] < 0 || hi[i] < 0 {
			return nil, fmt.Errorf("negative pads %v, %v", lo, hi)
		}
		out[i] += lo[i] + hi[i]
	}
	if _, err := tensor.Count(out); err != nil {
		return nil, err
	}
	return []ir.Type{ir.TensorType(n.Inputs[0].DType(), out...)}, nil
}

func evalPad(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	x, lo := in[0], n.Ints("lo")
	types, err := inferPad(n)
	if err != nil {
		return nil, err
	}
	shape, _ := types[0].Static()
	out := tensor.New(x.DType, shape...)
	pick(in[1], out, make([]int, out.Len())) // all from the scalar
	place(out, x, lo)
	return []*tensor.Tensor{out}, nil
}

// place copies x into out with its corner at the given index.
func place(out, x *tensor.Tensor, corner []int) {
	if x.Len() == 0 {
		return
	}
	if len(x.Shape) == 0 {
		pick(x, out, []int{0})
		return
	}
	so := strides(out.Shape)
	row := x.Shape[len(x.Shape)-1]
	idx := make([]int, len(x.Shape))
	for at := 0; at < x.Len(); at += row {
		to := 0
		for a := range idx {
			to += (idx[a] + corner[a]) * so[a]
		}
		copyRun(out, to, x, at, row)
		for a := len(idx) - 2; a >= 0; a-- {
			if idx[a]++; idx[a] < x.Shape[a] {
				break
			}
			idx[a] = 0
		}
	}
}

func copyRun(dst *tensor.Tensor, to int, src *tensor.Tensor, from, n int) {
	if s := dst.DType.Size(); s > 0 {
		copy(dst.Bytes()[to*s:(to+n)*s], src.Bytes()[from*s:(from+n)*s])
		return
	}
	for i := range n {
		switch {
		case dst.DType == tensor.String:
			dst.Strings()[to+i] = src.Strings()[from+i]
		case dst.DType.IsInteger():
			dst.SetInt(to+i, src.Int(from+i))
		default:
			dst.SetFloat(to+i, src.Float(from+i))
		}
	}
}

func inferConcat(n *ir.Node) ([]ir.Type, error) {
	if len(n.Inputs) == 0 {
		return nil, fmt.Errorf("nothing to concatenate")
	}
	axis := n.Int("axis", 0)
	out := slices.Clone(shapeOf(n.Inputs[0]))
	if axis < 0 || axis >= len(out) {
		return nil, fmt.Errorf("axis %d of rank %d", axis, len(out))
	}
	out[axis] = 0
	for _, v := range n.Inputs {
		s := shapeOf(v)
		if len(s) != len(out) || v.DType() != n.Inputs[0].DType() {
			return nil, fmt.Errorf("operands %s and %s do not fit", n.Inputs[0].Type, v.Type)
		}
		for i := range s {
			if i != axis && s[i] != out[i] {
				return nil, fmt.Errorf("operands %s and %s differ beside axis %d", n.Inputs[0].Type, v.Type, axis)
			}
		}
		out[axis] += s[axis]
	}
	return []ir.Type{ir.TensorType(n.Inputs[0].DType(), out...)}, nil
}

func evalConcat(n *ir.Node, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	types, err := inferConcat(n)
	if err != nil {
		return nil, err
	}
	shape, _ := types[0].Static()
	out := tensor.New(in[0].DType, shape...)
	corner := make([]int, len(shape))
	axis := n.Int("axis", 0)
	for _, x := range in {
		place(out, x, corner)
		corner[axis] += x.Shape[axis]
	}
	return []*tensor.Tensor{out}, nil
}
